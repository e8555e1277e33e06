//! Time on a GPU led back to where it was launched from: sampled, estimated, unknown, and never more than there is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::ledger::{DeviceLedger, Ledgers, Options, all_ledgers};
use stallscope_core::report::{Report, render};
use stallscope_core::rows::{GpuOp, Launch, LaunchStack};
use stallscope_core::weights::{self, NO_LAUNCH_STACK, OTHER_LAUNCHES};
use stallscope_schemas::record::{CopyKind, OpKind};
use stallscope_schemas::units::{CorrelationId, DeviceId, ThreadId, TimeNs};

const SECOND: i64 = 1_000_000_000;

struct Job {
    host: Host,
    gpu: DeviceId,
    main: ThreadId,
    /// End of the last kernel, and the number of its launch.
    last: (i64, u64),
}

impl Job {
    fn new() -> Self {
        let mut host = Host::new();
        let process = host.process(10, "python", Some(2));
        let main = host.thread(process, 10, "MainThread", 0, 1000);
        let device = Device { id: "GPU-1".into(), processes: vec![process], ..Device::default() };
        let gpu = host.writer.add_device(device);
        Self { host, gpu, main, last: (1000, 0) }
    }

    /// A kernel of so many ns, 10 ns after the one before, launched 50 ns before it begins. Where its launch was sampled:
    /// from which line, and how far from its call.
    fn kernel(&mut self, name: &str, ns: u64, sampled: Option<(&str, i64)>) {
        let (start, number) = (self.last.0 + 10, self.last.1 + 1);
        self.last = (start + ns.cast_signed(), number);
        let launch = Launch {
            thread: self.main,
            start: TimeNs(start - 50),
            duration_ns: 20,
            name: self.host.writer.intern("cuLaunchKernel"),
        };
        let op = GpuOp {
            start: TimeNs(start),
            duration_ns: ns,
            name: self.host.writer.intern(name),
            stream: 7,
            kind: OpKind::Kernel,
            flags: 0,
            correlation: CorrelationId(number),
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: Some(launch),
        };
        self.host.writer.push_gpu_op(self.gpu, op).unwrap();
        if let Some((line, off)) = sampled {
            let stack = self.host.stack(&["train.py(10): main", line]);
            let (start, correlation) = (TimeNs(start - 40 + off), CorrelationId(number));
            let row = LaunchStack { start, duration_ns: 0, correlation, stack };
            self.host.writer.push_launch_stack(self.main, row).unwrap();
        }
    }
}

fn ledgers(capture: &Capture<Vec<u8>>) -> Vec<DeviceLedger> {
    all_ledgers(capture, Options { weigh_ops: true, ..Options::default() }).unwrap()
}

fn gpu(capture: &Capture<Vec<u8>>) -> Vec<(String, u64)> {
    let folded = weights::gpu(capture, &mut ledgers(capture));
    folded.iter().map(|(frames, ns)| (frames.join(";"), ns)).collect()
}

#[test]
fn a_sampled_launch_has_its_stack_and_of_a_name_with_few_samples_the_others_have_none() {
    let mut job = Job::new();
    job.kernel("gemm", 100, Some(("train.py(20): step", 0)));
    job.kernel("gemm", 300, None);
    job.kernel("softmax", 50, None);
    let capture = job.host.capture();
    assert_eq!(
        gpu(&capture),
        [
            (format!("rank 2 · GPU-1;{NO_LAUNCH_STACK};gemm"), 300),
            (format!("rank 2 · GPU-1;{NO_LAUNCH_STACK};softmax"), 50),
            ("rank 2 · GPU-1;train.py(10): main;train.py(20): step;gemm".to_owned(), 100),
        ]
    );
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let stacks = report.devices[0].gpu.as_ref().unwrap().launch_stacks.unwrap();
    assert_eq!((stacks.sampled, stacks.launches), (1, 3));
    assert!((stacks.share_of_gpu_time - 100.0 / 450.0).abs() < 1e-9);
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    let line = "(host stacks of 1 of 3 launched operations, 33.3 % of them, 22.2 % of their time)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn of_a_name_with_enough_samples_the_others_are_spread_over_their_stacks_to_the_nanosecond() {
    let mut job = Job::new();
    for _ in 0..6 {
        job.kernel("gemm", 100, Some(("train.py(20): forward", 0)));
    }
    for _ in 0..3 {
        job.kernel("gemm", 100, Some(("train.py(30): backward", 0)));
    }
    job.kernel("gemm", 1000, None);
    let lines = gpu(&job.host.capture());
    let of = |line: &str| lines.iter().filter(|(l, _)| l.contains(line)).map(|(_, ns)| ns).sum::<u64>();
    assert_eq!((of("forward") - 600, of("backward") - 300), (666, 334));
    let estimated: Vec<_> = lines.iter().filter(|(line, _)| line.contains(OTHER_LAUNCHES)).collect();
    assert_eq!(estimated.iter().map(|(_, ns)| ns).sum::<u64>(), 1000, "they are told apart: {lines:?}");
    assert_eq!(lines.iter().map(|(_, ns)| ns).sum::<u64>(), 1900);
}

#[test]
fn a_sample_of_another_time_is_of_another_launch_that_had_the_same_number() {
    let mut job = Job::new();
    job.kernel("gemm", 100, Some(("train.py(20): step", 3 * SECOND)));
    job.kernel("gemm", 100, Some(("train.py(20): step", SECOND / 2)));
    let capture = job.host.capture();
    let coverage = ledgers(&capture)[0].launch_stacks.unwrap();
    assert_eq!((coverage.sampled, coverage.launches), (1, 2));
}

#[test]
fn without_samples_nothing_is_said_of_them() {
    let mut job = Job::new();
    job.kernel("gemm", 100, None);
    let capture = job.host.capture();
    assert_eq!(gpu(&capture), [("rank 2 · GPU-1;gemm".to_owned(), 100)]);
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    assert!(serde_json::to_value(&report).unwrap()["devices"][0]["launch_stacks"].is_null());
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    assert!(!text.contains("host stacks of"), "{text}");
}

#[test]
fn idle_time_from_the_launching_call_on_has_the_stack_of_that_launch() {
    let mut job = Job::new();
    job.kernel("gemm", 100, Some(("train.py(20): step", 0)));
    // The device waits from 1110 on; the launch is from 5000 to 5020, and the kernel begins at 5050.
    job.last.0 = 5040;
    job.kernel("gemm", 100, Some(("train.py(30): next", 0)));
    job.last.0 = 9040;
    job.kernel("gemm", 100, None);
    let capture = job.host.capture();
    let ledgers = ledgers(&capture);
    let folded = weights::gpu_idle(&ledgers, capture.tables());
    let lines: Vec<(String, u64)> = folded.iter().map(|(f, ns)| (f.join(";"), ns)).collect();
    let of = |part: &str| lines.iter().filter(|(l, _)| l.contains(part)).map(|(_, ns)| ns).sum::<u64>();
    assert_eq!(of("train.py(30): next"), 50, "in the call and after it: {lines:?}");
    assert_eq!(of(NO_LAUNCH_STACK), 50, "{lines:?}");
    let idle: u64 = lines.iter().map(|(_, ns)| ns).sum();
    assert_eq!(idle, (5050 - 1110) + (9050 - 5150));
}
