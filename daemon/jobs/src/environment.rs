//! The few variables that matter, out of the environment a process was started with.
//!
//! The kernel shows what was passed at exec. What a process sets for itself later (`os.environ[…] = …`) is not there,
//! and a forked child shows what its parent was started with.

/// Every variable that is looked at, anywhere in this crate.
const KEPT: &[&str] = &[
    // torch.distributed and everything that follows its convention
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    // Open MPI and PRRTE
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_MCA_ess_base_jobid",
    // MVAPICH
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_LOCAL_RANK",
    // MPICH, Intel MPI and others of Hydra
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_JOBID",
    "MPI_LOCALRANKID",
    // PMIx
    "PMIX_RANK",
    "PMIX_NAMESPACE",
    // Slurm
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    // GPUs
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    // Kubernetes
    "POD_NAME",
    "POD_NAMESPACE",
    "HOSTNAME",
    "KUBERNETES_SERVICE_HOST",
];

/// A value longer than this is cut: none of the above has reason to be, and every process may have all of them.
const VALUE_BYTES: usize = 512;

/// Variables of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    kept: Vec<(&'static str, String)>,
}

impl Environment {
    /// Reads `NAME=value` strings that end with NUL. Of a name that is there twice the first counts, as for getenv.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut kept: Vec<(&'static str, String)> = Vec::new();
        for variable in bytes.split(|&b| b == 0) {
            let Some(equals) = variable.iter().position(|&b| b == b'=') else { continue };
            let (name, value) = (&variable[..equals], &variable[equals + 1..]);
            let Some(&name) = KEPT.iter().find(|k| k.as_bytes() == name) else { continue };
            if kept.iter().all(|(k, _)| *k != name) {
                let value = value.get(..VALUE_BYTES).unwrap_or(value);
                kept.push((name, String::from_utf8_lossy(value).into_owned()));
            }
        }
        Self { kept }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(KEPT.contains(&name), "{name} is not kept");
        self.kept.iter().find(|(k, _)| *k == name).map(|(_, value)| value.as_str())
    }

    /// A number, where the variable is one.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Environment;

    #[test]
    fn the_first_of_two_counts_and_the_rest_is_not_kept() {
        let mut bytes = b"PATH=/bin\0RANK=3\0RANK=4\0=x\0RANK\0WORLD_SIZE=\xff\0MASTER_ADDR=".to_vec();
        bytes.extend(std::iter::repeat_n(b'a', 10_000));
        let environment = Environment::parse(&bytes);
        assert_eq!(environment.number("RANK"), Some(3));
        assert_eq!(environment.number("WORLD_SIZE"), None);
        assert_eq!(environment.get("MASTER_ADDR").map(str::len), Some(512));
        assert_eq!(environment.kept.len(), 3);
    }
}
