//! What a recorded job would save without something that happened in it: its collectives simulated anew.
//!
//! The matched operations of a recording are a graph: a rank comes to an operation some time after the moment before it on
//! that rank (an operation's end there, or its coming to one that still went on), and an operation ends, on each rank, as long
//! after the last one's coming as it did. With durations as recorded all moments stay where they were, so what is
//! simulated is by how much each moves. With `s` that shift and `p` the moment before:
//!
//! ```text
//! s(r comes to k) = s(p of r) − cut(r, k)
//! s(k ends on r)  = max over r' (s(r' comes to k) − (last − r' coming)) − cut'(r, k)
//! saved           = − max over r of (c(last moment of r) − what is cut behind it)
//! ```
//!
//! A rank may compute while it is in an operation. What it does next then follows what it computes and not the operation's end: that
//! gains of an earlier end only as much as the operation was exposed on it, and loses nothing by a later one of an operation that was
//! hidden. So each rank has a second shift `c`, of its computation, which is that of the operation where nothing is hidden:
//!
//! ```text
//! c after k   = max(s(k ends on r), c − exposed(r, k))   where k ends by more earlier than c
//!               s(k ends on r)                           where it ends by less earlier, and was exposed
//!               c                                        where it ends by less earlier, and was hidden
//! ```
//!
//! The moment before a coming is the end of an operation only if that was just before: communication that was queued behind it.
//! Else it is the computation, and its shift `c`.
//!
//! What is cut, for a rank `q` that is to be no later than the others ([`Recorded::without_lateness`]):
//!
//! ```text
//! cut(q, k) = max(0, d_q − median_r d_r)     d = from the moment before to the coming; where q was last
//! ```
//!
//! The median is the lower one. Only what `q` exceeds it by is cut, and only in operations to which it came last: time that
//! goes to the second latest is not saved. And for a cause of lost time on some devices ([`Recorded::without`]):
//!
//! ```text
//! cut(r, k)  = time that the cause took on r from p to the coming; of ranks on CPUs, as kept at their calls, at most
//!              all of that time
//! cut'(r, k) = of slow transfers, what they took longer on r in k
//! ```
//!
//! Nothing moves to later, and no rank gains what it did not wait for.
//!
//! What always holds: the answer is right where each moment depends on the one before it, and too large where a coming
//! depended on something else (a transfer to the host, work that queued communication would have had to wait for) that would not have
//! moved as well. Beside the operations, memory is four bytes a coming and a few moments for each rank.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::iter::repeat;
use std::sync::Arc;

use stallscope_schemas::units::{DeviceId, TimeNs};

use super::hidden::Hidden;
use crate::collectives::{Came, Operation};
use crate::ledger::book::History;
use crate::ledger::so_far::{Part, Progress, Reader};
use crate::ledger::{CommLeaf, DeviceLedger, Leaf, RootLeaf};

/// Moments of a rank that are remembered: those of operations under way at the same time, in as many communicators.
const RECENT: usize = 64;

/// A kernel of communication that begins so soon after another one's end was queued behind it, ns.
const QUEUED_NS: u64 = 20_000;
/// An operation of which no more than one part in so many is exposed on a rank does not hold its computation up.
const HIDDEN: u64 = 20;

/// Shares above which too little is known: of exposed communication that was not matched, of time without records, in
/// percent.
const UNMATCHED_PERCENT: u64 = 10;
const UNKNOWN_PERCENT: u64 = 1;

/// Comings to operations up to which ranks are simulated one by one: a second or two.
pub(crate) const MAX_COMINGS: usize = 1 << 24;

/// Operations of a recording, in the order in which they are simulated, and what each device did between them.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(super) operations: Vec<Operation>,
    /// By job, positions by the last one's coming.
    pub(super) order: BTreeMap<usize, Vec<usize>>,
    /// By device, the number of the job that it belongs to: devices of one job are those that have operations in common.
    pub(super) jobs: BTreeMap<DeviceId, usize>,
    pub(super) histories: BTreeMap<DeviceId, Arc<History>>,
    hidden: Hidden,
}

/// Time that a cause took on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) device: DeviceId,
    /// What it is a part of, of which it is taken to be the same share all the time.
    pub(crate) part: Part,
    /// In all, ns.
    pub(crate) ns: u64,
}

/// A moment of a rank, by its own clock, and by how much it moves.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: TimeNs,
    /// Of the coming to an operation, or its end.
    shift: i64,
    /// Of what the rank computes then.
    computes: i64,
    is_end: bool,
}

impl Moment {
    /// By how much what follows moves, if it begins at some time.
    fn moves(&self, at: TimeNs) -> i64 {
        let is_queued = self.is_end && at.since(self.at) <= QUEUED_NS;
        if is_queued { self.shift } else { self.computes }
    }
}

/// The last moments of a rank, in order.
#[derive(Debug, Default)]
struct Past(VecDeque<Moment>);

impl Past {
    fn add(&mut self, moment: Moment) {
        if self.0.len() >= RECENT {
            self.0.pop_front();
        }
        let place = self.0.partition_point(|other| other.at <= moment.at);
        self.0.insert(place, moment);
    }

    /// The moment before another one.
    fn before(&self, at: TimeNs) -> Option<Moment> {
        self.0.iter().rev().find(|moment| moment.at <= at).copied()
    }
}

/// By rank.
type Pasts = BTreeMap<DeviceId, Past>;

/// What is taken away from one rank in one operation, ns.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    /// Before it comes.
    coming: u64,
    /// Before it leaves.
    ending: u64,
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// What the device that waited most for each waited for it, ns.
pub(crate) fn most_waited(ledgers: &[DeviceLedger]) -> BTreeMap<DeviceId, u64> {
    let mut most: BTreeMap<DeviceId, u64> = BTreeMap::new();
    for ledger in ledgers {
        let mut of_one: BTreeMap<DeviceId, u64> = BTreeMap::new();
        for (waited, amount) in &ledger.root.waits {
            if let Some(culprit) = waited.culprit().filter(|&culprit| culprit != ledger.device) {
                let ns = of_one.entry(culprit).or_default();
                *ns = ns.saturating_add(amount.ns);
            }
        }
        for (culprit, ns) in of_one {
            let most = most.entry(culprit).or_default();
            *most = ns.max(*most);
        }
    }
    most
}

impl Recorded {
    /// Takes matched operations, and what devices did.
    pub(crate) fn new(operations: Vec<Operation>, histories: Vec<(DeviceId, Arc<History>)>) -> Self {
        let jobs = jobs(&operations);
        let mut all: Vec<usize> = (0..operations.len()).collect();
        all.sort_by_key(|&position| operations.get(position).map(|operation| operation.at));
        let mut order: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for position in all {
            let first = operations.get(position).and_then(|operation| operation.came.first());
            if let Some(&job) = first.and_then(|came| jobs.get(&came.device)) {
                order.entry(job).or_default().push(position);
            }
        }
        let histories: BTreeMap<_, _> = histories.into_iter().collect();
        let hidden = Hidden::new(&operations, &histories);
        Self { operations, order, jobs, histories, hidden }
    }

    /// Devices of one job have the same; one without operations is a job by itself.
    pub(crate) fn job(&self, device: DeviceId) -> Result<usize, DeviceId> {
        self.jobs.get(&device).copied().ok_or(device)
    }

    /// The devices of the job of one.
    fn of_job<'a>(
        &self,
        device: DeviceId,
        ledgers: &'a [DeviceLedger],
    ) -> impl Iterator<Item = &'a DeviceLedger> {
        ledgers.iter().filter(move |ledger| self.job(ledger.device) == self.job(device))
    }

    /// How many times as long the job of a device took as it would have without what it would have saved. None where no device of
    /// it was there for longer than that.
    pub(crate) fn slowdown(&self, device: DeviceId, saved: u64, ledgers: &[DeviceLedger]) -> Option<f64> {
        // The device itself may have been seen for a short time only, and the job for no longer than the one that was seen longest.
        let took = self.of_job(device, ledgers).map(|ledger| ledger.end.since(ledger.start)).max()?;
        let without = took.checked_sub(saved).filter(|ns| *ns > 0)?;
        Some(took as f64 / without as f64)
    }

    /// Why the job of a device cannot be simulated, where it cannot.
    pub(crate) fn doubt(&self, device: DeviceId, ledgers: &[DeviceLedger]) -> Option<&'static str> {
        let of_job = || self.of_job(device, ledgers);
        let sum = |of: &dyn Fn(&DeviceLedger) -> u64| of_job().map(of).fold(0u64, u64::saturating_add);
        let exceeds = |part: u64, percent: u64, whole: u64| {
            u128::from(part) * 100 > u128::from(percent) * u128::from(whole)
        };
        let unmatched = sum(&|ledger| ledger.sums.comm(CommLeaf::Unsplit));
        if exceeds(unmatched, UNMATCHED_PERCENT, sum(&|ledger| ledger.sums.get(Leaf::CommExposed))) {
            return Some("too many collectives were not matched");
        }
        let unknown = sum(&|ledger| ledger.sums.get(Leaf::Unknown).saturating_sub(ledger.unseen_ns));
        if exceeds(unknown, UNKNOWN_PERCENT, sum(&|ledger| ledger.end.since(ledger.start))) {
            return Some("records are missing");
        }
        None
    }

    /// Comings to operations that each simulation goes through.
    pub(crate) fn comings(&self) -> usize {
        self.operations.iter().fold(0usize, |sum, o| sum.saturating_add(o.came.len()))
    }

    /// How much earlier its job would have ended had each device been no later than the others, ns, or why that is not known: at
    /// most what the device that waited most waited for it. A device that got on with other work while it waited comes to the
    /// next operation before one that still has to do that: the simulation cuts both. What is moved without being
    /// hidden for the late one's sake alone is not in that bound.
    /// The devices that others waited for most come first, for as long as that takes.
    pub(crate) fn lateness(&self, ledgers: &[DeviceLedger]) -> BTreeMap<DeviceId, Result<u64, &'static str>> {
        let mut in_turn: Vec<&DeviceLedger> = ledgers.iter().collect();
        in_turn.sort_by_key(|ledger| (Reverse(ledger.root.charged_ns), ledger.device));
        let comings = self.comings();
        let most = most_waited(ledgers);
        let mut left = MAX_COMINGS;
        let mut one = |ledger: &DeviceLedger| {
            if !self.jobs.contains_key(&ledger.device) {
                return Err("none of its collectives was matched");
            }
            if let Some(why) = self.doubt(ledger.device, ledgers) {
                return Err(why);
            }
            if ledger.root.charged_ns == 0 {
                return Ok(0);
            }
            left = left.checked_sub(comings).ok_or("there are too many collectives to simulate each rank")?;
            let most = most.get(&ledger.device).copied().unwrap_or(0);
            Ok(self.without_lateness(ledger.device).unwrap_or(0).min(most))
        };
        in_turn.into_iter().map(|ledger| (ledger.device, one(ledger))).collect()
    }

    /// How much earlier the job of a device would have ended had the device been no later than the others, ns. None where it
    /// has no operation.
    pub(crate) fn without_lateness(&self, late: DeviceId) -> Option<u64> {
        let job = self.jobs.get(&late)?;
        let mut lengths = Vec::new();
        let pasts = self.play(*job, |operation, pasts, cuts| {
            if operation.last == late {
                let ns = excess(operation, pasts, &mut lengths);
                let own = operation.came.iter().zip(cuts).filter(|(came, _)| came.device == late);
                own.for_each(|(_, cut)| cut.coming = ns);
            }
        });
        let last = pasts.values().filter_map(|past| past.0.back()).map(|moment| moment.computes).max()?;
        Some(last.min(0).unsigned_abs())
    }

    /// How much earlier the job of a device would have ended without a cause that took time on devices of it, ns.
    pub(crate) fn without(&self, device: DeviceId, losses: &[Loss]) -> u64 {
        let Some(job) = self.jobs.get(&device) else {
            let own = losses.iter().filter(|loss| loss.device == device);
            return own.fold(0u64, |sum, loss| sum.saturating_add(loss.ns));
        };
        let mut losing: BTreeMap<DeviceId, Losing<'_>> = BTreeMap::new();
        for loss in losses {
            let Some(history) = self.histories.get(&loss.device) else { continue };
            let losing = losing.entry(loss.device).or_insert_with(|| Losing::new(history));
            losing.add(*loss, history);
        }
        let mut pasts = self.play(*job, |operation, pasts, cuts| {
            for (came, cut) in operation.came.iter().zip(cuts) {
                let Some(losing) = losing.get_mut(&came.device) else { continue };
                let since = pasts.get(&came.device).and_then(|past| past.before(came.at));
                let before = since.map_or(Lost::default(), |moment| losing.at(moment.at));
                let coming = losing.at(came.at);
                let lost = coming.otherwise.saturating_sub(before.otherwise);
                // Of ranks on CPUs that is known at their calls only, which may be before that moment.
                cut.coming = since.map_or(lost, |moment| lost.min(came.at.since(moment.at)));
                if losing.transfers {
                    cut.ending = losing.at(came.end).in_transfers.saturating_sub(coming.in_transfers);
                }
            }
        });
        let mut saved = u64::MAX;
        for (device, past) in &mut pasts {
            let Some(moment) = past.0.back() else { continue };
            let behind = losing.get_mut(device).map_or(0, |losing| {
                let before = losing.at(moment.at);
                losing.total.otherwise.saturating_sub(before.otherwise)
            });
            saved = saved.min(moment.computes.min(0).unsigned_abs().saturating_add(behind));
        }
        if saved == u64::MAX { 0 } else { saved }
    }

    /// Moves the moments of a job's ranks, with what is to be cut in each operation by the ranks that came to it.
    fn play(&self, job: usize, mut cut: impl FnMut(&Operation, &Pasts, &mut [Cut])) -> Pasts {
        let mut pasts = Pasts::new();
        let mut cuts = Vec::new();
        let order = self.order.get(&job).into_iter().flatten();
        for (position, operation) in order.filter_map(|&at| Some((at, self.operations.get(at)?))) {
            cuts.clear();
            cuts.resize(operation.came.len(), Cut::default());
            cut(operation, &pasts, &mut cuts);
            let mut end = i64::MIN;
            for (came, cut) in operation.came.iter().zip(&cuts) {
                let past = pasts.entry(came.device).or_default();
                let (before, computed) =
                    past.before(came.at).map_or((0, 0), |m| (m.moves(came.at), m.computes));
                let (shift, computes) =
                    (before.saturating_sub(signed(cut.coming)), computed.saturating_sub(signed(cut.coming)));
                past.add(Moment { at: came.at, shift, computes, is_end: false });
                end = end.max(shift.saturating_sub(signed(came.last_at.since(came.at))));
            }
            let hidden = self.hidden.of(position).iter().copied().chain(repeat(0));
            for ((came, cut), hidden) in operation.came.iter().zip(&cuts).zip(hidden) {
                let Some(past) = pasts.get_mut(&came.device) else { continue };
                let shift = end.saturating_sub(signed(cut.ending));
                let computed = past.before(came.end).map_or(0, |moment| moment.computes);
                let took = came.end.since(came.at);
                let exposed = took.saturating_sub(hidden.into());
                let computes = if shift < computed {
                    shift.max(computed.saturating_sub(signed(exposed)))
                } else if exposed.saturating_mul(HIDDEN) > took || hidden == 0 {
                    shift
                } else {
                    computed
                };
                past.add(Moment { at: came.end, shift, computes, is_end: true });
            }
        }
        pasts
    }
}

/// What the last one to come took longer than the median, since the moment before. Where one has none, all are taken to have
/// been level before.
fn excess(operation: &Operation, pasts: &Pasts, lengths: &mut Vec<u64>) -> u64 {
    let since = |came: &Came| pasts.get(&came.device).and_then(|past| past.before(came.at));
    let have_all = operation.came.iter().all(|came| since(came).is_some());
    lengths.clear();
    let mut own = 0;
    for came in &operation.came {
        let length = match since(came).filter(|_| have_all) {
            Some(before) => came.at.since(before.at),
            None => u64::MAX.saturating_sub(came.last_at.since(came.at)),
        };
        lengths.push(length);
        if came.device == operation.last {
            own = length;
        }
    }
    lengths.sort_unstable();
    let median = lengths.len().checked_sub(1).and_then(|last| lengths.get(last / 2)).copied();
    own.saturating_sub(median.unwrap_or(own))
}

/// What was lost up to a moment, ns.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    /// In transfers that took longer than they have to.
    in_transfers: u64,
    /// By anything else.
    otherwise: u64,
}

/// How far a cause had come on a device at each moment.
struct Losing<'a> {
    reader: Reader<'a>,
    /// Position of a sum, and the share of it that the cause is.
    shares: Vec<(usize, u64, u64)>,
    /// Whether it is about transfers.
    transfers: bool,
    total: Lost,
}

const TRANSFERS: Part = Part::Device(RootLeaf::Excess);

impl<'a> Losing<'a> {
    fn new(history: &'a History) -> Self {
        Self {
            reader: Reader::new(&history.so_far),
            shares: Vec::new(),
            transfers: false,
            total: Lost::default(),
        }
    }

    fn add(&mut self, loss: Loss, history: &History) {
        let index = loss.part.index();
        let of = history.total.and_then(|total| total.get(index).copied()).unwrap_or(0);
        self.shares.push((index, loss.ns.min(of), of));
        self.transfers |= loss.part == TRANSFERS;
        self.total = history.total.map_or(Lost::default(), |total| lost(&self.shares, &total));
    }

    fn at(&mut self, moment: TimeNs) -> Lost {
        let shares = &self.shares;
        self.reader.last_until(moment).map_or(Lost::default(), |(_, progress)| lost(shares, progress))
    }
}

fn lost(shares: &[(usize, u64, u64)], progress: &Progress) -> Lost {
    let mut out = Lost::default();
    for &(index, ns, of) in shares {
        let so_far = progress.get(index).copied().unwrap_or(0);
        let part = u128::from(so_far) * u128::from(ns) / u128::from(of.max(1));
        let sum = if index == TRANSFERS.index() { &mut out.in_transfers } else { &mut out.otherwise };
        *sum = sum.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
    }
    out
}

/// Which devices have operations in common, directly or by way of others.
fn jobs(operations: &[Operation]) -> BTreeMap<DeviceId, usize> {
    let mut of: BTreeMap<DeviceId, usize> = BTreeMap::new();
    for operation in operations {
        let mut known: Vec<usize> =
            operation.came.iter().filter_map(|came| of.get(&came.device).copied()).collect();
        known.sort_unstable_by_key(|&job| Reverse(job));
        known.dedup();
        let job = known.last().copied().unwrap_or(of.len());
        if known.len() > 1 {
            of.values_mut().filter(|other| known.contains(other)).for_each(|other| *other = job);
        }
        of.extend(operation.came.iter().map(|came| (came.device, job)));
    }
    of
}

#[cfg(test)]
mod tests {
    use super::{Came, Operation, Recorded, jobs};
    use stallscope_schemas::units::{DeviceId, TimeNs};

    /// An operation to which devices come, and that all leave at once.
    fn operation(came: &[(u32, i64)], end: i64) -> Operation {
        let (last, at) = came.iter().copied().max_by_key(|(_, at)| *at).unwrap();
        let came = came.iter().map(|&(device, own)| Came {
            device: DeviceId(device),
            at: TimeNs(own),
            last_at: TimeNs(at),
            end: TimeNs(end),
        });
        Operation { last: DeviceId(last), at: TimeNs(at), came: came.collect(), before: None }
    }

    /// Steps in which each device works for as long as a table says, meets the others, and moves data for 10.
    fn steps<W: AsRef<[i64]>>(works: &[W]) -> Vec<Operation> {
        let mut at = 0;
        let mut out = vec![operation(&(0..4).map(|d| (d, 0)).collect::<Vec<_>>(), 0)];
        for works in works {
            let came: Vec<(u32, i64)> = (0u32..).zip(works.as_ref().iter().map(|work| at + work)).collect();
            at = came.iter().map(|(_, came)| *came).max().unwrap() + 10;
            out.push(operation(&came, at));
        }
        out[0].came.truncate(works[0].as_ref().len());
        out
    }

    fn lateness(operations: Vec<Operation>, device: u32) -> Option<u64> {
        Recorded::new(operations, Vec::new()).without_lateness(DeviceId(device))
    }

    fn saved<W: AsRef<[i64]>>(works: &[W], device: u32) -> u64 {
        lateness(steps(works), device).unwrap()
    }

    #[test]
    fn of_two_ranks_what_one_is_late_by_is_saved_in_each_step() {
        assert_eq!(saved(&[[100, 130]; 7], 1), 7 * 30);
        assert_eq!(saved(&[[100, 130]; 7], 0), 0);
        assert_eq!(saved(&[[100, 100]; 7], 1), 0);
    }

    #[test]
    fn who_is_late_for_the_first_operation_is_late_by_when_the_others_came() {
        let mut operations = vec![operation(&[(0, 100), (1, 400), (2, 150)], 410)];
        assert_eq!(lateness(operations.clone(), 1), Some(250));
        // Nothing is known of what 3 did before.
        operations.push(operation(&[(0, 420), (1, 420), (2, 430), (3, 500)], 510));
        assert_eq!(lateness(operations.clone(), 3), Some(70));
        assert_eq!(lateness(operations, 1), Some(0));
    }

    #[test]
    fn what_the_second_latest_is_late_by_is_not_saved() {
        assert_eq!(saved(&[[100, 100, 140, 115]; 5], 2), 5 * (40 - 15));
        assert_eq!(saved(&[[100, 100, 140, 115]; 5], 3), 0);
        // The second latest is the median of three.
        assert_eq!(saved(&[[100, 115, 140]; 5], 2), 5 * (40 - 15));
    }

    #[test]
    fn lateness_of_others_in_other_steps_is_theirs() {
        let works = [[100, 150, 100], [100, 100, 170], [100, 150, 100]];
        assert_eq!(saved(&works, 1), 100);
        assert_eq!(saved(&works, 2), 70);
    }

    #[test]
    fn what_is_hidden_behind_an_operation_that_ranks_of_another_group_wait_in_is_not_saved() {
        // 1 is late by 50 for 0; both then meet 2, which needs 40 longer than 0 would.
        let operations = |work_of_2: i64| {
            vec![
                operation(&[(0, 0), (1, 0), (2, 0)], 0),
                operation(&[(0, 100), (1, 150)], 160),
                operation(&[(0, 170), (1, 170), (2, work_of_2)], 190),
            ]
        };
        let saved = |work_of_2| lateness(operations(work_of_2), 1).unwrap();
        assert_eq!(saved(120), 50);
        assert_eq!(saved(160), 10);
    }

    #[test]
    fn operations_that_overlap_count_from_the_coming_to_the_one_before() {
        // Two buckets are handed over one after the other while the first still goes on; 1 needs 30 longer for the first.
        let mut operations = vec![operation(&[(0, 0), (1, 0)], 0)];
        for step in 0..3 {
            let at = step * 230;
            operations.push(operation(&[(0, at + 100), (1, at + 130)], at + 200));
            operations.push(operation(&[(0, at + 120), (1, at + 150)], at + 230));
        }
        assert_eq!(lateness(operations, 1), Some(3 * 30));
    }

    #[test]
    fn what_was_saved_before_a_rank_came_to_an_operation_that_goes_on_counts_for_its_next() {
        // 1 needs 30 longer for an operation with 0, and comes to one with 2 while that goes on; then all meet, 2 comes last.
        let operations = vec![
            operation(&[(0, 0), (1, 0), (2, 0)], 0),
            operation(&[(0, 100), (1, 130)], 500),
            operation(&[(1, 150), (2, 100)], 160),
            operation(&[(0, 510), (1, 510), (2, 600)], 610),
        ];
        assert_eq!(lateness(operations, 1), Some(30));
    }

    #[test]
    fn another_job_of_the_capture_does_not_count() {
        let mut operations = steps(&[[100, 130]; 4]);
        operations.push(operation(&[(8, 5), (9, 6)], 7));
        assert_eq!(jobs(&operations).len(), 4);
        let recorded = Recorded::new(operations, Vec::new());
        assert_eq!(recorded.without_lateness(DeviceId(1)), Some(120));
        assert_eq!(recorded.without_lateness(DeviceId(7)), None);
        assert_ne!(recorded.job(DeviceId(1)), recorded.job(DeviceId(8)));
        assert_ne!(recorded.job(DeviceId(1)), recorded.job(DeviceId(7)));
        assert_eq!(recorded.job(DeviceId(1)), recorded.job(DeviceId(0)));
        // Jobs that turn out to be one.
        let operations = [
            operation(&[(0, 1), (1, 1)], 2),
            operation(&[(2, 1), (3, 1)], 2),
            operation(&[(1, 5), (2, 5)], 6),
        ];
        let of = jobs(&operations);
        assert!(of.values().all(|job| Some(job) == of.values().next()), "{of:?}");
    }
}
