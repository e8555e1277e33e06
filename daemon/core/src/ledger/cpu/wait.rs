//! The leaf of a wait.
//!
//! The kind of the wait decides first, then whether a collective was open, then the table of system calls
//! (`classify/waits.tsv`). Two rules look further:
//!
//! - a TCP or UDP socket whose other end is a process on this host is *ipc*, not *network*;
//! - a call that waits for any of several descriptors (poll, select, epoll) is
//!   1. *sleep* if it returned 0: its time ran out (of a series of these the walk goes on to who ended the last one);
//!   2. *ipc* if a followed thread of the same job ended it;
//!   3. *network* if an interrupt ended it and its process has network connections in the capture;
//!   4. else an *other system call*: nothing recorded says what it waited for.

use hashbrown::{HashMap, HashSet};
use stallscope_schemas::record::{ObjectKind, RecordKind, WaitKind, wait_flags};
use stallscope_schemas::units::{StringId, ThreadId};

use super::leaf::CpuLeaf;
use crate::capture::{Capture, ReadAt, Tables};
use crate::classify::waits::{WaitClass, wait_class};
use crate::rows::ThreadWait;
use crate::timeline::thread::poll_ran_out;

/// Which threads belong together, and what the table says of each call.
#[derive(Debug)]
pub(crate) struct Waits<'a> {
    tables: &'a Tables,
    /// By thread: whether it was followed and is of the job.
    of_job: Vec<bool>,
    /// Processes with network connections.
    connected: HashSet<u32>,
    classes: HashMap<(StringId, ObjectKind), WaitClass>,
}

impl<'a> Waits<'a> {
    /// For the threads of one job: those of processes that name the same job.
    pub(crate) fn new<S: ReadAt>(capture: &'a Capture<S>, job: &str) -> Self {
        let tables = capture.tables();
        let mut of_job = vec![false; tables.threads().len()];
        for key in capture.keys(RecordKind::ThreadSpan) {
            let process = tables.thread(ThreadId(key)).and_then(|t| tables.process(t.process));
            if let (Some(slot), Some(process)) = (of_job.get_mut(key as usize), process) {
                *slot = process.job == job;
            }
        }
        let connected = capture.keys(RecordKind::Connection).into_iter().collect();
        Self { tables, of_job, connected, classes: HashMap::new() }
    }

    /// Whether a thread was followed and belongs to the job.
    pub(crate) fn is_of_job(&self, thread: ThreadId) -> bool {
        self.of_job.get(thread.index()).copied().unwrap_or(false)
    }

    /// Who ended a wait, if that was a followed thread of the job and not an interrupt.
    pub(crate) fn waker(&self, wait: &ThreadWait) -> Option<ThreadId> {
        let known = wait.waker.filter(|_| wait.flags & wait_flags::IRQ_WAKER == 0)?;
        self.is_of_job(known).then_some(known)
    }

    /// Whether a poll found nothing until its time was over.
    pub(crate) fn poll_ran_out(&self, wait: &ThreadWait) -> bool {
        poll_ran_out(self.tables, wait)
    }

    fn class(&mut self, wait: &ThreadWait) -> WaitClass {
        let tables = self.tables;
        *self
            .classes
            .entry((wait.call, wait.object_kind))
            .or_insert_with(|| wait_class(tables.string(wait.call), wait.object_kind))
    }

    /// The leaf of the blocked part of a wait of `thread`, without regard to collectives.
    pub(crate) fn leaf(&mut self, thread: ThreadId, wait: &ThreadWait) -> CpuLeaf {
        match wait.kind {
            WaitKind::Unknown => CpuLeaf::Unknown,
            WaitKind::PageFault => CpuLeaf::PageFault,
            WaitKind::Stopped => CpuLeaf::Stopped,
            WaitKind::Kernel => CpuLeaf::Syscall,
            WaitKind::Preempted => CpuLeaf::RunQueue,
            WaitKind::Throttled => CpuLeaf::Throttled,
            WaitKind::Syscall => match self.class(wait) {
                WaitClass::Lock => CpuLeaf::Lock,
                WaitClass::Sleep => CpuLeaf::Sleep,
                WaitClass::BlockIo => CpuLeaf::BlockIo,
                WaitClass::Ipc => CpuLeaf::Ipc,
                WaitClass::Network if wait.peer.is_some() => CpuLeaf::Ipc,
                WaitClass::Network => CpuLeaf::Network,
                WaitClass::Syscall => CpuLeaf::Syscall,
                WaitClass::Poll => self.poll(thread, wait),
            },
        }
    }

    fn poll(&self, thread: ThreadId, wait: &ThreadWait) -> CpuLeaf {
        let process = self.tables.thread(thread).map(|t| t.process.0);
        if wait.flags & wait_flags::RETURNED != 0 && wait.result == 0 {
            CpuLeaf::Sleep
        } else if self.waker(wait).is_some() {
            CpuLeaf::Ipc
        } else if wait.flags & wait_flags::IRQ_WAKER != 0
            && process.is_some_and(|p| self.connected.contains(&p))
        {
            CpuLeaf::Network
        } else {
            CpuLeaf::Syscall
        }
    }
}

/// The leaf of a wait with this own leaf, inside a collective.
pub(crate) fn in_collective(own: CpuLeaf) -> CpuLeaf {
    match own {
        CpuLeaf::RunQueue | CpuLeaf::Throttled | CpuLeaf::Stopped => own,
        _ => CpuLeaf::CommBlocked,
    }
}

/// The leaf of time in which a thread was runnable and did not run.
pub(crate) fn queue_leaf(kind: WaitKind) -> CpuLeaf {
    if kind == WaitKind::Throttled { CpuLeaf::Throttled } else { CpuLeaf::RunQueue }
}
