//! Contexts: one primary a device, more by name, one current in each thread.

use std::ffi::c_int;

use stallscope_double_shared::link::SyncKind;
use stallscope_double_shared::truth::Why;

use super::put;
use crate::calls::{Call, call, current_context, set_context};
use crate::engine;
use crate::state::{Error, Handle, State, Status};
use crate::table::resource;

/// Tell CUPTI about a context and its null stream.
fn announce(context: Handle, call: &Call) {
    let state = engine::lock();
    let null_stream = state.contexts.get(&context).map_or(0, |c| c.null_stream);
    let made = [0, null_stream].map(|stream| resource(&state, context, stream, call.correlation));
    drop(state);
    if let Some(observer) = engine::observer() {
        for resource in made.into_iter().flatten() {
            (observer.resource)(&resource);
        }
    }
}

fn ordinal(state: &State, device: c_int) -> Result<u32, Error> {
    let ordinal = u32::try_from(device).map_err(|_| Error::InvalidDevice)?;
    let known = state.devices.len();
    usize::try_from(ordinal).is_ok_and(|o| o < known).then_some(ordinal).ok_or(Error::InvalidDevice)
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Option<&mut Handle>, device: c_int) -> Status {
    call(386, c"cuDevicePrimaryCtxRetain", |call| {
        let mut state = engine::lock();
        let device = ordinal(&state, device)?;
        let known = state.primary.get(&device).copied();
        let handle = known.unwrap_or_else(|| state.add_context(device));
        state.primary.insert(device, handle);
        drop(state);
        if known.is_none() {
            announce(handle, call);
        }
        put(context, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Status {
    // The context stays: retaining it again returns the same one.
    call(544, c"cuDevicePrimaryCtxRelease_v2", |_| ordinal(&engine::lock(), device).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: Option<&mut u32>,
    active: Option<&mut c_int>,
) -> Status {
    call(392, c"cuDevicePrimaryCtxGetState", |_| {
        let state = engine::lock();
        let device = ordinal(&state, device)?;
        put(flags, 0)?;
        put(active, c_int::from(state.primary.contains_key(&device)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(context: Option<&mut Handle>, _flags: u32, device: c_int) -> Status {
    call(235, c"cuCtxCreate_v2", |call| {
        let mut state = engine::lock();
        let device = ordinal(&state, device)?;
        let handle = state.add_context(device);
        drop(state);
        set_context(handle);
        announce(handle, call);
        put(context, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(context: Handle) -> Status {
    call(322, c"cuCtxDestroy_v2", |call| {
        let tails = engine::lock().tails(Some(context));
        engine::wait(&tails, Why::Context, call);
        let mut state = engine::lock();
        state.contexts.remove(&context).ok_or(Error::InvalidContext)?;
        state.streams.retain(|_, s| s.context != context);
        drop(state);
        if current_context() == context {
            set_context(0);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> Status {
    call(303, c"cuCtxSetCurrent", |_| {
        if context != 0 {
            engine::lock().context(context)?;
        }
        set_context(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> Status {
    // No stack: push and pop are used in pairs by those who came from outside.
    call(323, c"cuCtxPushCurrent_v2", |_| {
        engine::lock().context(context)?;
        set_context(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(context: Option<&mut Handle>) -> Status {
    call(324, c"cuCtxPopCurrent_v2", |_| {
        let current = current_context();
        set_context(0);
        context.map_or(Ok(()), |c| put(Some(c), current))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Option<&mut Handle>) -> Status {
    call(304, c"cuCtxGetCurrent", |_| put(context, current_context()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: Option<&mut c_int>) -> Status {
    call(16, c"cuCtxGetDevice", |_| {
        let known = engine::lock().context(current_context())?.device;
        put(device, c_int::try_from(known).unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetId(context: Handle, id: Option<&mut u64>) -> Status {
    call(695, c"cuCtxGetId", |_| {
        let context = if context == 0 { current_context() } else { context };
        put(id, u64::from(engine::lock().context(context)?.id))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Status {
    call(17, c"cuCtxSynchronize", |call| {
        let context = current_context();
        let state = engine::lock();
        let id = state.context(context)?.id;
        let tails = state.tails(Some(context));
        drop(state);
        engine::wait(&tails, Why::Context, call);
        super::stream::tell_sync(call, SyncKind::Context, id, u32::MAX, 0);
        Ok(())
    })
}
