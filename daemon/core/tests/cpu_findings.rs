//! What findings about ranks on CPUs must not say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::findings::{Finding, Severity};
use stallscope_core::ledger::{CpuLeaf, Ledgers, Options, cpu_ledgers};
use stallscope_core::report::Report;
use stallscope_core::rows::CollectiveCall;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::{StackId, StringId, TimeNs};

const ALL_REDUCE: (&str, CollectiveLibrary, CollectiveOp) =
    ("MPI_Allreduce", CollectiveLibrary::Mpi, CollectiveOp::AllReduce);

/// Two ranks that take turns on one CPU. Each computes for 20 ms of every 100 and is in an all-reduce for the rest, in
/// which both yield: each is runnable for half of it. Outside of collectives rank 0 waits for a CPU for `queued`.
fn yielding(queued: u64) -> Host {
    let mut host = Host::new();
    let processes = [10, 11].map(|pid| host.process(pid, "python3", u32::try_from(pid - 10).ok()));
    let mains: Vec<_> = processes
        .iter()
        .zip([10, 11])
        .map(|(&process, tid)| {
            host.rank(&format!("rank {}", tid - 10), &[process]);
            host.thread(process, tid, "main", 0, 1000 * MS)
        })
        .collect();
    for at in (0..10).map(|step| step * 100 * MS) {
        let (name, library, operation) = ALL_REDUCE;
        for (rank, &main) in mains.iter().enumerate() {
            let peer = mains[1 - rank];
            let mut preempt = |from, to, ns| host.preempt(main, at + from * MS, at + to * MS, ns, Some(peer));
            if rank == 0 && queued > 0 {
                preempt(5, 15, queued / 10);
            }
            preempt(25, 95, 35 * MS.unsigned_abs());
            let (begin, end) = (at + 20 * MS, at + 100 * MS);
            host.call_of(main, begin, end, name, library, operation, "MPI_COMM_WORLD", 0);
        }
    }
    host
}

fn findings(host: Host) -> Vec<Finding> {
    let capture = host.capture();
    Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap()).findings
}

fn of<'a>(findings: &'a [Finding], rule: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|f| f.rule == rule).collect()
}

#[test]
fn ranks_that_yield_while_they_wait_for_each_other_do_not_want_for_cpus() {
    let ledgers = cpu_ledgers(&yielding(0).capture(), Options::default()).unwrap();
    assert_eq!(ledgers[0].root.get(CpuLeaf::RunQueue), 350 * MS.unsigned_abs(), "the ledger says what was");
    let findings = findings(yielding(0));
    assert!(of(&findings, "rank-run-queue").is_empty(), "{findings:?}");
    assert_eq!(of(&findings, "rank-collective").len(), 2);
    for finding in of(&findings, "rank-collective") {
        assert_eq!((finding.ns, finding.share), (800 * MS.unsigned_abs(), 0.8));
        assert!(finding.evidence.contains("43.8 % of it runnable while others ran"), "{}", finding.evidence);
        let pointer = finding.pointer.as_ref().unwrap();
        assert_eq!(pointer.call.as_deref(), Some("MPI_Allreduce"), "{pointer:?}");
    }
}

#[test]
fn run_queue_time_outside_of_collectives_is_a_want_of_cpus() {
    let findings = findings(yielding(60 * MS.unsigned_abs()));
    let [finding] = of(&findings, "rank-run-queue")[..] else { panic!("{findings:?}") };
    assert_eq!((finding.device.as_str(), finding.ns), ("rank 0", 60 * MS.unsigned_abs()));
    // Three times in each of ten steps, and nothing of what its peer ran in collectives.
    assert!(finding.evidence.contains("60.0 ms while main (tid 11) ran, 30 times"), "{}", finding.evidence);
}

#[test]
fn a_late_rank_is_not_late_because_of_what_it_does_in_collectives() {
    // Rank 1 begins each call 30 ms late because it sleeps; once inside it yields more than rank 0 does.
    let mut host = Host::new();
    let processes = [10, 11].map(|pid| host.process(pid, "python3", u32::try_from(pid - 10).ok()));
    host.rank("rank 0", &processes[..1]);
    host.rank("rank 1", &processes[1..]);
    let mains =
        [0, 1].map(|at| host.thread(processes[at], 10 + i64::try_from(at).unwrap(), "main", 0, 1000 * MS));
    for at in (0..10).map(|step| step * 100 * MS) {
        let (name, library, operation) = ALL_REDUCE;
        for (rank, &main) in mains.iter().enumerate() {
            let begin = at + if rank == 0 { 20 * MS } else { 50 * MS };
            host.call_of(main, begin, at + 100 * MS, name, library, operation, "MPI_COMM_WORLD", 0);
        }
        host.wait(mains[1], at + 20 * MS, at + 50 * MS, "clock_nanosleep", |_, _| {});
        host.preempt(mains[1], at + 50 * MS, at + 100 * MS, 45 * MS.unsigned_abs(), Some(mains[0]));
    }
    let findings = findings(host);
    let [late] = of(&findings, "rank-late")[..] else { panic!("{findings:?}") };
    assert_eq!((late.device.as_str(), late.share), ("rank 1", 0.3));
    assert!(
        late.evidence.contains("rank 1 sleeps for 30.0 % of its time (300.0 ms), the other 0 ns"),
        "{}",
        late.evidence
    );
}

#[test]
fn a_late_rank_saves_no_more_than_is_its_own_doing() {
    // Of 60 ms that rank 1 comes later in each of ten steps, it is in a broadcast for 50: somebody else holds it up there.
    let mut host = Host::new();
    host.group_size = 2;
    for rank in 0..2u32 {
        let pid = 10 + i64::from(rank);
        let process = host.process(pid, "python3", Some(rank));
        host.rank(&format!("rank {rank}"), &[process]);
        let main = host.thread(process, pid, "main", 0, 1000 * MS);
        for at in (0..10).map(|step| step * 100 * MS) {
            let mut call = |from, to, name, operation| {
                let (begin, end) = (at + from * MS, at + to * MS);
                host.call_of(main, begin, end, name, ALL_REDUCE.1, operation, "MPI_COMM_WORLD", 0);
            };
            if rank == 1 {
                call(10, 60, "MPI_Bcast", CollectiveOp::Broadcast);
            }
            call(if rank == 1 { 80 } else { 20 }, 100, ALL_REDUCE.0, ALL_REDUCE.2);
        }
    }
    let findings = findings(host);
    let late = of(&findings, "rank-late");
    assert_eq!(late.len(), 1, "{late:?}");
    // Where all were before the first operation is not known.
    assert_eq!(late[0].ns, (60 + 9 * 10) * MS.unsigned_abs(), "{late:?}");
    assert_eq!(late[0].blame.recoverable_ns, Some(late[0].ns), "{late:?}");
}

/// A call of one of so many ranks, which may have a root.
fn call(
    (rank, ranks): (u32, u64),
    (name, operation): (StringId, CollectiveOp),
    group: StringId,
    (from, to): (i64, i64),
) -> CollectiveCall {
    CollectiveCall {
        start: TimeNs(from),
        duration_ns: (to - from).unsigned_abs(),
        name,
        library: CollectiveLibrary::Mpi,
        operation,
        bytes: 4096,
        elements: 1024,
        datatype: StringId(0),
        reduction: StringId(0),
        group,
        group_size: ranks,
        rank: Some(rank),
        peer: Some(0).filter(|_| operation.has_root()),
        stream: 0,
        sequence: 0,
        result: 0,
        flags: 0,
        stack: StackId(0),
    }
}

/// Ten steps of 100 ms of some ranks, in each of which they come to an all-reduce of so many of them: each rank's job, and when it
/// comes, ms.
fn jobs(each: u64, ranks: &[(&str, i64)]) -> Vec<Finding> {
    let mut host = Host::new();
    for (rank, &(job, comes)) in (0u32..).zip(ranks) {
        let pid = 10 + i64::from(rank);
        let process = host.process(pid, "python3", Some(rank));
        host.writer.update_process(process, |p| p.job = job.into());
        host.rank(&format!("rank {rank}"), &[process]);
        let main = host.thread(process, pid, "main", 0, 1000 * MS);
        let [name, group] = [ALL_REDUCE.0, "MPI_COMM_WORLD"].map(|text| host.writer.intern(text));
        for at in (0..10).map(|step| step * 100 * MS) {
            let when = (at + comes * MS, at + 100 * MS);
            let row = call((rank, each), (name, CollectiveOp::AllReduce), group, when);
            host.writer.push_collective_call(main, row).unwrap();
        }
    }
    findings(host)
}

#[test]
fn ranks_of_two_jobs_do_not_wait_for_each_other() {
    // Nobody knows how many ranks a job has.
    let found = jobs(0, &[("one", 20), ("one", 50), ("other", 60), ("other", 30)]);
    let mut late: Vec<_> = of(&found, "rank-late").iter().map(|f| (f.device.as_str(), f.ns)).collect();
    late.sort_unstable();
    let waited_ns = 10 * 30 * MS.unsigned_abs();
    assert_eq!(late, [("rank 1", waited_ns), ("rank 2", waited_ns)]);
}

#[test]
fn of_many_ranks_that_wait_some_are_named() {
    let found = jobs(6, &[("one", 20), ("one", 20), ("one", 20), ("one", 20), ("one", 20), ("one", 50)]);
    let [late] = of(&found, "rank-late")[..] else { panic!("{found:?}") };
    let named = "rank 0, rank 1, rank 2, rank 3 and 1 more wait 1.50 s for it, 30.0 % of their time";
    assert!(late.evidence.starts_with(named), "{}", late.evidence);
}

#[test]
fn who_does_not_wait_for_a_late_rank_is_not_said_to() {
    // Rank 0 collects from the others in each of ten steps: 1 leaves at once, and 2 comes 40 ms later.
    let mut host = Host::new();
    for (rank, (from, to)) in (0u32..).zip([(20, 61), (20, 21), (60, 61)]) {
        let pid = 10 + i64::from(rank);
        let process = host.process(pid, "python3", Some(rank));
        host.rank(&format!("rank {rank}"), &[process]);
        let main = host.thread(process, pid, "main", 0, 1000 * MS);
        let [all, reduce, group] =
            [ALL_REDUCE.0, "MPI_Reduce", "MPI_COMM_WORLD"].map(|text| host.writer.intern(text));
        for at in (0..10).map(|step| step * 100) {
            let what = [
                (all, CollectiveOp::AllReduce, at + 10, at + 11),
                (reduce, CollectiveOp::Reduce, at + from, at + to),
            ];
            for (name, operation, from, to) in what {
                let row = call((rank, 3), (name, operation), group, (from * MS, to * MS));
                host.writer.push_collective_call(main, row).unwrap();
            }
        }
    }
    let found = findings(host);
    let [late] = of(&found, "rank-late")[..] else { panic!("{found:?}") };
    let summary = "rank 2 keeps another rank waiting in MPI_Reduce: it arrives last in 9 of 9 calls";
    assert_eq!(late.summary, summary);
    let evidence = "rank 0 waits 360.0 ms for it, 36.0 % of its time; ";
    assert!(late.evidence.starts_with(evidence), "{}", late.evidence);
}

#[test]
fn a_rank_that_may_wait_for_a_gpu_that_was_not_seen_is_mentioned_only() {
    let finding = |note: Option<&str>| {
        let mut host = Host::new();
        let process = host.process(10, "python3", Some(0));
        host.rank("rank 0", &[process]);
        let main = host.thread(process, 10, "main", 0, 1000 * MS);
        host.wait(main, 100 * MS, 900 * MS, "futex", |_, _| {});
        note.into_iter().for_each(|note| host.writer.add_label("note", note));
        let found = findings(host);
        let [lock] = of(&found, "rank-lock")[..] else { panic!("{found:?}") };
        (lock.severity, lock.evidence.contains("it uses a GPU that was not seen"))
    };
    assert_eq!(finding(None), (Severity::Critical, false));
    assert_eq!(finding(Some("GPU work of process 10 was not seen: no clock")), (Severity::Notice, true));
    assert_eq!(finding(Some("GPU work of process 11 was not seen: no clock")), (Severity::Critical, false));
}

/// Three ranks that meet each 100 ms. In each step the one that is named sleeps for 40 ms longer than the others; one more waits for
/// it outside of the all-reduce, and comes 3 ms after it.
fn three(late: impl Fn(i64) -> usize, fed: Option<usize>) -> Host {
    let mut host = Host::new();
    host.group_size = 3;
    let processes = [10, 11, 12].map(|pid| host.process(pid, "python3", u32::try_from(pid - 10).ok()));
    let mains = [0, 1, 2].map(|rank| {
        host.rank(&format!("rank {rank}"), &processes[rank..=rank]);
        host.thread(processes[rank], 10 + i64::try_from(rank).unwrap(), "main", 0, 1000 * MS)
    });
    for step in 0..10 {
        let (at, late) = (step * 100 * MS, late(step));
        for (rank, &main) in mains.iter().enumerate() {
            let mut begin = at + 10 * MS;
            if rank == late {
                begin = at + 50 * MS;
                host.wait(main, at + MS, begin, "clock_nanosleep", |_, _| {});
            } else if Some(rank) == fed {
                begin = at + 53 * MS;
                let feeder = mains[late];
                host.wait(main, at + MS, at + 50 * MS, "read", |w, _| w.waker = Some(feeder));
            }
            let (name, library, operation) = ALL_REDUCE;
            host.call_of(main, begin, at + 100 * MS, name, library, operation, "MPI_COMM_WORLD", 0);
        }
    }
    host
}

#[test]
fn ranks_that_are_late_in_turn_have_what_they_did_before_the_calls_that_they_were_late_for() {
    let findings = findings(three(|step| usize::try_from(step % 2).unwrap(), None));
    let late = of(&findings, "rank-late");
    let said: Vec<_> = late.iter().map(|f| (f.device.as_str(), f.evidence.as_str())).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    for (rank, evidence) in said {
        let does = format!(
            "before those calls {rank} sleeps for 24.5 % of its time (245.0 ms), the others on average 0 ns"
        );
        assert!(evidence.contains(&does), "{evidence}");
    }
}

#[test]
fn a_late_rank_that_another_one_holds_up_does_not_do_itself_what_that_one_did() {
    let findings = findings(three(|_| 1, Some(2)));
    let [late] = of(&findings, "rank-late")[..] else { panic!("{findings:?}") };
    assert_eq!(late.device, "rank 2");
    assert!(
        late.evidence
            .contains("rank 2 waits for main (tid 11) of rank 1, which sleeps, for 49.0 % of its time"),
        "{}",
        late.evidence
    );
    assert!(late.advice.contains("thread of the other rank"), "{}", late.advice);
}
