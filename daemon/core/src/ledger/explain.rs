//! Carries along what the gap rules need while a device's operations pass: host time lines, orders between streams, the
//! running graph, the last launch.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};
use stallscope_schemas::record::{RecordKind, op_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, StringId, ThreadId, TimeNs};

use super::book::{Book, Did};
use super::calibrate::device_floor_ns;
use super::causes::{Cause, Causes, Reason};
use super::cpu::idle::HostWalk;
use super::gap::{Blamed, Closing, Context};
use super::launches::LaunchStacks;
use super::leaf::IdleLeaf;
use crate::capture::{Capture, MergedRows, ReadAt, Tables};
use crate::classify::{ApiClass, api_class};
use crate::rows::{ApiCall, HostSpan, Launch, StreamWait};
use crate::timeline::host::{HostTimeline, Node, Piece, StackTree};

/// Launches of earlier operations that are looked at: on current devices a launch call is over before a handful of later
/// operations have begun.
const RECENT_LAUNCHES: usize = 8;

/// A wait for a stream or an event comes back so long after the device has done what was told of, at most; else it waits for
/// something else.
const COMES_BACK_NS: u64 = 1_000_000;

/// Graph replays that can be running on one device at once: one a stream, and programs replay on a few.
const RECENT_GRAPHS: usize = 8;

type Damage = Rc<RefCell<Vec<(TimeNs, TimeNs)>>>;

/// Classes of calls by name, looked up once each.
struct CallClasses<'a> {
    tables: &'a Tables,
    calls: Vec<Cell<Option<ApiClass>>>,
}

impl<'a> CallClasses<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, calls: vec![Cell::new(None); tables.string_count()] }
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

/// What one stream was told.
#[derive(Default)]
struct Orders {
    /// When the host told it to wait, and for which stream, where the trace says.
    told: Vec<(TimeNs, Option<u64>)>,
    /// When its last operation was launched.
    launched: Option<TimeNs>,
}

/// What the explanation of gaps carries along.
pub(super) struct Explainer<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    classes: CallClasses<'a>,
    hosts: HashMap<ThreadId, Host<'a, S>>,
    waits: std::iter::Peekable<MergedRows<'a, S, StreamWait>>,
    has_waits: bool,
    orders: HashMap<u64, Orders>,
    /// Streams that have had operations on this device.
    streams: HashSet<u64>,
    /// Graph replays that began lately, the latest last.
    graphs: VecDeque<CorrelationId>,
    /// Stretches in which records of a thread are lost.
    thread_losses: HashMap<ThreadId, Damage>,
    pub(super) device_floor_ns: u64,
    /// The device was observed beyond its last operation: a gap that no operation ends is the host's all the same.
    pub(super) to_the_end: bool,
    /// Who launched the last operation.
    last_launcher: Option<ThreadId>,
    /// Launches of the operations before, whose calls may reach into the gap.
    last_launches: VecDeque<Launch>,
    pub(super) tree: StackTree,
    pub(super) causes: Causes,
    /// Where operations were launched from.
    pub(super) launch_stacks: LaunchStacks<'a, S>,
    /// What the launching threads did, where that was recorded.
    pub(super) host_work: HostWalk<'a, S>,
    pieces: Vec<Piece>,
    blamed: Vec<Blamed>,
    /// Parts of a call, and whether the thread was kept from going on.
    kept: Vec<(TimeNs, TimeNs, bool)>,
    pub(super) gaps: u64,
    /// The gap that was explained last: a step may cut one gap into several calls.
    open_gap: (TimeNs, TimeNs),
    /// Work that nobody told of: stretches that do not touch, in order; what is over is taken out.
    pub(super) unseen: VecDeque<Unseen>,
    /// The device has come to work that was told of, but another stream may still be at work that was not.
    other_streams: bool,
    /// Time of gaps in which such work may have run, ns.
    pub(super) unseen_ns: u64,
    pub(super) longest_gap: (TimeNs, u64),
}

/// Whether a call waits for all of a device: what waits for a stream or an event may be over while another stream works.
fn waits_for_device(call: &str) -> bool {
    ["CtxSynchronize", "DeviceSynchronize", "ThreadSynchronize"].iter().any(|name| call.contains(name))
}

/// A stretch in which a device may have been given work that nobody told of: that may run in it, and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unseen {
    pub(super) from: TimeNs,
    pub(super) to: TimeNs,
}

impl Unseen {
    /// Takes the causes from those pieces of a gap in which such work may have run: in the stretch, and from there to the end
    /// of the first call that waited for the device. Returns whether there was such an end.
    fn hide(&self, pieces: &mut Vec<Blamed>, gap_end: TimeNs, tables: &Tables) -> bool {
        cut(pieces, self.from);
        cut(pieces, self.to);
        let first = pieces.partition_point(|p| p.from < self.from);
        let behind = pieces.partition_point(|p| p.from < self.to).max(first);
        let waits =
            |p: &Blamed| p.cause.leaf == IdleLeaf::Sync && waits_for_device(tables.string(p.cause.call));
        let before = behind + pieces.iter().skip(behind).take_while(|p| !waits(p)).count();
        let over = before + pieces.iter().skip(before).take_while(|p| waits(p)).count();
        // A wait that lasts as long as the gap has not come back.
        let has_waited = over > before && pieces.get(over - 1).is_some_and(|p| p.to < gap_end);
        let over = if has_waited { over } else { pieces.len() };
        let hidden = pieces.iter_mut().take(over).skip(first);
        for piece in hidden.filter(|p| p.cause.reason != Reason::Lost) {
            let Cause { call, node, thread, .. } = piece.cause;
            piece.cause = Cause { leaf: IdleLeaf::Unknown, reason: Reason::Unseen, call, node, thread };
        }
        has_waited
    }
}

/// Makes two of the piece in which a moment lies.
fn cut(pieces: &mut Vec<Blamed>, at: TimeNs) {
    let index = pieces.partition_point(|p| p.to <= at);
    if let Some(piece) = pieces.get_mut(index).filter(|p| p.from < at) {
        let rest = Blamed { from: at, ..*piece };
        piece.to = at;
        pieces.insert(index + 1, rest);
    }
}

impl<'a, S: ReadAt> Explainer<'a, S> {
    pub(super) fn new(capture: &'a Capture<S>, device: DeviceId, waker_stacks: bool) -> Self {
        let mut waits = capture.rows::<StreamWait>(device.0).peekable();
        let has_waits = waits.peek().is_some();
        Self {
            capture,
            classes: CallClasses::new(capture.tables()),
            hosts: HashMap::new(),
            waits,
            has_waits,
            orders: HashMap::new(),
            streams: HashSet::new(),
            graphs: VecDeque::new(),
            thread_losses: HashMap::new(),
            device_floor_ns: device_floor_ns(capture, device),
            to_the_end: false,
            last_launcher: None,
            last_launches: VecDeque::new(),
            tree: StackTree::default(),
            causes: Causes::default(),
            launch_stacks: LaunchStacks::new(capture),
            host_work: HostWalk::of_device(capture, device, waker_stacks),
            pieces: Vec::new(),
            blamed: Vec::new(),
            kept: Vec::new(),
            gaps: 0,
            open_gap: (TimeNs(i64::MIN), TimeNs(i64::MIN)),
            unseen: VecDeque::new(),
            other_streams: false,
            unseen_ns: 0,
            longest_gap: (TimeNs(0), 0),
        }
    }

    /// Explains a gap and books its pieces.
    pub(super) fn gap(&mut self, from: TimeNs, to: TimeNs, closing: Option<Closing>, book: &mut Book<'_>) {
        if self.open_gap.1 != from {
            self.gaps += 1;
            self.open_gap.0 = from;
        }
        self.open_gap.1 = to;
        let idle_since = self.open_gap.0;
        if to.since(idle_since) > self.longest_gap.1 {
            self.longest_gap = (idle_since, to.since(idle_since));
        }
        let told_to_wait = self.has_waits && closing.as_ref().is_some_and(|x| self.told_to_wait(x));
        // To a gap that nothing ends, the thread that launched last has not launched anything yet.
        let never = || {
            let thread = self.last_launcher.filter(|_| self.to_the_end)?;
            Some(Launch { thread, start: to, duration_ns: 0, name: StringId(0) })
        };
        let closing = closing.or_else(|| {
            let launch = Some(never()?);
            Some(Closing { stream: 0, correlation: CorrelationId(0), flags: 0, launch, lost: false })
        });
        let launch = closing.and_then(|x| x.launch);
        let capture = self.capture;
        let mut host = launch.map(|l| {
            self.hosts.entry(l.thread).or_insert_with(|| {
                let damage = self.thread_losses.entry(l.thread).or_default();
                for kind in [RecordKind::HostSpan, RecordKind::ApiCall] {
                    damage.borrow_mut().extend(capture.hole_windows(kind, l.thread.0));
                }
                HostTimeline::new(
                    capture.rows_noting::<HostSpan>(l.thread.0, Rc::clone(damage)),
                    capture.rows_noting::<ApiCall>(l.thread.0, Rc::clone(damage)),
                )
            })
        });
        // The calls that launched the operations before may still be open: that is launch time, not the host's.
        if let (Some(host), Some(launch)) = (host.as_mut(), launch) {
            let reaches = |l: &&Launch| {
                l.thread == launch.thread && l.start < launch.start && l.start.plus(l.duration_ns) > from
            };
            for last in self.last_launches.iter().filter(reaches) {
                host.add_call(ApiCall {
                    start: last.start,
                    duration_ns: last.duration_ns,
                    name: last.name,
                    correlation: CorrelationId(0),
                });
            }
        }
        let classes = &self.classes;
        let damage = launch.and_then(|l| self.thread_losses.get(&l.thread));
        let mut context = Context {
            host,
            tree: &mut self.tree,
            tables: capture.tables(),
            api_class: |name| classes.call(name),
            in_running_graph: closing.as_ref().is_some_and(|x| self.graphs.contains(&x.correlation)),
            idle_since,
            thread_lost: |from, to| {
                damage.is_some_and(|d| d.borrow().iter().any(|&(lost, until)| lost < to && from < until))
            },
            told_to_wait,
            device_floor_ns: self.device_floor_ns,
        };
        context.explain(from, to, closing, &mut self.pieces, &mut self.blamed);
        while let Some(unseen) = self.unseen.front().filter(|unseen| unseen.from < to) {
            if !unseen.hide(&mut self.blamed, to, capture.tables()) {
                // All of the gap behind it is hidden.
                break;
            }
            self.unseen.pop_front();
            self.other_streams = false;
        }
        // From the launching call on, the device waits for what was launched from there.
        let launched = closing.and_then(|x| Some((x.launch?, x.correlation)));
        let sampled =
            launched.and_then(|(launch, id)| Some((launch.start, self.launch_stacks.of(launch, id)?)));
        if let Some((launched, stack)) = sampled {
            let node = self.tree.import(stack, capture.tables());
            for piece in self.blamed.iter_mut().filter(|p| p.from >= launched && p.cause.node == Node(0)) {
                piece.cause.node = node;
            }
        }
        for piece in &self.blamed {
            let (ns, cause) = (piece.to.since(piece.from), piece.cause);
            if cause.reason == Reason::Unseen {
                book.unknown(piece.from, piece.to);
                self.unseen_ns += ns;
                continue;
            }
            let followed = cause.thread.filter(|&t| self.host_work.follows(t));
            // Inside a call as well: where the thread is stopped, throttled or has no CPU, the call cannot go on.
            let in_call = matches!(cause.leaf, IdleLeaf::Sync | IdleLeaf::Driver | IdleLeaf::Launch);
            let waits_for_unseen = cause.leaf == IdleLeaf::Sync && self.other_streams;
            if waits_for_unseen && piece.to < to && waits_for_device(capture.tables().string(cause.call)) {
                self.other_streams = false;
            }
            if waits_for_unseen && followed.is_none() && ns > COMES_BACK_NS {
                book.unknown(piece.from, piece.to);
                self.unseen_ns += ns;
                continue;
            }
            let before = self.host_work.root();
            if let (true, Some(thread)) = (in_call, followed) {
                let kept = &mut self.kept;
                kept.clear();
                let mut kept_ns = 0u64;
                self.host_work.kept_from_returning(thread, piece.from, piece.to, |from, to, is_kept| {
                    if from < to {
                        kept.push((from, to, is_kept));
                        kept_ns += if is_kept { to.since(from) } else { 0 };
                    }
                });
                let did = Did::between(&before, &self.host_work.root(), kept_ns);
                for &(from, to, is_kept) in &self.kept {
                    if is_kept {
                        book.idle((from, to), IdleLeaf::Host, Some(thread), Some(&did));
                    } else if waits_for_unseen && to.since(from) > COMES_BACK_NS {
                        book.unknown(from, to);
                        self.unseen_ns += to.since(from);
                    } else {
                        book.idle((from, to), cause.leaf, Some(thread), None);
                        self.causes.add(cause, to.since(from));
                    }
                }
                continue;
            }
            // Elsewhere than in the driver: where the thread was followed, its own records say what it did.
            let mut did = None;
            match followed {
                Some(thread) if cause.leaf == IdleLeaf::Host && cause.reason == Reason::Plain => {
                    self.host_work.charge(thread, piece.from, piece.to);
                    did = Some(Did::between(&before, &self.host_work.root(), ns));
                }
                _ => self.causes.add(cause, ns),
            }
            book.idle((piece.from, piece.to), cause.leaf, cause.thread, did.as_ref());
        }
    }

    fn told_to_wait(&mut self, x: &Closing) -> bool {
        let Some(launch) = x.launch else { return false };
        while let Some(wait) = self.waits.next_if(|w| w.start <= launch.start) {
            self.orders.entry(wait.stream).or_default().told.push((wait.start, wait.on_stream));
        }
        self.orders.get(&x.stream).is_some_and(|orders| {
            orders.told.iter().any(|&(at, on)| {
                // A stream of this device was done when the device fell idle: that order held nothing up any more.
                let elsewhere = on.is_none_or(|on| !self.streams.contains(&on));
                elsewhere && at <= launch.start && orders.launched.is_none_or(|launched| at > launched)
            })
        })
    }

    /// The device had come to work that was told of by then: what nobody told of was before that.
    #[inline]
    pub(super) fn worked_at(&mut self, moment: TimeNs) {
        while self.unseen.front().is_some_and(|unseen| unseen.to <= moment) {
            self.unseen.pop_front();
            self.other_streams = true;
        }
    }

    #[inline]
    pub(super) fn op_began(&mut self, start: TimeNs, x: &Closing) {
        self.worked_at(start);
        if x.flags & op_flags::GRAPH_NODE != 0 && self.graphs.back() != Some(&x.correlation) {
            self.graphs.retain(|&g| g != x.correlation);
            self.graphs.push_back(x.correlation);
            if self.graphs.len() > RECENT_GRAPHS {
                self.graphs.pop_front();
            }
        }
        let Some(launch) = x.launch else { return };
        self.last_launcher = Some(launch.thread);
        self.last_launches.push_back(launch);
        if self.last_launches.len() > RECENT_LAUNCHES {
            self.last_launches.pop_front();
        }
        if self.has_waits {
            let orders = self.orders.entry(x.stream).or_default();
            orders.launched = Some(orders.launched.map_or(launch.start, |l| l.max(launch.start)));
            orders.told.retain(|&(at, _)| at > launch.start);
            self.streams.insert(x.stream);
        }
    }
}
