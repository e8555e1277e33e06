//! Whether files are the dumps of one job.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::dump::Dump;
use super::malformed;
use crate::ImportError;

/// Ranks of a job that hangs fall silent within a watchdog's patience; runs of one job follow each other further apart.
const SAME_RUN_NS: i64 = 120_000_000_000;
/// Impossible orders that show different runs where a dump has no times.
const CONTRADICTIONS: usize = 2;

/// What the files so far have in common.
#[derive(Debug, Default)]
pub(super) struct Job {
    seen: BTreeMap<u32, Seen>,
    world: Vec<u32>,
}

/// One dump that was looked at.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    version: String,
    last_ns: Option<i64>,
    /// Groups that were only used for collectives, as far as the dump shows.
    groups: BTreeMap<(String, Vec<u32>), Progress>,
}

/// How far a rank had come in a group.
#[derive(Clone, Copy, Debug)]
struct Progress {
    enqueued: u64,
    completed: u64,
    /// Whether calls in the dump show that the numbers count collectives.
    collectives: bool,
    transfers: bool,
}

/// The rank that a dump is of.
///
/// # Errors
/// [`ImportError::Malformed`] where neither the dump nor its name says it.
pub(super) fn rank_of(path: &Path, dump: &Dump<'_>) -> Result<u32, ImportError> {
    let named = number_at_end(path);
    // Two ranks whose groups are all the same are told apart by the names of their files.
    let member = |rank: &u32| dump.world().is_none_or(|world| world.ranks.contains(rank));
    dump.rank().or_else(|| named.filter(member)).ok_or_else(|| {
        let reason = match named {
            Some(rank) => format!("its name ends in {rank}, which is no rank of its own groups"),
            None => "neither its groups nor its name (_dump_0, nccl_trace_rank_0) say which rank it is of"
                .to_owned(),
        };
        malformed(path, reason)
    })
}

/// The number at the end of a file's name, before what follows a dot.
fn number_at_end(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let stem = name.split_once(".").map_or(name.as_str(), |(stem, _)| stem);
    let number_of = |text: &str| {
        let digits = text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        text.get(text.len() - digits..)?.parse().ok()
    };
    // `trace.rank3` has its number behind the dot.
    number_of(stem).or_else(|| number_of(&name))
}

fn foreign(path: &Path, reason: String) -> ImportError {
    ImportError::NotOneJob { path: path.to_owned(), reason }
}

impl Job {
    /// Ranks of the job, as far as its groups say.
    pub(super) fn world_size(&self) -> Option<u32> {
        u32::try_from(self.world.len()).ok().filter(|&size| size > 0)
    }

    /// Adds a dump.
    ///
    /// # Errors
    /// [`ImportError::NotOneJob`] where it is of a rank that was there before, or of another job or run.
    pub(super) fn check(&mut self, path: &Path, dump: &Dump<'_>) -> Result<(), ImportError> {
        let rank = rank_of(path, dump)?;
        if let Some(other) = self.seen.get(&rank) {
            let reason =
                format!("it is of rank {rank}, as {} is; keep the one of this run", other.path.display());
            return Err(foreign(path, reason));
        }
        let seen = Seen::of(path, dump);
        let world = dump.world().map_or_else(Vec::new, |world| {
            let mut ranks = world.ranks.clone();
            ranks.sort_unstable();
            ranks.dedup();
            ranks
        });
        for other in self.seen.values() {
            if other.version != seen.version {
                let reason = format!(
                    "it is of another job than {}: their versions are {} and {}",
                    other.path.display(),
                    seen.version,
                    other.version
                );
                return Err(foreign(path, reason));
            }
            if other.is_of_another_run(&seen) || seen.is_of_another_run(other) {
                let reason = format!(
                    "it is of another run than {}: one of them has ended collectives that the other had not begun",
                    other.path.display()
                );
                return Err(foreign(path, reason));
            }
        }
        if !world.is_empty() && !self.world.is_empty() && world != self.world {
            let other = self.seen.values().next().map_or_else(String::new, |o| o.path.display().to_string());
            let reason = format!(
                "it is of another job than {other}: they have {} and {} ranks",
                world.len(),
                self.world.len()
            );
            return Err(foreign(path, reason));
        }
        if self.world.is_empty() {
            self.world = world;
        }
        self.seen.insert(rank, seen);
        Ok(())
    }
}

impl Seen {
    fn of(path: &Path, dump: &Dump<'_>) -> Self {
        let groups = dump.groups.iter().filter_map(|group| {
            let (enqueued, completed) = (group.status.enqueued?, group.status.completed?);
            let calls = || dump.calls.iter().filter(|call| call.group == group.name);
            let progress = Progress {
                enqueued,
                completed,
                collectives: calls().any(|call| !call.peer_to_peer),
                transfers: calls().any(|call| call.peer_to_peer),
            };
            Some(((group.name.to_string(), group.ranks.clone()), progress))
        });
        Self {
            path: path.to_owned(),
            version: dump.version.to_owned(),
            last_ns: dump.calls.iter().filter_map(|call| call.created_ns).max(),
            groups: groups.collect(),
        }
    }

    /// Whether this rank has ended collectives that another one, a member of the same group, had not begun.
    fn is_of_another_run(&self, other: &Self) -> bool {
        let needed = match (self.last_ns, other.last_ns) {
            (Some(a), Some(b)) if a.saturating_sub(b).saturating_abs() <= SAME_RUN_NS => return false,
            (Some(_), Some(_)) => 1,
            _ => CONTRADICTIONS,
        };
        let contradicts = |(group, own): (&(String, Vec<u32>), &Progress)| {
            other.groups.get(group).is_some_and(|others| {
                let transfers = own.transfers || others.transfers;
                let collectives = own.collectives || others.collectives;
                collectives && !transfers && own.completed > others.enqueued
            })
        };
        self.groups.iter().filter(|entry| contradicts(*entry)).count() >= needed
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::number_at_end;

    #[test]
    fn ranks_are_read_from_the_ends_of_names() {
        let number = |name: &str| number_at_end(Path::new(name));
        assert_eq!(number("/tmp/_dump_12"), Some(12));
        assert_eq!(number("nccl_trace_rank_3"), Some(3));
        assert_eq!(number("trace_7.json"), Some(7));
        assert_eq!(number("host2.rank5"), Some(2));
        assert_eq!(number("trace.rank5"), Some(5));
        assert_eq!(number("dump"), None);
        assert_eq!(number("dump_99999999999"), None);
    }
}
