//! Time in which a GPU waited for a thread that was elsewhere, by what that thread did: its own states, and where it
//! waited, what whoever ended the wait did meanwhile.
//!
//! ```text
//! HOST(T, [a, b)) = Σ stretches of T in [a, b), each charged as a driving thread's time is ([`super::charge`])
//!                 + UNKNOWN for the parts in which T was not followed
//! ```
//!
//! So the parts sum to what was asked about. Gaps of one device come in order, and the pieces of a gap too: a thread's
//! records are read once, forward. What was asked about before is not asked again.

use hashbrown::HashMap;
use stallscope_schemas::record::{RecordKind, call_flags};
use stallscope_schemas::units::{DeviceId, StringId, ThreadId, TimeNs};

use super::causes::{CpuCause, CpuCauses};
use super::charge::{charge, leaves};
use super::cursor::Cursor;
use super::leaf::{CpuLeaf, CpuSums};
use super::wait::Waits;
use super::walk::{Book, Walker, bare};
use crate::capture::{Capture, ReadAt};
use crate::timeline::thread::Stretch;

/// What the launching threads of a device did while it waited for them.
#[derive(Debug, Default)]
pub struct HostWork {
    /// By what the launching thread did.
    pub direct: CpuSums,
    /// By what its waits are charged to.
    pub root: CpuSums,
    /// By cause; sums to either.
    pub causes: CpuCauses,
}

/// Reads what launching threads did.
#[derive(Debug)]
pub(crate) struct HostWalk<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    /// By thread: whether it was followed.
    followed: Vec<bool>,
    waits: Waits<'a>,
    threads: HashMap<ThreadId, (Box<Cursor<'a, S>>, Walker<'a, S>)>,
    book: Book,
    direct: CpuSums,
}

/// A call that only begins an operation of the device takes part in nothing: what its thread did in it is its own.
fn beside_enqueuing<S: ReadAt>(stretch: Stretch, cursor: &Cursor<'_, S>) -> Stretch {
    let takes_part = stretch.in_call && cursor.call().flags & call_flags::ASYNC == 0;
    Stretch { in_call: takes_part, ..stretch }
}

impl<'a, S: ReadAt> HostWalk<'a, S> {
    /// For the launching threads of a device.
    pub(crate) fn of_device(capture: &'a Capture<S>, device: DeviceId, waker_stacks: bool) -> Self {
        let tables = capture.tables();
        let process = tables.device(device).and_then(|d| d.processes.first());
        let job = process.and_then(|&p| tables.process(p)).map_or("", |p| p.job.as_str());
        Self::new(capture, job, waker_stacks)
    }

    fn new(capture: &'a Capture<S>, job: &str, waker_stacks: bool) -> Self {
        let mut followed = vec![false; capture.tables().threads().len()];
        for key in capture.keys(RecordKind::ThreadSpan) {
            if let Some(slot) = followed.get_mut(key as usize) {
                *slot = true;
            }
        }
        Self {
            capture,
            followed,
            waits: Waits::new(capture, job),
            threads: HashMap::new(),
            book: Book { waker_stacks, ..Book::default() },
            direct: CpuSums::default(),
        }
    }

    /// Whether anything is recorded of a thread's states.
    pub(crate) fn follows(&self, thread: ThreadId) -> bool {
        self.followed.get(thread.index()).copied().unwrap_or(false)
    }

    /// Charges `[from, to)` to what the thread did then. Questions about one thread must not go back in time.
    pub(crate) fn charge(&mut self, thread: ThreadId, from: TimeNs, to: TimeNs) {
        let capture = self.capture;
        let (cursor, walker) = self
            .threads
            .entry(thread)
            .or_insert_with(|| (Box::new(Cursor::new(capture, thread, from)), Walker::new(capture, thread)));
        let unseen = |book: &mut Book, direct: &mut CpuSums, from: TimeNs, to: TimeNs| {
            let ns = to.since(from);
            if ns > 0 {
                direct.add(CpuLeaf::Unknown, ns);
                book.add(bare(thread, CpuLeaf::Unknown, StringId(0)), ns, from, 1);
            }
        };
        let mut at = from;
        while at < to {
            let Some(stretch) = cursor.next_in(at, to) else { break };
            unseen(&mut self.book, &mut self.direct, at, stretch.from);
            at = stretch.to;
            let stretch = beside_enqueuing(stretch, cursor);
            let found = leaves(&mut self.waits, thread, &stretch, cursor);
            self.direct.add(found.leaf, stretch.ns().saturating_sub(found.queue_ns));
            self.direct.add(found.queue, found.queue_ns);
            let collective = if stretch.in_call { cursor.call().name } else { StringId(0) };
            let place = (&mut self.waits, &mut self.book, &mut *walker);
            charge(place, thread, collective, (&stretch, found), cursor);
        }
        unseen(&mut self.book, &mut self.direct, at, to);
    }

    /// Takes from `[from, to)`, in which the thread was in a call that waits for the device and the device had nothing left to
    /// do, what kept the thread from coming back: it was runnable, throttled or stopped. That is charged, and visited with
    /// `true`; the rest is visited with `false`. Questions about one thread must not go back in time.
    pub(crate) fn kept_from_returning(
        &mut self,
        thread: ThreadId,
        from: TimeNs,
        to: TimeNs,
        mut visit: impl FnMut(TimeNs, TimeNs, bool),
    ) {
        let capture = self.capture;
        let (cursor, walker) = self
            .threads
            .entry(thread)
            .or_insert_with(|| (Box::new(Cursor::new(capture, thread, from)), Walker::new(capture, thread)));
        let mut at = from;
        while let Some(stretch) = cursor.next_in(at, to).filter(|_| at < to) {
            visit(at, stretch.from, false);
            at = stretch.to;
            let stretch = beside_enqueuing(stretch, cursor);
            let found = leaves(&mut self.waits, thread, &stretch, cursor);
            let is_kept = matches!(found.leaf, CpuLeaf::RunQueue | CpuLeaf::Throttled | CpuLeaf::Stopped);
            if is_kept {
                self.direct.add(found.leaf, stretch.ns());
                let place = (&mut self.waits, &mut self.book, &mut *walker);
                charge(place, thread, StringId(0), (&stretch, found), cursor);
                visit(stretch.from, stretch.to, true);
            } else if found.queue_ns > 0 {
                // Of many short stretches it is known how long they were together.
                let by = *cursor.preempt();
                let queued = CpuCause { preemptor: by.preemptor, ..bare(thread, found.queue, StringId(0)) };
                let until = stretch.from.plus(found.queue_ns).min(stretch.to);
                self.direct.add(found.queue, until.since(stretch.from));
                self.book.add(queued, until.since(stretch.from), by.start, by.times);
                visit(stretch.from, until, true);
                visit(until, stretch.to, false);
            } else {
                visit(stretch.from, stretch.to, false);
            }
        }
        visit(at, to, false);
    }

    /// What was charged so far.
    pub(crate) fn root(&self) -> CpuSums {
        self.book.root
    }

    /// All that was charged.
    pub(crate) fn finish(self) -> HostWork {
        HostWork { direct: self.direct, root: self.book.root, causes: self.book.causes }
    }
}
