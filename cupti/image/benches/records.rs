//! What a record costs the agent: processor time of its thread, with the stand-in's `cuptiActivityGetNextRecord` in it; and
//! whether three million records a second come through. Prints, asserts nothing.

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::{Daemon, Library, compile, launch, start};
use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_wire::{Command, Lost, State};

const KERNELS: u64 = ActivityKind::Kernel.bit();
const KERNELS_AND_LAUNCHES: u64 = ActivityKind::Kernel.bit() | ActivityKind::Driver.bit();

/// Nanoseconds on a processor of a thread of this process.
fn cpu_ns(thread: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("schedstat");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// Records for which the ring had no room, and those for which there was no buffer.
fn lost(daemon: &Daemon) -> [u64; 2] {
    [Lost::RingFull, Lost::CuptiDropped].map(|what| daemon.header.lost[what.id() as usize].load(Relaxed))
}

fn names(bytes: usize) -> Vec<CString> {
    (0..500).map(|number| CString::new(format!("{number:0bytes$}")).expect("no zero")).collect()
}

/// Attaches, lets the job do something on a thread of its own, detaches; prints.
fn measure(
    what: &str,
    daemon: &mut Daemon,
    cupti: Library,
    kinds: u64,
    names: &[CString],
    job: impl FnOnce() + Send + 'static,
) {
    daemon.collect(kinds);
    daemon.wait_for(State::On);
    let agent = daemon.header.tid.load(Relaxed);
    let (begin, begin_ns, lost_before) = (Instant::now(), cpu_ns(agent), lost(daemon));
    let job = std::thread::spawn(job);
    let mut records = 0;
    while !job.is_finished() {
        records += daemon.read().len();
        daemon.header.heartbeat.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_micros(500));
    }
    job.join().expect("it does not panic");
    let took = begin.elapsed();
    daemon.say(Command::Rest);
    while daemon.state() != State::Dormant {
        records += daemon.read().len();
        launch(cupti, 1, names);
        std::thread::sleep(Duration::from_millis(1));
    }
    records += daemon.read().len();
    println!(
        "{what}: {} ns a record, {:.2} M records/s, lost {} by the ring, {} for want of a buffer",
        (cpu_ns(agent) - begin_ns) / records.max(1) as u64,
        records as f64 / took.as_secs_f64() / 1e6,
        lost(daemon)[0] - lost_before[0],
        lost(daemon)[1] - lost_before[1],
    );
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    Library::open(&compile("cuda.c", &folder.path().join("libcuda.so.1"), false));
    let cupti = Library::open(&compile("cupti.c", &folder.path().join("libcupti.so.12"), false));
    let (mut daemon, thread) = start(None, 1 << 16);
    for (what, kinds) in [("kernels", KERNELS), ("kernels and their launches", KERNELS_AND_LAUNCHES)] {
        for bytes in [20, 200, 1000] {
            let what = format!("{what}, names of {bytes} bytes, as fast as can be");
            let names = names(bytes);
            let job = names.clone();
            measure(&what, &mut daemon, cupti, kinds, &names, move || {
                launch(cupti, 2_000_000, &job);
            });
        }
    }
    let names = names(200);
    let job = names.clone();
    measure("3 M records/s for 3 s", &mut daemon, cupti, KERNELS_AND_LAUNCHES, &names, move || {
        let begin = Instant::now();
        for ms in 1..=3000 {
            launch(cupti, 1500, &job);
            std::thread::sleep(Duration::from_millis(ms).saturating_sub(begin.elapsed()));
        }
    });
    daemon.say(Command::Leave);
    assert_eq!(thread.join().expect("it does not panic"), 0);
}
