//! What the job would save without the cause of a finding: the same cause taken away from all GPUs, or ranks on CPUs, of the job on
//! which it was found.

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::Finding;
use crate::ledger::cpu::arrivals::position;
use crate::ledger::so_far::Part;
use crate::ledger::{CommLeaf, CpuLeaf, CpuLedger, DeviceLedger, Ledgers, RootLeaf};
use crate::whatif::{Loss, Recorded};

/// What transfers took beyond their best.
const TRANSFERS: Part = Part::Device(RootLeaf::Excess);

/// Records of ranks on CPUs of which more than one part in so many is missing tell too little of their job.
const MOST_UNKNOWN: u64 = 100;

/// Findings of one rule on the devices of one job.
#[derive(Default)]
struct Shared {
    /// Positions of the findings.
    findings: Vec<usize>,
    losses: Vec<Loss>,
}

/// Fills in what findings would give back that say what of a device's time they are about.
fn fill(findings: &mut [Finding], recorded: &Recorded, saved: impl Fn(DeviceId, Vec<Loss>) -> Option<u64>) {
    let mut all: BTreeMap<(&'static str, Result<usize, DeviceId>), Shared> = BTreeMap::new();
    for (position, finding) in findings.iter().enumerate() {
        let Some(loss) = finding.lost else { continue };
        let shared = all.entry((finding.rule, recorded.job(loss.device))).or_default();
        shared.findings.push(position);
        shared.losses.push(loss);
    }
    for Shared { findings: positions, losses } in all.into_values() {
        let Some(device) = losses.first().map(|loss| loss.device) else { continue };
        let saved = saved(device, losses);
        for position in positions {
            if let Some(finding) = findings.get_mut(position) {
                finding.blame.recoverable_ns = saved;
            }
        }
    }
}

/// The same of findings about lost time of GPUs.
pub(crate) fn of_gpus(findings: &mut [Finding], ledgers: &Ledgers) {
    let recorded = &ledgers.recorded;
    fill(findings, recorded, |device, mut losses| {
        // All leave a transfer together: of those that lost less than is worth speaking of it is taken away as well.
        if losses.iter().any(|loss| loss.part == TRANSFERS) {
            let of_job = ledgers.gpus.iter().filter(|gpu| recorded.job(gpu.device) == recorded.job(device));
            let loss = |gpu: &DeviceLedger| Loss {
                device: gpu.device,
                part: TRANSFERS,
                ns: gpu.sums.comm(CommLeaf::Excess),
            };
            losses = of_job.map(loss).collect();
        }
        let is_known = recorded.doubt(device, &ledgers.gpus).is_none();
        is_known.then(|| recorded.without(device, &losses))
    });
}

/// The same of findings about ranks on CPUs, whose positions stand in place of devices.
pub(super) fn of_ranks(findings: &mut [Finding], recorded: &Recorded, ledgers: &[CpuLedger]) {
    fill(findings, recorded, |device, losses| {
        is_known(device, recorded, ledgers).then(|| recorded.without(device, &losses))
    });
}

/// Whether it is known what the job of a rank would be without a cause: a rank with collectives that were not matched may have
/// waited in them for the same.
fn is_known(device: DeviceId, recorded: &Recorded, ledgers: &[CpuLedger]) -> bool {
    let job = recorded.job(device);
    let of_job = || {
        let all = ledgers.iter().enumerate().map(|(at, ledger)| (position(at), ledger));
        all.filter(|(at, _)| recorded.job(*at) == job).map(|(_, ledger)| ledger)
    };
    let sum = |of: fn(&CpuLedger) -> u64| of_job().map(of).fold(0, u64::saturating_add);
    let is_seen = sum(|l| l.root.get(CpuLeaf::Unknown)) <= sum(|l| l.wall_ns) / MOST_UNKNOWN;
    is_seen && (job.is_ok() || of_job().all(|ledger| ledger.calls.is_empty()))
}
