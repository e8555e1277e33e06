//! What a record costs the agent: processor time of its thread, with the stand-in's `cuptiActivityGetNextRecord` in it, and
//! how many a second come out of the ring. Prints, asserts nothing.

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use common::{Library, compile, launch, start};
use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_wire::{Command, Lost, State};

/// Nanoseconds on a processor of a thread of this process.
fn cpu_ns(thread: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("schedstat");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    Library::open(&compile("cuda.c", &folder.path().join("libcuda.so.1"), false));
    let cupti = Library::open(&compile("cupti.c", &folder.path().join("libcupti.so.12"), false));
    let (mut daemon, thread) = start(None, 1 << 16);
    for (what, kinds) in [
        ("kernels", ActivityKind::Kernel.bit()),
        ("kernels and their launches", ActivityKind::Kernel.bit() | ActivityKind::Driver.bit()),
    ] {
        for name_bytes in [20, 200, 1000] {
            let names: Vec<_> =
                (0..500).map(|i| CString::new(format!("{i:0name_bytes$}")).expect("no zero")).collect();
            daemon.collect(kinds);
            daemon.wait_for(State::On);
            let tid = daemon.header.tid.load(Relaxed);
            let (begin, begin_ns) = (Instant::now(), cpu_ns(tid));
            let lost = |daemon: &common::Daemon| -> u64 {
                [Lost::RingFull, Lost::NoBuffer, Lost::CuptiDropped]
                    .iter()
                    .map(|what| daemon.header.lost[what.id() as usize].load(Relaxed))
                    .sum()
            };
            let lost_before = lost(&daemon);
            let job = std::thread::spawn({
                let names = names.clone();
                move || launch(cupti, 3_000_000, &names)
            });
            let mut records = 0;
            while !job.is_finished() {
                records += daemon.read().len();
                daemon.header.heartbeat.fetch_add(1, Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
            job.join().expect("it does not panic");
            daemon.say(Command::Rest);
            while daemon.state() != State::Dormant {
                records += daemon.read().len();
                launch(cupti, 1, &names);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            records += daemon.read().len();
            let (took, took_ns) = (begin.elapsed(), cpu_ns(tid) - begin_ns);
            println!(
                "{what}, names of {name_bytes} bytes: {} ns a record, {:.2} M records/s, {} lost",
                took_ns / records.max(1) as u64,
                records as f64 / took.as_secs_f64() / 1e6,
                lost(&daemon) - lost_before,
            );
        }
    }
    daemon.say(Command::Leave);
    assert_eq!(thread.join().expect("it does not panic"), 0);
}
