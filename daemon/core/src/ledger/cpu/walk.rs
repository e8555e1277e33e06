//! Charges a wait to what the thread that ended it did meanwhile.
//!
//! ```text
//! WALK(T, [a, b)): for each stretch of T in [a, b)
//!   ran, runnable, lost      that leaf, of T
//!   blocked                  ended by a followed thread W of the job, not yet in the chain, depth < 8: WALK(W, stretch)
//!                            else the leaf of that wait, of T
//!   waits for one of the chain (a circle: it waited for us)   the leaf of the first wait, or of the last poll of the chain
//!                            that ran into its time limit
//!   not followed             the leaf of the wait that T ended
//! ```
//!
//! A poll that ran into its limit and was made again has whom the last of the series was ended by (see
//! [`crate::timeline::thread`]). That is likely what it waited for, too; where that thread waited for it meanwhile it was not,
//! and the time stays with the poll.
//!
//! The parts are adjacent by construction, so that they sum to the wait. Waits of one thread come in order and the walk
//! goes forward inside each: at every moment no thread is asked about a time before what it was asked about last. So each
//! waker is read once, by a cursor, however often it is asked, and nothing needs to be remembered beyond the stretch that
//! a question ended in.

use hashbrown::HashMap;
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use super::causes::{ChainId, CpuCause, CpuCauses, Link};
use super::cursor::Cursor;
use super::leaf::{CpuLeaf, CpuSums};
use super::wait::{Waits, in_collective, queue_leaf};
use crate::capture::{Capture, ReadAt};
use crate::rows::ThreadWait;
use crate::timeline::thread::{State, Stretch};

/// Threads in a chain at most: as many as a root of GPU time goes through ([`crate::ledger::root::MAX_HOPS`]). A pipeline of
/// six processes was met; the bound is for the stack of calls, and for evidence that can be read.
pub const MAX_DEPTH: usize = 8;

/// Wakers that are read at once. One more costs the decoded batch of a waker that comes back.
const MAX_CURSORS: usize = 128;

/// Where root time goes.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) root: CpuSums,
    pub(super) causes: CpuCauses,
    /// Keep stacks of wakers apart.
    pub(super) waker_stacks: bool,
}

impl Book {
    pub(super) fn add(&mut self, cause: CpuCause, ns: u64, began: TimeNs, times: u64) {
        self.root.add(cause.root, ns);
        self.causes.add(cause, ns, began, times);
    }

    /// Books a stretch on a CPU, with the samples that fell into it.
    pub(super) fn ran<S: ReadAt>(
        &mut self,
        cause: CpuCause,
        ns: u64,
        (from, to): (TimeNs, TimeNs),
        cursor: &mut Cursor<'_, S>,
    ) {
        if ns == 0 {
            return;
        }
        self.root.add(cause.root, ns);
        let sampled = self.causes.on_cpu(cause);
        sampled.add(ns, from);
        cursor.samples(from, to, |stack, weight| sampled.sample(stack, weight));
    }

    fn link(&self, wait: &ThreadWait, thread: ThreadId, interrupt: bool) -> Link {
        let stack = if self.waker_stacks { wait.waker_stack } else { StackId(0) };
        Link { thread, stack, interrupt }
    }
}

/// A cause of which nothing is known but the thread and its leaf.
pub(super) fn bare(thread: ThreadId, leaf: CpuLeaf, collective: StringId) -> CpuCause {
    CpuCause {
        thread,
        direct: leaf,
        root: leaf,
        collective,
        waiting_stack: StackId(0),
        waiting_call: StringId(0),
        chain: ChainId::default(),
        call: StringId(0),
        object_kind: stallscope_schemas::record::ObjectKind::None,
        object: StringId(0),
        stack: StackId(0),
        preemptor: None,
    }
}

/// What a wait of a driving thread is charged to where nobody else is to blame.
pub(super) fn own(thread: ThreadId, leaf: CpuLeaf, collective: StringId, wait: &ThreadWait) -> CpuCause {
    CpuCause {
        waiting_stack: wait.stack,
        waiting_call: wait.call,
        call: wait.call,
        object_kind: wait.object_kind,
        object: wait.object,
        stack: wait.stack,
        ..bare(thread, leaf, collective)
    }
}

/// A wait on the way, and what its time is charged to if the way ends there.
#[derive(Clone, Copy, Debug)]
struct Hop {
    cause: CpuCause,
    began: TimeNs,
}

/// Where time goes that a walk cannot give to those it asks.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The driving thread's wait.
    first: Hop,
    /// What a circle is charged to.
    circle: Hop,
}

/// Follows wakers.
#[derive(Debug)]
pub(super) struct Walker<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    /// Cursors of wakers; those of the chain under way are taken out.
    cursors: HashMap<ThreadId, Box<Cursor<'a, S>>>,
    questions: u64,
    /// The driving thread and the wakers of the chain under way.
    chain: Vec<ThreadId>,
    /// Whether the driving thread is in a collective.
    in_collective: bool,
}

impl<'a, S: ReadAt> Walker<'a, S> {
    pub(super) fn new(capture: &'a Capture<S>, driving: ThreadId) -> Self {
        Self { capture, cursors: HashMap::new(), questions: 0, chain: vec![driving], in_collective: false }
    }

    /// The thread that a wait with this leaf of its own may be charged to. Inside a collective only a lock counts: whoever ends any other wait there
    /// is a peer, or moves data for one.
    pub(super) fn blamed(
        waits: &Waits<'_>,
        thread: ThreadId,
        wait: &ThreadWait,
        leaf: CpuLeaf,
        in_call: bool,
    ) -> Option<ThreadId> {
        let waker = waits.waker(wait).filter(|&w| w != thread)?;
        let follows = match leaf {
            CpuLeaf::Lock => true,
            CpuLeaf::PageFault | CpuLeaf::BlockIo | CpuLeaf::Network | CpuLeaf::Ipc | CpuLeaf::Syscall => {
                !in_call
            }
            CpuLeaf::Sleep => !in_call && waits.poll_ran_out(wait),
            _ => false,
        };
        follows.then_some(waker)
    }

    /// Charges `[from, to)` of a wait of the driving thread.
    pub(super) fn wait(
        &mut self,
        waits: &mut Waits<'_>,
        book: &mut Book,
        stretch: &Stretch,
        (wait, leaf): (&ThreadWait, CpuLeaf),
        cause: CpuCause,
    ) {
        let hop = Hop { cause, began: wait.start };
        self.in_collective = stretch.in_call;
        match Self::blamed(waits, cause.thread, wait, leaf, stretch.in_call) {
            Some(waker) => {
                let way = Way { first: hop, circle: hop };
                self.walk(waits, book, way, hop, (waker, wait), (stretch.from, stretch.to));
            }
            None => {
                let mut cause = cause;
                if let (true, Some(waker)) = (book.waker_stacks, wait.waker) {
                    let irq = wait.flags & stallscope_schemas::record::wait_flags::IRQ_WAKER != 0;
                    let link = book.link(wait, waker, irq);
                    cause.chain = book.causes.chains.push(ChainId::default(), link);
                }
                book.add(cause, stretch.ns(), wait.start, 1);
            }
        }
    }

    /// Charges `[from, to)` to what `waker` did then; `hop` is the wait that it ended.
    fn walk(
        &mut self,
        waits: &mut Waits<'_>,
        book: &mut Book,
        way: Way,
        hop: Hop,
        (waker, wait): (ThreadId, &ThreadWait),
        (from, to): (TimeNs, TimeNs),
    ) {
        let mut cursor = self.take(waker, from);
        self.chain.push(waker);
        let link = book.link(wait, waker, false);
        let chain = book.causes.chains.push(hop.cause.chain, link);
        let to_waker = |leaf: CpuLeaf| CpuCause {
            root: leaf,
            chain,
            call: StringId(0),
            object_kind: stallscope_schemas::record::ObjectKind::None,
            object: StringId(0),
            stack: StackId(0),
            ..way.first.cause
        };
        let mut at = from;
        while at < to {
            let Some(stretch) = cursor.next_in(at, to) else { break };
            if stretch.from > at {
                book.add(hop.cause, stretch.from.since(at), hop.began, 1);
            }
            at = stretch.to;
            let span = (stretch.from, stretch.to);
            let in_call = stretch.in_call;
            let running = if in_call { CpuLeaf::CommOnCpu } else { CpuLeaf::Compute };
            match stretch.state {
                State::Ran => {
                    let cause = to_waker(self.seen_as(running));
                    book.ran(cause, stretch.ns(), span, &mut cursor);
                }
                State::Preempted { run_queue_ns } => {
                    let by = *cursor.preempt();
                    let cause = CpuCause { preemptor: by.preemptor, ..to_waker(queue_leaf(by.kind)) };
                    book.add(cause, run_queue_ns, by.start, by.times);
                    let ran = stretch.ns().saturating_sub(run_queue_ns);
                    book.ran(to_waker(self.seen_as(running)), ran, span, &mut cursor);
                }
                State::Queued => {
                    let wait = cursor.wait();
                    let cause = CpuCause { preemptor: wait.preemptor, ..to_waker(queue_leaf(wait.kind)) };
                    book.add(cause, stretch.ns(), wait.start, 1);
                }
                State::Lost => book.add(to_waker(CpuLeaf::Unknown), stretch.ns(), stretch.from, 1),
                State::Waited => {
                    let wait = *cursor.wait();
                    let own = waits.leaf(waker, &wait);
                    let leaf = if in_call { in_collective(own) } else { own };
                    let cause = CpuCause {
                        call: wait.call,
                        object_kind: wait.object_kind,
                        object: wait.object,
                        stack: wait.stack,
                        ..to_waker(self.seen_as(leaf))
                    };
                    let here = Hop { cause, began: wait.start };
                    let circle = way.circle;
                    match Self::blamed(waits, waker, &wait, own, in_call) {
                        // It waited for one of those that wait for it.
                        Some(next) if self.chain.contains(&next) => {
                            book.add(circle.cause, stretch.ns(), circle.began, 1);
                        }
                        Some(next) if self.chain.len() <= MAX_DEPTH => {
                            let circle = if waits.poll_ran_out(&wait) { here } else { circle };
                            self.walk(waits, book, Way { circle, ..way }, here, (next, &wait), span);
                        }
                        _ => book.add(cause, stretch.ns(), wait.start, 1),
                    }
                }
            }
        }
        if at < to {
            book.add(hop.cause, to.since(at), hop.began, 1);
        }
        self.chain.pop();
        self.cursors.insert(waker, cursor);
    }

    /// What a waker's leaf counts as for the driving thread.
    fn seen_as(&self, leaf: CpuLeaf) -> CpuLeaf {
        if self.in_collective { leaf.inside_collective() } else { leaf }
    }

    /// The cursor of a waker, which goes back into the map when the walk through it is over.
    fn take(&mut self, thread: ThreadId, from: TimeNs) -> Box<Cursor<'a, S>> {
        self.questions += 1;
        let mut cursor = self.cursors.remove(&thread).unwrap_or_else(|| {
            if self.cursors.len() >= MAX_CURSORS
                && let Some(oldest) = self.cursors.iter().min_by_key(|(_, c)| c.used).map(|(t, _)| *t)
            {
                self.cursors.remove(&oldest);
            }
            Box::new(Cursor::new(self.capture, thread, from))
        });
        cursor.used = self.questions;
        cursor
    }
}
