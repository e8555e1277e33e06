//! Ranks that share a CPU and yield to each other while they wait: no finding may call that a want of CPUs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use stallscope_core::capture::Capture;
use stallscope_core::ledger::{CpuLeaf, CpuLedger, Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_schemas::units::StringId;
use stallscope_tests::live::job::{MpiJob, mpi_venv};
use stallscope_tests::live::lab::{obstacle, start, until};

const RANKS: u32 = 4;

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// What a process has started, and what that has.
fn descendants(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children.flat_map(|c| numbers(&c)).collect();
    children.iter().flat_map(|&child| [vec![child], descendants(child)].concat()).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// Puts all ranks of a job on the first CPU that this process may use.
fn pin(job: &MpiJob, program: &str) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cpu = allowed.and_then(|list| list.trim().split([',', '-']).next()).context("no list of CPUs")?;
    let mut pinned = 0;
    for pid in descendants(job.pid()) {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.contains(program) {
            let done = Command::new("taskset").args(["-a", "-c", "-p", cpu, &pid.to_string()]).output()?;
            pinned += usize::from(done.status.success());
        }
    }
    Ok(pinned)
}

/// Root time in the run queue, inside and outside of collectives.
fn queued(ledger: &CpuLedger) -> (u64, u64) {
    let causes = ledger.causes.ranked();
    let of = |inside: bool| {
        let queued = causes.iter().filter(|(c, _)| c.root == CpuLeaf::RunQueue);
        queued.filter(|(c, _)| (c.collective != StringId(0)) == inside).map(|(_, a)| a.ns).sum()
    };
    (of(true), of(false))
}

#[test]
fn ranks_that_yield_to_each_other_in_collectives_are_not_said_to_want_for_cpus() -> anyhow::Result<()> {
    if let Some(why) = obstacle().map(str::to_owned).or_else(|| mpi_venv().err().map(|e| format!("{e:#}"))) {
        println!("skipped: {why}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    // Half a million numbers a call: few enough calls a second that every one of them is recorded.
    let mut job = MpiJob::start(RANKS, "allreduce.py", &[text(folder.path()), "100", "500000"])?;
    job.wait_for(&at("ready"), Duration::from_secs(60))?;
    assert_eq!(pin(&job, "allreduce.py")?, RANKS as usize, "util-linux has taskset");
    let capture = at("job.stall");
    let pid = job.pid().to_string();
    let mut recorder = start(&["record", "--pid", &pid, "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists())?;
    std::fs::write(at("go"), "")?;
    job.wait_for(&at("done"), Duration::from_secs(120))?;
    std::fs::write(at("leave"), "")?;
    job.output()?;
    until("the recorder to notice the end of the job", || recorder.0.try_wait().is_ok_and(|s| s.is_some()))?;

    let capture = Capture::open(std::fs::read(capture)?)?;
    let ledgers = Ledgers::of(&capture, Options::default())?;
    let report = Report::build(&capture, &ledgers);
    assert_eq!(ledgers.cpus.len(), RANKS as usize);
    for ledger in &ledgers.cpus {
        let id = &capture.tables().device(ledger.device).context("no device")?.id;
        let (inside, outside) = queued(ledger);
        // Four ranks on one CPU: where all of them are in a collective, three are in the run queue.
        assert!(inside > outside, "{id}: {inside} ns inside of collectives, {outside} ns outside");
        let finding = |rule: &str| report.findings.iter().find(|f| f.rule == rule && &f.device == id);
        let comm = ledger.root.get(CpuLeaf::CommOnCpu) + ledger.root.get(CpuLeaf::CommBlocked);
        let collective = finding("rank-collective").context("most of the time is in collectives")?;
        assert_eq!(collective.ns, comm + inside, "{collective:?}");
        assert!(collective.evidence.contains("of it runnable while others ran"), "{collective:?}");
        // What is left of it is time in which the rank had something of its own to do.
        assert!(finding("rank-run-queue").is_none_or(|f| f.ns == outside), "{:?}", report.findings);
        println!(
            "{id}: {inside} ns of {} in the run queue inside of collectives, {outside} ns outside",
            ledger.wall_ns
        );
    }
    assert_ne!(report.findings.first().map(|f| f.rule), Some("rank-run-queue"), "{:?}", report.findings);
    assert!(report.findings.iter().all(|f| f.share <= 1.0), "{:?}", report.findings);
    Ok(())
}
