//! Records that are hostile, lost or without end, and what becomes of them.

use std::collections::HashMap;

use stallscope_core::capture::{Capture, CaptureWriter, WriterOptions};
use stallscope_core::rows::{Connection, LaunchStack, ThreadLoss, ThreadWait};
use stallscope_ebpf::Event;
use stallscope_ebpf::event::StackFrames;
use stallscope_ebpf::object::{ObjectText, describe};
use stallscope_ebpf::probes::collectives::Decoded;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::wire::{self, Head, OUTSIDE, Task, WaitRecord, record, task_flag, wait};

use super::{Assembler, MAX_TOLD, NamedStack, Naming, NewRank, RankSeat, Seats, forget_old};
use crate::queue::LeftOut;

/// Knows no names.
#[derive(Debug)]
struct Nameless;

impl Naming for Nameless {
    fn process_seen(&mut self, _: u32) {}
    fn process_name(&mut self, pid: u32) -> Option<String> {
        (pid == 78).then(|| "the-process".to_owned())
    }

    fn process_changed(&mut self, _: u32) {}
    fn process_gone(&mut self, _: u32) {}
    fn tidy(&mut self) {}

    fn stack(&mut self, _: u32, user: Option<&StackFrames>, _: Option<&StackFrames>) -> NamedStack {
        let frames = user.map_or_else(Vec::new, |s| s.native.iter().rev().map(u64::to_string).collect());
        NamedStack { frames, ..NamedStack::default() }
    }

    fn object(&mut self, object: &wire::Object) -> ObjectText {
        describe(object)
    }

    fn device(&mut self, number: u32) -> String {
        number.to_string()
    }

    fn call(&mut self, _: u32, _: &wire::Call) -> Decoded {
        Decoded::Unknown
    }
}

const PID: u32 = 4242;

fn assembler() -> Assembler<Vec<u8>, Nameless> {
    let writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let rank = RankSeat { pid: PID, ..RankSeat::default() };
    Assembler::new(writer, Nameless, Seats { ranks: vec![rank], ..Seats::default() })
}

fn task(number: u32, tid: u32, born_ns: u64) -> Event {
    let head = Head { kind: record::TYPE_TASK, flags: 0, task: number };
    Event::Task(Task { head, time_ns: 100, tid, pid: tid, ppid: 1, reserved: 0, born_ns, comm: [0; 16] })
}

fn waited(task: u32) -> Event {
    Event::Wait(WaitRecord {
        head: Head { kind: record::TYPE_WAIT, flags: 0, task },
        start_ns: 200,
        duration_ns: 50,
        run_queue_ns: 0,
        stack: 0,
        kernel_stack: 0,
        waker_stack: 0,
        object: 0,
        result: 0,
        waker: 0,
        preemptor: 0,
        call: -1,
        fd: -1,
        kind: u8::try_from(wait::WAIT_KERNEL).unwrap(),
        object_kind: 0,
        reserved: 0,
        wanted: 0,
    })
}

#[test]
fn records_that_are_not_understood_or_of_threads_that_were_never_met_are_counted() {
    let mut assembler = assembler();
    assembler.batch(vec![task(1, PID, 7), waited(1), waited(2), waited(2)], &[], 3).unwrap();
    let (bytes, losses) = assembler.finish().unwrap();
    let expected = [(LossCounter::RecordMalformed, 3), (LossCounter::ThreadUnknown, 2)];
    assert_eq!(losses.into_iter().collect::<Vec<_>>(), expected);
    let capture = Capture::open(bytes).unwrap();
    assert_eq!(
        capture.losses().iter().map(|(_, count)| count).sum::<u64>(),
        5,
        "the capture says so as well"
    );
    let keys = capture.keys(RecordKind::ThreadWait);
    assert_eq!(keys.len(), 1);
    assert_eq!(capture.rows::<ThreadWait>(keys[0]).count(), 1);
}

#[test]
fn what_the_queue_left_out_is_a_stretch_of_its_thread() {
    let mut assembler = assembler();
    let left_out = [
        LeftOut { task: 1, start_ns: 300, end_ns: 900, records: 4 },
        LeftOut { task: 2, start_ns: 300, end_ns: 900, records: 5 },
    ];
    assembler.batch(vec![task(1, PID, 7), waited(1)], &left_out, 0).unwrap();
    let (bytes, losses) = assembler.finish().unwrap();
    assert_eq!(losses[&LossCounter::QueueFull], 9);
    let capture = Capture::open(bytes).unwrap();
    let keys = capture.keys(RecordKind::ThreadLoss);
    let rows: Vec<ThreadLoss> = keys.iter().flat_map(|&key| capture.rows(key)).collect();
    let row = rows.first().expect("one of the known thread");
    assert_eq!((rows.len(), row.duration_ns, row.records), (1, 600, 4));
    assert_eq!(row.counter, LossCounter::QueueFull.id());
}

#[test]
fn an_outsider_that_is_introduced_again_is_the_same_until_its_tid_is_given_away() {
    let mut assembler = assembler();
    let outsider = |born_ns| task(OUTSIDE | 77, 77, born_ns);
    assembler.batch(vec![outsider(1), outsider(1), outsider(2)], &[], 0).unwrap();
    let (bytes, _) = assembler.finish().unwrap();
    let capture = Capture::open(bytes).unwrap();
    assert_eq!(capture.tables().threads().len(), 2);
}

#[test]
fn an_outsiders_process_is_called_what_the_process_is_called() {
    let mut assembler = assembler();
    // Not the first thread of its process is met first.
    assembler.batch(vec![task(OUTSIDE | 78, 78, 1)], &[], 0).unwrap();
    let (bytes, _) = assembler.finish().unwrap();
    let capture = Capture::open(bytes).unwrap();
    let thread = capture.tables().threads().last().unwrap();
    assert_ne!(thread.name, "the-process");
    assert_eq!(capture.tables().process(thread.process).unwrap().name, "the-process");
}

#[test]
fn threads_without_end_are_counted_and_not_kept() {
    let mut assembler = assembler();
    let most = u32::try_from(super::tasks::MAX_THREADS).unwrap();
    for first in (0..most).step_by(1 << 12) {
        let batch = (first..first + (1 << 12)).map(|tid| task(OUTSIDE | tid, tid, 7)).collect();
        assembler.batch(batch, &[], 0).unwrap();
    }
    assembler.batch(vec![task(1, PID, 7), task(2, PID + 1, 7)], &[], 0).unwrap();
    let (_, losses) = assembler.finish().unwrap();
    assert_eq!(losses.into_iter().collect::<Vec<_>>(), [(LossCounter::TableFull, 2)]);
}

#[test]
fn what_is_told_again_is_kept_and_what_is_over_goes() {
    let second = 1_000_000_000;
    let full = |old_ns: u64| -> HashMap<usize, u64> {
        (0..MAX_TOLD).map(|key| (key, if key < 10 { 100 * second } else { old_ns })).collect()
    };
    let mut told = full(second);
    assert_eq!(forget_old(&mut told, 101 * second, |when_ns| *when_ns), 0);
    assert_eq!(told.len(), 10, "those of a second ago");
    let mut told = full(100 * second);
    assert_eq!(forget_old(&mut told, 101 * second, |when_ns| *when_ns), MAX_TOLD as u64);
    assert!(told.is_empty());
}

#[test]
fn a_sampled_launch_is_a_row_of_its_thread_with_its_stack_or_without_where_none_could_be_taken() {
    let mut assembler = assembler();
    let launch = |task: u32, correlation: u32, stack: u64| {
        let head = Head { kind: record::TYPE_LAUNCH, flags: 0, task };
        Event::Launch(wire::Launch { head, time_ns: 300, stack, correlation, call: 307 })
    };
    let stack = StackFrames { id: 5, task: 1, flags: 0, native: vec![20, 10], python: Vec::new() };
    let events = vec![
        task(1, PID, 7),
        launch(1, 41, 5),
        launch(1, u32::MAX, 5),
        launch(1, 42, 0),
        launch(9, 43, 5),
        // It comes out of another CPU's ring, later.
        Event::Stack(stack),
    ];
    assembler.batch(events, &[], 0).unwrap();
    let (bytes, losses) = assembler.finish().unwrap();
    assert_eq!(losses.into_iter().collect::<Vec<_>>(), [(LossCounter::ThreadUnknown, 1)]);
    let capture = Capture::open(bytes).unwrap();
    let keys = capture.keys(RecordKind::LaunchStack);
    assert_eq!(keys.len(), 1);
    let rows: Vec<LaunchStack> = capture.rows(keys[0]).collect();
    let numbers: Vec<_> = rows.iter().map(|r| (r.start.0, r.correlation.0, r.stack.0 == 0)).collect();
    assert_eq!(numbers, [(300, 41, false), (300, u64::from(u32::MAX), false), (300, 42, true)]);
    let names = capture.tables().stack_names(rows[0].stack);
    let names: Vec<&str> = names.into_iter().map(|n| capture.tables().string(n)).collect();
    assert_eq!((names, rows[1].stack), (vec!["10", "20"], rows[0].stack));
}

#[test]
fn numbers_of_a_connection_go_on_where_the_kernels_begin_anew() {
    let mut assembler = assembler();
    let connection = |time_ns: u64, retransmits: u32, segments: u32| {
        let head = Head { kind: record::TYPE_CONNECTION, flags: 0, task: 1 };
        let (object, sent, received, rtt_ns, delivery_rate) = (9, 0, 0, 0, 0);
        Event::Connection(wire::Connection {
            head,
            time_ns,
            object,
            sent,
            received,
            rtt_ns,
            retransmits,
            segments,
            delivery_rate,
        })
    };
    let before = connection(300, 7, u32::MAX - 9);
    // Within 2^32 segments; then another connection in its place.
    let events = vec![task(1, PID, 7), before, connection(400, 9, 90), connection(500, 0, 10)];
    assembler.batch(events, &[], 0).unwrap();
    let capture = Capture::open(assembler.finish().unwrap().0).unwrap();
    let keys = capture.keys(RecordKind::Connection);
    let rows = keys.iter().flat_map(|&key| capture.rows::<Connection>(key));
    let counts: Vec<_> = rows.map(|row| (row.retransmits, row.segments)).collect();
    assert_eq!(counts, [(2, 100), (0, 0)]);
}

fn forked(number: u32, pid: u32, parent: u32) -> Event {
    let Event::Task(task) = task(number, pid, u64::from(pid)) else { unreachable!() };
    let flags = task_flag::TASK_LEADER;
    Event::Task(Task { head: Head { flags, ..task.head }, ppid: parent, ..task })
}

#[test]
fn a_process_that_a_launcher_starts_as_a_rank_has_a_ledger_of_its_own_with_what_it_forked() {
    let mut assembler = assembler();
    let ranks = [(5001, 0), (5002, 1)];
    // Told before the launcher's children are known, as another CPU's ring may have it.
    for (pid, rank) in ranks {
        assembler.rank(NewRank { pid, rank, world_size: Some(2) });
    }
    assembler.batch(vec![task(1, PID, 7)], &[], 0).unwrap();
    let children = [(2, 5001, PID), (3, 5002, PID), (4, 6001, 5001), (5, 6002, PID)];
    assembler
        .batch(children.map(|(number, pid, parent)| forked(number, pid, parent)).to_vec(), &[], 0)
        .unwrap();
    // A rank's own launcher below it changes nothing.
    assembler.rank(NewRank { pid: 6001, rank: 9, world_size: Some(10) });
    assembler.batch(vec![forked(6, 7001, 6001)], &[], 0).unwrap();
    let capture = Capture::open(assembler.finish().unwrap().0).unwrap();
    let tables = capture.tables();
    let pids = |id: &str| -> Vec<i64> {
        let device = tables.devices().iter().find(|d| d.id == id).unwrap();
        let mut pids: Vec<i64> = device.processes.iter().map(|&p| tables.process(p).unwrap().pid).collect();
        pids.sort_unstable();
        pids
    };
    assert!(pids(&format!("pid {PID}")).is_empty(), "who started them");
    assert_eq!((pids("rank 0"), pids("rank 1")), (vec![5001, 6001, 7001], vec![5002]));
    let rank = |pid: i64| tables.processes().iter().find(|p| p.pid == pid).unwrap().rank;
    assert_eq!([5001, 5002, 6001, i64::from(PID)].map(rank), [Some(0), Some(1), None, None]);
}
