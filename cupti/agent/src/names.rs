//! Which names the ring has already been given, by their hash.
//!
//! A name gets its number when its text was written to the ring, and only then. The text itself is not kept: two names
//! with the same 64 bits of hash would be one, which among 65,536 names has a chance of 1 in 8 billion.

/// Names at most; 40 times what a large training job has. Beyond them a name is 0, and counted.
pub(crate) const MAX_NAMES: u32 = 1 << 16;

/// Entries of the table: it is never more than half full.
pub(crate) const ENTRIES: usize = 2 * MAX_NAMES as usize;

/// One place of the table.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Entry {
    hash: u64,
    /// 0 where the place is free.
    number: u64,
}

/// The names of one attachment.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    table: &'a mut [Entry],
    count: u32,
}

impl<'a> Names<'a> {
    /// `table` has [`ENTRIES`] entries, all zero.
    pub(crate) fn new(table: &'a mut [Entry]) -> Self {
        Self { table, count: 0 }
    }

    /// The number of a text. One that is new is given to `write` with the number that it would get; where that fails, it
    /// stays unknown and has none.
    pub(crate) fn number(&mut self, text: &[u8], write: impl FnOnce(u32, &[u8]) -> bool) -> Option<u32> {
        let hash = hash(text);
        // The highest bits are the best mixed.
        let mut place = usize::try_from(hash >> 40).unwrap_or(0);
        for _ in 0..ENTRIES {
            place %= ENTRIES;
            let entry = self.table.get_mut(place)?;
            if entry.number == 0 {
                let number = self.count + 1;
                if number > MAX_NAMES || !write(number, text) {
                    return None;
                }
                *entry = Entry { hash, number: number.into() };
                self.count = number;
                return Some(number);
            }
            if entry.hash == hash {
                return u32::try_from(entry.number).ok();
            }
            place += 1;
        }
        None
    }
}

const SEEDS: [u64; 4] =
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];

/// 64 bits of a text, four chains side by side so that one multiplication does not wait for the one before.
pub(crate) fn hash(text: &[u8]) -> u64 {
    let mut lanes = SEEDS;
    let mut chunks = text.chunks_exact(32);
    for chunk in &mut chunks {
        for ((lane, bytes), seed) in lanes.iter_mut().zip(chunk.as_chunks().0).zip(SEEDS) {
            *lane = fold(*lane ^ u64::from_le_bytes(*bytes), seed);
        }
    }
    // Each part of the rest is followed by a one, so that zeros at the end count.
    for (part, (lane, seed)) in chunks.remainder().chunks(8).zip(lanes.iter_mut().zip(SEEDS)) {
        let word = part.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        *lane = fold(*lane ^ word, seed ^ (1 << part.len()));
    }
    let bytes = text.len() as u64;
    lanes.into_iter().zip(SEEDS).fold(bytes, |all, (lane, seed)| fold(all ^ lane, seed.rotate_left(32)))
}

/// Both halves of a product, so that no bit of either factor is lost.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}
