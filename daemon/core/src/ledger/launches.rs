//! Where operations were launched from, for the launches of which a sample was taken.
//!
//! A sample names its thread and the launch's correlation id. Such an id comes again when CUPTI was taken down and started
//! anew, and after four thousand million calls: so a sample counts only for a launch of about its own time.

use hashbrown::HashMap;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::{CorrelationId, StackId, ThreadId, TimeNs};

use crate::capture::{Capture, ReadAt};
use crate::rows::{Launch, LaunchStack};

/// Samples of one thread that are looked at: at the recorder's rate those of two hours.
const MAX_SAMPLES: usize = 1 << 22;

/// How far a sample may lie outside of its launching call: far more than clocks differ, far less than ids take to come
/// again.
const NEAR_NS: u64 = 1_000_000_000;

/// How much of a device's work has the stack of its launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Operations whose launch is recorded.
    pub launches: u64,
    /// Of these, those whose launch was sampled.
    pub sampled: u64,
    /// Sum of the durations of all operations, ns.
    pub all_ns: u64,
    /// Of those whose launch was sampled, ns.
    pub sampled_ns: u64,
}

impl Coverage {
    pub(super) fn add(&mut self, launched: bool, sampled: bool, ns: u64) {
        self.launches += u64::from(launched);
        self.all_ns = self.all_ns.saturating_add(ns);
        if sampled {
            self.sampled += 1;
            self.sampled_ns = self.sampled_ns.saturating_add(ns);
        }
    }

    /// Sampled share of the operations' time.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.all_ns == 0 { 0.0 } else { self.sampled_ns as f64 / self.all_ns as f64 }
    }
}

type Samples = HashMap<CorrelationId, (TimeNs, StackId)>;

/// The sampled launches of a capture, read thread by thread as they are asked for.
pub(super) struct LaunchStacks<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    threads: HashMap<ThreadId, Samples>,
    any: bool,
}

impl<'a, S: ReadAt> LaunchStacks<'a, S> {
    pub(super) fn new(capture: &'a Capture<S>) -> Self {
        let any = !capture.keys(RecordKind::LaunchStack).is_empty();
        Self { capture, threads: HashMap::new(), any }
    }

    /// Whether launches were sampled at all.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Where a launch was made, if that is known.
    #[inline]
    pub(super) fn of(&mut self, launch: Launch, correlation: CorrelationId) -> Option<StackId> {
        if !self.any {
            return None;
        }
        let capture = self.capture;
        let samples = self.threads.entry(launch.thread).or_insert_with(|| {
            let rows = capture.rows::<LaunchStack>(launch.thread.0).take(MAX_SAMPLES);
            rows.filter(|row| row.stack.0 != 0).map(|row| (row.correlation, (row.start, row.stack))).collect()
        });
        let &(at, stack) = samples.get(&correlation)?;
        let end = launch.start.plus(launch.duration_ns);
        // `since` is 0 where it would be negative.
        let outside = launch.start.since(at).max(at.since(end));
        (outside <= NEAR_NS).then_some(stack)
    }
}
