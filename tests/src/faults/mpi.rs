//! Ranks on CPUs, under an MPI: one is late for an all-reduce.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::cases::Case;
use super::row::Row;
use super::run::{LENGTH, RANKS};
use super::score::findings;
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
    let (mut unknown, mut wall) = (0, 0);
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
            let (count, mean_ns) = truth.doses((moment("start_ns"), moment("end_ns")));
            (row.doses, row.steps) = (count as u64, count as u64);
            row.actual_ms = (count > 0).then_some(mean_ns / 1e6);
        }
    }
    row.unknown_share = unknown as f64 / wall.max(1) as f64;
    findings(&mut row, case, report)?;
    let accused = report["findings"].as_array().into_iter().flatten();
    let late =
        accused.filter(|f| f["rule"] == "rank-late" && f["culprit_ranks"] == serde_json::json!([culprit]));
    let caused: u64 = late.map(|finding| ns(&finding["ns"])).sum();
    row.charged_ms = caused as f64 / 1e6 / (row.doses.max(1) * u64::from(RANKS - 1)) as f64;
    Ok(row)
}
