//! What a followed thread did, moment by moment: adjacent, exclusive stretches made from its records.
//!
//! A thread ran in each nanosecond of its spans that nothing else covers. Records of a well-formed capture do not
//! contradict each other; where they do, the first of this order that covers a moment has it:
//!
//! ```text
//! lost > wait (the one that began first) > preemption (the one that began first) > ran
//! ```
//!
//! A preemption record may stand for many short ones: of its duration `d` the thread was runnable for `q` and ran in the
//! rest. What waits cover of it is cut out, and of the `u` nanoseconds that are left the stretch `[x, y)` has
//! `⌊q·y/u⌋ − ⌊q·x/u⌋`: the parts of any cutting sum to `q`.
//!
//! Collective calls lie across all of this. The outermost open call counts; a call whose return was not seen ends where
//! the next one begins that is not inside it.
//!
//! Rows are read forward, once, with a bounded look-ahead.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;
use std::rc::Rc;

use stallscope_schemas::record::{RecordKind, call_flags};
use stallscope_schemas::units::{ThreadId, TimeNs};

use crate::capture::{Capture, DamageNotes, MergedRows, ReadAt};
use crate::rows::{CollectiveCall, Row, ThreadLoss, ThreadPreempt, ThreadSpan, ThreadWait};

/// Waits that are looked at beyond the current one to see how much of a preemption record they cover.
const MOST_AHEAD: usize = 1 << 12;

/// What a thread did in a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was on a CPU.
    Ran,
    /// It was runnable for `run_queue_ns` of the stretch and ran in the rest.
    Preempted {
        /// Time in which it was runnable and did not run, ns; at most the length of the stretch.
        run_queue_ns: u64,
        /// The record.
        by: ThreadPreempt,
    },
    /// It was blocked.
    Waited(ThreadWait),
    /// It was runnable again after a wait and had no CPU yet.
    Queued(ThreadWait),
    /// Records are missing.
    Lost,
}

/// One stretch of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Begin.
    pub from: TimeNs,
    /// End, later than the begin.
    pub to: TimeNs,
    /// What the thread did.
    pub state: State,
    /// The outermost collective call that was open.
    pub call: Option<CollectiveCall>,
}

impl Stretch {
    /// Length, ns.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.to.since(self.from)
    }

    /// The part in `[from, to)`, which must overlap the stretch.
    #[must_use]
    pub fn clipped(&self, from: TimeNs, to: TimeNs) -> Self {
        let (from, to) = (self.from.max(from), self.to.min(to));
        let mut part = Self { from, to, ..*self };
        if let State::Preempted { run_queue_ns, by } = self.state {
            let until = |t: TimeNs| share(run_queue_ns, t.since(self.from), self.ns());
            part.state = State::Preempted { run_queue_ns: until(to).saturating_sub(until(from)), by };
        }
        part
    }
}

/// `⌊whole · part / of⌋` for `part ≤ of`.
fn share(whole: u64, part: u64, of: u64) -> u64 {
    if of == 0 {
        return 0;
    }
    let value = u128::from(whole) * u128::from(part.min(of)) / u128::from(of);
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// A preemption record under way.
#[derive(Clone, Copy, Debug)]
struct OpenPreempt {
    row: ThreadPreempt,
    run_queue_ns: u64,
    /// Time of it that no wait covers, ns.
    uncovered_ns: u64,
    /// Of that, what has been given away.
    passed_ns: u64,
}

/// Reads the records of one thread and yields its stretches in order.
#[derive(Debug)]
pub struct ThreadStates<'a, S: ReadAt> {
    spans: Peekable<MergedRows<'a, S, ThreadSpan>>,
    waits: MergedRows<'a, S, ThreadWait>,
    ahead: VecDeque<ThreadWait>,
    preempts: Peekable<MergedRows<'a, S, ThreadPreempt>>,
    calls: Peekable<MergedRows<'a, S, CollectiveCall>>,
    losses: Peekable<MergedRows<'a, S, ThreadLoss>>,
    /// Damaged batches of spans: the thread was followed there, and nothing more is known.
    lost_spans: DamageNotes,
    /// Damaged batches of the rest.
    damage: DamageNotes,
    /// Stretches without records that are still ahead, by their begin.
    lost: BinaryHeap<Reverse<(TimeNs, TimeNs)>>,
    lost_until: TimeNs,
    /// Spans from damage, by their begin.
    more_spans: BinaryHeap<Reverse<(TimeNs, TimeNs)>>,
    now: TimeNs,
    followed_until: TimeNs,
    wait: Option<ThreadWait>,
    preempt: Option<OpenPreempt>,
    call: Option<CollectiveCall>,
    /// Length of the union of all spans so far, ns.
    wall_ns: u64,
    /// Before this moment nothing is asked for.
    since: TimeNs,
}

fn end(row: &impl Row) -> TimeNs {
    row.end()
}

impl<'a, S: ReadAt> ThreadStates<'a, S> {
    /// All of a thread's time.
    pub fn new(capture: &'a Capture<S>, thread: ThreadId) -> Self {
        Self::since(capture, thread, TimeNs(i64::MIN))
    }

    /// A thread's time from a moment on: what lies before is not read where whole batches lie before.
    pub fn since(capture: &'a Capture<S>, thread: ThreadId, since: TimeNs) -> Self {
        let key = thread.0;
        let damage: DamageNotes = Rc::new(RefCell::new(Vec::new()));
        let lost_spans: DamageNotes = Rc::new(RefCell::new(Vec::new()));
        for kind in [RecordKind::ThreadWait, RecordKind::ThreadPreempt, RecordKind::CollectiveCall] {
            damage.borrow_mut().extend(capture.hole_windows(kind, key));
        }
        lost_spans.borrow_mut().extend(capture.hole_windows(RecordKind::ThreadSpan, key));
        let noting = || Some(Rc::clone(&damage));
        Self {
            spans: capture.rows_from(key, since, Some(Rc::clone(&lost_spans))).peekable(),
            waits: capture.rows_from(key, since, noting()),
            ahead: VecDeque::new(),
            preempts: capture.rows_from(key, since, noting()).peekable(),
            calls: capture.rows_from(key, since, noting()).peekable(),
            losses: capture.rows_from(key, since, noting()).peekable(),
            lost_spans,
            damage,
            lost: BinaryHeap::new(),
            lost_until: TimeNs(i64::MIN),
            more_spans: BinaryHeap::new(),
            now: TimeNs(i64::MIN),
            followed_until: TimeNs(i64::MIN),
            wait: None,
            preempt: None,
            call: None,
            wall_ns: 0,
            since,
        }
    }

    /// Length of the union of the thread's spans up to the last stretch, ns: counted span by span, so that the lengths
    /// of the stretches can be checked against it.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        self.wall_ns
    }

    /// The wait `at` places ahead.
    fn wait_ahead(&mut self, at: usize) -> Option<&ThreadWait> {
        while self.ahead.len() <= at {
            let next = self.waits.next()?;
            self.ahead.push_back(next);
        }
        self.ahead.get(at)
    }

    /// Takes in what reading ahead has found damaged.
    fn note_damage(&mut self) {
        for (from, to) in self.damage.borrow_mut().drain(..) {
            self.lost.push(Reverse((from, to)));
        }
        for (from, to) in self.lost_spans.borrow_mut().drain(..) {
            self.lost.push(Reverse((from, to)));
            self.more_spans.push(Reverse((from, to)));
        }
    }

    /// Moves to the next moment in which the thread was followed; false when there is none.
    fn enter_span(&mut self) -> bool {
        while self.now >= self.followed_until {
            let next = self.spans.peek().map(|s| (s.start, end(s)));
            self.note_damage();
            let from_damage = self.more_spans.peek().map(|Reverse(s)| *s);
            let (from, to) = match (next, from_damage) {
                (Some(span), Some(damaged)) if damaged < span => {
                    self.more_spans.pop();
                    damaged
                }
                (Some(span), _) => {
                    self.spans.next();
                    span
                }
                (None, Some(damaged)) => {
                    self.more_spans.pop();
                    damaged
                }
                (None, None) => return false,
            };
            let from = from.max(self.now).max(self.since);
            if to > from {
                self.now = from;
                self.followed_until = to;
                self.wall_ns += to.since(from);
            }
        }
        true
    }

    /// Makes the covers current that apply now, and says when the next ones begin.
    fn enter_covers(&mut self) -> Option<TimeNs> {
        let now = self.now;
        self.wait = self.wait.filter(|w| end(w) > now);
        while self.wait.is_none() && self.wait_ahead(0).is_some_and(|w| w.start <= now) {
            self.wait = self.ahead.pop_front().filter(|w| end(w) > now);
        }
        let mut next_wait = None;
        if self.wait.is_none() {
            // Waits that began under the current one and ended there are behind us.
            next_wait = self.wait_ahead(0).map(|w| w.start);
        }
        self.preempt = self.preempt.filter(|p| end(&p.row) > now);
        while self.preempt.is_none()
            && let Some(row) = self.preempts.next_if(|p| p.start <= now)
        {
            if end(&row) > now {
                self.preempt = Some(self.open_preempt(row));
            }
        }
        let next_preempt = if self.preempt.is_none() { self.preempts.peek().map(|p| p.start) } else { None };
        self.call = self.call.filter(|c| end(c) > now);
        while let Some(call) = self.calls.next_if(|c| c.start <= now) {
            if end(&call) <= now {
                continue;
            }
            let escaped = self.call.is_some_and(|open| {
                open.flags & call_flags::OPEN != 0 && call.flags & call_flags::NESTED == 0
            });
            if self.call.is_none() || escaped {
                self.call = Some(call);
            }
        }
        let next_call = self.calls.peek().map(|c| c.start);
        while let Some(row) = self.losses.next_if(|l| l.start <= now) {
            self.lost_until = self.lost_until.max(end(&row));
        }
        let next_loss = self.losses.peek().map(|l| l.start);
        self.note_damage();
        while let Some(&Reverse((from, to))) = self.lost.peek() {
            if from > now {
                break;
            }
            self.lost.pop();
            self.lost_until = self.lost_until.max(to);
        }
        let next_damage = self.lost.peek().map(|Reverse((from, _))| *from);
        [next_wait, next_preempt, next_call, next_loss, next_damage].into_iter().flatten().min()
    }

    /// Finds out how much of a preemption record no wait covers.
    fn open_preempt(&mut self, row: ThreadPreempt) -> OpenPreempt {
        // What lies behind is given away already.
        let (from, to) = (row.start.max(self.now), end(&row));
        let mut covered = 0;
        let mut at = from;
        if let Some(wait) = self.wait {
            let until = end(&wait).min(to);
            covered += until.since(at);
            at = at.max(until);
        }
        for ahead in 0..MOST_AHEAD {
            let Some(&wait) = self.wait_ahead(ahead) else { break };
            if wait.start >= to {
                break;
            }
            let until = end(&wait).min(to);
            covered += until.since(at.max(wait.start));
            at = at.max(until);
        }
        let uncovered_ns = to.since(from).saturating_sub(covered);
        let run_queue_ns = row.run_queue_ns.min(uncovered_ns);
        OpenPreempt { row, run_queue_ns, uncovered_ns, passed_ns: 0 }
    }

    /// The next stretch.
    #[expect(clippy::should_implement_trait, reason = "the caller reads `wall_ns` in between")]
    pub fn next(&mut self) -> Option<Stretch> {
        if !self.enter_span() {
            return None;
        }
        let next_begin = self.enter_covers();
        let now = self.now;
        let mut to = self.followed_until.min(next_begin.unwrap_or(TimeNs(i64::MAX)));
        if let Some(call) = &self.call {
            to = to.min(end(call));
        }
        let state = if self.lost_until > now {
            to = to.min(self.lost_until);
            State::Lost
        } else if let Some(wait) = self.wait {
            let runnable = end(&wait).0.saturating_sub_unsigned(wait.run_queue_ns);
            let runnable = TimeNs(runnable.max(wait.start.0));
            if now < runnable {
                to = to.min(runnable);
                State::Waited(wait)
            } else {
                to = to.min(end(&wait));
                State::Queued(wait)
            }
        } else {
            if let Some(preempt) = &self.preempt {
                to = to.min(end(&preempt.row));
            }
            State::Ran
        };
        let state = self.pass_preempt(now, to, state);
        self.now = to;
        Some(Stretch { from: now, to, state, call: self.call })
    }

    /// Takes a stretch off the open preemption record, and its share of the run queue where the thread did not wait.
    fn pass_preempt(&mut self, from: TimeNs, to: TimeNs, state: State) -> State {
        let Some(open) = &mut self.preempt else { return state };
        if matches!(state, State::Waited(_) | State::Queued(_)) {
            return state;
        }
        let before = share(open.run_queue_ns, open.passed_ns, open.uncovered_ns);
        open.passed_ns = open.passed_ns.saturating_add(to.since(from));
        let after = share(open.run_queue_ns, open.passed_ns, open.uncovered_ns);
        match state {
            State::Ran => {
                let run_queue_ns = after.saturating_sub(before).min(to.since(from));
                State::Preempted { run_queue_ns, by: open.row }
            }
            other => other,
        }
    }
}
