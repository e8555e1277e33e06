//! Who arrives last at collectives: calls of several ranks of one host matched with each other.
//!
//! Nobody leaves an all-reduce, all-gather, reduce-scatter, all-to-all or barrier before all have entered. So of matching
//! calls the one that begins last ends the waiting of the others: rank `r` waits `L − s_r` for the last begin `L`. Ranks of one
//! host share a clock, so that no error bound is needed; those of different hosts, or of different jobs, are not compared.
//!
//! Both were level when the last rank came to the call before. From then on to its own coming a rank was `i` inside of calls
//! and `o` outside; of what `r` waits for the last one `q`, the share `max(0, i_q − i_r)` of `max(0, i_q − i_r) + max(0, o_q −
//! o_r)` is not `q`'s doing: a transfer, or somebody else, `held` it (docs/late-ranks.md has the same for GPUs). Of that, what it waited
//! for another late rank in an operation with a root is that one's doing.
//!
//! What comes after `L` is transfer, `e_r − L`, where all ranks of the communicator were seen; what it takes beyond its best, the
//! 5th percentile of all ranks' transfers of the same function and size (the least of fewer than 20), is slow.
//!
//! `matching` says which calls are one operation, `sums` adds up what they come to.

mod matching;
mod sums;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};
use stallscope_schemas::units::{DeviceId, SourceId, StringId, TimeNs};

use super::CpuLedger;
use crate::capture::{Capture, ReadAt, Tables};
use crate::collectives::Operation;
use crate::rows::CollectiveCall;

/// Calls of one rank on one communicator that are looked at.
const MAX_CALLS: usize = 1 << 18;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    start: TimeNs,
    end: TimeNs,
    operation: CollectiveOp,
    name: StringId,
    bytes: u64,
    /// Position of the thread among those of its rank.
    thread: usize,
    /// Whether its rank is the root of the operation, where it has one and that is known.
    is_root: Option<bool>,
    /// Its number among the calls of its process on the communicator; 0 where unknown.
    sequence: u64,
}

/// The position of a ledger in place of a device.
pub(crate) fn position(ledger: usize) -> DeviceId {
    DeviceId(u32::try_from(ledger).unwrap_or(u32::MAX))
}

/// What is known of one rank's arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Position of the rank's ledger.
    pub ledger: usize,
    /// The function in which the others waited most for it.
    pub name: StringId,
    /// Calls of that, in which one could wait for another.
    pub calls: u64,
    /// Of these, those in which it was the last to begin.
    pub last: u64,
    /// Time that the others waited for it by its own doing, summed over them, ns.
    pub caused_ns: u64,
    /// Of that, what the one waited that waited longest, call by call, ns.
    pub longest_ns: u64,
    /// Time that it waited for others, ns.
    pub waited_ns: u64,
    /// Of that, for those that were held in other calls, ns.
    pub held_ns: u64,
    /// Time in calls after the last rank had come, ns.
    pub moved_ns: u64,
    /// Of that, what was beyond the best, ns.
    pub slow_ns: u64,
}

/// Matched calls of one communicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The function in which most was waited.
    pub name: StringId,
    /// Calls of it that could be matched on all of the ranks, and in which one could wait for another.
    pub calls: u64,
    /// The ranks.
    pub ranks: Vec<Arrival>,
    /// By the positions of the ledgers of a late rank and of one that waited: for how long, by the late one's own doing, ns.
    pub waited_for: BTreeMap<(usize, usize), u64>,
    /// The matched calls, with positions of ledgers in place of devices; none where they are too many.
    pub(crate) operations: Vec<Operation>,
}

impl Arrivals {
    fn waited_ns(&self) -> u64 {
        self.ranks.iter().fold(0u64, |sum, rank| sum.saturating_add(rank.caused_ns))
    }
}

/// The calls of one rank on one communicator, by their begin.
#[derive(Default)]
struct OfGroup {
    /// Those that nobody leaves before all have entered.
    together: Vec<Mark>,
    /// Those with a root.
    rooted: Vec<Mark>,
    /// Ranks of the communicator; 0 where unknown.
    size: u64,
    /// Which of them this one is, where known.
    rank: Option<u32>,
}

/// Calls of each rank on each communicator.
type ByGroup = BTreeMap<(CollectiveLibrary, StringId), OfGroup>;

/// One rank's calls.
struct Calls {
    /// Position of its ledger.
    ledger: usize,
    groups: ByGroup,
    /// When each thread was in calls.
    inside: Vec<Inside>,
}

/// When a thread was in a call of whatever kind.
#[derive(Debug, Default)]
struct Inside {
    /// Begin and end, in order, none of which overlap, and how long those before it took together, ns.
    spans: Vec<(TimeNs, TimeNs, u64)>,
}

impl Inside {
    /// Adds a call behind all others; calls of two libraries may lie in each other.
    fn add(&mut self, start: TimeNs, end: TimeNs) {
        let (last, before_ns) =
            self.spans.last().map_or((start, 0), |&(from, to, ns)| (to, ns.saturating_add(to.since(from))));
        let from = start.max(last);
        if self.spans.len() < MAX_CALLS && end > from {
            self.spans.push((from, end, before_ns));
        }
    }

    /// How long it was in calls before a moment, ns.
    fn before(&self, moment: TimeNs) -> u64 {
        let begun = self.spans.partition_point(|(from, ..)| *from < moment);
        let last = begun.checked_sub(1).and_then(|at| self.spans.get(at));
        last.map_or(0, |&(from, to, before_ns)| before_ns.saturating_add(moment.min(to).since(from)))
    }
}

/// The calls of one rank on one communicator, with the position of its ledger.
type Sequence<'a> = (usize, &'a OfGroup);

/// Clock and job of ranks: those that differ in either are not compared.
type Origin<'a> = (&'a str, SourceId, &'a str);

fn origin<'a>(ledger: &CpuLedger, tables: &'a Tables) -> Option<(Origin<'a>, u64)> {
    let process = tables.process(*tables.device(ledger.device)?.processes.first()?)?;
    let world = process.world_size.map_or(0, u64::from);
    Some(((process.host.as_str(), process.source, process.job.as_str()), world))
}

/// Matches the calls of the ranks of each job on each host: of each, those of the communicator with the most waiting.
pub fn arrivals<S: ReadAt>(capture: &Capture<S>, ledgers: &[CpuLedger]) -> Vec<Arrivals> {
    let mut jobs: BTreeMap<Origin<'_>, (u64, Vec<Calls>)> = BTreeMap::new();
    for (at, ledger) in ledgers.iter().enumerate() {
        if let Some((origin, ranks)) = origin(ledger, capture.tables()) {
            let (world, of_job) = jobs.entry(origin).or_default();
            *world = ranks.max(*world);
            of_job.push(calls(capture, at, ledger));
        }
    }
    jobs.values().filter_map(|(world, ranks)| of_job(ranks, *world)).collect()
}

/// The communicator with the most waiting, of the ranks of one job, which has as many ranks as `world`, or nobody knows how many.
fn of_job(ranks: &[Calls], world: u64) -> Option<Arrivals> {
    let inside: BTreeMap<usize, &[Inside]> =
        ranks.iter().map(|of| (of.ledger, of.inside.as_slice())).collect();
    let all = matching::sequences(ranks);
    let all = all.into_iter().flat_map(|of_name| matching::matched(of_name, world, &inside));
    all.min_by_key(|arrivals| (Reverse(arrivals.waited_ns()), arrivals.name))
}

fn is_synchronising(operation: CollectiveOp) -> bool {
    matches!(
        operation,
        CollectiveOp::AllReduce
            | CollectiveOp::AllGather
            | CollectiveOp::ReduceScatter
            | CollectiveOp::AllToAll
            | CollectiveOp::Barrier
    )
}

fn calls<S: ReadAt>(capture: &Capture<S>, at: usize, ledger: &CpuLedger) -> Calls {
    let mut groups = ByGroup::new();
    let mut inside = Vec::new();
    for (number, thread) in ledger.threads.iter().enumerate() {
        let mut spans = Inside::default();
        let mut open: BTreeMap<CollectiveLibrary, TimeNs> = BTreeMap::new();
        for call in capture.rows::<CollectiveCall>(thread.thread.0) {
            let end = call.start.plus(call.duration_ns);
            // MPI_Allreduce may call PMPI_Allreduce: of one library the outermost counts.
            let until = open.entry(call.library).or_insert(TimeNs(i64::MIN));
            if call.start < *until {
                continue;
            }
            *until = end;
            spans.add(call.start, end);
            let has_root = call.operation.has_root();
            let counts = has_root || is_synchronising(call.operation);
            if counts && call.flags & (call_flags::ASYNC | call_flags::OPEN) == 0 {
                let of_group = groups.entry((call.library, call.group)).or_default();
                of_group.size = of_group.size.max(call.group_size);
                of_group.rank = call.rank.or(of_group.rank);
                let marks = if has_root { &mut of_group.rooted } else { &mut of_group.together };
                if marks.len() < MAX_CALLS {
                    let CollectiveCall { start, operation, name, bytes, rank, peer, sequence, .. } = call;
                    let is_root = rank.zip(peer).filter(|_| has_root).map(|(rank, root)| rank == root);
                    marks.push(Mark {
                        start,
                        end,
                        operation,
                        name,
                        bytes,
                        thread: number,
                        is_root,
                        sequence,
                    });
                }
            }
        }
        inside.push(spans);
    }
    for OfGroup { together, rooted, .. } in groups.values_mut() {
        together.sort_by_key(|mark| mark.start);
        rooted.sort_by_key(|mark| mark.start);
    }
    // Nothing is matched by calls with a root alone, and nobody else is in a group of one.
    let is_own = |name: StringId| capture.tables().string(name).contains("MPI_COMM_SELF");
    groups.retain(|&(_, name), of| !of.together.is_empty() && of.size != 1 && !is_own(name));
    Calls { ledger: at, groups, inside }
}

#[cfg(test)]
mod tests;
