//! The queue from the reader of the rings to the writer.
//!
//! The reader must not wait: the rings behind it hold a fraction of a second. When the writer falls behind by more than
//! the queue holds, records about time are replaced by one stretch of lost time a thread; what later records refer to
//! (tasks, stacks, objects) is kept.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use stallscope_agents::Told;
use stallscope_counters::Sample as CounterSample;
use stallscope_ebpf::Event;
use stallscope_ebpf::probes::collectives::ProcessHandles;

use crate::assemble::{CallsSeen, NewRank};
use crate::run::Summary;

/// What the reader has gathered in one look at the rings, in the order of each ring.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    /// Records that were not understood.
    pub(crate) malformed: u64,
    /// Stretches that were left out for want of room, by task.
    pub(crate) left_out: Vec<LeftOut>,
    /// Records of no stretch that were left out.
    pub(crate) left_out_plain: u64,
    /// What libraries of processes call their predefined handles.
    pub(crate) handles: Vec<ProcessHandles>,
    /// Processes that have become ranks.
    pub(crate) ranks: Vec<NewRank>,
    /// The probes on collective calls were taken off or put on.
    pub(crate) calls_seen: Vec<CallsSeen>,
    /// What the agents told.
    pub(crate) told: Vec<Told>,
    /// Looks at the host's counters.
    pub(crate) counters: Vec<CounterSample>,
}

/// Records of a task that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) task: u32,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) records: u64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    left_out: HashMap<u32, LeftOut>,
    closed: bool,
    closing: Option<Summary>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    capacity: usize,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Shared>);

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Shared>);

/// A queue of at most this many records.
pub(crate) fn queue(capacity: usize) -> (Sender, Receiver) {
    let shared = Arc::new(Shared { state: Mutex::default(), filled: Condvar::new(), capacity });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The stretch of a task's time that a record is about; `None` where others refer to the record.
fn stretch(event: &Event) -> Option<(u32, u64, u64)> {
    let from = |task, start: u64, duration: u64| Some((task, start, start.saturating_add(duration)));
    match event {
        Event::Wait(w) => from(w.head.task, w.start_ns, w.duration_ns),
        Event::Preempt(p) => from(p.head.task, p.start_ns, p.duration_ns),
        Event::Sample(s) => from(s.head.task, s.time_ns, 0),
        Event::Faults(f) => from(f.head.task, f.start_ns, 0),
        Event::BlockIo(b) => from(b.head.task, b.start_ns, 0),
        Event::Task(_)
        | Event::TaskEnd(_)
        | Event::Exec(_)
        | Event::Stack(_)
        | Event::Object(_)
        | Event::Loss(_)
        | Event::Call(_)
        | Event::FileIo(_)
        | Event::Connection(_)
        | Event::Launch(_) => None,
    }
}

/// Batches of what agents told, of at most some thousand events each.
const MOST_TOLD: usize = 64;

/// What others refer to goes into the queue beyond its capacity, up to so many times of it: a job may define without end.
const DEFINITIONS: usize = 2;

impl Sender {
    /// Whether more of what agents told may be added: else it stays with them, and their rings fill up, which they count.
    pub(crate) fn has_room_for_told(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.told.len() < MOST_TOLD
    }

    /// Adds what was read; empties `batch`.
    pub(crate) fn send(&self, batch: &mut Batch) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.malformed += std::mem::take(&mut batch.malformed);
        state.waiting.handles.append(&mut batch.handles);
        state.waiting.ranks.append(&mut batch.ranks);
        state.waiting.calls_seen.append(&mut batch.calls_seen);
        state.waiting.told.append(&mut batch.told);
        state.waiting.counters.append(&mut batch.counters);
        if state.waiting.events.is_empty() && batch.events.len() <= self.0.capacity {
            std::mem::swap(&mut state.waiting.events, &mut batch.events);
        }
        for event in batch.events.drain(..) {
            let room = state.waiting.events.len() < self.0.capacity;
            match stretch(&event) {
                Some((task, start_ns, end_ns)) if !room => {
                    let lost =
                        state.left_out.entry(task).or_insert(LeftOut { task, start_ns, end_ns, records: 0 });
                    lost.start_ns = lost.start_ns.min(start_ns);
                    lost.end_ns = lost.end_ns.max(end_ns);
                    lost.records += 1;
                }
                None if state.waiting.events.len() >= self.0.capacity * DEFINITIONS => {
                    state.waiting.left_out_plain += 1
                }
                _ => state.waiting.events.push(event),
            }
        }
        drop(state);
        self.0.filled.notify_one();
    }
}

impl Sender {
    /// Says how the reading ended: the writer's last word.
    pub(crate) fn close(self, summary: Option<Summary>) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).closing = summary;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.0.filled.notify_one();
    }
}

impl Receiver {
    /// How the reading ended, once it has.
    pub(crate) fn closing(&self) -> Option<Summary> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).closing.take()
    }

    /// What has gathered, after waiting for at most this long; `None` once the reader has gone and all is taken.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Batch> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.events.is_empty() && !state.closed {
            let waited = self.0.filled.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut batch = std::mem::take(&mut state.waiting);
        batch.left_out = std::mem::take(&mut state.left_out).into_values().collect();
        let empty = batch.events.is_empty()
            && batch.left_out.is_empty()
            && batch.left_out_plain == 0
            && batch.handles.is_empty()
            && batch.ranks.is_empty()
            && batch.calls_seen.is_empty()
            && batch.told.is_empty()
            && batch.counters.is_empty()
            && batch.malformed == 0;
        (!empty || !state.closed).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stallscope_ebpf::Event;
    use stallscope_schemas::wire::{Head, Moment, Sample, record};

    use super::{Batch, LeftOut, queue};

    fn sample(task: u32, time_ns: u64) -> Event {
        let head = Head { kind: record::TYPE_SAMPLE, flags: 0, task };
        Event::Sample(Sample { head, time_ns, period_ns: 1, stack: 0, kernel_stack: 0 })
    }

    #[test]
    fn what_does_not_fit_becomes_a_stretch_of_its_thread_and_definitions_are_kept() {
        let (sender, receiver) = queue(2);
        let head = Head { kind: record::TYPE_TASK_END, flags: 0, task: 7 };
        let end = Event::TaskEnd(Moment { head, time_ns: 99, comm: [0; 16] });
        let events = vec![sample(7, 1), sample(7, 2), sample(7, 3), sample(8, 4), sample(7, 9), end];
        sender.send(&mut Batch { events, ..Batch::default() });
        let mut batch = receiver.receive(Duration::ZERO).unwrap();
        batch.left_out.sort_by_key(|l| l.task);
        assert_eq!(batch.events.len(), 3);
        assert!(matches!(batch.events.last(), Some(Event::TaskEnd(_))));
        let seven = LeftOut { task: 7, start_ns: 3, end_ns: 9, records: 2 };
        let eight = LeftOut { task: 8, start_ns: 4, end_ns: 4, records: 1 };
        assert_eq!(batch.left_out, [seven, eight]);
    }

    #[test]
    fn definitions_without_end_are_left_out_as_well() {
        let (sender, receiver) = queue(2);
        let head = Head { kind: record::TYPE_TASK_END, flags: 0, task: 7 };
        let events = (0..10).map(|time_ns| Event::TaskEnd(Moment { head, time_ns, comm: [0; 16] })).collect();
        sender.send(&mut Batch { events, ..Batch::default() });
        let batch = receiver.receive(Duration::ZERO).unwrap();
        assert_eq!((batch.events.len(), batch.left_out_plain), (4, 6));
    }

    #[test]
    fn the_writer_ends_when_the_reader_has_gone_and_all_is_taken() {
        let (sender, receiver) = queue(10);
        sender.send(&mut Batch { events: vec![sample(1, 1)], ..Batch::default() });
        drop(sender);
        assert_eq!(receiver.receive(Duration::ZERO).map(|b| b.events.len()), Some(1));
        assert!(receiver.receive(Duration::ZERO).is_none());
    }
}
