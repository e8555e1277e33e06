//! Streams: queues of operations that run one after another.

use stallscope_double_shared::link::{Sync, SyncKind};
use stallscope_double_shared::sys;
use stallscope_double_shared::truth::Why;

use super::put;
use crate::calls::{Call, call, current_context};
use crate::engine::{self, Submission};
use crate::launch;
use crate::model::{Marker, Work};
use crate::state::{Error, Handle, Status};
use crate::table::resource;

const NON_BLOCKING: u32 = 1;

/// Tell CUPTI about a synchronisation that this call was, from its entry to now.
pub(super) fn tell_sync(call: &Call, kind: SyncKind, context: u32, stream: u32, event: u32) {
    if let Some(observer) = engine::observer() {
        let (correlation, enter_ns, leave_ns) = (call.correlation, call.enter_ns, sys::monotonic_ns());
        (observer.sync)(&Sync { kind, correlation, context, stream, event, enter_ns, leave_ns });
    }
}

/// Numbers of a stream and its context, and the end of what was submitted to it.
pub(super) fn ids(stream: Handle) -> Result<(u32, u32, Marker), Error> {
    let state = engine::lock();
    let handle = state.stream_handle(current_context(), stream)?;
    let stream = state.streams.get(&handle).ok_or(Error::InvalidHandle)?;
    Ok((state.context(stream.context)?.id, stream.id, stream.tail.clone()))
}

fn create(stream: Option<&mut Handle>, flags: u32, call: &Call) -> Result<(), Error> {
    let context = current_context();
    let mut state = engine::lock();
    state.context(context)?;
    let handle = state.add_stream(context, flags & NON_BLOCKING == 0);
    let made = resource(&state, context, handle, call.correlation);
    drop(state);
    if let (Some(observer), Some(made)) = (engine::observer(), made) {
        (observer.resource)(&made);
    }
    put(stream, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Option<&mut Handle>, flags: u32) -> Status {
    call(124, c"cuStreamCreate", |call| create(stream, flags, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: Option<&mut Handle>, flags: u32, _priority: i32) -> Status {
    call(367, c"cuStreamCreateWithPriority", |call| create(stream, flags, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Status {
    // What it holds still runs: markers and operations live without it.
    call(326, c"cuStreamDestroy_v2", |_| {
        engine::lock().streams.remove(&stream).map(|_| ()).ok_or(Error::InvalidHandle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> Status {
    call(126, c"cuStreamSynchronize", |call| {
        let (context, id, tail) = ids(stream)?;
        engine::wait(&[tail], Why::Stream, call);
        tell_sync(call, SyncKind::Stream, context, id, 0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: Handle) -> Status {
    call(125, c"cuStreamQuery", |_| {
        let (.., tail) = ids(stream)?;
        tail.is_past(sys::monotonic_ns()).then_some(()).ok_or(Error::NotReady)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) -> Status {
    call(295, c"cuStreamWaitEvent", |call| {
        let (context, id, _) = ids(stream)?;
        engine::with(|state| {
            let handle = state.stream_handle(current_context(), stream)?;
            let event = state.events.get(&event).ok_or(Error::InvalidHandle)?;
            let event_id = event.id;
            // An event that was never recorded is waited for by nobody.
            if let Some(recorded) = event.recorded.clone() {
                let after =
                    vec![state.streams.get(&handle).ok_or(Error::InvalidHandle)?.tail.clone(), recorded];
                let tag = Box::new(launch::tag(launch::blank(state, handle, call.correlation), None, call));
                let work = Work::For(0);
                let join = Submission { after, gap_ns: 0, latency_ns: 0, work, tag };
                let (_, marker) = engine::submit(state, join);
                engine::append(state, handle, marker);
            }
            Ok(event_id)
        })
        .map(|event_id| tell_sync(call, SyncKind::StreamWaitEvent, context, id, event_id))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetId(stream: Handle, id: Option<&mut u64>) -> Status {
    call(693, c"cuStreamGetId", |_| put(id, u64::from(ids(stream)?.1)))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCtx(stream: Handle, context: Option<&mut Handle>) -> Status {
    call(483, c"cuStreamGetCtx", |_| {
        let state = engine::lock();
        let handle = state.stream_handle(current_context(), stream)?;
        put(context, state.streams.get(&handle).ok_or(Error::InvalidHandle)?.context)
    })
}
