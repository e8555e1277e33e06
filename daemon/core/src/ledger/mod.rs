//! The ledger: where every nanosecond of every device went.
//!
//! Architecture invariant: the leaves of a window sum to its length, to the nanosecond, in release builds too. The sums
//! are built from adjacent stretches and checked against the window all the same, for the whole and for every step;
//! a ledger that does not close is an error, never a report.

pub(crate) mod book;
pub mod calibrate;
pub mod causes;
mod charged;
pub mod cpu;
pub mod device;
mod explain;
pub mod gap;
mod launches;
pub mod leaf;
mod names;
mod op_columns;
mod others;
pub(crate) mod parallel;
mod pieces;
pub mod root;
mod root_leaf;
pub(crate) mod so_far;
mod stepper;

use std::sync::Arc;

use stallscope_schemas::record::{RecordKind, device_kind};
use stallscope_schemas::units::DeviceId;

pub use cpu::{CpuLeaf, CpuLedger, CpuSums};
pub use device::{DeviceLedger, NotConserved, Options};
pub use leaf::{CommLeaf, IdleLeaf, Leaf, Sums};
pub use root::{Root, RootLeaf, WaitedFor};
pub use stepper::Step;

use crate::capture::{Capture, Device, ReadAt};
use crate::collectives::Collectives;
use crate::whatif::Recorded;

/// The ledgers of all devices of a capture.
#[derive(Debug, Default)]
pub struct Ledgers {
    /// GPUs, by their number.
    pub gpus: Vec<DeviceLedger>,
    /// Ranks on CPUs, by their number.
    pub cpus: Vec<CpuLedger>,
    /// What GPUs did between the collectives that they had in common.
    pub(crate) recorded: Recorded,
}

impl Ledgers {
    /// Works out the ledgers of all devices, on as many threads as the machine has cores.
    ///
    /// # Errors
    /// The first [`NotConserved`].
    pub fn of<S: ReadAt>(capture: &Capture<S>, options: Options) -> Result<Self, NotConserved> {
        let (gpus, recorded) = gpu_ledgers(capture, options)?;
        Ok(Self { gpus, cpus: cpu_ledgers(capture, options)?, recorded })
    }

    /// Whether the capture holds nothing that a ledger could be made of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gpus.is_empty() && self.cpus.is_empty()
    }
}

/// Works out the ledgers of all GPUs of a capture, on as many threads as the machine has cores.
///
/// # Errors
/// The first [`NotConserved`].
pub fn all_ledgers<S: ReadAt>(
    capture: &Capture<S>,
    options: Options,
) -> Result<Vec<DeviceLedger>, NotConserved> {
    gpu_ledgers(capture, options).map(|(ledgers, _)| ledgers)
}

fn gpu_ledgers<S: ReadAt>(
    capture: &Capture<S>,
    options: Options,
) -> Result<(Vec<DeviceLedger>, Recorded), NotConserved> {
    let devices = gpus(capture);
    let numbers: Vec<DeviceId> = devices.iter().map(|&device| DeviceId(device)).collect();
    let collectives = Collectives::made(capture, &numbers, options.in_turn);
    let mut ledgers =
        each(&devices, options, |device| device::device_ledger(capture, device, &collectives, options))?;
    // What is left of the communication is told in the ledgers: it may be much.
    let Collectives { operations, .. } = collectives;
    let histories = root::charge(capture, &operations, &mut ledgers, options)?;
    let histories = histories.into_iter().map(|(device, history)| (device, Arc::new(history))).collect();
    Ok((ledgers, Recorded::new(operations, histories)))
}

/// Devices that did something, or were observed doing nothing.
fn gpus<S: ReadAt>(capture: &Capture<S>) -> Vec<u32> {
    let mut devices = capture.keys(RecordKind::GpuOp);
    devices.extend(capture.keys(RecordKind::DeviceWindow));
    devices.sort_unstable();
    devices.dedup();
    devices
}

/// Works out the ledgers of all ranks on CPUs of a capture, on as many threads as the machine has cores. A rank that drives
/// a GPU is none: its time is that of the GPU, and what its threads did is told where the GPU waited for them.
///
/// # Errors
/// The first [`NotConserved`].
pub fn cpu_ledgers<S: ReadAt>(
    capture: &Capture<S>,
    options: Options,
) -> Result<Vec<CpuLedger>, NotConserved> {
    let gpus = gpus(capture);
    let drives_a_gpu = |device: &Device| {
        let mut all = gpus.iter().filter_map(|&gpu| capture.tables().device(DeviceId(gpu)));
        all.any(|gpu| gpu.processes.iter().any(|process| device.processes.contains(process)))
    };
    let numbers = 0u32..;
    let devices: Vec<u32> = capture
        .tables()
        .devices()
        .iter()
        .zip(numbers)
        .filter(|(device, _)| device.kind == device_kind::CPU && !drives_a_gpu(device))
        .map(|(_, number)| number)
        .collect();
    each(&devices, options, |device| cpu::cpu_ledger(capture, device, options))
}

/// Works out something of each device, in parallel; results are in the order of the devices.
fn each<L: Send>(
    devices: &[u32],
    options: Options,
    ledger: impl Fn(DeviceId) -> Result<Option<L>, NotConserved> + Sync,
) -> Result<Vec<L>, NotConserved> {
    let ledgers = parallel::each(devices, options.in_turn, |&device| ledger(DeviceId(device)));
    ledgers.into_iter().filter_map(Result::transpose).collect()
}
