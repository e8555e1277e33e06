//! The leaves of a device's root ledger, with their names in JSON and in reports.

use super::leaf::{CommLeaf, IdleLeaf, Leaf, leaves};

leaves! {
    /// Where a device's time went when what it waited for is charged to what the late one did.
    RootLeaf {
        /// A kernel other than communication.
        Compute "compute_ns" "compute",
        /// Communication that waited, and nobody to charge it to is seen.
        Unseen "comm_wait_ns" "waiting, cause unseen",
        /// Within the clocks' error around the last rank's coming.
        Uncertain "comm_uncertain_ns" "waiting or transfer",
        /// Data moved at its best pace.
        Floor "comm_transfer_floor_ns" "transfer at its best",
        /// Data moved more slowly.
        Excess "comm_transfer_excess_ns" "transfer beyond its best",
        /// Communication that could not be split.
        Unsplit "comm_unsplit_ns" "communication, not split",
        /// A copy and nothing else.
        Memcpy "memcpy_exposed_ns" "copies",
        /// Idle, because of the launching thread.
        IdleHost "idle_host_ns" "idle: host",
        /// Idle, in calls that make the driver work.
        IdleDriver "idle_driver_ns" "idle: driver calls",
        /// Idle, in calls that wait for the device.
        IdleSync "idle_sync_ns" "idle: synchronisation",
        /// Idle, in launch calls.
        IdleLaunch "idle_launch_ns" "idle: launch calls",
        /// Idle, waiting for another stream or device.
        IdleDep "idle_dep_ns" "idle: dependency",
        /// Idle, the device's own latency.
        IdleDevice "idle_device_ns" "idle: device latency",
        /// Idle between two nodes of a graph.
        IdleGraph "idle_graph_ns" "idle: inside a graph",
        /// Idle, and the capture does not say why.
        IdleUnknown "idle_unknown_ns" "idle: cause unknown",
        /// Another process had it.
        OtherProcess "other_process_ns" "other process",
        /// The profiler held it up.
        Profiler "profiler_ns" "profiler",
        /// Records are missing.
        Unknown "unknown_ns" "unknown",
    }
}

impl RootLeaf {
    /// Whether a device that waits in a collective may get on with it: work that its host has launched already.
    pub(super) fn is_own_work(self) -> bool {
        matches!(
            self,
            Self::Compute
                | Self::Memcpy
                | Self::IdleLaunch
                | Self::IdleDevice
                | Self::IdleSync
                | Self::IdleDep
        )
    }

    pub(crate) fn of_idle(leaf: IdleLeaf) -> Self {
        match leaf {
            IdleLeaf::Host => Self::IdleHost,
            IdleLeaf::Driver => Self::IdleDriver,
            IdleLeaf::Sync => Self::IdleSync,
            IdleLeaf::Launch => Self::IdleLaunch,
            IdleLeaf::Dep => Self::IdleDep,
            IdleLeaf::Device => Self::IdleDevice,
            IdleLeaf::Graph => Self::IdleGraph,
            IdleLeaf::Unknown => Self::IdleUnknown,
        }
    }

    pub(super) fn of_comm(leaf: CommLeaf) -> Self {
        match leaf {
            CommLeaf::Wait => Self::Unseen,
            CommLeaf::Uncertain => Self::Uncertain,
            CommLeaf::Floor => Self::Floor,
            CommLeaf::Excess => Self::Excess,
            CommLeaf::Unsplit => Self::Unsplit,
        }
    }

    pub(super) fn of(leaf: Leaf) -> Self {
        match leaf {
            Leaf::Compute => Self::Compute,
            Leaf::MemcpyExposed => Self::Memcpy,
            Leaf::OtherProcess => Self::OtherProcess,
            Leaf::Profiler => Self::Profiler,
            Leaf::CommExposed => Self::Unsplit,
            Leaf::Idle => Self::IdleUnknown,
            Leaf::Unknown => Self::Unknown,
        }
    }
}
