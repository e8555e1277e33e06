//! Kernels that communicate: one for each stream and communicator of a group, with all its calls as parts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stallscope_double_shared::truth::{self, Line};
use stallscope_double_shared::{link, sys};

use crate::comm::Comm;
use crate::cost::{Data, Function, Tuning};
use crate::meeting::Met;
use crate::message::Key;

/// One call: what is met for and how long moving the bytes takes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) function: Function,
    pub(crate) key: Key,
    pub(crate) bytes: u64,
}

/// A kernel and what it waits for.
#[derive(Debug)]
pub(crate) struct Launch {
    comm: Arc<Comm>,
    parts: Vec<Part>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Number of the operation.
    op: u64,
    start_ns: u64,
    end_ns: u64,
    met: usize,
}

/// Kernels whose start is not known yet, by the number that libcuda hands back.
static LAUNCHED: Mutex<Option<HashMap<u64, Arc<Launch>>>> = Mutex::new(None);
static NUMBER: AtomicU64 = AtomicU64::new(0);

fn launched() -> MutexGuard<'static, Option<HashMap<u64, Arc<Launch>>>> {
    LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Launch a kernel; false if there is no such stream.
pub(crate) fn launch(comm: &Arc<Comm>, stream: usize, parts: Vec<Part>, data: Data, reduction: u32) -> bool {
    let (Some(cuda), Some(first)) = (link::load_cuda(), parts.first()) else { return false };
    let name = sys::intern(&first.function.kernel(data, reduction));
    let bytes = parts.iter().map(|p| p.bytes).sum();
    let argument = NUMBER.fetch_add(1, Ordering::Relaxed);
    let launch = Arc::new(Launch { comm: Arc::clone(comm), parts, progress: Mutex::default() });
    launched().get_or_insert_default().insert(argument, launch);
    let meeting = link::Meeting { stream, name, bytes, blocks: 16, started, argument };
    let op = (cuda.meet)(&meeting);
    if op == 0 {
        launched().get_or_insert_default().remove(&argument);
    }
    op != 0
}

/// libcuda knows when the kernel starts, in the past or in the future: tell the others.
extern "C" fn started(argument: u64, op: u64, start_ns: u64) {
    let launch = launched().as_mut().and_then(|l| l.remove(&argument));
    let Some(launch) = launch else { return };
    {
        let mut progress = launch.progress();
        (progress.op, progress.start_ns) = (op, start_ns);
    }
    let tuning = Tuning::now();
    for part in &launch.parts {
        let transfer = part.function.transfer_ns(part.bytes, launch.comm.world, tuning);
        launch.comm.arrive(&launch, &part.key, start_ns, transfer);
    }
}

impl Launch {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One part's ranks have met. With the last of them the kernel's end is known.
    pub(crate) fn met(&self, comm: &Comm, met: &Met) {
        let Some(part) = self.parts.iter().find(|p| p.key == met.key) else { return };
        let latest = met.starts.iter().map(|(rank, start_ns)| (*start_ns, *rank)).max();
        let Some((latest_ns, late_rank)) = latest else { return };
        let mut progress = self.progress();
        progress.end_ns = progress.end_ns.max(latest_ns + met.transfer_ns);
        // A message of a rank to itself is two parts, sending and receiving, of one meeting.
        progress.met += self.parts.iter().filter(|p| p.key == met.key).count();
        let (op, end_ns, start_ns) = (progress.op, progress.end_ns, progress.start_ns);
        let complete = progress.met >= self.parts.len();
        drop(progress);
        let (ranks, starts_ns) = met.starts.iter().copied().unzip();
        truth::write(&[Line::Collective(truth::Collective {
            pid: sys::process_id(),
            comm: format!("{:016x}", comm.hash),
            sequence: match part.key {
                Key::All(number) | Key::Pair(_, _, number) => number,
            },
            what: part.function.name().into(),
            rank: comm.rank,
            world: comm.world,
            bytes: part.bytes,
            op,
            ranks,
            starts_ns,
            late_rank,
            wait_ns: latest_ns - start_ns.min(latest_ns),
            transfer_ns: met.transfer_ns,
            slowed_ns: met.slowed_ns,
        })]);
        if complete && let Some(cuda) = link::load_cuda() {
            (cuda.finish)(op, end_ns);
        }
    }

    /// A kernel that no device has.
    #[cfg(test)]
    pub(crate) fn nowhere(comm: &Arc<Comm>, keys: &[Key]) -> Arc<Self> {
        let part = |key: &Key| Part { function: Function::AllReduce, key: key.clone(), bytes: 0 };
        let parts = keys.iter().map(part).collect();
        Arc::new(Self { comm: Arc::clone(comm), parts, progress: Mutex::default() })
    }

    /// Its end, once all its parts have met.
    #[cfg(test)]
    pub(crate) fn end_ns(&self) -> Option<u64> {
        let progress = self.progress();
        (progress.met >= self.parts.len()).then_some(progress.end_ns)
    }

    /// It will not take place.
    pub(crate) fn cancel(&self) {
        let op = self.progress().op;
        if let Some(cuda) = link::load_cuda() {
            (cuda.cancel)(op);
        }
    }
}
