//! CUPTI's clock to CLOCK_MONOTONIC.
//!
//! The agent reads CUPTI's clock between two readings of CLOCK_MONOTONIC, at every buffer and every 100 ms. With `b`, `c`,
//! `a` such a reading (before, CUPTI's, after), the true distance at that moment lies within
//! `(a + b) / 2 − c ± (a − b) / 2`. CUPTI's clock is CLOCK_REALTIME or drifts against it by parts per million, so between
//! two readings the distance is taken to change evenly; beyond the last ones it is taken to stay. Where it changed by more
//! than a clock drifts, somebody has set the clock: then the change is part of the error.

use std::collections::VecDeque;

/// Readings that are remembered: at ten a second, the last seven minutes. A record older than that is none of CUPTI's.
const MAX_READINGS: usize = 4096;

/// A reading whose brackets are further apart says nothing: the agent was interrupted in it.
const WIDEST_NS: u64 = 1_000_000;

/// Times beyond this (146 years after 1970) are lies; below it, no sum here overflows.
const LATEST_NS: u64 = 1 << 62;

/// A clock that gains or loses more than this between two readings was set, and nobody knows when: 1000 ppm, twice what
/// NTP slews by.
const STEADY: i128 = 1000;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// CLOCK_MONOTONIC before, ns.
    pub before: u64,
    /// CUPTI's clock, ns.
    pub cupti: u64,
    /// CLOCK_MONOTONIC after, ns.
    pub after: u64,
}

impl Reading {
    fn offset(&self) -> i128 {
        i128::from(self.before.midpoint(self.after)) - i128::from(self.cupti)
    }

    fn error(&self) -> u64 {
        self.after.saturating_sub(self.before).div_ceil(2)
    }
}

/// What is known of the clock so far.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// By CUPTI's time.
    readings: VecDeque<Reading>,
    error: u64,
    refused: u64,
}

impl Clock {
    /// Adds a reading. One that goes back, or is too wide to say anything, is left out and counted.
    pub fn add(&mut self, reading: Reading) {
        let sane = reading.before <= reading.after
            && reading.after - reading.before <= WIDEST_NS
            && reading.after.max(reading.cupti) < LATEST_NS;
        // Both clocks go on from reading to reading, so that what ends later ends later here.
        let later = |last: &Reading| last.cupti < reading.cupti && last.after <= reading.before;
        let later = self.readings.back().is_none_or(later);
        if !sane || !later {
            self.refused += 1;
            return;
        }
        if self.readings.len() >= MAX_READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
    }

    /// CUPTI's time of the last reading: records up to here can be converted for good.
    #[must_use]
    pub fn known_until(&self) -> Option<u64> {
        self.readings.back().map(|r| r.cupti)
    }

    /// CLOCK_MONOTONIC at a time of CUPTI's; `None` before the first reading came, and for a time that cannot be.
    pub fn monotonic(&mut self, cupti: u64) -> Option<u64> {
        let at = self.readings.partition_point(|r| r.cupti <= cupti);
        let before = at.checked_sub(1).and_then(|i| self.readings.get(i));
        let after = self.readings.get(at);
        let (offset, error) = match (before, after) {
            (Some(before), Some(after)) => {
                let (from, to) = (before.offset(), after.offset());
                let part = i128::from(cupti - before.cupti);
                let whole = i128::from(after.cupti - before.cupti).max(1);
                let brackets = before.error().max(after.error());
                let changed = (to - from).unsigned_abs();
                let set = changed > (whole / STEADY).unsigned_abs() + u128::from(brackets) * 2;
                let doubt = if set { u64::try_from(changed).unwrap_or(u64::MAX) } else { 0 };
                (from + (to - from) * part / whole, brackets.saturating_add(doubt))
            }
            (Some(only), None) | (None, Some(only)) => (only.offset(), only.error()),
            (None, None) => return None,
        };
        self.error = self.error.max(error);
        if cupti >= LATEST_NS {
            return None;
        }
        u64::try_from(i128::from(cupti) + offset).ok()
    }

    /// The largest error of a time that was converted so far, ns.
    #[must_use]
    pub fn error_ns(&self) -> u64 {
        self.error
    }

    /// Readings that were left out.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Clock, Reading};

    fn reading(cupti: u64, offset: i64, half_width: u64) -> Reading {
        let middle = cupti.strict_add_signed(offset);
        Reading { before: middle - half_width, cupti, after: middle + half_width }
    }

    #[test]
    fn between_two_readings_the_distance_changes_evenly_and_beyond_them_not_at_all() {
        let mut clock = Clock::default();
        assert_eq!(clock.monotonic(5_000_000), None);
        clock.add(reading(10_000_000, -1_000, 50));
        clock.add(reading(20_000_000, -2_000, 80));
        assert_eq!(clock.monotonic(5_000_000), Some(4_999_000));
        assert_eq!(clock.error_ns(), 50);
        assert_eq!(clock.monotonic(15_000_000), Some(14_998_500));
        assert_eq!(clock.error_ns(), 80);
        assert_eq!(clock.monotonic(30_000_000), Some(29_998_000));
    }

    #[test]
    fn a_reading_in_which_either_clock_goes_back_is_left_out() {
        let mut clock = Clock::default();
        clock.add(reading(10_000_000, -1_000, 50));
        clock.add(reading(20_000_000, -15_000_000, 50));
        clock.add(reading(9_000_000, 15_000_000, 50));
        assert_eq!((clock.refused(), clock.known_until()), (2, Some(10_000_000)));
        assert!(clock.monotonic(20_000_000) > clock.monotonic(10_000_000));
    }

    #[test]
    fn a_clock_that_was_set_is_as_uncertain_as_the_change() {
        let mut clock = Clock::default();
        clock.add(reading(1_000_000_000, 0, 50));
        clock.add(reading(1_100_000_000, 3_000_000, 50));
        assert!(clock.monotonic(1_050_000_000).is_some());
        assert_eq!(clock.error_ns(), 3_000_050);
    }

    #[test]
    fn readings_that_say_nothing_are_left_out() {
        let mut clock = Clock::default();
        clock.add(reading(10_000_000, 0, 2_000_000));
        clock.add(Reading { before: 10, cupti: 5, after: 9 });
        clock.add(reading(10_000_000, 5, 10));
        clock.add(reading(9_000_000, 5, 10));
        assert_eq!((clock.refused(), clock.known_until()), (3, Some(10_000_000)));
    }

    #[test]
    fn hostile_readings_neither_overflow_nor_panic() {
        let mut clock = Clock::default();
        clock.add(Reading { before: u64::MAX - 5, cupti: 1, after: u64::MAX });
        clock.add(Reading { before: 0, cupti: u64::MAX, after: 1 });
        for time in [0, 1, 2, u64::MAX / 2, u64::MAX] {
            let _ = clock.monotonic(time);
        }
    }

    proptest! {
        /// A clock that drifts steadily is followed to within the brackets.
        #[test]
        fn a_drifting_clock_is_followed(ppm in -500i64..500, width in 1u64..2_000, at in 0u64..10_000_000_000) {
            let base = 1_000_000_000_000u64;
            let truth = |cupti: u64| {
                let since = i128::from(cupti - base);
                u64::try_from(7_000_000_000_000 + since + since * i128::from(ppm) / 1_000_000).unwrap()
            };
            let mut clock = Clock::default();
            for i in 0..=100u64 {
                let cupti = base + i * 100_000_000;
                let now = truth(cupti);
                clock.add(Reading { before: now - width, cupti, after: now + width });
            }
            let cupti = base + at;
            let found = clock.monotonic(cupti).unwrap();
            prop_assert!(found.abs_diff(truth(cupti)) <= width + 2);
            prop_assert!(clock.error_ns() <= width);
        }
    }
}
