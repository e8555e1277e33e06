//! What is said of a made-up job of four ranks, one of which waits for a worker that reads a slow file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use serde_json::Value;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::page::page;
use stallscope_core::report::{Diff, Report, render, render_diff};
use stallscope_core::rows::{FileIo, GpuOp, PageFaults};
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, CopyKind, ObjectKind, OpKind, wait_flags};
use stallscope_schemas::units::{CorrelationId, TimeNs};

const STEPS: i64 = 20;
const STEP: i64 = 100 * MS;

/// Twenty steps of 100 ms. All ranks compute for 30 ms; rank 2 then waits 50 ms for its worker, the others meet in the
/// all-reduce and wait there.
fn job() -> Capture<Vec<u8>> {
    made_up_job().capture()
}

fn made_up_job() -> Host {
    let mut host = Host::new();
    let ranks: Vec<_> =
        (0..4u32).map(|rank| host.process(100 + i64::from(rank), "python3", Some(rank))).collect();
    let worker = host.helper(200, "pt_data_worker");
    let stranger = host.process(999, "stress", None);
    let hog = host.outsider(stranger, 999, "stress");
    for (rank, &process) in ranks.iter().enumerate() {
        let processes = if rank == 2 { vec![process, worker] } else { vec![process] };
        host.rank(&format!("rank {rank}"), &processes);
    }
    let end = STEPS * STEP;
    let mains: Vec<_> = (0..4)
        .map(|rank| host.thread(ranks[rank], 100 + i64::try_from(rank).unwrap(), "MainThread", 0, end))
        .collect();
    let reader = host.thread(worker, 200, "pt_data_worker", 0, end);
    let next = host.stack(&[
        "/job/train.py(118): train",
        "/opt/lib/python3.11/site-packages/torch/utils/data/dataloader.py(631): __next__",
        "__poll (libc.so.6)",
        "do_sys_poll [kernel]",
    ]);
    let read = host.stack(&[
        "/opt/lib/python3.11/site-packages/torch/utils/data/_utils/worker.py(308): _worker_loop",
        "/job/data.py(42): read_sample",
        "ksys_read [kernel]",
    ]);
    let (forward, spin) =
        (host.stack(&["/job/train.py(120): forward"]), host.stack(&["/job/train.py(124): step"]));
    for step in 0..STEPS {
        let at = step * STEP;
        for (rank, &main) in mains.iter().enumerate() {
            for sample in 0..3 {
                host.sample(main, at + sample * 10 * MS + MS, 10 * MS.unsigned_abs(), forward);
            }
            // Rank 0 began to be followed one call later.
            if rank != 0 || step > 0 {
                let begin = if rank == 2 { at + 80 * MS } else { at + 30 * MS };
                host.call_of(
                    main,
                    begin,
                    at + 85 * MS,
                    "MPI_Allreduce",
                    CollectiveLibrary::Mpi,
                    CollectiveOp::AllReduce,
                    "MPI_COMM_WORLD",
                    step.unsigned_abs() + 1,
                );
                host.sample(main, begin + MS, 10 * MS.unsigned_abs(), spin);
            }
        }
        host.preempt(mains[0], at + 10 * MS, at + 20 * MS, 8 * MS.unsigned_abs(), Some(hog));
        host.on(
            mains[1],
            at + 40 * MS,
            at + 80 * MS,
            "recvfrom",
            ObjectKind::TcpSocket,
            "127.0.0.1:1 → 127.0.0.1:2",
        );
        host.wait(mains[2], at + 30 * MS, at + 80 * MS, "poll", |w, host| {
            (w.stack, w.waker, w.object_kind) = (next, Some(reader), ObjectKind::Pipe);
            w.object = host.writer.intern("pipe:[4711]");
            (w.flags, w.result, w.run_queue_ns) = (wait_flags::RETURNED, 1, MS.unsigned_abs());
        });
        host.wait(reader, at + 34 * MS, at + 75 * MS, "read", |w, host| {
            (w.stack, w.object_kind, w.flags) = (read, ObjectKind::File, wait_flags::IRQ_WAKER);
            w.object = host.writer.intern("/data/shard-0017");
        });
        host.block_io(reader, at + 34 * MS, at + 74 * MS, "vdb", "/data/shard-0017");
        host.on(reader, at + 80 * MS, at + 130 * MS, "read", ObjectKind::Pipe, "pipe:[4712]");
    }
    let object = host.writer.intern("/data/shard-0017");
    let (start, duration_ns) = (TimeNs(0), end.unsigned_abs());
    let file = FileIo {
        start,
        duration_ns,
        object_kind: ObjectKind::File,
        object,
        reads: 20,
        read_bytes: 20 << 20,
        writes: 0,
        written_bytes: 0,
    };
    host.writer.push_file_io(worker, file).unwrap();
    host.writer.push_page_faults(reader, PageFaults { start, duration_ns, minor: 5120, major: 3 }).unwrap();
    host
}

fn report(capture: &Capture<Vec<u8>>) -> Report {
    Report::build(capture, &Ledgers::of(capture, Options::default()).unwrap())
}

#[test]
fn the_text_names_the_rank_the_worker_the_call_the_file_and_the_line() {
    let mut text = String::new();
    render(&report(&job()), &mut text).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 110));
    insta::assert_snapshot!("four_ranks", text);
}

#[test]
fn the_json_of_a_rank_sums_to_its_wall_time() {
    let report: Value = serde_json::from_str(&report(&job()).to_json().unwrap()).unwrap();
    let sum = |leaves: &Value| leaves.as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum::<u64>();
    for device in report["devices"].as_array().unwrap() {
        assert_eq!(device["kind"], "cpu");
        assert_eq!(device["wall_ns"], 2_000_000_000u64);
        for leaves in [&device["direct"], &device["root"]] {
            assert_eq!(sum(leaves), 2_000_000_000);
        }
        for thread in device["threads"].as_array().unwrap() {
            assert_eq!(sum(&thread["direct"]), thread["wall_ns"].as_u64().unwrap());
            assert_eq!(thread["root"].is_null(), !thread["driving"].as_bool().unwrap());
        }
        assert!(device.get("idle").is_none() && device.get("steps").is_none(), "what only a GPU has");
    }
    let rank = &report["devices"][2];
    assert_eq!(rank["pids"], serde_json::json!([102, 200]));
    let cause = rank["causes"].as_array().unwrap().iter().find(|c| c["root"] == "block_io_ns").unwrap();
    assert_eq!(cause["leaf"], "ipc_ns");
    assert_eq!((&cause["call"], &cause["object"]), (&"read".into(), &"/data/shard-0017".into()));
    assert_eq!(cause["wakers"][0]["tid"], 200);
    assert_eq!((cause["ns"].as_u64(), cause["count"].as_u64()), (Some(20 * 41_000_000), Some(20)));
    assert_eq!(rank["block_devices"][0]["median_ns"], 40_000_000);
    assert_eq!(rank["files"][0]["bytes"], 20 << 20);
    assert_eq!(rank["page_faults"]["major"], 3);
    assert_eq!(report["devices"][0]["run_queue"][0]["ran_instead"]["comm"], "stress");
    let finding =
        report["findings"].as_array().unwrap().iter().find(|f| f["rule"] == "rank-block-io").unwrap();
    assert_eq!(finding["device"], "rank 2");
    assert_eq!(finding["thread"]["comm"], "pt_data_worker");
    assert_eq!(finding["waiting_thread"]["comm"], "MainThread");
    assert_eq!((&finding["call"], &finding["object"]), (&"read".into(), &"/data/shard-0017".into()));
    assert_eq!(
        (&finding["line"], &finding["waiting_line"]),
        (&"/job/data.py:42".into(), &"/job/train.py:118".into())
    );
    let late = report["findings"].as_array().unwrap().iter().find(|f| f["rule"] == "rank-late").unwrap();
    assert_eq!((&late["device"], &late["severity"]), (&"rank 2".into(), &"critical".into()));
    // Three ranks wait 50 ms in each of the 19 calls that all of them were seen in.
    assert_eq!(late["ns"], 19 * 3 * 50_000_000u64);
}

#[test]
fn a_capture_that_ends_in_the_middle_says_so_first() {
    let (mut bytes, _) = made_up_job().writer.finish().unwrap();
    // The begin of another segment, after the file's own 16 bytes.
    bytes.extend_from_within(16..200);
    let report = report(&Capture::open(bytes).unwrap());
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    assert!(text.starts_with("train · 4 ranks on CPUs · 2.00 s · cut short · records lost 1\n"), "{text}");
    assert!(page(&report, &[], "train", "stallscope").contains(">cut short</a>"));
}

#[test]
fn two_captures_of_ranks_compare() {
    let report = report(&job());
    let mut text = String::new();
    render_diff(&Diff::of(&report, &report), &mut text).unwrap();
    assert!(text.contains("blocked I/O"), "{text}");
}

#[test]
fn waits_and_collectives_are_slices_of_their_threads() {
    let mut out = Vec::new();
    let summary = stallscope_core::export::perfetto::write_perfetto(&job(), &mut out).unwrap();
    // Collectives: 20 of each rank but the first call of rank 0. Waits: one a step of rank 1, one of rank 2, two of the
    // worker.
    assert_eq!((summary.slices, summary.left_out), (79 + 80, 0));
    let holds = |text: &str| out.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("MPI_Allreduce") && holds("recvfrom") && !holds("GPU 0"));
}

#[test]
fn gpus_and_ranks_on_cpus_stand_side_by_side() {
    let mut host = made_up_job();
    let device = host.writer.add_device(Device { id: "GPU-1".into(), ..Device::default() });
    let name = host.writer.intern("gemm");
    let op = GpuOp {
        start: TimeNs(0),
        duration_ns: 7_000_000,
        name,
        stream: 7,
        kind: OpKind::Kernel,
        flags: 0,
        correlation: CorrelationId(0),
        bytes: 0,
        copy_kind: CopyKind::Unknown,
        launch: None,
    };
    host.writer.push_gpu_op(device, op).unwrap();
    let report = report(&host.capture());
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    assert!(text.starts_with("train · 1 GPU · 4 ranks on CPUs · 2.00 s · records lost 0\n"), "{text}");
    assert!(
        text.contains("where 7.0 ms of GPU time went") && text.contains("where 8.00 s of rank time went")
    );
    let json: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    let kinds: Vec<&str> =
        json["devices"].as_array().unwrap().iter().map(|d| d["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["cpu", "cpu", "cpu", "cpu", "gpu"], "the GPU has no rank");
    assert_eq!(json["devices"][4]["direct"]["compute_ns"], 7_000_000);
    assert_eq!(json["devices"][4]["root"]["compute_ns"], 7_000_000, "nobody is waited for");
}
