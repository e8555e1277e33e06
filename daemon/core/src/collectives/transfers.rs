//! What operations of one kind and size take at their best, and how much of each kernel that is.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::StringId;

use super::lanes::Lane;
use super::matching::Split;

/// Samples from which on a 5th percentile is taken in place of the least.
const ENOUGH: usize = 20;

/// Operations of one kind and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What it does.
    pub operation: CollectiveOp,
    /// The kernel.
    pub name: StringId,
    /// Bytes that each rank puts in; 0 where unknown.
    pub bytes: u64,
    /// Ranks that were seen in it.
    pub ranks: u64,
    /// Operations.
    pub count: u64,
    /// Time that ranks waited in it for the last one, over all ranks, ns.
    pub wait_ns: u64,
    /// Median time from the last rank's coming to a rank's end, ns.
    pub median_ns: u64,
    /// The time that is taken for its best, ns.
    pub floor_ns: u64,
}

impl Transfer {
    /// Bytes that the whole operation is about, as bandwidths count them.
    #[must_use]
    pub fn size(&self) -> u64 {
        if self.operation == CollectiveOp::AllGather {
            self.bytes.saturating_mul(self.ranks)
        } else {
            self.bytes
        }
    }

    /// Algorithm bandwidth at the median, bytes a second.
    #[must_use]
    pub fn algorithm_bandwidth(&self) -> Option<f64> {
        let is_known = self.bytes > 0 && self.median_ns > 0;
        is_known.then(|| self.size() as f64 * 1e9 / self.median_ns as f64)
    }

    /// Bus bandwidth at the median, bytes a second: what each link carries, by the factors of NVIDIA's nccl-tests.
    #[must_use]
    pub fn bus_bandwidth(&self) -> Option<f64> {
        let ranks = self.ranks as f64;
        let factor = match self.operation {
            CollectiveOp::AllReduce => 2.0 * (ranks - 1.0) / ranks,
            CollectiveOp::AllGather | CollectiveOp::ReduceScatter | CollectiveOp::AllToAll => {
                (ranks - 1.0) / ranks
            }
            CollectiveOp::Send | CollectiveOp::Broadcast | CollectiveOp::Reduce => 1.0,
            _ => return None,
        };
        Some(self.algorithm_bandwidth()? * factor)
    }
}

/// Operation, bytes, kernel, ranks.
pub(super) type KindKey = (CollectiveOpId, u64, StringId, usize);
type CollectiveOpId = u8;

/// Its kernels.
#[derive(Default)]
pub(super) struct Kind {
    pub(super) operation: Option<CollectiveOp>,
    pub(super) count: u64,
    pub(super) wait_ns: u64,
    /// Kernels, and from the last one's coming to their ends, ns.
    pub(super) kernels: Vec<(u32, u32)>,
    pub(super) transfers_ns: Vec<u64>,
}

/// The nearest-rank percentile of values in order.
fn percentile_of_sorted(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied()
}

/// Finds what each kind takes at its best, and cuts its kernels there.
pub(super) fn floors(
    lanes: &[Lane],
    splits: &mut [Vec<Option<Split>>],
    kinds: BTreeMap<KindKey, Kind>,
) -> Vec<Transfer> {
    let mut out = Vec::new();
    for ((_, bytes, name, ranks), mut kind) in kinds {
        let rank = if kind.transfers_ns.len() < ENOUGH { 0 } else { 5 };
        kind.transfers_ns.sort_unstable();
        let floor_ns = percentile_of_sorted(&kind.transfers_ns, rank).unwrap_or(0);
        for &(lane, at) in &kind.kernels {
            let (lane, at) = (lane as usize, at as usize);
            let slot = splits.get_mut(lane).and_then(|of| of.get_mut(at)).and_then(Option::as_mut);
            if let (Some(split), Some(mark)) = (slot, lanes.get(lane).and_then(|l| l.marks.get(at))) {
                split.floor_until = split.came.plus(floor_ns).max(split.uncertain_until).min(mark.end);
            }
        }
        let median_ns = percentile_of_sorted(&kind.transfers_ns, 50).unwrap_or(0);
        let Kind { operation, count, wait_ns, .. } = kind;
        let operation = operation.unwrap_or(CollectiveOp::Other);
        out.push(Transfer {
            operation,
            name,
            bytes,
            ranks: ranks as u64,
            count,
            wait_ns,
            median_ns,
            floor_ns,
        });
    }
    out.sort_by_key(|t| Reverse((t.wait_ns.saturating_add(t.median_ns.saturating_mul(t.count)), t.count)));
    out
}
