//! Processes of other jobs that had a GPU, or may have.

use std::collections::BTreeMap;

use stallscope_schemas::units::ProcessId;

use super::{Found, Severity};
use crate::capture::{Capture, Process, ReadAt, Tables};
use crate::ledger::{DeviceLedger, Leaf};
use crate::report::is_gpu_unseen;
use crate::report::text::{duration, percent, short_name};
use crate::rows::Counter;

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

/// Pid of `memory of pid N (bytes)`, the name of a counter.
fn holder(counter: &str) -> Option<i64> {
    counter.strip_prefix("memory of pid ")?.strip_suffix(" (bytes)")?.parse().ok()
}

/// That processes which nobody recorded have memory of a device: what they run there is not seen.
pub(super) fn may_have_had_it<S: ReadAt>(capture: &Capture<S>, ledger: &DeviceLedger, found: &mut Found<'_>) {
    let tables = capture.tables();
    let Some(device) = tables.device(ledger.device) else { return };
    let mut most: BTreeMap<i64, u64> = BTreeMap::new();
    for row in capture.rows::<Counter>(ledger.device.0) {
        if let Some(pid) = holder(tables.string(row.name)).filter(|_| row.value > 0) {
            let bytes = most.entry(pid).or_default();
            *bytes = row.value.max(*bytes);
        }
    }
    let own: Vec<_> = device.processes.iter().filter_map(|&process| tables.process(process)).collect();
    // The driver counts pids as the recorder does only where it names one that was recorded.
    if !own.iter().any(|process| most.contains_key(&process.pid)) {
        return;
    }
    let is_here = |host: &str| own.iter().any(|process| process.host == host);
    let is_seen = |process: &&Process| is_here(&process.host) && !is_gpu_unseen(process.pid, tables);
    for process in tables.processes().iter().filter(is_seen) {
        most.remove(&process.pid);
    }
    if most.is_empty() {
        return;
    }
    let (who, have) = match most.len() {
        1 => ("a process".to_owned(), "has"),
        count => (format!("{count} processes"), "have"),
    };
    let summary = format!(
        "{who} whose GPU work was not recorded {have} memory of the device: what runs there for others is in its idle time"
    );
    let mut holders: Vec<(i64, u64)> = most.into_iter().collect();
    holders.sort_by_key(|&(pid, bytes)| (std::cmp::Reverse(bytes), pid));
    let named = holders.iter().take(MAX_NAMED).map(|(pid, bytes)| format!("pid {pid} {} MiB", bytes >> 20));
    let mut evidence = format!("by NVML: {}", named.collect::<Vec<_>>().join(", "));
    if let more @ 1.. = holders.len().saturating_sub(MAX_NAMED) {
        evidence.push_str(&format!(", and {more} more"));
    }
    let idle = ledger.sums.get(Leaf::Idle);
    found.push("device-shared-unseen", "processes not recorded", Severity::Info, idle, (summary, evidence));
}
