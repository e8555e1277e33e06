//! Rows at random, consistent and hostile: ledgers close, and agree with a slow reading of the same rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};
use stallscope_core::capture::Capture;
use stallscope_core::ledger::{CpuLeaf, Options, cpu_ledgers};
use stallscope_core::rows::{CollectiveCall, ThreadPreempt, ThreadWait};
use stallscope_core::weights;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, ObjectKind, WaitKind};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

/// A record of any kind on one of four threads.
#[derive(Clone, Debug)]
enum Row {
    Span(u32, i64, i64),
    Wait(u32, i64, i64, u64, u64, Option<u32>, u64),
    Preempt(u32, i64, i64, u64, u64),
    Call(u32, i64, i64, u64, u64),
    Lost(u32, i64, i64),
    Sample(u32, i64, u64),
}

const THREADS: u32 = 4;

fn stretch() -> impl Strategy<Value = (i64, i64)> {
    (-20..220i64, 0..60i64).prop_map(|(from, len)| (from, from + len))
}

fn row() -> impl Strategy<Value = Row> {
    let thread = 0..THREADS;
    prop::strategy::Union::new(vec![
        (thread.clone(), stretch()).prop_map(|(t, (a, b))| Row::Span(t, a, b)).boxed(),
        (thread.clone(), stretch(), 0..80u64, 0..8u64, prop::option::of(0..6u32), 0..4u64)
            .prop_map(|(t, (a, b), q, kind, waker, what)| Row::Wait(t, a, b, q, kind, waker, what))
            .boxed(),
        (thread.clone(), stretch(), 0..80u64, 4..8u64)
            .prop_map(|(t, (a, b), q, kind)| Row::Preempt(t, a, b, q, kind))
            .boxed(),
        (thread.clone(), stretch(), 0..8u64, 0..4u64)
            .prop_map(|(t, (a, b), library, flags)| Row::Call(t, a, b, library, flags))
            .boxed(),
        (thread.clone(), stretch()).prop_map(|(t, (a, b))| Row::Lost(t, a, b)).boxed(),
        (thread, -20..220i64, 0..50u64).prop_map(|(t, at, w)| Row::Sample(t, at, w)).boxed(),
    ])
}

fn capture(rows: &[Row], spans: bool) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    let process = host.process(10, "python", Some(0));
    let helper = host.helper(20, "worker");
    host.rank("rank 0", &[process, helper]);
    for (at, of) in [process, process, helper, helper].into_iter().enumerate() {
        let tid = 10 + i64::try_from(at).unwrap();
        if spans {
            host.thread(of, tid, "t", 0, 200);
        } else {
            host.outsider(of, tid, "t");
        }
    }
    let names = ["futex", "read", "epoll_wait", "clock_nanosleep"].map(|n| host.writer.intern(n));
    for row in rows {
        match *row {
            Row::Span(t, from, to) => host.span(ThreadId(t), from, to),
            Row::Wait(t, from, to, run_queue_ns, kind, waker, what) => {
                let row = ThreadWait {
                    start: TimeNs(from),
                    duration_ns: (to - from).unsigned_abs(),
                    run_queue_ns,
                    kind: WaitKind::from_id(kind).unwrap_or(WaitKind::Syscall),
                    call: names[usize::try_from(what).unwrap()],
                    object_kind: ObjectKind::None,
                    object: StringId(0),
                    waker: waker.map(ThreadId),
                    waker_stack: StackId(9),
                    stack: StackId(7),
                    preemptor: waker.map(ThreadId),
                    flags: run_queue_ns % 4,
                    result: i64::from(run_queue_ns > 40),
                    peer: None,
                };
                host.writer.push_thread_wait(ThreadId(t), row).unwrap();
            }
            Row::Preempt(t, from, to, run_queue_ns, kind) => {
                let row = ThreadPreempt {
                    start: TimeNs(from),
                    duration_ns: (to - from).unsigned_abs(),
                    run_queue_ns,
                    times: 2,
                    preemptor: None,
                    kind: WaitKind::from_id(kind).unwrap_or(WaitKind::Preempted),
                };
                host.writer.push_thread_preempt(ThreadId(t), row).unwrap();
            }
            Row::Call(t, from, to, library, flags) => {
                let row = CollectiveCall {
                    start: TimeNs(from),
                    duration_ns: (to - from).unsigned_abs(),
                    name: names[0],
                    library: CollectiveLibrary::from_id(library).unwrap_or(CollectiveLibrary::Other),
                    operation: CollectiveOp::AllReduce,
                    bytes: u64::MAX,
                    elements: 0,
                    datatype: StringId(0),
                    reduction: StringId(0),
                    group: StringId(0),
                    group_size: 0,
                    rank: None,
                    peer: None,
                    stream: 0,
                    sequence: 0,
                    result: 0,
                    flags,
                    stack: StackId(0),
                };
                host.writer.push_collective_call(ThreadId(t), row).unwrap();
            }
            Row::Lost(t, from, to) => host.lose(ThreadId(t), from, to),
            Row::Sample(t, at, weight) => host.sample(ThreadId(t), at, weight, StackId(3)),
        }
    }
    host.capture()
}

/// Asks every record of a thread about one nanosecond: what covers it, by the rules of the timeline.
fn naive(rows: &[Row], thread: u32) -> [u64; 4] {
    let mut out = [0; 4];
    let mut waits: Vec<(i64, i64)> = rows
        .iter()
        .filter_map(|r| match *r {
            Row::Wait(t, a, b, ..) if t == thread => Some((a, b)),
            _ => None,
        })
        .collect();
    waits.sort_by_key(|&(a, b)| (a, std::cmp::Reverse(b)));
    for ns in 0..200 {
        let covers = |&(a, b): &(i64, i64)| a <= ns && ns < b;
        let any =
            |pick: &dyn Fn(&Row) -> Option<(i64, i64)>| rows.iter().filter_map(pick).any(|s| covers(&s));
        let lost = any(&|r| match *r {
            Row::Lost(t, a, b) if t == thread => Some((a, b)),
            _ => None,
        });
        let preempt = any(&|r| match *r {
            Row::Preempt(t, a, b, ..) if t == thread => Some((a, b)),
            _ => None,
        });
        let slot = if lost {
            0
        } else if waits.iter().any(covers) {
            1
        } else if preempt {
            2
        } else {
            3
        };
        out[slot] += 1;
    }
    out
}

fn check(capture: &Capture<Vec<u8>>) {
    for waker_stacks in [false, true] {
        // The ledger itself refuses what does not close.
        let ledgers = cpu_ledgers(capture, Options { waker_stacks, ..Options::default() }).unwrap();
        for ledger in &ledgers {
            assert_eq!(ledger.direct.total(), ledger.wall_ns);
            assert_eq!(ledger.root.total(), ledger.wall_ns);
            let causes = ledger.causes.ranked();
            for &leaf in CpuLeaf::ALL {
                let by = |pick: &dyn Fn(&stallscope_core::ledger::cpu::causes::CpuCause) -> CpuLeaf| -> u64 {
                    causes.iter().filter(|(c, _)| pick(c) == leaf).map(|(_, a)| a.ns).sum()
                };
                assert_eq!(by(&|c| c.direct), ledger.direct.get(leaf), "direct {leaf:?}");
                assert_eq!(by(&|c| c.root), ledger.root.get(leaf), "root {leaf:?}");
            }
            let threads: u64 = ledger.threads.iter().filter(|t| t.driving).map(|t| t.wall_ns).sum();
            assert_eq!(threads, ledger.wall_ns);
        }
        let sum = |pick: &dyn Fn(CpuLeaf) -> bool| -> u64 {
            let leaves = || CpuLeaf::ALL.iter().copied().filter(|&l| pick(l));
            let threads = ledgers.iter().flat_map(|l| &l.threads);
            threads.flat_map(|t| leaves().map(|l| t.direct.get(l)).collect::<Vec<_>>()).sum()
        };
        if !ledgers.is_empty() {
            assert_eq!(weights::cpu(capture).total_ns(), sum(&CpuLeaf::is_on_cpu));
            let off = sum(&|l| !l.is_on_cpu() && l != CpuLeaf::Unknown);
            assert_eq!(weights::off_cpu(capture).total_ns(), off);
        }
    }
}

proptest! {
    #[test]
    fn a_ledger_of_any_records_closes_and_agrees_with_its_causes(
        rows in prop::collection::vec(row(), 0..60),
        spans in any::<bool>(),
    ) {
        check(&capture(&rows, spans));
    }

    #[test]
    fn what_covers_a_moment_is_what_a_slow_reading_says(rows in prop::collection::vec(row(), 0..40)) {
        let rows: Vec<Row> = rows.into_iter().filter(|r| !matches!(r, Row::Span(..))).collect();
        let capture = capture(&rows, true);
        for ledger in cpu_ledgers(&capture, Options::default()).unwrap() {
            for thread in &ledger.threads {
                let [lost, waited, preempted, ran] = naive(&rows, thread.thread.0);
                let of = |leaves: &[CpuLeaf]| leaves.iter().map(|&l| thread.direct.get(l)).sum::<u64>();
                // A wait of an unknown kind is unknown as well; run queue comes from waits and preemptions.
                let on_cpu = of(&[CpuLeaf::Compute, CpuLeaf::CommOnCpu]);
                prop_assert_eq!(thread.wall_ns, 200);
                assert!(on_cpu >= ran && on_cpu <= ran + preempted);
                assert!(thread.direct.get(CpuLeaf::Unknown) >= lost);
                let blocked: u64 =
                    CpuLeaf::ALL.iter().filter(|l| l.is_blocked()).map(|&l| thread.direct.get(l)).sum();
                assert!(blocked <= waited);
            }
        }
    }
}

/// A file that was written over: whatever still opens has ledgers that close.
#[test]
fn damaged_captures_close() {
    let mut host = Host::new();
    let process = host.process(10, "python", Some(0));
    host.rank("rank 0", &[process]);
    let threads: Vec<ThreadId> = (0..3).map(|i| host.thread(process, 10 + i, "t", 0, 100_000)).collect();
    for round in 0..120i64 {
        for (at, &thread) in threads.iter().enumerate() {
            let from = round * 300 + i64::try_from(at).unwrap() * 10;
            let waker = threads[(at + 1) % 3];
            host.woken(thread, from, from + 100, "futex", waker);
            host.preempt(thread, from + 150, from + 250, 33, Some(waker));
            host.call(thread, from + 50, from + 170, "MPI_Allreduce", CollectiveLibrary::Mpi);
        }
        if round % 20 == 0 {
            host.writer.flush().unwrap();
        }
    }
    let bytes = host.writer.finish().unwrap().0;
    let mut lost = 0;
    for at in (40..bytes.len()).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let capture = Capture::open(damaged).unwrap();
        check(&capture);
        let unknown: u64 = cpu_ledgers(&capture, Options::default())
            .unwrap()
            .iter()
            .map(|l| l.direct.get(CpuLeaf::Unknown))
            .sum();
        lost += u64::from(unknown > 0);
    }
    assert!(lost > 3, "damage shows as unknown time: {lost}");
}
