//! Which threads could be borrowed, by what /proc says that they wait in.
//!
//! Nothing is stopped here. A candidate is checked again, more strictly, once it is stopped (`safe_point`).

use std::fs;

use crate::arch::{self, Call};
use crate::process::{Process, Waiting};
use crate::unsafe_point::{Tally, UnsafePoint};

/// How well a call takes an interruption. The first that is there is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The kernel issues it again and nobody can tell.
    Exact,
    /// As well, with a time to wait that the kernel keeps.
    Timed,
    /// It ends with EINTR; while the injector lives that is undone. It is taken only where there is nothing better: an
    /// injector that dies in the few microseconds before leaves the EINTR, as SIGSTOP and SIGCONT would.
    Interrupted,
    /// As before, and its time to wait begins anew.
    InterruptedTimed,
}

/// A thread that could be borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) tid: i32,
    pub(crate) rank: Rank,
    pub(crate) waiting: Waiting,
}

/// `FUTEX_WAIT_BITSET`, which condition variables, semaphores and joins use. Locks use `FUTEX_WAIT`.
const FUTEX_WAIT_BITSET: u64 = 9;
const FUTEX_COMMAND_BITS: u64 = 0x7f;

/// Whether a thread that waits in this call may be borrowed, and how well the call takes it.
///
/// `restarted` says what `restart_syscall` continues, which its own number does not tell.
pub(crate) fn rank(
    number: u32,
    arguments: &[u64; 6],
    restarted: impl FnOnce() -> Option<Call>,
) -> Result<Rank, UnsafePoint> {
    let is_forever = |milliseconds: u64| milliseconds & 0x8000_0000 != 0;
    let timed = |forever: bool, without: Rank, with: Rank| if forever { without } else { with };
    let mut call = arch::call(number).ok_or(UnsafePoint::OtherCall)?;
    if call == Call::Restart {
        call = restarted().ok_or(UnsafePoint::OtherCall)?;
    }
    Ok(match call {
        Call::Futex if arguments[1] & FUTEX_COMMAND_BITS != FUTEX_WAIT_BITSET => {
            return Err(UnsafePoint::Lock);
        }
        // A time to wait is absolute.
        Call::Futex | Call::Read | Call::Receive | Call::Accept | Call::WaitChild => Rank::Exact,
        Call::Poll => timed(is_forever(arguments[2]), Rank::Exact, Rank::Timed),
        Call::Select(timeout) => timed(arguments.get(timeout).copied() == Some(0), Rank::Exact, Rank::Timed),
        Call::Sleep => Rank::Timed,
        Call::Epoll { pointer: false } => {
            timed(is_forever(arguments[3]), Rank::Interrupted, Rank::InterruptedTimed)
        }
        Call::Epoll { pointer: true } => timed(arguments[3] == 0, Rank::Interrupted, Rank::InterruptedTimed),
        Call::Signal => timed(arguments[2] == 0, Rank::Interrupted, Rank::InterruptedTimed),
        Call::Restart => return Err(UnsafePoint::OtherCall),
    })
}

/// What a call is that goes on after an interruption: what the code before the instruction says, else the kernel's
/// function that it sleeps in. Either alone is not enough: the number may come from elsewhere (`syscall()`), and a sleep
/// that goes on shows as the entry of system calls.
pub(crate) fn restarted(process: &Process, tid: i32, instruction: u64) -> Option<Call> {
    let mut code = [0; CODE_BYTES];
    let before = instruction.saturating_sub((arch::SYSCALL.len() + CODE_BYTES) as u64);
    let read = process.peek(before, &mut code);
    let by_code = read.is_ok_and(|read| read == CODE_BYTES).then(|| arch::number_loaded(&code)).flatten();
    match by_code.and_then(arch::call) {
        Some(call @ (Call::Sleep | Call::Poll | Call::Futex)) => Some(call),
        _ => by_wait_channel(&process.read(&format!("task/{tid}/wchan")).ok()?),
    }
}

/// How far before the system call its number is loaded, at most.
const CODE_BYTES: usize = 24;

fn by_wait_channel(function: &str) -> Option<Call> {
    let calls = [("nanosleep", Call::Sleep), ("poll", Call::Poll), ("futex", Call::Futex)];
    calls.into_iter().find(|(part, _)| function.contains(part)).map(|(_, call)| call)
}

/// The threads that could be borrowed now, the best first; the others are counted.
pub(crate) fn candidates(
    process: &Process,
    is_library_code: impl Fn(u64) -> bool,
    tally: &mut Tally,
) -> std::io::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for tid in process.threads()? {
        match candidate(process, &is_library_code, tid) {
            Ok(candidate) => found.push(candidate),
            Err(point) => tally.add(point),
        }
    }
    found.sort_by_key(|candidate| candidate.rank);
    Ok(found)
}

fn candidate(
    process: &Process,
    is_library_code: impl Fn(u64) -> bool,
    tid: i32,
) -> Result<Candidate, UnsafePoint> {
    let waiting = process.waiting(tid).map_err(|_| UnsafePoint::Moved)?.ok_or(UnsafePoint::Running)?;
    let rank = rank(waiting.number, &waiting.arguments, || restarted(process, tid, waiting.instruction))?;
    if !is_library_code(waiting.instruction.saturating_sub(arch::SYSCALL.len() as u64)) {
        return Err(UnsafePoint::OtherCode);
    }
    if matches!(arch::call(waiting.number), Some(Call::Read)) && reads_file(process, waiting.arguments[0]) {
        return Err(UnsafePoint::File);
    }
    Ok(Candidate { tid, rank, waiting })
}

/// Files are read by the loader and, in some containers, by the allocator, with locks held.
fn reads_file(process: &Process, fd: u64) -> bool {
    fs::read_link(process.file(&format!("fd/{fd}")))
        .map_or(true, |path| path.is_absolute() && !path.starts_with("/dev"))
}

#[cfg(test)]
mod tests {
    use super::{Rank, by_wait_channel, rank};
    use crate::arch::Call;
    use crate::unsafe_point::UnsafePoint;

    const FUTEX: u32 = 202;
    const PRIVATE_WAIT: u64 = 128;
    const PRIVATE_WAIT_BITSET: u64 = 128 | 256 | 9;

    fn of(number: u32, arguments: [u64; 6]) -> Result<Rank, UnsafePoint> {
        rank(number, &arguments, || None)
    }

    #[test]
    fn a_lock_is_not_a_safe_point_but_a_condition_variable_is() {
        assert_eq!(of(FUTEX, [0, PRIVATE_WAIT, 0, 0, 0, 0]), Err(UnsafePoint::Lock));
        assert_eq!(of(FUTEX, [0, PRIVATE_WAIT_BITSET, 0, 0, 0, 0]), Ok(Rank::Exact));
    }

    #[test]
    fn calls_that_end_with_eintr_come_last() {
        let forever = u64::from((-1_i32).cast_unsigned());
        assert_eq!(of(232, [0, 0, 0, forever, 0, 0]), Ok(Rank::Interrupted));
        assert_eq!(of(232, [0, 0, 0, 100, 0, 0]), Ok(Rank::InterruptedTimed));
        assert_eq!(of(7, [0, 0, forever, 0, 0, 0]), Ok(Rank::Exact));
        assert_eq!(of(7, [0, 0, 100, 0, 0, 0]), Ok(Rank::Timed));
        assert!(Rank::Timed < Rank::Interrupted);
    }

    #[test]
    fn a_restarted_call_is_judged_by_what_it_continues() {
        let futex = || by_wait_channel("futex_do_wait");
        assert_eq!(rank(219, &[0, PRIVATE_WAIT, 0, 0, 0, 0], futex), Err(UnsafePoint::Lock));
        assert_eq!(rank(219, &[0; 6], || Some(Call::Sleep)), Ok(Rank::Timed));
        assert_eq!(of(219, [0; 6]), Err(UnsafePoint::OtherCall));
        assert_eq!(by_wait_channel("hrtimer_nanosleep"), Some(Call::Sleep));
        assert_eq!(by_wait_channel("0"), None);
    }

    #[test]
    fn calls_that_are_not_listed_are_left_alone() {
        const PAUSE: u32 = 34;
        const RT_SIGSUSPEND: u32 = 130;
        const CONNECT: u32 = 42;
        for number in [PAUSE, RT_SIGSUSPEND, CONNECT, 1, 9999] {
            assert_eq!(of(number, [0; 6]), Err(UnsafePoint::OtherCall), "{number}");
        }
    }
}
