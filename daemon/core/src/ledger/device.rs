//! The ledger of one device: the sweep, each gap explained, everything booked by step, and the sums checked.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, RecordKind, gpu_op, op_flags, window_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, ProcessId, StackId, StringId, TimeNs};

use super::book::{Book, History};
use super::causes::Causes;
use super::cpu::idle::HostWork;
use super::explain::{Explainer, Unseen};
use super::gap::Closing;
use super::launches::Coverage;
use super::leaf::{Leaf, Sums};
use super::names::Names;
use super::op_columns::{OpColumns, narrow, value};
use super::others::Others;
use super::root::Root;
use super::stepper::{Step, Stepper};
use crate::capture::{Capture, ColumnSet, ReadAt, Run, Tables};
use crate::classify::{OpClass, op_class};
use crate::collectives::Collectives;
use crate::rows::{DeviceWindow, GpuOp, Launch, LossWindow};
use crate::steps::{StepSource, plan, slow_steps};
use crate::timeline::host::StackTree;
use crate::timeline::sweep::{Cover, Sweep};

/// The leaves of a window do not sum to its length: a defect of this program, never of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger of device {device} does not close: the leaves of [{from}, {to}) sum to {sum_ns} ns \
     instead of {wall_ns} ns. This is a defect of stallscope; please report it with the capture"
)]
pub struct NotConserved {
    /// Number of the device.
    pub device: u32,
    /// Begin of the window.
    pub from: TimeNs,
    /// End of the window.
    pub to: TimeNs,
    /// Sum of the leaves.
    pub sum_ns: u64,
    /// Length of the window.
    pub wall_ns: u64,
}

/// Number, time and bytes of the operations of one name or kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub count: u64,
    /// Sum of their durations, ns; operations that overlap count each.
    pub ns: u64,
    /// Bytes moved.
    pub bytes: u64,
}

/// An operation with the time that it alone added to its class, for flamegraphs.
#[derive(Clone, Copy, Debug)]
pub struct WeightedOp {
    /// Its name.
    pub name: StringId,
    /// Its launch, where recorded.
    pub launch: Option<Launch>,
    /// Where it was launched from, if that launch was sampled.
    pub stack: Option<StackId>,
    /// Time, ns.
    pub ns: u64,
}

/// What happened on one device.
#[derive(Debug)]
pub struct DeviceLedger {
    /// The device.
    pub device: DeviceId,
    /// Begin of its window.
    pub start: TimeNs,
    /// End of its window.
    pub end: TimeNs,
    /// Time by leaf.
    pub sums: Sums,
    /// Union of all communication in the window, exposed or not, ns.
    pub comm_ns: u64,
    /// Union of all copies in the window, exposed or not, ns.
    pub memcpy_ns: u64,
    /// Idle time by cause, without what is in `host_work`.
    pub causes: Causes,
    /// Of the idle time's host leaf, what the launching threads did, as far as they were followed.
    pub host_work: HostWork,
    /// Stacks that the causes refer to.
    pub tree: StackTree,
    /// Kernels and other operations by name.
    pub by_name: HashMap<StringId, (OpClass, Tally)>,
    /// Copies by kind.
    pub copies: HashMap<CopyKind, Tally>,
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// Where the steps come from.
    pub step_source: Option<StepSource>,
    /// Operations in the window.
    pub ops: u64,
    /// Of those, with a recorded launch.
    pub launched_ops: u64,
    /// Operations before the window: launched before the trace began.
    pub ops_before_window: u64,
    /// Of its unknown time, how long nothing that was told of ran on it while work launched before it was observed may have, ns.
    pub unseen_ns: u64,
    /// Gaps.
    pub gaps: u64,
    /// Time from a launch to a start that counts as the device's own latency, ns.
    pub device_floor_ns: u64,
    /// The longest gap: when it began and how long it was, ns.
    pub longest_gap: (TimeNs, u64),
    /// How much of its work has the stack of its launch; none where launches were not sampled.
    pub launch_stacks: Option<Coverage>,
    /// Every operation with its weight, if asked for.
    pub weighted: Vec<WeightedOp>,
    /// Operations that had not ended when the device was last observed, the earliest first. Empty for traces, which do
    /// not say until when they observed.
    pub unfinished: Vec<Unfinished>,
    /// Processes that are not part of its job, and how long what they ran took, ns; the longest first.
    pub others: Vec<(ProcessId, u64)>,
    /// What the ledgers of other devices need of it: taken when the root ledgers are made.
    pub(super) history: History,
    /// Where its time went in the end: filled in when the ledgers of all devices are there.
    pub root: Root,
}

/// An operation that had not ended, of which nothing after it in its stream has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// When it began.
    pub start: TimeNs,
    /// Its name.
    pub name: StringId,
    /// What launched it.
    pub launch: Option<Launch>,
}

impl DeviceLedger {
    /// Steps that lie in the window as a whole, with their positions.
    pub fn whole_steps(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter(|(_, s)| s.whole)
    }

    /// Positions of steps that took notably longer than the rest. A period may be a layer or a phase, whose lengths differ
    /// for good reasons, and a step that began before the window is short for no merit of its own: only whole steps that
    /// the trace marks are judged.
    #[must_use]
    pub fn slow_steps(&self) -> Vec<usize> {
        if self.step_source == Some(StepSource::Period) {
            return Vec::new();
        }
        let (positions, walls): (Vec<usize>, Vec<u64>) =
            self.whole_steps().map(|(i, s)| (i, s.end.since(s.start))).unzip();
        slow_steps(&walls).into_iter().filter_map(|i| positions.get(i).copied()).collect()
    }
}

/// What to work out beyond the ledger itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep every operation with its weight (32 bytes each): for a flamegraph of GPU time.
    pub weigh_ops: bool,
    /// Keep the stacks of wakers apart in the causes of CPU ranks: for a flamegraph of waits.
    pub waker_stacks: bool,
    /// One device after the other, on the calling thread.
    pub in_turn: bool,
}

/// Works out the ledger of one device. `None` where the device has no operations and was not observed either.
///
/// # Errors
/// [`NotConserved`] if any window's leaves do not sum to its length; checked for the whole and for every step.
pub fn device_ledger<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    collectives: &Collectives,
    options: Options,
) -> Result<Option<DeviceLedger>, NotConserved> {
    let Observed { stretches: observed, unseen } = Observed::of(capture, device);
    let Some(start) = window_start(capture, device, &observed) else { return Ok(None) };
    let mut run = DeviceRun {
        sweep: Sweep::new(start),
        book: Book::new(collectives, device),
        whole: Sums::default(),
        explainer: Explainer::new(capture, device, options.waker_stacks),
        stepper: Stepper::new(plan(capture, device), start),
        losses: loss_windows(capture, device, &observed),
        observed_until: observed.last().map(|&(_, to)| to),
        names: Names::new(capture.tables()),
        copies: HashMap::new(),
        weighted: Vec::new(),
        coverage: Coverage::default(),
        unfinished: HashMap::new(),
        ops: 0,
        launched_ops: 0,
        ops_before_window: 0,
        start,
        others: Others::of(capture.tables(), device),
        tables: capture.tables(),
        options,
    };
    run.explainer.unseen = unseen;
    let step_source = run.stepper.plan.source();
    let mut merged = capture.merged::<GpuOp>(device.0, ColumnSet::ALL);
    while let Some(rows) = merged.next_run() {
        match rows {
            Run::Rows(columns, range) => {
                let columns = OpColumns::new(columns);
                for at in range {
                    run.op(&columns, at);
                }
            }
            Run::Damaged(from, to) => run.losses.push(Reverse((from, to))),
        }
    }
    let end = run.finish();
    let (ops, launched_ops, ops_before_window) = (run.ops, run.launched_ops, run.ops_before_window);
    let DeviceRun {
        sweep,
        whole,
        book,
        explainer,
        stepper,
        names,
        copies,
        weighted,
        coverage,
        unfinished,
        others,
        ..
    } = run;
    let launch_stacks = explainer.launch_stacks.any().then_some(coverage);
    let mut unfinished: Vec<Unfinished> =
        if observed.is_empty() { Vec::new() } else { unfinished.into_values().collect() };
    unfinished.sort_by_key(|op| (op.start, op.name));
    let check = |sums: &Sums, from: TimeNs, to: TimeNs| {
        let (sum_ns, wall_ns) = (sums.total(), to.since(from));
        let parts =
            sums.idle_total() == sums.get(Leaf::Idle) && sums.comm_total() == sums.get(Leaf::CommExposed);
        if sum_ns == wall_ns && parts {
            Ok(())
        } else {
            Err(NotConserved { device: device.0, from, to, sum_ns, wall_ns })
        }
    };
    check(&whole, start, end)?;
    for step in &stepper.done {
        check(&step.sums, step.start, step.end)?;
    }
    let host_work = explainer.host_work.finish();
    let (by_cause, idle) = (explainer.causes.total_ns() + host_work.root.total(), whole.get(Leaf::Idle));
    if by_cause != idle || host_work.direct.total() != host_work.root.total() {
        return Err(NotConserved { device: device.0, from: start, to: end, sum_ns: by_cause, wall_ns: idle });
    }
    Ok(Some(DeviceLedger {
        device,
        start,
        end,
        sums: whole,
        comm_ns: sweep.total_ns(Cover::Comm),
        memcpy_ns: sweep.total_ns(Cover::Copy),
        causes: explainer.causes,
        host_work,
        tree: explainer.tree,
        by_name: names.counted(),
        copies,
        step_source: step_source.filter(|_| !stepper.done.is_empty()),
        steps: stepper.done,
        ops,
        launched_ops,
        ops_before_window,
        unseen_ns: explainer.unseen_ns,
        gaps: explainer.gaps,
        device_floor_ns: explainer.device_floor_ns,
        longest_gap: explainer.longest_gap,
        launch_stacks,
        weighted,
        unfinished,
        others: others.into_times(),
        history: book.into_history(),
        root: Root::default(),
    }))
}

/// When a device was observed. Empty for traces, which do not say.
#[derive(Default)]
struct Observed {
    /// By their begin; they do not touch.
    stretches: Vec<(TimeNs, TimeNs)>,
    /// When it may have been given work all the same that nobody told of; in order, they do not touch.
    unseen: VecDeque<Unseen>,
}

impl Observed {
    fn of<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> Self {
        let mut all = Self::default();
        for window in capture.rows::<DeviceWindow>(device.0) {
            let (from, to) = (window.start, window.start.plus(window.duration_ns));
            if window.flags & window_flags::UNSEEN != 0 {
                all.unseen.push_back(Unseen { from, to });
                continue;
            }
            match all.stretches.last_mut() {
                Some((_, until)) if from <= *until => *until = to.max(*until),
                _ => all.stretches.push((from, to)),
            }
            if window.flags & window_flags::FROM_START == 0 {
                all.unseen.push_back(Unseen { from, to: from });
            }
        }
        // What was launched while another profiler had the records has none, and may run on.
        let taken = |window: &LossWindow| window.counter == LossCounter::AgentTaken.id();
        for window in capture.rows::<LossWindow>(device.0).filter(taken) {
            all.unseen.push_back(Unseen { from: window.start, to: window.start.plus(window.duration_ns) });
        }
        all.unseen.make_contiguous().sort_unstable();
        let mut last: Option<Unseen> = None;
        for unseen in std::mem::take(&mut all.unseen) {
            match &mut last {
                Some(last) if unseen.from <= last.to => last.to = last.to.max(unseen.to),
                _ => all.unseen.extend(last.replace(unseen)),
            }
        }
        all.unseen.extend(last);
        all
    }
}

/// When the window of a device begins: with the moment from which on it was observed; in a trace, which does not say that,
/// with its first operation.
///
/// A Kineto trace is an exception. PyTorch's profiler turns on the device side before the host side, so the trace may open
/// with operations that were launched before recording began, whose gaps nothing could explain; the window begins with
/// the first operation whose launch is in the trace. (TraceLens leaves such operations out as "unlinked".) A trace
/// without any launch keeps all.
fn window_start<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    observed: &[(TimeNs, TimeNs)],
) -> Option<TimeNs> {
    if let Some(&(from, _)) = observed.first() {
        return Some(from);
    }
    let first = capture.extent(RecordKind::GpuOp, device.0)?.0;
    let tables = capture.tables();
    let is_kineto =
        tables.device(device).and_then(|d| tables.source(d.source)).is_some_and(|s| s.format == "kineto");
    if !is_kineto {
        return Some(first);
    }
    let mut merged = capture.merged::<GpuOp>(device.0, ColumnSet::of(&[gpu_op::FLAGS]));
    while let Some(run) = merged.next_run() {
        match run {
            Run::Rows(columns, range) => {
                let flags = columns.column(gpu_op::FLAGS).get(range.clone()).unwrap_or_default();
                if let Some(at) = flags.iter().position(|f| f & op_flags::HAS_LAUNCH != 0) {
                    let start = columns.column(gpu_op::START).get(range.start + at).copied();
                    return start.map(|s| TimeNs(s.cast_signed()));
                }
            }
            Run::Damaged(from, _) => return Some(from),
        }
    }
    Some(first)
}

/// Stretches of lost records: those that the capture lists, those that damage to the file may have covered, and those
/// between two in which the device was observed.
fn loss_windows<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    observed: &[(TimeNs, TimeNs)],
) -> BinaryHeap<Reverse<(TimeNs, TimeNs)>> {
    let between = observed.windows(2).filter_map(|w| match w {
        [(_, from), (to, _)] => Some((*from, *to)),
        _ => None,
    });
    let listed = capture.rows::<LossWindow>(device.0).map(|w| (w.start, w.start.plus(w.duration_ns)));
    let holes = capture.hole_windows(RecordKind::GpuOp, device.0);
    listed.chain(holes).chain(between).map(Reverse).collect()
}

struct DeviceRun<'a, S: ReadAt> {
    sweep: Sweep,
    book: Book<'a>,
    whole: Sums,
    explainer: Explainer<'a, S>,
    stepper: Stepper,
    losses: BinaryHeap<Reverse<(TimeNs, TimeNs)>>,
    names: Names<'a>,
    copies: HashMap<CopyKind, Tally>,
    weighted: Vec<WeightedOp>,
    coverage: Coverage,
    /// The last operation of a stream where that has no end.
    unfinished: HashMap<u64, Unfinished>,
    ops: u64,
    launched_ops: u64,
    ops_before_window: u64,
    start: TimeNs,
    /// When the device was last observed, where the capture says so.
    observed_until: Option<TimeNs>,
    others: Others,
    tables: &'a Tables,
    options: Options,
}

impl<S: ReadAt> DeviceRun<'_, S> {
    #[inline]
    fn op(&mut self, columns: &OpColumns<'_>, at: usize) {
        let start = TimeNs(value(columns.start, at).cast_signed());
        let duration_ns = value(columns.duration, at);
        let end = start.plus(duration_ns);
        let flags = value(columns.flags, at);
        let name = StringId(narrow(value(columns.name, at)));
        let kind = OpKind::from_id(value(columns.kind, at)).unwrap_or(OpKind::Other);
        let by_name = self.names.row(name).map_or(OpClass::Compute, |row| row.by_name);
        let class = op_class(kind, flags, by_name);
        let cover = match class {
            OpClass::Compute => Cover::Compute,
            OpClass::Comm => Cover::Comm,
            OpClass::Copy => Cover::Copy,
        };
        if start < self.start {
            let launch = || columns.closing(at, flags).launch;
            if self.others.any() && self.others.take(self.tables, launch(), start, end) {
                return;
            }
            // Where its launch was seen, it tells as much as one that begins in the window.
            if flags & op_flags::HAS_LAUNCH != 0 {
                self.explainer.worked_at(self.start);
            }
            self.ops_before_window += 1;
            self.sweep.cover(cover, start, end);
            return;
        }
        let x = columns.closing(at, flags);
        if self.others.any() && self.others.take(self.tables, x.launch, start, end) {
            return;
        }
        while self.losses.peek().is_some_and(|Reverse((from, _))| *from <= start) {
            self.lose_next();
        }
        while let Some(cut) = self.stepper.cut_before(name, start, x.launch) {
            // A step begins with what the host did for it, but not before the device was done with the step before.
            let at = cut.earliest.max(self.sweep.covered_until()).min(start);
            self.advance(at, Some(x));
            let sums = self.take_sums();
            self.stepper.cut(self.sweep.now(), cut, sums);
        }
        self.advance(start, Some(x));
        self.sweep.close(x.stream);
        if !self.unfinished.is_empty() {
            self.unfinished.remove(&x.stream);
        }
        let before = self.sweep.total_ns(cover);
        self.sweep.cover(cover, start, end);
        if flags & op_flags::END_UNKNOWN != 0 {
            self.sweep.open(x.stream);
            self.unfinished.insert(x.stream, Unfinished { start, name, launch: x.launch });
        }
        self.explainer.op_began(start, &x);
        self.tally(columns, at, name, class, duration_ns);
        self.launched_ops += u64::from(x.launch.is_some());
        let stack = x.launch.and_then(|launch| self.explainer.launch_stacks.of(launch, x.correlation));
        self.coverage.add(x.launch.is_some(), stack.is_some(), duration_ns);
        if self.options.weigh_ops {
            let ns = self.sweep.total_ns(cover) - before;
            self.weighted.push(WeightedOp { name, launch: x.launch, stack, ns });
        }
    }

    #[inline]
    fn tally(&mut self, columns: &OpColumns<'_>, at: usize, name: StringId, class: OpClass, ns: u64) {
        self.ops += 1;
        if let Some(row) = self.names.row(name) {
            row.class.get_or_insert(class);
            row.tally.count += 1;
            row.tally.ns = row.tally.ns.saturating_add(ns);
        }
        if class == OpClass::Copy {
            let kind = CopyKind::from_id(value(columns.copy_kind, at)).unwrap_or(CopyKind::Unknown);
            let tally = self.copies.entry(kind).or_default();
            tally.count += 1;
            tally.ns = tally.ns.saturating_add(ns);
            tally.bytes = tally.bytes.saturating_add(value(columns.bytes, at));
        }
    }

    /// Gives time away up to `to` and explains the gap if there was one.
    #[inline]
    fn advance(&mut self, to: TimeNs, closing: Option<Closing>) {
        self.sweep.advance(to, Some(()), &mut self.book);
        let Some((mut from, to)) = self.book.gap.take() else { return };
        while let Some((begin, end)) = self.others.next_within(from, to) {
            if begin > from {
                self.explainer.gap(from, begin, closing, &mut self.book);
            }
            self.book.other(begin, end);
            from = end;
        }
        if to > from {
            self.explainer.gap(from, to, closing, &mut self.book);
        }
    }

    /// Enters the next lost stretch.
    fn lose_next(&mut self) {
        if let Some(Reverse((from, to))) = self.losses.pop() {
            let nothing =
                Closing { stream: 0, correlation: CorrelationId(0), flags: 0, launch: None, lost: true };
            self.advance(from, Some(nothing));
            self.sweep.cover(Cover::Lost, from, to.max(from));
        }
    }

    fn take_sums(&mut self) -> Sums {
        let sums = std::mem::take(&mut self.book.sums);
        self.whole.merge(&sums);
        sums
    }

    /// Gives away what is left of the window and says where it ends.
    fn finish(&mut self) -> TimeNs {
        while !self.losses.is_empty() {
            self.lose_next();
        }
        let end = self.sweep.last_end().max(self.observed_until.unwrap_or(TimeNs(i64::MIN)));
        if let Some(cut) = self.stepper.cut_at_end() {
            let at = cut.earliest.max(self.sweep.covered_until()).min(end);
            self.advance(at, None);
            let sums = self.take_sums();
            self.stepper.cut(self.sweep.now(), cut, sums);
        }
        // What follows the last operation of a device that was still observed is idle time like any other.
        self.explainer.to_the_end = self.observed_until.is_some();
        self.advance(end, None);
        let sums = self.take_sums();
        self.stepper.close(end, sums);
        end
    }
}
