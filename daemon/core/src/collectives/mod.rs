//! Communication kernels of several devices matched with each other, and each kernel's time split.
//!
//! A communication kernel is resident from its own begin, and moves data only once the last rank has come. For a kernel of
//! rank `r` in an operation that nobody leaves before all have entered, with `L` the last begin over all ranks, that of
//! rank `q`, and `ε` the error between the clocks of the two devices (Scalasca's wait at N×N, with an error):
//!
//! ```text
//! [s_r, L − ε)   WAIT for q
//! [L − ε, L + ε] UNCERTAIN
//! (L + ε, e_r)   TRANSFER: FLOOR up to the 5th percentile of the same operation, size and kernel; the rest EXCESS
//! ```
//!
//! Why a rank came last is told by what it did since an operation that both had, against what those did that waited for it: so
//! each operation knows when it ended on each device.
//!
//! What could not be matched is UNSPLIT. A recording of one host has one clock; those of several sources are compared where
//! `clocks` has found out how they relate, with its error added to `ε`.

pub mod clocks;
mod comings;
mod lanes;
mod matching;
pub(crate) mod off;
mod pairing;
mod phases;
pub(crate) mod progress;
mod transfers;

use std::collections::BTreeMap;
use std::sync::Mutex;

use hashbrown::HashMap;
use stallscope_schemas::units::{DeviceId, TimeNs};

use crate::capture::{Capture, ReadAt};
use crate::ledger::parallel::each;

use lanes::Lane;
pub use matching::{Came, Operation, OperationId};
use matching::{Matched, Split};
pub use phases::{Phase, Stretch};
pub use transfers::Transfer;

/// The label under which a recorder leaves the error of one device's clock against the host's, ns.
pub const CLOCK_ERROR_LABEL: &str = "gpu.clock_error_ns";

/// The error that is assumed of a trace, which does not say: CUPTI's clock and the host's are compared by its writer to
/// about a microsecond.
const ASSUMED_ERROR_NS: u64 = 1_000;

/// Lanes with the splits of their kernels.
type Lanes = (Vec<Lane>, Vec<Vec<Option<Split>>>);

/// The communication of all devices of a capture.
#[derive(Debug, Default)]
pub struct Collectives {
    /// By device: adjacent or apart, in order, never overlapping; together all time in which communication was resident.
    stretches: HashMap<DeviceId, Vec<Stretch>>,
    /// Operations that were matched and that nobody left before all had come.
    pub operations: Vec<Operation>,
    /// By device: moments between which it will be asked what it did. In order.
    moments: HashMap<DeviceId, Vec<TimeNs>>,
    /// Operations of each kind and size, the most time first.
    pub transfers: Vec<Transfer>,
    /// Error between two devices' clocks, ns.
    pub error_ns: u64,
}

impl Collectives {
    /// Matches the communication of these devices, on as many threads as the machine has cores.
    pub fn of<S: ReadAt>(capture: &Capture<S>, devices: &[DeviceId]) -> Self {
        Self::made(capture, devices, false)
    }

    /// The same; `in_turn`: on the calling thread.
    pub(crate) fn made<S: ReadAt>(capture: &Capture<S>, devices: &[DeviceId], in_turn: bool) -> Self {
        if devices.len() < 2 {
            return Self::default();
        }
        let error_ns = clock_error_ns(capture).saturating_mul(2);
        let lanes = lanes::of(capture, devices, in_turn);
        let Matched { splits, transfers, operations } = matching::matched(&lanes, capture.tables(), error_ns);
        let mut by_device: BTreeMap<DeviceId, Lanes> = BTreeMap::new();
        for (lane, splits) in lanes.into_iter().zip(splits) {
            let of_device = by_device.entry(lane.device).or_default();
            of_device.0.push(lane);
            of_device.1.push(splits);
        }
        // Kernels are many: those of a device go when its stretches are made.
        let waiting: Vec<(DeviceId, Mutex<Lanes>)> =
            by_device.into_iter().map(|(device, lanes)| (device, Mutex::new(lanes))).collect();
        let stretches = each(&waiting, in_turn, |(device, lanes)| {
            let (lanes, splits) =
                lanes.lock().map(|mut lanes| std::mem::take(&mut *lanes)).unwrap_or_default();
            let mut stretches = phases::resolve(phases::pieces(&lanes, &splits, *device));
            stretches.shrink_to_fit();
            stretches
        });
        let stretches = waiting.iter().map(|(device, _)| *device).zip(stretches).collect();
        Self { stretches, transfers, error_ns, moments: moments(&operations), operations }
    }

    /// What a device's communication was at each moment.
    #[must_use]
    pub fn stretches(&self, device: DeviceId) -> &[Stretch] {
        self.stretches.get(&device).map_or(&[], Vec::as_slice)
    }

    /// Moments between which a device will be asked what it did.
    #[must_use]
    pub fn moments(&self, device: DeviceId) -> &[TimeNs] {
        self.moments.get(&device).map_or(&[], Vec::as_slice)
    }
}

/// The begin and end of each stretch that has to be compared.
fn moments(operations: &[Operation]) -> HashMap<DeviceId, Vec<TimeNs>> {
    let mut all: HashMap<DeviceId, Vec<TimeNs>> = HashMap::new();
    for operation in operations {
        let last = operation.last_one();
        for came in &operation.came {
            // What it did up to there, in it until the last one came, and from its end on; and what the last one did while it
            // was there.
            all.entry(came.device).or_default().extend([came.at, came.last_at, came.end]);
            if let Some(last) = last {
                all.entry(operation.last).or_default().push(last.when_it_came(came));
            }
        }
    }
    for moments in all.values_mut() {
        moments.sort_unstable();
        moments.dedup();
        moments.shrink_to_fit();
    }
    all
}

/// The error of one device's clock.
fn clock_error_ns<S: ReadAt>(capture: &Capture<S>) -> u64 {
    let said = capture.tables().labels().iter().filter(|(key, _)| key == CLOCK_ERROR_LABEL);
    said.filter_map(|(_, value)| value.parse().ok()).max().unwrap_or(ASSUMED_ERROR_NS)
}

#[cfg(test)]
mod tests;
