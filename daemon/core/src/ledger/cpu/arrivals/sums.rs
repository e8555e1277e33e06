//! What the matched calls of a communicator come to: who waited for whom, and what transfers took.

use std::collections::BTreeMap;

use stallscope_schemas::units::{DeviceId, StringId, TimeNs};

use super::{Arrival, Arrivals, Inside, Mark, position};
use crate::collectives::{Came, Operation};
use crate::parts::in_proportion;

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

/// What the matched calls of a communicator come to.
pub(super) struct Sums<'a> {
    inside: &'a BTreeMap<usize, &'a [Inside]>,
    seen: Vec<Arrival>,
    /// Until when each has waited: a rank may have several calls open at once (one for each bucket of gradients), and its time
    /// counts once.
    counted: Vec<TimeNs>,
    /// The same of transfers.
    moved: Vec<TimeNs>,
    /// By function: time waited by somebody's own doing, ns, and calls.
    names: BTreeMap<StringId, (u64, u64)>,
    /// The same of each late rank: time that it caused, and calls to which it came last.
    late: BTreeMap<Late, (u64, u64)>,
    /// By the positions of a late rank and of one that waited, ns.
    waited_for: BTreeMap<(usize, usize), u64>,
    /// Of each function and size: the transfers, with the position of the rank.
    transfers: BTreeMap<(StringId, u64), Vec<(usize, u64)>>,
    operations: Vec<Operation>,
    /// Whether operations are kept.
    keeps: bool,
    /// Whether all ranks of the communicator are among these: else what follows the last one seen may be waiting as well.
    sees_all: bool,
    /// When all were level.
    level: Option<TimeNs>,
    /// By the position of a rank: how long it has waited since then for others, by their own doing, and in which function, ns.
    since_level: Vec<BTreeMap<Late, u64>>,
}

/// Late ranks and functions between two moments at which all were level, beyond which a rank's waits for them are not passed on.
const MAX_LATE: usize = 1 << 10;

/// Position of a late rank, and the function for which it was late.
type Late = (usize, StringId);

/// Time that ranks waited in one operation for each late one: in all, and the one that waited longest, ns.
#[derive(Default)]
struct Waited(BTreeMap<Late, (u64, u64)>);

impl Waited {
    fn add(&mut self, late: Late, ns: u64) {
        let (all, longest) = self.0.entry(late).or_default();
        (*all, *longest) = (all.saturating_add(ns), ns.max(*longest));
    }
}

impl<'a> Sums<'a> {
    pub(super) fn new(
        ledgers: Vec<usize>,
        inside: &'a BTreeMap<usize, &'a [Inside]>,
        keeps: bool,
        sees_all: bool,
    ) -> Self {
        let ranks = ledgers.len();
        Self {
            inside,
            seen: ledgers.into_iter().map(|ledger| Arrival { ledger, ..Arrival::default() }).collect(),
            counted: vec![TimeNs(i64::MIN); ranks],
            moved: vec![TimeNs(i64::MIN); ranks],
            names: BTreeMap::new(),
            late: BTreeMap::new(),
            waited_for: BTreeMap::new(),
            transfers: BTreeMap::new(),
            operations: Vec::new(),
            keeps,
            sees_all,
            level: None,
            since_level: vec![BTreeMap::new(); ranks],
        }
    }

    /// How long a rank was inside of calls and outside since all were level, until it came, ns.
    fn since(&self, (rank, mark): &(usize, Mark)) -> Option<(u64, u64)> {
        let level = self.level?;
        let calls = self.inside.get(&self.seen.get(*rank)?.ledger)?.get(mark.thread)?;
        let within = calls.before(mark.start).saturating_sub(calls.before(level));
        Some((within, mark.start.since(level).saturating_sub(within)))
    }

    /// Of what a rank waited because the last one was `inside_ns` longer inside of other calls: what that one waited longer itself in
    /// these for others that were late, which is theirs.
    fn passed_on(&self, (waiting, last): (usize, usize), held: u64, inside_ns: u64) -> Vec<(Late, u64)> {
        if held == 0 || inside_ns == 0 {
            return Vec::new();
        }
        let (Some(own), Some(its)) = (self.since_level.get(waiting), self.since_level.get(last)) else {
            return Vec::new();
        };
        let longer = |(late, ns): (&Late, &u64)| {
            let ns = ns.saturating_sub(own.get(late).copied().unwrap_or(0));
            (ns > 0 && late.0 != waiting).then_some((*late, ns))
        };
        let (late, ns): (Vec<Late>, Vec<u64>) = its.iter().filter_map(longer).unzip();
        let all = ns.iter().fold(0u64, |sum, ns| sum.saturating_add(*ns)).min(inside_ns);
        let theirs = u128::from(held) * u128::from(all) / u128::from(inside_ns.max(1));
        late.into_iter().zip(in_proportion(u64::try_from(theirs).unwrap_or(held), &ns)).collect()
    }

    /// Adds an operation: the calls of those that could not leave it before the last one of them had come, with their positions.
    pub(super) fn add(&mut self, calls: &[(usize, Mark)]) {
        // Of those that come at once it is the root that is waited for.
        let is_root = |mark: &Mark| mark.is_root == Some(true);
        let last = calls.iter().max_by_key(|(_, mark)| (mark.start, is_root(mark)));
        let Some(last) = last else { return };
        let (begin, of_last) = (last.1.start, self.since(last));
        let is_whole = calls.len() == self.seen.len();
        // A rank that reduces in place says nothing of its bytes.
        let bytes = calls.iter().map(|(_, mark)| mark.bytes).max().unwrap_or(0);
        let mut all = Waited::default();
        for (rank, mark) in calls {
            let counted = self.counted.get(*rank).copied().unwrap_or(begin);
            let waited = begin.since(mark.start.max(counted));
            let both = of_last.zip(self.since(&(*rank, *mark)));
            let mut held = both.map_or(0, |(q, r)| held(waited, q, r));
            let own = waited.saturating_sub(held);
            let inside_ns = both.map_or(0, |(q, r)| q.0.saturating_sub(r.0));
            let mut theirs = self.passed_on((*rank, last.0), held, inside_ns);
            held = theirs.iter().fold(held, |held, (_, ns)| held.saturating_sub(*ns));
            theirs.push(((last.0, last.1.name), own));
            for (late, ns) in theirs.into_iter().filter(|(_, ns)| *ns > 0) {
                all.add(late, ns);
                let of_both = self.waited_for.entry((late.0, *rank)).or_default();
                *of_both = of_both.saturating_add(ns);
                if let Some(since) = self.since_level.get_mut(*rank)
                    && (since.len() < MAX_LATE || since.contains_key(&late))
                {
                    let since = since.entry(late).or_default();
                    *since = since.saturating_add(ns);
                }
            }
            let slots = (self.seen.get_mut(*rank), self.counted.get_mut(*rank), self.moved.get_mut(*rank));
            let (Some(arrival), Some(counted), Some(moved)) = slots else { continue };
            arrival.waited_ns = arrival.waited_ns.saturating_add(waited);
            arrival.held_ns = arrival.held_ns.saturating_add(held);
            *counted = begin.max(*counted);
            // Where others took part, what follows may be waiting for them as well.
            if is_whole && self.sees_all {
                let of_size = self.transfers.entry((last.1.name, bytes)).or_default();
                of_size.push((*rank, mark.end.since(begin.max(*moved))));
                *moved = mark.end.max(*moved);
            }
        }
        self.names.entry(last.1.name).or_default().1 += 1;
        if all.0.contains_key(&(last.0, last.1.name)) {
            self.late.entry((last.0, last.1.name)).or_default().1 += 1;
        }
        for (late, (ns, longest)) in all.0 {
            for sum in [self.names.entry(late.1).or_default(), self.late.entry(late).or_default()] {
                sum.0 = sum.0.saturating_add(ns);
            }
            if let Some(arrival) = self.seen.get_mut(late.0) {
                arrival.caused_ns = arrival.caused_ns.saturating_add(ns);
                arrival.longest_ns = arrival.longest_ns.saturating_add(longest);
            }
        }
        if is_whole {
            self.level = Some(begin);
            self.since_level.iter_mut().for_each(BTreeMap::clear);
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
    }

    pub(super) fn finish(mut self) -> Option<Arrivals> {
        for times in self.transfers.into_values() {
            let best = best(&mut times.iter().map(|(_, ns)| *ns).collect::<Vec<_>>());
            for (rank, ns) in times {
                let Some(arrival) = self.seen.get_mut(rank) else { continue };
                arrival.moved_ns = arrival.moved_ns.saturating_add(ns);
                arrival.slow_ns = arrival.slow_ns.saturating_add(ns.saturating_sub(best));
            }
        }
        let (&name, &(_, calls)) = self.names.iter().max_by_key(|(_, waited)| **waited)?;
        for (rank, arrival) in self.seen.iter_mut().enumerate() {
            let of_rank = self.late.range((rank, StringId(0))..=(rank, StringId(u32::MAX)));
            if let Some((&(_, name), &(_, last))) = of_rank.max_by_key(|(_, waited)| **waited) {
                (arrival.name, arrival.last) = (name, last);
                arrival.calls = self.names.get(&name).map_or(0, |(_, calls)| *calls);
            }
        }
        let ledger = |rank: usize| self.seen.get(rank).map_or(rank, |arrival| arrival.ledger);
        let waited_for =
            self.waited_for.iter().map(|(&(late, rank), &ns)| ((ledger(late), ledger(rank)), ns));
        let waited_for = waited_for.collect();
        Some(Arrivals { name, calls, waited_for, ranks: self.seen, operations: self.operations })
    }
}
