//! How many of a process's launches are sampled: as many as a budget of stacks a second allows.
//!
//! The agent counts the launches that it sees. The rate follows them: at once where they become more, and only after a
//! while where they become fewer, so that a job which launches in bursts is not oversampled at the begin of each.

use std::time::Duration;

/// One in so many, before anything is known of the job: a million launches a second are 16,000 stacks.
pub(crate) const FIRST: u64 = 64;

/// How often the count is looked at: the agent tells it about every 50 ms.
const LOOK: Duration = Duration::from_millis(200);

/// Looks of which the busiest decides: a second. The first time two are enough.
const LOOKS: usize = 5;
const FIRST_LOOKS: usize = 2;

/// A process that says it launches more often than the budget times this is not believed.
const MAX_EVERY: u64 = 1 << 20;

/// The rate of one process.
#[derive(Debug)]
pub(crate) struct Rate {
    /// Stacks a second.
    budget: u64,
    every: u64,
    /// When the count was last looked at, and what it was.
    last: Option<(Duration, u64)>,
    /// What the last looks would have had, the latest last.
    wanted: Vec<u64>,
    /// The rate is one that the job has had.
    is_known: bool,
}

impl Rate {
    /// A budget of 0 is no sampling.
    pub(crate) fn new(budget: u64) -> Self {
        let every = if budget == 0 { 0 } else { FIRST };
        Self { budget, every, last: None, wanted: Vec::new(), is_known: false }
    }

    /// One launch in so many is sampled; 0 is none.
    pub(crate) fn every(&self) -> u64 {
        self.every
    }

    /// Looks at the number of launches seen so far, at a time that only goes forward. Returns the rate where it is now
    /// another one. The number is the job's: whatever it is, the rate stays within its bounds.
    pub(crate) fn look(&mut self, now: Duration, seen: u64) -> Option<u64> {
        if self.budget == 0 {
            return None;
        }
        let (then, before) = *self.last.get_or_insert((now, seen));
        let elapsed = now.saturating_sub(then);
        if elapsed < LOOK {
            return None;
        }
        self.last = Some((now, seen));
        let launches = u128::from(seen.saturating_sub(before));
        let allowed = (u128::from(self.budget) * elapsed.as_micros() / 1_000_000).max(1);
        let wanted = u64::try_from(launches.div_ceil(allowed)).unwrap_or(MAX_EVERY).clamp(1, MAX_EVERY);
        if self.wanted.len() >= LOOKS {
            self.wanted.remove(0);
        }
        self.wanted.push(wanted);
        let most = self.wanted.iter().copied().max().unwrap_or(wanted);
        // Small changes are not worth a word to the agent.
        let is_more = wanted > self.every + self.every / 8;
        let enough = if self.is_known { LOOKS } else { FIRST_LOOKS };
        let is_less = self.wanted.len() >= enough && most < self.every - self.every / 4;
        if !is_more && !is_less {
            return None;
        }
        self.every = if is_more { wanted } else { most };
        self.wanted.clear();
        self.is_known = true;
        Some(self.every)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{FIRST, MAX_EVERY, Rate};

    /// Runs a job of so many launches a second, and returns the rate at its end and the most stacks of a second.
    fn run(rate: &mut Rate, from_s: u64, seconds: u64, a_second: u64, seen: &mut u64) -> (u64, u64) {
        let mut most = 0;
        for second in from_s..from_s + seconds {
            let mut stacks = 0;
            for look in 0..20 {
                *seen += a_second / 20;
                stacks += a_second / 20 / rate.every();
                rate.look(Duration::from_millis(second * 1000 + look * 50), *seen);
            }
            most = most.max(stacks);
        }
        (rate.every(), most)
    }

    #[test]
    fn a_job_gets_the_rate_that_its_launches_allow() {
        let mut seen = 77;
        let mut rate = Rate::new(500);
        assert_eq!(rate.every(), FIRST);
        assert_eq!(run(&mut rate, 0, 3, 400, &mut seen).0, 1, "few launches: all of them");
        let (every, most) = run(&mut rate, 3, 3, 100_000, &mut seen);
        assert!((200..=230).contains(&every), "{every}");
        assert!(most < 500 + 100_000 / 4, "the first look holds it back: {most}");
        let (_, most) = run(&mut rate, 6, 3, 100_000, &mut seen);
        assert!(most <= 500, "{most}");
        assert_eq!(run(&mut rate, 9, 4, 1_000, &mut seen).0, 2, "and back again");
    }

    #[test]
    fn a_burst_in_each_second_is_what_counts() {
        let mut rate = Rate::new(500);
        let mut seen = 0;
        for look in 0..50u64 {
            seen += if look % 5 == 0 { 50_000 } else { 0 };
            rate.look(Duration::from_millis(look * 200), seen);
        }
        assert_eq!(rate.every(), 500, "50,000 in a fifth of a second are a quarter of a million a second");
    }

    #[test]
    fn without_a_budget_nothing_is_sampled() {
        let mut rate = Rate::new(0);
        assert_eq!((rate.every(), rate.look(Duration::from_secs(9), 1 << 40)), (0, None));
    }

    proptest! {
        /// Whatever the job writes for a count.
        #[test]
        fn the_rate_stays_within_its_bounds(counts in prop::collection::vec((0..10_000u64, any::<u64>()), 0..100)) {
            let mut rate = Rate::new(500);
            let mut now = Duration::ZERO;
            for (ms, seen) in counts {
                now += Duration::from_millis(ms);
                rate.look(now, seen);
                prop_assert!((1..=MAX_EVERY).contains(&rate.every()));
            }
        }
    }
}
