//! The code that is left in the target: what the chosen thread runs, and what the new thread runs.
//!
//! It lies in the unused end of the last page of a library's code, where nothing else ever runs, and is the same bytes
//! for every injection by this version: only the [`Context`] after it differs. So a thread may be in it while another
//! injection finds it there.
//!
//! What the chosen thread runs (the stub) needs nobody: it reads what it has to restore from the context, touches no
//! byte of the thread's own stack, and after the marker brings the thread back by itself. A tracer that lives stops it
//! at the marker and restores it more exactly: see the crate's head. There is no instruction in it that stops or ends a
//! thread which nobody traces.
//!
//! Registers from the first `mmap` on: rbx region or negated errno, r14 block, r13 vector state, rbp address of errno,
//! r15 errno, r12 result of `pthread_create`.

use core::arch::global_asm;
use core::mem::offset_of;

use super::context::{BLOCK_AT, Block, Context, OnSignal, REGION_BYTES, Request, STACK_TOP, VECTOR_AT};
use super::number;

/// How long the new thread sleeps between two looks at its orders, and what the kernel adds.
const PAUSE_NS: u32 = 100_000;
/// How long it sleeps when there was none for a while.
const LONG_PAUSE_NS: u32 = 20_000_000;
/// Looks with a long pause, after the others. Then the injector is taken for dead: after 10 s.
const LATE_LOOKS: u32 = 500;
/// All of them.
const LOOKS: u32 = 2_000 + LATE_LOOKS;
/// The new thread is no part of the target's work, so signals pass it by; but faults must end a program as they always
/// do, and glibc waits for every thread's answer to signals 32 and 33.
const NEW_THREAD_BLOCKS: u64 = !(bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGFPE)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS)
    | bit(32)
    | bit(33));

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

macro_rules! request {
    ($field:ident) => {
        offset_of!(Block, request) + offset_of!(Request, $field)
    };
}

global_asm!(
    ".pushsection .rodata.stallscope_inject, \"a\", @progbits",
    ".balign 16",
    ".globl stallscope_inject_seed, stallscope_inject_marker, stallscope_inject_context",
    "stallscope_inject_seed:",
    // ---- the chosen thread -------------------------------------------------------------------------------------
    // The thread comes here as from a system call that was interrupted. If a handler runs first and ends that call, the
    // kernel goes on after the first instruction, with -EINTR as the result: all is as the program expects it. Else it
    // goes back by the two bytes that a system call has, and comes to the first.
    "    jmp 1f",
    "    jmp [rip + stallscope_inject_context + {RIP}]",
    // No handler of the target runs from here on, so that the interrupted call sees the signals that come.
    "1:  mov eax, {RT_SIGPROCMASK}",
    "    mov edi, 2",
    "    lea rsi, [rip + stallscope_inject_context + {BLOCKED}]",
    "    xor edx, edx",
    "    mov r10d, 8",
    "    syscall",
    // Memory: readable, writable, private.
    "    mov eax, {MMAP}",
    "    xor edi, edi",
    "    mov esi, {REGION_BYTES}",
    "    mov edx, 3",
    "    mov r10d, 0x22",
    "    mov r8, -1",
    "    xor r9d, r9d",
    "    xor r12d, r12d",
    "    syscall",
    "    mov rbx, rax",
    "    cmp rax, -4095",
    "    jae 8f",
    "    lea r14, [rbx + {BLOCK_AT}]",
    "    lea r13, [rbx + {VECTOR_AT}]",
    "    lea rsp, [rbx + {STACK_TOP}]",
    // Vector state: the page is zero, so the header of the XSAVE area is.
    "    cld",
    "    mov eax, [rip + stallscope_inject_context + {VECTOR_MASK}]",
    "    xor edx, edx",
    "    test eax, eax",
    "    jz 2f",
    "    xsave64 [r13]",
    "    jmp 3f",
    "2:  fxsave64 [r13]",
    "3:  call [rip + stallscope_inject_context + {ERRNO_LOCATION}]",
    "    mov rbp, rax",
    "    mov r15d, [rax]",
    // The block, as far as the new thread needs it to end by itself.
    "    mov rax, {NEW_THREAD_BLOCKS}",
    "    mov [r14 + {B_BLOCKED}], rax",
    "    mov dword ptr [r14 + {B_PAUSE} + 8], {PAUSE_NS}",
    "    mov dword ptr [r14 + {B_LONG_PAUSE} + 8], {LONG_PAUSE_NS}",
    "    mov rax, [rip + stallscope_inject_context + {PTHREAD_DETACH}]",
    "    mov [r14 + {B_DETACH}], rax",
    "    mov [r14 + {B_REGION}], rbx",
    "    mov qword ptr [r14 + {B_DESCRIPTORS}], -1",
    "    mov qword ptr [r14 + {B_DESCRIPTORS} + 8], -1",
    "    lea rdi, [r14 + {B_PTHREAD}]",
    "    xor esi, esi",
    "    lea rdx, [rip + 20f]",
    "    mov rcx, r14",
    "    call [rip + stallscope_inject_context + {PTHREAD_CREATE}]",
    "    mov r12d, eax",
    "    mov [rbp], r15d",
    "    mov eax, [rip + stallscope_inject_context + {VECTOR_MASK}]",
    "    xor edx, edx",
    "    test eax, eax",
    "    jz 4f",
    "    xrstor64 [r13]",
    "    jmp 5f",
    "4:  fxrstor64 [r13]",
    "5:  mov rsp, [rip + stallscope_inject_context + {RSP}]",
    "    test r12d, r12d",
    "    jz 8f",
    "    mov eax, {MUNMAP}",
    "    mov rdi, rbx",
    "    mov esi, {REGION_BYTES}",
    "    syscall",
    "    mov rbx, -1",
    // The marker: a signal to itself that the target ignores. A tracer is told of it; without one nothing happens.
    "8:  mov eax, {TGKILL}",
    "    mov edi, [rip + stallscope_inject_context + {TGID}]",
    "    mov esi, [rip + stallscope_inject_context + {TID}]",
    "    mov edx, [rip + stallscope_inject_context + {SIGNAL}]",
    "    syscall",
    "stallscope_inject_marker:",
    // As above: after the first instruction if a handler ran that ends the call, else at it.
    "    jmp 10f",
    "    mov r13d, 1",
    "    test rbx, rbx",
    "    js 14f",
    "    jmp 13f",
    // ---- nobody traces the thread any more: it goes back by itself ------------------------------------------------
    // Does a handler have to run, and does the call return EINTR then? r13: 0 issue it again, 1 EINTR.
    "10: xor r13d, r13d",
    "    test rbx, rbx",
    "    js 14f",
    "    cmp qword ptr [rip + stallscope_inject_context + {ON_SIGNAL}], {RESTART}",
    "    je 13f",
    "    mov eax, {RT_SIGPENDING}",
    "    lea rdi, [r14 + {B_SCRATCH}]",
    "    mov esi, 8",
    "    syscall",
    "    mov r15, [rip + stallscope_inject_context + {MASK}]",
    "    not r15",
    "    and r15, [r14 + {B_SCRATCH}]",
    "11: test r15, r15",
    "    jz 13f",
    "    bsf rdi, r15",
    "    btr r15, rdi",
    "    inc edi",
    "    mov eax, {RT_SIGACTION}",
    "    xor esi, esi",
    "    lea rdx, [r14 + {B_SCRATCH}]",
    "    mov r10d, 8",
    "    syscall",
    "    cmp qword ptr [r14 + {B_SCRATCH}], 1",
    "    jbe 11b",
    "    cmp qword ptr [rip + stallscope_inject_context + {ON_SIGNAL}], {BY_HANDLER}",
    "    jne 12f",
    "    test dword ptr [r14 + {B_SCRATCH} + 8], {SA_RESTART}",
    "    jnz 13f",
    "12: inc r13d",
    "13: mov dword ptr [r14 + {B_LEFT}], 1",
    // Flags before signals are unblocked: they pass through the stack pointer.
    "14: lea rsp, [rip + stallscope_inject_context + {EFLAGS}]",
    "    popfq",
    "    mov rsp, [rip + stallscope_inject_context + {RSP}]",
    "    mov eax, {RT_SIGPROCMASK}",
    "    mov edi, 2",
    "    lea rsi, [rip + stallscope_inject_context + {MASK}]",
    "    mov edx, 0",
    "    mov r10d, 8",
    "    syscall",
    // No instruction changes flags from here on. rcx may carry the address: a system call leaves it there anyway.
    "    mov rcx, r13",
    "    mov rax, [rip + stallscope_inject_context + {AGAIN_RAX}]",
    "    jrcxz 15f",
    "    mov rax, {MINUS_EINTR}",
    "    mov rcx, [rip + stallscope_inject_context + {RIP}]",
    "    jmp 16f",
    "15: mov rcx, [rip + stallscope_inject_context + {AGAIN_RIP}]",
    "16: mov r15, [rip + stallscope_inject_context + {R15}]",
    "    mov r14, [rip + stallscope_inject_context + {R14}]",
    "    mov r13, [rip + stallscope_inject_context + {R13}]",
    "    mov r12, [rip + stallscope_inject_context + {R12}]",
    "    mov rbp, [rip + stallscope_inject_context + {RBP}]",
    "    mov rbx, [rip + stallscope_inject_context + {RBX}]",
    "    mov r11, [rip + stallscope_inject_context + {R11}]",
    "    mov r10, [rip + stallscope_inject_context + {R10}]",
    "    mov r9, [rip + stallscope_inject_context + {R9}]",
    "    mov r8, [rip + stallscope_inject_context + {R8}]",
    "    mov rdx, [rip + stallscope_inject_context + {RDX}]",
    "    mov rsi, [rip + stallscope_inject_context + {RSI}]",
    "    mov rdi, [rip + stallscope_inject_context + {RDI}]",
    "    jmp rcx",
    // ---- the new thread: makes the calls that it is asked for, and ends when nobody asks ---------------------------
    "20: endbr64",
    "    push rbx",
    "    push rbp",
    "    push r12",
    "    mov rbx, rdi",
    "    mov eax, {RT_SIGPROCMASK}",
    "    mov edi, 2",
    "    lea rsi, [rbx + {B_BLOCKED}]",
    "    xor edx, edx",
    "    mov r10d, 8",
    "    syscall",
    "    mov rdi, fs:[16]",
    "    call [rbx + {B_DETACH}]",
    "    mov eax, {GETTID}",
    "    syscall",
    "    mov [rbx + {B_TID}], eax",
    "21: mov ebp, {LOOKS}",
    "22: mov r12d, [rbx + {B_ORDER}]",
    "    cmp r12d, [rbx + {B_DONE}]",
    "    jne 23f",
    "    call 40f",
    "    dec ebp",
    "    jnz 22b",
    "    jmp 30f",
    "23: mov rax, [rbx + {Q_FUNCTION}]",
    "    test rax, rax",
    "    jz 30f",
    "    cmp dword ptr [rbx + {Q_LAST}], 0",
    "    je 24f",
    "    mov qword ptr [rbx + {B_DESCRIPTORS}], -1",
    "    mov qword ptr [rbx + {B_DESCRIPTORS} + 8], -1",
    "24: mov rdi, [rbx + {Q_ARGUMENTS}]",
    "    mov rsi, [rbx + {Q_ARGUMENTS} + 8]",
    "    mov rdx, [rbx + {Q_ARGUMENTS} + 16]",
    "    mov rcx, [rbx + {Q_ARGUMENTS} + 24]",
    "    mov r8, [rbx + {Q_ARGUMENTS} + 32]",
    "    mov r9, [rbx + {Q_ARGUMENTS} + 40]",
    "    cmp rax, {SYSCALL}",
    "    je 25f",
    "    call rax",
    "    jmp 26f",
    "25: mov eax, [rbx + {Q_NUMBER}]",
    "    mov r10, rcx",
    "    syscall",
    "26: mov [rbx + {B_RESULT}], rax",
    "    mov ecx, [rbx + {Q_KEEP}]",
    "    cmp ecx, 4",
    "    jae 27f",
    "    mov [rbx + {B_DESCRIPTORS} + rcx * 4], eax",
    "27: mov [rbx + {B_DONE}], r12d",
    "    cmp dword ptr [rbx + {Q_LAST}], 0",
    "    je 21b",
    "    mov rax, [rbx + {Q_FINALLY}]",
    "    test rax, rax",
    "    jz 30f",
    "    mov rdi, [rbx + {Q_FINALLY_ARGUMENT}]",
    "    call rax",
    "30: mov ebp, 4",
    "31: dec ebp",
    "    js 33f",
    "    mov edi, [rbx + {B_DESCRIPTORS} + rbp * 4]",
    "    test edi, edi",
    "    js 31b",
    "    mov eax, {CLOSE}",
    "    syscall",
    "    jmp 31b",
    // The region belongs to the chosen thread until that says otherwise. If it never does, the region stays.
    "33: mov ebp, {LOOKS}",
    "34: cmp dword ptr [rbx + {B_LEFT}], 0",
    "    jne 35f",
    "    call 40f",
    "    dec ebp",
    "    jnz 34b",
    "    jmp 36f",
    "35: mov eax, {MUNMAP}",
    "    mov rdi, [rbx + {B_REGION}]",
    "    mov esi, {REGION_BYTES}",
    "    syscall",
    "36: xor eax, eax",
    "    pop r12",
    "    pop rbp",
    "    pop rbx",
    "    ret",
    "40: mov eax, {NANOSLEEP}",
    "    lea rdi, [rbx + {B_PAUSE}]",
    "    cmp ebp, {LATE_LOOKS}",
    "    ja 41f",
    "    lea rdi, [rbx + {B_LONG_PAUSE}]",
    "41: xor esi, esi",
    "    syscall",
    "    ret",
    ".balign 8",
    "stallscope_inject_context:",
    ".popsection",
    RT_SIGPROCMASK = const number::RT_SIGPROCMASK,
    RT_SIGPENDING = const number::RT_SIGPENDING,
    RT_SIGACTION = const number::RT_SIGACTION,
    MMAP = const number::MMAP,
    MUNMAP = const number::MUNMAP,
    TGKILL = const number::TGKILL,
    GETTID = const number::GETTID,
    NANOSLEEP = const number::NANOSLEEP,
    CLOSE = const number::CLOSE,
    SA_RESTART = const libc::SA_RESTART,
    MINUS_EINTR = const -libc::EINTR,
    REGION_BYTES = const REGION_BYTES,
    STACK_TOP = const STACK_TOP,
    VECTOR_AT = const VECTOR_AT,
    BLOCK_AT = const BLOCK_AT,
    PAUSE_NS = const PAUSE_NS,
    LONG_PAUSE_NS = const LONG_PAUSE_NS,
    LOOKS = const LOOKS,
    LATE_LOOKS = const LATE_LOOKS,
    NEW_THREAD_BLOCKS = const NEW_THREAD_BLOCKS.cast_signed(),
    SYSCALL = const Request::SYSCALL,
    RESTART = const OnSignal::RESTART,
    BY_HANDLER = const OnSignal::BY_HANDLER,
    BLOCKED = const offset_of!(Context, blocked),
    MASK = const offset_of!(Context, mask),
    ON_SIGNAL = const offset_of!(Context, on_signal),
    AGAIN_RAX = const offset_of!(Context, again_rax),
    AGAIN_RIP = const offset_of!(Context, again_rip),
    TGID = const offset_of!(Context, tgid),
    TID = const offset_of!(Context, tid),
    SIGNAL = const offset_of!(Context, signal),
    VECTOR_MASK = const offset_of!(Context, vector_mask),
    ERRNO_LOCATION = const offset_of!(Context, errno_location),
    PTHREAD_CREATE = const offset_of!(Context, pthread_create),
    PTHREAD_DETACH = const offset_of!(Context, pthread_detach),
    R15 = const offset_of!(Context, r15),
    R14 = const offset_of!(Context, r14),
    R13 = const offset_of!(Context, r13),
    R12 = const offset_of!(Context, r12),
    RBP = const offset_of!(Context, rbp),
    RBX = const offset_of!(Context, rbx),
    R11 = const offset_of!(Context, r11),
    R10 = const offset_of!(Context, r10),
    R9 = const offset_of!(Context, r9),
    R8 = const offset_of!(Context, r8),
    RDX = const offset_of!(Context, rdx),
    RSI = const offset_of!(Context, rsi),
    RDI = const offset_of!(Context, rdi),
    RIP = const offset_of!(Context, rip),
    EFLAGS = const offset_of!(Context, eflags),
    RSP = const offset_of!(Context, rsp),
    B_BLOCKED = const offset_of!(Block, blocked),
    B_PAUSE = const offset_of!(Block, pause),
    B_LONG_PAUSE = const offset_of!(Block, long_pause),
    B_DETACH = const offset_of!(Block, detach),
    B_REGION = const offset_of!(Block, region),
    B_PTHREAD = const offset_of!(Block, pthread),
    B_SCRATCH = const offset_of!(Block, scratch),
    B_TID = const offset_of!(Block, tid),
    B_LEFT = const offset_of!(Block, left),
    B_ORDER = const offset_of!(Block, order),
    B_DONE = const offset_of!(Block, done),
    B_RESULT = const offset_of!(Block, result),
    B_DESCRIPTORS = const offset_of!(Block, descriptors),
    Q_FUNCTION = const request!(function),
    Q_NUMBER = const request!(number),
    Q_ARGUMENTS = const request!(arguments),
    Q_FINALLY = const request!(finally),
    Q_FINALLY_ARGUMENT = const request!(finally_argument),
    Q_KEEP = const request!(keep),
    Q_LAST = const request!(last),
);

unsafe extern "C" {
    #[link_name = "stallscope_inject_seed"]
    static SEED: u8;
    #[link_name = "stallscope_inject_marker"]
    static MARKER: u8;
    #[link_name = "stallscope_inject_context"]
    static CONTEXT: u8;
}

/// The code, and where in it things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed {
    /// What the chosen thread runs begins with the first byte; the context follows the last.
    pub(crate) code: &'static [u8],
    /// The instruction at which the chosen thread stops for a tracer.
    pub(crate) marker: u64,
}

/// The code to leave in the target.
pub(crate) fn seed() -> Seed {
    let begin = &raw const SEED;
    let bytes = (&raw const CONTEXT).addr() - begin.addr();
    // SAFETY: both symbols bound one stretch of read-only data that the assembler block above lays out.
    let code = unsafe { core::slice::from_raw_parts(begin, bytes) };
    Seed { code, marker: ((&raw const MARKER).addr() - begin.addr()) as u64 }
}

/// Vector state that is kept: x87, SSE, AVX and AVX-512. The C library uses no tiles and no protection keys here, and
/// what it does not use the kernel keeps.
pub(super) fn vector_mask() -> u64 {
    const KEPT: u64 = 0xe7;
    if !std::arch::is_x86_feature_detected!("xsave") {
        return 0;
    }
    // SAFETY: the processor and the kernel offer XSAVE, so the control register can be read.
    let enabled = unsafe { core::arch::x86_64::_xgetbv(0) };
    enabled & KEPT
}

#[cfg(test)]
mod tests {
    use super::seed;

    #[test]
    fn the_seed_is_small_and_stops_nobody() {
        let seed = seed();
        assert!(seed.code.len() < 1024, "{} bytes", seed.code.len());
        assert!(seed.marker < seed.code.len() as u64);
        // Two bytes, as long as the instruction that enters the kernel.
        const SHORT_JUMP: u8 = 0xeb;
        for place in [0, usize::try_from(seed.marker).unwrap()] {
            assert_eq!(seed.code[place], SHORT_JUMP);
        }
        let mut decoder = iced_x86::Decoder::with_ip(64, seed.code, 0, 0);
        let mut instruction = iced_x86::Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            assert!(
                !matches!(
                    instruction.mnemonic(),
                    iced_x86::Mnemonic::Int3
                        | iced_x86::Mnemonic::Int
                        | iced_x86::Mnemonic::Hlt
                        | iced_x86::Mnemonic::INVALID
                ),
                "{instruction:?}"
            );
        }
    }
}
