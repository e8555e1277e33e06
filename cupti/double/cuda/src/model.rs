//! The virtual device: when each operation starts and ends. No clock, no threads, no I/O: callers say what time it is.
//!
//! An operation waits for markers, the moments at which other operations end. What always holds: the markers that an
//! operation waits for belong to operations submitted before it; once a marker is passed its time never changes; and
//!
//! ```text
//! start = max(earliest, latest of the markers + gap)      end = start + duration
//! ```
//!
//! so that times depend on what was submitted and never on when anybody looked. The end of a meeting comes from outside
//! (the ranks have met), and that of a hung operation never.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const UNKNOWN: u64 = u64::MAX;

/// The moment at which something ends, known or not yet.
#[derive(Clone, Debug)]
pub(crate) struct Marker(Arc<AtomicU64>);

impl Marker {
    /// A moment that is long past: what an unused stream waits for.
    pub(crate) fn past() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    fn unknown() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }

    /// The moment, once it is known. It may lie in the future.
    pub(crate) fn at_ns(&self) -> Option<u64> {
        let at_ns = self.0.load(Ordering::Acquire);
        (at_ns != UNKNOWN).then_some(at_ns)
    }

    /// Is it known and not after `now_ns`?
    pub(crate) fn is_past(&self, now_ns: u64) -> bool {
        self.at_ns().is_some_and(|at_ns| at_ns <= now_ns)
    }

    fn set(&self, at_ns: u64) {
        self.0.store(at_ns, Ordering::Release);
    }
}

/// Number of an operation: later submitted, larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OpId(pub(crate) u64);

/// How an operation's end comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// It takes so many nanoseconds.
    For(u64),
    /// [`Model::finish`] says when.
    Meeting,
    /// It hangs.
    Forever,
}

/// An operation to be run, with what the caller wants to know of it later.
#[derive(Debug)]
pub(crate) struct Request<T> {
    /// Not before this moment.
    pub(crate) earliest_ns: u64,
    /// Nor before these.
    pub(crate) after: Vec<Marker>,
    /// From the latest of `after` to the start.
    pub(crate) gap_ns: u64,
    /// How long.
    pub(crate) work: Work,
    /// The caller's.
    pub(crate) tag: T,
}

/// An operation with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run<T> {
    /// Its number.
    pub(crate) id: OpId,
    /// Its start; unknown while it waits.
    pub(crate) start_ns: Option<u64>,
    /// Its end; unknown while it waits or is open.
    pub(crate) end_ns: Option<u64>,
    /// The caller's.
    pub(crate) tag: T,
}

#[derive(Debug)]
struct Pending<T> {
    id: OpId,
    request: Request<T>,
    done: Marker,
}

#[derive(Debug)]
struct Open<T> {
    start_ns: u64,
    tag: T,
    done: Marker,
}

/// All operations that have not been handed over by [`Model::ended`].
#[derive(Debug)]
pub(crate) struct Model<T> {
    submitted: u64,
    /// Wait for a marker that is not known; in the order of submission, which is an order of dependence.
    pending: VecDeque<Pending<T>>,
    /// Started (or will start at a known time), with an end that is not known.
    open: BTreeMap<OpId, Open<T>>,
    /// With both times known, by end.
    timed: BTreeMap<(u64, OpId), (u64, T)>,
    /// Meetings whose start became known.
    started: Vec<(OpId, u64)>,
}

impl<T> Default for Model<T> {
    fn default() -> Self {
        Self {
            submitted: 0,
            pending: VecDeque::new(),
            open: BTreeMap::new(),
            timed: BTreeMap::new(),
            started: Vec::new(),
        }
    }
}

impl<T> Model<T> {
    /// Submit an operation: its number, and the marker of its end.
    pub(crate) fn submit(&mut self, request: Request<T>) -> (OpId, Marker) {
        self.submitted += 1;
        let id = OpId(self.submitted);
        let done = Marker::unknown();
        if let Some(waiting) = self.settle(Pending { id, request, done: done.clone() }) {
            self.pending.push_back(waiting);
        }
        (id, done)
    }

    /// Give an operation its times if all that it waits for is known; else give it back.
    fn settle(&mut self, op: Pending<T>) -> Option<Pending<T>> {
        let mut start_ns = op.request.earliest_ns;
        for marker in &op.request.after {
            let Some(at_ns) = marker.at_ns() else { return Some(op) };
            start_ns = start_ns.max(at_ns.saturating_add(op.request.gap_ns));
        }
        let Pending { id, request, done } = op;
        match request.work {
            Work::For(duration_ns) => {
                let end_ns = start_ns.saturating_add(duration_ns).min(UNKNOWN - 1);
                done.set(end_ns);
                self.timed.insert((end_ns, id), (start_ns, request.tag));
            }
            work => {
                if work == Work::Meeting {
                    self.started.push((id, start_ns));
                }
                self.open.insert(id, Open { start_ns, tag: request.tag, done });
            }
        }
        None
    }

    fn settle_pending(&mut self) {
        for _ in 0..self.pending.len() {
            let Some(op) = self.pending.pop_front() else { break };
            if let Some(waiting) = self.settle(op) {
                self.pending.push_back(waiting);
            }
        }
    }

    /// A meeting ends at `end_ns`, or at its start if that is later. False if no such meeting is open.
    pub(crate) fn finish(&mut self, id: OpId, end_ns: u64) -> bool {
        let Some(open) = self.open.remove(&id) else { return false };
        let end_ns = end_ns.max(open.start_ns);
        open.done.set(end_ns);
        self.timed.insert((end_ns, id), (open.start_ns, open.tag));
        self.settle_pending();
        true
    }

    /// A meeting will not take place: it ends now if it has started, and takes no time if it has not.
    pub(crate) fn cancel(&mut self, id: OpId, now_ns: u64) {
        if let Some(waiting) = self.pending.iter_mut().find(|p| p.id == id) {
            waiting.request.work = Work::For(0);
        }
        self.finish(id, now_ns);
    }

    /// Meetings whose start became known since the last call.
    pub(crate) fn started(&mut self) -> Vec<(OpId, u64)> {
        std::mem::take(&mut self.started)
    }

    /// Is there anything for [`Model::ended`] to hand over?
    pub(crate) fn has_ended(&self, now_ns: u64) -> bool {
        self.timed.first_key_value().is_some_and(|((end_ns, _), _)| *end_ns <= now_ns)
    }

    /// Take the operations that ended by `now_ns`, in the order of their ends.
    pub(crate) fn ended(&mut self, now_ns: u64) -> Vec<Run<T>> {
        let mut runs = Vec::new();
        while let Some(entry) = self.timed.first_entry() {
            let (end_ns, id) = *entry.key();
            if end_ns > now_ns {
                break;
            }
            let (start_ns, tag) = entry.remove();
            runs.push(Run { id, start_ns: Some(start_ns), end_ns: Some(end_ns), tag });
        }
        runs
    }

    /// The operations that run at `now_ns`.
    pub(crate) fn running(&mut self, now_ns: u64) -> impl Iterator<Item = (OpId, u64, &mut T)> {
        let open = self.open.iter_mut().map(|(id, o)| (*id, o.start_ns, &mut o.tag));
        let later = self.timed.range_mut((now_ns.saturating_add(1), OpId(0))..);
        let timed = later.map(|((_, id), (start_ns, tag))| (*id, *start_ns, tag));
        open.chain(timed).filter(move |(_, start_ns, _)| *start_ns <= now_ns)
    }

    /// The caller's part of an operation that has a start and no end.
    pub(crate) fn open(&self, id: OpId) -> Option<&T> {
        self.open.get(&id).map(|o| &o.tag)
    }

    /// Take all that is left, whatever its state.
    pub(crate) fn unfinished(&mut self) -> Vec<Run<T>> {
        let pending = std::mem::take(&mut self.pending).into_iter().map(|p| Run {
            id: p.id,
            start_ns: None,
            end_ns: None,
            tag: p.request.tag,
        });
        let open = std::mem::take(&mut self.open).into_iter().map(|(id, o)| Run {
            id,
            start_ns: Some(o.start_ns),
            end_ns: None,
            tag: o.tag,
        });
        let timed = std::mem::take(&mut self.timed).into_iter().map(|((_, id), (start_ns, tag))| Run {
            id,
            start_ns: Some(start_ns),
            end_ns: None,
            tag,
        });
        pending.chain(open).chain(timed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(earliest_ns: u64, after: &[&Marker], work: Work) -> Request<()> {
        Request { earliest_ns, after: after.iter().map(|&m| m.clone()).collect(), gap_ns: 10, work, tag: () }
    }

    fn times(model: &mut Model<()>, now_ns: u64) -> Vec<(u64, u64, u64)> {
        let runs = model.ended(now_ns).into_iter();
        runs.map(|r| (r.id.0, r.start_ns.unwrap(), r.end_ns.unwrap())).collect()
    }

    #[test]
    fn a_stream_runs_in_order_with_gaps() {
        let mut model = Model::default();
        let (_, first) = model.submit(request(100, &[], Work::For(50)));
        let (_, second) = model.submit(request(120, &[&first], Work::For(5)));
        model.submit(request(900, &[&second], Work::For(1)));
        assert_eq!(second.at_ns(), Some(165));
        assert_eq!(times(&mut model, 164), [(1, 100, 150)]);
        assert_eq!(times(&mut model, 5_000), [(2, 160, 165), (3, 900, 901)]);
    }

    #[test]
    fn what_waits_for_a_meeting_gets_its_times_when_the_meeting_does() {
        let mut model = Model::default();
        let (meeting, met) = model.submit(request(100, &[], Work::Meeting));
        assert_eq!(model.started(), [(meeting, 100)]);
        let (_, after) = model.submit(request(100, &[&met], Work::For(7)));
        let (_, last) = model.submit(request(100, &[&after], Work::For(1)));
        let (_, beside) = model.submit(request(100, &[], Work::For(7)));
        assert_eq!((after.at_ns(), last.at_ns(), beside.at_ns()), (None, None, Some(107)));
        assert!(model.finish(meeting, 400));
        assert_eq!((met.at_ns(), after.at_ns(), last.at_ns()), (Some(400), Some(417), Some(428)));
        assert!(!model.finish(meeting, 500), "a meeting ends once");
        assert!(model.started().is_empty());
    }

    #[test]
    fn a_second_meeting_starts_when_the_first_has_ended() {
        let mut model = Model::default();
        let (first, met) = model.submit(request(100, &[], Work::Meeting));
        let (second, _) = model.submit(request(100, &[&met], Work::Meeting));
        assert_eq!(model.started(), [(first, 100)]);
        model.finish(first, 300);
        assert_eq!(model.started(), [(second, 310)]);
    }

    #[test]
    fn cancelled_meetings_let_the_stream_go_on() {
        let mut model = Model::default();
        let (first, met) = model.submit(request(100, &[], Work::Meeting));
        let (second, second_met) = model.submit(request(100, &[&met], Work::Meeting));
        model.cancel(second, 500);
        model.cancel(first, 500);
        assert_eq!((met.at_ns(), second_met.at_ns()), (Some(500), Some(510)));
        assert_eq!(model.started(), [(first, 100)], "the second never came to its start as a meeting");
    }

    #[test]
    fn what_hangs_is_running_and_what_waits_for_it_is_not() {
        let mut model = Model::default();
        let (hung, never) = model.submit(request(100, &[], Work::Forever));
        model.submit(request(100, &[&never], Work::For(1)));
        assert_eq!(model.running(99).count(), 0);
        assert_eq!(model.running(100).map(|(id, ..)| id).collect::<Vec<_>>(), [hung]);
        let left: Vec<_> = model.unfinished().into_iter().map(|r| (r.start_ns, r.end_ns)).collect();
        assert_eq!(left, [(None, None), (Some(100), None)]);
    }
}
