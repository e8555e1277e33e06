//! Stretches in which a thread did not run: because it waited, or because others did.

use std::io::Write;

use stallscope_core::capture::WriteError;
use stallscope_core::rows::{ThreadPreempt, ThreadWait};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{ObjectKind, WaitKind, wait_flags};
use stallscope_schemas::units::StringId;
use stallscope_schemas::wire::{self, wait_flag};

use super::{Assembler, Naming, time};

impl<W: Write, N: Naming> Assembler<W, N> {
    pub(super) fn wait(&mut self, wait: &wire::WaitRecord) -> Result<(), WriteError> {
        let task = wait.head.task;
        let Some(thread) = self.thread(task) else { return Ok(()) };
        let flags = u64::from(wait.head.flags);
        self.tasks.seen(task, wait.start_ns.saturating_add(wait.duration_ns));
        let kind = WaitKind::from_id(wait.kind.into()).unwrap_or(WaitKind::Unknown);
        let object_kind = ObjectKind::from_id(wait.object_kind.into()).unwrap_or(ObjectKind::None);
        let known = self.objects.get(&wait.object).copied();
        let (object_kind, object, peer_pid) = match known {
            Some(known) => (known.kind, known.text, known.peer_pid),
            None => {
                let named = !matches!(object_kind, ObjectKind::None | ObjectKind::Futex);
                self.count(LossCounter::ObjectUnresolved, u64::from(named));
                (object_kind, StringId(0), None)
            }
        };
        let call = self.call_name(wait.call);
        let stack = self.stack(task, wait.stack, wait.kernel_stack);
        let waker_stack = self.stack(wait.waker, wait.waker_stack, 0);
        let kept = wait_flags::IRQ_WAKER
            | wait_flags::RETURNED
            | wait_flags::BEGAN_BEFORE
            | wait_flags::GOES_ON
            | wait_flags::CONTINUED
            | wait_flags::FROM_IDLE;
        let mut flags = flags & kept;
        let waker = self.other(wait.waker);
        let mut peer = peer_pid.and_then(|pid| self.tasks.process(pid));
        // What a process sends to itself, or to another on this host, is delivered by the interrupt that it raises, in the
        // call that sends.
        let delivered = wait.head.flags & wait_flag::WAIT_IRQ_IN_CALL != 0;
        if delivered && known.is_some_and(|known| known.loops_back) {
            flags &= !wait_flags::IRQ_WAKER;
            peer = peer.or_else(|| self.ingest.writer().tables().thread(waker?).map(|thread| thread.process));
        }
        let row = ThreadWait {
            start: time(wait.start_ns),
            duration_ns: wait.duration_ns,
            run_queue_ns: wait.run_queue_ns.min(wait.duration_ns),
            kind,
            call,
            object_kind,
            object,
            waker,
            waker_stack,
            stack,
            preemptor: self.other(wait.preemptor),
            flags,
            result: wait.result,
            peer,
        };
        self.ingest.writer().push_thread_wait(thread, row)
    }

    pub(super) fn preempt(&mut self, preempt: &wire::Preempt) -> Result<(), WriteError> {
        let Some(thread) = self.thread(preempt.head.task) else { return Ok(()) };
        self.tasks.seen(preempt.head.task, preempt.start_ns.saturating_add(preempt.duration_ns));
        let row = ThreadPreempt {
            start: time(preempt.start_ns),
            duration_ns: preempt.duration_ns,
            run_queue_ns: preempt.run_queue_ns.min(preempt.duration_ns),
            times: preempt.times.into(),
            preemptor: self.other(preempt.preemptor),
            kind: WaitKind::from_id(preempt.kind.into()).unwrap_or(WaitKind::Preempted),
        };
        self.ingest.writer().push_thread_preempt(thread, row)
    }
}

/// Whether both ends of a connection have the same address.
pub(super) fn loops_back(object: &wire::Object) -> bool {
    object.peer_port != 0 && object.local == object.peer
}
