//! Other profilers, their clocks, and the sampling of launches.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use stallscope_cupti_abi::{ActivityKind, code};
use stallscope_cupti_wire::{Command, Detached, Kind, Lost, Reason, State, loss};

use super::fake::{FakeClock, deliver, fake, job_calls};
use super::setup::{KINDS, Setup, kernel};
use crate::sample::{Sample, fair_share, is_sampled};

/// Until the agent looks for another profiler.
fn a_second_later(setup: &mut Setup) {
    std::thread::sleep(Duration::from_millis(1001));
    setup.machine.step();
}

#[test]
fn it_makes_way_for_a_profiler_that_comes_and_comes_back_when_that_is_gone() {
    let mut setup = Setup::attached();
    fake(|fake| fake.subscribe_result = 39);
    setup.machine.step();
    assert_eq!(setup.state().0, State::On, "it looks once a second");
    a_second_later(&mut setup);
    assert_eq!(setup.state(), (State::Refused, Reason::OtherProfiler));
    assert_eq!(setup.header.detached.load(Relaxed), Detached::DisabledOther.id());
    fake(|fake| {
        assert_eq!(
            fake.enabled.iter().copied().collect::<Vec<_>>(),
            [1, 2, 10],
            "what the other one needs too stays"
        );
        assert!(!fake.driver_calls.is_empty());
        assert_eq!(fake.finalized, 0);
        fake.flushes.clear();
    });
    a_second_later(&mut setup);
    assert!(fake(|fake| fake.enabled.contains(&10) && fake.flushes.is_empty()), "nothing is taken from it");

    fake(|fake| fake.subscribe_result = code::SUCCESS);
    a_second_later(&mut setup);
    assert!(
        fake(|fake| fake.enabled.is_empty() && fake.driver_calls.is_empty()),
        "what was left is disabled"
    );
    a_second_later(&mut setup);
    assert_eq!(setup.state(), (State::On, Reason::None));
}

#[test]
fn what_was_left_to_a_profiler_that_collects_nothing_is_disabled() {
    let mut setup = Setup::attached();
    fake(|fake| fake.subscribe_result = 39);
    a_second_later(&mut setup);
    assert_eq!(setup.state(), (State::Refused, Reason::OtherProfiler));
    setup.read();
    // Buffers still come to us: the other one has not asked for them.
    let (requested, completed) = fake(|fake| fake.callbacks).unwrap();
    deliver(&[kernel(1, 2, 3, c"k")], requested, completed);
    setup.command(Command::Rest);
    a_second_later(&mut setup);
    assert!(
        fake(|fake| !fake.enabled.is_empty()),
        "in its first second it may not have registered its callbacks yet"
    );
    deliver(&[kernel(1, 2, 3, c"k")], requested, completed);
    a_second_later(&mut setup);
    // Names in them may be gone with the other one's end: they are counted and not read.
    assert_eq!((setup.read_kind(Kind::Kernel).len(), setup.lost(Lost::Yielded)), (0, 2));
    assert!(fake(|fake| fake.enabled.is_empty() && fake.driver_calls.is_empty()));
    assert_eq!(setup.state(), (State::Dormant, Reason::None));
    assert_eq!(fake(|fake| fake.finalized), 0, "the other one is still there");
    fake(|fake| fake.subscribe_result = code::SUCCESS);
}

#[test]
fn leaving_takes_nothing_from_a_profiler_that_is_at_work() {
    let mut setup = Setup::attached();
    fake(|fake| fake.subscribe_result = 39);
    a_second_later(&mut setup);
    setup.command(Command::Leave);
    setup.machine.step();
    assert_eq!(setup.state().0, State::Gone);
    assert!(fake(|fake| fake.enabled.contains(&10)));
    fake(|fake| fake.subscribe_result = code::SUCCESS);
}

#[test]
fn another_profiler_keeps_the_end_from_finalising() {
    let mut setup = Setup::attached();
    fake(|fake| fake.subscribe_result = 39);
    setup.command(Command::Rest);
    setup.machine.step();
    assert_eq!(setup.state().0, State::Dormant);
    assert_eq!(setup.header.detached.load(Relaxed), Detached::DisabledOther.id());
    assert!(fake(|fake| fake.enabled.is_empty() && fake.finalized == 0));
    fake(|fake| fake.subscribe_result = code::SUCCESS);
}

/// Another profiler takes the callbacks; when it is done nothing is enabled.
fn short_profile() {
    fake(|fake| {
        fake.is_taken = true;
        fake.enabled.clear();
        fake.driver_calls.clear();
    });
}

#[test]
fn a_profile_that_nobody_saw_is_noticed_by_the_mark_that_does_not_come_back() {
    let mut setup = Setup::attached();
    setup.flush();
    setup.flush();
    let before_ns = crate::sys::monotonic_ns();
    assert!(setup.header.known_until.load(Relaxed) < before_ns);
    short_profile();
    setup.flush();
    let known_ns = setup.header.known_until.load(Relaxed);
    assert!(known_ns > 0 && known_ns < before_ns, "{known_ns} {before_ns}");
    assert_eq!(setup.state().0, State::On, "nobody has the subscription");
    assert!(fake(|fake| fake.is_taken), "its records are left to it for a while");
    a_second_later(&mut setup);
    assert!(!fake(|fake| fake.is_taken), "nobody is there any more");
    assert!(fake(|fake| fake.enabled.contains(&10) && fake.driver_calls.contains(&307)));
    setup.read();
    setup.flush();
    let losses = setup.read_kind(Kind::Loss);
    let again_ns = crate::sys::monotonic_ns();
    assert_eq!((losses.len(), setup.lost(Lost::Taken)), (1, 1));
    assert_eq!((losses[0].0[loss::SINCE], losses[0].0[loss::WHAT]), (known_ns, Lost::Taken.id().into()));
    let until_ns = losses[0].0[loss::UNTIL];
    assert!(until_ns > before_ns && until_ns <= again_ns);
    assert!(setup.header.known_until.load(Relaxed) > known_ns);
}

#[test]
fn where_the_call_of_marks_cannot_be_had_alone_all_calls_are_and_marks_come_back() {
    let mut setup = Setup::new();
    fake(|fake| fake.refuses_mark_call = true);
    setup.collect(KINDS);
    setup.machine.step();
    assert_eq!(setup.state(), (State::On, Reason::None));
    assert!(fake(|fake| fake.enabled.contains(&ActivityKind::Driver.id()) && fake.driver_calls.is_empty()));
    let before_ns = crate::sys::monotonic_ns();
    for _ in 0..3 {
        setup.flush();
    }
    assert!(setup.header.known_until.load(Relaxed) > before_ns);
    assert_eq!(setup.lost(Lost::Taken), 0);
}

#[test]
fn one_that_is_still_there_is_made_way_for_at_once_and_what_went_to_it_is_unknown() {
    let mut setup = Setup::attached();
    setup.flush();
    setup.flush();
    let before_ns = crate::sys::monotonic_ns();
    fake(|fake| (fake.is_taken, fake.subscribe_result) = (true, 39));
    setup.flush();
    assert_eq!(setup.state(), (State::Refused, Reason::OtherProfiler), "not only a second later");
    assert!(fake(|fake| fake.taken.len() <= 1), "it gets one mark");
    let known_ns = setup.header.known_until.load(Relaxed);
    assert!(known_ns > 0 && known_ns < before_ns);
    fake(|fake| fake.subscribe_result = code::SUCCESS);
    a_second_later(&mut setup);
    a_second_later(&mut setup);
    assert_eq!(setup.state(), (State::On, Reason::None));
    let losses = setup.read_kind(Kind::Loss);
    assert_eq!((losses.len(), losses[0].0[loss::SINCE]), (1, known_ns));
}

#[test]
fn a_profiler_that_is_not_seen_until_the_end_gets_no_records_taken_from_it() {
    let mut setup = Setup::attached();
    setup.flush();
    setup.flush();
    fake(|fake| fake.is_taken = true);
    setup.flush();
    fake(|fake| {
        fake.subscribe_result = 39;
        fake.flushes.clear();
    });
    setup.command(Command::Rest);
    setup.machine.step();
    assert_eq!(setup.state(), (State::Dormant, Reason::None));
    assert!(fake(|fake| fake.flushes.is_empty() && fake.enabled.contains(&10)));
    assert!(setup.header.known_until.load(Relaxed) > 0);
    fake(|fake| fake.subscribe_result = code::SUCCESS);
    a_second_later(&mut setup);
    assert!(fake(|fake| fake.enabled.is_empty()), "what was left is disabled");
}

#[test]
fn what_ran_when_records_last_came_is_not_known_either() {
    let mut setup = Setup::attached();
    setup.flush();
    let now = crate::sys::realtime_ns();
    // The first has come back; the second was launched, and began after it.
    let launch = |correlation: u32, start: u64| {
        let mut record = super::setup::call(307, correlation);
        record[8..16].copy_from_slice(&start.to_ne_bytes());
        record[16..24].copy_from_slice(&(start + 10).to_ne_bytes());
        record
    };
    let (launched, ended) = (now - 90_000_000, now - 60_000_000);
    fake(|fake| {
        fake.records =
            vec![launch(5, launched), launch(6, launched + 100), kernel(launched + 50, ended, 5, c"k")];
    });
    setup.flush();
    setup.flush();
    short_profile();
    setup.flush();
    let known_ns = setup.header.known_until.load(Relaxed);
    let ago_ns = crate::sys::monotonic_ns() - known_ns;
    let expected_ns = crate::sys::realtime_ns() - ended;
    assert!(ago_ns.abs_diff(expected_ns) < 5_000_000, "{ago_ns} {expected_ns}");
}

#[test]
fn a_mark_in_a_buffer_that_cupti_keeps_says_nothing_yet() {
    let mut setup = Setup::attached();
    setup.flush();
    setup.flush();
    let (requested, completed) = fake(|fake| fake.callbacks).unwrap();
    let (mut buffer, mut size, mut most) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: the agent's callback: CUPTI holds a buffer, in which something is not complete.
    unsafe { requested(&raw mut buffer, &raw mut size, &raw mut most) };
    fake(|fake| fake.holds = Some((buffer.expose_provenance(), 0)));
    setup.flush();
    let known_ns = setup.header.known_until.load(Relaxed);
    for _ in 0..3 {
        setup.flush();
        assert_eq!((setup.header.known_until.load(Relaxed), setup.lost(Lost::Taken)), (known_ns, 0));
    }
    let (_, valid) = fake(|fake| fake.holds.take()).unwrap();
    assert!(valid >= 3 * 40, "the marks are in it");
    // SAFETY: the agent's callback, with the buffer that it gave.
    unsafe { completed(std::ptr::null_mut(), 0, buffer, size, valid) };
    setup.flush();
    assert!(setup.header.known_until.load(Relaxed) > known_ns);
    assert_eq!(setup.lost(Lost::Taken), 0);
}

#[test]
fn a_clock_that_runs_evenly_is_taken_and_one_that_changes_ends_the_session() {
    let mut setup = Setup::new();
    fake(|fake| fake.clock = FakeClock::Counter);
    setup.collect(KINDS);
    setup.machine.step();
    assert_eq!(setup.state(), (State::On, Reason::None));
    std::thread::sleep(Duration::from_millis(110));
    setup.machine.step();
    assert_eq!(setup.state().0, State::On);
    fake(|fake| fake.clock = FakeClock::Real);
    std::thread::sleep(Duration::from_millis(110));
    setup.machine.step();
    assert_eq!(setup.state(), (State::Refused, Reason::ForeignClock));
    assert!(fake(|fake| fake.enabled.is_empty()));
}

#[test]
fn one_launch_of_each_stretch_is_sampled_and_in_a_loop_not_always_the_same() {
    for every in [1, 2, 7, 64] {
        let mut chosen = std::collections::BTreeSet::new();
        for stretch in 0..10_000 {
            let sampled: Vec<u64> = (0..every).filter(|at| is_sampled(stretch * every + at, every)).collect();
            assert_eq!(sampled.len(), 1, "one in {every}");
            chosen.extend(sampled);
        }
        assert_eq!(chosen.len() as u64, every, "each place of a loop of {every}");
    }
    assert!(!(0..100).any(|launch| is_sampled(launch, 0)));
}

#[test]
fn launches_are_sampled_only_when_asked_and_counted() {
    let mut setup = Setup::attached();
    assert!(fake(|fake| fake.subscriber.is_none()), "the subscription is not held");
    let counts = |setup: &Setup| {
        [&setup.header.launches_seen, &setup.header.launches_sampled].map(|n| n.load(Relaxed))
    };
    let before = counts(&setup);
    setup.header.launch_sample.store(500, Relaxed);
    setup.collect(KINDS);
    setup.machine.step();
    for _ in 0..40 {
        job_calls(307);
    }
    setup.machine.step();
    let after = counts(&setup);
    let [seen, sampled] = [after[0] - before[0], after[1] - before[1]];
    assert_eq!(seen, 40);
    assert!((2..40).contains(&sampled), "the first ones, and some: {sampled}");
    setup.header.launch_sample.store(0, Relaxed);
    setup.collect(KINDS | ActivityKind::Overhead.bit());
    setup.machine.step();
    assert!(fake(|fake| fake.subscriber.is_none()));
    assert_eq!(setup.state(), (State::On, Reason::None));
}

/// Launches of a job in so many seconds, `rates` of each kernel a second, and how many were sampled of each.
fn run(sample: &Sample, budget: u64, seconds: u64, from_s: u64, rates: &[u64]) -> Vec<u64> {
    let mut sampled = vec![0; rates.len()];
    for tick in 0..seconds * 20 {
        for (kernel, rate) in rates.iter().enumerate() {
            for _ in rate * tick / 20..rate * (tick + 1) / 20 {
                sampled[kernel] += u64::from(sample.launch(kernel as u64 + 1, 0x7000));
            }
        }
        sample.look(budget, from_s * 1_000_000_000 + (tick + 1) * 50_000_000);
    }
    sampled
}

#[test]
fn a_kernel_that_launches_seldom_is_not_lost_behind_one_that_launches_often() {
    let sample = Sample::new();
    sample.begin(500, 0);
    run(&sample, 500, 3, 0, &[100_000, 50_000, 40, 2]);
    let sampled = run(&sample, 500, 10, 3, &[100_000, 50_000, 40, 2]);
    assert!(sampled.iter().sum::<u64>() <= 5_000 + 500, "the budget is kept: {sampled:?}");
    assert!(sampled[2] >= 390 && sampled[3] >= 18, "all of those that launch seldom: {sampled:?}");
    assert!(
        sampled[0] > 1_000 && sampled[0].abs_diff(sampled[1]) < sampled[0] / 4,
        "equal shares: {sampled:?}"
    );
}

#[test]
fn each_place_of_a_kernel_has_its_first_launches_and_then_as_many_as_it_launches() {
    let sample = Sample::new();
    sample.begin(500, 0);
    let mut sampled = [0_u64; 2];
    for tick in 1..=200_u64 {
        for _ in 0..900 {
            sampled[0] += u64::from(sample.launch(1, 0x7000));
        }
        for _ in 0..100 {
            sampled[1] += u64::from(sample.launch(1, 0x8000));
        }
        if tick == 1 {
            assert!(sampled[0] >= 2 && sampled[1] >= 2, "{sampled:?}");
        }
        sample.look(500, tick * 50_000_000);
    }
    assert!(sampled[1] * 6 < sampled[0] && sampled[0] < sampled[1] * 13, "{sampled:?}");
    assert!(sampled.iter().sum::<u64>() <= 500 * 11);
}

#[test]
fn more_kernels_and_places_than_there_is_room_for_are_counted_together_and_the_budget_holds() {
    let sample = Sample::new();
    sample.begin(500, 0);
    let mut sampled = 0;
    for tick in 1..=100_u64 {
        for n in 0..5_000_u64 {
            sampled += u64::from(sample.launch(n % 3_000, n % 7));
        }
        sample.look(500, tick * 50_000_000);
    }
    assert_eq!(sample.launches(), 500_000);
    assert_eq!(sample.sampled(), sampled);
    assert!((1_000..=500 * 6).contains(&sampled), "{sampled}");
    sample.begin(500, 6_000_000_000);
    assert_eq!(sample.launches(), 500_000, "the count goes on");
    assert!(sample.launch(1, 1) && sample.launch(1, 1), "and the first ones are sampled again");
}

#[test]
fn a_fair_share_gives_the_small_ones_all_and_the_others_the_rest() {
    let share = |budget, rates: &[u64]| fair_share(budget, || rates.iter().copied());
    assert_eq!(share(100, &[10, 20, 30]), u64::MAX);
    assert_eq!(share(100, &[10, 1000, 2000]), 45);
    assert_eq!(share(100, &[100_000]), 100);
    assert_eq!(share(2, &[5, 5, 5, 5]), 1, "never nothing");
    assert_eq!(share(100, &[u64::MAX, u64::MAX]), 50);
}
