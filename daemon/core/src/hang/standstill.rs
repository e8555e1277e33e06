//! The verdict on a job that stood still for all of a recording: it hung before anybody looked.
//!
//! What began before the recording has no record: no call that does not return, no kernel that does not end. What is seen is
//! that nothing begins or ends, and where each rank stays meanwhile ([`place`]). Ranks in communication wait for others; if
//! those elsewhere are the fewer, they are what is waited for:
//!
//! | where the ranks are | what is said |
//! |---|---|
//! | most in communication, the rest elsewhere | the rest is to blame |
//! | all in communication | nobody is: which operation each is in was not seen |
//! | most or all blocked | nobody is: who waits for whom is not seen |
//! | anything else: a rank moves, or most compute | nothing: the job may be at work |
//!
//! A rank that is to blame and at work is a problem only when that lasts: others may wait long for a checkpoint or an evaluation.
//!
//! What always holds: a rank is blamed only if it cannot be waiting for its peers where it is. One of which records are missing
//! is not, nor one that is blocked in what peers may be waited for in, unless all that are in communication spin there: then
//! the job's library does not block.

mod place;
mod text;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::{ObjectKind, RecordKind, WaitKind, device_kind, window_flags};
use stallscope_schemas::units::{DeviceId, ProcessId, ThreadId, TimeNs};

use super::blocked::is_for_a_thread;
use super::live::HANG_NS;
use super::ranks::{ENDED_NS, hides_calls, main_thread, ranks_of_processes};
use crate::capture::{Capture, ReadAt, Tables};
use crate::classify::waits::{WaitClass, wait_class};
use crate::collectives::CLOCK_ERROR_LABEL;
use crate::findings::Finding;
use crate::report::{device_name, is_gpu_unseen};
use crate::rows::{DeviceWindow, ThreadLoss, ThreadWait};
use place::{Place, Stacks, busiest, mostly, place};

/// Share of the recording for which a thread has to work for its process to be at work, in percent.
const AT_WORK_PERCENT: u64 = 20;

/// Label under which a recorder says that collective calls could not be recorded.
const CALLS_LABEL: &str = "probe.collectives";

/// What is to be said of jobs that stood still.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    /// One a job.
    pub(crate) findings: Vec<Finding>,
    /// Identities of CPU ranks that were in communication all the time: where they yield there, that they are runnable says
    /// nothing of the CPUs.
    pub(crate) in_communication: BTreeSet<String>,
}

/// Looks for jobs that stood still for all of the recording.
pub(crate) fn standstill<S: ReadAt>(capture: &Capture<S>) -> Standstill {
    let mut out = Standstill::default();
    let lacks_calls = |(label, text): &(String, String)| label == CALLS_LABEL && text.starts_with("missing");
    if capture.tables().labels().iter().any(lacks_calls) {
        // That there is no call says nothing then.
        return out;
    }
    for members in quiet_jobs(capture).into_values() {
        let Some(still) = Still::of(capture, members) else { continue };
        out.in_communication.extend(still.in_communication());
        out.findings.extend(still.finding());
    }
    out
}

/// Followed threads of each rank.
type Members = BTreeMap<u32, Vec<ThreadId>>;

/// Jobs of several ranks in which no collective call and no operation of a device was recorded.
fn quiet_jobs<S: ReadAt>(capture: &Capture<S>) -> BTreeMap<String, Members> {
    let tables = capture.tables();
    let of_process = |process: ProcessId| tables.process(process).map(|p| p.job.clone());
    let mut busy: BTreeSet<String> = BTreeSet::new();
    for key in capture.keys(RecordKind::CollectiveCall) {
        busy.extend(tables.thread(ThreadId(key)).and_then(|t| of_process(t.process)));
    }
    for key in capture.keys(RecordKind::GpuOp) {
        let processes = tables.device(DeviceId(key)).map(|d| d.processes.as_slice()).unwrap_or_default();
        busy.extend(processes.iter().filter_map(|&process| of_process(process)));
    }
    let rank_of = ranks_of_processes(tables);
    let mut jobs: BTreeMap<String, Members> = BTreeMap::new();
    for key in capture.keys(RecordKind::ThreadSpan) {
        let Some(process) = tables.thread(ThreadId(key)).map(|t| t.process) else { continue };
        let (Some(&rank), Some(job)) = (rank_of.get(&process), of_process(process)) else { continue };
        if !busy.contains(&job) {
            jobs.entry(job).or_default().entry(rank).or_default().push(ThreadId(key));
        }
    }
    jobs.retain(|_, members| members.len() > 1);
    jobs
}

/// One rank.
#[derive(Debug)]
struct Rank {
    rank: u32,
    world: Option<u32>,
    /// Its main thread.
    driver: ThreadId,
    threads: Vec<ThreadId>,
    place: Place,
    /// Records of calls may be missing.
    has_lost: bool,
    /// The thread that works while the main one is blocked, and for how long, ns; looked for when it is asked for.
    worker: OnceCell<Option<(ThreadId, u64)>>,
}

/// A job in which no collective and no operation of a device began or ended.
struct Still<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    stacks: RefCell<Stacks<'a>>,
    ranks: Vec<Rank>,
    /// Length of the recording, ns.
    ns: u64,
    end: TimeNs,
    /// Its GPUs were observed.
    has_gpus: bool,
}

/// When a rank's threads were followed.
fn extent<S: ReadAt>(
    capture: &Capture<S>,
    threads: impl Iterator<Item = ThreadId>,
) -> Option<(TimeNs, TimeNs)> {
    let all = threads.filter_map(|thread| capture.extent(RecordKind::ThreadSpan, thread.0));
    all.reduce(|(from, to), (start, end)| (from.min(start), to.max(end)))
}

/// Processes whose GPU work would have been recorded: those of a device that was observed, and where agents collected all but
/// those of which a note says that theirs could not. An agent has no device to name before it sees work.
fn observed<S: ReadAt>(capture: &Capture<S>) -> BTreeSet<ProcessId> {
    let tables = capture.tables();
    let mut all = BTreeSet::new();
    for key in capture.keys(RecordKind::DeviceWindow) {
        let unseen = |window: DeviceWindow| window.flags & window_flags::UNSEEN != 0;
        if !capture.rows::<DeviceWindow>(key).any(unseen) {
            all.extend(tables.device(DeviceId(key)).into_iter().flat_map(|d| d.processes.iter().copied()));
        }
    }
    if tables.labels().iter().any(|(label, _)| label == CLOCK_ERROR_LABEL) {
        let ranks = (0u32..).zip(tables.processes()).filter(|(_, process)| process.rank.is_some());
        all.extend(
            ranks
                .filter(|(_, process)| !is_gpu_unseen(process.pid, tables))
                .map(|(number, _)| ProcessId(number)),
        );
    }
    all
}

impl<'a, S: ReadAt> Still<'a, S> {
    /// None where the recording is too short to say.
    fn of(capture: &'a Capture<S>, members: Members) -> Option<Self> {
        let (start, end) = extent(capture, members.values().flatten().copied())?;
        let ns = end.since(start);
        if ns < HANG_NS {
            return None;
        }
        let process_of = |thread: ThreadId| capture.tables().thread(thread).map(|t| t.process);
        let observed = observed(capture);
        let is_observed = |threads: &[ThreadId]| {
            threads.iter().filter_map(|&thread| process_of(thread)).any(|p| observed.contains(&p))
        };
        let has_gpus = members.values().any(|threads| is_observed(threads));
        let stacks = RefCell::new(Stacks::new(capture.tables()));
        let mut still = Self { capture, stacks, ranks: Vec::new(), ns, end, has_gpus };
        for (rank, threads) in members {
            let mut of = still.rank(rank, threads)?;
            // Whether a device that was not observed did something is not known.
            if matches!(of.place, Place::WaitsForDevice { .. }) && !is_observed(&of.threads) {
                of.place = Place::Moves;
            }
            still.ranks.push(of);
        }
        Some(still)
    }

    fn rank(&self, rank: u32, threads: Vec<ThreadId>) -> Option<Rank> {
        let tables = self.capture.tables();
        let driver = main_thread(tables, &threads)?;
        let own = tables.thread(driver).map(|t| t.process);
        let of_process = || threads.iter().copied().filter(|&t| tables.thread(t).map(|t| t.process) == own);
        let (from, to) = extent(self.capture, std::iter::once(driver))?;
        let (_, last) = extent(self.capture, of_process())?;
        let ended = self.end.since(last) > ENDED_NS;
        let begins = |&thread: &ThreadId| extent(self.capture, std::iter::once(thread)).map(|(from, _)| from);
        let place = if ended && threads.iter().filter_map(begins).any(|from| from > last) {
            // Another process is this rank now.
            Place::Moves
        } else if ended {
            Place::Ended
        } else if !mostly(to.since(from), self.ns) {
            // It began meanwhile.
            Place::Moves
        } else {
            let mut stacks = self.stacks.borrow_mut();
            let of_driver = place(self.capture, driver, &mut stacks);
            // One that waits for a thread of its own which is in communication is in it too.
            let mut other =
                || of_process().map(|t| place(self.capture, t, &mut stacks)).find(Place::is_communication);
            let for_a_thread =
                matches!(&of_driver, Place::Blocked { wait, .. } if is_for_a_thread(wait, tables));
            if for_a_thread { other().unwrap_or(of_driver) } else { of_driver }
        };
        let loses =
            |thread: &ThreadId| self.capture.rows::<ThreadLoss>(thread.0).any(|lost| hides_calls(&lost));
        let has_lost = !self.capture.holes().is_empty() || threads.iter().any(loses);
        let world = own.and_then(|process| tables.process(process)?.world_size);
        Some(Rank { rank, world, driver, threads, place, has_lost, worker: OnceCell::new() })
    }

    fn tables(&self) -> &Tables {
        self.capture.tables()
    }

    fn in_communication(&self) -> impl Iterator<Item = String> {
        let tables = self.tables();
        let inside = self.ranks.iter().filter(|rank| rank.place.is_communication());
        let processes: BTreeSet<ProcessId> =
            inside.filter_map(|rank| tables.thread(rank.driver).map(|t| t.process)).collect();
        let devices = (0u32..).zip(tables.devices()).filter(|(_, d)| d.kind == device_kind::CPU);
        devices
            .filter(move |(_, d)| d.processes.iter().any(|p| processes.contains(p)))
            .map(|(number, _)| device_name(DeviceId(number), tables))
    }

    fn finding(&self) -> Option<Finding> {
        if self.ranks.iter().any(|rank| rank.place == Place::Moves) {
            return None;
        }
        let (inside, outside): (Vec<&Rank>, Vec<&Rank>) =
            self.ranks.iter().partition(|rank| rank.place.is_communication());
        let mut culprits: Vec<&Rank> = match outside.len() < inside.len() {
            true => outside.iter().copied().filter(|rank| self.excuse(rank).is_none()).collect(),
            false => Vec::new(),
        };
        // One that is at work may come: those that do not get on are to blame first.
        if culprits.iter().any(|rank| !self.is_at_work(rank)) {
            culprits.retain(|rank| !self.is_at_work(rank));
        }
        if culprits.is_empty() && outside.iter().any(|rank| self.is_at_work(rank)) {
            return None;
        }
        Some(self.say(&inside, &outside, &culprits))
    }

    /// Why a rank that is not in communication is not blamed, if so.
    fn excuse(&self, rank: &Rank) -> Option<String> {
        let number = rank.rank;
        if rank.place == Place::Ended {
            return None;
        }
        if rank.has_lost || rank.place == Place::Unseen {
            return Some(format!("records of rank {number} are missing, so that it is not blamed"));
        }
        let Place::Blocked { wait, is_one, .. } = &rank.place else { return None };
        let other = wait.peer.and_then(|peer| ranks_of_processes(self.tables()).get(&peer).copied());
        if other.is_some_and(|other| other != number) {
            return Some(format!("rank {number} waits for another rank there"));
        }
        let blocks = |rank: &Rank| {
            matches!(
                rank.place,
                Place::Communicates { spins: false, .. } | Place::WaitsForDevice { spins: false, .. }
            )
        };
        (self.may_be_for_peers(wait, *is_one) && self.ranks.iter().any(blocks))
            .then(|| format!("rank {number} may be waiting for its peers there"))
    }

    /// Whether a communication library that blocks may wait so.
    fn may_be_for_peers(&self, wait: &ThreadWait, is_one: bool) -> bool {
        let class = || wait_class(self.tables().string(wait.call), wait.object_kind);
        match wait.kind {
            WaitKind::Syscall => match class() {
                // Workers are read from through pipes, peers are not.
                WaitClass::Ipc => wait.object_kind != ObjectKind::Pipe,
                WaitClass::Lock | WaitClass::Network | WaitClass::Poll => true,
                // Time and again: it looks whether something has happened.
                WaitClass::Sleep | WaitClass::Syscall => !is_one,
                WaitClass::BlockIo => false,
            },
            _ => false,
        }
    }

    /// Whether a rank gets on: a thread of it worked for longer than a moment, or it moves data time and again.
    fn is_at_work(&self, rank: &Rank) -> bool {
        let moves_data = |wait: &ThreadWait| {
            let class = wait_class(self.tables().string(wait.call), wait.object_kind);
            match wait.kind {
                WaitKind::PageFault => true,
                WaitKind::Syscall => {
                    matches!(class, WaitClass::BlockIo | WaitClass::Ipc | WaitClass::Network)
                }
                _ => false,
            }
        };
        match &rank.place {
            Place::Computes { .. } => true,
            Place::Blocked { wait, is_one: false, .. } if moves_data(wait) => true,
            _ => self.worker(rank).is_some(),
        }
    }

    /// Whether a rank waits in a way in which a server waits for requests.
    fn may_serve(&self, rank: &Rank) -> bool {
        let Place::Blocked { wait, .. } = &rank.place else { return false };
        let call = self.tables().string(wait.call);
        wait.kind == WaitKind::Syscall
            && (call.starts_with("accept") || wait_class(call, wait.object_kind) == WaitClass::Poll)
    }

    /// The thread of a rank that works while the main one is blocked, and for how long, ns.
    fn worker(&self, rank: &Rank) -> Option<(ThreadId, u64)> {
        *rank.worker.get_or_init(|| {
            let others = rank.threads.iter().copied().filter(|&thread| thread != rank.driver);
            let least = self.ns / 100 * AT_WORK_PERCENT;
            busiest(self.capture, others, &mut self.stacks.borrow_mut()).filter(|&(_, ns)| ns >= least)
        })
    }

    fn world(&self) -> usize {
        let known = self.ranks.iter().filter_map(|rank| rank.world).max().unwrap_or(0);
        self.ranks.len().max(usize::try_from(known).unwrap_or(usize::MAX))
    }
}
