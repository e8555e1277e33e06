use super::{Arrival, Arrivals, BTreeMap, CollectiveOp, Inside, Mark, OfGroup, StringId, TimeNs, matched};

fn calls(spans: &[(i64, i64)]) -> OfGroup {
    let mark = |&(start, end): &(i64, i64)| Mark {
        start: TimeNs(start),
        end: TimeNs(end),
        operation: CollectiveOp::AllReduce,
        name: StringId(7),
        bytes: 64,
        thread: 0,
        is_root: None,
    };
    OfGroup { together: spans.iter().map(mark).collect(), rooted: Vec::new() }
}

fn of(ranks: &[&[(i64, i64)]]) -> Arrivals {
    let groups: Vec<OfGroup> = ranks.iter().map(|spans| calls(spans)).collect();
    let sequences: Vec<_> = groups.iter().enumerate().collect();
    matched(&sequences, &BTreeMap::new()).unwrap()
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
    let sequences: Vec<_> = ranks.iter().enumerate().collect();
    let of_rank = |spans: &[(i64, i64)]| {
        vec![spans.iter().map(|&(from, to)| (TimeNs(from), TimeNs(to))).collect::<Vec<_>>()]
    };
    let inside: [Inside; 2] =
        [of_rank(&[(0, 20), (110, 1100)]), of_rank(&[(10, 20), (20, 710), (1010, 1100)])];
    let arrivals = matched(&sequences, &inside.iter().enumerate().collect()).unwrap();
    let of = |rank: usize| arrivals.ranks[rank];
    // Of 900 that it waits, rank 1 was 690 longer inside of calls and 210 longer outside.
    assert_eq!((of(0).waited_ns, of(0).held_ns, of(1).caused_ns), (10 + 900, 690, 10 + 210));
}

/// Between two all-reduces that take 10 an operation with a root, by each rank's begin and end.
fn rooted(operation: CollectiveOp, root: usize, spans: &[(i64, i64)]) -> Arrivals {
    let of = |(rank, &(start, end)): (usize, &(i64, i64))| {
        let mut group = calls(&[(0, 10), (10_000, 10_010)]);
        let mark = Mark { start: TimeNs(start), end: TimeNs(end), operation, ..group.together[0] };
        group.rooted.push(Mark { name: StringId(8), is_root: Some(rank == root), ..mark });
        group
    };
    let groups: Vec<OfGroup> = spans.iter().enumerate().map(of).collect();
    matched(&groups.iter().enumerate().collect::<Vec<_>>(), &BTreeMap::new()).unwrap()
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
    assert_eq!(matched(&groups.iter().enumerate().collect::<Vec<_>>(), &BTreeMap::new()).unwrap().calls, 2);
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
