//! What recording costs a running job, and the recorder.
//!
//! Wall clock: one long-lived load counts its work; its rate is taken in windows without and with the recorder, in turn,
//! and each pair gives one number. Accounted: the kernel's own measure of the time in our programs. The two answer
//! different questions: the first has the noise of the machine in it, the second leaves out the way into a program.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_ebpf::cost::{Accounting, program_costs};
use stallscope_ebpf::probes::programs;

use super::{Measurement, Options};
use crate::cli::stallscope;
use crate::live::job::{mpi_venv, programs as jobs};
use crate::live::lab::{Running, obstacle, until};

/// A load that counts.
struct Load {
    counter: PathBuf,
    pid: u32,
    child: Child,
    /// Whether it is to be ended by SIGTERM.
    gently: bool,
    _folder: tempfile::TempDir,
}

impl Drop for Load {
    fn drop(&mut self) {
        // All that the load has started is in its process group; mpirun has its ranks end only when asked.
        let signal = if self.gently { "-TERM" } else { "-KILL" };
        let _ = Command::new("kill").args([signal, "--", &format!("-{}", self.pid)]).status();
        let _ = self.child.wait();
    }
}

impl Load {
    fn start(gently: bool, command: impl FnOnce(&Path) -> anyhow::Result<Command>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let counter = folder.path().join("count");
        let mut command = command(folder.path())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the load")?;
        let load = Self { counter, pid: child.id(), child, gently, _folder: folder };
        until("the load to work", || load.count() > 0)?;
        Ok(load)
    }

    fn count(&self) -> u64 {
        let bytes = std::fs::read(&self.counter).unwrap_or_default();
        bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
    }

    /// Work a second over a window.
    fn rate(&self, window: Duration) -> f64 {
        let (begin, from) = (Instant::now(), self.count());
        std::thread::sleep(window);
        let work = self.count() - from;
        work as f64 / begin.elapsed().as_secs_f64()
    }
}

fn ping_pong(cpu: u32) -> anyhow::Result<Load> {
    Load::start(false, |folder| {
        let program = folder.join("ping_pong");
        let built =
            Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(jobs().join("ping_pong.c")).status()?;
        ensure!(built.success(), "cc cannot build the load");
        let mut command = Command::new(program);
        command.arg(folder.join("count")).arg(cpu.to_string());
        Ok(command)
    })
}

fn python(program: &str) -> anyhow::Result<Load> {
    Load::start(false, |folder| {
        let mut command = Command::new("python3");
        command.arg(jobs().join(program)).arg(folder.join("count")).arg(folder);
        Ok(command)
    })
}

fn storm() -> anyhow::Result<Load> {
    let venv = mpi_venv()?;
    Load::start(true, |folder| {
        let mut command = Command::new(venv.join("bin/mpirun"));
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", "4"]);
        command
            .arg(venv.join("bin/python"))
            .arg(jobs().join("all_reduce_storm.py"))
            .arg(folder.join("count"));
        Ok(command)
    })
}

/// A recorder at work.
struct Recorder {
    running: Running,
    pid: u32,
    capture: PathBuf,
    _folder: tempfile::TempDir,
}

/// What a recorder said and cost.
struct Recorded {
    summary: Value,
    info: Value,
    rate: f64,
    /// CPU time over wall time of the window.
    cpu: f64,
    peak_kib: u64,
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

impl Recorder {
    fn start(load: u32, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let capture = folder.path().join("a.stall");
        let child = Command::new(stallscope()?)
            .args(["record", "--json", "--pid", &load.to_string(), "-o"])
            .arg(&capture)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let running = Running(child);
        let pid = running.0.id();
        // The capture appears with its first second.
        until("the recorder to record", || capture.exists())?;
        Ok(Self { running, pid, capture, _folder: folder })
    }

    fn stop(mut self, rate: f64, cpu: f64) -> anyhow::Result<Recorded> {
        let peak_kib = peak_kib(self.pid);
        ensure!(Command::new("kill").args(["-INT", &self.pid.to_string()]).status()?.success());
        let mut text = String::new();
        if let Some(mut out) = self.running.0.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut text)?;
        }
        ensure!(self.running.0.wait()?.success(), "the recorder failed");
        let info = Command::new(stallscope()?).arg("info").arg(&self.capture).arg("--json").output()?;
        let (summary, info) = (serde_json::from_str(&text)?, serde_json::from_slice(&info.stdout)?);
        Ok(Recorded { summary, info, rate, cpu, peak_kib })
    }
}

/// The load's rate while it is recorded.
fn recorded(load: &Load, arguments: &[&str], window: Duration) -> anyhow::Result<Recorded> {
    let recorder = Recorder::start(load.pid, arguments)?;
    let (begin, ticks) = (Instant::now(), cpu_ticks(recorder.pid));
    let rate = load.rate(window);
    let ticks = cpu_ticks(recorder.pid) - ticks;
    let cpu = ticks as f64 / 100.0 / begin.elapsed().as_secs_f64();
    recorder.stop(rate, cpu)
}

/// Windows without and with the recorder, in turn; the first and the last are without.
struct Pairs {
    without: Vec<f64>,
    with: Vec<Recorded>,
}

impl Pairs {
    fn take(load: &Load, arguments: &[&str], window: Duration, options: &Options) -> anyhow::Result<Self> {
        let mut without = vec![load.rate(window)];
        let mut with = Vec::new();
        for _ in 0..if options.quick { 3 } else { 9 } {
            with.push(recorded(load, arguments, window)?);
            without.push(load.rate(window));
        }
        Ok(Self { without, with })
    }

    /// Of each window with the recorder and the mean of the two around it: what drifts evenly cancels out.
    fn each(&self, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        let around = self.without.windows(2).map(|two| two.iter().sum::<f64>() / 2.0);
        around.zip(&self.with).map(|(without, with)| f(without, with.rate)).collect()
    }

    fn slowdown_percent(&self) -> Vec<f64> {
        self.each(|without, with| (without / with - 1.0) * 100.0)
    }

    /// The load against itself: what differs without any recorder.
    fn noise_percent(&self) -> Vec<f64> {
        self.without.windows(2).map(|w| ((w[0] / w[1]) - 1.0).abs() * 100.0).collect()
    }

    fn of_recorder(&self, f: impl Fn(&Recorded) -> f64) -> Vec<f64> {
        self.with.iter().map(f).collect()
    }
}

fn skipped() -> bool {
    if let Some(why) = obstacle() {
        eprintln!("bench: skipped: {why}");
        return true;
    }
    false
}

fn lost(recorded: &Recorded) -> u64 {
    let count = |name: &str| recorded.summary["losses"][name].as_u64().unwrap_or(0);
    count("ring_full") + count("queue_full")
}

/// Time in programs over a window, by what the kernel accounts: ns a second, and entries a second.
fn accounted(load: &Load, arguments: &[&str], window: Duration) -> anyhow::Result<(f64, f64, f64)> {
    let recorder = Recorder::start(load.pid, arguments)?;
    let accounting = Accounting::start()?;
    let sum = || {
        let all = program_costs(&programs());
        (all.iter().map(|c| c.time_ns).sum::<u64>(), all.iter().map(|c| c.runs).sum::<u64>())
    };
    let (begin, from) = (Instant::now(), sum());
    let rate = load.rate(window);
    let (to, seconds) = (sum(), begin.elapsed().as_secs_f64());
    drop(accounting);
    recorder.stop(rate, 0.0)?;
    Ok(((to.0 - from.0) as f64 / seconds, (to.1 - from.1) as f64 / seconds, rate))
}

/// A window of the ping-pong: a million switches.
const SWITCHES: Duration = Duration::from_secs(2);
/// A window of a job: it has to be longer than what the recorder does in turns (probes of calls that come too often are
/// taken off for two seconds at a time).
const JOBS: Duration = Duration::from_secs(6);

/// Ping-pong on one CPU: what a switch costs.
pub(super) fn switches(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    if skipped() {
        return Ok(Vec::new());
    }
    let load = ping_pong(0)?;
    let mut rows = Vec::new();
    let window = Duration::from_secs(if options.quick { 1 } else { 3 });
    let cases: [(&str, &[&str]); 3] = [
        ("a record a switch", &["--probes", "sched", "--no-stacks"]),
        ("all probes", &[]),
        ("all probes, a stack a wait", &["--stack-threshold", "0s"]),
    ];
    for (name, arguments) in cases {
        let pairs = Pairs::take(&load, arguments, SWITCHES, options)?;
        let micros = pairs.each(|without, with| (1e6 / with - 1e6 / without) / 2.0);
        let noise = pairs.without.windows(2).map(|w| (1e6 / w[0] - 1e6 / w[1]).abs() / 2.0).collect();
        rows.push(
            Measurement::new(format!("ping-pong, {name}"), "µs/switch", micros)
                .with_floor(noise, "the same load against itself"),
        );
        let (time, entries, rate) = accounted(&load, arguments, window)?;
        rows.push(Measurement::new(
            format!("ping-pong, {name}: accounted"),
            "µs/switch",
            vec![time / rate / 2.0 / 1e3],
        ));
        rows.push(Measurement::new(
            format!("ping-pong, {name}: entries"),
            "/switch",
            vec![entries / rate / 2.0],
        ));
        let share = |r: &Recorded| r.cpu * 100.0 * 1e5 / (r.rate * 2.0);
        rows.push(Measurement::new(
            format!("recorder at 100 k switches/s, {name}"),
            "% of a core",
            pairs.of_recorder(share),
        ));
        if arguments.contains(&"--no-stacks") {
            rows.push(Measurement::new("bytes a switch", "B", pairs.of_recorder(bytes_a_switch)));
        }
        let ms = |field: &'static str| move |r: &Recorded| r.summary[field].as_f64().unwrap_or(0.0) / 1e6;
        rows.push(Measurement::new(format!("attach, {name}"), "ms", pairs.of_recorder(ms("attach_ns"))));
        rows.push(Measurement::new(format!("detach, {name}"), "ms", pairs.of_recorder(ms("detach_ns"))));
    }
    Ok(rows)
}

/// Bytes of waits and preemptions by the waits: one a switch in this load.
fn bytes_a_switch(recorded: &Recorded) -> f64 {
    let empty = Vec::new();
    let kinds = recorded.info["kinds"].as_array().unwrap_or(&empty);
    let of = |name: &str, field: &str| {
        kinds.iter().find(|k| k["kind"] == name).and_then(|k| k[field].as_f64()).unwrap_or(0.0)
    };
    let rows = of("thread wait", "rows");
    if rows > 0.0 { (of("thread wait", "bytes") + of("preemption", "bytes")) / rows } else { 0.0 }
}

/// A data loader, an MPI storm and pure Python: what users run.
pub(super) fn jobs_slowdown(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    if skipped() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for name in ["data loader", "4 MPI ranks on few CPUs"] {
        let load = if name == "data loader" { python("data_loader.py")? } else { storm()? };
        let pairs = Pairs::take(&load, &[], JOBS, options)?;
        rows.push(
            Measurement::new(format!("{name}, all probes"), "% slower", pairs.slowdown_percent())
                .with_floor(pairs.noise_percent(), "the same load against itself"),
        );
        let (time, entries, _) = accounted(&load, &[], Duration::from_secs(3))?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        rows.push(Measurement::new(format!("{name}: accounted"), "% of all CPUs", vec![time / 1e7 / cpus]));
        rows.push(Measurement::new(format!("{name}: entries"), "k/s", vec![entries / 1e3]));
        rows.push(Measurement::new(
            format!("{name}: recorder"),
            "% of a core",
            pairs.of_recorder(|r| r.cpu * 100.0),
        ));
        rows.push(Measurement::new(
            format!("{name}: recorder's memory"),
            "MiB",
            pairs.of_recorder(|r| r.peak_kib as f64 / 1024.0),
        ));
        rows.push(Measurement::new(
            format!("{name}: records lost"),
            "",
            pairs.of_recorder(|r| lost(r) as f64),
        ));
    }
    let load = python("deep_compute.py")?;
    let (time, _, _) = accounted(&load, &[], Duration::from_secs(if options.quick { 2 } else { 8 }))?;
    rows.push(Measurement::new("pure Python at 99 Hz: accounted", "% of a core", vec![time / 1e7]));
    Ok(rows)
}

/// An idle host, and as many records as can be made here.
pub(super) fn recorder(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    if skipped() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    let sleeper = Running(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?);
    let idle = Recorder::start(sleeper.0.id(), &[])?;
    let (begin, ticks) = (Instant::now(), cpu_ticks(idle.pid));
    std::thread::sleep(Duration::from_secs(if options.quick { 5 } else { 30 }));
    let share = (cpu_ticks(idle.pid) - ticks) as f64 / begin.elapsed().as_secs_f64();
    idle.stop(0.0, 0.0)?;
    rows.push(Measurement::new("recorder, idle host", "% of a core", vec![share]));

    let load = ping_pong(0)?;
    let window = Duration::from_secs(if options.quick { 5 } else { 30 });
    let flood = recorded(&load, &["--probes", "sched", "--no-stacks"], window)?;
    let records = flood.summary["records"].as_f64().unwrap_or(0.0);
    let seconds = flood.summary["elapsed_ns"].as_f64().unwrap_or(1.0) / 1e9;
    rows.push(Measurement::new("flood: records", "k/s", vec![records / seconds / 1e3]));
    rows.push(Measurement::new("flood: records lost", "", vec![lost(&flood) as f64]));
    Ok(rows)
}
