//! Recordings of jobs that stood still before they began.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::capture::{Capture, Device, Source};
use stallscope_core::findings::{Finding, Severity};
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::{DeviceWindow, GpuOp};
use stallscope_schemas::record::{
    CollectiveLibrary, CopyKind, ObjectKind, OpKind, WaitKind, device_kind, wait_flags,
};
use stallscope_schemas::units::{CorrelationId, ProcessId, ThreadId, TimeNs};

const S: i64 = 1_000_000_000;
/// Length of a recording.
const END: i64 = 6 * S;
const MAIN: &str = "/job/train.py(50): <module>";
const STEP: &str = "/job/train.py(41): step";
const YIELDS: &[&str] = &["__GI_sched_yield (libc.so.6)", "do_sched_yield [kernel]"];
const LIBRARY: &[&str] = &["opal_progress (libopen-pal.so.80)"];

/// Where a rank is.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Yields in an all-reduce.
    Spins,
    /// Blocked in one, in the way that the library waits.
    BlocksInLibrary,
    /// Spins in a wait for its GPU.
    WaitsForGpu,
    /// In one wait that began before the recording: a call, what it is of, its name.
    Blocked(&'static str, ObjectKind, &'static str),
    /// Receives from a process of the job.
    ReceivesFromPeer,
    /// In a read from a pipe; putting an agent in interrupted it, which shows where.
    Interrupted,
    /// Sleeps a little, time and again.
    Polls,
    /// Reads a file, time and again.
    Loads(&'static str),
    Stopped,
    /// Its process ended at this time.
    Ended(i64),
    Computes,
    /// Computes at two lines.
    Moves,
    /// Computes in a library that it calls at one line, and yields there in two of three samples.
    YieldsAtWork,
    /// Its main thread is blocked in a lock, another one computes.
    OtherThreadWorks,
    /// Its main thread is blocked in a lock, another one spins in an all-reduce.
    OtherThreadSpins,
    /// Sleeps, and records of it are missing.
    Lost,
    /// It began after the others.
    StartsLate,
}

use At::{
    Blocked, BlocksInLibrary, Computes, Ended, Interrupted, Loads, Lost, Moves, OtherThreadSpins,
    OtherThreadWorks, Polls, ReceivesFromPeer, Spins, StartsLate, Stopped, WaitsForGpu, YieldsAtWork,
};

const SLEEPS: At = Blocked("clock_nanosleep", ObjectKind::None, "");
const READS: At = Blocked("read", ObjectKind::File, "/data/shard-0017");
const LOCKED: At = Blocked("futex", ObjectKind::Futex, "");

/// A sample every 10 ms of `part` in `of` of the time; others ran in the rest.
fn samples(host: &mut Host, thread: ThreadId, end: i64, stacks: &[Vec<&str>]) {
    let stacks: Vec<_> = stacks.iter().map(|frames| host.stack(frames)).collect();
    for (number, at) in (0..end).step_by(10_000_000).enumerate() {
        host.sample(thread, at, 10_000_000, stacks[number % stacks.len()]);
    }
    host.preempt(thread, 0, end, end.unsigned_abs() / 2, None);
}

fn at(line: &'static str, inner: &'static [&'static str]) -> Vec<&'static str> {
    [&[MAIN, line], inner].concat()
}

fn spins(host: &mut Host, thread: ThreadId) {
    samples(host, thread, END, &[at(STEP, YIELDS), at(STEP, LIBRARY), at(STEP, YIELDS)]);
}

fn blocked(
    host: &mut Host,
    thread: ThreadId,
    call: &str,
    kind: ObjectKind,
    object: &str,
    peer: Option<ProcessId>,
) {
    host.wait(thread, 0, END, call, |wait, host| {
        wait.object_kind = kind;
        wait.object = host.writer.intern(object);
        wait.flags = wait_flags::BEGAN_BEFORE | wait_flags::GOES_ON;
        wait.stack = host.stack(&["schedule [kernel]", "do_wait [kernel]"]);
        wait.peer = peer;
    });
}

fn rank(host: &mut Host, number: u32, at_place: At, first: ProcessId) -> ProcessId {
    let pid = 100 + i64::from(number);
    let process = if number == 0 { first } else { host.process(pid, "python", Some(number)) };
    host.rank(&format!("rank-{number}"), &[process]);
    let (from, to) = match at_place {
        Ended(end) => (0, end),
        StartsLate => (S, END),
        _ => (0, END),
    };
    let main = host.thread(process, pid, "python", from, to);
    match at_place {
        Spins => spins(host, main),
        BlocksInLibrary => {
            let stack = host.stack(&at(STEP, &["poll (libc.so.6)", "opal_progress (libopen-pal.so.80)"]));
            host.wait(main, MS, END, "poll", |wait, _| wait.stack = stack);
        }
        WaitsForGpu => {
            samples(host, main, END, &[at(STEP, &["cudaStreamSynchronize (libcudart.so.12)"])]);
        }
        Blocked(call, kind, object) => blocked(host, main, call, kind, object, None),
        ReceivesFromPeer => {
            blocked(host, main, "recvfrom", ObjectKind::TcpSocket, "10.0.0.1:4 → 10.0.0.1:5", Some(first));
        }
        Interrupted => {
            let stack = host.stack(&[MAIN, "/job/train.py(7): batch", "__GI___libc_read (libc.so.6)"]);
            let part = |host: &mut Host, from, to, result, flags| {
                host.wait(main, from, to, "read", |wait, host| {
                    (wait.object_kind, wait.object) = (ObjectKind::Pipe, host.writer.intern("pipe:[77]"));
                    wait.stack = if result == 0 { host.stack(&["schedule [kernel]"]) } else { stack };
                    (wait.flags, wait.result) = (flags, result);
                });
            };
            part(host, 0, S, -512, wait_flags::BEGAN_BEFORE | wait_flags::RETURNED);
            host.wait(main, S, S + MS, "", |wait, _| wait.kind = WaitKind::Stopped);
            part(host, S + 2 * MS, END, 0, wait_flags::GOES_ON);
        }
        Polls => {
            for begin in (0..END).step_by(10_000_000) {
                host.wait(main, begin, begin + 10_000_000 - 1, "clock_nanosleep", |_, _| {});
            }
        }
        Loads(file) => {
            for begin in (0..END).step_by(10_000_000) {
                host.on(main, begin, begin + 10_000_000 - 1, "read", ObjectKind::File, file);
            }
        }
        Stopped => host.wait(main, 0, END, "", |wait, _| {
            wait.kind = WaitKind::Stopped;
            wait.flags = wait_flags::BEGAN_BEFORE | wait_flags::GOES_ON;
        }),
        Ended(end) => samples(host, main, end, &[at(STEP, &[])]),
        Computes | StartsLate => {
            samples(host, main, END, &[at("/job/train.py(12): work", &["dgemm (libopenblas.so.0)"])]);
        }
        Moves => {
            let work = ["/job/train.py(12): work", "/job/train.py(13): work"];
            samples(host, main, END, &work.map(|line| at(line, &["dgemm (libopenblas.so.0)"])));
        }
        YieldsAtWork => {
            let work = at(STEP, &["dgemm (libopenblas.so.0)"]);
            samples(host, main, END, &[at(STEP, YIELDS), work, at(STEP, YIELDS)]);
        }
        OtherThreadWorks | OtherThreadSpins => {
            blocked(host, main, "futex", ObjectKind::Futex, "", None);
            let other = host.thread(process, pid + 1000, "worker", 0, END);
            match at_place {
                OtherThreadSpins => spins(host, other),
                _ => samples(host, other, END, &[vec!["solve (libsolver.so)"]]),
            }
        }
        Lost => {
            blocked(host, main, "clock_nanosleep", ObjectKind::None, "", None);
            host.lose(main, S, S + 1);
        }
    }
    process
}

fn host_of(all: &[At]) -> (Host, Vec<ProcessId>) {
    let mut host = Host::new();
    let first = host.process(100, "python", Some(0));
    let ranks = (0u32..).zip(all).map(|(number, &at)| rank(&mut host, number, at, first)).collect();
    (host, ranks)
}

/// A GPU of a rank that was observed, and did nothing.
fn observe(host: &mut Host, number: usize, process: ProcessId) {
    let source = host.writer.add_source(Source { path: "live".into(), format: "live".into() });
    let device = host.writer.add_device(Device {
        source,
        kind: device_kind::GPU,
        id: format!("GPU-{number}"),
        ordinal: u32::try_from(number).unwrap(),
        model: String::new(),
        processes: vec![process],
    });
    let window = DeviceWindow { start: TimeNs(0), duration_ns: END.unsigned_abs(), flags: 0 };
    host.writer.push_device_window(device, window).unwrap();
}

fn report(capture: &Capture<Vec<u8>>) -> Vec<Finding> {
    let ledgers = Ledgers::of(capture, Options::default()).unwrap();
    Report::build(capture, &ledgers).findings
}

fn found(host: Host) -> Vec<Finding> {
    let all = report(&host.capture());
    all.into_iter().filter(|finding| finding.rule == "hang-standstill").collect()
}

fn only(all: &[At]) -> Finding {
    let mut found = found(host_of(all).0);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].category, "hang");
    assert_eq!(found[0].ns, END.unsigned_abs());
    found.remove(0)
}

fn blamed(all: &[At], culprits: &[u32], summary: &str) -> Finding {
    let finding = only(all);
    let begin = "the job stands still: for all of 6.00 s no collective began or ended; ";
    assert_eq!(finding.summary, format!("{begin}{summary}"));
    assert_eq!(finding.blame.culprit_ranks, culprits, "{finding:#?}");
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(finding.blame.confidence, Some(1.0));
    assert_eq!(finding.blame.recoverable_ns, None);
    finding
}

fn blamed_of(all: &[At], culprits: &[u32]) -> Finding {
    let finding = only(all);
    assert_eq!(finding.blame.culprit_ranks, culprits, "{finding:#?}");
    finding
}

fn nobody(all: &[At], summary: &str) -> Finding {
    let finding = only(all);
    assert!(finding.summary.ends_with(summary), "{}", finding.summary);
    assert!(finding.blame.culprit_ranks.is_empty() && finding.blame.confidence.is_none(), "{finding:#?}");
    // A server without requests stands still as well.
    let alike = summary.starts_with("; ranks 0, 1, 2 and 3 are blocked");
    assert_eq!(finding.severity, if alike { Severity::Notice } else { Severity::Warning });
    finding
}

fn nothing(all: &[At]) {
    let found = found(host_of(all).0);
    assert!(found.is_empty(), "{found:#?}");
}

const INSIDE: &str =
    "ranks 0, 1 and 3 are in communication at train.py:41 in step since before the recording; ";

#[test]
fn a_rank_that_sleeps_while_the_others_are_in_communication_is_to_blame() {
    let finding = blamed(
        &[Spins, Spins, SLEEPS, Spins],
        &[2],
        &format!("{INSIDE}rank 2 is blocked in clock_nanosleep()"),
    );
    let chain: Vec<_> = finding.blame.chain.iter().map(|l| (l.rank, l.tid, l.what.as_str(), l.ns)).collect();
    let end = END.unsigned_abs();
    assert_eq!(
        chain,
        [
            (
                Some(0),
                Some(100),
                "is in communication at train.py:41 in step since before the recording",
                end
            ),
            (Some(2), Some(102), "is blocked in clock_nanosleep()", end),
        ]
    );
    assert!(finding.evidence.contains("rank 2 since before the recording"), "{}", finding.evidence);
}

#[test]
fn so_is_one_that_reads_or_is_stopped_or_has_ended() {
    let of = |at: At, does: &str| blamed(&[Spins, Spins, at, Spins], &[2], &format!("{INSIDE}rank 2 {does}"));
    of(READS, "is blocked in read() of /data/shard-0017");
    of(Stopped, "is stopped");
    of(Ended(2 * S), "has ended");
    of(Polls, "is blocked in clock_nanosleep() again and again");
}

#[test]
fn one_that_is_at_work_is_to_blame_but_no_problem_yet() {
    for (at, does) in [
        (Computes, "computes at train.py:12 in work"),
        (Loads("/data/checkpoint"), "is blocked in read() of /data/checkpoint again and again"),
        (OtherThreadWorks, "is blocked in futex()"),
    ] {
        let finding = only(&[Spins, Spins, at, Spins]);
        assert!(finding.summary.ends_with(&format!("rank 2 {does}")), "{}", finding.summary);
        assert!(finding.evidence.contains("rank 2 is at work and may come yet"), "{}", finding.evidence);
        assert_eq!((finding.blame.culprit_ranks, finding.severity), (vec![2], Severity::Notice));
    }
    // Next to one that does not get on it is not to blame.
    let finding = only(&[Spins, Spins, Computes, Spins, Stopped]);
    assert_eq!((finding.blame.culprit_ranks, finding.severity), (vec![4], Severity::Critical));
}

#[test]
fn ranks_that_load_their_data_do_not_stand_still() {
    let files = ["/data/0", "/data/1", "/data/2", "/data/3"];
    nothing(&files.map(Loads));
    nothing(&[Loads("/data/0"); 4]);
}

#[test]
fn a_rank_that_may_be_waiting_for_requests_is_no_critical_problem() {
    for call in ["epoll_wait", "accept4"] {
        let finding = only(&[Blocked(call, ObjectKind::None, ""), Spins, Spins, Spins]);
        assert_eq!((finding.blame.culprit_ranks, finding.severity), (vec![0], Severity::Warning));
        let says = "rank 0 waits as a server waits for requests";
        assert!(finding.evidence.contains(says), "{}", finding.evidence);
    }
}

#[test]
fn a_rank_that_began_anew_has_not_ended() {
    let (mut host, _) = host_of(&[Spins, Spins, Ended(2 * S), Spins]);
    let again = host.process(202, "python", Some(2));
    let main = host.thread(again, 202, "python", 3 * S, END);
    host.on(main, 3 * S, END, "read", ObjectKind::File, "/data");
    assert!(found(host).is_empty());
}

#[test]
fn several_ranks_are_to_blame_if_they_are_the_fewer() {
    let all = [Spins, READS, Spins, Stopped, Spins];
    let finding = blamed(
        &all,
        &[1, 3],
        "ranks 0, 2 and 4 are in communication at train.py:41 in step since before the recording; rank 1 is blocked \
         in read() of /data/shard-0017; rank 3 is stopped",
    );
    assert_eq!(finding.blame.chain.len(), 3);
    nobody(
        &[Spins, SLEEPS, SLEEPS, Spins],
        "; ranks 0 and 3 are in communication at train.py:41 in step since before the recording; ranks 1 and 2 are \
         blocked in clock_nanosleep(); who waits for whom cannot be told",
    );
}

#[test]
fn a_rank_in_a_lock_is_blamed_only_where_the_others_spin() {
    blamed(&[Spins, Spins, LOCKED, Spins], &[2], &format!("{INSIDE}rank 2 is blocked in futex()"));
    let finding = nobody(
        &[BlocksInLibrary, Spins, LOCKED, Spins],
        "; rank 2 is blocked in futex(); ranks 0, 1 and 3 are in communication at train.py:41 in step since before \
         the recording; who waits for whom cannot be told",
    );
    assert!(finding.evidence.contains("rank 2 may be waiting for its peers there"), "{}", finding.evidence);
    // Nobody waits for peers in a file.
    let finding = only(&[BlocksInLibrary, Spins, READS, Spins]);
    assert_eq!(finding.blame.culprit_ranks, [2], "{finding:#?}");
}

#[test]
fn a_rank_that_waits_for_another_rank_is_not_blamed() {
    let finding = nobody(&[Spins, Spins, ReceivesFromPeer, Spins], "; who waits for whom cannot be told");
    assert!(finding.evidence.contains("rank 2 waits for another rank there"), "{}", finding.evidence);
}

#[test]
fn a_call_that_was_interrupted_shows_where_it_waits() {
    let of = |library: At| {
        let finding = blamed_of(&[library, Spins, Interrupted, Spins], &[2]);
        assert!(
            finding.summary.ends_with("rank 2 is blocked in read() of pipe:[77] at train.py:7 in batch"),
            "{}",
            finding.summary
        );
        assert!(finding.evidence.contains("rank 2 since before the recording"), "{}", finding.evidence);
        assert_eq!(finding.blame.chain[1].ns, END.unsigned_abs());
    };
    of(Spins);
    // Peers are not read from through pipes.
    of(BlocksInLibrary);
}

#[test]
fn a_rank_of_which_records_are_missing_is_not_blamed() {
    let finding = nobody(&[Spins, Spins, Lost, Spins], "; who waits for whom cannot be told");
    assert!(finding.evidence.contains("records of rank 2 are missing"), "{}", finding.evidence);
    let finding = only(&[Spins, Spins, Lost, Spins, Stopped]);
    assert_eq!(finding.blame.culprit_ranks, [4], "{finding:#?}");
    assert_eq!(finding.blame.confidence, Some(0.8));
}

#[test]
fn ranks_that_were_not_recorded_lower_the_confidence() {
    let (mut host, ranks) = host_of(&[Spins, Spins, Stopped, Spins]);
    for rank in ranks {
        host.writer.update_process(rank, |p| p.world_size = Some(8));
    }
    let found = found(host);
    assert_eq!(found[0].blame.culprit_ranks, [2], "{found:#?}");
    assert_eq!(found[0].blame.confidence, Some(0.5));
    assert!(found[0].evidence.contains("4 of 8 ranks were not recorded"), "{}", found[0].evidence);
}

#[test]
fn where_all_are_in_communication_nobody_is_to_blame() {
    let finding = nobody(
        &[Spins; 4],
        "; ranks 0, 1, 2 and 3 are in communication at train.py:41 in step since before the recording; which \
         operation each is in was not seen",
    );
    assert!(finding.evidence.contains("the calls began before the recording"), "{}", finding.evidence);
    nobody(
        &[Spins, Spins, OtherThreadSpins, Spins],
        "; ranks 0, 1, 2 and 3 are in communication at train.py:41 in step since before the recording; which \
         operation each is in was not seen",
    );
}

#[test]
fn where_all_are_blocked_the_odd_ones_come_first() {
    nobody(
        &[LOCKED, LOCKED, READS, LOCKED],
        "; rank 2 is blocked in read() of /data/shard-0017; ranks 0, 1 and 3 are blocked in futex(); who waits for \
         whom cannot be told",
    );
    nobody(&[LOCKED; 4], "; ranks 0, 1, 2 and 3 are blocked in futex(); who waits for whom cannot be told");
    nobody(&[Stopped; 4], "; ranks 0, 1, 2 and 3 are stopped; who waits for whom cannot be told");
}

#[test]
fn a_job_that_computes_does_not_stand_still() {
    nothing(&[Computes; 4]);
    nothing(&[YieldsAtWork; 4]);
    nothing(&[Computes, Computes, READS, Computes]);
    nothing(&[OtherThreadWorks; 4]);
    nothing(&[LOCKED, LOCKED, OtherThreadWorks, LOCKED]);
    // One waits for the many that work for it.
    nothing(&[Spins, Computes, Computes, Computes]);
}

#[test]
fn nor_does_one_of_which_a_rank_moves() {
    nothing(&[Spins, Spins, Moves, Spins]);
    nothing(&[Spins, Spins, StartsLate, Spins]);
}

#[test]
fn nor_does_one_with_a_call_or_an_operation_of_a_gpu() {
    let all = [Spins, Spins, SLEEPS, Spins];
    let (mut host, _) = host_of(&all);
    host.call(ThreadId(0), S, S + MS, "MPI_Barrier", CollectiveLibrary::Mpi);
    assert!(found(host).is_empty());
    let (mut host, ranks) = host_of(&all);
    observe(&mut host, 0, ranks[0]);
    let op = GpuOp {
        start: TimeNs(S),
        duration_ns: 1000,
        name: host.writer.intern("gemm"),
        stream: 7,
        kind: OpKind::Kernel,
        flags: 0,
        correlation: CorrelationId(1),
        bytes: 0,
        copy_kind: CopyKind::Unknown,
        launch: None,
    };
    let device = stallscope_schemas::units::DeviceId(4);
    host.writer.push_gpu_op(device, op).unwrap();
    assert!(found(host).is_empty());
}

#[test]
fn a_short_recording_or_a_single_rank_says_nothing() {
    nothing(&[Stopped]);
    nothing(&[Spins]);
    let mut host = Host::new();
    for number in 0..4 {
        let process = host.process(100 + i64::from(number), "python", Some(number));
        host.rank(&format!("rank-{number}"), &[process]);
        let thread = host.thread(process, 100 + i64::from(number), "python", 0, 2 * S - 1);
        host.on(thread, 0, 2 * S - 1, "read", ObjectKind::File, "/data");
    }
    assert!(found(host).is_empty());
}

#[test]
fn waits_for_gpus_count_where_the_gpus_were_observed() {
    let all = [WaitsForGpu, WaitsForGpu, Stopped, WaitsForGpu];
    nothing(&all);
    let (mut host, ranks) = host_of(&all);
    for (number, &rank) in ranks.iter().enumerate() {
        observe(&mut host, number, rank);
    }
    let found = found(host);
    assert_eq!(found[0].blame.culprit_ranks, [2], "{found:#?}");
    assert_eq!(
        found[0].summary,
        "the job stands still: for all of 6.00 s no collective and no work of a GPU began or ended; ranks 0, 1 and 3 \
         wait for their GPUs at train.py:41 in step since before the recording; rank 2 is stopped"
    );
}

#[test]
fn an_agent_that_saw_no_work_has_observed_its_gpu() {
    let all = [WaitsForGpu, WaitsForGpu, Stopped, WaitsForGpu];
    let (mut host, _) = host_of(&all);
    host.writer.add_label("gpu.clock_error_ns", "0");
    // None can be put into a process that is stopped.
    host.writer.add_label("note", "GPU work of process 102 was not seen: it is stopped");
    assert_eq!(found(host)[0].blame.culprit_ranks, [2]);
    let (mut host, _) = host_of(&all);
    host.writer.add_label("gpu.clock_error_ns", "0");
    host.writer.add_label("note", "GPU work of process 101 was not seen: no CUPTI");
    assert!(found(host).is_empty());
}

#[test]
fn without_probes_on_calls_that_there_is_none_says_nothing() {
    let (mut host, _) = host_of(&[Spins, Spins, SLEEPS, Spins]);
    host.writer.add_label("probe.collectives", "missing: this kernel has no uprobes");
    assert!(found(host).is_empty());
}

#[test]
fn the_run_queue_of_a_rank_in_communication_is_no_finding() {
    let queued = |all: &[At]| -> Vec<String> {
        let findings = report(&host_of(all).0.capture());
        findings.into_iter().filter(|f| f.rule == "rank-run-queue").map(|f| f.device).collect()
    };
    assert_eq!(queued(&[Spins, Computes, SLEEPS, Spins]), ["rank-1"]);
    assert_eq!(queued(&[Computes, Moves, Computes, Moves]).len(), 4);
}
