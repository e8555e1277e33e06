//! A device that a process of another job uses as well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::capture::{Capture, Device};
use stallscope_core::ledger::{DeviceLedger, Leaf, Ledgers, Options, all_ledgers};
use stallscope_core::report::Report;
use stallscope_core::rows::{Counter, GpuOp};
use stallscope_schemas::units::{ThreadId, TimeNs};

const US: i64 = 1_000;

struct Shared {
    host: Host,
    ops: Vec<GpuOp>,
}

impl Shared {
    fn op(&mut self, thread: ThreadId, name: &str, stream: u64, start: i64, end: i64) {
        let op = self.host.kernel(thread, (name, stream), (start - US, start), (start, end));
        self.ops.push(op);
    }
}

/// Ten steps of 1 ms of which 600 µs are a kernel, then 100 µs an all-reduce. In every second one, another job computes for 200 µs
/// where the device has nothing to do, and communicates for 50 µs beside the kernel.
fn ledger() -> DeviceLedger {
    let mut shared = Shared { host: Host::new(), ops: Vec::new() };
    let own = shared.host.process(100, "python", Some(0));
    let other = shared.host.process(200, "serve", None);
    let launches = shared.host.thread(own, 100, "MainThread", 0, 20 * MS);
    let intrudes = shared.host.thread(other, 200, "serve", 0, 20 * MS);
    shared.host.rank("cpu:100", &[own]);
    shared.host.rank("cpu:200", &[other]);
    for step in 0..10 {
        let base = 10 * US + step * MS;
        shared.op(launches, "gemm", 7, base, base + 600 * US);
        shared.op(launches, "ncclDevKernel_AllReduce", 8, base + 600 * US, base + 700 * US);
        if step % 2 == 0 {
            shared.op(intrudes, "ncclDevKernel_Broadcast", 20, base + 50 * US, base + 100 * US);
            shared.op(intrudes, "decode", 21, base + 750 * US, base + 950 * US);
        }
    }
    let Shared { mut host, mut ops } = shared;
    let device = Device { id: "GPU-0".into(), processes: vec![own, other], ..Device::default() };
    let device = host.writer.add_device(device);
    ops.sort_by_key(|op| op.start);
    ops.into_iter().for_each(|op| host.writer.push_gpu_op(device, op).unwrap());
    let capture: Capture<Vec<u8>> = host.capture();
    let ledgers = all_ledgers(&capture, Options::default()).unwrap();
    ledgers.into_iter().next().unwrap()
}

#[test]
fn what_it_ran_counts_where_the_job_ran_nothing() {
    let ledger = ledger();
    assert_eq!(ledger.sums.get(Leaf::OtherProcess), 5 * 200_000);
    assert_eq!(ledger.sums.get(Leaf::Compute), 10 * 600_000);
    assert_eq!(ledger.sums.get(Leaf::CommExposed), 10 * 100_000);
    assert_eq!(ledger.sums.total(), ledger.end.since(ledger.start));
}

#[test]
fn the_job_of_a_device_is_the_one_with_most_ranks() {
    let mut host = Host::new();
    // A job of one rank, and one of four, of the same name; the agent of the former told first.
    let (sweep, own) = (host.process(200, "python", Some(0)), host.process(100, "python", Some(0)));
    host.writer.update_process(sweep, |process| process.world_size = Some(1));
    host.rank("cpu:200", &[sweep]);
    host.rank("cpu:100", &[own]);
    let mut shared = Shared { host, ops: Vec::new() };
    for (process, name, start) in [(sweep, "sweep", 100), (own, "gemm", 300)] {
        let thread = shared.host.thread(process, i64::from(process.0), "MainThread", 0, MS);
        shared.op(thread, name, 7, start * US, (start + 100) * US);
    }
    let Shared { mut host, ops } = shared;
    let device = Device { id: "GPU-0".into(), processes: vec![sweep, own], ..Device::default() };
    let device = host.writer.add_device(device);
    ops.into_iter().for_each(|op| host.writer.push_gpu_op(device, op).unwrap());
    let capture = host.capture();
    let ledger = all_ledgers(&capture, Options::default()).unwrap().into_iter().next().unwrap();
    assert_eq!(ledger.others, [(sweep, 100_000)]);
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let gpu = report.devices.iter().find(|device| device.kind == "gpu").unwrap();
    assert_eq!((gpu.world_size, gpu.pids.as_slice()), (Some(4), &[200, 100][..]));
}

#[test]
fn its_rhythm_is_not_the_jobs() {
    // The other job's operations come back half as often, which would be the longest period.
    assert_eq!(ledger().steps.len(), 10);
}

#[test]
fn its_kernels_are_not_counted_among_the_jobs() {
    let ledger = ledger();
    assert_eq!(ledger.by_name.len(), 2, "{:?}", ledger.by_name);
}

/// What is said of processes that NVML names while pid 100 is recorded, of whose device this is.
fn said_of(holders: &[(i64, u64)]) -> Option<(String, String)> {
    let mut host = Host::new();
    let own = host.process(100, "python", Some(0));
    let thread = host.thread(own, 100, "MainThread", 0, 20 * MS);
    let mut shared = Shared { host, ops: Vec::new() };
    shared.op(thread, "gemm", 7, MS, 2 * MS);
    let Shared { mut host, ops } = shared;
    host.process(101, "python", Some(1));
    let device = Device { id: "GPU-0".into(), processes: vec![own], ..Device::default() };
    let device = host.writer.add_device(device);
    ops.into_iter().for_each(|op| host.writer.push_gpu_op(device, op).unwrap());
    for (at, &(pid, value)) in (0..).zip(holders) {
        let name = host.writer.intern(&format!("memory of pid {pid} (bytes)"));
        let row = Counter { start: TimeNs(MS + at), duration_ns: 0, name, value };
        host.writer.push_counter(device, row).unwrap();
    }
    let capture = host.capture();
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let found = report.findings.into_iter().find(|f| f.rule == "device-shared-unseen")?;
    Some((found.summary, found.evidence))
}

#[test]
fn processes_that_were_not_recorded_are_told_of() {
    let (own, other_rank) = ((100, 5 << 30), (101, 1 << 30));
    assert_eq!(said_of(&[own, other_rank]), None);
    let (summary, evidence) = said_of(&[own, (7, 2 << 20), (7, 3 << 20), (7, 1 << 20), (8, 0)]).unwrap();
    assert!(
        summary.starts_with("a process whose GPU work was not recorded has memory of the device"),
        "{summary}"
    );
    assert_eq!(evidence, "by NVML: pid 7 3 MiB");
    let many: Vec<_> = std::iter::once(own).chain((1..=6).map(|pid| (pid, 1 << 20))).collect();
    let (summary, evidence) = said_of(&many).unwrap();
    assert!(summary.starts_with("6 processes whose GPU work was not recorded have memory"), "{summary}");
    assert!(evidence.ends_with("pid 4 1 MiB, and 2 more"), "{evidence}");
}

#[test]
fn pids_of_another_namespace_say_nothing() {
    assert_eq!(said_of(&[(7, 1 << 30), (8, 1 << 30)]), None);
}
