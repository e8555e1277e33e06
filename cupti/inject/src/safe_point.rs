//! The check of a thread that is stopped: is it where it may be borrowed, and how does it get back?
//!
//! A safe point is an interrupted system call of the list, made by the C library, outside of any handler, by a thread
//! that glibc made. There the thread holds no lock that `pthread_create` needs.

use std::io;

use crate::arch::{self, OnSignal, Registers};
use crate::candidate::{Candidate, rank};
use crate::process::Process;
use crate::sys;
use crate::unsafe_point::UnsafePoint;

/// How much of the stack is searched for the frame of a handler. A handler that calls deeper than this is not seen.
pub(crate) const STACK_BYTES: usize = 64 * 1024;

/// How much of it is searched again of a thread that is where it was: while it is stopped, time is dear.
const STACK_BYTES_AGAIN: usize = 4 * 1024;

/// How an interrupted call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Return {
    /// Registers that, set before the thread goes on, let the kernel restart the call as if nothing had been.
    pub(crate) registers: Registers,
    pub(crate) on_signal: OnSignal,
    /// It is continued by `restart_syscall`.
    pub(crate) by_restart: bool,
}

/// What the kernel left in the register of the result when it interrupted a call that it issues again.
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;

/// How the call that these registers are in goes on, if it was interrupted by the stop and can.
///
/// `signals_wait` says whether a handler has to run: only then is EINTR more than the effect of the stop.
pub(crate) fn interrupted(
    registers: &Registers,
    signals_wait: impl FnOnce() -> io::Result<bool>,
) -> io::Result<Option<Return>> {
    let Some((number, _)) = registers.call() else { return Ok(None) };
    let again = |on_signal, by_restart| Some(Return { registers: *registers, on_signal, by_restart });
    const EINTR: i64 = -(libc::EINTR as i64);
    Ok(match registers.result() {
        ERESTARTSYS => again(OnSignal::ByHandler, false),
        ERESTARTNOINTR => again(OnSignal::Restart, false),
        ERESTARTNOHAND => again(OnSignal::Interrupt, false),
        ERESTART_RESTARTBLOCK => again(OnSignal::Interrupt, true),
        EINTR if arch::call(number).is_some_and(arch::Call::may_end_with_eintr) && !signals_wait()? => {
            Some(Return {
                registers: registers.restarted_unless_handled(),
                on_signal: OnSignal::Interrupt,
                by_restart: false,
            })
        }
        _ => None,
    })
}

/// Whether a stopped thread may be borrowed.
pub(crate) fn check(
    process: &Process,
    is_library_code: impl Fn(u64) -> bool,
    candidate: &Candidate,
    registers: &Registers,
) -> Result<(), UnsafePoint> {
    let moved = |_| UnsafePoint::Moved;
    if !registers.is_ordinary() {
        return Err(UnsafePoint::NotGlibc);
    }
    let (number, arguments) = registers.call().ok_or(UnsafePoint::Running)?;
    let waiting = &candidate.waiting;
    let is_same = number == waiting.number
        && arguments == waiting.arguments
        && registers.stack() == waiting.stack
        && registers.instruction() == waiting.instruction;
    if !is_same {
        // Another call than the one that was looked at, so judge that; what needs /proc is not asked for again.
        rank(number, &arguments, || None)?;
        if matches!(arch::call(number), Some(arch::Call::Read)) {
            return Err(UnsafePoint::Moved);
        }
    }
    if !is_library_code(registers.syscall_instruction()) {
        return Err(UnsafePoint::OtherCode);
    }
    let mut instruction = [0; arch::SYSCALL.len()];
    process.peek(registers.syscall_instruction(), &mut instruction).map_err(moved)?;
    if instruction != arch::SYSCALL {
        return Err(UnsafePoint::OtherCode);
    }
    // glibc's control block begins with its own address, and has it again at 16.
    let thread = registers.thread_pointer();
    for word in [thread, thread.wrapping_add(16)] {
        if thread == 0 || process.peek_word(word).map_err(|_| UnsafePoint::NotGlibc)? != thread {
            return Err(UnsafePoint::NotGlibc);
        }
    }
    let stack_bytes = if is_same { STACK_BYTES_AGAIN } else { STACK_BYTES };
    if in_handler(process, registers.stack(), stack_bytes).map_err(moved)? {
        Err(UnsafePoint::Handler)
    } else {
        Ok(())
    }
}

/// Whether there is the frame of a signal's handler on the stack.
pub(crate) fn in_handler(process: &Process, stack: u64, stack_bytes: usize) -> io::Result<bool> {
    let mut bytes = vec![0; stack_bytes];
    let read = process.peek(stack, &mut bytes)?;
    let words: Vec<u64> = bytes
        .get(..read)
        .unwrap_or_default()
        .as_chunks()
        .0
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
        .collect();
    Ok(arch::frame_of_signal(&words))
}

/// Whether a signal that the thread does not block waits for it.
pub(crate) fn signals_wait(tid: i32, mask: u64) -> io::Result<bool> {
    Ok(sys::pending_signals(tid)? & !mask != 0)
}
