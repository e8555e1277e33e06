//! Ring, image and CUPTI library as memory of the target, and the start of the agent: all on the new thread.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use stallscope_cupti_wire::{ENTRY, RING_NAME, StartArguments, VERSION};

use crate::arch::number;
use crate::file::Placed;
use crate::libraries::Functions;
use crate::new_thread::{Keep, NewThread};
use crate::process::Process;
use crate::step::{Observer, Step};
use crate::{Payload, Refusal, sys};

/// `RTLD_NOW`, and by default `RTLD_LOCAL`: nothing of the job is resolved against the agent.
const RTLD_NOW: u64 = 2;

/// Memory of the target that is open here and there.
#[derive(Debug)]
struct Shared {
    /// Its number in the target.
    there: i32,
    here: File,
}

/// Puts the payload into the target and starts it. Returns the ring.
pub(crate) fn load(
    process: &Process,
    functions: &Functions,
    thread: &mut NewThread<'_>,
    payload: &Payload<'_>,
    observer: &mut Observer<'_>,
) -> Result<(OwnedFd, Ready), Refusal> {
    let failed = |what| move |error| process.error(what, error);
    let ring_name = RING_NAME.to_string_lossy();
    let ring = match make(process, thread, &ring_name, libc::MFD_NOEXEC_SEAL, Keep::Ring)? {
        Ok(ring) => ring,
        Err(error) => return Err(no_memory(process, error)),
    };
    ring.here.set_len(payload.ring_bytes).map_err(failed("size the ring"))?;
    const SIZE_STAYS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    sys::add_seals(&ring.here, SIZE_STAYS).map_err(failed("seal the ring"))?;
    if sys::seals(&ring.here).map_err(failed("seal the ring"))? & SIZE_STAYS != SIZE_STAYS {
        return Err(Refusal::Hostile { pid: process.pid, what: "the memory of the ring cannot be sealed" });
    }
    let here = OwnedFd::from(ring.here);
    (payload.prepare)(&here).map_err(failed("prepare the ring"))?;
    observer.step(Step::RingMade);
    let cupti = cupti(process, thread, payload, observer)?;
    let handle = image(process, functions, thread, payload, observer)?;
    let name = thread.write_text(&ENTRY.to_string_lossy())?;
    let entry = thread.call("find the agent's entry", functions.dlsym, &[handle, name])?;
    if entry == 0 {
        let message = loader_message(functions, thread)?;
        return Err(Refusal::Load { pid: process.pid, message });
    }
    let start = StartArguments {
        size: u32::try_from(size_of::<StartArguments>()).unwrap_or(u32::MAX),
        version: VERSION,
        dlopen: functions.dlopen,
        dlsym: functions.dlsym,
        dlerror: functions.dlerror,
        ring_fd: ring.there,
        cupti_fd: cupti,
        flags: payload.flags,
    };
    thread.write_start(&bytes(&start))?;
    observer.step(Step::ArgumentsWritten);
    Ok((here, Ready { entry, finally: payload.unload.then_some((functions.dlclose, handle)) }))
}

/// What is left to do is to call the agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) entry: u64,
    pub(crate) finally: Option<(u64, u64)>,
}

/// The arguments as the agent reads them.
fn bytes(start: &StartArguments) -> [u8; size_of::<StartArguments>()] {
    let mut bytes = [0; size_of::<StartArguments>()];
    let fields = [
        (std::mem::offset_of!(StartArguments, size), start.size.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, version), start.version.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, dlopen), start.dlopen.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, dlsym), start.dlsym.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, dlerror), start.dlerror.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, ring_fd), start.ring_fd.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, cupti_fd), start.cupti_fd.to_ne_bytes().to_vec()),
        (std::mem::offset_of!(StartArguments, flags), start.flags.to_ne_bytes().to_vec()),
    ];
    for (at, field) in fields {
        if let Some(place) = bytes.get_mut(at..at + field.len()) {
            place.copy_from_slice(&field);
        }
    }
    bytes
}

/// Makes memory in the target, and opens it here as well.
fn make(
    process: &Process,
    thread: &mut NewThread<'_>,
    name: &str,
    flag: libc::c_uint,
    keep: Keep,
) -> Result<io::Result<Shared>, Refusal> {
    let address = thread.write_text(name)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let mut created =
        thread.syscall("make memory", number::MEMFD_CREATE, &[address, (flags | flag).into()], keep)?;
    // Before 6.3 there is no such flag, and all such memory is executable.
    if created.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
        created = thread.syscall("make memory", number::MEMFD_CREATE, &[address, flags.into()], keep)?;
    }
    let there = match created {
        Ok(there) => there,
        Err(error) => return Ok(Err(error)),
    };
    let here =
        sys::pidfd_getfd(&process.pidfd, there).map_err(|error| process.error("take a descriptor", error))?;
    // Only such memory has seals: whatever else the target may have put under that number is not written to.
    sys::seals(&here)
        .map_err(|_| Refusal::Hostile { pid: process.pid, what: "its new memory is something else" })?;
    Ok(Ok(Shared { there, here: File::from(here) }))
}

/// Why there is no memory.
fn no_memory(process: &Process, error: io::Error) -> Refusal {
    let pid = process.pid;
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            Refusal::Limits { pid, what: "memory or open files", error }
        }
        // Nothing else refuses memory that cannot be executed.
        _ => Refusal::Seccomp { pid, call: "memfd_create" },
    }
}

/// Makes memory that can be executed; `None` where that is not allowed.
fn executable(
    process: &Process,
    thread: &mut NewThread<'_>,
    name: &str,
    keep: Keep,
) -> Result<Option<Shared>, Refusal> {
    match make(process, thread, name, libc::MFD_EXEC, keep)? {
        Ok(shared) => Ok(Some(shared)),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(None),
        Err(error) => Err(no_memory(process, error)),
    }
}

/// Nobody changes the contents after this.
fn seal(process: &Process, shared: &Shared) -> Result<(), Refusal> {
    sys::add_seals(&shared.here, libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)
        .map_err(|error| process.error("seal memory", error))
}

/// The CUPTI library that was brought, as a descriptor of the target, or -1.
fn cupti(
    process: &Process,
    thread: &mut NewThread<'_>,
    payload: &Payload<'_>,
    observer: &mut Observer<'_>,
) -> Result<i32, Refusal> {
    let Some(mut library) = payload.cupti else { return Ok(-1) };
    let Some(mut shared) = executable(process, thread, "stallscope-cupti", Keep::Cupti)? else {
        return Ok(-1);
    };
    let mut copy = || {
        library.rewind()?;
        io::copy(&mut library, &mut shared.here).map(drop)
    };
    copy().map_err(|error| process.error("copy the CUPTI library into the memory", error))?;
    seal(process, &shared)?;
    observer.step(Step::CuptiMade);
    Ok(shared.there)
}

/// Loads the image, from memory or, where that cannot be, from a file that exists for as long as that takes.
fn image(
    process: &Process,
    functions: &Functions,
    thread: &mut NewThread<'_>,
    payload: &Payload<'_>,
    observer: &mut Observer<'_>,
) -> Result<u64, Refusal> {
    let mut why = "it may not have executable memory".to_owned();
    if let Some(mut shared) = executable(process, thread, "stallscope-agent", Keep::Image)? {
        observer.step(Step::ImageMade);
        shared.here.write_all(payload.image).map_err(|error| process.error("fill the memory", error))?;
        seal(process, &shared)?;
        observer.step(Step::ImageFilled);
        let path = unique(&format!("/proc/self/fd/{}", shared.there));
        let text = thread.write_text(&path)?;
        const READABLE: u64 = 4;
        let reached = thread.syscall("look at its memory", number::ACCESS, &[text, READABLE], Keep::Not)?;
        let loaded = match reached {
            Ok(_) => open(functions, thread, text)?,
            Err(error) => Err(format!("its /proc does not show its memory: {error}")),
        };
        if loaded.is_ok() {
            observer.step(Step::Loaded);
        }
        thread.close(Keep::Image, shared.there)?;
        observer.step(Step::ImageClosed);
        match loaded {
            Ok(handle) => return Ok(handle),
            Err(message) => why = message,
        }
    }
    let placed = Placed::new(process, thread.inner_tid, payload.image)
        .map_err(|error| Refusal::NowhereToLoad { pid: process.pid, why: format!("{why}; {error}") })?;
    observer.step(Step::FileMade);
    let text = thread.write_text(&placed.path)?;
    let loaded = open(functions, thread, text);
    placed.remove();
    observer.step(Step::FileRemoved);
    loaded?.map_err(|message| Refusal::Load { pid: process.pid, message })
}

/// A path to the same that nothing was loaded by before: the loader takes what it knows by its name for loaded, and an
/// agent of an earlier injection had a descriptor of its own, which may have had this number.
fn unique(path: &str) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    let slashes = |shift: u32| "/".repeat(1 + usize::try_from(now >> shift & 0xf).unwrap_or(0));
    let mut unique = String::new();
    for (part, shift) in path.split('/').skip(1).zip([0, 4, 8, 12]) {
        unique.push_str(&slashes(shift));
        unique.push_str(part);
    }
    unique
}

/// dlopen: a handle, or what the loader says.
fn open(
    functions: &Functions,
    thread: &mut NewThread<'_>,
    path: u64,
) -> Result<Result<u64, String>, Refusal> {
    match thread.call("load the agent", functions.dlopen, &[path, RTLD_NOW])? {
        0 => Ok(Err(loader_message(functions, thread)?)),
        handle => Ok(Ok(handle)),
    }
}

fn loader_message(functions: &Functions, thread: &mut NewThread<'_>) -> Result<String, Refusal> {
    let text = thread.call("say why it cannot load", functions.dlerror, &[])?;
    Ok(thread.read_text(text))
}

#[cfg(test)]
mod tests {
    use super::{bytes, unique};
    use stallscope_cupti_wire::StartArguments;

    #[test]
    fn the_path_names_the_same_file() {
        let path = unique("/proc/self/fd/17");
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        assert_eq!(parts, ["proc", "self", "fd", "17"]);
        assert!(path.starts_with('/'));
    }

    #[test]
    fn every_argument_is_written_where_the_agent_reads_it() {
        let start = StartArguments {
            size: 1,
            version: 2,
            dlopen: 3,
            dlsym: 4,
            dlerror: 5,
            ring_fd: 6,
            cupti_fd: -1,
            flags: 7,
        };
        let words: Vec<u32> =
            bytes(&start).as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
        assert_eq!(words, [1, 2, 3, 0, 4, 0, 5, 0, 6, u32::MAX, 7, 0]);
    }
}
