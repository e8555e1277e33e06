use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::{DeviceId, SourceId, StringId, TimeNs};

use super::Transfer;
use super::lanes::{Lane, LaneClock, Mark, Root};
use super::matching::{Matched, Split, matched};
use super::phases::{Phase, Stretch, pieces, resolve};
use crate::capture::{Shift, Tables};

const COMM: StringId = StringId(1);

fn mark(start: i64, end: i64) -> Mark {
    let name = StringId(7);
    Mark {
        start: TimeNs(start),
        end: TimeNs(end),
        name,
        operation: CollectiveOp::AllReduce,
        root: Root::default(),
        bytes: 0,
        sequence: None,
        call: 0,
        shift: Shift::default(),
    }
}

fn lane(device: u32, group: Option<StringId>, marks: Vec<Mark>) -> Lane {
    // As many as there are: else nothing beyond the wait for those seen is known.
    let clock = LaneClock::Own(SourceId(0));
    let (open, called, threads) = (Vec::new(), StringId(0), Vec::new());
    Lane { device: DeviceId(device), clock, group, group_size: 2, rank: None, marks, open, called, threads }
}

fn phases(lanes: &[Lane], error_ns: u64, device: u32) -> Vec<(i64, i64, Phase)> {
    let Matched { splits, .. } = matched(lanes, &Tables::default(), error_ns);
    resolve(pieces(lanes, &splits, DeviceId(device))).iter().map(|s| (s.from.0, s.to.0, s.phase)).collect()
}

#[test]
fn an_early_rank_waits_until_the_last_one_comes_within_the_clocks_error() {
    let mut lanes = [
        lane(0, Some(COMM), vec![mark(0, 1100)]),
        lane(1, Some(COMM), vec![mark(400, 1100)]),
        lane(2, Some(COMM), vec![mark(1000, 1100)]),
    ];
    lanes[0].group_size = 3;
    // All wait in the one operation, whose last is device 2.
    let late = Phase::Wait(0);
    // The best of the three transfers is the floor: all take 100.
    assert_eq!(phases(&lanes, 0, 0), [(0, 1000, late), (1000, 1100, Phase::Floor)]);
    assert_eq!(phases(&lanes, 0, 2), [(1000, 1100, Phase::Floor)]);
    let uncertain = Phase::Uncertain;
    assert_eq!(phases(&lanes, 30, 1), [(400, 970, late), (970, 1030, uncertain), (1030, 1100, Phase::Floor)]);
    // The last one is the last for certain: the one before it came 600 earlier.
    assert_eq!(phases(&lanes, 30, 2), [(1000, 1100, Phase::Floor)]);
    // It is not with clocks as bad as that.
    assert_eq!(phases(&lanes, 650, 2), [(1000, 1050, uncertain), (1050, 1100, Phase::Floor)]);
}

#[test]
fn an_operation_knows_when_each_came_and_when_it_ended_there() {
    let lanes = [
        lane(0, Some(COMM), vec![mark(0, 100), mark(150, 900)]),
        lane(1, Some(COMM), vec![mark(10, 101), mark(800, 901)]),
    ];
    let Matched { operations, .. } = matched(&lanes, &Tables::default(), 0);
    let of = |at: usize| {
        let operation = &operations[at];
        let mut came: Vec<_> = operation.came.iter().map(|c| (c.device.0, c.at.0, c.end.0)).collect();
        came.sort_unstable();
        (operation.last.0, operation.at.0, operation.before, came)
    };
    assert_eq!(of(0), (1, 10, None, vec![(0, 0, 100), (1, 10, 101)]));
    assert_eq!(of(1), (1, 800, Some(0), vec![(0, 150, 900), (1, 800, 901)]));
}

#[test]
fn communicators_that_work_at_the_same_time_are_not_one() {
    // {0, 1} and {2, 3} reduce at the same time and end 10 µs apart; only 3 is late.
    let of = |device: u32, late: i64, end: i64| {
        let marks = (0..50).map(|k| mark(k * 1_000_000 + late, k * 1_000_000 + 400_000 + end)).collect();
        lane(device, None, marks)
    };
    let lanes = [of(0, 0, 0), of(1, 10, 5), of(2, 0, 10_000), of(3, 200_000, 10_005)];
    let Matched { operations, .. } = matched(&lanes, &Tables::default(), 0);
    assert!(operations.iter().all(|operation| operation.came.len() == 2));
    let late = |last| operations.iter().filter(|o| o.last == DeviceId(last)).count();
    assert_eq!((late(1), late(3)), (50, 50));
}

#[test]
fn what_takes_longer_than_the_same_at_its_best_is_excess() {
    let at = |k: i64| k * 10_000;
    let of = |device| {
        let length = |k: i64| if k == 7 { 900 } else { 100 };
        let marks = (0..40).map(|k| mark(at(k), at(k) + length(k))).collect();
        lane(device, Some(COMM), marks)
    };
    let phases = phases(&[of(0), of(1)], 0, 0);
    let excess: Vec<_> = phases.iter().filter(|p| p.2 == Phase::Excess).collect();
    assert_eq!(excess, [&(at(7) + 100, at(7) + 900, Phase::Excess)]);
}

#[test]
fn lanes_without_a_name_are_paired_where_their_kernels_end_together_and_a_lost_one_is_not_split() {
    // Rank 1 was recorded from the third operation on, and its sixth is lost. Another communicator runs beside.
    let of = |device, late: i64, keep: &dyn Fn(i64) -> bool| {
        let marks = (0..200).filter(|k| keep(*k)).map(|k| mark(k * 1000 + late, k * 1000 + 500)).collect();
        lane(device, None, marks)
    };
    let beside = |device, by: i64| {
        lane(device, None, (0..200).map(|k| mark(k * 1000 + 200 + by, k * 1000 + 850)).collect())
    };
    let lanes = [of(0, 0, &|_| true), of(1, 300, &|k| k > 1 && k != 130), beside(0, 400), beside(1, 600)];
    let Matched { splits, transfers, operations } = matched(&lanes, &Tables::default(), 0);
    let culprits = |lane: usize| {
        let last = |split: &Option<Split>| Some(operations[split.as_ref()?.waits_in? as usize].last);
        splits[lane].iter().filter(|split| last(split) == Some(DeviceId(1))).count()
    };
    // After the loss the shift changes within a block of 64: what cannot be told there is not split.
    assert!((100..=197).contains(&culprits(0)), "{}", culprits(0));
    assert_eq!(splits[0][0], None);
    assert_eq!(splits[0][130], None);
    assert_eq!(culprits(2), 200);
    let waits: Vec<u64> = transfers.iter().map(|t: &Transfer| t.wait_ns).collect();
    assert_eq!(waits.iter().sum::<u64>(), 200 * 200 + culprits(0) as u64 * 300);
}

#[test]
fn of_a_communicator_of_which_ranks_are_missing_only_the_wait_for_those_seen_is_known() {
    let mut lanes =
        vec![lane(0, Some(COMM), vec![mark(0, 1100)]), lane(1, Some(COMM), vec![mark(400, 1100)])];
    lanes[0].group_size = 4;
    assert_eq!(phases(&lanes, 0, 0), [(0, 400, Phase::Wait(0)), (400, 1100, Phase::Unsplit)]);
}

#[test]
fn kernels_that_cannot_be_one_operation_are_not_split() {
    // The second begins after the first has ended: whatever they are called.
    let apart = [lane(0, Some(COMM), vec![mark(0, 100)]), lane(1, Some(COMM), vec![mark(200, 300)])];
    assert_eq!(phases(&apart, 0, 0), [(0, 100, Phase::Unsplit)]);
}

/// Begin of each rank's kernel in one operation with a root; all end at 1000.
fn rooted(operation: CollectiveOp, root: Option<u32>, starts: &[i64]) -> Vec<Lane> {
    let of = |(device, &start): (u32, &i64)| {
        let root = root.map_or(Root::default(), Root::of);
        let mut lane = lane(device, Some(COMM), vec![Mark { operation, root, ..mark(start, 1000) }]);
        lane.group_size = starts.len() as u64;
        lane.rank = Some(device);
        lane
    };
    (0..).zip(starts).map(of).collect()
}

#[test]
fn those_that_receive_wait_for_the_root_and_it_for_nobody() {
    use CollectiveOp::{Broadcast, Scatter};
    for operation in [Broadcast, Scatter] {
        // It comes last: what follows is transfer.
        let late = rooted(operation, Some(2), &[0, 100, 600]);
        let all = [(0, 600, Phase::Wait(0)), (600, 1000, Phase::Floor)];
        assert_eq!(phases(&late, 0, 0), all);
        assert_eq!(phases(&late, 0, 2), [(600, 1000, Phase::Floor)]);
        let Matched { operations, transfers, .. } = matched(&late, &Tables::default(), 0);
        assert_eq!((operations[0].last, operations[0].came.len()), (DeviceId(2), 3));
        assert_eq!(transfers[0].wait_ns, 600 + 500);
        // One comes after it: for which of the two the first one waits from then on is not known.
        let between = rooted(operation, Some(1), &[0, 100, 600]);
        let unsplit = Phase::Unsplit;
        assert_eq!(phases(&between, 0, 0), [(0, 100, Phase::Wait(0)), (100, 1000, unsplit)]);
        assert_eq!(phases(&between, 30, 0)[..2], [(0, 70, Phase::Wait(0)), (70, 130, Phase::Uncertain)]);
        assert_eq!(phases(&between, 0, 1), [(100, 1000, unsplit)]);
        assert_eq!(phases(&between, 0, 2), [(600, 1000, unsplit)]);
        let Matched { operations, transfers, .. } = matched(&between, &Tables::default(), 0);
        assert_eq!((operations[0].last, operations[0].came.len()), (DeviceId(1), 2));
        assert!(transfers.is_empty());
        // The root comes first: nobody waits for it.
        assert_eq!(phases(&rooted(operation, Some(0), &[0, 100, 600]), 0, 0), [(0, 1000, unsplit)]);
    }
}

#[test]
fn a_root_that_collects_waits_for_the_last_one_and_the_others_are_not_known_to() {
    for operation in [CollectiveOp::Reduce, CollectiveOp::Gather] {
        let late = rooted(operation, Some(0), &[0, 100, 600]);
        assert_eq!(phases(&late, 0, 0), [(0, 600, Phase::Wait(0)), (600, 1000, Phase::Unsplit)]);
        assert_eq!(phases(&late, 0, 1), [(100, 1000, Phase::Unsplit)]);
        // It comes last itself.
        assert_eq!(phases(&rooted(operation, Some(2), &[0, 100, 600]), 0, 0), [(0, 1000, Phase::Unsplit)]);
    }
}

#[test]
fn without_one_root_nothing_is_known_of_an_operation_that_has_one() {
    let broadcast = CollectiveOp::Broadcast;
    assert_eq!(phases(&rooted(broadcast, None, &[0, 50]), 0, 0), [(0, 1000, Phase::Unsplit)]);
    // The ranks differ in what the root is.
    let mut two = rooted(broadcast, Some(1), &[0, 50]);
    two[0].marks[0].root = Root::of(0);
    assert_eq!(phases(&two, 0, 0), [(0, 1000, Phase::Unsplit)]);
    // Nor where it is not known which rank one is, and the job does not say.
    let mut two = rooted(broadcast, Some(1), &[0, 50]);
    assert_eq!(phases(&two, 0, 0)[0], (0, 50, Phase::Wait(0)));
    two[0].rank = None;
    assert_eq!(phases(&two, 0, 0), [(0, 1000, Phase::Unsplit)]);
    assert_eq!(
        (Root::of(254).rank(), Root::of(255).rank(), Root::of(u32::MAX).rank()),
        (Some(254), None, None)
    );
}

#[test]
fn of_those_that_come_at_once_the_root_is_the_one_that_is_waited_for() {
    let Matched { operations, .. } =
        matched(&rooted(CollectiveOp::Broadcast, Some(1), &[600, 600, 0]), &Tables::default(), 0);
    assert_eq!(operations[0].last, DeviceId(1));
}

/// Three all-reduces of two ranks, between which the first one collects from the second, which leaves before the first comes; with
/// the numbers of their calls.
fn collecting() -> [Lane; 2] {
    let (of, reduce) = (CollectiveOp::AllReduce, CollectiveOp::Reduce);
    let of_rank = |rank: u32, kernels: &[(CollectiveOp, i64, i64)]| {
        let root = |operation| if operation == reduce { Root::of(0) } else { Root::default() };
        let marks = (1..).zip(kernels).map(|(call, &(operation, start, end))| Mark {
            operation,
            call: call + u64::from(rank) * 5,
            root: root(operation),
            ..mark(start, end)
        });
        let mut lane = lane(rank, Some(COMM), marks.collect());
        lane.rank = Some(rank);
        lane
    };
    [
        of_rank(0, &[(of, 0, 10), (reduce, 100, 900), (reduce, 1000, 1100), (of, 1200, 1300)]),
        of_rank(1, &[(of, 0, 10), (reduce, 800, 810), (reduce, 900, 910), (of, 1200, 1300)]),
    ]
}

#[test]
fn an_operation_with_a_root_that_one_left_early_is_matched_by_its_order() {
    let of = |lanes: &[Lane]| {
        let Matched { operations, splits, .. } = matched(lanes, &Tables::default(), 0);
        let waits = |at: usize| splits[0][at].is_some_and(|split| split.waits_in.is_some());
        (operations.len(), waits(1), waits(2))
    };
    // The first of them is told by its overlap; to the second the root came last.
    assert_eq!(of(&collecting()), (3, true, false));
    // It leaves early while the root waits for a third one.
    let mut lanes = collecting().to_vec();
    lanes.push(lane(2, Some(COMM), lanes[1].marks.clone()));
    lanes[2].marks[2] = Mark { start: TimeNs(1050), end: TimeNs(1090), ..lanes[2].marks[2] };
    lanes[2].rank = Some(2);
    assert_eq!(of(&lanes), (4, true, true));
    // Nothing is known where one rank's calls are not numbered, or records are lost on both.
    let mut unknown = lanes.clone();
    unknown[1].marks[2].call = 0;
    assert_eq!(of(&unknown), (3, true, false));
    let mut lost = lanes;
    for mark in &mut lost[1].marks[2..] {
        mark.call += 1;
    }
    assert_eq!(of(&lost), (3, true, false));
}

#[test]
fn a_rank_that_is_known_not_to_be_that_of_the_job_leaves_the_order_unknown() {
    use crate::capture::{Capture, CaptureWriter, Device, Process, WriterOptions};
    // Two ranks of a job; a call of the first says that it is the last of its communicator.
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let source = writer.add_source(Default::default());
    for rank in 0..2u32 {
        let process = Process { source, rank: Some(rank), world_size: Some(2), ..Process::default() };
        let process = writer.add_process(process);
        writer.add_device(Device { source, processes: vec![process], ..Device::default() });
    }
    let capture = Capture::open(writer.finish().unwrap().0).unwrap();
    let last = |rank: Option<u32>| {
        let mut lanes = rooted(CollectiveOp::Broadcast, Some(1), &[0, 50]);
        (lanes[0].rank, lanes[1].rank) = (rank, None);
        let Matched { operations, .. } = matched(&lanes, capture.tables(), 0);
        operations.first().map(|operation| operation.last)
    };
    assert_eq!((last(None), last(Some(0))), (Some(DeviceId(1)), Some(DeviceId(1))));
    assert_eq!(last(Some(1)), None);
}

#[test]
fn of_kernels_side_by_side_the_one_that_gets_on_says_what_the_device_does() {
    let piece = |from, to, phase| Stretch { from: TimeNs(from), to: TimeNs(to), phase };
    let (one, other) = (Phase::Wait(1), Phase::Wait(2));
    let resolved = resolve(vec![
        piece(0, 100, one),
        piece(20, 60, Phase::Floor),
        piece(50, 80, Phase::Unsplit),
        piece(90, 200, other),
        piece(300, 310, Phase::Excess),
    ]);
    let all: Vec<_> = resolved.iter().map(|s| (s.from.0, s.to.0, s.phase)).collect();
    assert_eq!(
        all,
        [
            (0, 20, one),
            (20, 60, Phase::Floor),
            (60, 80, Phase::Unsplit),
            (80, 90, one),
            (90, 200, other),
            (300, 310, Phase::Excess)
        ]
    );
}
