//! Why an injection did not happen. Each says what, why and what to do; each leaves the target as it was.

use std::io;
use std::time::Duration;

use crate::unsafe_point::Tally;

/// Why the agent was not put in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such process, or it ended.
    #[error("process {pid} is gone: it ended, or executed another program")]
    Gone {
        /// The target.
        pid: i32,
    },
    /// The number is that of a thread.
    #[error("{pid} is a thread of process {process}: attach to the process")]
    Thread {
        /// What was asked for.
        pid: i32,
        /// The process that it belongs to.
        process: i32,
    },
    /// The target is the injector.
    #[error("process {pid} is the one that injects")]
    SameProcess {
        /// The target.
        pid: i32,
    },
    /// A kernel thread.
    #[error("{pid} is a thread of the kernel and runs no program")]
    NotAProgram {
        /// The target.
        pid: i32,
    },
    /// The caller may not trace the target.
    #[error(
        "the kernel does not allow process {pid} to be traced: run as root, or with CAP_SYS_PTRACE ({error})"
    )]
    NotPermitted {
        /// The target.
        pid: i32,
        /// What the kernel said.
        error: io::Error,
    },
    /// Yama forbids it.
    #[error(
        "kernel.yama.ptrace_scope is {scope}, so process {pid} cannot be traced: {}",
        if *.scope >= 3 { "nobody can trace until the host is started again with a lower value" }
        else { "run as root, or with CAP_SYS_PTRACE" }
    )]
    Yama {
        /// The target.
        pid: i32,
        /// The value of the setting.
        scope: u32,
    },
    /// A debugger, or strace, is at work.
    #[error("process {pid} is being traced by process {tracer} ({name}): end that first")]
    OtherTracer {
        /// The target.
        pid: i32,
        /// Who traces it; 0 where that is in another PID namespace.
        tracer: i32,
        /// What the tracer is called.
        name: String,
    },
    /// Another injection is under way.
    #[error("something is already being put into process {pid}: try again in a moment")]
    Busy {
        /// The target.
        pid: i32,
    },
    /// A program for another processor.
    #[error(
        "process {pid} is not a program for this processor (ELF machine {machine}): it cannot be attached to"
    )]
    Architecture {
        /// The target.
        pid: i32,
        /// `e_machine`.
        machine: u16,
    },
    /// A 32-bit program.
    #[error(
        "process {pid} is a 32-bit program: CUDA has no such programs any more, and the agent is of 64 bits"
    )]
    ThirtyTwoBit {
        /// The target.
        pid: i32,
    },
    /// Return addresses are guarded.
    #[error(
        "process {pid} runs with a shadow stack, which was never tried: start it without (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)"
    )]
    ShadowStack {
        /// The target.
        pid: i32,
    },
    /// A program that loads no libraries.
    #[error("process {pid} is linked statically and can load no library: link it dynamically")]
    Static {
        /// The target.
        pid: i32,
    },
    /// A program with musl.
    #[error("process {pid} uses the C library musl: only glibc is known, and CUDA needs it")]
    Musl {
        /// The target.
        pid: i32,
    },
    /// A program with another C library.
    #[error("process {pid} uses no glibc that could be found among its libraries")]
    NoGlibc {
        /// The target.
        pid: i32,
    },
    /// Which library to use is not known.
    #[error(
        "process {pid} has several copies of glibc (LD_AUDIT or dlmopen), and which is the program's is not known"
    )]
    SeveralLibcs {
        /// The target.
        pid: i32,
    },
    /// The library lacks a function.
    #[error(
        "process {pid} has a glibc without {function}: before 2.34 the program must be linked with -lpthread and -ldl"
    )]
    NoFunction {
        /// The target.
        pid: i32,
        /// What is missing.
        function: &'static str,
    },
    /// No place for the first instructions.
    #[error(
        "no library of process {pid} has {needed} unused bytes at the end of its code (the most is {largest})"
    )]
    NoRoom {
        /// The target.
        pid: i32,
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that there are.
        largest: usize,
    },
    /// No thread was where it can be borrowed.
    #[error(
        "no thread of process {pid} could be borrowed in {waited:?}: {tally}; try again when one of them waits for work"
    )]
    NoSafePoint {
        /// The target.
        pid: i32,
        /// How long was tried.
        waited: Duration,
        /// What the threads were doing, as last seen.
        tally: Tally,
    },
    /// The process is stopped or frozen.
    #[error("process {pid} is stopped by a signal: continue it (kill -CONT {pid}) and try again")]
    Stopped {
        /// The target.
        pid: i32,
    },
    /// A seccomp filter is in the way.
    #[error("a seccomp filter of process {pid} does not allow {call}: start it with a profile that does")]
    Seccomp {
        /// The target.
        pid: i32,
        /// The system call.
        call: &'static str,
    },
    /// The seccomp filter is not known.
    #[error(
        "process {pid} has a seccomp filter that cannot be read, so whether it would end the process is not known: \
         run with CAP_SYS_ADMIN and without a seccomp filter, or say that it is trusted ({error})"
    )]
    SeccompUnknown {
        /// The target.
        pid: i32,
        /// What the kernel said.
        error: io::Error,
    },
    /// No memory, or no thread.
    #[error(
        "process {pid} gets no more {what} ({error}): its limits (ulimit -u, -v, pids.max or memory.max of its cgroup) are reached"
    )]
    Limits {
        /// The target.
        pid: i32,
        /// What it asked for.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The borrowed thread does not come back from the C library.
    #[error(
        "a thread of process {pid} did not come back from pthread_create in {waited:?}; it goes on by itself when it can"
    )]
    Stuck {
        /// The target.
        pid: i32,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The borrowed thread faulted.
    #[error(
        "pthread_create faulted in process {pid} (signal {signal}); the thread was put back where it was"
    )]
    Faulted {
        /// The target.
        pid: i32,
        /// The signal.
        signal: i32,
    },
    /// The image must be executable memory or a file, and can be neither.
    #[error(
        "process {pid} can load nothing: vm.memfd_noexec is 2 there, or it has no /proc, and no directory of it takes \
         an executable file ({why})"
    )]
    NowhereToLoad {
        /// The target.
        pid: i32,
        /// What failed last.
        why: String,
    },
    /// The loader refused the image.
    #[error("process {pid} cannot load the agent: {message}")]
    Load {
        /// The target.
        pid: i32,
        /// What the loader said.
        message: String,
    },
    /// The new thread does not answer.
    #[error(
        "the new thread in process {pid} did not answer in {waited:?} while it was to {what}; it will end by itself"
    )]
    NoAnswer {
        /// The target.
        pid: i32,
        /// How long it was waited for.
        waited: Duration,
        /// What it had been asked for.
        what: &'static str,
    },
    /// Something in the target does not look as it must.
    #[error("process {pid} is not as it should be: {what}")]
    Hostile {
        /// The target.
        pid: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// A system call failed.
    #[error("failed to {what} of process {pid}: {error}")]
    System {
        /// The target.
        pid: i32,
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}
