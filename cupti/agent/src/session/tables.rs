//! Memory of an attachment: taken when it begins, given back when it ends. A dormant agent holds none of it.

use core::ptr::NonNull;

use crate::names::{self, Names};
use crate::progress::{self, Progress};
use crate::ranges::{self, Open, Ranges};
use crate::sys::{self, Errno};

const NAMES_BYTES: usize = names::ENTRIES * size_of::<names::Entry>();
const RANGES_BYTES: usize = ranges::ENTRIES * size_of::<Open>();
const BYTES: usize = NAMES_BYTES + RANGES_BYTES + progress::ENTRIES * size_of::<progress::Entry>();

/// The memory. Who has it keeps it until the tables in it are gone.
#[derive(Debug)]
pub(crate) struct Tables {
    base: NonNull<u8>,
}

impl Tables {
    /// Empty tables. They must not be used once the first of the four is dropped.
    pub(crate) fn new() -> Result<(Self, Names<'static>, Ranges<'static>, Progress<'static>), Errno> {
        let base = sys::map(BYTES)?;
        let names = base.cast::<names::Entry>().as_ptr();
        // SAFETY: the mapping begins at a page and has room for so many entries, for which zero is a value; nobody else
        // knows of it.
        let names = unsafe { core::slice::from_raw_parts_mut(names, names::ENTRIES) };
        // SAFETY: within the mapping.
        let ranges = unsafe { base.add(NAMES_BYTES) }.cast::<Open>().as_ptr();
        // SAFETY: behind the names, which are a multiple of the alignment long, there is room for so many; zero is a value.
        let ranges = unsafe { core::slice::from_raw_parts_mut(ranges, ranges::ENTRIES) };
        // SAFETY: within the mapping.
        let progress = unsafe { base.add(NAMES_BYTES + RANGES_BYTES) }.cast::<progress::Entry>().as_ptr();
        // SAFETY: behind the ranges, which are a multiple of the alignment long as well; zero is a value.
        let progress = unsafe { core::slice::from_raw_parts_mut(progress, progress::ENTRIES) };
        Ok((Self { base }, Names::new(names), Ranges::new(ranges), Progress::new(progress)))
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; by its word the tables are not used any more.
        unsafe { sys::unmap(self.base, BYTES) };
    }
}
