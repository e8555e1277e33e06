//! Stacks of followed threads: on a CPU, off it, and who ended the waits.

use hashbrown::HashMap;
use stallscope_schemas::record::{ObjectKind, RecordKind, WaitKind};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use super::{add, frame_text};
use crate::capture::{Capture, ReadAt, Tables};
use crate::folded::Folded;
use crate::ledger::IdleLeaf;
use crate::ledger::cpu::causes::Sampled;
use crate::ledger::cpu::idle::HostWork;
use crate::ledger::cpu::wait::{Waits, queue_leaf};
use crate::ledger::cpu::{CpuLeaf, CpuLedger, Cursor};
use crate::rows::ThreadWait;
use crate::timeline::thread::State;

/// The frame of time on a CPU that no sample stands for.
const NO_SAMPLE: &str = "(no sample)";

fn stack_frames(stack: StackId, tables: &Tables) -> impl DoubleEndedIterator<Item = String> {
    tables.stack_names(stack).into_iter().map(|n| frame_text(tables.string(n)).to_owned())
}

/// A call and what it is about as one frame: `[read] /data/shard-0017`.
fn call_frame(call: StringId, kind: ObjectKind, object: StringId, leaf: CpuLeaf, tables: &Tables) -> String {
    let call = tables.string(call);
    let call = if call.is_empty() { leaf.text() } else { call };
    let object = match tables.string(object) {
        "" if kind == ObjectKind::None => String::new(),
        "" => format!(" {}", kind.name()),
        name => format!(" {name}"),
    };
    format!("[{call}]{object}")
}

/// Frames of a thread: its process with the rank that it works for, and the thread.
fn thread_frames(id: ThreadId, tables: &Tables) -> (String, String) {
    let process = tables.thread(id).map(|t| t.process);
    let own = process.and_then(|p| tables.process(p)?.rank);
    let (frame, thread) = super::thread_frames(id, tables);
    if own.is_some() {
        return (frame, thread);
    }
    // A process that a rank started has no rank of its own.
    let device = process.and_then(|p| tables.devices().iter().find(|d| d.processes.contains(&p)));
    let rank = device.and_then(|d| d.processes.iter().find_map(|&p| tables.process(p)?.rank));
    (rank.map_or_else(|| frame.clone(), |rank| format!("rank {rank} · {frame}")), thread)
}

/// Time on a CPU of all followed threads, by the stacks of samples. Its total is the time on a CPU in the ledgers of all
/// followed threads, to the nanosecond.
pub(super) fn on_cpu<S: ReadAt>(capture: &Capture<S>) -> Folded {
    let tables = capture.tables();
    let mut folded = Folded::default();
    for key in capture.keys(RecordKind::ThreadSpan) {
        let (process, thread) = thread_frames(ThreadId(key), tables);
        let mut cursor = Cursor::new(capture, ThreadId(key), TimeNs(i64::MIN));
        let mut sampled = Sampled::default();
        while let Some(stretch) = cursor.next() {
            let ran = match stretch.state {
                State::Ran => stretch.ns(),
                State::Preempted { run_queue_ns } => stretch.ns().saturating_sub(run_queue_ns),
                State::Waited | State::Queued | State::Lost => continue,
            };
            sampled.add(ran, stretch.from);
            cursor.samples(stretch.from, stretch.to, |stack, weight| sampled.sample(stack, weight));
        }
        for (stack, amount) in sampled.divided() {
            let mut frames = vec![process.clone(), thread.clone()];
            frames.extend(stack_frames(stack, tables));
            if stack == StackId(0) {
                frames.push(NO_SAMPLE.to_owned());
            }
            folded.add(frames, amount.ns);
        }
    }
    folded
}

/// Time off the CPU of all followed threads, by their own stacks and what they waited for. Its total is all time in the
/// ledgers of all followed threads but that on a CPU and what is unknown, to the nanosecond.
#[must_use]
pub fn off_cpu<S: ReadAt>(capture: &Capture<S>) -> Folded {
    let tables = capture.tables();
    let mut waits = Waits::new(capture, "");
    let mut folded = Folded::default();
    for key in capture.keys(RecordKind::ThreadSpan) {
        let (process, thread) = thread_frames(ThreadId(key), tables);
        let mut cursor = Cursor::new(capture, ThreadId(key), TimeNs(i64::MIN));
        let mut blocked: HashMap<(StackId, StringId, ObjectKind, StringId, CpuLeaf), u64> = HashMap::new();
        let mut queued: HashMap<(CpuLeaf, Option<ThreadId>), u64> = HashMap::new();
        while let Some(stretch) = cursor.next() {
            match stretch.state {
                State::Ran | State::Lost => {}
                State::Preempted { run_queue_ns } => {
                    let by = cursor.preempt();
                    add(queued.entry((queue_leaf(by.kind), by.preemptor)).or_default(), run_queue_ns);
                }
                State::Queued => {
                    let &ThreadWait { kind, preemptor, .. } = cursor.wait();
                    add(queued.entry((queue_leaf(kind), preemptor)).or_default(), stretch.ns());
                }
                State::Waited => {
                    let wait = cursor.wait();
                    let unknown = wait.kind == WaitKind::Unknown && !stretch.in_call;
                    if !unknown {
                        let leaf = waits.leaf(ThreadId(key), wait);
                        let what = (wait.stack, wait.call, wait.object_kind, wait.object, leaf);
                        add(blocked.entry(what).or_default(), stretch.ns());
                    }
                }
            }
        }
        for ((stack, call, kind, object, leaf), ns) in blocked {
            let mut frames = vec![process.clone(), thread.clone()];
            frames.extend(stack_frames(stack, tables));
            frames.push(call_frame(call, kind, object, leaf, tables));
            folded.add(frames, ns);
        }
        for ((leaf, preemptor), ns) in queued {
            let mut frames = vec![process.clone(), thread.clone(), format!("[{}]", leaf.text())];
            if let Some(preemptor) = preemptor {
                frames.push(format!("while {} ran", thread_frames(preemptor, tables).1));
            }
            folded.add(frames, ns);
        }
    }
    folded
}

/// Waits of driving threads by their own stacks, joined with who ended them: the waker's stack hangs upside down from the
/// sleeper's, and where the waker waited too, whoever ended that wait hangs from it. Its total is the time in which the
/// driving threads were blocked (direct ledger), to the nanosecond. The ledgers must have been made with `waker_stacks`.
#[must_use]
pub fn wait(ledgers: &[CpuLedger], tables: &Tables) -> Folded {
    let mut folded = Folded::default();
    for ledger in ledgers {
        for (cause, amount) in ledger.causes.ranked() {
            if !cause.direct.is_blocked() {
                continue;
            }
            let (process, thread) = thread_frames(cause.thread, tables);
            let mut frames = vec![process, thread];
            frames.extend(stack_frames(cause.waiting_stack, tables));
            let none = StringId(0);
            frames.push(call_frame(cause.waiting_call, ObjectKind::None, none, cause.direct, tables));
            for link in ledger.causes.chains.links(cause.chain) {
                if link.interrupt {
                    frames.push("woken by an interrupt".to_owned());
                    continue;
                }
                let (process, thread) = thread_frames(link.thread, tables);
                frames.push("woken by".to_owned());
                frames.push(format!("{process} · {thread}"));
                frames.extend(stack_frames(link.stack, tables).rev());
            }
            folded.add(frames, amount.ns);
        }
    }
    folded
}

/// What launching threads did while a device waited for them: its total is the time in `work`.
pub(super) fn launching(device: &str, work: &HostWork, tables: &Tables, folded: &mut Folded) {
    for (_, host, ns) in launching_frames(work, tables) {
        let mut frames = vec![device.to_owned(), IdleLeaf::Host.text().to_owned()];
        frames.extend(host);
        folded.add(frames, ns);
    }
}

/// The causes of it as frames, with their leaves and times.
pub(super) fn launching_frames(
    work: &HostWork,
    tables: &Tables,
) -> impl Iterator<Item = (CpuLeaf, Vec<String>, u64)> {
    work.causes.ranked().into_iter().map(|(cause, amount)| {
        let (process, thread) = thread_frames(cause.thread, tables);
        let mut frames = vec![cause.root.text().to_owned()];
        frames.push(format!("{process} · {thread}"));
        let chain = work.causes.chains.links(cause.chain);
        if !chain.is_empty() {
            frames.extend(stack_frames(cause.waiting_stack, tables));
            let none = StringId(0);
            frames.push(call_frame(cause.waiting_call, ObjectKind::None, none, cause.direct, tables));
        }
        for link in chain {
            let (process, thread) = thread_frames(link.thread, tables);
            let by = if link.interrupt { "woken by an interrupt in" } else { "waits for" };
            frames.push(format!("{by} {process} · {thread}"));
        }
        frames.extend(stack_frames(cause.stack, tables));
        match cause.preemptor {
            Some(by) => frames.push(format!("while {} ran", thread_frames(by, tables).1)),
            None if cause.root.is_on_cpu() && cause.stack == StackId(0) => frames.push(NO_SAMPLE.to_owned()),
            None if cause.root.is_blocked() => {
                frames.push(call_frame(cause.call, cause.object_kind, cause.object, cause.root, tables));
            }
            None => {}
        }
        (cause.root, frames, amount.ns)
    })
}
