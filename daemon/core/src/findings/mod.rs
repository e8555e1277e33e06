//! Findings: what is worth a person's attention, ranked, each with its evidence and one thing to try.
//!
//! A finding is a share of a device's wall time that one rule speaks of. Nothing is said below a rule's first threshold.

mod blame;
mod clock;
mod computing;
mod cpu;
mod frames;
mod host_work;
mod late;
mod late_cpu;
mod links;
mod others;
mod recoverable;
pub mod rules;
mod slow_device;
mod uneven;
mod whose;

use std::collections::BTreeMap;

use serde::Serialize;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::CopyKind;
use stallscope_schemas::units::DeviceId;

use crate::capture::{Capture, ReadAt, Tables};
use crate::classify::{OpClass, communication_library};
use crate::ledger::causes::{Amount, Cause};
use crate::ledger::cpu::arrivals::{arrivals, position};
use crate::ledger::device::Tally;
use crate::ledger::so_far::Part;
use crate::ledger::{CommLeaf, CpuLeaf, CpuLedger, DeviceLedger, IdleLeaf, Leaf, RootLeaf};
use crate::report::text::{duration, percent, short_name, times};
use crate::report::{device_name, is_gpu_unseen};
use crate::rows::{LossWindow, ThreadLoss};
use crate::steps::median_and_mad;
use crate::timeline::host::Node;
use crate::whatif::Loss;

pub use blame::{Blame, Link};
pub(crate) use clock::of_clocks;
pub use cpu::Pointer;
pub(crate) use frames::{best_of, rank as frame_rank, user_frame};
pub(crate) use host_work::{UNSEEN, host_work};
pub(crate) use links::slow_transfers;
pub(crate) use recoverable::of_gpus as recoverable;
use rules::rule;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Describes the run; nothing is wrong.
    Info,
    /// Worth knowing.
    Notice,
    /// A problem.
    Warning,
    /// The first thing to mend.
    Critical,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Group: idle, communication, memcpy, compute, sharing, steps, rank, hang, capture.
    pub category: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Name of the rule that speaks.
    pub rule: &'static str,
    /// Identity of the device.
    pub device: String,
    /// What it is about, in a few words.
    pub what: &'static str,
    /// Time that the finding is about, ns.
    pub ns: u64,
    /// `ns` as a share of the device's wall time, 0 to 1.
    pub share: f64,
    /// One line: what was seen.
    pub summary: String,
    /// What in the capture says so.
    pub evidence: String,
    /// One concrete thing to try.
    #[serde(rename = "try")]
    pub advice: &'static str,
    /// Where a finding about a rank on CPUs points to.
    #[serde(flatten)]
    pub pointer: Option<Pointer>,
    /// Who is to blame.
    #[serde(flatten)]
    pub blame: Blame,
    /// What of a device's time it is about, where the job can be simulated without that.
    #[serde(skip)]
    pub(crate) lost: Option<Loss>,
}

/// Causes of idle time that one rule speaks of, together.
#[derive(Default)]
struct Group {
    ns: u64,
    longest_ns: u64,
    what: &'static str,
    /// The largest single cause, for the evidence, with the frame that named it.
    top: Option<(Cause, Amount)>,
    top_frame: Option<String>,
    /// Time under each stack node, its callees included.
    inclusive: BTreeMap<Node, u64>,
}

/// The rule that speaks of a cause of idle time, and what to call the cause.
fn idle_rule(cause: &Cause, names: &[&str]) -> (String, &'static str, Option<String>) {
    let (id, what) = match cause.leaf {
        IdleLeaf::Host => {
            let (work, frame) = host_work(names);
            return (format!("idle-{}", work.kind), work.what, frame.map(str::to_owned));
        }
        IdleLeaf::Driver => ("idle-driver", "driver calls"),
        IdleLeaf::Sync => ("idle-sync", "synchronisation calls"),
        IdleLeaf::Launch => ("idle-launch", "launch calls"),
        IdleLeaf::Dep => ("idle-dependency", "a dependency on other work"),
        IdleLeaf::Device => ("idle-device", "the device's own latency"),
        IdleLeaf::Graph => ("idle-graph", "gaps inside graph replays"),
        IdleLeaf::Unknown => ("idle-unknown", "an unknown cause"),
    };
    (id.to_owned(), what, None)
}

/// All findings of one device, unranked.
pub(crate) fn of_device(ledger: &DeviceLedger, id: &str, tables: &Tables) -> Vec<Finding> {
    let wall = ledger.end.since(ledger.start);
    let mut found = Found { id, wall, device: Some(ledger.device), out: Vec::new() };
    hang(ledger, tables, &mut found);
    idle(ledger, tables, &mut found);
    communication(ledger, tables, &mut found);
    copies(ledger, &mut found);
    compute(ledger, tables, &mut found);
    steps(ledger, tables, &mut found);
    others::had_it(ledger, tables, &mut found);
    let unseen = ledger.unseen_ns;
    found.add("capture-unseen", "work from before the recording", unseen, || {
        let summary = format!(
            "for {} of the time it is not known whether the device was idle: work launched before it was observed may have run",
            percent(unseen, wall)
        );
        let evidence = "nothing that was recorded ran, and until the host has waited for the whole device nothing shows that \
                        earlier work had ended";
        (summary, format!("{} in all; {evidence}", duration(unseen)))
    });
    found.out
}

/// All findings of GPUs for which more is asked than their ledgers: who kept others waiting, and why records are missing. Unranked.
pub(crate) fn of_gpus<S: ReadAt>(
    capture: &Capture<S>,
    ledgers: &[DeviceLedger],
    lateness: &BTreeMap<DeviceId, Result<u64, &'static str>>,
) -> Vec<Finding> {
    let mut out = late::of_gpus(capture, ledgers, lateness);
    for ledger in ledgers {
        let id = device_name(ledger.device, capture.tables());
        let wall = ledger.end.since(ledger.start);
        let mut found = Found { id: &id, wall, device: None, out: Vec::new() };
        let known_ns = hung_ns(ledger).saturating_add(ledger.unseen_ns);
        let unknown = ledger.sums.get(Leaf::Unknown).saturating_sub(known_ns);
        unaccounted(
            unknown,
            || main_loss(capture.rows::<LossWindow>(ledger.device.0).map(|w| (w.counter, w.duration_ns))),
            &mut found,
        );
        others::may_have_had_it(capture, ledger, &mut found);
        out.append(&mut found.out);
    }
    out
}

/// The reason for which most time has no records, where the recorder said it, and how long that was, ns.
fn main_loss(windows: impl Iterator<Item = (u16, u64)>) -> Option<(LossCounter, u64)> {
    let mut by_counter: BTreeMap<u16, u64> = BTreeMap::new();
    for (counter, ns) in windows {
        let sum = by_counter.entry(counter).or_default();
        *sum = sum.saturating_add(ns);
    }
    let (counter, ns) = by_counter.into_iter().max_by_key(|&(_, ns)| ns)?;
    Some((LossCounter::from_id(counter)?, ns))
}

/// Time of a device that cannot be accounted for, and why.
fn unaccounted(ns: u64, lost: impl FnOnce() -> Option<(LossCounter, u64)>, found: &mut Found<'_>) {
    let wall = found.wall;
    found.add("capture-unknown", "missing records", ns, || {
        let summary = format!("{} of the time cannot be accounted for", percent(ns, wall));
        let why = lost().map_or("records of this time are missing or damaged".to_owned(), |(counter, of)| {
            let part = if of.saturating_mul(2) > ns { "most" } else { "some" };
            format!("{part} of it by {}: {}", counter.name(), counter.explanation())
        });
        (summary, why)
    });
}

/// All findings of ranks on CPUs, unranked. `ids` are the identities of their devices.
pub(crate) fn of_ranks<S: ReadAt>(
    capture: &Capture<S>,
    ledgers: &[CpuLedger],
    ids: &[String],
) -> Vec<Finding> {
    let tables = capture.tables();
    let mut out = Vec::new();
    for (at, (ledger, id)) in ledgers.iter().zip(ids).enumerate() {
        let device = ledger.outside.as_ref().map(|_| position(at));
        let mut found = Found { id, wall: ledger.wall_ns, device, out: Vec::new() };
        cpu::of_rank(ledger, tables, &mut found);
        let mut processes = tables.device(ledger.device).into_iter().flat_map(|device| &device.processes);
        if processes.any(|&p| tables.process(p).is_some_and(|p| is_gpu_unseen(p.pid, tables))) {
            found.out.iter_mut().for_each(cpu::may_wait_for_a_gpu);
        }
        let threads = ledger.threads.iter().filter(|thread| thread.driving);
        let losses = threads.flat_map(|of| capture.rows::<ThreadLoss>(of.thread.0));
        let lost = || main_loss(losses.map(|row| (row.counter, row.duration_ns)));
        unaccounted(ledger.root.get(CpuLeaf::Unknown), lost, &mut found);
        out.append(&mut found.out);
    }
    // One communicator of a job tells the story: inner layers and sub-groups would tell it again.
    let mut arrivals = arrivals(capture, ledgers);
    let operations = arrivals.iter_mut().flat_map(|of_job| std::mem::take(&mut of_job.operations));
    let recorded = late_cpu::recorded(operations.collect(), ledgers);
    let ranks = recoverable::Ranks { recorded: &recorded, ledgers, arrivals: &arrivals, tables };
    recoverable::of_ranks(&mut out, &ranks);
    for arrivals in &arrivals {
        out.extend(late_cpu::late(arrivals, &recorded, ledgers, ids, tables));
        out.extend(links::between_ranks(capture, arrivals, ledgers, ids));
    }
    out
}

/// Orders findings: the worst first, then the largest.
pub(crate) fn rank(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (b.severity, b.ns)
            .cmp(&(a.severity, a.ns))
            .then_with(|| (a.rule, &a.device).cmp(&(b.rule, &b.device)))
    });
}

struct Found<'a> {
    id: &'a str,
    wall: u64,
    /// A GPU, or the position of a rank on CPUs, whose job can be simulated.
    device: Option<DeviceId>,
    out: Vec<Finding>,
}

impl Found<'_> {
    fn share(&self, ns: u64) -> f64 {
        if self.wall == 0 { 0.0 } else { ns as f64 / self.wall as f64 }
    }

    /// Adds a finding where the rule's thresholds say so.
    fn add(&mut self, id: &str, what: &'static str, ns: u64, text: impl FnOnce() -> (String, String)) {
        if let Some(severity) = rule(id).severity(self.share(ns)) {
            self.push(id, what, severity, ns, text());
        }
    }

    /// The same of time that is a part of what is kept of the device.
    fn add_of(
        &mut self,
        part: Part,
        (id, what, ns): (&str, &'static str, u64),
        text: impl FnOnce() -> (String, String),
    ) {
        let before = self.out.len();
        self.add(id, what, ns, text);
        let device = self.device;
        if let Some(finding) = self.out.get_mut(before) {
            finding.lost = device.map(|device| Loss { device, part, ns });
        }
    }

    fn push(
        &mut self,
        id: &str,
        what: &'static str,
        severity: Severity,
        ns: u64,
        (summary, evidence): (String, String),
    ) {
        let rule = rule(id);
        self.out.push(Finding {
            category: rule.category,
            severity,
            rule: rule.id,
            device: self.id.to_owned(),
            what,
            ns,
            share: self.share(ns),
            summary,
            evidence,
            advice: rule.advice,
            pointer: None,
            blame: Blame::default(),
            lost: None,
        });
    }
}

/// Time that operations which had not ended when the recording did explain, ns.
fn hung_ns(ledger: &DeviceLedger) -> u64 {
    ledger.unfinished.first().map_or(0, |first| ledger.end.since(first.start))
}

/// An operation that had not ended when the recording did.
fn hang(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    let Some(first) = ledger.unfinished.first() else { return };
    let ns = hung_ns(ledger);
    found.add("hang-operation", "an operation that does not end", ns, || {
        let name = short_name(tables.string(first.name), 90);
        let summary = format!("{name} had not ended after {}, when the recording did", duration(ns));
        let mut evidence = match ledger.unfinished.len() {
            1 => "nothing after it in its stream has begun".to_owned(),
            streams => format!("nothing after it in its stream has begun; so it is in {streams} streams"),
        };
        if let Some(launch) = first.launch {
            evidence.push_str(&format!("; launched by {}", short_name(tables.string(launch.name), 40)));
            if let Some(thread) = tables.thread(launch.thread) {
                evidence.push_str(&format!(" in thread {}", thread.tid));
            }
        }
        (summary, evidence)
    });
}

fn idle(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    cpu::of_idle(&ledger.host_work, tables, found);
    computing::of(ledger, tables, found);
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (cause, amount) in ledger.causes.ranked() {
        let ids = ledger.tree.names(cause.node);
        let names: Vec<&str> = ids.iter().map(|&n| tables.string(n)).collect();
        let (id, what, frame) = idle_rule(&cause, &names);
        let group = groups.entry(id).or_default();
        group.ns += amount.ns;
        group.longest_ns = group.longest_ns.max(amount.longest_ns);
        group.what = what;
        if group.top.is_none() {
            group.top = Some((cause, amount));
            group.top_frame = frame;
        }
        for node in ledger.tree.path(cause.node) {
            *group.inclusive.entry(node).or_default() += amount.ns;
        }
    }
    for (id, group) in groups {
        let wall = found.wall;
        let text = || {
            let of_idle = percent(group.ns, ledger.sums.get(Leaf::Idle));
            let summary = match id.as_str() {
                "idle-unknown" => {
                    format!("the device is idle for {} without a recorded cause", percent(group.ns, wall))
                }
                "idle-host-unseen" => format!(
                    "the device waits {} of the time for the host, and the trace does not show what it did",
                    percent(group.ns, wall)
                ),
                "idle-launch" | "idle-graph" | "idle-device" | "idle-dependency" | "idle-driver"
                | "idle-sync" => {
                    format!(
                        "the device is idle for {} of the time because of {}",
                        percent(group.ns, wall),
                        group.what
                    )
                }
                _ => format!(
                    "the device waits {} of the time for the host, which is busy {}",
                    percent(group.ns, wall),
                    host_work::busy(group.what)
                ),
            };
            (summary, idle_evidence(ledger, tables, &group, &of_idle))
        };
        match group.top.and_then(|(cause, _)| mended(cause.leaf)) {
            Some(part) => found.add_of(part, (&id, group.what, group.ns), text),
            None => found.add(&id, group.what, group.ns, text),
        }
    }
}

/// What would be gone if idle time of a leaf were; none where nothing says what it would be without.
fn mended(leaf: IdleLeaf) -> Option<Part> {
    match leaf {
        IdleLeaf::Dep | IdleLeaf::Unknown => None,
        leaf => Some(Part::Device(RootLeaf::of_idle(leaf))),
    }
}

fn idle_evidence(ledger: &DeviceLedger, tables: &Tables, group: &Group, of_idle: &str) -> String {
    let mut text = format!(
        "{} in all, at most {} at a stretch, {of_idle} of the idle time",
        duration(group.ns),
        duration(group.longest_ns)
    );
    let Some((cause, _)) = group.top else { return text };
    let call = tables.string(cause.call);
    if !call.is_empty() {
        text.push_str(&format!("; most in {call}"));
    }
    if let Some(frame) = &group.top_frame {
        text.push_str(&format!("; seen in {}", short_name(frame, 90)));
    }
    if let Some((path, ns)) = hot_path(ledger, tables, group) {
        text.push_str(&format!("; {} of it under {path}", percent(ns, group.ns)));
    }
    let reason = cause.reason.text();
    if !reason.is_empty() {
        text.push_str(&format!("; {reason}"));
    }
    if let Some(thread) = cause.thread.and_then(|t| tables.thread(t)) {
        text.push_str(&format!("; thread {}", thread.tid));
    }
    text
}

/// Follows the stacks of a group down the heaviest branch for as long as it holds most of the time: the last frames of
/// that way, and the time under its end.
fn hot_path(ledger: &DeviceLedger, tables: &Tables, group: &Group) -> Option<(String, u64)> {
    let mut end = None;
    // Nodes are numbered after their parents, so the last one with enough time ends the longest heavy way.
    for (&node, &ns) in &group.inclusive {
        if node != Node(0) && ns.saturating_mul(2) > group.ns {
            end = Some((node, ns));
        }
    }
    let (node, ns) = end?;
    let names = ledger.tree.names(node);
    let last = names.get(names.len().saturating_sub(3)..).unwrap_or_default();
    let frames: Vec<String> = last.iter().map(|&n| short_name(tables.string(n), 60)).collect();
    Some((frames.join(" → "), ns))
}

/// The names of a class with the most time, largest first.
fn top_names(ledger: &DeviceLedger, class: OpClass) -> Vec<(stallscope_schemas::units::StringId, Tally)> {
    let mut names: Vec<_> =
        ledger.by_name.iter().filter(|(_, (c, _))| *c == class).map(|(n, (_, t))| (*n, *t)).collect();
    names.sort_by_key(|(name, tally)| (std::cmp::Reverse(tally.ns), *name));
    names
}

fn communication(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    let exposed = ledger.sums.get(Leaf::CommExposed);
    // What it waited for a late rank is that one's finding.
    let waited = ledger.sums.comm(CommLeaf::Wait);
    let names = top_names(ledger, OpClass::Comm);
    let Some(&(name, tally)) = names.first() else { return };
    let text = || {
        let kernel = tables.string(name);
        let library = communication_library(kernel).map_or_else(String::new, |l| format!(" ({l})"));
        let summary = format!(
            "communication takes {} of the time, {} of it not hidden behind computation",
            percent(ledger.comm_ns, found.wall),
            percent(exposed, ledger.comm_ns)
        );
        let ops: u64 = names.iter().map(|(_, t)| t.count).sum();
        let mut evidence = format!(
            "{ops} operations, {} resident in all, {} of it exposed; most in {}{library}, {}, {} on average",
            duration(ledger.comm_ns),
            duration(exposed),
            short_name(kernel, 90),
            times(tally.count),
            duration(tally.ns / tally.count.max(1))
        );
        let unknown = ledger.sums.get(Leaf::Unknown);
        if unknown.saturating_mul(100) > found.wall {
            let share = percent(unknown, found.wall);
            evidence.push_str(&format!("; for {share} of the time it is not known what was hidden"));
        }
        if waited > 0 {
            evidence.push_str(&format!(
                "; for {} of what is exposed it waited for late ranks",
                percent(waited, exposed)
            ));
        }
        (summary, evidence)
    };
    let exposed = exposed.saturating_sub(waited);
    // Communication is always mentioned; exposed communication from the rule's thresholds on is more than a mention.
    let severity = rule("communication-exposed").severity(found.share(exposed)).unwrap_or(Severity::Info);
    let (ns, text) = (if severity == Severity::Info { ledger.comm_ns } else { exposed }, text());
    found.push("communication-exposed", "communication", severity, ns, text);
}

fn copies(ledger: &DeviceLedger, found: &mut Found<'_>) {
    let exposed = ledger.sums.get(Leaf::MemcpyExposed);
    let mut kinds: Vec<(CopyKind, Tally)> = ledger.copies.iter().map(|(k, t)| (*k, *t)).collect();
    kinds.sort_by_key(|(kind, tally)| (std::cmp::Reverse(tally.ns), *kind));
    let wall = found.wall;
    // Copies within the device want other advice than copies across the bus.
    let within = kinds.first().is_some_and(|(kind, _)| *kind == CopyKind::DeviceToDevice);
    let id = if within { "memcpy-exposed-device" } else { "memcpy-exposed" };
    found.add_of(Part::Device(RootLeaf::Memcpy), (id, "copies", exposed), || {
        let summary = format!("copies hold the device up for {} of the time", percent(exposed, wall));
        let each: Vec<String> = kinds
            .iter()
            .take(3)
            .map(|(kind, t)| {
                let rate = if t.ns == 0 { 0.0 } else { t.bytes as f64 / t.ns as f64 };
                format!("{} × {}, {} at {rate:.1} GB/s", t.count, kind.name(), duration(t.ns))
            })
            .collect();
        (summary, format!("{} exposed; {}", duration(exposed), each.join("; ")))
    });
}

fn compute(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    let Some((name, tally)) = top_names(ledger, OpClass::Compute).into_iter().next() else { return };
    // A fifth of the wall time in one kernel: worth naming, never a problem by itself.
    // Instances on several streams run side by side: together they cannot take more than all computation took.
    let ns = tally.ns.min(ledger.sums.get(Leaf::Compute));
    if ns == 0 || ns.saturating_mul(5) < found.wall {
        return;
    }
    let kernel = short_name(tables.string(name), 90);
    let summary = format!("one kernel takes {} of the time: {kernel}", percent(ns, found.wall));
    let evidence = format!("{}, {} on average", times(tally.count), duration(tally.ns / tally.count.max(1)));
    found.push("compute-dominant-kernel", "one kernel", Severity::Info, ns, (summary, evidence));
}

fn steps(ledger: &DeviceLedger, tables: &Tables, found: &mut Found<'_>) {
    let wall = |i: usize| ledger.steps.get(i).map_or(0, |s| s.end.since(s.start));
    let walls: Vec<u64> = ledger.whole_steps().map(|(i, _)| wall(i)).collect();
    let slow = ledger.slow_steps();
    let Some((median, _)) = median_and_mad(&walls) else { return };
    let excess = slow.iter().fold(0u64, |sum, &i| sum.saturating_add(wall(i).saturating_sub(median)));
    found.add("steps-slow", "slow steps", excess, || {
        let summary = format!(
            "{} of {} steps took longer than the rest: {} more in all than at the median of {}",
            slow.len(),
            walls.len(),
            duration(excess),
            duration(median)
        );
        let worst = slow.iter().copied().max_by_key(|&i| wall(i)).unwrap_or(0);
        let Some(step) = ledger.steps.get(worst) else { return (summary, String::new()) };
        let name = tables.string(step.name);
        let name = if name.is_empty() { format!("step {}", worst + 1) } else { short_name(name, 60) };
        (
            summary,
            format!("the slowest is {name}: {}, of which {}", duration(wall(worst)), grown(ledger, step)),
        )
    });
}

/// The leaf by which a step exceeds the median of all steps most.
fn grown(ledger: &DeviceLedger, step: &crate::ledger::Step) -> String {
    let excess = Leaf::ALL.iter().filter_map(|&leaf| {
        let all: Vec<u64> = ledger.whole_steps().map(|(_, s)| s.sums.get(leaf)).collect();
        let (median, _) = median_and_mad(&all)?;
        Some((step.sums.get(leaf).saturating_sub(median), leaf))
    });
    match excess.max_by_key(|(ns, _)| *ns) {
        Some((ns, leaf)) if ns > 0 => format!("{} more {} than usual", duration(ns), leaf.text()),
        _ => "no single leaf stands out".to_owned(),
    }
}
