//! A rank on CPUs stops coming to a collective while its job is recorded: real ranks under mpirun. Without root, or an MPI,
//! each test says so and passes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_tests::live::job::{MpiJob, mpi_venv};
use stallscope_tests::live::lab::{json, obstacle, start, until};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn obstacles() -> Option<String> {
    obstacle().map(str::to_owned).or_else(|| mpi_venv().err().map(|why| why.to_string()))
}

/// When rank 2 of a job stops coming.
#[derive(Clone, Copy, PartialEq)]
enum Hangs {
    Never,
    /// While the job is recorded.
    Meanwhile,
    /// Before anybody attaches to it.
    Before,
}

/// What is found in a job of four ranks of which rank 2 stops coming, or does not: the whole report.
fn report(how: &str, hangs: Hangs) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let mut job = MpiJob::start(4, "mpi_hang.py", &[text(folder.path()), "2", how])?;
    for rank in 0..4 {
        job.wait_for(&at(&format!("ready-{rank}")), Duration::from_secs(60))?;
    }
    let capture = at("a.stall");
    let pid = job.pid().to_string();
    let hang = || -> anyhow::Result<()> {
        std::fs::write(at("hang"), "")?;
        // The rank takes the file away when it has seen it.
        until("rank 2 to stop coming", || !at("hang").exists())
    };
    if hangs == Hangs::Before {
        hang()?;
        // Those that came to the operation of before have left it by then.
        std::thread::sleep(Duration::from_secs(3));
    }
    let mut recorder = start(&["record", "--pid", &pid, "-d", "9s", "-o", text(&capture), "--json"])?;
    std::thread::sleep(Duration::from_secs(4));
    if hangs == Hangs::Meanwhile {
        hang()?;
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
    Ok(report)
}

/// Findings of a rule.
fn of_rule(report: &Value, rule: &str) -> anyhow::Result<Vec<Value>> {
    let findings = report["findings"].as_array().context("findings")?;
    Ok(findings.iter().filter(|finding| finding["rule"] == rule).cloned().collect())
}

/// What is said of calls that do not return.
fn verdicts(how: &str, hangs: Hangs) -> anyhow::Result<Vec<Value>> {
    let report = report(how, hangs)?;
    let still = of_rule(&report, "hang-standstill")?;
    ensure!(still.is_empty(), "the job moved: {still:#?}");
    of_rule(&report, "hang-collective")
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
    let all = verdicts(how, Hangs::Meanwhile)?;
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
    let all = verdicts("abroad", Hangs::Meanwhile)?;
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
    let all = verdicts("sleep", Hangs::Never)?;
    ensure!(all.is_empty(), "{all:#?}");
    Ok(())
}

/// The job hung before the recording began: rank 2 is blamed by where everybody stays.
fn blames_rank_2_afterwards(how: &str, does: &str) -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let report = report(how, Hangs::Before)?;
    let all = of_rule(&report, "hang-standstill")?;
    let (verdict, summary) = only(&all)?;
    ensure!(verdict["severity"] == "critical", "{verdict:#}");
    ensure!(verdict["culprit_ranks"] == serde_json::json!([2]), "{verdict:#}");
    ensure!(verdict["confidence"].as_f64() == Some(1.0), "{verdict:#}");
    ensure!(summary.starts_with("the job stands still: for all of "), "{summary}");
    ensure!(
        summary.contains("; ranks 0, 1 and 3 are in communication at mpi_hang.py:41 in main since before"),
        "{summary}"
    );
    ensure!(summary.ends_with(does), "{summary}");
    let link = verdict["chain"].as_array().and_then(|chain| chain.last()).context("a chain")?;
    ensure!(link["rank"] == 2 && link["tid"].as_u64().is_some(), "{verdict:#}");
    // Ranks that yield to each other are not kept from anything by that.
    let queued = of_rule(&report, "rank-run-queue")?;
    ensure!(queued.is_empty(), "{queued:#?}");
    ensure!(of_rule(&report, "hang-collective")?.is_empty(), "no call was recorded");
    Ok(())
}

#[test]
fn a_rank_that_was_stopped_before_the_recording_is_to_blame() -> anyhow::Result<()> {
    blames_rank_2_afterwards("stop", "; rank 2 is stopped")
}

#[test]
fn so_is_one_that_slept_before_it() -> anyhow::Result<()> {
    blames_rank_2_afterwards("sleep", "; rank 2 is blocked in clock_nanosleep()")
}

#[test]
fn where_all_were_in_communication_before_it_nobody_is_blamed() -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let report = report("abroad", Hangs::Before)?;
    let all = of_rule(&report, "hang-standstill")?;
    let (verdict, summary) = only(&all)?;
    ensure!(verdict["severity"] == "warning", "{verdict:#}");
    ensure!(verdict["culprit_ranks"] == serde_json::json!([]), "{verdict:#}");
    ensure!(summary.contains("; rank 2 is in communication at mpi_hang.py:19 in abroad"), "{summary}");
    Ok(())
}

/// What is found of category hang in a job of four ranks of which one computes, or all (-1).
fn of_computing(rank: &str) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let mut job = MpiJob::start(4, "mpi_compute.py", &[text(folder.path()), rank])?;
    for rank in 0..4 {
        job.wait_for(&at(&format!("ready-{rank}")), Duration::from_secs(60))?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let capture = at("a.stall");
    let recorded =
        json(&["record", "--pid", &job.pid().to_string(), "-d", "6s", "-o", text(&capture), "--json"])?;
    ensure!(job.running()?, "the job goes on: {recorded:#}");
    std::fs::write(at("leave"), "")?;
    job.output()?;
    let report = json(&["report", text(&capture), "--json"])?;
    let findings = report["findings"].as_array().context("findings")?;
    Ok(findings.iter().filter(|finding| finding["category"] == "hang").cloned().collect())
}

#[test]
fn a_job_that_only_computes_does_not_stand_still() -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let all = of_computing("-1")?;
    ensure!(all.is_empty(), "{all:#?}");
    Ok(())
}

#[test]
fn a_rank_that_computes_while_all_others_wait_is_named_with_its_line() -> anyhow::Result<()> {
    if let Some(why) = obstacles() {
        println!("skipped: {why}");
        return Ok(());
    }
    let all = of_computing("2")?;
    let (verdict, summary) = only(&all)?;
    ensure!(verdict["culprit_ranks"] == serde_json::json!([2]), "{verdict:#}");
    ensure!(summary.ends_with("; rank 2 computes at mpi_compute.py:20 in work"), "{summary}");
    Ok(())
}
