//! Recordings that end while a collective does not: who never came, and where that cannot be told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use stallscope_core::capture::{Capture, Device};
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::{DeviceWindow, GpuOp, Launch};
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, CopyKind, ObjectKind, OpKind, op_flags};
use stallscope_schemas::units::{CorrelationId, TimeNs};

const MS: i64 = 1_000_000;
const S: i64 = 1_000_000_000;

/// A job of three ranks with an all-reduce each 10 ms, of which the one at `stuck` does not end because rank 2 never calls it.
struct Job {
    /// By rank, the first of its operations that was recorded: counts begin there.
    first: [i64; 3],
    /// Operations of rank 1 whose calls were not seen.
    unseen: fn(i64) -> bool,
    /// Operations of rank 2 whose kernels were not seen, although it called them.
    undelivered: fn(i64) -> bool,
    stuck: i64,
    until: i64,
}

const USUAL: Job =
    Job { first: [0, 3, 7], unseen: |_| false, undelivered: |_| false, stuck: 100, until: 6 * S };

fn capture(job: &Job) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    for rank in 0..3u32 {
        let at = rank as usize;
        let pid = 100 + i64::from(rank);
        let process = host.process(pid, "python", Some(rank));
        host.writer.update_process(process, |p| p.world_size = Some(3));
        let thread = host.thread(process, pid, "MainThread", 0, job.until);
        let id = format!("GPU-{rank}");
        let device = host.writer.add_device(Device { id, processes: vec![process], ..Device::default() });
        let window = DeviceWindow { start: TimeNs(0), duration_ns: job.until.unsigned_abs(), flags: 0 };
        host.writer.push_device_window(device, window).unwrap();
        // The number of a call is what the process counts: an address names its communicator.
        let group = format!("nccl@{rank}000");
        let mut counted = 0;
        for number in job.first[at]..=job.stuck {
            if rank == 2 && number == job.stuck {
                host.on(thread, number * 10 * MS, job.until, "read", ObjectKind::File, "/data/shard-0017");
                break;
            }
            let start = number * 10 * MS + i64::from(rank) * 100_000;
            let is_seen = rank != 1 || !(job.unseen)(number);
            if is_seen {
                counted += 1;
                let (nccl, all_reduce) = (CollectiveLibrary::Nccl, CollectiveOp::AllReduce);
                host.call_of(
                    thread,
                    start - 20_000,
                    start - 1_000,
                    "ncclAllReduce",
                    nccl,
                    all_reduce,
                    &group,
                    counted,
                );
            }
            if rank == 2 && (job.undelivered)(number) {
                continue;
            }
            let name = host.writer.intern("ncclDevKernel_AllReduce_Sum_f32_RING_LL");
            let call = host.writer.intern("cuLaunchKernel");
            let launch = Launch { thread, start: TimeNs(start - 10_000), duration_ns: 2_000, name: call };
            let op = GpuOp {
                start: TimeNs(start),
                duration_ns: if number == job.stuck {
                    0
                } else {
                    (number * 10 * MS + MS - start).unsigned_abs()
                },
                name,
                stream: 9,
                kind: OpKind::Kernel,
                flags: if number == job.stuck { op_flags::END_UNKNOWN } else { 0 },
                correlation: CorrelationId(start.unsigned_abs()),
                bytes: 0,
                copy_kind: CopyKind::Unknown,
                launch: Some(launch),
            };
            host.writer.push_gpu_op(device, op).unwrap();
        }
    }
    host.capture()
}

fn verdicts(job: &Job) -> Vec<Finding> {
    let capture = capture(job);
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    let all = Report::build(&capture, &ledgers).findings;
    all.into_iter().filter(|finding| finding.rule == "hang-collective").collect()
}

#[test]
fn a_rank_that_stopped_calling_is_named_with_what_it_is_blocked_in_wherever_counts_began() {
    // Whatever came last of its kernels was not delivered: its calls say how far it came.
    for undelivered in [(|_| false) as fn(i64) -> bool, |number| number > 95] {
        let all = verdicts(&Job { undelivered, ..USUAL });
        assert_eq!(all.len(), 1, "{all:#?}");
        let verdict = &all[0];
        assert_eq!(verdict.blame.culprit_ranks, [2], "{verdict:#?}");
        assert!(
            verdict.summary.starts_with("rank 2 never arrived at ncclAllReduce #"),
            "{}",
            verdict.summary
        );
        assert!(
            verdict.summary.ends_with("it is blocked in read() of /data/shard-0017"),
            "{}",
            verdict.summary
        );
        assert!(verdict.summary.contains("2 ranks wait for it"), "{}", verdict.summary);
        let link = verdict.blame.chain.last().unwrap();
        assert_eq!(
            (link.rank, link.tid, link.ns),
            (Some(2), Some(102), (USUAL.until - 100 * 10 * MS).unsigned_abs())
        );
        assert_eq!(verdict.ns, (USUAL.until - (100 * 10 * MS - 20_000)).unsigned_abs());
    }
}

#[test]
fn where_counts_do_not_stay_level_nobody_is_blamed_and_it_is_said_why() {
    let all = verdicts(&Job { unseen: |number| number % 4 == 0, ..USUAL });
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(all[0].blame.culprit_ranks.is_empty() && all[0].blame.confidence.is_none());
    assert!(all[0].summary.contains("which rank is missing cannot be told"), "{}", all[0].summary);
    assert!(all[0].evidence.contains("counts do not stay level"), "{}", all[0].evidence);
    // Of a recording that began just before, there is nothing to lay side by side.
    let all = verdicts(&Job { first: [98, 98, 98], ..USUAL });
    assert!(all.iter().all(|finding| finding.blame.culprit_ranks.is_empty()), "{all:#?}");
}

#[test]
fn an_operation_that_has_only_just_begun_is_no_hang() {
    assert!(verdicts(&Job { until: 2 * S, ..USUAL }).is_empty());
}
