//! How the clocks of sources relate to each other, as far as that was found out.
//!
//! A clock is known at moments only. Between two of them it may have run away from the other by `MAX_DRIFT_PPM` of the
//! time since either, so that what is known of a time in between is what both moments allow. Recorded times are never
//! stretched: who compares times of two sources adds the shift of a time and keeps its error.

use stallscope_schemas::units::{SourceId, TimeNs};

/// How fast two clocks may run apart, in parts per million: quartz is good to 50, and there are two of them.
const MAX_DRIFT_PPM: u64 = 100;

/// What a clock showed at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The moment, as the source tells it.
    pub at: TimeNs,
    /// What to add to be on the common clock, ns.
    pub shift_ns: i64,
    /// By how much less it may be at most, ns.
    pub less_ns: u64,
    /// By how much more it may be at most, ns.
    pub more_ns: u64,
    /// Number of the stretch in which the clock ran on steadily: between two stretches it was set.
    pub stretch: u32,
}

/// A source's clock against a common one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The source.
    pub source: SourceId,
    /// Sources with the same number can be compared.
    pub group: u32,
    /// In the order of time; empty where the clock is the common one.
    pub moments: Vec<Moment>,
    /// Whether it cannot run apart from the common clock: both come from one kernel's.
    pub steady: bool,
}

/// What to add to a time of a source to be on the common clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The most likely, ns.
    pub ns: i64,
    /// By how much less it may be at most, ns.
    pub less_ns: u64,
    /// By how much more it may be at most, ns.
    pub more_ns: u64,
}

/// How far a clock may have run away in a time.
pub(crate) fn drift_ns(elapsed_ns: u64) -> u64 {
    elapsed_ns.div_ceil(1_000_000).saturating_mul(MAX_DRIFT_PPM)
}

impl Relation {
    /// Of the source whose clock is the common one.
    #[must_use]
    pub fn common(source: SourceId, group: u32) -> Self {
        Self { source, group, moments: Vec::new(), steady: true }
    }

    /// What to add to a time of the source.
    #[must_use]
    pub fn at(&self, time: TimeNs) -> Shift {
        let after = self.moments.partition_point(|moment| moment.at <= time);
        let range = |moment: &Moment| {
            let drift = if self.steady { 0 } else { drift_ns(moment.at.0.abs_diff(time.0)) };
            let low = moment.shift_ns.saturating_sub_unsigned(moment.less_ns.saturating_add(drift));
            (low, moment.shift_ns.saturating_add_unsigned(moment.more_ns.saturating_add(drift)))
        };
        let before = after.checked_sub(1).and_then(|at| self.moments.get(at));
        let (likely, (low, high)) = match (before, self.moments.get(after)) {
            (None, None) => return Shift::default(),
            (Some(one), None) | (None, Some(one)) => (one.shift_ns, range(one)),
            (Some(one), Some(other)) => {
                let ((low, high), (low_too, high_too)) = (range(one), range(other));
                let both = (low.max(low_too), high.min(high_too));
                let is_nearer = one.at.0.abs_diff(time.0) <= other.at.0.abs_diff(time.0);
                let likely = if is_nearer { one.shift_ns } else { other.shift_ns };
                // It was set somewhere between them: either may hold.
                if one.stretch != other.stretch || both.0 > both.1 {
                    (likely, (low.min(low_too), high.max(high_too)))
                } else {
                    (likely, both)
                }
            }
        };
        let ns = likely.max(low).min(high);
        let apart = |from: i64, to: i64| to.saturating_sub(from).unsigned_abs();
        Shift { ns, less_ns: apart(low, ns), more_ns: apart(ns, high) }
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::units::{SourceId, TimeNs};

    use super::{Moment, Relation, Shift};

    fn moment(at: i64, shift_ns: i64, error_ns: u64, stretch: u32) -> Moment {
        Moment { at: TimeNs(at), shift_ns, less_ns: error_ns, more_ns: error_ns, stretch }
    }

    /// Least and greatest shift at a time.
    fn range(relation: &Relation, at: i64) -> (i64, i64) {
        let Shift { ns, less_ns, more_ns } = relation.at(TimeNs(at));
        (ns - less_ns.cast_signed(), ns + more_ns.cast_signed())
    }

    #[test]
    fn between_two_moments_a_clock_is_as_good_as_both_allow() {
        let second = 1_000_000_000;
        let moments =
            vec![moment(0, 100, 10, 0), moment(second, 140, 10, 0), moment(2 * second, 9_000, 10, 1)];
        let relation = Relation { source: SourceId(0), group: 0, moments, steady: false };
        assert_eq!(range(&relation, 0), (90, 110));
        // In a millisecond it cannot have run away by more than 100 ns.
        assert_eq!(range(&relation, -1_000_000), (-10, 210));
        let (low, high) = range(&relation, second / 2);
        assert!((-49_950..=-49_850).contains(&low) && (50_050..=50_150).contains(&high), "{low} to {high}");
        // Around a step both hold.
        let (low, high) = range(&relation, 3 * second / 2);
        assert!(low <= 140 && high >= 9_000, "{low} to {high}");
        assert_eq!(range(&Relation::common(SourceId(0), 0), 5), (0, 0));
    }
}
