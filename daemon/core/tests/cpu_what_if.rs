//! What a job of ranks on CPUs would save without a cause of lost time: made-up hosts, every nanosecond known.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::{Host, MS};
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, ObjectKind};
use stallscope_schemas::units::{ProcessId, ThreadId};

const STEPS: i64 = 10;
const STEP: i64 = 100 * MS;

/// Ranks with a thread each that is followed for a second.
fn ranks(host: &mut Host, count: u32) -> Vec<(ProcessId, ThreadId)> {
    host.group_size = count;
    let one = |rank: u32| {
        let pid = 10 + i64::from(rank);
        let process = host.process(pid, "python3", Some(rank));
        host.rank(&format!("rank {rank}"), &[process]);
        (process, host.thread(process, pid, "main", 0, STEPS * STEP))
    };
    (0..count).map(one).collect()
}

/// A thread is in an all-reduce from so long after the begin of each step on until its end, and before that waits in a call.
fn meets(host: &mut Host, thread: ThreadId, comes: i64, group: &str, waits: Option<(&str, i64)>) {
    for at in (0..STEPS).map(|step| step * STEP) {
        let end = at + STEP;
        let library = CollectiveLibrary::Mpi;
        host.call_of(thread, at + comes, end, "MPI_Allreduce", library, CollectiveOp::AllReduce, group, 0);
        if let Some((call, ns)) = waits {
            host.wait(thread, at + comes - ns, at + comes, call, |wait, _| {
                if call == "read" {
                    wait.object_kind = ObjectKind::File;
                }
            });
        }
    }
}

/// What is saved without what each finding of a rule is about, ms, by device.
fn saved(host: Host, rule: &str) -> Vec<(String, Option<u64>)> {
    let capture = host.capture();
    let report = Report::build(&capture, &Ledgers::of(&capture, Options::default()).unwrap());
    let mut all: Vec<(String, Option<u64>)> = report
        .findings
        .iter()
        .filter(|finding| finding.rule == rule)
        .map(|finding| (finding.device.clone(), finding.blame.recoverable_ns.map(|ns| ns / 1_000_000)))
        .collect();
    all.sort();
    all
}

fn of_rank(rank: u32, ms: Option<u64>) -> (String, Option<u64>) {
    (format!("rank {rank}"), ms)
}

#[test]
fn what_all_others_wait_for_is_saved_in_each_step() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 2);
    meets(&mut host, ranks[0].1, 20 * MS, "world", None);
    meets(&mut host, ranks[1].1, 50 * MS, "world", Some(("clock_nanosleep", 30 * MS)));
    assert_eq!(saved(host, "rank-sleep"), [of_rank(1, Some(300))]);
}

#[test]
fn what_is_hidden_behind_another_rank_is_not_saved() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 3);
    meets(&mut host, ranks[0].1, 20 * MS, "world", None);
    meets(&mut host, ranks[1].1, 40 * MS, "world", None);
    meets(&mut host, ranks[2].1, 50 * MS, "world", Some(("read", 30 * MS)));
    assert_eq!(saved(host, "rank-block-io"), [of_rank(2, Some(100))]);
}

#[test]
fn a_cause_is_taken_away_from_all_ranks_that_have_it() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 2);
    meets(&mut host, ranks[0].1, 45 * MS, "world", Some(("clock_nanosleep", 25 * MS)));
    meets(&mut host, ranks[1].1, 50 * MS, "world", Some(("clock_nanosleep", 30 * MS)));
    assert_eq!(saved(host, "rank-sleep"), [of_rank(0, Some(300)), of_rank(1, Some(300))]);
}

#[test]
fn who_meets_nobody_saves_all_of_it() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 1);
    for at in (0..STEPS).map(|step| step * STEP) {
        host.wait(ranks[0].1, at, at + 30 * MS, "clock_nanosleep", |_, _| {});
    }
    assert_eq!(saved(host, "rank-sleep"), [of_rank(0, Some(300))]);
}

#[test]
fn nothing_is_said_where_the_calls_of_others_are_not_known() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 1);
    host.group_size = 2;
    meets(&mut host, ranks[0].1, 50 * MS, "world", Some(("clock_nanosleep", 30 * MS)));
    assert_eq!(saved(host, "rank-sleep"), [of_rank(0, None)]);
}

#[test]
fn nothing_is_said_where_a_rank_of_the_communicator_was_not_recorded() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 2);
    host.group_size = 3;
    meets(&mut host, ranks[0].1, 20 * MS, "world", None);
    meets(&mut host, ranks[1].1, 50 * MS, "world", Some(("clock_nanosleep", 30 * MS)));
    assert_eq!(saved(host, "rank-sleep"), [of_rank(1, None)]);
}

#[test]
fn nothing_is_said_where_ranks_wait_in_a_second_communicator_as_well() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 2);
    for (&(_, thread), comes) in ranks.iter().zip([20 * MS, 50 * MS]) {
        for at in (0..STEPS).map(|step| step * STEP) {
            for (name, from, to) in [("one", comes, 80 * MS), ("other", 85 * MS, 100 * MS)] {
                let (library, operation) = (CollectiveLibrary::Mpi, CollectiveOp::AllReduce);
                host.call_of(thread, at + from, at + to, "MPI_Allreduce", library, operation, name, 0);
            }
        }
    }
    for at in (0..STEPS).map(|step| step * STEP) {
        host.wait(ranks[1].1, at + 20 * MS, at + 50 * MS, "clock_nanosleep", |_, _| {});
    }
    assert_eq!(saved(host, "rank-sleep"), [of_rank(1, None)]);
}

#[test]
fn nothing_is_said_of_one_of_several_ranks_whose_calls_nobody_saw() {
    let mut host = Host::new();
    host.group_size = 2;
    let process = host.process(10, "python3", Some(0));
    host.rank("rank 0", &[process]);
    let thread = host.thread(process, 10, "main", 0, STEPS * STEP);
    for at in (0..STEPS).map(|step| step * STEP) {
        host.wait(thread, at, at + 30 * MS, "clock_nanosleep", |_, _| {});
    }
    assert_eq!(saved(host, "rank-sleep"), [of_rank(0, None)]);
}

#[test]
fn nothing_is_said_where_two_threads_drive_a_rank() {
    let mut host = Host::new();
    let ranks = ranks(&mut host, 2);
    meets(&mut host, ranks[0].1, 20 * MS, "world", None);
    meets(&mut host, ranks[1].1, 50 * MS, "world", Some(("clock_nanosleep", 30 * MS)));
    let other = host.thread(ranks[1].0, 21, "other", 0, STEPS * STEP);
    meets(&mut host, other, 50 * MS, "other", None);
    assert_eq!(saved(host, "rank-sleep"), [of_rank(1, None)]);
}
