//! A GPU whose clock is wrong: that is said, by how much, and of no other one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_schemas::units::{DeviceId, ThreadId};

const US: i64 = 1_000;

/// Steps of three ranks that meet in an all-reduce of 100 µs; what the clock of rank 2's GPU is ahead by, by time.
fn capture(ahead: impl Fn(i64) -> i64) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    host.writer.add_label("gpu.clock_error_ns", "1000");
    for rank in 0..3u32 {
        let pid = 100 + i64::from(rank);
        let process = host.process(pid, "python", Some(rank));
        host.writer.update_process(process, |p| p.world_size = Some(3));
        let thread = host.thread(process, pid, "MainThread", 0, 1_000_000 * US);
        let id = format!("GPU-{rank}");
        let device = host.writer.add_device(Device { id, processes: vec![process], ..Device::default() });
        let mut at = 10_000 * US;
        for step in 0..60i64 {
            // No two steps are alike, or any shift by a step would do.
            let work = 900 + (step * step * 37) % 211;
            let own = if i64::from(rank) == step % 3 { 0 } else { 40 };
            let end = at + (work + 100) * US;
            for (name, stream, from, to) in [
                ("gemm", 7, at, at + (work - own) * US),
                ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 20, at + (work - own) * US, end),
            ] {
                let off = if rank == 2 { ahead(from) } else { 0 };
                kernel(&mut host, (device, thread), (name, stream), (from, to), off);
            }
            at = end;
        }
    }
    host.capture()
}

fn said(capture: &Capture<Vec<u8>>) -> Vec<Finding> {
    let ledgers = Ledgers::of(capture, Options::default()).unwrap();
    Report::build(capture, &ledgers).findings.into_iter().filter(|f| f.rule == "capture-clock").collect()
}

#[test]
fn a_clock_that_is_ahead_is_said_to_be_by_how_much() {
    let found = said(&capture(|_| 430 * US));
    let [clock] = &found[..] else { panic!("{found:#?}") };
    assert_eq!(clock.device, "GPU-2");
    let summary = "the times of GPU-2 are 430.0 µs ahead of those of GPU-0: who was late for its collectives cannot be told";
    assert_eq!(clock.summary, summary);
    assert!(clock.evidence.contains("wrong by 1.0 µs at most"), "{}", clock.evidence);
}

#[test]
fn a_clock_that_is_behind_is_behind() {
    let found = said(&capture(|_| -250 * US));
    assert!(found[0].summary.contains("250.0 µs behind those of GPU-0"), "{found:#?}");
}

#[test]
fn a_clock_that_was_set_says_so() {
    let found = said(&capture(|at| if at < 40_000 * US { 0 } else { 430 * US }));
    let [clock] = &found[..] else { panic!("{found:#?}") };
    assert!(clock.evidence.contains("it was set once"), "{}", clock.evidence);
    assert!(clock.summary.contains("are up to 430.0 µs ahead of those of GPU-0"), "{}", clock.summary);
}

#[test]
fn clocks_that_are_right_are_not_spoken_of() {
    assert_eq!(said(&capture(|_| 0)).len(), 0);
    assert_eq!(said(&capture(|_| US)).len(), 0);
}

/// Adds a kernel that was launched just before it began, by a clock that is off.
fn kernel(
    host: &mut Host,
    (device, thread): (DeviceId, ThreadId),
    (name, stream): (&str, u64),
    (from, to): (i64, i64),
    off: i64,
) {
    let op = host.kernel(thread, (name, stream), (from - US, from), (from + off, to + off));
    host.writer.push_gpu_op(device, op).unwrap();
}

/// Two groups of two ranks with steps of 1 ms, of which so many GPUs are seen; those of the second begin 150 µs later, and it
/// broadcasts as well, so that part of its communication is not split.
fn side_by_side(second_job: &str, gpus: u32) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    host.writer.add_label("gpu.clock_error_ns", "1000");
    for number in 0..gpus {
        let (pid, second) = (100 + i64::from(number), number >= 2);
        let process = host.process(pid, "python", Some(number % 2));
        let job = if second { second_job } else { "train" };
        host.writer.update_process(process, |p| (p.world_size, p.job) = (Some(2), job.into()));
        let thread = host.thread(process, pid, "MainThread", 0, 1_000_000 * US);
        let id = format!("GPU-{number}");
        let device = host.writer.add_device(Device { id, processes: vec![process], ..Device::default() });
        for step in 0..60i64 {
            let at = (10_000 + step * 1000 + if second { 150 } else { 0 }) * US;
            let work = if i64::from(number % 2) == step % 2 { 560 } else { 540 };
            let came = at + work * US;
            let mut kernels = vec![
                ("gemm", 7, at, came),
                ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 20, came, at + 600 * US),
            ];
            if second {
                kernels.push(("ncclDevKernel_Broadcast_RING_LL", 21, at + 610 * US, at + 700 * US));
            }
            for (name, stream, from, to) in kernels {
                kernel(&mut host, (device, thread), (name, stream), (from, to), 0);
            }
        }
    }
    host.capture()
}

#[test]
fn who_steps_beside_others_has_no_wrong_clock() {
    for job in ["serve", "train"] {
        let found = said(&side_by_side(job, 4));
        assert!(found.is_empty(), "{job}: {found:#?}");
    }
}

#[test]
fn who_meets_nobody_that_was_recorded_is_not_held_against_another_job() {
    let found = said(&side_by_side("serve", 3));
    assert!(found.is_empty(), "{found:#?}");
    // In the same job it would have met the others, but for its clock.
    assert_eq!(said(&side_by_side("train", 3)).len(), 1);
}
