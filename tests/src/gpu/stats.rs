//! Medians with their spread, and ratios of pairs that were measured one after the other.

use serde::{Deserialize, Serialize};

/// A median and what it is a median of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest value.
    pub low: f64,
    /// The largest value.
    pub high: f64,
    /// How many values.
    pub count: usize,
}

impl Spread {
    /// Of values in any order; `None` of nothing. Values that are no numbers are left out.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, low, high, count: sorted.len() })
    }
}

/// What something costs, in percent: of each pair of rates, how much longer a unit took under `on` than under `off`.
#[must_use]
pub fn costs_percent(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(off, on)| (off / on - 1.0) * 100.0).collect()
}

/// The same in ns for each unit, of rates a second.
#[must_use]
pub fn costs_ns(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(off, on)| 1e9 / on - 1e9 / off).collect()
}

#[cfg(test)]
mod tests {
    use super::{Spread, costs_ns, costs_percent};

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |values: &[f64]| Spread::of(values).map(|s| (s.low, s.median, s.high, s.count));
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), Some((1.0, 2.5, 4.0, 4)));
        assert_eq!(of(&[9.0, 1.0, f64::NAN, 5.0]), Some((1.0, 5.0, 9.0, 3)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn half_the_rate_costs_as_much_again() {
        assert_eq!(costs_percent(&[(1000.0, 500.0)]), [100.0]);
        assert_eq!(costs_ns(&[(1e6, 5e5)]), [1000.0]);
    }
}
