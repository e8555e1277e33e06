//! The ledger: where every nanosecond of every device went.
//!
//! Architecture invariant: the leaves of a window sum to its length, to the nanosecond, in release builds too. The sums
//! are built from adjacent stretches and checked against the window all the same, for the whole and for every step;
//! a ledger that does not close is an error, never a report.

pub mod calibrate;
pub mod causes;
pub mod device;
mod explain;
pub mod gap;
pub mod leaf;
mod names;
mod op_columns;
mod stepper;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::DeviceId;

pub use device::{DeviceLedger, NotConserved, Options};
pub use leaf::{IdleLeaf, Leaf, Sums};
pub use stepper::Step;

use crate::capture::{Capture, ReadAt};

/// Works out the ledgers of all devices of a capture, on as many threads as the machine has cores.
///
/// # Errors
/// The first [`NotConserved`].
pub fn all_ledgers<S: ReadAt>(
    capture: &Capture<S>,
    options: Options,
) -> Result<Vec<DeviceLedger>, NotConserved> {
    let devices = capture.keys(RecordKind::GpuOp);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(devices.len().max(1));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&device) = devices.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ledger = device_ledger_of(capture, device, options);
                    if let Ok(mut done) = done.lock() {
                        done.push((device, ledger));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(device, _)| *device);
    done.into_iter().filter_map(|(_, ledger)| ledger.transpose()).collect()
}

fn device_ledger_of<S: ReadAt>(
    capture: &Capture<S>,
    device: u32,
    options: Options,
) -> Result<Option<DeviceLedger>, NotConserved> {
    device::device_ledger(capture, DeviceId(device), options)
}
