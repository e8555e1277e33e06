//! Where ranks of one machine leave word that they have arrived: memory that all of them have.
//!
//! Each rank has a ring of its own to which it alone adds, and all others read it at their leisure. Adding and reading take
//! no call of the system; who finds a meeting complete wakes those who are in it, with one. What always holds:
//!
//! - A rank adds its arrival first and then reads what others have added. Of those who meet, the last to add therefore
//!   finds all there, whatever the order in which the CPUs see it (the heads are sequentially consistent).
//! - An entry is written anew only once all others have read it. A ring that a slow reader keeps full takes nothing; its
//!   owner says what it has to say by TCP then ([`crate::comm`]) and never waits.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use stallscope_double_shared::memory::{Memory, Place, Source};

use crate::message::{Arrival, Key};

/// Entries of a ring, more than a program usually has collectives out at once. All the rings of a machine with eight
/// ranks stay small against the caches of its CPUs.
const ENTRIES: u64 = 256;

/// An entry is a line of the cache: the ranks of a message (0 for collectives), number, start, transfer, slowed.
const ENTRY_WORDS: usize = 8;

/// Ranks of larger worlds are never all on one machine.
const LARGEST_WORLD: u32 = 1024;

/// A rank's view of the memory.
#[derive(Debug)]
pub(crate) struct Board {
    memory: Memory,
    rank: u32,
    world: u32,
}

/// How far a rank is with everybody's ring. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Entries that this rank has added.
    added: u64,
    /// As many of them at least have been read by all.
    read_by_all: u64,
    /// Entries read, by rank.
    read: Vec<u64>,
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Words of one rank: how many entries it has added, how many of each rank's it has read, and its entries.
fn words_each(world: u32) -> usize {
    8 + size(world).next_multiple_of(8) + size(u32::try_from(ENTRIES).unwrap_or(0)) * ENTRY_WORDS
}

/// Memory for so many ranks, if they are few enough.
pub(crate) fn source(world: u32) -> Option<Source> {
    let wanted = (2..=LARGEST_WORLD).contains(&world);
    wanted.then(|| Source::new("double-nccl", words_each(world) * size(world)).ok())?
}

impl Board {
    pub(crate) fn open(place: &Place, rank: u32, world: u32) -> io::Result<Self> {
        if rank >= world || world > LARGEST_WORLD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { memory: Memory::open(place, words_each(world) * size(world))?, rank, world })
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress { added: 0, read_by_all: 0, read: vec![0; size(self.world)] }
    }

    /// A rank's words.
    fn of(&self, rank: u32) -> &[AtomicU64] {
        let each = words_each(self.world);
        self.memory.words().chunks_exact(each).nth(size(rank)).unwrap_or_default()
    }

    /// How many entries `rank` has added.
    fn head(&self, rank: u32) -> &AtomicU64 {
        &self.of(rank)[0]
    }

    /// How many entries of `rank` the reader has read.
    fn tail(&self, rank: u32, reader: u32) -> &AtomicU64 {
        &self.of(reader)[8 + size(rank)]
    }

    fn entry(&self, rank: u32, number: u64) -> &[AtomicU64] {
        let words = self.of(rank);
        let place = size(u32::try_from(number % ENTRIES).unwrap_or(0)) * ENTRY_WORDS;
        &words[8 + size(self.world).next_multiple_of(8)..][place..place + ENTRY_WORDS]
    }

    fn others(&self) -> impl Iterator<Item = u32> {
        let me = self.rank;
        (0..self.world).filter(move |rank| *rank != me)
    }

    /// How many of this rank's entries all others have read; not more than it has added, whatever they say.
    fn read_by_all(&self, added: u64) -> u64 {
        let read = self.others().map(|reader| self.tail(self.rank, reader).load(Ordering::Acquire));
        read.min().unwrap_or(added).min(added)
    }

    #[cfg(test)]
    pub(crate) fn has_room(&self, progress: &Progress) -> bool {
        progress.added - self.read_by_all(progress.added) < ENTRIES
    }

    /// Leave word of an arrival; false if there is no room.
    pub(crate) fn add(&self, progress: &mut Progress, arrival: &Arrival) -> bool {
        if progress.added - progress.read_by_all >= ENTRIES {
            progress.read_by_all = self.read_by_all(progress.added);
            if progress.added - progress.read_by_all >= ENTRIES {
                return false;
            }
        }
        let (ranks, number) = match arrival.key {
            Key::All(number) => (0, number),
            Key::Pair(from, to, number) => ((u64::from(from) + 1) << 32 | (u64::from(to) + 1), number),
        };
        let words = [ranks, number, arrival.start_ns, arrival.transfer_ns, arrival.slowed_ns];
        for (to, word) in self.entry(self.rank, progress.added).iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        progress.added += 1;
        self.head(self.rank).store(progress.added, Ordering::SeqCst);
        true
    }

    /// Read what others have added since, as far as it concerns this rank.
    pub(crate) fn read(&self, progress: &mut Progress, mut arrived: impl FnMut(Arrival)) {
        for rank in self.others() {
            let head = self.head(rank).load(Ordering::SeqCst);
            let Some(read) = progress.read.get_mut(size(rank)).filter(|read| **read < head) else { continue };
            for number in *read..head.min(*read + ENTRIES) {
                let [ranks, number, start_ns, transfer_ns, slowed_ns] =
                    std::array::from_fn(|word| self.entry(rank, number)[word].load(Ordering::Relaxed));
                let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
                let key = match (half(ranks >> 32).checked_sub(1), half(ranks).checked_sub(1)) {
                    (Some(from), Some(to)) => Key::Pair(from, to, number),
                    _ => Key::All(number),
                };
                if key.has(self.rank) {
                    arrived(Arrival { key, rank, start_ns, transfer_ns, slowed_ns });
                }
            }
            *read = head;
            self.tail(rank, self.rank).store(head, Ordering::Release);
        }
    }

    fn bits(rank: u32) -> NonZeroU32 {
        NonZeroU32::new(1 << (rank % 32)).unwrap_or(NonZeroU32::MIN)
    }

    /// Wake the others who meet for this.
    pub(crate) fn wake(&self, key: &Key) {
        let bits = self.others().filter(|rank| key.has(*rank)).map(Self::bits).reduce(|a, b| a | b);
        if let Some(bits) = bits {
            self.memory.wake(bits);
        }
    }

    /// Wake all others, so that they read.
    pub(crate) fn wake_all(&self) {
        self.memory.wake(NonZeroU32::MAX);
    }

    /// Wake this rank's own thread.
    pub(crate) fn wake_self(&self) {
        self.memory.wake(Self::bits(self.rank));
    }

    /// To be read before reading; see [`Board::wait`].
    pub(crate) fn turn(&self) -> u32 {
        self.memory.turn()
    }

    /// Sleep until someone may have woken this rank since `turn`.
    pub(crate) fn wait(&self, turn: u32) {
        self.memory.wait(turn, Self::bits(self.rank));
    }
}
