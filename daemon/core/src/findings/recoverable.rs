//! What the job would save without the cause of a finding: the same cause taken away from all GPUs of the job on which it was found.

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::Finding;
use crate::ledger::Ledgers;
use crate::whatif::Loss;

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
    for Shared { findings: positions, losses } in all.into_values() {
        let Some(first) = losses.first() else { continue };
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
