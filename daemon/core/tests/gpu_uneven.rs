//! GPUs that are late at times only: what is said of them does not rest on averages that are level.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::gpus::Job;
use stallscope_core::findings::Finding;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::Report;

const US: i64 = 1_000;
const STEPS: i64 = 40;

/// Two ranks in 40 steps; in each a rank computes for 500 µs and for as much longer as is told by rank and step, µs.
fn late(longer: &dyn Fn(usize, i64) -> i64) -> Vec<Finding> {
    let mut job = Job::new(2, STEPS * 2000 * US);
    let mut base = 10 * US;
    for step in 0..STEPS {
        let came = |rank| base + (500 + longer(rank, step)) * US;
        let last = came(0).max(came(1));
        for rank in 0..2 {
            job.op(rank, "norm", 7, base, base + 100 * US);
            job.op(rank, "gemm", 7, base + 100 * US, came(rank));
        }
        job.collective(20, &[(0, came(0)), (1, came(1))], last + 50 * US);
        base = last + 60 * US;
    }
    let capture = job.capture();
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    Report::build(&capture, &ledgers).findings.into_iter().filter(|f| f.rule == "rank-late").collect()
}

#[test]
fn of_ranks_that_are_late_by_turns_no_average_is_the_reason() {
    // Rank 1 has a little more than rank 0.
    let found = late(&|rank, step| match (rank, step % 2) {
        (0, 1) => 300,
        (1, 0) => 310,
        _ => 0,
    });
    assert_eq!(found.len(), 2, "{found:#?}");
    for late in &found {
        let said = "it computes longer at times, others at other times: the work is uneven";
        assert!(late.summary.ends_with(said), "{late:#?}");
        assert!(late.advice.contains("balance the work of each step"), "{late:#?}");
    }
    let of = |rank| found.iter().find(|f| f.blame.culprit_ranks == [rank]).unwrap().evidence.as_str();
    assert!(of(0).contains("for its computing, but over the whole recording its kernels take no longer"));
    assert!(of(1).ends_with("its kernels take only 200.0 µs longer than those of rank 0"), "{}", of(1));
}

#[test]
fn a_rank_that_is_late_in_every_second_step_alone_has_longer_kernels() {
    let found = late(&|rank, step| if rank == 1 && step % 2 == 0 { 300 } else { 0 });
    let [late] = &found[..] else { panic!("{found:#?}") };
    assert!(late.summary.contains("some of its kernels take longer than on the others"), "{late:#?}");
    assert!(late.summary.contains(" a step each)"), "{late:#?}");
    assert!(late.advice.starts_with("look at what this rank does"), "{late:#?}");
}

#[test]
fn a_few_steps_that_have_most_of_it_are_counted() {
    let found = late(&|rank, step| match (rank, step) {
        (1, 20) => 6000,
        (1, 7) => 400,
        _ => 0,
    });
    let [late] = &found[..] else { panic!("{found:#?}") };
    let (_, after) = late.summary.split_once("waiting for 6.4 ms, ").unwrap_or_else(|| panic!("{late:#?}"));
    assert!(after.starts_with("6.0 ms of it in 1 of "), "{after}");
    assert!(!late.summary.contains("a step each"), "{after}");
}
