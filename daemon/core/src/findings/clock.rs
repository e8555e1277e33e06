//! Findings about devices whose clock is wrong: their collectives cannot be told from other ones.

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::{Finding, Found};
use crate::capture::{Capture, ReadAt, Tables};
use crate::collectives::off::{Off, off};
use crate::ledger::{CommLeaf, DeviceLedger, Leaf, Ledgers};
use crate::other_jobs::OtherJobs;
use crate::report::device_name;
use crate::report::text::duration;
use crate::whatif::Recorded;

/// The share of a device's exposed communication that is not split from which on its clock is looked at, in percent.
const UNSPLIT_PERCENT: u64 = 10;

/// Devices of a job that are looked at, those first of which most is not split: with more it is not the clocks.
const LOOKED_AT: usize = 8;

/// Findings about clocks, unranked.
pub(crate) fn of_clocks<S: ReadAt>(capture: &Capture<S>, ledgers: &Ledgers) -> Vec<Finding> {
    // Steps of two jobs that run side by side lie at the same distance as well.
    let mut jobs: BTreeMap<&str, Vec<&DeviceLedger>> = BTreeMap::new();
    for ledger in ledgers.gpus.iter().filter(|ledger| ledger.sums.get(Leaf::CommExposed) > 0) {
        jobs.entry(job_of(ledger.device, capture.tables())).or_default().push(ledger);
    }
    jobs.into_values().flat_map(|of| of_job(capture, of, &ledgers.recorded)).collect()
}

/// The name of the job that drives a device; empty where none is known.
fn job_of(device: DeviceId, tables: &Tables) -> &str {
    let jobs = OtherJobs::own(device, tables).map(|process| process.job.as_str());
    jobs.filter(|job| !job.is_empty()).min().unwrap_or("")
}

fn of_job<S: ReadAt>(
    capture: &Capture<S>,
    mut ledgers: Vec<&DeviceLedger>,
    recorded: &Recorded,
) -> Vec<Finding> {
    let unsplit = |ledger: &DeviceLedger| ledger.sums.comm(CommLeaf::Unsplit);
    // The one that is most like the others is right.
    let share = |ledger: &DeviceLedger| {
        u128::from(unsplit(ledger)) * 1_000_000 / u128::from(ledger.sums.get(Leaf::CommExposed).max(1))
    };
    ledgers.sort_by_key(|ledger| (share(ledger), ledger.device));
    let Some((best, others)) = ledgers.split_first() else { return Vec::new() };
    let is_doubtful = |ledger: &&&DeviceLedger| {
        unsplit(ledger).saturating_mul(100)
            > ledger.sums.get(Leaf::CommExposed).saturating_mul(UNSPLIT_PERCENT)
    };
    // One that was matched with others, none of which meets the best one, has groups of its own.
    let may_meet =
        |device: DeviceId| recorded.job(device).is_err() || recorded.job(device) == recorded.job(best.device);
    let doubtful =
        others.iter().rev().filter(|ledger| may_meet(ledger.device)).take(LOOKED_AT).filter(is_doubtful);
    let devices: Vec<DeviceId> = doubtful.map(|ledger| ledger.device).collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let found = off(capture, best.device, &devices);
    let of_off = |off: &Off| finding(capture, off, others.iter().find(|l| l.device == off.device)?);
    found.iter().filter_map(of_off).collect()
}

fn finding<S: ReadAt>(capture: &Capture<S>, off: &Off, ledger: &DeviceLedger) -> Option<Finding> {
    let tables = capture.tables();
    let id = device_name(off.device, tables);
    let wall = ledger.end.since(ledger.start);
    let mut found = Found { id: &id, wall, device: None, out: Vec::new() };
    let by = ahead(off);
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

/// By how much a clock is ahead, before "those of": what is within the error of both clocks is nothing.
fn ahead(off: &Off) -> String {
    let (least, most) = off.ahead_ns;
    let amount = |ns: i64| duration(ns.unsigned_abs());
    let is_nothing = |ns: i64| ns.unsigned_abs() <= off.claimed_ns.saturating_mul(2);
    let which = if most <= 0 || is_nothing(most) { "behind" } else { "ahead of" };
    if least.abs_diff(most) <= off.claimed_ns.max(1_000) {
        return format!("{} {which}", amount(most));
    }
    match (is_nothing(least), is_nothing(most)) {
        (true, _) => format!("up to {} {which}", amount(most)),
        (_, true) => format!("up to {} {which}", amount(least)),
        _ if least < 0 && most > 0 => format!("{} behind to {} {which}", amount(least), amount(most)),
        _ => format!("{} to {} {which}", amount(least), amount(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Off, ahead};
    use stallscope_schemas::units::DeviceId;

    fn of(ahead_ns: (i64, i64)) -> String {
        let (device, against) = (DeviceId(1), DeviceId(0));
        ahead(&Off { device, against, ahead_ns, steps: 0, claimed_ns: 800 })
    }

    #[test]
    fn what_lies_within_the_error_is_not_told() {
        assert_eq!(of((430_000, 430_100)), "430.1 µs ahead of");
        assert_eq!(of((-79, 1_000_000)), "up to 1.0 ms ahead of");
        assert_eq!(of((-1_000_000, 40)), "up to 1.0 ms behind");
        assert_eq!(of((-1_000_000, -200)), "up to 1.0 ms behind");
        assert_eq!(of((12_000, 150_000)), "12.0 µs to 150.0 µs ahead of");
        assert_eq!(of((-150_000, -12_000)), "150.0 µs to 12.0 µs behind");
        assert_eq!(of((-20_000, 150_000)), "20.0 µs behind to 150.0 µs ahead of");
    }
}
