//! x86-64.

mod context;
mod seed;

pub(crate) use context::{Block, Context, OnSignal, Request, TEXT_BYTES, Target, block_at};
pub(crate) use seed::{Seed, seed};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Call;

/// `e_machine` of programs that this module knows.
pub(crate) const ELF_MACHINE: u16 = 62;

/// The instruction that enters the kernel.
pub(crate) const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Numbers of the system calls that are made in the target.
pub(crate) mod number {
    pub(crate) const READ: u32 = 0;
    pub(crate) const CLOSE: u32 = 3;
    pub(crate) const MMAP: u32 = 9;
    pub(crate) const MPROTECT: u32 = 10;
    pub(crate) const MUNMAP: u32 = 11;
    pub(crate) const RT_SIGACTION: u32 = 13;
    pub(crate) const RT_SIGPROCMASK: u32 = 14;
    pub(crate) const ACCESS: u32 = 21;
    pub(crate) const MADVISE: u32 = 28;
    pub(crate) const NANOSLEEP: u32 = 35;
    pub(crate) const CLONE: u32 = 56;
    pub(crate) const EXIT: u32 = 60;
    pub(crate) const RT_SIGPENDING: u32 = 127;
    pub(crate) const GETTID: u32 = 186;
    pub(crate) const FUTEX: u32 = 202;
    pub(crate) const RESTART_SYSCALL: u32 = 219;
    pub(crate) const TGKILL: u32 = 234;
    pub(crate) const OPENAT: u32 = 257;
    pub(crate) const SET_ROBUST_LIST: u32 = 273;
    pub(crate) const MEMFD_CREATE: u32 = 319;
    pub(crate) const RSEQ: u32 = 334;
    pub(crate) const CLONE3: u32 = 435;
}

/// `AUDIT_ARCH_X86_64`: what a seccomp filter sees as the architecture.
pub(crate) const AUDIT_ARCH: u32 = 0xc000_003e;

/// General registers as `NT_PRSTATUS` has them.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Registers {
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
    rax: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) rsi: u64,
    pub(super) rdi: u64,
    orig_rax: u64,
    pub(super) rip: u64,
    cs: u64,
    pub(super) eflags: u64,
    pub(super) rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    ds: u64,
    es: u64,
    fs: u64,
    gs: u64,
}

/// Selectors of 64-bit programs.
const USER_CS: u64 = 0x33;

/// TF and AC: what the seed cannot run under, and no program has on.
const UNWANTED_FLAGS: u64 = 0x100 | 0x4_0000;

impl Registers {
    /// Number and arguments of the system call that the thread is in.
    pub(crate) fn call(&self) -> Option<(u32, [u64; 6])> {
        let number = u32::try_from(self.orig_rax).ok()?;
        Some((number, [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]))
    }

    /// What the call returns, negated errno.
    pub(crate) fn result(&self) -> i64 {
        self.rax.cast_signed()
    }

    /// The instruction after the one that entered the kernel.
    pub(crate) fn instruction(&self) -> u64 {
        self.rip
    }

    /// Where the instruction that entered the kernel is.
    pub(crate) fn syscall_instruction(&self) -> u64 {
        self.rip.wrapping_sub(SYSCALL.len() as u64)
    }

    pub(crate) fn stack(&self) -> u64 {
        self.rsp
    }

    /// The thread's control block.
    pub(crate) fn thread_pointer(&self) -> u64 {
        self.fs_base
    }

    pub(crate) fn is_ordinary(&self) -> bool {
        self.cs == USER_CS && self.eflags & UNWANTED_FLAGS == 0
    }

    /// The same, so that the kernel issues the call again unless a handler is to run: then it returns EINTR.
    pub(crate) fn restarted_unless_handled(mut self) -> Self {
        const ERESTARTNOHAND: i64 = 514;
        self.rax = (-ERESTARTNOHAND).cast_unsigned();
        self
    }

    /// The same, but the interrupted call was made by the instruction at `address`: there the thread goes on, or after
    /// it with EINTR if a handler runs that ends the call. The kernel decides, by the rules of the call.
    pub(crate) fn called_at(mut self, address: u64) -> Self {
        self.rip = address.wrapping_add(SYSCALL.len() as u64);
        self
    }

    /// These registers, in the call that those are in.
    pub(crate) fn in_call_of(mut self, other: &Self) -> Self {
        self.rax = other.rax;
        self.orig_rax = other.orig_rax;
        self
    }

    /// What the seed reports at its marker: memory or negated errno, and what `pthread_create` returned.
    pub(crate) fn report(&self) -> (i64, u32) {
        (self.rbx.cast_signed(), u32::try_from(self.r12 & u64::from(u32::MAX)).unwrap_or(u32::MAX))
    }
}

/// What a system call is, of those in which a thread may be chosen.
///
/// None of them is made by an allocator or the loader while these hold a lock, with two exceptions that the caller
/// must look at: `FUTEX` waits for a lock unless its operation is `FUTEX_WAIT_BITSET`, and `READ` may be of a file.
/// Left out on purpose: `pause` and `rt_sigsuspend`, in which collectors of garbage hold threads that they stopped
/// anywhere, and calls that cannot be issued again (`connect`, `close`, writes).
pub(crate) const fn call(number: u32) -> Option<Call> {
    Some(match number {
        0 => Call::Read,              // read
        7 => Call::Poll,              // poll
        23 => Call::Select(4),        // select
        35 | 230 => Call::Sleep,      // nanosleep, clock_nanosleep
        43 | 288 => Call::Accept,     // accept, accept4
        45 | 47 => Call::Receive,     // recvfrom, recvmsg
        61 | 247 => Call::WaitChild,  // wait4, waitid
        128 => Call::Signal,          // rt_sigtimedwait
        number::FUTEX => Call::Futex, // futex
        number::RESTART_SYSCALL => Call::Restart,
        232 | 281 => Call::Epoll { pointer: false }, // epoll_wait, epoll_pwait
        270 => Call::Select(4),                      // pselect6
        271 => Call::Select(2),                      // ppoll
        441 => Call::Epoll { pointer: true },        // epoll_pwait2
        _ => return None,
    })
}

/// Whether these words of a stack, 8 bytes each and from the lower address on, hold the registers that the kernel saves
/// when it runs a handler: then the thread is inside of one.
///
/// The mark is a word with the selectors of a 64-bit program (cs, gs, fs, ss), after flags that have the bits which are
/// always set in user mode.
pub(crate) fn frame_of_signal(words: &[u64]) -> bool {
    const SELECTORS: u64 = 0x002b_0000_0000_0033;
    const ALWAYS: u64 = 0x202;
    const LARGEST_FLAG: u64 = 1 << 22;
    words
        .windows(2)
        .any(|pair| matches!(*pair, [flags, SELECTORS] if flags & ALWAYS == ALWAYS && flags < LARGEST_FLAG))
}

/// The number that code loads which goes on with a system call: the last `mov eax, imm32`.
pub(crate) fn number_loaded(code: &[u8]) -> Option<u32> {
    const MOV_EAX: u8 = 0xb8;
    code.windows(5).rev().find_map(|bytes| match *bytes {
        [MOV_EAX, a, b, c, d] => {
            Some(u32::from_le_bytes([a, b, c, d])).filter(|number| call(*number).is_some())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Registers, frame_of_signal, number_loaded};

    #[test]
    fn the_number_of_a_call_is_read_from_its_code() {
        let code = [0xb8, 7, 0, 0, 0, 0x44, 0x89, 0xe7, 0xb8, 0xe6, 0, 0, 0, 0x90];
        assert_eq!(number_loaded(&code), Some(230));
        assert_eq!(number_loaded(&[0x48, 0x89, 0xf8, 0x90, 0x90, 0x90]), None);
    }

    #[test]
    fn registers_have_the_size_that_the_kernel_gives() {
        assert_eq!(size_of::<Registers>(), size_of::<libc::user_regs_struct>());
    }

    #[test]
    fn saved_registers_of_a_handler_are_recognised() {
        let ordinary = [0x7f00_0000_1000, 0x202, 0x33, 0x246, 0x2b];
        assert!(!frame_of_signal(&ordinary));
        let saved = [0x7ffd_0000_1000, 0x5555_0000_1234, 0x246, 0x002b_0000_0000_0033, 0];
        assert!(frame_of_signal(&saved));
    }
}
