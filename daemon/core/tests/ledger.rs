//! Where idle time goes: one small made-up job for each rule, every nanosecond known.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use stallscope_core::capture::{Capture, CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::ingest::{Ingest, Scope};
use stallscope_core::ledger::{DeviceLedger, IdleLeaf, Leaf, Ledgers, Options, all_ledgers};
use stallscope_core::report::Report;
use stallscope_core::rows::{ApiCall, DeviceWindow, GpuOp, HostSpan, LossWindow, StreamWait};
use stallscope_core::weights;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, op_flags, window_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, StackId, ThreadId, TimeNs};

/// A job with one process, one GPU and as many threads as are asked for.
struct Job {
    ingest: Ingest<Vec<u8>>,
    device: DeviceId,
}

impl Job {
    fn new(format: &str) -> Self {
        let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
        let source = writer.add_source(Source { path: "job".into(), format: format.into() });
        let process = writer.add_process(Process { source, pid: 1, ..Process::default() });
        for tid in [1, 2] {
            writer.add_thread(Thread { process, tid, ..Thread::default() });
        }
        let device = Device { source, id: "gpu".into(), processes: vec![process], ..Device::default() };
        let device = writer.add_device(device);
        Self { ingest: Ingest::new(writer), device }
    }

    fn op(&mut self, stream: u64, start: i64, end: i64, correlation: u64) -> &mut Self {
        self.named("kernel", OpKind::Kernel, 0, stream, start, end, correlation)
    }

    #[allow(clippy::too_many_arguments, reason = "a row has that many columns")]
    fn named(
        &mut self,
        name: &str,
        kind: OpKind,
        flags: u64,
        stream: u64,
        start: i64,
        end: i64,
        correlation: u64,
    ) -> &mut Self {
        let name = self.ingest.writer().intern(name);
        let op = GpuOp {
            start: TimeNs(start),
            duration_ns: (end - start).unsigned_abs(),
            name,
            stream,
            kind,
            flags,
            correlation: CorrelationId(correlation),
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: None,
        };
        self.ingest.gpu_op(Scope(0), self.device, op).unwrap();
        self
    }

    fn call(&mut self, thread: u32, name: &str, start: i64, end: i64, correlation: u64) -> &mut Self {
        let name = self.ingest.writer().intern(name);
        let call = ApiCall {
            start: TimeNs(start),
            duration_ns: (end - start).unsigned_abs(),
            name,
            correlation: CorrelationId(correlation),
        };
        self.ingest.api_call(Scope(0), ThreadId(thread), call, false).unwrap();
        self
    }

    fn span(&mut self, thread: u32, kind: SpanKind, name: &str, start: i64, end: i64) -> &mut Self {
        let name = self.ingest.writer().intern(name);
        let duration_ns = (end - start).unsigned_abs();
        let span = HostSpan { start: TimeNs(start), duration_ns, name, kind, stack: StackId(0) };
        self.ingest.writer().push_host_span(ThreadId(thread), span).unwrap();
        self
    }

    fn capture(self) -> Capture<Vec<u8>> {
        Capture::open(self.ingest.finish().unwrap().0).unwrap()
    }

    fn ledger(self) -> DeviceLedger {
        all_ledgers(&self.capture(), Options::default()).unwrap().remove(0)
    }
}

/// The idle leaves that are not zero.
fn idle(ledger: &DeviceLedger) -> Vec<(IdleLeaf, u64)> {
    IdleLeaf::ALL.iter().map(|&l| (l, ledger.sums.idle(l))).filter(|(_, ns)| *ns > 0).collect()
}

#[test]
fn a_gap_before_the_launch_call_is_the_hosts_and_one_inside_it_is_launch_time() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 200, 1_000, 1);
    job.call(0, "cudaLaunchKernel", 5_000, 6_000, 2).op(7, 6_400, 7_000, 2);
    let ledger = job.ledger();
    assert_eq!(idle(&ledger), [(IdleLeaf::Host, 4_000), (IdleLeaf::Launch, 1_000), (IdleLeaf::Device, 400)]);
    assert_eq!(ledger.sums.get(Leaf::Compute), 1_400);
}

#[test]
fn an_operation_of_a_recording_does_not_begin_before_its_launch_and_one_of_a_trace_says_so() {
    let of = |bounded: bool| {
        let mut job = Job::new("live");
        if bounded {
            job.ingest = job.ingest.bounded_by_launches();
        }
        job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 10, 1_000, 1);
        // The operation may come first. Its end stays what it was.
        job.op(7, 4_700, 6_000, 2).call(0, "cudaLaunchKernel", 5_000, 5_100, 2);
        let (worst, ledger) = (job.ingest.before_launch_ns(), job.ledger());
        (worst, ledger.end.0, ledger.sums.get(Leaf::Compute))
    };
    assert_eq!(of(false), (0, 6_000, 2_290));
    assert_eq!(of(true), (300, 6_000, 1_990));
}

#[test]
fn an_operation_that_had_not_ended_when_the_recording_did_is_known_and_those_of_a_trace_are_not() {
    let of = |observed: bool| {
        let mut job = Job::new("live");
        job.call(0, "cudaLaunchKernel", 0, 100, 1).named(
            "hung",
            OpKind::Kernel,
            op_flags::END_UNKNOWN,
            7,
            200,
            200,
            1,
        );
        // One without an end that something followed in its stream has ended.
        job.named("ended", OpKind::Kernel, op_flags::END_UNKNOWN, 9, 300, 300, 0).op(9, 400, 500, 0);
        if observed {
            let window =
                DeviceWindow { start: TimeNs(0), duration_ns: 10_000, flags: window_flags::FROM_START };
            let device = job.device;
            job.ingest.writer().push_device_window(device, window).unwrap();
        }
        let capture = job.capture();
        let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
        let report = Report::build(&capture, &ledgers);
        let hangs: Vec<_> = report.findings.into_iter().filter(|f| f.rule == "hang-operation").collect();
        (
            hangs.first().map(|f| (f.ns, f.summary.clone(), f.evidence.contains("cudaLaunchKernel"))),
            hangs.len(),
        )
    };
    let hung = "hung had not ended after 9.8 µs, when the recording did".to_owned();
    assert_eq!(of(true), (Some((9_800, hung, true)), 1));
    assert_eq!(of(false), (None, 0));
}

#[test]
fn calls_on_the_launching_thread_split_the_host_part() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 200, 1_000, 1);
    job.call(0, "cudaStreamSynchronize", 500, 1_500, 0);
    job.call(0, "cudaMalloc", 2_000, 2_700, 0);
    job.call(0, "cudaEventQuery", 3_000, 3_100, 0);
    job.call(1, "cudaMalloc", 3_200, 4_000, 0);
    job.call(0, "cudaLaunchKernel", 5_000, 5_100, 2).op(7, 5_100, 6_000, 2);
    let ledger = job.ledger();
    // Another thread's cudaMalloc and a query are not why this launch came late.
    assert_eq!(
        idle(&ledger),
        [
            (IdleLeaf::Host, 500 + 2_300),
            (IdleLeaf::Driver, 700),
            (IdleLeaf::Sync, 500),
            (IdleLeaf::Launch, 100)
        ]
    );
}

#[test]
fn the_stack_that_ran_in_the_gap_is_blamed_not_the_one_around_the_launch() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 100, 1_000, 1);
    job.span(0, SpanKind::Annotation, "train", 0, 10_000);
    job.span(0, SpanKind::Operator, "load", 1_200, 8_000);
    job.span(0, SpanKind::Operator, "aten::mm", 8_500, 9_500);
    job.call(0, "cudaLaunchKernel", 9_000, 9_100, 2).op(7, 9_100, 9_600, 2);
    let capture = job.capture();
    let ledgers = all_ledgers(&capture, Options::default()).unwrap();
    let folded = weights::gpu_idle(&ledgers, capture.tables());
    let host: Vec<(String, u64)> = folded.iter().map(|(f, ns)| (f.last().unwrap().clone(), ns)).collect();
    for expected in [("load", 6_800), ("train", 200 + 500), ("aten::mm", 500)] {
        let total: u64 = host.iter().filter(|(f, _)| f == expected.0).map(|(_, ns)| ns).sum();
        assert_eq!(total, expected.1, "{expected:?} in {host:?}");
    }
    assert_eq!(folded.total_ns(), ledgers[0].sums.get(Leaf::Idle));
}

#[test]
fn gaps_between_nodes_of_one_graph_replay_are_the_graphs() {
    let mut job = Job::new("live");
    job.call(0, "cudaGraphLaunch", 0, 100, 1).op(7, 500, 1_000, 1).op(7, 1_300, 2_000, 1);
    job.call(0, "cudaGraphLaunch", 2_500, 2_600, 2).op(7, 2_600, 3_000, 2).op(8, 3_050, 4_000, 2);
    assert_eq!(idle(&job.ledger()), [(IdleLeaf::Host, 500), (IdleLeaf::Launch, 100), (IdleLeaf::Graph, 350)]);
}

#[test]
fn a_stream_that_was_told_to_wait_depends_on_another() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 100, 1_000, 1);
    let wait = |stream, start| StreamWait {
        start: TimeNs(start),
        duration_ns: 10,
        stream,
        on_stream: None,
        correlation: CorrelationId(0),
    };
    job.ingest.writer().push_stream_wait(DeviceId(0), wait(8, 200)).unwrap();
    job.call(0, "cudaLaunchKernel", 300, 400, 2).op(8, 90_000, 91_000, 2);
    // The wait was for the operation before: this one is merely queued.
    job.call(0, "cudaLaunchKernel", 500, 600, 3).op(8, 191_000, 192_000, 3);
    let ledger = job.ledger();
    let floor = ledger.device_floor_ns;
    assert_eq!(
        idle(&ledger),
        [(IdleLeaf::Dep, 89_000), (IdleLeaf::Device, floor), (IdleLeaf::Unknown, 100_000 - floor)]
    );
}

#[test]
fn a_long_launch_call_is_the_drivers() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 100, 1_000, 1);
    job.call(0, "cudaLaunchKernel", 1_000, 9_001_000, 2).op(7, 9_001_000, 9_002_000, 2);
    assert_eq!(idle(&job.ledger()), [(IdleLeaf::Driver, 9_000_000)]);
}

#[test]
fn without_a_launch_the_cause_is_unknown() {
    let mut job = Job::new("live");
    job.op(7, 0, 100, 1).op(7, 500, 600, 2);
    assert_eq!(idle(&job.ledger()), [(IdleLeaf::Unknown, 400)]);
}

#[test]
fn communication_and_copies_count_only_where_nothing_hides_them() {
    let mut job = Job::new("live");
    job.op(7, 0, 1_000, 1);
    job.named("ncclDevKernel_AllReduce", OpKind::Kernel, 0, 8, 500, 2_000, 2);
    job.named("Memcpy", OpKind::Memcpy, 0, 9, 1_500, 2_300, 3);
    job.named("fused", OpKind::Kernel, op_flags::COLLECTIVE_METADATA, 8, 2_300, 2_400, 4);
    let ledger = job.ledger();
    let direct: Vec<u64> = Leaf::ALL.iter().map(|&l| ledger.sums.get(l)).collect();
    assert_eq!(direct, [1_000, 1_000 + 100, 300, 0, 0, 0, 0]);
    assert_eq!((ledger.comm_ns, ledger.memcpy_ns), (1_600, 800));
}

#[test]
fn lost_records_and_missing_ends_are_unknown_whatever_else_ran() {
    let mut job = Job::new("live");
    job.op(7, 0, 1_000, 1);
    let window =
        LossWindow { start: TimeNs(500), duration_ns: 1_000, counter: LossCounter::LossWindowReported.id() };
    job.ingest.writer().push_loss_window(DeviceId(0), window).unwrap();
    job.op(7, 2_000, 3_000, 2);
    job.named("no end", OpKind::Kernel, op_flags::END_UNKNOWN, 7, 3_200, 3_200, 3);
    job.op(7, 4_000, 5_000, 4);
    let ledger = job.ledger();
    assert_eq!(ledger.sums.get(Leaf::Compute), 500 + 1_000 + 1_000);
    assert_eq!(ledger.sums.get(Leaf::Unknown), 1_000 + 800);
    assert_eq!(ledger.sums.get(Leaf::Idle), 500 + 200);
}

#[test]
fn a_kineto_window_begins_with_the_first_recorded_launch() {
    let build = |format| {
        let mut job = Job::new(format);
        job.op(7, 0, 1_000, 90).op(8, 1_500, 4_000, 91);
        job.call(0, "cudaLaunchKernel", 2_000, 2_100, 1).op(7, 3_000, 5_000, 1);
        job.ledger()
    };
    let kineto = build("kineto");
    assert_eq!((kineto.start, kineto.end, kineto.ops_before_window), (TimeNs(3_000), TimeNs(5_000), 2));
    assert_eq!(kineto.sums.get(Leaf::Compute), 2_000);
    assert_eq!(build("nsys").start, TimeNs(0));
}

#[test]
fn the_wait_for_a_batch_belongs_to_the_step_that_needed_it() {
    let mut job = Job::new("live");
    for step in 0..3i64 {
        let at = step * 10_000;
        job.span(0, SpanKind::Step, &format!("step {step}"), at, at + 10_000);
        let correlation = step.unsigned_abs() + 1;
        job.call(0, "cudaLaunchKernel", at + 6_000, at + 6_100, correlation);
        job.op(7, at + 6_100, at + 9_000, correlation);
    }
    let ledger = job.ledger();
    let steps: Vec<(i64, i64, u64, u64)> = ledger
        .steps
        .iter()
        .map(|s| (s.start.0, s.end.0, s.sums.get(Leaf::Compute), s.sums.get(Leaf::Idle)))
        .collect();
    // The host began steps 1 and 2 at 10 and 20 µs, while the device was idle.
    assert_eq!(
        steps,
        [(6_100, 10_000, 2_900, 1_000), (10_000, 20_000, 2_900, 7_100), (20_000, 29_000, 2_900, 6_100)]
    );
    let total: u64 = ledger.steps.iter().map(|s| s.sums.total()).sum();
    assert_eq!(total, ledger.sums.total());
}

#[test]
fn launches_out_of_order_on_two_threads_still_close() {
    let mut job = Job::new("live");
    job.span(0, SpanKind::Operator, "a", 0, 50_000).span(1, SpanKind::Operator, "b", 0, 50_000);
    // Launched first, begun last.
    job.call(0, "cudaLaunchKernel", 100, 200, 1).op(7, 30_000, 31_000, 1);
    job.call(1, "cudaLaunchKernel", 9_000, 9_100, 2).op(8, 9_200, 10_000, 2);
    job.call(0, "cudaLaunchKernel", 40_000, 40_100, 3).op(8, 40_100, 41_000, 3);
    job.call(1, "cudaLaunchKernel", 39_000, 39_100, 4).op(9, 45_000, 46_000, 4);
    let ledger = job.ledger();
    assert_eq!(ledger.sums.total(), ledger.end.since(ledger.start));
    assert_eq!(ledger.sums.idle_total(), ledger.sums.get(Leaf::Idle));
}

#[test]
fn a_step_ends_where_its_mark_ends_and_not_with_the_window() {
    let mut job = Job::new("live");
    for step in 0..6i64 {
        let at = step * 10_000;
        job.span(0, SpanKind::Step, &format!("step {step}"), at, at + 10_000);
        let correlation = step.unsigned_abs() + 1;
        job.call(0, "cudaLaunchKernel", at + 100, at + 200, correlation).op(
            7,
            at + 300,
            at + 9_000,
            correlation,
        );
    }
    // Validation long after the loop.
    job.call(0, "cudaLaunchKernel", 500_000, 500_100, 99).op(7, 500_200, 501_000, 99);
    let ledger = job.ledger();
    assert_eq!(ledger.steps.last().map(|s| (s.start.0, s.end.0)), Some((50_000, 60_000)));
    assert!(ledger.slow_steps().is_empty());
    assert!(!ledger.steps[0].whole && ledger.steps[1].whole, "the first step began before the window");
    assert_eq!(
        (ledger.gaps, ledger.longest_gap.1),
        (6, 500_200 - 59_000),
        "a cut does not make two gaps of one"
    );
}

#[test]
fn a_launch_call_that_reaches_into_the_gap_is_launch_time_whoever_launched_in_between() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 5_000, 1).op(7, 100, 500, 1);
    job.call(1, "cudaLaunchKernel", 400, 500, 2).op(8, 500, 1_000, 2);
    job.op(9, 600, 900, 77);
    job.call(0, "cudaLaunchKernel", 6_000, 6_100, 3).op(7, 6_100, 7_000, 3);
    assert_eq!(idle(&job.ledger()), [(IdleLeaf::Host, 1_000), (IdleLeaf::Launch, 4_000 + 100)]);
}

#[test]
fn a_driver_call_inside_a_launch_call_is_the_drivers() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 100, 1_000, 1);
    job.call(0, "cuModuleLoadData", 1_100, 1_400, 0);
    job.call(0, "cudaLaunchKernel", 1_000, 1_500, 2).op(7, 1_500, 2_000, 2);
    assert_eq!(idle(&job.ledger()), [(IdleLeaf::Driver, 300), (IdleLeaf::Launch, 200)]);
}

#[test]
fn an_unrelated_kernel_does_not_end_a_graph_replay() {
    let mut job = Job::new("live");
    job.call(0, "cudaGraphLaunch", 0, 100, 1).op(7, 100, 200, 1);
    job.call(0, "cudaLaunchKernel", 150, 160, 2).op(8, 250, 300, 2);
    job.op(7, 400, 500, 1);
    let ledger = job.ledger();
    assert_eq!(ledger.sums.idle(IdleLeaf::Graph), 100);
}

#[test]
fn an_order_given_after_the_launch_is_not_why_it_waited() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 100, 1_000, 1);
    job.call(0, "cudaLaunchKernel", 200, 300, 2);
    let wait = StreamWait {
        start: TimeNs(400),
        duration_ns: 10,
        stream: 7,
        on_stream: None,
        correlation: CorrelationId(0),
    };
    job.ingest.writer().push_stream_wait(DeviceId(0), wait).unwrap();
    // Another gap, closed by a later launch, reads the orders up to there first.
    job.call(0, "cudaLaunchKernel", 1_400, 1_500, 3).op(8, 1_500, 2_000, 3);
    job.op(7, 90_000, 91_000, 2);
    assert_eq!(job.ledger().sums.idle(IdleLeaf::Dep), 0);
}

#[test]
fn waiting_for_a_stream_of_the_same_device_explains_nothing_once_the_device_is_idle() {
    let mut job = Job::new("live");
    job.call(0, "cudaLaunchKernel", 0, 100, 1).op(7, 100, 1_000, 1);
    let wait = StreamWait {
        start: TimeNs(200),
        duration_ns: 10,
        stream: 8,
        on_stream: Some(7),
        correlation: CorrelationId(0),
    };
    job.ingest.writer().push_stream_wait(DeviceId(0), wait).unwrap();
    job.call(0, "cudaLaunchKernel", 300, 400, 2).op(8, 6_000, 7_000, 2);
    assert_eq!(idle(&job.ledger()), [(IdleLeaf::Device, 5_000)]);
}
