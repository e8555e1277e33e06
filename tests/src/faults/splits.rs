//! Each operation's split into wait and transfer, held against when the ranks really came.

use std::collections::HashSet;

use stallscope_core::capture::{Capture, ReadAt};
use stallscope_core::collectives::{Collectives, Operation};
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::DeviceId;

use super::truth::{Part, Truth};

/// How well the operations of one capture were split.
#[derive(Debug, Default)]
pub(super) struct Splits {
    /// One for each kernel: by how much its wait or its transfer is wrong, ns, whichever is more; and the larger of the two.
    pub(super) errors: Vec<(u64, u64)>,
    /// Kernels for which the true last coming lies within the reported one's error.
    pub(super) covered: u64,
    /// The reported error, ns.
    pub(super) epsilon_ns: u64,
    /// Collectives whose kernels were all found to be one operation.
    pub(super) meetings: HashSet<usize>,
    /// Kernels of operations of which the capture does not have all ranks: what is said of them is that they waited at least
    /// until the last one seen; and for how many that is so.
    pub(super) partial: u64,
    pub(super) right_partial: u64,
    /// Operations that are not one: their kernels belong to different collectives, or to none.
    pub(super) mistaken: u64,
}

/// A wait or transfer is right if it is wrong by no more than this share, or this time.
const GOOD_SHARE: f64 = 0.01;
const GOOD_NS: u64 = 5_000;
/// A kernel that begins farther from any collective of its rank is none of them: clocks are off by less.
const NEAR_NS: u64 = 3_000_000;

impl Splits {
    /// Of a capture.
    pub(super) fn of<S: ReadAt>(capture: &Capture<S>, truth: &Truth) -> Self {
        let devices: Vec<DeviceId> = capture.keys(RecordKind::GpuOp).into_iter().map(DeviceId).collect();
        let collectives = Collectives::of(capture, &devices);
        let rank = |device: DeviceId| {
            let process = capture.tables().device(device)?.processes.first().copied()?;
            capture.tables().process(process)?.rank
        };
        let mut splits = Self { epsilon_ns: collectives.error_ns, ..Self::default() };
        for operation in &collectives.operations {
            let parts = operation.came.iter().map(|came| {
                let part = truth.nearest(rank(came.device)?, came.at.0)?;
                (part.came.abs_diff(came.at.0) <= NEAR_NS).then_some(part)
            });
            let parts: Option<Vec<Part>> = parts.collect();
            match parts.filter(|parts| parts.windows(2).all(|two| two[0].meeting == two[1].meeting)) {
                Some(parts) => splits.add(operation, &parts),
                None => splits.mistaken += 1,
            }
        }
        splits
    }

    fn add(&mut self, operation: &Operation, parts: &[Part]) {
        for (came, part) in operation.came.iter().zip(parts) {
            if operation.came.len() < part.ranks {
                let is_right = operation.at.since(came.at) <= part.last.abs_diff(part.came) + self.epsilon_ns;
                self.partial += 1;
                self.right_partial += u64::from(is_right);
                continue;
            }
            let wait = (operation.at.since(came.at), part.last.abs_diff(part.came));
            let transfer = (came.end.since(operation.at), part.end.abs_diff(part.last));
            let error = |(said, real): (u64, u64)| said.abs_diff(real);
            self.errors.push((error(wait).max(error(transfer)), wait.1.max(transfer.1)));
            self.covered += u64::from(error(wait) <= self.epsilon_ns);
            self.meetings.insert(part.meeting);
        }
    }

    /// Kernels that were split.
    pub(super) fn count(&self) -> u64 {
        self.errors.len() as u64
    }

    /// Of these, the ones that are as right as they have to be.
    pub(super) fn good(&self) -> u64 {
        let is_good =
            |&&(error, of): &&(u64, u64)| error <= GOOD_NS || error as f64 <= of as f64 * GOOD_SHARE;
        self.errors.iter().filter(is_good).count() as u64
    }
}

/// The 99th percentile of errors, µs.
pub(super) fn p99_us(mut errors_ns: Vec<u64>) -> Option<f64> {
    errors_ns.sort_unstable();
    let at = errors_ns.len().checked_sub(1)? * 99 / 100;
    errors_ns.get(at).map(|&ns| ns as f64 / 1e3)
}
