//! What of an operation was hidden on a rank: the rank did something else meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_schemas::units::DeviceId;

use crate::collectives::Operation;
use crate::ledger::RootLeaf;
use crate::ledger::book::History;
use crate::ledger::so_far::{Part, Reader};

/// How long ranks got on with other work while they were in operations.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Of each coming, ns.
    ns: Vec<u32>,
    /// Where the comings of each operation begin.
    begins: Vec<usize>,
}

impl Hidden {
    pub(super) fn new(operations: &[Operation], histories: &BTreeMap<DeviceId, Arc<History>>) -> Self {
        let mut readers: BTreeMap<DeviceId, Reader<'_>> =
            histories.iter().map(|(&device, history)| (device, Reader::new(&history.so_far))).collect();
        let mut out = Self::default();
        for operation in operations {
            out.begins.push(out.ns.len());
            for came in &operation.came {
                let mut worked = |at| {
                    let (_, so_far) = readers.get_mut(&came.device)?.last_until(at)?;
                    let sums = WORK.iter().filter_map(|leaf| so_far.get(Part::Device(*leaf).index()));
                    Some(sums.fold(0u64, |sum, ns| sum.saturating_add(*ns)))
                };
                let ns = worked(came.end).zip(worked(came.at)).map_or(0, |(end, at)| end.saturating_sub(at));
                out.ns.push(u32::try_from(ns).unwrap_or(u32::MAX));
            }
        }
        out
    }

    /// Of the comings to an operation.
    pub(super) fn of(&self, operation: usize) -> &[u32] {
        let Some(&begin) = self.begins.get(operation) else { return &[] };
        let end = self.begins.get(operation + 1).copied().unwrap_or(self.ns.len());
        self.ns.get(begin..end).unwrap_or_default()
    }
}

/// Work that goes on beside communication.
const WORK: [RootLeaf; 2] = [RootLeaf::Compute, RootLeaf::Memcpy];
