//! Several captures of one job, one a host, read as one.
//!
//! What always holds: captures that do not belong together are refused with the reason, not mixed; each device keeps its own
//! time and its ledger closes as in a capture of its own; where two hosts' clocks cannot be told apart from late ranks, time
//! is UNCERTAIN and a note says how much their clocks may be off.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::{RecordKind, collective, collective_call};
use stallscope_schemas::units::{DeviceId, SourceId, StringId, TimeNs};

use crate::capture::{Capture, ColumnSet, ReadAt, Run, Tables};
use crate::collectives::clocks::{Found, relate};
use crate::report::text::{duration, printable};
use crate::rows::{Collective, CollectiveCall, Row};

/// Rows of one capture that are asked for communicators.
const MAX_CALLS: usize = 1 << 20;
/// Ranks of a list that are written out.
const LISTED: usize = 12;

/// Why captures are not read together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They are of different jobs.
    #[error("{one} and {other} are captures of different jobs: {why}; give captures of one job, one a host")]
    DifferentJobs {
        /// Name of a capture.
        one: String,
        /// Name of another.
        other: String,
        /// What differs.
        why: String,
    },
    /// A rank is in two of them.
    #[error("{one} and {other} both hold rank {rank}: give each host's capture once, of one recording")]
    RankTwice {
        /// Name of a capture.
        one: String,
        /// Name of another.
        other: String,
        /// The rank.
        rank: u32,
    },
    /// They were not recorded at the same time.
    #[error(
        "{one} and {other} were not recorded at the same time: {apart} lie between them by the clocks of their hosts"
    )]
    Apart {
        /// Name of a capture.
        one: String,
        /// Name of another.
        other: String,
        /// Time between them, in words.
        apart: String,
    },
}

/// What a capture says of the job that it holds a part of.
#[derive(Debug, Default)]
struct Part {
    name: String,
    ranks: BTreeSet<u32>,
    jobs: BTreeSet<String>,
    worlds: BTreeSet<u32>,
    /// Names of communicators that mean the same on all hosts, with their size.
    groups: BTreeMap<String, u64>,
    window: Option<(TimeNs, TimeNs)>,
}

/// Reads captures of one job as one. The first of a pair is its name in messages.
///
/// # Errors
/// [`Refusal`] where they do not belong together.
pub fn merge<S: ReadAt>(captures: Vec<(String, Capture<S>)>) -> Result<Option<Capture<S>>, Refusal> {
    let parts: Vec<Part> = captures.iter().map(|(name, capture)| part(name, capture)).collect();
    for (at, other) in parts.iter().enumerate() {
        for one in parts.iter().take(at) {
            belong_together(one, other)?;
        }
    }
    let mut sources: Vec<(String, String)> = Vec::new();
    for (_, capture) in &captures {
        let of = capture.tables().sources();
        sources.extend(of.iter().map(|s| (s.format.clone(), capture.boot_id().to_owned())));
    }
    let hosts: Vec<String> = captures.iter().map(|(name, capture)| host(name, capture)).collect();
    let counts: Vec<usize> = captures.iter().map(|(_, capture)| capture.tables().sources().len()).collect();
    let host_of: Vec<String> =
        hosts.iter().zip(counts).flat_map(|(host, count)| std::iter::repeat_n(host.clone(), count)).collect();
    let several = captures.len() > 1;
    let Some(mut all) = Capture::join(captures.into_iter().map(|(_, capture)| capture).collect()) else {
        return Ok(None);
    };
    if several {
        one_name(&mut all, &parts);
        let same: BTreeMap<SourceId, String> = (0u32..)
            .map(SourceId)
            .zip(sources)
            .filter(|(_, (format, boot_id))| format == "recording" && !boot_id.is_empty())
            .map(|(source, (_, boot_id))| (source, boot_id))
            .collect();
        let devices: Vec<DeviceId> = all.keys(RecordKind::GpuOp).into_iter().map(DeviceId).collect();
        let found = relate(&all, &devices, &same);
        for note in clock_notes(&all, &devices, &found, &host_of).into_iter().chain(missing(&parts)) {
            all.add_note(note);
        }
        all.relate(found.into_iter().map(|found| found.relation).collect());
    }
    Ok(Some(all))
}

/// What people call where a capture comes from.
fn host<S: ReadAt>(name: &str, capture: &Capture<S>) -> String {
    if capture.host().is_empty() { name.to_owned() } else { capture.host().to_owned() }
}

fn part<S: ReadAt>(name: &str, capture: &Capture<S>) -> Part {
    let tables = capture.tables();
    let mut part = Part { name: name.to_owned(), ..Part::default() };
    for process in tables.processes() {
        let Some(rank) = process.rank else { continue };
        part.ranks.insert(rank);
        part.worlds.extend(process.world_size);
        if !process.job.is_empty() {
            part.jobs.insert(process.job.clone());
        }
    }
    let calls = [collective_call::GROUP, collective_call::GROUP_SIZE];
    groups_of::<S, CollectiveCall>(capture, calls, &mut part.groups);
    groups_of::<S, Collective>(capture, [collective::GROUP, collective::GROUP_SIZE], &mut part.groups);
    // Where a clock is not that of the calendar, when it was says nothing.
    if (0u32..).take(tables.sources().len()).all(|source| tables.clock(SourceId(source)).is_some()) {
        let batches = capture.batches();
        part.window = batches.iter().map(|b| b.min).min().zip(batches.iter().map(|b| b.max).max());
    }
    part
}

/// Names of communicators that calls or kernels give.
fn groups_of<S: ReadAt, R: Row>(
    capture: &Capture<S>,
    [group, size]: [u16; 2],
    into: &mut BTreeMap<String, u64>,
) {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut left = MAX_CALLS;
    for key in capture.keys(R::KIND) {
        let mut merged = capture.merged::<R>(key, ColumnSet::of(&[group, size]));
        while let Some(run) = merged.next_run().filter(|_| left > 0) {
            let Run::Rows(columns, range) = run else { continue };
            left = left.saturating_sub(range.len());
            let (groups, sizes) = (columns.column(group).get(range.clone()), columns.column(size).get(range));
            for (&group, &size) in groups.into_iter().flatten().zip(sizes.into_iter().flatten()) {
                let largest = seen.entry(group).or_default();
                *largest = size.max(*largest);
            }
        }
    }
    for (group, size) in seen {
        let name = u32::try_from(group).map_or("", |id| capture.tables().string(StringId(id)));
        // Only a hash is given by the library and is the same on all hosts; addresses and names that programs use are not
        // those of one job.
        if name.starts_with("nccl:") || name.starts_with("rccl:") {
            into.insert(name.to_owned(), size);
        }
    }
}

fn belong_together(one: &Part, other: &Part) -> Result<(), Refusal> {
    let names = || (one.name.clone(), other.name.clone());
    let differ = |why: String| {
        let (one, other) = names();
        Err(Refusal::DifferentJobs { one, other, why })
    };
    let list =
        |all: &BTreeSet<String>| printable(&all.iter().cloned().collect::<Vec<_>>().join(", ")).into_owned();
    let shared = one.groups.keys().any(|group| other.groups.contains_key(group));
    if !one.worlds.is_empty() && !other.worlds.is_empty() && one.worlds.is_disjoint(&other.worlds) {
        let sizes = |part: &Part| part.worlds.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        return differ(format!("one has {} ranks, the other {}", sizes(one), sizes(other)));
    }
    if !one.jobs.is_empty() && !other.jobs.is_empty() && one.jobs.is_disjoint(&other.jobs) && !shared {
        return differ(format!(
            "{} and {}, with no communicator in common",
            list(&one.jobs),
            list(&other.jobs)
        ));
    }
    // A communicator of all ranks is one on all hosts.
    let of_all = |part: &Part| {
        part.groups.values().any(|size| part.worlds.iter().any(|world| u64::from(*world) == *size))
    };
    if !shared && of_all(one) && of_all(other) {
        return differ("their communicators of all ranks are not the same".to_owned());
    }
    if let Some(&rank) = one.ranks.intersection(&other.ranks).next() {
        let (one, other) = names();
        return Err(Refusal::RankTwice { one, other, rank });
    }
    if let (Some((from, to)), Some((other_from, other_to))) = (one.window, other.window) {
        let apart = from.since(other_to).max(other_from.since(to));
        if apart > 0 {
            let (one, other) = names();
            return Err(Refusal::Apart { one, other, apart: duration(apart) });
        }
    }
    Ok(())
}

/// Hosts may call one job by different names.
fn one_name<S: ReadAt>(all: &mut Capture<S>, parts: &[Part]) {
    let single = |part: &Part| part.jobs.iter().next().filter(|_| part.jobs.len() == 1).cloned();
    let Some(name) = parts.first().and_then(single) else { return };
    for other in parts.iter().filter_map(single).filter(|other| *other != name) {
        all.rename_job(&other, &name);
    }
}

/// Ranks that nobody recorded.
fn missing(parts: &[Part]) -> Option<String> {
    let world = parts.iter().flat_map(|part| &part.worlds).max()?;
    let here = |rank: &u32| parts.iter().any(|part| part.ranks.contains(rank));
    let mut gone = (0..*world).filter(|rank| !here(rank));
    let listed: Vec<String> = gone.by_ref().take(LISTED).map(|rank| rank.to_string()).collect();
    let more = gone.count();
    let first = listed.first()?;
    let subject = match (listed.len(), more) {
        (1, _) => format!("rank {first} of {world} is"),
        (_, 0) => format!("ranks {} of {world} are", listed.join(", ")),
        _ => format!("ranks {} and {more} more of {world} are", listed.join(", ")),
    };
    Some(format!(
        "{subject} in none of the captures: time in which others waited for what is missing is not split"
    ))
}

/// What is known of the clocks, a sentence a source.
fn clock_notes<S: ReadAt>(
    all: &Capture<S>,
    devices: &[DeviceId],
    found: &[Found],
    host_of: &[String],
) -> Vec<String> {
    let tables: &Tables = all.tables();
    let host = |source: SourceId| {
        host_of.get(source.index()).map_or_else(String::new, |host| printable(host).into_owned())
    };
    let sources: BTreeSet<SourceId> =
        devices.iter().filter_map(|&d| Some(tables.device(d)?.source)).collect();
    let mut notes = Vec::new();
    for &source in &sources {
        let Some(found) = found.iter().find(|found| found.relation.source == source) else {
            notes.push(format!(
                "{} has no collectives in common with the other captures by which their clocks could be compared: its ranks \
                 are not compared with theirs",
                host(source)
            ));
            continue;
        };
        let moments = &found.relation.moments;
        let (Some(first), Some(last)) = (moments.first(), moments.last()) else { continue };
        let mut shifts: Vec<i64> = moments.iter().map(|moment| moment.shift_ns).collect();
        shifts.sort_unstable();
        let mut errors: Vec<u64> = moments.iter().map(|moment| moment.less_ns.max(moment.more_ns)).collect();
        errors.sort_unstable();
        let middle = shifts.get(shifts.len() / 2).copied().unwrap_or(0);
        let usual = errors.get(errors.len() / 2).copied().unwrap_or(0);
        let way = if middle < 0 { "ahead of" } else { "behind" };
        let by = duration(middle.unsigned_abs());
        let mut text =
            format!("the clock of {} is {by} {way} the common one, ± {}", host(source), duration(usual));
        if found.relation.steady {
            text =
                format!("{} was recorded on the host of another capture: they have one clock", host(source));
        } else if found.wild {
            text.push_str("; what its collectives say of it contradicts itself too often to be told better");
        } else if last.stretch > first.stretch {
            let times = last.stretch - first.stretch;
            text.push_str(&format!(
                "; it was set {times} time{} meanwhile",
                if times == 1 { "" } else { "s" }
            ));
        }
        notes.push(text);
    }
    notes
}
