//! Ranks on CPUs whose network is bad: which link is named, and that nobody is called late.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::findings::{Finding, Severity};
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::Connection;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::{ProcessId, TimeNs};

const RANKS: usize = 4;
const STEP: i64 = 10 * MS;
const STEPS: i64 = 100;

/// What a connection did in each of five stretches.
#[derive(Clone, Copy)]
struct Line {
    /// Ranks at its ends.
    ends: [usize; 2],
    /// Of 10,000 segments sent again, by each end.
    again: u64,
    /// Round trips as each end has them.
    rtt_us: [u64; 2],
    /// What it delivers as each end has it, Mbit/s; 0 where that is unknown.
    rates: [u64; 2],
    /// Bytes that each end sends.
    sent: [u64; 2],
}

const fn line(ends: [usize; 2], again: u64, rtt_us: [u64; 2]) -> Line {
    Line { ends, again, rtt_us, rates: [40_000, 50_000], sent: [10_000_000; 2] }
}

/// Those of a recursive doubling, all good; some wait for delayed acknowledgements.
const GOOD: [Line; 4] = [
    line([0, 1], 3, [100, 6000]),
    line([2, 3], 10, [150, 120]),
    line([0, 2], 5, [80, 90]),
    line([1, 3], 0, [5000, 70]),
];

fn name(from: usize, to: usize) -> String {
    format!("tcp 10.0.0.{from}:{} → 10.0.0.{to}:{}", 40 + to, 40 + from)
}

fn connections(host: &mut Host, process: ProcessId, rank: usize, of: Line) {
    for (end, (&at, &peer)) in of.ends.iter().zip(of.ends.iter().rev()).enumerate() {
        if at != rank {
            continue;
        }
        for stretch in 0..5 {
            let row = Connection {
                start: TimeNs(stretch * 200 * MS),
                duration_ns: 200 * MS.unsigned_abs(),
                name: host.writer.intern(&name(at, peer)),
                sent_bytes: of.sent[end],
                received_bytes: of.sent[1 - end],
                retransmits: of.again,
                rtt_ns: of.rtt_us[end].saturating_mul(1000),
                segments: 10_000,
                delivery_rate: of.rates[end].saturating_mul(125_000),
            };
            host.writer.push_connection(process, row).unwrap();
        }
    }
}

/// A job of four ranks whose all-reduces take 1 ms in the first `good` steps and `slow` afterwards. Rank 3 leaves them `behind`
/// the others, goes through a broadcast for as long as that, and works as long as everybody.
fn job(lines: &[Line], good: i64, slow: i64, behind: i64) -> Vec<Finding> {
    job_with(lines, good, slow, behind, |_, _, _| {})
}

/// The same, and more of each rank's process.
fn job_with(
    lines: &[Line],
    good: i64,
    slow: i64,
    behind: i64,
    more: impl Fn(&mut Host, ProcessId, usize),
) -> Vec<Finding> {
    let mut host = Host::new();
    for rank in 0..RANKS {
        let number = i64::try_from(rank).unwrap();
        let process = host.process(10 + number, "python3", u32::try_from(rank).ok());
        host.rank(&format!("rank {rank}"), &[process]);
        let main = host.thread(process, 10 + number, "main", 0, STEPS * STEP);
        let late = if rank == 3 { behind } else { 0 };
        for step in 0..STEPS {
            let (library, begin) = (CollectiveLibrary::Mpi, step * STEP + 2 * MS + late);
            let end = step * STEP + 2 * MS + behind + if step < good { MS } else { slow };
            let bcast = (step * STEP, step * STEP + MS / 10 + late);
            host.call_of(main, bcast.0, bcast.1, "MPI_Bcast", library, CollectiveOp::Broadcast, "world", 0);
            host.call_of(main, begin, end, "MPI_Allreduce", library, CollectiveOp::AllReduce, "world", 0);
        }
        lines.iter().for_each(|&of| connections(&mut host, process, rank, of));
        more(&mut host, process, rank);
    }
    let capture = host.capture();
    Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap()).findings
}

fn slow(findings: &[Finding]) -> &Finding {
    let [one] = findings.iter().filter(|f| f.rule == "communication-slow").collect::<Vec<_>>()[..] else {
        panic!("{findings:?}")
    };
    one
}

/// Good links, but for these.
fn but(bad: &[Line]) -> Vec<Line> {
    let good = GOOD.iter().map(|line| *bad.iter().find(|of| of.ends == line.ends).unwrap_or(line));
    good.collect()
}

#[test]
fn segments_sent_again_on_all_links_of_a_rank_accuse_it() {
    let lossy = but(&[line([2, 3], 300, [200, 300]), line([0, 2], 200, [100, 100])]);
    let findings = job(&lossy, 50, 5 * MS, 0);
    let finding = slow(&findings);
    assert_eq!(finding.blame.culprit_ranks, [2]);
    assert_eq!((finding.device.as_str(), finding.severity), ("rank 2", Severity::Critical));
    // Half of 100 calls took 4 ms longer than the best.
    assert_eq!(finding.ns, 50 * 4 * MS.unsigned_abs() * 4);
    assert_eq!(
        finding.summary,
        "transfers in MPI_Allreduce took 20.0 % of the ranks' time longer than at their best: connections of rank 2 sent \
         segments again"
    );
    let worst = "tcp 10.0.0.2:43 → 10.0.0.3:42 sent 3000 of 100000 segments again, a round trip of 200.0 µs";
    assert!(finding.evidence.contains(worst), "{}", finding.evidence);
    assert!(findings.iter().all(|f| f.rule != "rank-late"));
    // Of the shares of all four: 300 + 200 of 300 + 200 + 3 in 10,000.
    assert_eq!(finding.blame.confidence.map(|part| (part * 1e4).round()), Some(9940.0));
}

#[test]
fn a_link_that_is_nearly_as_bad_as_a_bad_one_is_bad() {
    let of = |again| but(&[line([2, 3], 110, [200, 300]), line([0, 2], again, [100, 100])]);
    let culprits = |again| slow(&job(&of(again), 50, 5 * MS, 0)).blame.culprit_ranks.clone();
    assert_eq!(culprits(97), [2]);
    // A quarter of 1.1 %, and less.
    assert_eq!((culprits(28), culprits(27)), (vec![2], vec![]));
    // None is bad.
    let alike = but(&[line([2, 3], 99, [200, 300]), line([0, 2], 99, [100, 100])]);
    assert!(slow(&job(&alike, 50, 5 * MS, 0)).blame.culprit_ranks.is_empty());
}

#[test]
fn round_trips_that_are_long_from_both_ends_accuse_the_rank_between_them() {
    let limited = but(&[line([2, 3], 0, [9000, 8000]), line([0, 2], 0, [4000, 3500])]);
    let findings = job(&limited, 50, 5 * MS, 0);
    let finding = slow(&findings);
    assert_eq!(finding.blame.culprit_ranks, [2]);
    assert!(finding.summary.ends_with(": connections of rank 2 had long round trips"), "{}", finding.summary);
    assert!(
        finding.evidence.ends_with("of the others the worst has a round trip of 100.0 µs"),
        "{}",
        finding.evidence
    );
}

#[test]
fn links_that_deliver_little_by_one_of_their_ends_accuse_the_rank_between_them() {
    let mut limited = but(&[]);
    for line in &mut limited {
        let slow = line.ends.iter().position(|&end| end == 2);
        slow.into_iter().for_each(|end| line.rates[end] = 5000);
    }
    let findings = job(&limited, 50, 5 * MS, 0);
    let finding = slow(&findings);
    assert_eq!(finding.blame.culprit_ranks, [2]);
    assert!(finding.summary.ends_with(": connections of rank 2 delivered little"), "{}", finding.summary);
    let worst = "tcp 10.0.0.2:43 → 10.0.0.3:42 sent 100 of 100000 segments again, a round trip of 120.0 µs, 5.0 Gbit/s delivered";
    assert!(finding.evidence.contains(worst), "{}", finding.evidence);
    assert!(finding.evidence.ends_with("of the others the worst has 40.0 Gbit/s"), "{}", finding.evidence);
    // A little more is what links of one kind may differ by; and of some kernels nothing is known.
    for rate in [5001, 0] {
        limited
            .iter_mut()
            .flat_map(|line| &mut line.rates)
            .filter(|at| **at < 40_000)
            .for_each(|at| *at = rate);
        assert!(slow(&job(&limited, 50, 5 * MS, 0)).blame.culprit_ranks.is_empty(), "{rate}");
    }
}

#[test]
fn a_link_to_elsewhere_is_not_compared_with_those_between_ranks_of_this_host() {
    // Rank 0 and rank 3 talk to other hosts, over what is slower and farther than this one's loopback.
    let mut far = GOOD.to_vec();
    for end in [0, 0, 3, 3] {
        far.push(Line { rates: [1000, 0], ..line([end, 10 + far.len()], 0, [5000, 0]) });
    }
    assert!(slow(&job(&far, 50, 5 * MS, 0)).blame.culprit_ranks.is_empty());
    // One of each of two ranks is: nobody knows who is at the other end.
    let mut two = far.clone();
    two.iter_mut()
        .filter(|line| [10 + 4, 10 + 6].contains(&line.ends[1]))
        .for_each(|line| line.rates[0] = 100);
    let findings = job(&two, 50, 5 * MS, 0);
    assert!(slow(&findings).summary.ends_with(": connections of ranks delivered little"));
    assert!(slow(&findings).blame.culprit_ranks.is_empty());
    // All of one's are.
    for line in far.iter_mut().filter(|line| line.ends[0] == 3 && line.ends[1] >= 10) {
        line.rates[0] = 100;
    }
    assert_eq!(slow(&job(&far, 50, 5 * MS, 0)).blame.culprit_ranks, [3]);
}

/// Good links, but for those of rank 2, which are like this.
fn but_of_2(like: Line) -> Vec<Line> {
    but(&[Line { ends: [2, 3], ..like }, Line { ends: [0, 2], ..like }])
}

#[test]
fn an_end_that_only_acknowledges_says_nothing_of_its_link() {
    // What the second end knows is from when they said hello; by it the links would be slow, and near.
    let one_way = Line { rates: [40_000, 200], sent: [10_000_000, 0], ..line([0, 0], 0, [100, 50]) };
    let findings = job(&but_of_2(one_way), 50, 5 * MS, 0);
    assert!(slow(&findings).summary.ends_with("; no connection stands out"), "{}", slow(&findings).summary);
    let culprits = |of| slow(&job(&but_of_2(of), 50, 5 * MS, 0)).blame.culprit_ranks.clone();
    // Acknowledgements may be late on purpose: one end alone does not show that a round trip is long.
    let far = Line { rtt_us: [9000, 8000], ..one_way };
    assert!(culprits(far).is_empty());
    // Nor does the rate of one that says no more than what it wants next.
    let asking = Line { sent: [10_000_000, 10_000], ..one_way };
    assert!(culprits(asking).is_empty());
    assert_eq!(culprits(Line { rtt_us: [9000, 8000], ..asking }), [2]);
    assert_eq!(culprits(Line { rates: [200, 20_000], ..asking }), [2]);
}

#[test]
fn connections_that_carry_little_tell_nothing_by_their_rate_or_their_round_trip() {
    // Every rank reports to rank 0, in as many segments as the data take.
    let of = |bytes| {
        let report = |rank| Line { rates: [100; 2], sent: [bytes; 2], ..line([0, rank], 0, [5000, 4000]) };
        let findings = job(&[GOOD[1], GOOD[3], report(1), report(2), report(3)], 50, 5 * MS, 0);
        slow(&findings).blame.culprit_ranks.clone()
    };
    // A tenth of what the others do is enough.
    assert_eq!((of(999_999), of(1_000_000)), (vec![], vec![0]));
}

#[test]
fn what_goes_elsewhere_does_not_hide_the_links_between_ranks() {
    let mut limited = but_of_2(Line { rates: [200; 2], ..line([0, 0], 0, [100, 100]) });
    // Rank 1 stores a checkpoint far away.
    limited.push(Line { sent: [1_000_000_000; 2], ..line([1, 10], 0, [5000, 0]) });
    assert_eq!(slow(&job(&limited, 50, 5 * MS, 0)).blame.culprit_ranks, [2]);
}

/// Something else that a process's connection did.
fn also(host: &mut Host, process: ProcessId, name: &str, (retransmits, segments): (u64, u64), rate: u64) {
    let name = host.writer.intern(name);
    let (start, duration_ns) = (TimeNs(0), 200 * MS.unsigned_abs());
    let (sent_bytes, received_bytes, rtt_ns, delivery_rate) = (50_000_000, 0, 100_000, rate * 125_000);
    let row = Connection {
        start,
        duration_ns,
        name,
        sent_bytes,
        received_bytes,
        retransmits,
        rtt_ns,
        segments,
        delivery_rate,
    };
    host.writer.push_connection(process, row).unwrap();
}

#[test]
fn one_segment_of_two_sent_again_in_a_quiet_moment_makes_no_link_bad() {
    let quiet = |times: u64| {
        let findings = job_with(&GOOD, 50, 5 * MS, 0, |host, process, rank| {
            let peers = [(2, 3), (3, 2), (2, 0), (0, 2)].into_iter().filter(|&(from, _)| from == rank);
            peers.for_each(|(from, to)| also(host, process, &name(from, to), (times, 2 * times), 40_000));
        });
        slow(&findings).blame.culprit_ranks.clone()
    };
    // Both ends of a link count together.
    assert_eq!((quiet(4), quiet(5)), (vec![], vec![2]));
}

#[test]
fn one_or_two_looks_at_a_link_say_nothing_of_its_rate() {
    let looks = |count: usize| {
        let findings = job_with(&[], 50, 5 * MS, 0, |host, process, rank| {
            for peer in (0..RANKS).filter(|&peer| peer != rank) {
                let rate = if rank.max(peer) == 3 { 200 } else { 40_000 };
                (0..count).for_each(|_| also(host, process, &name(rank, peer), (0, 10_000), rate));
            }
        });
        slow(&findings).blame.culprit_ranks.clone()
    };
    assert_eq!((looks(2), looks(3)), (vec![], vec![3]));
}

#[test]
fn what_is_no_link_between_two_ends_is_not_compared() {
    // Processes of one rank talk to each other, faster than to elsewhere; and names were lost.
    let far = [0, 1, 2].map(|rank| line([rank, 10 + rank], 0, [200, 0]));
    let findings = job_with(&[GOOD.as_slice(), &far].concat(), 50, 5 * MS, 0, |host, process, rank| {
        for _ in 0..3 {
            also(host, process, &format!("tcp 127.0.0.1:{rank} → 127.0.0.1:90"), (0, 10_000), 400_000);
            also(host, process, &format!("tcp 127.0.0.1:90 → 127.0.0.1:{rank}"), (0, 10_000), 400_000);
        }
        also(host, process, "", (500, 10_000), 1);
    });
    assert!(slow(&findings).summary.ends_with("; no connection stands out"), "{}", slow(&findings).summary);
}

#[test]
fn numbers_without_end_make_no_link_worse_than_others_like_it() {
    let most = u64::MAX;
    let endless = |end: [u64; 2]| {
        GOOD.map(|of| Line { again: 0, rates: [most; 2], rtt_us: end, sent: [most; 2], ..of })
    };
    for rtt_us in [[most; 2], [100; 2]] {
        let findings = job(&endless(rtt_us), 50, 5 * MS, 0);
        assert!(
            slow(&findings).summary.ends_with("; no connection stands out"),
            "{}",
            slow(&findings).summary
        );
    }
    // More cannot be sent again than was sent.
    let findings = job(&but_of_2(line([0, 0], most, [100, 100])), 50, 5 * MS, 0);
    assert_eq!(slow(&findings).blame.culprit_ranks, [2]);
    assert!(slow(&findings).evidence.contains("sent 100000 of 100000 segments again"));
}

#[test]
fn a_bad_link_alone_accuses_no_rank_and_is_named() {
    let findings = job(&but(&[line([2, 3], 300, [200, 300])]), 50, 5 * MS, 0);
    let finding = slow(&findings);
    assert!(finding.blame.culprit_ranks.is_empty());
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.evidence.contains("tcp 10.0.0.2:43 → 10.0.0.3:42 sent 3000 of"), "{}", finding.evidence);
}

#[test]
fn of_two_ranks_whose_connections_are_all_bad_neither_is_accused() {
    let findings = job_with(&but(&[line([0, 1], 300, [100, 100])]), 50, 5 * MS, 0, |host, process, rank| {
        if rank < 2 {
            let second = format!("tcp 10.0.0.{rank}:900 → 10.0.0.{}:900", 1 - rank);
            also(host, process, &second, (300, 10_000), 40_000);
        }
    });
    assert!(slow(&findings).summary.ends_with(": connections between ranks sent segments again"));
    assert!(slow(&findings).evidence.contains("tcp 10.0.0.0:900 → 10.0.0.1:900 sent 600 of 20000"));
    assert!(slow(&findings).blame.culprit_ranks.is_empty());
}

#[test]
fn links_that_are_bad_between_others_too_accuse_no_rank() {
    let everywhere =
        but(&[line([2, 3], 300, [200, 300]), line([0, 2], 300, [100, 100]), line([0, 1], 300, [100, 100])]);
    assert!(slow(&job(&everywhere, 50, 5 * MS, 0)).blame.culprit_ranks.is_empty());
    // A star whose links are all bad: the network may be.
    let star = [line([0, 1], 300, [100, 100]), line([0, 2], 300, [100, 100]), line([0, 3], 300, [100, 100])];
    assert!(slow(&job(&star, 50, 5 * MS, 0)).blame.culprit_ranks.is_empty());
}

#[test]
fn slow_transfers_over_good_links_are_mentioned_and_blame_no_link() {
    let findings = job(&GOOD, 50, 5 * MS, 0);
    let finding = slow(&findings);
    assert_eq!(finding.severity, Severity::Notice);
    assert!(finding.blame.culprit_ranks.is_empty());
    assert!(finding.summary.ends_with("; no connection stands out"), "{}", finding.summary);
}

#[test]
fn links_that_are_bad_all_of_the_time_leave_no_good_transfer_to_compare_with() {
    let lossy = but(&[line([2, 3], 300, [200, 300]), line([0, 2], 200, [100, 100])]);
    let findings = job(&lossy, 0, 5 * MS, 0);
    let finding = slow(&findings);
    assert_eq!(finding.ns, 100 * 5 * MS.unsigned_abs() * 4);
    assert!(finding.summary.starts_with("transfers in MPI_Allreduce took 50.0 % of the ranks' time:"));
    // Over good links that is what transfers take.
    assert!(job(&GOOD, 0, 5 * MS, 0).iter().all(|f| f.rule != "communication-slow"));
}

#[test]
fn a_rank_that_comes_late_out_of_another_call_is_not_late() {
    // For 1 ms of each step the others wait for rank 3, which the broadcast held up.
    let lossy = but(&[line([2, 3], 300, [200, 300]), line([0, 2], 200, [100, 100])]);
    let findings = job(&lossy, 50, 3 * MS, MS);
    assert!(findings.iter().all(|f| f.rule != "rank-late"), "{findings:?}");
    // Of the first call nothing is known but that it was last.
    assert!(slow(&findings).evidence.contains("ranks waited 297.0 ms for one that was in another call"));
}
