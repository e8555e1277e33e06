//! Two reports side by side: what took more, what took less, which findings came and went.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{DeviceReport, Report, SCHEMA_VERSION, saturating_sum};
use crate::findings::{Finding, Severity};
use crate::ledger::{CommLeaf, CpuLeaf, IdleLeaf, Leaf};

/// The comparison of two captures.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// All devices together.
    pub total: DiffDevice,
    /// Devices that both captures have, matched by rank and ordinal, else by identity, else by ordinal.
    pub devices: Vec<DiffDevice>,
    /// What makes the comparison less than straightforward.
    pub notes: Vec<String>,
    /// Findings of notice or worse that the second capture no longer has.
    pub gone: Vec<Finding>,
    /// Findings of notice or worse that only the second capture has.
    pub new: Vec<Finding>,
}

/// Leaves of one device, or of all, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct DiffDevice {
    /// Identity in the second capture; "all" for the sum.
    pub id: String,
    /// Rank, where known.
    pub rank: Option<u32>,
    /// Wall time before, ns.
    pub before_wall_ns: u64,
    /// Wall time after, ns.
    pub after_wall_ns: u64,
    /// Median step before, ns.
    pub before_step_ns: Option<u64>,
    /// Median step after, ns.
    pub after_step_ns: Option<u64>,
    /// One row a leaf.
    pub rows: Vec<DiffRow>,
}

/// One leaf before and after.
#[derive(Clone, Debug, Serialize)]
pub struct DiffRow {
    /// Key of the leaf; idle leaves are `idle.<key>`, parts of exposed communication `comm.<key>`, leaves of CPU ranks `cpu.<key>` and `cpu.root.<key>`.
    pub key: String,
    /// Name in text.
    #[serde(skip)]
    pub name: String,
    /// Time before, ns.
    pub before_ns: u64,
    /// Time after, ns.
    pub after_ns: u64,
    /// Share of wall time before.
    pub before_share: f64,
    /// Share of wall time after.
    pub after_share: f64,
}

fn value(map: &Map<String, Value>, key: &str) -> u64 {
    map.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn share(ns: u64, wall: u64) -> f64 {
    if wall == 0 { 0.0 } else { ns as f64 / wall as f64 }
}

impl Diff {
    /// Compares two reports.
    #[must_use]
    pub fn of(before: &Report, after: &Report) -> Self {
        let mut notes = Vec::new();
        if before.devices.len() != after.devices.len() {
            notes.push(format!(
                "the captures have {} and {} devices: compare shares, not times",
                before.devices.len(),
                after.devices.len()
            ));
        }
        let names = |r: &Report| r.devices.iter().filter_map(|d| d.job.clone()).collect::<BTreeSet<String>>();
        let (jobs_before, jobs_after) = (names(before), names(after));
        if !jobs_before.is_empty() && !jobs_after.is_empty() && jobs_before.is_disjoint(&jobs_after) {
            let list = |jobs: BTreeSet<String>| jobs.into_iter().collect::<Vec<_>>().join(", ");
            notes.push(format!(
                "the captures are of jobs of other names: {}; {}",
                list(jobs_before),
                list(jobs_after)
            ));
        }
        let (lost, lost_after) = (before.capture.records_lost(), after.capture.records_lost());
        if lost > 0 || lost_after > 0 {
            notes.push(format!("records lost: {lost} before, {lost_after} after"));
        }
        let (devices, unmatched) = pairs(before, after);
        if unmatched > 0 {
            notes.push(format!(
                "{unmatched} devices are in one capture only and are compared in the totals alone"
            ));
        }
        let (b, a) = (wall(&before.devices), wall(&after.devices));
        if b.abs_diff(a) > b.max(a) / 10 {
            notes.push(
                "the captures differ in length by more than a tenth: compare shares, not times".to_owned(),
            );
        }
        let problem = |f: &&Finding| f.severity >= Severity::Notice;
        let only_in = |one: &Report, other: &Report| -> Vec<Finding> {
            // The same rule about another rank is another finding.
            let key = |report: &Report, f: &Finding| {
                let of = report.devices.iter().find(|device| device.id == f.device);
                let of = of.filter(|_| f.category == "rank").map(|device| (device.rank, device.ordinal));
                (f.rule, f.blame.culprit_ranks.clone(), of)
            };
            let others: BTreeSet<_> = other.findings.iter().filter(problem).map(|f| key(other, f)).collect();
            let mut seen = BTreeSet::new();
            let only = one.findings.iter().filter(problem).filter(|f| !others.contains(&key(one, f)));
            only.filter(|f| seen.insert(key(one, f))).cloned().collect()
        };
        Self {
            schema_version: SCHEMA_VERSION,
            total: total(before, after),
            devices,
            notes,
            gone: only_in(before, after),
            new: only_in(after, before),
        }
    }

    /// The JSON form, indented.
    ///
    /// # Errors
    /// None in practice: every key is a string.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// Matches devices by rank and ordinal, else by identity, else, where nothing tells them apart, by ordinal; each once.
/// Also says how many were left over.
fn pairs(before: &Report, after: &Report) -> (Vec<DiffDevice>, usize) {
    let mut free: Vec<&DeviceReport> = before.devices.iter().collect();
    let mut take =
        |same: &dyn Fn(&DeviceReport) -> bool| free.iter().position(|d| same(d)).map(|at| free.remove(at));
    let mut found: Vec<Option<&DeviceReport>> = Vec::new();
    for a in &after.devices {
        let by_rank = |b: &DeviceReport| a.rank.is_some() && (a.rank, a.ordinal) == (b.rank, b.ordinal);
        found.push(take(&by_rank).or_else(|| take(&|b| a.id == b.id)));
    }
    for (a, found) in after.devices.iter().zip(&mut found).filter(|(_, f)| f.is_none()) {
        // A job profiled twice has new file names and so new made-up identities.
        *found = take(&|b| b.rank.is_none() == a.rank.is_none() && b.ordinal == a.ordinal);
    }
    // One device against one: whatever they are called, that is what was asked for.
    if let (1, [none @ None]) = (before.devices.len(), found.as_mut_slice()) {
        *none = take(&|_| true);
    }
    let matched: Vec<DiffDevice> =
        found.iter().zip(&after.devices).filter_map(|(b, a)| Some(pair((*b)?, a))).collect();
    let unmatched = free.len() + after.devices.len() - matched.len();
    (matched, unmatched)
}

fn wall(devices: &[DeviceReport]) -> u64 {
    saturating_sum(devices.iter().map(|d| d.wall_ns))
}

fn step_ns(device: &DeviceReport) -> Option<u64> {
    device.gpu.as_ref()?.steps.as_ref().map(|s| s.median_ns)
}

fn pair(before: &DeviceReport, after: &DeviceReport) -> DiffDevice {
    DiffDevice {
        id: after.id.clone(),
        rank: after.rank,
        before_wall_ns: before.wall_ns,
        after_wall_ns: after.wall_ns,
        before_step_ns: step_ns(before),
        after_step_ns: step_ns(after),
        rows: rows(&[before], &[after]),
    }
}

fn total(before: &Report, after: &Report) -> DiffDevice {
    let (b, a): (Vec<_>, Vec<_>) = (before.devices.iter().collect(), after.devices.iter().collect());
    DiffDevice {
        id: "all".to_owned(),
        rank: None,
        before_wall_ns: wall(&before.devices),
        after_wall_ns: wall(&after.devices),
        before_step_ns: b.iter().find_map(|d| step_ns(d)),
        after_step_ns: a.iter().find_map(|d| step_ns(d)),
        rows: rows(&b, &a),
    }
}

fn rows(before: &[&DeviceReport], after: &[&DeviceReport]) -> Vec<DiffRow> {
    let wall = |devices: &[&DeviceReport]| saturating_sum(devices.iter().map(|d| d.wall_ns));
    let row = |key: String, name: String, pick: &dyn Fn(&DeviceReport) -> u64| {
        let sum = |devices: &[&DeviceReport]| saturating_sum(devices.iter().map(|d| pick(d)));
        let (before_ns, after_ns) = (sum(before), sum(after));
        DiffRow {
            key,
            name,
            before_ns,
            after_ns,
            before_share: share(before_ns, wall(before)),
            after_share: share(after_ns, wall(after)),
        }
    };
    let mut rows = vec![row("wall_ns".to_owned(), "wall".to_owned(), &|d| d.wall_ns)];
    for &leaf in Leaf::ALL {
        rows.push(row(leaf.key().to_owned(), leaf.text().to_owned(), &|d| {
            if d.gpu.is_some() { value(&d.direct, leaf.key()) } else { 0 }
        }));
        if leaf == Leaf::CommExposed {
            for &comm in CommLeaf::ALL {
                rows.push(row(format!("comm.{}", comm.key()), format!("  {}", comm.text()), &|d| {
                    d.gpu.as_ref().map_or(0, |gpu| value(&gpu.comm, comm.key()))
                }));
            }
        }
        if leaf == Leaf::Idle {
            for &idle in IdleLeaf::ALL {
                rows.push(row(format!("idle.{}", idle.key()), format!("  {}", idle.text()), &|d| {
                    d.gpu.as_ref().map_or(0, |gpu| value(&gpu.idle, idle.key()))
                }));
            }
        }
    }
    for &leaf in CpuLeaf::ALL {
        rows.push(row(format!("cpu.{}", leaf.key()), leaf.text().to_owned(), &|d| {
            if d.cpu.is_some() { value(&d.direct, leaf.key()) } else { 0 }
        }));
        rows.push(row(format!("cpu.root.{}", leaf.key()), format!("→ {}", leaf.text()), &|d| {
            d.cpu.as_ref().map_or(0, |cpu| value(&cpu.root, leaf.key()))
        }));
    }
    rows.retain(|r| r.before_ns > 0 || r.after_ns > 0 || r.key == "wall_ns");
    rows
}
