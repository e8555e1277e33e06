//! Which activity kinds are enabled, and how.

use stallscope_cupti_abi::{ActivityKind, CuptiResult, DRIVER_CALLS, MARK_CALL, RUNTIME_CALLS, code};
use stallscope_cupti_wire::Reason;

use super::Session;
use crate::Refusal;

/// Kinds that can be asked for, in the order in which they are enabled. Devices first, so that they are known when the
/// first operation comes; kernels last, so that what explains them is on before.
const KINDS: [ActivityKind; 11] = [
    ActivityKind::Device,
    ActivityKind::Overhead,
    ActivityKind::Marker,
    ActivityKind::Driver,
    ActivityKind::Runtime,
    ActivityKind::Synchronization,
    ActivityKind::Copy,
    ActivityKind::PeerCopy,
    ActivityKind::Fill,
    ActivityKind::GraphTrace,
    ActivityKind::Kernel,
];

/// Switches the recording of one call.
type SetCall = unsafe extern "C" fn(u32, u8) -> CuptiResult;

/// Kinds that other profilers enable for themselves as a rule, and disable when they stop.
pub(super) const SHARED: u64 = ActivityKind::Driver.bit()
    | ActivityKind::Runtime.bit()
    | ActivityKind::Overhead.bit()
    | ActivityKind::Copy.bit()
    | ActivityKind::PeerCopy.bit()
    | ActivityKind::Fill.bit()
    | ActivityKind::Kernel.bit();

/// Kinds without which there is no reason to be attached.
const NEEDED: u64 = ActivityKind::Kernel.bit() | ActivityKind::GraphTrace.bit();

fn driver_calls() -> impl Iterator<Item = u32> {
    DRIVER_CALLS.iter().map(|call| call.id)
}

fn runtime_calls() -> impl Iterator<Item = u32> {
    RUNTIME_CALLS.iter().map(|call| call.id)
}

impl Session {
    /// Enables what is wanted and not on, disables what is on and not wanted. A kind that this CUPTI does not have is left
    /// out, unless it is one that is needed.
    pub(super) fn follow_kinds(&mut self, wanted: u64) -> Result<(), Refusal> {
        self.disable(!wanted);
        for kind in KINDS.into_iter().filter(|kind| wanted & kind.bit() != 0) {
            if self.enabled & kind.bit() != 0 {
                continue;
            }
            match self.enable(kind) {
                code::SUCCESS => self.enabled |= kind.bit(),
                result if NEEDED & kind.bit() != 0 => return Err(Refusal::new(Reason::Cupti, result)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Enables again what somebody else may have disabled. What is on counts as on whatever CUPTI says now.
    pub(super) fn enable_again(&mut self) {
        let enabled = self.enabled;
        for kind in KINDS.into_iter().filter(|kind| enabled & kind.bit() != 0) {
            let _ = self.enable(kind);
        }
    }

    /// Disables those kinds of `which` that are on.
    pub(super) fn disable(&mut self, which: u64) {
        // The reverse of the order in which they were enabled.
        for kind in KINDS.into_iter().rev().filter(|kind| which & kind.bit() != 0) {
            if self.enabled & kind.bit() == 0 {
                continue;
            }
            if kind == ActivityKind::Driver && self.has_driver_filter {
                self.set_calls(self.functions.enable_driver_api, driver_calls().chain([MARK_CALL]), false);
                self.has_driver_filter = false;
            } else if kind == ActivityKind::Runtime && self.has_runtime_filter {
                self.set_calls(self.functions.enable_runtime_api, runtime_calls(), false);
                self.has_runtime_filter = false;
            } else {
                // SAFETY: takes a number. An error leaves nothing to do.
                let _ = unsafe { (self.functions.disable)(kind.id()) };
            }
            self.enabled &= !kind.bit();
        }
    }

    fn enable(&mut self, kind: ActivityKind) -> CuptiResult {
        match kind {
            // Without its marks the agent would know nothing: where that call cannot be had alone, all are.
            ActivityKind::Driver
                if self.set_calls(self.functions.enable_driver_api, [MARK_CALL], true)
                    && self.set_calls(self.functions.enable_driver_api, driver_calls(), true) =>
            {
                self.has_driver_filter = true;
                self.converter.filter_driver = false;
                code::SUCCESS
            }
            ActivityKind::Runtime
                if self.set_calls(self.functions.enable_runtime_api, runtime_calls(), true) =>
            {
                self.has_runtime_filter = true;
                self.converter.filter_runtime = false;
                code::SUCCESS
            }
            // All calls are recorded, and those that are not wanted are left out as they come.
            ActivityKind::Driver | ActivityKind::Runtime => {
                self.converter.filter_driver |= kind == ActivityKind::Driver;
                self.converter.filter_runtime |= kind == ActivityKind::Runtime;
                // SAFETY: takes a number.
                unsafe { (self.functions.enable)(kind.id()) }
            }
            // Devices were there before us.
            // SAFETY: takes a number; buffers are registered.
            ActivityKind::Device => unsafe { (self.functions.enable_and_dump)(kind.id()) },
            // SAFETY: takes a number.
            _ => unsafe { (self.functions.enable)(kind.id()) },
        }
    }

    /// Enables or disables the calls of a layer that are recorded, one by one; false where this CUPTI cannot.
    fn set_calls(&self, set: Option<SetCall>, calls: impl IntoIterator<Item = u32>, on: bool) -> bool {
        let Some(set) = set else { return false };
        let mut any = false;
        for call in calls {
            // SAFETY: takes numbers. A version that does not know the call refuses it.
            any |= unsafe { set(call, on.into()) } == code::SUCCESS;
        }
        any
    }
}
