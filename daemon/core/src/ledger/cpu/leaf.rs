//! The leaves of a CPU rank's ledger, with their names in JSON and in reports.

use crate::ledger::leaf::leaves;

leaves! {
    /// What a driving thread did in a nanosecond: the leaves partition its wall time.
    CpuLeaf {
        /// On a CPU, outside of collectives.
        Compute "compute_ns" "compute",
        /// On a CPU inside a collective: moving data, reducing, or spinning for a peer.
        CommOnCpu "comm_on_cpu_ns" "in a collective, on CPU",
        /// Blocked inside a collective.
        CommBlocked "comm_blocked_ns" "in a collective, blocked",
        /// Runnable, while others ran.
        RunQueue "run_queue_ns" "run queue",
        /// Runnable, while its cgroup had no CPU time left.
        Throttled "throttled_ns" "throttled",
        /// Waiting for a lock or a condition.
        Lock "lock_ns" "locks",
        /// Waiting inside a page fault.
        PageFault "page_fault_ns" "page faults",
        /// Waiting for a file, a file system or a block device.
        BlockIo "block_io_ns" "blocked I/O",
        /// Waiting for a peer on a network.
        Network "network_ns" "network",
        /// Waiting for another process or thread through a pipe, a local socket or the like.
        Ipc "ipc_ns" "pipes and local sockets",
        /// Waiting for time to pass.
        Sleep "sleep_ns" "sleep",
        /// Waiting in any other system call.
        Syscall "syscall_ns" "other system calls",
        /// Stopped by a signal or a tracer.
        Stopped "stopped_ns" "stopped",
        /// Records are missing or say nothing.
        Unknown "unknown_ns" "unknown",
    }
}

impl CpuLeaf {
    /// Whether the thread was on a CPU.
    #[must_use]
    pub fn is_on_cpu(self) -> bool {
        matches!(self, Self::Compute | Self::CommOnCpu)
    }

    /// Whether the thread waited for something to happen, and not for a CPU.
    #[must_use]
    pub fn is_blocked(self) -> bool {
        !self.is_on_cpu() && !matches!(self, Self::RunQueue | Self::Throttled | Self::Stopped | Self::Unknown)
    }

    /// Whether the time passed inside a collective.
    #[must_use]
    pub fn is_comm(self) -> bool {
        matches!(self, Self::CommOnCpu | Self::CommBlocked)
    }

    /// What time of a transport thread counts as while the thread that entered the collective waits for it: work and
    /// waits for peers are the collective's own, other causes stay what they are.
    #[must_use]
    pub(super) fn inside_collective(self) -> Self {
        match self {
            Self::Compute => Self::CommOnCpu,
            Self::Lock | Self::Network | Self::Ipc | Self::Sleep | Self::Syscall => Self::CommBlocked,
            other => other,
        }
    }
}

/// Nanoseconds by leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSums {
    ns: [u64; CpuLeaf::ALL.len()],
}

impl CpuSums {
    /// Adds time to a leaf.
    pub(in crate::ledger) fn add(&mut self, leaf: CpuLeaf, ns: u64) {
        if let Some(sum) = self.ns.get_mut(leaf as usize) {
            *sum = sum.saturating_add(ns);
        }
    }

    /// Time of a leaf, ns.
    #[must_use]
    pub fn get(&self, leaf: CpuLeaf) -> u64 {
        self.ns.get(leaf as usize).copied().unwrap_or(0)
    }

    /// Sum of all leaves, ns; saturates.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ns.iter().fold(0, |sum, &ns| sum.saturating_add(ns))
    }

    /// Adds another ledger's time to this one.
    pub fn merge(&mut self, other: &Self) {
        for &leaf in CpuLeaf::ALL {
            self.add(leaf, other.get(leaf));
        }
    }
}
