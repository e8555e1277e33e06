//! The report: ledgers and findings of a capture as one value, rendered as JSON or as text.
//!
//! The JSON form is the stable interface (docs/report-json.md): keys are added, never renamed or dropped, without a new
//! `schema_version`.

mod cpu;
mod diff;
mod jobs;
mod losses;
mod odd;
mod render;
mod render_cpu;
mod render_whatif;
mod steps;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::DeviceId;

use crate::capture::{Capture, Device, ReadAt, Tables};
use crate::classify::OpClass;
use crate::findings::{self, Finding};
use crate::hang::{self, CollectiveState};
use crate::ledger::causes::{Amount, Cause};
use crate::ledger::{CommLeaf, DeviceLedger, IdleLeaf, Leaf, Ledgers, Root, RootLeaf, Sums, WaitedFor};
use crate::other_jobs::OtherJobs;
use crate::weights::LateHost;
use crate::whatif::{self, WhatIf};

pub(crate) use cpu::thread_name;
pub use cpu::{
    BlockDeviceReport, CollectiveReport, ConnectionReport, CpuCauseReport, CpuReport, FileReport,
    PageFaultReport, RunQueueReport, ThreadName, ThreadReport,
};
pub use diff::{Diff, DiffDevice};
pub use jobs::{JobLedger, JobReport};
pub use losses::{LossReport, loss_report};
pub(crate) use render::{alike, told};
pub use render::{render, render_diff};
pub use steps::{StepReport, StepsReport};
use text::printable;

/// Version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;

/// Entries of each list of largest things.
const TOP: usize = 10;

/// Everything that `stallscope report` says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The capture.
    pub capture: CaptureReport,
    /// One entry a device, in the order of rank and number.
    pub devices: Vec<DeviceReport>,
    /// The jobs that they belong to, by name.
    pub jobs: Vec<JobReport>,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What is known of the collectives of a job's ranks by their own account; null where none of them gave one.
    pub collective_state: Option<CollectiveState>,
    /// What a pipelined job would gain if parts of it were at their best; null for captures of anything else.
    pub whatif: Option<WhatIf>,
}

/// Where a capture comes from and whether it is whole.
#[derive(Clone, Debug, Serialize)]
pub struct CaptureReport {
    /// Host name, or null.
    pub host: Option<String>,
    /// Boot id, or null.
    pub boot_id: Option<String>,
    /// From the first to the last moment of any device's window.
    pub window: Window,
    /// Inputs.
    pub sources: Vec<SourceReport>,
    /// Labels given when it was recorded.
    pub labels: Map<String, Value>,
    /// What the recorder wants to be known: one sentence each.
    pub notes: Vec<String>,
    /// Records lost on the way, by counter.
    pub losses: Vec<LossReport>,
}

/// A stretch of time, Unix ns where the source says how its clock relates to Unix time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Window {
    /// Begin, ns.
    pub start_ns: i64,
    /// End, ns.
    pub end_ns: i64,
}

/// One input.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// Path as given.
    pub path: String,
    /// What it was.
    pub format: String,
}

/// One device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceReport {
    /// UUID, or a made-up identity.
    pub id: String,
    /// `gpu` or `cpu`.
    pub kind: &'static str,
    /// Number by which its process knows it.
    pub ordinal: u32,
    /// Rank, or null.
    pub rank: Option<u32>,
    /// Ranks in the job, or null.
    pub world_size: Option<u32>,
    /// Processes that used it.
    pub pids: Vec<i64>,
    /// Job, or null.
    pub job: Option<String>,
    /// Host, or null.
    pub host: Option<String>,
    /// Model, or null.
    pub model: Option<String>,
    /// Length of its window, ns.
    pub wall_ns: u64,
    /// Its window.
    pub window: Window,
    /// Exclusive leaves; they sum to `wall_ns`.
    pub direct: Map<String, Value>,
    /// What only a GPU has.
    #[serde(flatten)]
    pub gpu: Option<GpuReport>,
    /// What only a rank on CPUs has.
    #[serde(flatten)]
    pub cpu: Option<CpuReport>,
}

/// What only a GPU has.
#[derive(Clone, Debug, Serialize)]
pub struct GpuReport {
    /// Unions that may overlap: all communication, all copies.
    pub totals: Totals,
    /// Exclusive leaves of idle time; they sum to `direct.idle_ns`.
    pub idle: Map<String, Value>,
    /// Of `direct.unknown_ns`, how long nothing recorded ran while work launched before the device was observed may have, ns.
    pub unseen_ns: u64,
    /// Operations in the window.
    pub operations: u64,
    /// Of those, with a recorded launch.
    pub launched_operations: u64,
    /// Operations that precede the window.
    pub operations_before_window: u64,
    /// How much of its work has the host stack of its launch; null where launches were not sampled.
    pub launch_stacks: Option<LaunchStacksReport>,
    /// Exclusive leaves of exposed communication; they sum to `direct.comm_exposed_ns`.
    pub comm: Map<String, Value>,
    /// Where its time went when what it waited for a late rank is charged to what that one did; sums to `wall_ns`.
    pub root: Map<String, Value>,
    /// What it waited for, the most first; sums to `comm.wait_ns`.
    pub waits: Vec<WaitReport>,
    /// Time that others waited for it as the one to blame, ns.
    pub charged_ns: u64,
    /// How many times as long the recorded part of the job took as it would have with this rank no later than the others, by
    /// simulation; null where that was not worked out.
    pub slowdown: Option<f64>,
    /// Idle gaps.
    pub gaps: Gaps,
    /// Time from a launch to a start that counts as the device's own latency, ns.
    pub device_floor_ns: u64,
    /// Largest causes of idle time.
    pub idle_causes: Vec<CauseReport>,
    /// Of `idle.host_ns`, what the launching threads did; null where they were not followed.
    pub idle_host: Option<cpu::IdleHostReport>,
    /// The rest of `idle.host_ns`, by what the stacks of a trace say, the most first.
    pub idle_work: Vec<IdleWorkReport>,
    /// Kernels and copies with the most time.
    pub top_operations: Vec<OperationReport>,
    /// Steps, or null where none could be told.
    pub steps: Option<StepsReport>,
}

/// Time that a device waited for a late rank.
#[derive(Clone, Debug, Serialize)]
pub struct WaitReport {
    /// Identities of the device that was waited for, the one that that waited for, and so on; the last is to blame.
    pub via: Vec<String>,
    /// Their ranks; null where one is not known.
    pub via_ranks: Vec<Option<u32>>,
    /// What the last of them did: a key of `root`.
    pub leaf: &'static str,
    /// Where that is `idle_host_ns`, what the threads that launch on it did, in the leaves of a rank on CPUs that are not 0; sums to
    /// `ns`. Empty where they were not followed.
    pub host: Map<String, Value>,
    /// Time, ns.
    pub ns: u64,
    /// Stretches.
    pub count: u64,
    /// The longest, ns.
    pub longest_ns: u64,
}

/// Unions of classes, exposed or not.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Totals {
    /// Communication, ns.
    pub comm_ns: u64,
    /// Copies, ns.
    pub memcpy_ns: u64,
}

/// How much of a device's work has the host stack of its launch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LaunchStacksReport {
    /// Operations whose launch was sampled.
    pub sampled: u64,
    /// Operations whose launch is recorded.
    pub launches: u64,
    /// Share of the operations' time whose launch was sampled.
    pub share_of_gpu_time: f64,
}

/// How idle time is spread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gaps {
    /// Number of gaps.
    pub count: u64,
    /// The longest, ns.
    pub longest_ns: u64,
    /// When it began, ns.
    pub longest_start_ns: i64,
}

/// One cause of idle time.
#[derive(Clone, Debug, Serialize)]
pub struct CauseReport {
    /// Key of the idle leaf.
    pub leaf: &'static str,
    /// The call that was open, or null.
    pub call: Option<String>,
    /// Stack of the thread, outermost first.
    pub stack: Vec<String>,
    /// Thread id, or null.
    pub tid: Option<i64>,
    /// Why nothing better is known, or null.
    pub reason: Option<&'static str>,
    /// Time, ns.
    pub ns: u64,
    /// Pieces of gaps.
    pub count: u64,
    /// The longest piece, ns.
    pub longest_ns: u64,
}

/// What a host that was not followed was busy with while its device was idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct IdleWorkReport {
    /// In a few words.
    pub what: &'static str,
    /// Whether nothing in the capture says what it was.
    pub unseen: bool,
    /// Time, ns.
    pub ns: u64,
}

/// Operations of one name.
#[derive(Clone, Debug, Serialize)]
pub struct OperationReport {
    /// Kernel or copy.
    pub name: String,
    /// `compute`, `communication` or `copy`.
    pub class: &'static str,
    /// How many.
    pub count: u64,
    /// Sum of their durations, ns.
    pub ns: u64,
}

fn direct_map(sums: &Sums) -> Map<String, Value> {
    Leaf::ALL.iter().map(|&leaf| (leaf.key().to_owned(), sums.get(leaf).into())).collect()
}

fn idle_map(sums: &Sums) -> Map<String, Value> {
    IdleLeaf::ALL.iter().map(|&leaf| (leaf.key().to_owned(), sums.idle(leaf).into())).collect()
}

/// Text of a capture, fit to be printed; none where empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| printable(text).into_owned())
}

/// Adds up times of several devices: each fits by itself, a made-up capture's sum need not.
pub(crate) fn saturating_sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

impl Report {
    /// Puts ledgers and findings together.
    pub fn build<S: ReadAt>(capture: &Capture<S>, ledgers: &Ledgers) -> Self {
        let tables = capture.tables();
        let mut devices = Vec::new();
        let mut findings = Vec::new();
        let mut late: BTreeMap<DeviceId, LateHost> = BTreeMap::new();
        for ledger in &ledgers.gpus {
            late.insert(ledger.device, LateHost::of(&ledger.root));
        }
        let lateness = ledgers.recorded.lateness(&ledgers.gpus);
        for ledger in &ledgers.gpus {
            let mut report = device_report(ledger, &late, tables);
            if let (Some(gpu), Some(Ok(saved))) = (&mut report.gpu, lateness.get(&ledger.device)) {
                gpu.slowdown = ledgers.recorded.slowdown(ledger.device, *saved, &ledgers.gpus);
            }
            findings.extend(findings::of_device(ledger, &report.id, tables));
            findings.extend(findings::slow_transfers(capture, ledger, &report.id));
            devices.push(report);
        }
        findings.extend(findings::of_gpus(capture, &ledgers.gpus, &lateness));
        findings::recoverable(&mut findings, ledgers);
        let ranks: Vec<DeviceReport> =
            ledgers.cpus.iter().map(|ledger| cpu::device_report(ledger, tables)).collect();
        let ids: Vec<String> = ranks.iter().map(|d| d.id.clone()).collect();
        findings.extend(findings::of_ranks(capture, &ledgers.cpus, &ids));
        devices.extend(ranks);
        devices.sort_by_key(|d| (d.rank.unwrap_or(u32::MAX), d.ordinal, d.id.clone()));
        let whatif = whatif::analyse(capture);
        findings.extend(whatif.as_ref().and_then(whatif::finding));
        // Operations of a pipelined job are laid out step by step: that says nothing about clocks.
        if whatif.is_none() {
            findings.extend(findings::of_clocks(capture, ledgers));
        }
        let job = hang::job_of(capture);
        findings.extend(job.iter().flat_map(|job| hang::findings(job, tables)));
        findings.extend(hang::live_findings(capture));
        let still = hang::standstill(capture);
        // Who waits for others by yielding is runnable all the time, whoever else wants the CPU.
        findings.retain(|f| f.rule != "rank-run-queue" || !still.in_communication.contains(&f.device));
        findings.extend(still.findings);
        findings::rank(&mut findings);
        Self {
            schema_version: SCHEMA_VERSION,
            capture: capture_report(capture, &devices),
            jobs: jobs::of(&devices),
            devices,
            findings,
            collective_state: job.as_ref().map(CollectiveState::of),
            whatif,
        }
    }

    /// The JSON form, indented.
    ///
    /// # Errors
    /// None in practice: every key is a string.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

fn capture_report<S: ReadAt>(capture: &Capture<S>, devices: &[DeviceReport]) -> CaptureReport {
    let tables = capture.tables();
    let start_ns = devices.iter().map(|d| d.window.start_ns).min().unwrap_or(0);
    let end_ns = devices.iter().map(|d| d.window.end_ns).max().unwrap_or(0);
    CaptureReport {
        host: some(capture.host()),
        boot_id: some(capture.boot_id()),
        window: Window { start_ns, end_ns },
        sources: tables
            .sources()
            .iter()
            .map(|s| SourceReport {
                path: printable(&s.path).into_owned(),
                format: printable(&s.format).into_owned(),
            })
            .collect(),
        labels: tables
            .labels()
            .iter()
            .filter(|(key, _)| key != NOTE)
            .map(|(k, v)| (printable(k).into_owned(), printable(v).into_owned().into()))
            .collect(),
        notes: notes(tables).map(|note| printable(note).into_owned()).collect(),
        losses: capture.losses().into_iter().map(|(counter, count)| loss_report(counter, count)).collect(),
    }
}

/// The label under which a recorder leaves what is to be known; there may be several.
pub const NOTE: &str = "note";

/// What the recorder wants to be known.
pub fn notes(tables: &Tables) -> impl Iterator<Item = &str> {
    tables.labels().iter().filter(|(key, _)| key == NOTE).map(|(_, note)| note.as_str())
}

/// Whether the recorder says that it did not see what a process ran on its GPU.
pub(crate) fn is_gpu_unseen(pid: i64, tables: &Tables) -> bool {
    let begin = format!("GPU work of process {pid} was not seen");
    notes(tables).any(|note| note.starts_with(&begin))
}

fn device_report(
    ledger: &DeviceLedger,
    late: &BTreeMap<DeviceId, LateHost>,
    tables: &Tables,
) -> DeviceReport {
    let gpu = GpuReport {
        totals: Totals { comm_ns: ledger.comm_ns, memcpy_ns: ledger.memcpy_ns },
        idle: idle_map(&ledger.sums),
        unseen_ns: ledger.unseen_ns,
        operations: ledger.ops,
        launched_operations: ledger.launched_ops,
        operations_before_window: ledger.ops_before_window,
        launch_stacks: ledger.launch_stacks.map(|coverage| LaunchStacksReport {
            sampled: coverage.sampled,
            launches: coverage.launches,
            share_of_gpu_time: coverage.share(),
        }),
        gaps: Gaps {
            count: ledger.gaps,
            longest_ns: ledger.longest_gap.1,
            longest_start_ns: ledger.longest_gap.0.0,
        },
        device_floor_ns: ledger.device_floor_ns,
        idle_host: cpu::idle_host_report(&ledger.host_work, tables),
        idle_work: idle_work(ledger, tables),
        idle_causes: ledger
            .causes
            .ranked()
            .into_iter()
            .take(TOP)
            .map(|(cause, amount)| cause_report(ledger, tables, cause, amount))
            .collect(),
        top_operations: top_operations(ledger, tables),
        steps: steps::steps_report(ledger, tables),
        comm: CommLeaf::ALL.iter().map(|&l| (l.key().to_owned(), ledger.sums.comm(l).into())).collect(),
        root: RootLeaf::ALL.iter().map(|&l| (l.key().to_owned(), ledger.root.get(l).into())).collect(),
        waits: waits(&ledger.root, late, tables),
        charged_ns: ledger.root.charged_ns,
        slowdown: None,
    };
    let window = Window { start_ns: ledger.start.0, end_ns: ledger.end.0 };
    let wall_ns = ledger.end.since(ledger.start);
    DeviceReport {
        gpu: Some(gpu),
        ..common(ledger.device, tables, wall_ns, window, direct_map(&ledger.sums))
    }
}

fn idle_work(ledger: &DeviceLedger, tables: &Tables) -> Vec<IdleWorkReport> {
    let mut all: BTreeMap<&'static str, IdleWorkReport> = BTreeMap::new();
    for (cause, amount) in ledger.causes.ranked().iter().filter(|(cause, _)| cause.leaf == IdleLeaf::Host) {
        let ids = ledger.tree.names(cause.node);
        let names: Vec<&str> = ids.iter().map(|&n| tables.string(n)).collect();
        let (work, _) = findings::host_work(&names);
        let unseen = work == findings::UNSEEN;
        let entry = all.entry(work.what).or_insert(IdleWorkReport { what: work.what, unseen, ns: 0 });
        entry.ns = entry.ns.saturating_add(amount.ns);
    }
    let mut all: Vec<IdleWorkReport> = all.into_values().collect();
    all.sort_by_key(|work| std::cmp::Reverse(work.ns));
    all
}

fn waits(root: &Root, late: &BTreeMap<DeviceId, LateHost>, tables: &Tables) -> Vec<WaitReport> {
    let host = |waited: &WaitedFor, ns| {
        let late = waited.culprit().filter(|_| waited.leaf == RootLeaf::IdleHost).and_then(|c| late.get(&c));
        let parts = late.map(|late| late.divide(ns)).unwrap_or_default();
        parts.into_iter().map(|(leaf, ns)| (leaf.key().to_owned(), ns.into())).collect()
    };
    let mut all: Vec<WaitReport> = root
        .waits
        .iter()
        .map(|(waited, amount)| WaitReport {
            via: waited.via.iter().map(|&device| device_name(device, tables)).collect(),
            via_ranks: waited.via.iter().map(|&device| rank_of(device, tables)).collect(),
            leaf: waited.leaf.key(),
            host: host(waited, amount.ns),
            ns: amount.ns,
            count: amount.count,
            longest_ns: amount.longest_ns,
        })
        .collect();
    all.sort_by_key(|wait| std::cmp::Reverse(wait.ns));
    all
}

/// The identity of a device.
pub(crate) fn device_name(id: DeviceId, tables: &Tables) -> String {
    tables.device(id).and_then(|d| some(&d.id)).unwrap_or_else(|| format!("device-{}", id.0))
}

/// The rank that drives a device.
pub(crate) fn rank_of(id: DeviceId, tables: &Tables) -> Option<u32> {
    OtherJobs::own(id, tables).find_map(|process| process.rank)
}

/// What is said of every device.
fn common(
    id: DeviceId,
    tables: &Tables,
    wall_ns: u64,
    window: Window,
    direct: Map<String, Value>,
) -> DeviceReport {
    let unknown = Device::default();
    let device = tables.device(id).unwrap_or(&unknown);
    let processes: Vec<_> = OtherJobs::own(id, tables).collect();
    DeviceReport {
        id: device_name(id, tables),
        kind: device_kind::name(device.kind),
        ordinal: device.ordinal,
        rank: processes.iter().find_map(|p| p.rank),
        world_size: processes.iter().find_map(|p| p.world_size),
        pids: device.processes.iter().filter_map(|&p| Some(tables.process(p)?.pid)).collect(),
        job: processes.iter().find_map(|p| some(&p.job)),
        host: processes.iter().find_map(|p| some(&p.host)),
        model: some(&device.model),
        wall_ns,
        window,
        direct,
        gpu: None,
        cpu: None,
    }
}

fn cause_report(ledger: &DeviceLedger, tables: &Tables, cause: Cause, amount: Amount) -> CauseReport {
    CauseReport {
        leaf: cause.leaf.key(),
        call: some(tables.string(cause.call)),
        stack: ledger
            .tree
            .names(cause.node)
            .into_iter()
            .map(|n| printable(tables.string(n)).into_owned())
            .collect(),
        tid: cause.thread.and_then(|t| tables.thread(t)).map(|t| t.tid),
        reason: Some(cause.reason.text()).filter(|r| !r.is_empty()),
        ns: amount.ns,
        count: amount.count,
        longest_ns: amount.longest_ns,
    }
}

fn top_operations(ledger: &DeviceLedger, tables: &Tables) -> Vec<OperationReport> {
    let mut all: Vec<_> = ledger.by_name.iter().collect();
    all.sort_by_key(|(name, (_, tally))| (std::cmp::Reverse(tally.ns), **name));
    all.into_iter()
        .take(TOP)
        .map(|(&name, &(class, tally))| OperationReport {
            name: printable(tables.string(name)).into_owned(),
            class: match class {
                OpClass::Compute => "compute",
                OpClass::Comm => "communication",
                OpClass::Copy => "copy",
            },
            count: tally.count,
            ns: tally.ns,
        })
        .collect()
}
