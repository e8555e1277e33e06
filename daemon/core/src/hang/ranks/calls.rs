//! The last calls of each rank that runs on CPUs, as a recording has them.
//!
//! Only calls that return when the operation is over for the rank say when it was in it: those of MPI and of Gloo. c10d hands
//! its work to Gloo or MPI and returns, and so does NCCL to the device; of c10d only the waits are looked at.

use std::collections::{BTreeMap, HashMap, VecDeque};

use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, RecordKind, call_flags, collective_call};
use stallscope_schemas::units::{ProcessId, SourceId, StackId, StringId, ThreadId, TimeNs};

use super::super::live::HANG_NS;
use crate::capture::{Capture, ColumnSet, ReadAt, Run, Tables};
use crate::report::rank_of;
use crate::rows::{CollectiveCall, ThreadLoss};

/// Calls of a rank on a group that are kept, the last ones.
const LAST: usize = 1024;
/// Groups of a rank that are kept.
const MAX_LANES: usize = 4096;
/// A call that was cut off at the end of the recording ends as far before its thread as the recorder needs to ask all threads.
const CUT_NS: u64 = 50_000_000;
/// A process that was followed to so long before the others' end has ended: one that lives is followed to the end.
const ENDED_NS: u64 = HANG_NS / 4;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) start: TimeNs,
    pub(super) end: TimeNs,
    pub(super) operation: CollectiveOp,
    pub(super) name: StringId,
    pub(super) elements: u64,
    pub(super) datatype: StringId,
    /// Its number among the process's calls on the group; 0 where it has none.
    pub(super) sequence: u64,
    /// Root or peer, as the group numbers it.
    pub(super) peer: Option<u32>,
    pub(super) stack: StackId,
    pub(super) thread: ThreadId,
    /// It had not returned when the recording, or its thread, ended.
    pub(super) is_open: bool,
    /// It only begins the operation.
    pub(super) is_async: bool,
}

/// What a rank calls a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupName {
    pub(super) library: CollectiveLibrary,
    pub(super) name: StringId,
}

/// Calls of one rank on one group.
#[derive(Debug)]
pub(super) struct Lane {
    /// Position of the rank.
    pub(super) rank: usize,
    pub(super) group: GroupName,
    /// The name is an address: it means nothing to other processes.
    pub(super) is_private: bool,
    /// Ranks in the group; 0 where unknown.
    pub(super) size: u64,
    /// The last collectives, in the order of their begins.
    pub(super) marks: VecDeque<Mark>,
    /// How long the longest collective took that did end, ns.
    pub(super) longest_ns: u64,
    /// A send or a receive that had not returned.
    pub(super) transfer: Option<Mark>,
}

impl Lane {
    /// The collective that the rank had not left at the end.
    pub(super) fn open(&self) -> Option<&Mark> {
        self.marks.iter().rev().find(|mark| mark.is_open)
    }
}

/// One rank.
#[derive(Debug)]
pub(super) struct Rank {
    pub(super) rank: u32,
    pub(super) world: Option<u32>,
    /// Threads of its processes that were followed.
    pub(super) threads: Vec<ThreadId>,
    /// The thread that drives it: the outermost that entered a library, else the main one.
    pub(super) driver: Option<ThreadId>,
    pub(super) end: TimeNs,
    /// Its process ended before the recording did.
    pub(super) has_ended: bool,
    /// It was seen to set up the library: no call of it is from before.
    pub(super) saw_init: bool,
    /// A call that had not returned and that says of no group what it waits for.
    pub(super) elsewhere: Option<Mark>,
}

/// The ranks of one job on one host, which have one clock.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    pub(super) ranks: Vec<Rank>,
    pub(super) lanes: Vec<Lane>,
    pub(super) end: TimeNs,
}

/// Host and job.
type Origin = (SourceId, String);

/// The ranks of each job, if a call of any rank had gone on for long when the recording ended. Otherwise nothing is read
/// but the lengths of calls.
pub(super) fn jobs<S: ReadAt>(capture: &Capture<S>) -> Vec<Ranks> {
    if !any_open(capture) {
        return Vec::new();
    }
    let tables = capture.tables();
    let names = ranks_of_processes(tables);
    let mut jobs: BTreeMap<Origin, BTreeMap<u32, Vec<ThreadId>>> = BTreeMap::new();
    for key in capture.keys(RecordKind::ThreadSpan) {
        let Some(process) = tables.thread(ThreadId(key)).map(|t| t.process) else { continue };
        let (Some(&rank), Some(of)) = (names.get(&process), tables.process(process)) else { continue };
        let job = jobs.entry((of.source, of.job.clone())).or_default();
        job.entry(rank).or_default().push(ThreadId(key));
    }
    jobs.into_values().map(|ranks| read(capture, ranks)).collect()
}

fn thread_end<S: ReadAt>(capture: &Capture<S>, thread: ThreadId) -> Option<TimeNs> {
    capture.extent(RecordKind::ThreadSpan, thread.0).map(|(_, end)| end)
}

/// Whether a call had gone on for long when its thread was last followed.
fn any_open<S: ReadAt>(capture: &Capture<S>) -> bool {
    let set = ColumnSet::of(&[collective_call::START, collective_call::DURATION, collective_call::FLAGS]);
    capture.keys(RecordKind::CollectiveCall).into_iter().any(|key| {
        if thread_end(capture, ThreadId(key)).is_none() {
            return false;
        }
        let mut merged = capture.merged::<CollectiveCall>(key, set);
        while let Some(run) = merged.next_run() {
            let Run::Rows(columns, range) = run else { continue };
            let of = |column: u16| columns.column(column).get(range.clone()).unwrap_or_default();
            let mut calls = of(collective_call::FLAGS).iter().zip(of(collective_call::DURATION));
            if calls.any(|(flags, length)| flags & call_flags::OPEN != 0 && *length >= HANG_NS) {
                return true;
            }
        }
        false
    })
}

fn ranks_of_processes(tables: &Tables) -> HashMap<ProcessId, u32> {
    let mut all = HashMap::new();
    for (number, device) in (0u32..).zip(tables.devices()) {
        if let Some(rank) = rank_of(stallscope_schemas::units::DeviceId(number), tables) {
            all.extend(device.processes.iter().map(|&process| (process, rank)));
        }
    }
    let own = (0u32..).zip(tables.processes()).filter_map(|(n, p)| Some((ProcessId(n), p.rank?)));
    all.extend(own);
    all
}

fn read<S: ReadAt>(capture: &Capture<S>, threads: BTreeMap<u32, Vec<ThreadId>>) -> Ranks {
    let mut all = Ranks { end: TimeNs(i64::MIN), ..Ranks::default() };
    for (position, (rank, threads)) in threads.into_iter().enumerate() {
        let mut reading = Reading { capture, position, lanes: BTreeMap::new(), of: new_rank(rank) };
        reading.of.world = threads.iter().find_map(|&t| {
            let tables = capture.tables();
            tables.process(tables.thread(t)?.process)?.world_size
        });
        let mut outer = None;
        for &thread in &threads {
            let Some(end) = thread_end(capture, thread) else { continue };
            reading.of.end = reading.of.end.max(end);
            let seen = reading.thread(thread, end);
            outer = outer.max(seen.map(|layer| (layer, std::cmp::Reverse(thread))));
        }
        reading.of.driver =
            outer.map(|(_, thread)| thread.0).or_else(|| main_thread(capture.tables(), &threads));
        reading.of.threads = threads;
        all.end = all.end.max(reading.of.end);
        all.ranks.push(reading.of);
        all.lanes.extend(reading.lanes.into_values());
    }
    for rank in &mut all.ranks {
        rank.has_ended = all.end.since(rank.end) > ENDED_NS;
    }
    all
}

fn new_rank(rank: u32) -> Rank {
    Rank {
        rank,
        world: None,
        threads: Vec::new(),
        driver: None,
        end: TimeNs(i64::MIN),
        has_ended: false,
        saw_init: false,
        elsewhere: None,
    }
}

/// The main thread of the process with the least number, or its thread with the least id.
fn main_thread(tables: &Tables, threads: &[ThreadId]) -> Option<ThreadId> {
    let own = threads.iter().filter_map(|&thread| {
        let of = tables.thread(thread)?;
        let process = tables.process(of.process)?;
        Some((process.rank.is_none(), of.process, of.tid != process.pid, of.tid, thread))
    });
    own.min().map(|(.., thread)| thread)
}

/// How far out a library lies: c10d calls Gloo and MPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Inner,
    Outer,
}

struct Reading<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    position: usize,
    lanes: BTreeMap<GroupName, Lane>,
    of: Rank,
}

impl<S: ReadAt> Reading<'_, S> {
    /// Reads a thread's calls. Returns the layer that it enters.
    fn thread(&mut self, thread: ThreadId, thread_end: TimeNs) -> Option<Layer> {
        let mut until: BTreeMap<CollectiveLibrary, TimeNs> = BTreeMap::new();
        let mut layer = None;
        for call in self.capture.rows::<CollectiveCall>(thread.0) {
            let end = call.start.plus(call.duration_ns);
            // MPI_Allreduce may call PMPI_Allreduce: of one library the outermost counts.
            let until = until.entry(call.library).or_insert(TimeNs(i64::MIN));
            if call.start < *until {
                continue;
            }
            *until = end;
            let outer = call.library == CollectiveLibrary::C10d;
            layer = layer.max(Some(if outer { Layer::Outer } else { Layer::Inner }));
            let is_open = call.flags & call_flags::OPEN != 0 && end.plus(CUT_NS) >= thread_end;
            let mark = Mark {
                start: call.start,
                end,
                operation: call.operation,
                name: call.name,
                elements: call.elements,
                datatype: call.datatype,
                sequence: call.sequence,
                peer: call.peer,
                stack: call.stack,
                thread,
                is_open,
                is_async: call.flags & call_flags::ASYNC != 0,
            };
            self.add(&call, mark);
        }
        layer
    }

    fn add(&mut self, call: &CollectiveCall, mark: Mark) {
        let tells = matches!(
            call.library,
            CollectiveLibrary::Mpi | CollectiveLibrary::Gloo | CollectiveLibrary::OneCcl
        );
        match mark.operation {
            CollectiveOp::Group => {}
            CollectiveOp::Init => {
                let name = self.capture.tables().string(mark.name).to_ascii_lowercase();
                self.of.saw_init |= tells && !mark.is_open && name.contains("mpi_init");
            }
            CollectiveOp::Wait | CollectiveOp::Other if mark.is_open => self.of.elsewhere = Some(mark),
            CollectiveOp::Wait | CollectiveOp::Other => {}
            _ if tells && (!mark.is_async || call.library == CollectiveLibrary::Mpi) => {
                if let Some(lane) = self.lane(call) {
                    lane.add(mark);
                }
            }
            _ => {}
        }
    }

    fn lane(&mut self, call: &CollectiveCall) -> Option<&mut Lane> {
        let name = self.capture.tables().string(call.group);
        // Nobody else is in a group of one.
        if name.is_empty() || name.contains("MPI_COMM_SELF") || call.group_size == 1 {
            return None;
        }
        let group = GroupName { library: call.library, name: call.group };
        if self.lanes.len() >= MAX_LANES && !self.lanes.contains_key(&group) {
            return None;
        }
        let lane = self.lanes.entry(group).or_insert_with(|| Lane {
            rank: self.position,
            group,
            is_private: name.contains('@'),
            size: 0,
            marks: VecDeque::new(),
            longest_ns: 0,
            transfer: None,
        });
        lane.size = lane.size.max(call.group_size);
        Some(lane)
    }
}

impl Lane {
    fn add(&mut self, mark: Mark) {
        if matches!(mark.operation, CollectiveOp::Send | CollectiveOp::Recv) {
            if mark.is_open {
                self.transfer = Some(mark);
            }
            return;
        }
        if !mark.is_open {
            self.longest_ns = self.longest_ns.max(mark.end.since(mark.start));
        }
        if self.marks.len() >= LAST {
            self.marks.pop_front();
        }
        // Threads come one after the other; calls of one thread are in order already.
        let at = self.marks.partition_point(|other| other.start <= mark.start);
        self.marks.insert(at, mark);
    }
}

/// Whether records of any of a rank's threads are missing between two moments: then what it did not call is not known. A
/// switch of a thread that was missed hides no call.
pub(super) fn has_lost<S: ReadAt>(capture: &Capture<S>, rank: &Rank, from: TimeNs, to: TimeNs) -> bool {
    let hides_calls = |lost: ThreadLoss| lost.counter != LossCounter::ProbeMissed.id();
    rank.threads.iter().any(|thread| {
        let mut lost = capture.rows_between::<ThreadLoss>(thread.0, from, to);
        lost.any(hides_calls)
    })
}
