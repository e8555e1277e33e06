//! Other profilers, their clocks, and the sampling of launches.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use stallscope_cupti_abi::{ActivityKind, code};
use stallscope_cupti_wire::{Command, Detached, Kind, Lost, Reason, State};

use super::fake::{FakeClock, deliver, fake, job_calls};
use super::setup::{KINDS, Setup, kernel};
use crate::subscriber::is_sampled;

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
    // Names in them may be gone with the other one's end: they are counted and not read.
    assert_eq!((setup.read_kind(Kind::Kernel).len(), setup.lost(Lost::Yielded)), (0, 1));
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
    let before =
        [&setup.header.launches_seen, &setup.header.launches_sampled].map(|count| count.load(Relaxed));
    setup.header.launch_sample.store(4, Relaxed);
    setup.collect(KINDS);
    setup.machine.step();
    // Whole stretches of four, wherever the count stood.
    for _ in 0..40 {
        job_calls(307);
    }
    setup.machine.step();
    let after =
        [&setup.header.launches_seen, &setup.header.launches_sampled].map(|count| count.load(Relaxed));
    assert_eq!([after[0] - before[0], after[1] - before[1]], [40, 10]);
    setup.header.launch_sample.store(0, Relaxed);
    setup.collect(KINDS | ActivityKind::Overhead.bit());
    setup.machine.step();
    assert!(fake(|fake| fake.subscriber.is_none()));
    assert_eq!(setup.state(), (State::On, Reason::None));
}
