//! What the seed reads and what it shares with the injector.
//!
//! [`Context`] lies beside the code, in memory that the target cannot write: the injector writes it while the thread is
//! stopped, and the thread alone reads it until it is back. [`Block`] lies in the region that the thread maps: the new
//! thread and the injector talk through it. Whatever the injector reads from a block is the target's word.

use stallscope_cupti_wire::StartArguments;
use zerocopy::{Immutable, IntoBytes};

use super::Registers;
use super::number;

/// Bytes of the region that the seed maps. From low to high: stack of the seed, vector state, block.
pub(super) const REGION_BYTES: u64 = 64 * 1024;
/// Top of the seed's stack. `pthread_create` uses less than 4 KiB with glibc's malloc; another malloc may use more.
pub(super) const STACK_TOP: u64 = 56 * 1024;
/// Where vector state is kept: at most 2688 bytes of it are asked for.
pub(super) const VECTOR_AT: u64 = 56 * 1024;
/// Where the block is.
pub(super) const BLOCK_AT: u64 = 60 * 1024;

/// The block of a region.
pub(crate) const fn block_at(region: u64) -> u64 {
    region + BLOCK_AT
}

/// Room for paths and messages.
pub(crate) const TEXT_BYTES: usize = 1024;

/// What the interrupted call returns if a handler of the target has to run before the thread is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// The call is issued again.
    Restart,
    /// It is issued again if the handler was installed with SA_RESTART, else it returns EINTR.
    ByHandler,
    /// It returns EINTR.
    Interrupt,
}

impl OnSignal {
    /// As the stub knows it.
    pub(super) const RESTART: u64 = 0;
    /// As the stub knows it.
    pub(super) const BY_HANDLER: u64 = 1;

    const fn code(self) -> u64 {
        match self {
            Self::Restart => Self::RESTART,
            Self::ByHandler => Self::BY_HANDLER,
            Self::Interrupt => 2,
        }
    }
}

/// What the stub needs to do its work and to bring the thread back without anybody's help.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes)]
#[repr(C)]
pub(crate) struct Context {
    /// Thread that may be reading this (as the injector numbers it), 0 none.
    pub(crate) owner: u64,
    /// Signals that are blocked while the stub runs.
    pub(super) blocked: u64,
    /// The thread's own mask.
    pub(super) mask: u64,
    /// An [`OnSignal`].
    pub(super) on_signal: u64,
    /// Number of the call to issue again, and the instruction that does it.
    pub(super) again_rax: u64,
    pub(super) again_rip: u64,
    /// Marks the end for a tracer: process and thread as they see themselves, and a signal that the target ignores.
    pub(super) tgid: u64,
    pub(super) tid: u64,
    pub(super) signal: u64,
    /// XSAVE components to keep; 0 where the processor has no XSAVE.
    pub(super) vector_mask: u64,
    /// Functions of the target.
    pub(super) errno_location: u64,
    pub(super) pthread_create: u64,
    pub(super) pthread_detach: u64,
    /// The thread's registers, but for rax.
    pub(super) r15: u64,
    pub(super) r14: u64,
    pub(super) r13: u64,
    pub(super) r12: u64,
    pub(super) rbp: u64,
    pub(super) rbx: u64,
    pub(super) r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rdx: u64,
    pub(super) rsi: u64,
    pub(super) rdi: u64,
    pub(super) rip: u64,
    pub(super) eflags: u64,
    pub(super) rsp: u64,
}

/// What of a context does not come from registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) tid: i32,
    pub(crate) inner_tgid: u64,
    pub(crate) inner_tid: u64,
    pub(crate) mask: u64,
    pub(crate) blocked: u64,
    pub(crate) signal: u64,
    pub(crate) on_signal: OnSignal,
    /// The call is continued by `restart_syscall` instead of issued again.
    pub(crate) by_restart: bool,
    pub(crate) errno_location: u64,
    pub(crate) pthread_create: u64,
    pub(crate) pthread_detach: u64,
}

impl Context {
    pub(crate) fn new(target: &Target, registers: &Registers) -> Self {
        let number = registers.call().map_or(0, |(number, _)| number);
        Self {
            owner: u64::from(target.tid.unsigned_abs()),
            blocked: target.blocked,
            mask: target.mask,
            on_signal: target.on_signal.code(),
            again_rax: u64::from(if target.by_restart { number::RESTART_SYSCALL } else { number }),
            again_rip: registers.syscall_instruction(),
            tgid: target.inner_tgid,
            tid: target.inner_tid,
            signal: target.signal,
            vector_mask: super::seed::vector_mask(),
            errno_location: target.errno_location,
            pthread_create: target.pthread_create,
            pthread_detach: target.pthread_detach,
            r15: registers.r15,
            r14: registers.r14,
            r13: registers.r13,
            r12: registers.r12,
            rbp: registers.rbp,
            rbx: registers.rbx,
            r11: registers.r11,
            r10: registers.r10,
            r9: registers.r9,
            r8: registers.r8,
            rdx: registers.rdx,
            rsi: registers.rsi,
            rdi: registers.rdi,
            rip: registers.rip,
            eflags: registers.eflags,
            rsp: registers.rsp,
        }
    }
}

/// What the injector and the new thread share. Offsets are all that is used of it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Block {
    /// Signals that the new thread blocks.
    pub(super) blocked: u64,
    /// How long the new thread sleeps between two looks (`struct timespec`).
    pub(super) pause: [i64; 2],
    /// How long when there was no order for a while.
    pub(super) long_pause: [i64; 2],
    pub(super) detach: u64,
    pub(super) region: u64,
    pub(super) pthread: u64,
    pub(super) scratch: [u64; 4],
    /// The new thread as it sees itself; 0 until it runs.
    pub(crate) tid: u32,
    /// 1 once the chosen thread uses the region no more.
    pub(crate) left: u32,
    /// Raised by the injector with every order; the new thread answers with `done`.
    pub(crate) order: u32,
    pub(crate) done: u32,
    pub(crate) request: Request,
    pub(crate) result: i64,
    /// Descriptors that the new thread closes when it ends, or -1.
    pub(crate) descriptors: [i32; 4],
    pub(crate) start: StartArguments,
    pub(crate) text: [u8; TEXT_BYTES],
}

/// One order: a call that the new thread makes.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes)]
#[repr(C)]
pub(crate) struct Request {
    /// 0: clean up and end. [`Request::SYSCALL`]: the system call `number`. Else a function's address.
    pub(crate) function: u64,
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 6],
    /// Called after a last order with `finally_argument`, 0 none.
    pub(crate) finally: u64,
    pub(crate) finally_argument: u64,
    /// Which of `Block::descriptors` the result becomes; 4 and more: none.
    pub(crate) keep: u32,
    /// Not 0: the descriptors now belong to what is called, and the thread ends after it.
    pub(crate) last: u32,
}

impl Request {
    /// See [`Request::function`].
    pub(crate) const SYSCALL: u64 = 1;
}

const _: () = assert!(size_of::<Block>() <= 4096);
