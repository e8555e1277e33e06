//! A training job of PyTorch's `DistributedDataParallel` over Gloo, its ranks in two network namespaces.
//!
//! What is made here (namespaces, processes with all they fork) goes when it is dropped.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use super::job::programs;

/// The distribution's own Python, which its PyTorch (python3-torch) belongs to.
const PYTHON: &str = "/usr/bin/python3";
/// Addresses inside of the namespaces; nobody outside sees them.
pub const ADDRESSES: [&str; 2] = ["10.231.7.1", "10.231.7.2"];

/// Why the job cannot run here, if so.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse, for a slow file".to_owned());
    }
    if let Err(why) = run("nsenter", &["--version"]).and_then(|_| run("ip", &["-V"])) {
        return Some(format!("no iproute2 or util-linux: {why:#}"));
    }
    match versions() {
        Ok(_) => None,
        Err(_) => Some(format!(
            "{PYTHON} has no torch: apt-get install --no-install-recommends python3-torch python3-numpy"
        )),
    }
}

/// Versions of PyTorch and Python.
///
/// # Errors
/// Where there is no PyTorch.
pub fn versions() -> anyhow::Result<String> {
    let program = "import torch, torch.distributed as d, platform\nassert d.is_gloo_available()\n\
                   print('PyTorch', torch.__version__, 'on Python', platform.python_version())";
    Ok(run(PYTHON, &["-c", program])?.trim().to_owned())
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {said}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Two network namespaces with a link between them.
#[derive(Debug)]
pub struct Networks {
    names: [String; 2],
}

impl Networks {
    /// The link's name in either namespace.
    const LINK: &str = "link0";

    /// Makes them. Needs root.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn new() -> anyhow::Result<Self> {
        let pid = std::process::id();
        // Dropped where a later step fails: what was made goes.
        let networks = Self { names: ["a", "b"].map(|end| format!("stallscope-{pid}-{end}")) };
        let [a, b] = networks.names.each_ref().map(String::as_str);
        run("ip", &["netns", "add", a])?;
        run("ip", &["netns", "add", b])?;
        let (link, peer) = (["link", "add", Self::LINK], ["type", "veth", "peer", "name", Self::LINK]);
        run("ip", &[&["-n", a], &link[..], &peer[..], &["netns", b]].concat())?;
        for (name, address) in [a, b].into_iter().zip(ADDRESSES) {
            run("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", Self::LINK])?;
            run("ip", &["-n", name, "link", "set", "lo", "up"])?;
            run("ip", &["-n", name, "link", "set", Self::LINK, "up"])?;
        }
        Ok(networks)
    }

    /// A command that runs in one of them; its pid is the program's.
    fn command(&self, which: usize, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.names[which])).arg(program);
        command
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for name in &self.names {
            // It may not have been made.
            let _ = run("ip", &["netns", "del", name]);
        }
    }
}

/// What a rank printed of itself when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// All steps of the job.
    pub steps: u64,
    /// Bytes of all gradients.
    pub gradient_bytes: u64,
    /// Bytes of each all-reduce of a step.
    pub bucket_bytes: Vec<u64>,
}

/// The job. Dropping it kills its ranks and what they have forked.
#[derive(Debug)]
pub struct TorchJob {
    folder: PathBuf,
    ranks: Vec<Child>,
}

impl TorchJob {
    /// Starts one rank for each file of samples; the first half of them in the first network. `folder` is for its notes.
    ///
    /// # Errors
    /// Where a rank cannot be started.
    pub fn start(networks: &Networks, folder: &Path, samples: &[PathBuf]) -> anyhow::Result<Self> {
        let mut job = Self { folder: folder.to_owned(), ranks: Vec::new() };
        for (rank, file) in samples.iter().enumerate() {
            let mut command = networks.command(usize::from(rank * 2 >= samples.len()), PYTHON);
            command.arg(programs().join("torch_ddp.py")).arg(folder).arg(file);
            let variables = [
                ("RANK", rank.to_string()),
                ("WORLD_SIZE", samples.len().to_string()),
                ("MASTER_ADDR", ADDRESSES[0].to_owned()),
                ("MASTER_PORT", "29500".to_owned()),
                ("GLOO_SOCKET_IFNAME", Networks::LINK.to_owned()),
                // One thread of arithmetic a rank, as torchrun sets it.
                ("OMP_NUM_THREADS", "1".to_owned()),
            ];
            // A group of its own, to be ended with its data loader's workers.
            command.envs(variables).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
            job.ranks.push(command.spawn().context("cannot start a rank")?);
        }
        Ok(job)
    }

    /// Pid of a rank.
    #[must_use]
    pub fn pid(&self, rank: usize) -> u32 {
        self.ranks[rank].id()
    }

    /// Steps that a rank has made.
    #[must_use]
    pub fn steps(&self, rank: usize) -> u64 {
        let text = std::fs::read_to_string(self.folder.join(format!("steps-{rank}")));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Steps that each rank has made.
    #[must_use]
    pub fn all_steps(&self) -> Vec<u64> {
        (0..self.ranks.len()).map(|rank| self.steps(rank)).collect()
    }

    /// Whether all of its ranks run.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn running(&mut self) -> anyhow::Result<bool> {
        for rank in &mut self.ranks {
            if rank.try_wait()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks it to end, waits, and says what each rank printed.
    ///
    /// # Errors
    /// Where a rank failed or printed something else.
    pub fn end(mut self) -> anyhow::Result<Vec<Printed>> {
        std::fs::write(self.folder.join("leave"), "")?;
        let mut all = Vec::new();
        for (at, rank) in self.ranks.iter_mut().enumerate() {
            let mut text = String::new();
            rank.stdout.take().context("no output")?.read_to_string(&mut text)?;
            let status = rank.wait()?;
            if !status.success() {
                bail!("rank {at}: {status}\n{text}");
            }
            let line = text.trim().strip_prefix(&format!("rank {at} ")).context("no line of the rank")?;
            let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [steps, gradient_bytes, bucket_bytes @ ..] = numbers.as_slice() else {
                bail!("rank {at} printed {text}");
            };
            let bucket_bytes = bucket_bytes.to_vec();
            all.push(Printed { steps: *steps, gradient_bytes: *gradient_bytes, bucket_bytes });
        }
        Ok(all)
    }
}

impl Drop for TorchJob {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            // A rank that was waited for has no group any more, unless a worker is left in it.
            if matches!(rank.try_wait(), Ok(None)) {
                let _ = run("kill", &["-KILL", "--", &format!("-{}", rank.id())]);
                let _ = rank.wait();
            }
        }
    }
}
