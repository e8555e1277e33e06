//! A trainer on the double of CUDA: what it says about a GPU is made up, what it says about the host is real.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use stallscope_cupti_double::folder::{Version, make};

use super::job::programs;
use super::lab::until;

/// Stand-ins for CUDA's libraries in a folder.
///
/// # Errors
/// Where it cannot be made.
pub fn double(folder: &Path, version: Version) -> anyhow::Result<PathBuf> {
    let libraries = folder.join("lib");
    make(&libraries, version).context("cannot make a folder of stand-ins")?;
    Ok(libraries)
}

/// The command of a trainer of so many ranks.
#[must_use]
pub fn command(libraries: &Path, ranks: u32, arguments: &[&str]) -> Vec<String> {
    let mut command = vec!["env".to_owned(), format!("LD_LIBRARY_PATH={}", libraries.display())];
    command.push(format!("STALLSCOPE_DOUBLE=gpus={ranks}"));
    let job = |name: &str| programs().join(name).display().to_string();
    command.extend(["python3".into(), job("gpu_launch.py"), ranks.to_string(), "python3".into()]);
    command.push(job("gpu_trainer.py"));
    command.extend(arguments.iter().map(|&a| a.to_owned()));
    command
}

/// A trainer that runs. Dropping it ends it.
#[derive(Debug)]
pub struct GpuJob {
    child: Child,
    counter: PathBuf,
    /// Processes of the ranks.
    pub ranks: Vec<u32>,
}

impl GpuJob {
    /// Starts a trainer without end and waits until it makes steps.
    ///
    /// # Errors
    /// Where it cannot be started or does not begin.
    pub fn start(folder: &Path, libraries: &Path, ranks: u32, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(folder, libraries, ranks, arguments, &[])
    }

    /// As [`Self::start`], with these variables of the environment, which win over those of [`command`].
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_with(
        folder: &Path,
        libraries: &Path,
        ranks: u32,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let counter = folder.join("steps");
        let counted = counter.display().to_string();
        let mut all = vec!["--steps", "1000000000", "--counter", &counted];
        all.extend(arguments);
        let mut command = command(libraries, ranks, &all);
        // Behind the variables of the command: env takes the last of a name.
        command.splice(3..3, environment.iter().map(|(name, value)| format!("{name}={value}")));
        let (program, arguments) = command.split_first().context("a command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Workers of loaders outlive their trainer: they go with the group.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the trainer")?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output")?;
        BufReader::new(out).read_line(&mut line)?;
        let ranks = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
        let job = Self { child, counter, ranks };
        until("the trainer to make steps", || job.steps() > 3)?;
        Ok(job)
    }

    /// Pid of the launcher.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.ranks.first().copied().unwrap_or(0)
    }

    /// Steps of rank 0.
    #[must_use]
    pub fn steps(&self) -> u64 {
        let bytes = std::fs::read(&self.counter).unwrap_or_default();
        bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
    }

    /// Whether it goes on making steps.
    ///
    /// # Errors
    /// Where it does not within a minute.
    pub fn goes_on(&self) -> anyhow::Result<()> {
        let before = self.steps();
        until("the trainer to go on", || self.steps() > before + 3)?;
        ensure!(
            self.ranks.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()),
            "all ranks are there"
        );
        Ok(())
    }
}

impl Drop for GpuJob {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}
