//! What can be lost on the way from the kernel to a report, lost on purpose with real probes and real jobs: it is
//! counted, the time that it stood for is UNKNOWN, every ledger still sums, and the job does not notice. Without root
//! each test says so and passes.
//!
//! `record_malformed` cannot be provoked from outside, since only the kernel half writes to the rings: unit tests of the
//! recorder and of `stallscope_ebpf::event` do. `symbol_missing` is in live_hostile.rs (a stripped library), `call_open`
//! in ebpf/tests/collectives.rs (exceptions, jumps, calls that lie too deep).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use stallscope_core::capture::Capture;
use stallscope_core::rows::FileIo;
use stallscope_ebpf::{Event, Kernel, Session, Settings};
use stallscope_jobs::{Host, Target};
use stallscope_recorder::{Ended, Plan, Progress, Summary, record};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::wire::loss_flag;
use stallscope_tests::live::hostile::{
    Bench, Job, LoopDevice, compile, on_cpu_ns, report, text, tool, waits_by_stack,
};
use stallscope_tests::live::lab::{json, leaves, obstacle, start, until};
use stallscope_tests::live::slow_file::SlowFile;

macro_rules! needs_root {
    () => {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return Ok(());
        }
    };
}

/// Records a process from within, with settings that the command line does not have. `look` is called about every
/// second and says whether to go on.
fn record_with(
    pid: u32,
    settings: Settings,
    output: impl Write + Send,
    look: &mut dyn FnMut(Progress) -> bool,
) -> anyhow::Result<Summary> {
    let host = Host::scan("/proc".as_ref())?;
    let selection = Target::Pid { pids: vec![pid], only: true }.resolve(&host)?;
    let plan = Plan {
        selection,
        settings,
        duration: None,
        labels: Vec::new(),
        writer: "the losses test".to_owned(),
        agent: None,
    };
    let stop = AtomicBool::new(false);
    let mut progress = |progress: Progress| {
        if !look(progress) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    Ok(record(&plan, &host, output, &stop, &mut progress)?)
}

/// The same, into a file, for a number of looks.
fn record_for(looks: u32, pid: u32, settings: Settings, capture: &Path) -> anyhow::Result<Summary> {
    let mut seen = 0;
    record_with(pid, settings, File::create(capture)?, &mut |_| {
        seen += 1;
        seen < looks
    })
}

/// How often something was lost, as the report of a capture tells it.
fn lost(report: &Value, counter: LossCounter) -> u64 {
    let rows = report["capture"]["losses"].as_array().expect("a list of losses");
    let row = rows.iter().find(|row| row["counter"] == counter.name());
    row.and_then(|row| row["count"].as_u64()).unwrap_or(0)
}

fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    tool("kill", &[&format!("-{name}"), &pid.to_string()]).map(|_| ())
}

#[test]
fn threads_beyond_the_limit_are_counted_and_the_others_followed() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", "1000"])?, bench.at("a.stall"));
    let settings = Settings { max_threads: 100, ..Settings::default() };
    let summary = record_for(2, job.pid(), settings, &capture)?;
    assert_eq!(summary.threads, 100);
    assert_eq!(summary.losses.get(&LossCounter::ThreadTableFull), Some(&901), "{:?}", summary.losses);
    let report = report(&capture)?;
    assert_eq!(report["devices"][0]["threads"].as_array().map(Vec::len), Some(100));
    job.go()?;
    assert_eq!(job.until("ended")?, "1000");
    Ok(())
}

/// As on a host with many CPUs, where each ring is small: all threads are told of by one CPU, at the beginning and at the
/// end, and that is several times what its ring holds.
#[test]
fn more_threads_than_a_ring_holds_are_met_and_left() -> anyhow::Result<()> {
    const THREADS: u64 = 10_000;
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", &THREADS.to_string()])?, bench.at("a.stall"));
    let cpus = u32::try_from(std::thread::available_parallelism()?.get())?;
    let settings = Settings { ring_bytes: cpus * (256 << 10), ..Settings::default() };
    let summary = record_for(2, job.pid(), settings, &capture)?;
    assert_eq!(summary.threads, THREADS + 1, "{:?}", summary.losses);
    let report = report(&capture)?;
    let threads = report["devices"][0]["threads"].as_array().map(Vec::len);
    assert_eq!(threads.map(|n| n as u64), Some(THREADS + 1), "{:?}", summary.losses);
    job.go()?;
    assert_eq!(job.until("ended")?, THREADS.to_string());
    Ok(())
}

/// How long each thread of a process has been on a CPU, by the kernel's own account.
fn account(pid: u32) -> anyhow::Result<BTreeMap<u32, u64>> {
    let listed = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let tids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(tids.map(|tid| (tid, on_cpu_ns(pid, tid))).collect())
}

/// Most threads of the storm sleep most of the time. Whatever is claimed of the time of lost records would be work that
/// they did not do: the kernel's account from before the recording until after it says how much they did.
fn claims_no_more_than(
    report: &Value,
    before: &BTreeMap<u32, u64>,
    after: &BTreeMap<u32, u64>,
) -> anyhow::Result<()> {
    let device = &report["devices"][0];
    assert!(leaves(device, "direct")?["unknown_ns"] > 0);
    let threads = device["threads"].as_array().expect("a list of threads");
    assert_eq!(threads.len(), after.len());
    for thread in threads {
        let tid = u32::try_from(thread["tid"].as_u64().expect("a tid"))?;
        let (direct, ran) = (leaves(thread, "direct")?, after[&tid] - before[&tid]);
        assert!(direct["unknown_ns"] > 0, "{tid}: {direct:?}");
        assert!(direct["compute_ns"] <= ran, "{tid} was on a CPU for {ran} ns: {direct:?}");
    }
    Ok(())
}

#[test]
fn a_recorder_that_stands_still_loses_stretches_that_are_unknown() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let mut job = bench.job(&["storm", text(&bench.at("file"))])?;
    let (pid, capture) = (job.pid(), bench.at("a.stall"));
    let before = account(pid)?;
    let mut recorder = start(&["record", "--pid", &pid.to_string(), "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists())?;
    signal("STOP", recorder.0.id())?;
    std::thread::sleep(Duration::from_millis(1500));
    signal("CONT", recorder.0.id())?;
    std::thread::sleep(Duration::from_millis(1500));
    signal("INT", recorder.0.id())?;
    assert!(recorder.0.wait()?.success());
    let after = account(pid)?;
    assert!(job.running()?);

    let report = report(&capture)?;
    assert!(lost(&report, LossCounter::RingFull) > 0);
    assert!(lost(&report, LossCounter::StackLost) > 0);
    assert!(lost(&report, LossCounter::ObjectUnresolved) > 0);
    claims_no_more_than(&report, &before, &after)
}

/// A file that takes nothing while it is held, as on a disk that does not answer.
struct Held {
    file: File,
    held: Arc<AtomicBool>,
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        while self.held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[test]
fn an_output_that_takes_nothing_loses_stretches_that_are_unknown() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let mut job = bench.job(&["storm", text(&bench.at("file"))])?;
    let (pid, capture) = (job.pid(), bench.at("a.stall"));
    let held = Arc::new(AtomicBool::new(true));
    let output = Held { file: File::create(&capture)?, held: Arc::clone(&held) };
    let before = account(pid)?;
    // More than fits between reader and writer, then as much time for what has gathered.
    let mut full_at = None;
    record_with(pid, Settings::default(), output, &mut |progress| {
        if progress.records > 1_500_000 && full_at.is_none() {
            full_at = Some(progress.elapsed);
            held.store(false, Ordering::Relaxed);
        }
        full_at.is_none_or(|at| progress.elapsed < at + Duration::from_secs(3))
    })?;
    let after = account(pid)?;
    assert!(job.running()?);

    let report = report(&capture)?;
    assert!(lost(&report, LossCounter::QueueFull) > 0, "{}", report["capture"]["losses"]);
    claims_no_more_than(&report, &before, &after)
}

/// The records of its threads' ends are lost as well: that the job is over is seen all the same.
#[test]
fn a_job_that_ends_while_nobody_reads_ends_the_recording() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let mut job = bench.job(&["storm", text(&bench.at("file"))])?;
    let capture = bench.at("a.stall");
    let mut recorder = start(&["record", "--pid", &job.pid().to_string(), "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists())?;
    signal("STOP", recorder.0.id())?;
    std::thread::sleep(Duration::from_millis(1500));
    job.end()?;
    signal("CONT", recorder.0.id())?;
    until("the recorder to notice", || recorder.0.try_wait().is_ok_and(|s| s.is_some()))?;
    assert!(recorder.0.wait()?.success());
    let report = report(&capture)?;
    assert!(lost(&report, LossCounter::RingFull) > 0);
    Ok(())
}

/// Threads whose introduction was lost are not in the capture: their records are counted.
#[test]
fn threads_that_begin_while_nobody_reads_are_unknown_and_counted() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let mut job = bench.job(&["storm", text(&bench.at("file")), "300"])?;
    let capture = bench.at("a.stall");
    let mut recorder = start(&["record", "--pid", &job.pid().to_string(), "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists())?;
    signal("STOP", recorder.0.id())?;
    std::thread::sleep(Duration::from_millis(1500));
    signal("CONT", recorder.0.id())?;
    std::thread::sleep(Duration::from_millis(500));
    signal("INT", recorder.0.id())?;
    assert!(recorder.0.wait()?.success());
    assert!(job.running()?);
    let report = report(&capture)?;
    assert!(lost(&report, LossCounter::ThreadUnknown) > 0, "{}", report["capture"]["losses"]);
    Ok(())
}

/// Every call that is not in the capture is counted.
#[test]
fn reads_and_writes_of_files_beyond_the_table_are_counted() -> anyhow::Result<()> {
    const FILES: u64 = 40_000;
    needs_root!();
    let bench = Bench::new()?;
    let mut job = bench.job(&["files", text(&bench.at("file")), &FILES.to_string()])?;
    let capture = bench.at("a.stall");
    let mut done_at = None;
    let pid = job.pid();
    record_with(pid, Settings::default(), File::create(&capture)?, &mut |progress| {
        if done_at.is_none() {
            job.go().and_then(|()| job.until("done")).expect("the job writes its files");
            done_at = Some(progress.elapsed);
        }
        done_at.is_none_or(|at| progress.elapsed < at + Duration::from_secs(1))
    })?;
    let report = report(&capture)?;
    let lost = lost(&report, LossCounter::ObjectUnresolved);
    assert!(lost > 0, "{}", report["capture"]["losses"]);
    let capture = Capture::open(std::fs::read(&capture)?)?;
    let keys = capture.keys(RecordKind::FileIo).into_iter();
    let writes: u64 = keys.flat_map(|key| capture.rows::<FileIo>(key)).map(|row| row.writes).sum();
    // One for each file, and its own word on the pipe to here.
    assert!(writes <= FILES + 1 && writes + lost > FILES, "{writes} writes, {lost} lost");
    Ok(())
}

/// On a device behind a file that is slow, thousands of requests are under way at once.
#[test]
fn requests_beyond_the_table_are_counted() -> anyhow::Result<()> {
    const REQUESTS: u64 = 20_000;
    needs_root!();
    let bench = Bench::new()?;
    let below = bench.at("below");
    let slow = SlowFile::mount(&below, "image", REQUESTS * 4096, Duration::from_millis(10));
    let made = slow.map_err(anyhow::Error::from).and_then(|slow| {
        let device = LoopDevice::of(slow.path())?;
        device.deepen()?;
        Ok((slow, device))
    });
    // The device goes before the file that it is.
    let (_slow, device) = match made {
        Ok(made) => made,
        Err(why) => {
            println!("skipped: no deep and slow block device: {why:#}");
            return Ok(());
        }
    };
    let mut job = bench.job(&["submit", device.path(), &REQUESTS.to_string()])?;
    let (pid, capture) = (job.pid(), bench.at("a.stall"));
    let mut told = false;
    let summary = record_with(pid, Settings::default(), File::create(&capture)?, &mut |_| {
        if !std::mem::replace(&mut told, true) {
            job.go().expect("the job is there");
        }
        true
    })?;
    assert_eq!(summary.ended, Ended::JobEnded);
    assert_eq!(job.until("read")?, REQUESTS.to_string(), "the job has read all");
    assert!(summary.losses.contains_key(&LossCounter::RequestLost), "{:?}", summary.losses);
    report(&capture)?;
    Ok(())
}

/// While others attach to the scheduler's events the kernel leaves some out. It is seen by what comes next, and told with
/// the stretch of time that it leaves open.
#[test]
fn switches_that_the_kernel_leaves_out_are_counted_and_told() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let mut job = bench.job(&["storm", text(&bench.at("file"))])?;
    let kernel = Kernel::detect();
    let mut session = Session::load(&kernel, Settings::default())?;
    let told = Cell::new(0u64);
    let reader = session.reader(|event| {
        if let Ok(Event::Loss(loss)) = event
            && loss.head.flags & loss_flag::LOSS_MISSED != 0
        {
            assert!(loss.duration_ns > 0, "{loss:?}");
            told.set(told.get() + loss.records);
        }
    })?;
    session.attach(&[job.pid()])?;
    let missed = |session: &Session| {
        let losses = session.losses();
        losses.iter().find(|(loss, _)| *loss == LossCounter::ProbeMissed).map_or(0, |(_, count)| *count)
    };
    // Which of its switches it leaves out, if any, is up to chance.
    for turn in 0..50 {
        // On a busy machine it may be none on one of the CPUs, ever.
        let cpu = (turn % 2).to_string();
        let moved = Command::new("taskset").args(["-apc", &cpu, &job.pid().to_string()]).output()?;
        anyhow::ensure!(moved.status.success(), "{moved:?}");
        let mut other = Session::load(&kernel, Settings::default())?;
        other.attach(&[])?;
        other.detach()?;
        reader.poll(Duration::ZERO)?;
        if missed(&session) > 0 {
            break;
        }
    }
    assert!(missed(&session) > 0, "others attached and detached fifty times");
    // Each is told with the next switch on its CPU, which may take a while to come.
    until("all that was missed is told", || {
        reader.poll(Duration::ZERO).is_ok() && told.get() == missed(&session)
    })?;
    session.detach()?;
    assert!(job.running()?);
    Ok(())
}

/// Code without frame pointers: its callers are not seen, and that is said.
#[test]
fn stacks_that_end_early_are_counted() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let flags = ["-O2", "-fomit-frame-pointer", "-DPROGRAM"];
    let program = compile("waiting.c", bench.folder(), "waits", &flags)?;
    let (job, capture) = (Job::start(&mut Command::new(program))?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let told = json(&["record", "--pid", &pid, "-d", "1s", "-o", text(&capture), "--json"])?;
    assert!(told["losses"]["stack_cut"].as_u64() > Some(0), "{told:#}");
    let stacks = waits_by_stack(&capture)?;
    assert!(stacks.contains("waits_here (waits)") && !stacks.contains("main"), "{stacks}");
    Ok(())
}
