//! The functions of NCCL that the stand-in has. `Option<&mut T>` is a pointer that may be NULL.
#![allow(non_snake_case, reason = "NCCL's names")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stallscope_double_shared::{settings, sys};

use crate::comm::{self, Comm};
use crate::cost::{Data, Function, data};
use crate::launch::{self, Part};
use crate::root;

/// NCCL's codes.
type Status = u32;

const SUCCESS: Status = 0;
const SYSTEM_ERROR: Status = 2;
const INVALID_ARGUMENT: Status = 4;
const INVALID_USAGE: Status = 5;
const REMOTE_ERROR: Status = 6;

/// The root's address and a number that no other id has, as text.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId([u8; 128]);

#[unsafe(no_mangle)]
extern "C" fn ncclGetVersion(version: Option<&mut i32>) -> Status {
    put(version, settings::now().number("nccl.version", 22_703))
}

fn put<T>(to: Option<&mut T>, value: T) -> Status {
    match to {
        Some(to) => {
            *to = value;
            SUCCESS
        }
        None => INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetUniqueId(id: Option<&mut UniqueId>) -> Status {
    let address = match root::start() {
        Ok(address) => address,
        Err(error) => {
            eprintln!("stallscope double: nccl: {error}");
            return SYSTEM_ERROR;
        }
    };
    let text = format!("{address} {} {}", sys::process_id(), sys::monotonic_ns());
    let mut bytes = [0; 128];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    put(id, UniqueId(bytes))
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommInitRank(comm: Option<&mut usize>, world: i32, id: UniqueId, rank: i32) -> Status {
    let (Ok(world), Ok(rank)) = (u32::try_from(world), u32::try_from(rank)) else { return INVALID_ARGUMENT };
    if rank >= world {
        return INVALID_ARGUMENT;
    }
    let text = String::from_utf8_lossy(&id.0).trim_end_matches('\0').to_owned();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let address = text.split(' ').next().unwrap_or_default();
    match Comm::make(address, hasher.finish(), rank, world) {
        Ok(handle) => put(comm, handle),
        Err(error) => {
            eprintln!("stallscope double: nccl: {address}: {error}");
            SYSTEM_ERROR
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommInitRankConfig(
    comm: Option<&mut usize>,
    world: i32,
    id: UniqueId,
    rank: i32,
    _config: *const c_void,
) -> Status {
    ncclCommInitRank(comm, world, id, rank)
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommFinalize(comm: usize) -> Status {
    comm::find(comm).map_or(INVALID_ARGUMENT, |_| SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommDestroy(comm: usize) -> Status {
    comm::remove(comm).map_or(INVALID_ARGUMENT, |comm| {
        comm.close();
        SUCCESS
    })
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommAbort(comm: usize) -> Status {
    comm::remove(comm).map_or(INVALID_ARGUMENT, |comm| {
        comm.abort();
        SUCCESS
    })
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommGetAsyncError(comm: usize, error: Option<&mut Status>) -> Status {
    let Some(comm) = comm::find(comm) else { return INVALID_ARGUMENT };
    put(error, if comm.broken.load(Ordering::Acquire) { REMOTE_ERROR } else { SUCCESS })
}

fn number(handle: usize, to: Option<&mut i32>, of: impl FnOnce(&Comm) -> u32) -> Status {
    let Some(comm) = comm::find(handle) else { return INVALID_ARGUMENT };
    put(to, i32::try_from(of(&comm)).unwrap_or(-1))
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommCount(comm: usize, count: Option<&mut i32>) -> Status {
    number(comm, count, |c| c.world)
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommUserRank(comm: usize, rank: Option<&mut i32>) -> Status {
    number(comm, rank, |c| c.rank)
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommCuDevice(comm: usize, device: Option<&mut i32>) -> Status {
    number(comm, device, |c| c.device)
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetErrorString(code: Status) -> *const c_char {
    let text: &CStr = match code {
        SUCCESS => c"no error",
        SYSTEM_ERROR => c"unhandled system error (run with NCCL_DEBUG=INFO for details)",
        INVALID_ARGUMENT => c"invalid argument (run with NCCL_DEBUG=WARN for details)",
        INVALID_USAGE => c"invalid usage (run with NCCL_DEBUG=WARN for details)",
        REMOTE_ERROR => c"remote process exited or there was a network error",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetLastError(_comm: usize) -> *const c_char {
    c"".as_ptr()
}

/// A call that waits for the end of its group.
struct Queued {
    comm: Arc<Comm>,
    stream: usize,
    part: Part,
    data: Data,
    reduction: u32,
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static QUEUE: RefCell<Vec<Queued>> = const { RefCell::new(Vec::new()) };
}

#[unsafe(no_mangle)]
extern "C" fn ncclGroupStart() -> Status {
    DEPTH.set(DEPTH.get() + 1);
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn ncclGroupEnd() -> Status {
    let Some(depth) = DEPTH.get().checked_sub(1) else { return INVALID_USAGE };
    DEPTH.set(depth);
    if depth > 0 {
        return SUCCESS;
    }
    let mut queue = QUEUE.take();
    while !queue.is_empty() {
        // One kernel for what has the same communicator and stream; messages never share one with collectives.
        let same = |a: &Queued, b: &Queued| {
            let messages = |q: &Queued| q.part.function == Function::SendRecv;
            Arc::ptr_eq(&a.comm, &b.comm) && a.stream == b.stream && messages(a) == messages(b)
        };
        let (together, rest): (Vec<Queued>, Vec<Queued>) = {
            let mut queue = queue.into_iter();
            let Some(first) = queue.next() else { break };
            let (mut together, rest): (Vec<_>, Vec<_>) = queue.partition(|q| same(&first, q));
            together.insert(0, first);
            (together, rest)
        };
        queue = rest;
        let Some(Queued { comm, stream, data, reduction, .. }) = together.first() else { break };
        let (comm, stream, data, reduction) = (Arc::clone(comm), *stream, *data, *reduction);
        let parts = together.into_iter().map(|q| q.part).collect();
        if !launch::launch(&comm, stream, parts, data, reduction) {
            return INVALID_ARGUMENT;
        }
    }
    SUCCESS
}

/// Queue a call; outside groups a group of its own. `peer` is the other rank of a message and whether that
/// one receives.
fn enqueue(
    function: Function,
    count: usize,
    data_type: u32,
    reduction: u32,
    peer: Option<(i32, bool)>,
    comm: usize,
    stream: usize,
) -> Status {
    let (Some(comm), Some(data)) = (comm::find(comm), data(data_type)) else { return INVALID_ARGUMENT };
    let bytes = u64::try_from(count).unwrap_or(0).saturating_mul(data.bytes);
    let key = match peer {
        None => comm.next_collective(),
        Some((peer, peer_receives)) => {
            let Some(peer) = u32::try_from(peer).ok().filter(|p| *p < comm.world) else {
                return INVALID_ARGUMENT;
            };
            let (from, to) = if peer_receives { (comm.rank, peer) } else { (peer, comm.rank) };
            comm.next_message(from, to, !peer_receives)
        }
    };
    ncclGroupStart();
    let part = Part { function, key, bytes };
    QUEUE.with_borrow_mut(|q| q.push(Queued { comm, stream, part, data, reduction }));
    ncclGroupEnd()
}

#[unsafe(no_mangle)]
extern "C" fn ncclAllReduce(
    _from: *const c_void,
    _to: *mut c_void,
    count: usize,
    data: u32,
    reduction: u32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::AllReduce, count, data, reduction, None, comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclReduce(
    _from: *const c_void,
    _to: *mut c_void,
    count: usize,
    data: u32,
    reduction: u32,
    _root: i32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::Reduce, count, data, reduction, None, comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclBroadcast(
    _from: *const c_void,
    _to: *mut c_void,
    count: usize,
    data: u32,
    _root: i32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::Broadcast, count, data, 0, None, comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclBcast(
    _memory: *mut c_void,
    count: usize,
    data: u32,
    _root: i32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::Broadcast, count, data, 0, None, comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclAllGather(
    _from: *const c_void,
    _to: *mut c_void,
    count: usize,
    data: u32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::AllGather, count, data, 0, None, comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclReduceScatter(
    _from: *const c_void,
    _to: *mut c_void,
    count: usize,
    data: u32,
    reduction: u32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::ReduceScatter, count, data, reduction, None, comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclSend(
    _from: *const c_void,
    count: usize,
    data: u32,
    peer: i32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::SendRecv, count, data, 0, Some((peer, true)), comm, stream)
}

#[unsafe(no_mangle)]
extern "C" fn ncclRecv(
    _to: *mut c_void,
    count: usize,
    data: u32,
    peer: i32,
    comm: usize,
    stream: usize,
) -> Status {
    enqueue(Function::SendRecv, count, data, 0, Some((peer, false)), comm, stream)
}
