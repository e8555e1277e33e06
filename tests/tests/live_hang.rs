//! A rank of a job stops coming while it is recorded: who it is, at what, and what it is blocked in. On the double of CUDA;
//! without root each test says so and passes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_cupti_double::folder::Version;
use stallscope_tests::live::gpu::{GpuJob, double};
use stallscope_tests::live::lab::{json, obstacle, start};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    ensure!(Command::new("kill").args([name, &pid.to_string()]).status()?.success(), "no {name} for {pid}");
    Ok(())
}

/// Processes that a process has started.
fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        all.extend(text.split_whitespace().map(str::parse::<u32>).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

/// What is found in a job of four ranks when some of its processes are stopped while it is recorded, or before.
fn report(late: bool, whom: impl Fn(&GpuJob) -> anyhow::Result<Vec<u32>>) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = GpuJob::start(folder.path(), &libraries, 4, &[])?;
    let capture = folder.path().join("a.stall");
    let pid = job.pid().to_string();
    let stop = || {
        let whom = whom(&job)?;
        whom.iter().try_for_each(|&pid| signal("-STOP", pid))?;
        // What the others have handed over comes to an end.
        std::thread::sleep(Duration::from_secs(3));
        anyhow::Ok(whom)
    };
    let record = || start(&["record", "--pid", &pid, "-d", "9s", "-o", text(&capture), "--json"]);
    let (mut recorder, whom) = if late {
        let whom = stop()?;
        (record()?, whom)
    } else {
        let recorder = record()?;
        std::thread::sleep(Duration::from_secs(4));
        (recorder, stop()?)
    };
    let status = recorder.0.wait()?;
    whom.iter().try_for_each(|&pid| signal("-CONT", pid))?;
    ensure!(status.success(), "{status}");
    job.goes_on()?;
    json(&["report", text(&capture), "--json"])
}

fn verdicts(report: &Value) -> anyhow::Result<Vec<&Value>> {
    let findings = report["findings"].as_array().context("findings")?;
    Ok(findings.iter().filter(|finding| finding["rule"] == "hang-collective").collect())
}

/// The one verdict, which blames rank 2.
fn of_rank_2(report: &Value) -> anyhow::Result<&Value> {
    let all = verdicts(report)?;
    let [verdict] = all.as_slice() else { anyhow::bail!("not one verdict: {all:#?}") };
    println!("{verdict:#}");
    ensure!(verdict["category"] == "hang" && verdict["severity"] == "critical", "{verdict:#}");
    ensure!(verdict["culprit_ranks"] == serde_json::json!([2]), "{verdict:#}");
    ensure!(verdict["confidence"].as_f64() == Some(1.0), "{verdict:#}");
    ensure!(verdict["ns"].as_u64() > Some(2_000_000_000), "{verdict:#}");
    let summary = verdict["summary"].as_str().unwrap_or_default();
    ensure!(summary.starts_with("rank 2 never arrived at ncclAllReduce #"), "{summary}");
    ensure!(
        summary.contains("the communicator of ranks 0-3") && summary.contains("3 ranks wait for it"),
        "{summary}"
    );
    Ok(verdict)
}

#[test]
fn a_stopped_rank_is_who_never_arrived() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let report = report(false, |job| {
        // The stand-ins' device is a thread of the process and stops with it, which no GPU does: so it has come to rest first.
        let rank = *job.ranks.get(2).context("a rank")?;
        let mut whom = children(rank)?;
        whom.iter().try_for_each(|&pid| signal("-STOP", pid))?;
        std::thread::sleep(Duration::from_secs(1));
        whom.push(rank);
        Ok(whom)
    })?;
    let verdict = of_rank_2(&report)?;
    ensure!(verdict["summary"].to_string().contains("it is stopped"), "{verdict:#}");
    Ok(())
}

#[test]
fn a_rank_whose_loader_stopped_is_blocked_in_reading_from_it() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let report = report(false, |job| children(*job.ranks.get(2).context("a rank")?))?;
    let verdict = of_rank_2(&report)?;
    let link = verdict["chain"].as_array().and_then(|chain| chain.last()).context("a chain")?;
    ensure!(link["rank"] == 2 && link["tid"].as_u64().is_some(), "{verdict:#}");
    ensure!(link["what"].as_str().is_some_and(|what| what.starts_with("is blocked in ")), "{verdict:#}");
    Ok(())
}

#[test]
fn of_a_job_that_hung_before_the_recording_it_is_said_where_each_rank_is() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let report = report(true, |job| children(*job.ranks.get(2).context("a rank")?))?;
    ensure!(verdicts(&report)?.is_empty(), "no kernel was recorded");
    let findings = report["findings"].as_array().context("findings")?;
    let still: Vec<&Value> = findings.iter().filter(|f| f["rule"] == "hang-standstill").collect();
    let [still] = still.as_slice() else { anyhow::bail!("not one: {still:#?}") };
    println!("{still:#}");
    // The stand-ins wait in a lock, of which nothing says that it is a device's: who waits for whom stays open.
    ensure!(still["severity"] == "warning" && still["culprit_ranks"] == serde_json::json!([]), "{still:#}");
    let summary = still["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("; rank 2 is blocked in read() of pipe:["), "{summary}");
    ensure!(summary.contains("; ranks 0, 1 and 3 are blocked in futex() at gpu_cuda.py:"), "{summary}");
    ensure!(summary.ends_with("; who waits for whom cannot be told"), "{summary}");
    Ok(())
}

#[test]
fn in_a_job_that_goes_on_nothing_hangs() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let report = report(false, |_| Ok(Vec::new()))?;
    let findings = report["findings"].as_array().context("findings")?;
    let all: Vec<&Value> = findings.iter().filter(|finding| finding["category"] == "hang").collect();
    ensure!(all.is_empty(), "{all:#?}");
    Ok(())
}
