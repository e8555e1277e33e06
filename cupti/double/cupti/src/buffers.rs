//! Buffers of clients: asked for when a record needs room, handed back when full or flushed.
//!
//! Full buffers are handed back by a worker thread, as CUPTI does, the rest by whoever flushes, who returns when the worker
//! too is done.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stallscope_double_shared::truth;

use crate::record::Record;
use crate::state::{self, Client, State, lock};

/// Asks for a buffer: where to put its address, its size, and the number of records it may hold (0: any).
pub(crate) type Requested = extern "C" fn(&mut usize, &mut usize, &mut usize, usize);

/// Hands one back: (context, stream, buffer, size, valid) or, of the second kind, (buffer, size, valid, info).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Completed {
    First(extern "C" fn(usize, u32, usize, usize, usize)),
    Second(extern "C" fn(usize, usize, usize, &CompleteInfo)),
}

/// CUpti_BufferCallbackCompleteInfo. No client chose fields, so there are no layouts.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct CompleteInfo {
    size: usize,
    thread: u64,
    layouts: usize,
    layout_count: usize,
}

/// A client's buffer.
#[derive(Debug)]
pub(crate) struct Buffer {
    address: usize,
    size: usize,
    used: usize,
    records: u64,
    most_records: u64,
}

/// Buffers of one client.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    requested: Option<Requested>,
    completed: Option<Completed>,
    current: Option<Buffer>,
    /// Asked for by two threads at once.
    spare: Vec<Buffer>,
    full: VecDeque<Buffer>,
    dropped: usize,
}

impl Buffers {
    pub(crate) fn register(&mut self, requested: Requested, completed: Completed) {
        (self.requested, self.completed) = (Some(requested), Some(completed));
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.requested.is_some()
    }

    /// Records that have not been handed over.
    pub(crate) fn held(&self) -> u64 {
        self.full.iter().chain(&self.current).map(|b| b.records).sum()
    }

    pub(crate) fn drop_one(&mut self) {
        self.dropped += 1;
    }

    pub(crate) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Put a record into a buffer. An error asks for a buffer by this function.
    fn push(&mut self, record: &Record) -> Result<bool, Requested> {
        let Some(requested) = self.requested else { return Ok(false) };
        let length = record.bytes().len();
        let mut filled = false;
        loop {
            let Some(buffer) = &mut self.current else {
                self.current = self.spare.pop();
                if self.current.is_none() {
                    return Err(requested);
                }
                continue;
            };
            let has_room = buffer.used + length <= buffer.size;
            if has_room && (buffer.most_records == 0 || buffer.records < buffer.most_records) {
                let to = (buffer.address + buffer.used) as *mut u8;
                // SAFETY: the client gave `size` bytes at `address` and leaves them to us until they are handed
                // back; `used + length` is within.
                unsafe { std::ptr::copy_nonoverlapping(record.bytes().as_ptr(), to, length) };
                buffer.used += length;
                buffer.records += 1;
                return Ok(filled);
            }
            filled = true;
            self.full.extend(self.current.take());
        }
    }
}

/// Make a record and give it to every client that wants it; whatever becomes of it is counted.
pub(crate) fn deliver(wants: impl Fn(&Client) -> bool, make: impl FnOnce(&State) -> Record) {
    let mut state = lock();
    if !state.clients.values().any(|c| !c.starved && wants(c)) {
        return;
    }
    let record = make(&state);
    let (mut filled, mut without) = (false, Vec::new());
    for (handle, client) in state.clients.iter_mut().filter(|(_, c)| !c.starved && wants(c)) {
        match client.buffers.push(&record) {
            Ok(full) => filled |= full,
            Err(requested) => without.push((*handle, requested)),
        }
    }
    drop(state);
    if filled {
        WORK.notify_all();
    }
    for (client, requested) in without {
        deliver_anew(client, requested, &record);
    }
}

/// Ask a client for a buffer and give it the record, again if another thread filled the buffer meanwhile.
fn deliver_anew(client: usize, mut requested: Requested, record: &Record) {
    loop {
        let (mut address, mut size, mut most_records) = (0, 0, 0);
        requested(&mut address, &mut size, &mut most_records, std::ptr::from_ref(&REQUEST_INFO) as usize);
        if address % 8 != 0 {
            truth::misuse("a buffer that is not aligned to 8 bytes");
        }
        let mut state = lock();
        let zeroed = state.attributes.get(&ZEROED_BY_CLIENT).is_some_and(|v| v.first() == Some(&1));
        let Some(buffers) = state.clients.get_mut(&client).map(|c| &mut c.buffers) else { return };
        if address == 0 || size < record.bytes().len() || address % 8 != 0 {
            buffers.dropped += 1;
            return;
        }
        if !zeroed {
            // SAFETY: the client gave so many bytes for us to write.
            unsafe { std::ptr::write_bytes(address as *mut u8, 0, size) };
        }
        buffers.spare.push(Buffer { address, size, used: 0, records: 0, most_records: most_records as u64 });
        match buffers.push(record) {
            Ok(_) => return,
            Err(again) => requested = again,
        }
    }
}

/// CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER.
pub(crate) const ZEROED_BY_CLIENT: u32 = 5;

/// CUpti_BufferCallbackRequestInfo: its own size.
static REQUEST_INFO: usize = size_of::<usize>();

/// How many buffers are with functions of clients that have not returned, and notified when there are none.
static HANDING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

thread_local! {
    /// The thread is in such a function.
    static IS_HANDING: Cell<bool> = const { Cell::new(false) };
}

fn handing() -> MutexGuard<'static, usize> {
    HANDING.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hand back everything, and wait for what other threads are handing back.
pub(crate) fn flush() {
    hand_back(true);
    // A client that flushes where it is handed a buffer would wait for itself.
    if !IS_HANDING.get() {
        let others = HANDING.1.wait_while(handing(), |buffers| *buffers > 0);
        drop(others.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Hand back full buffers, and with `all` also those that are not full.
fn hand_back(all: bool) {
    let clients: Vec<usize> = lock().clients.keys().copied().collect();
    for client in clients {
        loop {
            let mut state = lock();
            let Some(buffers) = state.client(client).map(|c| &mut c.buffers) else { break };
            let next = buffers.full.pop_front().or_else(|| {
                let some = buffers.current.as_ref().is_some_and(|b| b.used > 0);
                if all && some { buffers.current.take() } else { None }
            });
            let (Some(buffer), Some(completed)) = (next, buffers.completed) else { break };
            *handing() += 1;
            drop(state);
            let Buffer { address, size, used, .. } = buffer;
            let outer = IS_HANDING.replace(true);
            match completed {
                Completed::First(function) => function(0, 0, address, size, used),
                Completed::Second(function) => {
                    let size_of_info = size_of::<CompleteInfo>();
                    let info = CompleteInfo { size: size_of_info, thread: 0, layouts: 0, layout_count: 0 };
                    function(address, size, used, &info);
                }
            }
            IS_HANDING.set(outer);
            *handing() -= 1;
            HANDING.1.notify_all();
        }
    }
}

/// Notified when there is a full buffer, and at the end.
static WORK: Condvar = Condvar::new();

/// Counts the lives of the worker: each cuptiFinalize ends one.
static LIFE: Mutex<(u64, bool)> = Mutex::new((0, false));

/// Start the worker thread unless it runs.
pub(crate) fn start_worker() {
    let mut life = LIFE.lock().unwrap_or_else(PoisonError::into_inner);
    if life.1 {
        return;
    }
    *life = (life.0 + 1, true);
    let number = life.0;
    drop(life);
    let worker = std::thread::Builder::new().name("cupti-worker".into());
    if let Err(error) = worker.spawn(move || work(number)) {
        eprintln!("stallscope double: no worker thread: {error}");
    }
}

/// End it. It may be the caller itself, so nobody waits.
pub(crate) fn stop_worker() {
    let mut life = LIFE.lock().unwrap_or_else(PoisonError::into_inner);
    life.1 = false;
    drop(life);
    WORK.notify_all();
}

/// Looked at this often even when nothing happens: a stop that came between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn work(number: u64) {
    loop {
        let state = lock();
        let period_ms = state.flush_period_ms;
        let idle = state.clients.values().all(|c| c.buffers.full.is_empty());
        let pause = if period_ms > 0 { Duration::from_millis(period_ms.into()) } else { LOOK_EVERY };
        if idle {
            let (state, timeout) = WORK.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
            drop(state);
            if timeout.timed_out()
                && period_ms > 0
                && let Some(cuda) = state::cuda()
            {
                (cuda.collect)(false);
            }
        } else {
            drop(state);
        }
        if *LIFE.lock().unwrap_or_else(PoisonError::into_inner) != (number, true) {
            return;
        }
        hand_back(false);
    }
}
