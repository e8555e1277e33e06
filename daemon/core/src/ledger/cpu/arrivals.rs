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
    /// Calls in which it was the last to begin.
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
    /// The function that was called most.
    pub name: StringId,
    /// Calls that could be matched on all of the ranks.
    pub calls: u64,
    /// The ranks.
    pub ranks: Vec<Arrival>,
    /// The matched calls, with positions of ledgers in place of devices; none where they are too many.
    pub(crate) operations: Vec<Operation>,
}

/// Calls of each rank on each communicator.
type ByGroup = BTreeMap<(CollectiveLibrary, StringId), Vec<Mark>>;

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
type Sequence<'a> = (usize, &'a [Mark]);

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
            if is_synchronising(call.operation) && call.flags & (call_flags::ASYNC | call_flags::OPEN) == 0 {
                let marks = groups.entry((call.library, call.group)).or_default();
                if marks.len() < MAX_CALLS {
                    let CollectiveCall { start, operation, name, bytes, .. } = call;
                    marks.push(Mark { start, end, operation, name, bytes, thread: number });
                }
            }
        }
        inside.push(spans);
    }
    groups.values_mut().for_each(|marks| marks.sort_by_key(|m| m.start));
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

/// Adds up who was last, and what the transfers took.
fn matched(ranks: &[Sequence<'_>], inside: &BTreeMap<usize, &Inside>) -> Option<Arrivals> {
    let (reference, of) =
        *ranks.iter().max_by_key(|(rank, marks)| (marks.len(), std::cmp::Reverse(*rank)))?;
    let members: Vec<(usize, &[Mark], isize)> = ranks
        .iter()
        .filter_map(|&(rank, marks)| {
            let by = if rank == reference { 0 } else { shift(of, marks)? };
            Some((rank, marks, by))
        })
        .collect();
    if members.len() < 2 {
        return None;
    }
    let mut seen: Vec<Arrival> =
        members.iter().map(|&(ledger, ..)| Arrival { ledger, ..Arrival::default() }).collect();
    // A rank may have several calls open at once (one for each bucket of gradients): its time counts once.
    let mut counted = vec![TimeNs(i64::MIN); members.len()];
    let mut names: BTreeMap<StringId, u64> = BTreeMap::new();
    // Of each function and size: the transfers, with the position of the rank.
    let mut transfers: BTreeMap<(StringId, u64), Vec<(usize, u64)>> = BTreeMap::new();
    let mut moved = vec![TimeNs(i64::MIN); members.len()];
    let mut calls = 0;
    let keeps = of.len().saturating_mul(members.len()) <= MAX_KEPT;
    let mut operations = Vec::new();
    // When all were level.
    let mut level: Option<TimeNs> = None;
    for (at, mark) in of.iter().enumerate() {
        let twin = |&(_, marks, by): &(usize, &'_ [Mark], isize)| {
            let twin = *marks.get(at.checked_add_signed(by)?)?;
            let same = twin.operation == mark.operation && twin.start <= mark.end && mark.start <= twin.end;
            same.then_some(twin)
        };
        let Some(twins) = members.iter().map(twin).collect::<Option<Vec<Mark>>>() else { continue };
        let Some((last, begin)) = twins.iter().map(|m| m.start).enumerate().max_by_key(|(_, s)| *s) else {
            continue;
        };
        let since = |rank: usize| {
            let (twin, level) = (twins.get(rank)?, level?);
            let calls = inside.get(&members.get(rank)?.0)?.get(twin.thread)?;
            let within = time_inside(calls, level, twin.start);
            Some((within, twin.start.since(level).saturating_sub(within)))
        };
        let of_last = since(last);
        calls += 1;
        *names.entry(mark.name).or_default() += 1;
        let of_size = transfers.entry((mark.name, mark.bytes)).or_default();
        let (mut caused, mut longest) = (0u64, 0u64);
        let ranks = seen.iter_mut().zip(&twins).zip(counted.iter_mut().zip(&mut moved));
        for (rank, ((arrival, twin), (counted, moved))) in ranks.enumerate() {
            let (from, end) = (twin.start.max(*counted), begin.min(twin.end));
            let waited = end.since(from);
            let held = of_last.zip(since(rank)).map_or(0, |(q, r)| held(waited, q, r));
            arrival.waited_ns = arrival.waited_ns.saturating_add(waited);
            arrival.held_ns = arrival.held_ns.saturating_add(held);
            caused = caused.saturating_add(waited.saturating_sub(held));
            longest = longest.max(waited.saturating_sub(held));
            *counted = end.max(*counted);
            of_size.push((rank, twin.end.since(begin.max(*moved))));
            *moved = twin.end.max(*moved);
        }
        level = Some(begin);
        if keeps {
            let device =
                |at: usize| members.get(at).map_or(DeviceId(u32::MAX), |(ledger, ..)| position(*ledger));
            let came = twins.iter().enumerate().map(|(at, twin)| Came {
                device: device(at),
                at: twin.start,
                last_at: begin,
                end: twin.end,
            });
            operations.push(Operation { last: device(last), at: begin, came: came.collect(), before: None });
        }
        if let Some(arrival) = seen.get_mut(last).filter(|_| caused > 0) {
            arrival.last += 1;
            arrival.caused_ns = arrival.caused_ns.saturating_add(caused);
            arrival.longest_ns = arrival.longest_ns.saturating_add(longest);
        }
    }
    for times in transfers.into_values() {
        let best = best(&mut times.iter().map(|(_, ns)| *ns).collect::<Vec<_>>());
        for (rank, ns) in times {
            let Some(arrival) = seen.get_mut(rank) else { continue };
            arrival.moved_ns = arrival.moved_ns.saturating_add(ns);
            arrival.slow_ns = arrival.slow_ns.saturating_add(ns.saturating_sub(best));
        }
    }
    let name = names.into_iter().max_by_key(|(_, count)| *count)?.0;
    Some(Arrivals { name, calls, ranks: seen, operations })
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Arrivals, BTreeMap, CollectiveOp, Inside, Mark, StringId, TimeNs, matched};

    fn calls(spans: &[(i64, i64)]) -> Vec<Mark> {
        let mark = |&(start, end): &(i64, i64)| Mark {
            start: TimeNs(start),
            end: TimeNs(end),
            operation: CollectiveOp::AllReduce,
            name: StringId(7),
            bytes: 64,
            thread: 0,
        };
        spans.iter().map(mark).collect()
    }

    fn of(ranks: &[&[(i64, i64)]]) -> Arrivals {
        let marks: Vec<Vec<Mark>> = ranks.iter().map(|spans| calls(spans)).collect();
        let sequences: Vec<_> = marks.iter().map(Vec::as_slice).enumerate().collect();
        matched(&sequences, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn time_in_which_a_rank_waits_in_two_calls_counts_once() {
        // Two buckets of gradients are handed over together: rank 0 waits in both from 0 on, rank 1 in the second from
        // 600 on. Rank 2 begins the first at 1000 and the second at 1010.
        let arrivals = of(&[
            &[(0, 1020), (10, 1040), (2000, 2200)],
            &[(300, 1020), (600, 1040), (2000, 2200)],
            &[(1000, 1020), (1010, 1040), (2000, 2200)],
        ]);
        let ranks: Vec<_> =
            arrivals.ranks.iter().map(|a| (a.ledger, a.last, a.caused_ns, a.waited_ns)).collect();
        assert_eq!(ranks, [(0, 0, 0, 1010), (1, 0, 0, 710), (2, 2, 1720, 0)]);
        assert_eq!(arrivals.calls, 3);
    }

    #[test]
    fn who_is_inside_of_another_call_is_not_late_by_its_own_doing() {
        // Both were level at 10. Rank 1 is in a broadcast until 710, and then works for 300, rank 0 for 90 only.
        let ranks = [calls(&[(0, 20), (110, 1100)]), calls(&[(10, 20), (1010, 1100)])];
        let sequences: Vec<_> = ranks.iter().map(Vec::as_slice).enumerate().collect();
        let of_rank = |spans: &[(i64, i64)]| {
            vec![spans.iter().map(|&(from, to)| (TimeNs(from), TimeNs(to))).collect::<Vec<_>>()]
        };
        let inside: [Inside; 2] =
            [of_rank(&[(0, 20), (110, 1100)]), of_rank(&[(10, 20), (20, 710), (1010, 1100)])];
        let arrivals = matched(&sequences, &inside.iter().enumerate().collect()).unwrap();
        let of = |rank: usize| arrivals.ranks[rank];
        // Of 900 that it waits, rank 1 was 690 longer inside of calls and 210 longer outside.
        assert_eq!((of(0).waited_ns, of(0).held_ns, of(1).caused_ns), (10 + 900, 690, 10 + 210));
    }

    #[test]
    fn what_a_transfer_takes_beyond_its_best_is_slow() {
        let arrivals = of(&[&[(0, 200), (1000, 1500)], &[(100, 210), (1000, 1600)]]);
        let slow: Vec<_> = arrivals.ranks.iter().map(|a| (a.moved_ns, a.slow_ns)).collect();
        assert_eq!(slow, [(100 + 500, 400), (110 + 600, 10 + 500)]);
    }

    #[test]
    fn what_the_later_of_two_overlapping_calls_adds_is_caused_by_who_was_late_for_it() {
        // Rank 1 is late for the first call, rank 2 for the second; rank 0 waits through both without a break.
        let arrivals = of(&[&[(0, 110), (50, 310)], &[(100, 110), (105, 310)], &[(0, 110), (300, 310)]]);
        let of = |rank: usize| arrivals.ranks[rank];
        assert_eq!((of(1).caused_ns, of(2).caused_ns), (200, 200 + 195));
        assert_eq!((of(0).waited_ns, of(1).waited_ns, of(2).waited_ns), (300, 195, 100));
        // What is waited is what is caused.
        let sum = |of: fn(&Arrival) -> u64| arrivals.ranks.iter().map(of).sum::<u64>();
        assert_eq!(sum(|a| a.caused_ns), sum(|a| a.waited_ns));
    }
}
