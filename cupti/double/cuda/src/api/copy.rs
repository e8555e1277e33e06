//! Copies and memsets. No bytes move; only time passes, and callers are held where CUDA holds them.

use stallscope_double_shared::link::{Memory, Op, OpKind};
use stallscope_double_shared::sys;
use stallscope_double_shared::truth::{self, Why};

use crate::calls::{Call, call};
use crate::engine;
use crate::launch::{self, Launch};
use crate::model::Work;
use crate::state::{Error, Handle, Status};

/// Copies from pageable memory up to this size are taken into the driver's own buffer, and the caller goes on.
const STAGED_AT_ONCE_BYTES: u64 = 64 * 1024;

fn copy(to: u64, from: u64, bytes: usize, stream: Option<Handle>, call: &Call) -> Result<(), Error> {
    let bytes = u64::try_from(bytes).map_err(|_| Error::InvalidValue)?;
    let (_, marker) = launch::launch(stream.unwrap_or(0), call, |state, blank| {
        let (from, to) = (state.kind_of(from), state.kind_of(to));
        let tuning = &state.tuning;
        let gbps = match (from, to) {
            (Memory::Device, Memory::Device) => tuning.device_gbps,
            (Memory::Pageable, _) | (_, Memory::Pageable) => tuning.pageable_gbps,
            _ => tuning.pinned_gbps,
        };
        let name = match (from == Memory::Device, to == Memory::Device) {
            (true, true) => "DtoD",
            (true, false) => "DtoH",
            (false, true) => "HtoD",
            (false, false) => "HtoH",
        };
        let work = Work::For(tuning.copy_ns(bytes, gbps));
        let (kind, name, is_async) = (OpKind::Copy, sys::intern(name), stream.is_some());
        let record = Op { kind, name, bytes, from, to, is_async, ..blank };
        Ok(Launch { record, kind: truth::OpKind::Copy, work, slowed_ns: 0, meeting: None })
    })?;
    let state = engine::lock();
    let (from, to) = (state.kind_of(from), state.kind_of(to));
    drop(state);
    let pageable = from == Memory::Pageable || to == Memory::Pageable;
    match stream {
        // Between device addresses the call returns at once even without a stream.
        None if from != Memory::Device || to != Memory::Device => engine::wait(&[marker], Why::Copy, call),
        Some(_) if pageable && (to == Memory::Pageable || bytes > STAGED_AT_ONCE_BYTES) => {
            engine::wait(&[marker], Why::Staging, call);
        }
        _ => {}
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy(to: u64, from: u64, bytes: usize) -> Status {
    call(305, c"cuMemcpy", |call| copy(to, from, bytes, None, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) -> Status {
    call(306, c"cuMemcpyAsync", |call| copy(to, from, bytes, Some(stream), call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) -> Status {
    call(276, c"cuMemcpyHtoD_v2", |call| copy(to, from, bytes, None, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> Status {
    call(277, c"cuMemcpyHtoDAsync_v2", |call| copy(to, from, bytes, Some(stream), call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) -> Status {
    call(278, c"cuMemcpyDtoH_v2", |call| copy(to, from, bytes, None, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> Status {
    call(279, c"cuMemcpyDtoHAsync_v2", |call| copy(to, from, bytes, Some(stream), call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Status {
    call(280, c"cuMemcpyDtoD_v2", |call| copy(to, from, bytes, None, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> Status {
    call(281, c"cuMemcpyDtoDAsync_v2", |call| copy(to, from, bytes, Some(stream), call))
}

fn set(to: u64, value: u32, bytes: usize, stream: Handle, call: &Call) -> Result<(), Error> {
    let bytes = u64::try_from(bytes).map_err(|_| Error::InvalidValue)?;
    let launched = launch::launch(stream, call, |state, blank| {
        let work = Work::For(state.tuning.copy_ns(bytes, state.tuning.device_gbps));
        let to = state.kind_of(to);
        let record = Op { kind: OpKind::Set, name: sys::intern("memset"), bytes, to, value, ..blank };
        Ok(Launch { record, kind: truth::OpKind::Set, work, slowed_ns: 0, meeting: None })
    });
    launched.map(|_| ())
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> Status {
    call(249, c"cuMemsetD8_v2", |call| set(to, value.into(), count, 0, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) -> Status {
    call(216, c"cuMemsetD8Async", |call| set(to, value.into(), count, stream, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: u64, value: u32, count: usize) -> Status {
    call(251, c"cuMemsetD32_v2", |call| set(to, value, count.saturating_mul(4), 0, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) -> Status {
    call(220, c"cuMemsetD32Async", |call| set(to, value, count.saturating_mul(4), stream, call))
}
