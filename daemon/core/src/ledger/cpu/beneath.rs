//! What the calls of process groups (c10d) move, by the calls of the libraries beneath them.
//!
//! The arguments of a process group are tensors, which the recorder does not look into; the call of NCCL, Gloo or MPI
//! that it makes says how many bytes and ranks there are. A call beneath
//!
//! - on the same thread lies within the outer call (NCCL);
//! - on another thread is the first of its operation that began after the outer call and belongs to no earlier one: a
//!   process group hands its work to threads of its own, which take it in order (Gloo, MPI).
//!
//! Names of groups are addresses on both sides and say nothing of each other. Groups belong together whose calls fit; of
//! several that do, those whose calls follow each other most closely. What fits nothing stays unknown.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::{ProcessId, StringId, ThreadId, TimeNs};

use crate::capture::{Capture, ReadAt};
use crate::rows::CollectiveCall;

/// Calls of a process that are looked at, outer ones and those beneath each.
const MAX_CALLS: usize = 1 << 18;
/// Pairs of groups that are compared.
const MAX_PAIRS: usize = 256;
/// Share of a group's calls that have to fit, in percent, and how many need not: a recording cuts some off at its end.
const FIT_PERCENT: usize = 80;
const CUT_OFF: usize = 4;

/// What is known of an outer call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    bytes: u64,
    group_size: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outer {
    thread: ThreadId,
    start: TimeNs,
}

#[derive(Clone, Copy, Debug)]
struct Inner {
    start: TimeNs,
    moved: Moved,
}

/// Calls of one group by operation, in the order of their begins.
type Sequences<T> = BTreeMap<CollectiveOp, Vec<T>>;

/// One process's calls that are to be matched.
#[derive(Debug, Default)]
struct Unmatched {
    outer: BTreeMap<StringId, Sequences<Outer>>,
    inner: BTreeMap<(CollectiveLibrary, StringId), Sequences<Inner>>,
    outers: usize,
    inners: usize,
}

/// Bytes and group sizes of the calls of process groups.
#[derive(Debug, Default)]
pub(super) struct Beneath {
    calls: HashMap<(ThreadId, TimeNs), Moved>,
    sizes: HashMap<(ProcessId, StringId), u64>,
    processes: HashMap<ThreadId, ProcessId>,
}

fn is_collective(operation: CollectiveOp) -> bool {
    use CollectiveOp::{Group, Init, Other, Wait};
    !matches!(operation, Init | Group | Wait | Other)
}

impl Beneath {
    /// Reads the calls of these threads.
    pub(super) fn of<S: ReadAt>(capture: &Capture<S>, threads: &[ThreadId]) -> Self {
        let mut beneath = Self::default();
        let mut unmatched: BTreeMap<ProcessId, Unmatched> = BTreeMap::new();
        for &thread in threads {
            let Some(process) = capture.tables().thread(thread).map(|t| t.process) else { continue };
            beneath.read(capture, thread, process, unmatched.entry(process).or_default());
        }
        for (process, mut unmatched) in unmatched {
            unmatched.sort();
            beneath.pair(process, &unmatched);
        }
        beneath
    }

    /// Reads one thread's calls: those within an outer one are joined at once.
    fn read<S: ReadAt>(
        &mut self,
        capture: &Capture<S>,
        thread: ThreadId,
        process: ProcessId,
        unmatched: &mut Unmatched,
    ) {
        let never = TimeNs(i64::MIN);
        let (mut inner_until, mut within) = (never, Within::new(never));
        for call in capture.rows::<CollectiveCall>(thread.0) {
            let end = call.start.plus(call.duration_ns);
            if call.library == CollectiveLibrary::C10d {
                if call.start >= within.until {
                    self.close(thread, process, &within, unmatched);
                    within = Within { call: Some(call), until: end, ..Within::new(end) };
                }
                continue;
            }
            if call.start < inner_until || !is_collective(call.operation) {
                continue;
            }
            inner_until = end;
            if call.start < within.until {
                within.add(&call);
            } else if unmatched.inners < MAX_CALLS {
                unmatched.inners += 1;
                let moved = Moved { bytes: call.bytes, group_size: call.group_size };
                let group = unmatched.inner.entry((call.library, call.group)).or_default();
                group.entry(call.operation).or_default().push(Inner { start: call.start, moved });
            }
        }
        self.close(thread, process, &within, unmatched);
    }

    /// Takes in an outer call that is over.
    fn close(&mut self, thread: ThreadId, process: ProcessId, within: &Within, unmatched: &mut Unmatched) {
        let Some(call) = within.call.as_ref().filter(|c| is_collective(c.operation)) else { return };
        self.processes.insert(thread, process);
        if unmatched.outers >= MAX_CALLS {
            return;
        }
        unmatched.outers += 1;
        if within.calls > 0 {
            self.take(process, call.group, (thread, call.start), call.operation, within.moved);
        } else {
            let group = unmatched.outer.entry(call.group).or_default();
            group.entry(call.operation).or_default().push(Outer { thread, start: call.start });
        }
    }

    fn take(
        &mut self,
        process: ProcessId,
        group: StringId,
        call: (ThreadId, TimeNs),
        operation: CollectiveOp,
        moved: Moved,
    ) {
        // What a library sends to make a barrier is nothing that the program puts in.
        let bytes = if operation == CollectiveOp::Barrier { 0 } else { moved.bytes };
        self.calls.insert(call, Moved { bytes, ..moved });
        if moved.group_size > 0 {
            self.sizes.insert((process, group), moved.group_size);
        }
    }

    /// Joins the groups of a process that fit each other.
    fn pair(&mut self, process: ProcessId, unmatched: &Unmatched) {
        if unmatched.outer.len().saturating_mul(unmatched.inner.len()) > MAX_PAIRS {
            return;
        }
        let mut fits = Vec::new();
        for (&outer, outers) in &unmatched.outer {
            for (&inner, inners) in &unmatched.inner {
                let pairs = matched(outers, inners);
                // Not every operation of a process group is one of the library beneath.
                let seen = |(operation, _): &(&CollectiveOp, _)| inners.contains_key(operation);
                let calls: usize = outers.iter().filter(seen).map(|(_, calls)| calls.len()).sum();
                if !pairs.is_empty() && (pairs.len() + CUT_OFF) * 100 >= calls * FIT_PERCENT {
                    let late = pairs.iter().fold(0u64, |sum, (_, outer, inner)| {
                        sum.saturating_add(inner.start.since(outer.start))
                    });
                    fits.push((late / pairs.len() as u64, outer, inner, pairs));
                }
            }
        }
        fits.sort_by_key(|&(late, outer, inner, _)| (late, outer, inner));
        let (mut outers, mut inners) = (HashSet::new(), HashSet::new());
        for (_, outer, inner, pairs) in fits {
            if outers.contains(&outer) || !inners.insert(inner) {
                continue;
            }
            outers.insert(outer);
            for (operation, call, inner) in pairs {
                self.take(process, outer, (call.thread, call.start), operation, inner.moved);
            }
        }
    }

    /// The call with what is known from beneath it.
    pub(super) fn joined(&self, thread: ThreadId, call: &CollectiveCall) -> CollectiveCall {
        if call.library != CollectiveLibrary::C10d {
            return *call;
        }
        let moved = self.calls.get(&(thread, call.start)).copied().unwrap_or_default();
        let size = self.processes.get(&thread).and_then(|&p| self.sizes.get(&(p, call.group)));
        let known = |own: u64, beneath: u64| if own == 0 { beneath } else { own };
        CollectiveCall {
            bytes: known(call.bytes, moved.bytes),
            group_size: known(call.group_size, size.copied().unwrap_or(0)),
            ..*call
        }
    }
}

/// An outer call under way, and the calls within it.
struct Within {
    call: Option<CollectiveCall>,
    until: TimeNs,
    moved: Moved,
    calls: u64,
}

impl Within {
    fn new(until: TimeNs) -> Self {
        Self { call: None, until, moved: Moved::default(), calls: 0 }
    }

    fn add(&mut self, call: &CollectiveCall) {
        self.calls += 1;
        self.moved.group_size = self.moved.group_size.max(call.group_size);
        // Bytes are those that the rank puts in.
        if call.operation != CollectiveOp::Recv {
            self.moved.bytes = self.moved.bytes.saturating_add(call.bytes);
        }
    }
}

impl Unmatched {
    /// Threads were read one after the other.
    fn sort(&mut self) {
        for calls in self.outer.values_mut().flat_map(BTreeMap::values_mut) {
            calls.sort_by_key(|c| c.start);
        }
        for calls in self.inner.values_mut().flat_map(BTreeMap::values_mut) {
            calls.sort_by_key(|c| c.start);
        }
    }
}

/// Gives each outer call the first call beneath that began after it and has none yet.
fn matched(outers: &Sequences<Outer>, inners: &Sequences<Inner>) -> Vec<(CollectiveOp, Outer, Inner)> {
    let mut pairs = Vec::new();
    for (&operation, outers) in outers {
        let mut inners = inners.get(&operation).into_iter().flatten().peekable();
        for outer in outers {
            // Those of earlier ones are behind; what began a call before the recording did is behind as well.
            while inners.next_if(|inner| inner.start < outer.start).is_some() {}
            let Some(inner) = inners.next() else { break };
            pairs.push((operation, *outer, *inner));
        }
    }
    pairs
}
