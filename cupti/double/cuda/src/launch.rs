//! Putting one operation into a stream: what kernels, copies, memsets, events and meetings have in common.

use stallscope_double_shared::link::{Memory, Op, OpKind};
use stallscope_double_shared::truth;

use crate::calls::Call;
use crate::engine::{self, Submission};
use crate::model::{Marker, OpId, Work};
use crate::state::{Error, Handle, State, Tag};

/// What is to be launched.
pub(crate) struct Launch {
    pub(crate) record: Op,
    pub(crate) kind: truth::OpKind,
    pub(crate) work: Work,
    pub(crate) slowed_ns: u64,
    pub(crate) meeting: Option<(extern "C" fn(u64, u64, u64), u64)>,
}

/// Launch into a stream of the current context what `describe` makes of a blank record; holds the caller while the
/// stream's queue is full.
pub(crate) fn launch(
    stream: Handle,
    call: &Call,
    describe: impl FnOnce(&mut State, Op) -> Result<Launch, Error>,
) -> Result<(OpId, Marker), Error> {
    engine::with_room(stream, call, |state, handle| {
        let after = state.before(handle, call.enter_ns)?;
        let blank = blank(state, handle, call.correlation);
        let Launch { record, kind, work, slowed_ns, meeting } = describe(state, blank)?;
        let event = record.kind == OpKind::Event;
        let gap_ns = if event { 0 } else { state.tuning.kernel_gap_ns };
        let latency_ns = if event { 0 } else { state.tuning.kernel_latency_ns };
        let tag = Box::new(Tag { slowed_ns, meeting, ..tag(record, Some(kind), call) });
        let (id, marker) = engine::submit(state, Submission { after, gap_ns, latency_ns, work, tag });
        engine::append(state, handle, marker.clone());
        Ok((id, marker))
    })
}

/// An operation of a stream, before anything is known of it.
pub(crate) fn blank(state: &State, stream: Handle, correlation: u32) -> Op {
    let stream = state.streams.get(&stream);
    let context = stream.and_then(|s| state.contexts.get(&s.context));
    Op {
        kind: OpKind::Kernel,
        device: context.map_or(0, |c| c.device),
        context: context.map_or(0, |c| c.id),
        stream: stream.map_or(0, |s| s.id),
        correlation,
        graph: 0,
        node: 0,
        name: 0,
        start_ns: 0,
        end_ns: 0,
        bytes: 0,
        from: Memory::Unknown,
        to: Memory::Unknown,
        is_async: false,
        value: 0,
        grid: [0; 3],
        block: [0; 3],
    }
}

/// What is remembered of an operation of this call.
pub(crate) fn tag(record: Op, kind: Option<truth::OpKind>, call: &Call) -> Tag {
    Tag {
        record,
        kind,
        launched_ns: call.enter_ns,
        thread: call.thread,
        slowed_ns: 0,
        observed: false,
        told: false,
        untimed: false,
        since: None,
        meeting: None,
    }
}
