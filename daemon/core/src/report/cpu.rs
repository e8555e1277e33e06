//! The report of a rank that runs on CPUs.

use serde::Serialize;
use serde_json::{Map, Value};
use stallscope_schemas::units::{StackId, StringId, ThreadId};

use super::{DeviceReport, Window, common, some};
use crate::capture::Tables;
use crate::ledger::cpu::ThreadLedger;
use crate::ledger::cpu::causes::{CpuAmount, CpuCause, CpuCauses};
use crate::ledger::cpu::idle::HostWork;
use crate::ledger::{CpuLeaf, CpuLedger, CpuSums};
use crate::report::text::printable;

/// Causes that are listed.
const TOP_CAUSES: usize = 40;
/// Entries of the other lists.
const TOP: usize = 20;

/// What only a rank on CPUs has.
#[derive(Clone, Debug, Serialize)]
pub struct CpuReport {
    /// Exclusive leaves after waits are charged to whoever ended them; they sum to `wall_ns`.
    pub root: Map<String, Value>,
    /// Followed threads, the driving ones first.
    pub threads: Vec<ThreadReport>,
    /// Largest causes.
    pub causes: Vec<CpuCauseReport>,
    /// Collective calls of the driving threads.
    pub collectives: Vec<CollectiveReport>,
    /// Who ran while driving threads were runnable.
    pub run_queue: Vec<RunQueueReport>,
    /// Files and other objects by bytes.
    pub files: Vec<FileReport>,
    /// Network connections by bytes.
    pub connections: Vec<ConnectionReport>,
    /// Block devices.
    pub block_devices: Vec<BlockDeviceReport>,
    /// Page faults of all followed threads.
    pub page_faults: PageFaultReport,
}

/// One followed thread.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadReport {
    /// Its process.
    pub pid: i64,
    /// Its id.
    pub tid: i64,
    /// Its name, or null.
    pub name: Option<String>,
    /// Whether its time is the rank's.
    pub driving: bool,
    /// How long it was followed, ns.
    pub wall_ns: u64,
    /// Exclusive leaves; they sum to `wall_ns`.
    pub direct: Map<String, Value>,
    /// The same after charging; null for threads that do not drive.
    pub root: Option<Map<String, Value>>,
}

/// A thread somewhere in a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadName {
    /// Its process.
    pub pid: i64,
    /// Its id.
    pub tid: i64,
    /// Name of the process, or null.
    pub name: Option<String>,
    /// Name of the thread, or null.
    pub comm: Option<String>,
}

/// One cause.
#[derive(Clone, Debug, Serialize)]
pub struct CpuCauseReport {
    /// Key of the direct leaf.
    pub leaf: &'static str,
    /// Key of the root leaf.
    pub root: &'static str,
    /// The driving thread.
    pub tid: i64,
    /// The collective that it was in, or null.
    pub collective: Option<String>,
    /// Its own system call, or null.
    pub waiting_call: Option<String>,
    /// Its own stack, outermost first; empty where it ran.
    pub waiting_stack: Vec<String>,
    /// Who ended the wait, who ended that one's wait, and so on.
    pub wakers: Vec<ThreadName>,
    /// System call of the last thread of that list (or its own), or null.
    pub call: Option<String>,
    /// What the call was about, or null.
    pub object: Option<String>,
    /// What that is.
    pub object_kind: &'static str,
    /// Stack of the last thread of that list (or its own), outermost first.
    pub stack: Vec<String>,
    /// Who ran instead, or null.
    pub preemptor: Option<ThreadName>,
    /// Time, ns.
    pub ns: u64,
    /// Waits, preemptions or samples.
    pub count: u64,
    /// The longest piece, ns.
    pub longest_ns: u64,
}

/// Collective calls of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct CollectiveReport {
    /// Function.
    pub name: String,
    /// Library.
    pub library: &'static str,
    /// What it does.
    pub operation: &'static str,
    /// Communicator, or null.
    pub group: Option<String>,
    /// Ranks in it, or null.
    pub group_size: Option<u64>,
    /// How many calls.
    pub calls: u64,
    /// Bytes that this rank put in.
    pub bytes: u64,
    /// Time inside, ns.
    pub ns: u64,
    /// Of that, on a CPU.
    pub on_cpu_ns: u64,
    /// Of that, blocked.
    pub blocked_ns: u64,
    /// Median length of a call, ns.
    pub median_ns: Option<u64>,
    /// 95th percentile of the length of a call, ns.
    pub p95_ns: Option<u64>,
}

/// Time that a thread took from the driving threads.
#[derive(Clone, Debug, Serialize)]
pub struct RunQueueReport {
    /// Who ran, or null where unknown.
    pub ran_instead: Option<ThreadName>,
    /// Time, ns.
    pub ns: u64,
    /// How often.
    pub count: u64,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Path or name.
    pub path: String,
    /// What it is.
    pub kind: &'static str,
    /// Calls that read.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Calls that wrote.
    pub writes: u64,
    /// Bytes written.
    pub written: u64,
}

/// One connection.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionReport {
    /// `local → peer`.
    pub name: String,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Segments sent, the repeated ones among them.
    pub segments: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round-trip time at the end, ns.
    pub rtt_ns: u64,
    /// What the kernel estimated it to deliver at the end, bytes a second; 0 where unknown.
    pub delivery_rate: u64,
}

/// One block device.
#[derive(Clone, Debug, Serialize)]
pub struct BlockDeviceReport {
    /// Name.
    pub device: String,
    /// Requests.
    pub requests: u64,
    /// Bytes.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Median time from queueing to completion, ns.
    pub median_ns: Option<u64>,
    /// 95th percentile of it, ns.
    pub p95_ns: Option<u64>,
}

/// Page faults.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PageFaultReport {
    /// Without I/O.
    pub minor: u64,
    /// With I/O.
    pub major: u64,
}

fn leaf_map(sums: &CpuSums) -> Map<String, Value> {
    CpuLeaf::ALL.iter().map(|&leaf| (leaf.key().to_owned(), sums.get(leaf).into())).collect()
}

/// The report of one rank.
pub(super) fn device_report(ledger: &CpuLedger, tables: &Tables) -> DeviceReport {
    let cpu = CpuReport {
        root: leaf_map(&ledger.root),
        threads: ledger.threads.iter().map(|t| thread_report(t, tables)).collect(),
        causes: ledger
            .causes
            .ranked()
            .into_iter()
            .take(TOP_CAUSES)
            .map(|(cause, amount)| cause_report(&ledger.causes, tables, cause, amount))
            .collect(),
        collectives: collectives(ledger, tables),
        run_queue: run_queue(ledger, tables),
        files: files(ledger, tables),
        connections: connections(ledger, tables),
        block_devices: block_devices(ledger, tables),
        page_faults: PageFaultReport { minor: ledger.io.faults.minor, major: ledger.io.faults.major },
    };
    let window = Window { start_ns: ledger.start.0, end_ns: ledger.end.0 };
    DeviceReport {
        cpu: Some(cpu),
        ..common(ledger.device, tables, ledger.wall_ns, window, leaf_map(&ledger.direct))
    }
}

fn thread_report(ledger: &ThreadLedger, tables: &Tables) -> ThreadReport {
    let name = thread_name(ledger.thread, tables);
    ThreadReport {
        pid: name.pid,
        tid: name.tid,
        name: name.comm,
        driving: ledger.driving,
        wall_ns: ledger.wall_ns,
        direct: leaf_map(&ledger.direct),
        root: ledger.root.as_ref().map(leaf_map),
    }
}

/// What launching threads did while a GPU waited for them.
#[derive(Clone, Debug, Serialize)]
pub struct IdleHostReport {
    /// By what the launching threads did; sums to `idle.host_ns` where they were followed.
    pub direct: Map<String, Value>,
    /// By what their waits are charged to; the same sum.
    pub root: Map<String, Value>,
    /// Largest causes.
    pub causes: Vec<CpuCauseReport>,
}

/// `None` where no launching thread was followed.
pub(super) fn idle_host_report(work: &HostWork, tables: &Tables) -> Option<IdleHostReport> {
    let causes = work.causes.ranked().into_iter().take(TOP_CAUSES);
    (work.direct.total() > 0).then(|| IdleHostReport {
        direct: leaf_map(&work.direct),
        root: leaf_map(&work.root),
        causes: causes.map(|(cause, amount)| cause_report(&work.causes, tables, cause, amount)).collect(),
    })
}

/// What is known of a thread.
pub(crate) fn thread_name(id: ThreadId, tables: &Tables) -> ThreadName {
    let thread = tables.thread(id);
    let process = thread.and_then(|t| tables.process(t.process));
    ThreadName {
        pid: process.map_or(-1, |p| p.pid),
        tid: thread.map_or(-1, |t| t.tid),
        name: process.and_then(|p| some(&p.name)),
        comm: thread.and_then(|t| some(&t.name)),
    }
}

fn frames(stack: StackId, tables: &Tables) -> Vec<String> {
    tables.stack_names(stack).into_iter().map(|n| printable(tables.string(n)).into_owned()).collect()
}

fn cause_report(causes: &CpuCauses, tables: &Tables, cause: CpuCause, amount: CpuAmount) -> CpuCauseReport {
    let text = |id: StringId| some(tables.string(id));
    CpuCauseReport {
        leaf: cause.direct.key(),
        root: cause.root.key(),
        tid: tables.thread(cause.thread).map_or(-1, |t| t.tid),
        collective: text(cause.collective),
        waiting_call: text(cause.waiting_call),
        waiting_stack: frames(cause.waiting_stack, tables),
        wakers: causes
            .chains
            .links(cause.chain)
            .into_iter()
            .map(|link| thread_name(link.thread, tables))
            .collect(),
        call: text(cause.call),
        object: text(cause.object),
        object_kind: cause.object_kind.name(),
        stack: frames(cause.stack, tables),
        preemptor: cause.preemptor.map(|t| thread_name(t, tables)),
        ns: amount.ns,
        count: amount.count,
        longest_ns: amount.longest_ns,
    }
}

fn collectives(ledger: &CpuLedger, tables: &Tables) -> Vec<CollectiveReport> {
    ledger
        .calls
        .ranked()
        .into_iter()
        .take(TOP)
        .map(|(kind, tally)| CollectiveReport {
            name: printable(tables.string(kind.name)).into_owned(),
            library: kind.library.name(),
            operation: kind.operation.name(),
            group: some(tables.string(kind.group)),
            group_size: Some(kind.group_size).filter(|&size| size > 0),
            calls: tally.calls,
            bytes: tally.bytes,
            ns: tally.ns,
            on_cpu_ns: tally.on_cpu_ns,
            blocked_ns: tally.blocked_ns,
            median_ns: tally.lengths.percentile(50),
            p95_ns: tally.lengths.percentile(95),
        })
        .collect()
}

/// Who ran while the driving threads were runnable: thread, time, how often. The largest first.
fn ran_instead(ledger: &CpuLedger) -> Vec<(Option<ThreadId>, u64, u64)> {
    let mut by: std::collections::BTreeMap<Option<ThreadId>, (u64, u64)> = std::collections::BTreeMap::new();
    let queued = |c: &CpuCause| matches!(c.direct, CpuLeaf::RunQueue);
    for (cause, amount) in ledger.causes.ranked().iter().filter(|(c, _)| queued(c)) {
        let of = by.entry(cause.preemptor).or_default();
        of.0 = of.0.saturating_add(amount.ns);
        of.1 = of.1.saturating_add(amount.count);
    }
    let mut all: Vec<_> = by.into_iter().map(|(thread, (ns, count))| (thread, ns, count)).collect();
    all.sort_by_key(|&(thread, ns, _)| (std::cmp::Reverse(ns), thread));
    all
}

fn run_queue(ledger: &CpuLedger, tables: &Tables) -> Vec<RunQueueReport> {
    ran_instead(ledger)
        .into_iter()
        .take(TOP)
        .map(|(thread, ns, count)| {
            let ran_instead = thread.map(|t| thread_name(t, tables));
            RunQueueReport { ran_instead, ns, count }
        })
        .collect()
}

fn files(ledger: &CpuLedger, tables: &Tables) -> Vec<FileReport> {
    let mut all: Vec<_> = ledger.io.files.iter().collect();
    all.sort_by_key(|(name, f)| (std::cmp::Reverse(f.read_bytes.saturating_add(f.written_bytes)), **name));
    all.into_iter()
        .take(TOP)
        .map(|(&(kind, name), file)| FileReport {
            path: printable(tables.string(name)).into_owned(),
            kind: kind.name(),
            reads: file.reads,
            bytes: file.read_bytes,
            writes: file.writes,
            written: file.written_bytes,
        })
        .collect()
}

fn connections(ledger: &CpuLedger, tables: &Tables) -> Vec<ConnectionReport> {
    let mut all: Vec<_> = ledger.io.connections.iter().collect();
    all.sort_by_key(|(name, c)| (std::cmp::Reverse(c.sent_bytes.saturating_add(c.received_bytes)), **name));
    all.into_iter()
        .take(TOP)
        .map(|(&name, connection)| ConnectionReport {
            name: printable(tables.string(name)).into_owned(),
            sent_bytes: connection.sent_bytes,
            received_bytes: connection.received_bytes,
            segments: connection.segments,
            retransmits: connection.retransmits,
            rtt_ns: connection.rtt_ns,
            delivery_rate: connection.delivery_rate,
        })
        .collect()
}

fn block_devices(ledger: &CpuLedger, tables: &Tables) -> Vec<BlockDeviceReport> {
    let mut all: Vec<_> = ledger.io.devices.iter().collect();
    all.sort_by_key(|(name, d)| (std::cmp::Reverse(d.requests), **name));
    all.into_iter()
        .take(TOP)
        .map(|(&name, device)| BlockDeviceReport {
            device: printable(tables.string(name)).into_owned(),
            requests: device.requests,
            bytes: device.bytes,
            errors: device.errors,
            median_ns: device.latency.percentile(50),
            p95_ns: device.latency.percentile(95),
        })
        .collect()
}
