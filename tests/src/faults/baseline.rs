//! The rules that other tools use, on the same captures.
//!
//! *Co-occurrence*: around each idle gap of a device, 5 ms to either side, the events of the threads that launch are looked at (waits by
//! kind, run queue, throttling, stops); the rank and kind that cover most of that time are to blame for the gap. Who is to
//! blame for most of the idle time is the culprit.
//!
//! *Kernel gaps*: the rank whose device has the largest share of idle gaps is the culprit; why is not said.
//!
//! Kernels that communicate count as busy, as they do for whoever looks at gaps alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use stallscope_core::capture::{Capture, ReadAt};
use stallscope_core::classify::waits::{WaitClass, wait_class};
use stallscope_core::rows::{GpuOp, ThreadPreempt, ThreadWait};
use stallscope_schemas::record::{RecordKind, WaitKind};
use stallscope_schemas::units::{DeviceId, ProcessId, TimeNs};

use super::cases::Case;
use super::spans::{Span, length, union, without};

/// What the two rules say of a capture.
#[derive(Clone, Debug, Serialize)]
pub struct Baselines {
    /// Whoever has most going on around the gaps.
    pub co_occurrence: Verdict,
    /// Whoever has the largest gaps.
    pub kernel_gaps: Verdict,
}

/// What one rule says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// The rank that it accuses.
    pub rank: Option<u32>,
    /// Why; none where the rule does not say.
    pub cause: Option<&'static str>,
    /// Whether that is right; none where nobody is late.
    pub top1: Option<bool>,
    /// Idle time that it charges to anybody, ns.
    pub charged_ns: u64,
    /// Of this, to culprit and cause; of a rule that names no cause, to the culprit.
    pub right_ns: u64,
}

/// Shorter gaps are dispatch.
const GAP_NS: i64 = 20_000;
/// How far around a gap is looked.
const AROUND_NS: i64 = 5_000_000;
/// A thread that waits for longer has nothing to do; nobody would show it as an event.
const IDLE_NS: u64 = 1_000_000_000;

/// What a thread was off a CPU for.
fn kind(wait: &ThreadWait, call: &str) -> &'static str {
    match wait.kind {
        WaitKind::PageFault => "page fault",
        WaitKind::Stopped => "stopped",
        WaitKind::Preempted => "run queue",
        WaitKind::Throttled => "throttled",
        WaitKind::Unknown | WaitKind::Kernel => "kernel",
        WaitKind::Syscall => match wait_class(call, wait.object_kind) {
            WaitClass::Lock => "lock",
            WaitClass::Sleep => "sleep",
            WaitClass::BlockIo => "block I/O",
            WaitClass::Ipc => "ipc",
            WaitClass::Network => "network",
            WaitClass::Poll | WaitClass::Syscall => "other call",
        },
    }
}

/// When something of one kind happened on one rank, with the lengths of all stretches before each.
struct Events {
    spans: Vec<Span>,
    before: Vec<i64>,
}

impl Events {
    fn new(spans: Vec<Span>) -> Self {
        let spans = union(spans, (i64::MIN, i64::MAX));
        let before = spans.iter().scan(0, |sum, (from, to)| {
            let before = *sum;
            *sum += to - from;
            Some(before)
        });
        Self { before: before.collect(), spans }
    }

    /// How much of it lies before a moment, ns.
    fn until(&self, at: i64) -> i64 {
        let Some(last) = self.spans.partition_point(|span| span.0 < at).checked_sub(1) else { return 0 };
        self.before[last] + at.min(self.spans[last].1) - self.spans[last].0
    }
}

/// Both rules on a capture.
pub(super) fn of<S: ReadAt>(capture: &Capture<S>, case: &Case, windows: &BTreeMap<u32, Span>) -> Baselines {
    let gaps = gaps(capture, windows);
    let events = events(capture);
    let mut blamed: BTreeMap<(u32, &'static str), u64> = BTreeMap::new();
    for &(from, to) in gaps.values().flatten() {
        let (begin, end) = (from - AROUND_NS, to + AROUND_NS);
        let most = events.iter().map(|(who, events)| (events.until(end) - events.until(begin), who));
        if let Some((_, &who)) = most.max_by_key(|(ns, _)| *ns).filter(|(ns, _)| *ns > 0) {
            *blamed.entry(who).or_default() += to.abs_diff(from);
        }
    }
    let by_rank: BTreeMap<u32, u64> = gaps.iter().map(|(rank, gaps)| (*rank, length(gaps))).collect();
    let is_culprit = |rank: u32| case.culprits.iter().any(|culprit| culprit.rank == rank);
    let is_right = |(rank, cause): &(u32, &'static str)| {
        case.culprits.iter().any(|culprit| culprit.rank == *rank && culprit.events.contains(cause))
    };
    let is_late = !case.culprits.is_empty();
    let first = blamed.iter().max_by_key(|(_, ns)| **ns).map(|(who, _)| *who);
    let widest = by_rank.iter().max_by_key(|(_, ns)| **ns).map(|(rank, _)| *rank);
    Baselines {
        co_occurrence: Verdict {
            rank: first.map(|(rank, _)| rank),
            cause: first.map(|(_, cause)| cause),
            top1: is_late.then(|| first.is_some_and(|who| is_right(&who))),
            charged_ns: blamed.values().sum(),
            right_ns: blamed.iter().filter(|(who, _)| is_right(who)).map(|(_, ns)| ns).sum(),
        },
        kernel_gaps: Verdict {
            rank: widest,
            cause: None,
            top1: is_late.then(|| widest.is_some_and(is_culprit)),
            charged_ns: by_rank.values().sum(),
            right_ns: by_rank.iter().filter(|(rank, _)| is_culprit(**rank)).map(|(_, ns)| ns).sum(),
        },
    }
}

fn rank_of<S: ReadAt>(capture: &Capture<S>, process: ProcessId) -> Option<u32> {
    capture.tables().process(process)?.rank
}

/// When each rank's device was idle.
fn gaps<S: ReadAt>(capture: &Capture<S>, windows: &BTreeMap<u32, Span>) -> BTreeMap<u32, Vec<Span>> {
    let mut out = BTreeMap::new();
    for device in capture.keys(RecordKind::GpuOp) {
        let process = capture.tables().device(DeviceId(device)).and_then(|d| d.processes.first().copied());
        let Some(rank) = process.and_then(|process| rank_of(capture, process)) else { continue };
        let Some(&window) = windows.get(&rank) else { continue };
        let busy = capture.rows::<GpuOp>(device).map(|op| span(op.start, op.duration_ns));
        let mut gaps = without(&[window], &union(busy.collect(), window));
        gaps.retain(|(from, to)| to - from >= GAP_NS);
        out.insert(rank, gaps);
    }
    out
}

fn span(start: TimeNs, ns: u64) -> Span {
    (start.0, start.plus(ns).0)
}

/// What kept the threads that launch off their CPUs, by rank: others of a process wait all the time, those of stand-ins the
/// most.
fn events<S: ReadAt>(capture: &Capture<S>) -> BTreeMap<(u32, &'static str), Events> {
    let mut spans: BTreeMap<(u32, &'static str), Vec<Span>> = BTreeMap::new();
    let devices = capture.keys(RecordKind::GpuOp).into_iter();
    let ops = devices.flat_map(|device| capture.rows::<GpuOp>(device));
    let launch: BTreeSet<u32> = ops.filter_map(|op| op.launch).map(|launch| launch.thread.0).collect();
    let rank = |thread: u32| {
        if !launch.contains(&thread) {
            return None;
        }
        let thread = capture.tables().threads().get(thread as usize)?;
        rank_of(capture, thread.process)
    };
    for thread in capture.keys(RecordKind::ThreadWait) {
        let Some(rank) = rank(thread) else { continue };
        for wait in capture.rows::<ThreadWait>(thread).filter(|wait| wait.duration_ns < IDLE_NS) {
            let kind = kind(&wait, capture.tables().string(wait.call));
            let blocked = wait.duration_ns.saturating_sub(wait.run_queue_ns);
            spans.entry((rank, kind)).or_default().push(span(wait.start, blocked));
            let queued = span(wait.start.plus(blocked), wait.run_queue_ns);
            spans.entry((rank, "run queue")).or_default().push(queued);
        }
    }
    for thread in capture.keys(RecordKind::ThreadPreempt) {
        let Some(rank) = rank(thread) else { continue };
        for row in capture.rows::<ThreadPreempt>(thread) {
            let kind = if row.kind == WaitKind::Throttled { "throttled" } else { "run queue" };
            spans.entry((rank, kind)).or_default().push(span(row.start, row.run_queue_ns));
        }
    }
    spans.into_iter().map(|(who, spans)| (who, Events::new(spans))).collect()
}

#[cfg(test)]
mod tests {
    use super::Events;

    #[test]
    fn events_are_measured_in_any_stretch() {
        let events = Events::new(vec![(10, 20), (30, 40), (35, 45)]);
        let between = |from, to| events.until(to) - events.until(from);
        assert_eq!((between(0, 100), between(15, 32), between(20, 30), between(44, 50)), (25, 7, 0, 1));
    }
}
