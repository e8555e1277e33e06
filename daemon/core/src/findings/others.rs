//! Processes of other jobs that had a GPU.

use stallscope_schemas::units::ProcessId;

use super::Found;
use crate::capture::Tables;
use crate::ledger::{DeviceLedger, Leaf};
use crate::report::text::{duration, percent, short_name};

/// Processes that are named.
const MAX_NAMED: usize = 4;

/// That others had a device while nothing of its job ran.
pub(super) fn had_it(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    let wall = found.wall;
    let taken = ledger.sums.get(Leaf::OtherProcess);
    found.add("device-shared", "another job", taken, || {
        let summary = format!(
            "processes that are not part of the job had the device for {} of the time",
            percent(taken, wall)
        );
        let name = |&(process, ns): &(ProcessId, u64)| {
            let process = tables.process(process)?;
            Some(format!("{} (pid {}) {}", short_name(&process.name, 40), process.pid, duration(ns)))
        };
        let named: Vec<String> = ledger.others.iter().take(MAX_NAMED).filter_map(name).collect();
        let evidence = format!(
            "{} in which nothing of the job ran; in all, what they ran took: {}",
            duration(taken),
            named.join(", ")
        );
        (summary, evidence)
    });
}
