//! The ledgers of whole jobs: those of their devices added up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::render::value;
use super::text::{duration, percent, short_name};
use super::{DeviceReport, Report};
use crate::ledger::{CpuLeaf, RootLeaf};

/// One job.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// Its name; null for devices of which it is not known.
    pub name: Option<String>,
    /// Hosts on which it was recorded.
    pub hosts: Vec<String>,
    /// Ranks in the job, or null.
    pub world_size: Option<u32>,
    /// Ranks that were recorded.
    pub ranks: Vec<u32>,
    /// Ranks of the job that were not.
    pub ranks_missing: Vec<u32>,
    /// By kind of device; each kind has leaves of its own.
    pub ledgers: Vec<JobLedger>,
}

/// What the devices of one kind did, added up.
#[derive(Clone, Debug, Serialize)]
pub struct JobLedger {
    /// `gpu` or `cpu`.
    pub kind: &'static str,
    /// How many.
    pub devices: u64,
    /// Their wall time, ns.
    pub wall_ns: u64,
    /// Exclusive leaves; they sum to `wall_ns`.
    pub direct: Map<String, Value>,
    /// With each wait charged to what it was for; sums to `wall_ns`.
    pub root: Map<String, Value>,
}

/// Ranks that are counted: a world size from a file may be anything.
const MAX_WORLD: u32 = 1 << 20;

/// Adds a ledger's leaves. Sums of nanoseconds of made-up captures need not fit.
fn add(into: &mut Map<String, Value>, leaves: &Map<String, Value>) {
    for (leaf, ns) in leaves {
        let so_far = into.get(leaf).and_then(Value::as_u64).unwrap_or(0);
        into.insert(leaf.clone(), so_far.saturating_add(ns.as_u64().unwrap_or(0)).into());
    }
}

/// The jobs of devices, by name.
pub(super) fn of(devices: &[DeviceReport]) -> Vec<JobReport> {
    let mut by_name: BTreeMap<Option<&String>, Vec<&DeviceReport>> = BTreeMap::new();
    for device in devices {
        by_name.entry(device.job.as_ref()).or_default().push(device);
    }
    by_name.into_iter().map(|(name, devices)| job(name, &devices)).collect()
}

fn job(name: Option<&String>, devices: &[&DeviceReport]) -> JobReport {
    let ranks: BTreeSet<u32> = devices.iter().filter_map(|d| d.rank).collect();
    let world_size = devices.iter().filter_map(|d| d.world_size).max();
    let world = world_size.unwrap_or(0).min(MAX_WORLD);
    let hosts: BTreeSet<&String> = devices.iter().filter_map(|d| d.host.as_ref()).collect();
    let mut ledgers: BTreeMap<&'static str, JobLedger> = BTreeMap::new();
    for device in devices {
        let ledger = ledgers.entry(device.kind).or_insert_with(|| JobLedger {
            kind: device.kind,
            devices: 0,
            wall_ns: 0,
            direct: Map::new(),
            root: Map::new(),
        });
        ledger.devices = ledger.devices.saturating_add(1);
        ledger.wall_ns = ledger.wall_ns.saturating_add(device.wall_ns);
        add(&mut ledger.direct, &device.direct);
        let root = device.gpu.as_ref().map(|gpu| &gpu.root).or(device.cpu.as_ref().map(|cpu| &cpu.root));
        root.into_iter().for_each(|root| add(&mut ledger.root, root));
    }
    JobReport {
        name: name.cloned(),
        hosts: hosts.into_iter().cloned().collect(),
        world_size,
        ranks_missing: (0..world).filter(|rank| !ranks.contains(rank)).collect(),
        ranks: ranks.into_iter().collect(),
        ledgers: ledgers.into_values().rev().collect(),
    }
}

/// Leaves that a job's line names.
const NAMED: usize = 3;

/// A line for each job, where there are several.
pub(super) fn render(report: &Report, out: &mut impl Write) -> fmt::Result {
    if report.jobs.len() < 2 {
        return Ok(());
    }
    writeln!(out)?;
    for job in &report.jobs {
        let name = short_name(job.name.as_deref().unwrap_or("(no name)"), 40);
        let ranks = match job.world_size {
            Some(world) => format!("{} of {world} ranks", job.ranks.len()),
            None => format!("{} ranks", job.ranks.len()),
        };
        write!(out, "job {name} · {ranks}")?;
        for ledger in &job.ledgers {
            let what = if ledger.kind == "cpu" { "rank" } else { "GPU" };
            write!(out, " · {} of {what} time", duration(ledger.wall_ns))?;
            for (text, ns) in largest(ledger) {
                write!(out, ", {text} {}", percent(ns, ledger.wall_ns))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The leaves to which most of the time is charged.
fn largest(ledger: &JobLedger) -> Vec<(&'static str, u64)> {
    let gpu = RootLeaf::ALL.iter().map(|leaf| (leaf.text(), value(&ledger.root, leaf.key())));
    let cpu = CpuLeaf::ALL.iter().map(|leaf| (leaf.text(), value(&ledger.root, leaf.key())));
    let mut all: Vec<_> = if ledger.kind == "cpu" { cpu.collect() } else { gpu.collect() };
    all.retain(|(_, ns)| *ns > 0);
    all.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    all.truncate(NAMED);
    all
}
