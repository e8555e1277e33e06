//! Bytes and ranks of the calls of process groups, which only the calls of the libraries beneath them tell.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::ledger::{Options, cpu_ledgers};
use stallscope_core::rows::CollectiveCall;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use CollectiveLibrary::{C10d, Gloo, Nccl};
use CollectiveOp::{AllReduce, Barrier, Broadcast, Recv, Send};

/// Begin and end, library, operation, group, bytes.
type Call<'a> = (i64, i64, CollectiveLibrary, CollectiveOp, &'a str, u64);

fn push(host: &mut Host, thread: ThreadId, calls: &[Call<'_>]) {
    for &(from, to, library, operation, group, bytes) in calls {
        let inner = library != C10d;
        let row = CollectiveCall {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            name: host.writer.intern(&format!("{}::{}", library.name(), operation.name())),
            library,
            operation,
            bytes,
            elements: 0,
            datatype: StringId(0),
            reduction: StringId(0),
            group: host.writer.intern(group),
            group_size: if inner { 4 } else { 0 },
            rank: inner.then_some(2),
            peer: None,
            stream: 0,
            sequence: 0,
            result: 0,
            flags: if inner { 0 } else { call_flags::ASYNC },
            stack: StackId(0),
        };
        host.writer.push_collective_call(thread, row).unwrap();
    }
}

/// Operation, group, group size, calls and bytes of what the main thread called, by operation.
fn tallies(main: &[Call<'_>], workers: [&[Call<'_>]; 2]) -> Vec<(CollectiveOp, String, u64, u64, u64)> {
    let mut host = Host::new();
    let process = host.process(10, "python3", Some(2));
    host.rank("rank 2", &[process]);
    let threads = [10, 11, 12].map(|tid| host.thread(process, tid, "python3", 0, 10_000));
    for (thread, calls) in threads.into_iter().zip([main, workers[0], workers[1]]) {
        push(&mut host, thread, calls);
    }
    let capture = host.capture();
    let ledger = cpu_ledgers(&capture, Options::default()).unwrap().remove(0);
    let mut all: Vec<_> = ledger
        .calls
        .ranked()
        .into_iter()
        .map(|(kind, tally)| {
            let group = capture.tables().string(kind.group).to_owned();
            (kind.operation, group, kind.group_size, tally.calls, tally.bytes)
        })
        .collect();
    all.sort();
    all
}

fn row(
    operation: CollectiveOp,
    group: &str,
    size: u64,
    calls: u64,
    bytes: u64,
) -> (CollectiveOp, String, u64, u64, u64) {
    (operation, group.to_owned(), size, calls, bytes)
}

#[test]
fn what_a_process_groups_threads_do_is_what_it_was_asked_for() {
    // Two buckets are handed over and taken by two threads; a broadcast of another size lies between the steps. The
    // first call of Gloo is of a call before the recording.
    let main: &[Call<'_>] = &[
        (100, 105, C10d, AllReduce, "c10d@1", 0),
        (110, 115, C10d, AllReduce, "c10d@1", 0),
        (400, 405, C10d, Broadcast, "c10d@1", 0),
        (500, 505, C10d, AllReduce, "c10d@1", 0),
    ];
    let first: &[Call<'_>] = &[
        (10, 60, Gloo, AllReduce, "gloo@a", 5),
        (106, 300, Gloo, AllReduce, "gloo@a", 1000),
        (406, 450, Gloo, Broadcast, "gloo@a", 8),
    ];
    let second: &[Call<'_>] =
        &[(116, 320, Gloo, AllReduce, "gloo@a", 24), (506, 700, Gloo, AllReduce, "gloo@a", 1000)];
    assert_eq!(
        tallies(main, [first, second]),
        [row(AllReduce, "c10d@1", 4, 3, 2024), row(Broadcast, "c10d@1", 4, 1, 8)]
    );
}

#[test]
fn a_call_that_was_not_begun_when_the_recording_ended_has_no_bytes_but_its_groups_size() {
    let main: &[Call<'_>] =
        &[(100, 105, C10d, AllReduce, "c10d@1", 0), (800, 805, C10d, AllReduce, "c10d@1", 0)];
    let worker: &[Call<'_>] = &[(106, 300, Gloo, AllReduce, "gloo@a", 1000)];
    assert_eq!(tallies(main, [worker, &[]]), [row(AllReduce, "c10d@1", 4, 2, 1000)]);
}

#[test]
fn groups_are_paired_by_their_calls() {
    // Two process groups by turns, the second of which is served at once and the first after a while.
    let (mut main, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for at in (0..20).map(|i| i * 400) {
        main.push((at + 100, at + 105, C10d, AllReduce, "c10d@1", 0));
        main.push((at + 110, at + 115, C10d, AllReduce, "c10d@2", 0));
        first.push((at + 150, at + 300, Gloo, AllReduce, "gloo@a", 1000));
        second.push((at + 112, at + 200, Gloo, AllReduce, "gloo@b", 1));
    }
    assert_eq!(
        tallies(&main, [&first, &second]),
        [row(AllReduce, "c10d@1", 4, 20, 20_000), row(AllReduce, "c10d@2", 4, 20, 20)]
    );
    // Calls that something else makes of Gloo are nobody's.
    let rare: Vec<Call<'_>> = first.iter().step_by(10).copied().collect();
    let only: Vec<Call<'_>> = main.iter().step_by(2).copied().collect();
    assert_eq!(tallies(&only, [&rare, &[]]), [row(AllReduce, "c10d@1", 0, 20, 0)]);
}

#[test]
fn calls_within_a_process_groups_own_are_added_up() {
    // A gather of NCCL is made of sends and receives; a barrier is made of an all-reduce that is no data.
    let main: &[Call<'_>] = &[
        (100, 200, C10d, AllReduce, "c10d@1", 0),
        (110, 120, Nccl, AllReduce, "nccl:f", 4000),
        (300, 400, C10d, CollectiveOp::AllToAll, "c10d@1", 0),
        (310, 320, Nccl, Send, "nccl:f", 100),
        (330, 340, Nccl, Recv, "nccl:f", 70),
        (350, 360, Nccl, Send, "nccl:f", 10),
        (500, 600, C10d, Barrier, "c10d@1", 0),
        (510, 520, Nccl, AllReduce, "nccl:f", 4),
    ];
    assert_eq!(
        tallies(main, [&[], &[]]),
        [
            row(AllReduce, "c10d@1", 4, 1, 4000),
            row(CollectiveOp::AllToAll, "c10d@1", 4, 1, 110),
            row(Barrier, "c10d@1", 4, 1, 0)
        ]
    );
}
