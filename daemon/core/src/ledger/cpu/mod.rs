//! The ledger of a rank that runs on CPUs.
//!
//! Its wall time is that of its driving threads: of one, the time in which it was followed; of several, the sum. Two
//! ledgers partition it, to the nanosecond: *direct* says what the driving threads themselves did, *root* charges each
//! wait that another thread of the job ended to what that thread did meanwhile ([`walk`]).

pub mod arrivals;
mod beneath;
pub mod calls;
pub mod causes;
mod charge;
mod cursor;
mod driving;
pub mod idle;
pub mod io;
pub mod leaf;
mod outside;
pub(crate) mod wait;
pub mod walk;

use std::sync::Arc;

use stallscope_schemas::units::{DeviceId, StringId, ThreadId, TimeNs};

use super::book::History;
use super::{NotConserved, Options};
use crate::capture::{Capture, ReadAt};
use crate::timeline::thread::Stretch;
use beneath::Beneath;
use calls::Calls;
use causes::CpuCauses;
use charge::{Leaves, charge, leaves};
pub(crate) use cursor::Cursor;
use io::Io;
pub use leaf::{CpuLeaf, CpuSums};
use outside::Outside;
use wait::Waits;
use walk::{Book, Walker};

/// The ledger of one thread of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLedger {
    /// The thread.
    pub thread: ThreadId,
    /// Whether its time is the rank's.
    pub driving: bool,
    /// When it was first followed.
    pub start: TimeNs,
    /// When it was last followed.
    pub end: TimeNs,
    /// How long it was followed, ns.
    pub wall_ns: u64,
    /// What it did.
    pub direct: CpuSums,
    /// What its time is charged to; only of driving threads.
    pub root: Option<CpuSums>,
}

/// What happened on one rank.
#[derive(Debug)]
pub struct CpuLedger {
    /// The device.
    pub device: DeviceId,
    /// When the first driving thread was first followed.
    pub start: TimeNs,
    /// When the last one was last followed.
    pub end: TimeNs,
    /// Sum of the driving threads' wall times, ns.
    pub wall_ns: u64,
    /// What the driving threads did; sums to `wall_ns`.
    pub direct: CpuSums,
    /// What their time is charged to; sums to `wall_ns`.
    pub root: CpuSums,
    /// All followed threads, the driving ones first.
    pub threads: Vec<ThreadLedger>,
    /// The driving threads' time by cause; sums to `wall_ns`, by `direct` to `direct`, by `root` to `root`.
    pub causes: CpuCauses,
    /// Collective calls of the driving threads.
    pub calls: Calls,
    /// What the rank's processes read, wrote and sent.
    pub io: Io,
    /// What its driving thread did outside of collectives; none where several drive it, or for too many calls.
    pub(crate) outside: Option<Arc<History>>,
}

/// Works out the ledger of one CPU rank. `None` where none of its threads was followed.
///
/// # Errors
/// [`NotConserved`] if the leaves of any thread, direct or root, do not sum to its wall time.
pub fn cpu_ledger<S: ReadAt>(
    capture: &Capture<S>,
    id: DeviceId,
    options: Options,
) -> Result<Option<CpuLedger>, NotConserved> {
    let tables = capture.tables();
    let Some(device) = tables.device(id) else { return Ok(None) };
    let threads = driving::threads(capture, device);
    if threads.driving.is_empty() {
        return Ok(None);
    }
    let job = device.processes.first().and_then(|&p| tables.process(p)).map_or("", |p| p.job.as_str());
    let beneath =
        if threads.process_groups { Beneath::of(capture, &threads.followed) } else { Beneath::default() };
    let mut rank = Rank {
        capture,
        device: id,
        waits: Waits::new(capture, job),
        book: Book { waker_stacks: options.waker_stacks, ..Book::default() },
        beneath,
        calls: Calls::default(),
    };
    let mut ledger = CpuLedger {
        device: id,
        start: TimeNs(i64::MAX),
        end: TimeNs(i64::MIN),
        wall_ns: 0,
        direct: CpuSums::default(),
        root: CpuSums::default(),
        threads: Vec::new(),
        causes: CpuCauses::default(),
        calls: Calls::default(),
        io: Io::of(capture, &device.processes, &threads.followed),
        outside: None,
    };
    for &thread in &threads.driving {
        let Some((of_thread, outside)) = rank.driving(thread)? else { continue };
        ledger.outside = outside.into_history().filter(|_| threads.driving.len() == 1).map(Arc::new);
        ledger.start = ledger.start.min(of_thread.start);
        ledger.end = ledger.end.max(of_thread.end);
        ledger.wall_ns = ledger.wall_ns.saturating_add(of_thread.wall_ns);
        ledger.direct.merge(&of_thread.direct);
        ledger.root.merge(&of_thread.root.unwrap_or_default());
        ledger.threads.push(of_thread);
    }
    if ledger.threads.is_empty() {
        return Ok(None);
    }
    for &thread in threads.followed.iter().filter(|t| !threads.driving.contains(t)) {
        ledger.threads.extend(rank.other(thread)?);
    }
    ledger.causes = rank.book.causes;
    ledger.calls = rank.calls;
    rank_check(&ledger)?;
    Ok(Some(ledger))
}

fn rank_check(ledger: &CpuLedger) -> Result<(), NotConserved> {
    let CpuLedger { device, start, end, wall_ns, .. } = *ledger;
    for sums in [&ledger.direct, &ledger.root] {
        let sum_ns = sums.total();
        if sum_ns != wall_ns {
            return Err(NotConserved { device: device.0, from: start, to: end, sum_ns, wall_ns });
        }
    }
    Ok(())
}

struct Rank<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    device: DeviceId,
    waits: Waits<'a>,
    book: Book,
    beneath: Beneath,
    calls: Calls,
}

/// When a thread was followed, and what it did.
struct Seen {
    start: TimeNs,
    end: TimeNs,
    direct: CpuSums,
}

impl Seen {
    fn new() -> Self {
        Self { start: TimeNs(i64::MAX), end: TimeNs(i64::MIN), direct: CpuSums::default() }
    }

    fn pass(&mut self, stretch: &Stretch) {
        self.start = self.start.min(stretch.from);
        self.end = stretch.to;
    }
}

impl<S: ReadAt> Rank<'_, S> {
    /// The ledgers of a driving thread, and what it did outside of its calls.
    fn driving(&mut self, thread: ThreadId) -> Result<Option<(ThreadLedger, Outside)>, NotConserved> {
        let mut cursor = Cursor::new(self.capture, thread, TimeNs(i64::MIN));
        let mut walker = Walker::new(self.capture, thread);
        let mut seen = Seen::new();
        let mut outside = Outside::default();
        self.book.root = CpuSums::default();
        while let Some(stretch) = cursor.next() {
            seen.pass(&stretch);
            let found = leaves(&mut self.waits, thread, &stretch, &cursor);
            let Leaves { leaf, queue, queue_ns, .. } = found;
            let ns = stretch.ns().saturating_sub(queue_ns);
            seen.direct.add(leaf, ns);
            seen.direct.add(queue, queue_ns);
            let mut collective = StringId(0);
            if stretch.in_call {
                let call = self.beneath.joined(thread, cursor.call());
                collective = call.name;
                let on_cpu = if leaf == CpuLeaf::CommOnCpu { ns } else { 0 };
                let blocked = if leaf == CpuLeaf::CommBlocked { ns } else { 0 };
                self.calls.add(thread, &call, stretch.ns(), on_cpu, blocked);
            }
            let before = self.book.root;
            let place = (&mut self.waits, &mut self.book, &mut walker);
            charge(place, thread, collective, (&stretch, found), &mut cursor);
            outside.add(stretch.from, stretch.in_call, &before, &self.book.root);
        }
        let root = self.book.root;
        let ledger = self.close(thread, &seen, cursor.wall_ns(), Some(root))?;
        Ok(ledger.map(|ledger| (ledger, outside)))
    }

    /// The direct ledger of any other thread.
    fn other(&mut self, thread: ThreadId) -> Result<Option<ThreadLedger>, NotConserved> {
        let mut cursor = Cursor::new(self.capture, thread, TimeNs(i64::MIN));
        let mut seen = Seen::new();
        while let Some(stretch) = cursor.next() {
            seen.pass(&stretch);
            let Leaves { leaf, queue, queue_ns, .. } = leaves(&mut self.waits, thread, &stretch, &cursor);
            seen.direct.add(leaf, stretch.ns().saturating_sub(queue_ns));
            seen.direct.add(queue, queue_ns);
        }
        self.close(thread, &seen, cursor.wall_ns(), None)
    }

    /// Checks that the ledgers of a thread close.
    fn close(
        &self,
        thread: ThreadId,
        seen: &Seen,
        wall_ns: u64,
        root: Option<CpuSums>,
    ) -> Result<Option<ThreadLedger>, NotConserved> {
        if seen.start > seen.end {
            return Ok(None);
        }
        let (from, to) = (seen.start, seen.end);
        for sums in [Some(&seen.direct), root.as_ref()].into_iter().flatten() {
            let sum_ns = sums.total();
            if sum_ns != wall_ns {
                return Err(NotConserved { device: self.device.0, from, to, sum_ns, wall_ns });
            }
        }
        let direct = seen.direct;
        let driving = root.is_some();
        Ok(Some(ThreadLedger { thread, driving, start: from, end: to, wall_ns, direct, root }))
    }
}
