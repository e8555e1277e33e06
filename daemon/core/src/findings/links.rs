//! Transfers that took longer than the same operation at its best, and what the job's links say of themselves meanwhile:
//! counters of NVLink, PCIe and network adapters, and repeated segments of connections.
//!
//! Counters are sampled once a second, so they show that a link had trouble while transfers were slow, and not which
//! transfer it was. Where none of them moved, or none was recorded, the finding says so and blames no link.

use std::collections::BTreeMap;

use stallscope_schemas::record::{RecordKind, device_kind};
use stallscope_schemas::units::{DeviceId, TimeNs};

use super::{Finding, Found};
use crate::capture::{Capture, ReadAt};
use crate::ledger::so_far::Part;
use crate::ledger::{CommLeaf, DeviceLedger, RootLeaf};
use crate::report::text::{duration, percent, printable, short_name};
use crate::rows::{Connection, Counter};

/// Counters of a GPU's links that stand still on one that is well: what they count, since the driver was loaded.
const OF_GPUS: [&str; 3] = [" replays (count)", " recoveries (count)", " crc errors (count)"];

/// Counters of an adapter's port that grow when a link is damaged, congested or loses packets, by parts of their names.
const OF_PORTS: [&str; 17] = [
    "xmit_wait",
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "rcv_errors",
    "xmit_discards",
    "link_integrity_errors",
    "buffer_overrun_errors",
    "out_of_sequence",
    "packet_seq_err",
    "ack_timeout_err",
    "rnr_nak_retry_err",
    "cnp_handled",
    "cnp_sent",
    "ecn_marked",
    "adp_retrans",
    "slow_restart",
];

/// Links that are named in one finding.
const MAX_NAMED: usize = 4;

/// What the counters of a device say of its links between two moments.
#[derive(Debug, Default)]
struct Troubles {
    /// How much each counter grew, where it did; by name.
    grown: BTreeMap<String, u64>,
    /// Whether there was any counter of a link.
    any: bool,
}

/// Adds what the counters of a device say.
fn look<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    (from, to): (TimeNs, TimeNs),
    troubles: &mut Troubles,
) {
    let tables = capture.tables();
    // First and last value of counts, and of the width of the link.
    let mut seen: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in capture.rows::<Counter>(device.0).filter(|row| row.start <= to) {
        let name = tables.string(row.name);
        if row.duration_ns > 0 {
            let is_link = name.starts_with("port ") && OF_PORTS.iter().any(|part| name.contains(part));
            let reaches_in = row.start.plus(row.duration_ns) > from;
            troubles.any |= is_link;
            if is_link && reaches_in && row.value > 0 {
                let sum = troubles.grown.entry(printable(name).into_owned()).or_default();
                *sum = sum.saturating_add(row.value);
            }
        } else if OF_GPUS.iter().any(|end| name.ends_with(end)) || name.starts_with("pcie link width") {
            seen.entry(name).or_insert((row.value, row.value)).1 = row.value;
        }
    }
    troubles.any |= !seen.is_empty();
    for (name, (first, last)) in &seen {
        if !name.starts_with("pcie link width") && last > first {
            troubles.grown.insert((*name).to_owned(), last - first);
        }
    }
    let width = |name: &str| seen.get(name).map(|&(_, last)| last);
    if let (Some(now), Some(most)) = (width("pcie link width (lanes)"), width("pcie link width max (lanes)"))
        && now < most
    {
        troubles.grown.insert(format!("pcie lanes missing of {most}"), most - now);
    }
}

/// The connections of a device's processes on which segments were sent again, the worst first.
fn repeated<S: ReadAt>(capture: &Capture<S>, device: DeviceId, (from, to): (TimeNs, TimeNs)) -> Vec<String> {
    let tables = capture.tables();
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for process in tables.device(device).map(|d| d.processes.as_slice()).unwrap_or_default() {
        let within = |row: &Connection| row.start < to && row.start.plus(row.duration_ns) > from;
        for row in capture.rows::<Connection>(process.0).filter(within) {
            let sum = sums.entry(tables.string(row.name)).or_default();
            *sum = (sum.0.saturating_add(row.retransmits), sum.1.saturating_add(row.segments));
        }
    }
    let mut worst: Vec<(&str, (u64, u64))> = sums.into_iter().filter(|(_, (again, _))| *again > 0).collect();
    worst.sort_by_key(|&(name, (again, _))| (std::cmp::Reverse(again), name));
    let line = |(name, (again, of)): (&str, (u64, u64))| {
        format!("tcp {} sent {again} of {of} segments again", short_name(&printable(name), 60))
    };
    worst.into_iter().take(MAX_NAMED).map(line).collect()
}

/// A device's transfers beyond their best, with what its links say.
pub(crate) fn slow_transfers<S: ReadAt>(
    capture: &Capture<S>,
    ledger: &DeviceLedger,
    id: &str,
) -> Option<Finding> {
    let wall = ledger.end.since(ledger.start);
    let excess_ns = ledger.sums.comm(CommLeaf::Excess);
    let mut found = Found { id, wall, device: Some(ledger.device), out: Vec::new() };
    let part = Part::Device(RootLeaf::Excess);
    found.add_of(part, ("communication-slow", "slow transfers", excess_ns), || {
        let floor_ns = ledger.sums.comm(CommLeaf::Floor);
        let summary = format!(
            "exposed transfers took {} longer than the same operations at their best: {} of the time",
            duration(excess_ns),
            percent(excess_ns, wall)
        );
        (summary, format!("{} at their best; {}", duration(floor_ns), links(capture, ledger)))
    });
    found.out.pop()
}

/// What the links of a device and of its host say, in words.
fn links<S: ReadAt>(capture: &Capture<S>, ledger: &DeviceLedger) -> String {
    let (tables, window) = (capture.tables(), (ledger.start, ledger.end));
    let mut troubles = Troubles::default();
    look(capture, ledger.device, window, &mut troubles);
    let source = tables.device(ledger.device).map(|d| d.source);
    for host in capture.keys(RecordKind::Counter).into_iter().map(DeviceId) {
        let is_host =
            tables.device(host).is_some_and(|d| d.kind == device_kind::HOST && Some(d.source) == source);
        if is_host {
            look(capture, host, window, &mut troubles);
        }
    }
    let connections = repeated(capture, ledger.device, window);
    let mut grown: Vec<(&String, &u64)> = troubles.grown.iter().collect();
    grown.sort_by_key(|&(name, by)| (std::cmp::Reverse(*by), name.clone()));
    let counters = grown.into_iter().take(MAX_NAMED).map(|(name, by)| format!("{name}: {by}"));
    let told: Vec<String> = counters.chain(connections).collect();
    if !told.is_empty() {
        return format!("meanwhile {}", told.join("; "));
    }
    if troubles.any { "no counter of a link moved" } else { "no counters of links were recorded" }.to_owned()
}
