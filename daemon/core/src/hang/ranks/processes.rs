//! Which process is each rank of a job.
//!
//! Several processes may have one rank's number: helpers that make no calls, attempts of a launcher that starts its ranks anew,
//! jobs of one name. Attempts follow each other in time, and the last one is judged. Of processes that make calls at the same
//! time nothing in a capture says which belong together.
//!
//! What always holds: calls of two processes are never taken for those of one rank.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stallscope_schemas::record::{RecordKind, device_kind};
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, ThreadId, TimeNs};

use crate::capture::{Capture, ReadAt, Tables};
use crate::report::rank_of;

/// The process that is a rank.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) rank: u32,
    pub(super) world: Option<u32>,
    /// Its threads that were followed.
    pub(super) threads: Vec<ThreadId>,
    /// Those of its helpers.
    pub(super) helpers: Vec<ThreadId>,
    pub(super) end: TimeNs,
}

/// The ranks of one job on one host, which have one clock.
#[derive(Debug)]
pub(super) struct Seats {
    /// By rank.
    pub(super) seats: Vec<Seat>,
    /// A rank of which several processes made calls at the same time.
    pub(super) mixed: Option<u32>,
}

/// A process that was followed.
#[derive(Debug)]
struct Followed {
    threads: Vec<ThreadId>,
    from: TimeNs,
    end: TimeNs,
    /// It made a collective call.
    calls: bool,
}

/// Processes of one rank that make calls at the same time, of which it is said that they do.
const MAX_AT_ONCE: usize = 64;

/// What was followed of a job: processes by rank.
type Members = BTreeMap<u32, Vec<ProcessId>>;

/// The ranks of each job.
pub(super) fn jobs<S: ReadAt>(capture: &Capture<S>) -> Vec<Seats> {
    let tables = capture.tables();
    let followed = followed(capture);
    let ranks = ranks_of_processes(tables);
    let mut jobs: BTreeMap<(SourceId, &str), Members> = BTreeMap::new();
    for &process in followed.keys() {
        let (Some(&rank), Some(of)) = (ranks.get(&process), tables.process(process)) else { continue };
        let job = jobs.entry((of.source, of.job.as_str())).or_default();
        job.entry(rank).or_default().push(process);
    }
    let job = Job { tables, followed: &followed, roots: roots(tables) };
    jobs.into_values().map(|members| job.seats(&members)).collect()
}

fn followed<S: ReadAt>(capture: &Capture<S>) -> BTreeMap<ProcessId, Followed> {
    let calling: BTreeSet<u32> = capture.keys(RecordKind::CollectiveCall).into_iter().collect();
    let mut all: BTreeMap<ProcessId, Followed> = BTreeMap::new();
    for key in capture.keys(RecordKind::ThreadSpan) {
        let thread = ThreadId(key);
        let Some(process) = capture.tables().thread(thread).map(|of| of.process) else { continue };
        let Some((from, end)) = capture.extent(RecordKind::ThreadSpan, key) else { continue };
        let of =
            all.entry(process).or_insert_with(|| Followed { threads: Vec::new(), from, end, calls: false });
        of.threads.push(thread);
        (of.from, of.end) = (of.from.min(from), of.end.max(end));
        of.calls |= calling.contains(&key);
    }
    all
}

/// Processes that are a rank's, with it.
pub(in crate::hang) fn ranks_of_processes(tables: &Tables) -> HashMap<ProcessId, u32> {
    let mut all = HashMap::new();
    for (number, device) in (0u32..).zip(tables.devices()) {
        if let Some(rank) = rank_of(DeviceId(number), tables) {
            all.extend(device.processes.iter().map(|&process| (process, rank)));
        }
    }
    let own = (0u32..).zip(tables.processes()).filter_map(|(n, p)| Some((ProcessId(n), p.rank?)));
    all.extend(own);
    all
}

/// The process that each helper works for.
fn roots(tables: &Tables) -> HashMap<ProcessId, ProcessId> {
    let mut all = HashMap::new();
    let has_rank = |process: &&ProcessId| tables.process(**process).is_some_and(|of| of.rank.is_some());
    // A rank's own list of processes says more than who uses a GPU.
    for is_cpu in [false, true] {
        for device in tables.devices().iter().filter(|of| (of.kind == device_kind::CPU) == is_cpu) {
            let Some(&root) = device.processes.iter().find(has_rank) else { continue };
            let helpers = device.processes.iter().filter(|process| is_cpu || !has_rank(process));
            all.extend(helpers.map(|&process| (process, root)));
        }
    }
    all
}

struct Job<'a> {
    tables: &'a Tables,
    followed: &'a BTreeMap<ProcessId, Followed>,
    roots: HashMap<ProcessId, ProcessId>,
}

/// Of the processes that may be a rank, those that are.
struct Latest {
    processes: Vec<ProcessId>,
    /// Others were before them.
    is_anew: bool,
}

impl Job<'_> {
    fn root(&self, process: ProcessId) -> ProcessId {
        self.roots.get(&process).copied().unwrap_or(process)
    }

    fn of(&self, process: ProcessId) -> Option<&Followed> {
        self.followed.get(&process)
    }

    fn calls(&self, process: ProcessId) -> bool {
        self.of(process).is_some_and(|of| of.calls)
    }

    fn seats(&self, members: &Members) -> Seats {
        let latest: BTreeMap<u32, Latest> =
            members.iter().map(|(&rank, processes)| (rank, self.latest(processes))).collect();
        // Whoever ended before others were started anew was of the attempt before.
        let starts = latest.values().filter(|of| of.is_anew).flat_map(|of| &of.processes);
        let anew = starts.filter_map(|&process| Some(self.of(process)?.from)).min();
        let mut all = Seats { seats: Vec::new(), mixed: None };
        for (rank, of_rank) in latest {
            if of_rank.processes.len() > 1 {
                all.mixed = all.mixed.or(Some(rank));
            }
            let beside = members.get(&rank).map(Vec::as_slice).unwrap_or_default();
            let seats = of_rank.processes.iter().filter_map(|&process| self.seat(rank, process, beside));
            all.seats.extend(seats.filter(|seat| anew.is_none_or(|anew| seat.end > anew)));
        }
        all
    }

    /// Which of a rank's processes are it: one, unless several make calls at the same time.
    fn latest(&self, processes: &[ProcessId]) -> Latest {
        let mut by_root: BTreeMap<ProcessId, Vec<ProcessId>> = BTreeMap::new();
        for &process in processes {
            by_root.entry(self.root(process)).or_default().push(process);
        }
        let mut may: Vec<(TimeNs, ProcessId)> = Vec::new();
        for (root, family) in by_root {
            let any_calls = family.iter().any(|&process| self.calls(process));
            let quiet = if family.contains(&root) { Some(root) } else { family.first().copied() };
            let of_family = family.iter().copied().filter(|&process| match any_calls {
                true => self.calls(process),
                false => Some(process) == quiet,
            });
            may.extend(of_family.filter_map(|process| Some((self.of(process)?.from, process))));
        }
        may.sort_unstable();
        let last_began = may.last().map(|(from, _)| *from);
        let is_over = |process: ProcessId, from: TimeNs| {
            let end = self.of(process).map(|of| of.end);
            end.zip(last_began).is_some_and(|(end, last)| from < last && end <= last)
        };
        let all = may.len();
        may.retain(|&(from, process)| !is_over(process, from));
        let is_anew = may.len() < all;
        let mut processes: Vec<ProcessId> = may.into_iter().map(|(_, process)| process).collect();
        if processes.iter().any(|&process| self.calls(process)) {
            processes.retain(|&process| self.calls(process));
            processes.truncate(MAX_AT_ONCE);
        } else {
            processes.truncate(1);
        }
        Latest { processes, is_anew }
    }

    fn seat(&self, rank: u32, process: ProcessId, beside: &[ProcessId]) -> Option<Seat> {
        let of = self.of(process)?;
        let root = self.root(process);
        let family = || beside.iter().copied().filter(|&other| self.root(other) == root);
        let world = |process: ProcessId| self.tables.process(process)?.world_size;
        let helpers = family().filter(|&other| other != process && !self.calls(other));
        Some(Seat {
            rank,
            world: world(process).or_else(|| family().find_map(world)).or_else(|| world(root)),
            threads: of.threads.clone(),
            helpers: helpers.filter_map(|other| self.of(other)).flat_map(|of| of.threads.clone()).collect(),
            end: of.end,
        })
    }
}
