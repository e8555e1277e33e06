//! The table through which the other stand-ins reach this library.

use stallscope_double_shared::link::{Cuda, Meeting, Observer, Op, Resource, VERSION};
use stallscope_double_shared::{sys, truth};

use crate::calls::{self, current_context};
use crate::engine;
use crate::launch::{self, Launch};
use crate::model::{OpId, Work};
use crate::state::{Handle, State};

static TABLE: Cuda = Cuda {
    version: VERSION,
    observe,
    forget,
    collect,
    replay,
    pool,
    initialised,
    context_id,
    device_id,
    stream_id,
    graph_id,
    enter_runtime,
    leave_runtime,
    meet,
    finish,
    cancel,
    current_device,
};

#[unsafe(no_mangle)]
extern "C" fn stallscope_double_cuda() -> &'static Cuda {
    &TABLE
}

extern "C" fn observe(observer: &'static Observer, kinds: u64, calls: bool) {
    engine::observe(observer, kinds, calls);
}

extern "C" fn forget() {
    engine::forget();
}

extern "C" fn collect(running: bool) {
    let now_ns = sys::monotonic_ns();
    engine::drain(now_ns);
    if running {
        engine::tell_running(now_ns);
    }
}

extern "C" fn replay(streams: bool) {
    let state = engine::lock();
    let resources: Vec<Resource> = if streams {
        let mut handles: Vec<Handle> = state.streams.keys().copied().collect();
        handles.sort_unstable();
        handles.iter().filter_map(|&s| resource(&state, state.streams.get(&s)?.context, s, 0)).collect()
    } else {
        state.contexts.keys().filter_map(|&c| resource(&state, c, 0, 0)).collect()
    };
    drop(state);
    if let Some(observer) = engine::observer() {
        for resource in &resources {
            (observer.resource)(resource);
        }
    }
}

/// Describe a context, or a stream of it.
pub(crate) fn resource(
    state: &State,
    context_handle: Handle,
    stream_handle: Handle,
    correlation: u32,
) -> Option<Resource> {
    let context = state.contexts.get(&context_handle)?;
    let stream = state.streams.get(&stream_handle);
    let flag = stream
        .map_or(0, |s| if stream_handle == context.null_stream { 3 } else { 1 + u32::from(!s.blocking) });
    Some(Resource {
        context: context.id,
        context_handle,
        device: context.device,
        stream: stream.map_or(0, |s| s.id),
        stream_handle,
        null_stream: state.streams.get(&context.null_stream).map_or(0, |s| s.id),
        flag,
        correlation,
    })
}

extern "C" fn pool(operations: u64, bytes: u64) {
    let mut state = engine::lock();
    state.pool.limit = operations;
    state.pool.bytes_each = bytes;
}

extern "C" fn initialised() -> bool {
    engine::is_initialised()
}

fn or_current(context: Handle) -> Handle {
    if context == 0 { current_context() } else { context }
}

extern "C" fn context_id(context: Handle) -> u32 {
    engine::lock().contexts.get(&or_current(context)).map_or(0, |c| c.id)
}

extern "C" fn device_id(context: Handle) -> u32 {
    engine::lock().contexts.get(&or_current(context)).map_or(u32::MAX, |c| c.device)
}

extern "C" fn stream_id(stream: Handle) -> u32 {
    let state = engine::lock();
    let handle = state.stream_handle(current_context(), stream);
    handle.ok().and_then(|h| state.streams.get(&h)).map_or(0, |s| s.id)
}

extern "C" fn graph_id(graph: Handle) -> u32 {
    let state = engine::lock();
    state.graphs.get(&graph).or_else(|| state.executables.get(&graph)).map_or(0, |g| g.id)
}

extern "C" fn enter_runtime(cbid: u32, name: usize) {
    calls::enter_runtime(cbid, name);
}

extern "C" fn leave_runtime(code: u32) {
    calls::leave_runtime(code);
}

extern "C" fn meet(meeting: &Meeting) -> u64 {
    let mut id = 0;
    // NCCL launches its kernels by this function of the driver.
    calls::call_symbol(
        652,
        c"cuLaunchKernelEx",
        || meeting.name,
        |call| {
            let (op, _) = launch::launch(meeting.stream, call, |_, blank| {
                let (bytes, name) = (meeting.bytes, meeting.name);
                let record = Op { name, bytes, grid: [meeting.blocks, 1, 1], block: [512, 1, 1], ..blank };
                let meeting = Some((meeting.started, meeting.argument));
                Ok(Launch {
                    record,
                    kind: truth::OpKind::Collective,
                    work: Work::Meeting,
                    slowed_ns: 0,
                    meeting,
                })
            })?;
            id = op.0;
            Ok(())
        },
    );
    id
}

extern "C" fn finish(op: u64, end_ns: u64) {
    engine::finish(OpId(op), end_ns);
}

extern "C" fn cancel(op: u64) {
    engine::cancel(OpId(op));
}

extern "C" fn current_device() -> u32 {
    device_id(0)
}
