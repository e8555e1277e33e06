//! The way in and out of every function: correlation ids, CUPTI's view of calls, the truth log's clock.

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};

use stallscope_double_shared::{link, sys, truth};

use crate::engine;
use crate::state::{Error, Handle, Status};

/// A call that is being made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static CStr,
    pub(crate) correlation: u32,
    pub(crate) enter_ns: u64,
    pub(crate) thread: u32,
}

/// A call of the runtime, inside which the driver is called.
#[derive(Clone, Copy, Debug)]
struct Runtime {
    cbid: u32,
    name: usize,
    correlation: u32,
    enter_ns: u64,
}

thread_local! {
    static CONTEXT: Cell<Handle> = const { Cell::new(0) };
    static RUNTIME: Cell<Option<Runtime>> = const { Cell::new(None) };
    /// Names of the kernel that is being launched, for CUPTI's callbacks; 0 outside launches.
    static SYMBOL: Cell<usize> = const { Cell::new(0) };
    /// Eight bytes for an observer between entry and exit: of the driver's call, and of the runtime's around it.
    static DATA: [Cell<u64>; 2] = const { [Cell::new(0), Cell::new(0)] };
}

/// CUPTI numbers calls from 1.
static CORRELATION: AtomicU32 = AtomicU32::new(0);

const DRIVER: u32 = 1;
const RUNTIME_DOMAIN: u32 = 2;

/// Make a call of the driver API that needs cuInit.
pub(crate) fn call(cbid: u32, name: &'static CStr, body: impl FnOnce(&Call) -> Result<(), Error>) -> Status {
    call_symbol(cbid, name, || 0, body)
}

/// The same for a call that launches the kernel whose name is at `symbol()`, which is asked for if CUPTI wants to know.
pub(crate) fn call_symbol(
    cbid: u32,
    name: &'static CStr,
    symbol: impl FnOnce() -> usize,
    body: impl FnOnce(&Call) -> Result<(), Error>,
) -> Status {
    if !engine::is_initialised() {
        return Error::NotInitialized as Status;
    }
    let enter_ns = sys::monotonic_ns();
    engine::refresh(enter_ns);
    let runtime = RUNTIME.get();
    let correlation = runtime.map_or_else(next_correlation, |r| r.correlation);
    let call = Call { name, correlation, enter_ns, thread: sys::thread_id() };
    let told = engine::observes_calls() && (runtime.is_none() || engine::lock().tuning.nested);
    let address = name.as_ptr() as usize;
    if told {
        SYMBOL.set(symbol());
        tell(DRIVER, cbid, address, correlation, enter_ns, None);
    }
    let status = match body(&call) {
        Ok(()) => 0,
        Err(error) => error as Status,
    };
    let leave_ns = sys::monotonic_ns();
    if told {
        tell(DRIVER, cbid, address, correlation, enter_ns, Some((leave_ns, status)));
    }
    engine::drain(leave_ns);
    truth::tick(leave_ns);
    status
}

fn next_correlation() -> u32 {
    CORRELATION.fetch_add(1, Ordering::Relaxed) + 1
}

/// Tell CUPTI that a call begins, or when and with which code it ends.
fn tell(domain: u32, cbid: u32, name: usize, correlation: u32, enter_ns: u64, end: Option<(u64, Status)>) {
    let Some(observer) = engine::observer() else { return };
    let context_handle = current_context();
    let (context, slow_ns) = {
        let state = engine::lock();
        (state.contexts.get(&context_handle).map_or(0, |c| c.id), state.tuning.call_ns)
    };
    let data =
        DATA.with(|[driver, runtime]| if domain == DRIVER { driver.as_ptr() } else { runtime.as_ptr() });
    let (leave_ns, code) = end.unwrap_or((0, 0));
    let record = link::Call {
        domain,
        cbid,
        name,
        symbol: SYMBOL.get(),
        correlation,
        context,
        context_handle,
        enter_ns,
        leave_ns,
        code,
        thread: sys::thread_id(),
        data: data as usize,
    };
    match end {
        None => {
            burn(slow_ns);
            (observer.enter)(&record);
        }
        Some(_) => (observer.leave)(&record),
    }
}

/// What CUPTI costs each call, as CPU time.
fn burn(duration_ns: u64) {
    if duration_ns > 0 {
        let end_ns = sys::monotonic_ns() + duration_ns;
        while sys::monotonic_ns() < end_ns {
            std::hint::spin_loop();
        }
    }
}

/// A call of the runtime begins: driver calls of this thread are its parts until it ends.
pub(crate) fn enter_runtime(cbid: u32, name: usize) {
    let correlation = next_correlation();
    let enter_ns = sys::monotonic_ns();
    SYMBOL.set(0);
    if engine::observes_calls() {
        tell(RUNTIME_DOMAIN, cbid, name, correlation, enter_ns, None);
    }
    RUNTIME.set(Some(Runtime { cbid, name, correlation, enter_ns }));
}

/// It ends.
pub(crate) fn leave_runtime(code: Status) {
    if let Some(Runtime { cbid, name, correlation, enter_ns }) = RUNTIME.take()
        && engine::observes_calls()
    {
        let end = Some((sys::monotonic_ns(), code));
        tell(RUNTIME_DOMAIN, cbid, name, correlation, enter_ns, end);
    }
}

/// The thread's current context; 0 if it has none.
pub(crate) fn current_context() -> Handle {
    CONTEXT.get()
}

pub(crate) fn set_context(context: Handle) {
    CONTEXT.set(context);
}
