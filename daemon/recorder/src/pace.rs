//! Keeps what the probes on collective calls cost the job within bounds: they are taken off for a while where calls come
//! too often.
//!
//! The cost of a call is that of two traps, so that it is known from counting. A rule of shares follows: after a stretch
//! in which the probes were on and cost `k` times what is allowed, they are off for `k − 1` such stretches.

use std::time::Duration;

/// What entering and leaving a probed function costs: 2 × 2 to 3 µs in a virtual machine, a third of that without one.
const CALL_COST: Duration = Duration::from_micros(6);
/// Of the CPUs that the ranks can use, in parts of a thousand. Training makes at most some thousand calls a second in a
/// rank, which is half of this; a benchmark of an interconnect makes a hundred thousand.
const ALLOWED_PERMILLE: u64 = 40;
/// Calls are counted over at least this long: a burst of calls after a pause for thought is no storm.
const WINDOW: Duration = Duration::from_millis(100);
/// Taking probes off and putting them on again costs some milliseconds by itself.
const OFF_AT_LEAST: Duration = Duration::from_secs(1);
/// Jobs change: they are looked at again.
const OFF_AT_MOST: Duration = Duration::from_secs(20);

/// What to do with the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Off,
    On,
}

#[derive(Clone, Copy, Debug)]
enum Now {
    /// Since when, and how many calls there had been.
    On(Duration, u64),
    /// Until when.
    Off(Duration),
}

/// Times are those since the recording began.
#[derive(Debug)]
pub(crate) struct Pace {
    allowed_per_second: u64,
    now: Now,
}

impl Pace {
    /// For ranks that can use as many CPUs as this.
    pub(crate) fn new(cpus: usize) -> Self {
        let cost_ns = u64::try_from(CALL_COST.as_nanos()).unwrap_or(u64::MAX);
        let allowed_ns = ALLOWED_PERMILLE.saturating_mul(1_000_000).saturating_mul(cpus.max(1) as u64);
        Self { allowed_per_second: allowed_ns / cost_ns, now: Now::On(Duration::ZERO, 0) }
    }

    /// Calls a second that are allowed, of all ranks.
    pub(crate) fn allowed_per_second(&self) -> u64 {
        self.allowed_per_second
    }

    /// To be asked now and then, with the number of calls so far.
    pub(crate) fn look(&mut self, at: Duration, calls: u64) -> Option<Turn> {
        match self.now {
            Now::On(since, before) => {
                let on = at.saturating_sub(since);
                if on < WINDOW {
                    return None;
                }
                let made = u128::from(calls.saturating_sub(before));
                let allowed = u128::from(self.allowed_per_second) * on.as_nanos() / 1_000_000_000;
                if made <= allowed {
                    self.now = Now::On(at, calls);
                    return None;
                }
                let off = on.as_nanos().saturating_mul(made - allowed) / allowed.max(1);
                let off = Duration::from_nanos(u64::try_from(off).unwrap_or(u64::MAX));
                self.now = Now::Off(at + off.clamp(OFF_AT_LEAST, OFF_AT_MOST));
                Some(Turn::Off)
            }
            Now::Off(until) if at >= until => {
                self.now = Now::On(at, calls);
                Some(Turn::On)
            }
            Now::Off(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pace, Turn};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn probes_that_cost_twenty_times_too_much_are_on_a_twentieth_of_the_time() {
        let mut pace = Pace::new(2);
        let per_ms = pace.allowed_per_second() / 1000 * 20;
        let (mut calls, mut on, mut on_ms) = (0, true, 0);
        for ms in 0..60_000 {
            calls += if on { per_ms } else { 0 };
            on_ms += u32::from(on);
            match pace.look(MS * ms, calls) {
                Some(Turn::Off) => on = false,
                Some(Turn::On) => on = true,
                None => {}
            }
        }
        assert!((2_900..=3_300).contains(&on_ms), "on for {on_ms} of 60000 ms");
    }

    #[test]
    fn what_is_allowed_is_never_taken_off() {
        let mut pace = Pace::new(1);
        let per_ms = pace.allowed_per_second() / 1000;
        assert!((0..10_000).all(|ms| pace.look(MS * ms, per_ms * u64::from(ms)).is_none()));
    }

    #[test]
    fn a_burst_shorter_than_the_window_is_no_storm() {
        let mut pace = Pace::new(1);
        let allowed_in_window = pace.allowed_per_second() / 10;
        assert_eq!(pace.look(MS * 50, allowed_in_window), None);
        assert_eq!(pace.look(MS * 100, allowed_in_window), None);
    }

    #[test]
    fn a_job_that_has_calmed_down_keeps_its_probes() {
        let mut pace = Pace::new(1);
        assert_eq!(pace.look(MS * 100, 1_000_000), Some(Turn::Off));
        assert_eq!(pace.look(MS * 110, 1_000_000), None);
        assert_eq!(pace.look(MS * 30_000, 1_000_000), Some(Turn::On));
        assert_eq!(pace.look(MS * 30_200, 1_000_010), None);
    }
}
