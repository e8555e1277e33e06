//! Kineto traces of one-GPU models with the time line that TraceLens worked out for each.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use super::{Row, ns, only_device};
use crate::cli;

/// Suffix of the answers; the trace's name is what precedes it.
const ANSWERS: &str = ".gpu_timeline.csv";

pub(super) fn rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for answers in all_answers(folder)? {
        let stem = answers.to_string_lossy().trim_end_matches(ANSWERS).to_owned();
        let case = stem.rsplit('/').take(2).collect::<Vec<_>>();
        let case = format!("{}/{}", case.last().unwrap_or(&""), case.first().unwrap_or(&""));
        let expected = std::fs::read_to_string(&answers)?;
        match cli::report(&[PathBuf::from(format!("{stem}.json.gz"))]) {
            Ok(report) => rows.extend(compare(&case, &expected, only_device(&report)?)?),
            Err(error) => rows.push(Row::statement(&case, "all", "a report", format!("{error:#}"), false)),
        }
    }
    Ok(rows)
}

fn all_answers(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for system in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        for file in std::fs::read_dir(system?.path())? {
            found.push(file?.path());
        }
    }
    found.retain(|path| path.to_string_lossy().ends_with(ANSWERS));
    found.sort();
    Ok(found)
}

fn compare(case: &str, answers: &str, device: &Value) -> anyhow::Result<Vec<Row>> {
    let direct = |leaf: &str| ns(device, &format!("/direct/{leaf}"));
    let sum = |leaves: &[&str]| leaves.iter().map(|leaf| direct(leaf)).sum::<Option<u64>>();
    let mut rows = Vec::new();
    for line in answers.lines().skip(1) {
        let mut fields = line.split(',');
        let (Some(quantity), Some(ms)) = (fields.next(), fields.next()) else { continue };
        let expected_ms: f64 = ms.parse().with_context(|| format!("{case}: {line}"))?;
        let got = match quantity {
            "computation_time" => direct("compute_ns"),
            "exposed_comm_time" => direct("comm_exposed_ns"),
            "exposed_memcpy_time" => direct("memcpy_exposed_ns"),
            "busy_time" => sum(&["compute_ns", "comm_exposed_ns", "memcpy_exposed_ns"]),
            "idle_time" => direct("idle_ns"),
            "total_time" => ns(device, "/wall_ns"),
            "total_comm_time" => ns(device, "/totals/comm_ns"),
            "total_memcpy_time" => ns(device, "/totals/memcpy_ns"),
            _ => continue,
        };
        rows.push(Row::time(case, quantity, expected_ms * 1e6, got));
    }
    Ok(rows)
}
