//! The steps of a device, as the report has them.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::capture::Tables;
use crate::ledger::{CommLeaf, DeviceLedger, Step};
use crate::steps::percentile;

use super::{direct_map, idle_map, some};

/// Steps of a device.
#[derive(Clone, Debug, Serialize)]
pub struct StepsReport {
    /// Where they come from.
    pub source: &'static str,
    /// How many.
    pub count: usize,
    /// Median length of the whole ones, ns.
    pub median_ns: u64,
    /// 95th percentile of the length of the whole ones, ns.
    pub p95_ns: u64,
    /// Each step, in order.
    pub each: Vec<StepReport>,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The trace's name, or null.
    pub name: Option<String>,
    /// Begin on the device, ns.
    pub start_ns: i64,
    /// Length, ns.
    pub wall_ns: u64,
    /// Whether all of it lies in the window.
    pub whole: bool,
    /// Whether it stands out among the whole ones; steps found by a period are not judged.
    pub slow: bool,
    /// Time in it that the device waited for late ranks, ns.
    pub wait_ns: u64,
    /// Time that others waited for this device as the one to blame, in waits that ended in this step, ns.
    pub charged_ns: u64,
    /// Exclusive leaves.
    pub direct: Map<String, Value>,
    /// Exclusive leaves of idle time.
    pub idle: Map<String, Value>,
}

pub(super) fn steps_report(ledger: &DeviceLedger, tables: &Tables) -> Option<StepsReport> {
    let source = ledger.step_source?;
    let slow = ledger.slow_steps();
    let each = |(i, step): (usize, &Step)| StepReport {
        name: some(tables.string(step.name)),
        start_ns: step.start.0,
        wall_ns: step.end.since(step.start),
        whole: step.whole,
        slow: slow.contains(&i),
        wait_ns: step.sums.comm(CommLeaf::Wait),
        charged_ns: step.charged_ns,
        direct: direct_map(&step.sums),
        idle: idle_map(&step.sums),
    };
    let whole: Vec<u64> = ledger.whole_steps().map(|(_, s)| s.end.since(s.start)).collect();
    let all = || ledger.steps.iter().map(|s| s.end.since(s.start)).collect();
    let walls = if whole.is_empty() { all() } else { whole };
    Some(StepsReport {
        source: source.name(),
        count: ledger.steps.len(),
        median_ns: percentile(&walls, 50)?,
        p95_ns: percentile(&walls, 95)?,
        each: ledger.steps.iter().enumerate().map(each).collect(),
    })
}
