//! Ranks under mpirun.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The Python environment with an MPI, which `cargo xtask setup` makes; `STALLSCOPE_MPI_VENV` names another.
///
/// # Errors
/// Where there is none, with what to do about it.
pub fn mpi_venv() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("STALLSCOPE_MPI_VENV").map(PathBuf::from);
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/mpi");
    let venv = named.unwrap_or(ours);
    if !venv.join("bin/mpirun").is_file() {
        bail!("no MPI in {}: run cargo xtask setup", venv.display());
    }
    Ok(venv.canonicalize()?)
}

/// The folder of the jobs' programs.
#[must_use]
pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs")
}

/// A job under mpirun. Dropping it ends it.
#[derive(Debug)]
pub struct MpiJob {
    child: Child,
}

impl MpiJob {
    /// Starts `ranks` ranks of a program of [`programs`].
    ///
    /// # Errors
    /// Where there is no MPI or it cannot be started.
    pub fn start(ranks: u32, program: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let venv = mpi_venv()?;
        let child = Command::new(venv.join("bin/mpirun"))
            .args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()])
            // More ranks than CPUs: a rank that waits lets others run.
            .args(["--mca", "mpi_yield_when_idle", "1"])
            .arg(venv.join("bin/python"))
            .arg(programs().join(program))
            .args(arguments)
            // One thread of arithmetic a rank, as real jobs pin it.
            .env("OMP_NUM_THREADS", "1")
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start mpirun")?;
        Ok(Self { child })
    }

    /// Pid of mpirun.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a file that the job creates is there.
    ///
    /// # Errors
    /// Where the job ends first, or the patience does.
    pub fn wait_for(&mut self, file: &Path, patience: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !file.exists() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the job ended before it had begun: {status}");
            }
            if begin.elapsed() > patience {
                bail!("the job has not begun within {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end and says what it printed.
    ///
    /// # Errors
    /// Where it failed.
    pub fn output(mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut text)?;
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the job failed: {status}\n{text}");
        }
        Ok(text)
    }
}

impl Drop for MpiJob {
    fn drop(&mut self) {
        // mpirun passes SIGTERM on to its ranks; a SIGKILL would leave them behind.
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}
