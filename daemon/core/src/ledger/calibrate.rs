//! How long a device takes, on its own account, to begin what was launched on it while it was empty.
//!
//! ```text
//! floor = clamp(2 × median of w over the first gaps with w > 0, LEAST_FLOOR_NS, MOST_FLOOR_NS)
//! w     = start of X − max(end of all before, return of X's launch call)
//! ```
//!
//! Measured on the traces of the ground truth and its relatives: the median of w is 1-3 µs on H100 and B200 and up to
//! 16 µs on MI300, whose queues are slower to wake; twice the median holds 99 % of the ordinary waits on each. The bounds
//! keep a capture whose every wait is long from calling that normal.

use stallscope_schemas::record::{gpu_op, op_flags};
use stallscope_schemas::units::DeviceId;

use super::op_columns::value;
use crate::capture::{Capture, ColumnSet, ReadAt, Run};
use crate::rows::GpuOp;
use crate::steps::percentile;

/// Even on an idle NVIDIA device no launch of the measured traces took longer.
pub const LEAST_FLOOR_NS: u64 = 10_000;
/// Three times the slowest median measured.
pub const MOST_FLOOR_NS: u64 = 50_000;

/// Gaps that are looked at.
const SAMPLE: usize = 4096;

/// Operations that are looked at to find them.
const MOST_OPS: usize = 1 << 17;

/// The floor of one device, ns.
pub(super) fn device_floor_ns<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> u64 {
    let set = ColumnSet::of(&[gpu_op::FLAGS, gpu_op::LAUNCH_START, gpu_op::LAUNCH_DURATION]);
    let mut merged = capture.merged::<GpuOp>(device.0, set);
    let mut waits: Vec<u64> = Vec::new();
    let mut covered_until = i64::MAX;
    let mut seen = 0;
    while let Some(run) = merged.next_run() {
        let Run::Rows(columns, range) = run else { continue };
        for at in range {
            let of = |column: u16| value(columns.column(column), at);
            let start = of(gpu_op::START).cast_signed();
            if of(gpu_op::FLAGS) & op_flags::HAS_LAUNCH != 0 && start > covered_until {
                let called = of(gpu_op::LAUNCH_START).cast_signed();
                let returned = called.saturating_add_unsigned(of(gpu_op::LAUNCH_DURATION));
                waits.extend(
                    u64::try_from(start.saturating_sub(covered_until.max(returned))).ok().filter(|&w| w > 0),
                );
            }
            let end = start.saturating_add_unsigned(of(gpu_op::DURATION));
            covered_until = if covered_until == i64::MAX { end } else { covered_until.max(end) };
            seen += 1;
        }
        if waits.len() >= SAMPLE || seen >= MOST_OPS {
            break;
        }
    }
    percentile(&waits, 50).unwrap_or(0).saturating_mul(2).clamp(LEAST_FLOOR_NS, MOST_FLOOR_NS)
}
