//! What a launching thread did while its GPU had nothing to do: GPU records and host records in one capture.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::ledger::{
    CpuLeaf, CpuSums, DeviceLedger, IdleLeaf, Leaf, Ledgers, Options, all_ledgers,
};
use stallscope_core::report::Report;
use stallscope_core::rows::{ApiCall, DeviceWindow, LossWindow};
use stallscope_core::weights;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{ObjectKind, WaitKind, wait_flags, window_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, ProcessId, ThreadId, TimeNs};

/// A job of one rank: a main thread that launches, a worker process that reads files and its feeder thread.
struct Job {
    host: Host,
    gpu: DeviceId,
    main: ThreadId,
    worker: ThreadId,
    feeder: ThreadId,
}

impl Job {
    fn new() -> Self {
        let mut host = Host::new();
        let process = host.process(10, "python", Some(2));
        let helper = host.helper(20, "pt_data_worker");
        let main = host.thread(process, 10, "MainThread", 0, 1000);
        let worker = host.thread(helper, 20, "pt_data_worker", 0, 1000);
        let feeder = host.thread(helper, 21, "QueueFeeder", 0, 1000);
        let gpu = Self::gpu(&mut host, process);
        Self { host, gpu, main, worker, feeder }
    }

    fn gpu(host: &mut Host, process: ProcessId) -> DeviceId {
        let device = Device { id: "GPU-1".into(), processes: vec![process], ..Device::default() };
        host.writer.add_device(device)
    }

    /// A kernel in `[start, end)` that `thread` launched in `[from, to)`.
    fn kernel(&mut self, (start, end): (i64, i64), thread: ThreadId, (from, to): (i64, i64)) {
        let op = self.host.kernel(thread, ("gemm", 7), (from, to), (start, end));
        self.host.writer.push_gpu_op(self.gpu, op).unwrap();
    }

    /// A gap in `[90, 750)` that ends with a kernel which `main` launched in `[740, 745)`.
    fn gap(mut self) -> Capture<Vec<u8>> {
        let main = self.main;
        self.kernel((10, 90), main, (1, 5));
        self.kernel((750, 990), main, (740, 745));
        self.host.capture()
    }
}

fn ledger(capture: &Capture<Vec<u8>>) -> DeviceLedger {
    all_ledgers(capture, Options::default()).unwrap().remove(0)
}

fn leaves(sums: &CpuSums) -> Vec<(CpuLeaf, u64)> {
    CpuLeaf::ALL.iter().map(|&l| (l, sums.get(l))).filter(|(_, ns)| *ns > 0).collect()
}

#[test]
fn a_gap_is_followed_through_the_launching_thread_to_the_file_that_a_worker_read() {
    let mut job = Job::new();
    let (feeder, worker, main) = (job.feeder, job.worker, job.main);
    let at = job.host.stack(&["train.py(10): main", "dataloader.py(631): __next__"]);
    job.host.wait(main, 100, 700, "read", |w, _| {
        (w.object_kind, w.waker, w.stack) = (ObjectKind::Pipe, Some(feeder), at);
    });
    job.host.woken(feeder, 0, 690, "futex", worker);
    let open = job.host.stack(&["data.py(42): read_sample"]);
    job.host.wait(worker, 150, 650, "read", |w, host| {
        (w.object_kind, w.stack) = (ObjectKind::File, open);
        w.object = host.writer.intern("/data/shard-0017");
        w.flags = wait_flags::IRQ_WAKER;
    });
    let capture = job.gap();
    let ledger = ledger(&capture);
    assert_eq!((ledger.sums.idle(IdleLeaf::Host), ledger.sums.idle(IdleLeaf::Launch)), (650, 5));
    let work = &ledger.host_work;
    assert_eq!(leaves(&work.direct), [(CpuLeaf::Compute, 50), (CpuLeaf::Ipc, 600)]);
    assert_eq!(leaves(&work.root), [(CpuLeaf::Compute, 150), (CpuLeaf::BlockIo, 500)]);
    let (cause, amount) = work.causes.ranked()[0];
    assert_eq!((cause.thread, cause.root, amount.ns), (main, CpuLeaf::BlockIo, 500));
    assert_eq!(capture.tables().string(cause.object), "/data/shard-0017");
    let chain: Vec<ThreadId> = work.causes.chains.links(cause.chain).iter().map(|l| l.thread).collect();
    assert_eq!(chain, [feeder, worker]);

    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let finding = report.findings.iter().find(|f| f.rule == "idle-block-io").unwrap();
    assert_eq!((finding.device.as_str(), finding.ns), ("GPU-1", 500));
    assert!(
        finding.summary.contains("because of its host, which waits in read() of /data/shard-0017"),
        "{finding:?}"
    );
    assert!(
        finding.evidence.contains("waits at dataloader.py:631 in __next__ for QueueFeeder (tid 21)"),
        "{finding:?}"
    );
    assert!(finding.evidence.contains("pt_data_worker (tid 20) in read() of /data/shard-0017 at data.py:42"));

    let folded = weights::gpu_idle(&[ledger], capture.tables());
    let lines: Vec<(String, u64)> = folded.iter().map(|(f, ns)| (f.join(";"), ns)).collect();
    assert_eq!(lines.iter().map(|(_, ns)| ns).sum::<u64>(), 660);
    let line = lines.iter().find(|(line, _)| line.contains("shard-0017")).unwrap();
    assert!(line.0.contains("host;blocked I/O;") && line.0.contains("__next__"), "{line:?}");
    assert!(line.0.contains("waits for") && line.0.ends_with("[read] /data/shard-0017"), "{line:?}");
    assert_eq!(line.1, 500);
}

#[test]
fn a_decoy_that_the_launching_thread_did_not_wait_for_gets_nothing() {
    let mut job = Job::new();
    let (main, worker) = (job.main, job.worker);
    job.host.on(worker, 100, 700, "read", ObjectKind::File, "/data/decoy");
    let capture = job.gap();
    let work = ledger(&capture).host_work;
    assert_eq!(leaves(&work.root), [(CpuLeaf::Compute, 650)], "main ran all the while");
    assert_eq!(work.causes.ranked()[0].0.thread, main);
}

#[test]
fn what_is_not_recorded_of_the_launching_thread_is_unknown_and_still_the_hosts() {
    let mut job = Job::new();
    let process = job.host.process(30, "python", None);
    let late = job.host.thread(process, 31, "late", 400, 1000);
    job.kernel((10, 90), late, (1, 5));
    job.kernel((750, 990), late, (740, 745));
    let capture = job.host.capture();
    let ledger = ledger(&capture);
    assert_eq!(ledger.sums.idle(IdleLeaf::Host), 650);
    assert_eq!(leaves(&ledger.host_work.direct), [(CpuLeaf::Compute, 340), (CpuLeaf::Unknown, 310)]);
    assert_eq!(ledger.sums.total(), ledger.end.since(ledger.start));
    assert_eq!(ledger.sums.get(Leaf::Idle), 660);
}

#[test]
fn gaps_of_a_thread_that_was_not_followed_stay_as_they_were() {
    let mut job = Job::new();
    let process = job.host.process(30, "python", None);
    let other = job.host.outsider(process, 31, "other");
    job.kernel((10, 90), other, (1, 5));
    job.kernel((750, 990), other, (740, 745));
    let capture = job.host.capture();
    let ledger = ledger(&capture);
    assert_eq!(ledger.host_work.direct.total(), 0);
    let host: u64 =
        ledger.causes.ranked().iter().filter(|(c, _)| c.leaf == IdleLeaf::Host).map(|(_, a)| a.ns).sum();
    assert_eq!(host, 650);
}

#[test]
fn a_device_that_is_observed_is_idle_before_its_first_operation_and_after_its_last() {
    let mut job = Job::new();
    let main = job.main;
    job.host.on(main, 500, 900, "read", ObjectKind::File, "/data/slow");
    job.kernel((300, 400), main, (290, 295));
    let window = DeviceWindow { start: TimeNs(100), duration_ns: 800, flags: window_flags::FROM_START };
    job.host.writer.push_device_window(job.gpu, window).unwrap();
    let ledger = ledger(&job.host.capture());
    assert_eq!((ledger.start, ledger.end), (TimeNs(100), TimeNs(900)));
    assert_eq!((ledger.sums.get(Leaf::Compute), ledger.sums.get(Leaf::Idle)), (100, 700));
    // 190 before the launch, 100 from the end of the kernel to the read, 400 in it.
    assert_eq!(
        leaves(&ledger.host_work.direct),
        [(CpuLeaf::Compute, 290), (CpuLeaf::BlockIo, 400)],
        "{:?}",
        ledger.sums
    );
}

#[test]
fn a_device_without_any_operation_is_idle_as_long_as_it_is_observed() {
    let mut job = Job::new();
    let window = DeviceWindow { start: TimeNs(100), duration_ns: 800, flags: window_flags::FROM_START };
    job.host.writer.push_device_window(job.gpu, window).unwrap();
    let ledger = ledger(&job.host.capture());
    assert_eq!((ledger.sums.get(Leaf::Idle), ledger.sums.idle(IdleLeaf::Unknown)), (800, 800));
}

/// In a call that waits for a device which has nothing left to do, a thread that does not come back is its host's doing.
#[test]
fn a_thread_that_is_kept_from_coming_back_out_of_a_synchronisation_call_is_not_the_calls_fault() {
    let mut job = Job::new();
    let main = job.main;
    let name = job.host.writer.intern("cuStreamSynchronize");
    let call = ApiCall { start: TimeNs(20), duration_ns: 680, name, correlation: CorrelationId(0) };
    job.host.writer.push_api_call(main, call).unwrap();
    // It waits for the kernel until 100, is stopped from 200 to 500, and gets no CPU until 600.
    job.host.wait(main, 20, 100, "poll", |_, _| {});
    job.host.wait(main, 200, 600, "poll", |w, _| {
        (w.kind, w.run_queue_ns) = (WaitKind::Stopped, 100);
    });
    let capture = job.gap();
    let ledger = ledger(&capture);
    // The gap is [90, 750): 10 until it was woken, 100 and 100 in which it ran in the call, 40 after it.
    let sync: u64 =
        ledger.causes.ranked().iter().filter(|(c, _)| c.leaf == IdleLeaf::Sync).map(|(_, a)| a.ns).sum();
    assert_eq!((ledger.sums.idle(IdleLeaf::Sync), sync), (210, 210));
    assert_eq!(
        leaves(&ledger.host_work.direct),
        [(CpuLeaf::Compute, 40), (CpuLeaf::RunQueue, 100), (CpuLeaf::Stopped, 300)]
    );
    assert_eq!(ledger.sums.idle(IdleLeaf::Host), 440);
}

/// What ran when the recording began has no records: until the host has waited for the device, nothing shows that it had
/// nothing to do.
#[test]
fn work_from_before_the_recording_may_run_until_the_host_has_waited_for_the_device() {
    let after = |call: &str, sync: Option<(i64, i64)>, flags| {
        let mut job = Job::new();
        let main = job.main;
        if let Some((from, to)) = sync {
            let name = job.host.writer.intern(call);
            let call = ApiCall {
                start: TimeNs(from),
                duration_ns: (to - from).unsigned_abs(),
                name,
                correlation: CorrelationId(0),
            };
            job.host.writer.push_api_call(main, call).unwrap();
        }
        job.kernel((500, 600), main, (490, 495));
        job.kernel((700, 800), main, (690, 695));
        let window = DeviceWindow { start: TimeNs(100), duration_ns: 700, flags };
        job.host.writer.push_device_window(job.gpu, window).unwrap();
        let ledger = ledger(&job.host.capture());
        let unknown = ledger.sums.get(Leaf::Unknown);
        assert_eq!((ledger.sums.get(Leaf::Idle) + unknown, ledger.sums.total()), (500, 700));
        assert_eq!((ledger.unseen_ns, ledger.sums.idle(IdleLeaf::Unknown)), (unknown, 0));
        let leaves = [IdleLeaf::Sync, IdleLeaf::Host, IdleLeaf::Launch, IdleLeaf::Device];
        let [sync, host, launch, device] = leaves.map(|leaf| ledger.sums.idle(leaf));
        [unknown, sync, host, launch, device]
    };
    let of = |sync, flags| after("cuCtxSynchronize", sync, flags);
    // The first gap is [100, 500), the second [600, 700): of that 90 are the host's, 5 the launch's, 5 the device's.
    assert_eq!(of(None, 0), [400, 0, 90, 5, 5]);
    assert_eq!(of(Some((150, 300)), 0), [200, 0, 90 + 190, 10, 10]);
    // A wait that had begun before says the same when it comes back.
    assert_eq!(of(Some((50, 300)), 0), [200, 0, 90 + 190, 10, 10]);
    // While one stream or one event is waited for, another stream may work.
    assert_eq!(after("cuStreamSynchronize", Some((150, 300)), 0), of(None, 0));
    assert_eq!(after("cudaEventSynchronize", Some((150, 300)), 0), of(None, 0));
    // The agent was there before the first launch.
    assert_eq!(of(None, window_flags::FROM_START), [0, 0, 90 + 390, 10, 10]);
    assert_eq!(of(Some((150, 300)), window_flags::FROM_START), [0, 150, 90 + 240, 10, 10]);
}

/// Once the device has come to work that was told of, another stream may still have some from before: that the host waits for a
/// stream for long while nothing runs shows it.
#[test]
fn a_long_wait_for_a_stream_while_nothing_runs_is_for_work_from_before() {
    const MS: i64 = 1_000_000;
    let of = |call: &str, flags, (from, to): (i64, i64)| {
        let mut job = Job::new();
        let main = job.main;
        job.host.span(main, 1000, 100 * MS);
        let name = job.host.writer.intern(call);
        let row = ApiCall {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            name,
            correlation: CorrelationId(0),
        };
        job.host.writer.push_api_call(main, row).unwrap();
        job.kernel((10 * MS, 11 * MS), main, (10 * MS - 10, 10 * MS - 5));
        job.kernel((60 * MS, 61 * MS), main, (60 * MS - 10, 60 * MS - 5));
        let window = DeviceWindow { start: TimeNs(MS), duration_ns: 60_000_000, flags };
        job.host.writer.push_device_window(job.gpu, window).unwrap();
        let ledger = ledger(&job.host.capture());
        (ledger.unseen_ns.div_ceil(1_000_000), ledger.sums.idle(IdleLeaf::Sync).div_ceil(1_000_000))
    };
    let wait = (11 * MS, 51 * MS);
    assert_eq!(of("cuStreamSynchronize", 0, wait), (9 + 40, 0));
    assert_eq!(of("cuCtxSynchronize", 0, wait), (9 + 40, 0));
    assert_eq!(of("cuStreamSynchronize", window_flags::FROM_START, wait), (0, 40));
    // It came back when it should.
    assert_eq!(of("cuStreamSynchronize", 0, (10 * MS, 11 * MS + 500_000)), (9, 1));
}

#[test]
fn between_two_observations_nothing_is_known() {
    let mut job = Job::new();
    let main = job.main;
    for start in [100, 600] {
        let window = DeviceWindow { start: TimeNs(start), duration_ns: 200, flags: window_flags::FROM_START };
        job.host.writer.push_device_window(job.gpu, window).unwrap();
    }
    job.kernel((150, 250), main, (140, 145));
    job.kernel((650, 750), main, (640, 645));
    let ledger = ledger(&job.host.capture());
    assert_eq!((ledger.start, ledger.end), (TimeNs(100), TimeNs(800)));
    assert_eq!((ledger.sums.get(Leaf::Unknown), ledger.sums.get(Leaf::Compute)), (300, 200));
    assert_eq!(ledger.sums.get(Leaf::Idle), 200);
}

/// Two processes share the device, and one is observed later, or not to the end: its work has no records, and the device may
/// not have been idle.
#[test]
fn idle_time_of_a_device_that_another_process_may_have_used_unseen_is_unknown() {
    let mut job = Job::new();
    let main = job.main;
    let windows = [
        (100, 900, window_flags::FROM_START),
        (100, 300, window_flags::UNSEEN),
        (300, 750, 0),
        (750, 900, window_flags::UNSEEN),
    ];
    for (from, to, flags) in windows {
        let duration_ns = u64::try_from(to - from).unwrap();
        let window = DeviceWindow { start: TimeNs(from), duration_ns, flags };
        job.host.writer.push_device_window(job.gpu, window).unwrap();
    }
    job.kernel((150, 200), main, (140, 145));
    job.kernel((500, 600), main, (490, 495));
    job.kernel((700, 720), main, (690, 695));
    let ledger = ledger(&job.host.capture());
    // Before 150 and up to 500, and from 750 on; not [600, 700), nor what is before 750.
    let unknown = 50 + 300 + 150;
    assert_eq!((ledger.sums.get(Leaf::Unknown), ledger.unseen_ns), (unknown, unknown));
    assert_eq!((ledger.sums.get(Leaf::Compute), ledger.sums.get(Leaf::Idle)), (170, 630 - unknown));
}

#[test]
fn what_was_launched_while_another_profiler_had_the_records_may_run_on() {
    let mut job = Job::new();
    let main = job.main;
    let window = DeviceWindow { start: TimeNs(100), duration_ns: 650, flags: window_flags::FROM_START };
    job.host.writer.push_device_window(job.gpu, window).unwrap();
    let of = |counter: LossCounter, start| LossWindow {
        start: TimeNs(start),
        duration_ns: 50,
        counter: counter.id(),
    };
    job.host.writer.push_loss_window(job.gpu, of(LossCounter::AgentTaken, 300)).unwrap();
    job.host.writer.push_loss_window(job.gpu, of(LossCounter::AgentRingFull, 600)).unwrap();
    job.kernel((150, 250), main, (140, 145));
    job.kernel((400, 500), main, (390, 395));
    job.kernel((700, 750), main, (690, 695));
    let ledger = ledger(&job.host.capture());
    // Losses, and [350, 400) after the first; not [650, 700).
    assert_eq!((ledger.sums.get(Leaf::Unknown), ledger.sums.get(Leaf::Compute)), (100 + 50, 250));
    assert_eq!(ledger.unseen_ns, 50);
    // Gaps that end with a loss.
    assert_eq!(ledger.sums.idle(IdleLeaf::Unknown), 50 + 100, "{:?}", ledger.sums);
}

#[test]
fn time_of_a_gpu_without_records_is_said_with_what_lost_them() {
    let evidence = |ring_full_ns: u64| {
        let mut job = Job::new();
        let main = job.main;
        job.kernel((100, 200), main, (90, 95));
        job.kernel((900, 1000), main, (890, 895));
        let losses = [
            (LossCounter::LossWindowReported, 210, 200),
            (LossCounter::AgentRingFull, 500, ring_full_ns),
            (LossCounter::LossWindowReported, 501, 30),
        ];
        for (counter, start, duration_ns) in losses {
            let window = LossWindow { start: TimeNs(start), duration_ns, counter: counter.id() };
            job.host.writer.push_loss_window(job.gpu, window).unwrap();
        }
        let capture = job.host.capture();
        let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
        let unknown: Vec<_> = report.findings.iter().filter(|f| f.rule == "capture-unknown").collect();
        assert_eq!((unknown.len(), unknown[0].device.as_str()), (1, "GPU-1"));
        assert_eq!(unknown[0].ns, 200 + ring_full_ns);
        unknown[0].evidence.clone()
    };
    let why = |part: &str, counter: LossCounter| {
        format!("{part} of it by {}: {}", counter.name(), counter.explanation())
    };
    assert_eq!(evidence(300), why("most", LossCounter::AgentRingFull));
    assert_eq!(evidence(220), why("most", LossCounter::LossWindowReported));
}

/// Another job's process on the device, and this one's ranks as the recorder knows them.
fn with_another_job(rank: Option<u32>, name: &str) -> (Job, ThreadId) {
    let mut job = Job::new();
    let own = job.host.writer.tables().thread(job.main).unwrap().process;
    let other = job.host.process(50, "other.py", rank);
    job.host.writer.update_process(other, |process| process.job = name.into());
    job.host.rank("rank 2", &[own]);
    job.host.rank("other", &[other]);
    job.host.writer.update_device(job.gpu, |device| device.processes = vec![own, other]);
    let thread = job.host.thread(other, 50, "other.py", 0, 1000);
    (job, thread)
}

/// Two kernels of the job with a gap in `[200, 700)`, in which another process has the device for 250 of what it runs.
fn beside(rank: Option<u32>, name: &str) -> (DeviceLedger, Vec<String>) {
    let (mut job, other) = with_another_job(rank, name);
    let main = job.main;
    job.kernel((100, 200), main, (90, 95));
    job.kernel((150, 300), other, (140, 145));
    job.kernel((400, 550), other, (390, 395));
    job.kernel((700, 800), main, (600, 605));
    let capture = job.host.capture();
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let of_rule = report.findings.iter().filter(|f| f.rule == "device-shared");
    (ledger(&capture), of_rule.map(|f| f.evidence.clone()).collect())
}

#[test]
fn time_in_which_another_job_had_the_device_is_neither_idle_nor_the_jobs() {
    for (rank, name) in [(None, "train"), (Some(2), "other"), (Some(2), "train")] {
        let (ledger, said) = beside(rank, name);
        let sums = &ledger.sums;
        assert_eq!((sums.get(Leaf::Compute), sums.get(Leaf::OtherProcess)), (200, 250), "{rank:?} {name}");
        assert_eq!(sums.get(Leaf::Idle), 250);
        assert_eq!(ledger.ops, 2);
        // What is left of the gap is the launching thread's until it launches.
        assert_eq!(sums.idle(IdleLeaf::Host), 100 + 50, "{sums:?}");
        assert_eq!(said.len(), 1);
        assert!(said[0].ends_with("what they ran took: other.py (pid 50) 300 ns"), "{said:?}");
    }
}

#[test]
fn what_another_job_runs_across_the_ends_of_a_gap_counts_inside_of_it() {
    let (mut job, other) = with_another_job(None, "other");
    let main = job.main;
    job.kernel((100, 200), main, (90, 95));
    job.kernel((150, 900), other, (140, 145));
    job.kernel((700, 800), main, (600, 605));
    job.kernel((950, 1000), main, (940, 945));
    let sums = ledger(&job.host.capture()).sums;
    assert_eq!((sums.get(Leaf::Compute), sums.get(Leaf::OtherProcess)), (250, 500 + 100));
    assert_eq!(sums.get(Leaf::Idle), 50);
}

#[test]
fn another_rank_of_the_same_job_on_the_device_is_not_another_job() {
    let (ledger, said) = beside(Some(3), "train");
    assert_eq!((ledger.sums.get(Leaf::Compute), ledger.sums.get(Leaf::OtherProcess)), (450, 0));
    assert!(said.is_empty(), "{said:?}");
}
