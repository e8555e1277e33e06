//! What the job would save without the cause of a finding: the same cause taken away from all GPUs of the job on which it was found.

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::Finding;
use crate::ledger::so_far::Part;
use crate::ledger::{CommLeaf, DeviceLedger, Ledgers, RootLeaf};
use crate::whatif::Loss;

/// What transfers took beyond their best.
const TRANSFERS: Part = Part::Device(RootLeaf::Excess);

/// Findings of one rule on the devices of one job.
#[derive(Default)]
struct Shared {
    /// Positions of the findings.
    findings: Vec<usize>,
    losses: Vec<Loss>,
}

/// Fills in what findings about lost time of GPUs would give back.
pub(crate) fn recoverable(findings: &mut [Finding], ledgers: &Ledgers) {
    let recorded = &ledgers.recorded;
    let mut all: BTreeMap<(&'static str, Result<usize, DeviceId>), Shared> = BTreeMap::new();
    for (position, finding) in findings.iter().enumerate() {
        let Some(loss) = finding.lost else { continue };
        let shared = all.entry((finding.rule, recorded.job(loss.device))).or_default();
        shared.findings.push(position);
        shared.losses.push(loss);
    }
    for Shared { findings: positions, mut losses } in all.into_values() {
        let Some(first) = losses.first().copied() else { continue };
        // All leave a transfer together: of those that lost less than is worth speaking of it is taken away as well.
        if first.part == TRANSFERS {
            let of_job =
                ledgers.gpus.iter().filter(|gpu| recorded.job(gpu.device) == recorded.job(first.device));
            let loss = |gpu: &DeviceLedger| Loss {
                device: gpu.device,
                part: TRANSFERS,
                ns: gpu.sums.comm(CommLeaf::Excess),
            };
            losses = of_job.map(loss).collect();
        }
        let saved = match recorded.doubt(first.device, &ledgers.gpus) {
            None => Some(recorded.without(first.device, &losses)),
            Some(_) => None,
        };
        for position in positions {
            if let Some(finding) = findings.get_mut(position) {
                finding.blame.recoverable_ns = saved;
            }
        }
    }
}
