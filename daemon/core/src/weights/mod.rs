//! Stacks with weights from a ledger: what a flamegraph shows.
//!
//! | weight | width | frames |
//! |---|---|---|
//! | `gpu` | time that the operation added to its class (compute, communication, copy), hidden behind another or not | device, host stack at the launch, operation |
//! | `gpu-idle` | idle time of the device | device, cause, host stack that ran in the gap, call; where the launching thread was followed: its stack, what it waited for, and the stack of whoever it waited for |
//! | `cpu` | time on a CPU where threads were sampled, else inside recorded ranges of host threads | process, thread, stack |
//! | `off-cpu` | time off the CPU | process, thread, stack, what the thread waited for |
//! | `wait` | waits of threads that drive a rank | process, thread, stack, call, and who ended the wait, upside down |

mod host;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::{StringId, ThreadId, TimeNs};

use crate::capture::{Capture, ReadAt, Tables};
use crate::findings::host_work;
use crate::folded::Folded;
use crate::ledger::device::WeightedOp;
use crate::ledger::{DeviceLedger, IdleLeaf};
use crate::report::text::without_install_path;
use crate::rows::{ApiCall, HostSpan};
use crate::timeline::host::{HostTimeline, Node, StackTree};
pub use host::{off_cpu, wait};

/// What the width of a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Time on the device.
    Gpu,
    /// Idle time of the device.
    GpuIdle,
    /// Time on a CPU, or in recorded ranges of host threads.
    Cpu,
    /// Time off the CPU.
    OffCpu,
    /// Waits with those who ended them.
    Wait,
}

impl Weight {
    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::GpuIdle => "gpu-idle",
            Self::Cpu => "cpu",
            Self::OffCpu => "off-cpu",
            Self::Wait => "wait",
        }
    }
}

fn device_frame(ledger: &DeviceLedger, tables: &Tables) -> String {
    let device = tables.device(ledger.device);
    let rank = device
        .and_then(|d| d.processes.iter().find_map(|&p| tables.process(p)?.rank))
        .map_or_else(String::new, |r| format!("rank {r} · "));
    let id = device.map_or("device", |d| if d.id.is_empty() { "device" } else { d.id.as_str() });
    // A made-up identity says the rank already.
    if id.starts_with("rank") { id.to_owned() } else { format!("{rank}{id}") }
}

fn add(sum: &mut u64, ns: u64) {
    *sum = sum.saturating_add(ns);
}

fn texts(names: &[StringId], tables: &Tables) -> Vec<String> {
    names.iter().map(|&n| frame_text(tables.string(n)).to_owned()).collect()
}

/// A frame's name. PyTorch numbers the modules of a class (`nn.Module: Linear_17`): with the number, the same stack would
/// be torn into one tower a layer.
fn frame_text(name: &str) -> &str {
    let name = without_install_path(name);
    match name.rsplit_once('_') {
        Some((class, number))
            if name.starts_with("nn.Module: ") && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            class
        }
        _ => name,
    }
}

/// Idle time of the devices by cause and host stack. Its total is the idle time of all ledgers, to the nanosecond.
#[must_use]
pub fn gpu_idle(ledgers: &[DeviceLedger], tables: &Tables) -> Folded {
    let mut folded = Folded::default();
    for ledger in ledgers {
        let device = device_frame(ledger, tables);
        for (cause, amount) in ledger.causes.ranked() {
            let stack = texts(&ledger.tree.names(cause.node), tables);
            let mut frames = vec![device.clone(), cause.leaf.text().to_owned()];
            if cause.leaf == IdleLeaf::Host {
                let names: Vec<&str> = stack.iter().map(String::as_str).collect();
                frames.push(host_work(&names).0.what.to_owned());
            }
            frames.extend(stack);
            let call = tables.string(cause.call);
            if !call.is_empty() {
                frames.push(call.to_owned());
            }
            let reason = cause.reason.text();
            if !reason.is_empty() {
                frames.push(reason.to_owned());
            }
            folded.add(frames, amount.ns);
        }
        host::launching(&device, &ledger.host_work, tables, &mut folded);
    }
    folded
}

/// Time on the devices by the host stack that launched each operation. The ledgers must have been made with `weigh_ops`.
pub fn gpu<S: ReadAt>(capture: &Capture<S>, ledgers: &mut [DeviceLedger]) -> Folded {
    let tables = capture.tables();
    let mut folded = Folded::default();
    for ledger in ledgers {
        let device = device_frame(ledger, tables);
        let mut by_thread: BTreeMap<Option<ThreadId>, Vec<WeightedOp>> = BTreeMap::new();
        for op in std::mem::take(&mut ledger.weighted) {
            by_thread.entry(op.launch.map(|l| l.thread)).or_default().push(op);
        }
        for (thread, mut ops) in by_thread {
            let mut tree = StackTree::default();
            let mut weights: HashMap<(Node, StringId), u64> = HashMap::new();
            if let Some(thread) = thread {
                ops.sort_by_key(|op| op.launch.map(|l| l.start));
                let spans = capture.rows::<HostSpan>(thread.0);
                let mut host = HostTimeline::new(spans, std::iter::empty::<ApiCall>());
                let mut last = Node(0);
                for op in ops {
                    let at = op.launch.map_or(TimeNs(0), |l| l.start);
                    host.stacks(at, at.plus(1), &mut tree, tables, |node, _, _| last = node);
                    add(weights.entry((last, op.name)).or_default(), op.ns);
                }
            } else {
                ops.iter().for_each(|op| add(weights.entry((Node(0), op.name)).or_default(), op.ns));
            }
            for ((node, name), ns) in weights {
                let mut frames = vec![device.clone()];
                frames.extend(texts(&tree.names(node), tables));
                frames.push(tables.string(name).to_owned());
                folded.add(frames, ns);
            }
        }
    }
    folded
}

/// Time on a CPU of all threads that were followed. In a capture without any: time inside recorded ranges of all host
/// threads, every stretch once, for its whole nest of ranges.
pub fn cpu<S: ReadAt>(capture: &Capture<S>) -> Folded {
    if has_followed_threads(capture) { host::on_cpu(capture) } else { ranges(capture) }
}

/// Whether a capture holds what threads did, and not only what a profiler in the job marked.
pub fn has_followed_threads<S: ReadAt>(capture: &Capture<S>) -> bool {
    !capture.keys(RecordKind::ThreadSpan).is_empty()
}

fn ranges<S: ReadAt>(capture: &Capture<S>) -> Folded {
    let tables = capture.tables();
    let mut folded = Folded::default();
    for key in capture.keys(RecordKind::HostSpan) {
        let Some((from, to)) = capture.extent(RecordKind::HostSpan, key) else { continue };
        let (process, thread) = thread_frames(ThreadId(key), tables);
        let mut tree = StackTree::default();
        let mut weights: HashMap<Node, u64> = HashMap::new();
        let mut host = HostTimeline::new(capture.rows::<HostSpan>(key), std::iter::empty::<ApiCall>());
        host.stacks(from, to, &mut tree, tables, |node, from, to| {
            if node != Node(0) {
                add(weights.entry(node).or_default(), to.since(from));
            }
        });
        for (node, ns) in weights {
            let mut frames = vec![process.clone(), thread.clone()];
            frames.extend(texts(&tree.names(node), tables));
            folded.add(frames, ns);
        }
    }
    folded
}

fn thread_frames(id: ThreadId, tables: &Tables) -> (String, String) {
    let Some(thread) = tables.thread(id) else { return ("process".to_owned(), "thread".to_owned()) };
    let process = tables.process(thread.process);
    let rank = process.and_then(|p| p.rank).map_or_else(String::new, |r| format!("rank {r} · "));
    let pid = process.map_or(0, |p| p.pid);
    let name = if thread.name.is_empty() { String::new() } else { format!(" {}", thread.name) };
    (format!("{rank}process {pid}"), format!("thread {}{name}", thread.tid))
}
