//! Counts that only grow, and by how much they have grown from one look to the next.
//!
//! A count that was not found in a sample is forgotten: what comes back may have begun anew.

use std::collections::HashMap;

use stallscope_schemas::units::TimeNs;

use crate::sample::{Name, Of};

#[derive(Debug)]
struct Known {
    total: u64,
    at: TimeNs,
    round: u64,
}

/// What all counts were when they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    known: HashMap<(Of, Name), Known>,
    round: u64,
}

impl Totals {
    /// By how much a count has grown, and in how many ns; none where that cannot be said.
    pub(crate) fn growth(&mut self, of: &Of, name: &Name, total: u64, now: TimeNs) -> Option<(u64, u64)> {
        let new = Known { total, at: now, round: self.round };
        let old = self.known.insert((of.clone(), name.clone()), new)?;
        let over_ns = Some(now.since(old.at)).filter(|&ns| ns > 0)?;
        Some((grown(old.total, total)?, over_ns))
    }

    pub(crate) fn end_round(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        self.round += 1;
    }
}

/// A count that has fallen has begun anew (an adapter was reset, a cgroup made again), unless it was in the upper half
/// of what 32 bits hold and is now in the lower: then it has wrapped.
fn grown(before: u64, now: u64) -> Option<u64> {
    const END: u64 = 1 << 32;
    let wrapped = (END / 2..END).contains(&before) && now < END / 2;
    now.checked_sub(before).or_else(|| wrapped.then(|| now + END - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(totals: &mut Totals, total: u64, now: i64) -> Option<(u64, u64)> {
        totals.growth(&Of::Host, &"x (count)".into(), total, TimeNs(now))
    }

    #[test]
    fn growth_is_told_from_the_second_look_on() {
        let mut totals = Totals::default();
        assert_eq!(growth(&mut totals, 100, 10), None);
        assert_eq!(growth(&mut totals, 130, 30), Some((30, 20)));
        assert_eq!(growth(&mut totals, 130, 60), Some((0, 30)));
    }

    #[test]
    fn a_count_of_32_bits_wraps_and_any_other_that_falls_has_begun_anew() {
        assert_eq!(grown(0xffff_fff0, 0x10), Some(0x20));
        assert_eq!(grown(0xf000_0000, 0xe000_0000), None);
        assert_eq!(grown(5_000_000_000, 7), None);
        assert_eq!(grown(100, 7), None);
        assert_eq!(grown(u64::MAX, 0), None);
    }

    #[test]
    fn a_count_that_was_away_begins_anew_and_a_clock_that_stands_still_yields_nothing() {
        let mut totals = Totals::default();
        growth(&mut totals, 100, 10);
        totals.end_round();
        assert_eq!(growth(&mut totals, 110, 20), Some((10, 10)));
        totals.end_round();
        totals.end_round();
        assert_eq!(growth(&mut totals, 120, 40), None);
        assert_eq!(growth(&mut totals, 130, 40), None);
        assert_eq!(totals.known.len(), 1);
    }
}
