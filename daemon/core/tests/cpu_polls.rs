//! Polls with a time limit in a loop: whom the pieces that ran into it are charged to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::ledger::{CpuLeaf, CpuSums, Options, cpu_ledgers};
use stallscope_schemas::record::{ObjectKind, wait_flags};
use stallscope_schemas::units::{ProcessId, StackId, ThreadId};

const END: i64 = 1_000_000;

fn rank() -> (Host, ProcessId, [ThreadId; 2]) {
    rank_until(END)
}

/// A rank of a trainer and a worker, both followed from 0 on.
fn rank_until(end: i64) -> (Host, ProcessId, [ThreadId; 2]) {
    let mut host = Host::new();
    let process = host.process(10, "python", Some(2));
    host.rank("rank 2", &[process]);
    let main = host.thread(process, 10, "main", 0, end);
    let worker = host.thread(process, 11, "worker", 0, end);
    (host, process, [main, worker])
}

/// How a poll ended.
#[derive(Clone, Copy)]
enum End {
    /// Its time was over.
    Limit,
    /// This thread made a descriptor ready.
    Found(ThreadId),
    /// This thread sent a signal.
    Signal(ThreadId),
    /// Something came from outside.
    Interrupt,
}

const PSELECT: (&str, ObjectKind) = ("pselect6", ObjectKind::None);

fn poll(
    host: &mut Host,
    thread: ThreadId,
    (call, object_kind): (&str, ObjectKind),
    (from, to, stack): (i64, i64, StackId),
    end: End,
) {
    host.wait(thread, from, to, call, |wait, _| {
        (wait.object_kind, wait.stack, wait.flags) = (object_kind, stack, wait_flags::RETURNED);
        match end {
            End::Limit => wait.flags |= wait_flags::IRQ_WAKER,
            End::Found(by) => (wait.waker, wait.result) = (Some(by), 1),
            End::Signal(by) => (wait.waker, wait.result) = (Some(by), -4),
            End::Interrupt => (wait.flags, wait.result) = (wait.flags | wait_flags::IRQ_WAKER, 1),
        }
    });
}

/// Leaves that have time: direct, and in the root ledger.
fn leaves(host: Host) -> [Vec<(CpuLeaf, u64)>; 2] {
    let ledger = cpu_ledgers(&host.capture(), Options::default()).unwrap().remove(0);
    let of = |sums: &CpuSums| {
        assert_eq!(sums.total(), ledger.wall_ns);
        CpuLeaf::ALL.iter().map(|&l| (l, sums.get(l))).filter(|(_, ns)| *ns > 0).collect()
    };
    [of(&ledger.direct), of(&ledger.root)]
}

#[test]
fn a_poll_that_is_made_again_and_again_waited_for_who_ended_the_last_one() {
    for (call, direct) in [
        (PSELECT, [(CpuLeaf::Ipc, 200_000), (CpuLeaf::Sleep, 800_000)]),
        (("epoll_wait", ObjectKind::Epoll), [(CpuLeaf::Ipc, 200_000), (CpuLeaf::Sleep, 800_000)]),
        // The descriptor is known: a poll of a pipe waits for the other end, whether it runs into its limit or not.
        (("poll", ObjectKind::Pipe), [(CpuLeaf::Ipc, 1_000_000), (CpuLeaf::Sleep, 0)]),
    ] {
        let (mut host, _, [main, worker]) = rank();
        let at = StackId(0);
        poll(&mut host, main, call, (0, 400_000, at), End::Limit);
        poll(&mut host, main, call, (400_000, 800_000, at), End::Limit);
        poll(&mut host, main, call, (800_000, END, at), End::Found(worker));
        host.wait(worker, 100_000, 950_000, "fsync", |_, _| {});
        let [own, root] = leaves(host);
        assert_eq!(own, direct.into_iter().filter(|(_, ns)| *ns > 0).collect::<Vec<_>>());
        assert_eq!(root, [(CpuLeaf::Compute, 150_000), (CpuLeaf::BlockIo, 850_000)], "{}", call.0);
    }
}

const HERE: &[&str] = &["train.py(10): main"];
const THERE: &[&str] = &["train.py(20): main"];

/// What is charged to the worker's fsync of a poll that ran into its limit of `first_ns`, and of the next one.
fn followed(first_ns: i64, pause: i64, last_ns: i64, end: impl Fn(ThreadId) -> End, place: &[&str]) -> u64 {
    let until = 30_000_000;
    let (mut host, _, [main, worker]) = rank_until(until);
    let (here, there) = (host.stack(HERE), host.stack(place));
    poll(&mut host, main, PSELECT, (0, first_ns, here), End::Limit);
    let from = first_ns + pause;
    poll(&mut host, main, PSELECT, (from, from + last_ns, there), end(worker));
    host.wait(worker, 0, until, "fsync", |_, _| {});
    let [_, root] = leaves(host);
    root.iter().filter(|(leaf, _)| *leaf == CpuLeaf::BlockIo).map(|(_, ns)| ns).sum()
}

#[test]
fn only_a_poll_at_the_same_place_at_once_and_not_longer_is_the_same_again() {
    assert_eq!(followed(300_000, 10_000, 200_000, End::Found, HERE), 500_000);
    // A short wait has no stack; this one is at another line.
    assert_eq!(followed(300_000, 10_000, 200_000, End::Found, &[]), 500_000);
    assert_eq!(followed(300_000, 10_000, 200_000, End::Found, THERE), 200_000);
    // The program did something else in between, for longer than an eighth of the limit.
    for (first_ns, most) in [(300_000_i64, 200_000), (4_000_000, 500_000), (16_000_000, 1_000_000)] {
        let first = first_ns.unsigned_abs();
        assert_eq!(followed(first_ns, most, 200_000, End::Found, HERE), first + 200_000);
        assert_eq!(followed(first_ns, most + 1, 200_000, End::Found, HERE), 200_000);
    }
    // A loop that gives the same limit cannot wait for longer, but for a timer that is late.
    assert_eq!(followed(300_000, 10_000, 375_000, End::Found, HERE), 675_000);
    assert_eq!(followed(300_000, 10_000, 375_001, End::Found, HERE), 375_001);
}

#[test]
fn a_poll_that_nobody_of_the_job_answers_is_a_sleep() {
    assert_eq!(followed(300_000, 10_000, 200_000, |_| End::Limit, HERE), 0);
    assert_eq!(followed(300_000, 10_000, 200_000, |_| End::Interrupt, HERE), 0);
    // Whoever sends a signal is followed for the wait that it cut short; that one found nothing.
    assert_eq!(followed(300_000, 10_000, 200_000, End::Signal, HERE), 200_000);
}

#[test]
fn who_waited_for_us_meanwhile_is_not_whom_a_poll_waited_for() {
    let (mut host, _, [main, worker]) = rank();
    // An event loop: its timer is due, then it asks a thread of its pool, which has slept until then.
    poll(&mut host, main, PSELECT, (0, 400_000, StackId(0)), End::Limit);
    poll(&mut host, main, PSELECT, (450_000, 750_000, StackId(0)), End::Found(worker));
    host.woken(worker, 0, 440_000, "futex", main);
    host.wait(worker, 440_000, 740_000, "fsync", |_, _| {});
    let [_, root] = leaves(host);
    assert_eq!(root, [(CpuLeaf::Compute, 310_000), (CpuLeaf::BlockIo, 290_000), (CpuLeaf::Sleep, 400_000)],);
}

#[test]
fn a_helper_that_polls_with_a_limit_is_followed_to_whom_it_polls() {
    let (mut host, process, [main, helper]) = rank();
    let source = host.thread(process, 12, "source", 0, END);
    host.woken(main, 0, 900_000, "read", helper);
    let pipe = ("poll", ObjectKind::Pipe);
    poll(&mut host, helper, pipe, (0, 400_000, StackId(0)), End::Limit);
    poll(&mut host, helper, pipe, (410_000, 810_000, StackId(0)), End::Limit);
    poll(&mut host, helper, pipe, (820_000, 900_000, StackId(0)), End::Found(source));
    // At first the source waits for its helper: for this the poll, with a limit or not, is not its.
    host.woken(source, 0, 100_000, "read", helper);
    host.wait(source, 100_000, 880_000, "fsync", |_, _| {});
    let [_, root] = leaves(host);
    assert_eq!(root, [(CpuLeaf::Compute, 140_000), (CpuLeaf::BlockIo, 760_000), (CpuLeaf::Ipc, 100_000)],);
}
