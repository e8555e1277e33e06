//! Carries along what the gap rules need while a device's operations pass: host time lines, orders between streams, the
//! running graph, the last launch.

use std::cell::Cell;

use hashbrown::HashMap;
use stallscope_schemas::record::op_flags;
use stallscope_schemas::units::{CorrelationId, DeviceId, StringId, ThreadId, TimeNs};

use super::calibrate::device_floor_ns;
use super::causes::Causes;
use super::gap::{Blamed, Closing, Context};
use super::leaf::Sums;
use crate::capture::{Capture, MergedRows, ReadAt, Tables};
use crate::classify::{ApiClass, OpClass, api_class, kernel_class};
use crate::rows::{ApiCall, HostSpan, Launch, StreamWait};
use crate::timeline::host::{HostTimeline, Piece, StackTree};

/// Classes of names, looked up once each.
pub(super) struct NameClasses<'a> {
    tables: &'a Tables,
    kernels: Vec<Cell<Option<OpClass>>>,
    calls: Vec<Cell<Option<ApiClass>>>,
}

impl<'a> NameClasses<'a> {
    fn new(tables: &'a Tables) -> Self {
        let count = tables.string_count();
        Self { tables, kernels: vec![Cell::new(None); count], calls: vec![Cell::new(None); count] }
    }

    pub(super) fn kernel(&self, name: StringId) -> OpClass {
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

/// What the explanation of gaps carries along.
pub(super) struct Explainer<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    pub(super) classes: NameClasses<'a>,
    hosts: HashMap<ThreadId, Host<'a, S>>,
    waits: std::iter::Peekable<MergedRows<'a, S, StreamWait>>,
    has_waits: bool,
    /// By stream: when the host last told it to wait, and when its last operation was launched.
    told: HashMap<u64, (Option<TimeNs>, Option<TimeNs>)>,
    running_graph: Option<CorrelationId>,
    pub(super) device_floor_ns: u64,
    /// The operation before, whose launch call may reach into the gap.
    last_launch: Option<Launch>,
    pub(super) tree: StackTree,
    pub(super) causes: Causes,
    pieces: Vec<Piece>,
    blamed: Vec<Blamed>,
    pub(super) gaps: u64,
    pub(super) longest_gap: (TimeNs, u64),
}

impl<'a, S: ReadAt> Explainer<'a, S> {
    pub(super) fn new(capture: &'a Capture<S>, device: DeviceId) -> Self {
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
            device_floor_ns: device_floor_ns(capture, device),
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
    pub(super) fn gap(&mut self, from: TimeNs, to: TimeNs, closing: Option<Closing>, sums: &mut Sums) {
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
            device_floor_ns: self.device_floor_ns,
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
    pub(super) fn op_began(&mut self, x: &Closing) {
        self.running_graph = (x.flags & op_flags::GRAPH_NODE != 0).then_some(x.correlation);
        self.last_launch = x.launch;
        if self.has_waits
            && let Some(launch) = x.launch
        {
            self.told.entry(x.stream).or_default().1 = Some(launch.start);
        }
    }
}
