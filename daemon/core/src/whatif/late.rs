//! What a recorded job would save if a rank took no longer than the others where it was late: its collectives simulated anew.
//!
//! The matched operations of a recording are a graph: a rank comes to an operation some time after the moment before it on
//! that rank (an operation's end there, or its coming to one that still went on), and an operation ends, on each rank, as long
//! after the last one's coming as it did. With durations as recorded all moments stay where they were, so what is
//! simulated is by how much each moves. With `s` that shift, `p` the moment before, and `q` the rank that is to be no later:
//!
//! ```text
//! s(r comes to k) = s(p of r) − cut                            cut = 0 for all but q
//! s(q comes to k) = s(p of q) − max(0, d_q − median_r d_r)     d = from the moment before to the coming; where q was last
//! s(k ends)       = max over r (s(r comes to k) − (last − r's coming))
//! saved           = − max over r of the shift of its last moment
//! ```
//!
//! The median is the lower one. Only what `q` exceeds it by is cut, and only in operations to which it came last: time that
//! goes to the second latest is not saved. Nothing moves to later, and no rank gains what it did not wait for.
//!
//! What always holds: the answer is right where each moment depends on the one before it, and too large where a coming
//! depended on something else (another stream, a transfer to the host) that would not have moved as well. Beside the operations,
//! memory is a few moments for each rank.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::{DeviceId, TimeNs};

use crate::capture::{Capture, ReadAt};
use crate::collectives::{Collectives, Operation};
use crate::ledger::{CommLeaf, DeviceLedger, Leaf};

/// Moments of a rank that are remembered: those of operations under way at the same time, in as many communicators.
const RECENT: usize = 64;

/// Operations on GPUs up to which a capture is read a second time to match its collectives.
const MAX_GPU_OPS: u64 = 1 << 22;
/// Shares above which too little is known: of exposed communication that was not matched, of time without records, in
/// percent.
const UNMATCHED_PERCENT: u64 = 10;
const UNKNOWN_PERCENT: u64 = 1;

/// The simulation of a capture, made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Late<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    ledgers: &'a [DeviceLedger],
    made: Option<Result<Recorded, &'static str>>,
}

impl<'a, S: ReadAt> Late<'a, S> {
    pub(crate) fn new(capture: &'a Capture<S>, ledgers: &'a [DeviceLedger]) -> Self {
        Self { capture, ledgers, made: None }
    }

    /// How much earlier the job of a device would have ended had it been no later than the others, ns; or why that is not
    /// simulated.
    pub(crate) fn saved_ns(&mut self, late: DeviceId) -> Result<u64, &'static str> {
        let (capture, ledgers) = (self.capture, self.ledgers);
        let made = self.made.get_or_insert_with(|| make(capture, ledgers));
        let recorded = made.as_ref().map_err(|why| *why)?;
        recorded.saved_ns(late).ok_or("none of its collectives was matched")
    }
}

fn make<S: ReadAt>(capture: &Capture<S>, ledgers: &[DeviceLedger]) -> Result<Recorded, &'static str> {
    let sum = |of: &dyn Fn(&DeviceLedger) -> u64| ledgers.iter().map(of).fold(0u64, u64::saturating_add);
    let exceeds = |part: u64, percent: u64, whole: u64| {
        u128::from(part) * 100 > u128::from(percent) * u128::from(whole)
    };
    let unmatched = sum(&|ledger| ledger.sums.comm(CommLeaf::Unsplit));
    if exceeds(unmatched, UNMATCHED_PERCENT, sum(&|ledger| ledger.sums.get(Leaf::CommExposed))) {
        return Err("too many collectives were not matched");
    }
    let unknown = sum(&|ledger| ledger.sums.get(Leaf::Unknown));
    if exceeds(unknown, UNKNOWN_PERCENT, sum(&|ledger| ledger.end.since(ledger.start))) {
        return Err("records are missing");
    }
    let of_gpus = capture.batches().iter().filter(|batch| batch.kind_id == RecordKind::GpuOp.id());
    if of_gpus.fold(0u64, |sum, batch| sum.saturating_add(u64::from(batch.rows))) > MAX_GPU_OPS {
        return Err("the capture is too long");
    }
    let devices: Vec<DeviceId> = ledgers.iter().map(|ledger| ledger.device).collect();
    Ok(Recorded::new(Collectives::of(capture, &devices).operations))
}

/// Operations of a recording, in the order in which they are simulated.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    operations: Vec<Operation>,
    /// Positions by the last one's coming.
    order: Vec<usize>,
    /// By device, the number of the job that it belongs to: devices of one job are those that have operations in common.
    jobs: BTreeMap<DeviceId, usize>,
}

/// A moment of a rank, by its own clock, and by how much it moves.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: TimeNs,
    shift: i64,
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

impl Recorded {
    /// Takes matched operations.
    pub(crate) fn new(operations: Vec<Operation>) -> Self {
        let mut order: Vec<usize> = (0..operations.len()).collect();
        order.sort_by_key(|&position| operations.get(position).map(|operation| operation.at));
        let jobs = jobs(&operations);
        Self { operations, order, jobs }
    }

    /// How much earlier the job of a device would have ended, ns. None where the device has no operation.
    pub(crate) fn saved_ns(&self, late: DeviceId) -> Option<u64> {
        let job = self.jobs.get(&late)?;
        let mut pasts: BTreeMap<DeviceId, Past> = BTreeMap::new();
        let mut lengths = Vec::new();
        for operation in self.order.iter().filter_map(|&position| self.operations.get(position)) {
            if operation.came.first().and_then(|came| self.jobs.get(&came.device)) != Some(job) {
                continue;
            }
            let cut = if operation.last == late { excess(operation, &pasts, &mut lengths) } else { 0 };
            let mut end = i64::MIN;
            for came in &operation.came {
                let past = pasts.entry(came.device).or_default();
                let own_cut = if came.device == late { cut } else { 0 };
                let shift = past.before(came.at).map_or(0, |moment| moment.shift).saturating_sub(own_cut);
                past.add(Moment { at: came.at, shift });
                let early = i64::try_from(came.last_at.since(came.at)).unwrap_or(i64::MAX);
                end = end.max(shift.saturating_sub(early));
            }
            for came in &operation.came {
                if let Some(past) = pasts.get_mut(&came.device) {
                    past.add(Moment { at: came.end, shift: end });
                }
            }
        }
        let last = pasts.values().filter_map(|past| past.0.back()).map(|moment| moment.shift).max()?;
        Some(last.min(0).unsigned_abs())
    }
}

/// What the last one to come took longer than the median, since the moment before.
fn excess(operation: &Operation, pasts: &BTreeMap<DeviceId, Past>, lengths: &mut Vec<u64>) -> i64 {
    lengths.clear();
    let mut own = 0;
    for came in &operation.came {
        // Where nothing is known from before, nothing is known of how long it took.
        let Some(before) = pasts.get(&came.device).and_then(|past| past.before(came.at)) else { return 0 };
        let length = came.at.since(before.at);
        lengths.push(length);
        if came.device == operation.last {
            own = length;
        }
    }
    lengths.sort_unstable();
    let median = lengths.len().checked_sub(1).and_then(|last| lengths.get(last / 2)).copied();
    i64::try_from(own.saturating_sub(median.unwrap_or(own))).unwrap_or(0)
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
    use super::{Recorded, jobs};
    use crate::collectives::{Came, Operation};
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

    fn saved<W: AsRef<[i64]>>(works: &[W], device: u32) -> u64 {
        Recorded::new(steps(works)).saved_ns(DeviceId(device)).unwrap()
    }

    #[test]
    fn of_two_ranks_what_one_is_late_by_is_saved_in_each_step() {
        assert_eq!(saved(&[[100, 130]; 7], 1), 7 * 30);
        assert_eq!(saved(&[[100, 130]; 7], 0), 0);
        assert_eq!(saved(&[[100, 100]; 7], 1), 0);
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
        let saved = |work_of_2| Recorded::new(operations(work_of_2)).saved_ns(DeviceId(1)).unwrap();
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
        assert_eq!(Recorded::new(operations).saved_ns(DeviceId(1)), Some(3 * 30));
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
        assert_eq!(Recorded::new(operations).saved_ns(DeviceId(1)), Some(30));
    }

    #[test]
    fn another_job_of_the_capture_does_not_count() {
        let mut operations = steps(&[[100, 130]; 4]);
        operations.push(operation(&[(8, 5), (9, 6)], 7));
        assert_eq!(jobs(&operations).len(), 4);
        let recorded = Recorded::new(operations);
        assert_eq!(recorded.saved_ns(DeviceId(1)), Some(120));
        assert_eq!(recorded.saved_ns(DeviceId(7)), None);
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
