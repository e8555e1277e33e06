//! The activity API: kinds, buffers, flushing, reading records.

use stallscope_double_shared::{settings, truth};

use super::{
    INVALID_KIND, INVALID_OPERATION, INVALID_PARAMETER, MAX_LIMIT_REACHED, NOT_INITIALIZED, Status, enter,
    put,
};
use crate::buffers::{self, Completed, Requested};
use crate::layout::{self, kind};
use crate::state::{cuda, lock};
use crate::{clock, observer};

/// The process as a whole, where functions of 13.2 on name a subscriber.
pub(super) const PROCESS: usize = 0;

/// Enable or disable a kind for a client.
pub(super) fn enable(client: usize, kind: u32, on: bool) -> Result<(), Status> {
    if !layout::is_known(kind) {
        return Err(INVALID_KIND);
    }
    if kind == kind::KERNEL && on {
        truth::misuse("CUPTI_ACTIVITY_KIND_KERNEL makes kernels run one by one");
    }
    let mut state = lock();
    // pytorch#191944: who profiles while a subscriber of the second kind is there gets nothing, then or later.
    let starves = client == PROCESS && on && state.subscribers.values().any(|s| s.second);
    let client = state.client(client).ok_or(INVALID_PARAMETER)?;
    client.starved |= starves;
    client.enable(kind, on);
    state.observe();
    Ok(())
}

/// Enable a kind and record what exists of it.
pub(super) fn enable_and_dump(client: usize, kind: u32) -> Result<(), Status> {
    enable(client, kind, true)?;
    if let Some(cuda) = cuda().filter(|_| kind == kind::CONTEXT || kind == kind::STREAM) {
        (cuda.replay)(kind == kind::STREAM);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnable(kind: u32) -> Status {
    enter("cuptiActivityEnable", &format!("kind {kind}"), || enable(PROCESS, kind, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableAndDump(kind: u32) -> Status {
    enter("cuptiActivityEnableAndDump", &format!("kind {kind}"), || enable_and_dump(PROCESS, kind))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityDisable(kind: u32) -> Status {
    enter("cuptiActivityDisable", &format!("kind {kind}"), || enable(PROCESS, kind, false))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableContext(_context: usize, kind: u32) -> Status {
    enter("cuptiActivityEnableContext", &format!("kind {kind}"), || enable(PROCESS, kind, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityDisableContext(_context: usize, kind: u32) -> Status {
    enter("cuptiActivityDisableContext", &format!("kind {kind}"), || enable(PROCESS, kind, false))
}

/// Choose one function of the driver's API (or the runtime's) for a client.
pub(super) fn choose(client: usize, cbid: u32, on: u8, driver: bool) -> Result<(), Status> {
    let mut state = lock();
    let client = state.client(client).ok_or(INVALID_PARAMETER)?;
    if driver { &mut client.driver } else { &mut client.runtime }.set(cbid, on != 0);
    state.observe();
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableDriverApi(cbid: u32, on: u8) -> Status {
    enter("cuptiActivityEnableDriverApi", &format!("cbid {cbid} {on}"), || choose(PROCESS, cbid, on, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableRuntimeApi(cbid: u32, on: u8) -> Status {
    enter("cuptiActivityEnableRuntimeApi", &format!("cbid {cbid} {on}"), || choose(PROCESS, cbid, on, false))
}

/// The last argument of the first kind's function is one that it does not take.
#[unsafe(no_mangle)]
extern "C" fn cuptiActivityRegisterCallbacks(
    requested: Option<Requested>,
    completed: Option<extern "C" fn(usize, u32, usize, usize, usize)>,
) -> Status {
    enter("cuptiActivityRegisterCallbacks", "register", || {
        register(PROCESS, requested, completed.map(Completed::First))
    })
}

pub(super) fn register(
    client: usize,
    requested: Option<Requested>,
    completed: Option<Completed>,
) -> Result<(), Status> {
    let (Some(requested), Some(completed)) = (requested, completed) else { return Err(INVALID_PARAMETER) };
    let mut state = lock();
    state.client(client).ok_or(INVALID_PARAMETER)?.buffers.register(requested, completed);
    state.observe();
    drop(state);
    buffers::start_worker();
    Ok(())
}

const FORCED: u32 = 1;

fn flush(flags: u32) -> Result<(), Status> {
    if !lock().clients.values().any(|c| c.buffers.is_registered()) {
        return Err(INVALID_OPERATION);
    }
    let start = clock::now();
    let running = flags & FORCED != 0 && settings::now().get("cupti.forced") != Some("skip");
    (cuda().ok_or(NOT_INITIALIZED)?.collect)(running);
    buffers::flush();
    observer::flushed(start, clock::now());
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityFlushAll(flags: u32) -> Status {
    enter("cuptiActivityFlushAll", "", || flush(flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityFlush(_context: usize, _stream: u32, flags: u32) -> Status {
    enter("cuptiActivityFlush", "", || flush(flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityFlushPeriod(milliseconds: u32) -> Status {
    enter("cuptiActivityFlushPeriod", &format!("{milliseconds} ms"), || {
        lock().flush_period_ms = milliseconds;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetNextRecord(buffer: usize, valid: usize, record: Option<&mut usize>) -> Status {
    // No lock, no fault, no log: this is called for every record.
    next(buffer, valid, record).err().unwrap_or(0)
}

/// The record after `record`, by the sizes of this version.
pub(super) fn next(buffer: usize, valid: usize, record: Option<&mut usize>) -> Result<(), Status> {
    let record = record.ok_or(INVALID_PARAMETER)?;
    if buffer == 0 {
        return Err(INVALID_PARAMETER);
    }
    let version = layout::in_use();
    let kind_at = |address: usize| {
        // SAFETY: `address` lies within the `valid` bytes that this library wrote, at the beginning of a record.
        unsafe { (address as *const u32).read() }
    };
    let next = if *record == 0 {
        buffer
    } else {
        *record + layout::size(version, kind_at(*record)).ok_or(INVALID_KIND)?
    };
    let end = buffer + valid;
    if next >= end {
        return Err(MAX_LIMIT_REACHED);
    }
    let length = layout::size(version, kind_at(next)).ok_or(INVALID_KIND)?;
    if next + length > end {
        return Err(INVALID_KIND);
    }
    *record = next;
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetNumDroppedRecords(
    _context: usize,
    _stream: u32,
    dropped: Option<&mut usize>,
) -> Status {
    enter("cuptiActivityGetNumDroppedRecords", "", || {
        let dropped = dropped.ok_or(INVALID_PARAMETER)?;
        let mut state = lock();
        put(Some(dropped), state.client(PROCESS).map_or(0, |c| c.buffers.take_dropped()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityRegisterTimestampCallback(callback: Option<clock::Callback>) -> Status {
    enter("cuptiActivityRegisterTimestampCallback", "another clock", || {
        clock::set_callback(Some(callback.ok_or(INVALID_PARAMETER)?));
        Ok(())
    })
}
