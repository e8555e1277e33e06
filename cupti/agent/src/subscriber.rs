//! The subscription to callbacks, of which CUPTI has one for the whole process.
//!
//! It is held as little as can be, because whoever else asks for it meanwhile (the user's own profiler) is refused:
//! - for a moment at an attach and once a second while attached, to see whether somebody else has it;
//! - while launches are sampled;
//! - for a moment after a detach, until the job makes a call within which `cuptiFinalize` may run.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use stallscope_cupti_abi::{
    CallbackData, CuptiResult, DRIVER_CALLS, Functions, Group, RUNTIME_CALLS, Subscriber, code, domain, site,
};
use stallscope_cupti_wire::Reason;

use crate::Refusal;
use crate::arch::{probe_launch, stack_pointer};
use crate::sample::Sample;
use crate::sys::{self, Scope};

/// What `on_call` does: one of the numbers below.
static MODE: AtomicU32 = AtomicU32::new(OFF);
const OFF: u32 = 0;
/// Count launches, and fire the site for some.
const SAMPLE: u32 = 1;
/// Finalise at the next exit of a call.
const ARMED: u32 = 2;
/// A thread of the job is in `cuptiFinalize`.
const RUNNING: u32 = 3;
/// It has returned.
const DONE: u32 = 4;

/// What is sampled.
static LAUNCHES: Sample = Sample::new();
/// `cuptiFinalize`, or null.
static FINALIZE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static RESULT: AtomicI32 = AtomicI32::new(0);

type Finalize = unsafe extern "C" fn() -> CuptiResult;

/// How long a thread of the job may be in `cuptiFinalize` before CUPTI counts as stuck.
const STUCK_NS: u64 = 2_000_000_000;

/// CUPTI calls this on the job's threads, around the calls that were asked for.
unsafe extern "C" fn on_call(_user: *mut c_void, callback_domain: u32, call: u32, data: *const CallbackData) {
    if data.is_null() || !matches!(callback_domain, domain::DRIVER_API | domain::RUNTIME_API) {
        return;
    }
    // SAFETY: callbacks of these domains get this structure, which lives through the call.
    let data = unsafe { &*data };
    match MODE.load(Ordering::Acquire) {
        SAMPLE if data.site == site::ENTER => {
            // The text is not read: a kernel's name is at one address. Without one, the call is all that is known.
            let name = data.symbol_name.addr() as u64;
            let kernel = if name == 0 { u64::from(callback_domain) << 32 | u64::from(call) } else { name };
            if LAUNCHES.launch(kernel, stack_pointer() as u64) {
                probe_launch(data.correlation, call, data.symbol_name);
            }
        }
        ARMED if data.site == site::EXIT => finalize_here(),
        _ => {}
    }
}

/// The exit of a call is where CUPTI's documentation wants this to be called from. The thread is held up by CUPTI for as
/// long as that takes, once per detach.
fn finalize_here() {
    if MODE.compare_exchange(ARMED, RUNNING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: null or the address that `finalize` put there.
    let finalize =
        unsafe { core::mem::transmute::<*mut c_void, Option<Finalize>>(FINALIZE.load(Ordering::Acquire)) };
    if let Some(finalize) = finalize {
        // SAFETY: CUPTI's function, at the place that it is for.
        RESULT.store(unsafe { finalize() }, Ordering::Release);
    }
    MODE.store(DONE, Ordering::Release);
    sys::futex_wake(&MODE, Scope::Process);
}

/// What a code of `cuptiSubscribe` means.
pub(crate) fn refusal(result: CuptiResult) -> Refusal {
    let reason = match result {
        code::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => Reason::OtherProfiler,
        code::NOT_INITIALIZED => Reason::NoCuda,
        _ => Reason::Cupti,
    };
    Refusal::new(reason, result)
}

fn subscribe(functions: &Functions) -> Result<Subscriber, CuptiResult> {
    let mut subscriber = null_mut();
    // SAFETY: fills the word that it is given; the callback is there for as long as the process is.
    let result = unsafe { (functions.subscribe)(&raw mut subscriber, on_call, null_mut()) };
    if result == code::SUCCESS { Ok(subscriber) } else { Err(result) }
}

fn unsubscribe(functions: &Functions, subscriber: Subscriber) {
    // SAFETY: a subscriber of `subscribe`, once. CUPTI makes no call for it afterwards; one that is under way finds the
    // mode off and returns.
    let _ = unsafe { (functions.unsubscribe)(subscriber) };
}

/// Whether nobody else has the subscription, by taking it for a moment.
pub(crate) fn is_free(functions: &Functions) -> Result<(), CuptiResult> {
    subscribe(functions).map(|subscriber| unsubscribe(functions, subscriber))
}

/// Sampling of launches: while it lives, the subscription is taken.
#[derive(Debug)]
pub(crate) struct Sampling {
    subscriber: Subscriber,
}

impl Sampling {
    /// `budget` is launches a second.
    pub(crate) fn start(functions: &Functions, budget: u64) -> Result<Self, CuptiResult> {
        let subscriber = subscribe(functions)?;
        LAUNCHES.begin(budget, sys::monotonic_ns());
        MODE.store(SAMPLE, Ordering::Release);
        // A launch through the runtime is not seen at the driver, so far as traces show. Copies and fills are operations on
        // the device as kernels are.
        for (domain, calls) in [(domain::DRIVER_API, DRIVER_CALLS), (domain::RUNTIME_API, RUNTIME_CALLS)] {
            for call in calls.iter().filter(|call| matches!(call.group, Group::Launch | Group::Copy)) {
                // SAFETY: our own subscriber. A version that does not know the call refuses it.
                let _ = unsafe { (functions.enable_callback)(1, subscriber, domain, call.id) };
            }
        }
        Ok(Self { subscriber })
    }

    pub(crate) fn stop(self, functions: &Functions) {
        MODE.store(OFF, Ordering::Release);
        unsubscribe(functions, self.subscriber);
    }
}

/// Sees to it that the budget is kept.
pub(crate) fn look_at_launches(budget: u64, now_ns: u64) {
    LAUNCHES.look(budget, now_ns);
}

/// Launches that were seen, and those of them that fired the site, since the process began.
pub(crate) fn launch_counts() -> (u64, u64) {
    (LAUNCHES.launches(), LAUNCHES.sampled())
}

/// How an attempt to finalise ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finalized {
    /// CUPTI is gone from the process.
    Yes,
    /// The job made no call in time; nothing was changed.
    Idle,
    /// Somebody else has the subscription.
    Other,
    /// It, or what leads to it, returned this.
    Failed(CuptiResult),
    /// It was called and did not return.
    Stuck,
}

/// Calls `cuptiFinalize` at the exit of the next call that the job makes into CUDA, if there is one in time.
pub(crate) fn finalize(functions: &Functions, window_ns: u64) -> Finalized {
    let subscriber = match subscribe(functions) {
        Ok(subscriber) => subscriber,
        Err(code::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED) => return Finalized::Other,
        Err(result) => return Finalized::Failed(result),
    };
    FINALIZE.store(functions.finalize as *mut c_void, Ordering::Release);
    RESULT.store(code::UNKNOWN, Ordering::Relaxed);
    MODE.store(ARMED, Ordering::Release);
    // Whatever the job calls first.
    let enabled = [domain::DRIVER_API, domain::RUNTIME_API]
        // SAFETY: our own subscriber.
        .map(|domain| unsafe { (functions.enable_domain)(1, subscriber, domain) })
        .into_iter()
        .find(|result| *result != code::SUCCESS)
        .unwrap_or(code::SUCCESS);
    let deadline = sys::monotonic_ns() + if enabled == code::SUCCESS { window_ns } else { 0 };
    wait_for(DONE, deadline);
    if MODE.compare_exchange(ARMED, OFF, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        unsubscribe(functions, subscriber);
        return if enabled == code::SUCCESS { Finalized::Idle } else { Finalized::Failed(enabled) };
    }
    wait_for(DONE, sys::monotonic_ns() + STUCK_NS);
    // From DONE to OFF; a thread that is still in there must not find ARMED or SAMPLE either.
    if MODE.compare_exchange(DONE, OFF, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return Finalized::Stuck;
    }
    match RESULT.load(Ordering::Acquire) {
        // The subscriber went with the rest.
        code::SUCCESS => Finalized::Yes,
        result => {
            unsubscribe(functions, subscriber);
            Finalized::Failed(result)
        }
    }
}

fn wait_for(mode: u32, deadline_ns: u64) {
    loop {
        let now = MODE.load(Ordering::Acquire);
        let left_ns = deadline_ns.saturating_sub(sys::monotonic_ns());
        if now == mode || left_ns == 0 {
            return;
        }
        sys::futex_wait(&MODE, now, Some(left_ns), Scope::Process);
    }
}

/// After a test in which `cuptiFinalize` took too long.
#[cfg(test)]
pub(crate) fn forget_stuck() {
    MODE.store(OFF, Ordering::Release);
}
