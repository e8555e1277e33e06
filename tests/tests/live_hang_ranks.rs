//! A rank on CPUs stops coming to a collective while its job is recorded: real ranks under mpirun. Without root, or an MPI,
//! each test says so and passes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_tests::live::job::{MpiJob, mpi_venv};
use stallscope_tests::live::lab::{json, obstacle, start};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn obstacles() -> Option<String> {
    obstacle().map(str::to_owned).or_else(|| mpi_venv().err().map(|why| why.to_string()))
}

/// What is found in a job of four ranks of which rank 2 stops coming after a while, or does not.
fn verdicts(how: &str, hangs: bool) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let mut job = MpiJob::start(4, "mpi_hang.py", &[text(folder.path()), "2", how])?;
    for rank in 0..4 {
        job.wait_for(&at(&format!("ready-{rank}")), Duration::from_secs(60))?;
    }
    let capture = at("a.stall");
    let pid = job.pid().to_string();
    let mut recorder = start(&["record", "--pid", &pid, "-d", "9s", "-o", text(&capture), "--json"])?;
    std::thread::sleep(Duration::from_secs(4));
    if hangs {
        std::fs::write(at("hang"), "")?;
    }
    let status = recorder.0.wait()?;
    if how == "stop" {
        // mpirun would not end a rank that is stopped.
        let pid = std::fs::read_to_string(at("ready-2"))?;
        ensure!(Command::new("kill").args(["-CONT", pid.trim()]).status()?.success(), "rank 2 is gone");
    }
    ensure!(status.success(), "{status}");
    ensure!(job.running()?, "the job goes on");
    drop(job);
    let report = json(&["report", text(&capture), "--json"])?;
    println!("losses {:#}", report["capture"]["losses"]);
    let findings = report["findings"].as_array().context("findings")?;
    Ok(findings.iter().filter(|finding| finding["rule"] == "hang-collective").cloned().collect())
}

fn only(all: &[Value]) -> anyhow::Result<(&Value, &str)> {
    let [verdict] = all else { anyhow::bail!("not one verdict: {all:#?}") };
    println!("{verdict:#}");
    ensure!(verdict["category"] == "hang", "{verdict:#}");
    ensure!(verdict["ns"].as_u64() > Some(2_000_000_000), "{verdict:#}");
    Ok((verdict, verdict["summary"].as_str().context("a summary")?))
}

/// The one verdict blames rank 2 and says what it does.
fn blames_rank_2(how: &str, does: &str) -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let all = verdicts(how, true)?;
    let (verdict, summary) = only(&all)?;
    ensure!(verdict["severity"] == "critical", "{verdict:#}");
    ensure!(verdict["culprit_ranks"] == serde_json::json!([2]), "{verdict:#}");
    ensure!(verdict["confidence"].as_f64() == Some(1.0), "{verdict:#}");
    ensure!(summary.starts_with("rank 2 never arrived at MPI_Allreduce #"), "{summary}");
    ensure!(summary.contains("of MPI_COMM_WORLD; 3 ranks wait for it in it; it "), "{summary}");
    ensure!(summary.contains(does), "{summary}");
    let link = verdict["chain"].as_array().and_then(|chain| chain.last()).context("a chain")?;
    ensure!(link["rank"] == 2 && link["tid"].as_u64().is_some(), "{verdict:#}");
    Ok(())
}

#[test]
fn a_rank_that_is_stopped_is_who_never_arrived() -> anyhow::Result<()> {
    blames_rank_2("stop", "it is stopped")
}

#[test]
fn a_rank_that_sleeps_is_named_with_the_call_that_it_sleeps_in() -> anyhow::Result<()> {
    blames_rank_2("sleep", "nanosleep()")
}

#[test]
fn a_rank_that_waits_for_nobody_knows_whom_is_not_blamed() -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let all = verdicts("abroad", true)?;
    let (verdict, summary) = only(&all)?;
    ensure!(verdict["culprit_ranks"] == serde_json::json!([]), "{verdict:#}");
    ensure!(summary.contains("which rank is missing cannot be told"), "{summary}");
    ensure!(
        verdict["evidence"].to_string().contains("rank 2 has not come and is itself in MPI_Recv"),
        "{verdict:#}"
    );
    Ok(())
}

#[test]
fn in_a_job_that_goes_on_nothing_hangs() -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let all = verdicts("sleep", false)?;
    ensure!(all.is_empty(), "{all:#?}");
    Ok(())
}
