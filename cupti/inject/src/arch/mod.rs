//! What differs between processors: registers, system calls, the code that is left in a thread.
//!
//! A port brings a module like `x86_64`: [`Registers`] with the questions that are asked of them, [`Call`]s by number,
//! and the seed. For aarch64 that would be: `svc #0`, x8 and x0-x5; x0 as it was before the call is not in the
//! registers that ptrace gives (NT_ARM_SYSTEM_CALL has the number only), so a call is issued again with what
//! /proc/PID/task/TID/syscall said; vector state by hand.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    AUDIT_ARCH, Block, Context, ELF_MACHINE, OnSignal, Registers, Request, SYSCALL, Seed, TEXT_BYTES, Target,
    block_at, call, frame_of_signal, number, number_loaded, seed,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the injector is written for x86-64; see src/arch/mod.rs for what another processor needs");

/// What a blocked thread waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A futex; the operation is an argument.
    Futex,
    /// Bytes from a descriptor.
    Read,
    /// A message from a socket.
    Receive,
    /// A connection.
    Accept,
    /// The end of a child.
    WaitChild,
    /// poll: the time to wait is a number.
    Poll,
    /// select, pselect, ppoll: the time to wait is behind a pointer, as this argument.
    Select(usize),
    /// Sleep.
    Sleep,
    /// epoll: the time to wait is a number, or behind a pointer.
    Epoll {
        /// The time is behind a pointer.
        pointer: bool,
    },
    /// sigtimedwait and its relatives.
    Signal,
    /// A call that was interrupted before and goes on: which one is not told.
    Restart,
}

impl Call {
    /// Whether it ends with EINTR when its thread is stopped, where others go on by themselves.
    pub(crate) const fn may_end_with_eintr(self) -> bool {
        matches!(self, Self::Epoll { .. } | Self::Signal | Self::Read | Self::Receive | Self::Accept)
    }
}
