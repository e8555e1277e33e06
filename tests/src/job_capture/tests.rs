use stallscope_core::capture::Capture;
use stallscope_core::ledger::{CommLeaf, Ledgers, Options, RootLeaf};
use stallscope_schemas::record::RecordKind;

use super::{JobShape, write};

#[test]
fn the_capture_has_the_operations_asked_for_and_gives_every_ledger_work() {
    let shape = JobShape { ranks: 4, ops: 20_000, collective_every: 100 };
    let (bytes, rows) = write(Vec::new(), shape).unwrap();
    let capture = Capture::open(bytes).unwrap();
    assert_eq!(capture.sizes().iter().map(|(_, rows, _)| rows).sum::<u64>(), rows);
    for gpu in 0..4 {
        let ops: u32 = capture.batches_of(RecordKind::GpuOp, gpu).map(|b| b.rows).sum();
        assert_eq!(ops, 20_000);
    }
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    assert_eq!(ledgers.gpus.len(), 4);
    let waited: u64 = ledgers.gpus.iter().map(|gpu| gpu.sums.comm(CommLeaf::Wait)).sum();
    let charged: u64 = ledgers.gpus.iter().map(|gpu| gpu.root.charged_ns).sum();
    assert!(waited > 0 && charged == waited, "{waited} waited, {charged} charged");
    for gpu in &ledgers.gpus {
        assert!(gpu.host_work.root.total() > 0, "its host was followed");
        assert!(gpu.root.get(RootLeaf::IdleHost) > 0);
    }
}

#[test]
fn the_same_shape_has_the_same_bytes() {
    let shape = JobShape { ranks: 2, ops: 3_000, collective_every: 10 };
    assert_eq!(write(Vec::new(), shape).unwrap().0, write(Vec::new(), shape).unwrap().0);
}
