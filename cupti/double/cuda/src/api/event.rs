//! Events: moments of a stream that the host and other streams can wait for.

use stallscope_double_shared::link::{Op, OpKind, SyncKind};
use stallscope_double_shared::sys;
use stallscope_double_shared::truth::{self, Why};

use super::put;
use super::stream::tell_sync;
use crate::calls::{Call, call, current_context};
use crate::engine;
use crate::launch::{self, Launch};
use crate::model::{Marker, Work};
use crate::state::{Error, Event, Handle, Status};

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: Option<&mut Handle>, _flags: u32) -> Status {
    call(118, c"cuEventCreate", |_| {
        let mut state = engine::lock();
        let handle = state.handle();
        let id = u32::try_from(state.events.len()).unwrap_or(u32::MAX).saturating_add(1);
        state.events.insert(handle, Event { id, recorded: None });
        put(event, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> Status {
    call(325, c"cuEventDestroy_v2", |_| {
        engine::lock().events.remove(&event).map(|_| ()).ok_or(Error::InvalidHandle)
    })
}

fn record(event: Handle, stream: Handle, call: &Call) -> Result<(), Error> {
    let value = engine::lock().events.get(&event).ok_or(Error::InvalidHandle)?.id;
    let (_, marker) = launch::launch(stream, call, |_, blank| {
        let record = Op { kind: OpKind::Event, value, ..blank };
        Ok(Launch { record, kind: truth::OpKind::Event, work: Work::For(0), slowed_ns: 0, meeting: None })
    })?;
    if let Some(event) = engine::lock().events.get_mut(&event) {
        event.recorded = Some(marker);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Status {
    call(119, c"cuEventRecord", |call| record(event, stream, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: Handle, stream: Handle, _flags: u32) -> Status {
    call(587, c"cuEventRecordWithFlags", |call| record(event, stream, call))
}

/// An event's number and its moment, if it was recorded.
fn find(event: Handle) -> Result<(u32, Option<Marker>), Error> {
    let state = engine::lock();
    let event = state.events.get(&event).ok_or(Error::InvalidHandle)?;
    Ok((event.id, event.recorded.clone()))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> Status {
    call(120, c"cuEventQuery", |_| {
        let (_, recorded) = find(event)?;
        recorded.is_none_or(|m| m.is_past(sys::monotonic_ns())).then_some(()).ok_or(Error::NotReady)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> Status {
    call(121, c"cuEventSynchronize", |call| {
        let (id, recorded) = find(event)?;
        engine::wait(recorded.as_slice(), Why::Event, call);
        let context = engine::lock().contexts.get(&current_context()).map_or(0, |c| c.id);
        tell_sync(call, SyncKind::Event, context, u32::MAX, id);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(milliseconds: Option<&mut f32>, start: Handle, end: Handle) -> Status {
    call(123, c"cuEventElapsedTime", |_| elapsed(milliseconds, start, end))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(milliseconds: Option<&mut f32>, start: Handle, end: Handle) -> Status {
    call(780, c"cuEventElapsedTime_v2", |_| elapsed(milliseconds, start, end))
}

fn elapsed(milliseconds: Option<&mut f32>, start: Handle, end: Handle) -> Result<(), Error> {
    let (start, end) =
        (find(start)?.1.ok_or(Error::InvalidHandle)?, find(end)?.1.ok_or(Error::InvalidHandle)?);
    let now_ns = sys::monotonic_ns();
    let past = |m: &Marker| m.at_ns().filter(|at_ns| *at_ns <= now_ns).ok_or(Error::NotReady);
    let (start_ns, end_ns) = (past(&start)?, past(&end)?);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "CUDA's result is a float"
    )]
    let ms = (end_ns as f64 - start_ns as f64) as f32 / 1e6;
    put(milliseconds, ms)
}
