//! The entry for a job that is launched with the agent: CUDA loads what `CUDA_INJECTION64_PATH` names while it is
//! initialised, and calls `InitializeInjection`.
//!
//! The agent then makes its ring itself: the daemon finds it by its name among the process's descriptors. Where the
//! environment says what to collect, it begins at once, so that nothing is missed before the daemon comes:
//! - `STALLSCOPE_KINDS`: bits of activity kinds, as a decimal number;
//! - `STALLSCOPE_WAIT_S`: for how many seconds to go on without a daemon (10);
//! - `STALLSCOPE_CUPTI`: path of the CUPTI to load where the job has none.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use stallscope_cupti_wire::{Command, RING_NAME, Ring, State, ring_bytes};

use crate::elf;
use crate::entry::run;
use crate::library::{Brought, Loader, find_line};
use crate::sys::{self, Errno, Fd};

/// Slots of the ring: 4 MiB.
const SLOTS: u32 = 1 << 16;

/// How long CUDA's initialisation is held up at most, so that the first operations are not missed.
const PATIENCE_NS: u64 = 500_000_000;

/// Bytes of the environment that are looked at; what is looked for is put there by whoever launches, last or first.
const ENVIRONMENT_BYTES: usize = 128 * 1024;

/// What [`RING_NAME`] is among mappings.
const RING_PATH: &[u8] = b"/memfd:stallscope-ring";

static STARTED: AtomicBool = AtomicBool::new(false);
/// The ring's memory.
static RING: AtomicI32 = AtomicI32::new(-1);
/// Path of the CUPTI to load, or null.
static CUPTI: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

type Thread = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type PthreadCreate = unsafe extern "C" fn(*mut usize, *const c_void, Thread, *mut c_void) -> c_int;
type PthreadDetach = unsafe extern "C" fn(usize) -> c_int;

/// CUDA calls this once, on the thread that initialises it. 1: all is well; CUDA goes on in either case.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn InitializeInjection() -> c_int {
    // One that the daemon has put in may be there already: two would take CUPTI from each other.
    if !STARTED.swap(true, Ordering::AcqRel) && !has_ring() {
        // A job that cannot be watched runs all the same.
        let _ = start();
    }
    1
}

/// Whether this process has an agent's ring mapped; one that it was forked from leaves none.
fn has_ring() -> bool {
    let Ok(file) = sys::open(c"/proc/self/maps") else { return false };
    let found = find_line(
        |room| sys::read(file, room).map_or(0, <[u8]>::len),
        |line| line.windows(RING_PATH.len()).any(|part| part == RING_PATH).then_some(()),
    );
    sys::close(file);
    found.is_some()
}

fn start() -> Result<(), Errno> {
    let create = elf::function(c"pthread_create").ok_or(sys::EINVAL)?;
    let detach = elf::function(c"pthread_detach").ok_or(sys::EINVAL)?;
    // SAFETY: the C library's function of that name.
    let create = unsafe { core::mem::transmute::<*const c_void, PthreadCreate>(pointer(create)) };
    // SAFETY: the C library's function of that name.
    let detach = unsafe { core::mem::transmute::<*const c_void, PthreadDetach>(pointer(detach)) };

    let bytes = ring_bytes(SLOTS);
    let file = sys::memory_file(RING_NAME, bytes)?;
    let base = sys::map_shared(file, bytes)?;
    sys::keep_from_children(base, bytes);
    // SAFETY: new memory of that size, sealed, mapped until the end of this function, and reached through rings only.
    let started = match unsafe { Ring::create(base, bytes, SLOTS) } {
        Ok(ring) => {
            let is_wanted = want(ring);
            RING.store(file.0, Ordering::Release);
            let started = start_thread(create, detach);
            if is_wanted && started.is_ok() {
                wait(ring);
            }
            started
        }
        Err(_) => Err(sys::EINVAL),
    };
    // SAFETY: the mapping from above; the thread has one of its own.
    unsafe { sys::unmap(base, bytes) };
    started
}

fn start_thread(create: PthreadCreate, detach: PthreadDetach) -> Result<(), Errno> {
    // The thread inherits the mask: it takes none of the job's signals.
    let mask = sys::block_signals();
    let mut thread = 0;
    // SAFETY: fills the word; the function takes no argument.
    let created = unsafe { create(&raw mut thread, null(), thread_main, null_mut()) };
    sys::restore_signals(mask);
    if created != 0 {
        return Err(Errno(created));
    }
    // SAFETY: the thread that was just made, once.
    let _ = unsafe { detach(thread) };
    Ok(())
}

/// Asks for what the environment asks for, if it does.
fn want(ring: Ring<'_>) -> bool {
    let Some((kinds, wait_s)) = from_environment() else { return false };
    let header = ring.header();
    header.kinds.store(kinds, Ordering::Relaxed);
    header.heartbeat_timeout_ns.store(wait_s.saturating_mul(1_000_000_000), Ordering::Relaxed);
    header.command.store(Command::Collect.id(), Ordering::Relaxed);
    header.control.store(1, Ordering::Release);
    true
}

fn pointer(address: u64) -> *const c_void {
    core::ptr::with_exposed_provenance(usize::try_from(address).unwrap_or(0))
}

/// Until the agent is on, or will not be.
fn wait(ring: Ring<'_>) {
    let header = ring.header();
    let deadline_ns = sys::monotonic_ns() + PATIENCE_NS;
    loop {
        let changes = header.state_changes.load(Ordering::Acquire);
        let is_decided = matches!(
            State::from_id(header.state.load(Ordering::Acquire)),
            Some(State::On | State::Refused | State::Gone)
        );
        let left_ns = deadline_ns.saturating_sub(sys::monotonic_ns());
        if is_decided || left_ns == 0 {
            return;
        }
        sys::futex_wait(&header.state_changes, changes, Some(left_ns), sys::Scope::Shared);
    }
}

unsafe extern "C" fn thread_main(_: *mut c_void) -> *mut c_void {
    let dlopen = elf::function(c"dlopen").unwrap_or(0);
    let dlsym = elf::function(c"dlsym").unwrap_or(0);
    let path = CUPTI.load(Ordering::Acquire);
    // SAFETY: null, or a text in memory that is never given back.
    let brought =
        unsafe { path.as_ref() }.map_or(Brought::None, |path| Brought::Path(unsafe { CStr::from_ptr(path) }));
    // SAFETY: the C library's functions of these names, or 0.
    if let Some(loader) = unsafe { Loader::new(dlopen, dlsym, brought) } {
        let (file, bytes) = (Fd(RING.load(Ordering::Acquire)), ring_bytes(SLOTS));
        // The descriptor stays open: the daemon finds the ring by it.
        if let Ok(base) = sys::map_shared(file, bytes) {
            // SAFETY: a mapping of all of the file, for this thread alone; the file is sealed.
            let _ = unsafe { run(base, bytes, loader) };
        }
    }
    null_mut()
}

/// What to collect, and for how many seconds without a daemon.
fn from_environment() -> Option<(u64, u64)> {
    let memory = sys::map(ENVIRONMENT_BYTES).ok()?;
    // SAFETY: just mapped, zeroed, of that size, and never given back: the path stays in it.
    let buffer = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), ENVIRONMENT_BYTES) };
    let mut filled = 0;
    if let Ok(file) = sys::open(c"/proc/self/environ") {
        // The last byte stays zero.
        while let Some(room) = buffer.get_mut(filled..ENVIRONMENT_BYTES - 1).filter(|room| !room.is_empty()) {
            match sys::read(file, room).map(<[u8]>::len) {
                Ok(read) if read > 0 => filled += read,
                _ => break,
            }
        }
        sys::close(file);
    }
    if let Some(path) = entry(buffer, c"STALLSCOPE_CUPTI=") {
        CUPTI.store(path.as_ptr().cast_mut().cast(), Ordering::Release);
    }
    let wait_s = number(buffer, c"STALLSCOPE_WAIT_S=").unwrap_or(10);
    Some((number(buffer, c"STALLSCOPE_KINDS=")?, wait_s))
}

/// What follows a name in an environment, up to the zero that ends it.
fn entry<'e>(environment: &'e [u8], name: &CStr) -> Option<&'e [u8]> {
    environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.to_bytes()))
}

/// The number behind a name in an environment.
pub(crate) fn number(environment: &[u8], name: &CStr) -> Option<u64> {
    core::str::from_utf8(entry(environment, name)?).ok()?.parse().ok()
}
