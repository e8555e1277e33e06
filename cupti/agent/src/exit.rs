//! The end of the job: `exit` takes CUPTI down while the agent's thread may be in the middle of a call into it.
//!
//! So the agent asks to be told: what it registers runs before what was registered earlier, CUPTI's own end among that. It
//! gives the agent's thread a moment to take the last records and keeps it out of CUPTI from then on.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::callbacks::POOL;
use crate::sys::{self, Scope};

/// The C library's function with which ends are registered.
pub(crate) const REGISTER: &CStr = c"__cxa_atexit";

pub(crate) type Register =
    unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, *mut c_void) -> c_int;

/// How long the end of the job is held up at most.
const PATIENCE_NS: u64 = 300_000_000;

static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// The job has waited long enough.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Where the agent's thread is: one of the numbers below.
static AGENT: AtomicU32 = AtomicU32::new(AWAY);
/// It will not call CUPTI before it looks whether the job ends.
const AWAY: u32 = 0;
/// The same, but it is attached, and records may wait for it.
const ATTACHED: u32 = 1;
/// It is at work, and may be in CUPTI.
const BUSY: u32 = 2;

/// Process that registered: a child of a fork runs the same handler, and has no agent.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Asks to be told of the end; once in a process is enough.
pub(crate) fn register(register: Register) {
    if PROCESS.swap(sys::process(), Ordering::AcqRel) == 0 {
        // SAFETY: the C library's function; the handler is there for as long as the process is.
        let _ = unsafe { register(on_exit, core::ptr::null_mut(), core::ptr::null_mut()) };
    }
}

unsafe extern "C" fn on_exit(_: *mut c_void) {
    if PROCESS.load(Ordering::Acquire) == sys::process() {
        hold(PATIENCE_NS);
    }
}

/// Lets the agent's thread take the last records, and keeps it out of CUPTI afterwards.
pub(crate) fn hold(patience_ns: u64) {
    // Sequentially consistent, as in `begin_step`: either this is seen there, or that thread is seen at work here.
    IS_ENDING.store(true, Ordering::SeqCst);
    POOL.wake();
    let deadline_ns = sys::monotonic_ns() + patience_ns;
    loop {
        let agent = AGENT.load(Ordering::SeqCst);
        let left_ns = deadline_ns.saturating_sub(sys::monotonic_ns());
        if agent == AWAY || left_ns == 0 {
            break;
        }
        sys::futex_wait(&AGENT, agent, Some(left_ns), Scope::Process);
    }
    IS_OVER.store(true, Ordering::SeqCst);
}

/// What the agent's thread may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Anything.
    Work,
    /// Take the last records.
    LastRecords,
    /// Nothing.
    Nothing,
}

/// The agent's thread begins to work.
pub(crate) fn begin_step() -> Leave {
    AGENT.store(BUSY, Ordering::SeqCst);
    if !IS_ENDING.load(Ordering::SeqCst) {
        Leave::Work
    } else if !IS_OVER.load(Ordering::SeqCst) {
        Leave::LastRecords
    } else {
        Leave::Nothing
    }
}

/// The agent's thread has done its work, and is attached or not.
pub(crate) fn end_step(is_attached: bool) {
    AGENT.store(if is_attached { ATTACHED } else { AWAY }, Ordering::SeqCst);
    if IS_ENDING.load(Ordering::SeqCst) {
        sys::futex_wake(&AGENT, Scope::Process);
    }
}

/// Before the next test.
#[cfg(test)]
pub(crate) fn forget() {
    IS_ENDING.store(false, Ordering::SeqCst);
    IS_OVER.store(false, Ordering::SeqCst);
}

/// Whether the job ends.
#[cfg(test)]
pub(crate) fn is_ending() -> bool {
    IS_ENDING.load(Ordering::SeqCst)
}
