//! What the driving thread of a rank was doing at the end.

use stallscope_schemas::record::{RecordKind, WaitKind};
use stallscope_schemas::units::{ThreadId, TimeNs};

use super::super::Fault;
use super::super::blocked::{blocked, is_for_a_thread, last_waker, link, named, say, wait_at};
use super::Verdict;
use super::calls::{CUT_NS, ENDED_NS, Rank};
use crate::capture::ReadAt;
use crate::findings::{Finding, user_frame};
use crate::rows::{CpuSample, ThreadLoss, ThreadPreempt, ThreadWait};

/// How far back from the end it is asked what a thread computes, or whether it has a CPU.
const LATELY_NS: u64 = 1_000_000_000;

/// What a thread was doing.
pub(super) struct Does {
    /// As a predicate.
    pub(super) what: String,
    since: TimeNs,
    evidence: Option<String>,
}

impl<S: ReadAt> Verdict<'_, S> {
    pub(super) fn wait(&self, thread: ThreadId) -> Option<ThreadWait> {
        let (_, end) = self.capture.extent(RecordKind::ThreadSpan, thread.0)?;
        wait_at(self.capture, thread, end)
    }

    pub(super) fn does(&self, rank: &Rank) -> Does {
        let since = |what: &str, since: TimeNs| Does { what: what.to_owned(), since, evidence: None };
        let nothing = |what: &str| since(what, rank.end);
        if rank.has_ended {
            return nothing("has ended");
        }
        let Some(thread) = rank.driver else { return nothing("is not seen") };
        let thread_end = self.capture.extent(RecordKind::ThreadSpan, thread.0).map(|(_, end)| end);
        if thread_end.is_some_and(|end| rank.end.since(end) > ENDED_NS) {
            return nothing("has ended its driving thread");
        }
        let tables = self.tables();
        let wait = self.wait(thread);
        if let Some((what, from)) = self.has_no_cpu(thread, rank.end, wait.as_ref()) {
            return since(what, from);
        }
        let Some(wait) = wait else {
            let from = rank.end.minus(LATELY_NS);
            let sample = self.capture.rows_between::<CpuSample>(thread.0, from, rank.end).last();
            let place = sample.and_then(|sample| user_frame(sample.stack, tables));
            let mut lost = self.capture.rows_between::<ThreadLoss>(thread.0, from, rank.end);
            return match place {
                Some(place) => nothing(&format!("is on a CPU, at {}", place.text)),
                None if lost.next().is_some() => nothing("is not seen at the end"),
                None => nothing("is on a CPU"),
            };
        };
        let mut evidence = Vec::new();
        if let Some(place) = user_frame(wait.stack, tables) {
            evidence.push(format!("rank {} waits at {}", rank.rank, place.text));
        }
        if is_for_a_thread(&wait, tables)
            && let Some(waker) = last_waker(self.capture, thread, &wait)
        {
            let state = match self.wait(waker) {
                Some(wait) => blocked(&wait, tables),
                None => "is on a CPU or has ended".to_owned(),
            };
            evidence.push(format!("{} ended its last such wait, and now {state}", named(waker, tables)));
        }
        let evidence = (!evidence.is_empty()).then(|| evidence.join("; "));
        Does { what: blocked(&wait, tables), since: wait.start, evidence }
    }

    /// Whether a thread was runnable at the end and did not run for most of the time lately, and since when.
    fn has_no_cpu(
        &self,
        thread: ThreadId,
        end: TimeNs,
        wait: Option<&ThreadWait>,
    ) -> Option<(&'static str, TimeNs)> {
        let others_run = "has no CPU: others run";
        if let Some(wait) = wait {
            // It was woken, and has not come back since.
            let woken = wait.kind != WaitKind::Stopped && wait.run_queue_ns >= LATELY_NS / 2;
            return woken.then(|| (others_run, end.minus(wait.run_queue_ns)));
        }
        let from = end.minus(LATELY_NS);
        let rows = self.capture.rows_between::<ThreadPreempt>(thread.0, from, end);
        let (mut throttled, mut queued, mut last) = (0u64, 0u64, None::<ThreadPreempt>);
        for row in rows {
            let row_end = row.start.plus(row.duration_ns);
            let within = row_end.min(end).since(row.start.max(from));
            let sum = if row.kind == WaitKind::Throttled { &mut throttled } else { &mut queued };
            *sum = sum.saturating_add(row.run_queue_ns.min(within));
            let lasts = row_end.plus(CUT_NS) >= end;
            last = last.into_iter().chain(lasts.then_some(row)).max_by_key(|row| row.duration_ns);
        }
        if throttled.saturating_add(queued) < LATELY_NS / 2 {
            return None;
        }
        Some((if throttled > queued { "is throttled" } else { others_run }, last?.start))
    }

    /// Adds what a culprit was doing.
    pub(super) fn say(&self, finding: &mut Finding, culprit: u32, fault: Fault) {
        let Some(rank) = self.rank(culprit) else { return };
        let Does { what, since, evidence } = self.does(rank);
        if !matches!(fault, Fault::Ended | Fault::Stopped) {
            say(finding, culprit, &what);
        }
        if let Some(evidence) = evidence {
            finding.evidence.push_str(&format!("; {evidence}"));
        }
        if let Some(thread) = rank.driver {
            let ns = self.ranks.end.since(since);
            finding.blame.chain.push(link(culprit, thread, what, ns, self.tables()));
        }
    }
}
