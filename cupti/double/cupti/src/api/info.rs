//! Questions about CUPTI itself, and its end.

use std::ffi::{CStr, c_char};

use stallscope_double_shared::{sys, truth};

use super::{INVALID_PARAMETER, Status, enter, note, put};
use crate::state::{cuda, lock};
use crate::{buffers, clock, observer};

#[unsafe(no_mangle)]
extern "C" fn cuptiGetVersion(version: Option<&mut u32>) -> Status {
    let number = lock().version.number();
    put(version, number).err().unwrap_or(0)
}

/// Codes and what cuptiGetResultString says of them.
const RESULTS: &[(Status, &CStr)] = &[
    (0, c"CUPTI_SUCCESS"),
    (1, c"CUPTI_ERROR_INVALID_PARAMETER"),
    (2, c"CUPTI_ERROR_INVALID_DEVICE"),
    (3, c"CUPTI_ERROR_INVALID_CONTEXT"),
    (7, c"CUPTI_ERROR_INVALID_OPERATION"),
    (8, c"CUPTI_ERROR_OUT_OF_MEMORY"),
    (10, c"CUPTI_ERROR_PARAMETER_SIZE_NOT_SUFFICIENT"),
    (12, c"CUPTI_ERROR_MAX_LIMIT_REACHED"),
    (13, c"CUPTI_ERROR_NOT_READY"),
    (14, c"CUPTI_ERROR_NOT_COMPATIBLE"),
    (15, c"CUPTI_ERROR_NOT_INITIALIZED"),
    (18, c"CUPTI_ERROR_QUEUE_EMPTY"),
    (21, c"CUPTI_ERROR_INVALID_KIND"),
    (27, c"CUPTI_ERROR_NOT_SUPPORTED"),
    (33, c"CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED"),
    (35, c"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"),
    (39, c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"),
    (999, c"CUPTI_ERROR_UNKNOWN"),
];

#[unsafe(no_mangle)]
extern "C" fn cuptiGetResultString(code: Status, text: Option<&mut *const c_char>) -> Status {
    let found = RESULTS.iter().find(|(c, _)| *c == code).map(|(_, t)| t.as_ptr());
    found.ok_or(INVALID_PARAMETER).and_then(|t| put(text, t)).err().unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetTimestamp(timestamp: Option<&mut u64>) -> Status {
    enter("cuptiGetTimestamp", "", || put(timestamp, clock::now()))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetTimestamp_v2(_subscriber: usize, timestamp: Option<&mut u64>) -> Status {
    enter("cuptiGetTimestamp_v2", "", || put(timestamp, clock::now()))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiSetThreadIdType(kind: u32) -> Status {
    enter("cuptiSetThreadIdType", &format!("type {kind}"), || {
        if kind > 1 {
            return Err(INVALID_PARAMETER);
        }
        lock().system_threads = kind == 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetThreadIdType(kind: Option<&mut u32>) -> Status {
    enter("cuptiGetThreadIdType", "", || put(kind, u32::from(lock().system_threads)))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetContextId(context: usize, id: Option<&mut u32>) -> Status {
    enter("cuptiGetContextId", "", || put(id, cuda().map_or(0, |c| (c.context_id)(context))))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetDeviceId(context: usize, id: Option<&mut u32>) -> Status {
    enter("cuptiGetDeviceId", "", || put(id, cuda().map_or(0, |c| (c.device_id)(context))))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetStreamId(_context: usize, stream: usize, id: Option<&mut u32>) -> Status {
    enter("cuptiGetStreamId", "", || put(id, cuda().map_or(0, |c| (c.stream_id)(stream))))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetStreamIdEx(
    _context: usize,
    stream: usize,
    _per_thread: u8,
    id: Option<&mut u32>,
) -> Status {
    enter("cuptiGetStreamIdEx", "", || put(id, cuda().map_or(0, |c| (c.stream_id)(stream))))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetGraphId(graph: usize, id: Option<&mut u32>) -> Status {
    enter("cuptiGetGraphId", "", || put(id, cuda().map_or(0, |c| (c.graph_id)(graph))))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetGraphExecId(graph: usize, id: Option<&mut u32>) -> Status {
    enter("cuptiGetGraphExecId", "", || put(id, cuda().map_or(0, |c| (c.graph_id)(graph))))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetLastError() -> Status {
    0
}

/// Detach: as if CUPTI had never been used. Records that nobody flushed are lost.
#[unsafe(no_mangle)]
extern "C" fn cuptiFinalize() -> Status {
    let status = enter("cuptiFinalize", "", || {
        if let Some(cuda) = cuda() {
            (cuda.forget)();
        }
        buffers::stop_worker();
        clock::set_callback(None);
        let lost = lock().reset();
        let place = if observer::is_in_exit() { "at the exit of a call" } else { "outside calls" };
        note("cuptiFinalize", &format!("{place}, {lost} records lost"), 0);
        Ok(())
    });
    truth::tick(sys::monotonic_ns());
    status
}
