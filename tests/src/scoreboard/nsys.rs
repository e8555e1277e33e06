//! Exports of Nsight Systems: a healthy run of which nothing may be claimed, and a run whose communication must be seen.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::{Row, ns};
use crate::cli;

pub(super) fn rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = healthy(folder)?;
    rows.extend(communication(folder)?);
    Ok(rows)
}

/// The labels beside the trace name findings that must not be made.
fn healthy(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let case = "nsys/healthy_1pct";
    let labels: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("healthy_1pct.labels.json"))?)?;
    let report = cli::report(&[folder.join("healthy_1pct.sqlite")])?;
    let forbidden = labels["must_not"].as_array().into_iter().flatten();
    Ok(forbidden
        .map(|label| {
            let category = label["category"].as_str().unwrap_or_default();
            let least = label["min_severity"].as_str().unwrap_or("info");
            let findings = report["findings"].as_array().into_iter().flatten();
            let made: Vec<&str> = findings
                .filter(|f| f["category"] == category)
                .filter(|f| rank(f["severity"].as_str()) >= rank(Some(least)))
                .filter_map(|f| f["summary"].as_str())
                .collect();
            let got = if made.is_empty() { "none".to_owned() } else { made.join("; ") };
            let quantity = format!("findings of {category}, {least} or worse");
            Row::statement(case, &quantity, "none", got, made.is_empty())
        })
        .collect())
}

/// Severities in order; one that is not known here counts as the worst.
fn rank(severity: Option<&str>) -> usize {
    let known = ["info", "notice", "warning", "critical"];
    severity.and_then(|s| known.iter().position(|k| *k == s)).unwrap_or(known.len())
}

/// Each GPU's time in NCCL kernels, from the database itself, is the report's time in communication.
fn communication(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let case = "nsys/mfu_2gpu_before";
    let path = folder.join("mfu_2gpu_before.sqlite");
    let report = cli::report(std::slice::from_ref(&path))?;
    let mut rows = Vec::new();
    let mut kernels = 0;
    for gpu in 0..2 {
        let spans = send_recv(&path, gpu)?;
        kernels += spans.len();
        let devices = report["devices"].as_array().into_iter().flatten();
        let device = devices.into_iter().find(|d| d["ordinal"] == gpu);
        let got = device.and_then(|d| ns(d, "/totals/comm_ns"));
        let quantity = format!("GPU {gpu}: union of the {} SendRecv kernels", spans.len());
        rows.push(Row::time(case, &quantity, union_ns(spans) as f64, got));
    }
    rows.push(Row::statement(
        case,
        "SendRecv kernels in the trace",
        "66",
        kernels.to_string(),
        kernels == 66,
    ));
    let findings = report["findings"].as_array().into_iter().flatten();
    let found = findings.filter(|f| f["category"] == "communication").count();
    rows.push(Row::statement(case, "findings of communication", "≥ 1", found.to_string(), found > 0));
    Ok(rows)
}

fn send_recv(path: &Path, gpu: u32) -> anyhow::Result<Vec<(u64, u64)>> {
    // The file may lie on a read-only medium: immutable keeps SQLite from looking for a journal.
    let uri = format!("file:{}?mode=ro&immutable=1", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let database = Connection::open_with_flags(uri, flags)?;
    let mut query = database.prepare(
        "SELECT k.start, k.end FROM CUPTI_ACTIVITY_KIND_KERNEL k JOIN StringIds s ON s.id = k.demangledName
         WHERE k.deviceId = ?1 AND s.value LIKE '%SendRecv%' ORDER BY k.start",
    )?;
    let spans = query.query_map([gpu], |row| {
        let (start, end): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok((start.unsigned_abs(), end.unsigned_abs()))
    })?;
    Ok(spans.collect::<Result<_, _>>()?)
}

/// Time that spans, sorted by their begin, cover.
fn union_ns(spans: Vec<(u64, u64)>) -> u64 {
    let (mut covered, mut until) = (0, 0);
    for (from, to) in spans {
        covered += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::{rank, union_ns};

    #[test]
    fn overlap_counts_once() {
        assert_eq!(union_ns(vec![(10, 20), (12, 15), (18, 25), (30, 31)]), 16);
    }

    #[test]
    fn an_unknown_severity_is_the_worst() {
        assert!(rank(Some("info")) < rank(Some("warning")));
        assert!(rank(Some("fatal")) > rank(Some("critical")));
    }
}
