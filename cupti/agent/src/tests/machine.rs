//! The states, and what leads from one to the other.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use stallscope_cupti_abi::{ActivityKind, DRIVER_CALLS, code};
use stallscope_cupti_wire::{Command, Detached, Kind, Reason, State, api, halves, op};

use super::fake::{Fake, FakeClock, fake, job_calls};
use super::setup::{KINDS, Setup, call, kernel};
use crate::machine::Next;

fn detached(setup: &Setup) -> Detached {
    Detached::from_id(setup.header.detached.load(Relaxed)).unwrap()
}

#[test]
fn an_agent_that_is_not_asked_touches_nothing_and_sleeps() {
    let mut setup = Setup::new();
    assert_eq!(setup.machine.step(), Next::Control(None));
    assert_eq!(setup.state(), (State::Idle, Reason::None));
    assert_eq!(fake(|fake| (fake.subscriptions, fake.flushes.len())), (0, 0));
}

#[test]
fn records_flow_while_it_is_on_and_everything_is_undone_at_rest() {
    let mut setup = Setup::attached();
    assert_eq!(setup.header.answered.load(Relaxed), setup.header.control.load(Relaxed));
    assert_eq!(setup.header.enabled.load(Relaxed), KINDS);
    assert_eq!(setup.header.cupti_version.load(Relaxed), 24);
    assert_eq!(fake(|fake| fake.thread_ids), 1, "threads by their ids");
    fake(|fake| {
        assert_eq!(fake.enabled, [10, 1, 2, 38, 8].into(), "the driver's calls one by one, not the kind");
        // And the call that marks are made with.
        assert_eq!(fake.driver_calls.len(), 1 + DRIVER_CALLS.iter().filter(|call| call.id <= 800).count());
        fake.records = vec![
            kernel(100, 200, 7, c"one"),
            call(307, 7),
            kernel(300, 400, 8, c"two"),
            kernel(500, 600, 9, c"one"),
        ];
    });
    assert!(matches!(setup.flush(), Next::Buffers(_)));
    let (names, records) = setup.read();
    assert_eq!(names, [(1, "one".to_owned()), (2, "two".to_owned())]);
    let kernels: Vec<_> =
        records.iter().filter(|(kind, _)| *kind == Kind::Kernel).map(|(_, record)| record).collect();
    assert_eq!(kernels.len(), 3);
    assert_eq!(kernels[2].correlation(), 9);
    assert_eq!((kernels[2].0[op::START], kernels[2].0[op::END]), (500, 600));
    assert_eq!(halves(kernels[2].0[op::DEVICE_CONTEXT]), [1, 2]);
    assert_eq!(halves(kernels[2].0[op::STREAM_NAME]), [3, 1]);
    let calls: Vec<_> = records.iter().filter(|(kind, _)| *kind == Kind::Api).collect();
    assert_eq!(halves(calls[0].1.0[api::THREAD_CALLBACK]), [4321, 307]);
    assert!(records.iter().filter(|(kind, _)| *kind == Kind::Clock).count() >= 2);

    fake(|fake| {
        fake.records = vec![kernel(700, 800, 10, c"last")];
        fake.unfinished = vec![kernel(900, 0, 11, c"hung")];
    });
    setup.command(Command::Rest);
    assert_eq!(setup.machine.step(), Next::Control(None), "nothing wakes a dormant agent but the daemon");
    assert_eq!((setup.state(), detached(&setup)), ((State::Dormant, Reason::None), Detached::Finalized));
    assert_eq!(setup.header.enabled.load(Relaxed), 0);
    fake(|fake| {
        assert!(fake.enabled.is_empty() && fake.driver_calls.is_empty());
        assert_eq!((fake.thread_ids, fake.finalized), (0, 1));
        assert!(fake.subscriber.is_none());
    });
    assert_eq!(
        setup.read_kind(Kind::Kernel).iter().map(|record| record.correlation()).collect::<Vec<_>>(),
        [10, 11]
    );
}

#[test]
fn it_can_be_attached_again_and_again_and_names_its_kernels_each_time() {
    let mut setup = Setup::attached();
    for round in 1..=5 {
        fake(|fake| fake.records = vec![kernel(100, 200, 7, c"one")]);
        setup.flush();
        assert_eq!(setup.read().0, [(1, "one".to_owned())]);
        assert_eq!(setup.header.attaches.load(Relaxed), round);
        setup.command(Command::Rest);
        setup.machine.step();
        assert_eq!(setup.state(), (State::Dormant, Reason::None));
        assert_eq!(fake(|fake| fake.finalized), round as u32);
        setup.collect(KINDS);
        setup.machine.step();
        assert_eq!(setup.state(), (State::On, Reason::None));
    }
}

#[test]
fn cuda_that_comes_later_is_found() {
    let mut setup = Setup::new();
    fake(|fake| fake.has_cuda = false);
    setup.collect(KINDS);
    assert_eq!(setup.machine.step(), Next::Control(Some(1_000_000_000)));
    assert_eq!(setup.state(), (State::Refused, Reason::NoCuda));
    let changes = setup.header.state_changes.load(Relaxed);
    assert!(matches!(setup.machine.step(), Next::Control(Some(_))), "not before a second is over");
    assert_eq!(setup.header.state_changes.load(Relaxed), changes, "and it is said once");
    fake(|fake| fake.has_cuda = true);
    std::thread::sleep(Duration::from_millis(1001));
    assert!(matches!(setup.machine.step(), Next::Buffers(_)));
    assert_eq!(setup.state(), (State::On, Reason::None));
}

#[test]
fn each_refusal_has_its_name_and_its_code() {
    let mut setup = Setup::new();
    type Case = (fn(&mut Fake), Reason, i32);
    let cases: &[Case] = &[
        (|fake| fake.subscribe_result = 39, Reason::OtherProfiler, 39),
        (|fake| fake.subscribe_result = 15, Reason::NoCuda, 15),
        (|fake| fake.subscribe_result = 999, Reason::Cupti, 999),
        (|fake| fake.version = 17, Reason::CuptiTooOld, 17),
        (|fake| fake.version = 140_000, Reason::CuptiTooNew, 140_000),
        (|fake| fake.clock = FakeClock::Noise, Reason::ForeignClock, 0),
        (|fake| fake.unknown_kinds.extend([10]), Reason::Cupti, code::INVALID_KIND),
    ];
    for (break_it, reason, detail) in cases {
        fake(break_it);
        setup.collect(KINDS);
        setup.machine.step();
        assert_eq!(setup.state(), (State::Refused, *reason));
        assert_eq!(setup.header.detail.load(Relaxed), *detail);
        fake(|fake| {
            assert!(
                fake.enabled.is_empty() && fake.driver_calls.is_empty(),
                "{reason:?} leaves nothing enabled"
            );
            assert_eq!(fake.thread_ids, 0);
            fake.subscribe_result = code::SUCCESS;
            fake.version = 130_000;
            fake.clock = FakeClock::Real;
            fake.unknown_kinds.clear();
        });
    }
    setup.command(Command::Rest);
    setup.machine.step();
    assert_eq!(setup.state(), (State::Idle, Reason::None), "it never was attached");
}

#[test]
fn a_kind_that_this_cupti_lacks_is_left_out() {
    let mut setup = Setup::new();
    fake(|fake| fake.unknown_kinds.insert(38));
    setup.collect(KINDS | 1 << 3 | 1 << 63);
    setup.machine.step();
    assert_eq!(setup.state(), (State::On, Reason::None));
    assert_eq!(setup.header.enabled.load(Relaxed), KINDS & !ActivityKind::Synchronization.bit());
    assert!(!fake(|fake| fake.enabled.contains(&3)), "kernels are never serialised");
}

#[test]
fn kinds_follow_the_daemon_while_it_is_on() {
    let mut setup = Setup::attached();
    setup.collect(KINDS | ActivityKind::Runtime.bit());
    setup.machine.step();
    assert!(fake(|fake| fake.runtime_calls.contains(&211) && !fake.enabled.contains(&5)), "call by call");
    setup.collect(ActivityKind::Kernel.bit() | ActivityKind::Overhead.bit());
    setup.machine.step();
    assert!(fake(|fake| fake.runtime_calls.is_empty()));
    assert_eq!(fake(|fake| fake.enabled.iter().copied().collect::<Vec<_>>()), [10, 17]);
    assert!(fake(|fake| fake.driver_calls.is_empty()));
    assert_eq!(setup.header.attaches.load(Relaxed), 1);
}

#[test]
fn a_daemon_that_falls_silent_is_noticed_and_can_come_back() {
    let mut setup = Setup::new();
    setup.header.heartbeat_timeout_ns.store(100_000_000, Relaxed);
    setup.collect(KINDS);
    setup.machine.step();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        setup.header.heartbeat.fetch_add(1, Relaxed);
        setup.machine.step();
        assert_eq!(setup.state(), (State::On, Reason::None), "a heartbeat is enough");
    }
    std::thread::sleep(Duration::from_millis(101));
    assert_eq!(setup.machine.step(), Next::Control(None));
    assert_eq!(setup.state(), (State::Dormant, Reason::DaemonGone));
    assert!(fake(|fake| fake.enabled.is_empty() && fake.finalized == 1));
    setup.collect(KINDS);
    setup.machine.step();
    assert_eq!((setup.state(), setup.header.attaches.load(Relaxed)), ((State::On, Reason::None), 2));
}

#[test]
fn an_old_cupti_is_disabled_and_never_finalised() {
    let mut setup = Setup::new();
    fake(|fake| fake.version = 22);
    setup.collect(KINDS);
    setup.machine.step();
    setup.command(Command::Rest);
    assert_eq!(setup.machine.step(), Next::Control(None));
    assert_eq!((setup.state().0, detached(&setup)), (State::Dormant, Detached::DisabledOld));
    assert!(fake(|fake| fake.finalized == 0 && fake.enabled.is_empty()));
}

#[test]
fn a_job_that_makes_no_call_is_finalised_when_it_does() {
    let mut setup = Setup::attached();
    fake(|fake| fake.makes_calls = false);
    setup.command(Command::Rest);
    assert_eq!(setup.machine.step(), Next::Control(Some(1_000_000_000)));
    assert_eq!((setup.state().0, detached(&setup)), (State::Dormant, Detached::DisabledIdle));
    assert!(fake(|fake| fake.subscriber.is_none()), "the subscription is not kept");
    job_calls(307);
    assert_eq!(fake(|fake| fake.finalized), 0, "no call is caught outside a window");
    fake(|fake| fake.makes_calls = true);
    assert_eq!(setup.machine.step(), Next::Control(None));
    assert_eq!((fake(|fake| fake.finalized), detached(&setup)), (1, Detached::Finalized));
}

#[test]
fn a_finalize_that_fails_or_hangs_is_named_and_cupti_left_alone() {
    let mut setup = Setup::attached();
    fake(|fake| fake.finalize_result = 999);
    setup.command(Command::Rest);
    assert_eq!(setup.machine.step(), Next::Control(None), "it is not tried again");
    assert_eq!(detached(&setup), Detached::DisabledFailed);
    fake(|fake| {
        fake.finalize_result = code::SUCCESS;
        fake.finalize_takes = Duration::from_millis(2500);
    });
    setup.collect(KINDS);
    setup.machine.step();
    assert_eq!(setup.state(), (State::On, Reason::None));
    setup.command(Command::Rest);
    setup.machine.step();
    assert_eq!(setup.state().0, State::Dormant);
    setup.collect(KINDS);
    setup.machine.step();
    assert_eq!(setup.state(), (State::Refused, Reason::Stuck));
    std::thread::sleep(Duration::from_millis(500));
    crate::subscriber::forget_stuck();
}

#[test]
fn it_leaves_from_every_state_with_nothing_enabled() {
    type Lead = fn(&mut Setup);
    let leads: [(&str, Lead); 4] = [
        ("idle", |setup| {
            setup.machine.step();
        }),
        ("on", |setup| {
            setup.collect(KINDS);
            setup.machine.step();
        }),
        ("dormant", |setup| {
            setup.collect(KINDS);
            setup.machine.step();
            setup.command(Command::Rest);
            setup.machine.step();
        }),
        ("refused", |setup| {
            fake(|fake| fake.has_cuda = false);
            setup.collect(KINDS);
            setup.machine.step();
            fake(|fake| fake.has_cuda = true);
        }),
    ];
    for (name, lead) in leads {
        let mut setup = Setup::new();
        lead(&mut setup);
        setup.command(Command::Leave);
        assert_eq!(setup.machine.step(), Next::Leave, "{name}");
        assert_eq!(setup.state(), (State::Gone, Reason::None), "{name}");
        assert!(fake(|fake| fake.enabled.is_empty()
            && fake.driver_calls.is_empty()
            && fake.subscriber.is_none()));
    }
}

#[test]
fn a_command_that_nobody_knows_is_rest() {
    let mut setup = Setup::attached();
    setup.header.command.store(77, Relaxed);
    setup.header.control.fetch_add(1, Relaxed);
    setup.machine.step();
    assert_eq!(setup.state().0, State::Dormant);
}

#[test]
fn a_job_that_ends_gets_its_last_records_taken_and_cupti_left_alone_after() {
    let mut setup = Setup::attached();
    assert!(fake(|fake| fake.watches_exit));
    fake(|fake| fake.records = vec![kernel(100, 200, 7, c"last")]);
    let ending = std::thread::spawn(|| crate::exit::hold(5_000_000_000));
    while !crate::exit::is_ending() {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(!ending.is_finished(), "the end waits for the agent");
    assert_eq!(setup.machine.step(), Next::End);
    ending.join().unwrap();
    assert_eq!(setup.read_kind(Kind::Kernel).len(), 1);
    assert_eq!(setup.state().0, State::Gone);
    let flushes = fake(|fake| {
        assert_eq!(fake.finalized, 0, "that is CUPTI's own affair now");
        fake.flushes.len()
    });
    setup.collect(KINDS);
    assert_eq!(setup.machine.step(), Next::End, "whatever the daemon says");
    assert_eq!(fake(|fake| fake.flushes.len()), flushes);
    crate::exit::forget();
}

#[test]
fn a_job_that_ends_is_not_held_up_by_an_agent_that_is_not_attached_and_not_for_long_by_one_that_is() {
    let mut setup = Setup::new();
    setup.machine.step();
    crate::exit::hold(u64::MAX / 2);
    crate::exit::forget();
    setup.collect(KINDS);
    setup.machine.step();
    let flushes = fake(|fake| fake.flushes.len());
    crate::exit::hold(10_000_000);
    assert_eq!(setup.machine.step(), Next::End);
    assert_eq!(fake(|fake| fake.flushes.len()), flushes, "the agent came too late, and keeps out");
    crate::exit::forget();
}
