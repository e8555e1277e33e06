//! The built agent in a process without CUDA, which then comes, and without CUPTI, which the daemon brings.

mod common;

use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use common::{Library, compile, launch, memory_file, start};
use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_wire::{Command, Kind, Reason, State};

#[test]
fn cuda_may_come_late_and_cupti_with_the_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let cuda = compile("cuda.c", &folder.path().join("libcuda.so.1"), false);
    let cupti = compile("cupti.c", &folder.path().join("libcupti.so.12"), false);
    let brought = memory_file(c"libcupti", &std::fs::read(cupti).expect("just compiled"));

    let (mut daemon, thread) = start(Some(&brought), 1 << 12);
    daemon.collect(ActivityKind::Kernel.bit());
    daemon.wait_for(State::Refused);
    assert_eq!(daemon.header.reason.load(Relaxed), Reason::NoCuda.id());
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("maps");
    assert!(!maps().contains("memfd:libcupti"), "CUPTI is not loaded where there is nothing for it");

    Library::open(&cuda);
    daemon.wait_for(State::On);
    assert!(maps().contains("memfd:libcupti"));
    // By its name the loader knows it now: whoever asks gets this copy, not a second one.
    let cupti = Library::open(Path::new("libcupti.so.12"));
    launch(cupti, 100, &[CString::new("kernel").expect("no zero")]);
    assert_eq!(daemon.read_until(Kind::Kernel, 100).len(), 100);
    daemon.say(Command::Leave);
    assert_eq!(thread.join().expect("it does not panic"), 0);
}
