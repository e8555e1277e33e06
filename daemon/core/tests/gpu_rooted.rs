//! Operations with a root on GPUs: whatever ranks say of them, ledgers close.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::Host;
use proptest::prelude::{Just, Strategy, prop, prop_oneof, proptest};
use stallscope_core::capture::{Capture, Device};
use stallscope_core::ledger::{CommLeaf, Ledgers, Options, all_ledgers};
use stallscope_core::report::Report;
use stallscope_core::rows::CollectiveCall;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::{StackId, StringId, TimeNs};

const RANKS: usize = 3;

/// What a rank says of an operation: when it comes after the one before, how long its kernel takes, the root, and whether a record
/// of it is lost.
type Said = (i64, i64, Option<u32>, bool);

/// An operation, and what each rank says of it.
type Operation = (CollectiveOp, [Said; RANKS]);

fn operation() -> impl Strategy<Value = Operation> {
    let what = prop_oneof![
        Just(CollectiveOp::AllReduce),
        Just(CollectiveOp::Broadcast),
        Just(CollectiveOp::Reduce),
        Just(CollectiveOp::Gather),
        Just(CollectiveOp::Scatter),
    ];
    let root = prop_oneof![8 => Just(Some(0)), 1 => Just(Some(2)), 1 => Just(Some(900)), 1 => Just(None)];
    let said = (0..300i64, 1..300i64, root, prop_oneof![15 => Just(false), 1 => Just(true)]);
    (what, [said.clone(), said.clone(), said])
}

/// The operations of a communicator, each after the one before; `known`: whether calls say which rank their process is.
fn capture(operations: &[Operation], known: bool, error_ns: u64) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    host.writer.add_label("gpu.clock_error_ns", &error_ns.to_string());
    let [function, group] = ["ncclAny", "nccl:1"].map(|t| host.writer.intern(t));
    for rank in 0..RANKS {
        let number = u32::try_from(rank).unwrap();
        let process = host.process(100 + i64::from(number), "python", Some(number));
        host.writer.update_process(process, |p| p.world_size = u32::try_from(RANKS).ok());
        let thread = host.thread(process, 100 + i64::from(number), "MainThread", 0, 1_000_000);
        let id = format!("GPU-{rank}");
        let device = host.writer.add_device(Device { id, processes: vec![process], ..Device::default() });
        let mut at = 100;
        for (sequence, (operation, said)) in (1u64..).zip(operations) {
            let (after, takes, root, is_lost) = said[rank];
            let (from, to) = (at + after, at + after + takes);
            at = to + 20;
            if is_lost {
                continue;
            }
            let call = CollectiveCall {
                start: TimeNs(from - 10),
                duration_ns: 6,
                name: function,
                library: CollectiveLibrary::Nccl,
                operation: *operation,
                bytes: 64,
                elements: 64,
                datatype: StringId(0),
                reduction: StringId(0),
                group,
                group_size: RANKS as u64,
                rank: Some(number).filter(|_| known),
                peer: root,
                stream: 20,
                sequence,
                result: 0,
                flags: 0,
                stack: StackId(0),
            };
            host.writer.push_collective_call(thread, call).unwrap();
            let op = host.kernel(
                thread,
                ("ncclDevKernel_Broadcast_RING_LL", 20),
                (from - 8, from - 6),
                (from, to),
            );
            host.writer.push_gpu_op(device, op).unwrap();
        }
    }
    host.capture()
}

proptest! {
    #[test]
    fn ledgers_close_whatever_ranks_say_of_a_root(
        operations in prop::collection::vec(operation(), 1..40),
        known in prop::bool::ANY,
        error_ns in 0..40u64,
    ) {
        let capture = capture(&operations, known, error_ns);
        for ledger in all_ledgers(&capture, Options::default()).unwrap() {
            let wall = ledger.end.since(ledger.start);
            assert_eq!((ledger.sums.total(), ledger.root.total()), (wall, wall));
            let charged: u64 = ledger.root.waits.values().map(|amount| amount.ns).sum();
            assert_eq!(charged, ledger.sums.comm(CommLeaf::Wait));
        }
        Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    }
}

#[test]
fn the_root_of_a_reduction_waits_for_who_comes_after_another_left() {
    // Ten steps: an all-reduce that ends at once on all; then rank 1 comes and leaves, rank 2 comes 200 later, and the root, rank 0,
    // leaves last. The one that left is matched by its order.
    let all =
        (CollectiveOp::AllReduce, [(10, 20, None, false), (10, 20, None, false), (10, 20, None, false)]);
    let reduce = (
        CollectiveOp::Reduce,
        [(30, 270, Some(0), false), (0, 10, Some(0), false), (230, 70, Some(0), false)],
    );
    // All are level again.
    let level =
        (CollectiveOp::AllReduce, [(10, 20, None, false), (300, 20, None, false), (10, 20, None, false)]);
    let steps: Vec<Operation> = [all, reduce, level].repeat(10);
    let capture = capture(&steps, true, 0);
    let ledgers = all_ledgers(&capture, Options::default()).unwrap();
    let by: Vec<_> =
        ledgers[0].root.waits.iter().map(|(w, amount)| (w.culprit().unwrap().0, amount.ns)).collect();
    assert_eq!(by.iter().filter(|(who, _)| *who == 2).map(|(_, ns)| ns).sum::<u64>(), 10 * 200, "{by:?}");
}
