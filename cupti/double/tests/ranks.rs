//! What NCCL does beyond collectives one by one: messages, groups, ranks that go away.

mod common;

use std::collections::BTreeMap;

use common::{Lab, Outcome};
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_double::truth::{Collective, Op, OpKind};

/// The same by memory that the ranks share, and by TCP alone.
fn both(what: &str, check: impl Fn(&Outcome)) {
    for settings in ["gpus=3", "gpus=3;nccl.memory=0"] {
        check(&Lab::new(Version::V12_8).run("ranks.c", &[what], settings));
    }
}

fn op<'a>(outcome: &'a Outcome, part: &Collective) -> &'a Op {
    outcome.ops().into_iter().find(|o| (o.pid, o.id) == (part.pid, part.op)).unwrap()
}

#[test]
fn messages_meet_in_pairs_and_a_kernel_ends_with_its_last() {
    both("pairs", |outcome| {
        let parts = outcome.collectives();
        assert_eq!(parts.len(), 3 * 3 * 2, "three rounds, three ranks, a send and a receive");
        let mut by_kernel: BTreeMap<(u32, u64), Vec<&Collective>> = BTreeMap::new();
        for part in &parts {
            assert_eq!((part.ranks.len(), part.what.as_str(), part.bytes), (2, "SendRecv", 4_000));
            assert!(part.ranks.contains(&part.rank));
            by_kernel.entry((part.pid, part.op)).or_default().push(part);
        }
        assert_eq!(by_kernel.len(), 9, "one kernel a group");
        for parts in by_kernel.into_values() {
            let end_of = |p: &&Collective| p.starts_ns.iter().max().unwrap() + p.transfer_ns;
            let op = op(outcome, parts[0]);
            assert!(op.name.contains("SendRecv"));
            assert_eq!(op.end_ns, parts.iter().map(end_of).max());
        }
    });
}

#[test]
fn a_group_is_one_kernel() {
    both("group", |outcome| {
        for rank in 0..3 {
            let mut parts: Vec<_> = outcome.collectives().into_iter().filter(|c| c.rank == rank).collect();
            parts.sort_by_key(|c| c.sequence);
            let calls: Vec<_> = parts.iter().map(|c| (c.what.as_str(), c.bytes)).collect();
            let expected =
                [("AllReduce", 4_000), ("AllReduce", 8_000), ("Broadcast", 10), ("AllGather", 1_000)];
            assert_eq!(calls, expected);
            let ops: Vec<u64> = parts.iter().map(|c| c.op).collect();
            assert!(ops[0] == ops[1] && ops[1] == ops[2] && ops[2] != ops[3], "{ops:?}");
            assert!(op(outcome, parts[3]).start_ns >= op(outcome, parts[0]).end_ns);
        }
    });
}

#[test]
fn a_message_to_oneself_arrives() {
    both("self", |outcome| {
        let kernels: Vec<_> = outcome.ops().into_iter().filter(|o| o.kind == OpKind::Collective).collect();
        assert_eq!(kernels.len(), 3);
        assert!(kernels.iter().all(|k| k.end_ns > k.start_ns));
    });
}

#[test]
fn ranks_left_behind_hang_until_they_give_up() {
    both("gone", |outcome| {
        assert_eq!(outcome.lines("error"), ["6", "6"]);
        assert_eq!(outcome.lines("waits"), ["1", "1"]);
        assert_eq!(outcome.text.lines().filter(|l| *l == "aborted").count(), 2);
    });
}
