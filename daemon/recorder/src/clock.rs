//! How the kernel's clock relates to the calendar.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Tries: the narrowest one counts.
const TRIES: usize = 16;

fn ns(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// CLOCK_MONOTONIC now, ns: the clock of all records.
pub(crate) fn monotonic_ns() -> i64 {
    ns(clock_gettime(ClockId::Monotonic))
}

/// What to add to CLOCK_MONOTONIC to have Unix time, and the error of that, ns.
///
/// The calendar clock is read between two readings of the monotonic one; it was read at some moment between them, so
/// that half their distance bounds the error.
pub(crate) fn unix_offset() -> (i64, u64) {
    let mut best = (0, u64::MAX);
    for _ in 0..TRIES {
        let before = monotonic_ns();
        let unix = ns(clock_gettime(ClockId::Realtime));
        let after = monotonic_ns();
        let width = after.saturating_sub(before).unsigned_abs();
        let error = width.div_ceil(2);
        if error < best.1 {
            best = (unix - before.midpoint(after), error);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{monotonic_ns, unix_offset};

    #[test]
    fn the_offset_leads_to_the_calendar() {
        let (offset, error) = unix_offset();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let ours = i128::from(monotonic_ns() + offset);
        let theirs = i128::try_from(now.as_nanos()).unwrap();
        assert!((ours - theirs).abs() < 1_000_000_000, "{ours} {theirs} ± {error}");
        assert!(error < 1_000_000_000);
    }
}
