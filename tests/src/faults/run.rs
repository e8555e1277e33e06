//! Runs the cases: a trainer of four ranks each, with one fault on one of them, recorded while it runs.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_cupti_double::folder::Version;

use super::Matrix;
use super::cases::{CASES, Case, Kind, STOP};
use super::score::{Row, score, summary};
use super::truth::Truth;
use crate::live::gpu::{GpuJob, double};
use crate::live::lab::json;

/// Ranks of the job.
pub(super) const RANKS: u32 = 4;
/// The one that has the fault.
pub(super) const CULPRIT: u32 = 2;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One dose a fault.
    pub quick: bool,
    /// Only cases whose name contains one of these.
    pub only: Vec<String>,
}

/// Runs the matrix.
///
/// # Errors
/// Where a job cannot be started or recorded here; a wrong answer is a row, not an error.
pub fn run(options: &Options, mut tell: impl FnMut(&Row)) -> anyhow::Result<Matrix> {
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let wanted = |case: &&Case| {
        options.only.is_empty() || options.only.iter().any(|part| case.name.contains(part.as_str()))
    };
    let mut rows = Vec::new();
    for case in CASES.iter().filter(wanted) {
        let middle = case.doses_ms.len() / 2;
        let doses = if options.quick { case.doses_ms.get(middle..=middle) } else { Some(case.doses_ms) };
        for (number, &dose_ms) in doses.unwrap_or_default().iter().enumerate() {
            let at = folder.path().join(format!("{}-{number}", case.fault));
            std::fs::create_dir_all(&at)?;
            let row = one(case, dose_ms, &at, &libraries)
                .with_context(|| format!("{} at {dose_ms} ms a step", case.name))?;
            tell(&row);
            rows.push(row);
        }
    }
    ensure!(!rows.is_empty(), "no case has such a name; cases: {}", names());
    Ok(Matrix { summary: summary(&rows), rows })
}

fn names() -> String {
    CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ")
}

/// A trainer whose healthy steps are nearly all computation, so that what is lost is the fault's.
fn one(case: &Case, dose_ms: f64, folder: &Path, libraries: &Path) -> anyhow::Result<Row> {
    let truth = folder.join("truth");
    let (target, dose) = (format!("{}@{CULPRIT}", case.fault), dose_ms.to_string());
    let what = if case.kind == Kind::Decoy { "--decoy" } else { "--fault" };
    let mut arguments = vec!["--forward-us", "2000", "--backward-us", "4000", "--bucket-mib", "4"];
    arguments.extend([what, &target, "--dose-ms", &dose]);
    let log = truth.display().to_string();
    let start = || {
        let environment = [("STALLSCOPE_DOUBLE_TRUTH", log.as_str())];
        GpuJob::start_with(folder, libraries, RANKS, &arguments, &environment)
    };
    // Ranks find each other by a port that was free a moment before: now and then somebody else has it by then.
    let job = start().or_else(|_| start())?;
    let capture = folder.join("a.stall").display().to_string();
    let pid = job.pid().to_string();
    let record = || json(&["record", "--pid", &pid, "-d", "5s", "-o", &capture, "--json", "--force"]);
    let mut stops = Vec::new();
    if case.fault == STOP {
        let victim = *job.ranks.get(CULPRIT as usize).context("a pid for each rank")?;
        (stops, _) = stopped_meanwhile(victim, dose_ms, record)?;
    } else {
        record()?;
    }
    drop(job);
    let report: Value = json(&["report", &capture, "--json"])?;
    let mut truth = Truth::read(&truth)?;
    truth.add_doses(stops);
    score(case, dose_ms, &report, &truth)
}

/// Stops a process again and again while something else is done; says when.
fn stopped_meanwhile<T: Send>(
    pid: u32,
    dose_ms: f64,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(Vec<(i64, i64)>, T)> {
    let send = |signal: &str| Command::new("kill").args([signal, &pid.to_string()]).status();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| -> anyhow::Result<Vec<(i64, i64)>> {
            let mut stops = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(250));
                send("-STOP")?;
                let from = unix_ns();
                std::thread::sleep(Duration::from_secs_f64(dose_ms / 1000.0));
                // Whatever happens here, it must not stay stopped.
                let to = unix_ns();
                send("-CONT")?;
                stops.push((from, to));
            }
            Ok(stops)
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let stops = stopping.join().map_err(|_| anyhow::anyhow!("whoever stops the rank panicked"))??;
        Ok((stops, done?))
    })
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
