//! Who arrives last at collectives: calls of several ranks of one host matched with each other.
//!
//! Nobody leaves an all-reduce, all-gather, reduce-scatter, all-to-all or barrier before all have entered. So of matching
//! calls the one that begins last ends the waiting of the others: rank `r` waits `min(L, e_r) − s_r` for the last begin
//! `L`. Ranks of one host share a clock, so that no error bound is needed; ranks of other hosts are left out.
//!
//! Both were level when the last rank came to the call before. From then on to its own coming a rank was `i` inside of calls
//! and `o` outside; of what `r` waits for the last one `q`, the share `max(0, i_q − i_r)` of `max(0, i_q − i_r) + max(0, o_q −
//! o_r)` is not `q`'s doing: a transfer, or somebody else, `held` it (docs/late-ranks.md has the same for GPUs).
//!
//! What comes after `L` is transfer, `max(0, e_r − L)`; what it takes beyond its best, the 5th percentile of all ranks' transfers of the
//! same function and size (the least of fewer than 20), is slow.
//!
//! Calls on one communicator come in the same order on every rank, but a recording begins in the middle, not everywhere
//! at the same call. So sequences are shifted against each other until matching calls overlap in time and end together.
//!
//! Of an operation with a root it is known who waits for whom where the calls say who is the root: nobody leaves a broadcast or
//! scatter before the root has come, and the root leaves no reduction or gather before the last one has. Such calls may be over on
//! one rank before they begin on another, so they are matched by their order between two matched calls that all enter together.

use std::collections::BTreeMap;

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};
use stallscope_schemas::units::{DeviceId, StringId, TimeNs};

use super::CpuLedger;
use crate::capture::{Capture, ReadAt};
use crate::collectives::{Came, Operation};
use crate::rows::CollectiveCall;

/// Calls of one rank on one communicator that are looked at.
const MAX_CALLS: usize = 1 << 18;
/// Calls by which sequences may be shifted against each other.
const MAX_SHIFT: isize = 64;
/// Pairs that a shift is judged by.
const JUDGED: usize = 512;
/// Share of pairs that have to agree, in percent: a call or two may be cut or lost.
const AGREE_PERCENT: usize = 80;

/// Calls times ranks up to which they are kept for a simulation, 100 MB.
const MAX_KEPT: usize = 1 << 22;

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
    /// Calls of the function in which most was waited, in which it was the last to begin.
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
    /// The matched calls, with positions of ledgers in place of devices; none where they are too many.
    pub(crate) operations: Vec<Operation>,
}

/// The calls of one rank on one communicator, by their begin.
#[derive(Default)]
struct OfGroup {
    /// Those that nobody leaves before all have entered.
    together: Vec<Mark>,
    /// Those with a root.
    rooted: Vec<Mark>,
}

/// Calls of each rank on each communicator.
type ByGroup = BTreeMap<(CollectiveLibrary, StringId), OfGroup>;

/// One rank's calls.
struct Calls {
    /// Position of its ledger.
    ledger: usize,
    groups: ByGroup,
    /// Of each thread: when it was in a call of whatever kind, in order.
    inside: Inside,
}

/// Calls of each thread of a rank, begin and end, none of which overlap.
type Inside = Vec<Vec<(TimeNs, TimeNs)>>;

/// The calls of one rank on one communicator, with the position of its ledger.
type Sequence<'a> = (usize, &'a OfGroup);

/// Matches the calls of several ranks, communicator by communicator; the one with the most waiting comes first.
pub fn arrivals<S: ReadAt>(capture: &Capture<S>, ledgers: &[CpuLedger]) -> Vec<Arrivals> {
    let tables = capture.tables();
    let host = |ledger: &CpuLedger| {
        let device = tables.device(ledger.device)?;
        device.processes.first().and_then(|&p| tables.process(p)).map(|p| (p.host.clone(), p.source))
    };
    let Some(first) = ledgers.first().and_then(host) else { return Vec::new() };
    let calls: Vec<Calls> = ledgers
        .iter()
        .enumerate()
        .filter(|(_, ledger)| host(ledger).as_ref() == Some(&first))
        .map(|(at, ledger)| calls(capture, at, ledger))
        .collect();
    let inside: BTreeMap<usize, &Inside> = calls.iter().map(|of| (of.ledger, &of.inside)).collect();
    let mut all: Vec<Arrivals> =
        sequences(&calls).iter().filter_map(|ranks| matched(ranks, &inside)).collect();
    let waited = |a: &Arrivals| a.ranks.iter().fold(0u64, |sum, r| sum.saturating_add(r.caused_ns));
    all.sort_by_key(|a| (std::cmp::Reverse(waited(a)), a.name));
    all
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
    let mut inside = Inside::new();
    for (number, thread) in ledger.threads.iter().enumerate() {
        let mut spans = Vec::new();
        let mut open: BTreeMap<CollectiveLibrary, TimeNs> = BTreeMap::new();
        for call in capture.rows::<CollectiveCall>(thread.thread.0) {
            let end = call.start.plus(call.duration_ns);
            // MPI_Allreduce may call PMPI_Allreduce: of one library the outermost counts.
            let until = open.entry(call.library).or_insert(TimeNs(i64::MIN));
            if call.start < *until {
                continue;
            }
            *until = end;
            // Calls of two libraries may lie in each other.
            let from = spans.last().map_or(call.start, |&(_, last)| call.start.max(last));
            if spans.len() < MAX_CALLS && end > from {
                spans.push((from, end));
            }
            let has_root = call.operation.has_root();
            let counts = has_root || is_synchronising(call.operation);
            if counts && call.flags & (call_flags::ASYNC | call_flags::OPEN) == 0 {
                let of_group = groups.entry((call.library, call.group)).or_default();
                let marks = if has_root { &mut of_group.rooted } else { &mut of_group.together };
                if marks.len() < MAX_CALLS {
                    let CollectiveCall { start, operation, name, bytes, rank, peer, .. } = call;
                    let is_root = rank.zip(peer).filter(|_| has_root).map(|(rank, root)| rank == root);
                    marks.push(Mark { start, end, operation, name, bytes, thread: number, is_root });
                }
            }
        }
        inside.push(spans);
    }
    for OfGroup { together, rooted } in groups.values_mut() {
        together.sort_by_key(|mark| mark.start);
        rooted.sort_by_key(|mark| mark.start);
    }
    // Nothing is matched by calls with a root alone.
    groups.retain(|_, of_group| !of_group.together.is_empty());
    Calls { ledger: at, groups, inside }
}

/// How long a thread was in calls between two moments, ns.
fn time_inside(calls: &[(TimeNs, TimeNs)], from: TimeNs, to: TimeNs) -> u64 {
    let first = calls.partition_point(|(_, end)| *end <= from);
    let within = calls.iter().skip(first).take_while(|(start, _)| *start < to);
    within.fold(0u64, |sum, &(start, end)| sum.saturating_add(end.min(to).since(start.max(from))))
}

/// What of a wait is not the doing of the last one `q`, which was so long inside of calls and outside since `r` was level
/// with it.
fn held(waited: u64, q: (u64, u64), r: (u64, u64)) -> u64 {
    let (inside, outside) = (q.0.saturating_sub(r.0), q.1.saturating_sub(r.1));
    let all = u128::from(inside) + u128::from(outside);
    let part = u128::from(waited) * u128::from(inside) / all.max(1);
    u64::try_from(part).unwrap_or(waited)
}

/// The 5th percentile; of fewer than 20 the least.
fn best(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() * 5 / 100).copied().unwrap_or(0)
}

/// Sequences that belong together: those on a communicator of the same name; where a library's names differ from rank to
/// rank (they may be addresses), those of ranks that use one communicator each.
fn sequences(ranks: &[Calls]) -> Vec<Vec<Sequence<'_>>> {
    let mut together: BTreeMap<(CollectiveLibrary, StringId), Vec<Sequence<'_>>> = BTreeMap::new();
    for Calls { ledger, groups, .. } in ranks {
        for (&key, marks) in groups {
            together.entry(key).or_default().push((*ledger, marks));
        }
    }
    let mut alone: BTreeMap<CollectiveLibrary, Vec<Sequence<'_>>> = BTreeMap::new();
    let mut out = Vec::new();
    for ((library, _), of_group) in together {
        if of_group.len() > 1 {
            out.push(of_group);
        } else {
            alone.entry(library).or_default().extend(of_group);
        }
    }
    for (_, of_library) in alone {
        let mut ranks: Vec<usize> = of_library.iter().map(|(rank, _)| *rank).collect();
        ranks.dedup();
        if ranks.len() > 1 && ranks.len() == of_library.len() {
            out.push(of_library);
        }
    }
    out
}

/// The shift of `other` against `of` under which their calls are the same ones.
fn shift(of: &[Mark], other: &[Mark]) -> Option<isize> {
    let mut best: Option<(u64, isize)> = None;
    for shift in -MAX_SHIFT..=MAX_SHIFT {
        let (mut pairs, mut agree, mut apart) = (0usize, 0usize, 0u64);
        for (mark, twin) in paired(of, other, shift).take(JUDGED) {
            pairs += 1;
            if mark.operation == twin.operation && mark.start <= twin.end && twin.start <= mark.end {
                agree += 1;
                apart = apart.saturating_add(mark.end.0.abs_diff(twin.end.0));
            }
        }
        if pairs == 0 || agree * 100 < pairs * AGREE_PERCENT {
            continue;
        }
        let apart = apart / agree.max(1) as u64;
        if best.is_none_or(|(least, _)| apart < least) {
            best = Some((apart, shift));
        }
    }
    best.map(|(_, shift)| shift)
}

fn paired<'a>(of: &'a [Mark], other: &'a [Mark], shift: isize) -> impl Iterator<Item = (&'a Mark, &'a Mark)> {
    let (skip, skip_other) = (shift.min(0).unsigned_abs(), shift.max(0).unsigned_abs());
    of.iter().skip(skip).zip(other.iter().skip(skip_other))
}

/// Of an operation with a root those that could not leave it before the last one of them had come: of a broadcast and a scatter
/// the root with those that came before it, of a reduction and a gather the last one with the root. None where there are no two,
/// it is not known who is the root, or one did leave: then these calls are not one operation.
fn dependent(mut calls: Vec<(usize, Mark)>) -> Option<Vec<(usize, Mark)>> {
    let mut roots = calls.iter().filter(|(_, mark)| mark.is_root != Some(false));
    let root = *roots.next().filter(|(_, root)| root.is_root == Some(true) && roots.next().is_none())?;
    match root.1.operation {
        CollectiveOp::Broadcast | CollectiveOp::Scatter => {
            calls.retain(|(_, mark)| mark.start <= root.1.start);
        }
        CollectiveOp::Reduce | CollectiveOp::Gather => {
            let last = *calls.iter().max_by_key(|(_, mark)| mark.start)?;
            calls = if last.0 == root.0 { Vec::new() } else { vec![root, last] };
        }
        _ => return None,
    }
    let last = calls.iter().map(|(_, mark)| mark.start).max()?;
    (calls.len() > 1 && calls.iter().all(|(_, mark)| mark.end >= last)).then_some(calls)
}

/// Adds up who was last, and what the transfers took.
fn matched(ranks: &[Sequence<'_>], inside: &BTreeMap<usize, &Inside>) -> Option<Arrivals> {
    let (reference, of) =
        *ranks.iter().max_by_key(|(rank, of)| (of.together.len(), std::cmp::Reverse(*rank)))?;
    let of = of.together.as_slice();
    let members: Vec<(Sequence<'_>, isize)> = ranks
        .iter()
        .filter_map(|&(rank, calls)| {
            let by = if rank == reference { 0 } else { shift(of, &calls.together)? };
            Some(((rank, calls), by))
        })
        .collect();
    if members.len() < 2 {
        return None;
    }
    let ledgers: Vec<usize> = members.iter().map(|((ledger, _), _)| *ledger).collect();
    let mut sums = Sums::new(ledgers, inside, of.len());
    let mut before: Option<Vec<Mark>> = None;
    for (at, mark) in of.iter().enumerate() {
        let twin = |&((_, calls), by): &(Sequence<'_>, isize)| {
            let twin = *calls.together.get(at.checked_add_signed(by)?)?;
            let same = twin.operation == mark.operation && twin.start <= mark.end && mark.start <= twin.end;
            same.then_some(twin)
        };
        let twins = members.iter().map(twin).collect::<Option<Vec<Mark>>>();
        if let Some((before, twins)) = before.as_ref().zip(twins.as_ref()) {
            let calls = members.iter().map(|((_, calls), _)| calls.rooted.as_slice());
            let between = calls.zip(before.iter().zip(twins)).map(|(rooted, (from, to))| {
                let first = rooted.partition_point(|mark| mark.start < from.end);
                let end = rooted.partition_point(|mark| mark.start < to.start);
                rooted.get(first..end).unwrap_or_default()
            });
            for calls in in_order(&between.collect::<Vec<_>>()) {
                if let Some(calls) = dependent(calls) {
                    sums.add(&calls);
                }
            }
        }
        if let Some(twins) = &twins {
            sums.add(&twins.iter().copied().enumerate().collect::<Vec<_>>());
        }
        before = twins;
    }
    sums.finish()
}

/// The calls with a root that all ranks made between two moments, one after the other; none where they differ in what they are.
fn in_order(ranks: &[&[Mark]]) -> Vec<Vec<(usize, Mark)>> {
    let Some((first, others)) = ranks.split_first() else { return Vec::new() };
    let is_same = |other: &&[Mark]| {
        let pairs = || first.iter().zip(*other);
        other.len() == first.len() && pairs().all(|(a, b)| (a.operation, a.name) == (b.operation, b.name))
    };
    if !others.iter().all(is_same) {
        return Vec::new();
    }
    let of =
        |at: usize| ranks.iter().enumerate().filter_map(|(rank, of)| Some((rank, *of.get(at)?))).collect();
    (0..first.len()).map(of).collect()
}

/// What the matched calls of a communicator come to.
struct Sums<'a> {
    inside: &'a BTreeMap<usize, &'a Inside>,
    seen: Vec<Arrival>,
    /// Until when each has waited: a rank may have several calls open at once (one for each bucket of gradients), and its time
    /// counts once.
    counted: Vec<TimeNs>,
    /// The same of transfers.
    moved: Vec<TimeNs>,
    /// By function: time waited by somebody's own doing, ns, and calls.
    names: BTreeMap<StringId, (u64, u64)>,
    /// Calls of a function for which a rank, by its position, was late.
    last: BTreeMap<(StringId, usize), u64>,
    /// Of each function and size: the transfers, with the position of the rank.
    transfers: BTreeMap<(StringId, u64), Vec<(usize, u64)>>,
    operations: Vec<Operation>,
    keeps: bool,
    /// When all were level.
    level: Option<TimeNs>,
}

impl<'a> Sums<'a> {
    fn new(ledgers: Vec<usize>, inside: &'a BTreeMap<usize, &'a Inside>, calls: usize) -> Self {
        let ranks = ledgers.len();
        Self {
            inside,
            seen: ledgers.into_iter().map(|ledger| Arrival { ledger, ..Arrival::default() }).collect(),
            counted: vec![TimeNs(i64::MIN); ranks],
            moved: vec![TimeNs(i64::MIN); ranks],
            names: BTreeMap::new(),
            last: BTreeMap::new(),
            transfers: BTreeMap::new(),
            operations: Vec::new(),
            keeps: calls.saturating_mul(ranks) <= MAX_KEPT,
            level: None,
        }
    }

    /// How long a rank was inside of calls and outside since all were level, until it came, ns.
    fn since(&self, (rank, mark): &(usize, Mark)) -> Option<(u64, u64)> {
        let level = self.level?;
        let calls = self.inside.get(&self.seen.get(*rank)?.ledger)?.get(mark.thread)?;
        let within = time_inside(calls, level, mark.start);
        Some((within, mark.start.since(level).saturating_sub(within)))
    }

    /// Adds an operation: the calls of those that could not leave it before the last one of them had come, with their positions.
    fn add(&mut self, calls: &[(usize, Mark)]) {
        let Some(last) = calls.iter().max_by_key(|(_, mark)| mark.start) else { return };
        let (begin, of_last) = (last.1.start, self.since(last));
        let held_of: Vec<Option<(u64, u64)>> = calls.iter().map(|call| self.since(call)).collect();
        // Where others took part, what follows may be waiting for them as well.
        let is_whole = calls.len() == self.seen.len();
        let (mut caused, mut longest) = (0u64, 0u64);
        for ((rank, mark), of_rank) in calls.iter().zip(held_of) {
            let slots = (self.seen.get_mut(*rank), self.counted.get_mut(*rank), self.moved.get_mut(*rank));
            let (Some(arrival), Some(counted), Some(moved)) = slots else { continue };
            let (from, end) = (mark.start.max(*counted), begin.min(mark.end));
            let waited = end.since(from);
            let held = of_last.zip(of_rank).map_or(0, |(q, r)| held(waited, q, r));
            arrival.waited_ns = arrival.waited_ns.saturating_add(waited);
            arrival.held_ns = arrival.held_ns.saturating_add(held);
            caused = caused.saturating_add(waited.saturating_sub(held));
            longest = longest.max(waited.saturating_sub(held));
            *counted = end.max(*counted);
            if is_whole {
                let of_size = self.transfers.entry((mark.name, mark.bytes)).or_default();
                of_size.push((*rank, mark.end.since(begin.max(*moved))));
                *moved = mark.end.max(*moved);
            }
        }
        let (waited, count) = self.names.entry(last.1.name).or_default();
        (*waited, *count) = (waited.saturating_add(caused), *count + 1);
        if is_whole {
            self.level = Some(begin);
        }
        if self.keeps {
            let device =
                |rank: usize| self.seen.get(rank).map_or(DeviceId(u32::MAX), |of| position(of.ledger));
            let came = calls.iter().map(|&(rank, mark)| Came {
                device: device(rank),
                at: mark.start,
                last_at: begin,
                end: mark.end,
            });
            let came = came.collect();
            self.operations.push(Operation { last: device(last.0), at: begin, came, before: None });
        }
        if let Some(arrival) = self.seen.get_mut(last.0).filter(|_| caused > 0) {
            *self.last.entry((last.1.name, last.0)).or_default() += 1;
            arrival.caused_ns = arrival.caused_ns.saturating_add(caused);
            arrival.longest_ns = arrival.longest_ns.saturating_add(longest);
        }
    }

    fn finish(mut self) -> Option<Arrivals> {
        for times in self.transfers.into_values() {
            let best = best(&mut times.iter().map(|(_, ns)| *ns).collect::<Vec<_>>());
            for (rank, ns) in times {
                let Some(arrival) = self.seen.get_mut(rank) else { continue };
                arrival.moved_ns = arrival.moved_ns.saturating_add(ns);
                arrival.slow_ns = arrival.slow_ns.saturating_add(ns.saturating_sub(best));
            }
        }
        let (name, (_, calls)) = self.names.into_iter().max_by_key(|(_, waited)| *waited)?;
        for (rank, arrival) in self.seen.iter_mut().enumerate() {
            arrival.last = self.last.get(&(name, rank)).copied().unwrap_or(0);
        }
        Some(Arrivals { name, calls, ranks: self.seen, operations: self.operations })
    }
}

#[cfg(test)]
mod tests;
