//! CUPTI's clock beside ours.
//!
//! CUPTI's times are CLOCK_REALTIME unless a profiler in the process has registered a clock of its own. They are passed on
//! as they are: pairs of readings tie them to CLOCK_MONOTONIC, and the daemon converts. A clock for which that cannot be
//! done is refused. No clock of ours is ever registered: it would stay when we are gone.

use stallscope_cupti_abi::{Functions, code};
use stallscope_cupti_wire::{Kind, Record, clock};

use crate::sys;

/// CUPTI's time between two of ours. All in ns, CUPTI's in whatever it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// CLOCK_MONOTONIC before.
    pub(crate) before: u64,
    /// CLOCK_REALTIME before.
    pub(crate) real_before: u64,
    /// CUPTI's.
    pub(crate) cupti: u64,
    /// CLOCK_REALTIME after.
    pub(crate) real_after: u64,
    /// CLOCK_MONOTONIC after.
    pub(crate) after: u64,
}

/// What CUPTI's clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// CLOCK_REALTIME.
    Real,
    /// Another clock that runs evenly: so many of its units in 2^20 ns.
    Steady(u64),
}

/// Readings at an attach, and the time between them: enough for a slope, too little to be noticed.
pub(crate) const SAMPLES: usize = 8;
pub(crate) const SAMPLE_INTERVAL_NS: u64 = 1_000_000;

/// How far CUPTI's time may lie outside the two readings of CLOCK_REALTIME around it: a page fault's worth.
const REAL_TOLERANCE_NS: u64 = 10_000;

/// How far from the line through the outer readings the inner ones may lie, besides their own width.
const LINE_TOLERANCE_NS: u64 = 5_000;

/// The rates that a clock may have, in units in 2^20 ns: from a tenth to ten per ns. A time-stamp counter has 2 to 5.
const RATES: core::ops::RangeInclusive<u64> = (1 << 20) / 10..=(1 << 20) * 10;

/// Once steady, the rate from reading to reading may differ by one part in so many.
const RATE_DRIFT: u64 = 100;

impl Pair {
    /// The narrowest of three readings; the code where CUPTI has no time.
    pub(crate) fn read(functions: &Functions) -> Result<Self, i32> {
        let mut best: Option<Self> = None;
        for _ in 0..3 {
            let pair = Self::read_once(functions)?;
            if best.is_none_or(|best| pair.width() < best.width()) {
                best = Some(pair);
            }
        }
        best.ok_or(code::UNKNOWN)
    }

    fn read_once(functions: &Functions) -> Result<Self, i32> {
        let mut cupti = 0;
        let before = sys::monotonic_ns();
        let real_before = sys::realtime_ns();
        // SAFETY: fills the word that it is given.
        let result = unsafe { (functions.get_timestamp)(&raw mut cupti) };
        let real_after = sys::realtime_ns();
        let after = sys::monotonic_ns();
        if result == code::SUCCESS {
            Ok(Self { before, real_before, cupti, real_after, after })
        } else {
            Err(result)
        }
    }

    /// The record of it.
    pub(crate) fn record(&self) -> Record {
        let mut record = Record::of(Kind::Clock, 0, 0);
        record.0[clock::BEFORE] = self.before;
        record.0[clock::CUPTI] = self.cupti;
        record.0[clock::AFTER] = self.after;
        record.0[clock::REAL] = middle(self.real_before, self.real_after);
        record
    }

    fn width(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    fn is_real(&self) -> bool {
        let earliest = self.real_before.saturating_sub(REAL_TOLERANCE_NS);
        (earliest..=self.real_after.saturating_add(REAL_TOLERANCE_NS)).contains(&self.cupti)
    }
}

fn middle(a: u64, b: u64) -> u64 {
    a.wrapping_add(b.wrapping_sub(a) / 2)
}

/// Units of CUPTI's clock in 2^20 ns between two readings.
fn rate(from: &Pair, to: &Pair) -> Option<u64> {
    let ours =
        middle(to.before, to.after).checked_sub(middle(from.before, from.after)).filter(|ns| *ns > 0)?;
    let theirs = to.cupti.checked_sub(from.cupti)?;
    u64::try_from((u128::from(theirs) << 20).checked_div(ours.into())?).ok()
}

impl Clock {
    /// What clock gave these readings; none where it is not one that can be converted.
    pub(crate) fn of(pairs: &[Pair]) -> Option<Self> {
        if pairs.iter().all(Pair::is_real) {
            return Some(Self::Real);
        }
        let (first, last) = (pairs.first()?, pairs.last()?);
        let rate = rate(first, last).filter(|rate| RATES.contains(rate))?;
        let on_the_line = pairs.iter().all(|pair| {
            let ours = middle(pair.before, pair.after).saturating_sub(middle(first.before, first.after));
            let expected = (u128::from(ours) * u128::from(rate)) >> 20;
            let distance = u128::from(pair.cupti.saturating_sub(first.cupti)).abs_diff(expected);
            let allowed_ns = LINE_TOLERANCE_NS + first.width() + pair.width() + last.width();
            pair.cupti >= first.cupti && distance << 20 <= u128::from(allowed_ns) * u128::from(rate)
        });
        on_the_line.then_some(Self::Steady(rate))
    }

    /// CLOCK_MONOTONIC at a time of CUPTI's that is near a reading.
    pub(crate) fn monotonic(self, near: &Pair, cupti: u64) -> u64 {
        let distance = |units: u64| match self {
            Self::Real => units,
            Self::Steady(rate) => {
                let ns = (u128::from(units) << 20).checked_div(rate.into()).unwrap_or(0);
                u64::try_from(ns).unwrap_or(u64::MAX)
            }
        };
        let here = middle(near.before, near.after);
        if cupti < near.cupti {
            here.saturating_sub(distance(near.cupti - cupti))
        } else {
            here.saturating_add(distance(cupti - near.cupti))
        }
    }

    /// Whether a later reading is still of this clock.
    pub(crate) fn holds(self, before: &Pair, now: &Pair) -> bool {
        match self {
            Self::Real => now.is_real(),
            Self::Steady(expected) => {
                // Readings close together say nothing: their own width is too much of the distance.
                let distance = now.before.saturating_sub(before.after);
                distance < 1000 * (before.width() + now.width())
                    || rate(before, now).is_some_and(|rate| rate.abs_diff(expected) <= expected / RATE_DRIFT)
            }
        }
    }
}
