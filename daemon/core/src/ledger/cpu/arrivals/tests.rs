use super::matching::{MAX_KEPT, are_kept, matched};
use super::{Arrival, Arrivals, BTreeMap, CollectiveOp, Inside, Mark, OfGroup, StringId, TimeNs};

fn calls(spans: &[(i64, i64)]) -> OfGroup {
    let mark = |&(start, end): &(i64, i64)| Mark {
        start: TimeNs(start),
        end: TimeNs(end),
        operation: CollectiveOp::AllReduce,
        name: StringId(7),
        bytes: 64,
        thread: 0,
        is_root: None,
        sequence: 0,
    };
    OfGroup { together: spans.iter().map(mark).collect(), ..OfGroup::default() }
}

/// What several ranks come to, of which all are seen.
fn all_of(groups: &[OfGroup]) -> Vec<Arrivals> {
    matched(groups.iter().enumerate().collect(), 0, &BTreeMap::new())
}

fn one_of(groups: &[OfGroup]) -> Arrivals {
    all_of(groups).pop().unwrap()
}

fn of(ranks: &[&[(i64, i64)]]) -> Arrivals {
    one_of(&ranks.iter().map(|spans| calls(spans)).collect::<Vec<_>>())
}

#[test]
fn time_in_which_a_rank_waits_in_two_calls_counts_once() {
    // Two buckets of gradients are handed over together: rank 0 waits in both from 0 on, rank 1 in the second from
    // 600 on. Rank 2 begins the first at 1000 and the second at 1010.
    let arrivals = of(&[
        &[(0, 1020), (10, 1040), (2000, 2200)],
        &[(300, 1020), (600, 1040), (2000, 2200)],
        &[(1000, 1020), (1010, 1040), (2000, 2200)],
    ]);
    let ranks: Vec<_> = arrivals.ranks.iter().map(|a| (a.ledger, a.last, a.caused_ns, a.waited_ns)).collect();
    assert_eq!(ranks, [(0, 0, 0, 1010), (1, 0, 0, 710), (2, 2, 1720, 0)]);
    assert_eq!(arrivals.calls, 3);
}

#[test]
fn who_is_inside_of_another_call_is_not_late_by_its_own_doing() {
    // Both were level at 10. Rank 1 is in a broadcast until 710, and then works for 300, rank 0 for 90 only.
    let ranks = [calls(&[(0, 20), (110, 1100)]), calls(&[(10, 20), (1010, 1100)])];
    let of_rank = |spans: &[(i64, i64)]| {
        let mut inside = Inside::default();
        spans.iter().for_each(|&(from, to)| inside.add(TimeNs(from), TimeNs(to)));
        [inside]
    };
    let inside = [of_rank(&[(0, 20), (110, 1100)]), of_rank(&[(10, 20), (20, 710), (1010, 1100)])];
    let inside = inside.iter().map(|of| of.as_slice()).enumerate().collect();
    let arrivals = matched(ranks.iter().enumerate().collect(), 0, &inside).pop().unwrap();
    let of = |rank: usize| arrivals.ranks[rank];
    // Of 900 that it waits, rank 1 was 690 longer inside of calls and 210 longer outside.
    assert_eq!((of(0).waited_ns, of(0).held_ns, of(1).caused_ns), (10 + 900, 690, 10 + 210));
}

#[test]
fn who_waited_for_a_late_rank_in_another_call_passes_that_on() {
    // Rank 2 comes to a reduction at 800, for which rank 0, its root, waits from 100 on. To the all-reduce after it rank 1 comes at
    // 150, rank 2 at 900, and rank 0 at 1000: 50 later than it would have by its own doing.
    let mut groups: Vec<OfGroup> =
        [(1000, 1010), (150, 1010), (900, 1010)].iter().map(|&own| calls(&[(0, 10), own])).collect();
    let reduce = [(100, 850), (100, 110), (800, 810)];
    for (rank, (group, (start, end))) in groups.iter_mut().zip(reduce).enumerate() {
        let mark = Mark { start: TimeNs(start), end: TimeNs(end), ..group.together[0] };
        let (operation, name) = (CollectiveOp::Reduce, StringId(8));
        group.rooted.push(Mark { operation, name, is_root: Some(rank == 0), ..mark });
    }
    let inside: Vec<[Inside; 1]> = groups
        .iter()
        .map(|group| {
            let mut inside = Inside::default();
            let calls = [&group.together[0], &group.rooted[0], &group.together[1]];
            calls.iter().for_each(|mark| inside.add(mark.start, mark.end));
            [inside]
        })
        .collect();
    let inside = inside.iter().map(|of| of.as_slice()).enumerate().collect();
    let arrivals = matched(groups.iter().enumerate().collect(), 0, &inside).pop().unwrap();
    // In the reduction rank 0 waits 700 for rank 2. In the all-reduce rank 1 waits 850 for rank 0, which was 740 longer inside of
    // calls and 110 longer outside: of the former 700 are rank 2's, and 40 its own transfer's. Rank 2 waits 100 for it, which was
    // inside of calls meanwhile.
    let of = |rank: usize| (arrivals.ranks[rank].caused_ns, arrivals.ranks[rank].held_ns);
    assert_eq!((of(0), of(1), of(2)), ((110, 0), (0, 40), (700 + 700, 100)));
    assert_eq!(arrivals.waited_for, BTreeMap::from([((0, 1), 110), ((2, 0), 700), ((2, 1), 700)]));
    let late = arrivals.ranks[2];
    assert_eq!((late.name, late.last, late.calls, late.longest_ns), (StringId(8), 1, 1, 700 + 700));
    let sum = |of: fn(&Arrival) -> u64| arrivals.ranks.iter().map(of).sum::<u64>();
    assert_eq!(sum(|a| a.caused_ns) + sum(|a| a.held_ns), sum(|a| a.waited_ns));
}

/// Between two all-reduces that take 10 an operation with a root, by each rank's begin and end.
fn rooted(operation: CollectiveOp, root: usize, spans: &[(i64, i64)]) -> Arrivals {
    let of = |(rank, &(start, end)): (usize, &(i64, i64))| {
        let mut group = calls(&[(0, 10), (10_000, 10_010)]);
        let mark = Mark { start: TimeNs(start), end: TimeNs(end), operation, ..group.together[0] };
        group.rooted.push(Mark { name: StringId(8), is_root: Some(rank == root), ..mark });
        group
    };
    one_of(&spans.iter().enumerate().map(of).collect::<Vec<_>>())
}

fn waited(arrivals: &Arrivals) -> Vec<(u64, u64, u64)> {
    arrivals.ranks.iter().map(|of| (of.waited_ns, of.caused_ns, of.last)).collect()
}

#[test]
fn who_receives_waits_for_the_root_and_the_root_for_nobody() {
    use CollectiveOp::{Broadcast, Scatter};
    for operation in [Broadcast, Scatter] {
        let late = rooted(operation, 2, &[(100, 950), (400, 960), (900, 905)]);
        assert_eq!(waited(&late), [(800, 0, 0), (500, 0, 0), (0, 1300, 1)]);
        assert_eq!((late.calls, late.name), (1, StringId(8)));
        // From the root's coming to each one's end.
        let moved: Vec<u64> = late.ranks.iter().map(|of| of.moved_ns).collect();
        assert_eq!(moved, [20 + 50, 20 + 60, 20 + 5]);
        // It has gone before one comes, whom nobody is known to wait for.
        let between = rooted(operation, 1, &[(100, 950), (400, 410), (900, 960)]);
        assert_eq!(waited(&between), [(300, 0, 0), (0, 300, 1), (0, 0, 0)]);
        assert_eq!(between.ranks[0].moved_ns, 20);
        let first = rooted(operation, 0, &[(100, 110), (400, 410), (900, 960)]);
        assert_eq!((waited(&first), first.calls, first.name), (vec![(0, 0, 0); 3], 2, StringId(7)));
    }
}

#[test]
fn a_root_that_collects_waits_for_the_last_one() {
    for operation in [CollectiveOp::Reduce, CollectiveOp::Gather] {
        let late = rooted(operation, 0, &[(100, 950), (400, 410), (900, 905)]);
        assert_eq!(waited(&late), [(800, 0, 0), (0, 0, 0), (0, 800, 1)]);
        let last = rooted(operation, 2, &[(100, 110), (400, 410), (900, 905)]);
        assert_eq!(waited(&last), [(0, 0, 0); 3]);
    }
}

#[test]
fn calls_with_a_root_that_do_not_fit_are_not_one_operation() {
    let broadcast = CollectiveOp::Broadcast;
    // One that waited for the root left before it came.
    assert_eq!(rooted(broadcast, 2, &[(100, 800), (400, 960), (900, 905)]).calls, 2);
    // Nobody is the root, or who it is is not known.
    assert_eq!(rooted(broadcast, 3, &[(100, 950), (400, 960), (900, 905)]).calls, 2);
    // One rank's record is lost.
    let mut groups: Vec<OfGroup> = (0..2).map(|_| calls(&[(0, 10), (10_000, 10_010)])).collect();
    let mark = Mark { operation: broadcast, is_root: Some(true), ..groups[0].together[0] };
    groups[0].rooted.push(Mark { start: TimeNs(100), end: TimeNs(200), ..mark });
    assert_eq!(one_of(&groups).calls, 2);
}

#[test]
fn what_a_transfer_takes_beyond_its_best_is_slow() {
    let arrivals = of(&[&[(0, 200), (1000, 1500)], &[(100, 210), (1000, 1600)]]);
    let slow: Vec<_> = arrivals.ranks.iter().map(|a| (a.moved_ns, a.slow_ns)).collect();
    assert_eq!(slow, [(100 + 500, 400), (110 + 600, 10 + 500)]);
}

#[test]
fn what_the_later_of_two_overlapping_calls_adds_is_caused_by_who_was_late_for_it() {
    // Rank 1 is late for the first call, rank 2 for the second; rank 0 waits through both without a break.
    let arrivals = of(&[&[(0, 110), (50, 310)], &[(100, 110), (105, 310)], &[(0, 110), (300, 310)]]);
    let of = |rank: usize| arrivals.ranks[rank];
    assert_eq!((of(1).caused_ns, of(2).caused_ns), (200, 200 + 195));
    assert_eq!((of(0).waited_ns, of(1).waited_ns, of(2).waited_ns), (300, 195, 100));
    // What is waited is what is caused.
    let sum = |of: fn(&Arrival) -> u64| arrivals.ranks.iter().map(of).sum::<u64>();
    assert_eq!(sum(|a| a.caused_ns), sum(|a| a.waited_ns));
}

/// Steps of 1 ms, from one number to another, in which a rank comes `late` to an all-reduce that ends at 900 µs and takes 100; with
/// their numbers.
fn steps(numbers: std::ops::Range<i64>, late: i64) -> OfGroup {
    let spans: Vec<_> = numbers.clone().map(|k| (k * 1000 + 100 + late, k * 1000 + 900)).collect();
    let mut group = calls(&spans);
    for (mark, number) in group.together.iter_mut().zip(numbers) {
        mark.sequence = number.unsigned_abs() + 1;
    }
    group
}

#[test]
fn a_rank_that_was_attached_to_later_or_lost_a_record_is_matched_from_then_on() {
    let late = |groups: &[OfGroup]| one_of(groups).ranks[1].last;
    // By far more calls than a program that was attached to at once.
    assert_eq!(late(&[steps(0..1000, 0), steps(300..1000, 500)]), 700);
    let mut lost = steps(0..1000, 500);
    lost.together.remove(200);
    // Of the block of 64 in which it is nothing is known.
    assert!((1000 - 64..1000).contains(&late(&[steps(0..1000, 0), lost])));
}

#[test]
fn buckets_that_overlap_are_not_taken_for_each_other_after_a_lost_record() {
    // Four all-reduces are under way at any time, and end 1 ms after each other. Rank 1 is never late.
    let of = || {
        let mut group = steps(0..1000, 0);
        group.together.iter_mut().for_each(|mark| mark.end = TimeNs(mark.end.0 + 4000));
        group
    };
    let mut lost = of();
    lost.together.remove(200);
    let arrivals = one_of(&[of(), lost]);
    assert_eq!(arrivals.ranks.iter().map(|rank| rank.waited_ns).collect::<Vec<_>>(), [0, 0]);
    assert!(arrivals.calls >= 1000 - 64);
}

#[test]
fn communicators_that_have_one_name_are_told_apart_by_their_size() {
    // {0, 1} and {2, 3} work at the same time, in communicators with the same handle; only 3 is late.
    let of = |late: i64, end: i64| {
        let mut group = steps(0..100, late);
        group.size = 2;
        group.together.iter_mut().for_each(|mark| mark.end = TimeNs(mark.end.0 + end));
        group
    };
    let all = all_of(&[of(0, 0), of(3, 0), of(0, 40), of(600, 40)]);
    let waited = |at: usize| -> Vec<_> { all[at].ranks.iter().map(|r| (r.ledger, r.waited_ns)).collect() };
    assert_eq!((waited(0), waited(1)), (vec![(0, 300), (1, 0)], vec![(2, 60_000), (3, 0)]));
    assert_eq!(all.len(), 2);
    // Of another size it is another one.
    let mut three = of(0, 0);
    three.size = 3;
    assert!(all_of(&[of(0, 0), three]).is_empty());
}

#[test]
fn jobs_that_have_one_name_are_told_apart_by_their_ranks() {
    // Nobody knows how many ranks they have.
    let of = |rank: u32, late: i64, end: i64| {
        let mut group = steps(0..100, late);
        group.rank = Some(rank);
        group.together.iter_mut().for_each(|mark| mark.end = TimeNs(mark.end.0 + end));
        group
    };
    let all = all_of(&[of(0, 0, 0), of(1, 0, 40), of(1, 3, 0), of(0, 600, 40)]);
    let waited = |at: usize| -> Vec<_> { all[at].ranks.iter().map(|r| (r.ledger, r.waited_ns)).collect() };
    assert_eq!((waited(0), waited(1)), (vec![(0, 300), (2, 0)], vec![(1, 60_000), (3, 0)]));
}

#[test]
fn an_operation_that_one_left_before_the_last_one_came_is_none() {
    // A sparse all-to-all: rank 1 gets nothing from rank 2, which comes at 500.
    let arrivals = of(&[&[(0, 20), (100, 600)], &[(0, 20), (100, 450)], &[(0, 20), (500, 600)]]);
    assert_eq!((arrivals.calls, arrivals.ranks[1].waited_ns), (1, 0));
}

#[test]
fn what_follows_the_last_one_seen_is_no_transfer_where_ranks_are_missing() {
    let moved = |size: u64, world: u64| {
        let mut groups = [calls(&[(0, 20), (100, 600)]), calls(&[(0, 20), (200, 600)])];
        groups.iter_mut().for_each(|group| group.size = size);
        let arrivals = matched(groups.iter().enumerate().collect(), world, &BTreeMap::new()).pop().unwrap();
        assert_eq!(arrivals.ranks[0].waited_ns, 100, "for those seen it is known");
        arrivals.ranks[0].moved_ns
    };
    let all = 20 + 400;
    assert_eq!((moved(2, 8), moved(0, 2), moved(0, 0)), (all, all, all));
    assert_eq!((moved(3, 2), moved(0, 8)), (0, 0));
}

#[test]
fn ranks_that_say_different_sizes_are_of_one_transfer() {
    // Rank 1 reduces in place, and its transfers take long each time.
    let mut groups = [calls(&[(0, 100), (1000, 1100)]), calls(&[(0, 500), (1000, 1500)])];
    groups[1].together.iter_mut().for_each(|mark| mark.bytes = 0);
    assert_eq!(one_of(&groups).ranks[1].slow_ns, 800);
}

#[test]
fn lost_records_of_several_ranks_do_not_make_other_operations_of_what_is_left() {
    // Three broadcasts, of which rank 0 lost the first and rank 1 the last. The root comes to the third while rank 1 is in the
    // second.
    let mut groups: Vec<OfGroup> = (0..2).map(|_| calls(&[(0, 10), (10_000, 10_010)])).collect();
    for (rank, spans) in [[(1000, 1050), (2000, 2050)], [(1000, 1060), (1900, 2060)]].iter().enumerate() {
        for (&(start, end), number) in spans.iter().zip([1, 2]) {
            let mark = Mark { start: TimeNs(start), end: TimeNs(end), ..groups[rank].together[0] };
            let sequence = number + u64::from(rank == 0);
            let (operation, is_root) = (CollectiveOp::Broadcast, Some(rank == 0));
            groups[rank].rooted.push(Mark { operation, is_root, sequence, ..mark });
        }
    }
    assert_eq!(one_of(&groups).ranks[1].waited_ns, 0);
    // Were they the same ones, rank 1 had waited.
    groups[0].rooted.iter_mut().for_each(|mark| mark.sequence -= 1);
    assert_eq!(one_of(&groups).ranks[1].waited_ns, 100);
}

#[test]
fn of_those_that_come_at_once_the_root_is_the_one_that_is_waited_for() {
    let together = rooted(CollectiveOp::Broadcast, 1, &[(100, 950), (900, 950), (900, 950)]);
    assert_eq!(waited(&together), [(800, 0, 0), (0, 800, 1), (0, 0, 0)]);
}

#[test]
fn each_rank_is_told_by_the_function_in_which_the_others_waited_for_it() {
    // Rank 0 is late for the broadcast, of which it is the root, rank 1 for the all-reduce after it, and more so.
    let mut groups = [calls(&[(0, 10), (1000, 3010)]), calls(&[(0, 10), (3000, 3010)])];
    for (rank, start) in [(0, 500), (1, 100)] {
        let mark = Mark { start: TimeNs(start), end: TimeNs(510), ..groups[rank].together[0] };
        let (operation, name) = (CollectiveOp::Broadcast, StringId(8));
        groups[rank].rooted.push(Mark { operation, name, is_root: Some(rank == 0), ..mark });
    }
    let arrivals = one_of(&groups);
    let told: Vec<_> = arrivals.ranks.iter().map(|r| (r.name, r.last, r.calls, r.caused_ns)).collect();
    assert_eq!(told, [(StringId(8), 1, 1, 400), (StringId(7), 1, 2, 2000)]);
    assert_eq!(arrivals.name, StringId(7));
    assert_eq!(arrivals.waited_for, BTreeMap::from([((0, 1), 400), ((1, 0), 2000)]));
}

#[test]
fn operations_with_a_root_count_among_those_that_are_kept() {
    let mut group = calls(&[(0, 10), (20, 30)]);
    assert!(are_kept(&group, 1024));
    group.rooted = vec![group.together[0]; MAX_KEPT / 1024];
    assert!(!are_kept(&group, 1024));
}

#[test]
fn time_in_calls_is_told_for_any_moment() {
    let mut inside = Inside::default();
    // One within another, one that reaches beyond, and one apart.
    for (from, to) in [(10, 20), (12, 18), (15, 30), (50, 60)] {
        inside.add(TimeNs(from), TimeNs(to));
    }
    let before = [0, 10, 15, 20, 40, 50, 55, 90].map(|at| inside.before(TimeNs(at)));
    assert_eq!(before, [0, 0, 5, 10, 20, 20, 25, 30]);
}
