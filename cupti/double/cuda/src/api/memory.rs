//! Memory: allocating it holds the caller, freeing it waits for the device.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::sync::Mutex;

use stallscope_double_shared::truth::Why;

use super::put;
use crate::calls::{Call, call, current_context};
use crate::engine;
use crate::state::{Error, Handle, Status};

/// The driver allocates for one thread at a time.
static ALLOCATING: Mutex<()> = Mutex::new(());

fn bytes_of(bytes: usize) -> Result<u64, Error> {
    u64::try_from(bytes).map_err(|_| Error::InvalidValue)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(address: Option<&mut u64>, bytes: usize) -> Status {
    call(243, c"cuMemAlloc_v2", |call| {
        let bytes = bytes_of(bytes)?;
        if bytes == 0 {
            return Err(Error::InvalidValue);
        }
        let state = engine::lock();
        let device = state.context(current_context())?.device;
        let (alloc_ns, syncs, tails) = (state.tuning.alloc_ns, state.tuning.alloc_syncs, state.tails(None));
        drop(state);
        let _one = ALLOCATING.lock();
        if syncs {
            engine::wait(&tails, Why::Alloc, call);
        }
        engine::hold(alloc_ns, Why::Alloc, call);
        let new = engine::lock().allocate(bytes, device)?;
        put(address, new)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Status {
    call(245, c"cuMemFree_v2", |call| {
        if address == 0 {
            return Ok(());
        }
        let state = engine::lock();
        let (syncs, tails) = (state.tuning.free_syncs, state.tails(None));
        drop(state);
        if syncs {
            engine::wait(&tails, Why::Free, call);
        }
        engine::lock().memory.remove(&address).map(|_| ()).ok_or(Error::InvalidValue)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(address: Option<&mut u64>, bytes: usize, _stream: Handle) -> Status {
    call(598, c"cuMemAllocAsync", |_| {
        let mut state = engine::lock();
        let device = state.context(current_context())?.device;
        put(address, state.allocate(bytes_of(bytes)?, device)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, _stream: Handle) -> Status {
    call(600, c"cuMemFreeAsync", |_| {
        engine::lock().memory.remove(&address).map(|_| ()).ok_or(Error::InvalidValue)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Option<&mut usize>, total: Option<&mut usize>) -> Status {
    call(242, c"cuMemGetInfo_v2", |_| {
        let state = engine::lock();
        let device = state.context(current_context())?.device;
        put(free, usize::try_from(state.free_bytes(device)).unwrap_or(usize::MAX))?;
        put(total, usize::try_from(state.total_bytes()).unwrap_or(usize::MAX))
    })
}

const PAGE: usize = 4096;

fn host_alloc(address: Option<&mut *mut c_void>, bytes: usize, call: &Call) -> Result<(), Error> {
    let layout = Layout::from_size_align(bytes.max(1), PAGE).map_err(|_| Error::InvalidValue)?;
    let pin_ns = engine::lock().tuning.pin_ns;
    engine::hold(pin_ns, Why::Pin, call);
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc(layout) };
    if memory.is_null() {
        return Err(Error::OutOfMemory);
    }
    engine::lock().pinned.insert(memory as u64, bytes_of(layout.size())?);
    put(address, memory.cast())
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(address: Option<&mut *mut c_void>, bytes: usize, _flags: u32) -> Status {
    call(39, c"cuMemHostAlloc", |call| host_alloc(address, bytes, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(address: Option<&mut *mut c_void>, bytes: usize) -> Status {
    call(294, c"cuMemAllocHost_v2", |call| host_alloc(address, bytes, call))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: *mut c_void) -> Status {
    call(38, c"cuMemFreeHost", |_| {
        let bytes = engine::lock().pinned.remove(&(address as u64)).ok_or(Error::InvalidValue)?;
        let bytes = usize::try_from(bytes).map_err(|_| Error::InvalidValue)?;
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Error::InvalidValue)?;
        // SAFETY: in `pinned` under this address, so `host_alloc` returned it with this layout; it is freed once,
        // because it has been removed.
        unsafe { dealloc(address.cast(), layout) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(address: *mut c_void, bytes: usize, _flags: u32) -> Status {
    call(379, c"cuMemHostRegister_v2", |call| {
        let pin_ns = engine::lock().tuning.pin_ns;
        engine::hold(pin_ns, Why::Pin, call);
        let bytes = bytes_of(bytes)?;
        engine::lock().registered.insert(address as u64, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(address: *mut c_void) -> Status {
    call(302, c"cuMemHostUnregister", |_| {
        engine::lock().registered.remove(&(address as u64)).map(|_| ()).ok_or(Error::InvalidValue)
    })
}
