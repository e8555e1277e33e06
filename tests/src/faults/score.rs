//! Holds a report against what was done.

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::cases::{Case, Kind};
use super::run::{CULPRIT, RANKS};
use super::truth::Truth;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The fault.
    pub fault: &'static str,
    /// `late`, `decoy` or `healthy`.
    pub kind: &'static str,
    /// Dose that was asked for, ms a step.
    pub dose_ms: f64,
    /// Whether a dose delays the step by all that it takes.
    pub on_path: bool,
    /// What a dose took, mean of those in the window, ms; none where the job does not write it down.
    pub actual_ms: Option<f64>,
    /// Steps in the window.
    pub steps: u64,
    /// Largest difference between the leaves of a ledger and its wall time, ns.
    pub conservation_residual_ns: u64,
    /// Time that the other ranks waited for late ones, ns.
    pub waited_ns: u64,
    /// Of this, charged to the culprit and to the fault's leaf, ns.
    pub charged_ns: u64,
    /// The same a step and waiting rank, ms.
    pub charged_ms_a_step: f64,
    /// Time of the other ranks that could not be split or lies within the clocks' error, ns.
    pub unsplit_ns: u64,
    /// What the collectives' own begins say was waited less what the report says, as a share of the former. Of what is
    /// hidden behind computation the report says nothing: only for ranks whose waits are exposed is this an error.
    pub wait_missing_share: f64,
    /// Whether the first finding that accuses anybody accuses the culprit, with the right cause.
    pub top1: Option<bool>,
    /// What it said.
    pub said: String,
    /// Findings that accuse a rank that is innocent, of warning or worse; in a healthy run of any rank.
    pub false_findings: u64,
    /// Share of all GPU time that is UNKNOWN, idle without a cause, or not split.
    pub unknown_share: f64,
}

/// What the rows come to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Largest of all rows, ns.
    pub conservation_residual_ns: u64,
    /// Share of late runs that name culprit and cause first.
    pub top1: Option<f64>,
    /// Of the time that was charged to anybody in late runs, the share that was charged to culprit and cause.
    pub precision_ns: Option<f64>,
    /// Of the time that others waited or may have waited in late runs, the share that was charged to culprit and cause.
    pub recall_ns: Option<f64>,
    /// By how much more the others wait, a step, than in healthy runs, as a share of what a decoy took; not below 0.
    pub decoy_blame: Option<f64>,
    /// Over all rows.
    pub false_findings: u64,
    /// Slope and intercept (ms) of charged time a step over what a dose took.
    pub dose_slope: Option<(f64, f64)>,
    /// Not measured: needs every operation's split.
    pub split_error_p99_us: Option<f64>,
    /// Not measured: needs several clocks.
    pub epsilon_coverage: Option<f64>,
    /// Mean over all rows.
    pub unknown_share: f64,
}

fn ns(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn sum(leaves: &Value) -> u64 {
    leaves.as_object().map_or(0, |all| all.values().map(ns).sum())
}

/// Scores one run.
pub(super) fn score(case: &Case, dose_ms: f64, report: &Value, truth: &Truth) -> anyhow::Result<Row> {
    let devices: Vec<&Value> = report["devices"].as_array().context("devices")?.iter().collect();
    anyhow::ensure!(devices.len() == RANKS as usize, "{} devices for {RANKS} ranks", devices.len());
    let rank = |device: &Value| device["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok());
    let window = |device: &Value| {
        (device["window"]["start_ns"].as_i64().unwrap_or(0), device["window"]["end_ns"].as_i64().unwrap_or(0))
    };
    let culprit = devices.iter().find(|d| rank(d) == Some(CULPRIT)).context("the culprit's device")?;
    let (from, to) = window(culprit);
    let (doses, mean_ns) = truth.doses(from, to);
    let steps = ns(&culprit["steps"]["count"]);
    let (mut residual, mut waited, mut charged, mut unsplit, mut unknown, mut wall) = (0, 0, 0, 0, 0, 0);
    let (mut true_waits, mut known_waits) = (0, 0);
    for device in &devices {
        let (own_wall, idle) = (ns(&device["wall_ns"]), &device["idle"]);
        for leaves in [&device["direct"], &device["root"]] {
            residual = residual.max(sum(leaves).abs_diff(own_wall));
        }
        residual = residual.max(sum(&device["comm"]).abs_diff(ns(&device["direct"]["comm_exposed_ns"])));
        wall += own_wall;
        let comm = &device["comm"];
        unknown += ns(&device["direct"]["unknown_ns"]) + ns(&idle["unknown_ns"]) + ns(&comm["unsplit_ns"]);
        if rank(device) == Some(CULPRIT) {
            continue;
        }
        unsplit += ns(&comm["unsplit_ns"]) + ns(&comm["uncertain_ns"]);
        waited += ns(&comm["wait_ns"]);
        known_waits += i64::try_from(ns(&comm["wait_ns"])).unwrap_or(i64::MAX);
        let (from, to) = window(device);
        true_waits += truth.waited_ns(rank(device).unwrap_or(0), from, to);
        for wait in device["waits"].as_array().into_iter().flatten() {
            let last = wait["via_ranks"].as_array().and_then(|via| via.last()).and_then(Value::as_u64);
            if last == Some(CULPRIT.into()) && wait["leaf"] == case.leaf {
                charged += ns(&wait["ns"]);
            }
        }
    }
    let findings = report["findings"].as_array().context("findings")?;
    let accuses =
        |finding: &&Value| finding["culprit_ranks"].as_array().is_some_and(|ranks| !ranks.is_empty());
    let first = findings.iter().find(accuses);
    let said = first.map_or("", |f| f["summary"].as_str().unwrap_or("")).to_owned();
    let is_late = case.kind == Kind::Late;
    let top1 = is_late.then(|| {
        let named = first.is_some_and(|f| f["culprit_ranks"] == serde_json::json!([CULPRIT]));
        named && (case.says.is_empty() || case.says.iter().any(|word| said.contains(word)))
    });
    let is_false = |finding: &&Value| {
        let ranks: Vec<u64> =
            finding["culprit_ranks"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let grave = finding["severity"] == "warning" || finding["severity"] == "critical";
        grave && ranks.iter().any(|&rank| !is_late || rank != u64::from(CULPRIT))
    };
    let others = u64::from(RANKS - 1);
    Ok(Row {
        fault: case.name,
        kind: match case.kind {
            Kind::Late => "late",
            Kind::Decoy => "decoy",
            Kind::Healthy => "healthy",
        },
        dose_ms,
        on_path: case.on_path,
        actual_ms: (doses > 0).then_some(mean_ns / 1e6),
        steps,
        conservation_residual_ns: residual,
        waited_ns: waited,
        charged_ns: charged,
        charged_ms_a_step: charged as f64 / 1e6 / (steps.max(1) * others) as f64,
        unsplit_ns: unsplit,
        wait_missing_share: (true_waits - known_waits) as f64 / (true_waits.max(1)) as f64,
        top1,
        said,
        false_findings: findings.iter().filter(is_false).count() as u64,
        unknown_share: unknown as f64 / (wall.max(1)) as f64,
    })
}

/// What the rows come to.
pub(super) fn summary(rows: &[Row]) -> Summary {
    let late: Vec<&Row> = rows.iter().filter(|row| row.kind == "late").collect();
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let (charged, waited) = (late.iter().map(|r| r.charged_ns).sum(), late.iter().map(|r| r.waited_ns).sum());
    let unsplit: u64 = late.iter().map(|r| r.unsplit_ns).sum();
    let named = late.iter().filter(|r| r.top1 == Some(true)).count() as u64;
    // What decoy runs wait beyond the healthy ones, against what the decoys took.
    let a_step = |row: &Row| row.waited_ns as f64 / 1e6 / (row.steps.max(1) * u64::from(RANKS - 1)) as f64;
    let mean = |kind: &str| {
        let all: Vec<f64> = rows.iter().filter(|r| r.kind == kind).map(a_step).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    };
    let decoy_doses: Vec<f64> =
        rows.iter().filter(|r| r.kind == "decoy").filter_map(|r| r.actual_ms).collect();
    let decoy_ms = decoy_doses.iter().sum::<f64>() / decoy_doses.len().max(1) as f64;
    let decoy_blame =
        mean("decoy").zip(mean("healthy")).map(|(decoy, healthy)| (decoy - healthy).max(0.0) / decoy_ms);
    let points: Vec<(f64, f64)> = late
        .iter()
        .filter(|r| r.on_path)
        .filter_map(|row| Some((row.actual_ms?, row.charged_ms_a_step)))
        .collect();
    Summary {
        conservation_residual_ns: rows.iter().map(|r| r.conservation_residual_ns).max().unwrap_or(0),
        top1: share(named, late.len() as u64),
        precision_ns: share(charged, waited),
        recall_ns: share(charged, waited + unsplit),
        decoy_blame,
        false_findings: rows.iter().map(|r| r.false_findings).sum(),
        dose_slope: line(&points),
        split_error_p99_us: None,
        epsilon_coverage: None,
        unknown_share: rows.iter().map(|r| r.unknown_share).sum::<f64>() / rows.len().max(1) as f64,
    }
}

/// Slope and intercept of the least squares line.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    (points.len() > 2 && under > 0.0).then(|| (over / under, y - over / under * x))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_is_found() {
        let (slope, intercept) = line(&[(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]).unwrap();
        assert!((slope - 2.0).abs() < 1e-9 && (intercept - 1.0).abs() < 1e-9);
        assert_eq!(line(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
