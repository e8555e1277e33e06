//! The target ends, executes another program, forks or is killed while it is being injected into, in each phase: what
//! it does must come out as it would, and the injection must end with a reason.
//!
//! Needs root and a C compiler; without them the tests are skipped, with the reason printed.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use stallscope_cupti_inject::{Injected, Options, Refusal, Step, inject};
use stallscope_cupti_wire::State;
use support::{Ring, Target, can_run, compile, inject_and_leave, payload, steps};

/// A target with a thread that acts, and that thread.
fn start(action: &str) -> (Target, i32) {
    let program = compile("phases.c", "phases", &[]);
    let other = compile("waiting.c", "waiting", &[]);
    let target = Target::start(Command::new(program).arg(action).arg(other));
    let actor = target.line().parse().unwrap();
    target.settle();
    (target, actor)
}

/// Injects, and does something once a step is taken.
fn inject_and(target: &Target, at: Step, mut act: impl FnMut() + Send) -> Result<Injected, Refusal> {
    let mut acted = false;
    let mut observe = |step| {
        if step == at && !acted {
            acted = true;
            act();
            // Time for it to happen, or to be held up by the thread that is stopped.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let options = Options {
        observe: Some(&mut observe),
        answer_within: Duration::from_secs(2),
        safe_point_within: Duration::from_millis(500),
        ..Options::default()
    };
    inject(target.pid(), &payload(0), options)
}

fn signal(pid: i32, tid: i32, signal: i32) {
    // SAFETY: the call takes numbers only.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// All steps of an injection that succeeds.
fn all_steps() -> Vec<Step> {
    let target = Target::waiting(&["read"]);
    let (result, steps) = steps(&target, &payload(0));
    result.unwrap();
    steps
}

#[test]
fn the_target_is_killed() {
    if !can_run() {
        return;
    }
    for step in all_steps() {
        let (mut target, actor) = start("exit");
        let pid = target.pid();
        let result = inject_and(&target, step, || signal(pid, actor, libc::SIGKILL));
        assert_eq!(target.wait().signal(), Some(libc::SIGKILL), "after {step:?}");
        match result {
            Ok(_) => assert_eq!(step, Step::Started),
            Err(refusal) => assert!(matches!(refusal, Refusal::Gone { .. }), "after {step:?}: {refusal}"),
        }
    }
}

#[test]
fn the_target_exits() {
    if !can_run() {
        return;
    }
    for step in all_steps() {
        let (mut target, actor) = start("exit");
        let pid = target.pid();
        let result = inject_and(&target, step, || signal(pid, actor, libc::SIGUSR1));
        assert_eq!(target.wait().code(), Some(3), "after {step:?}");
        match result {
            Ok(_) => assert_eq!(step, Step::Started),
            Err(refusal) => assert!(matches!(refusal, Refusal::Gone { .. }), "after {step:?}: {refusal}"),
        }
    }
}

#[test]
fn the_target_executes_another_program() {
    if !can_run() {
        return;
    }
    for step in all_steps() {
        let (mut target, actor) = start("exec");
        let pid = target.pid();
        let result = inject_and(&target, step, || signal(pid, actor, libc::SIGUSR1));
        assert_eq!(target.line(), "ready", "after {step:?}");
        match result {
            Ok(_) => assert_eq!(step, Step::Started),
            Err(refusal) => assert!(matches!(refusal, Refusal::Gone { .. }), "after {step:?}: {refusal}"),
        }
        target.settle();
        inject_and_leave(&target).unwrap_or_else(|refusal| panic!("after {step:?}: {refusal}"));
        target.wake();
        target.quit();
    }
}

#[test]
fn the_target_forks() {
    if !can_run() {
        return;
    }
    for step in all_steps() {
        let (mut target, actor) = start("fork");
        let pid = target.pid();
        let injected = inject_and(&target, step, || signal(pid, actor, libc::SIGUSR1))
            .unwrap_or_else(|refusal| panic!("after {step:?}: {refusal}"));
        assert_eq!(target.line(), "forked", "after {step:?}");
        Ring::new(&injected.ring).wait_for(State::Gone);
        target.wake();
        target.quit();
    }
}

#[test]
fn the_target_is_stopped_and_continued() {
    if !can_run() {
        return;
    }
    for step in all_steps() {
        let (mut target, actor) = start("fork");
        let pid = target.pid();
        let result = inject_and(&target, step, || signal(pid, actor, libc::SIGSTOP));
        signal(pid, actor, libc::SIGCONT);
        target.wake();
        if let Err(refusal) = result {
            let named = matches!(
                refusal,
                Refusal::Stopped { .. }
                    | Refusal::NoAnswer { .. }
                    | Refusal::NoSafePoint { .. }
                    | Refusal::Stuck { .. }
            );
            assert!(named, "after {step:?}: {refusal}");
            target.settle();
            inject_and_leave(&target).unwrap_or_else(|refusal| panic!("after {step:?}: {refusal}"));
        }
        target.wake();
        target.quit();
    }
}
