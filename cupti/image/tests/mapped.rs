//! The built agent in a process that has CUPTI: records come out, and nothing of it is left.

mod common;

use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;

use common::{Daemon, Library, compile, launch, start};
use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_wire::{Command, Detached, Kind, Lost, Reason, State, halves, op};

const KINDS: u64 = ActivityKind::Kernel.bit() | ActivityKind::Driver.bit();

fn finalized(cupti: Library) -> i32 {
    let count = cupti.symbol(c"fake_cupti_finalized").cast::<i32>();
    // SAFETY: a variable of the stand-in.
    unsafe { count.read_volatile() }
}

fn maps() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("maps").lines().count()
}

/// Detaches while the job goes on launching, within whose calls CUPTI is finalised.
fn rest(daemon: &Daemon, cupti: Library, names: &[CString]) {
    daemon.say(Command::Rest);
    while daemon.state() != State::Dormant {
        launch(cupti, 1, names);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn kernels_come_out_of_the_ring_attach_after_attach() {
    let folder = tempfile::tempdir().expect("a folder");
    Library::open(&compile("cuda.c", &folder.path().join("libcuda.so.1"), false));
    // Under a name that no version has: it is found by the mapping.
    let cupti = Library::open(&compile("cupti.c", &folder.path().join("libcupti.so.2099.1.2"), false));
    let names: Vec<_> = (0..50).map(|i| CString::new(format!("kernel_{i}")).expect("no zero")).collect();

    let (mut daemon, thread) = start(None, 1 << 14);
    daemon.wait_for(State::Idle);
    let first = launch(cupti, 10, &names);
    let mut kernels_so_far = 0;
    for round in 1..=20 {
        daemon.names.clear();
        daemon.collect(KINDS);
        daemon.wait_for(State::On);
        let begin = launch(cupti, 1, &names);
        launch(cupti, 3999, &names);
        let kernels = daemon.read_until(Kind::Kernel, 4000);
        assert_eq!(kernels.len(), 4000);
        assert_eq!(daemon.names.len(), 50, "each name once an attach");
        for (index, kernel) in kernels.iter().enumerate() {
            assert_eq!(kernel.correlation(), begin + u32::try_from(index).expect("few"));
            let number = halves(kernel.0[op::STREAM_NAME])[1];
            let name = daemon.names.iter().find(|(found, _)| *found == number).expect("a name");
            // The first launch of a round is one of its own, and takes the first name.
            let expected = if index == 0 { 0 } else { (index - 1) % 50 };
            assert_eq!(name.1, format!("kernel_{expected}"));
        }
        kernels_so_far += kernels.len();
        rest(&daemon, cupti, &names);
        assert_eq!(daemon.header.detached.load(Relaxed), Detached::Finalized.id());
        assert_eq!(finalized(cupti), round);
        daemon.read();
    }
    assert!(first > 0 && kernels_so_far == 80_000);
    for lost in Lost::ALL {
        assert_eq!(daemon.header.lost[lost.id() as usize].load(Relaxed), 0, "{}", lost.name());
    }
    assert_eq!(daemon.reader.faults(), Default::default());

    // The C library has every thread change its user, and waits for each: the agent's may not keep that signal off.
    unsafe extern "C" {
        safe fn getuid() -> u32;
        safe fn setuid(user: u32) -> i32;
    }
    assert_eq!(setuid(getuid()), 0);

    // Mappings of a dormant agent do not grow.
    let before = maps();
    for _ in 0..20 {
        daemon.collect(KINDS);
        daemon.wait_for(State::On);
        rest(&daemon, cupti, &names);
    }
    assert!(maps() <= before + 1, "{} mappings, {before} before", maps());

    daemon.say(Command::Leave);
    assert_eq!(thread.join().expect("it does not panic"), 0);
    assert_eq!(daemon.state(), State::Gone);
    assert_eq!(daemon.header.reason.load(Relaxed), Reason::None.id());
}
