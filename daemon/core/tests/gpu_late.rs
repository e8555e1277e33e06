//! GPUs that wait for each other in collectives: how long, for whom, and what that one did more of.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use common::gpus::Job;
use proptest::prelude::{prop, proptest};
use stallscope_core::capture::{Capture, Device};
use stallscope_core::export::perfetto::write_perfetto;
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{CommLeaf, DeviceLedger, Leaf, Ledgers, Options, RootLeaf, all_ledgers};
use stallscope_core::report::{Diff, Report, render};
use stallscope_core::rows::{Connection, Counter};
use stallscope_core::weights;
use stallscope_schemas::record::{CopyKind, ObjectKind, OpKind, device_kind};
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, TimeNs};

const US: i64 = 1_000;

fn ledgers(capture: &Capture<Vec<u8>>) -> Vec<DeviceLedger> {
    all_ledgers(capture, Options::default()).unwrap()
}

/// What a rank waited, by the ranks on the way and what the last of them did, µs.
fn waits(ledger: &DeviceLedger) -> Vec<(Vec<u32>, RootLeaf, u64)> {
    let all = ledger.root.waits.iter();
    all.map(|(w, amount)| (w.via.iter().map(|d| d.0).collect(), w.leaf, amount.ns / 1000)).collect()
}

fn findings(capture: &Capture<Vec<u8>>) -> Vec<Finding> {
    let ledgers = Ledgers::of(capture, Options::default()).unwrap();
    Report::build(capture, &ledgers).findings.into_iter().filter(|f| f.rule == "rank-late").collect()
}

/// Two steps in which all ranks are level, and one in which rank 2 reads for 300 µs before its first kernel.
fn slow_read() -> Job {
    slow_read_then_queue(0)
}

/// The same; at the end of that it waits for a CPU.
fn slow_read_then_queue(queue: i64) -> Job {
    let mut job = Job::new(3, 3000 * US);
    for step in 0..3 {
        let late = if step == 2 { 300 * US } else { 0 };
        let base = step * 1000 * US + 10 * US;
        let end = base + 600 * US + late;
        for rank in 0..3 {
            let from = if rank == 2 { base + late } else { base };
            job.op(rank, "gemm", 7, from, from + 500 * US);
        }
        job.collective(20, &[(0, base + 500 * US), (1, base + 500 * US), (2, base + 500 * US + late)], end);
        if late > 0 {
            let thread = job.ranks[2].1;
            let (begin, end) = (base + late - 10 * US - queue, base + late - 10 * US);
            job.host.on(thread, base, begin, "read", ObjectKind::File, "/data/shard-0017");
            if queue > 0 {
                job.host
                    .wait(thread, begin, end, "futex", |wait, _| wait.run_queue_ns = queue.unsigned_abs());
            }
        }
    }
    job
}

#[test]
fn a_cause_among_others_is_said_to_be_one() {
    let evidence = |queue| findings(&slow_read_then_queue(queue).capture())[0].evidence.clone();
    let mixed = evidence(130 * US);
    let all = "of what its host did longer than those of the others";
    assert!(mixed.ends_with(&format!("; that is 53.3 % {all}, run queue is 43.3 %")), "{mixed}");
    assert!(!evidence(60 * US).contains(all), "{}", evidence(60 * US));
}

/// Three ranks that compute 200 µs before their first kernel; in the last step rank 2 is late because it first waits so long for a
/// thread that computes, then so long for a CPU, and computes itself for so much longer, µs.
fn computing_worker(works: i64, queue: i64, longer: i64) -> Job {
    computing_worker_of(2, works, queue, longer)
}

/// The same with a thread of that rank.
fn computing_worker_of(rank: u32, works: i64, queue: i64, longer: i64) -> Job {
    let mut job = Job::new(3, 4000 * US);
    let device = job.ranks[2].0;
    let worker = job.host.thread(ProcessId(rank), 999, "worker", 0, 4000 * US);
    assert_eq!(device, DeviceId(2));
    for step in 0..3 {
        let late = if step == 2 { (works + queue + longer) * US } else { 0 };
        let base = step * 1000 * US + 10 * US;
        for rank in 0..3 {
            let from = base + 200 * US + if rank == 2 { late } else { 0 };
            job.op(rank, "gemm", 7, from, from + 300 * US);
        }
        let came = base + 500 * US;
        job.collective(20, &[(0, came), (1, came), (2, came + late)], came + late + 100 * US);
        if late > 0 {
            let thread = job.ranks[2].1;
            let (first, second) = (base + works * US, base + (works + queue) * US);
            job.host.wait(thread, base, first, "futex", |wait, _| wait.waker = Some(worker));
            let queue_ns = (queue * US).unsigned_abs();
            job.host.wait(thread, first, second, "futex", |wait, _| wait.run_queue_ns = queue_ns);
        }
    }
    job
}

#[test]
fn what_is_usually_computed_is_the_launching_threads_own_computation() {
    let found = findings(&computing_worker(240, 140, -80).capture());
    assert!(
        found[0].summary.contains("its launching thread waits for worker (tid 999), which computes"),
        "{found:#?}"
    );
}

#[test]
fn a_thread_of_another_rank_that_holds_up_the_late_one_is_said_to_be_that_ranks() {
    let told = |rank| {
        let found = findings(&computing_worker_of(rank, 240, 140, -80).capture());
        assert_eq!(found[0].blame.culprit_ranks, [2], "whom the others wait for: {found:#?}");
        let of_threads = found[0].blame.chain.iter().filter(|link| link.tid.is_some());
        let ranks: Vec<_> = of_threads.map(|link| link.rank).collect();
        (found[0].summary.clone(), ranks, found[0].advice)
    };
    let (summary, ranks, advice) = told(0);
    assert!(summary.ends_with("waits for worker (tid 999) of rank 0, which computes"), "{summary}");
    assert_eq!(ranks, [Some(2), Some(0)]);
    assert!(!advice.contains("are not the problem"), "rank 0 is one of those that wait: {advice}");
    let (summary, ranks, advice) = told(2);
    assert!(summary.ends_with("waits for worker (tid 999), which computes"), "{summary}");
    assert_eq!(ranks, [Some(2), Some(2)]);
    assert!(advice.contains("are not the problem"), "{advice}");
}

#[test]
fn computing_counts_as_one_whichever_threads_do_it() {
    // Each part of it is less than the run queue, both are more.
    let found = findings(&computing_worker(110, 140, 90).capture());
    assert!(
        found[0].summary.contains("its launching thread waits for worker (tid 999), which computes"),
        "{found:#?}"
    );
    let found = findings(&computing_worker(40, 140, 30).capture());
    assert!(found[0].summary.contains("its launching thread waits for a CPU"), "{found:#?}");
}

#[test]
fn a_loader_that_is_as_slow_as_those_of_the_others_is_not_the_cause() {
    // In each step ranks wait 500 µs for a loader that computes; then they compute for 100 µs, and rank 2 in the last one for 400.
    let mut job = Job::new(3, 4000 * US);
    let loader =
        |host: &mut Host, rank| host.thread(ProcessId(rank), 900 + i64::from(rank), "loader", 0, 4000 * US);
    let loaders: Vec<_> = (0..3).map(|rank| loader(&mut job.host, rank)).collect();
    for step in 0..3 {
        let late = if step == 2 { 300 * US } else { 0 };
        let base = step * 1200 * US + 10 * US;
        for (rank, &waker) in loaders.iter().enumerate() {
            let own = 100 * US + if rank == 2 { late } else { 0 };
            let thread = job.ranks[rank].1;
            job.host.wait(thread, base, base + 500 * US, "futex", |wait, _| wait.waker = Some(waker));
            job.op(rank, "gemm", 7, base + 500 * US + own, base + 600 * US + own);
        }
        let came = base + 700 * US;
        job.collective(20, &[(0, came), (1, came), (2, came + late)], came + late + 50 * US);
    }
    let found = findings(&job.capture());
    assert!(found[0].summary.ends_with("its launching thread computes"), "{found:#?}");
}

#[test]
fn a_late_rank_is_named_with_what_its_host_waited_for() {
    let capture = slow_read().capture();
    let ledgers = ledgers(&capture);
    for early in &ledgers[..2] {
        assert_eq!(early.sums.comm(CommLeaf::Wait), 300 * 1000);
        assert_eq!(early.sums.comm(CommLeaf::Floor), 300 * 1000);
        assert_eq!(waits(early), [(vec![2], RootLeaf::IdleHost, 300)]);
    }
    assert_eq!(ledgers[2].sums.comm(CommLeaf::Wait), 0);
    let findings = findings(&capture);
    let [late] = &findings[..] else { panic!("{findings:#?}") };
    assert_eq!((late.ns, late.blame.culprit_ranks.as_slice()), (600_000, &[2][..]));
    assert!(late.summary.contains("rank 2 keeps 2 ranks waiting for 600.0 µs"), "{}", late.summary);
    assert!(
        late.summary.ends_with("its launching thread waits in read() of /data/shard-0017"),
        "{}",
        late.summary
    );
    let said: Vec<_> = late.blame.chain.iter().map(|link| (link.rank, link.what.as_str())).collect();
    assert_eq!(said[0], (Some(0), "2 ranks waited for rank 2"));
    assert_eq!(said[2], (Some(2), "MainThread (tid 102) is in read() of /data/shard-0017"));
    assert!(late.blame.confidence.unwrap() > 0.99, "{late:#?}");
    // Two ranks waited at the same time: the job is not done 600 µs earlier.
    assert_eq!(late.blame.recoverable_ns, Some(300_000));
}

#[test]
fn the_flamegraph_of_waits_is_as_wide_as_what_was_waited() {
    let capture = slow_read().capture();
    let folded = weights::gpu_wait(&ledgers(&capture), capture.tables());
    let lines: Vec<(String, u64)> = folded.iter().map(|(f, ns)| (f.join(";"), ns)).collect();
    assert_eq!(lines.iter().map(|(_, ns)| ns).sum::<u64>(), 600_000);
    let line = "rank 2 · GPU-2 is late;idle: host;blocked I/O;";
    let of_read: u64 = lines
        .iter()
        .filter(|(l, _)| l.starts_with(line) && l.contains("[read] /data/shard-0017;rank "))
        .map(|l| l.1)
        .sum();
    assert!(of_read > 560_000, "the read is what was more than usual: {lines:#?}");
}

#[test]
fn the_same_finding_about_another_rank_is_another_one() {
    let build = || {
        let capture = slow_read().capture();
        Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap())
    };
    let (before, mut after) = (build(), build());
    let told = |diff: &Diff| (diff.gone.len(), diff.new.len());
    assert_eq!(told(&Diff::of(&before, &after)), (0, 0));
    after.findings.iter_mut().filter(|f| f.rule == "rank-late").for_each(|f| f.blame.culprit_ranks = vec![1]);
    let diff = Diff::of(&before, &after);
    assert_eq!(told(&diff), (1, 1));
    assert_eq!((diff.gone[0].rule, diff.new[0].rule), ("rank-late", "rank-late"));
    assert!(diff.notes.is_empty(), "{:?}", diff.notes);
    after.devices.iter_mut().for_each(|device| device.job = Some("other".into()));
    assert_eq!(Diff::of(&before, &after).notes, ["the captures are of jobs of other names: train; other"]);
}

/// The fields of a message that are varints or messages, as far as this test needs them.
fn flows(trace: &[u8]) -> usize {
    // TrackEvent.flow_ids: field 47, fixed 64 bits. Those of collectives count down from the greatest number.
    let key = [0xf9, 0x02];
    trace.windows(10).filter(|w| w[..2] == key && w[9] == 0xff && w[8] == 0xff).count()
}

#[test]
fn an_arrow_leads_through_the_kernels_of_a_collective() {
    let mut trace = Vec::new();
    write_perfetto(&slow_read().capture(), &mut trace).unwrap();
    // Three kernels in each of three steps.
    assert_eq!(flows(&trace), 9);
}

/// The job's report says the same in words.
#[test]
fn the_text_names_the_late_rank_before_anything_else() {
    let capture = slow_read().capture();
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn what_a_late_rank_did_meanwhile_is_said_with_its_share_of_the_wait() {
    // Rank 1 copies for 200 µs in each of ten steps.
    let mut job = Job::new(2, 20_000 * US);
    for base in (0..10).map(|step| step * 1000 * US) {
        job.collective(20, &[(0, base + 10 * US), (1, base + 10 * US)], base + 100 * US);
        job.op(1, "Memcpy HtoD", 7, base + 100 * US, base + 300 * US);
        let copy = job.ops[1].last_mut().unwrap();
        (copy.kind, copy.copy_kind) = (OpKind::Memcpy, CopyKind::HostToDevice);
        job.collective(20, &[(0, base + 102 * US), (1, base + 302 * US)], base + 350 * US);
    }
    let found = findings(&job.capture());
    let [late] = &found[..] else { panic!("{found:#?}") };
    assert!(late.summary.ends_with("its copies hold it up"), "{}", late.summary);
    assert!(late.evidence.ends_with("meanwhile rank 1: copies, 100.0 % of that time"), "{}", late.evidence);
}

#[test]
fn of_a_chain_the_first_of_it_is_the_root() {
    // Rank 0 computes 400 µs longer; rank 1 waits for it in one communicator and is late in another for that reason only.
    let mut job = Job::new(3, 4000 * US);
    for step in 0..3 {
        let late = if step == 2 { 400 * US } else { 0 };
        let base = step * 1300 * US + 10 * US;
        for rank in 0..3 {
            let more = if rank == 0 { late } else { 0 };
            job.op(rank, "gemm", 7, base, base + 300 * US + more);
        }
        let first = base + 400 * US + late;
        job.collective(20, &[(0, base + 300 * US + late), (1, base + 300 * US)], first);
        job.op(0, "norm", 7, first, first + 102 * US);
        job.collective(30, &[(1, first + US), (2, base + 300 * US)], first + 101 * US);
    }
    let capture = job.capture();
    let ledgers = ledgers(&capture);
    assert_eq!(waits(&ledgers[1]), [(vec![0], RootLeaf::Compute, 400)]);
    let of_two = waits(&ledgers[2]);
    let through: u64 = of_two
        .iter()
        .filter(|(via, leaf, _)| via[..] == [1, 0] && *leaf == RootLeaf::Compute)
        .map(|w| w.2)
        .sum();
    // In every step rank 2 waits 101 µs for rank 1, which moves data then: that is the job's usual order.
    assert!((395..=400).contains(&through), "{of_two:?}");
    let findings = findings(&capture);
    assert_eq!(findings[0].blame.culprit_ranks, [0], "{findings:#?}");
    assert!(
        findings[0].evidence.contains("through ranks that waited themselves"),
        "{}",
        findings[0].evidence
    );
}

#[test]
fn a_slow_device_is_told_from_one_that_has_more_to_do() {
    // What the counters of both devices say: name, of the one that is not slow, of the other.
    let with = |counters: &[(&str, u64, u64)], slow: &dyn Fn(&str) -> f64| {
        let mut job = Job::new(2, 4000 * US);
        for step in 0..3 {
            let base = step * 1300 * US + 10 * US;
            let mut last = 0;
            for rank in 0..2 {
                let mut at = base;
                for (name, length) in [("gemm", 200.0), ("softmax", 100.0), ("norm", 50.0)] {
                    let factor = if rank == 1 { slow(name) } else { 1.0 };
                    #[allow(clippy::cast_possible_truncation, reason = "a few hundred")]
                    let length = (length * factor) as i64 * US;
                    job.op(rank, name, 7, at, at + length);
                    at += length;
                }
                last = last.max(at);
                job.ops[rank].last_mut().unwrap().correlation.0 += 1;
            }
            job.collective(20, &[(0, base + 350 * US), (1, last)], last + 100 * US);
        }
        for (at, more) in [(100, 0), (2000, 1)] {
            for &(name, one, other) in counters {
                let name_id = job.host.writer.intern(name);
                // Counts grow on the slow one.
                let other = if name.ends_with("(count)") { other + more } else { other };
                for (rank, value) in [(0, one), (1, other)] {
                    let row = Counter { start: TimeNs(at * US), duration_ns: 0, name: name_id, value };
                    job.host.writer.push_counter(job.ranks[rank].0, row).unwrap();
                }
            }
        }
        let late = findings(&job.capture()).remove(0);
        (late.summary, late.evidence)
    };
    let of = |slow: &dyn Fn(&str) -> f64| with(&[], slow).0;
    let is_slow = "its device is slow: its kernels take 1.50 times as long as on the others";
    let has_more = "some of its kernels take longer than on the others: more work";
    assert!(of(&|_| 1.5).ends_with(is_slow));
    let one = of(&|name| if name == "softmax" { 3.0 } else { 1.0 });
    assert!(one.ends_with(has_more), "{one}");
    assert!(with(&[], &|_| 1.5).1.contains("no counters of it were recorded"));

    // Its clocks are held down: what computes takes half as long again, what moves memory does not.
    let (sm, reasons, errors) =
        ("sm clock (MHz)", "clock throttle reasons (bits)", "ecc corrected errors (count)");
    let memory_bound = |name: &str| if name == "norm" { 1.0 } else { 1.5 };
    let hot = with(&[(sm, 1800, 1200), (reasons, 0, 64), (errors, 7, 9)], &memory_bound);
    assert!(hot.0.contains("its device is slow"), "{hot:?}");
    for said in [
        "its SM clock was 1200 MHz on average, that of the others 1800 MHz",
        "heat (hardware) held its clocks down in 2 of 2 samples",
        "1 corrected errors of its memory",
    ] {
        assert!(hot.1.contains(said), "{said}: {hot:?}");
    }
    // Clocks that are a little lower do not make one kernel three times as long; and with those of the others it is not they.
    let one = |name: &str| if name == "softmax" { 3.0 } else { 1.0 };
    assert!(with(&[(sm, 1800, 1700)], &one).0.ends_with(has_more));
    let same = with(&[(sm, 1800, 1800), (reasons, 4, 4)], &|_| 1.5);
    assert!(same.0.ends_with(is_slow) && same.1.contains("its SM clock (1800 MHz) is no lower"), "{same:?}");
    assert!(!same.1.contains("power cap"), "{same:?}");
}

#[test]
fn what_was_done_while_waiting_is_no_second_cause() {
    // Rank 1 reads for 300 µs. While rank 0 waits for its first bucket it computes what the second one needs; rank 1 has to
    // do that after it came, and is late for the second bucket by that alone.
    let mut job = Job::new(2, 4000 * US);
    let (bucket, compute) = (20 * US, 100 * US);
    for step in 0..3 {
        let late = if step == 2 { 300 * US } else { 0 };
        let base = step * 1300 * US + 10 * US;
        let came = [base + compute, base + compute + late];
        job.op(0, "gemm", 7, base, base + 2 * compute);
        job.op(1, "gemm", 7, base + late, base + late + 2 * compute);
        job.collective(20, &[(0, came[0]), (1, came[1])], came[1] + bucket);
        let second = [came[1] + bucket, base + late + 2 * compute];
        job.collective(20, &[(0, second[0] + US), (1, second[1])], second[1] + bucket);
    }
    let ledgers = ledgers(&job.capture());
    let by_leaf = |leaf| waits(&ledgers[0]).iter().filter(|w| w.1 == leaf).map(|w| w.2).sum::<u64>();
    // 300 in all: 100 of them rank 0 computed, so that 200 are exposed in the first bucket and 79 in the second.
    assert_eq!(ledgers[0].sums.comm(CommLeaf::Wait) / 1000, 200 + 79);
    assert_eq!(
        (by_leaf(RootLeaf::IdleHost), by_leaf(RootLeaf::Compute)),
        (279, 0),
        "{:?}",
        waits(&ledgers[0])
    );
}

#[test]
fn who_waited_in_another_communicator_is_no_culprit_in_this_one() {
    // In each step rank 1 waits for rank 0 in one communicator; then rank 1 computes longer, and rank 0 waits in another.
    let mut job = Job::new(2, 100_000 * US);
    for step in 0..10_i64 {
        let base = step * 9000 * US + 10 * US;
        job.op(0, "gemm", 7, base, base + 6000 * US);
        job.op(1, "gemm", 7, base, base + 1000 * US);
        let first = base + 6100 * US;
        job.collective(30, &[(0, base + 6000 * US), (1, base + 1000 * US)], first);
        job.op(0, "norm", 7, first, first + 500 * US);
        job.op(1, "norm", 7, first, first + 2000 * US);
        job.collective(20, &[(0, first + 500 * US), (1, first + 2000 * US)], first + 2100 * US);
    }
    let ledgers = ledgers(&job.capture());
    let of = |rank: usize| waits(&ledgers[rank]);
    // Nobody is charged with its own wait, and what rank 1 did longer is rank 1's.
    assert!(
        of(0).iter().all(|(via, ..)| via == &[1]) && of(1).iter().all(|(via, ..)| via == &[0]),
        "{:?}",
        of(0)
    );
    let computed: u64 = of(0).iter().filter(|w| w.1 == RootLeaf::Compute).map(|w| w.2).sum();
    assert!(computed * 10 > 15_000 * 9, "{:?}", of(0));
}

#[test]
fn ranks_that_are_level_accuse_nobody() {
    let mut job = Job::new(4, 100_000 * US);
    for step in 0..50_i64 {
        let base = step * 1000 * US + 10 * US;
        for rank in 0..4 {
            // Up to 3 µs apart, another one last each time.
            let jitter = (step * 7 + i64::try_from(rank).unwrap() * 5) % 4 * US;
            job.op(rank, "gemm", 7, base, base + 500 * US + jitter);
            job.collective(20, &[(rank, base + 500 * US + jitter)], base + 600 * US);
        }
    }
    assert!(findings(&job.capture()).is_empty());
}

proptest! {
    /// Whatever the ranks do: root and direct leaves sum to wall, and what is charged is what was waited.
    #[test]
    fn root_ledgers_are_conserved(
        came in prop::collection::vec(prop::collection::vec((0i64..400, 0i64..300), 3), 1..20),
        error in 0u64..50,
    ) {
        let mut job = Job::new(3, 1_000_000);
        job.host.writer.add_label("gpu.clock_error_ns", &error.to_string());
        for (step, ranks) in (0i64..).zip(&came) {
            let base = step * 1000 + 5000;
            let end = base + 100 + ranks.iter().map(|(at, _)| at + 400).max().unwrap();
            for (rank, (at, work)) in ranks.iter().enumerate() {
                job.op(rank, "gemm", 7, base, base + at);
                job.op(rank, "ncclDevKernel_AllReduce_Sum_f32_RING_LL", 20, base + at, end);
                job.op(rank, "softmax", 8, base + at + 10, base + at + 10 + work);
            }
        }
        for ledger in ledgers(&job.capture()) {
            let wall = ledger.end.since(ledger.start);
            assert_eq!((ledger.sums.total(), ledger.root.total()), (wall, wall));
            let charged: u64 = ledger.root.waits.values().map(|amount| amount.ns).sum();
            assert_eq!(charged, ledger.sums.comm(CommLeaf::Wait));
            assert_eq!(ledger.sums.comm_total(), ledger.sums.get(Leaf::CommExposed));
        }
    }
}

/// Ten all-reduces of 100 µs, and ten that take three times as long.
fn slow_transfers() -> Job {
    let mut job = Job::new(2, 20_000 * US);
    for step in 0..20 {
        let base = step * 500 * US + 10 * US;
        let took = if step < 10 { 100 * US } else { 300 * US };
        job.op(0, "gemm", 7, base, base + 100 * US);
        job.op(1, "gemm", 7, base, base + 100 * US);
        job.collective(20, &[(0, base + 100 * US), (1, base + 100 * US)], base + 100 * US + took);
    }
    job
}

fn of_slow_transfers(job: Job) -> Vec<String> {
    let capture = job.capture();
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    assert_eq!(ledgers.gpus[0].sums.comm(CommLeaf::Excess), 10 * 200_000);
    let findings = Report::build(&capture, &ledgers).findings.into_iter();
    findings.filter(|f| f.rule == "communication-slow").map(|f| f.evidence).collect()
}

#[test]
fn slow_transfers_are_told_with_what_the_links_say_of_themselves() {
    let mut job = slow_transfers();
    let (gpu, process) = (job.ranks[0].0, ProcessId(0));
    let writer = &mut job.host.writer;
    let source = SourceId(0);
    let host = Device { kind: device_kind::HOST, id: "host".into(), source, ..Device::default() };
    let host = writer.add_device(host);
    let mut count = |device, name: &str, at: i64, duration_ns, value| {
        let name = writer.intern(name);
        writer.push_counter(device, Counter { start: TimeNs(at * US), duration_ns, name, value }).unwrap();
    };
    // One that stood still, two that grew, one that had grown before.
    for (at, crc, replays) in [(100, 7, 3), (9000, 19, 3)] {
        count(gpu, "nvlink 2 crc errors (count)", at, 0, crc);
        count(gpu, "nvlink 3 replays (count)", at, 0, replays);
        count(gpu, "pcie link width (lanes)", at, 0, 8);
        count(gpu, "pcie link width max (lanes)", at, 0, 16);
    }
    count(host, "port mlx5_0/1 port_xmit_wait (ticks)", 1000, 1_000_000, 4711);
    count(host, "port mlx5_0/1 symbol_error (count)", 1000, 1_000_000, 0);
    count(host, "port mlx5_0/1 port_xmit_data (bytes)", 1000, 1_000_000, 99);
    let name = writer.intern("10.0.0.1:1 → 10.0.0.2:2");
    let connection = Connection {
        start: TimeNs(0),
        duration_ns: 9_000_000,
        name,
        sent_bytes: 1 << 20,
        received_bytes: 0,
        retransmits: 35,
        rtt_ns: 1000,
        segments: 1200,
        delivery_rate: 0,
    };
    writer.push_connection(process, connection).unwrap();
    let evidence = of_slow_transfers(job);
    assert_eq!(
        evidence[0],
        "2.0 ms at their best; meanwhile port mlx5_0/1 port_xmit_wait (ticks): 4711; \
         nvlink 2 crc errors (count): 12; pcie lanes missing of 16: 8; \
         tcp 10.0.0.1:1 → 10.0.0.2:2 sent 35 of 1200 segments again"
    );
    assert_eq!(
        evidence[1], "2.0 ms at their best; meanwhile port mlx5_0/1 port_xmit_wait (ticks): 4711",
        "what belongs to the other rank is not told of this one"
    );
}

#[test]
fn slow_transfers_without_counters_blame_no_link() {
    let evidence = of_slow_transfers(slow_transfers());
    assert_eq!(evidence, ["2.0 ms at their best; no counters of links were recorded"; 2]);
}

/// Pairs meet at random: on the way from one that waits to one that is to blame there may be any others.
#[test]
fn ways_without_end_do_not_take_memory_without_end() {
    const DEVICES: usize = 12;
    let mut job = Job::new(12, 1 << 40);
    let mut free = [1_000 * US; DEVICES];
    let mut dice = 7u64;
    let mut roll = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    for _ in 0..1_000 {
        let one = usize::try_from(roll(DEVICES as u64)).unwrap();
        let other = (one + 1 + usize::try_from(roll(DEVICES as u64 - 1)).unwrap()) % DEVICES;
        let stream = 100 + (one.min(other) * DEVICES + one.max(other)) as u64;
        let came = [one, other].map(|rank| {
            let work = 100 * US + roll(900_000).cast_signed();
            job.op(rank, "gemm", 7, free[rank] + 5 * US, free[rank] + 5 * US + work);
            (rank, free[rank] + 10 * US + work)
        });
        let end = came[0].1.max(came[1].1) + 50 * US;
        for (rank, start) in came {
            job.op(rank, "ncclDevKernel_SendRecv", stream, start, end);
            free[rank] = end;
        }
    }
    let capture = job.capture();
    let ledgers = ledgers(&capture);
    let ways: usize = ledgers.iter().map(|ledger| ledger.root.waits.len()).sum();
    assert!((5_000..20_000).contains(&ways), "{ways}");
    // Those that are left out on the way do not make anybody else the one to blame.
    for ledger in &ledgers {
        let waited: u64 = ledger.root.waits.values().map(|amount| amount.ns).sum();
        assert_eq!(waited, ledger.sums.comm(CommLeaf::Wait));
        assert!(ledger.root.waits.keys().all(|way| way.culprit() != Some(ledger.device)));
    }
}
