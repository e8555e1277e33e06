//! Injections into a busy program that checks itself, and into one whose injectors keep dying. The soak example does the
//! same ten thousand times and measures.
//!
//! Needs root and a C compiler; without them the tests are skipped, with the reason printed.

mod support;

use std::process::Command;
use std::time::Duration;

use stallscope_cupti_inject::{Options, Refusal, inject};
use stallscope_cupti_wire::State;
use support::{Ring, Target, can_run, compile, eventually, payload};

fn stress(arguments: &[&str]) -> Target {
    Target::start(Command::new(compile("stress.c", "stress", &[])).args(arguments))
}

/// Rounds of each of its threads. It must have found nothing wrong.
fn rounds(target: &mut Target) -> Vec<(String, u64)> {
    target.write(b"?\n");
    let line = target.line();
    let mut words = line.split(' ');
    assert_eq!((words.next(), words.next()), (Some("status"), Some("0")), "{line}");
    let counter = |word: &str| {
        let (name, count) = word.split_once('=').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    words.map(counter).collect()
}

/// Every one of its threads makes progress.
fn is_busy(target: &mut Target) {
    let before = rounds(target);
    eventually("every thread goes on", || {
        rounds(target).iter().zip(&before).all(|((_, now), (_, then))| now > then)
    });
}

/// Injects as often, each time an agent that leaves at once.
fn inject_often(target: &mut Target, times: u32) {
    for _ in 0..times {
        let injected = loop {
            match inject(target.pid(), &payload(0), Options::default()) {
                Ok(injected) => break injected,
                // Everything may be at work for three seconds on a machine with two cores.
                Err(Refusal::NoSafePoint { .. }) => {}
                Err(refusal) => panic!("{refusal}; the target: {}", target.line()),
            }
        };
        Ring::new(&injected.ring).wait_for(State::Gone);
    }
}

#[test]
fn a_busy_program_notices_nothing() {
    if !can_run() {
        return;
    }
    let mut target = stress(&["0", "0"]);
    is_busy(&mut target);
    inject_often(&mut target, 200);
    is_busy(&mut target);
    target.close();
}

#[test]
fn a_loaded_program_notices_nothing() {
    if !can_run() {
        return;
    }
    let mut target = stress(&["0", "2"]);
    is_busy(&mut target);
    inject_often(&mut target, 50);
    is_busy(&mut target);
    target.close();
}

#[test]
fn a_program_that_changes_its_group_all_the_time_does_not_hang() {
    if !can_run() {
        return;
    }
    // glibc holds a lock that making a thread needs while it waits for every thread to handle a signal.
    let mut target = stress(&["0", "0", "1"]);
    is_busy(&mut target);
    inject_often(&mut target, 100);
    is_busy(&mut target);
    target.close();
}

#[test]
fn a_program_at_rest_notices_nothing() {
    if !can_run() {
        return;
    }
    let mut target = stress(&["20", "0"]);
    is_busy(&mut target);
    inject_often(&mut target, 100);
    std::thread::sleep(Duration::from_millis(50));
    is_busy(&mut target);
    target.close();
}
