//! A process that executes another program, forks, ends or is killed while its agent is in each of its states: the job
//! does what it was told to, the recording ends by itself and opens. On the double of CUDA; without root each test says
//! so and passes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_inject::find_agent;
use stallscope_cupti_wire::{Header, State};
use stallscope_tests::live::gpu::double;
use stallscope_tests::live::job::programs;
use stallscope_tests::live::lab::{Running, json, obstacle, start, until};

macro_rules! needs_root {
    () => {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return Ok(());
        }
    };
}

/// What happens to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exec,
    Fork,
    Exit,
    Kill,
}

/// Attaching and flushing take so much longer that they can be met.
const SLOW: &str =
    "gpus=1;fault.delay_ms.cuptiActivityRegisterCallbacks=150;fault.delay_ms.cuptiActivityDisable=50";

struct Job {
    child: Child,
    orders: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Job {
    fn start(libraries: &Path, settings: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("python3");
        command.arg(programs().join("gpu_ends.py")).args(arguments).env("LD_LIBRARY_PATH", libraries);
        command.env("STALLSCOPE_DOUBLE", settings).stderr(Stdio::inherit());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().context("its input")?;
        let says = BufReader::new(child.stdout.take().context("its output")?);
        let mut job = Self { child, orders, says };
        job.expect("steps")?;
        Ok(job)
    }

    fn expect(&mut self, what: &str) -> anyhow::Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        ensure!(line.starts_with(what), "it says {line:?}, not {what}");
        Ok(line)
    }

    fn order(&mut self, what: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.orders, "{what}")?)
    }

    fn state(&self) -> Option<State> {
        let found = find_agent(self.child.id().cast_signed()).ok().flatten()?;
        let ring = std::fs::File::from(found.ring);
        let mut state = [0; 4];
        ring.read_exact_at(&mut state, std::mem::offset_of!(Header, state) as u64).ok()?;
        State::from_id(u32::from_ne_bytes(state))
    }

    /// Waits for a state without missing a short one.
    fn until(&self, state: State) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.state() != Some(state) {
            ensure!(begun.elapsed() < Duration::from_secs(30), "never {state:?}, now {:?}", self.state());
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Does it, and sees to it that it went as it would have without us. Returns how the process ended.
    fn strike(mut self, end: End) -> anyhow::Result<ExitStatus> {
        match end {
            End::Exec => {
                self.order("exec")?;
                self.expect("second")?;
            }
            End::Fork => {
                self.order("fork")?;
                let line = self.expect("child 0 ")?;
                ensure!(line.split(' ').nth(3).is_some(), "{line}");
                self.expect("steps")?;
            }
            End::Kill => {
                self.child.kill()?;
                return Ok(self.child.wait()?);
            }
            End::Exit => {}
        }
        self.order("exit")?;
        Ok(self.child.wait()?)
    }
}

fn ended_as_told(end: End, status: ExitStatus) -> bool {
    if end == End::Kill { status.signal() == Some(9) } else { status.code() == Some(7) }
}

/// What a recorder prints once it has ended by itself, well.
fn summary(mut recorder: Running) -> anyhow::Result<Value> {
    until("the recorder to end", || recorder.0.try_wait().is_ok_and(|status| status.is_some()))?;
    let mut text = String::new();
    let out = recorder.0.stdout.take().context("its output")?;
    std::io::Read::read_to_string(&mut BufReader::new(out), &mut text)?;
    let status = recorder.0.wait()?;
    let mut errors = String::new();
    if let Some(mut out) = recorder.0.stderr.take() {
        std::io::Read::read_to_string(&mut out, &mut errors)?;
    }
    ensure!(status.success(), "{status}: {errors}");
    Ok(serde_json::from_str(&text)?)
}

/// One process for each end, each met in `state`.
fn all_ends(state: State) -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let capture = folder.path().join("a.stall");
    for end in [End::Exec, End::Fork, End::Exit, End::Kill] {
        let job = Job::start(&libraries, SLOW, &[])?;
        let pid = job.child.id().to_string();
        // A recording that is to be met at its end is short; the others end when the job does.
        let seconds = if matches!(state, State::Flushing | State::Dormant) { "1s" } else { "20s" };
        let to = capture.to_str().context("UTF-8")?;
        let recorder = start(&["record", "--pid", &pid, "-d", seconds, "-o", to, "--json", "--force"])?;
        job.until(state)?;
        let status = job.strike(end).with_context(|| format!("{end:?} while {state:?}"))?;
        ensure!(ended_as_told(end, status), "{end:?} while {state:?}: {status}");
        let told = summary(recorder).with_context(|| format!("{end:?} while {state:?}"))?;
        let refused = &told["gpus"][0]["refused"];
        println!("{end:?} while {state:?}: {refused}");
        json(&["report", to, "--json"])?;
    }
    Ok(())
}

#[test]
fn all_ends_while_attaching() -> anyhow::Result<()> {
    all_ends(State::Attaching)
}

#[test]
fn all_ends_while_on() -> anyhow::Result<()> {
    all_ends(State::On)
}

#[test]
fn all_ends_while_flushing() -> anyhow::Result<()> {
    all_ends(State::Flushing)
}

#[test]
fn all_ends_while_dormant() -> anyhow::Result<()> {
    all_ends(State::Dormant)
}

#[test]
fn a_process_that_begins_to_use_cuda_while_it_is_recorded_is_seen_from_then_on() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V13_0)?;
    let mut job = Job::start(&libraries, "gpus=1", &["late"])?;
    let pid = job.child.id().to_string();
    let capture = folder.path().join("a.stall");
    let to = capture.to_str().context("UTF-8")?;
    let recorder = start(&["record", "--pid", &pid, "-o", to, "--json"])?;
    until("the capture to begin", || capture.exists())?;
    ensure!(job.state().is_none(), "there is nothing to see yet");
    job.order("now")?;
    job.until(State::On)?;
    job.expect("steps")?;
    // After this it makes twenty more.
    job.order("fork")?;
    job.expect("child 0 ")?;
    job.expect("steps")?;
    job.order("exit")?;
    ensure!(ended_as_told(End::Exit, job.child.wait()?));
    let told = summary(recorder)?;
    let gpu = &told["gpus"][0];
    ensure!(gpu["refused"].is_null() && gpu["events"].as_u64() > Some(20), "{gpu}");
    Ok(())
}

#[test]
fn a_process_at_its_memory_limit_gets_no_agent_and_goes_on() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = Job::start(&libraries, "gpus=1", &[])?;
    let pid = job.child.id().to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).context("its size")?;
    let kib: u64 = size.trim().split(' ').next().context("a number")?.parse()?;
    let limit = format!("--as={}", kib * 1024);
    if !Command::new("prlimit").args(["--pid", &pid, &limit]).status().is_ok_and(|status| status.success()) {
        println!("skipped: prlimit does not work here");
        return Ok(());
    }
    let capture = folder.path().join("a.stall");
    let to = capture.to_str().context("UTF-8")?;
    let told = json(&["record", "--pid", &pid, "-d", "1s", "-o", to, "--json"])?;
    let refused = told["gpus"][0]["refused"].as_str().unwrap_or_default();
    ensure!(refused.contains("limit") || refused.contains("memory"), "{told:#}");
    ensure!(ended_as_told(End::Exit, job.strike(End::Exit)?), "it goes on, and ends as it was told to");
    Ok(())
}

/// Names of the operations in a capture.
fn names(capture: &Path) -> anyhow::Result<Vec<String>> {
    let report = json(&["report", capture.to_str().context("UTF-8")?, "--json"])?;
    let devices = report["devices"].as_array().context("devices")?;
    let operations = devices.iter().filter_map(|device| device["top_operations"].as_array()).flatten();
    Ok(operations.filter_map(|operation| operation["name"].as_str().map(str::to_owned)).collect())
}

#[test]
fn after_a_recorder_was_killed_the_next_one_knows_all_names() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = Job::start(&libraries, "gpus=1", &[])?;
    let pid = job.child.id().to_string();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut killed = start(&["record", "--pid", &pid, "-d", "60s", "-o", &at("a.stall"), "--json"])?;
    job.until(State::On)?;
    killed.0.kill()?;
    killed.0.wait()?;
    let told = json(&["record", "--pid", &pid, "-d", "3s", "-o", &at("b.stall"), "--json"])?;
    ensure!(told["gpus"][0]["refused"].is_null(), "{told:#}");
    let names = names(&folder.path().join("b.stall"))?;
    ensure!(names == ["forward_gemm"], "{names:?}");
    let report = json(&["report", &at("b.stall"), "--json"])?;
    let id = report["devices"][0]["id"].as_str().unwrap_or_default();
    ensure!(id.starts_with("GPU-"), "{id}");
    Ok(())
}

#[test]
fn a_second_recorder_is_refused_and_the_first_is_not_disturbed() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = Job::start(&libraries, "gpus=1", &[])?;
    let pid = job.child.id().to_string();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let first = start(&["record", "--pid", &pid, "-d", "8s", "-o", &at("a.stall"), "--json"])?;
    job.until(State::On)?;
    let second = json(&["record", "--pid", &pid, "-d", "1s", "-o", &at("b.stall"), "--json"])?;
    let refused = second["gpus"][0]["refused"].as_str().unwrap_or_default();
    ensure!(refused.contains("another recorder"), "{second:#}");
    let report = json(&["report", &at("b.stall"), "--json"])?;
    ensure!(report["capture"]["notes"].to_string().contains("another recorder"), "{:#}", report["capture"]);
    let first = summary(first)?;
    ensure!(first["gpus"][0]["refused"].is_null(), "{first:#}");
    let names = names(&folder.path().join("a.stall"))?;
    ensure!(names == ["forward_gemm"], "{names:?}");
    Ok(())
}

#[test]
fn a_kernel_that_does_not_end_is_named() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let mut job = Job::start(&libraries, "gpus=1;kernel.hang.backward_gemm=1", &[])?;
    let pid = job.child.id().to_string();
    let capture = folder.path().join("a.stall").display().to_string();
    let recorder = start(&["record", "--pid", &pid, "-d", "5s", "-o", &capture, "--json"])?;
    job.until(State::On)?;
    // The recorder sees that some milliseconds later; what begins before that is not in the window.
    std::thread::sleep(Duration::from_millis(200));
    job.order("hang")?;
    summary(recorder)?;
    let report = json(&["report", &capture, "--json"])?;
    let findings = report["findings"].as_array().context("findings")?;
    let hang = findings.iter().find(|f| f["rule"] == "hang-operation").context("it is a finding")?;
    ensure!(hang["category"] == "hang" && hang["summary"].to_string().contains("backward_gemm"), "{hang:#}");
    let direct = &report["devices"][0]["direct"];
    ensure!(direct["unknown_ns"].as_u64() > direct["idle_ns"].as_u64(), "it is not idle: {direct:#}");
    Ok(())
}

/// A control group with a memory limit, with one process in it. Dropping it lets the process go.
struct Group {
    folder: PathBuf,
    limit: &'static str,
    used: &'static str,
    pid: u32,
}

impl Group {
    /// None where no group for memory can be made.
    fn around(pid: u32) -> anyhow::Result<Option<Self>> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let of_memory = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let first =
            of_memory.into_iter().find(|(controllers, _)| controllers.split(',').any(|c| c == "memory"));
        let base = match first {
            Some((_, path)) => Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')),
            None => PathBuf::from("/sys/fs/cgroup"),
        };
        let folder = base.join(format!("stallscope-test-{pid}"));
        if std::fs::create_dir(&folder).is_err() {
            return Ok(None);
        }
        let names = [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")];
        let Some((limit, used)) = names.into_iter().find(|(limit, _)| folder.join(limit).exists()) else {
            std::fs::remove_dir(&folder)?;
            return Ok(None);
        };
        let group = Self { folder, limit, used, pid };
        std::fs::write(group.folder.join("cgroup.procs"), pid.to_string())?;
        Ok(Some(group))
    }

    /// So much more than is used now.
    fn leave(&self, bytes: u64) -> anyhow::Result<()> {
        let used: u64 = std::fs::read_to_string(self.folder.join(self.used))?.trim().parse()?;
        Ok(std::fs::write(self.folder.join(self.limit), (used + bytes).to_string())?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process may be gone; a group with somebody in it stays.
        if let Some(parent) = self.folder.parent() {
            let _ = std::fs::write(parent.join("cgroup.procs"), self.pid.to_string());
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[test]
fn a_job_at_its_memory_limit_is_left_alone_and_the_limit_is_named() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let mut job = Job::start(&libraries, "gpus=1", &[])?;
    let pid = job.child.id();
    let Some(group) = Group::around(pid)? else {
        println!("skipped: no control group for memory can be made here");
        return Ok(());
    };
    let capture = folder.path().join("a.stall");
    let record = || {
        let (pid, out) = (pid.to_string(), capture.display().to_string());
        json(&["record", "--pid", &pid, "-d", "2s", "-o", &out, "--json", "--force"])
    };
    group.leave(3 << 20)?;
    let summary = record()?;
    let refused = summary["gpus"][0]["refused"].as_str().unwrap_or_default();
    assert!(refused.contains("memory limit leaves"), "{summary:#}");
    assert!(job.child.try_wait()?.is_none(), "it lives");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    assert!(!maps.contains("stallscope-agent"), "{maps}");
    // With room it is recorded.
    group.leave(256 << 20)?;
    let summary = record()?;
    assert!(summary["gpus"][0]["refused"].is_null(), "{summary:#}");
    assert!(job.child.try_wait()?.is_none(), "it lives");
    Ok(())
}
