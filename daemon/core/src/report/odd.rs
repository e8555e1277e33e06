//! Which of many devices to show: those whose time went elsewhere than that of most.

use super::text::percent;

/// Devices that are all shown.
const FEW: usize = 16;
/// Of more, how many.
const SHOWN: usize = 12;

/// Which rows of a table to show.
#[derive(Debug, PartialEq)]
pub(super) struct Odd {
    /// Positions of the rows that are shown, in order.
    pub(super) shown: Vec<usize>,
    /// Medians of each column, and what is to be said of the rest; none where all are shown.
    pub(super) rest: Option<(Vec<f64>, String)>,
}

/// Picks rows by their shares of time, one a column.
pub(super) fn odd(rows: &[Vec<f64>]) -> Odd {
    if rows.len() <= FEW {
        return Odd { shown: (0..rows.len()).collect(), rest: None };
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let of_row = |row: &[f64], column: usize| row.get(column).copied().unwrap_or(0.0);
    let median = |column: usize| {
        let mut all: Vec<f64> = rows.iter().map(|row| of_row(row, column)).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    let medians: Vec<f64> = (0..columns).map(median).collect();
    let farthest = |row: &Vec<f64>| {
        let far = medians.iter().enumerate().map(|(column, median)| (of_row(row, column) - median).abs());
        far.fold(0.0, f64::max)
    };
    let mut by_distance: Vec<(f64, usize)> =
        rows.iter().enumerate().map(|(at, row)| (farthest(row), at)).collect();
    by_distance.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let rest = by_distance.split_off(SHOWN);
    let least_odd = rest.first().map_or(0.0, |(far, _)| *far);
    let mut shown: Vec<usize> = by_distance.into_iter().map(|(_, at)| at).collect();
    shown.sort_unstable();
    let said = format!(
        "… and {} more, no share of which is farther than {:.1} points from the median (report --json has all)",
        rest.len(),
        least_odd * 100.0
    );
    Odd { shown, rest: Some((medians, said)) }
}

/// A share as the table has it.
pub(super) fn share(share: f64) -> String {
    // Of a million the rounding does not show.
    const WHOLE: u64 = 1_000_000;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share lies between 0 and 1"
    )]
    let part = (share.clamp(0.0, 1.0) * WHOLE as f64).round() as u64;
    percent(part, WHOLE)
}

#[cfg(test)]
mod tests {
    use super::{Odd, odd};

    #[test]
    fn few_are_all_shown() {
        let rows = vec![vec![0.5, 0.5]; 16];
        assert_eq!(odd(&rows), Odd { shown: (0..16).collect(), rest: None });
    }

    #[test]
    fn of_many_those_are_shown_that_differ_most() {
        let mut rows = vec![vec![0.9, 0.1]; 40];
        rows[7] = vec![0.5, 0.5];
        rows[31] = vec![0.89, 0.11];
        let Odd { shown, rest } = odd(&rows);
        assert_eq!(shown.len(), 12);
        assert!(shown.contains(&7) && shown.contains(&31) && shown.is_sorted(), "{shown:?}");
        let (medians, said) = rest.unwrap();
        assert_eq!(medians, [0.9, 0.1]);
        assert!(said.starts_with("… and 28 more, no share of which is farther than 0.0 points"), "{said}");
    }
}
