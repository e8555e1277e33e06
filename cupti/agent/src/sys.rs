//! System calls, typed. The one place from which they are made.

use core::ffi::CStr;
use core::ptr::{NonNull, null};
use core::sync::atomic::AtomicU32;

use crate::arch::{number, syscall};

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// There is no memory.
pub(crate) const ENOMEM: Errno = Errno(12);
/// An argument makes no sense.
pub(crate) const EINVAL: Errno = Errno(22);

/// An open file; it is closed by [`close`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fd(pub(crate) i32);

/// Who waits for a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Threads of this process.
    Process,
    /// Whoever maps the memory.
    Shared,
}

const NS_PER_S: u64 = 1_000_000_000;
/// All but 32 and 33: with these the C library asks each thread for something (a change of user, an end), and waits until
/// each has done it.
const JOB_SIGNALS: u64 = !(0b11 << 31);

fn check(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno(i32::try_from(-result).unwrap_or(EINVAL.0)))
}

fn argument(fd: Fd) -> usize {
    // A negative number is passed as such, sign-extended, and refused by the kernel.
    (fd.0 as isize).cast_unsigned()
}

fn clock(id: usize) -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: fills the two words that it is given.
    let _ = unsafe { syscall(number::CLOCK_GETTIME, [id, (&raw mut time).expose_provenance(), 0, 0, 0, 0]) };
    let [seconds, ns] = time;
    seconds.wrapping_mul(NS_PER_S).wrapping_add(ns)
}

/// CLOCK_MONOTONIC in ns.
pub(crate) fn monotonic_ns() -> u64 {
    clock(1)
}

/// CLOCK_REALTIME in ns.
pub(crate) fn realtime_ns() -> u64 {
    clock(0)
}

/// Waits until somebody wakes the word, it is not `expected`, or the time is over. A signal or any error ends the wait
/// too: the caller looks at the word again in any case.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>, scope: Scope) {
    const WAIT: usize = 0;
    const PRIVATE: usize = 128;
    let time = timeout_ns.map(|ns| [ns / NS_PER_S, ns % NS_PER_S]);
    let time = time.as_ref().map_or(null(), |time| time.as_ptr());
    let operation = if scope == Scope::Process { WAIT | PRIVATE } else { WAIT };
    let word: *const AtomicU32 = word;
    // SAFETY: the kernel reads the word and the time, which live through the call.
    let _ = unsafe {
        syscall(
            number::FUTEX,
            [word.expose_provenance(), operation, expected as usize, time.expose_provenance(), 0, 0],
        )
    };
}

/// Wakes everybody who waits for the word.
pub(crate) fn futex_wake(word: &AtomicU32, scope: Scope) {
    const WAKE: usize = 1;
    const PRIVATE: usize = 128;
    const ALL: usize = i32::MAX as usize;
    let operation = if scope == Scope::Process { WAKE | PRIVATE } else { WAKE };
    let word: *const AtomicU32 = word;
    // SAFETY: the address names a queue; nothing is written.
    let _ = unsafe { syscall(number::FUTEX, [word.expose_provenance(), operation, ALL, 0, 0, 0]) };
}

/// Lets the time pass.
pub(crate) fn sleep_ns(ns: u64) {
    static NOBODY: AtomicU32 = AtomicU32::new(0);
    futex_wait(&NOBODY, 0, Some(ns), Scope::Process);
}

/// Zeroed memory of this process, writable; it takes room when it is touched.
pub(crate) fn map(bytes: usize) -> Result<NonNull<u8>, Errno> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other.
    let address =
        unsafe { syscall(number::MMAP, [0, bytes, READ_WRITE, PRIVATE_ANONYMOUS, argument(Fd(-1)), 0]) };
    let address = check(address)?;
    NonNull::new(core::ptr::with_exposed_provenance_mut(address)).ok_or(ENOMEM)
}

/// A file's memory, shared, all of it brought in: a page that cannot be got is better missed here than at a write.
pub(crate) fn map_shared(file: Fd, bytes: usize) -> Result<NonNull<u8>, Errno> {
    const READ_WRITE: usize = 3;
    const SHARED_POPULATE: usize = 0x8001;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other.
    let address =
        unsafe { syscall(number::MMAP, [0, bytes, READ_WRITE, SHARED_POPULATE, argument(file), 0]) };
    let address = check(address)?;
    NonNull::new(core::ptr::with_exposed_provenance_mut(address)).ok_or(ENOMEM)
}

/// Gives memory back.
///
/// # Safety
/// It is a whole mapping of [`map`] or [`map_shared`], and nothing refers to it any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: by the caller's word nothing uses the mapping.
    let _ = unsafe { syscall(number::MUNMAP, [base.as_ptr().expose_provenance(), bytes, 0, 0, 0, 0]) };
}

/// Keeps a mapping from the children of a fork. Where that fails they have it, and do not touch it.
pub(crate) fn keep_from_children(base: NonNull<u8>, bytes: usize) {
    const DONTFORK: usize = 10;
    // SAFETY: changes what a fork copies, nothing here.
    let _ =
        unsafe { syscall(number::MADVISE, [base.as_ptr().expose_provenance(), bytes, DONTFORK, 0, 0, 0]) };
}

/// Brings pages in now (Linux 5.14); where that fails they come when they are touched.
pub(crate) fn populate(base: NonNull<u8>, bytes: usize) {
    const POPULATE_WRITE: usize = 23;
    // SAFETY: makes pages present without changing what they hold.
    let _ = unsafe {
        syscall(number::MADVISE, [base.as_ptr().expose_provenance(), bytes, POPULATE_WRITE, 0, 0, 0])
    };
}

/// The file's size in bytes.
pub(crate) fn size(file: Fd) -> Result<usize, Errno> {
    let mut status = [0_u8; number::STAT_BYTES];
    // SAFETY: fills the buffer, which has the size of the structure.
    let result = unsafe {
        syscall(number::FSTAT, [argument(file), (&raw mut status).expose_provenance(), 0, 0, 0, 0])
    };
    check(result)?;
    let bytes = status.get(number::STAT_SIZE_AT..).and_then(|rest| rest.first_chunk()).ok_or(EINVAL)?;
    usize::try_from(u64::from_ne_bytes(*bytes)).map_err(|_| EINVAL)
}

/// Opens a file to read it.
pub(crate) fn open(path: &CStr) -> Result<Fd, Errno> {
    const AT_FDCWD: isize = -100;
    const CLOEXEC: usize = 0o2_000_000;
    // SAFETY: the path ends with a zero and lives through the call.
    let result = unsafe {
        syscall(
            number::OPENAT,
            [AT_FDCWD.cast_unsigned(), path.as_ptr().expose_provenance(), CLOEXEC, 0, 0, 0],
        )
    };
    check(result).and_then(|fd| i32::try_from(fd).map(Fd).map_err(|_| EINVAL))
}

/// Reads what is there, at most the buffer; the part that was filled.
pub(crate) fn read(file: Fd, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: fills at most the buffer.
    let result = unsafe {
        syscall(
            number::READ,
            [argument(file), buffer.as_mut_ptr().expose_provenance(), buffer.len(), 0, 0, 0],
        )
    };
    buffer.get(..check(result)?).ok_or(EINVAL)
}

/// Closes a file.
pub(crate) fn close(file: Fd) {
    // SAFETY: the caller owns the descriptor.
    let _ = unsafe { syscall(number::CLOSE, [argument(file), 0, 0, 0, 0, 0]) };
}

/// New memory with a descriptor, of that size, which can neither shrink nor grow afterwards.
pub(crate) fn memory_file(name: &CStr, bytes: usize) -> Result<Fd, Errno> {
    const CLOEXEC_ALLOW_SEALING: usize = 3;
    const ADD_SEALS: usize = 1033;
    const SEAL_SHRINK_GROW: usize = 6;
    // SAFETY: the name ends with a zero and lives through the call.
    let result = unsafe {
        syscall(number::MEMFD_CREATE, [name.as_ptr().expose_provenance(), CLOEXEC_ALLOW_SEALING, 0, 0, 0, 0])
    };
    let file = Fd(i32::try_from(check(result)?).map_err(|_| EINVAL)?);
    // SAFETY: sets the size of the file that was just made.
    let sized = check(unsafe { syscall(number::FTRUNCATE, [argument(file), bytes, 0, 0, 0, 0]) });
    // SAFETY: seals the file that was just made.
    let sealed =
        check(unsafe { syscall(number::FCNTL, [argument(file), ADD_SEALS, SEAL_SHRINK_GROW, 0, 0, 0]) });
    match sized.and(sealed) {
        Ok(_) => Ok(file),
        Err(error) => {
            close(file);
            Err(error)
        }
    }
}

/// Process, as its own namespace numbers it.
pub(crate) fn process() -> u32 {
    // SAFETY: returns a number.
    u32::try_from(unsafe { syscall(number::GETPID, [0; 6]) }).unwrap_or(0)
}

/// Thread, as its own namespace numbers it.
pub(crate) fn thread() -> u32 {
    // SAFETY: returns a number.
    u32::try_from(unsafe { syscall(number::GETTID, [0; 6]) }).unwrap_or(0)
}

/// Names the thread, for whoever lists threads.
pub(crate) fn name_thread(name: &CStr) {
    const SET_NAME: usize = 15;
    // SAFETY: reads at most 16 bytes of a text that ends.
    let _ = unsafe { syscall(number::PRCTL, [SET_NAME, name.as_ptr().expose_provenance(), 0, 0, 0, 0]) };
}

/// Signals that a thread does not take: a set bit for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignalMask(u64);

/// Keeps the job's signals from this thread; what was kept before.
pub(crate) fn block_signals() -> SignalMask {
    let mut before = 0;
    set_mask(JOB_SIGNALS, Some(&mut before));
    SignalMask(before)
}

/// Undoes [`block_signals`].
pub(crate) fn restore_signals(mask: SignalMask) {
    set_mask(mask.0, None);
}

fn set_mask(mask: u64, before: Option<&mut u64>) {
    const SETMASK: usize = 2;
    let before = before.map_or(core::ptr::null_mut(), |before| &raw mut *before);
    // SAFETY: reads 8 bytes and fills 8 bytes, both of which live through the call.
    let _ = unsafe {
        syscall(
            number::RT_SIGPROCMASK,
            [SETMASK, (&raw const mask).expose_provenance(), before.expose_provenance(), 8, 0, 0],
        )
    };
}
