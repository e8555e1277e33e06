//! What followed launching threads were busy with while their device was idle, by the stacks of samples.

use std::collections::BTreeMap;

use super::Found;
use super::host_work::{busy, host_work, seen_in};
use crate::capture::Tables;
use crate::ledger::so_far::Part;
use crate::ledger::{CpuLeaf, DeviceLedger};
use crate::report::text::{duration, percent, short_name};

/// Samples of one kind of work.
struct OfKind {
    ns: u64,
    what: &'static str,
    /// Time by the frame that says so.
    frames: BTreeMap<String, u64>,
}

pub(super) fn of(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    let mut kinds: BTreeMap<&'static str, OfKind> = BTreeMap::new();
    for (cause, amount) in ledger.host_work.causes.ranked() {
        let unknown = cause.root == CpuLeaf::Unknown;
        if !unknown && (cause.root != CpuLeaf::Compute || cause.direct != CpuLeaf::Compute) {
            continue;
        }
        let ids = tables.stack_names(cause.stack);
        let names: Vec<&str> = ids.iter().map(|&n| tables.string(n)).collect();
        let (work, frame) = host_work(&names);
        let frame = seen_in(frame.or(names.last().copied()).unwrap_or(""));
        let of_kind = kinds.entry(work.kind).or_insert_with(|| OfKind {
            ns: 0,
            what: work.what,
            frames: BTreeMap::new(),
        });
        of_kind.ns = of_kind.ns.saturating_add(amount.ns);
        let of_frame = of_kind.frames.entry(frame).or_default();
        *of_frame = of_frame.saturating_add(amount.ns);
    }
    let wall = found.wall;
    for (kind, OfKind { ns, what, frames }) in kinds {
        let frame = frames.iter().max_by_key(|(_, ns)| **ns).map_or("", |(frame, _)| frame.as_str());
        let part = Part::Host(CpuLeaf::Compute);
        found.add_of(part, (&format!("idle-{kind}"), what, ns), || {
            let share = percent(ns, wall);
            let summary = if frame.is_empty() {
                format!("the device waits {share} of the time for the host, which no sample has met on a CPU")
            } else {
                format!("the device waits {share} of the time for the host, which is busy {}", busy(what))
            };
            let mut evidence = format!("{} in all, by samples of the launching thread", duration(ns));
            if !frame.is_empty() {
                evidence.push_str(&format!("; most in {}", short_name(frame, 90)));
            }
            (summary, evidence)
        });
    }
}
