//! Recordings of ranks on CPUs that end while a call does not return, with what misleads: groups that are too young to be
//! told apart, calls that were given up or not counted, attempts, jobs of one name, processes that have ended.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::{CollectiveCall, ThreadPreempt};
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, ObjectKind, WaitKind, call_flags};
use stallscope_schemas::units::{ProcessId, StackId, StringId, ThreadId, TimeNs};

const S: i64 = 1_000_000_000;
const UNMATCHED: &str = "its calls could not be matched with those of other ranks";

#[derive(Clone, Copy)]
struct Call<'a> {
    name: &'a str,
    operation: CollectiveOp,
    library: CollectiveLibrary,
    group: &'a str,
    size: u64,
    sequence: i64,
    flags: u64,
    result: i64,
}

const CALL: Call<'static> = Call {
    name: "MPI_Allreduce",
    operation: CollectiveOp::AllReduce,
    library: CollectiveLibrary::Mpi,
    group: "MPI_COMM_WORLD",
    size: 4,
    sequence: 0,
    flags: 0,
    result: 0,
};

/// A call that goes on when its thread ends.
fn open(sequence: i64) -> Call<'static> {
    Call { sequence, flags: call_flags::OPEN, ..CALL }
}

fn push(host: &mut Host, thread: ThreadId, (from, to): (i64, i64), call: Call<'_>) {
    let row = CollectiveCall {
        start: TimeNs(from),
        duration_ns: (to - from).unsigned_abs(),
        name: host.writer.intern(call.name),
        library: call.library,
        operation: call.operation,
        bytes: 0,
        elements: 1024,
        datatype: StringId(0),
        reduction: StringId(0),
        group: host.writer.intern(call.group),
        group_size: call.size,
        rank: None,
        peer: None,
        stream: 0,
        sequence: call.sequence.unsigned_abs(),
        result: call.result,
        flags: call.flags,
        stack: StackId(0),
    };
    host.writer.push_collective_call(thread, row).unwrap();
}

/// A process of a rank with its main thread, and the rank's own list of processes.
fn seat(host: &mut Host, rank: u32, pid: i64, (from, to): (i64, i64)) -> (ProcessId, ThreadId) {
    let process = host.process(pid, "python", Some(rank));
    host.rank(&format!("rank {rank}"), &[process]);
    (process, host.thread(process, pid, "MainThread", from, to))
}

fn rank(host: &mut Host, rank: u32, end: i64) -> (ProcessId, ThreadId) {
    seat(host, rank, 100 + i64::from(rank), (0, end))
}

fn late(rank: u32) -> i64 {
    i64::from(rank) * 100_000
}

fn init(host: &mut Host, thread: ThreadId) {
    let call = Call { name: "MPI_Init_thread", operation: CollectiveOp::Init, group: "", size: 0, ..CALL };
    push(host, thread, (1, MS), call);
}

/// The operations of these numbers, counted from `call`'s on: one each 10 ms from the moment on that the first number says.
fn steps(host: &mut Host, rank: u32, thread: ThreadId, numbers: std::ops::Range<i64>, call: Call<'_>) {
    for (position, number) in (0..).zip(numbers) {
        let from = number * 10 * MS + late(rank);
        let sequence = call.sequence + position;
        push(host, thread, (from, from + MS - late(rank) * 9 / 10), Call { sequence, ..call });
    }
}

fn reads(host: &mut Host, thread: ThreadId, from: i64, to: i64) {
    host.on(thread, from, to, "read", ObjectKind::File, "/data/x");
}

fn verdicts(host: Host) -> Vec<Finding> {
    let capture = host.capture();
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    let all = Report::build(&capture, &ledgers).findings;
    all.into_iter().filter(|finding| finding.rule == "hang-collective").collect()
}

fn only(host: Host) -> Finding {
    let mut all = verdicts(host);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn blamed(host: Host, culprits: &[u32], summary: &str) -> Finding {
    let finding = only(host);
    assert_eq!(finding.blame.culprit_ranks, culprits, "{finding:#?}");
    assert!(finding.summary.contains(summary), "{finding:#?}");
    finding
}

fn nobody(host: Host, summary: &str, evidence: &str) -> Finding {
    let finding = only(host);
    assert!(finding.blame.culprit_ranks.is_empty() && finding.blame.confidence.is_none(), "{finding:#?}");
    assert!(finding.summary.contains(summary), "{finding:#?}");
    assert!(finding.evidence.contains(evidence), "{finding:#?}");
    finding
}

const CANNOT_TELL: &str = "which rank is missing cannot be told";

/// Ranks are in an operation on a duplicate of the world, after some on it and many on another one.
fn duplicate(sees_init: bool, apart: i64, before: i64, two_comes: bool) -> Host {
    let mut host = Host::new();
    let until = 6 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        if sees_init {
            init(&mut host, thread);
        }
        let (of_library, own) = (format!("mpi@7f{of}100"), format!("mpi@7f{of}200"));
        let call = Call { sequence: 1, ..CALL };
        steps(&mut host, of, thread, 1..10, call);
        steps(&mut host, of, thread, 10..40, Call { group: &of_library, ..call });
        steps(&mut host, of, thread, 40..40 + before, Call { group: &own, ..call });
        let came = 500 * MS + i64::from(of) * apart;
        if of == 2 && !two_comes {
            reads(&mut host, thread, came, until);
        } else {
            push(&mut host, thread, (came, until), Call { group: &own, ..open(before + 1) });
        }
    }
    host
}

#[test]
fn of_a_communicator_that_is_too_young_to_be_told_from_others_nobody_is_blamed() {
    for sees_init in [false, true] {
        for apart in [100_000, 20 * MS] {
            for before in [0, 3] {
                for two_comes in [true, false] {
                    nobody(duplicate(sees_init, apart, before, two_comes), CANNOT_TELL, UNMATCHED);
                }
            }
        }
    }
    nobody(duplicate(true, 20 * MS, 6, true), "all 4 ranks came to MPI_Allreduce #7", "all have arrived");
    blamed(duplicate(true, 20 * MS, 6, false), &[2], "rank 2 never arrived at MPI_Allreduce #7");
}

#[test]
fn groups_that_have_members_elsewhere_too_are_not_taken_for_each_other() {
    let mut host = Host::new();
    let until = 6 * S;
    for of in 0..4 {
        let (process, thread) = rank(&mut host, of, until);
        host.writer.update_process(process, |p| p.world_size = Some(8));
        // Ranks 0 and 1 are in one group of four, 2 and 3 in another, which works at other times.
        let group = format!("mpi@7f{of}100");
        let shift = if of < 2 { 0 } else { 5 * MS };
        for number in 1..50 {
            let from = number * 10 * MS + shift + late(of);
            push(&mut host, thread, (from, from + MS), Call { sequence: number, group: &group, ..CALL });
        }
        if of == 0 {
            push(&mut host, thread, (500 * MS, until), Call { group: &group, ..open(50) });
        } else {
            reads(&mut host, thread, 510 * MS, until);
        }
    }
    let finding =
        blamed(host, &[1], "never arrived at MPI_Allreduce #50 of the communicator of ranks 0-1 and others");
    assert_eq!(finding.blame.confidence, Some(0.5));
}

#[test]
fn an_address_that_is_used_again_is_another_group() {
    let again = |sees_init: bool, two_comes: bool, goes_on: bool| {
        let mut host = Host::new();
        let until = 8 * S;
        for of in 0..4 {
            let (_, thread) = rank(&mut host, of, until);
            if sees_init {
                init(&mut host, thread);
            }
            let old = format!("mpi@7f{of}100");
            // Rank 2 gets another address.
            let new = if of == 2 { "mpi@7f2200" } else { old.as_str() };
            let call = Call { sequence: 1, ..CALL };
            steps(&mut host, of, thread, 1..10, call);
            steps(&mut host, of, thread, 10..60, Call { group: &old, ..call });
            // Where its end was not seen, numbers go on.
            let first = if goes_on && of != 2 { 51 } else { 1 };
            steps(&mut host, of, thread, 60..64, Call { group: new, sequence: first, ..call });
            if of == 2 && !two_comes {
                reads(&mut host, thread, 700 * MS, until);
            } else {
                push(&mut host, thread, (700 * MS + late(of), until), Call { group: new, ..open(first + 4) });
            }
        }
        host
    };
    for sees_init in [false, true] {
        for goes_on in [false, true] {
            let came = "all 4 ranks came to MPI_Allreduce";
            nobody(again(sees_init, true, goes_on), came, "all have arrived");
            let missing = "rank 2 never arrived at MPI_Allreduce";
            blamed(again(sees_init, false, goes_on), &[2], missing);
        }
    }
}

/// How rank 0 gave up the operation that rank 2 does not come to.
#[derive(Clone, Copy, PartialEq)]
enum GaveUp {
    ByException,
    WithError,
}

fn given_up(how: GaveUp, by: &[u32], counted_from: i64) -> Host {
    let mut host = Host::new();
    let until = 40 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        let group = format!("gloo@7f{of}000");
        let call = match how {
            GaveUp::ByException => {
                Call { library: CollectiveLibrary::Gloo, name: "gloo::allreduce", group: &group, ..CALL }
            }
            GaveUp::WithError => CALL,
        };
        steps(&mut host, of, thread, counted_from..50, Call { sequence: 1, ..call });
        let (came, number) = (500 * MS + late(of), 51 - counted_from);
        let goes_on = Call { flags: call_flags::OPEN, ..call };
        if of == 2 {
            reads(&mut host, thread, came, until);
        } else if by.contains(&of) {
            let left = match how {
                GaveUp::ByException => Call { sequence: number, ..goes_on },
                GaveUp::WithError => {
                    Call { sequence: number, flags: call_flags::RETURNED, result: 75, ..call }
                }
            };
            push(&mut host, thread, (came, came + 5 * S), left);
            let again = came + 6 * S + late(of);
            push(&mut host, thread, (again, until), Call { sequence: number + 1, ..goes_on });
        } else {
            push(&mut host, thread, (came, until), Call { sequence: number, ..goes_on });
        }
    }
    host
}

#[test]
fn a_call_that_was_given_up_says_of_nobody_that_he_came() {
    for how in [GaveUp::ByException, GaveUp::WithError] {
        let finding = nobody(given_up(how, &[0], 1), CANNOT_TELL, "rank 0 gave up ");
        assert!(finding.evidence.contains("#50, which others are in; in it: ranks 0-1, 3"), "{finding:#?}");
        assert!(finding.evidence.contains("rank 2 is blocked in read() of /data/x"), "{finding:#?}");
        // Where numbers say nothing, neither does the order of calls.
        nobody(given_up(how, &[0], 49), CANNOT_TELL, "rank 0 gave up ");
        // All gave it up: in the next one they are together.
        blamed(given_up(how, &[0, 1, 3], 1), &[2], "rank 2 never arrived at ");
    }
}

/// A job that is run twice in one recording.
struct Twice {
    first_hangs: bool,
    second_hangs: bool,
    /// The process of rank 2 of the second run.
    two_is_back: bool,
    /// Attempts are made by a shell that is the rank.
    below_a_shell: bool,
}

fn twice(job: &Twice) -> Host {
    let mut host = Host::new();
    let (over, again, until) = (9 * S, 10 * S, 40 * S);
    for of in 0..4 {
        let pid = 100 + i64::from(of);
        let (first, second) = if job.below_a_shell {
            let shell = host.process(pid, "bash", Some(of));
            let (one, other) = (host.helper(pid + 100, "python"), host.helper(pid + 200, "python"));
            host.rank(&format!("rank {of}"), &[shell, one, other]);
            host.thread(shell, pid, "bash", 0, until);
            (host.thread(one, pid + 100, "python", 0, over), (other, pid + 200))
        } else {
            let (_, thread) = seat(&mut host, of, pid, (0, over));
            let other = host.process(pid + 100, "python", Some(of));
            host.rank(&format!("rank {of}"), &[other]);
            (thread, (other, pid + 100))
        };
        let end = if job.first_hangs { 50 } else { 200 };
        let call = Call { sequence: 1, ..CALL };
        steps(&mut host, of, first, 1..end, call);
        if job.first_hangs && of != 2 {
            push(&mut host, first, (505 * MS, over), open(end));
        }
        if of == 2 && !job.two_is_back {
            continue;
        }
        let thread = host.thread(second.0, second.1, "MainThread", again, until);
        let steps_end = if job.second_hangs { 1050 } else { 3990 };
        steps(&mut host, of, thread, 1001..steps_end, call);
        let came = steps_end * 10 * MS + late(of);
        if job.second_hangs && of == 2 {
            reads(&mut host, thread, came, until);
        } else if job.second_hangs {
            push(&mut host, thread, (came, until), open(50));
        }
    }
    host
}

#[test]
fn of_a_job_that_was_started_again_the_last_attempt_is_judged() {
    for below_a_shell in [false, true] {
        let job = Twice { first_hangs: false, second_hangs: true, two_is_back: true, below_a_shell };
        let told = "rank 2 never arrived at MPI_Allreduce #50 of MPI_COMM_WORLD; 3 ranks wait for it in it; it is blocked in read()";
        blamed(twice(&job), &[2], told);
        let works = Twice { first_hangs: true, second_hangs: false, ..job };
        assert!(verdicts(twice(&works)).is_empty());
        // What the process of before did says nothing of one that is not there.
        let three = Twice { two_is_back: false, ..job };
        nobody(twice(&three), CANNOT_TELL, "only 3 of its 4 ranks were recorded on this host");
    }
}

#[test]
fn an_attempt_whose_groups_have_other_addresses_is_over_too() {
    let mut host = Host::new();
    for of in 0..4 {
        let end = if of == 2 { 500 * MS } else { 6 * S };
        let (before, after) = (format!("gloo@7f{of}000"), format!("gloo@55{of}000"));
        let call = Call { library: CollectiveLibrary::Gloo, name: "gloo::allreduce", sequence: 1, ..CALL };
        let (_, thread) = rank(&mut host, of, end);
        steps(&mut host, of, thread, 1..49, Call { group: &before, ..call });
        if of != 2 {
            let goes_on = Call { group: &before, sequence: 49, flags: call_flags::OPEN, ..call };
            push(&mut host, thread, (490 * MS, end), goes_on);
        }
        let (_, thread) = seat(&mut host, of, 200 + i64::from(of), (10 * S, 40 * S));
        steps(&mut host, of, thread, 1001..3999, Call { group: &after, ..call });
    }
    let all = verdicts(host);
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn jobs_of_one_name_at_the_same_time_are_not_mixed() {
    for (hung, other) in [(50, 990), (500, 90)] {
        let mut host = Host::new();
        let until = 10 * S;
        for of in 0..4 {
            let (_, thread) = rank(&mut host, of, until);
            steps(&mut host, of, thread, 1..hung, Call { sequence: 1, ..CALL });
            let came = hung * 10 * MS + late(of);
            if of == 2 {
                reads(&mut host, thread, came, until);
            } else {
                push(&mut host, thread, (came, until), open(hung));
            }
        }
        for of in 0..4 {
            let (_, thread) = seat(&mut host, of, 200 + i64::from(of), (0, until));
            let step = 9_900 * MS / other;
            for number in 1..other {
                let from = number * step + 3 * MS + late(of);
                push(&mut host, thread, (from, from + MS), Call { sequence: number, ..CALL });
            }
        }
        nobody(host, CANNOT_TELL, "several processes of rank 0 made calls at the same time");
    }
}

#[test]
fn a_rank_has_ended_with_the_process_that_made_its_calls() {
    let with_helpers = |end: i64, inside: bool| {
        let mut host = Host::new();
        for of in 0..4 {
            let pid = 100 + i64::from(of);
            let process = host.process(pid, "python", Some(of));
            let helper = host.helper(pid + 100, "python");
            host.rank(&format!("rank {of}"), &[process, helper]);
            let end = if of == 2 { end } else { 6 * S };
            let thread = host.thread(process, pid, "MainThread", 0, end);
            host.thread(helper, pid + 100, "resource_tracker", 0, 6 * S);
            steps(&mut host, of, thread, 1..50, Call { sequence: 1, ..CALL });
            if of != 2 || inside {
                push(&mut host, thread, (500 * MS + late(of), end), open(50));
            }
        }
        host
    };
    blamed(
        with_helpers(505 * MS, false),
        &[2],
        "never arrived at MPI_Allreduce #50 of MPI_COMM_WORLD; 3 ranks wait for it in it; it has ended",
    );
    blamed(with_helpers(2 * S, true), &[2], "rank 2 ended inside MPI_Allreduce #50");
}

#[test]
fn a_call_that_was_not_counted_does_not_make_a_rank_late() {
    for (missed, sees_init) in [(280, false), (280, true), (200, false), (200, true), (297, true)] {
        for two_comes in [true, false] {
            let mut host = Host::new();
            let until = 8 * S;
            for of in 0..4 {
                let (_, thread) = rank(&mut host, of, until);
                if sees_init {
                    init(&mut host, thread);
                }
                let call = Call { sequence: 1, ..CALL };
                let last = if of == 2 {
                    steps(&mut host, of, thread, 1..missed, call);
                    steps(&mut host, of, thread, missed + 1..300, Call { sequence: missed, ..CALL });
                    299
                } else {
                    steps(&mut host, of, thread, 1..300, call);
                    300
                };
                if of == 2 && !two_comes {
                    reads(&mut host, thread, 3 * S, until);
                } else {
                    push(&mut host, thread, (3 * S + late(of), until), open(last));
                }
            }
            if two_comes {
                nobody(host, "all 4 ranks came to MPI_Allreduce of MPI_COMM_WORLD", "all have arrived");
            } else {
                blamed(host, &[2], "rank 2 never arrived at MPI_Allreduce of MPI_COMM_WORLD");
            }
        }
    }
}

#[test]
fn nor_does_it_where_all_were_counted_from_the_start() {
    let mut host = Host::new();
    let until = 8 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        init(&mut host, thread);
        let call = Call { sequence: 1, ..CALL };
        steps(&mut host, of, thread, 1..2, call);
        let next = if of == 2 {
            2
        } else {
            steps(&mut host, of, thread, 2..3, Call { sequence: 2, ..call });
            3
        };
        steps(&mut host, of, thread, 3..4, Call { sequence: next, ..call });
        push(&mut host, thread, (3 * S + late(of), until), open(next + 1));
    }
    nobody(host, "all 4 ranks came to MPI_Allreduce of MPI_COMM_WORLD", "all have arrived");
}

#[test]
fn whoever_has_ended_waits_for_nobody() {
    let ended = |ends: [i64; 4]| {
        let mut host = Host::new();
        for (of, end) in (0..).zip(ends) {
            let (_, thread) = rank(&mut host, of, end);
            steps(&mut host, of, thread, 1..50, Call { sequence: 1, ..CALL });
            if of == 2 {
                host.on(thread, 500 * MS, end, "fsync", ObjectKind::File, "/checkpoint");
            } else {
                push(&mut host, thread, (500 * MS + late(of), end), open(50));
            }
        }
        verdicts(host)
    };
    // Killed while rank 2 was late; as soon as they had come; one of them later than the others.
    assert!(ended([4 * S, 4 * S, 5 * S, 4 * S]).is_empty());
    assert!(ended([510 * MS, 510 * MS, 12 * S, 510 * MS]).is_empty());
    let all = ended([4 * S, 5 * S, 5 * S, 4 * S]);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].blame.culprit_ranks, [2], "{all:#?}");
    assert!(all[0].summary.contains("; 1 rank waits for it in it; it is blocked in fsync()"), "{all:#?}");
}

#[test]
fn after_a_pause_of_the_probes_the_order_of_calls_tells_who_has_not_come() {
    let mut host = Host::new();
    let until = 20 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        steps(&mut host, of, thread, 1..50, Call { sequence: 1, ..CALL });
        for number in 200..250 {
            let from = number * 10 * MS + late(of);
            push(&mut host, thread, (from, from + MS), CALL);
        }
        if of == 2 {
            reads(&mut host, thread, 2500 * MS, until);
        } else {
            push(&mut host, thread, (2500 * MS, until), open(0));
        }
    }
    blamed(host, &[2], "rank 2 never arrived at MPI_Allreduce of MPI_COMM_WORLD; 3 ranks wait for it");
}

#[test]
fn many_communicators_are_told_apart() {
    let many = |late_rank: Option<u32>, sees_init: bool| {
        let mut host = Host::new();
        let until = 8 * S;
        for of in 0..40u32 {
            let (process, thread) = rank(&mut host, of, until);
            host.writer.update_process(process, |p| p.world_size = Some(40));
            if sees_init {
                init(&mut host, thread);
            }
            let group = |number: i64| format!("mpi@7f{:x}{number}00", of + 16);
            let behind = i64::from(of) * 10_000;
            let from = |number: i64| number * 10 * MS + behind;
            for number in 0..7 {
                for count in 1..30 {
                    let from = from(number * 29 + count);
                    let call = Call { sequence: count, group: &group(number), size: 40, ..CALL };
                    push(&mut host, thread, (from, from + MS - behind), call);
                }
            }
            if late_rank == Some(of) {
                reads(&mut host, thread, from(204), until);
            } else {
                push(&mut host, thread, (from(204), until), Call { group: &group(6), size: 40, ..open(30) });
            }
        }
        host
    };
    for sees_init in [true, false] {
        nobody(many(None, sees_init), "all 40 ranks came to MPI_Allreduce #30", "all have arrived");
        blamed(many(Some(39), sees_init), &[39], "rank 39 never arrived at MPI_Allreduce #30");
    }
}

#[test]
fn of_more_communicators_than_can_be_compared_those_that_hang_come_first() {
    let mut host = Host::new();
    let until = 8 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        for number in 0..400 {
            let from = MS + number * MS + late(of);
            let group = format!("mpi@7f{of}{number:04x}");
            push(&mut host, thread, (from, from + MS / 2), Call { sequence: 1, group: &group, ..CALL });
        }
        let group = format!("mpi@7f{of}f000");
        steps(&mut host, of, thread, 60..90, Call { sequence: 1, group: &group, ..CALL });
        if of == 2 {
            reads(&mut host, thread, 900 * MS, until);
        } else {
            push(&mut host, thread, (900 * MS + late(of), until), Call { group: &group, ..open(31) });
        }
    }
    let finding = blamed(host, &[2], "rank 2 never arrived at MPI_Allreduce #31");
    assert!(finding.evidence.contains("not all groups"), "{}", finding.evidence);
    assert!(finding.evidence.contains("were compared: there are too many"), "{}", finding.evidence);
}

#[test]
fn a_rank_that_gets_no_cpu_is_not_said_to_be_on_one() {
    for (kind, does) in
        [(WaitKind::Preempted, "has no CPU: others run"), (WaitKind::Throttled, "is throttled")]
    {
        let mut host = Host::new();
        let until = 6 * S;
        for of in 0..4 {
            let (_, thread) = rank(&mut host, of, until);
            steps(&mut host, of, thread, 1..50, Call { sequence: 1, ..CALL });
            let came = 500 * MS + late(of);
            if of == 2 {
                let row = ThreadPreempt {
                    start: TimeNs(came),
                    duration_ns: (until - came).unsigned_abs(),
                    run_queue_ns: (until - came).unsigned_abs(),
                    times: 1,
                    preemptor: None,
                    kind,
                };
                host.writer.push_thread_preempt(thread, row).unwrap();
            } else {
                push(&mut host, thread, (came, until), open(50));
            }
        }
        let finding = blamed(host, &[2], &format!("3 ranks wait for it in it; it {does}"));
        let link = finding.blame.chain.last().unwrap();
        assert_eq!((link.what.as_str(), link.ns), (does, (until - 500 * MS - late(2)).unsigned_abs()));
    }
}

#[test]
fn what_sizes_a_file_claims_does_not_say_how_much_is_looked_at() {
    let world = 1u32 << 20;
    let claims = |groups: i64, calls: i64| {
        let mut host = Host::new();
        let until = 6 * S;
        for of in 0..2 {
            let (process, _) = rank(&mut host, of, until);
            host.writer.update_process(process, |p| p.world_size = Some(world));
            for group in 0..groups {
                let name = format!("mpi:{group}");
                let call = Call { group: &name, size: world.into(), ..CALL };
                for number in 0..calls {
                    let tid = 1000 + group * calls + number;
                    let thread = host.thread(process, tid, "worker", 0, until);
                    if number == 0 {
                        steps(&mut host, of, thread, 1..6, Call { sequence: 1, ..call });
                    }
                    let goes_on = Call { sequence: 6 + number, flags: call_flags::OPEN, ..call };
                    push(&mut host, thread, (500 * MS + number, until), goes_on);
                }
            }
        }
        verdicts(host)
    };
    let too_many = "what does not end are too many operations of too many ranks";
    for (groups, calls) in [(100, 1), (1, 5)] {
        let all = claims(groups, calls);
        assert!((1..=4).contains(&all.len()), "{all:#?}");
        assert!(all.iter().all(|finding| finding.evidence.contains(too_many)), "{all:#?}");
    }
}
