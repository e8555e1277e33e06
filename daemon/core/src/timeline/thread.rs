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
//! A wait for a lock that runs out of its time and is taken up again at once is ended by whoever ends the last of them: CPython
//! asks for its interpreter lock every 5 ms, and only the last time it is the holder that wakes it. So is a poll that runs into
//! its time limit and is made again at the same place, if the last one found something and no piece is clearly longer than the
//! one before: a loop gives the same limit each time, or what is left of it. An event loop that waits for its next timer and
//! then, longer, for somebody is no such series: its timer was what it waited for.
//!
//! Rows are read forward, once, with a bounded look-ahead.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;
use std::rc::Rc;

use stallscope_schemas::record::{
    CollectiveLibrary, CollectiveOp, ObjectKind, RecordKind, WaitKind, call_flags, wait_flags,
};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use crate::capture::{Capture, DamageNotes, MergedRows, ReadAt, Tables};
use crate::classify::waits::is_poll;
use crate::rows::{CollectiveCall, Row, ThreadLoss, ThreadPreempt, ThreadSpan, ThreadWait};

/// Waits that are looked at beyond the current one to see how much of a preemption record they cover.
const MOST_AHEAD: usize = 1 << 12;

/// A wait that begins so soon after one that ran out of its time is the same again.
const AT_ONCE_NS: u64 = 200_000;

/// This part of a poll may pass before it is made again, if that is more, but no more than a millisecond: of a
/// `multiprocessing.Queue.get` with a limit of 4 ms one time in six took longer than 200 µs to raise `Empty` and be called again.
const PAUSE_PART: u64 = 8;
const MOST_PAUSE_NS: u64 = 1_000_000;

/// By this part of the one before it a poll with the same limit may be longer: timers of a busy machine are late.
const LATE_PART: u64 = 4;

/// What a thread did in a stretch. The rows behind it are asked for by [`ThreadStates::wait`] and its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was on a CPU.
    Ran,
    /// It was runnable for `run_queue_ns` of the stretch and ran in the rest.
    Preempted {
        /// Time in which it was runnable and did not run, ns; at most the length of the stretch.
        run_queue_ns: u64,
    },
    /// It was blocked.
    Waited,
    /// It was runnable again after a wait and had no CPU yet.
    Queued,
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
    /// Whether a collective call was open.
    pub in_call: bool,
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
        if let State::Preempted { run_queue_ns } = self.state {
            let until = |t: TimeNs| share(run_queue_ns, t.since(self.from), self.ns());
            part.state = State::Preempted { run_queue_ns: until(to).saturating_sub(until(from)) };
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

const LONG_AGO: TimeNs = TimeNs(i64::MIN);
const NEVER: TimeNs = TimeNs(i64::MAX);

/// Rows that cover nothing stand for none.
const NO_WAIT: ThreadWait = ThreadWait {
    start: LONG_AGO,
    duration_ns: 0,
    run_queue_ns: 0,
    kind: WaitKind::Unknown,
    call: StringId(0),
    object_kind: ObjectKind::None,
    object: StringId(0),
    waker: None,
    waker_stack: StackId(0),
    stack: StackId(0),
    preemptor: None,
    flags: 0,
    result: 0,
    peer: None,
};
const NO_PREEMPT: OpenPreempt = OpenPreempt {
    row: ThreadPreempt {
        start: LONG_AGO,
        duration_ns: 0,
        run_queue_ns: 0,
        times: 0,
        preemptor: None,
        kind: WaitKind::Preempted,
    },
    run_queue_ns: 0,
    uncovered_ns: 0,
    passed_ns: 0,
};
const NO_CALL: CollectiveCall = CollectiveCall {
    start: LONG_AGO,
    duration_ns: 0,
    name: StringId(0),
    library: CollectiveLibrary::Other,
    operation: CollectiveOp::Other,
    bytes: 0,
    elements: 0,
    datatype: StringId(0),
    reduction: StringId(0),
    group: StringId(0),
    group_size: 0,
    rank: None,
    peer: None,
    stream: 0,
    sequence: 0,
    result: 0,
    flags: 0,
    stack: StackId(0),
};

/// Whether a system call returned, and with what.
fn returned(wait: &ThreadWait) -> Option<i64> {
    (wait.kind == WaitKind::Syscall && wait.flags & wait_flags::RETURNED != 0).then_some(wait.result)
}

/// Whether a poll found nothing until its time was over.
pub(crate) fn poll_ran_out(tables: &Tables, wait: &ThreadWait) -> bool {
    returned(wait) == Some(0) && is_poll(tables.string(wait.call))
}

/// Whether a wait ended because its time was over. Of a poll nobody else may have ended it.
fn ran_out(tables: &Tables, wait: &ThreadWait) -> bool {
    const ETIMEDOUT: i64 = 110;
    let by_timer = wait.flags & wait_flags::IRQ_WAKER != 0 || wait.waker.is_none();
    returned(wait) == Some(-ETIMEDOUT) || by_timer && poll_ran_out(tables, wait)
}

/// Whether a wait that ran out of its time is taken up again by the next one.
fn taken_up_by(tables: &Tables, wait: &ThreadWait, next: &ThreadWait) -> bool {
    if (next.call, next.object) != (wait.call, wait.object) || next.start < wait.end() {
        return false;
    }
    let pause_ns = next.start.since(wait.end());
    if !poll_ran_out(tables, wait) {
        return pause_ns <= AT_ONCE_NS;
    }
    let blocked_ns = |w: &ThreadWait| w.duration_ns.saturating_sub(w.run_queue_ns);
    let before_ns = blocked_ns(wait);
    // Short waits have no stack.
    let same_place = next.stack == wait.stack || [next.stack, wait.stack].contains(&StackId(0));
    same_place
        && pause_ns <= (before_ns / PAUSE_PART).clamp(AT_ONCE_NS, MOST_PAUSE_NS)
        && blocked_ns(next) <= before_ns.saturating_add(before_ns / LATE_PART)
}

/// Reads the records of one thread and yields its stretches in order.
#[derive(Debug)]
pub struct ThreadStates<'a, S: ReadAt> {
    tables: &'a Tables,
    spans: Peekable<MergedRows<'a, S, ThreadSpan>>,
    waits: MergedRows<'a, S, ThreadWait>,
    ahead: VecDeque<ThreadWait>,
    /// Up to where it is known who ends waits that run out of their time.
    asked_until: TimeNs,
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
    wait: ThreadWait,
    wait_until: TimeNs,
    preempt: OpenPreempt,
    preempt_until: TimeNs,
    call: CollectiveCall,
    call_until: TimeNs,
    /// Before this moment nothing but a wait begins or ends.
    quiet_until: TimeNs,
    /// Length of the union of all spans so far, ns.
    wall_ns: u64,
    /// Before this moment nothing is asked for.
    since: TimeNs,
}

impl<'a, S: ReadAt> ThreadStates<'a, S> {
    /// All of a thread's time.
    pub fn new(capture: &'a Capture<S>, thread: ThreadId) -> Self {
        Self::since(capture, thread, LONG_AGO)
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
            tables: capture.tables(),
            spans: capture.rows_from(key, since, Some(Rc::clone(&lost_spans))).peekable(),
            waits: capture.rows_from(key, since, noting()),
            ahead: VecDeque::new(),
            asked_until: LONG_AGO,
            preempts: capture.rows_from(key, since, noting()).peekable(),
            calls: capture.rows_from(key, since, noting()).peekable(),
            losses: capture.rows_from(key, since, noting()).peekable(),
            lost_spans,
            damage,
            lost: BinaryHeap::new(),
            lost_until: LONG_AGO,
            more_spans: BinaryHeap::new(),
            now: LONG_AGO,
            followed_until: LONG_AGO,
            wait: NO_WAIT,
            wait_until: LONG_AGO,
            preempt: NO_PREEMPT,
            preempt_until: LONG_AGO,
            call: NO_CALL,
            call_until: LONG_AGO,
            quiet_until: LONG_AGO,
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

    /// The wait that the last stretch is part of, where it is.
    #[must_use]
    pub fn wait(&self) -> &ThreadWait {
        &self.wait
    }

    /// The preemption record that the last stretch is part of, where it is.
    #[must_use]
    pub fn preempt(&self) -> &ThreadPreempt {
        &self.preempt.row
    }

    /// The collective call that the last stretch is part of, where it is.
    #[must_use]
    pub fn call(&self) -> &CollectiveCall {
        &self.call
    }

    /// The wait `at` places ahead.
    fn wait_ahead(&mut self, at: usize) -> Option<&ThreadWait> {
        while self.ahead.len() <= at {
            let Some(next) = self.waits.next() else {
                self.note_damage();
                return None;
            };
            self.ahead.push_back(next);
            self.note_damage();
        }
        self.ahead.get(at)
    }

    /// Takes in what reading ahead has found damaged.
    #[inline]
    fn note_damage(&mut self) {
        if !self.damage.borrow().is_empty() || !self.lost_spans.borrow().is_empty() {
            self.take_damage();
        }
    }

    fn take_damage(&mut self) {
        for notes in [&self.damage, &self.lost_spans] {
            if let Some(&(first, _)) = notes.borrow().iter().min() {
                self.quiet_until = self.quiet_until.min(first);
            }
        }
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
            let next = self.spans.peek().map(|s| (s.start, s.end()));
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

    /// Makes the wait current that applies now, and says when the next one begins.
    fn enter_wait(&mut self) -> TimeNs {
        let (now, tables) = (self.now, self.tables);
        while self.wait_until <= now {
            let asked_until = self.asked_until;
            match self.wait_ahead(0) {
                Some(wait) if wait.start <= now => {
                    let (until, begin) = (wait.end(), wait.start);
                    if until > now {
                        if begin >= asked_until && ran_out(tables, wait) {
                            self.find_who_ends_it();
                        }
                        self.wait = self.ahead.front().copied().unwrap_or(NO_WAIT);
                        self.wait_until = until;
                    }
                    self.ahead.pop_front();
                }
                Some(wait) => return wait.start,
                None => return NEVER,
            }
        }
        // What begins under the current wait waits for its end.
        NEVER
    }

    /// Looks ahead for who ends what the next wait begins, and says so in each wait of it.
    fn find_who_ends_it(&mut self) {
        let tables = self.tables;
        let mut last = 0;
        while last < MOST_AHEAD
            && let Some(&wait) = self.wait_ahead(last)
            && ran_out(tables, &wait)
            && let Some(next) = self.wait_ahead(last + 1)
            && taken_up_by(tables, &wait, next)
        {
            last += 1;
        }
        let (Some(&begin), Some(&end)) = (self.ahead.front(), self.ahead.get(last)) else { return };
        self.asked_until = end.start;
        // A signal ends a poll, too, and says nothing of what was waited for.
        let found_nothing = poll_ran_out(tables, &begin) && returned(&end).is_none_or(|found| found <= 0);
        if found_nothing || ran_out(tables, &end) || end.flags & wait_flags::IRQ_WAKER != 0 {
            return;
        }
        for wait in self.ahead.iter_mut().take(last) {
            (wait.waker, wait.waker_stack) = (end.waker, end.waker_stack);
            wait.flags &= !wait_flags::IRQ_WAKER;
        }
    }

    /// Makes everything else current that applies now.
    fn enter_others(&mut self) {
        let now = self.now;
        while self.preempt_until <= now
            && let Some(row) = self.preempts.next_if(|p| p.start <= now)
        {
            let until = row.end();
            if until > now {
                self.preempt = self.open_preempt(row);
                self.preempt_until = until;
            }
        }
        while let Some(call) = self.calls.next_if(|c| c.start <= now) {
            let until = call.end();
            let open = self.call_until > now;
            let escaped = self.call.flags & call_flags::OPEN != 0 && call.flags & call_flags::NESTED == 0;
            if until > now && (!open || escaped) {
                self.call = call;
                self.call_until = until;
            }
        }
        while let Some(row) = self.losses.next_if(|l| l.start <= now) {
            self.lost_until = self.lost_until.max(row.end());
        }
        let next_preempt = if self.preempt_until > now {
            Some(self.preempt_until)
        } else {
            self.preempts.peek().map(|p| p.start)
        };
        let next_call = self.calls.peek().map(|c| c.start);
        let next_loss = self.losses.peek().map(|l| l.start);
        self.quiet_until = NEVER;
        self.note_damage();
        while let Some(&Reverse((_, to))) = self.lost.peek().filter(|Reverse((from, _))| *from <= now) {
            self.lost.pop();
            self.lost_until = self.lost_until.max(to);
        }
        let next_damage = self.lost.peek().map(|Reverse((from, _))| *from);
        let ends = [self.call_until, self.lost_until].into_iter().filter(|&t| t > now);
        let begins = [next_preempt, next_call, next_loss, next_damage].into_iter().flatten();
        self.quiet_until = begins.chain(ends).min().unwrap_or(NEVER);
    }

    /// Finds out how much of a preemption record no wait covers.
    fn open_preempt(&mut self, row: ThreadPreempt) -> OpenPreempt {
        // What lies behind is given away already.
        let (from, to) = (row.start.max(self.now), row.end());
        let mut covered = 0;
        let mut at = from;
        if self.wait_until > at {
            let until = self.wait_until.min(to);
            covered += until.since(at);
            at = until;
        }
        for ahead in 0..MOST_AHEAD {
            let Some(wait) = self.wait_ahead(ahead) else { break };
            if wait.start >= to {
                break;
            }
            let until = wait.end().min(to);
            covered += until.since(at.max(wait.start));
            at = at.max(until);
        }
        let uncovered_ns = to.since(from).saturating_sub(covered);
        let run_queue_ns = row.run_queue_ns.min(uncovered_ns);
        OpenPreempt { row, run_queue_ns, uncovered_ns, passed_ns: 0 }
    }

    /// The next stretch.
    #[expect(clippy::should_implement_trait, reason = "the caller asks for rows in between")]
    pub fn next(&mut self) -> Option<Stretch> {
        if !self.enter_span() {
            return None;
        }
        let next_wait = self.enter_wait();
        if self.now >= self.quiet_until {
            self.enter_others();
        }
        let now = self.now;
        let mut to = self.followed_until.min(self.quiet_until);
        let state = if self.lost_until > now {
            // Up to where it is quiet; what is lost ends there or goes on.
            State::Lost
        } else if self.wait_until > now {
            // Waking an idle CPU is the price of having waited.
            let from_idle = self.wait.flags & wait_flags::FROM_IDLE != 0;
            let run_queue_ns = if from_idle { 0 } else { self.wait.run_queue_ns };
            let runnable = self.wait_until.0.saturating_sub_unsigned(run_queue_ns);
            let runnable = TimeNs(runnable.max(self.wait.start.0));
            if now < runnable {
                to = to.min(runnable);
                State::Waited
            } else {
                to = to.min(self.wait_until);
                State::Queued
            }
        } else {
            to = to.min(next_wait);
            State::Ran
        };
        let state = if self.preempt_until > now { self.pass_preempt(now, to, state) } else { state };
        self.now = to;
        Some(Stretch { from: now, to, state, in_call: self.call_until > now })
    }

    /// Takes a stretch off the open preemption record, and its share of the run queue where the thread did not wait.
    fn pass_preempt(&mut self, from: TimeNs, to: TimeNs, state: State) -> State {
        if matches!(state, State::Waited | State::Queued) {
            return state;
        }
        let open = &mut self.preempt;
        let before = share(open.run_queue_ns, open.passed_ns, open.uncovered_ns);
        open.passed_ns = open.passed_ns.saturating_add(to.since(from));
        let after = share(open.run_queue_ns, open.passed_ns, open.uncovered_ns);
        match state {
            State::Ran => {
                let run_queue_ns = after.saturating_sub(before).min(to.since(from));
                State::Preempted { run_queue_ns }
            }
            other => other,
        }
    }
}
