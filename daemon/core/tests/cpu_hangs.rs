//! Recordings of ranks on CPUs that end while a collective call does not return.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::capture::Capture;
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_core::rows::CollectiveCall;
use stallscope_schemas::record::{
    CollectiveLibrary, CollectiveOp, ObjectKind, WaitKind, call_flags, wait_flags,
};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

const S: i64 = 1_000_000_000;
const RANKS: u32 = 4;
/// Number of the operation that does not end, and when the ranks come to it.
const STUCK: i64 = 50;
const CAME: i64 = STUCK * 10 * MS;

/// Where a rank is when the recording ends.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// In the operation that does not end.
    Inside,
    /// In it, and its process ended at this time.
    EndedInside(i64),
    /// In it, and stopped.
    StoppedInside,
    /// In a broadcast in its place.
    InBroadcast,
    /// Still in the one before.
    InTheOneBefore,
    /// Reads a file.
    Reads,
    /// Waits for a lock that thread 900 of its process held the last time, which reads a file.
    Locked,
    /// Its process ended at this time.
    Ended(i64),
    /// In a wait for something that is not recorded.
    InWait,
    /// Receives from a rank.
    Receives(u32),
    /// Reads a file, and records of it are lost.
    Lost,
    /// It made no call in the recording.
    NeverSeen,
}

struct Job {
    at: [At; RANKS as usize],
    /// By rank, the first of its operations that was recorded: counts begin there.
    first: [i64; RANKS as usize],
    until: i64,
    library: CollectiveLibrary,
    /// Ranks in the group, as the library says.
    size: u64,
    /// The group's name is an address of each process.
    is_private: bool,
    /// Where not all-reduce.
    operation: CollectiveOp,
    root: Option<u32>,
    /// Those that came do not go on in a call, but in many short ones.
    polls: bool,
    /// How much longer the operation before the last took than the others.
    slow: i64,
    /// Ranks in the job.
    world: u32,
}

const INSIDE: [At; 4] = [At::Inside; 4];

fn usual(two: At) -> Job {
    Job {
        at: [At::Inside, At::Inside, two, At::Inside],
        first: [1, 4, 8, 2],
        until: 6 * S,
        library: CollectiveLibrary::Mpi,
        size: 4,
        is_private: false,
        operation: CollectiveOp::AllReduce,
        root: None,
        polls: false,
        slow: 0,
        world: RANKS,
    }
}

struct Call<'a> {
    name: &'a str,
    operation: CollectiveOp,
    group: &'a str,
    sequence: u64,
    flags: u64,
    peer: Option<u32>,
}

fn push(host: &mut Host, job: &Job, thread: ThreadId, (from, to): (i64, i64), call: Call<'_>) {
    let row = CollectiveCall {
        start: TimeNs(from),
        duration_ns: (to - from).unsigned_abs(),
        name: host.writer.intern(call.name),
        library: job.library,
        operation: call.operation,
        bytes: 0,
        elements: 1024,
        datatype: StringId(0),
        reduction: StringId(0),
        group: host.writer.intern(call.group),
        group_size: job.size,
        rank: None,
        peer: call.peer,
        stream: 0,
        sequence: call.sequence,
        result: 0,
        flags: call.flags,
        stack: StackId(0),
    };
    host.writer.push_collective_call(thread, row).unwrap();
}

fn capture(job: &Job) -> Capture<Vec<u8>> {
    let mut host = Host::new();
    for rank in 0..RANKS {
        let at = job.at[rank as usize];
        let pid = 100 + i64::from(rank);
        let process = host.process(pid, "python", Some(rank));
        host.writer.update_process(process, |p| p.world_size = Some(job.world));
        host.rank(&format!("rank-{rank}"), &[process]);
        let end = match at {
            At::Ended(end) | At::EndedInside(end) => end,
            _ => job.until,
        };
        let thread = host.thread(process, pid, "MainThread", 0, end);
        let group = match (job.library, job.is_private) {
            (CollectiveLibrary::Gloo, _) => format!("gloo@7f{rank}000"),
            (_, true) => format!("mpi@7f{rank}000"),
            _ => "MPI_COMM_WORLD".to_owned(),
        };
        let all_reduce = match job.library {
            CollectiveLibrary::Gloo => "gloo::allreduce",
            _ => "MPI_Allreduce",
        };
        let name = match job.operation {
            CollectiveOp::AllReduce => all_reduce,
            _ => "MPI_Bcast",
        };
        let late = i64::from(rank) * 100_000;
        let first = job.first[rank as usize];
        let before = |number: i64| u64::try_from(number - first + 1).unwrap();
        let call = |operation, name, sequence, flags| Call {
            name,
            operation,
            group: &group,
            sequence,
            flags,
            peer: job.root,
        };
        let usual = (CollectiveOp::AllReduce, all_reduce);
        if at != At::NeverSeen {
            let returned = if at == At::InTheOneBefore { STUCK - 1 } else { STUCK };
            for number in first..returned {
                let from = number * 10 * MS + late;
                let slow = if number == STUCK - 1 { job.slow } else { 0 };
                let done = number * 10 * MS + MS + late / 10 + slow;
                push(&mut host, job, thread, (from, done), call(usual.0, usual.1, before(number), 0));
            }
        }
        let open = |sequence| call(job.operation, name, sequence, call_flags::OPEN);
        let came = CAME + late + job.slow;
        match at {
            At::Inside if job.polls => {
                let mut from = came;
                while from < job.until {
                    let wait = Call { sequence: 0, flags: 0, ..call(CollectiveOp::Wait, "MPI_Wait", 0, 0) };
                    push(&mut host, job, thread, (from, from + MS), wait);
                    from += 2 * MS;
                }
            }
            At::Inside | At::EndedInside(_) => {
                push(&mut host, job, thread, (came, end), open(before(STUCK)));
            }
            At::StoppedInside => {
                push(&mut host, job, thread, (came, end), open(before(STUCK)));
                host.wait(thread, came + MS, end, "", |wait, _| {
                    wait.kind = WaitKind::Stopped;
                    wait.flags = wait_flags::GOES_ON;
                });
            }
            At::InBroadcast => {
                let call = call(CollectiveOp::Broadcast, "MPI_Bcast", before(STUCK), call_flags::OPEN);
                push(&mut host, job, thread, (came, end), call);
            }
            At::InTheOneBefore => {
                let from = (STUCK - 1) * 10 * MS + late;
                push(&mut host, job, thread, (from, end), open(before(STUCK - 1)));
            }
            At::InWait => {
                let call = Call { group: "", ..call(CollectiveOp::Wait, "MPI_Wait", 0, call_flags::OPEN) };
                push(&mut host, job, thread, (came, end), call);
            }
            At::Receives(peer) => {
                let call = call(CollectiveOp::Recv, "MPI_Recv", 0, call_flags::OPEN);
                push(&mut host, job, thread, (came, end), Call { peer: Some(peer), ..call });
            }
            At::Reads | At::Lost | At::NeverSeen => {
                host.on(thread, came, end, "read", ObjectKind::File, "/data/shard-0017");
                if at == At::Lost {
                    host.lose(thread, came, came + MS);
                }
            }
            At::Locked => {
                let holder = host.thread(process, 900, "logger", 0, end);
                host.on(holder, came, end, "fsync", ObjectKind::File, "/data/log");
                host.woken(thread, MS, 2 * MS, "futex", holder);
                host.wait(thread, came, end, "futex", |_, _| {});
            }
            At::Ended(_) => {}
        }
    }
    host.capture()
}

fn verdicts(job: &Job) -> Vec<Finding> {
    let capture = capture(job);
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    let all = Report::build(&capture, &ledgers).findings;
    all.into_iter().filter(|finding| finding.rule == "hang-collective").collect()
}

fn only(job: &Job) -> Finding {
    let mut all = verdicts(job);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].category, "hang");
    all.remove(0)
}

fn blamed(job: &Job, culprits: &[u32], summary: &str) -> Finding {
    let finding = only(job);
    assert_eq!(finding.blame.culprit_ranks, culprits, "{finding:#?}");
    assert_eq!(finding.summary, summary, "{finding:#?}");
    finding
}

fn nobody(job: &Job, summary: &str, evidence: &str) {
    let finding = only(job);
    assert!(finding.blame.culprit_ranks.is_empty() && finding.blame.confidence.is_none(), "{finding:#?}");
    assert!(finding.summary.contains(summary), "{}", finding.summary);
    assert!(finding.evidence.contains(evidence), "{}", finding.evidence);
}

#[test]
fn a_rank_that_stopped_calling_is_named_with_what_its_main_thread_does_wherever_counts_began() {
    let job = usual(At::Reads);
    let finding = blamed(
        &job,
        &[2],
        "rank 2 never arrived at MPI_Allreduce #50 of MPI_COMM_WORLD; 3 ranks wait for it in it; it is blocked in \
         read() of /data/shard-0017",
    );
    assert_eq!(finding.blame.confidence, Some(1.0));
    assert_eq!(finding.ns, (job.until - CAME).unsigned_abs());
    let link = finding.blame.chain.last().unwrap();
    // Rank 2 was behind rank 0 by 0.2 ms.
    assert_eq!((link.rank, link.tid, link.ns), (Some(2), Some(102), finding.ns - 200_000));
    assert!(finding.evidence.contains("came to #49 there and no further"), "{}", finding.evidence);
}

#[test]
fn groups_that_each_process_calls_by_an_address_are_told_by_their_calls() {
    let job = Job { library: CollectiveLibrary::Gloo, ..usual(At::Locked) };
    let finding = blamed(
        &job,
        &[2],
        "rank 2 never arrived at gloo::allreduce #50 of the group of ranks 0-3; 3 ranks wait for it in it; it is blocked in \
         futex()",
    );
    let holder = "thread 900 (logger) ended its last such wait, and now is blocked in fsync() of /data/log";
    assert!(finding.evidence.contains(holder), "{}", finding.evidence);
}

#[test]
fn a_process_that_has_ended_is_to_blame_whether_it_came_or_not() {
    let gone = "rank 2 never arrived at MPI_Allreduce #50 of MPI_COMM_WORLD; 3 ranks wait for it in it; it has ended";
    blamed(&usual(At::Ended(CAME)), &[2], gone);
    let inside = "rank 2 ended inside MPI_Allreduce #50 of MPI_COMM_WORLD; 3 ranks wait for it in it";
    blamed(&usual(At::EndedInside(2 * S)), &[2], inside);
}

#[test]
fn a_rank_that_is_stopped_inside_the_operation_is_to_blame() {
    let summary = "rank 2 is stopped inside MPI_Allreduce #50 of MPI_COMM_WORLD; 3 ranks wait for it in it";
    blamed(&usual(At::StoppedInside), &[2], summary);
}

#[test]
fn a_rank_that_calls_something_else_is_to_blame() {
    let finding = only(&usual(At::InBroadcast));
    assert_eq!(finding.blame.culprit_ranks, [2], "{finding:#?}");
    assert!(
        finding.summary.starts_with("rank 2 called something else than the other ranks did"),
        "{finding:#?}"
    );
    assert!(finding.evidence.contains("called MPI_Bcast there"), "{}", finding.evidence);
}

#[test]
fn a_rank_that_does_not_leave_what_the_others_have_left_is_to_blame() {
    let finding = only(&usual(At::InTheOneBefore));
    assert_eq!(finding.blame.culprit_ranks, [2], "{finding:#?}");
    assert!(finding.summary.starts_with("rank 2 never arrived at MPI_Allreduce #50"), "{}", finding.summary);
    let lagging = "it has not left MPI_Allreduce #49 of MPI_COMM_WORLD, which the others have left";
    assert!(finding.evidence.contains(lagging), "{}", finding.evidence);
}

#[test]
fn where_all_have_come_nobody_is_blamed() {
    let job = Job { at: INSIDE, ..usual(At::Inside) };
    nobody(&job, "all 4 ranks came to MPI_Allreduce #50 of MPI_COMM_WORLD", "all have arrived");
}

#[test]
fn whoever_waits_for_a_rank_hands_the_blame_on_to_it() {
    let job = Job { at: [At::Inside, At::Inside, At::Receives(3), At::Reads], ..usual(At::Inside) };
    let finding = only(&job);
    assert_eq!(finding.blame.culprit_ranks, [3], "{finding:#?}");
    assert!(finding.summary.starts_with("rank 3 never arrived at MPI_Allreduce #50"), "{}", finding.summary);
}

#[test]
fn of_a_broadcast_the_root_keeps_the_others_for_certain_and_nobody_else() {
    let root = |root, at| {
        let job = Job { operation: CollectiveOp::Broadcast, root: Some(root), at, ..usual(At::Reads) };
        only(&job).blame.culprit_ranks
    };
    let at = [At::Inside, At::Reads, At::Reads, At::Inside];
    assert_eq!(root(2, at), [2]);
    assert_eq!(root(1, at), [1]);
    assert_eq!(root(0, at), [1, 2]);
}

#[test]
fn what_is_not_known_is_said_and_nobody_is_blamed() {
    let missing = "which rank is missing cannot be told";
    nobody(&usual(At::InWait), missing, "rank 2 has not come and is itself in MPI_Wait for 5.");
    nobody(&usual(At::Lost), missing, "records of rank 2 are missing since then");
    let unseen = "no call of rank 2 on this group was recorded, so that it may have come before the recording began; it is blocked in read()";
    nobody(&usual(At::NeverSeen), missing, unseen);
    // Half of a group, and all of those that were seen came.
    let job = Job { at: INSIDE, size: 8, ..usual(At::Inside) };
    nobody(&job, missing, "only 4 of its 8 ranks were seen in a call of it on this host; in it: ranks 0-3");
    // Half of a job, and less.
    for world in [8, 9] {
        let job = Job { at: INSIDE, size: world.into(), world, ..usual(At::Inside) };
        let recorded =
            format!("only 4 of its {world} ranks were recorded on this host, and all of those came");
        nobody(&job, missing, &recorded);
    }
    // Counts that say nothing, and calls that differ.
    let job = Job { first: [STUCK; 4], ..usual(At::InBroadcast) };
    nobody(&job, missing, "too few of its operations were recorded on all ranks before");
}

#[test]
fn without_numbers_the_order_of_calls_tells_who_has_not_come() {
    let job = Job { first: [STUCK - 1; 4], ..usual(At::Reads) };
    let finding = blamed(
        &job,
        &[2],
        "rank 2 never arrived at MPI_Allreduce of MPI_COMM_WORLD; 3 ranks wait for it in it; it is blocked in read() of \
         /data/shard-0017",
    );
    assert!(finding.evidence.contains("which operation since the recording began it is, is not known"));
}

#[test]
fn what_is_polled_or_has_only_just_begun_is_no_hang() {
    assert!(verdicts(&Job { polls: true, ..usual(At::Reads) }).is_empty());
    assert!(verdicts(&Job { until: CAME + 2 * S - 1, ..usual(At::Reads) }).is_empty());
    // Others took half as long.
    let slow = |slow| verdicts(&Job { slow, until: CAME + slow + 5 * S, ..usual(At::Reads) }).len();
    assert_eq!((slow(3 * S), slow(2 * S)), (0, 1));
    // All had come before the recording began: there is no call to see.
    assert!(verdicts(&Job { at: [At::NeverSeen; 4], ..usual(At::Reads) }).is_empty());
}

#[test]
fn of_a_group_of_some_ranks_only_those_are_asked() {
    // Ranks 0 and 1 have a communicator of their own, 2 and 3 another: 1 does not come.
    let at = [At::Inside, At::Reads, At::Inside, At::Inside];
    let job = Job { at, size: 2, is_private: true, ..usual(At::Reads) };
    let all = verdicts(&job);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].blame.culprit_ranks, [1], "{all:#?}");
    assert!(all[0].summary.contains("of the communicator of ranks 0-1; 1 rank waits for it"), "{all:#?}");
}
