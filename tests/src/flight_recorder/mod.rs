//! Made-up jobs that hang, and the Flight Recorder dumps that their ranks leave.
//!
//! Ranks run a program of collectives, sends and receives; hosts run ahead of devices up to where the program waits for its
//! device; devices take operations in order, and an operation ends when all of its members' devices have come to it. A fault
//! stops a host or a device somewhere, ends a process, or has a rank call something else. What is then left when nothing
//! moves any more is written as PyTorch writes it. Who was at fault is known because it was said beforehand.

mod dumps;
mod pickle;
mod run;

pub use dumps::{Form, write};
pub use pickle::{Value, pickle};
pub use run::{Call, Job, Rank, State, places, run};

/// How a job is split: ranks count through tensor-parallel groups first, then data-parallel ones, then pipeline stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Ranks of a tensor-parallel group.
    pub tensor: u32,
    /// Ranks of a data-parallel group.
    pub data: u32,
    /// Pipeline stages.
    pub pipeline: u32,
}

/// A group of ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number by which all ranks know it: groups are made by all in the same order.
    pub name: u32,
    /// What the program calls it.
    pub description: &'static str,
    /// Ranks.
    pub ranks: Vec<u32>,
}

/// Kinds of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All ranks.
    World,
    /// Ranks that share a layer.
    Tensor,
    /// Ranks with the same weights.
    Data,
    /// Ranks of one stage: experts are spread over them.
    Stage,
    /// Ranks that hand activations on.
    Pipeline,
}

impl Kind {
    const ALL: [Self; 5] = [Self::World, Self::Tensor, Self::Data, Self::Stage, Self::Pipeline];

    fn description(self) -> &'static str {
        match self {
            Self::World => "default_pg",
            Self::Tensor => "TENSOR_MODEL_PARALLEL_GROUP",
            Self::Data => "DATA_PARALLEL_GROUP",
            Self::Stage => "EXPERT_MODEL_PARALLEL_GROUP",
            Self::Pipeline => "PIPELINE_MODEL_PARALLEL_GROUP",
        }
    }
}

impl Layout {
    /// Ranks in the job.
    #[must_use]
    pub fn world(self) -> u32 {
        self.tensor * self.data * self.pipeline
    }

    /// Place of a rank: in its tensor-parallel group, in its data-parallel group, its stage.
    #[must_use]
    pub fn place(self, rank: u32) -> (u32, u32, u32) {
        (rank % self.tensor, rank / self.tensor % self.data, rank / self.tensor / self.data)
    }

    /// What the ranks of one group of a kind have in common.
    fn key(self, kind: Kind, rank: u32) -> (u32, u32) {
        let (tensor, data, stage) = self.place(rank);
        match kind {
            Kind::World => (0, 0),
            Kind::Tensor => (data, stage),
            Kind::Data => (tensor, stage),
            Kind::Stage => (stage, 0),
            Kind::Pipeline => (tensor, data),
        }
    }

    /// All groups, in the order in which they are made.
    #[must_use]
    pub fn groups(self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for kind in Kind::ALL {
            let mut keys: Vec<(u32, u32)> = (0..self.world()).map(|rank| self.key(kind, rank)).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let ranks = (0..self.world()).filter(|&rank| self.key(kind, rank) == key).collect();
                let name = u32::try_from(groups.len()).unwrap_or(u32::MAX);
                groups.push(Group { name, description: kind.description(), ranks });
            }
        }
        groups
    }

    /// Position of a rank's group of a kind.
    fn group(self, groups: &[Group], kind: Kind, rank: u32) -> usize {
        let is = |group: &Group| group.description == kind.description() && group.ranks.contains(&rank);
        groups.iter().position(is).unwrap_or(0)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The host makes no further call: a lock, a sleep, an endless loop.
    HostStops,
    /// The device ends nothing any more; the host notices some calls later.
    DeviceFails,
    /// The device is busy for ever with something else; the host goes on up to where it waits for the device.
    DeviceSleeps,
    /// The process is gone, and leaves no dump.
    Killed,
    /// One collective is called with another size.
    OtherSize,
    /// One collective is called in place of another.
    OtherCall,
}

/// A fault of some ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// How the job is split.
    pub layout: Layout,
    /// What goes wrong.
    pub fault: Fault,
    /// On which ranks.
    pub ranks: Vec<u32>,
    /// At which item of the program, for each of them.
    pub at: Vec<usize>,
}
