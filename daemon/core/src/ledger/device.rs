//! The ledger of one device: the sweep, each gap explained, everything booked by step, and the sums checked.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;
use stallscope_schemas::record::{CopyKind, OpKind, RecordKind, gpu_op, op_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, StringId, ThreadId, TimeNs};

use super::causes::{Cause, Causes, Reason};
use super::gap::{Blamed, Closing, Context};
use super::leaf::{Leaf, Sums};
use crate::capture::{BatchColumns, Capture, ColumnSet, MergedRows, ReadAt, Run, Tables};
use crate::classify::{ApiClass, OpClass, api_class, kernel_class, op_class};
use crate::rows::{ApiCall, GpuOp, HostSpan, Launch, LossWindow, StreamWait};
use crate::steps::{MAX_STEPS, StepPlan, StepSource, plan};
use crate::timeline::host::{HostTimeline, Node, Piece, StackTree};
use crate::timeline::sweep::{Cover, Sweep, Visitor};

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

/// The ledger of one step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The trace's name for it; the empty string where the step was found by its period.
    pub name: StringId,
    /// When it began on the device.
    pub start: TimeNs,
    /// When the next one began, or the window ended.
    pub end: TimeNs,
    /// Its time by leaf.
    pub sums: Sums,
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
    /// Idle time by cause.
    pub causes: Causes,
    /// Stacks that the causes refer to.
    pub tree: StackTree,
    /// Kernels and other operations by name.
    pub by_name: HashMap<StringId, (OpClass, Tally)>,
    /// Copies by kind.
    pub copies: HashMap<CopyKind, Tally>,
    /// Calls that waited for the device on a launching thread while it was idle: number of pieces.
    pub steps: Vec<Step>,
    /// Where the steps come from.
    pub step_source: Option<StepSource>,
    /// Operations in the window.
    pub ops: u64,
    /// Of those, with a recorded launch.
    pub launched_ops: u64,
    /// Operations before the window: launched before the trace began.
    pub ops_before_window: u64,
    /// Gaps.
    pub gaps: u64,
    /// The longest gap: when it began and how long it was, ns.
    pub longest_gap: (TimeNs, u64),
    /// Every operation with its weight, if asked for.
    pub weighted: Vec<WeightedOp>,
}

/// What to work out beyond the ledger itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep every operation with its weight (32 bytes each): for a flamegraph of GPU time.
    pub weigh_ops: bool,
}

/// Classes of names, looked up once each.
struct NameClasses<'a> {
    tables: &'a Tables,
    kernels: Vec<Cell<Option<OpClass>>>,
    calls: Vec<Cell<Option<ApiClass>>>,
}

impl<'a> NameClasses<'a> {
    fn new(tables: &'a Tables) -> Self {
        let count = tables.string_count();
        Self { tables, kernels: vec![Cell::new(None); count], calls: vec![Cell::new(None); count] }
    }

    fn kernel(&self, name: StringId) -> OpClass {
        let Some(slot) = self.kernels.get(name.index()) else { return OpClass::Compute };
        slot.get().unwrap_or_else(|| {
            let class = kernel_class(self.tables.string(name));
            slot.set(Some(class));
            class
        })
    }

    fn call(&self, name: StringId) -> ApiClass {
        let Some(slot) = self.calls.get(name.index()) else { return ApiClass::Unknown };
        slot.get().unwrap_or_else(|| {
            let class = api_class(self.tables.string(name));
            slot.set(Some(class));
            class
        })
    }
}

type Host<'a, S> = HostTimeline<MergedRows<'a, S, HostSpan>, MergedRows<'a, S, ApiCall>>;

/// Books stretches; a gap is put aside for explanation.
#[derive(Default)]
struct Book {
    sums: Sums,
    gap: Option<(TimeNs, TimeNs)>,
}

impl Visitor<()> for Book {
    #[inline]
    fn busy(&mut self, cover: Cover, from: TimeNs, to: TimeNs) {
        self.sums.add(Leaf::of(cover), to.since(from));
    }

    #[inline]
    fn gap(&mut self, from: TimeNs, to: TimeNs, _: Option<()>) {
        self.gap = Some((from, to));
    }
}

/// What the explanation of gaps carries along.
struct Explainer<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    classes: NameClasses<'a>,
    hosts: HashMap<ThreadId, Host<'a, S>>,
    waits: std::iter::Peekable<MergedRows<'a, S, StreamWait>>,
    has_waits: bool,
    /// By stream: when the host last told it to wait, and when its last operation was launched.
    told: HashMap<u64, (Option<TimeNs>, Option<TimeNs>)>,
    running_graph: Option<CorrelationId>,
    /// The operation before, whose launch call may reach into the gap.
    last_launch: Option<Launch>,
    tree: StackTree,
    causes: Causes,
    pieces: Vec<Piece>,
    blamed: Vec<Blamed>,
    gaps: u64,
    longest_gap: (TimeNs, u64),
}

impl<'a, S: ReadAt> Explainer<'a, S> {
    fn new(capture: &'a Capture<S>, device: DeviceId) -> Self {
        let mut waits = capture.rows::<StreamWait>(device.0).peekable();
        let has_waits = waits.peek().is_some();
        Self {
            capture,
            classes: NameClasses::new(capture.tables()),
            hosts: HashMap::new(),
            waits,
            has_waits,
            told: HashMap::new(),
            running_graph: None,
            last_launch: None,
            tree: StackTree::default(),
            causes: Causes::default(),
            pieces: Vec::new(),
            blamed: Vec::new(),
            gaps: 0,
            longest_gap: (TimeNs(0), 0),
        }
    }

    /// Explains a gap and books its pieces.
    fn gap(&mut self, from: TimeNs, to: TimeNs, closing: Option<Closing>, sums: &mut Sums) {
        self.gaps += 1;
        if to.since(from) > self.longest_gap.1 {
            self.longest_gap = (from, to.since(from));
        }
        let told_to_wait = self.has_waits && closing.as_ref().is_some_and(|x| self.told_to_wait(x));
        let launch = closing.and_then(|x| x.launch);
        let capture = self.capture;
        let mut host = launch.map(|l| {
            self.hosts.entry(l.thread).or_insert_with(|| {
                HostTimeline::new(capture.rows::<HostSpan>(l.thread.0), capture.rows::<ApiCall>(l.thread.0))
            })
        });
        // The call that launched the operation before may still be open: it is launch time, not the host's.
        if let (Some(host), Some(launch), Some(last)) = (host.as_mut(), launch, self.last_launch)
            && last.thread == launch.thread
            && last.start.plus(last.duration_ns) > from
            && last.start < launch.start
        {
            host.add_call(ApiCall {
                start: last.start,
                duration_ns: last.duration_ns,
                name: last.name,
                correlation: CorrelationId(0),
            });
        }
        let classes = &self.classes;
        let mut context = Context {
            host,
            tree: &mut self.tree,
            tables: capture.tables(),
            api_class: |name| classes.call(name),
            running_graph: self.running_graph,
            told_to_wait,
        };
        context.explain(from, to, closing, &mut self.pieces, &mut self.blamed);
        for piece in &self.blamed {
            let ns = piece.to.since(piece.from);
            sums.add_idle(piece.cause.leaf, ns);
            self.causes.add(piece.cause, ns);
        }
    }

    fn told_to_wait(&mut self, x: &Closing) -> bool {
        let Some(launch) = x.launch else { return false };
        while let Some(wait) = self.waits.next_if(|w| w.start <= launch.start) {
            self.told.entry(wait.stream).or_default().0 = Some(wait.start);
        }
        let (told, launched) = self.told.get(&x.stream).copied().unwrap_or_default();
        told.is_some_and(|told| launched.is_none_or(|launched| told > launched))
    }

    #[inline]
    fn op_began(&mut self, x: &Closing) {
        self.running_graph = (x.flags & op_flags::GRAPH_NODE != 0).then_some(x.correlation);
        self.last_launch = x.launch;
        if self.has_waits
            && let Some(launch) = x.launch
        {
            self.told.entry(x.stream).or_default().1 = Some(launch.start);
        }
    }
}

/// Splits the time line into steps as operations pass.
struct Stepper {
    plan: StepPlan,
    /// Marks of the plan that have been passed.
    passed: usize,
    open: Option<(StringId, TimeNs)>,
    done: Vec<Step>,
}

impl Stepper {
    fn new(plan: StepPlan) -> Self {
        Self { plan, passed: 0, open: None, done: Vec::new() }
    }

    /// Whether the operation begins a step: its name and the earliest moment that belongs to it.
    #[inline]
    fn begins(&mut self, name: StringId, start: TimeNs, launch: Option<Launch>) -> Option<(StringId, TimeNs)> {
        if self.done.len() >= MAX_STEPS {
            return None;
        }
        let (marks, clock) = match &self.plan {
            StepPlan::None => return None,
            StepPlan::Anchor(anchor) => return (*anchor == name).then_some((StringId(0), start)),
            StepPlan::Launched(marks) => (marks, launch?.start),
            StepPlan::OnDevice(marks) => (marks, start),
        };
        let mut begun = None;
        while let Some(&(at, name)) = marks.get(self.passed).filter(|(at, _)| *at <= clock) {
            begun = Some((name, at));
            self.passed += 1;
        }
        begun
    }

    /// Ends the open step at `at` with the sums since it began, and opens the next.
    fn turn(&mut self, at: TimeNs, name: StringId, sums: Sums) {
        self.close(at, sums);
        self.open = Some((name, at));
    }

    fn close(&mut self, at: TimeNs, sums: Sums) {
        if let Some((name, start)) = self.open.take()
            && start < at
        {
            self.done.push(Step { name, start, end: at, sums });
        }
    }
}

/// Works out the ledger of one device. `None` where the device has no operations.
///
/// # Errors
/// [`NotConserved`] if any window's leaves do not sum to its length; checked for the whole and for every step.
pub fn device_ledger<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    options: Options,
) -> Result<Option<DeviceLedger>, NotConserved> {
    let Some(start) = window_start(capture, device) else { return Ok(None) };
    let mut run = DeviceRun {
        sweep: Sweep::new(start),
        book: Book::default(),
        whole: Sums::default(),
        explainer: Explainer::new(capture, device),
        stepper: Stepper::new(plan(capture, device)),
        losses: loss_windows(capture, device),
        by_name: HashMap::new(),
        copies: HashMap::new(),
        weighted: Vec::new(),
        ops: 0,
        launched_ops: 0,
        ops_before_window: 0,
        start,
        options,
    };
    let step_source = run.stepper.plan.source();
    let mut merged = capture.merged::<GpuOp>(device.0, ColumnSet::ALL);
    while let Some(rows) = merged.next_run() {
        match rows {
            Run::Rows(columns, range) => {
                for at in range {
                    run.op(columns, at);
                }
            }
            Run::Damaged(from, to) => run.losses.push(Reverse((from, to))),
        }
    }
    let end = run.finish();
    let DeviceRun { sweep, whole, explainer, stepper, by_name, copies, weighted, .. } = run;
    let check = |sums: &Sums, from: TimeNs, to: TimeNs| {
        let (sum_ns, wall_ns) = (sums.total(), to.since(from));
        if sum_ns == wall_ns && sums.idle_total() == sums.get(Leaf::Idle) {
            Ok(())
        } else {
            Err(NotConserved { device: device.0, from, to, sum_ns, wall_ns })
        }
    };
    check(&whole, start, end)?;
    for step in &stepper.done {
        check(&step.sums, step.start, step.end)?;
    }
    Ok(Some(DeviceLedger {
        device,
        start,
        end,
        sums: whole,
        comm_ns: sweep.total_ns(Cover::Comm),
        memcpy_ns: sweep.total_ns(Cover::Copy),
        causes: explainer.causes,
        tree: explainer.tree,
        by_name,
        copies,
        step_source: step_source.filter(|_| !stepper.done.is_empty()),
        steps: stepper.done,
        ops: run.ops,
        launched_ops: run.launched_ops,
        ops_before_window: run.ops_before_window,
        gaps: explainer.gaps,
        longest_gap: explainer.longest_gap,
        weighted,
    }))
}

/// When the window of a device begins: with its first operation.
///
/// A Kineto trace is an exception. PyTorch's profiler turns on the device side before the host side, so the trace may open
/// with operations that were launched before recording began, whose gaps nothing could explain; the window begins with
/// the first operation whose launch is in the trace. (TraceLens leaves such operations out as "unlinked".) A trace
/// without any launch keeps all.
fn window_start<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> Option<TimeNs> {
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

/// Stretches of lost records: those that the capture lists, and those that damage to the file may have covered.
fn loss_windows<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> BinaryHeap<Reverse<(TimeNs, TimeNs)>> {
    let listed = capture.rows::<LossWindow>(device.0).map(|w| (w.start, w.start.plus(w.duration_ns)));
    let holes = capture.hole_windows(RecordKind::GpuOp, device.0);
    listed.chain(holes).map(Reverse).collect()
}

struct DeviceRun<'a, S: ReadAt> {
    sweep: Sweep,
    book: Book,
    whole: Sums,
    explainer: Explainer<'a, S>,
    stepper: Stepper,
    losses: BinaryHeap<Reverse<(TimeNs, TimeNs)>>,
    by_name: HashMap<StringId, (OpClass, Tally)>,
    copies: HashMap<CopyKind, Tally>,
    weighted: Vec<WeightedOp>,
    ops: u64,
    launched_ops: u64,
    ops_before_window: u64,
    start: TimeNs,
    options: Options,
}

impl<S: ReadAt> DeviceRun<'_, S> {
    #[inline]
    fn op(&mut self, columns: &BatchColumns, at: usize) {
        let of = |column: u16| columns.column(column).get(at).copied().unwrap_or(0);
        let id = |column: u16| u32::try_from(of(column)).unwrap_or(u32::MAX);
        let start = TimeNs(of(gpu_op::START).cast_signed());
        let duration_ns = of(gpu_op::DURATION);
        let end = start.plus(duration_ns);
        let flags = of(gpu_op::FLAGS);
        let name = StringId(id(gpu_op::NAME));
        let kind = OpKind::from_id(of(gpu_op::KIND)).unwrap_or(OpKind::Other);
        let class = op_class(kind, flags, self.explainer.classes.kernel(name));
        let cover = match class {
            OpClass::Compute => Cover::Compute,
            OpClass::Comm => Cover::Comm,
            OpClass::Copy => Cover::Copy,
        };
        if start < self.start {
            self.ops_before_window += 1;
            self.sweep.cover(cover, start, end);
            return;
        }
        let x = Closing {
            stream: of(gpu_op::STREAM),
            correlation: CorrelationId(of(gpu_op::CORRELATION)),
            flags,
            launch: (flags & op_flags::HAS_LAUNCH != 0).then(|| Launch {
                thread: ThreadId(id(gpu_op::LAUNCH_THREAD)),
                start: TimeNs(of(gpu_op::LAUNCH_START).cast_signed()),
                duration_ns: of(gpu_op::LAUNCH_DURATION),
                name: StringId(id(gpu_op::LAUNCH_NAME)),
            }),
            lost: false,
        };
        while self.losses.peek().is_some_and(|Reverse((from, _))| *from <= start) {
            self.lose_next();
        }
        if let Some((step, earliest)) = self.stepper.begins(name, start, x.launch) {
            // The step begins with what the host did for it, but not before the device was done with the step before.
            let at = earliest.max(self.sweep.covered_until()).min(start);
            self.advance(at, Some(x));
            let sums = self.take_sums();
            self.stepper.turn(self.sweep.now(), step, sums);
        }
        self.advance(start, Some(x));
        self.sweep.close(x.stream);
        let before = self.sweep.total_ns(cover);
        self.sweep.cover(cover, start, end);
        if flags & op_flags::END_UNKNOWN != 0 {
            self.sweep.open(x.stream);
        }
        self.explainer.op_began(&x);
        self.tally(columns, at, name, class, duration_ns);
        self.launched_ops += u64::from(x.launch.is_some());
        if self.options.weigh_ops {
            let ns = self.sweep.total_ns(cover) - before;
            self.weighted.push(WeightedOp { name, launch: x.launch, ns });
        }
    }

    fn tally(&mut self, columns: &BatchColumns, at: usize, name: StringId, class: OpClass, ns: u64) {
        let of = |column: u16| columns.column(column).get(at).copied().unwrap_or(0);
        self.ops += 1;
        let (_, tally) = self.by_name.entry(name).or_insert((class, Tally::default()));
        tally.count += 1;
        tally.ns += ns;
        if class == OpClass::Copy {
            let kind = CopyKind::from_id(of(gpu_op::COPY_KIND)).unwrap_or(CopyKind::Unknown);
            let tally = self.copies.entry(kind).or_default();
            tally.count += 1;
            tally.ns += ns;
            tally.bytes = tally.bytes.saturating_add(of(gpu_op::BYTES));
        }
    }

    /// Gives time away up to `to` and explains the gap if there was one.
    #[inline]
    fn advance(&mut self, to: TimeNs, closing: Option<Closing>) {
        self.sweep.advance(to, Some(()), &mut self.book);
        if let Some((from, to)) = self.book.gap.take() {
            self.explainer.gap(from, to, closing, &mut self.book.sums);
        }
    }

    /// Enters the next lost stretch.
    fn lose_next(&mut self) {
        if let Some(Reverse((from, to))) = self.losses.pop() {
            let nothing = Closing {
                stream: 0,
                correlation: CorrelationId(0),
                flags: 0,
                launch: None,
                lost: true,
            };
            self.advance(from, Some(nothing));
            self.sweep.cover(Cover::Lost, from, to);
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
        let end = self.sweep.last_end();
        self.advance(end, None);
        let sums = self.take_sums();
        self.stepper.close(end, sums);
        end
    }
}

impl Reason {
    /// The sentence behind the reason, for reports.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::NoLaunch => "no host call is recorded for the operation that ended the gap",
            Self::Lost => "records were lost here",
            Self::Queued => "the operation was queued, and nothing recorded says what it waited for",
            Self::OtherThread => "nothing is recorded on the launching thread",
        }
    }
}

impl Cause {
    /// Whether the capture says nothing about what the host was doing.
    #[must_use]
    pub fn has_stack(&self) -> bool {
        self.node != Node(0)
    }
}
