//! The daemon's side of the ring: everything in it may be a lie.
//!
//! What always holds:
//! - A slot is copied out once and only the copy is judged. Nothing that the memory says is used as an index or a length
//!   before it is checked; the work of a call is bounded by the longest name.
//! - Words may tear (the job can write while we read): a record is then wrong, never unsafe.
//! - The position is kept here. The `tail` in the memory is only ever written.

use core::sync::atomic::Ordering;

use crate::record::{Kind, Record, SLOT_BYTES, TEXT_BYTES, name};
use crate::ring::Ring;

/// What the reader found wrong, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Times that the head was where it cannot be; everything between was given up.
    pub jumps: u64,
    /// Slots with a kind of which this version knows nothing.
    pub unknown: u64,
    /// Names whose length cannot be, or whose text is not there.
    pub names: u64,
}

/// What came out of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'t> {
    /// A record, and its kind; never [`Kind::Name`].
    Record(Kind, Record),
    /// The text of a name, of which the records after it give the number.
    Name {
        /// Its number.
        number: u32,
        /// Its bytes, not all of them UTF-8 if the job likes.
        text: &'t [u8],
    },
}

/// Room for the text of one name.
#[derive(Clone, Debug)]
pub struct NameBuffer([u8; name::MAX_BYTES]);

impl Default for NameBuffer {
    fn default() -> Self {
        Self([0; name::MAX_BYTES])
    }
}

/// The consumer. One exists at a time.
#[derive(Debug)]
pub struct Reader<'a> {
    ring: Ring<'a>,
    tail: u64,
    /// The head when it was last looked at.
    head: u64,
    faults: Faults,
}

impl<'a> Reader<'a> {
    /// Begins with the newest: what is in the ring was meant for an earlier reader, and its names are not complete.
    #[must_use]
    pub fn new(ring: Ring<'a>) -> Self {
        let head = ring.header().head.load(Ordering::Acquire);
        let reader = Self { ring, tail: head, head, faults: Faults::default() };
        reader.release();
        reader
    }

    /// Begins with the oldest, for a ring that was never read: the agent started before the daemon came.
    #[must_use]
    pub fn from_start(ring: Ring<'a>) -> Self {
        Self { ring, tail: 0, head: 0, faults: Faults::default() }
    }

    /// The next item, or none where the ring is empty. The agent gets the room back with [`Reader::release`].
    pub fn next<'t>(&mut self, text: &'t mut NameBuffer) -> Option<Item<'t>> {
        // Bounded: at most one ring of slots that nobody knows is passed over by one call.
        for _ in 0..self.ring.slots() {
            if self.available() == 0 {
                return None;
            }
            let record = self.ring.load(self.tail);
            self.tail = self.tail.wrapping_add(1);
            #[expect(clippy::cast_possible_truncation, reason = "the kind is the low byte")]
            match Kind::from_id(record.0[0] as u8) {
                None => self.faults.unknown += 1,
                Some(Kind::Name) => {
                    if let Some((number, bytes)) = self.name(&record, text) {
                        return Some(Item::Name { number, text: text.0.get(..bytes).unwrap_or(&[]) });
                    }
                }
                Some(kind) => return Some(Item::Record(kind, record)),
            }
        }
        None
    }

    /// Gives the room of everything that was read back to the agent.
    pub fn release(&self) {
        self.ring.header().tail.store(self.tail, Ordering::Release);
    }

    /// Slots that can be read now, at most those of the ring. A head behind the tail, or further ahead than there are
    /// slots, is none that an agent writes: all is given up up to there.
    pub fn available(&mut self) -> u64 {
        let ready = self.head.wrapping_sub(self.tail);
        if ready > 0 && ready <= self.ring.slots() {
            return ready;
        }
        self.head = self.ring.header().head.load(Ordering::Acquire);
        let ready = self.head.wrapping_sub(self.tail);
        if ready > self.ring.slots() {
            self.faults.jumps += 1;
            self.tail = self.head;
            self.release();
            return 0;
        }
        ready
    }

    /// What was wrong so far.
    #[must_use]
    pub const fn faults(&self) -> Faults {
        self.faults
    }

    /// The ring.
    #[must_use]
    pub const fn ring(&self) -> Ring<'a> {
        self.ring
    }

    fn name(&mut self, head: &Record, buffer: &mut NameBuffer) -> Option<(u32, usize)> {
        let [number, bytes] = crate::record::halves(head.0[name::NUMBER_BYTES]);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > name::MAX_BYTES || bytes.div_ceil(TEXT_BYTES) as u64 > self.available() {
            self.faults.names += 1;
            return None;
        }
        for part in buffer.0[..bytes].chunks_mut(SLOT_BYTES) {
            let slot = self.ring.load(self.tail);
            self.tail = self.tail.wrapping_add(1);
            for (bytes, word) in part.chunks_mut(8).zip(slot.0) {
                let word = word.to_le_bytes();
                for (to, from) in bytes.iter_mut().zip(word) {
                    *to = from;
                }
            }
        }
        Some((number, bytes))
    }
}
