//! Where a CPU rank's time goes: one small made-up host for each rule, every nanosecond known.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::Capture;
use stallscope_core::ledger::cpu::causes::{CpuAmount, CpuCause};
use stallscope_core::ledger::{CpuLeaf, CpuLedger, CpuSums, Options, cpu_ledgers};
use stallscope_core::rows::Connection;
use stallscope_core::weights;
use stallscope_schemas::record::{
    CollectiveLibrary, CollectiveOp, ObjectKind, WaitKind, call_flags, wait_flags,
};
use stallscope_schemas::units::{ProcessId, ThreadId, TimeNs};

/// A rank with a main thread that is followed from 0 to 1000.
fn rank() -> (Host, ProcessId, ThreadId) {
    let mut host = Host::new();
    let process = host.process(10, "python", Some(2));
    host.rank("rank 2", &[process]);
    let main = host.thread(process, 10, "main", 0, 1000);
    (host, process, main)
}

fn ledger(host: Host) -> CpuLedger {
    of(&host.capture())
}

fn of(capture: &Capture<Vec<u8>>) -> CpuLedger {
    cpu_ledgers(capture, Options::default()).unwrap().remove(0)
}

/// The leaves that have time.
fn leaves(sums: &CpuSums) -> Vec<(CpuLeaf, u64)> {
    CpuLeaf::ALL.iter().map(|&l| (l, sums.get(l))).filter(|(_, ns)| *ns > 0).collect()
}

fn text(capture: &Capture<Vec<u8>>, cause: &CpuCause) -> (String, String) {
    let tables = capture.tables();
    (tables.string(cause.call).to_owned(), tables.string(cause.object).to_owned())
}

fn largest(ledger: &CpuLedger, root: CpuLeaf) -> (CpuCause, CpuAmount) {
    ledger.causes.ranked().into_iter().find(|(c, _)| c.root == root).unwrap()
}

#[test]
fn each_kind_of_wait_has_its_leaf() {
    type Case = (&'static str, ObjectKind, WaitKind, CpuLeaf);
    let cases: &[Case] = &[
        ("futex", ObjectKind::Futex, WaitKind::Syscall, CpuLeaf::Lock),
        ("read", ObjectKind::File, WaitKind::Syscall, CpuLeaf::BlockIo),
        ("fsync", ObjectKind::None, WaitKind::Syscall, CpuLeaf::BlockIo),
        ("openat", ObjectKind::None, WaitKind::Syscall, CpuLeaf::BlockIo),
        ("recvfrom", ObjectKind::TcpSocket, WaitKind::Syscall, CpuLeaf::Network),
        ("read", ObjectKind::Pipe, WaitKind::Syscall, CpuLeaf::Ipc),
        ("recvmsg", ObjectKind::UnixSocket, WaitKind::Syscall, CpuLeaf::Ipc),
        ("clock_nanosleep", ObjectKind::None, WaitKind::Syscall, CpuLeaf::Sleep),
        ("read", ObjectKind::Timer, WaitKind::Syscall, CpuLeaf::Sleep),
        ("wait4", ObjectKind::None, WaitKind::Syscall, CpuLeaf::Syscall),
        ("ioctl", ObjectKind::CharDevice, WaitKind::Syscall, CpuLeaf::Syscall),
        ("", ObjectKind::None, WaitKind::PageFault, CpuLeaf::PageFault),
        ("", ObjectKind::None, WaitKind::Stopped, CpuLeaf::Stopped),
        ("", ObjectKind::None, WaitKind::Unknown, CpuLeaf::Unknown),
        ("", ObjectKind::None, WaitKind::Kernel, CpuLeaf::Syscall),
        ("", ObjectKind::None, WaitKind::Preempted, CpuLeaf::RunQueue),
        ("", ObjectKind::None, WaitKind::Throttled, CpuLeaf::Throttled),
    ];
    for &(call, object_kind, kind, leaf) in cases {
        let (mut host, _, main) = rank();
        host.wait(main, 100, 300, call, |w, _| {
            (w.object_kind, w.kind) = (object_kind, kind);
        });
        let ledger = ledger(host);
        assert_eq!(ledger.wall_ns, 1000);
        assert_eq!(leaves(&ledger.direct), [(CpuLeaf::Compute, 800), (leaf, 200)], "{call} {kind:?}");
        assert_eq!(ledger.root, ledger.direct, "nobody else is to blame");
    }
}

#[test]
fn the_end_of_a_wait_is_run_queue_and_names_who_ran() {
    let (mut host, process, main) = rank();
    let other = host.outsider(process, 99, "hog");
    host.wait(main, 100, 300, "futex", |w, _| (w.run_queue_ns, w.preemptor) = (50, Some(other)));
    let ledger = ledger(host);
    assert_eq!(
        leaves(&ledger.direct),
        [(CpuLeaf::Compute, 800), (CpuLeaf::RunQueue, 50), (CpuLeaf::Lock, 150)]
    );
    assert_eq!(largest(&ledger, CpuLeaf::RunQueue).0.preemptor, Some(other));
}

#[test]
fn a_socket_to_a_process_on_this_host_is_no_network() {
    let (mut host, process, main) = rank();
    host.wait(main, 100, 300, "recvfrom", |w, _| {
        (w.object_kind, w.peer) = (ObjectKind::TcpSocket, Some(process));
    });
    assert_eq!(ledger(host).direct.get(CpuLeaf::Ipc), 200);
}

#[test]
fn what_ends_a_poll_says_what_it_waited_for() {
    // Timed out; ended by a thread of the job; by an interrupt in a process with connections; by an interrupt otherwise.
    for (case, leaf) in [CpuLeaf::Sleep, CpuLeaf::Ipc, CpuLeaf::Network, CpuLeaf::Syscall].iter().enumerate()
    {
        let (mut host, process, main) = rank();
        let worker = host.thread(process, 11, "worker", 0, 1000);
        host.wait(main, 100, 300, "epoll_wait", |w, _| {
            w.object_kind = ObjectKind::Epoll;
            w.flags = wait_flags::RETURNED | wait_flags::IRQ_WAKER;
            w.result = 1;
            match case {
                0 => w.result = 0,
                1 => (w.flags, w.waker) = (wait_flags::RETURNED, Some(worker)),
                _ => {}
            }
        });
        if case == 2 {
            let name = host.writer.intern("10.0.0.1:5 → 10.0.0.2:6");
            let row = Connection {
                start: TimeNs(0),
                duration_ns: 1000,
                name,
                sent_bytes: 1,
                received_bytes: 1,
                retransmits: 0,
                rtt_ns: 1,
                segments: 1,
                delivery_rate: 0,
            };
            host.writer.push_connection(process, row).unwrap();
        }
        assert_eq!(ledger(host).direct.get(*leaf), 200, "case {case}");
    }
}

#[test]
fn a_stretch_of_short_preemptions_is_cut_without_rounding_loss() {
    let (mut host, _, main) = rank();
    // 7 of 100 ns in the run queue; a wait covers 10 of them, a collective begins and ends at odd places.
    host.preempt(main, 100, 200, 7, None);
    host.wait(main, 120, 130, "futex", |_, _| {});
    host.call(main, 133, 151, "MPI_Allreduce", CollectiveLibrary::Mpi);
    let ledger = ledger(host);
    assert_eq!(ledger.direct.get(CpuLeaf::RunQueue), 7);
    assert_eq!(ledger.direct.get(CpuLeaf::Lock), 10);
    assert_eq!(ledger.direct.total(), 1000);
    let in_call = ledger.direct.get(CpuLeaf::CommOnCpu);
    assert!((16..=18).contains(&in_call), "{in_call}");
    let queued: Vec<_> =
        ledger.causes.ranked().into_iter().filter(|(c, _)| c.root == CpuLeaf::RunQueue).collect();
    assert_eq!(queued.len(), 2, "outside and inside of the collective");
    assert_eq!(queued.iter().map(|(_, a)| a.ns).sum::<u64>(), 7);
    assert!(queued.iter().all(|(_, a)| a.count == 3), "the record says three times, however it is cut");
}

#[test]
fn lost_time_is_unknown_whatever_else_is_recorded() {
    let (mut host, _, main) = rank();
    host.wait(main, 100, 300, "futex", |_, _| {});
    host.lose(main, 200, 400);
    let ledger = ledger(host);
    assert_eq!(
        leaves(&ledger.direct),
        [(CpuLeaf::Compute, 700), (CpuLeaf::Lock, 100), (CpuLeaf::Unknown, 200)]
    );
}

#[test]
fn inside_a_collective_time_is_on_cpu_or_blocked() {
    let (mut host, _, main) = rank();
    host.call(main, 100, 500, "MPI_Allreduce", CollectiveLibrary::Mpi);
    host.on(main, 200, 300, "recvfrom", ObjectKind::TcpSocket, "peer");
    host.preempt(main, 300, 350, 50, None);
    let capture = host.capture();
    let ledger = of(&capture);
    assert_eq!(
        leaves(&ledger.direct),
        [
            (CpuLeaf::Compute, 600),
            (CpuLeaf::CommOnCpu, 250),
            (CpuLeaf::CommBlocked, 100),
            (CpuLeaf::RunQueue, 50)
        ]
    );
    let (kind, tally) = ledger.calls.ranked().remove(0);
    assert_eq!(capture.tables().string(kind.name), "MPI_Allreduce");
    assert_eq!((tally.calls, tally.bytes, tally.ns), (1, 4096, 400));
    assert_eq!((tally.on_cpu_ns, tally.blocked_ns), (250, 100));
    assert_eq!(tally.lengths.percentile(50), Some(400));
}

#[test]
fn a_call_whose_return_was_not_seen_ends_with_the_next_one() {
    let (mut host, _, main) = rank();
    host.call(main, 100, 1000, "MPI_Allreduce", CollectiveLibrary::Mpi);
    let mut host = reopened(host, |row| row.flags = call_flags::OPEN);
    host.call(main, 300, 400, "MPI_Barrier", CollectiveLibrary::Mpi);
    assert_eq!(ledger(host).direct.get(CpuLeaf::CommOnCpu), 300);
}

/// The same host with its collective calls changed.
fn reopened(host: Host, change: impl Fn(&mut stallscope_core::rows::CollectiveCall)) -> Host {
    let before = host.capture();
    let (mut again, _, main) = rank();
    for name in ["MPI_Allreduce", "world"] {
        again.writer.intern(name);
    }
    for mut row in before.rows::<stallscope_core::rows::CollectiveCall>(main.0) {
        change(&mut row);
        again.writer.push_collective_call(main, row).unwrap();
    }
    again
}

/// A waits in a pipe for the feeder of a worker; the feeder waits for the worker's main thread, which reads a slow file.
fn loader() -> (Host, ThreadId, ThreadId, ThreadId) {
    let mut host = Host::new();
    let process = host.process(10, "python", Some(2));
    let worker = host.helper(20, "pt_data_worker");
    host.rank("rank 2", &[process, worker]);
    let main = host.thread(process, 10, "MainThread", 0, 1000);
    let reader = host.thread(worker, 20, "pt_data_worker", 0, 1000);
    let feeder = host.thread(worker, 21, "QueueFeeder", 0, 1000);
    let at = host.stack(&["train.py(10): main", "dataloader.py(631): __next__"]);
    host.wait(main, 100, 700, "read", |w, _| {
        (w.object_kind, w.waker, w.stack) = (ObjectKind::Pipe, Some(feeder), at);
    });
    host.woken(feeder, 0, 690, "futex", reader);
    let open = host.stack(&["data.py(42): read_sample"]);
    host.wait(reader, 150, 650, "read", |w, host| {
        (w.object_kind, w.stack) = (ObjectKind::File, open);
        w.object = host.writer.intern("/data/shard-0017");
        w.flags = wait_flags::IRQ_WAKER;
    });
    (host, main, reader, feeder)
}

#[test]
fn a_wait_for_a_worker_is_charged_to_what_the_worker_did() {
    let (host, main, reader, feeder) = loader();
    let capture = host.capture();
    let ledger = of(&capture);
    assert_eq!(leaves(&ledger.direct), [(CpuLeaf::Compute, 400), (CpuLeaf::Ipc, 600)]);
    // The worker read from 150 to 650, ran from 100 to 150 and from 650 to 690; then the feeder ran for 10.
    assert_eq!(leaves(&ledger.root), [(CpuLeaf::Compute, 500), (CpuLeaf::BlockIo, 500)]);
    let (cause, amount) = largest(&ledger, CpuLeaf::BlockIo);
    assert_eq!((cause.thread, cause.direct, amount.ns, amount.count), (main, CpuLeaf::Ipc, 500, 1));
    assert_eq!(text(&capture, &cause), ("read".to_owned(), "/data/shard-0017".to_owned()));
    let names = |stack| {
        let tables = capture.tables();
        tables.stack_names(stack).iter().map(|&n| tables.string(n).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(cause.stack), ["data.py(42): read_sample"]);
    assert_eq!(names(cause.waiting_stack), ["train.py(10): main", "dataloader.py(631): __next__"]);
    let chain: Vec<ThreadId> = ledger.causes.chains.links(cause.chain).iter().map(|l| l.thread).collect();
    assert_eq!(chain, [feeder, reader]);
    let driving: Vec<_> = ledger.threads.iter().filter(|t| t.driving).map(|t| t.thread).collect();
    assert_eq!((driving, ledger.threads.len()), (vec![main], 3));
}

#[test]
fn a_waker_that_waited_for_us_is_not_to_blame() {
    let (mut host, process, main) = rank();
    let worker = host.thread(process, 11, "worker", 0, 1000);
    host.woken(main, 100, 300, "futex", worker);
    host.woken(worker, 150, 250, "futex", main);
    let ledger = ledger(host);
    assert_eq!(leaves(&ledger.direct), [(CpuLeaf::Compute, 800), (CpuLeaf::Lock, 200)]);
    // The worker ran from 100 to 150 and from 250 to 300.
    assert_eq!(leaves(&ledger.root), [(CpuLeaf::Compute, 900), (CpuLeaf::Lock, 100)]);
    assert!(ledger.causes.chains.links(largest(&ledger, CpuLeaf::Lock).0.chain).is_empty());
}

#[test]
fn a_wait_that_nobody_of_the_job_ended_keeps_its_leaf() {
    let (mut host, process, main) = rank();
    let stranger = host.process(77, "sshd", None);
    let other = host.thread(stranger, 77, "sshd", 0, 1000);
    let unfollowed = host.outsider(process, 12, "late");
    let late = host.thread(process, 13, "born-late", 250, 1000);
    host.woken(main, 0, 100, "futex", other);
    host.woken(main, 100, 200, "futex", unfollowed);
    host.woken(main, 200, 300, "futex", late);
    host.woken(main, 300, 400, "futex", main);
    host.wait(main, 400, 500, "futex", |w, _| {
        (w.waker, w.flags) = (Some(late), wait_flags::IRQ_WAKER);
    });
    let ledger = ledger(host);
    assert_eq!(ledger.direct.get(CpuLeaf::Lock), 500);
    assert_eq!(ledger.root.get(CpuLeaf::Lock), 450, "but for the half in which its waker was there");
}

#[test]
fn a_chain_ends_after_eight_threads() {
    let (mut host, process, main) = rank();
    let chain: Vec<ThreadId> =
        (0..10i64).map(|i| host.thread(process, 20 + i, &format!("t{i}"), 0, 1000)).collect();
    host.woken(main, 100, 900, "futex", chain[0]);
    for pair in chain.windows(2) {
        host.woken(pair[0], 100, 900, "futex", pair[1]);
    }
    let ledger = ledger(host);
    assert_eq!(leaves(&ledger.root), [(CpuLeaf::Compute, 200), (CpuLeaf::Lock, 800)]);
    let (cause, _) = largest(&ledger, CpuLeaf::Lock);
    let links: Vec<ThreadId> = ledger.causes.chains.links(cause.chain).iter().map(|l| l.thread).collect();
    assert_eq!(links, chain[..8]);
}

#[test]
fn a_waker_whose_records_are_lost_leaves_the_root_unknown() {
    let (mut host, process, main) = rank();
    let worker = host.thread(process, 11, "worker", 0, 1000);
    host.woken(main, 100, 300, "futex", worker);
    host.lose(worker, 200, 250);
    let ledger = ledger(host);
    assert_eq!(ledger.direct.get(CpuLeaf::Unknown), 0);
    assert_eq!(leaves(&ledger.root), [(CpuLeaf::Compute, 950), (CpuLeaf::Unknown, 50)]);
}

#[test]
fn transport_threads_are_seen_through_inside_a_collective() {
    let (mut host, process, main) = rank();
    let transport = host.thread(process, 11, "gloo", 0, 1000);
    host.call(main, 100, 900, "c10d::allreduce", CollectiveLibrary::C10d);
    host.call(transport, 150, 850, "gloo::allreduce", CollectiveLibrary::Gloo);
    host.woken(main, 110, 890, "futex", transport);
    host.on(transport, 200, 500, "recvfrom", ObjectKind::TcpSocket, "peer");
    host.on(transport, 860, 880, "read", ObjectKind::File, "/tmp/x");
    host.preempt(transport, 600, 700, 100, None);
    let ledger = ledger(host);
    assert_eq!(ledger.threads.iter().filter(|t| t.driving).count(), 1, "an inner layer does not drive");
    assert_eq!(
        leaves(&ledger.direct),
        [(CpuLeaf::Compute, 200), (CpuLeaf::CommOnCpu, 20), (CpuLeaf::CommBlocked, 780)]
    );
    assert_eq!(
        leaves(&ledger.root),
        [
            (CpuLeaf::Compute, 200),
            (CpuLeaf::CommOnCpu, 380),
            (CpuLeaf::CommBlocked, 300),
            (CpuLeaf::RunQueue, 100),
            (CpuLeaf::BlockIo, 20)
        ]
    );
}

#[test]
fn threads_that_enter_collectives_drive_and_making_a_communicator_is_none() {
    let (mut host, process, main) = rank();
    let second = host.thread(process, 11, "second", 0, 500);
    let maker = host.thread(process, 12, "maker", 0, 1000);
    host.call(second, 10, 20, "MPI_Allreduce", CollectiveLibrary::Mpi);
    host.call(main, 10, 20, "MPI_Allreduce", CollectiveLibrary::Mpi);
    host.call_of(maker, 10, 20, "MPI_Init", CollectiveLibrary::Mpi, CollectiveOp::Init, "", 0);
    let ledger = ledger(host);
    assert_eq!(ledger.wall_ns, 1500, "of several driving threads the sum");
    let driving: Vec<_> = ledger.threads.iter().filter(|t| t.driving).map(|t| t.thread).collect();
    assert_eq!(driving, [main, second]);
}

#[test]
fn samples_name_what_ran_in_the_thread_and_in_its_wakers() {
    let (mut host, process, main) = rank();
    let worker = host.thread(process, 11, "worker", 0, 1000);
    host.woken(main, 100, 500, "futex", worker);
    let (step, decode) = (host.stack(&["train.py(7): step"]), host.stack(&["jpeg.c(9): decode"]));
    host.sample(main, 50, 60, step);
    host.sample(worker, 300, 100, decode);
    host.sample(worker, 700, 100, decode);
    let ledger = ledger(host);
    let ranked = ledger.causes.ranked();
    let of = |direct, stack| -> u64 {
        ranked.iter().filter(|(c, _)| c.direct == direct && c.stack == stack).map(|(_, a)| a.ns).sum()
    };
    assert_eq!(of(CpuLeaf::Compute, step), 60);
    assert_eq!(of(CpuLeaf::Compute, stallscope_schemas::units::StackId(0)), 540);
    assert_eq!(of(CpuLeaf::Lock, decode), 100, "the sample at 700 fell into nobody's wait");
}

#[test]
fn widths_of_flamegraphs_are_the_ledgers_times() {
    let (mut host, main, ..) = loader();
    let step = host.stack(&["train.py(7): step"]);
    host.sample(main, 800, 50, step);
    host.preempt(main, 900, 950, 20, None);
    let capture = host.capture();
    let tables = capture.tables();
    let ledger = of(&capture);
    let all = |pick: &dyn Fn(CpuLeaf) -> bool| -> u64 {
        let leaves = || CpuLeaf::ALL.iter().copied().filter(|&l| pick(l));
        ledger.threads.iter().flat_map(|t| leaves().map(|l| t.direct.get(l))).sum()
    };
    let cpu = weights::cpu(&capture);
    assert_eq!(cpu.total_ns(), all(&CpuLeaf::is_on_cpu));
    assert!(cpu.iter().any(|(frames, ns)| frames.last().unwrap() == "train.py(7): step" && ns == 50));
    let off = weights::off_cpu(&capture);
    assert_eq!(off.total_ns(), all(&|l| !l.is_on_cpu() && l != CpuLeaf::Unknown));
    assert!(off.iter().any(|(frames, ns)| {
        frames.ends_with(&["data.py(42): read_sample".to_owned(), "[read] /data/shard-0017".to_owned()])
            && ns == 500
    }));
    let options = Options { waker_stacks: true, ..Options::default() };
    let wait = weights::wait(&cpu_ledgers(&capture, options).unwrap(), tables);
    let blocked: u64 = CpuLeaf::ALL.iter().filter(|l| l.is_blocked()).map(|&l| ledger.direct.get(l)).sum();
    assert_eq!(wait.total_ns(), blocked);
    let (frames, _) = wait.iter().max_by_key(|(_, ns)| *ns).unwrap();
    assert_eq!(
        frames[2..],
        [
            "train.py(10): main",
            "dataloader.py(631): __next__",
            "[read]",
            "woken by",
            "rank 2 · process 20 · thread 21 QueueFeeder",
            "woken by",
            "rank 2 · process 20 · thread 20 pt_data_worker",
        ]
    );
}

/// CPython asks for its interpreter lock every 5 ms; only the last time the holder is who ends the wait.
#[test]
fn a_lock_that_is_asked_for_again_and_again_is_held_by_who_lets_it_go_at_last() {
    let of = |pause: i64, last_runs_out: bool| {
        let (mut host, process, main) = rank();
        let holder = host.thread(process, 11, "holder", 0, 1000);
        let mut ask = |from: i64, to: i64, runs_out: bool| {
            host.wait(main, from, to, "futex", |wait, _| {
                wait.object_kind = ObjectKind::Futex;
                wait.flags = wait_flags::RETURNED;
                if runs_out {
                    wait.result = -110;
                    wait.flags |= wait_flags::IRQ_WAKER;
                } else {
                    wait.waker = Some(holder);
                }
            });
        };
        ask(100, 200, true);
        ask(201, 300, true);
        ask(300 + pause, 350 + pause, last_runs_out);
        host.wait(holder, 50, 340, "clock_nanosleep", |_, _| {});
        leaves(&ledger(host).root)
    };
    // Asleep with it until 340, then 10 on a CPU until it lets it go; main ran 100 before, 1 between, 650 after.
    assert_eq!(of(0, false), [(CpuLeaf::Compute, 100 + 1 + 10 + 650), (CpuLeaf::Sleep, 239)]);
    // Nobody has let it go yet.
    assert_eq!(of(0, true), [(CpuLeaf::Compute, 751), (CpuLeaf::Lock, 249)]);
}
