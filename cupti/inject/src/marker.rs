//! The run of a borrowed thread through the stub, followed until it stops at the marker.

use std::time::{Duration, Instant};

use crate::Refusal;
use crate::arch::{Registers, Target};
use crate::borrow::{Setback, Traced};
use crate::plant::Plan;
use crate::safe_point::Return;
use crate::sys::{self, Event, Resume};
use crate::unsafe_point::UnsafePoint;

/// `pthread_create` takes 0.1 ms. After this, a handler that is held back may be what somebody waits for who holds a lock
/// that it needs (a garbage collector stopping threads): handlers are let through.
const UNBLOCK_AFTER: Duration = Duration::from_secs(1);
/// After this the thread is left to itself.
const MARKER_WITHIN: Duration = Duration::from_secs(10);

/// How the run through the stub ended, with the thread stopped where it can be put back.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) registers: Registers,
    /// The signal, if a function of the target faulted and the thread is not at the marker.
    pub(crate) fault: Option<i32>,
}

/// What follows from a stop on the way.
enum Next {
    /// The thread goes on, with a signal (0: none).
    GoOn(i32),
    /// It goes on once it has been asked to stop.
    AskToStop,
    End(End),
    /// It is to be put back at once, with a signal.
    GiveUp(i32),
    /// It is left to itself.
    Leave(Refusal),
}

/// Follows a thread that goes on at the seed.
pub(crate) fn run_to_marker(
    plan: &Plan<'_>,
    traced: &Traced<'_>,
    target: &Target,
    back: &Return,
    resumed: impl FnOnce(),
) -> Result<End, Setback> {
    let tid = traced.tid;
    let failed = |what| move |error| traced.setback(what, error);
    let resume = |how, signal| sys::resume(tid, how, signal).map_err(failed("resume a thread"));
    let stop = || sys::interrupt(tid).map_err(failed("stop a thread"));
    // With no signal to mark the end, every system call of the stub is a stop.
    let how = if target.signal == 0 { Resume::ToSyscall } else { Resume::Run };
    resume(how, 0)?;
    resumed();
    let began = Instant::now();
    let mut unblocked = false;
    loop {
        let deadline = began + if unblocked { MARKER_WITHIN } else { UNBLOCK_AFTER };
        let Some(event) = traced.wait(deadline)? else {
            if unblocked {
                return Err(Setback::Target(Refusal::Stuck {
                    pid: plan.process.pid,
                    waited: began.elapsed(),
                }));
            }
            stop()?;
            unblocked = true;
            continue;
        };
        match next(plan, traced, target, event)? {
            Next::GoOn(signal) => {
                if unblocked {
                    sys::set_signal_mask(tid, target.mask)
                        .map_err(failed("set the signal mask of a thread"))?;
                }
                resume(how, signal)?;
            }
            Next::AskToStop => {
                stop()?;
                resume(Resume::Run, 0)?;
            }
            Next::End(end) => return Ok(end),
            Next::GiveUp(signal) => {
                sys::set_signal_mask(tid, target.mask)
                    .map_err(failed("restore the signal mask of a thread"))?;
                sys::set_registers(tid, &back.registers)
                    .map_err(failed("restore the registers of a thread"))?;
                traced.detach(signal)?;
                return Err(Setback::Thread(UnsafePoint::Signal));
            }
            Next::Leave(refusal) => {
                traced.detach(0)?;
                return Err(Setback::Target(refusal));
            }
        }
    }
}

fn next(plan: &Plan<'_>, traced: &Traced<'_>, target: &Target, event: Event) -> Result<Next, Setback> {
    const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
    let tid = traced.tid;
    let pid = plan.process.pid;
    let Event::Stopped { signal, event } = event else { return Err(Setback::Target(Refusal::Gone { pid })) };
    let registers =
        sys::registers(tid).map_err(|error| traced.setback("read the registers of a thread", error))?;
    let at_marker = registers.instruction() == plan.room.marker();
    let not_begun = registers.instruction() == registers.called_at(plan.room.address).instruction();
    Ok(match (signal, event) {
        // Registers that are set at such a stop would not restart the call. A stop for a request is the place.
        (SYSCALL_STOP, 0) if at_marker => Next::AskToStop,
        (SYSCALL_STOP, 0) => Next::GoOn(0),
        (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) if at_marker => Next::End(End { registers, fault: None }),
        (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) => Next::GoOn(0),
        // The process was stopped. The thread goes on, and back, when that is continued.
        (_, libc::PTRACE_EVENT_STOP) => Next::Leave(Refusal::Stopped { pid }),
        (signal, 0) if Ok(signal) == i32::try_from(target.signal) => {
            if at_marker {
                Next::End(End { registers, fault: None })
            } else {
                Next::GoOn(signal)
            }
        }
        // A handler that ends the call, which it can only where nothing has begun.
        (signal, 0) if not_begun => Next::GiveUp(signal),
        (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE, 0) => {
            let is_fault = sys::stopped_by_fault(tid)
                .map_err(|error| traced.setback("read the signal of a thread", error))?;
            if is_fault { Next::End(End { registers, fault: Some(signal) }) } else { Next::GoOn(signal) }
        }
        (signal, 0) => Next::GoOn(signal),
        _ => Next::GoOn(0),
    })
}
