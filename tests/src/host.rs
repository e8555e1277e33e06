//! One rank of the model: a host program that runs forward in time, the calls it makes and what its GPU does with them.
//!
//! The host is a single flow of control that hops between threads (the main thread waits while the autograd thread works),
//! so one clock is enough. A stream executes in order; an operation begins when its launch has arrived, its stream is free
//! and what it depends on has ended. All times are integer nanoseconds since the start of the job.

use crate::rng::Rng;

/// Streams of the model, as Kineto numbers them.
pub const COMPUTE_STREAM: usize = 7;
/// The stream of the collective library.
pub const COMM_STREAM: usize = 20;

/// What a host record is in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// A framework operator.
    Operator,
    /// A Python function; the number of the enclosing one, 0 for none.
    Python {
        /// Its own number.
        id: u32,
        /// Number of the caller.
        parent: u32,
    },
    /// A range that the user (or the profiler on its behalf) marked.
    Annotation,
    /// A call into the CUDA runtime.
    Runtime {
        /// Its correlation id.
        correlation: u64,
    },
}

/// A range on a host thread.
#[derive(Clone, Debug)]
pub struct HostEvent {
    /// Index into [`Host::THREADS`].
    pub thread: usize,
    /// Begin, ns.
    pub start: u64,
    /// Length, ns.
    pub duration: u64,
    /// Name in the trace.
    pub name: String,
    /// What it is.
    pub kind: HostKind,
}

/// What a device operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A kernel that computes.
    Kernel,
    /// A fill of so many bytes.
    Memset(u64),
    /// A copy of so many bytes.
    Copy(u64),
    /// An all-reduce of so many 4-byte elements.
    AllReduce(u64),
}

/// An operation on the device.
#[derive(Clone, Debug)]
pub struct DeviceOp {
    /// What it does.
    pub work: Work,
    /// Name in the trace.
    pub name: &'static str,
    /// Stream number.
    pub stream: usize,
    /// Begin, ns.
    pub start: u64,
    /// Length, ns.
    pub duration: u64,
    /// Ties it to its launch.
    pub correlation: u64,
    /// End of what it waited for on another stream, ns; 0 for nothing.
    pub waited_for: u64,
}

impl DeviceOp {
    /// When it ends, ns.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.duration
    }
}

/// A stream was told to wait for another.
#[derive(Clone, Debug)]
pub struct StreamWait {
    /// When the host made the call, ns.
    pub start: u64,
    /// The stream that waits.
    pub stream: usize,
    /// The stream that it waits for.
    pub on_stream: usize,
    /// Correlation id of the call.
    pub correlation: u64,
}

/// A rank while it runs, and its records.
#[derive(Debug)]
pub struct Host {
    /// Its rank.
    pub rank: u32,
    /// The clock, ns.
    pub now: u64,
    /// Records of the host.
    pub events: Vec<HostEvent>,
    /// Records of the device.
    pub ops: Vec<DeviceOp>,
    /// Orders between streams.
    pub waits: Vec<StreamWait>,
    /// Jitter.
    pub rng: Rng,
    thread: usize,
    stream_free: [u64; 2],
    next_correlation: u64,
    python: Vec<u32>,
    next_python: u32,
}

impl Host {
    /// Names of the threads; the tid of a thread is the pid plus its index.
    pub const THREADS: [&'static str; 2] = ["python", "pt_autograd_0"];

    /// A rank at time 0.
    #[must_use]
    pub fn new(rank: u32, seed: u64) -> Self {
        Self {
            rank,
            now: 0,
            events: Vec::new(),
            ops: Vec::new(),
            waits: Vec::new(),
            rng: Rng::new(seed ^ (u64::from(rank) << 32)),
            thread: 0,
            stream_free: [0; 2],
            next_correlation: 1000,
            python: Vec::new(),
            next_python: 1,
        }
    }

    /// Runs `body` inside a range.
    pub fn within<T>(&mut self, kind: HostKind, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let (thread, start) = (self.thread, self.now);
        self.work(400);
        let result = body(self);
        self.work(300);
        self.push(thread, start, kind, name);
        result
    }

    /// Runs `body` inside a Python function.
    pub fn python<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let kind =
            HostKind::Python { id: self.next_python, parent: self.python.last().copied().unwrap_or(0) };
        self.python.push(self.next_python);
        self.next_python += 1;
        let result = self.within(kind, name, body);
        self.python.pop();
        result
    }

    /// Runs `body` on the other thread while the current one waits.
    pub fn on_thread<T>(&mut self, thread: usize, body: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.thread, thread);
        self.work(9_000);
        let result = body(self);
        self.work(5_000);
        self.thread = before;
        result
    }

    /// The host computes for about so long.
    pub fn work(&mut self, mean_ns: u64) {
        self.now += self.rng.around(mean_ns, 20);
    }

    /// Puts an operation of about `mean_ns` on a stream. The host goes on; the device begins when it can.
    pub fn launch(
        &mut self,
        call: &str,
        stream: usize,
        work: Work,
        name: &'static str,
        mean_ns: u64,
        after: u64,
    ) -> usize {
        let start = self.now;
        self.work(4_200);
        let correlation = self.call(call, start);
        let arrival = self.now + self.rng.between(900, 2_100);
        let duration = self.rng.around(mean_ns, 8);
        let start = arrival.max(self.stream_free[slot(stream)] + 700).max(after + u64::from(after > 0) * 900);
        self.stream_free[slot(stream)] = start + duration;
        self.ops.push(DeviceOp { work, name, stream, start, duration, correlation, waited_for: after });
        self.ops.len() - 1
    }

    /// Copies pageable host memory to the device: the call returns when the copy is done.
    pub fn copy_pageable(&mut self, bytes: u64) {
        let call_start = self.now;
        self.work(6_000);
        let start = self.now.max(self.stream_free[slot(COMPUTE_STREAM)] + 700);
        // 11 GB/s: what staging through a driver buffer reaches.
        let duration = bytes / 11 + 900;
        self.stream_free[slot(COMPUTE_STREAM)] = start + duration;
        self.now = start + duration + 1_500;
        let correlation = self.call("cudaMemcpyAsync", call_start);
        let name = "Memcpy HtoD (Pageable -> Device)";
        let work = Work::Copy(bytes);
        self.ops.push(DeviceOp {
            work,
            name,
            stream: COMPUTE_STREAM,
            start,
            duration,
            correlation,
            waited_for: 0,
        });
    }

    /// Waits until the compute stream is empty.
    pub fn synchronize(&mut self) {
        let start = self.now;
        self.now = (start + 1_100).max(self.stream_free[slot(COMPUTE_STREAM)] + 3_000);
        self.call("cudaStreamSynchronize", start);
    }

    /// A call that puts nothing on the device.
    pub fn plain_call(&mut self, name: &str, mean_ns: u64) {
        let start = self.now;
        self.work(mean_ns);
        self.call(name, start);
    }

    /// Tells a stream to wait for what another has been asked to do so far.
    pub fn stream_wait(&mut self, stream: usize, on_stream: usize) {
        let start = self.now;
        self.work(1_400);
        let correlation = self.call("cudaStreamWaitEvent", start);
        self.waits.push(StreamWait { start, stream, on_stream, correlation });
    }

    /// Replaces the times of an operation that another rank decides on.
    pub fn place(&mut self, op: usize, start: u64, end: u64) {
        let Some(op) = self.ops.get_mut(op) else { return };
        (op.start, op.duration) = (start, end - start);
        self.stream_free[slot(op.stream)] = end;
    }

    fn call(&mut self, name: &str, start: u64) -> u64 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        self.push(self.thread, start, HostKind::Runtime { correlation }, name);
        self.work(600);
        correlation
    }

    /// Adds a range that began at `start` and ends now.
    pub fn mark(&mut self, start: u64, kind: HostKind, name: &str) {
        self.push(self.thread, start, kind, name);
    }

    fn push(&mut self, thread: usize, start: u64, kind: HostKind, name: &str) {
        let duration = self.now - start;
        self.events.push(HostEvent { thread, start, duration, name: name.to_owned(), kind });
    }
}

fn slot(stream: usize) -> usize {
    usize::from(stream == COMM_STREAM)
}
