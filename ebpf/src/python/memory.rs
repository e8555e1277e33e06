//! The memory of another process, read through `/proc/PID/mem`.
//!
//! The open file stands for the address space that the process had when it was opened: after an exec or an exit reads
//! fail, and never reach another process that was given the number.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::NotPython;

#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
}

impl Memory {
    pub(crate) fn open(pid: u32) -> Result<Self, NotPython> {
        let what = format!("/proc/{pid}/mem");
        let file = File::open(&what)
            .map_err(|error| NotPython::Unreadable { what: what.clone(), reason: error.to_string() })?;
        Ok(Self { file })
    }

    /// Fills the buffer, or gives `None` where not all of it can be read.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
        self.file.read_exact_at(buffer, address).ok()
    }

    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// `length` bytes, at most `most`.
    pub(crate) fn bytes(&self, address: u64, length: u64, most: usize) -> Option<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|n| *n <= most)?;
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Some(bytes)
    }
}

/// The little-endian word at an offset of bytes that were read.
pub(crate) fn word_at(bytes: &[u8], offset: u32) -> Option<u64> {
    let from = usize::try_from(offset).ok()?;
    bytes.get(from..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// The little-endian half word at an offset of bytes that were read.
pub(crate) fn half_at(bytes: &[u8], offset: u32) -> Option<u32> {
    let from = usize::try_from(offset).ok()?;
    bytes.get(from..)?.first_chunk().map(|half| u32::from_le_bytes(*half))
}
