//! The leaves of the ledger, with their names in JSON and in reports.

use crate::collectives::Phase;
use crate::timeline::sweep::Cover;

macro_rules! leaves {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident $key:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every leaf, in the order of reports.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Key in JSON (nanoseconds).
            #[must_use]
            pub fn key(self) -> &'static str {
                match self { $(Self::$variant => $key),* }
            }

            /// Name in text.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

pub(super) use leaves;

leaves! {
    /// What a device did in a nanosecond: the leaves partition its wall time.
    Leaf {
        /// A kernel other than communication was resident, or a fill.
        Compute "compute_ns" "compute",
        /// Communication was resident and no computation.
        CommExposed "comm_exposed_ns" "communication, exposed",
        /// A copy ran and nothing else.
        MemcpyExposed "memcpy_exposed_ns" "copies, exposed",
        /// Nothing ran.
        Idle "idle_ns" "idle",
        /// A process that is not part of the job had the device.
        OtherProcess "other_process_ns" "other process",
        /// The profiler itself held the device up.
        Profiler "profiler_ns" "profiler",
        /// Records are missing or say nothing.
        Unknown "unknown_ns" "unknown",
    }
}

leaves! {
    /// Why a device was idle: the leaves partition its idle time.
    IdleLeaf {
        /// The launching thread was doing something other than calling the driver.
        Host "host_ns" "host",
        /// The launching thread was in a call that makes the driver work (allocation, module loading).
        Driver "driver_ns" "driver calls",
        /// The launching thread was in a call that waits for the device.
        Sync "sync_ns" "synchronisation",
        /// The launching thread was in launch calls.
        Launch "launch_ns" "launch calls",
        /// The next operation was launched and waited for another stream or device.
        Dep "dep_ns" "dependency",
        /// Between launch and start, within the device's own latency.
        Device "device_ns" "device latency",
        /// Between two nodes of one graph replay.
        Graph "graph_ns" "inside a graph",
        /// The capture does not say.
        Unknown "unknown_ns" "unknown",
    }
}

leaves! {
    /// What exposed communication was: the leaves partition it.
    CommLeaf {
        /// It waited for a rank that had not come.
        Wait "wait_ns" "waiting for a late rank",
        /// Within the error of the clocks around the moment when the last rank came.
        Uncertain "uncertain_ns" "waiting or transfer",
        /// It moved data, for no longer than the same operation takes at its best.
        Floor "transfer_floor_ns" "transfer at its best",
        /// It moved data for longer than that.
        Excess "transfer_excess_ns" "transfer beyond its best",
        /// It could not be matched with the kernels of all other ranks.
        Unsplit "unsplit_ns" "not split",
    }
}

impl CommLeaf {
    /// The leaf of a phase.
    #[must_use]
    pub fn of(phase: Phase) -> Self {
        match phase {
            Phase::Wait(_) => Self::Wait,
            Phase::Uncertain => Self::Uncertain,
            Phase::Floor => Self::Floor,
            Phase::Excess => Self::Excess,
            Phase::Unsplit => Self::Unsplit,
        }
    }
}

impl Leaf {
    /// The leaf of a stretch of the sweep that is not a gap.
    #[must_use]
    pub fn of(cover: Cover) -> Self {
        match cover {
            Cover::Compute => Self::Compute,
            Cover::Comm => Self::CommExposed,
            Cover::Copy => Self::MemcpyExposed,
            Cover::Lost | Cover::Open => Self::Unknown,
        }
    }
}

/// Nanoseconds by leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    direct: [u64; Leaf::ALL.len()],
    idle: [u64; IdleLeaf::ALL.len()],
    comm: [u64; CommLeaf::ALL.len()],
}

impl Sums {
    /// Adds time to a leaf other than idle and communication.
    pub(super) fn add(&mut self, leaf: Leaf, ns: u64) {
        if let Some(sum) = self.direct.get_mut(leaf as usize) {
            *sum += ns;
        }
    }

    /// Adds idle time.
    pub(super) fn add_idle(&mut self, leaf: IdleLeaf, ns: u64) {
        self.add(Leaf::Idle, ns);
        if let Some(sum) = self.idle.get_mut(leaf as usize) {
            *sum += ns;
        }
    }

    /// Adds exposed communication.
    pub(super) fn add_comm(&mut self, leaf: CommLeaf, ns: u64) {
        self.add(Leaf::CommExposed, ns);
        if let Some(sum) = self.comm.get_mut(leaf as usize) {
            *sum += ns;
        }
    }

    /// Exposed communication of a leaf, ns.
    #[must_use]
    pub fn comm(&self, leaf: CommLeaf) -> u64 {
        self.comm.get(leaf as usize).copied().unwrap_or(0)
    }

    /// Time of a leaf, ns.
    #[must_use]
    pub fn get(&self, leaf: Leaf) -> u64 {
        self.direct.get(leaf as usize).copied().unwrap_or(0)
    }

    /// Idle time of a leaf, ns.
    #[must_use]
    pub fn idle(&self, leaf: IdleLeaf) -> u64 {
        self.idle.get(leaf as usize).copied().unwrap_or(0)
    }

    /// Sum of all leaves, ns.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.direct.iter().sum()
    }

    /// Sum of the idle leaves, ns.
    #[must_use]
    pub fn idle_total(&self) -> u64 {
        self.idle.iter().sum()
    }

    /// Sum of the leaves of exposed communication, ns.
    #[must_use]
    pub fn comm_total(&self) -> u64 {
        self.comm.iter().sum()
    }

    /// Adds another ledger's time to this one.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.direct.iter_mut().zip(other.direct) {
            *sum += more;
        }
        for (sum, more) in self.idle.iter_mut().zip(other.idle) {
            *sum += more;
        }
        for (sum, more) in self.comm.iter_mut().zip(other.comm) {
            *sum += more;
        }
    }
}
