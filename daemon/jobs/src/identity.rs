//! Which rank a process is, from the variables that launchers set.
//!
//! Launchers nest (srun starts torchrun, torchrun starts ranks) and each leaves its variables for all below it. The rule:
//! **the family of variables that was set closest to the process wins.** A family is set at a process when its parent
//! does not have the same values. Where several are set at the same process, the order of [`SOURCES`] decides: scripts
//! between a launcher and a rank translate into `RANK`, never the other way, and MPI under Slurm knows more than Slurm.

use std::path::Path;

use crate::environment::Environment;
use crate::procfs::ProcFs;

/// Whose variables say which rank a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `RANK` and `WORLD_SIZE`: torchrun, DeepSpeed, Accelerate, scripts.
    Torch,
    /// `OMPI_COMM_WORLD_*`: Open MPI.
    OpenMpi,
    /// `MV2_COMM_WORLD_*`: MVAPICH.
    Mvapich,
    /// `PMI_*`: MPICH, Intel MPI and others started by Hydra, or by Slurm's pmi2.
    Pmi,
    /// `PMIX_*`: whatever speaks PMIx.
    Pmix,
    /// `SLURM_PROCID`: srun.
    Slurm,
}

impl Source {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torch => "torch",
            Self::OpenMpi => "openmpi",
            Self::Mvapich => "mvapich",
            Self::Pmi => "pmi",
            Self::Pmix => "pmix",
            Self::Slurm => "slurm",
        }
    }
}

/// One family of variables.
struct Family {
    source: Source,
    rank: &'static str,
    /// Any of these, the first that is set.
    world: &'static [&'static str],
    local: &'static str,
    /// What else tells two jobs apart.
    job: &'static [&'static str],
    /// A rank without a world size is somebody else's variable of that name.
    needs_world: bool,
}

/// All families, in the order that decides between those set at the same process.
const SOURCES: &[Family] = &[
    Family {
        source: Source::Torch,
        rank: "RANK",
        world: &["WORLD_SIZE"],
        local: "LOCAL_RANK",
        job: &["TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"],
        needs_world: true,
    },
    Family {
        source: Source::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        world: &["OMPI_COMM_WORLD_SIZE"],
        local: "OMPI_COMM_WORLD_LOCAL_RANK",
        job: &["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"],
        needs_world: false,
    },
    Family {
        source: Source::Mvapich,
        rank: "MV2_COMM_WORLD_RANK",
        world: &["MV2_COMM_WORLD_SIZE"],
        local: "MV2_COMM_WORLD_LOCAL_RANK",
        job: &[],
        needs_world: false,
    },
    Family {
        source: Source::Pmi,
        rank: "PMI_RANK",
        world: &["PMI_SIZE"],
        local: "MPI_LOCALRANKID",
        job: &["PMI_JOBID"],
        needs_world: false,
    },
    Family {
        source: Source::Pmix,
        rank: "PMIX_RANK",
        world: &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"],
        local: "SLURM_LOCALID",
        job: &["PMIX_NAMESPACE"],
        needs_world: false,
    },
    Family {
        source: Source::Slurm,
        rank: "SLURM_PROCID",
        world: &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"],
        local: "SLURM_LOCALID",
        job: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
        needs_world: false,
    },
];

/// What one family says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) source: Source,
    pub(crate) rank: u32,
    pub(crate) world_size: Option<u32>,
    pub(crate) local_rank: Option<u32>,
    /// What names the job among all jobs: none where the variables do not.
    pub(crate) job: Option<Vec<String>>,
    /// The job's name holds only on this host: its master is the loopback address.
    pub(crate) host_only: bool,
}

impl Family {
    fn read(&self, environment: &Environment) -> Option<Identity> {
        let rank = environment.number(self.rank)?;
        let world_size = self.world.iter().find_map(|name| environment.number(name));
        if self.needs_world && world_size.is_none() || world_size.is_some_and(|world| rank >= world) {
            return None;
        }
        let local_rank = environment.number(self.local);
        let names: Vec<Option<&str>> = self.job.iter().map(|name| environment.get(name)).collect();
        // A run id alone says nothing: torchrun's is "none" unless given. The address does.
        let named = match self.source {
            Source::Torch => environment.get("MASTER_PORT").is_some(),
            _ => names.iter().any(Option::is_some),
        };
        let job = named.then(|| names.into_iter().map(|name| name.unwrap_or("").to_owned()).collect());
        let host_only = self.source == Source::Torch
            && environment.get("MASTER_ADDR").is_none_or(|a| {
                a.starts_with("127.") || a.starts_with("localhost") || a == "::1" || a == "0.0.0.0"
            });
        Some(Identity { source: self.source, rank, world_size, local_rank, job, host_only })
    }
}

/// What is set at a process with this environment whose parent has that one, best first. A parent that is unknown or
/// cannot be read has set nothing.
pub(crate) fn set_here(own: &Environment, parent: Option<&Environment>) -> Option<Identity> {
    SOURCES.iter().find_map(|family| {
        let identity = family.read(own)?;
        let inherited = parent.and_then(|p| family.read(p)).is_some_and(|theirs| theirs == identity);
        (!inherited).then_some(identity)
    })
}

/// The rank that a process has just become, and of how many: by variables that its parent does not have.
///
/// For processes that begin while they are watched; [`Host::scan`](crate::Host::scan) finds those that are there. Ask only
/// of one that answers ([`Door`](crate::Door)), and whose parent does.
#[must_use]
pub fn became_rank(proc_root: &Path, pid: u32, parent: u32) -> Option<(u32, Option<u32>)> {
    let proc = ProcFs::new(proc_root);
    let environment = |pid| Some(Environment::parse(&proc.process(pid).ok()?.environ().ok()?));
    let identity = set_here(&environment(pid)?, environment(parent).as_ref())?;
    Some((identity.rank, identity.world_size))
}

#[cfg(test)]
mod tests {
    use super::{Environment, Source, became_rank, set_here};

    #[test]
    fn a_rank_is_told_from_what_a_rank_starts() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, environment: &str| {
            let folder = proc.path().join(pid.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("environ"), environment.replace(' ', "\0")).unwrap();
        };
        process(10, "HOME=/");
        process(11, "HOME=/ RANK=3 WORLD_SIZE=8");
        process(12, "HOME=/ RANK=3 WORLD_SIZE=8");
        assert_eq!(became_rank(proc.path(), 11, 10), Some((3, Some(8))));
        assert_eq!(became_rank(proc.path(), 12, 11), None, "inherited");
        assert_eq!(became_rank(proc.path(), 10, 1), None);
        assert_eq!(became_rank(proc.path(), 99, 1), None, "gone");
        assert_eq!(became_rank(proc.path(), 11, 1), Some((3, Some(8))), "nothing is known of its parent");
    }

    fn environment(text: &str) -> Environment {
        Environment::parse(text.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn what_the_parent_has_too_is_inherited() {
        let slurm = "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_JOB_ID=7 SLURM_STEP_ID=0";
        let launcher = environment(slurm);
        let rank =
            environment(&format!("{slurm} RANK=9 WORLD_SIZE=16 LOCAL_RANK=1 MASTER_ADDR=n0 MASTER_PORT=1"));
        assert_eq!(set_here(&launcher, None).map(|i| i.source), Some(Source::Slurm));
        let identity = set_here(&rank, Some(&launcher)).unwrap();
        assert_eq!((identity.source, identity.rank, identity.local_rank), (Source::Torch, 9, Some(1)));
        assert_eq!(set_here(&rank, Some(&rank)), None);
    }

    #[test]
    fn an_inner_launcher_beats_variables_that_were_there_before() {
        let outside = environment("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1");
        let inside = environment(
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1 OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4",
        );
        assert_eq!(set_here(&inside, Some(&outside)).map(|i| (i.source, i.rank)), Some((Source::OpenMpi, 3)));
        // Both at once: a script translated.
        assert_eq!(set_here(&inside, None).map(|i| i.source), Some(Source::Torch));
    }

    #[test]
    fn variables_that_make_no_sense_are_not_a_rank() {
        for text in [
            "RANK=1",
            "RANK=4 WORLD_SIZE=4",
            "RANK=x WORLD_SIZE=4",
            "RANK=-1 WORLD_SIZE=4",
            "RANK= WORLD_SIZE=",
        ] {
            assert_eq!(set_here(&environment(text), None), None, "{text}");
        }
    }

    #[test]
    fn a_loopback_master_names_a_job_on_one_host_only() {
        let of = |address: &str| {
            let text = format!("RANK=0 WORLD_SIZE=4 MASTER_PORT=29500 {address}");
            set_here(&environment(&text), None).unwrap()
        };
        assert!(of("MASTER_ADDR=127.0.0.1").host_only);
        assert!(of("MASTER_ADDR=localhost").host_only);
        assert!(!of("MASTER_ADDR=10.0.0.1").host_only);
        assert!(set_here(&environment("RANK=0 WORLD_SIZE=4"), None).unwrap().job.is_none());
    }
}
