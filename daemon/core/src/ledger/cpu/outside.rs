//! How far what a driving thread did outside of collectives had come at each of its calls: what the simulation of the job
//! takes away from a rank on CPUs.

use stallscope_schemas::units::TimeNs;

use super::leaf::{CpuLeaf, CpuSums};
use crate::ledger::book::History;
use crate::ledger::so_far::{Part, Progress, SoFar};

/// Calls of a thread of which that is kept, 4 MB.
const MAX_CALLS: usize = 1 << 18;

/// What a thread did outside of its calls.
#[derive(Debug, Default)]
pub(super) struct Outside {
    sums: CpuSums,
    so_far: SoFar,
    calls: usize,
    in_call: bool,
}

/// The same, as the simulation has it.
fn progress(sums: &CpuSums) -> Progress {
    let mut progress = Progress::default();
    for &leaf in CpuLeaf::ALL {
        if let Some(sum) = progress.get_mut(Part::Host(leaf).index()) {
            *sum = sums.get(leaf);
        }
    }
    progress
}

impl Outside {
    /// Adds a stretch that began at a moment, and what it was charged to: the growth of sums.
    pub(super) fn add(&mut self, from: TimeNs, in_call: bool, before: &CpuSums, after: &CpuSums) {
        if in_call && !self.in_call {
            self.calls += 1;
            if self.calls <= MAX_CALLS {
                self.so_far.push(from, &progress(&self.sums));
            }
        }
        self.in_call = in_call;
        if !in_call {
            for &leaf in CpuLeaf::ALL {
                self.sums.add(leaf, after.get(leaf).saturating_sub(before.get(leaf)));
            }
        }
    }

    /// None where there were too many calls.
    pub(super) fn into_history(mut self) -> Option<History> {
        self.so_far.shrink();
        let total = Some(progress(&self.sums));
        (self.calls <= MAX_CALLS).then(|| History { so_far: self.so_far, total, ..History::default() })
    }
}
