//! The agent's side of the ring: puts records in where there is room, and never waits.
//!
//! What always holds: slots are written before the head that covers them is stored (release), and the slots of a name
//! are covered by one store, so that the reader never sees half of it.

use core::sync::atomic::Ordering;

use crate::record::{Kind, Record, SLOT_BYTES, TEXT_BYTES, name};
use crate::ring::{Ring, SLOT_WORDS};

/// Records between two stores of the head. Each store takes the line from the reader: one in 32 is 2 KiB of records.
const PUBLISH_EVERY: u64 = 32;

/// The producer. One exists at a time.
#[derive(Debug)]
pub struct Writer<'a> {
    ring: Ring<'a>,
    /// Slots written; those beyond `published` the reader has not been told of.
    head: u64,
    published: u64,
    /// What the reader's tail was when it was last looked at: it can only have moved on.
    tail: u64,
}

impl<'a> Writer<'a> {
    /// Goes on where the ring's head is.
    #[must_use]
    pub fn new(ring: Ring<'a>) -> Self {
        let head = ring.header().head.load(Ordering::Relaxed);
        let tail = ring.header().tail.load(Ordering::Acquire);
        Self { ring, head, published: head, tail }
    }

    /// Puts a record in; false where there was no room.
    pub fn push(&mut self, record: &Record) -> bool {
        if !self.has_room(1) {
            return false;
        }
        self.ring.store(self.head, record);
        self.head = self.head.wrapping_add(1);
        if self.head.wrapping_sub(self.published) >= PUBLISH_EVERY {
            self.publish();
        }
        true
    }

    /// Puts a name in: all of it or nothing. Text beyond [`name::MAX_BYTES`] is cut.
    pub fn push_name(&mut self, number: u32, text: &[u8]) -> bool {
        let text = text.get(..name::MAX_BYTES).unwrap_or(text);
        if !self.has_room(1 + text.len().div_ceil(TEXT_BYTES) as u64) {
            return false;
        }
        let mut head = Record([0; SLOT_WORDS]);
        head.0[0] = Kind::Name as u64;
        head.0[name::NUMBER_BYTES] = u64::from(number) | (text.len() as u64) << 32;
        self.ring.store(self.head, &head);
        self.head = self.head.wrapping_add(1);
        for part in text.chunks(SLOT_BYTES) {
            let mut slot = Record([0; SLOT_WORDS]);
            for (word, bytes) in slot.0.iter_mut().zip(part.chunks(8)) {
                *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            }
            self.ring.store(self.head, &slot);
            self.head = self.head.wrapping_add(1);
        }
        self.publish();
        true
    }

    /// Tells the reader of everything that was put in.
    pub fn publish(&mut self) {
        self.published = self.head;
        self.ring.header().head.store(self.head, Ordering::Release);
    }

    /// Slots that the reader has yet to read.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.head.wrapping_sub(self.ring.header().tail.load(Ordering::Acquire))
    }

    /// A tail that makes no sense (ahead of the head, or behind by more than the ring) reads as a full ring.
    fn has_room(&mut self, slots: u64) -> bool {
        let fits = |head: u64, tail: u64, size: u64| {
            let used = head.wrapping_sub(tail);
            used <= size && slots <= size - used
        };
        let size = self.ring.slots();
        if fits(self.head, self.tail, size) {
            return true;
        }
        self.tail = self.ring.header().tail.load(Ordering::Acquire);
        fits(self.head, self.tail, size)
    }
}
