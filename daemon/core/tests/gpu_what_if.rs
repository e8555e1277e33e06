//! What a recorded job of GPUs would save if a late rank were no later than the others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::{GpuOp, Launch};
use stallscope_schemas::record::{CopyKind, OpKind};
use stallscope_schemas::units::{CorrelationId, TimeNs};

const US: i64 = 1_000;
const STEPS: i64 = 6;

/// Kernels of the ranks: name, stream, begin and end in µs.
type Kernels = Vec<(&'static str, u64, i64, i64)>;

const ALL_REDUCE: &str = "ncclDevKernel_AllReduce_Sum_f32_RING_LL";
const BROADCAST: &str = "ncclDevKernel_Broadcast_RING_LL";

fn capture(ranks: &[Kernels]) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    host.writer.add_label("gpu.clock_error_ns", "0");
    let world = u32::try_from(ranks.len()).unwrap();
    for (rank, kernels) in (0u32..).zip(ranks) {
        let pid = 100 + i64::from(rank);
        let process = host.process(pid, "python", Some(rank));
        host.writer.update_process(process, |p| p.world_size = Some(world));
        let thread = host.thread(process, pid, "MainThread", 0, 1_000_000 * US);
        let id = format!("GPU-{rank}");
        let device = host.writer.add_device(Device { id, processes: vec![process], ..Device::default() });
        let call = host.writer.intern("cuLaunchKernel");
        for &(name, stream, from, to) in kernels {
            let launch = Launch { thread, start: TimeNs((from - 1) * US), duration_ns: 1_000, name: call };
            let op = GpuOp {
                start: TimeNs(from * US),
                duration_ns: ((to - from) * US).unsigned_abs(),
                name: host.writer.intern(name),
                stream,
                kind: OpKind::Kernel,
                flags: 0,
                correlation: CorrelationId(from.unsigned_abs() + 1),
                bytes: 0,
                copy_kind: CopyKind::Unknown,
                launch: Some(launch),
            };
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

fn late(ranks: &[Kernels]) -> Vec<Finding> {
    let capture = capture(ranks);
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    Report::build(&capture, &ledgers).findings.into_iter().filter(|f| f.rule == "rank-late").collect()
}

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
