//! Which threads of a CPU rank drive it: those that enter collectives, at the outermost layer that their process has.
//!
//! PyTorch's process groups (c10d) call Gloo, MPI or NCCL from threads of their own: where any thread of a process enters
//! c10d, threads that only enter inner libraries are transport. Making a communicator or bracketing a group is no
//! collective. With none, the main thread drives.

use hashbrown::HashMap;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, RecordKind, collective_call};
use stallscope_schemas::units::{ProcessId, ThreadId};

use crate::capture::{Capture, ColumnSet, Device, ReadAt, Run};
use crate::rows::CollectiveCall;

/// The layers that a thread enters.
#[derive(Clone, Copy, Debug, Default)]
struct Layers {
    outer: bool,
    inner: bool,
}

/// Threads of the device that were followed, and of them those that drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Threads {
    pub(super) followed: Vec<ThreadId>,
    pub(super) driving: Vec<ThreadId>,
    /// Whether any of them enters c10d.
    pub(super) process_groups: bool,
}

/// Finds the threads of a rank.
pub(super) fn threads<S: ReadAt>(capture: &Capture<S>, device: &Device) -> Threads {
    let tables = capture.tables();
    let process_of = |t: ThreadId| tables.thread(t).map(|t| t.process);
    let followed: Vec<ThreadId> = capture
        .keys(RecordKind::ThreadSpan)
        .into_iter()
        .map(ThreadId)
        .filter(|&t| process_of(t).is_some_and(|p| device.processes.contains(&p)))
        .collect();
    let mut entered: Vec<(ThreadId, ProcessId, Layers)> = Vec::new();
    let mut has_outer: HashMap<ProcessId, bool> = HashMap::new();
    for &thread in &followed {
        let (Some(process), layers) = (process_of(thread), layers(capture, thread)) else { continue };
        *has_outer.entry(process).or_default() |= layers.outer;
        entered.push((thread, process, layers));
    }
    let mut driving: Vec<ThreadId> = entered
        .iter()
        .filter(|(_, process, layers)| {
            let outermost_is_outer = has_outer.get(process).copied().unwrap_or(false);
            if outermost_is_outer { layers.outer } else { layers.inner }
        })
        .map(|(thread, ..)| *thread)
        .collect();
    if driving.is_empty() {
        driving.extend(main_thread(capture, device, &followed));
    }
    Threads { followed, driving, process_groups: has_outer.values().any(|&outer| outer) }
}

/// The main thread of the rank's own process, or where it was not followed the thread with the least id.
fn main_thread<S: ReadAt>(capture: &Capture<S>, device: &Device, followed: &[ThreadId]) -> Option<ThreadId> {
    let tables = capture.tables();
    let own = device
        .processes
        .iter()
        .find(|&&p| followed.iter().any(|&t| tables.thread(t).is_some_and(|thread| thread.process == p)))?;
    let pid = tables.process(*own)?.pid;
    followed
        .iter()
        .filter_map(|&t| Some((tables.thread(t).filter(|thread| thread.process == *own)?.tid, t)))
        .min_by_key(|&(tid, thread)| (tid != pid, tid, thread))
        .map(|(_, thread)| thread)
}

fn layers<S: ReadAt>(capture: &Capture<S>, thread: ThreadId) -> Layers {
    let set = ColumnSet::of(&[collective_call::LIBRARY, collective_call::OPERATION]);
    let mut merged = capture.merged::<CollectiveCall>(thread.0, set);
    let mut layers = Layers::default();
    while let Some(run) = merged.next_run() {
        let Run::Rows(columns, range) = run else { continue };
        let of = |column: u16| columns.column(column).get(range.clone()).unwrap_or_default();
        for (&library, &operation) in of(collective_call::LIBRARY).iter().zip(of(collective_call::OPERATION))
        {
            let operation = CollectiveOp::from_id(operation).unwrap_or(CollectiveOp::Other);
            if matches!(operation, CollectiveOp::Init | CollectiveOp::Group) {
                continue;
            }
            if CollectiveLibrary::from_id(library) == Some(CollectiveLibrary::C10d) {
                layers.outer = true;
            } else {
                layers.inner = true;
            }
        }
        if layers.outer {
            break;
        }
    }
    layers
}
