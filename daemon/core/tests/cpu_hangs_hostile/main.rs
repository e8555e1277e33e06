//! Recordings of ranks on CPUs that end while a call does not return, with what misleads: groups that are too young to be
//! told apart, calls that were given up or not counted, attempts, jobs of one name, processes that have ended.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod groups;
mod processes;

use common::{Host, MS};
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::CollectiveCall;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, ObjectKind, call_flags};
use stallscope_schemas::units::{ProcessId, StackId, StringId, ThreadId, TimeNs};

const S: i64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Call<'a> {
    name: &'a str,
    operation: CollectiveOp,
    library: CollectiveLibrary,
    group: &'a str,
    size: u64,
    sequence: i64,
    flags: u64,
    result: i64,
}

const CALL: Call<'static> = Call {
    name: "MPI_Allreduce",
    operation: CollectiveOp::AllReduce,
    library: CollectiveLibrary::Mpi,
    group: "MPI_COMM_WORLD",
    size: 4,
    sequence: 0,
    flags: 0,
    result: 0,
};

/// A call that goes on when its thread ends.
fn open(sequence: i64) -> Call<'static> {
    Call { sequence, flags: call_flags::OPEN, ..CALL }
}

fn push(host: &mut Host, thread: ThreadId, (from, to): (i64, i64), call: Call<'_>) {
    let row = CollectiveCall {
        start: TimeNs(from),
        duration_ns: (to - from).unsigned_abs(),
        name: host.writer.intern(call.name),
        library: call.library,
        operation: call.operation,
        bytes: 0,
        elements: 1024,
        datatype: StringId(0),
        reduction: StringId(0),
        group: host.writer.intern(call.group),
        group_size: call.size,
        rank: None,
        peer: None,
        stream: 0,
        sequence: call.sequence.unsigned_abs(),
        result: call.result,
        flags: call.flags,
        stack: StackId(0),
    };
    host.writer.push_collective_call(thread, row).unwrap();
}

/// A process of a rank with its main thread, and the rank's own list of processes.
fn seat(host: &mut Host, rank: u32, pid: i64, (from, to): (i64, i64)) -> (ProcessId, ThreadId) {
    let process = host.process(pid, "python", Some(rank));
    host.rank(&format!("rank {rank}"), &[process]);
    (process, host.thread(process, pid, "MainThread", from, to))
}

fn rank(host: &mut Host, rank: u32, end: i64) -> (ProcessId, ThreadId) {
    seat(host, rank, 100 + i64::from(rank), (0, end))
}

fn late(rank: u32) -> i64 {
    i64::from(rank) * 100_000
}

fn init(host: &mut Host, thread: ThreadId) {
    let call = Call { name: "MPI_Init_thread", operation: CollectiveOp::Init, group: "", size: 0, ..CALL };
    push(host, thread, (1, MS), call);
}

/// The operations of these numbers, counted from `call`'s on: one each 10 ms from the moment on that the first number says.
fn steps(host: &mut Host, rank: u32, thread: ThreadId, numbers: std::ops::Range<i64>, call: Call<'_>) {
    for (position, number) in (0..).zip(numbers) {
        let from = number * 10 * MS + late(rank);
        let sequence = call.sequence + position;
        push(host, thread, (from, from + MS - late(rank) * 9 / 10), Call { sequence, ..call });
    }
}

fn reads(host: &mut Host, thread: ThreadId, from: i64, to: i64) {
    host.on(thread, from, to, "read", ObjectKind::File, "/data/x");
}

fn verdicts(host: Host) -> Vec<Finding> {
    let capture = host.capture();
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    let all = Report::build(&capture, &ledgers).findings;
    all.into_iter().filter(|finding| finding.rule == "hang-collective").collect()
}

fn only(host: Host) -> Finding {
    let mut all = verdicts(host);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn blamed(host: Host, culprits: &[u32], summary: &str) -> Finding {
    let finding = only(host);
    assert_eq!(finding.blame.culprit_ranks, culprits, "{finding:#?}");
    assert!(finding.summary.contains(summary), "{finding:#?}");
    finding
}

fn nobody(host: Host, summary: &str, evidence: &str) -> Finding {
    let finding = only(host);
    assert!(finding.blame.culprit_ranks.is_empty() && finding.blame.confidence.is_none(), "{finding:#?}");
    assert!(finding.summary.contains(summary), "{finding:#?}");
    assert!(finding.evidence.contains(evidence), "{finding:#?}");
    finding
}

const CANNOT_TELL: &str = "which rank is missing cannot be told";
