//! Stretches of time in which a thread was inside a collective library.

/// Ranges that are kept of one thread; the oldest go first.
const MAX_RANGES: usize = 1 << 16;

/// Disjoint ranges in the order of time.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    ranges: Vec<(i64, i64)>,
}

impl Ranges {
    /// Adds `[start, end]`, in roughly any order.
    pub(super) fn add(&mut self, mut start: i64, mut end: i64) {
        let from = self.ranges.partition_point(|&(_, e)| e < start);
        let to = self.ranges.partition_point(|&(s, _)| s <= end);
        if let (Some(&(first, _)), Some(&(_, last))) =
            (self.ranges.get(from), self.ranges.get(to.wrapping_sub(1)))
            && from < to
        {
            start = start.min(first);
            end = end.max(last);
        }
        self.ranges.splice(from..to.max(from), [(start, end)]);
        if self.ranges.len() > MAX_RANGES {
            // Half at once: dropping one by one would move the rest each time.
            self.ranges.drain(..MAX_RANGES / 2);
        }
    }

    /// Whether a moment lies in one of them.
    pub(super) fn contain(&self, at: i64) -> bool {
        let next = self.ranges.partition_point(|&(start, _)| start <= at);
        next.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|&(_, end)| at <= end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{MAX_RANGES, Ranges};

    proptest! {
        #[test]
        fn membership_is_that_of_the_union(spans in proptest::collection::vec((0i64..60, 0i64..9), 0..20)) {
            let mut ranges = Ranges::default();
            for &(start, len) in &spans {
                ranges.add(start, start + len);
            }
            for at in -1..80 {
                let inside = spans.iter().any(|&(start, len)| start <= at && at <= start + len);
                prop_assert_eq!(ranges.contain(at), inside, "{}", at);
            }
            prop_assert_eq!(ranges.ranges.is_sorted_by(|a, b| a.1 < b.0), true);
        }
    }

    #[test]
    fn endless_ranges_stay_bounded_and_the_latest_count() {
        let mut ranges = Ranges::default();
        for i in 0..3 * MAX_RANGES as i64 {
            ranges.add(10 * i, 10 * i + 1);
        }
        assert!(ranges.ranges.len() <= MAX_RANGES);
        assert!(ranges.contain(30 * MAX_RANGES as i64 - 10));
    }
}
