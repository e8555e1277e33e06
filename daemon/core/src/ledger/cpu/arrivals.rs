//! Who arrives last at collectives: calls of several ranks of one host matched with each other.
//!
//! Nobody leaves an all-reduce, all-gather, reduce-scatter, all-to-all or barrier before all have entered. So of matching
//! calls the one that begins last ends the waiting of the others: rank `r` waits `min(L, e_r) − s_r` for the last begin
//! `L`. Ranks of one host share a clock, so that no error bound is needed; ranks of other hosts are left out.
//!
//! Calls on one communicator come in the same order on every rank, but a recording begins in the middle, not everywhere
//! at the same call. So sequences are shifted against each other until matching calls overlap in time and end together.

use std::collections::BTreeMap;

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};
use stallscope_schemas::units::{StringId, TimeNs};

use super::CpuLedger;
use crate::capture::{Capture, ReadAt};
use crate::rows::CollectiveCall;

/// Calls of one rank on one communicator that are looked at.
const MAX_CALLS: usize = 1 << 18;
/// Calls by which sequences may be shifted against each other.
const MAX_SHIFT: isize = 64;
/// Pairs that a shift is judged by.
const JUDGED: usize = 512;
/// Share of pairs that have to agree, in percent: a call or two may be cut or lost.
const AGREE_PERCENT: usize = 80;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    start: TimeNs,
    end: TimeNs,
    operation: CollectiveOp,
    name: StringId,
}

/// What is known of one rank's arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Position of the rank's ledger.
    pub ledger: usize,
    /// Calls in which it was the last to begin.
    pub last: u64,
    /// Time that the others waited for it, summed over them, ns.
    pub caused_ns: u64,
    /// Time that it waited for others, ns.
    pub waited_ns: u64,
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
}

/// Calls of each rank on each communicator.
type ByGroup = BTreeMap<(CollectiveLibrary, StringId), Vec<Mark>>;

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
    let marks: Vec<(usize, ByGroup)> = ledgers
        .iter()
        .enumerate()
        .filter(|(_, ledger)| host(ledger).as_ref() == Some(&first))
        .map(|(at, ledger)| (at, by_group(capture, ledger)))
        .collect();
    let mut all: Vec<Arrivals> = sequences(&marks).iter().filter_map(|ranks| matched(ranks)).collect();
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

fn by_group<S: ReadAt>(capture: &Capture<S>, ledger: &CpuLedger) -> ByGroup {
    let mut groups = ByGroup::new();
    for thread in &ledger.threads {
        let mut open: BTreeMap<CollectiveLibrary, TimeNs> = BTreeMap::new();
        for call in capture.rows::<CollectiveCall>(thread.thread.0) {
            let end = call.start.plus(call.duration_ns);
            // MPI_Allreduce may call PMPI_Allreduce: of one library the outermost counts.
            let until = open.entry(call.library).or_insert(TimeNs(i64::MIN));
            if call.start < *until {
                continue;
            }
            *until = end;
            if is_synchronising(call.operation) && call.flags & (call_flags::ASYNC | call_flags::OPEN) == 0 {
                let marks = groups.entry((call.library, call.group)).or_default();
                if marks.len() < MAX_CALLS {
                    let CollectiveCall { start, operation, name, .. } = call;
                    marks.push(Mark { start, end, operation, name });
                }
            }
        }
    }
    groups.values_mut().for_each(|marks| marks.sort_by_key(|m| m.start));
    groups
}

/// Sequences that belong together: those on a communicator of the same name; where a library's names differ from rank to
/// rank (they may be addresses), those of ranks that use one communicator each.
fn sequences(ranks: &[(usize, ByGroup)]) -> Vec<Vec<Sequence<'_>>> {
    let mut together: BTreeMap<(CollectiveLibrary, StringId), Vec<Sequence<'_>>> = BTreeMap::new();
    for (rank, groups) in ranks {
        for (&key, marks) in groups {
            together.entry(key).or_default().push((*rank, marks));
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

/// Adds up who was last.
fn matched(ranks: &[Sequence<'_>]) -> Option<Arrivals> {
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
    let mut calls = 0;
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
        calls += 1;
        *names.entry(mark.name).or_default() += 1;
        let mut caused = 0u64;
        for ((arrival, twin), counted) in seen.iter_mut().zip(&twins).zip(&mut counted) {
            let end = begin.min(twin.end);
            let waited = end.since(twin.start.max(*counted));
            *counted = end.max(*counted);
            arrival.waited_ns = arrival.waited_ns.saturating_add(waited);
            caused = caused.saturating_add(waited);
        }
        if let Some(arrival) = seen.get_mut(last).filter(|_| caused > 0) {
            arrival.last += 1;
            arrival.caused_ns = arrival.caused_ns.saturating_add(caused);
        }
    }
    let name = names.into_iter().max_by_key(|(_, count)| *count)?.0;
    Some(Arrivals { name, calls, ranks: seen })
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Arrivals, CollectiveOp, Mark, StringId, TimeNs, matched};

    fn calls(spans: &[(i64, i64)]) -> Vec<Mark> {
        let mark = |&(start, end): &(i64, i64)| Mark {
            start: TimeNs(start),
            end: TimeNs(end),
            operation: CollectiveOp::AllReduce,
            name: StringId(7),
        };
        spans.iter().map(mark).collect()
    }

    fn of(ranks: &[&[(i64, i64)]]) -> Arrivals {
        let marks: Vec<Vec<Mark>> = ranks.iter().map(|spans| calls(spans)).collect();
        let sequences: Vec<_> = marks.iter().map(Vec::as_slice).enumerate().collect();
        matched(&sequences).unwrap()
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
        let rank = |ledger, last, caused_ns, waited_ns| Arrival { ledger, last, caused_ns, waited_ns };
        assert_eq!(arrivals.ranks, [rank(0, 0, 0, 1010), rank(1, 0, 0, 710), rank(2, 2, 1720, 0)]);
        assert_eq!(arrivals.calls, 3);
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
