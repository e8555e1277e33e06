//! How far each leaf of a device had come at many moments, packed.
//!
//! From one moment to the next few leaves go on, so that a moment is the time since the one before, which leaves went on, and by
//! how much: a dozen bytes where the sums themselves are 150. Every [`BLOCK`] moments the sums are kept whole, which is where
//! reading begins. A reader unpacks whole blocks and keeps a few: questions move on slowly.

use stallscope_schemas::units::TimeNs;

use super::cpu::CpuLeaf;
use super::root::RootLeaf;
use crate::capture::columns::{put_varint, take_varint};

/// Time by root leaf; waits for late ranks are [`RootLeaf::Unseen`].
pub(super) type ByLeaf = [u64; ROOTS];

/// The same, and behind it what the threads that launch did in the time of [`RootLeaf::IdleHost`], by what that is charged to.
pub(crate) type Progress = [u64; ROOTS + CpuLeaf::ALL.len()];

const ROOTS: usize = RootLeaf::ALL.len();

/// What the sums are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// A leaf of the device.
    Device(RootLeaf),
    /// Of the time in which it waited for its host, what the launching thread did; of a rank on CPUs, what its thread did outside of
    /// collectives.
    Host(CpuLeaf),
}

impl Part {
    /// Position of its sum in [`Progress`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Device(leaf) => leaf as usize,
            Self::Host(leaf) => ROOTS + leaf as usize,
        }
    }
}

/// Moments between two whole sums: these then cost three bytes a moment, and unpacking a block takes a microsecond.
const BLOCK: usize = 64;
/// Blocks that a reader keeps: a question is about two moments, and operations of several communicators overlap.
const KEPT: usize = 4;

/// The first moment of a block.
#[derive(Debug)]
struct Head {
    at: TimeNs,
    so_far: Progress,
    /// Where the rest of the block begins.
    from: usize,
}

/// The moments of one device, in order.
#[derive(Debug)]
pub(crate) struct SoFar {
    heads: Vec<Head>,
    bytes: Vec<u8>,
    len: usize,
    last: (TimeNs, Progress),
}

impl Default for SoFar {
    fn default() -> Self {
        let last = (TimeNs(0), [0; ROOTS + CpuLeaf::ALL.len()]);
        Self { heads: Vec::new(), bytes: Vec::new(), len: 0, last }
    }
}

impl SoFar {
    /// Adds a moment, which is later than the one before; no sum is less than it was.
    pub(super) fn push(&mut self, at: TimeNs, so_far: &Progress) {
        if self.len.is_multiple_of(BLOCK) {
            self.heads.push(Head { at, so_far: *so_far, from: self.bytes.len() });
        } else {
            put_varint(&mut self.bytes, at.since(self.last.0));
            let went_on = |(_, (now, before)): &(u32, (&u64, &u64))| now > before;
            let each = || (0u32..).zip(so_far.iter().zip(&self.last.1)).filter(went_on);
            put_varint(&mut self.bytes, each().fold(0, |set, (leaf, _)| set | 1 << leaf));
            for (_, (now, before)) in each() {
                put_varint(&mut self.bytes, now - before);
            }
        }
        self.len += 1;
        self.last = (at, *so_far);
    }

    /// Gives back what was set aside for growth.
    pub(super) fn shrink(&mut self) {
        self.heads.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// Unpacks the block of this number.
    fn unpack(&self, number: usize, out: &mut Vec<(TimeNs, Progress)>) {
        out.clear();
        let Some(head) = self.heads.get(number) else { return };
        let (mut at, mut so_far) = (head.at, head.so_far);
        out.push((at, so_far));
        let to = self.heads.get(number + 1).map_or(self.bytes.len(), |next| next.from);
        let mut bytes = self.bytes.get(head.from..to).unwrap_or_default();
        while let (Some(since), Some(mut set)) = (take_varint(&mut bytes), take_varint(&mut bytes)) {
            at = at.plus(since);
            while set != 0 {
                let leaf = so_far.get_mut(set.trailing_zeros() as usize);
                if let (Some(sum), Some(more)) = (leaf, take_varint(&mut bytes)) {
                    *sum = sum.saturating_add(more);
                }
                set &= set - 1;
            }
            out.push((at, so_far));
        }
    }
}

/// The moments of a block, and when they were last asked for.
type Kept = (u64, Vec<(TimeNs, Progress)>);

/// Reads the moments of one device.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    of: &'a SoFar,
    kept: Vec<Kept>,
    questions: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(of: &'a SoFar) -> Self {
        Self { of, kept: Vec::new(), questions: 0 }
    }

    /// The sums at a moment that was pushed.
    fn at(&mut self, moment: TimeNs) -> Option<&Progress> {
        self.last_until(moment).filter(|(at, _)| *at == moment).map(|(_, so_far)| so_far)
    }

    /// The last moment that was pushed until then, and the sums.
    pub(crate) fn last_until(&mut self, moment: TimeNs) -> Option<&(TimeNs, Progress)> {
        self.questions += 1;
        let holds = |(_, moments): &Kept| {
            let (Some((first, _)), Some((last, _))) = (moments.first(), moments.last()) else { return false };
            *first <= moment && moment <= *last
        };
        let found = match self.kept.iter().position(holds) {
            Some(found) => found,
            None => {
                let number = self.of.heads.partition_point(|head| head.at <= moment).checked_sub(1)?;
                self.load(number)
            }
        };
        let (asked, moments) = self.kept.get_mut(found)?;
        *asked = self.questions;
        let after = moments.partition_point(|(at, _)| *at <= moment);
        moments.get(after.checked_sub(1)?)
    }

    /// Unpacks a block in place of the one that was asked for the longest time ago; its place.
    fn load(&mut self, number: usize) -> usize {
        let oldest = self.kept.iter().enumerate().min_by_key(|(_, (asked, _))| *asked);
        let place = match oldest {
            Some((place, _)) if self.kept.len() >= KEPT => place,
            _ => {
                self.kept.push((0, Vec::with_capacity(BLOCK)));
                self.kept.len() - 1
            }
        };
        if let Some((_, moments)) = self.kept.get_mut(place) {
            self.of.unpack(number, moments);
        }
        place
    }

    /// What the device did between two of the moments.
    pub(super) fn between(&mut self, from: TimeNs, to: TimeNs) -> Option<ByLeaf> {
        let (begin, end) = (*self.at(from)?, *self.at(to)?);
        let (mut did, mut known): (ByLeaf, u64) = ([0; ROOTS], 0);
        for (did, (end, begin)) in did.iter_mut().zip(end.iter().zip(begin)) {
            *did = end.saturating_sub(begin);
            known = known.saturating_add(*did);
        }
        // Outside of the device's window nothing is known of it.
        if let Some(unknown) = did.get_mut(RootLeaf::Unknown as usize) {
            *unknown = unknown.saturating_add(to.since(from).saturating_sub(known));
        }
        Some(did)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};

    use super::{CpuLeaf, Progress, ROOTS, Reader, SoFar, TimeNs};

    const SUMS: usize = ROOTS + CpuLeaf::ALL.len();

    proptest! {
        #[test]
        fn what_was_pushed_is_found_and_nothing_else(
            steps in prop::collection::vec((1..2_000u64, 0..SUMS, 0..SUMS, 0..3u64), 1..400),
            asked in prop::collection::vec(0..400usize, 0..200),
        ) {
            let (mut at, mut sums): (TimeNs, Progress) = (TimeNs(-1_000_000), [0; SUMS]);
            let (mut packed, mut plain) = (SoFar::default(), Vec::new());
            for (since, one, other, more) in steps {
                at = at.plus(since);
                sums[one] += more << 40;
                sums[other] += more;
                packed.push(at, &sums);
                plain.push((at, sums));
            }
            let mut reader = Reader::new(&packed);
            for place in asked.into_iter().chain(0..plain.len()) {
                let (at, sums) = plain[place % plain.len()];
                assert_eq!(reader.at(at), Some(&sums));
                let beside = at.plus(1);
                assert_eq!(reader.at(beside).is_some(), plain.iter().any(|(at, _)| *at == beside));
            }
            assert_eq!(reader.at(plain[0].0.minus(1)), None);
        }
    }
}
