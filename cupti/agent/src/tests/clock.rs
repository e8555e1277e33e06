use crate::clock::{Clock, Pair};

/// Readings a millisecond apart, of a clock that is a function of CLOCK_MONOTONIC.
fn pairs(clock: impl Fn(u64) -> u64) -> Vec<Pair> {
    (0..8).map(|index| pair(5_000_000_000 + index * 1_000_000, &clock)).collect()
}

fn pair(before: u64, clock: impl Fn(u64) -> u64) -> Pair {
    let real = |ns: u64| ns + 1_700_000_000_000_000_000;
    let (real_before, real_after) = (real(before + 50), real(before + 350));
    Pair { before, real_before, cupti: clock(before + 200), real_after, after: before + 400 }
}

#[test]
fn realtime_is_recognised_and_a_small_error_forgiven() {
    let real = |ns| ns + 1_700_000_000_000_000_000;
    assert_eq!(Clock::of(&pairs(real)), Some(Clock::Real));
    assert_eq!(Clock::of(&pairs(|ns| real(ns) + 8_000)), Some(Clock::Real));
}

#[test]
fn a_clock_that_runs_evenly_is_taken_with_its_rate() {
    let Some(Clock::Steady(rate)) = Clock::of(&pairs(|ns| ns * 27 / 10 + 12_345)) else {
        panic!("a counter")
    };
    assert!(rate.abs_diff((1 << 20) * 27 / 10) < 100, "{rate}");
    assert!(matches!(Clock::of(&pairs(|ns| ns + 3)), Some(Clock::Steady(_))), "CLOCK_MONOTONIC itself");
    assert!(
        matches!(Clock::of(&pairs(|ns| ns + 1_700_000_000_000_000_000 - 1_000_000)), Some(Clock::Steady(_))),
        "CLOCK_REALTIME, but for a constant"
    );
}

#[test]
fn a_clock_that_cannot_be_converted_is_none() {
    for (what, clock) in [
        ("one that stands still", Box::new(|_| 5_u64) as Box<dyn Fn(u64) -> u64>),
        ("one that runs backward", Box::new(|ns| (1_u64 << 60) - ns)),
        ("a coarse one", Box::new(|ns| ns / 4_000_000 * 4_000_000)),
        ("noise", Box::new(|ns| ns.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)),
        ("one that jumps once", Box::new(|ns| ns + if ns > 5_004_000_000 { 100_000 } else { 0 })),
        ("one that is far too slow", Box::new(|ns| ns / 100)),
        ("one that is far too fast", Box::new(|ns| ns * 100)),
    ] {
        assert_eq!(Clock::of(&pairs(clock)), None, "{what}");
    }
}

#[test]
fn a_clock_that_changes_later_is_noticed() {
    let real = |ns| ns + 1_700_000_000_000_000_000;
    let (early, late) = (5_000_000_000, 5_100_000_000);
    assert!(Clock::Real.holds(&pair(early, real), &pair(late, real)));
    assert!(!Clock::Real.holds(&pair(early, real), &pair(late, |ns| ns * 3)));

    let steady = Clock::of(&pairs(|ns| ns * 3)).unwrap();
    assert!(steady.holds(&pair(early, |ns| ns * 3), &pair(late, |ns| ns * 3)));
    assert!(!steady.holds(&pair(early, |ns| ns * 3), &pair(late, real)));
    assert!(!steady.holds(&pair(early, |ns| ns * 3), &pair(late, |ns| ns * 3 + 20_000_000)));
    assert!(
        steady.holds(&pair(early, |ns| ns * 3), &pair(early + 10_000, |ns| ns * 4)),
        "readings so close together prove nothing"
    );
}
