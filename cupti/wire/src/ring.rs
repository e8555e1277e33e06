//! The mapped memory as both sides see it: the header, and the slots as words.
//!
//! Every word is an atomic, because the other side writes when it likes. `slots` is read once, when the memory is taken
//! over; what the header says of it later is ignored.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::header::{HEADER_BYTES, Header, MAGIC, VERSION};
use crate::record::{Record, SLOT_BYTES};

/// Words of a slot.
pub(crate) const SLOT_WORDS: usize = SLOT_BYTES / 8;

/// The fewest slots: a name of full length and something to say about it must fit.
pub const MIN_SLOTS: u32 = 256;

/// The most slots (1 GiB): more than any use has, and few enough for every sum to fit.
pub const MAX_SLOTS: u32 = 1 << 24;

/// Bytes of shared memory for so many slots.
#[must_use]
pub const fn ring_bytes(slots: u32) -> usize {
    HEADER_BYTES + slots as usize * SLOT_BYTES
}

/// Why memory is not a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// There are too few bytes for what the header says, or the address is not that of a page.
    Size,
    /// It does not begin with [`MAGIC`].
    Magic,
    /// It is of another version.
    Version(u32),
    /// The number of slots is not a power of two between [`MIN_SLOTS`] and [`MAX_SLOTS`].
    Slots(u32),
}

impl core::fmt::Display for RingError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size => write!(out, "the memory is smaller than its header says"),
            Self::Magic => write!(out, "the memory is not a ring"),
            Self::Version(version) => write!(out, "the ring is of version {version}, not {VERSION}"),
            Self::Slots(slots) => write!(out, "the ring says that it has {slots} slots"),
        }
    }
}

impl core::error::Error for RingError {}

/// A ring in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    header: &'a Header,
    words: &'a [AtomicU64],
    mask: u64,
}

impl<'a> Ring<'a> {
    /// Makes a ring of zeroed memory: what whoever created the memory does, once, before the other side sees it.
    ///
    /// # Safety
    /// As for [`Ring::from_raw`].
    #[expect(unsafe_code, reason = "the one place where memory becomes a ring")]
    pub unsafe fn create(base: NonNull<u8>, bytes: usize, slots: u32) -> Result<Self, RingError> {
        if bytes < HEADER_BYTES || !base.as_ptr().addr().is_multiple_of(HEADER_BYTES) {
            return Err(RingError::Size);
        }
        // SAFETY: the caller vouches for the memory; it is a header's size and alignment at least (checked above), and
        // every bit pattern is a header.
        let header = unsafe { base.cast::<Header>().as_ref() };
        header.version.store(VERSION, Ordering::Relaxed);
        header.slots.store(slots, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        // SAFETY: the same memory, for which the caller vouches.
        unsafe { Self::from_raw(base, bytes) }
    }

    /// Takes over memory that the other side, or this one, has made a ring.
    ///
    /// # Safety
    /// - `bytes` bytes from `base` on are mapped readable and writable for all of `'a`, and stay: the memory is sealed
    ///   against shrinking, or its owner is trusted not to cut it.
    /// - Within this process it is reached by atomics only.
    #[expect(unsafe_code, reason = "the one place where memory becomes a ring")]
    pub unsafe fn from_raw(base: NonNull<u8>, bytes: usize) -> Result<Self, RingError> {
        if bytes < HEADER_BYTES || !base.as_ptr().addr().is_multiple_of(HEADER_BYTES) {
            return Err(RingError::Size);
        }
        // SAFETY: the caller vouches for the memory; it is a header's size and alignment at least (checked above), and
        // every bit pattern is a header.
        let header = unsafe { base.cast::<Header>().as_ref() };
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(RingError::Magic);
        }
        let version = header.version.load(Ordering::Relaxed);
        if version != VERSION {
            return Err(RingError::Version(version));
        }
        let slots = header.slots.load(Ordering::Relaxed);
        if !slots.is_power_of_two() || !(MIN_SLOTS..=MAX_SLOTS).contains(&slots) {
            return Err(RingError::Slots(slots));
        }
        if bytes < ring_bytes(slots) {
            return Err(RingError::Size);
        }
        // SAFETY: within the `bytes` bytes for which the caller vouches.
        let first = unsafe { base.add(HEADER_BYTES) }.cast::<AtomicU64>();
        let count = slots as usize * SLOT_WORDS;
        // SAFETY: `ring_bytes(slots)` bytes are there, so `count` words are; the header's page keeps them aligned.
        let words = unsafe { core::slice::from_raw_parts(first.as_ptr(), count) };
        Ok(Self { header, words, mask: u64::from(slots) - 1 })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a Header {
        self.header
    }

    /// Slots.
    #[must_use]
    pub const fn slots(&self) -> u64 {
        self.mask + 1
    }

    /// The words of the slot with this number; numbers count on without end.
    fn slot(&self, number: u64) -> &'a [AtomicU64] {
        // Masked, so it is below the number of slots, which is a u32.
        let first = usize::try_from(number & self.mask).unwrap_or(0) * SLOT_WORDS;
        self.words.get(first..first + SLOT_WORDS).unwrap_or(&[])
    }

    /// Copies a slot out, once: what is judged afterwards is the copy.
    pub(crate) fn load(&self, number: u64) -> Record {
        let mut record = Record([0; SLOT_WORDS]);
        for (word, shared) in record.0.iter_mut().zip(self.slot(number)) {
            *word = shared.load(Ordering::Relaxed);
        }
        record
    }

    /// Copies a slot in.
    pub(crate) fn store(&self, number: u64, record: &Record) {
        for (word, shared) in record.0.iter().zip(self.slot(number)) {
            shared.store(*word, Ordering::Relaxed);
        }
    }
}
