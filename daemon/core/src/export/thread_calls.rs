//! What one thread did, in the order of its starts.
//!
//! Calls that launched something are stored with what they launched, in the order in which devices ran it; the rest, and
//! ranges, in rows of their own. Launches are put in order by a bounded heap: the order of execution differs from that of
//! the calls by what is in flight, which hardware bounds at some thousands.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;

use stallscope_schemas::record::{SpanKind, WaitKind};
use stallscope_schemas::units::{StringId, ThreadId, TimeNs};

use crate::capture::{Capture, MergedRows, ReadAt};
use crate::rows::{ApiCall, CollectiveCall, GpuOp, HostSpan, ThreadWait};

/// Launches that wait for earlier ones: some MiB. What is later still goes to a lane of its own.
const MAX_WAITING: usize = 1 << 16;

/// What a slice on a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallKind {
    /// A range, an operator, a function. First: it may contain a call that begins with it.
    Range(SpanKind),
    /// A call that launched something.
    Launch,
    /// Any other call.
    Call,
    /// A call into a collective library.
    Collective,
    /// A stretch off the CPU.
    Wait(WaitKind),
}

/// A slice on a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) start: TimeNs,
    pub(super) duration_ns: Reverse<u64>,
    pub(super) kind: CallKind,
    pub(super) name: StringId,
}

impl Call {
    fn is_same(&self, other: &Self) -> bool {
        (self.start, self.duration_ns, self.name) == (other.start, other.duration_ns, other.name)
    }
}

/// Iterates over everything that a thread did.
#[derive(Debug)]
pub(super) struct ThreadCalls<'a, S: ReadAt> {
    spans: Peekable<MergedRows<'a, S, HostSpan>>,
    calls: Peekable<MergedRows<'a, S, ApiCall>>,
    launches: Peekable<Launches<'a, S>>,
    collectives: Peekable<MergedRows<'a, S, CollectiveCall>>,
    waits: Peekable<MergedRows<'a, S, ThreadWait>>,
}

impl<'a, S: ReadAt> ThreadCalls<'a, S> {
    /// `devices` are those to which the thread launched.
    pub(super) fn new(capture: &'a Capture<S>, thread: ThreadId, devices: &[u32]) -> Self {
        Self {
            spans: capture.rows(thread.0).peekable(),
            calls: capture.rows(thread.0).peekable(),
            launches: Launches::new(capture, thread, devices).peekable(),
            collectives: capture.rows(thread.0).peekable(),
            waits: capture.rows(thread.0).peekable(),
        }
    }
}

impl<S: ReadAt> Iterator for ThreadCalls<'_, S> {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        let span = self.spans.peek().map(|s| Call {
            start: s.start,
            duration_ns: Reverse(s.duration_ns),
            kind: CallKind::Range(s.kind),
            name: s.name,
        });
        let call = self.calls.peek().map(|c| Call {
            start: c.start,
            duration_ns: Reverse(c.duration_ns),
            kind: CallKind::Call,
            name: c.name,
        });
        let launch = self.launches.peek().copied();
        let collective = self.collectives.peek().map(|c| Call {
            start: c.start,
            duration_ns: Reverse(c.duration_ns),
            kind: CallKind::Collective,
            name: c.name,
        });
        let wait = self.waits.peek().map(|w| Call {
            start: w.start,
            duration_ns: Reverse(w.duration_ns),
            kind: CallKind::Wait(w.kind),
            name: w.call,
        });
        let first = [span, launch, call, collective, wait].into_iter().flatten().min()?;
        let _ = match first.kind {
            CallKind::Range(_) => self.spans.next().map(|_| ()),
            CallKind::Call => self.calls.next().map(|_| ()),
            CallKind::Collective => self.collectives.next().map(|_| ()),
            CallKind::Wait(_) => self.waits.next().map(|_| ()),
            CallKind::Launch => {
                // A call that copied is stored both ways.
                self.calls.next_if(|_| call.is_some_and(|c| c.is_same(&first)));
                self.launches.next().map(|_| ())
            }
        };
        Some(first)
    }
}

/// The launching calls of one thread, each once.
#[derive(Debug)]
struct Launches<'a, S: ReadAt> {
    thread: ThreadId,
    devices: Vec<Peekable<MergedRows<'a, S, GpuOp>>>,
    waiting: BinaryHeap<Reverse<Call>>,
    last: Option<Call>,
}

impl<'a, S: ReadAt> Launches<'a, S> {
    fn new(capture: &'a Capture<S>, thread: ThreadId, devices: &[u32]) -> Self {
        let devices = devices.iter().map(|&device| capture.rows(device).peekable()).collect();
        Self { thread, devices, waiting: BinaryHeap::new(), last: None }
    }

    /// The next operation of any device.
    fn next_op(&mut self) -> Option<GpuOp> {
        let first = self
            .devices
            .iter_mut()
            .enumerate()
            .filter_map(|(at, ops)| Some((ops.peek()?.start, at)))
            .min()?
            .1;
        self.devices.get_mut(first)?.next()
    }
}

impl<S: ReadAt> Iterator for Launches<'_, S> {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        loop {
            while self.waiting.len() < MAX_WAITING {
                let Some(op) = self.next_op() else { break };
                if let Some(launch) = op.launch.filter(|l| l.thread == self.thread) {
                    self.waiting.push(Reverse(Call {
                        start: launch.start,
                        duration_ns: Reverse(launch.duration_ns),
                        kind: CallKind::Launch,
                        name: launch.name,
                    }));
                }
            }
            let Reverse(call) = self.waiting.pop()?;
            // One call can launch many operations: a graph.
            if self.last != Some(call) {
                self.last = Some(call);
                return Some(call);
            }
        }
    }
}
