//! The one state of the process, the clock, and those who wait.
//!
//! Nothing foreign (an observer, libnccl) is called while the state is locked.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stallscope_double_shared::link::{self, Observer, OpKind};
use stallscope_double_shared::truth::{self, Line};
use stallscope_double_shared::{settings, sys};

use crate::calls::{Call, current_context};
use crate::model::{Marker, OpId, Request, Run, Work};
use crate::state::{Error, Handle, State, Tag};
use crate::tuning::Tuning;

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| Mutex::new(State::new(&settings::now())));

/// Notified when a marker becomes known.
static KNOWN: Condvar = Condvar::new();

/// Has cuInit been called?
static INITIALISED: AtomicBool = AtomicBool::new(false);
/// Is this a child of a process that called it? CUDA does not survive a fork.
static FORKED: AtomicBool = AtomicBool::new(false);

static OBSERVER: AtomicPtr<Observer> = AtomicPtr::new(std::ptr::null_mut());
static OBSERVED_KINDS: AtomicU64 = AtomicU64::new(0);
static OBSERVED_CALLS: AtomicBool = AtomicBool::new(false);

pub(crate) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work on the state, then tell libnccl which of its operations have a start.
pub(crate) fn with<R>(body: impl FnOnce(&mut State) -> R) -> R {
    let mut state = lock();
    let result = body(&mut state);
    release(state);
    result
}

fn release(mut state: MutexGuard<'_, State>) {
    let started = state.model.started();
    let mut calls = Vec::new();
    for (id, start_ns) in started {
        let meeting = state.model.open(id).and_then(|tag| tag.meeting);
        calls.extend(meeting.map(|(function, argument)| (function, argument, id, start_ns)));
    }
    drop(state);
    for (function, argument, id, start_ns) in calls {
        function(argument, id.0, start_ns);
    }
}

/// The same for launches into a stream of the current context: the caller is held while its queue is full.
pub(crate) fn with_room<R>(
    stream: Handle,
    call: &Call,
    body: impl FnOnce(&mut State, Handle) -> Result<R, Error>,
) -> Result<R, Error> {
    let mut full = None;
    loop {
        let mut state = lock();
        let handle = state.stream_handle(current_context(), stream)?;
        let Some(oldest) = oldest_if_full(&mut state, handle) else {
            let result = body(&mut state, handle);
            release(state);
            if let (Some((enter_ns, leave_ns)), Some(observer)) = (full, observer()) {
                (observer.queue_full)(call.correlation, enter_ns, leave_ns);
            }
            return result;
        };
        drop(state);
        let enter_ns = full.map_or_else(sys::monotonic_ns, |(enter_ns, _)| enter_ns);
        wait(&[oldest], truth::Why::QueueFull, call);
        full = Some((enter_ns, sys::monotonic_ns()));
    }
}

/// The end of the oldest operation of a queue that is full.
fn oldest_if_full(state: &mut State, stream: Handle) -> Option<Marker> {
    let depth = state.tuning.queue_depth;
    let queue = &mut state.streams.get_mut(&stream)?.queue;
    if queue.len() >= depth {
        let now_ns = sys::monotonic_ns();
        while queue.front().is_some_and(|m| m.is_past(now_ns)) {
            queue.pop_front();
        }
    }
    queue.front().filter(|_| queue.len() >= depth).cloned()
}

/// cuInit.
pub(crate) fn initialise() -> Result<(), Error> {
    if FORKED.load(Ordering::Acquire) {
        return Err(Error::NotInitialized);
    }
    if INITIALISED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let settings = settings::now().line();
    let devices = lock().devices.iter().map(|d| d.uuid_text()).collect();
    let realtime_minus_monotonic_ns = sys::realtime_minus_monotonic_ns();
    let rank = std::env::var("RANK").ok().and_then(|r| r.parse().ok());
    let (pid, at_ns) = (sys::process_id(), sys::monotonic_ns());
    let line = truth::Process { pid, at_ns, realtime_minus_monotonic_ns, devices, rank, settings };
    truth::write(&[Line::Process(line)]);
    sys::at_exit(at_exit);
    sys::in_forked_children(forked);
    Ok(())
}

extern "C" fn forked() {
    FORKED.store(true, Ordering::Release);
}

pub(crate) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Acquire) && !FORKED.load(Ordering::Acquire)
}

/// Take changed settings over.
pub(crate) fn refresh(now_ns: u64) {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    settings::keep_fresh(now_ns);
    let generation = settings::generation();
    if SEEN.load(Ordering::Acquire) != generation {
        SEEN.store(generation, Ordering::Release);
        lock().tuning = Tuning::of(&settings::current(now_ns));
    }
}

pub(crate) fn observe(observer: &'static Observer, kinds: u64, calls: bool) {
    OBSERVED_KINDS.store(kinds, Ordering::Release);
    OBSERVED_CALLS.store(calls, Ordering::Release);
    OBSERVER.store(std::ptr::from_ref(observer).cast_mut(), Ordering::Release);
}

pub(crate) fn forget() {
    OBSERVER.store(std::ptr::null_mut(), Ordering::Release);
    OBSERVED_KINDS.store(0, Ordering::Release);
    OBSERVED_CALLS.store(false, Ordering::Release);
    let mut state = lock();
    (state.pool.outstanding, state.pool.peak) = (0, 0);
}

/// CUPTI, while it is attached.
pub(crate) fn observer() -> Option<&'static Observer> {
    let observer = OBSERVER.load(Ordering::Acquire);
    // SAFETY: only `observe` stores it, from a reference to a static of a library that is never unloaded.
    unsafe { observer.as_ref() }
}

pub(crate) fn observes_calls() -> bool {
    OBSERVED_CALLS.load(Ordering::Acquire)
}

/// Numbers of CUPTI's kinds.
pub(crate) mod kind {
    pub(crate) const MEMCPY: u32 = 1;
    pub(crate) const MEMSET: u32 = 2;
    pub(crate) const KERNEL: u32 = 3;
    pub(crate) const CONCURRENT_KERNEL: u32 = 10;
    pub(crate) const CUDA_EVENT: u32 = 36;
    pub(crate) const GRAPH_TRACE: u32 = 51;
}

pub(crate) fn observes(kind: u32) -> bool {
    OBSERVED_KINDS.load(Ordering::Acquire) & (1 << kind) != 0
}

fn observes_op(record: &link::Op) -> bool {
    // Graphs traced as wholes hide their nodes.
    let hidden = record.graph != 0 && observes(kind::GRAPH_TRACE);
    match record.kind {
        OpKind::Kernel => !hidden && (observes(kind::CONCURRENT_KERNEL) || observes(kind::KERNEL)),
        OpKind::Copy => !hidden && observes(kind::MEMCPY),
        OpKind::Set => !hidden && observes(kind::MEMSET),
        OpKind::Event => observes(kind::CUDA_EVENT),
        OpKind::Graph => observes(kind::GRAPH_TRACE),
    }
}

/// What [`submit`] is asked for.
pub(crate) struct Submission {
    /// Not before these.
    pub(crate) after: Vec<Marker>,
    pub(crate) gap_ns: u64,
    /// From the entry of the call to the earliest start.
    pub(crate) latency_ns: u64,
    pub(crate) work: Work,
    pub(crate) tag: Box<Tag>,
}

/// Put an operation on a device. The caller makes its marker a tail.
pub(crate) fn submit(state: &mut State, mut submission: Submission) -> (OpId, Marker) {
    let tag = &mut submission.tag;
    state.ops += u64::from(tag.kind.is_some());
    tag.observed = (tag.kind.is_some() || tag.since.is_some()) && observes_op(&tag.record);
    if tag.observed {
        let pool = &mut state.pool;
        if pool.outstanding >= pool.limit {
            // CUPTI then delivers the record without times.
            tag.untimed = true;
        } else {
            pool.outstanding += 1;
            pool.peak = pool.peak.max(pool.outstanding);
        }
    }
    let earliest_ns = tag.launched_ns + submission.latency_ns;
    state.model.submit(Request {
        earliest_ns,
        after: submission.after,
        gap_ns: submission.gap_ns,
        work: submission.work,
        tag: submission.tag,
    })
}

/// Make a marker the end of a stream.
pub(crate) fn append(state: &mut State, stream: Handle, marker: Marker) {
    if let Some(stream) = state.streams.get_mut(&stream) {
        stream.queue.push_back(marker.clone());
        stream.tail = marker;
    }
}

/// Hold the caller until all markers have passed, and say in the truth log that it was held.
pub(crate) fn wait(markers: &[Marker], why: truth::Why, call: &Call) {
    let enter_ns = sys::monotonic_ns();
    let mut waited = false;
    let mut state = lock();
    let (until_ns, leave_ns) = loop {
        let now_ns = sys::monotonic_ns();
        let until_ns = markers.iter().try_fold(0, |latest, m| Some(m.at_ns()?.max(latest)));
        match until_ns {
            Some(until_ns) if until_ns <= now_ns => break (until_ns, now_ns),
            _ => waited = true,
        }
        if state.tuning.spins {
            drop(state);
            for _ in 0..100 {
                std::hint::spin_loop();
            }
            state = lock();
            continue;
        }
        state = match until_ns {
            Some(until_ns) => {
                let rest = Duration::from_nanos(until_ns - now_ns);
                KNOWN.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                state.waits += 1;
                let number = state.waits;
                state.waiting.insert(number, markers.to_vec());
                let mut state = KNOWN.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting.remove(&number);
                state
            }
        };
    };
    drop(state);
    if waited {
        blocked(why, call, enter_ns, leave_ns, until_ns.max(enter_ns));
    }
}

/// Hold the caller for so long.
pub(crate) fn hold(duration_ns: u64, why: truth::Why, call: &Call) {
    let enter_ns = sys::monotonic_ns();
    std::thread::sleep(Duration::from_nanos(duration_ns));
    blocked(why, call, enter_ns, sys::monotonic_ns(), enter_ns + duration_ns);
}

pub(crate) fn blocked(why: truth::Why, call: &Call, enter_ns: u64, leave_ns: u64, until_ns: u64) {
    if truth::is_wanted() {
        let (pid, thread, correlation) = (sys::process_id(), call.thread, call.correlation);
        let call = call.name.to_string_lossy().into_owned();
        let block = truth::Block { pid, thread, call, correlation, why, enter_ns, leave_ns, until_ns };
        truth::write(&[Line::Block(block)]);
    }
}

/// A meeting has ended.
pub(crate) fn finish(id: OpId, end_ns: u64) {
    with_waiters(|state| {
        state.model.finish(id, end_ns);
    });
}

/// A meeting will not take place.
pub(crate) fn cancel(id: OpId) {
    with_waiters(|state| state.model.cancel(id, sys::monotonic_ns()));
}

/// Work on the state, and wake those who wait if one of them now knows until when. To wake them for each meeting of a step
/// would cost their CPUs what devices do not.
fn with_waiters(body: impl FnOnce(&mut State)) {
    let known = with(|state| {
        body(state);
        state.waiting.values().any(|markers| markers.iter().all(|m| m.at_ns().is_some()))
    });
    if known {
        KNOWN.notify_all();
    }
}

/// Tell the truth log and CUPTI about what has ended.
pub(crate) fn drain(now_ns: u64) {
    let mut state = lock();
    if !state.model.has_ended(now_ns) {
        return;
    }
    let runs = state.model.ended(now_ns);
    let observed = runs.iter().filter(|r| r.tag.observed && !r.tag.told && !r.tag.untimed).count() as u64;
    state.pool.outstanding = state.pool.outstanding.saturating_sub(observed);
    drop(state);
    if truth::is_wanted() {
        let lines: Vec<Line> = runs.iter().filter_map(line).collect();
        truth::write(&lines);
    }
    if let Some(observer) = observer() {
        for run in runs.iter().filter(|r| r.tag.observed && !r.tag.told) {
            (observer.op)(&record(run));
        }
    }
}

/// Tell CUPTI about observed operations that run now; they will not be told again.
pub(crate) fn tell_running(now_ns: u64) {
    let mut records = Vec::new();
    let mut state = lock();
    for (id, start_ns, tag) in
        state.model.running(now_ns).filter(|(_, _, tag)| tag.observed && !tag.told && !tag.untimed)
    {
        tag.told = true;
        records.push(record(&Run { id, start_ns: Some(start_ns), end_ns: None, tag: tag.clone() }));
    }
    state.pool.outstanding = state.pool.outstanding.saturating_sub(records.len() as u64);
    drop(state);
    if let Some(observer) = observer() {
        for record in &records {
            (observer.op)(record);
        }
    }
}

fn record(run: &Run<Box<Tag>>) -> link::Op {
    if run.tag.untimed {
        return run.tag.record;
    }
    let since_ns = run.tag.since.as_ref().and_then(Marker::at_ns);
    link::Op {
        start_ns: since_ns.or(run.start_ns).unwrap_or(0),
        end_ns: run.end_ns.unwrap_or(0),
        ..run.tag.record
    }
}

fn line(run: &Run<Box<Tag>>) -> Option<Line> {
    let (tag, record) = (&run.tag, &run.tag.record);
    Some(Line::Op(truth::Op {
        pid: sys::process_id(),
        id: run.id.0,
        kind: tag.kind?,
        name: sys::interned(record.name),
        device: record.device,
        context: record.context,
        stream: record.stream,
        thread: tag.thread,
        correlation: record.correlation,
        launched_ns: tag.launched_ns,
        start_ns: run.start_ns,
        end_ns: run.end_ns,
        bytes: record.bytes,
        graph: record.graph,
        node: record.node,
        slowed_ns: tag.slowed_ns,
        observed: tag.observed,
    }))
}

extern "C" fn at_exit() {
    if !is_initialised() {
        return; // A forked child: the operations are its parent's.
    }
    let at_ns = sys::monotonic_ns();
    drain(at_ns);
    let mut state = lock();
    let left = state.model.unfinished();
    let ops = state.ops;
    drop(state);
    let mut lines: Vec<Line> = left.iter().filter_map(line).collect();
    let unfinished = lines.len() as u64;
    lines.push(Line::End(truth::End { pid: sys::process_id(), at_ns, ops, unfinished }));
    truth::write(&lines);
    truth::flush();
}
