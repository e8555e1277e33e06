//! What a thread was doing when the recording ended.

use stallscope_schemas::record::{ObjectKind, WaitKind};
use stallscope_schemas::units::{ThreadId, TimeNs};

use crate::capture::{Capture, ReadAt, Tables};
use crate::findings::{Finding, Link};
use crate::report::text::{printable, short_name};
use crate::rows::ThreadWait;

/// The wait that a thread was in at a moment; of several (a damaged capture) the longest.
pub(super) fn wait_at<S: ReadAt>(
    capture: &Capture<S>,
    thread: ThreadId,
    moment: TimeNs,
) -> Option<ThreadWait> {
    let waits = capture.rows_from::<ThreadWait>(thread.0, moment, None);
    let at_moment = waits.filter(|wait| wait.start <= moment && wait.start.plus(wait.duration_ns) >= moment);
    at_moment.max_by_key(|wait| wait.duration_ns)
}

/// What a thread waits in, as a predicate.
pub(super) fn blocked(wait: &ThreadWait, tables: &Tables) -> String {
    let call = printable(tables.string(wait.call)).into_owned();
    let object = short_name(&printable(tables.string(wait.object)), 80);
    let of = if wait.object_kind == ObjectKind::None || object.is_empty() {
        String::new()
    } else {
        format!(" of {object}")
    };
    match wait.kind {
        WaitKind::Stopped => "is stopped".to_owned(),
        _ if !call.is_empty() => format!("is blocked in {call}(){of}"),
        WaitKind::PageFault => "is blocked in a page fault".to_owned(),
        _ => "is blocked in the kernel".to_owned(),
    }
}

/// Whether a wait is for something that another thread holds or announces.
pub(super) fn is_for_a_thread(wait: &ThreadWait, tables: &Tables) -> bool {
    wait.object_kind == ObjectKind::Futex || tables.string(wait.call).starts_with("futex")
}

/// Who ended the last wait of the kind that a thread is in: nobody has ended the one that goes on.
pub(super) fn last_waker<S: ReadAt>(
    capture: &Capture<S>,
    thread: ThreadId,
    wait: &ThreadWait,
) -> Option<ThreadId> {
    let same = |other: &ThreadWait| {
        let kind = |w: &ThreadWait| (w.call, w.object_kind, w.object);
        other.start < wait.start && kind(other) == kind(wait)
    };
    let wakers = capture.rows::<ThreadWait>(thread.0).filter(same).filter_map(|other| other.waker);
    wakers.filter(|waker| *waker != thread).last()
}

/// A thread as the last link of a chain.
pub(super) fn link(rank: u32, thread: ThreadId, what: String, ns: u64, tables: &Tables) -> Link {
    let of_thread = tables.thread(thread);
    let process = of_thread.and_then(|t| tables.process(t.process));
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    Link {
        rank: Some(rank),
        pid: number(process.map(|p| p.pid)),
        tid: number(of_thread.map(|t| t.tid)),
        what,
        ns,
    }
}

/// Adds what a culprit was doing to what is said of it.
pub(super) fn say(finding: &mut Finding, rank: u32, what: &str) {
    let subject = match finding.blame.culprit_ranks.as_slice() {
        [_] => "it".to_owned(),
        _ => format!("rank {rank}"),
    };
    finding.summary.push_str(&format!("; {subject} {what}"));
}

/// A thread as people look for it.
pub(super) fn named(thread: ThreadId, tables: &Tables) -> String {
    match tables.thread(thread) {
        None => "a thread".to_owned(),
        Some(of_thread) if of_thread.name.is_empty() => format!("thread {}", of_thread.tid),
        Some(of_thread) => {
            format!("thread {} ({})", of_thread.tid, short_name(&printable(&of_thread.name), 32))
        }
    }
}
