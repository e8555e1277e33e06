//! x86-64.

use core::arch::asm;
use core::ffi::c_char;

/// Numbers of system calls.
pub(crate) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const FSTAT: usize = 5;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const MUNMAP: usize = 11;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const MADVISE: usize = 28;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const FTRUNCATE: usize = 77;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const GETTID: usize = 186;
    pub(crate) const FUTEX: usize = 202;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const MEMFD_CREATE: usize = 319;

    /// Where `st_size` lies in what FSTAT fills, and how large that is.
    pub(crate) const STAT_SIZE_AT: usize = 48;
    pub(crate) const STAT_BYTES: usize = 144;
}

/// A system call; a result below 0 is minus errno.
///
/// # Safety
/// The call with these arguments does nothing that breaks memory which Rust relies on.
pub(crate) unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel preserves everything but rax, rcx and r11, and by the caller's word the call itself is harmless.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Where the stack of this thread is now.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// The USDT site `stallscope:launch`: correlation id, number of the call, name of the kernel (or null). It is a `nop`
/// until somebody attaches to it.
#[inline(never)]
pub(crate) fn probe_launch(correlation: u32, call: u32, name: *const c_char) {
    // SAFETY: a nop. The note that describes it lies in a section that is never loaded; what it says of registers is what
    // the operands below say.
    unsafe {
        asm!(
            "990: nop",
            ".pushsection .note.stapsdt,\"\",\"note\"",
            ".balign 4",
            ".4byte 992f-991f, 994f-993f, 3",
            "991: .asciz \"stapsdt\"",
            "992: .balign 4",
            "993: .8byte 990b",
            // No base to compare with (nothing moves the section that is described), and no semaphore.
            ".8byte 0",
            ".8byte 0",
            ".asciz \"stallscope\"",
            ".asciz \"launch\"",
            ".asciz \"4@%edi 4@%esi 8@%rdx\"",
            "994: .balign 4",
            ".popsection",
            in("edi") correlation,
            in("esi") call,
            in("rdx") name,
            options(nostack, preserves_flags),
        );
    }
}

// What the compiler calls without being asked. Hidden, so that nothing else in the job can come to use them, and written
// here because in Rust they would be compiled into calls of themselves.
#[cfg(not(test))]
core::arch::global_asm!(
    ".pushsection .text.stallscope_memory,\"ax\",\"progbits\"",
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    ".hidden memcpy, memmove, memset, memcmp, bcmp, strlen",
    ".type memcpy, @function",
    ".type memmove, @function",
    ".type memset, @function",
    ".type memcmp, @function",
    ".type bcmp, @function",
    ".type strlen, @function",
    "memmove:",
    "mov rax, rdi",
    "sub rax, rsi",
    "cmp rax, rdx",
    "jae memcpy",
    // The destination begins inside the source: from the end.
    "mov rax, rdi",
    "mov rcx, rdx",
    "lea rdi, [rdi + rdx - 1]",
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    "bcmp:",
    "memcmp:",
    "xor ecx, ecx",
    "2:",
    "cmp rcx, rdx",
    "je 3f",
    "movzx eax, byte ptr [rdi + rcx]",
    "movzx r8d, byte ptr [rsi + rcx]",
    "inc rcx",
    "sub eax, r8d",
    "je 2b",
    "ret",
    "3:",
    "xor eax, eax",
    "ret",
    "strlen:",
    "xor eax, eax",
    "4:",
    "cmp byte ptr [rdi + rax], 0",
    "je 5f",
    "inc rax",
    "jmp 4b",
    "5:",
    "ret",
    ".popsection",
);
