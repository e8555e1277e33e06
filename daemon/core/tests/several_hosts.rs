//! One job on two hosts, a capture each: what is read together, what is refused, and what clocks that are not the same leave
//! of the waits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use proptest::prelude::{any, proptest};
use stallscope_core::capture::{
    Capture, CaptureWriter, Clock, Device, Process, Source, Thread, WriterOptions,
};
use stallscope_core::ledger::{CommLeaf, DeviceLedger, Ledgers, Options, all_ledgers};
use stallscope_core::merge::{Refusal, merge};
use stallscope_core::report::{Report, render};
use stallscope_core::rows::{Collective, GpuOp, Launch, ThreadSpan, ThreadWait};
use stallscope_schemas::record::{CopyKind, ObjectKind, OpKind, RecordKind, WaitKind};
use stallscope_schemas::units::{CorrelationId, DeviceId, StackId, TimeNs};

const US: i64 = 1_000;
const MS: i64 = 1_000_000;
const S: i64 = 1_000_000_000;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// A kernel of a rank in true time.
#[derive(Clone, Copy)]
struct Kernel {
    rank: u32,
    name: &'static str,
    start: i64,
    end: i64,
}

const ALL_REDUCE: &str = "ncclDevKernel_AllReduce_Sum_f32_RING_LL";

/// A job of four ranks: each step a computation, one all-reduce for which rank 2 is late by `late` in every third step, and
/// two for which nobody is.
struct Job {
    kernels: Vec<Kernel>,
    /// Time that each rank waited for others.
    waited: [i64; 4],
}

fn job(steps: i64, late: i64) -> Job {
    let (mut dice, mut kernels, mut waited) = (Dice(7), Vec::new(), [0; 4]);
    let mut at = S;
    for step in 0..steps {
        let length = 8 * MS + dice.roll(4 * MS);
        let mut came: [i64; 4] = std::array::from_fn(|_| at + length + dice.roll(200 * US));
        if step % 3 == 0 {
            came[2] += late;
        }
        for rank in 0..4u32 {
            kernels.push(Kernel { rank, name: "gemm", start: at, end: came[rank as usize] - 5 * US });
        }
        for _ in 0..3 {
            let last = *came.iter().max().unwrap();
            let transfer = 100 * US + dice.roll(20 * US);
            for rank in 0..4u32 {
                let own = &mut came[rank as usize];
                waited[rank as usize] += last - *own;
                let end = last + transfer + dice.roll(3 * US);
                kernels.push(Kernel { rank, name: ALL_REDUCE, start: *own, end });
                *own = end + 10 * US + dice.roll(20 * US);
            }
        }
        at = came.into_iter().max().unwrap() + 50 * US;
    }
    Job { kernels, waited }
}

/// How a host is recorded.
#[derive(Clone)]
struct Host {
    name: &'static str,
    boot: &'static str,
    ranks: Vec<u32>,
    world: u32,
    job: &'static str,
    /// Name of the communicator, where it is known.
    group: Option<&'static str>,
    /// Added to true time.
    clock: fn(i64) -> i64,
}

fn host(name: &'static str, ranks: &[u32], clock: fn(i64) -> i64) -> Host {
    Host { name, boot: "", ranks: ranks.to_vec(), world: 4, job: "train.py", group: None, clock }
}

fn capture(job: &Job, host: &Host) -> Capture<Vec<u8>> {
    Capture::open(bytes(job, host)).unwrap()
}

fn bytes(job: &Job, host: &Host) -> Vec<u8> {
    let options =
        WriterOptions { host: host.name.into(), boot_id: host.boot.into(), ..WriterOptions::default() };
    let mut writer = CaptureWriter::new(Vec::new(), options).unwrap();
    let source = writer.add_source(Source { path: host.name.into(), format: "recording".into() });
    writer.set_clock(Clock { source, offset_ns: 0, error_ns: 100, note: String::new() });
    writer.add_label("gpu.clock_error_ns", "500");
    // Names and stacks stand at other places in each file.
    let others = host.name.bytes().map(u32::from).sum::<u32>() % 7;
    let main = writer.intern(&format!("main of {}", host.name));
    let mut stack = writer.intern_frame(StackId(0), main);
    for number in 0..others {
        let name = writer.intern(&format!("{} {number}", host.name));
        stack = writer.intern_frame(StackId(0), name);
    }
    for &rank in &host.ranks {
        let process = writer.add_process(Process {
            source,
            pid: 100 + i64::from(rank),
            name: "python".into(),
            rank: Some(rank),
            world_size: Some(host.world),
            host: host.name.into(),
            job: host.job.into(),
        });
        let thread = writer.add_thread(Thread { process, tid: 100 + i64::from(rank), name: "main".into() });
        let id = format!("GPU-{rank}");
        let device = writer.add_device(Device { source, id, processes: vec![process], ..Device::default() });
        let tell = |at: i64| TimeNs((host.clock)(at));
        let launch_name = writer.intern("cuLaunchKernel");
        let mut kernels: Vec<&Kernel> = job.kernels.iter().filter(|k| k.rank == rank).collect();
        kernels.sort_by_key(|kernel| tell(kernel.start));
        let (first, last) = (kernels[0], kernels[kernels.len() - 1]);
        let span = ThreadSpan {
            start: tell(first.start - MS),
            duration_ns: tell(last.end).since(tell(first.start - MS)),
        };
        writer.push_thread_span(thread, span).unwrap();
        let wait = ThreadWait {
            start: span.start,
            duration_ns: 1000,
            run_queue_ns: 0,
            kind: WaitKind::Syscall,
            call: writer.intern("read"),
            object_kind: ObjectKind::File,
            object: writer.intern(&format!("/data/{rank}")),
            waker: Some(thread),
            waker_stack: StackId(0),
            stack,
            preemptor: None,
            flags: 0,
            result: 0,
            peer: Some(process),
        };
        writer.push_thread_wait(thread, wait).unwrap();
        for (number, kernel) in (1u64..).zip(kernels) {
            let start = tell(kernel.start);
            let duration_ns = tell(kernel.end).since(start);
            let name = writer.intern(kernel.name);
            let correlation = CorrelationId(number);
            let at = tell(kernel.start - 4 * US);
            let launch = Launch { thread, start: at, duration_ns: 2000, name: launch_name };
            let op = GpuOp {
                start,
                duration_ns,
                name,
                stream: if kernel.name == ALL_REDUCE { 20 } else { 7 },
                kind: OpKind::Kernel,
                flags: 0,
                correlation,
                bytes: 0,
                copy_kind: CopyKind::Unknown,
                launch: Some(launch),
            };
            writer.push_gpu_op(device, op).unwrap();
            if let Some(group) = host.group.filter(|_| kernel.name == ALL_REDUCE) {
                let name = writer.intern("allreduce");
                let group = writer.intern(group);
                let row = Collective {
                    start,
                    duration_ns,
                    name,
                    bytes: 4096,
                    group,
                    group_size: u64::from(host.world),
                    sequence: None,
                    correlation,
                };
                writer.push_collective(device, row).unwrap();
            }
        }
    }
    writer.finish().unwrap().0
}

fn merged(job: &Job, hosts: &[Host]) -> Result<Capture<Vec<u8>>, Refusal> {
    let all = hosts.iter().map(|host| (format!("{}.stall", host.name), capture(job, host))).collect();
    merge(all).map(Option::unwrap)
}

fn ledgers(capture: &Capture<Vec<u8>>) -> Vec<DeviceLedger> {
    all_ledgers(capture, Options::default()).unwrap()
}

/// Each rank's wait and what may be a wait.
fn waits(capture: &Capture<Vec<u8>>) -> Vec<(i64, i64)> {
    let ns = |ns: u64| ns.cast_signed();
    ledgers(capture)
        .iter()
        .map(|l| (ns(l.sums.comm(CommLeaf::Wait)), ns(l.sums.comm(CommLeaf::Uncertain))))
        .collect()
}

fn notes(capture: &Capture<Vec<u8>>) -> String {
    let report = Report::build(capture, &Ledgers::of(capture, Options::default()).unwrap());
    report.capture.notes.join("\n")
}

/// What was waited lies between what is certain and what may be; and the most of it is certain.
fn assert_true(job: &Job, capture: &Capture<Vec<u8>>, certain_share: f64) {
    for (rank, (wait, uncertain)) in waits(capture).into_iter().enumerate() {
        let truth = job.waited[rank];
        let slack = 300 * US;
        assert!(wait <= truth + slack, "rank {rank}: {wait} ns of {truth}");
        assert!(wait + uncertain + slack >= truth, "rank {rank}: {wait} + {uncertain} ns of {truth}");
        if truth > 50 * MS {
            assert!(wait as f64 >= certain_share * truth as f64, "rank {rank}: {wait} ns of {truth}");
        }
    }
}

fn exact(at: i64) -> i64 {
    at
}

#[test]
fn a_late_rank_on_another_host_is_waited_for_within_the_error_of_the_clocks() {
    let job = job(300, 5 * MS);
    for clock in [
        exact as fn(i64) -> i64,
        |at| at + 3 * MS,
        |at| at - 700 * MS,
        |at| at + 3 * MS + at / 1_000_000 * 30,
        |at| at - 2 * MS - at / 1_000_000 * 60,
    ] {
        for group in [None, Some("nccl:00000000c0ffee00")] {
            let hosts =
                [Host { group, ..host("a", &[0, 1], exact) }, Host { group, ..host("b", &[2, 3], clock) }];
            let capture = merged(&job, &hosts).unwrap();
            assert_true(&job, &capture, 0.9);
            let all = ledgers(&capture);
            // Two hundred of three hundred steps have no late rank; the rest is charged to rank 2.
            let for_rank_2 = |l: &DeviceLedger| {
                let of = l.root.waits.iter().filter(|(w, _)| w.culprit() == Some(DeviceId(2)));
                of.map(|(_, amount)| amount.ns).sum::<u64>()
            };
            assert!(for_rank_2(&all[0]) > 400_000_000, "{}", for_rank_2(&all[0]));
            assert!(for_rank_2(&all[2]) == 0);
            assert!(notes(&capture).contains("the clock of b is "), "{}", notes(&capture));
        }
    }
}

#[test]
fn a_clock_that_was_set_in_between_costs_no_truth() {
    let job = job(300, 5 * MS);
    let steps = |at: i64| if at < 2 * S { at + MS } else { at + 41 * MS };
    let capture = merged(&job, &[host("a", &[0, 1], exact), host("b", &[2, 3], steps)]).unwrap();
    println!("{}\n{:?} {:?}", notes(&capture), waits(&capture), job.waited);
    assert_true(&job, &capture, 0.8);
    assert!(notes(&capture).contains("it was set 1 time meanwhile"), "{}", notes(&capture));
}

#[test]
fn where_clocks_cannot_be_told_from_a_late_rank_time_is_uncertain() {
    // Every all-reduce waits for host b, and by as much as its clock may be off.
    let mut job = job(300, 0);
    for kernel in job.kernels.iter_mut().filter(|k| k.name == ALL_REDUCE && k.rank < 2) {
        kernel.start -= 4 * MS;
    }
    job.kernels.retain(|kernel| kernel.name == ALL_REDUCE);
    // One all-reduce a step: those behind it would overlap.
    let mut seen = [0u32; 4];
    job.kernels.retain(|kernel| {
        seen[kernel.rank as usize] += 1;
        seen[kernel.rank as usize] % 3 == 1
    });
    let capture = merged(&job, &[host("a", &[0, 1], exact), host("b", &[2, 3], |at| at - 2 * MS)]).unwrap();
    for (rank, (wait, uncertain)) in waits(&capture).into_iter().enumerate() {
        // Of 4 ms each, 2 could as well be the clock.
        let most = if rank < 2 { 300 * 23 * MS / 10 } else { 300 * 300 * US };
        assert!(wait <= most, "rank {rank}: {wait}");
        assert!(rank >= 2 || wait + uncertain >= 300 * 4 * MS, "rank {rank}: {wait} + {uncertain}");
    }
}

#[test]
fn a_program_as_regular_as_a_clock_is_compared_only_where_the_clocks_say_how() {
    // Every 10 ms the same; by the collectives alone host b may be off by any number of steps.
    let mut kernels = Vec::new();
    for step in 0..300 {
        let at = S + step * 10 * MS;
        for rank in 0..4 {
            kernels.push(Kernel { rank, name: ALL_REDUCE, start: at, end: at + 200 * US });
        }
    }
    let job = Job { kernels, waited: [0; 4] };
    let near = merged(&job, &[host("a", &[0, 1], exact), host("b", &[2, 3], |at| at + MS)]).unwrap();
    assert!(notes(&near).contains("the clock of b is 1.0 ms ahead of"), "{}", notes(&near));
    assert_true(&job, &near, 0.0);
    let far = merged(&job, &[host("a", &[0, 1], exact), host("b", &[2, 3], |at| at + 4 * MS)]).unwrap();
    assert!(notes(&far).contains("b has no collectives in common"), "{}", notes(&far));
    assert!(
        waits(&far).iter().all(|(wait, uncertain)| *wait < MS && *uncertain < 2 * MS),
        "{:?}",
        waits(&far)
    );
}

#[test]
fn captures_of_one_host_have_one_clock() {
    let job = job(100, 5 * MS);
    let of = |name, ranks: &[u32], clock| Host { boot: "5f3c", ..host(name, ranks, clock) };
    let capture = merged(&job, &[of("a", &[0, 1], exact), of("b", &[2, 3], exact)]).unwrap();
    assert_true(&job, &capture, 0.95);
    assert!(notes(&capture).contains("they have one clock"), "{}", notes(&capture));
}

#[test]
fn what_does_not_belong_together_is_refused_with_the_reason() {
    let job = job(50, MS);
    let (a, b) = (host("a", &[0, 1], exact), host("b", &[2, 3], exact));
    let refused =
        |one: &Host, other: &Host| merged(&job, &[one.clone(), other.clone()]).unwrap_err().to_string();
    let twice = refused(&a, &host("b", &[1, 2], exact));
    assert!(twice.contains("a.stall and b.stall both hold rank 1"), "{twice}");
    let other = refused(&a, &Host { job: "serve.py", ..b.clone() });
    assert!(other.contains("different jobs") && other.contains("train.py and serve.py"), "{other}");
    let size = refused(&a, &Host { world: 8, ..b.clone() });
    assert!(size.contains("one has 4 ranks, the other 8"), "{size}");
    let (c0, fee) = (Some("nccl:00000000000000c0"), Some("nccl:00000000000000fe"));
    let communicator = refused(&Host { group: c0, ..a.clone() }, &Host { group: fee, ..b.clone() });
    assert!(communicator.contains("communicators of all ranks are not the same"), "{communicator}");
    let apart = refused(&a, &host("b", &[2, 3], |at| at + 3600 * S));
    assert!(apart.contains("were not recorded at the same time") && apart.contains("3599 s"), "{apart}");
    // What one job is called by two hosts is the same where the communicator is.
    let named = Host { job: "launch", group: c0, ..b.clone() };
    let capture = merged(&job, &[Host { group: c0, ..a.clone() }, named]).unwrap();
    assert!(capture.tables().processes().iter().all(|process| process.job == "train.py"));
    assert_true(&job, &capture, 0.0);
}

#[test]
fn a_rank_that_is_in_no_capture_is_said_and_what_may_be_for_it_is_not_split() {
    let job = job(100, 5 * MS);
    let capture = merged(&job, &[host("a", &[0, 1], exact), host("b", &[3], exact)]).unwrap();
    assert!(notes(&capture).contains("rank 2 of 4 is in none of the captures"), "{}", notes(&capture));
    let all = ledgers(&capture);
    assert!(all.iter().all(|l| l.sums.comm(CommLeaf::Floor) == 0 && l.sums.comm(CommLeaf::Unsplit) > 0));
}

#[test]
fn rows_name_what_they_named_in_their_own_file() {
    let job = job(3, 0);
    let (a, b) = (host("a", &[0, 1], exact), host("host-b", &[2, 3], exact));
    let alone = [capture(&job, &a), capture(&job, &b)];
    let both = merged(&job, &[a, b]).unwrap();
    let waits = |capture: &Capture<Vec<u8>>| {
        let tables = capture.tables();
        let of = |key: u32| {
            let text = move |row: ThreadWait| {
                let stack: Vec<&str> =
                    tables.stack_names(row.stack).into_iter().map(|n| tables.string(n)).collect();
                let (waker, peer) = (tables.thread(row.waker.unwrap()), tables.process(row.peer.unwrap()));
                let (tid, pid) = (waker.unwrap().tid, peer.unwrap().pid);
                format!("{} {} {stack:?} {tid} {pid}", tables.string(row.call), tables.string(row.object))
            };
            capture.rows::<ThreadWait>(key).map(text).collect::<Vec<_>>()
        };
        capture.keys(RecordKind::ThreadWait).into_iter().flat_map(of).collect::<Vec<_>>()
    };
    let kernels = |capture: &Capture<Vec<u8>>| {
        let tables = capture.tables();
        let of = |key: u32| {
            let device = &tables.device(DeviceId(key)).unwrap().id;
            let text = move |row: GpuOp| {
                let launch = row.launch.unwrap();
                let tid = tables.thread(launch.thread).unwrap().tid;
                format!("{device} {} {} {tid}", tables.string(row.name), tables.string(launch.name))
            };
            capture.rows::<GpuOp>(key).map(text).collect::<Vec<_>>()
        };
        capture.keys(RecordKind::GpuOp).into_iter().flat_map(of).collect::<Vec<_>>()
    };
    assert_eq!(waits(&both), alone.iter().flat_map(waits).collect::<Vec<_>>());
    assert_eq!(kernels(&both), alone.iter().flat_map(kernels).collect::<Vec<_>>());
    assert!(waits(&both)[3].starts_with("read /data/3 [\"host-b"), "{:?}", waits(&both));
}

#[test]
fn a_job_has_the_ledgers_of_its_devices_added_up() {
    let of_job = job(50, 5 * MS);
    let capture = merged(&of_job, &[host("a", &[0, 1], exact), host("b", &[2], exact)]).unwrap();
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    let report: serde_json::Value =
        serde_json::from_str(&Report::build(&capture, &ledgers).to_json().unwrap()).unwrap();
    let jobs = report["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1);
    let one = &jobs[0];
    assert_eq!((one["name"].as_str(), one["world_size"].as_u64()), (Some("train.py"), Some(4)));
    assert_eq!(
        (one["ranks"].to_string(), one["ranks_missing"].to_string()),
        ("[0,1,2]".into(), "[3]".into())
    );
    assert_eq!(one["hosts"].to_string(), r#"["a","b"]"#);
    let ledger = &one["ledgers"][0];
    let wall = ledger["wall_ns"].as_u64().unwrap();
    let devices = report["devices"].as_array().unwrap();
    assert_eq!(wall, devices.iter().map(|d| d["wall_ns"].as_u64().unwrap()).sum::<u64>());
    for leaves in ["direct", "root"] {
        let sum: u64 = ledger[leaves].as_object().unwrap().values().map(|ns| ns.as_u64().unwrap()).sum();
        assert_eq!(sum, wall, "{leaves}");
    }
    // Two jobs in one capture have a line each.
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let source = writer.add_source(Source::default());
    for (pid, name) in [(1, "train.py"), (2, "serve.py")] {
        let process = Process {
            source,
            pid,
            rank: Some(0),
            world_size: Some(1),
            job: name.into(),
            ..Process::default()
        };
        let process = writer.add_process(process);
        let device =
            Device { source, id: format!("GPU-{pid}"), processes: vec![process], ..Device::default() };
        let device = writer.add_device(device);
        let name = writer.intern("gemm");
        let op = GpuOp {
            start: TimeNs(0),
            duration_ns: 1000,
            name,
            stream: 0,
            kind: OpKind::Kernel,
            flags: 0,
            correlation: CorrelationId(0),
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: None,
        };
        writer.push_gpu_op(device, op).unwrap();
    }
    let capture = Capture::open(writer.finish().unwrap().0).unwrap();
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    for line in
        ["job serve.py · 1 of 1 ranks · 1.0 µs of GPU time, compute 100", "job train.py · 1 of 1 ranks"]
    {
        assert!(text.contains(line), "{text}");
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn ledgers_close_and_nothing_panics_however_a_second_capture_is_damaged(at in any::<u16>(), value in any::<u8>()) {
        let job = job(20, MS);
        let one = capture(&job, &host("a", &[0, 1], exact));
        let mut bytes = bytes(&job, &host("b", &[2, 3], |at| at + MS));
        let at = usize::from(at) % bytes.len();
        bytes[at] = value;
        if let Ok(other) = Capture::open(bytes)
            && let Ok(Some(both)) = merge(vec![("a".into(), one), ("b".into(), other)])
        {
            for ledger in all_ledgers(&both, Options::default()).unwrap() {
                assert_eq!(ledger.root.total(), ledger.end.since(ledger.start));
            }
        }
    }
}
