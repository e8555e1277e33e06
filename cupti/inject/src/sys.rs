//! System calls that the standard library does not offer: everything unsafe of this crate but the seed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::arch::Registers;

/// Fails with errno when a call returned -1.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn own(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for the caller, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One ptrace request whose `data` is a number.
fn ptrace(request: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<libc::c_long> {
    // SAFETY: requests that are made this way read and write no memory of this process.
    check(unsafe { libc::ptrace(request, tid, address, data) })
}

/// The calling thread does not wait for a processor from here on, if it may: while it is on its way to let go of a
/// thread, that one waits as well.
pub(crate) fn go_first() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one sched_param.
    let _without_it_all_works_as_well = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const lowest)
    };
}

/// Attaches without stopping. System call stops, if asked for, are told from signals.
pub(crate) fn seize(tid: i32) -> io::Result<()> {
    let options = usize::try_from(libc::PTRACE_O_TRACESYSGOOD).map_err(io::Error::other)?;
    ptrace(libc::PTRACE_SEIZE, tid, 0, options).map(drop)
}

/// Asks a seized thread to stop.
pub(crate) fn interrupt(tid: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// To its next signal.
    Run,
    /// To its next signal or system call.
    ToSyscall,
    /// Untraced.
    Detach,
}

/// Lets a stopped thread go on, with a signal (0: none).
pub(crate) fn resume(tid: i32, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::Run => libc::PTRACE_CONT,
        Resume::ToSyscall => libc::PTRACE_SYSCALL,
        Resume::Detach => libc::PTRACE_DETACH,
    };
    ptrace(request, tid, 0, usize::try_from(signal).map_err(io::Error::other)?).map(drop)
}

/// `NT_PRSTATUS`.
const GENERAL_REGISTERS: usize = 1;

pub(crate) fn registers(tid: i32) -> io::Result<Registers> {
    let mut registers = Registers::new_zeroed();
    let mut vector = libc::iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of::<Registers>() };
    // SAFETY: the kernel writes at most `iov_len` bytes to `registers`, which outlives the call, and any bytes are
    // valid for it.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, GENERAL_REGISTERS, &raw mut vector) })?;
    if vector.iov_len == size_of::<Registers>() {
        Ok(registers)
    } else {
        Err(io::Error::other("the thread's registers are those of another architecture"))
    }
}

pub(crate) fn set_registers(tid: i32, registers: &Registers) -> io::Result<()> {
    let mut registers = *registers;
    let mut vector = libc::iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of::<Registers>() };
    // SAFETY: the kernel reads `iov_len` bytes of `registers`, which outlives the call.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGSET, tid, GENERAL_REGISTERS, &raw mut vector) }).map(drop)
}

/// Signals that the thread blocks once it is out of its system call.
pub(crate) fn signal_mask(tid: i32) -> io::Result<u64> {
    let mut mask = 0_u64;
    // SAFETY: the kernel writes 8 bytes, as the address argument says, to `mask`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut mask) })?;
    Ok(mask)
}

pub(crate) fn set_signal_mask(tid: i32, mask: u64) -> io::Result<()> {
    let mut mask = mask;
    // SAFETY: the kernel reads 8 bytes, as the address argument says, from `mask`.
    check(unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw mut mask) }).map(drop)
}

#[repr(C)]
struct PeekSignals {
    from: u64,
    flags: u32,
    count: i32,
}

/// Signals that wait for the thread or for its process, blocked or not.
pub(crate) fn pending_signals(tid: i32) -> io::Result<u64> {
    const AT_MOST: usize = 64;
    let mut pending = 0;
    for flags in [0, libc::PTRACE_PEEKSIGINFO_SHARED] {
        let arguments = PeekSignals { from: 0, flags, count: i32::try_from(AT_MOST).unwrap_or(i32::MAX) };
        // SAFETY: a siginfo_t may be all zeros.
        let mut found: [libc::siginfo_t; AT_MOST] = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel reads `arguments` and writes at most `count` elements to `found`.
        let count = check(unsafe {
            libc::ptrace(libc::PTRACE_PEEKSIGINFO, tid, &raw const arguments, found.as_mut_ptr())
        })?;
        let count = usize::try_from(count).unwrap_or(0);
        for info in found.iter().take(count) {
            if let Ok(bit) = u32::try_from(info.si_signo - 1) {
                pending |= 1_u64.checked_shl(bit).unwrap_or(0);
            }
        }
    }
    Ok(pending)
}

/// Whether the kernel itself raised the signal for which the thread is stopped: a fault.
pub(crate) fn stopped_by_fault(tid: i32) -> io::Result<bool> {
    // SAFETY: a siginfo_t may be all zeros.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo_t to `info`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, tid, 0, &raw mut info) })?;
    Ok(info.si_code > 0)
}

/// One instruction of a seccomp filter.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct FilterInstruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) k: u32,
}

/// The stopped thread's seccomp filter of this number, the newest first; `None` after the last.
pub(crate) fn seccomp_filter(tid: i32, index: usize) -> io::Result<Option<Vec<FilterInstruction>>> {
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    const BPF_MAXINSNS: usize = 4096;
    let count = match ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, 0) {
        Ok(count) => usize::try_from(count).unwrap_or(0),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut filter = vec![FilterInstruction::new_zeroed(); BPF_MAXINSNS];
    // SAFETY: the kernel writes one filter, and accepts none of more than BPF_MAXINSNS instructions.
    let written = check(unsafe { libc::ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, filter.as_mut_ptr()) })?;
    if usize::try_from(written) != Ok(count) {
        return Err(io::Error::other("the thread's filters changed"));
    }
    filter.truncate(count);
    Ok(Some(filter))
}

/// A word of the memory that a thread has now.
pub(crate) fn read_word(tid: i32, address: u64) -> io::Result<u64> {
    let mut word = 0_u64;
    let here = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: size_of::<u64>() };
    let address = usize::try_from(address).map_err(io::Error::other)?;
    let there =
        libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: size_of::<u64>() };
    // SAFETY: the kernel writes at most 8 bytes to `word`; `there` is an address of the other process.
    let read = unsafe { libc::process_vm_readv(tid, &raw const here, 1, &raw const there, 1, 0) };
    if usize::try_from(read) == Ok(size_of::<u64>()) { Ok(word) } else { Err(io::Error::last_os_error()) }
}

/// What happened to a traced thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It stopped: signal, and the ptrace event (0: none).
    Stopped { signal: i32, event: i32 },
    /// It is no more.
    Ended,
}

/// What happened to a traced thread since the last call, without waiting.
///
/// That it ended is looked at and left for its parent to be told, which may be this very process.
pub(crate) fn poll_event(tid: i32) -> io::Result<Option<Event>> {
    let looked = wait(tid, libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT)?;
    if matches!(looked, Some(Event::Stopped { .. })) { wait(tid, libc::WSTOPPED) } else { Ok(looked) }
}

fn wait(tid: i32, what: i32) -> io::Result<Option<Event>> {
    // SAFETY: a siginfo_t may be all zeros.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = what | libc::WNOHANG | libc::__WALL;
    // SAFETY: the kernel writes one siginfo_t to `info`.
    let waited = unsafe { libc::waitid(libc::P_PID, tid.unsigned_abs(), &raw mut info, flags) };
    if let Err(error) = check(waited.into()) {
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(Some(Event::Ended)),
            Some(libc::EINTR) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: waitid fills this field, or leaves it zero.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        0 => None,
        libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED => Some(Event::Ended),
        _ => Some(Event::Stopped { signal: status & 0xff, event: status >> 8 }),
    })
}

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// A duplicate of a descriptor of another process.
pub(crate) fn pidfd_getfd(pidfd: impl AsFd, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0) })
}

/// Seals of a memfd; an error for whatever is none.
pub(crate) fn seals(fd: impl AsFd) -> io::Result<i32> {
    // SAFETY: the call takes numbers only.
    let seals = check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GET_SEALS) }.into())?;
    i32::try_from(seals).map_err(io::Error::other)
}

pub(crate) fn add_seals(fd: impl AsFd, seals: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_ADD_SEALS, seals) }.into()).map(drop)
}

/// Whether nothing can be executed from the file system that this file is on.
pub(crate) fn is_noexec(fd: impl AsFd) -> io::Result<bool> {
    // SAFETY: a statvfs may be all zeros.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one statvfs to `about`.
    check(unsafe { libc::fstatvfs(fd.as_fd().as_raw_fd(), &raw mut about) }.into())?;
    Ok(about.f_flag & libc::ST_NOEXEC != 0)
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a path as a process whose root directory is `root` would, without leaving it and without magic links.
pub(crate) fn open_beneath(
    root: impl AsFd,
    path: &std::ffi::CStr,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()),
        mode: mode.into(),
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: the kernel reads the path up to its NUL and one `OpenHow`, as the size says.
    own(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })
}

/// Removes a name from a directory.
pub(crate) fn unlink_at(directory: impl AsFd, name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: the kernel reads the name up to its NUL.
    check(unsafe { libc::unlinkat(directory.as_fd().as_raw_fd(), name.as_ptr(), 0) }.into()).map(drop)
}
