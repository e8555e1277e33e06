//! Real exports with known contents. Skipped, and saying so, where the traces are not at hand.

mod nsys_support;

use std::path::PathBuf;

use nsys_support::{Read, import};
use stallscope_core::classify::{OpClass, kernel_class, op_class};
use stallscope_core::rows::StreamWait;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, op_flags};

fn trace(name: &str) -> Option<Read> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ground-truth/nsys").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(import(&path).unwrap())
}

#[test]
fn two_h100_of_a_training_job() {
    let Some(read) = trace("mfu_2gpu_before.sqlite") else { return };
    let kernels_of = |ordinal: u32| {
        let tables = read.tables();
        let on = |key: u32| tables.devices()[key as usize].ordinal == ordinal;
        read.ops.iter().filter(|(key, op)| on(*key) && op.kind == OpKind::Kernel).count()
    };
    assert_eq!((kernels_of(0), kernels_of(1)), (1993, 2017));
    assert_eq!(read.imported.gpu_ops, 4010 + 1020 + 269);
    let of_kind = |kind| read.ops.iter().filter(|(_, op)| op.copy_kind == kind).count();
    assert_eq!(of_kind(CopyKind::HostToDevicePageable), 34);
    assert_eq!(of_kind(CopyKind::DeviceToDevice), 986);
    // All but the 24 kernels whose launch precedes the slice are joined.
    assert_eq!(
        read.ops.iter().filter(|(_, op)| op.launch.is_none()).count() as u64,
        read.loss(LossCounter::LaunchMissing)
    );
    assert!(read.loss(LossCounter::LaunchMissing) < 40, "{:?}", read.losses);
    assert_eq!(read.loss(LossCounter::CorrelationDuplicate), 0);
    assert_eq!(read.waits.len(), 200);
    // The export says device 0 for all of them; the contexts say otherwise.
    let waits_of = |ordinal: u32| {
        let device = read.tables().devices().iter().position(|d| d.ordinal == ordinal).unwrap();
        read.capture.rows::<StreamWait>(u32::try_from(device).unwrap()).count()
    };
    assert_eq!((waits_of(0), waits_of(1)), (98, 102));
    assert!(read.tables().devices().iter().all(|d| d.processes.len() == 1));
    assert_eq!(read.capture.host(), "modal");
    let names: Vec<_> = read.tables().processes().iter().map(|p| (p.pid, p.name.as_str(), p.rank)).collect();
    assert!(names.contains(&(144, "python3", None)) && names.contains(&(145, "python3", None)), "{names:?}");
    // 60.11 s into a session that began at this moment.
    assert_eq!(read.ops[0].1.start.0, 1_779_782_330_176_752_435 + 60_111_513_113);
}

#[test]
fn send_and_receive_communicate_by_evidence_of_the_launch_alone() {
    let Some(read) = trace("mfu_2gpu_before.sqlite") else { return };
    let tables = read.tables();
    let is_nccl = |name| tables.string(name).starts_with("ncclDevKernel_SendRecv");
    let nccl: Vec<_> = read.ops.iter().map(|(_, op)| op).filter(|op| is_nccl(op.name)).collect();
    assert_eq!(nccl.len(), 66);
    let by_launch = nccl.iter().filter(|op| op.flags & op_flags::COLLECTIVE_CORRELATED != 0).count();
    let with_launch = nccl.iter().filter(|op| op.launch.is_some()).count();
    assert_eq!(by_launch, with_launch, "every launch was inside NCCL");
    assert_eq!(with_launch, 64, "two were launched before the slice begins");
    // Whatever the kernel is called: without its name the verdict is the same.
    assert!(
        nccl.iter()
            .filter(|op| op.launch.is_some())
            .all(|op| { op_class(op.kind, op.flags, OpClass::Compute) == OpClass::Comm })
    );
    let others = read.ops.iter().filter(|(_, op)| op.kind == OpKind::Kernel && !is_nccl(op.name));
    let wrong = others
        .filter(|(_, op)| op_class(op.kind, op.flags, kernel_class(tables.string(op.name))) == OpClass::Comm);
    assert_eq!(wrong.count(), 0, "nothing else communicates");
}

#[test]
fn ranges_of_emit_nvtx_are_operators_without_their_numbers() {
    let Some(read) = trace("mfu_2gpu_before.sqlite") else { return };
    let operators = read.spans.iter().filter(|(_, s)| s.kind == SpanKind::Operator).count();
    assert_eq!(operators, 18_656);
    assert!(read.spans.iter().all(|(_, s)| !read.tables().string(s.name).contains("op_id")));
    let overhead =
        read.spans.iter().filter(|(_, s)| read.tables().string(s.name).starts_with("profiler overhead"));
    assert_eq!(overhead.count(), 6);
}

#[test]
fn a_minimal_synthetic_export() {
    let Some(read) = trace("healthy_1pct.sqlite") else { return };
    assert_eq!(read.ops.len(), 400);
    assert!(read.ops.iter().all(|(_, op)| op.launch.is_some() && op.duration_ns == 1_000_000));
    assert_eq!(read.tables().devices()[0].id, "healthy_1pct-gpu0");
    assert_eq!(read.tables().devices()[0].model, "NVIDIA H100 80GB HBM3");
    assert_eq!(read.ops[0].1.start.0, 0);
    assert_eq!(read.losses, []);
}
