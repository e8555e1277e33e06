//! A visit to a job: the agent goes in, records come, it goes to rest.
//!
//! Two ways: the program as a user runs it (`stallscope record`, which needs eBPF), and the agent alone, put in and read
//! by this process with the program's own code, which needs ptrace only. A machine with a GPU may be a container that
//! allows the second and not the first.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use stallscope_agents::{Event, Op, Team, Told, What, Why, everything};
use stallscope_core::capture::Capture;
use stallscope_core::rows::GpuOp;
use stallscope_schemas::record::{OpKind, RecordKind};

use super::context::Context;
use super::job::spelled;
use super::limit;

/// The program says nothing when its agents are on. Issue 4 allows them 500 ms.
const PROGRAM_ON_AFTER: Duration = Duration::from_millis(700);
/// How long either way may take to be on: enabling CUPTI late has been seen to take seconds.
const ON_WITHIN: Duration = Duration::from_secs(20);
const REST_WITHIN: Duration = Duration::from_secs(10);
/// How long the program may take to write what it still has.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);
/// Operations that are kept for whoever compares them one by one.
const KEPT: usize = 1 << 20;

/// How to visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The agent, and nothing else. What it tells is counted and dropped.
    Agent,
    /// `stallscope record`: eBPF, the agent, a capture. Level 3.
    Program,
    /// `stallscope record --no-gpu`: eBPF and a capture. Level 1.
    ProgramWithoutGpu,
}

impl Way {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent alone",
            Self::Program => "level 3",
            Self::ProgramWithoutGpu => "level 1",
        }
    }
}

/// What came of a visit.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Kernels.
    pub kernels: u64,
    /// Kernels by name: how many, and of the first million the durations, ns.
    pub by_name: BTreeMap<String, (u64, Vec<f64>)>,
    /// Calls into CUDA by name.
    pub calls: BTreeMap<String, u64>,
    /// Kernels one by one, of the agent alone.
    pub ops: Vec<Op>,
    /// Devices, as the visit names them.
    pub devices: Vec<String>,
    /// How long it took to attach eBPF, ms.
    pub host_attach_ms: Option<f64>,
    /// From the decision to put the agent in until it collects, ms.
    pub attach_ms: Option<f64>,
    /// How long the agent took to rest, ms.
    pub detach_ms: Option<f64>,
    /// CUPTI's version.
    pub cupti_version: Option<u64>,
    /// Why nothing, or not everything, came.
    pub refused: Option<String>,
    /// What was lost, by counter.
    pub lost: Vec<(String, u64)>,
    /// Largest error of a device's time, ns.
    pub clock_error_ns: u64,
    /// The capture, where one was written.
    pub capture: Option<PathBuf>,
}

impl Seen {
    fn kernel(&mut self, name: &str, ns: Option<u64>) {
        self.kernels += 1;
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Default::default());
        }
        if let Some((count, durations)) = self.by_name.get_mut(name) {
            *count += 1;
            if let Some(ns) = ns
                && durations.len() < KEPT
            {
                durations.push(ns as f64);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Op(op) => {
                if let What::Kernel(name) = &op.what {
                    let name = Arc::clone(name);
                    self.kernel(&name, op.end.map(|end| end.saturating_sub(op.start)));
                    if self.ops.len() < KEPT {
                        self.ops.push(op);
                    }
                }
            }
            Event::Call { name, .. } => *self.calls.entry(name.to_string()).or_default() += 1,
            Event::Device(device) => self.devices.push(format!("{} {}", device.uuid, device.model)),
            _ => {}
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Events { events, .. } => events.into_iter().for_each(|event| self.event(event)),
            Told::On { attach, cupti_version, .. } => {
                self.attach_ms = Some(attach.as_secs_f64() * 1e3);
                self.cupti_version = Some(u64::from(cupti_version));
            }
            Told::Observed { detach, .. } => self.detach_ms = Some(detach.as_secs_f64() * 1e3),
            Told::Losses { lost, clock_error_ns, .. } => {
                self.lost = lost.iter().map(|(what, n)| (what.name().to_owned(), *n)).collect();
                self.clock_error_ns = clock_error_ns;
            }
            Told::Ended { why: Why::Asked, .. } => {}
            Told::Ended { why, .. } => self.refused = Some(why.to_string()),
            #[allow(unreachable_patterns, reason = "the team may learn to tell more")]
            _ => {}
        }
    }

    /// What was lost, in words.
    #[must_use]
    pub fn losses(&self) -> String {
        let all: Vec<String> = self.lost.iter().map(|(what, n)| format!("{what} {n}")).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }
}

/// A visit that goes on. Dropping it ends it.
#[derive(Debug)]
pub struct Visit {
    inner: Inner,
    /// What is run, as it would be typed.
    pub command: String,
}

#[derive(Debug)]
enum Inner {
    Agent { stop: Arc<AtomicBool>, on: Arc<AtomicBool>, thread: Option<JoinHandle<Seen>> },
    Program { child: Child, capture: PathBuf, output: PathBuf, errors: PathBuf, without_gpu: bool },
}

impl Visit {
    /// Begins a visit to these processes.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn begin(context: &Context, way: Way, pids: &[u32]) -> anyhow::Result<Self> {
        match way {
            Way::Agent => Ok(Self::agent(pids)),
            Way::Program | Way::ProgramWithoutGpu => {
                Self::program(context, pids, way == Way::ProgramWithoutGpu)
            }
        }
    }

    fn agent(pids: &[u32]) -> Self {
        let (stop, on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut team = Team::new(stallscope_cupti_image::AGENT, everything(), stallscope_symbols::readable);
        pids.iter().for_each(|&pid| team.follow(pid));
        let (asked, is_on, pids) = (Arc::clone(&stop), Arc::clone(&on), pids.len());
        let thread = std::thread::spawn(move || {
            let (mut seen, mut started, mut asked_at) = (Seen::default(), 0, None);
            loop {
                if asked_at.is_none() && asked.load(Ordering::Relaxed) {
                    team.ask_to_rest();
                    asked_at = Some(Instant::now());
                }
                let rests = team.is_at_rest();
                for told in team.told() {
                    started += usize::from(matches!(told, Told::On { .. } | Told::Ended { .. }));
                    seen.told(told);
                    is_on.store(started >= pids, Ordering::Relaxed);
                }
                // What is told after the team was seen at rest has been taken in by now.
                if rests || asked_at.is_some_and(|at| at.elapsed() > REST_WITHIN) {
                    if !rests {
                        seen.refused = Some(format!("the agent did not rest within {REST_WITHIN:?}"));
                    }
                    is_on.store(true, Ordering::Relaxed);
                    return seen;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let command = "agent alone, read by this program".to_owned();
        Self { inner: Inner::Agent { stop, on, thread: Some(thread) }, command }
    }

    fn program(context: &Context, pids: &[u32], without_gpu: bool) -> anyhow::Result<Self> {
        let work = context.work();
        let at = |name: &str| work.join(name);
        let (capture, output, errors) = (at("visit.stall"), at("record.out"), at("record.err"));
        // Its appearance is the sign that the program records.
        let _ = std::fs::remove_file(&capture);
        let mut command = Command::new(context.pack.join("stallscope"));
        command.args(["record", "--only", "--json", "--force"]);
        for pid in pids {
            command.args(["--pid", &pid.to_string()]);
        }
        if without_gpu {
            command.arg("--no-gpu");
        }
        command.arg("-o").arg(&capture);
        let spelled = spelled(&command);
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let child = command.spawn().context("cannot start stallscope")?;
        let inner = Inner::Program { child, capture, output, errors, without_gpu };
        Ok(Self { inner, command: spelled })
    }

    /// Waits until records flow, or it is known that none will.
    ///
    /// # Errors
    /// Where that takes too long, or the program ends.
    pub fn on(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match &mut self.inner {
                Inner::Agent { on, .. } if on.load(Ordering::Relaxed) => return Ok(()),
                Inner::Agent { .. } => {}
                Inner::Program { capture, without_gpu, .. } if capture.exists() => {
                    if !*without_gpu {
                        std::thread::sleep(PROGRAM_ON_AFTER);
                    }
                    return Ok(());
                }
                Inner::Program { child, errors, .. } => {
                    if let Some(status) = child.try_wait()? {
                        let said = std::fs::read_to_string(errors).unwrap_or_default();
                        bail!("stallscope record: {status}: {}", said.trim());
                    }
                }
            }
            ensure!(begun.elapsed() < ON_WITHIN, "{} was not on within {ON_WITHIN:?}", self.command);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it and says what came.
    ///
    /// # Errors
    /// Where it does not end, or the program failed.
    pub fn end(mut self) -> anyhow::Result<Seen> {
        match &mut self.inner {
            Inner::Agent { stop, thread, .. } => {
                stop.store(true, Ordering::Relaxed);
                let thread = thread.take().context("it has ended already")?;
                thread.join().map_err(|_| anyhow::anyhow!("the thread that read the agent panicked"))
            }
            Inner::Program { child, capture, output, errors, .. } => {
                limit::signal(child, Signal::INT);
                let status = limit::wait_within(child, WRITTEN_WITHIN)?
                    .with_context(|| format!("stallscope record did not end within {WRITTEN_WITHIN:?}"))?;
                let said = std::fs::read_to_string(errors).unwrap_or_default();
                ensure!(status.success(), "stallscope record: {status}: {}", said.trim());
                let summary = serde_json::from_slice(&std::fs::read(output)?)?;
                of_capture(&summary, capture)
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        match &mut self.inner {
            // The thread ends by itself.
            Inner::Agent { stop, .. } => stop.store(true, Ordering::Relaxed),
            Inner::Program { child, .. } => {
                let _ = child.kill();
                let _ = limit::wait_within(child, Duration::from_secs(2));
            }
        }
    }
}

/// What `record --json` said, and what is in the capture.
fn of_capture(summary: &Value, path: &Path) -> anyhow::Result<Seen> {
    let mut seen = Seen { capture: Some(path.to_owned()), ..Seen::default() };
    seen.host_attach_ms = summary["attach_ns"].as_f64().map(|ns| ns / 1e6);
    for gpu in summary["gpus"].as_array().into_iter().flatten() {
        let ms = |key: &str| gpu[key].as_f64().map(|ns| ns / 1e6);
        seen.attach_ms = seen.attach_ms.into_iter().chain(ms("attach_ns")).reduce(f64::max);
        seen.detach_ms = seen.detach_ms.into_iter().chain(ms("detach_ns")).reduce(f64::max);
        seen.cupti_version = gpu["cupti_version"].as_u64().or(seen.cupti_version);
        seen.clock_error_ns = seen.clock_error_ns.max(gpu["clock_error_ns"].as_u64().unwrap_or(0));
        if let Some(why) = gpu["refused"].as_str() {
            seen.refused = Some(why.to_owned());
        }
    }
    let losses = summary["losses"].as_object().into_iter().flatten();
    seen.lost = losses.map(|(what, n)| (what.clone(), n.as_u64().unwrap_or(0))).collect();
    let capture = Capture::open(std::fs::read(path)?)?;
    for key in capture.keys(RecordKind::GpuOp) {
        let device = capture.tables().devices().get(key as usize);
        seen.devices.extend(device.map(|device| format!("{} {}", device.id, device.model)));
        for op in capture.rows::<GpuOp>(key) {
            if op.kind == OpKind::Kernel {
                seen.kernel(capture.tables().string(op.name), Some(op.duration_ns));
            }
            if let Some(launch) = op.launch {
                let name = capture.tables().string(launch.name);
                *seen.calls.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(seen)
}
