//! What ranks on CPUs did before the calls to which one of them came last.

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::Recorded;
use crate::ledger::CpuLeaf;
use crate::ledger::so_far::{Part, Progress, Reader};

/// Time that the late one took, and that the others took on average, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) late_ns: u64,
    pub(crate) others_ns: u64,
}

impl Took {
    /// Adds what one of the ranks took; `others` is how many there are beside the late one.
    pub(crate) fn add(&mut self, ns: u64, is_late: bool, others: u64) {
        let (sum, ns) =
            if is_late { (&mut self.late_ns, ns) } else { (&mut self.others_ns, ns / others.max(1)) };
        *sum = sum.saturating_add(ns);
    }

    /// What the late one took more.
    pub(crate) fn more(&self) -> u64 {
        self.late_ns.saturating_sub(self.others_ns)
    }
}

impl Recorded {
    /// What a rank on CPUs and those that waited for it did outside of collectives, since the call before, before each call to which
    /// it came last. Only those calls count: ranks that are late in turn do the same in all.
    pub(crate) fn before_late_calls(&self, late: DeviceId) -> BTreeMap<CpuLeaf, Took> {
        let mut readers: BTreeMap<DeviceId, Reader<'_>> =
            self.histories.iter().map(|(&device, history)| (device, Reader::new(&history.so_far))).collect();
        let mut since: BTreeMap<DeviceId, Progress> = BTreeMap::new();
        let mut all: BTreeMap<CpuLeaf, Took> = BTreeMap::new();
        let order = self.jobs.get(&late).and_then(|job| self.order.get(job));
        for operation in order.into_iter().flatten().filter_map(|&at| self.operations.get(at)) {
            let others = (operation.came.len() as u64).saturating_sub(1);
            for came in &operation.came {
                let now = readers.get_mut(&came.device).and_then(|reader| reader.last_until(came.at));
                let Some(&(_, now)) = now else { continue };
                // Before its first one: since it was followed.
                let before = since.insert(came.device, now).unwrap_or_default();
                if operation.last != late {
                    continue;
                }
                for &leaf in CpuLeaf::ALL {
                    let at =
                        |progress: &Progress| progress.get(Part::Host(leaf).index()).copied().unwrap_or(0);
                    let ns = at(&now).saturating_sub(at(&before));
                    if ns > 0 {
                        all.entry(leaf).or_default().add(ns, came.device == late, others);
                    }
                }
            }
        }
        all
    }
}
