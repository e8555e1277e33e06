//! The probes: one folder each, one row each in [`ALL`].

mod block;
pub mod collectives;
pub(crate) mod faults;
mod files;
pub mod launches;
mod network;
mod sampling;
mod sched;
mod syscalls;

use std::fmt;

use libbpf_rs::Link;

use crate::kernel::Kernel;
use crate::session::Settings;
use crate::skeleton::StallscopeSkel;

/// A probe by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeId {
    /// Scheduler: waits, wakers, preemption, threads that come and go.
    Sched,
    /// System calls: results and callers of calls that waited.
    Syscalls,
    /// On-CPU samples.
    Sampling,
    /// Calls into collective libraries.
    Collectives,
    /// Calls and bytes by file.
    Files,
    /// Requests to block devices.
    Block,
    /// TCP connections.
    Network,
    /// Files that page faults wait for.
    Faults,
    /// Stacks of sampled launches on GPUs.
    Launches,
}

impl ProbeId {
    /// Every probe, in the order of attaching.
    #[must_use]
    pub fn all() -> Vec<Self> {
        ALL.iter().map(|probe| probe.id).collect()
    }

    /// Name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sched => "sched",
            Self::Syscalls => "syscalls",
            Self::Sampling => "sampling",
            Self::Collectives => "collectives",
            Self::Files => "files",
            Self::Block => "block",
            Self::Network => "network",
            Self::Faults => "faults",
            Self::Launches => "launches",
        }
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a probe stands on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it works.
    Works,
    /// It runs, and something is not seen.
    Degraded {
        /// What is not seen, and why.
        lost: String,
        /// What would mend it.
        remedy: String,
    },
    /// It does not run.
    Missing {
        /// Why.
        reason: String,
        /// What would mend it.
        remedy: String,
    },
}

impl Standing {
    /// Whether the probe can be used at all.
    #[must_use]
    pub fn usable(&self) -> bool {
        !matches!(self, Self::Missing { .. })
    }
}

/// What a probe has to say for itself.
pub(crate) struct Probe {
    pub(crate) id: ProbeId,
    /// What it sees, for `doctor`.
    pub(crate) sees: &'static str,
    /// The programs that are loaded for it.
    pub(crate) programs: &'static [&'static str],
    /// Looks before anything is loaded.
    pub(crate) can_run: fn(&Kernel) -> Standing,
    /// Attaches its programs. What it returns keeps them attached.
    pub(crate) attach: fn(&mut StallscopeSkel<'static>, &Settings) -> Result<Attached, libbpf_rs::Error>,
}

/// What keeps a probe attached: dropping it takes the probe off.
pub(crate) struct Attached {
    _links: Vec<Link>,
}

impl From<Vec<Link>> for Attached {
    fn from(links: Vec<Link>) -> Self {
        Self { _links: links }
    }
}

/// Every probe, in the order of attaching: tasks are followed before anything is asked about them.
pub(crate) const ALL: &[Probe] = &[
    sched::PROBE,
    syscalls::PROBE,
    files::PROBE,
    block::PROBE,
    network::PROBE,
    faults::PROBE,
    sampling::PROBE,
    collectives::PROBE,
    launches::PROBE,
];

/// The names of all programs.
#[must_use]
pub fn programs() -> Vec<&'static str> {
    ALL.iter().flat_map(|probe| probe.programs.iter().copied()).collect()
}

/// What every probe needs.
pub(crate) fn basics(kernel: &Kernel) -> Standing {
    if !kernel.btf {
        return Standing::Missing {
            reason: format!(
                "kernel {} does not describe its types (/sys/kernel/btf/vmlinux)",
                kernel.release
            ),
            remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions')".to_owned(),
        };
    }
    if kernel.lockdown == "confidentiality" {
        return Standing::Missing {
            reason: "kernel lockdown is in confidentiality mode, which forbids reading kernel memory"
                .to_owned(),
            remedy: "boot with lockdown=integrity".to_owned(),
        };
    }
    if !kernel.at_least(5, 15) {
        return Standing::Missing {
            reason: format!("kernel {} is older than 5.15", kernel.release),
            remedy: "use kernel 5.15 or newer".to_owned(),
        };
    }
    if !kernel.host_pids {
        return Standing::Missing {
            reason: "this is not the host's pid namespace: the pids here are not those that the probes see"
                .to_owned(),
            remedy:
                "run on the host, or in a container with the host's pid namespace (--pid=host, hostPID: true)"
                    .to_owned(),
        };
    }
    if !kernel.privileged {
        return Standing::Missing {
            reason: "not permitted to load kernel probes".to_owned(),
            remedy: "run as root, or give the executable CAP_BPF and CAP_PERFMON".to_owned(),
        };
    }
    Standing::Works
}

/// How each probe stands on this kernel, before anything is loaded: name, what it sees, standing.
#[must_use]
pub fn standings(kernel: &Kernel) -> Vec<(ProbeId, &'static str, Standing)> {
    ALL.iter().map(|probe| (probe.id, probe.sees, (probe.can_run)(kernel))).collect()
}
