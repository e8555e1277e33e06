//! Who stopped a job that waits for itself: a verdict over the collective calls of its ranks.
//!
//! A rank that has not come to operation `n` of a group keeps every rank waiting that has. It is to blame only if nothing
//! keeps it: a rank that is itself stuck in an operation of another group hands the blame on to whoever is missing there.
//! So operations and absences form a graph of who waits for what, and the culprits are where it ends:
//!
//! ```text
//! rank 0 ─ waits in ─▶ recv #14146 ─ lacks ─▶ rank 8 ─ waits in ─▶ all_to_all #45265 ─ lacks ─▶ rank 9 ─ nothing
//! ```
//!
//! - `operations` brings together what ranks say of one operation: who is in it, who has left, who never came;
//! - `graph` is who waits for what; `verdict` finds where it ends, and what to say where it ends in a circle or in a rank
//!   of which nothing is known;
//! - `capture` makes the input from a capture of dumps, `live` from a recording of GPUs, `ranks` from one of ranks on CPUs;
//!   `text` makes the findings from the verdict, `blocked` adds what a thread was doing when the recording ended;
//! - `standstill` judges without calls: a job that hung before the recording began.
//!
//! What always holds: the input may come from anywhere, so numbers are compared and never trusted; the work is bounded by
//! the open calls of each rank that are looked at, and nothing recurses. A rank is blamed on evidence that ranks gave
//! themselves; where it is missing the verdict blames nobody.

mod blocked;
mod capture;
mod graph;
mod live;
mod operations;
mod ranks;
mod standstill;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use std::collections::BTreeMap;

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::{StackId, StringId, TimeNs};

pub use capture::{CollectiveState, job_of};
pub(crate) use live::live_findings;
pub use operations::Key;
pub(crate) use standstill::standstill;
pub(crate) use text::findings;
pub use verdict::{Fault, Hang, judge};

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It was handed over; nobody saw the device begin it.
    Scheduled,
    /// The device has begun it.
    Started,
    /// It is over.
    Completed,
}

/// One call of one rank.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Position of the group in [`Job::groups`].
    pub group: usize,
    /// Position among the rank's calls on the group; collectives and point-to-point operations are counted apart.
    pub sequence: u64,
    /// What it does.
    pub operation: CollectiveOp,
    /// The name that its library gives it.
    pub name: StringId,
    /// Elements, where all ranks of the group must give the same number.
    pub size: Option<u64>,
    /// Name of the data type.
    pub datatype: StringId,
    /// The other rank of a point-to-point operation, as the job numbers it.
    pub peer: Option<u32>,
    /// How far it has come.
    pub state: State,
    /// When it was made.
    pub at: TimeNs,
    /// Stack of the caller.
    pub stack: StackId,
}

impl Call {
    fn is_open(&self) -> bool {
        self.state != State::Completed
    }

    fn is_transfer(&self) -> bool {
        matches!(self.operation, CollectiveOp::Send | CollectiveOp::Recv)
    }

    /// Nobody leaves it before all have come.
    fn synchronises(&self) -> bool {
        matches!(
            self.operation,
            CollectiveOp::AllReduce
                | CollectiveOp::AllGather
                | CollectiveOp::ReduceScatter
                | CollectiveOp::AllToAll
                | CollectiveOp::Barrier
        )
    }
}

/// A group of ranks.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Identity.
    pub name: String,
    /// What the program calls it.
    pub description: String,
    /// Ranks of the job, in the order of their ranks in the group.
    pub members: Vec<u32>,
}

/// A rank's own account of its last operations in a group, whichever of the two kinds they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Last one that was handed over.
    pub enqueued: Option<u64>,
    /// Last one that was seen to begin.
    pub started: Option<u64>,
    /// Last one that was seen to end.
    pub completed: Option<u64>,
}

/// What one rank says.
#[derive(Clone, Debug, Default)]
pub struct RankLog {
    /// The rank.
    pub rank: u32,
    /// Its calls, in the order in which it made them.
    pub calls: Vec<Call>,
    /// By position of the group.
    pub progress: BTreeMap<usize, Progress>,
}

/// What all ranks say that were heard.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Groups.
    pub groups: Vec<Group>,
    /// Ranks that were heard, in ascending order.
    pub ranks: Vec<RankLog>,
}

impl Job {
    /// Every rank that a group names or that was heard, in ascending order.
    #[must_use]
    pub fn world(&self) -> Vec<u32> {
        let named = self.groups.iter().flat_map(|g| g.members.iter().copied());
        let mut all: Vec<u32> = named.chain(self.ranks.iter().map(|r| r.rank)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Ranks of the job that were not heard, in ascending order.
    #[must_use]
    pub fn unheard(&self) -> Vec<u32> {
        let mut all = self.world();
        all.retain(|rank| self.ranks.binary_search_by_key(rank, |log| log.rank).is_err());
        all
    }

    /// Position of a rank among those that were heard.
    fn position(&self, rank: u32) -> Option<usize> {
        self.ranks.binary_search_by_key(&rank, |log| log.rank).ok()
    }
}
