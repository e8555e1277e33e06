//! What the job would save without the cause of a finding: the same cause taken away from all GPUs, or ranks on CPUs, of the job on
//! which it was found.

use std::collections::BTreeMap;

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::DeviceId;

use super::Finding;
use crate::capture::Tables;
use crate::ledger::cpu::arrivals::{Arrivals, position};
use crate::ledger::so_far::Part;
use crate::ledger::{CommLeaf, CpuLeaf, CpuLedger, DeviceLedger, Ledgers, RootLeaf};
use crate::whatif::{Loss, Recorded};

/// What transfers took beyond their best.
const TRANSFERS: Part = Part::Device(RootLeaf::Excess);

/// Records of ranks on CPUs of which more than one part in so many is missing tell too little of their job.
const MOST_UNKNOWN: u64 = 100;

/// Nor is it known what it would be where more than one part in so many of its time in collectives was not matched.
const MOST_UNMATCHED: u64 = 10;

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

/// How long a rank was in collectives, ns; how long making communicators took is not lost to a late rank.
fn in_collectives(ledger: &CpuLedger) -> u64 {
    let calls = ledger.calls.ranked();
    let collectives = calls.iter().filter(|(kind, _)| kind.operation != CollectiveOp::Init);
    collectives.fold(0, |sum, (_, of)| sum.saturating_add(of.ns))
}

/// Ranks on CPUs, and what is known of their calls. Their positions stand in place of devices.
pub(super) struct Ranks<'a> {
    pub(super) recorded: &'a Recorded,
    pub(super) ledgers: &'a [CpuLedger],
    pub(super) arrivals: &'a [Arrivals],
    pub(super) tables: &'a Tables,
}

/// The same of findings about ranks on CPUs.
pub(super) fn of_ranks(findings: &mut [Finding], ranks: &Ranks<'_>) {
    fill(findings, ranks.recorded, |device, losses| {
        ranks.are_known(device).then(|| ranks.recorded.without(device, &losses))
    });
}

impl Ranks<'_> {
    /// Whether it is known what the job of a rank would be without a cause: in collectives that were not matched ranks may have
    /// waited for each other all the same.
    fn are_known(&self, device: DeviceId) -> bool {
        let job = self.recorded.job(device);
        let is_of_job = |at: usize| self.recorded.job(position(at)) == job;
        let of_job = || self.ledgers.iter().enumerate().filter(|(at, _)| is_of_job(*at)).map(|(_, l)| l);
        let sum = |of: fn(&CpuLedger) -> u64| of_job().map(of).fold(0, u64::saturating_add);
        let is_seen = sum(|l| l.root.get(CpuLeaf::Unknown)) <= sum(|l| l.wall_ns) / MOST_UNKNOWN;
        let in_calls = sum(in_collectives);
        if job.is_err() {
            // Who is one of several may meet the others in calls that nobody probes.
            return is_seen && in_calls == 0 && of_job().all(|ledger| self.is_alone(ledger));
        }
        let arrivals = self.arrivals.iter().flat_map(|of| &of.ranks).filter(|of| is_of_job(of.ledger));
        let matched =
            arrivals.fold(0u64, |sum, of| sum.saturating_add(of.waited_ns).saturating_add(of.moved_ns));
        is_seen && in_calls.saturating_sub(matched) <= in_calls / MOST_UNMATCHED
    }

    fn is_alone(&self, ledger: &CpuLedger) -> bool {
        let device = self.tables.device(ledger.device);
        let mut processes = device.into_iter().flat_map(|d| &d.processes);
        processes.all(|&p| self.tables.process(p).and_then(|p| p.world_size).is_none_or(|size| size <= 1))
    }
}
