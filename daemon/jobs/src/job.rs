//! What is found: jobs of ranks.

use crate::cgroup::{ContainerRuntime, SlurmId};
use crate::gpus::Gpus;
use crate::identity::Source;
use crate::launcher::LauncherKind;
use crate::mapped::{Collective, Framework, Library, PythonVersion};
use crate::process::{ProcessId, State};

/// Processes of this host that compute together. A job that spans hosts has other ranks elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Short, made of letters, digits, `-` and `.`, the same each time this job is looked at.
    pub id: String,
    /// What it runs: the script or the program of its first rank. For people, not unique.
    pub name: String,
    /// What started it, innermost first (torchrun, then srun). Empty where nothing known did.
    pub launchers: Vec<Launcher>,
    /// Ranks of the whole job, where every rank of this host says the same.
    pub world_size: Option<u32>,
    /// The ranks on this host, by rank, then by age.
    pub ranks: Vec<Rank>,
}

impl Job {
    /// Every process of the job on this host: ranks and their helpers. Launchers are not among them.
    pub fn processes(&self) -> impl Iterator<Item = ProcessId> + '_ {
        self.ranks.iter().flat_map(|rank| std::iter::once(rank.process).chain(rank.helpers.iter().copied()))
    }
}

/// One process that started ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Which launcher.
    pub kind: LauncherKind,
    /// The process.
    pub process: ProcessId,
}

/// One rank: the process that computes, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    /// The process that enters collectives and launches kernels.
    pub process: ProcessId,
    /// Its number in the job; none where nothing says so.
    pub rank: Option<u32>,
    /// Ranks in the whole job.
    pub world_size: Option<u32>,
    /// Its number on this host.
    pub local_rank: Option<u32>,
    /// Whose variables said so.
    pub source: Option<Source>,
    /// `MASTER_ADDR:MASTER_PORT`, where set.
    pub master: Option<String>,
    /// Wrappers around it, data-loader workers, forked helpers, compilers: by age.
    pub helpers: Vec<ProcessId>,
    /// The container it is in.
    pub container: Option<Container>,
    /// The Kubernetes pod it is in.
    pub pod: Option<Pod>,
    /// The Slurm job and step it is in.
    pub slurm: Option<SlurmId>,
    /// Frameworks among its mapped objects.
    pub frameworks: Vec<Framework>,
    /// Collective libraries among its mapped objects. Mapped is not used: PyTorch brings several.
    pub collectives: Vec<Library<Collective>>,
    /// GPUs it may use.
    pub gpus: Gpus,
    /// The CPython it runs.
    pub python: Option<PythonVersion>,
    /// Threads, when looked at.
    pub threads: u32,
    /// Real user id, as this host numbers users.
    pub uid: Option<u32>,
    /// Whether it ran, slept, was stopped, when looked at.
    pub state: State,
    /// The kernel's short name of it.
    pub comm: String,
    /// Its arguments, at most 4 KiB of them.
    pub cmdline: Vec<String>,
    /// Its pid in each pid namespace from ours inward; the last is its own.
    pub ns_pids: Vec<u32>,
    /// Time since it started.
    pub elapsed_ms: u64,
    /// False where its mapped objects could not be read (another user, no capability): then the fields that are read
    /// from them are empty for that reason.
    pub examined: bool,
}

/// A container, as its cgroup says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What runs it.
    pub runtime: ContainerRuntime,
    /// Its whole id (64 hexadecimal digits, or a name for LXC).
    pub id: String,
    /// Its name, where the runtime's own files say so.
    pub name: Option<String>,
}

/// Who said what a pod is called. Only the runtime's word is safe from what runs in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodNameSource {
    /// The container runtime's own state.
    Runtime,
    /// Files that the kubelet mounts into the container.
    Mounted,
    /// The process's environment.
    Environment,
}

impl PodNameSource {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Mounted => "mounted",
            Self::Environment => "environment",
        }
    }
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid, from the cgroup.
    pub uid: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Where its name is from.
    pub named_by: Option<PodNameSource>,
}
