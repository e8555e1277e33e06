//! Two reports side by side: what took more, what took less, which findings came and went.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{DeviceReport, Report, SCHEMA_VERSION};
use crate::findings::{Finding, Severity};
use crate::ledger::{IdleLeaf, Leaf};

/// The comparison of two captures.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// All devices together.
    pub total: DiffDevice,
    /// Devices that both captures have, matched by rank, else by identity, else by position.
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
    /// Key of the leaf; idle leaves are `idle.<key>`.
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
        let lost = |r: &Report| r.capture.losses.iter().filter(|l| l.lost).map(|l| l.count).sum::<u64>();
        if lost(before) + lost(after) > 0 {
            notes.push(format!("records lost: {} before, {} after", lost(before), lost(after)));
        }
        let devices = after
            .devices
            .iter()
            .enumerate()
            .filter_map(|(i, a)| Some(pair(matching(before, a, i)?, a)))
            .collect();
        let problem = |f: &&Finding| f.severity >= Severity::Notice;
        let only_in = |one: &Report, other: &Report| -> Vec<Finding> {
            let mut seen: Vec<&str> = Vec::new();
            one.findings
                .iter()
                .filter(problem)
                .filter(|f| !other.findings.iter().filter(problem).any(|o| o.rule == f.rule))
                .filter(|f| {
                    !seen.contains(&f.rule) && {
                        seen.push(f.rule);
                        true
                    }
                })
                .cloned()
                .collect()
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

fn matching<'a>(before: &'a Report, after: &DeviceReport, position: usize) -> Option<&'a DeviceReport> {
    let by_rank = before.devices.iter().find(|b| b.rank.is_some() && b.rank == after.rank);
    let by_id = || before.devices.iter().find(|b| b.id == after.id);
    by_rank.or_else(by_id).or_else(|| before.devices.get(position))
}

fn step_ns(device: &DeviceReport) -> Option<u64> {
    device.steps.as_ref().map(|s| s.median_ns)
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
        before_wall_ns: b.iter().map(|d| d.wall_ns).sum(),
        after_wall_ns: a.iter().map(|d| d.wall_ns).sum(),
        before_step_ns: b.iter().find_map(|d| step_ns(d)),
        after_step_ns: a.iter().find_map(|d| step_ns(d)),
        rows: rows(&b, &a),
    }
}

fn rows(before: &[&DeviceReport], after: &[&DeviceReport]) -> Vec<DiffRow> {
    let wall = |devices: &[&DeviceReport]| devices.iter().map(|d| d.wall_ns).sum::<u64>();
    let row = |key: String, name: String, pick: &dyn Fn(&DeviceReport) -> u64| {
        let sum = |devices: &[&DeviceReport]| devices.iter().map(|d| pick(d)).sum::<u64>();
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
        rows.push(row(leaf.key().to_owned(), leaf.text().to_owned(), &|d| value(&d.direct, leaf.key())));
        if leaf == Leaf::Idle {
            for &idle in IdleLeaf::ALL {
                rows.push(row(format!("idle.{}", idle.key()), format!("  {}", idle.text()), &|d| {
                    value(&d.idle, idle.key())
                }));
            }
        }
    }
    rows.retain(|r| r.before_ns > 0 || r.after_ns > 0 || r.key == "wall_ns");
    rows
}
