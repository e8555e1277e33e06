//! The last calls of each rank that runs on CPUs, as a recording has them.
//!
//! Only calls that return when the operation is over for the rank say when it was in it: those of MPI and of Gloo. c10d hands
//! its work to Gloo or MPI and returns, and so does NCCL to the device; of c10d only the waits are looked at.

use std::collections::{BTreeMap, VecDeque};

use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, RecordKind, call_flags, collective_call};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use super::super::live::HANG_NS;
use super::processes::{self, Seat, Seats};
use crate::capture::{Capture, ColumnSet, ReadAt, Run, Tables};
use crate::rows::{CollectiveCall, ThreadLoss};

/// Calls of a rank on a group that are kept, the last ones.
const LAST: usize = 1024;
/// Groups of a rank that are kept.
const MAX_LANES: usize = 4096;
/// A call that was cut off at the end of the recording ends as far before its thread as the recorder needs to ask all threads.
pub(super) const CUT_NS: u64 = 50_000_000;
/// A process that was followed to so long before the others' end has ended: one that lives is followed to the end.
pub(in crate::hang) const ENDED_NS: u64 = HANG_NS / 4;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It returned, and the operation was over.
    Returned,
    /// It had not when the recording, or its thread, ended.
    Open,
    /// It was given up, by an exception or with an error: that says of nobody that he came.
    Left,
}

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
    pub(super) fate: Fate,
    /// It only begins the operation.
    pub(super) is_async: bool,
}

impl Mark {
    pub(super) fn is_open(&self) -> bool {
        self.fate == Fate::Open
    }
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
        self.marks.iter().rev().find(|mark| mark.is_open())
    }
}

/// One rank.
#[derive(Debug)]
pub(super) struct Rank {
    pub(super) rank: u32,
    pub(super) world: Option<u32>,
    /// Threads of its process, and of its helpers, that were followed.
    pub(super) threads: Vec<ThreadId>,
    /// The thread that drives it: the outermost that entered a library, else the main one.
    pub(super) driver: Option<ThreadId>,
    /// When its process was last followed.
    pub(super) end: TimeNs,
    /// Its process ended before the recording did.
    pub(super) has_ended: bool,
    /// It was seen to set up the library: no call of it is from before.
    pub(super) saw_init: bool,
    /// A call that had not returned and that says of no group what it waits for.
    pub(super) elsewhere: Option<Mark>,
}

/// The ranks of one job on one host, which have one clock.
#[derive(Debug)]
pub(super) struct Ranks {
    pub(super) ranks: Vec<Rank>,
    pub(super) lanes: Vec<Lane>,
    pub(super) end: TimeNs,
    /// A rank of which several processes made calls at the same time: each of them is one of `ranks`.
    pub(super) mixed: Option<u32>,
}

impl Ranks {
    /// Ranks of the job, where known.
    pub(super) fn world(&self) -> Option<u32> {
        self.ranks.iter().filter_map(|rank| rank.world).max()
    }
}

/// The ranks of each job, if a call of any rank had gone on for long when the recording ended. Otherwise nothing is read
/// but the lengths of calls.
pub(super) fn jobs<S: ReadAt>(capture: &Capture<S>) -> Vec<Ranks> {
    if !any_open(capture) {
        return Vec::new();
    }
    processes::jobs(capture).into_iter().map(|seats| read(capture, seats)).collect()
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

fn read<S: ReadAt>(capture: &Capture<S>, seats: Seats) -> Ranks {
    let end = seats.seats.iter().map(|seat| seat.end).max().unwrap_or(TimeNs(i64::MIN));
    let mut all = Ranks { ranks: Vec::new(), lanes: Vec::new(), end, mixed: seats.mixed };
    for (position, seat) in seats.seats.into_iter().enumerate() {
        let mut reading =
            Reading { capture, position, lanes: BTreeMap::new(), saw_init: false, elsewhere: None };
        let mut outer = None;
        for &thread in &seat.threads {
            let Some(thread_end) = thread_end(capture, thread) else { continue };
            let seen = reading.thread(thread, thread_end);
            outer = outer.max(seen.map(|layer| (layer, std::cmp::Reverse(thread))));
        }
        let driver = outer.map(|(_, thread)| thread.0);
        let Reading { lanes, saw_init, elsewhere, .. } = reading;
        all.lanes.extend(lanes.into_values().map(Lane::without_those_before));
        let Seat { rank, world, threads, helpers, end: last } = seat;
        all.ranks.push(Rank {
            rank,
            world,
            driver: driver.or_else(|| main_thread(capture.tables(), &threads)),
            threads: threads.into_iter().chain(helpers).collect(),
            end: last,
            has_ended: end.since(last) > ENDED_NS,
            saw_init,
            elsewhere,
        });
    }
    all
}

/// The main thread of the process with the least number, or its thread with the least id.
pub(in crate::hang) fn main_thread(tables: &Tables, threads: &[ThreadId]) -> Option<ThreadId> {
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
    saw_init: bool,
    elsewhere: Option<Mark>,
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
            let failed = call.flags & call_flags::RETURNED != 0 && call.result != 0;
            let fate = match call.flags & call_flags::OPEN != 0 {
                true if end.plus(CUT_NS) >= thread_end => Fate::Open,
                false if !failed => Fate::Returned,
                _ => Fate::Left,
            };
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
                fate,
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
                self.saw_init |= tells && mark.fate == Fate::Returned && name.contains("mpi_init");
            }
            CollectiveOp::Wait | CollectiveOp::Other if mark.is_open() => self.elsewhere = Some(mark),
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
            if mark.is_open() {
                self.transfer = Some(mark);
            }
            return;
        }
        if mark.fate == Fate::Returned {
            self.longest_ns = self.longest_ns.max(mark.end.since(mark.start));
        }
        if self.marks.len() >= LAST {
            self.marks.pop_front();
        }
        // Threads come one after the other; calls of one thread are in order already.
        let at = self.marks.partition_point(|other| other.start <= mark.start);
        self.marks.insert(at, mark);
    }

    /// Without the calls on a group before, which is gone, of the same address: numbers begin anew with each.
    fn without_those_before(mut self) -> Self {
        let (mut from, mut last) = (0, None::<Mark>);
        for (at, mark) in self.marks.iter().enumerate().filter(|(_, mark)| mark.sequence > 0) {
            // Calls of several threads at a time may have their numbers the other way round.
            if last.is_some_and(|last| mark.sequence <= last.sequence && last.end <= mark.start) {
                from = at;
            }
            last = Some(*mark);
        }
        self.marks.drain(..from);
        self
    }
}

/// Whether records of any of a rank's threads are missing between two moments: then what it did not call is not known. A
/// switch of a thread that was missed hides no call.
pub(super) fn has_lost<S: ReadAt>(capture: &Capture<S>, rank: &Rank, from: TimeNs, to: TimeNs) -> bool {
    rank.threads.iter().any(|thread| {
        let mut lost = capture.rows_between::<ThreadLoss>(thread.0, from, to);
        lost.any(|lost| hides_calls(&lost))
    })
}

/// Whether calls may be among the records that are missing.
pub(in crate::hang) fn hides_calls(lost: &ThreadLoss) -> bool {
    lost.counter != LossCounter::ProbeMissed.id()
}
