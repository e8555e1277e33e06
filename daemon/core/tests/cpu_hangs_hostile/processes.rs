//! Calls that were given up, attempts and jobs of one name, processes that ended or have no CPU.

use stallscope_core::rows::ThreadPreempt;
use stallscope_schemas::record::{CollectiveLibrary, ObjectKind, WaitKind, call_flags};
use stallscope_schemas::units::TimeNs;

use super::common::{Host, MS};
use super::{
    CALL, CANNOT_TELL, Call, S, blamed, late, nobody, open, push, rank, reads, seat, steps, verdicts,
};

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
