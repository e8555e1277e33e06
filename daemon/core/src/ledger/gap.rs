//! Where an idle gap's time goes: the rules, backward from the operation X that ended it.
//!
//! With `[a, b)` the gap and `[h0, h1)` the host call that launched X (facts of attribution; blame shifting after
//! HPCToolkit, SC'13, and the idle categories of Holistic Trace Analysis, made exclusive):
//!
//! ```text
//! X began after lost records            [a, b)                 UNKNOWN  lost
//! X has no recorded call                [a, b)                 UNKNOWN  no launch recorded
//! X is a later node of a graph replay   [a, b)                 GRAPH
//! else   before the call                [a, min(b, h0))        by what the launching thread did:
//!                                                              in a sync call → SYNC, in a launch or copy call →
//!                                                              LAUNCH, in any other call → DRIVER, else → HOST (its
//!                                                              stack); its records damaged → UNKNOWN
//!        inside the call                [max(a,h0), min(b,h1)) LAUNCH; DRIVER where a driver call lies within, or the
//!                                                              call is longer than LONG_CALL_NS (a full queue, loading)
//!        after the call                 [max(a,h1), b)         DEP where X's stream was told, since its last operation,
//!                                                              to wait for work elsewhere (a stream of the same device
//!                                                              was done at a); else DEVICE up to the device's floor
//!                                                              (see `calibrate`); else UNKNOWN, queued
//! ```
//!
//! Limit: launches are recorded with their operations, so of the calls before the call only those of operations that began
//! before X on this device are known as LAUNCH; a launch for another device, or of an operation that begins after X,
//! counts as HOST.

use stallscope_schemas::record::op_flags;
use stallscope_schemas::units::{CorrelationId, StringId, ThreadId, TimeNs};

use super::causes::{Cause, Reason};
use super::leaf::IdleLeaf;
use crate::capture::Tables;
use crate::classify::ApiClass;
use crate::rows::{ApiCall, HostSpan, Launch};
use crate::timeline::host::{HostTimeline, Node, Piece, StackTree};

/// A launch call longer than this did more than launch: 50 times the few microseconds that a launch costs on current
/// systems (CUDA's and HIP's launch calls take 2-10 µs in every trace of the ground truth).
pub const LONG_CALL_NS: u64 = 500_000;

fn launch_leaf(duration_ns: u64) -> IdleLeaf {
    if duration_ns > LONG_CALL_NS { IdleLeaf::Driver } else { IdleLeaf::Launch }
}

/// The operation that ended a gap, as far as the rules need it.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// Its stream.
    pub stream: u64,
    /// Its correlation id.
    pub correlation: CorrelationId,
    /// Its flags.
    pub flags: u64,
    /// Its launch, where recorded.
    pub launch: Option<Launch>,
    /// Whether a lost stretch, not an operation, ended the gap.
    pub lost: bool,
}

/// One exclusive piece of a gap with its cause.
#[derive(Clone, Copy, Debug)]
pub struct Blamed {
    /// Why.
    pub cause: Cause,
    /// From when.
    pub from: TimeNs,
    /// Until when.
    pub to: TimeNs,
}

/// What the rules may ask about the rest of the capture.
#[allow(missing_debug_implementations, reason = "holds a closure and lives for one call")]
pub struct Context<'a, S: Iterator, C: Iterator, F, L> {
    /// The launching thread's records.
    pub host: Option<&'a mut HostTimeline<S, C>>,
    /// Stacks seen so far.
    pub tree: &'a mut StackTree,
    /// Tables of the capture.
    pub tables: &'a Tables,
    /// The class of a call, by its name.
    pub api_class: F,
    /// Whether the graph replay that X belongs to has already begun on the device.
    pub in_running_graph: bool,
    /// When the device became idle: before the gap's begin where a step cuts the gap.
    pub idle_since: TimeNs,
    /// Whether records of the launching thread are lost between two moments.
    pub thread_lost: L,
    /// Whether X's stream was told to wait for another since its last operation.
    pub told_to_wait: bool,
    /// Time from a launch to a start that is the device's own, ns.
    pub device_floor_ns: u64,
}

impl<S, C, F, L> Context<'_, S, C, F, L>
where
    S: Iterator<Item = HostSpan>,
    C: Iterator<Item = ApiCall>,
    F: Fn(StringId) -> ApiClass,
    L: Fn(TimeNs, TimeNs) -> bool,
{
    /// Applies the rules to one gap; the pieces in `out` are adjacent and cover it exactly.
    pub fn explain(
        &mut self,
        a: TimeNs,
        b: TimeNs,
        closing: Option<Closing>,
        pieces: &mut Vec<Piece>,
        out: &mut Vec<Blamed>,
    ) {
        out.clear();
        let whole = |leaf, reason| {
            let cause = Cause { leaf, reason, call: StringId(0), node: Node(0), thread: None };
            Blamed { cause, from: a, to: b }
        };
        let Some(x) = closing else {
            out.push(whole(IdleLeaf::Unknown, Reason::NoLaunch));
            return;
        };
        if x.lost {
            out.push(whole(IdleLeaf::Unknown, Reason::Lost));
            return;
        }
        if x.flags & op_flags::GRAPH_NODE != 0 && self.in_running_graph {
            out.push(whole(IdleLeaf::Graph, Reason::Plain));
            return;
        }
        let Some(launch) = x.launch else {
            out.push(whole(IdleLeaf::Unknown, Reason::NoLaunch));
            return;
        };
        let h0 = launch.start.max(a).min(b);
        let h1 = launch.start.plus(launch.duration_ns).max(h0).min(b);
        if a < h0 {
            self.before_call(a, h0, launch.thread, pieces, out);
        }
        if h0 < h1 {
            self.inside_call(h0, h1, launch, pieces, out);
        }
        if h1 < b {
            self.after_call(h1, b, out);
        }
    }

    /// What the launching thread did before it made the call.
    fn before_call(
        &mut self,
        from: TimeNs,
        to: TimeNs,
        thread: ThreadId,
        pieces: &mut Vec<Piece>,
        out: &mut Vec<Blamed>,
    ) {
        let class = |call: &ApiCall| (self.api_class)(call.name);
        let Some(host) = self.host.as_deref_mut() else {
            let cause = Cause {
                leaf: IdleLeaf::Host,
                reason: Reason::Plain,
                call: StringId(0),
                node: Node(0),
                thread: Some(thread),
            };
            out.push(Blamed { cause, from, to });
            return;
        };
        // Short queries are part of what the host does.
        host.pieces(from, to, |call| class(call) != ApiClass::Host, pieces);
        // Reading the pieces has read the thread's records up to here, and met the damage among them.
        let lost = (self.thread_lost)(from, to);
        for piece in pieces.iter() {
            let (leaf, reason) = match piece.call.map(|c| (class(&c), c)) {
                Some((ApiClass::Sync, _)) => (IdleLeaf::Sync, Reason::Plain),
                // A copy that began while the device was busy held its caller until the copy was done.
                Some((ApiClass::Copy, call)) if call.start < self.idle_since => {
                    (IdleLeaf::Sync, Reason::Plain)
                }
                Some((ApiClass::Launch | ApiClass::GraphLaunch | ApiClass::Copy, call)) => {
                    (launch_leaf(call.duration_ns), Reason::Plain)
                }
                Some((ApiClass::Driver | ApiClass::Unknown, _)) => (IdleLeaf::Driver, Reason::Plain),
                None | Some((ApiClass::Host, _)) if lost => (IdleLeaf::Unknown, Reason::Lost),
                None | Some((ApiClass::Host, _)) => (IdleLeaf::Host, Reason::Plain),
            };
            let call = piece.call.map_or(StringId(0), |c| c.name);
            host.stacks(piece.from, piece.to, self.tree, self.tables, |node, from, to| {
                let cause = Cause { leaf, reason, call, node, thread: Some(thread) };
                out.push(Blamed { cause, from, to });
            });
        }
    }

    /// What the launch call itself was busy with.
    fn inside_call(
        &mut self,
        from: TimeNs,
        to: TimeNs,
        launch: Launch,
        pieces: &mut Vec<Piece>,
        out: &mut Vec<Blamed>,
    ) {
        let own = launch_leaf(launch.duration_ns);
        let thread = Some(launch.thread);
        let Some(host) = self.host.as_deref_mut() else {
            let cause = Cause { leaf: own, reason: Reason::Plain, call: launch.name, node: Node(0), thread };
            out.push(Blamed { cause, from, to });
            return;
        };
        host.pieces(from, to, |call| (self.api_class)(call.name) == ApiClass::Driver, pieces);
        for piece in pieces.iter() {
            let (leaf, call) = match piece.call {
                Some(call) if (self.api_class)(call.name) == ApiClass::Driver => {
                    (IdleLeaf::Driver, call.name)
                }
                _ => (own, launch.name),
            };
            host.stacks(piece.from, piece.to, self.tree, self.tables, |node, from, to| {
                let cause = Cause { leaf, reason: Reason::Plain, call, node, thread };
                out.push(Blamed { cause, from, to });
            });
        }
    }

    /// Why an operation that had been launched did not begin.
    fn after_call(&self, from: TimeNs, to: TimeNs, out: &mut Vec<Blamed>) {
        let cause = |leaf, reason| Cause { leaf, reason, call: StringId(0), node: Node(0), thread: None };
        if self.told_to_wait {
            out.push(Blamed { cause: cause(IdleLeaf::Dep, Reason::Plain), from, to });
            return;
        }
        let floor = from.plus(self.device_floor_ns).min(to);
        out.push(Blamed { cause: cause(IdleLeaf::Device, Reason::Plain), from, to: floor });
        if floor < to {
            out.push(Blamed { cause: cause(IdleLeaf::Unknown, Reason::Queued), from: floor, to });
        }
    }
}
