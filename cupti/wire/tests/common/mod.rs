//! Memory for a ring, as a mapping would give it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use stallscope_cupti_wire::{HEADER_BYTES, Ring, ring_bytes};

#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    pub(crate) fn new(slots: u32) -> Self {
        let layout = Layout::from_size_align(ring_bytes(slots), HEADER_BYTES).expect("small");
        // SAFETY: the layout is not empty: a ring has a header.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        let memory = Self { base, layout };
        // SAFETY: the memory is zeroed, page-aligned, as long as the layout says, and lives as long as `memory`.
        unsafe { Ring::create(base, layout.size(), slots) }.expect("a ring");
        memory
    }

    pub(crate) fn ring(&self) -> Ring<'_> {
        // SAFETY: as in `new`; the lifetime is that of the borrow.
        unsafe { Ring::from_raw(self.base, self.layout.size()) }.expect("still a ring")
    }

    /// Any word of the header or the slots, as the job could write it.
    pub(crate) fn scribble(&self, word: usize, value: u64) {
        let words = self.layout.size() / 8;
        // SAFETY: the index is below the number of words, and the memory is reached by atomics only.
        let words = unsafe { std::slice::from_raw_parts(self.base.cast::<AtomicU64>().as_ptr(), words) };
        words[word % words.len()].store(value, Ordering::Relaxed);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no ring outlives the borrow that it came from.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: the memory is reached by atomics only.
unsafe impl Sync for Memory {}
