//! Charges a stretch of a thread to its causes: the one rule for the driving threads of a rank on CPUs and for the thread
//! that a GPU waits for.

use stallscope_schemas::units::{StringId, ThreadId};

use super::causes::CpuCause;
use super::cursor::Cursor;
use super::leaf::CpuLeaf;
use super::wait::{Waits, in_collective, queue_leaf};
use super::walk::{Book, Walker, bare, own};
use crate::capture::ReadAt;
use crate::timeline::thread::{State, Stretch};

/// The leaves of a stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaves {
    /// What the stretch is for the most part.
    pub(super) leaf: CpuLeaf,
    /// Of a wait, its leaf without regard to collectives.
    own: CpuLeaf,
    /// Of a preempted stretch, how the time in which the thread did not run counts, and how long that was.
    pub(super) queue: CpuLeaf,
    pub(super) queue_ns: u64,
}

/// The leaves of the stretch that the cursor has just passed.
pub(super) fn leaves<S: ReadAt>(
    waits: &mut Waits<'_>,
    thread: ThreadId,
    stretch: &Stretch,
    cursor: &Cursor<'_, S>,
) -> Leaves {
    let running = if stretch.in_call { CpuLeaf::CommOnCpu } else { CpuLeaf::Compute };
    let only = |leaf| Leaves { leaf, own: leaf, queue: CpuLeaf::RunQueue, queue_ns: 0 };
    match stretch.state {
        State::Ran => only(running),
        State::Preempted { run_queue_ns } => {
            Leaves { queue: queue_leaf(cursor.preempt().kind), queue_ns: run_queue_ns, ..only(running) }
        }
        State::Queued => only(queue_leaf(cursor.wait().kind)),
        State::Lost => only(CpuLeaf::Unknown),
        State::Waited => {
            let own = waits.leaf(thread, cursor.wait());
            Leaves { own, ..only(if stretch.in_call { in_collective(own) } else { own }) }
        }
    }
}

/// Books the stretch that the cursor has just passed, and follows those who ended its waits.
pub(super) fn charge<S: ReadAt>(
    (waits, book, walker): (&mut Waits<'_>, &mut Book, &mut Walker<'_, S>),
    thread: ThreadId,
    collective: StringId,
    (stretch, found): (&Stretch, Leaves),
    cursor: &mut Cursor<'_, S>,
) {
    let Leaves { leaf, own: own_leaf, queue, queue_ns } = found;
    let ns = stretch.ns().saturating_sub(queue_ns);
    let cause = bare(thread, leaf, collective);
    match stretch.state {
        State::Ran => book.ran(cause, ns, (stretch.from, stretch.to), cursor),
        State::Preempted { .. } => {
            let by = *cursor.preempt();
            let queued = CpuCause { preemptor: by.preemptor, ..bare(thread, queue, collective) };
            book.add(queued, queue_ns, by.start, by.times);
            book.ran(cause, ns, (stretch.from, stretch.to), cursor);
        }
        State::Queued => {
            let wait = cursor.wait();
            book.add(CpuCause { preemptor: wait.preemptor, ..cause }, ns, wait.start, 1);
        }
        State::Lost => book.add(cause, ns, stretch.from, 1),
        State::Waited => {
            let wait = *cursor.wait();
            let cause = own(thread, leaf, collective, &wait);
            walker.wait(waits, book, stretch, (&wait, own_leaf), cause);
        }
    }
}
