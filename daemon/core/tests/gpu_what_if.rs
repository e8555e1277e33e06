//! What a recorded job of GPUs would save if a late rank were no later than the others, or a cause of lost time were not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_schemas::record::ObjectKind;

const US: i64 = 1_000;
const STEPS: i64 = 6;

/// Kernels of the ranks: name, stream, begin and end in µs.
type Kernels = Vec<(&'static str, u64, i64, i64)>;

const ALL_REDUCE: &str = "ncclDevKernel_AllReduce_Sum_f32_RING_LL";
const BROADCAST: &str = "ncclDevKernel_Broadcast_RING_LL";

/// What a launching thread waits in: call, object, begin and end in µs.
type Wait = (&'static str, &'static str, i64, i64);

fn capture(ranks: &[Kernels]) -> Capture<Vec<u8>> {
    capture_with(ranks, &vec![Vec::new(); ranks.len()])
}

fn capture_with(ranks: &[Kernels], waits: &[Vec<Wait>]) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    host.writer.add_label("gpu.clock_error_ns", "0");
    let world = u32::try_from(ranks.len()).unwrap();
    for (rank, (kernels, waits)) in (0u32..).zip(ranks.iter().zip(waits)) {
        let pid = 100 + i64::from(rank);
        let process = host.process(pid, "python", Some(rank));
        host.writer.update_process(process, |p| p.world_size = Some(world));
        let thread = host.thread(process, pid, "MainThread", 0, 1_000_000 * US);
        let id = format!("GPU-{rank}");
        let device = host.writer.add_device(Device { id, processes: vec![process], ..Device::default() });
        for &(call, object, from, to) in waits {
            host.on(thread, from * US, to * US, call, ObjectKind::File, object);
        }
        for &(name, stream, from, to) in kernels {
            let launched = ((from - 1) * US, from * US);
            let op = host.kernel(thread, (name, stream), launched, (from * US, to * US));
            host.writer.push_gpu_op(device, op).unwrap();
        }
    }
    host.capture()
}

/// Steps in which each rank computes for its time, and all meet in an all-reduce that moves data for 50 µs.
fn level_steps(works: &[i64]) -> Vec<Kernels> {
    let last = works.iter().copied().max().unwrap();
    let mut ranks: Vec<Kernels> = vec![Vec::new(); works.len()];
    for step in 0..=STEPS {
        let at = 10 + step * (last + 60);
        // In the first step all are level: before it nothing is known.
        for (kernels, work) in ranks.iter_mut().zip(works) {
            let came = at + if step == 0 { last } else { *work };
            kernels.push(("gemm", 7, at, came));
            kernels.push((ALL_REDUCE, 9, came, at + last + 50));
        }
    }
    ranks
}

fn findings(capture: &Capture<Vec<u8>>, rule: &str) -> Vec<Finding> {
    let ledgers = Ledgers::of(capture, Options::default()).unwrap();
    Report::build(capture, &ledgers).findings.into_iter().filter(|f| f.rule == rule).collect()
}

fn late(ranks: &[Kernels]) -> Vec<Finding> {
    findings(&capture(ranks), "rank-late")
}

/// Steps in which each rank reads a file, computes, and meets the others in an all-reduce of 50 µs.
fn reading_steps(ranks: &[(i64, i64)]) -> (Vec<Kernels>, Vec<Vec<Wait>>) {
    let last = ranks.iter().map(|(read, work)| read + work).max().unwrap();
    let mut all = (vec![Vec::new(); ranks.len()], vec![Vec::new(); ranks.len()]);
    for step in 0..STEPS {
        let at = 10 + step * (last + 50);
        for (rank, &(read, work)) in ranks.iter().enumerate() {
            if read > 0 {
                all.1[rank].push(("read", "/data/shard", at, at + read - 1));
            }
            all.0[rank].push(("gemm", 7, at + read, at + read + work));
            all.0[rank].push((ALL_REDUCE, 9, at + read + work, at + last + 50));
        }
    }
    all
}

/// What each finding of a rule would give back, µs, by device.
fn saved_us(capture: &Capture<Vec<u8>>, rule: &str) -> Vec<(String, Option<u64>)> {
    let mut all: Vec<_> = findings(capture, rule)
        .into_iter()
        .map(|finding| (finding.device, finding.blame.recoverable_ns.map(|ns| ns / 1000)))
        .collect();
    all.sort();
    all
}

/// The window begins with a device's first kernel: the first read lies before it.
const READS: u64 = STEPS.unsigned_abs() - 1;

fn recoverable_us(findings: &[Finding], rank: u32) -> Option<u64> {
    let of_rank = findings.iter().find(|finding| finding.blame.culprit_ranks == [rank])?;
    assert!(!of_rank.evidence.contains("not simulated"), "{}", of_rank.evidence);
    of_rank.blame.recoverable_ns.map(|ns| ns / 1000)
}

#[test]
fn of_two_ranks_what_one_is_late_by_is_saved_in_each_step() {
    let findings = late(&level_steps(&[500, 800]));
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(recoverable_us(&findings, 1), Some(300 * STEPS.unsigned_abs()));
}

#[test]
fn what_the_second_latest_is_late_by_is_not_saved() {
    let findings = late(&level_steps(&[500, 500, 900, 700]));
    assert_eq!(recoverable_us(&findings, 2), Some(200 * STEPS.unsigned_abs()));
}

#[test]
fn what_a_third_rank_holds_up_in_the_next_operation_is_not_saved() {
    // Ranks 0 and 1 meet in a communicator of theirs, for which 1 is late by 300 µs; then all three meet, and 2 would be there
    // 250 µs after the first two if 1 were not late: 250 µs are hidden, 50 µs are saved.
    let mut ranks: Vec<Kernels> = vec![Vec::new(); 3];
    for step in 0..=STEPS {
        let at = 10 + step * 1100;
        let late = if step == 0 { 0 } else { 300 };
        ranks[0].extend([("gemm", 7, at, at + 500), (ALL_REDUCE, 11, at + 500, at + 550 + late)]);
        ranks[1]
            .extend([("gemm", 7, at, at + 500 + late), (ALL_REDUCE, 11, at + 500 + late, at + 550 + late)]);
        let met = at + 560 + late;
        let third = if step == 0 { met } else { met - 50 };
        ranks[2].push(("gemm", 7, at, third));
        for (kernels, came) in ranks.iter_mut().zip([met, met, third]) {
            kernels.push((ALL_REDUCE, 9, came, met + 50));
        }
    }
    let findings = late(&ranks);
    assert_eq!(recoverable_us(&findings, 1), Some(50 * STEPS.unsigned_abs()), "{findings:#?}");
}

#[test]
fn where_communication_was_not_matched_it_is_said_that_nothing_is_simulated() {
    let mut ranks = level_steps(&[500, 800]);
    // Nobody waits in a broadcast for all others: it is not split.
    for kernels in &mut ranks {
        let at = kernels.last().unwrap().3 + 10;
        kernels.push((BROADCAST, 9, at, at + 2000));
    }
    let findings = late(&ranks);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let evidence =
        "recoverable is how long it alone was missing, not simulated: too many collectives were not matched";
    assert!(findings[0].evidence.contains(evidence), "{}", findings[0].evidence);
    assert_eq!(findings[0].blame.recoverable_ns, Some((300 * STEPS * US).unsigned_abs()));
}

#[test]
fn of_a_cause_on_one_rank_only_what_no_other_rank_would_hold_up_is_saved() {
    let (kernels, waits) = reading_steps(&[(0, 500), (300, 500), (0, 600)]);
    let capture = capture_with(&kernels, &waits);
    // Rank 1 would be there 299 µs earlier, and wait for rank 2, which needs 100 µs longer than rank 0.
    assert_eq!(saved_us(&capture, "idle-block-io"), [("GPU-1".to_owned(), Some(200 * READS))]);
}

#[test]
fn a_cause_that_all_ranks_have_is_taken_from_all() {
    let (kernels, waits) = reading_steps(&[(300, 500), (300, 500), (250, 550)]);
    let capture = capture_with(&kernels, &waits);
    let saved = saved_us(&capture, "idle-block-io");
    assert_eq!(saved.len(), 3);
    // What the third reads less it computes more.
    assert!(saved.iter().all(|(_, us)| *us == Some(249 * READS)), "{saved:?}");
}

#[test]
fn what_another_rank_hides_saves_nothing() {
    let (kernels, waits) = reading_steps(&[(200, 500), (0, 800)]);
    assert_eq!(saved_us(&capture_with(&kernels, &waits), "idle-block-io"), [("GPU-0".to_owned(), Some(0))]);
}

#[test]
fn without_other_ranks_all_of_a_cause_is_saved() {
    let mut kernels: Kernels = Vec::new();
    let mut waits = Vec::new();
    for step in 0..STEPS {
        let at = 10 + step * 900;
        waits.push(("read", "/data/shard", at, at + 299));
        kernels.push(("gemm", 7, at + 300, at + 900));
    }
    let capture = capture_with(&[kernels], &[waits]);
    assert_eq!(saved_us(&capture, "idle-block-io"), [("GPU-0".to_owned(), Some(299 * READS))]);
}

/// Two ranks that always come together; every third all-reduce takes 400 µs longer than it has to.
fn slow_transfers() -> Vec<Kernels> {
    let mut ranks: Vec<Kernels> = vec![Vec::new(); 2];
    let mut at = 10;
    for step in 0..STEPS {
        let end = at + 550 + if step % 3 == 2 { 400 } else { 0 };
        for kernels in &mut ranks {
            kernels.extend([("gemm", 7, at, at + 500), (ALL_REDUCE, 9, at + 500, end)]);
        }
        at = end;
    }
    ranks
}

#[test]
fn slow_transfers_are_simulated_at_their_best() {
    let saved = saved_us(&capture(&slow_transfers()), "communication-slow");
    assert_eq!(saved, [("GPU-0".to_owned(), Some(800)), ("GPU-1".to_owned(), Some(800))]);
}

#[test]
fn a_slow_transfer_is_at_its_best_on_all_ranks_even_where_it_is_not_worth_speaking_of() {
    // Rank 1 works on alone for 100 ms: of that the transfers are less than a hundredth.
    let mut ranks = slow_transfers();
    let end = ranks[1].last().unwrap().3;
    ranks[1].push(("gemm", 7, end, end + 100_000));
    assert_eq!(saved_us(&capture(&ranks), "communication-slow"), [("GPU-0".to_owned(), Some(800))]);
}

#[test]
fn where_communication_was_not_matched_nothing_is_said_of_causes() {
    let (mut ranks, waits) = reading_steps(&[(0, 500), (300, 500)]);
    for kernels in &mut ranks {
        let at = kernels.last().unwrap().3 + 10;
        kernels.push((BROADCAST, 9, at, at + 2000));
    }
    assert_eq!(saved_us(&capture_with(&ranks, &waits), "idle-block-io"), [("GPU-1".to_owned(), None)]);
}

#[test]
fn what_follows_the_last_collective_counts() {
    let (mut ranks, mut waits) = reading_steps(&[(300, 500), (300, 500)]);
    for (kernels, waits) in ranks.iter_mut().zip(&mut waits) {
        let at = kernels.last().unwrap().3;
        waits.push(("read", "/data/shard", at, at + 399));
        kernels.push(("gemm", 7, at + 400, at + 900));
    }
    let saved = saved_us(&capture_with(&ranks, &waits), "idle-block-io");
    let us = Some(299 * READS + 399);
    assert_eq!(saved, [("GPU-0".to_owned(), us), ("GPU-1".to_owned(), us)]);
}

#[test]
fn a_rank_that_is_seen_for_a_short_time_only_slows_the_job_down_by_what_the_job_lost() {
    // Rank 1 begins 8 ms after the others, which wait for it in the first operation; then all are level for 4 ms.
    let mut ranks = level_steps(&[500, 500, 500]);
    for kernels in &mut ranks {
        kernels.iter_mut().for_each(|(_, _, from, to)| (*from, *to) = (*from + 8000, *to + 8000));
    }
    for rank in [0, 2] {
        ranks[rank][0] = ("gemm", 7, 10, 510);
        ranks[rank][1].2 = 510;
    }
    let capture = capture(&ranks);
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    let report = Report::build(&capture, &ledgers);
    let window = report.capture.window;
    let job_ns = window.end_ns.abs_diff(window.start_ns) as f64;
    for device in &report.devices {
        let Some(slowdown) = device.gpu.as_ref().unwrap().slowdown else { continue };
        assert!(slowdown <= job_ns / (job_ns - 8_000_000.0) + 1e-9, "{}: {slowdown}", device.id);
    }
    assert!(report.devices[1].gpu.as_ref().unwrap().slowdown.unwrap() > 2.0);
}

#[test]
fn what_each_of_several_jobs_would_save_is_said_of_one() {
    // Two GPUs without collectives, which are a job each.
    let steps = |read: i64| -> (Kernels, Vec<Wait>) {
        let at = |step: i64| 10 + step * 900;
        let kernels = (0..STEPS).map(|step| ("gemm", 7, at(step) + read, at(step) + 900));
        let waits = (0..STEPS).map(|step| ("read", "/data/shard", at(step), at(step) + read - 1));
        (kernels.collect(), waits.collect())
    };
    let text = |reads: [i64; 2]| {
        let (kernels, waits): (Vec<_>, Vec<_>) = reads.map(steps).into_iter().unzip();
        let capture = capture_with(&kernels, &waits);
        let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
        let mut text = String::new();
        stallscope_core::report::render(&report, &mut text).unwrap();
        text
    };
    let differ = text([300, 500]);
    assert!(differ.contains("of the job of GPU-1, had it not been\n"), "{differ}");
    let alike = text([300, 300]);
    assert!(alike.contains("had it not been on any of them"), "{alike}");
}

/// Steps in which rank 1 comes 300 µs late to the first of two all-reduces. While rank 0 waits it gets on with the kernel before the
/// second one, which takes 250 µs; rank 1 has that before it still.
fn late_beside_computation() -> Vec<Kernels> {
    let of_rank = |late: i64, second: i64| {
        let step = |step: i64| {
            let at = 10 + step * 1000;
            let computed = at + late + 100;
            [
                ("gemm", 7, at + late, computed),
                ("gemm", 7, computed, computed + 250),
                (ALL_REDUCE, 9, computed, at + 420),
                (ALL_REDUCE, 9, at + second, at + 670),
            ]
        };
        (0..STEPS).flat_map(step).collect()
    };
    vec![of_rank(0, 420), of_rank(300, 650)]
}

#[test]
fn what_ranks_computed_while_they_waited_is_not_saved_twice() {
    let mut ranks = late_beside_computation();
    ranks.iter_mut().for_each(|kernels| kernels.sort_by_key(|kernel| kernel.2));
    let capture = capture(&ranks);
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let late = report.findings.iter().find(|f| f.rule == "rank-late").unwrap();
    // Of 300 µs rank 0 computes 250 in the first, and waits 50; and in the second, which it comes to 20 µs later, 230.
    let saved = STEPS.unsigned_abs() * (50 + 230) * 1000;
    assert_eq!(late.blame.recoverable_ns, Some(saved));
    let took = report.devices.iter().map(|device| device.wall_ns).max().unwrap();
    let slowdown = report.devices[1].gpu.as_ref().unwrap().slowdown.unwrap();
    assert!((slowdown - took as f64 / (took - saved) as f64).abs() < 1e-9, "{slowdown} of {took}");
}

/// Steps of two ranks with two all-reduces beside the backward pass: 0 reads for 80 µs before its first kernel, 1 computes for
/// longer before the second all-reduce.
fn overlapping_steps(work_of_1: i64) -> (Vec<Kernels>, Vec<Vec<Wait>>) {
    let mut all = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    let second = 280.max(100 + work_of_1);
    for step in 0..STEPS {
        let at = 10 + step * (second + 50);
        all.1[0].push(("read", "/data/shard", at, at + 79));
        for (rank, (begin, work)) in [(80, 100), (0, work_of_1)].into_iter().enumerate() {
            let (first, handed_over) = (at + begin + 100, at + begin + 100 + work);
            all.0[rank].extend([
                ("gemm", 7, at + begin, first),
                (ALL_REDUCE, 9, first, at + 200),
                ("gemm", 7, first, handed_over),
                (ALL_REDUCE, 9, handed_over, at + second + 50),
            ]);
        }
    }
    all
}

#[test]
fn what_another_rank_computes_beside_communication_is_not_saved() {
    let saved = |work_of_1| {
        let (ranks, waits) = overlapping_steps(work_of_1);
        saved_us(&capture_with(&ranks, &waits), "idle-block-io")
    };
    // The read is 79 µs, the launch 1.
    let of_0 = |us: u64| vec![("GPU-0".to_owned(), Some(us.min(79) * READS))];
    // 0 comes to the second one 80 µs, 30 µs after 1, and before it: the step then ends when 1 has computed.
    assert_eq!(saved(100), of_0(80));
    assert_eq!(saved(150), of_0(30));
    assert_eq!(saved(200), of_0(0));
}
