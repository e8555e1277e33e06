//! The communication kernels of each device, by communicator as far as that is known.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use hashbrown::HashMap;
use stallscope_schemas::record::{
    CollectiveLibrary, CollectiveOp, OpKind, RecordKind, call_flags, gpu_op, op_flags,
};
use stallscope_schemas::units::{CorrelationId, DeviceId, SourceId, StringId, ThreadId, TimeNs};

use crate::capture::{BatchColumns, Capture, ColumnSet, ReadAt, Relation, Run, Shift, Tables};
use crate::classify::{OpClass, kernel_class, op_class};
use crate::ledger::parallel::each;
use crate::other_jobs::OtherJobs;
use crate::rows::{Collective, CollectiveCall};

/// Kernels of one device that are looked at: an hour at 500 a second.
const MAX_MARKS: usize = 1 << 21;
/// Calls of one thread that are looked at.
const MAX_CALLS: usize = 1 << 20;
/// Calls before a launch that may hold it: collective calls do not nest deeper, and a group has few more.
const LOOK_BACK: usize = 64;

/// One resident kernel, on the clock that its device has in common with those that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) start: TimeNs,
    pub(super) end: TimeNs,
    pub(super) name: StringId,
    pub(super) operation: CollectiveOp,
    /// The rank from which or to which it goes, where it has one and that is known.
    pub(super) root: Root,
    /// Bytes that this rank put in; 0 where unknown.
    pub(super) bytes: u64,
    /// Position in the communicator's order, where that is known on all ranks alike.
    pub(super) sequence: Option<u64>,
    /// Number of the call that launched it, as its process counts, plus one; 0 where unknown.
    pub(super) call: u64,
    /// What was added to its times, and within what that is known.
    pub(super) shift: Shift,
}

impl Mark {
    /// A time of it as its own device tells it.
    pub(super) fn own(&self, time: TimeNs) -> TimeNs {
        TimeNs(time.0.saturating_sub(self.shift.ns))
    }
}

/// A rank of a communicator, in one byte: there are many kernels, and nearly all roots are the first rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Root(Option<NonZeroU8>);

impl Root {
    /// Nothing is known of one beyond 254.
    pub(super) fn of(rank: u32) -> Self {
        Self(rank.checked_add(1).and_then(|one_more| NonZeroU8::new(u8::try_from(one_more).ok()?)))
    }

    pub(super) fn rank(self) -> Option<u32> {
        self.0.map(|one_more| u32::from(one_more.get()) - 1)
    }
}

/// What clock a lane's kernels are told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneClock {
    /// One of its own: lanes of other sources are not compared with it.
    Own(SourceId),
    /// One that several sources have in common, within the errors of its kernels.
    Common(u32, SourceId),
}

impl LaneClock {
    /// What lanes have to share to be compared.
    pub(super) fn domain(self) -> (bool, u32) {
        match self {
            Self::Own(source) => (false, source.0),
            Self::Common(group, _) => (true, group),
        }
    }
}

/// The kernels of one communicator on one device; where the communicator is not known, of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) device: DeviceId,
    pub(super) clock: LaneClock,
    /// The communicator, where all ranks call it the same.
    pub(super) group: Option<StringId>,
    /// Its ranks, where known.
    pub(super) group_size: u64,
    /// Which of them its device is, where a call says so.
    pub(super) rank: Option<u32>,
    /// By their begin.
    pub(super) marks: Vec<Mark>,
    /// Those that had not ended when the recording did.
    pub(super) open: Vec<Mark>,
    /// What its process calls the communicator; empty where only the stream is known.
    pub(super) called: StringId,
    /// Threads that launch on it.
    pub(super) threads: Vec<ThreadId>,
}

/// What a call into a library, or a trace, says of a kernel.
#[derive(Clone, Copy, Debug)]
struct Known {
    group: StringId,
    group_size: u64,
    operation: CollectiveOp,
    root: Root,
    rank: Option<u32>,
    bytes: u64,
    sequence: Option<u64>,
    call: u64,
}

/// Which lane a kernel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Group(StringId),
    Stream(u64),
}

/// The lanes of all devices. `in_turn`: on the calling thread.
pub(super) fn of<S: ReadAt>(capture: &Capture<S>, devices: &[DeviceId], in_turn: bool) -> Vec<Lane> {
    let mut all: Vec<Lane> =
        each(devices, in_turn, |&device| of_device(capture, device)).into_iter().flatten().collect();
    for lane in &mut all {
        if let LaneClock::Own(source) = lane.clock
            && let Some(relation) = capture.relation(source)
        {
            lane.put_on(relation);
        }
    }
    all
}

impl Lane {
    /// Tells its kernels by the common clock.
    fn put_on(&mut self, relation: &Relation) {
        self.clock = LaneClock::Common(relation.group, relation.source);
        for mark in self.marks.iter_mut().chain(&mut self.open) {
            // Nobody leaves early: it is the ends that say how clocks relate.
            mark.shift = relation.at(mark.end);
            mark.start = TimeNs(mark.start.0.saturating_add(mark.shift.ns));
            mark.end = TimeNs(mark.end.0.saturating_add(mark.shift.ns));
        }
    }
}

fn of_device<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> Vec<Lane> {
    let mut names = Names::new(capture.tables());
    let mut calls = Calls::new(capture, device);
    let others = OtherJobs::on(device, capture.tables());
    let mut marks: Vec<(Op, Mark, Option<Known>)> = Vec::new();
    let columns = ColumnSet::of(&[
        gpu_op::START,
        gpu_op::DURATION,
        gpu_op::NAME,
        gpu_op::STREAM,
        gpu_op::KIND,
        gpu_op::FLAGS,
        gpu_op::CORRELATION,
        gpu_op::LAUNCH_THREAD,
        // The starts are stored as distances from ends.
        gpu_op::LAUNCH_START,
        gpu_op::LAUNCH_DURATION,
    ]);
    let mut merged = capture.merged::<crate::rows::GpuOp>(device.0, columns);
    while let Some(run) = merged.next_run() {
        let Run::Rows(columns, range) = run else { continue };
        let of = |column: u16| columns.column(column).get(range.clone()).unwrap_or_default();
        let told_apart = of(gpu_op::NAME).iter().zip(of(gpu_op::KIND)).zip(of(gpu_op::FLAGS));
        for (at, ((&name, &kind), &flags)) in range.clone().zip(told_apart) {
            // Of most operations nothing else is looked at.
            if !names.communicates(name, kind, flags) {
                continue;
            }
            let Some(op) = Op::read(columns, at) else { continue };
            let thread = op.launch.map(|(thread, _)| thread);
            if others.any() && others.launched(thread, capture.tables()).is_some() {
                continue;
            }
            if marks.len() >= MAX_MARKS {
                break;
            }
            let known = calls.of(&op);
            let mark = Mark {
                start: op.start,
                end: op.end,
                name: op.name,
                operation: known.map_or_else(|| names.operation(op.name), |k| k.operation),
                root: known.map_or(Root::default(), |k| k.root),
                bytes: known.map_or(0, |k| k.bytes),
                sequence: known.and_then(|k| k.sequence),
                call: known.map_or(0, |k| k.call),
                shift: Shift::default(),
            };
            marks.push((op, mark, known));
        }
    }
    into_lanes(device, marks, capture.tables())
}

/// Puts kernels into lanes. One of which nothing is known belongs to the communicator of its stream, if that has only one.
fn into_lanes(device: DeviceId, marks: Vec<(Op, Mark, Option<Known>)>, tables: &Tables) -> Vec<Lane> {
    let mut of_stream: HashMap<u64, Option<StringId>> = HashMap::new();
    for (op, _, known) in &marks {
        let Some(known) = known else { continue };
        of_stream
            .entry(op.stream)
            .and_modify(|one| *one = one.filter(|&group| group == known.group))
            .or_insert(Some(known.group));
    }
    let mut lanes: BTreeMap<Key, Lane> = BTreeMap::new();
    for (op, mark, known) in marks {
        let group = known.map(|k| k.group).or_else(|| of_stream.get(&op.stream).copied().flatten());
        let key = group.map_or(Key::Stream(op.stream), Key::Group);
        let lane = lanes.entry(key).or_insert_with(|| Lane {
            device,
            clock: LaneClock::Own(tables.device(device).map_or(SourceId(0), |d| d.source)),
            // An address of one process says nothing to another.
            group: group.filter(|&g| is_shared(tables.string(g))),
            group_size: 0,
            rank: None,
            marks: Vec::new(),
            open: Vec::new(),
            called: group.unwrap_or(StringId(0)),
            threads: Vec::new(),
        });
        lane.group_size = lane.group_size.max(known.map_or(0, |k| k.group_size));
        lane.rank = lane.rank.or_else(|| known?.rank);
        if let Some((thread, _)) = op.launch.filter(|(thread, _)| !lane.threads.contains(thread)) {
            lane.threads.push(thread);
        }
        // One without an end says nothing about when it was over.
        if op.flags & op_flags::END_UNKNOWN == 0 { lane.marks.push(mark) } else { lane.open.push(mark) }
    }
    lanes.into_values().collect()
}

fn is_shared(group: &str) -> bool {
    !group.is_empty() && !group.contains('@')
}

/// An operation, as far as matching needs it.
#[derive(Clone, Copy)]
struct Op {
    start: TimeNs,
    end: TimeNs,
    name: StringId,
    stream: u64,
    flags: u64,
    correlation: CorrelationId,
    launch: Option<(ThreadId, TimeNs)>,
}

impl Op {
    fn read(columns: &BatchColumns, at: usize) -> Option<Self> {
        let value = |column: u16| columns.column(column).get(at).copied().unwrap_or(0);
        let start = TimeNs(value(gpu_op::START).cast_signed());
        let flags = value(gpu_op::FLAGS);
        let thread = ThreadId(u32::try_from(value(gpu_op::LAUNCH_THREAD)).ok()?);
        let launched = TimeNs(value(gpu_op::LAUNCH_START).cast_signed());
        Some(Self {
            start,
            end: start.plus(value(gpu_op::DURATION)),
            name: StringId(u32::try_from(value(gpu_op::NAME)).ok()?),
            stream: value(gpu_op::STREAM),
            flags,
            correlation: CorrelationId(value(gpu_op::CORRELATION)),
            launch: (flags & op_flags::HAS_LAUNCH != 0).then_some((thread, launched)),
        })
    }
}

/// What kernels' names say, looked up once each.
struct Names<'a> {
    tables: &'a Tables,
    /// By the number of the name.
    seen: Vec<Option<(OpClass, CollectiveOp)>>,
}

impl<'a> Names<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, seen: vec![None; tables.string_count()] }
    }

    #[inline]
    fn of(&mut self, name: StringId) -> (OpClass, CollectiveOp) {
        match self.seen.get(name.index()) {
            Some(&Some(known)) => known,
            _ => self.look_up(name),
        }
    }

    #[cold]
    fn look_up(&mut self, name: StringId) -> (OpClass, CollectiveOp) {
        let text = self.tables.string(name);
        let found = (kernel_class(text), operation(text));
        if let Some(slot) = self.seen.get_mut(name.index()) {
            *slot = Some(found);
        }
        found
    }

    /// Whether an operation with these columns is communication.
    #[inline]
    fn communicates(&mut self, name: u64, kind: u64, flags: u64) -> bool {
        let kind = OpKind::from_id(kind).unwrap_or(OpKind::Other);
        let Ok(name) = u32::try_from(name) else { return false };
        op_class(kind, flags, self.of(StringId(name)).0) == OpClass::Comm
    }

    fn operation(&mut self, name: StringId) -> CollectiveOp {
        self.of(name).1
    }
}

/// What a kernel's, function's or operator's name says it does.
fn operation(name: &str) -> CollectiveOp {
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let found = [
        ("reducescatter", CollectiveOp::ReduceScatter),
        ("allreduce", CollectiveOp::AllReduce),
        ("allgather", CollectiveOp::AllGather),
        ("alltoall", CollectiveOp::AllToAll),
        ("barrier", CollectiveOp::Barrier),
        ("broadcast", CollectiveOp::Broadcast),
        ("sendrecv", CollectiveOp::Send),
        ("crossdevicereduce", CollectiveOp::AllReduce),
    ];
    found.iter().find(|(word, _)| name.contains(word)).map_or(CollectiveOp::Other, |(_, op)| *op)
}

/// A call into a library, as far as matching needs it: there may be as many as kernels.
#[derive(Clone, Copy)]
struct Call {
    start: TimeNs,
    end: TimeNs,
    bytes: u64,
    group_size: u64,
    sequence: u64,
    group: StringId,
    operation: CollectiveOp,
    root: Root,
    rank: Option<u32>,
    is_nested: bool,
}

impl Call {
    fn of(row: CollectiveCall) -> Self {
        Self {
            start: row.start,
            end: row.start.plus(row.duration_ns),
            bytes: row.bytes,
            group_size: row.group_size,
            sequence: row.sequence,
            group: row.group,
            operation: row.operation,
            root: row.peer.filter(|_| row.operation.has_root()).map_or(Root::default(), Root::of),
            rank: row.rank,
            is_nested: row.flags & call_flags::NESTED != 0,
        }
    }
}

/// What calls and traces say of a device's kernels.
struct Calls<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    threads: HashMap<ThreadId, Vec<Call>>,
    /// Of a trace, by correlation id.
    traced: HashMap<CorrelationId, Collective>,
    any: bool,
}

impl<'a, S: ReadAt> Calls<'a, S> {
    fn new(capture: &'a Capture<S>, device: DeviceId) -> Self {
        let traced = capture.rows::<Collective>(device.0).take(MAX_MARKS);
        Self {
            capture,
            threads: HashMap::new(),
            traced: traced.map(|row| (row.correlation, row)).collect(),
            any: !capture.keys(RecordKind::CollectiveCall).is_empty(),
        }
    }

    fn of(&mut self, op: &Op) -> Option<Known> {
        if let Some(row) = self.traced.get(&op.correlation).filter(|row| row.start == op.start) {
            return Some(Known {
                group: row.group,
                group_size: row.group_size,
                operation: operation(self.capture.tables().string(row.name)),
                root: Root::default(),
                rank: None,
                bytes: row.bytes,
                sequence: row.sequence,
                call: 0,
            });
        }
        let (thread, at) = op.launch.filter(|_| self.any)?;
        let capture = self.capture;
        let calls = self.threads.entry(thread).or_insert_with(|| {
            let on_gpu = |call: &CollectiveCall| {
                matches!(call.library, CollectiveLibrary::Nccl | CollectiveLibrary::Rccl)
            };
            capture.rows::<CollectiveCall>(thread.0).filter(on_gpu).take(MAX_CALLS).map(Call::of).collect()
        });
        known(calls, at)
    }
}

/// What the innermost call that was open at a moment says; where only a group's end was, what the calls in the group say
/// together. (NCCL's calls bracket themselves, too.)
fn known(calls: &[Call], at: TimeNs) -> Option<Known> {
    let until = calls.partition_point(|call| call.start <= at);
    let before = calls.get(until.saturating_sub(LOOK_BACK)..until)?;
    let is_open = |call: &Call| call.end > at;
    let of = |call: &Call| Known {
        group: call.group,
        group_size: call.group_size,
        operation: call.operation,
        root: call.root,
        rank: call.rank,
        bytes: call.bytes,
        // A process counts from the recording's begin: the number of another means another call.
        sequence: None,
        call: call.sequence,
    };
    let moves = |call: &&Call| {
        !matches!(call.operation, CollectiveOp::Group | CollectiveOp::Init | CollectiveOp::Wait)
    };
    if let Some(call) = before.iter().rev().filter(moves).find(|call| is_open(call)) {
        return Some(of(call));
    }
    let end = before.iter().position(|call| call.operation == CollectiveOp::Group && is_open(call))?;
    let inside = before.get(..end)?.iter().rev().take_while(|call| call.is_nested);
    inside.filter(moves).map(of).reduce(|all, one| Known {
        group: if all.group == one.group { all.group } else { StringId(0) },
        group_size: all.group_size.max(one.group_size),
        operation: if all.operation == one.operation { one.operation } else { CollectiveOp::Other },
        root: if all.root == one.root { one.root } else { Root::default() },
        rank: all.rank.or(one.rank),
        bytes: all.bytes.saturating_add(one.bytes),
        sequence: None,
        // The last of them: the kernel is that of all.
        call: all.call.max(one.call),
    })
}
