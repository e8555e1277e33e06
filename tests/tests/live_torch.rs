//! PyTorch's `DistributedDataParallel` over Gloo across two network namespaces, recorded while it runs.
//!
//! Rank 1 reads its samples, in its data loader's worker, from a file that is slow by a known time. It runs as
//! `cargo xtask test --torch`; without root or python3-torch it says so and passes. It prints what docs/torch-run.md is
//! made of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use stallscope_core::capture::Capture;
use stallscope_core::rows::CollectiveCall;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::ThreadId;
use stallscope_tests::live::lab::{json, leaves, obstacle, run, start, until};
use stallscope_tests::live::slow_file::SlowFile;
use stallscope_tests::live::torch::{ADDRESSES, Networks, Printed, TorchJob, obstacle as no_torch, versions};

const RANKS: usize = 4;
const LATE: usize = 1;
/// Of the samples; a worker reads one after the other.
const FILE_BYTES: usize = 256 * 4096;
/// Of one read of the slow file: a batch of four takes 80 ms.
const LATENCY: Duration = Duration::from_millis(20);
/// What the recorder may keep in memory.
const MOST_RESIDENT_KIB: u64 = 150 * 1024;

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Steps that each rank had made just before and just after something.
struct Steps {
    before: Vec<u64>,
    after: Vec<u64>,
}

/// What was recorded, and what is known of it from elsewhere.
struct Recorded {
    /// At least these steps lie in the recording as a whole, by rank.
    least: Vec<u64>,
    /// At most these touch it, by rank.
    most: Vec<u64>,
    printed: Vec<Printed>,
    slow_file: String,
    report: Value,
    transport: Vec<TransportCall>,
}

/// A call of `gloo::allreduce`: the report tells calls of driving threads only, so these are read from the capture.
#[derive(Debug)]
struct TransportCall {
    pid: i64,
    bytes: u64,
    group_size: u64,
    rank: Option<u32>,
}

fn transport_calls(capture: &Path) -> anyhow::Result<Vec<TransportCall>> {
    let capture = Capture::open(std::fs::read(capture)?)?;
    let tables = capture.tables();
    let mut calls = Vec::new();
    for key in capture.keys(RecordKind::CollectiveCall) {
        let pid = tables.thread(ThreadId(key)).and_then(|t| tables.process(t.process)).map(|p| p.pid);
        let pid = pid.expect("every thread has a process");
        let rows =
            capture.rows::<CollectiveCall>(key).filter(|row| tables.string(row.name) == "gloo::allreduce");
        calls.extend(rows.map(|CollectiveCall { bytes, group_size, rank, .. }| TransportCall {
            pid,
            bytes,
            group_size,
            rank,
        }));
    }
    Ok(calls)
}

/// The line of a field of /proc/PID/status, in KiB.
fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line of the field");
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number")
}

fn record(folder: &Path) -> anyhow::Result<Recorded> {
    let slow = SlowFile::mount(&folder.join("slow"), "samples", FILE_BYTES as u64, LATENCY)?;
    let samples: Vec<PathBuf> = (0..RANKS)
        .map(
            |rank| if rank == LATE { slow.path().to_owned() } else { folder.join(format!("samples-{rank}")) },
        )
        .collect();
    for file in samples.iter().filter(|file| *file != slow.path()) {
        std::fs::write(file, vec![7; FILE_BYTES])?;
    }
    let networks = Networks::new()?;
    let mut job = TorchJob::start(&networks, folder, &samples)?;
    let mut runs = true;
    until("the job to train for a while", || {
        runs = job.running().unwrap_or(false);
        !runs || job.steps(0) > 30
    })?;
    assert!(runs, "the job ended before it was recorded");

    let capture = folder.join("torch.stall");
    let (pid, before) = (job.pid(0).to_string(), job.all_steps());
    let mut recorder = start(&["record", "--pid", &pid, "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists() || !matches!(recorder.0.try_wait(), Ok(None)))?;
    assert!(recorder.0.try_wait()?.is_none(), "the recorder ended by itself");
    let begun = Steps { before, after: job.all_steps() };
    let enough = begun.after[0] + 40;
    until("the job to make forty steps", || job.steps(0) >= enough)?;

    let (most_kib, anonymous_kib) =
        (memory_kib(recorder.0.id(), "VmHWM"), memory_kib(recorder.0.id(), "RssAnon"));
    let before = job.all_steps();
    assert!(Command::new("kill").args(["-INT", &recorder.0.id().to_string()]).status()?.success());
    let mut said = String::new();
    std::io::Read::read_to_string(recorder.0.stdout.as_mut().expect("piped"), &mut said)?;
    assert!(recorder.0.wait()?.success(), "{said}");
    let stopped = Steps { before, after: job.all_steps() };

    // It was not disturbed.
    let goes_on = stopped.after[0] + 10;
    until("the job to go on", || job.steps(0) >= goes_on)?;
    let printed = job.end()?;

    let said: Value = serde_json::from_str(&said)?;
    println!("{}", versions()?);
    println!("kernel {}", std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    println!("steps: recorder started {:?}, recording {:?}", begun.before, begun.after);
    println!("steps: recorder asked to stop {:?}, gone {:?}", stopped.before, stopped.after);
    println!("printed by the ranks: {printed:?}");
    println!("attach_ns {}, detach_ns {}", said["attach_ns"], said["detach_ns"]);
    println!("recorder: VmHWM {most_kib} KiB, RssAnon {anonymous_kib} KiB");
    println!("records {}, threads {}, losses {}", said["records"], said["threads"], said["losses"]);
    println!("notes {}", said["notes"]);
    assert!(most_kib <= MOST_RESIDENT_KIB, "{most_kib} KiB");

    let report = run(&["report", text(&capture)])?;
    println!("{}", String::from_utf8_lossy(&report.stdout));
    let each = |of: &dyn Fn(usize) -> u64| (0..RANKS).map(of).collect();
    Ok(Recorded {
        // A step that had begun when its number was read is not whole.
        least: each(&|rank| stopped.before[rank].saturating_sub(begun.after[rank] + 1)),
        most: each(&|rank| stopped.after[rank] + 1 - begun.before[rank]),
        printed,
        slow_file: text(slow.path()).to_owned(),
        report: json(&["report", text(&capture), "--json"])?,
        transport: transport_calls(&capture)?,
    })
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value}"))
}

/// The ranks with their ledgers: right numbers, leaves that sum, the thread of the training loop as the one that drives.
fn check_ranks(recorded: &Recorded) -> anyhow::Result<()> {
    let devices = list(&recorded.report, "devices");
    assert_eq!(devices.len(), RANKS);
    let losses = list(&recorded.report["capture"], "losses");
    let lost: u64 = losses.iter().filter(|l| l["lost"] == true).filter_map(|l| l["count"].as_u64()).sum();
    for (rank, device) in devices.iter().enumerate() {
        assert_eq!(device["rank"], rank, "{device}");
        assert_eq!(device["world_size"], RANKS);
        assert_eq!(list(device, "pids").len(), 2, "the rank and its worker");
        let direct = leaves(device, "direct")?;
        let root = leaves(device, "root")?;
        // How long it waits for a CPU is this machine's affair.
        let own = root.iter().filter(|(leaf, _)| leaf.as_str() != "run_queue_ns");
        let most = own.max_by_key(|(_, ns)| **ns).map(|(leaf, _)| leaf.as_str());
        let injected = if rank == LATE { "block_io_ns" } else { "comm_blocked_ns" };
        assert_eq!(most, Some(injected), "rank {rank}: {root:?}");
        assert!(direct["compute_ns"] > 0);
        // Others may attach to the same events meanwhile, which makes the kernel skip probes: then it is counted.
        assert!(direct["unknown_ns"] == 0 || lost > 0, "{direct:?}");
        // Those of Gloo, which enter gloo::allreduce, are transport.
        let driving: Vec<&Value> = list(device, "threads").iter().filter(|t| t["driving"] == true).collect();
        assert_eq!(driving.len(), 1, "{driving:?}");
        assert_eq!(driving[0]["tid"], driving[0]["pid"], "the training loop is on the main thread");
        assert!(list(device, "threads").len() > 4, "threads of Gloo and of the worker are followed too");
    }
    Ok(())
}

fn check_calls(recorded: &Recorded) {
    for (rank, device) in list(&recorded.report, "devices").iter().enumerate() {
        let printed = &recorded.printed[rank];
        assert_eq!(printed.bucket_bytes.iter().sum::<u64>(), printed.gradient_bytes);
        assert!(printed.bucket_bytes.len() > 1);
        let buckets = printed.bucket_bytes.len() as u64;
        let row = |name: &str| {
            let mut rows = list(device, "collectives").iter().filter(|row| row["name"] == name);
            let row = rows.next().unwrap_or_else(|| panic!("no calls of {name} in {device}"));
            assert!(rows.next().is_none(), "one row for {name}");
            row
        };
        // The buckets are of one size; what is broadcast is one float.
        let bucket = printed.bucket_bytes[0];
        assert!(printed.bucket_bytes.iter().all(|&bytes| bytes == bucket), "{printed:?}");
        for (name, per_step, each) in [
            ("c10d::ProcessGroupGloo::allreduce", buckets, bucket),
            ("c10d::ProcessGroupGloo::broadcast", 1, 4),
        ] {
            let calls = row(name)["calls"].as_u64().expect("a number");
            let (least, most) = (recorded.least[rank] * per_step, recorded.most[rank] * per_step);
            assert!((least..=most).contains(&calls), "{name}: {calls} calls, not {least} to {most}");
            // Known from the calls of Gloo that it led to, on other threads. Those of the last step may not have begun.
            assert_eq!(row(name)["group_size"], RANKS);
            let bytes = row(name)["bytes"].as_u64().expect("a number");
            let known = calls - per_step..=calls;
            assert!(
                known.map(|calls| calls * each).any(|b| b == bytes),
                "{name}: {bytes} bytes in {calls} calls"
            );
        }
    }
}

/// What Gloo itself was asked for, on its own threads: the bytes of the buckets, among the right number of ranks.
fn check_transport(recorded: &Recorded) {
    for (rank, device) in list(&recorded.report, "devices").iter().enumerate() {
        let of_rank = |call: &&TransportCall| list(device, "pids").iter().any(|pid| *pid == call.pid);
        let calls: Vec<&TransportCall> = recorded.transport.iter().filter(of_rank).collect();
        let buckets = &recorded.printed[rank].bucket_bytes;
        let per_step = buckets.len() as u64;
        let (least, most) = (recorded.least[rank] * per_step, recorded.most[rank] * per_step);
        assert!((least..=most).contains(&(calls.len() as u64)), "{} calls of gloo::allreduce", calls.len());
        for call in calls {
            assert!(buckets.contains(&call.bytes), "{call:?} is none of {buckets:?}");
            assert_eq!((call.group_size, call.rank.map(|r| r as usize)), (RANKS as u64, Some(rank)));
        }
    }
}

fn check_findings(recorded: &Recorded) {
    let findings = list(&recorded.report, "findings");
    let late = format!("rank {LATE}");
    let of = |rule: &str| {
        findings.iter().find(|f| f["rule"] == rule).unwrap_or_else(|| panic!("no {rule} in {findings:?}"))
    };
    assert_eq!(of("rank-late")["device"], late.as_str(), "{findings:?}");
    let io = of("rank-block-io");
    assert_eq!(io["device"], late.as_str(), "{io}");
    assert_eq!(io["object"], recorded.slow_file.as_str(), "{io}");
    assert!(io["line"].as_str().is_some_and(|line| line.contains("torch_ddp.py:")), "{io}");
    let cause = &list(&list(&recorded.report, "devices")[LATE], "causes")[0];
    assert_eq!(
        (&cause["root"], &cause["object"]),
        (&"block_io_ns".into(), &recorded.slow_file.as_str().into())
    );
    for finding in findings {
        assert!(finding["share"].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)), "{finding}");
    }
}

/// Each rank has a connection to the other namespace, over which at least its gradients went.
fn check_connections(recorded: &Recorded) {
    for (rank, device) in list(&recorded.report, "devices").iter().enumerate() {
        let (own, other) = if rank < RANKS / 2 { (0, 1) } else { (1, 0) };
        let ends = [format!("tcp {}:", ADDRESSES[own]), format!("→ {}:", ADDRESSES[other])];
        let bytes: u64 = list(device, "connections")
            .iter()
            .filter(|c| c["name"].as_str().is_some_and(|n| ends.iter().all(|end| n.contains(end))))
            .flat_map(|c| [&c["sent_bytes"], &c["received_bytes"]])
            .filter_map(Value::as_u64)
            .sum();
        let least = recorded.least[rank] * recorded.printed[rank].gradient_bytes;
        assert!(bytes >= least, "rank {rank}: {bytes} bytes between the namespaces, not {least}");
    }
}

#[test]
fn a_slow_file_of_one_rank_explains_a_data_parallel_job() -> anyhow::Result<()> {
    if std::env::var_os("STALLSCOPE_TORCH").is_none() {
        println!("skipped: it runs as cargo xtask test --torch");
        return Ok(());
    }
    if let Some(why) = obstacle().map(str::to_owned).or_else(no_torch) {
        println!("skipped: {why}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let recorded = record(folder.path())?;
    check_ranks(&recorded)?;
    check_calls(&recorded);
    check_transport(&recorded);
    check_findings(&recorded);
    check_connections(&recorded);
    Ok(())
}
