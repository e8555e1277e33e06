//! Holds a report against what was done.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use stallscope_core::capture::{Capture, ReadAt};
use stallscope_core::ledger::{CpuLeaf, Ledgers, Options};

use super::baseline;
use super::cases::{Case, Culprit, Kind, Means};
use super::row::Row;
use super::run::RANKS;
use super::spans::{Span, length, union};
use super::splits::{Splits, p99_us};
use super::truth::{Truth, ns};

/// A fault that took less of a step is none to be named.
const LEAST_SHARE: f64 = 0.01;

/// From this share of the doses on in which a CPU was waited for, that is the greater part, or as good as: it has to be named, or
/// may be.
const MOSTLY_QUEUED: f64 = 0.55;
const ABOUT_HALF_QUEUED: f64 = 0.45;
/// How it is named.
const QUEUED: &str = "waits for a CPU";

/// What a fault from outside took, by the kernel's account.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromOutside {
    /// In all, ns.
    pub(super) ns: u64,
    /// In how much of the recording.
    pub(super) of: Duration,
}

/// Harm that was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Harm {
    /// From when on, Unix ns.
    pub(super) since: i64,
    /// What it took, where it came from outside.
    pub(super) outside: Option<FromOutside>,
}

fn sum(leaves: &Value) -> u64 {
    leaves.as_object().map_or(0, |all| all.values().map(ns).sum())
}

/// A device of the report.
struct Gpu<'a> {
    rank: u32,
    window: Span,
    json: &'a Value,
}

fn gpus(report: &Value) -> anyhow::Result<Vec<Gpu<'_>>> {
    let all = report["devices"].as_array().context("devices")?;
    let gpus = all.iter().filter(|device| device["kind"] == "gpu").map(|json| {
        let rank = json["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok());
        let moment = |key: &str| json["window"][key].as_i64().context("window");
        Ok(Gpu { rank: rank.context("rank")?, window: (moment("start_ns")?, moment("end_ns")?), json })
    });
    gpus.collect()
}

/// Scores one run of ranks on GPUs.
pub(super) fn score<S: ReadAt + Sync>(
    case: &Case,
    dose: f64,
    (report, capture): (&Value, &Capture<S>),
    truth: &Truth,
    harm: Harm,
) -> anyhow::Result<Row> {
    let gpus = gpus(report)?;
    let mut row = Row::new(case, dose);
    row.refused = (0..RANKS).filter(|rank| gpus.iter().all(|gpu| gpu.rank != *rank)).collect();
    anyhow::ensure!(
        row.refused.is_empty() || case.kind == Kind::Clock,
        "{} devices for {RANKS} ranks",
        gpus.len()
    );
    ledgers(&mut row, case, &gpus, truth);
    let splits = Splits::of(capture, truth);
    (row.splits, row.good_splits, row.mistaken_operations) = (splits.count(), splits.good(), splits.mistaken);
    (row.partial_splits, row.right_partial_splits) = (splits.partial, splits.right_partial);
    (row.covered_splits, row.epsilon_ns) = (splits.covered, splits.epsilon_ns);
    row.split_errors_ns = splits.errors.iter().map(|(error, _)| *error).collect();
    row.split_error_p99_us = p99_us(row.split_errors_ns.clone());
    doses(&mut row, case, &gpus, truth, &splits, harm);
    findings(&mut row, case, report)?;
    if let Some(rank) = suspect(case) {
        let excess = host_excess(capture, rank)?;
        let steps = row.steps.max(1) as f64;
        let a_step = |&(leaf, ns): &(CpuLeaf, u64)| (leaf.key(), ns as f64 / 1e6 / steps);
        row.host_excess_ms = excess.iter().map(a_step).collect();
        if case.kind == Kind::Decoy {
            // That its threads wait for a CPU while the decoy computes is so, and no false blame.
            let blamed = excess.iter().filter(|(leaf, _)| leaf.is_blocked()).map(|(_, ns)| ns).sum();
            row.decoy = Some((took_ns(rank, &gpus, truth), blamed));
        }
    }
    let windows: BTreeMap<u32, Span> = gpus.iter().map(|gpu| (gpu.rank, gpu.window)).collect();
    row.baselines = Some(baseline::of(capture, case, &windows));
    Ok(row)
}

/// What the ledgers say: whether they close, who waited, and whom that is charged to.
fn ledgers(row: &mut Row, case: &Case, gpus: &[Gpu<'_>], truth: &Truth) {
    let (mut unknown, mut wall) = (0, 0);
    for Gpu { rank, window, json } in gpus {
        let own_wall = ns(&json["wall_ns"]);
        let (direct, comm) = (&json["direct"], &json["comm"]);
        for leaves in [direct, &json["root"]] {
            row.conservation_residual_ns = row.conservation_residual_ns.max(sum(leaves).abs_diff(own_wall));
        }
        let comm_residual = sum(comm).abs_diff(ns(&direct["comm_exposed_ns"]));
        row.conservation_residual_ns = row.conservation_residual_ns.max(comm_residual);
        wall += own_wall;
        unknown += ns(&direct["unknown_ns"]) + ns(&json["idle"]["unknown_ns"]) + ns(&comm["unsplit_ns"]);
        if let Some(real) = truth.direct(*rank, *window) {
            // Idle without a cause is unknown, too.
            let idle = ns(&direct["idle_ns"]).saturating_sub(ns(&json["idle"]["unknown_ns"]));
            for (said, real) in [
                (ns(&direct["compute_ns"]), real.compute_ns),
                (ns(&direct["comm_exposed_ns"]), real.comm_exposed_ns),
                (ns(&direct["memcpy_exposed_ns"]), real.memcpy_exposed_ns),
                (idle, real.idle_ns),
            ] {
                let growth = said.saturating_sub(real) as f64 / own_wall.max(1) as f64;
                row.leaf_growth_share = row.leaf_growth_share.max(growth);
            }
        }
        // What the only one who is late waits itself is nobody's fault that is known here.
        if case.culprits.iter().all(|culprit| culprit.rank == *rank) && !case.culprits.is_empty() {
            continue;
        }
        row.unsplit_ns += ns(&comm["unsplit_ns"]) + ns(&comm["uncertain_ns"]);
        row.waited_ns += ns(&comm["wait_ns"]);
        row.true_waited_ns += truth.waited_ns(*rank, *window);
        for wait in json["waits"].as_array().into_iter().flatten() {
            let last = wait["via_ranks"].as_array().and_then(|via| via.last()).and_then(Value::as_u64);
            let is_right = |culprit: &Culprit| {
                last == Some(culprit.rank.into()) && culprit.leaves.iter().any(|leaf| wait["leaf"] == *leaf)
            };
            if case.culprits.iter().any(is_right) {
                row.charged_ns += ns(&wait["ns"]);
            }
        }
    }
    row.unknown_share = unknown as f64 / wall.max(1) as f64;
}

/// What the doses took, and what is charged for each.
fn doses(row: &mut Row, case: &Case, gpus: &[Gpu<'_>], truth: &Truth, splits: &Splits, harm: Harm) {
    let Some(gpu) = gpus.first() else { return };
    // By the trainer's own count: what the report takes for steps is the report's.
    let harmed = (harm.since.max(gpu.window.0), gpu.window.1);
    row.steps = truth.steps(harmed);
    let (count, mean_ns) = if row.on_path {
        truth.doses_seen(gpu.window, |meeting| splits.meetings.contains(&meeting))
    } else {
        let (count, mean_ns) = truth.doses(gpu.window);
        (count as f64, mean_ns)
    };
    row.doses = count;
    row.queued_share = truth.queued_share(gpu.window);
    row.actual_ms = (count > 0.0).then_some(mean_ns / 1e6);
    let wall_ns = harmed.1.abs_diff(harmed.0) as f64;
    let step_ms = wall_ns / 1e6 / row.steps.max(1) as f64;
    // A throttle may be set and throttle nothing, and what a thread waits for a CPU may be hidden behind what it has launched.
    let least_ms = step_ms * LEAST_SHARE;
    if let Some(FromOutside { ns, of }) = harm.outside {
        // Of a step of the mean length.
        row.actual_ms = Some(ns as f64 / of.as_nanos() as f64 * step_ms);
        let late = case.culprits.iter().map(|culprit| truth.held_up_ns(culprit.rank, harmed)).sum::<u64>();
        row.took_nothing = (late as f64 / 1e6 / row.steps.max(1) as f64) < least_ms;
    }
    let times = if row.on_path && count > 0.0 { count } else { row.steps.max(1) as f64 };
    row.charged_ms = row.charged_ns as f64 / 1e6 / (times * f64::from(RANKS - 1));
    row.took_nothing |= row.actual_ms.is_some_and(|took| took < least_ms);
}

/// Whom the findings accuse.
pub(super) fn findings(row: &mut Row, case: &Case, report: &Value) -> anyhow::Result<()> {
    let findings = report["findings"].as_array().context("findings")?;
    let ranks = |finding: &Value| -> Vec<u64> {
        finding["culprit_ranks"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let is_culprit = |rank: u64| case.culprits.iter().any(|culprit| u64::from(culprit.rank) == rank);
    let accusing = findings.iter().filter(|finding| !ranks(finding).is_empty());
    let first: Vec<&Value> = accusing.take(case.culprits.len().max(1)).collect();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
    row.said = first.iter().map(|finding| text(finding, "summary")).collect::<Vec<_>>().join("; ");
    // Ranks on CPUs are told why they are late in the evidence.
    let names = |culprit: &Culprit| {
        first.iter().any(|finding| {
            let on_cpu = text(finding, "summary").contains(" arrives last ");
            let said = text(finding, if on_cpu { "evidence" } else { "summary" });
            let says_own =
                row.queued_share <= MOSTLY_QUEUED && culprit.says.iter().any(|word| said.contains(word));
            let says_queued = row.queued_share >= ABOUT_HALF_QUEUED && said.contains(QUEUED);
            ranks(finding) == [u64::from(culprit.rank)] && (says_own || says_queued)
        })
    };
    row.top1 = (case.kind == Kind::Late && !row.took_nothing).then(|| case.culprits.iter().all(names));
    // What is wrong with a job that is well. Ranks on CPUs do sleep in place of work, which is said.
    let sleeps = matches!(case.means, Means::MpiLink(_));
    let is_problem = |finding: &Value| {
        case.kind == Kind::Healthy && !(sleeps && finding["rule"] == "rank-sleep")
            || ranks(finding).iter().any(|&rank| !is_culprit(rank))
    };
    let is_false = |finding: &&Value| {
        let is_grave = finding["severity"] == "warning" || finding["severity"] == "critical";
        is_grave && is_problem(finding)
    };
    row.false_findings = findings.iter().filter(is_false).count() as u64;
    Ok(())
}

/// The rank whose host is looked at: the first culprit, or the one that the decoy is on.
fn suspect(case: &Case) -> Option<u32> {
    match case.kind {
        Kind::Late => case.culprits.first().map(|culprit| culprit.rank),
        Kind::Decoy => case.fault.split_once('@')?.1.parse().ok(),
        Kind::Healthy | Kind::Loss | Kind::Clock => None,
    }
}

/// What a rank's host did while others waited for its device, by leaf, as far as it is more than usual, ns.
fn host_excess<S: ReadAt + Sync>(capture: &Capture<S>, rank: u32) -> anyhow::Result<Vec<(CpuLeaf, u64)>> {
    let ledgers = Ledgers::of(capture, Options::default())?;
    let of_rank = ledgers.gpus.iter().find(|ledger| {
        let process = capture.tables().device(ledger.device).and_then(|d| d.processes.first().copied());
        process.and_then(|p| capture.tables().process(p)).and_then(|p| p.rank) == Some(rank)
    });
    let root = &of_rank.context("the rank's ledger")?.root;
    let excess = |&leaf: &CpuLeaf| (leaf, root.held_up.root.get(leaf).saturating_sub(root.usual.get(leaf)));
    Ok(CpuLeaf::ALL.iter().map(excess).filter(|(_, ns)| *ns > 0).collect())
}

/// How long a decoy was at it while its rank's device was observed, ns.
fn took_ns(rank: u32, gpus: &[Gpu<'_>], truth: &Truth) -> u64 {
    let Some(gpu) = gpus.iter().find(|gpu| gpu.rank == rank) else { return 0 };
    let spans = truth.doses.iter().map(|dose| dose.span).collect();
    length(&union(spans, gpu.window))
}
