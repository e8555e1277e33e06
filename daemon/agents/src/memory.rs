//! The memory of a ring, mapped into this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use stallscope_cupti_wire::{Ring, RingError, ring_bytes};

/// A mapping of a ring's memory. It is sealed against shrinking, or made by us and sealed before the job sees it.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping and not to a thread; it is only reached through `Ring`, whose words are atomics.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps `bytes` bytes of a memfd.
    pub(crate) fn map(fd: &OwnedFd, bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd.as_fd(), 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }

    /// Makes a new ring of zeroed memory.
    pub(crate) fn create(&self, slots: u32) -> Result<Ring<'_>, RingError> {
        debug_assert!(ring_bytes(slots) <= self.bytes);
        // SAFETY: `bytes` bytes are mapped from `base` on for as long as `self` lives, which the ring borrows; in this
        // process nothing else points to them.
        unsafe { Ring::create(self.base, self.bytes, slots) }
    }

    /// Takes over a ring that is there.
    pub(crate) fn ring(&self) -> Result<Ring<'_>, RingError> {
        // SAFETY: as above; whoever found the memory has checked that it cannot shrink.
        unsafe { Ring::from_raw(self.base, self.bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every ring in it borrowed `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
