//! Stacks with weights from a ledger: what a flamegraph shows.
//!
//! | weight | width | frames |
//! |---|---|---|
//! | `gpu` | time that the operation added to its class (compute, communication, copy), hidden behind another or not | device, host stack at the launch, operation; where launches were sampled see [`NO_LAUNCH_STACK`] and [`OTHER_LAUNCHES`] |
//! | `gpu-idle` | idle time of the device | device, cause, host stack that ran in the gap, call; where the launching thread was followed: its stack, what it waited for, and the stack of whoever it waited for |
//! | `gpu-wait` | time that the device waited in collectives for late ranks | the late one, what made it late, of its host the stacks, and who waited |
//! | `cpu` | time on a CPU where threads were sampled, else inside recorded ranges of host threads | process, thread, stack |
//! | `off-cpu` | time off the CPU | process, thread, stack, what the thread waited for |
//! | `wait` | waits of threads that drive a rank | process, thread, stack, call, and who ended the wait, upside down |

mod host;
mod late;
mod rank;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::{StringId, ThreadId};

use crate::capture::{Capture, ReadAt, Tables};
use crate::findings::host_work;
use crate::folded::Folded;
use crate::ledger::device::WeightedOp;
use crate::ledger::{DeviceLedger, IdleLeaf};
use crate::parts::in_proportion;
use crate::report::text::without_install_path;
use crate::rows::{ApiCall, HostSpan};
use crate::timeline::host::{HostTimeline, Node, StackTree};
pub use host::{off_cpu, wait};
pub(crate) use late::LateHost;
pub use late::gpu_wait;
pub use rank::{by_rank, median};

/// What the width of a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Time on the device.
    Gpu,
    /// Idle time of the device.
    GpuIdle,
    /// Time that the device waited for late ranks.
    GpuWait,
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
            Self::GpuWait => "gpu-wait",
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
    ledgers.iter().for_each(|ledger| idle_of(ledger, tables, &mut folded));
    folded
}

/// Adds the idle time of one device, which is the first frame.
fn idle_of(ledger: &DeviceLedger, tables: &Tables, folded: &mut Folded) {
    let device = device_frame(ledger, tables);
    for (cause, amount) in ledger.causes.ranked() {
        let stack = texts(&ledger.tree.names(cause.node), tables);
        let mut frames = vec![device.clone(), cause.leaf.text().to_owned()];
        if cause.leaf == IdleLeaf::Host {
            let names: Vec<&str> = stack.iter().map(String::as_str).collect();
            frames.push(host_work(&names).0.what.to_owned());
        }
        let launched = matches!(cause.leaf, IdleLeaf::Launch | IdleLeaf::Device | IdleLeaf::Dep);
        if launched && stack.is_empty() && ledger.launch_stacks.is_some() {
            frames.push(NO_LAUNCH_STACK.to_owned());
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
    host::launching(&device, &ledger.host_work, tables, folded);
}

/// In place of the stack of a launch that was not sampled, where others were.
pub const NO_LAUNCH_STACK: &str = "[no launch stack]";
/// Above stacks that were estimated: the operation's launch was not sampled, others of its name were.
pub const OTHER_LAUNCHES: &str = "[estimate: stacks of other launches of the same name]";

/// Sampled launches of a name from which on others of that name are spread over their stacks. Launches are sampled by
/// chance: of eight, one caller in three is missed once in 25 times.
const ENOUGH_SAMPLES: u64 = 8;

/// From where operations of one name were launched: stacks with times.
#[derive(Default)]
struct Launched {
    /// Sampled: time and how often, by stack.
    sampled: BTreeMap<Node, (u64, u64)>,
    /// Not sampled: time by what is known without.
    others: BTreeMap<Node, u64>,
}

/// Time on the devices by the host stack that launched each operation. The ledgers must have been made with `weigh_ops`.
pub fn gpu<S: ReadAt>(capture: &Capture<S>, ledgers: &mut [DeviceLedger]) -> Folded {
    let tables = capture.tables();
    let mut folded = Folded::default();
    for ledger in ledgers {
        let device = device_frame(ledger, tables);
        let mut tree = StackTree::default();
        for (name, launched) in launched_by_name(capture, ledger, &mut tree) {
            let mut put = |kind: Option<&str>, node: Node, ns: u64| {
                let mut frames = vec![device.clone()];
                frames.extend(kind.map(str::to_owned));
                frames.extend(texts(&tree.names(node), tables));
                frames.push(tables.string(name).to_owned());
                folded.add(frames, ns);
            };
            launched.sampled.iter().for_each(|(&node, &(ns, _))| put(None, node, ns));
            let samples: u64 = launched.sampled.values().map(|(_, count)| count).sum();
            let sampled_ns = launched.sampled.values().fold(0, |sum: u128, (ns, _)| sum + u128::from(*ns));
            if ledger.launch_stacks.is_none() {
                launched.others.iter().for_each(|(&node, &ns)| put(None, node, ns));
            } else if samples < ENOUGH_SAMPLES || sampled_ns == 0 {
                launched.others.iter().for_each(|(&node, &ns)| put(Some(NO_LAUNCH_STACK), node, ns));
            } else {
                let total_ns = launched.others.values().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
                let weights: Vec<u64> = launched.sampled.values().map(|(ns, _)| *ns).collect();
                let parts = in_proportion(total_ns, &weights);
                for (&node, ns) in launched.sampled.keys().zip(parts) {
                    put(Some(OTHER_LAUNCHES), node, ns);
                }
            }
        }
    }
    folded
}

/// The operations of a device by name, with the stacks of their launches: that of a sample, then the ranges around it.
fn launched_by_name<S: ReadAt>(
    capture: &Capture<S>,
    ledger: &mut DeviceLedger,
    tree: &mut StackTree,
) -> BTreeMap<StringId, Launched> {
    let tables = capture.tables();
    let mut by_name: BTreeMap<StringId, Launched> = BTreeMap::new();
    let mut by_thread: BTreeMap<Option<ThreadId>, Vec<WeightedOp>> = BTreeMap::new();
    for op in std::mem::take(&mut ledger.weighted) {
        by_thread.entry(op.launch.map(|l| l.thread)).or_default().push(op);
    }
    for (thread, mut ops) in by_thread {
        ops.sort_by_key(|op| op.launch.map(|l| l.start));
        let spans = thread.map(|thread| capture.rows::<HostSpan>(thread.0)).into_iter().flatten();
        let mut host = HostTimeline::new(spans, std::iter::empty::<ApiCall>());
        let mut ranges = Node(0);
        for op in ops {
            if let Some(launch) = op.launch {
                let at = launch.start;
                host.stacks(at, at.plus(1), tree, tables, |node, _, _| ranges = node);
            }
            let launched = by_name.entry(op.name).or_default();
            match op.stack {
                Some(stack) => {
                    let base = tree.import(stack, tables);
                    let node = tree.names(ranges).into_iter().fold(base, |node, name| tree.child(node, name));
                    let (ns, count) = launched.sampled.entry(node).or_default();
                    add(ns, op.ns);
                    *count += 1;
                }
                None => add(launched.others.entry(ranges).or_default(), op.ns),
            }
        }
    }
    by_name
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
