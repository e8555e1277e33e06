//! The few things of the system that the stand-ins need: clocks, thread ids, functions of other libraries.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a clock of the kernel.
fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CLOCK_MONOTONIC: the clock of the truth log and of all device times inside the stand-ins.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// CLOCK_REALTIME: what CUPTI's timestamps are made of.
#[must_use]
pub fn realtime_ns() -> u64 {
    clock_ns(ClockId::Realtime)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC now: the reading of several between whose ends the least time passed, because a
/// thread can lose its CPU in the middle of one.
#[must_use]
pub fn realtime_minus_monotonic_ns() -> i64 {
    let read = || {
        let (before_ns, real_ns, after_ns) = (monotonic_ns(), realtime_ns(), monotonic_ns());
        let offset_ns = i128::from(real_ns) - i128::from(before_ns.midpoint(after_ns));
        (after_ns - before_ns, i64::try_from(offset_ns).unwrap_or(0))
    };
    (0..5).map(|_| read()).min().map_or(0, |(_, offset_ns)| offset_ns)
}

/// How far CLOCK_MONOTONIC is ahead of that of the machine in this time namespace. Ranks in different namespaces agree
/// on times only without it.
#[must_use]
pub fn monotonic_offset_ns() -> i64 {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("monotonic")).unwrap_or_default();
    let mut numbers = line.split_whitespace().skip(1).map(|n| n.parse::<i64>().unwrap_or(0));
    let seconds = numbers.next().unwrap_or(0);
    seconds * 1_000_000_000 + numbers.next().unwrap_or(0)
}

/// Lets this thread wait for its turn when it is woken, in place of taking the CPU from whoever runs: what it stands in
/// for takes no CPU on a machine with GPUs.
pub fn stand_back() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the structure. A thread may always ask for this; where it may not, it goes on as it is.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// The kernel's id of this thread.
#[must_use]
pub fn thread_id() -> u32 {
    thread_local!(static ID: Cell<u32> = const { Cell::new(0) });
    ID.with(|id| {
        if id.get() == 0 {
            id.set(gettid().as_raw_nonzero().get().unsigned_abs());
        }
        id.get()
    })
}

/// This process, as it sees itself.
#[must_use]
pub fn process_id() -> u32 {
    std::process::id()
}

const RTLD_NOW: c_int = 2;
const RTLD_NOLOAD: c_int = 4;

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn atexit(function: extern "C" fn()) -> c_int;
    fn pthread_self() -> usize;
    fn pthread_atfork(before: usize, parent: usize, child: Option<extern "C" fn()>) -> c_int;
}

/// A library that this process has loaded. It stays loaded: the handle is never closed.
#[derive(Clone, Copy, Debug)]
pub struct Library(usize);

impl Library {
    /// The library with this name (SONAME or path), if it is loaded already.
    #[must_use]
    pub fn loaded(name: &CStr) -> Option<Self> {
        Self::open(name, RTLD_NOW | RTLD_NOLOAD)
    }

    /// The library with this name, loaded now if need be.
    #[must_use]
    pub fn load(name: &CStr) -> Option<Self> {
        Self::open(name, RTLD_NOW)
    }

    fn open(name: &CStr, flags: c_int) -> Option<Self> {
        // SAFETY: `name` is NUL-terminated; loading runs only initialisers of libraries that the test chose.
        let handle = unsafe { dlopen(name.as_ptr(), flags) };
        (!handle.is_null()).then_some(Self(handle as usize))
    }

    /// Address of a function of the library.
    #[must_use]
    pub fn function(self, name: &CStr) -> Option<usize> {
        // SAFETY: the handle came from dlopen and is never closed.
        let address = unsafe { dlsym(self.0 as *mut c_void, name.as_ptr()) };
        (!address.is_null()).then_some(address as usize)
    }
}

/// Run `function` when the process ends by returning from main or by calling exit.
pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function lives in a library that is never unloaded.
    unsafe { atexit(function) };
}

/// Run `function` in every child that this process forks.
pub fn in_forked_children(function: extern "C" fn()) {
    // SAFETY: no handler before the fork or in the parent; the child's lives in a library that is never unloaded.
    unsafe { pthread_atfork(0, 0, Some(function)) };
}

/// What pthread_self returns: CUPTI's default id of a thread is its lower half.
#[must_use]
pub fn pthread_id() -> usize {
    // SAFETY: takes nothing and cannot fail.
    unsafe { pthread_self() }
}

/// Address of a NUL-terminated copy of `name` that lives as long as the process; the same for the same name.
#[must_use]
pub fn intern(name: &str) -> usize {
    static NAMES: Mutex<BTreeMap<String, &'static CStr>> = Mutex::new(BTreeMap::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known.as_ptr() as usize;
    }
    let kept: &'static CStr =
        Box::leak(CString::new(name.replace('\0', "")).unwrap_or_default().into_boxed_c_str());
    names.insert(name.to_owned(), kept);
    kept.as_ptr() as usize
}

/// The name behind an address that [`intern`] of any stand-in returned, or that a static C string has.
#[must_use]
pub fn interned(address: usize) -> String {
    if address == 0 {
        return String::new();
    }
    // SAFETY: addresses of names are made by `intern` or taken from statics: NUL-terminated and never freed.
    let name = unsafe { CStr::from_ptr(address as *const c_char) };
    name.to_string_lossy().into_owned()
}

/// The text that a caller passed, or nothing for NULL.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
#[must_use]
pub unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and NUL-terminated by this function's contract.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
