//! Which rank a thread belongs to. A wait can end in a thread of another rank of the job: that one is to be looked at then, and not the
//! rank that waited for it.

use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::{ProcessId, ThreadId};

use crate::capture::{Device, Process, Tables};

/// The process that stands for the rank of another one: itself where it has a rank, else the one whose helper it is.
fn rank_process(process: ProcessId, tables: &Tables) -> Option<&Process> {
    let own = tables.process(process).filter(|own| own.rank.is_some());
    // A rank on CPUs lists its own process first, then those that it started.
    let is_seat = |d: &&Device| d.kind == device_kind::CPU && d.processes.contains(&process);
    let main = || tables.process(*tables.devices().iter().find(is_seat)?.processes.first()?);
    own.or_else(main).filter(|of| of.rank.is_some())
}

/// The rank that a thread belongs to.
pub(super) fn rank_of_thread(thread: ThreadId, tables: &Tables) -> Option<u32> {
    rank_process(tables.thread(thread)?.process, tables)?.rank
}

/// The rank that a thread belongs to, where that is another one of the job than that of `beside`.
pub(super) fn other_rank(thread: ThreadId, beside: ThreadId, tables: &Tables) -> Option<u32> {
    let [of, beside] = [thread, beside].map(|thread| rank_process(tables.thread(thread)?.process, tables));
    let (of, beside) = (of?, beside?);
    of.rank.filter(|_| of.job == beside.job && of.rank != beside.rank)
}
