//! Ranks on CPUs, under an MPI: one is late for an all-reduce, or the network between them is bad.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::cases::{Case, Kind, Link};
use super::inject::unix_ns;
use super::network::{Ranks, steps};
use super::row::Row;
use super::run::{LENGTH, RANKS};
use super::score::findings;
use super::spans::Span;
use super::truth::{Truth, ns};
use crate::live::job::{MpiJob, mpi_venv};
use crate::live::lab::json;

/// The job ends by itself after this, whatever becomes of the matrix.
const PATIENCE_S: &str = "30";

/// Runs one, or says why that cannot be done here.
pub(super) fn run(case: &Case, dose: f64, folder: &Path) -> anyhow::Result<Result<Row, anyhow::Error>> {
    if let Err(why) = mpi_venv() {
        return Ok(Err(why));
    }
    let (kind, rank) = case.fault.split_once('@').unwrap_or((case.fault, "0"));
    let ready = folder.join("ready");
    let doses = folder.join("doses");
    let [ready_text, doses_text] = [&ready, &doses].map(|path| path.display().to_string());
    let arguments = [PATIENCE_S, rank, kind, &dose.to_string(), &ready_text, &doses_text];
    let mut job = MpiJob::start(RANKS, "mpi_late.py", &arguments)?;
    job.wait_for(&ready, Duration::from_secs(30))?;
    let capture = folder.join("a.stall").display().to_string();
    let pid = job.pid().to_string();
    json(&["record", "--pid", &pid, "-d", LENGTH, "-o", &capture, "--json", "--force"])?;
    drop(job);
    let report: Value = json(&["report", &capture, "--json"])?;
    let culprit: u32 = rank.parse()?;
    let truth = Truth::of_doses(culprit, &std::fs::read_to_string(&doses)?);
    Ok(Ok(score(case, dose, culprit, &report, &truth)?))
}

fn score(case: &Case, dose: f64, culprit: u32, report: &Value, truth: &Truth) -> anyhow::Result<Row> {
    let mut row = Row::new(case, dose);
    let (from, to) = ledgers(&mut row, culprit, report);
    let (count, mean_ns) = truth.doses((from, to));
    (row.doses, row.steps) = (count as f64, count as u64);
    row.actual_ms = (count > 0).then_some(mean_ns / 1e6);
    findings(&mut row, case, report)?;
    let accused = report["findings"].as_array().into_iter().flatten();
    let late =
        accused.filter(|f| f["rule"] == "rank-late" && f["culprit_ranks"] == serde_json::json!([culprit]));
    let caused: u64 = late.map(|finding| ns(&finding["ns"])).sum();
    row.charged_ms = caused as f64 / 1e6 / (row.doses.max(1.0) * f64::from(RANKS - 1));
    Ok(row)
}

/// What the ledgers say, and the window of the culprit's.
fn ledgers(row: &mut Row, culprit: u32, report: &Value) -> Span {
    let (mut unknown, mut wall) = (0, 0);
    let mut window = (0, 0);
    for device in report["devices"].as_array().into_iter().flatten().filter(|d| d["kind"] == "cpu") {
        let own_wall = ns(&device["wall_ns"]);
        for leaves in [&device["direct"], &device["root"]] {
            let sum: u64 = leaves.as_object().into_iter().flatten().map(|(_, leaf)| ns(leaf)).sum();
            row.conservation_residual_ns = row.conservation_residual_ns.max(sum.abs_diff(own_wall));
        }
        wall += own_wall;
        unknown += ns(&device["direct"]["unknown_ns"]);
        if device["rank"] == culprit {
            let moment = |key: &str| device["window"][key].as_i64().unwrap_or(0);
            window = (moment("start_ns"), moment("end_ns"));
        }
    }
    row.unknown_share = unknown as f64 / wall.max(1) as f64;
    window
}

/// Elements of an all-reduce: some ms on a good link.
const ELEMENTS: &str = "65536";

/// How long after the recorder is started the links stay good: some good steps are to be in the recording, and attaching
/// takes a while.
const GOOD_FOR: Duration = Duration::from_millis(2500);

/// Runs one in which the link of a rank gets bad while the job is recorded.
pub(super) fn on_links(
    case: &Case,
    dose: f64,
    link: Link,
    folder: &Path,
) -> anyhow::Result<Result<Row, anyhow::Error>> {
    if let Err(why) = mpi_venv() {
        return Ok(Err(why));
    }
    let rank: u32 = case.fault.split_once('@').context("a rank")?.1.parse()?;
    let mut ranks = match Ranks::new(RANKS, link == Link::Delay) {
        Ok(ranks) => ranks,
        Err(why) => return Ok(Err(why)),
    };
    let [ready, log, capture] = ["ready", "steps", "a.stall"].map(|name| folder.join(name));
    // Of a run before this one, where they are kept.
    for old in [&ready, &log].into_iter().filter(|path| path.exists()) {
        std::fs::remove_file(old)?;
    }
    let [ready_text, log_text, capture] = [&ready, &log, &capture].map(|path| path.display().to_string());
    ranks.start("mpi_steps.py", &[PATIENCE_S, ELEMENTS, &ready_text, &log_text])?;
    let pid = ranks.begun(&ready, Duration::from_secs(30))?.to_string();
    let record = || json(&["record", "--pid", &pid, "-d", LENGTH, "-o", &capture, "--json", "--force"]);
    let harmed = std::thread::scope(|scope| {
        let recording = scope.spawn(record);
        std::thread::sleep(GOOD_FOR);
        let harmed = ranks.harm(rank, link, dose).map(|()| unix_ns());
        recording.join().map_err(|_| anyhow::anyhow!("the recording panicked"))??;
        harmed
    })?;
    drop(ranks);
    let report: Value = json(&["report", &capture, "--json"])?;
    let mut row = Row::new(case, dose);
    let window = ledgers(&mut row, rank, &report);
    findings(&mut row, case, &report)?;
    let all = report["findings"].as_array().into_iter().flatten();
    let (before, after): (Vec<Span>, Vec<Span>) = steps(&log)?
        .into_iter()
        .filter(|step| step.0 >= window.0 && step.1 <= window.1)
        .partition(|step| step.1 <= harmed);
    row.steps = (before.len() + after.len()) as u64;
    if case.kind == Kind::Late {
        // Nobody is late, the rank with the bad link neither; what accuses others is counted already.
        let is_grave = |f: &&Value| f["severity"] == "warning" || f["severity"] == "critical";
        let late = all.clone().filter(is_grave).filter(|f| f["rule"] == "rank-late");
        row.false_findings += late.filter(|f| f["culprit_ranks"] == serde_json::json!([rank])).count() as u64;
        // What a dose takes is how much longer steps are with it.
        row.doses = after.len() as f64;
        row.actual_ms = mean_ms(&after).zip(mean_ms(&before)).map(|(with, without)| with - without);
        let slow: u64 = all.filter(|f| f["rule"] == "communication-slow").map(|f| ns(&f["ns"])).sum();
        row.charged_ms = slow as f64 / 1e6 / (row.doses.max(1.0) * f64::from(RANKS));
    }
    Ok(Ok(row))
}

fn mean_ms(steps: &[Span]) -> Option<f64> {
    let sum: i64 = steps.iter().map(|step| step.1 - step.0).sum();
    (!steps.is_empty()).then(|| sum as f64 / 1e6 / steps.len() as f64)
}
