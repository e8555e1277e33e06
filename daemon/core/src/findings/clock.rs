//! Findings about devices whose clock is wrong: their collectives cannot be told from other ones.

use stallscope_schemas::units::DeviceId;

use super::{Finding, Found};
use crate::capture::{Capture, ReadAt};
use crate::collectives::off::{Off, off};
use crate::ledger::{CommLeaf, DeviceLedger, Leaf};
use crate::report::device_name;
use crate::report::text::duration;

/// The share of a device's exposed communication that is not split from which on its clock is looked at, in percent.
const UNSPLIT_PERCENT: u64 = 10;

/// Findings about clocks, unranked.
pub(crate) fn of_clocks<S: ReadAt>(capture: &Capture<S>, ledgers: &[DeviceLedger]) -> Vec<Finding> {
    let unsplit = |ledger: &DeviceLedger| ledger.sums.comm(CommLeaf::Unsplit);
    let is_doubtful = |ledger: &&DeviceLedger| {
        unsplit(ledger).saturating_mul(100)
            > ledger.sums.get(Leaf::CommExposed).saturating_mul(UNSPLIT_PERCENT)
    };
    let doubtful: Vec<&DeviceLedger> = ledgers.iter().filter(is_doubtful).collect();
    let communicates = |ledger: &&DeviceLedger| ledger.sums.get(Leaf::CommExposed) > 0;
    // The one that is most like the others is right.
    let share = |ledger: &DeviceLedger| {
        u128::from(unsplit(ledger)) * 1_000_000 / u128::from(ledger.sums.get(Leaf::CommExposed).max(1))
    };
    let best = ledgers.iter().filter(communicates).min_by_key(|l| (share(l), l.device));
    let (Some(best), false) = (best, doubtful.is_empty()) else { return Vec::new() };
    let devices: Vec<DeviceId> =
        doubtful.iter().map(|ledger| ledger.device).filter(|&device| device != best.device).collect();
    let found = off(capture, best.device, &devices);
    let of_off = |off: &Off| finding(capture, off, ledgers.iter().find(|l| l.device == off.device)?);
    found.iter().filter_map(of_off).collect()
}

fn finding<S: ReadAt>(capture: &Capture<S>, off: &Off, ledger: &DeviceLedger) -> Option<Finding> {
    let tables = capture.tables();
    let id = device_name(off.device, tables);
    let wall = ledger.end.since(ledger.start);
    let mut found = Found { id: &id, wall, device: None, out: Vec::new() };
    let (least, most) = off.ahead_ns;
    let amount = |ns: i64| duration(ns.unsigned_abs());
    let which = |ns: i64| if ns < 0 { "behind" } else { "ahead of" };
    let by = if least.abs_diff(most) < off.claimed_ns.max(1_000) {
        format!("{} {}", amount(most), which(most))
    } else {
        let least_is = if (least < 0) == (most < 0) { "" } else { which(least) };
        format!(
            "{} {least_is}{}to {} {}",
            amount(least),
            if least_is.is_empty() { "" } else { " " },
            amount(most),
            which(most)
        )
    };
    let ns = ledger.sums.comm(CommLeaf::Unsplit);
    found.add("capture-clock", "a wrong clock", ns, || {
        let steps = match off.steps {
            0 => String::new(),
            1 => "; it was set once".to_owned(),
            steps => format!("; it was set {steps} times"),
        };
        let summary = format!(
            "the times of {id} are {by} those of {}: who was late for its collectives cannot be told",
            device_name(off.against, tables)
        );
        let evidence = format!(
            "its collectives end too early or too late for those of the others, and its clock is said to be wrong by \
             {} at most{steps}; {} of its communication is not split",
            duration(off.claimed_ns),
            duration(ns)
        );
        (summary, evidence)
    });
    found.out.pop()
}
