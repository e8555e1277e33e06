//! Stretches of a device's time that something is to be looked up by, in order and packed: a device waits, and waits for its host,
//! between any two of its operations, so that there may be as many as operations.
//!
//! A stretch is the time since the one before, its length and what it is about, as a number: six bytes or so in place of 24.
//! Every [`BLOCK`] stretches there is a place to begin reading.

use stallscope_schemas::units::TimeNs;

use crate::capture::columns::{put_varint, take_varint};

/// Stretches between two places to begin at.
const BLOCK: usize = 32;

/// A stretch of time and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: TimeNs,
    pub(super) to: TimeNs,
    /// Number of an operation, or of a thread.
    pub(super) about: u32,
}

/// Where a block begins.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// End of the stretch before, and what that was about.
    after: TimeNs,
    about: u32,
    /// Position of its first byte.
    at: usize,
}

/// Stretches in order, which do not overlap.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    heads: Vec<Head>,
    bytes: Vec<u8>,
    /// All but the last are packed: that one may go on.
    last: Option<Piece>,
    packed: usize,
    /// End of the last one that is packed, and what that was about.
    before: (TimeNs, u32),
}

impl Pieces {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.packed + usize::from(self.last.is_some())
    }

    /// The last one, which may be made longer.
    pub(super) fn last_mut(&mut self) -> Option<&mut Piece> {
        self.last.as_mut()
    }

    /// Adds one behind all others.
    pub(super) fn push(&mut self, piece: Piece) {
        if let Some(last) = self.last.replace(piece) {
            self.pack(last);
        }
    }

    fn pack(&mut self, piece: Piece) {
        let (after, about) = if self.packed == 0 { (piece.from, piece.about) } else { self.before };
        if self.packed.is_multiple_of(BLOCK) {
            self.heads.push(Head { after, about, at: self.bytes.len() });
        }
        put_varint(&mut self.bytes, piece.from.since(after));
        put_varint(&mut self.bytes, piece.to.since(piece.from));
        // What comes after is mostly about the same.
        put_varint(&mut self.bytes, u64::from(piece.about ^ about));
        self.before = (piece.to, piece.about);
        self.packed += 1;
    }

    /// Packs the last one as well, and gives back what was set aside for growth.
    pub(super) fn close(&mut self) {
        if let Some(last) = self.last.take() {
            self.pack(last);
        }
        self.heads.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// All of them; to be asked when closed.
    pub(super) fn iter(&self) -> impl Iterator<Item = Piece> + '_ {
        self.read_from(0)
    }

    /// Those that end later than a moment.
    pub(super) fn ending_after(&self, moment: TimeNs) -> impl Iterator<Item = Piece> + '_ {
        let block = self.heads.partition_point(|head| head.after <= moment).saturating_sub(1);
        self.read_from(block).skip_while(move |piece| piece.to <= moment)
    }

    fn read_from(&self, block: usize) -> impl Iterator<Item = Piece> + '_ {
        let head = self.heads.get(block).copied();
        let mut bytes = head.and_then(|head| self.bytes.get(head.at..)).unwrap_or_default();
        let (mut after, mut about) = head.map_or((TimeNs(0), 0), |head| (head.after, head.about));
        std::iter::from_fn(move || {
            let (since, ns) = (take_varint(&mut bytes)?, take_varint(&mut bytes)?);
            about ^= u32::try_from(take_varint(&mut bytes)?).ok()?;
            let from = after.plus(since);
            after = from.plus(ns);
            Some(Piece { from, to: after, about })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};

    use super::{Piece, Pieces, TimeNs};

    proptest! {
        #[test]
        fn what_was_pushed_is_read_in_order_from_any_moment_on(
            steps in prop::collection::vec((0..3_000u64, 1..300u64, 0..5u32), 0..300),
            asked in prop::collection::vec(-2_000_000..1_000_000i64, 0..50),
        ) {
            let (mut at, mut packed, mut plain) = (TimeNs(-1_000_000), Pieces::default(), Vec::new());
            for (gap, ns, about) in steps {
                let from = at.plus(gap);
                let piece = Piece { from, to: from.plus(ns), about };
                // A stretch that goes on is the last one made longer.
                match packed.last_mut() {
                    Some(last) if last.to == from && last.about == about => {
                        last.to = piece.to;
                        *plain.last_mut().unwrap() = *last;
                    }
                    _ => {
                        packed.push(piece);
                        plain.push(piece);
                    }
                }
                at = piece.to;
                assert_eq!(packed.len(), plain.len());
            }
            packed.close();
            assert_eq!(packed.iter().collect::<Vec<_>>(), plain);
            for moment in asked.into_iter().map(TimeNs).chain(plain.iter().map(|piece| piece.to)) {
                let first = plain.partition_point(|piece| piece.to <= moment);
                assert_eq!(packed.ending_after(moment).collect::<Vec<_>>(), plain[first..]);
            }
        }
    }
}
