//! Reads what one thread did forward, by stretches of time that are asked for in order, with its samples.

use std::iter::Peekable;

use stallscope_schemas::units::{StackId, ThreadId, TimeNs};

use crate::capture::{Capture, MergedRows, ReadAt};
use crate::rows::{CollectiveCall, CpuSample, ThreadPreempt, ThreadWait};
use crate::timeline::thread::{Stretch, ThreadStates};

/// A thread's states and samples, read forward.
#[derive(Debug)]
pub(crate) struct Cursor<'a, S: ReadAt> {
    states: ThreadStates<'a, S>,
    samples: Peekable<MergedRows<'a, S, CpuSample>>,
    /// The stretch that the last question ended in.
    open: Option<Stretch>,
    /// Number of the last question: tells which cursor has not been used for longest.
    pub(super) used: u64,
}

impl<'a, S: ReadAt> Cursor<'a, S> {
    /// From a moment on.
    pub(crate) fn new(capture: &'a Capture<S>, thread: ThreadId, since: TimeNs) -> Self {
        Self {
            states: ThreadStates::since(capture, thread, since),
            samples: capture.rows_from(thread.0, since, None).peekable(),
            open: None,
            used: 0,
        }
    }

    /// The next stretch as a whole.
    pub(crate) fn next(&mut self) -> Option<Stretch> {
        self.open.take().or_else(|| self.states.next())
    }

    /// The first part of `[from, to)` in which the thread was followed. Questions must not go back in time.
    pub(super) fn next_in(&mut self, from: TimeNs, to: TimeNs) -> Option<Stretch> {
        loop {
            let stretch = self.next()?;
            if stretch.to <= from {
                continue;
            }
            // A stretch that goes on stays the last one: its rows can still be asked for.
            if stretch.to > to || stretch.from >= to {
                self.open = Some(stretch);
            }
            return (stretch.from < to).then(|| stretch.clipped(from, to));
        }
    }

    /// Visits stack and weight of the samples in `[from, to)`. Questions must not go back in time.
    pub(crate) fn samples(&mut self, from: TimeNs, to: TimeNs, mut visit: impl FnMut(StackId, u64)) {
        while let Some(sample) = self.samples.next_if(|s| s.start < to) {
            if sample.start >= from {
                visit(sample.stack, sample.duration_ns);
            }
        }
    }

    /// The wait that the last stretch is part of, where it is.
    pub(crate) fn wait(&self) -> &ThreadWait {
        self.states.wait()
    }

    /// The preemption record that the last stretch is part of, where it is.
    pub(crate) fn preempt(&self) -> &ThreadPreempt {
        self.states.preempt()
    }

    /// The collective call that the last stretch is part of, where it is.
    pub(super) fn call(&self) -> &CollectiveCall {
        self.states.call()
    }

    /// Length of the union of the thread's spans so far, ns.
    pub(super) fn wall_ns(&self) -> u64 {
        self.states.wall_ns()
    }
}
