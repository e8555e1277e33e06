//! Jobs that are hard to record, and places that are hard to record in.
//!
//! Whatever is made here (processes, mounts, frozen file systems) goes when it is dropped.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::job::programs;
use super::lab::{Running, json, leaves, run, until};

/// A path as an argument.
///
/// # Panics
/// Where it is not UTF-8, as those of temporary folders are.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A folder with the program of hard jobs (`jobs/hostile.c`) in it.
#[derive(Debug)]
pub struct Bench {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Bench {
    /// Compiles the program.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = compile("hostile.c", folder.path(), "hostile", &[])?;
        Ok(Self { folder, program })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A path in the folder.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Starts the program.
    ///
    /// # Errors
    /// Where it does not get ready.
    pub fn job(&self, arguments: &[&str]) -> anyhow::Result<Job> {
        Job::start(Command::new(&self.program).args(arguments))
    }
}

/// The report of a capture, in which the leaves of every rank sum to its wall time.
///
/// # Errors
/// Where they do not, or there is no report.
pub fn report(capture: &Path) -> anyhow::Result<Value> {
    let report = json(&["report", text(capture), "--json"])?;
    for device in report["devices"].as_array().context("no devices")? {
        leaves(device, "direct")?;
        leaves(device, "root")?;
    }
    Ok(report)
}

/// All waits of a capture, one stack a line.
///
/// # Errors
/// Where they cannot be exported.
pub fn waits_by_stack(capture: &Path) -> anyhow::Result<String> {
    let folded = run(&["export", text(capture), "--to", "folded", "--weight", "off-cpu", "-o", "-"])?;
    if !folded.status.success() {
        bail!("export: {}", String::from_utf8_lossy(&folded.stderr));
    }
    Ok(String::from_utf8(folded.stdout)?)
}

/// Runs a tool that has to succeed.
///
/// # Errors
/// Where there is no such tool, or it fails; with what it said.
pub fn tool(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("no {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compiles a program of the jobs' folder into another.
///
/// # Errors
/// Where there is no C compiler, or it refuses.
pub fn compile(source: &str, folder: &Path, name: &str, flags: &[&str]) -> anyhow::Result<PathBuf> {
    let program = folder.join(name);
    let (from, to) = (programs().join(source), program.to_string_lossy().into_owned());
    // Frame pointers, as stacks need them; no call that is a jump, as frames need them.
    let usual = ["-O1", "-pthread", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    let from = from.to_string_lossy().into_owned();
    tool("cc", &[&usual[..], flags, &["-o", &to, &from]].concat())?;
    Ok(program)
}

/// A job that says lines and is told lines. Dropping it ends it.
#[derive(Debug)]
pub struct Job {
    child: Child,
    told: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Job {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Where it cannot be started, or ends.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let told = child.stdin.take();
        let says = BufReader::new(child.stdout.take().context("piped")?);
        let mut job = Self { child, told, says };
        job.until("ready")?;
        Ok(job)
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to go on.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn go(&mut self) -> anyhow::Result<()> {
        Ok(self.told.as_mut().context("it is told no more")?.write_all(b"go\n")?)
    }

    /// The rest of the line that begins so.
    ///
    /// # Errors
    /// Where it ends without it.
    pub fn until(&mut self, word: &str) -> anyhow::Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.says.read_line(&mut line)? == 0 {
                bail!("the job ended without saying {word:?}: {:?}", self.child.try_wait());
            }
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it, and waits until its pid is free.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn end(&mut self) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its own end, which has to be a good one.
    ///
    /// # Errors
    /// Where it fails.
    pub fn leave(&mut self) -> anyhow::Result<()> {
        self.told = None;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the job failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Time that a thread has been on a CPU, by the kernel's own account, ns.
#[must_use]
pub fn on_cpu_ns(pid: u32, tid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// State letters of all threads of a process.
#[must_use]
pub fn states(pid: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |folder: PathBuf| {
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    threads.filter_map(|thread| state(thread.path())).collect()
}

/// A small file system of its own, which can be frozen: whoever writes to it then waits and cannot be interrupted.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// While it is frozen: what lets writing go on where the test is killed, since whoever waits for it cannot be.
    frozen: Option<Running>,
}

/// How long writing is stopped at most, s.
const MOST_FROZEN_S: u32 = 150;

impl Disk {
    /// Makes and mounts one below a folder.
    ///
    /// # Errors
    /// Where that is not possible here.
    pub fn mount(below: &Path) -> anyhow::Result<Self> {
        let (image, folder) = (below.join("image"), below.join("disk"));
        std::fs::create_dir(&folder)?;
        std::fs::File::create(&image)?.set_len(64 << 20)?;
        let (image, to) = (image.to_string_lossy().into_owned(), folder.to_string_lossy().into_owned());
        tool("fsfreeze", &["--version"])?;
        tool("mkfs.ext4", &["-q", &image])?;
        tool("mount", &["-o", "loop", &image, &to])?;
        Ok(Self { folder, frozen: None })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops all writing.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        let script = format!("sleep {MOST_FROZEN_S}; exec fsfreeze -u \"$0\"");
        let guard =
            Command::new("sh").args(["-c", &script]).arg(&self.folder).stdin(Stdio::null()).spawn()?;
        self.frozen = Some(Running(guard));
        tool("fsfreeze", &["-f", &self.folder.to_string_lossy()]).map(|_| ())
    }

    /// Lets writing go on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        if self.frozen.is_some() {
            tool("fsfreeze", &["-u", &self.folder.to_string_lossy()])?;
        }
        self.frozen = None;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.thaw();
        // Whoever wrote to it may still be on the way out: it goes when the last one has.
        let _ = tool("umount", &["--lazy", &self.folder.to_string_lossy()]);
    }
}

/// A job that waits for a frozen disk. Dropping it lets it go on before it is waited for.
#[derive(Debug)]
pub struct Stuck {
    /// The disk. First: fields are dropped in their order.
    pub disk: Disk,
    /// The job.
    pub job: Job,
}

impl Stuck {
    /// Starts the program of hard jobs on a file of a disk, and has it go on once the disk is frozen. It hangs when this
    /// many of its threads cannot be interrupted.
    ///
    /// # Errors
    /// Where no disk can be made or frozen here, or the job does not hang.
    pub fn start(bench: &Bench, what: &str, hanging: usize) -> anyhow::Result<Self> {
        let disk = Disk::mount(bench.folder())?;
        let file = disk.folder().join("shard");
        std::fs::write(&file, [0; 4096])?;
        let job = bench.job(&[what, text(&file)])?;
        let mut stuck = Self { disk, job };
        stuck.disk.freeze()?;
        stuck.job.go()?;
        let pid = stuck.job.pid();
        until("it to hang", || states(pid).matches('D').count() == hanging)?;
        Ok(stuck)
    }

    /// Lets it go on, to its end.
    ///
    /// # Errors
    /// Where it was harmed.
    pub fn release(mut self) -> anyhow::Result<()> {
        self.disk.thaw()?;
        self.job.until("written")?;
        self.job.leave()
    }
}

/// A block device that is a file.
#[derive(Debug)]
pub struct LoopDevice(String);

impl LoopDevice {
    /// # Errors
    /// Where none can be made here.
    pub fn of(file: &Path) -> anyhow::Result<Self> {
        let name = tool("losetup", &["--find", "--show", "--read-only", &file.to_string_lossy()])?;
        Ok(Self(name.trim().to_owned()))
    }

    /// `/dev/loop0`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Has it take as many requests at once as it can.
    ///
    /// # Errors
    /// Where the kernel has no I/O scheduler that it could wait in.
    pub fn deepen(&self) -> anyhow::Result<()> {
        let name = self.0.trim_start_matches("/dev/");
        let queue = |file: &str| format!("/sys/block/{name}/queue/{file}");
        std::fs::write(queue("scheduler"), "mq-deadline").context("no mq-deadline")?;
        Ok(std::fs::write(queue("nr_requests"), "2048")?)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = tool("losetup", &["--detach", &self.0]);
    }
}
