//! The entry for the injector.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use stallscope_cupti_wire::{Ring, StartArguments, VERSION};

use crate::library::{Brought, Loader};
use crate::machine::Machine;
use crate::sys::{self, Errno, Fd};

/// Runs the agent on the calling thread until the daemon says leave. 0, or minus errno where it could not begin: -22 where
/// the arguments or the ring are of another version, else what mapping the ring said.
///
/// # Safety
/// - The pointer is null or that of arguments whose first word is their size.
/// - The thread exists for this.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn stallscope_agent_start(arguments: *const StartArguments) -> i32 {
    // SAFETY: by the caller's word there are a size and a version at least, where there is anything.
    let Some(size) = (unsafe { arguments.cast::<u32>().as_ref() }) else { return -sys::EINVAL.0 };
    if (*size as usize) < size_of::<StartArguments>() {
        return -sys::EINVAL.0;
    }
    // SAFETY: all of the structure is there.
    let arguments = unsafe { arguments.read() };
    if arguments.version != VERSION {
        return -sys::EINVAL.0;
    }
    // SAFETY: by the caller's word the addresses are those of the loader's functions.
    let loader =
        unsafe { Loader::new(arguments.dlopen, arguments.dlsym, Brought::by_descriptor(arguments.cupti_fd)) };
    let Some(loader) = loader else { return -sys::EINVAL.0 };
    let file = Fd(arguments.ring_fd);
    let mapped = sys::size(file).and_then(|bytes| Ok((sys::map_shared(file, bytes)?, bytes)));
    sys::close(file);
    let result = mapped.and_then(|(base, bytes)| {
        // SAFETY: just mapped, all of the file; the daemon made it, and is trusted not to cut it. Nobody else has it.
        unsafe { run(base, bytes, loader) }
    });
    match result {
        Ok(()) => 0,
        Err(error) => -error.0,
    }
}

/// Runs on a ring that is mapped, and gives its memory back.
///
/// # Safety
/// So many bytes are a whole mapping from `base` on that nobody else in the process uses, and the file stays that long.
pub(crate) unsafe fn run(base: NonNull<u8>, bytes: usize, loader: Loader) -> Result<(), Errno> {
    // A child of the job's forks has no agent, and nothing to write.
    sys::keep_from_children(base, bytes);
    // SAFETY: by the caller's word.
    let ring = unsafe { Ring::from_raw(base, bytes) };
    let result = ring.map_err(|_| sys::EINVAL).map(|ring| {
        sys::name_thread(c"stallscope");
        // Whatever the thread was started with: a handler of the job is not to run here.
        sys::block_signals();
        let header = ring.header();
        header.agent_version.store(VERSION, Ordering::Relaxed);
        header.pid.store(sys::process(), Ordering::Relaxed);
        header.tid.store(sys::thread(), Ordering::Relaxed);
        Machine::new(ring, loader).run();
    });
    // SAFETY: by the caller's word; the ring is not used any more.
    unsafe { sys::unmap(base, bytes) };
    result
}
