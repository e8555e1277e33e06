//! What libcuda tells: calls, operations, synchronisations, resources. Becomes records and callbacks.

use std::cell::Cell;

use stallscope_double_shared::link::{Call, Observer, Op, OpKind, Resource, Sync};
use stallscope_double_shared::sys;

use crate::buffers::deliver;
use crate::faults::{self, Fate};
use crate::layout::kind;
use crate::state::{Callback, Client, lock};
use crate::{clock, record, state};

pub(crate) static OBSERVER: Observer = Observer { enter, leave, op, sync, resource, queue_full };

thread_local! {
    /// The thread is in a callback at the exit of a call: where cuptiFinalize belongs.
    static IN_EXIT: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn is_in_exit() -> bool {
    IN_EXIT.get()
}

/// CUpti_CallbackData.
#[derive(Debug)]
#[repr(C)]
struct CallbackData {
    site: u32,
    function: usize,
    parameters: usize,
    result: usize,
    symbol: usize,
    context: usize,
    context_id: u32,
    data: usize,
    correlation: u32,
}

extern "C" fn enter(call: &Call) {
    call_back(call, 0);
}

extern "C" fn leave(call: &Call) {
    let wants = |c: &Client| if call.domain == 1 { &c.driver } else { &c.runtime }.has(call.cbid);
    deliver(wants, |state| {
        let offset = clock::offset(call.leave_ns);
        let (start, end) = (offset.host(call.enter_ns), offset.host(call.leave_ns));
        record::call(state.version, call, start, end, thread(state.system_threads, call.thread))
    });
    IN_EXIT.set(true);
    call_back(call, 1);
    IN_EXIT.set(false);
}

/// A thread as records name it.
fn thread(system: bool, kernel_id: u32) -> u32 {
    if system {
        return kernel_id;
    }
    #[expect(clippy::cast_possible_truncation, reason = "CUPTI's default is the lower half")]
    let lower = sys::pthread_id() as u32;
    lower
}

fn subscribed(domain: u32, cbid: u32) -> Vec<(Callback, usize)> {
    if !state::anybody_subscribed() {
        return Vec::new();
    }
    let state = lock();
    let subscribers = state.subscribers.values();
    let wanting = subscribers.filter(|s| s.enabled.get(&domain).is_some_and(|f| f.has(cbid)));
    wanting.filter_map(|s| Some((s.callback?, s.userdata))).collect()
}

fn call_back(call: &Call, site: u32) {
    for (callback, userdata) in subscribed(call.domain, call.cbid) {
        let data = CallbackData {
            site,
            function: call.name,
            parameters: 0,
            result: if site == 1 { std::ptr::from_ref(&call.code) as usize } else { 0 },
            symbol: call.symbol,
            context: call.context_handle,
            context_id: call.context,
            data: call.data,
            correlation: call.correlation,
        };
        callback(userdata, call.domain, call.cbid, std::ptr::from_ref(&data) as usize);
    }
}

extern "C" fn op(op: &Op) {
    let mut op = *op;
    let now_ns = sys::monotonic_ns();
    let offset = clock::offset(now_ns);
    (op.start_ns, op.end_ns) = (offset.device(op.start_ns), offset.device(op.end_ns));
    match faults::on_record(&mut op, now_ns) {
        Fate::Deliver => {}
        Fate::Drop => {
            lock().clients.values_mut().for_each(|c| c.buffers.drop_one());
            return;
        }
        Fate::Lose => return,
    }
    let kind = match op.kind {
        OpKind::Kernel => kind::CONCURRENT_KERNEL,
        OpKind::Copy => kind::MEMCPY,
        OpKind::Set => kind::MEMSET,
        OpKind::Graph => kind::GRAPH_TRACE,
        OpKind::Event => kind::CUDA_EVENT,
    };
    // Serial tracing of kernels has a kind of its own.
    let serial = |c: &Client| op.kind == OpKind::Kernel && c.has(kind::KERNEL);
    deliver(
        |c| c.has(kind) || serial(c),
        |state| record::op(state.version, &op, !state.clients.values().any(|c| c.has(kind))),
    );
}

extern "C" fn sync(sync: &Sync) {
    deliver(has(kind::SYNCHRONIZATION), |state| {
        let offset = clock::offset(sync.leave_ns);
        record::sync(state.version, sync, offset.host(sync.enter_ns), offset.host(sync.leave_ns))
    });
}

/// Clients that enabled a kind.
fn has(kind: u32) -> impl Fn(&Client) -> bool {
    move |client| client.has(kind)
}

/// CUpti_ResourceData.
#[derive(Debug)]
#[repr(C)]
struct ResourceData {
    context: usize,
    stream: usize,
    descriptor: usize,
}

extern "C" fn resource(resource: &Resource) {
    const RESOURCE: u32 = 3;
    const CONTEXT_CREATED: u32 = 1;
    const STREAM_CREATED: u32 = 3;
    let kind = if resource.stream == 0 { kind::CONTEXT } else { kind::STREAM };
    deliver(has(kind), |state| record::resource(state.version, resource));
    let cbid = if resource.stream == 0 { CONTEXT_CREATED } else { STREAM_CREATED };
    // Only what was just made is called back, not what is replayed.
    if resource.correlation != 0 {
        for (callback, userdata) in subscribed(RESOURCE, cbid) {
            let (context, stream) = (resource.context_handle, resource.stream_handle);
            let data = ResourceData { context, stream, descriptor: 0 };
            callback(userdata, RESOURCE, cbid, std::ptr::from_ref(&data) as usize);
        }
    }
}

extern "C" fn queue_full(correlation: u32, enter_ns: u64, leave_ns: u64) {
    let offset = clock::offset(leave_ns);
    let (start, end) = (offset.host(enter_ns), offset.host(leave_ns));
    deliver(has(kind::OVERHEAD), |state| {
        let thread = thread(state.system_threads, sys::thread_id());
        record::overhead(state.version, record::COMMAND_BUFFER_FULL, thread, start, end, correlation)
    });
}

/// A flush took from `start` to `end` of CUPTI's clock.
pub(crate) fn flushed(start: u64, end: u64) {
    deliver(has(kind::OVERHEAD), |state| {
        let thread = thread(state.system_threads, sys::thread_id());
        record::overhead(state.version, record::BUFFER_FLUSH, thread, start, end, 0)
    });
}
