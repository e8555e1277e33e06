//! The injector is killed after every single step, and at random moments: the target must not notice, and the next
//! injection must succeed.
//!
//! Needs root and a C compiler; without them the tests are skipped, with the reason printed.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use stallscope_cupti_inject::{Options, Step, inject};
use support::{Target, can_run, eventually, inject_and_leave, payload, steps};

const TARGET: &str = "STALLSCOPE_TEST_TARGET";
const LAST_STEP: &str = "STALLSCOPE_TEST_LAST_STEP";
const HESITATION_MS: &str = "STALLSCOPE_TEST_HESITATION_MS";

/// Not a test: the injector that dies, in a process of its own.
#[test]
#[ignore = "run by the other tests"]
fn injector() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    let Some(pid) = number(TARGET) else { return };
    let last = std::env::var(LAST_STEP).ok();
    let hesitation_ms = number(HESITATION_MS).unwrap_or(0).unsigned_abs().into();
    let mut observe = |step| {
        if last == Some(format!("{step:?}")) {
            println!("dies after {step:?}");
            std::thread::sleep(Duration::from_millis(hesitation_ms));
            let own = std::process::id().cast_signed();
            // SAFETY: the call takes numbers only.
            unsafe { libc::kill(own, libc::SIGKILL) };
        }
    };
    let result = inject(pid, &payload(0), Options { observe: Some(&mut observe), ..Options::default() });
    println!("{result:?}");
}

fn injector_for(target: &Target) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["injector", "--exact", "--ignored"])
        .env(TARGET, target.pid().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Runs an injector that dies after a step, and hesitates before it does.
fn die_after(target: &Target, step: Step, hesitation_ms: u32) {
    let status = injector_for(target)
        .env(LAST_STEP, format!("{step:?}"))
        .env(HESITATION_MS, hesitation_ms.to_string())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "the injector did not die after {step:?}");
}

/// What the target says after a death, given the step: "ok".
fn dies_everywhere(arguments: &[&str], check: impl Fn(&mut Target, Step)) {
    let mut target = Target::waiting(arguments);
    let (result, steps) = steps(&target, &payload(0));
    result.unwrap();
    check(&mut target, Step::Started);
    eventually("the first agent ends", || target.threads() == 1);
    let before = target.belongings();
    for step in steps {
        target.settle();
        die_after(&target, step, 0);
        check(&mut target, step);
        target.settle();
        inject_and_leave(&target).unwrap_or_else(|refusal| panic!("after {step:?}: {refusal}"));
        check(&mut target, Step::Started);
    }
    // What the dead ones had made ends by itself.
    eventually("the threads of dead injectors end", || target.threads() == 1);
    target.settle();
    // One death leaves something: between the thread's last step and the word that it was the last.
    const REGION_LEFT: usize = 1;
    let after = target.belongings();
    assert_eq!((after.0, after.1), (before.0, before.1), "threads, descriptors");
    assert!(after.2 <= before.2 + REGION_LEFT + STACK_CACHE, "mappings: {before:?}, {after:?}");
    target.kill();
}

/// Stacks that the C library keeps of threads that were there at once, and their arenas.
const STACK_CACHE: usize = 64;

fn still_well(target: &mut Target, step: Step) {
    assert!(target.is_alive(), "dead after {step:?}");
    target.write(b"x");
    assert_eq!(target.line(), "ok", "after {step:?}");
}

/// Programs that wait in different ways, all at once: what a dead injector leaves takes twenty seconds to end by itself.
#[test]
fn programs_that_wait_survive_every_death() {
    if !can_run() {
        return;
    }
    let interrupted = |target: &mut Target, step| {
        // Each round is a call that only a signal ends.
        assert_eq!(target.fresh_line(), "ok", "after {step:?}");
    };
    let epoll = |target: &mut Target, step| {
        target.write(b"x");
        let mut line = target.line();
        // Stopped, and nobody there any more who could undo the effect.
        let between =
            [Step::Interrupted, Step::Stopped, Step::RegistersRead, Step::MaskRead, Step::ContextWritten];
        if line == "eintr" && between.contains(&step) {
            line = target.line();
        }
        assert_eq!(line, "ok", "after {step:?}");
    };
    type Check<'a> = &'a (dyn Fn(&mut Target, Step) + Sync);
    let programs: [(&[&str], Check<'_>); 7] = [
        (&["registers"], &still_well),
        (&["registers-poll", "100000"], &still_well),
        (&["caught"], &still_well),
        (&["restarted"], &still_well),
        (&["interrupted", "3"], &interrupted),
        (&["nanosleep", "400"], &interrupted),
        (&["epoll-or-eintr"], &epoll),
    ];
    std::thread::scope(|scope| {
        for (arguments, check) in programs {
            let named = std::thread::Builder::new().name(arguments.join(" "));
            named.spawn_scoped(scope, move || dies_everywhere(arguments, check)).unwrap();
        }
    });
}

#[test]
fn a_sleep_is_not_begun_anew_by_a_death() {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&["nanosleep", "2000"]);
    let (result, steps) = steps(&target, &payload(0));
    result.unwrap();
    let in_the_seed = [Step::RegistersSet, Step::MaskSet, Step::Resumed, Step::AtMarker, Step::MaskRestored];
    for step in steps.into_iter().filter(|step| in_the_seed.contains(step)) {
        assert_eq!(target.line(), "ok");
        // Most of it is over: begun anew it would last twice as long, of which the target complains.
        std::thread::sleep(Duration::from_millis(1850));
        die_after(&target, step, 0);
        assert_eq!(target.line(), "ok");
    }
}

#[test]
fn a_signal_that_comes_while_the_injector_dies_ends_the_call() {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&["interrupted", "10"]);
    let (result, steps) = steps(&target, &payload(0));
    result.unwrap();
    for step in steps {
        println!("{step:?}");
        die_after(&target, step, 20);
        assert_eq!(target.fresh_line(), "ok", "after {step:?}");
    }
}

#[test]
fn an_injector_that_is_killed_at_any_moment_leaves_the_target_well() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["registers"]);
    // A generator of our own: the moments need no quality, and a failure should come again.
    let mut state = 1_u64;
    for round in 0..100 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = Duration::from_micros(state >> 33 & 0x1fff);
        let mut injector = injector_for(&target).spawn().unwrap();
        // It takes some milliseconds to get to the point.
        std::thread::sleep(Duration::from_millis(3) + moment);
        injector.kill().unwrap();
        injector.wait().unwrap();
        target.write(b"x");
        assert_eq!(target.line(), "ok", "after {moment:?}, round {round}");
    }
    target.settle();
    inject_and_leave(&target).unwrap();
    target.wake();
    target.quit();
}
