//! Injections into programs that wait in one call each: the call must end as if nothing had been.
//!
//! Needs root and a C compiler; without them the tests are skipped, with the reason printed.

mod support;

use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use stallscope_cupti_inject::{Options, Payload, Step, find_agent, inject};
use stallscope_cupti_wire::{Header, State, VERSION};
use support::{Ring, STAY, Target, can_run, eventually, inject_and_leave, payload, steps};

#[test]
fn the_agent_runs_on_a_thread_of_its_own() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    let injected = inject_and_leave(&target).unwrap();
    let ring = Ring::new(&injected.ring);
    assert_eq!(ring.word(offset_of!(Header, agent_version)), VERSION);
    assert_eq!(ring.word(offset_of!(Header, pid)), target.pid().unsigned_abs());
    assert_eq!(ring.word(offset_of!(Header, tid)), injected.inner_tid);
    assert_ne!(injected.tid, target.pid());
    assert_eq!((injected.victim, injected.attempts), (target.pid(), 1));
    target.wake();
    target.quit();
}

#[test]
fn nothing_accumulates_in_the_target() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    // The C library keeps a stack and an arena of the first thread that ended.
    inject_and_leave(&target).unwrap();
    let before = target.belongings();
    for _ in 0..20 {
        inject_and_leave(&target).unwrap();
    }
    assert_eq!(target.belongings(), before);
    target.wake();
    target.quit();
}

/// Several injections into each wait, and then what it waits for.
fn survives(arguments: &[&str]) {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(arguments);
    for _ in 0..2 {
        for _ in 0..3 {
            inject_and_leave(&target).unwrap_or_else(|refusal| panic!("{arguments:?}: {refusal}"));
        }
        target.wake();
        target.settle();
    }
    target.quit();
}

#[test]
fn read_goes_on() {
    survives(&["read"]);
}

#[test]
fn poll_without_a_limit_goes_on() {
    survives(&["poll"]);
}

#[test]
fn ppoll_with_a_mask_goes_on() {
    survives(&["ppoll"]);
}

#[test]
fn select_goes_on() {
    survives(&["select"]);
}

#[test]
fn waitpid_goes_on() {
    survives(&["child"]);
}

#[test]
fn epoll_wait_does_not_return_eintr() {
    survives(&["epoll"]);
}

#[test]
fn every_register_is_as_it_was() {
    survives(&["registers"]);
}

#[test]
fn every_register_is_as_it_was_when_the_kernel_continues_a_call() {
    survives(&["registers-poll", "100000"]);
}

#[test]
fn every_register_is_as_it_was_after_eintr() {
    survives(&["registers-epoll"]);
}

#[test]
fn a_program_that_handles_every_signal_can_be_injected_into() {
    survives(&["caught"]);
}

#[test]
fn a_seccomp_filter_that_is_not_in_the_way_is_no_obstacle() {
    survives(&["seccomp-harmless"]);
}

/// Injections while a wait for a time lasts: it must last that long, and no longer.
fn keeps_time(mode: &str) {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&[mode, "1500"]);
    for _ in 0..2 {
        for _ in 0..4 {
            inject_and_leave(&target).unwrap_or_else(|refusal| panic!("{mode}: {refusal}"));
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(target.line(), "ok");
    }
}

#[test]
fn a_sleep_lasts_as_long_as_it_would() {
    keeps_time("nanosleep");
}

#[test]
fn a_sleep_until_a_time_lasts_as_long_as_it_would() {
    keeps_time("sleep-until");
}

#[test]
fn poll_with_a_limit_lasts_as_long_as_it_would() {
    keeps_time("poll-timed");
}

#[test]
fn select_with_a_limit_lasts_as_long_as_it_would() {
    keeps_time("select-timed");
}

#[test]
fn a_condition_variable_times_out_when_it_would() {
    keeps_time("condition");
}

#[test]
fn a_semaphore_times_out_when_it_would() {
    keeps_time("semaphore");
}

#[test]
fn epoll_wait_with_a_limit_is_not_cut_short() {
    keeps_time("epoll-timed");
}

#[test]
fn a_socket_with_a_timeout_does_not_return_eintr() {
    keeps_time("receive-timed");
}

#[test]
fn sigtimedwait_is_not_cut_short() {
    keeps_time("signal-timed");
}

#[test]
fn a_handler_without_sa_restart_still_ends_the_call() {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&["interrupted", "3"]);
    for _ in 0..100 {
        inject_and_leave(&target).unwrap();
        assert_eq!(target.fresh_line(), "ok");
    }
}

#[test]
fn a_signal_that_comes_while_the_thread_is_borrowed_ends_the_call() {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&["interrupted", "10"]);
    let (result, all) = steps(&target, &payload(0));
    result.unwrap();
    // Not between the first two: a thread that is seized and not yet asked to stop handles each signal as it comes.
    for slow in all.into_iter().filter(|step| *step != Step::Seized) {
        let mut observe = |step| {
            if step == slow {
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let options = Options { observe: Some(&mut observe), ..Options::default() };
        inject(target.pid(), &payload(0), options)
            .unwrap_or_else(|refusal| panic!("slow after {slow:?}: {refusal}"));
        assert_eq!(target.fresh_line(), "ok", "slow after {slow:?}");
    }
}

#[test]
fn a_handler_with_sa_restart_still_does_not() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["restarted"]);
    for _ in 0..50 {
        inject_and_leave(&target).unwrap();
    }
    target.wake();
    target.quit();
}

#[test]
fn an_agent_that_stays_is_found_and_needs_no_second_injection() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    assert!(find_agent(target.pid()).unwrap().is_none());
    let injected = inject(target.pid(), &payload(STAY), Options::default()).unwrap();
    Ring::new(&injected.ring).wait_for(State::Idle);
    let found = find_agent(target.pid()).unwrap().expect("an agent");
    assert_eq!(found.tid, injected.tid);
    assert_eq!(found.version, VERSION);
    // It is the same memory.
    Ring::new(&found.ring).leave();
    Ring::new(&injected.ring).wait_for(State::Gone);
    eventually("the agent's thread ends", || !target.has_thread(injected.tid));
    assert!(find_agent(target.pid()).unwrap().is_none());
    target.wake();
    target.quit();
}

#[test]
fn a_child_that_was_forked_has_the_ring_but_no_agent() {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&["fork-on-byte"]);
    let injected = inject(target.pid(), &payload(STAY), Options::default()).unwrap();
    Ring::new(&injected.ring).wait_for(State::Idle);
    let mut target = target;
    target.write(b"x");
    let child: i32 = target.line().parse().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).unwrap();
    assert!(maps.contains("memfd:stallscope-ring"), "the child has no ring");
    assert!(find_agent(child).unwrap().is_none());
    assert!(find_agent(target.pid()).unwrap().is_some());
    Ring::new(&injected.ring).leave();
    target.quit();
}

#[test]
fn two_injections_at_once_do_not_meet() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    let pid = target.pid();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| inject(pid, &payload(0), Options::default()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().any(Result::is_ok));
    for result in results {
        match result {
            Ok(injected) => Ring::new(&injected.ring).wait_for(State::Gone),
            // Whoever comes while another one is at it finds its lock, or sees it trace the process.
            Err(refusal) => assert!(refusal.to_string().contains("try again"), "{refusal}"),
        }
    }
    target.wake();
    target.quit();
}

#[test]
fn a_cupti_library_is_brought_along() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"\x7fELF and more", 0).unwrap();
    let payload = Payload { cupti: Some(&file), ..payload(STAY) };
    let injected = inject(target.pid(), &payload, Options::default()).unwrap();
    let ring = Ring::new(&injected.ring);
    ring.wait_for(State::Idle);
    assert_eq!(ring.word(offset_of!(Header, cupti_version)).to_ne_bytes(), *b"\x7fELF");
    ring.leave();
    ring.wait_for(State::Gone);
    target.wake();
    target.quit();
}

#[test]
fn the_target_can_change_its_user_while_the_agent_is_there() {
    if !can_run() {
        return;
    }
    // glibc waits until every thread has handled a signal of its own.
    let mut target = Target::waiting(&["setgid"]);
    let injected = inject(target.pid(), &payload(STAY), Options::default()).unwrap();
    let ring = Ring::new(&injected.ring);
    ring.wait_for(State::Idle);
    target.wake();
    ring.leave();
    ring.wait_for(State::Gone);
    target.quit();
}
