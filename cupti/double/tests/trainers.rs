//! Trainers of four ranks: their truth logs add up, and the ranks agree on every collective.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{Lab, Outcome};
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_double::truth::{Collective, Line, Op, OpKind, Why};

const RANKS: usize = 4;
const STEPS: usize = 16;
const LAYERS: usize = 4;

fn jobs() -> PathBuf {
    common::here().join("../../tests/jobs")
}

/// The program, compiled once for all tests of this process.
fn compiled(lab: &Lab, source: &Path) -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let compile = || {
        let kept =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("gpu_trainer.{}", std::process::id()));
        std::fs::copy(lab.compile(source), &kept).unwrap();
        kept
    };
    PROGRAM.get_or_init(compile).clone()
}

fn train(trainer: &str, fault: &str, dose_ms: u32) -> Outcome {
    train_with(trainer, &["--fault", fault, "--dose-ms", &dose_ms.to_string()])
}

fn train_with(trainer: &str, arguments: &[&str]) -> Outcome {
    let lab = Lab::new(Version::V12_8);
    let program = if trainer.ends_with(".cpp") {
        vec![compiled(&lab, &jobs().join(trainer))]
    } else {
        vec!["python3".into(), jobs().join(trainer)]
    };
    let mut command = lab.command("python3".as_ref(), "gpus=4", "log");
    command.arg(jobs().join("gpu_launch.py")).arg(RANKS.to_string()).args(program);
    command.args(["--steps", &STEPS.to_string(), "--layers", &LAYERS.to_string()]);
    command.args(arguments);
    lab.finish(&mut command, "log")
}

/// What must hold of every run.
fn check(outcome: &Outcome) {
    let mut by_process: BTreeMap<u32, Vec<&Op>> = BTreeMap::new();
    for op in outcome.ops() {
        by_process.entry(op.pid).or_default().push(op);
    }
    assert_eq!(by_process.len(), RANKS);
    for (pid, ops) in &mut by_process {
        let end = outcome.truth.iter().find_map(|l| match l {
            Line::End(end) if end.pid == *pid => Some(end),
            _ => None,
        });
        let end = end.expect("each rank ended by itself");
        assert_eq!((end.ops, end.unfinished), (ops.len() as u64, 0), "each operation has a line");
        ops.sort_by_key(|o| o.id);
        let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
        for op in ops.iter() {
            let (start_ns, end_ns) = (op.start_ns.unwrap(), op.end_ns.unwrap());
            let before_ns = ends.insert(op.stream, end_ns).unwrap_or(0);
            assert!(start_ns >= before_ns && end_ns >= start_ns, "streams run in order");
            assert!(start_ns >= op.launched_ns, "nothing starts before it is launched");
        }
        check_order(ops);
    }
    check_collectives(outcome);
}

/// What events order over the two streams: gradients before their all-reduce, all-reduces before the optimiser.
fn check_order(ops: &[&Op]) {
    let (mut gradients_ns, mut reduced_ns) = (0, 0);
    for op in ops {
        let (start_ns, end_ns) = (op.start_ns.unwrap(), op.end_ns.unwrap());
        match (op.kind, op.name.as_str()) {
            (OpKind::Kernel, "backward_gemm") => gradients_ns = end_ns,
            (OpKind::Collective, _) => {
                assert!(start_ns >= gradients_ns, "an all-reduce waits for its gradients");
                reduced_ns = end_ns;
            }
            (OpKind::Kernel, "optimizer_step") => {
                assert!(start_ns >= reduced_ns, "the optimiser waits for all")
            }
            _ => {}
        }
    }
}

fn check_collectives(outcome: &Outcome) {
    let ops: BTreeMap<(u32, u64), &Op> = outcome.ops().into_iter().map(|o| ((o.pid, o.id), o)).collect();
    let mut met: BTreeMap<u64, Vec<&Collective>> = BTreeMap::new();
    for part in outcome.collectives() {
        met.entry(part.sequence).or_default().push(part);
    }
    assert_eq!(met.len(), STEPS * LAYERS, "every collective of every step");
    for (sequence, parts) in met {
        let mut ranks: Vec<u32> = parts.iter().map(|p| p.rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3], "collective {sequence}");
        let first = parts[0];
        let latest_ns = *first.starts_ns.iter().max().unwrap();
        for part in parts {
            assert_eq!(
                (&part.comm, &part.starts_ns, &part.ranks),
                (&first.comm, &first.starts_ns, &first.ranks)
            );
            assert_eq!((part.transfer_ns, part.late_rank), (first.transfer_ns, first.late_rank));
            let op = ops[&(part.pid, part.op)];
            assert_eq!(op.kind, OpKind::Collective);
            let place = part.ranks.iter().position(|r| *r == part.rank).unwrap();
            assert_eq!(op.start_ns, Some(part.starts_ns[place]), "each rank's arrival is its kernel's start");
            assert_eq!(op.end_ns, Some(latest_ns + part.transfer_ns), "all end together");
            assert_eq!(part.wait_ns, latest_ns - part.starts_ns[place]);
            assert_eq!(
                part.starts_ns[part.ranks.iter().position(|r| *r == part.late_rank).unwrap()],
                latest_ns
            );
        }
    }
}

/// In how many steps the rank was the last to come to the first collective.
fn late_steps(outcome: &Outcome, rank: u32) -> usize {
    let first = |c: &&Collective| c.rank == 0 && c.sequence.is_multiple_of(LAYERS as u64);
    outcome.collectives().into_iter().filter(first).filter(|c| c.late_rank == rank).count()
}

fn dose_ns(outcome: &Outcome, kind: &str) -> Vec<u64> {
    let doses = outcome.truth.iter().filter_map(|l| match l {
        Line::Dose(d) if d.what == kind => Some(d.end_ns - d.begin_ns),
        _ => None,
    });
    doses.collect()
}

const TRAINERS: [&str; 2] = ["gpu_trainer.py", "gpu_trainer.cpp"];

#[test]
fn healthy_trainers_add_up() {
    for trainer in TRAINERS {
        let outcome = train(trainer, "none@0", 0);
        check(&outcome);
        assert!(outcome.truth.iter().all(|l| !matches!(l, Line::Dose(_) | Line::Fault(_) | Line::Misuse(_))));
    }
}

#[test]
fn a_rank_that_is_late_is_waited_for() {
    for trainer in TRAINERS {
        for kind in ["late", "slow-read"] {
            let outcome = train(trainer, &format!("{kind}@2"), 40);
            check(&outcome);
            let doses = dose_ns(&outcome, kind);
            assert!(doses.len() >= STEPS && doses.iter().all(|d| *d >= 39_000_000), "{kind}: {doses:?}");
            let late = late_steps(&outcome, 2);
            assert!(late > STEPS / 2, "{trainer} {kind}: late in {late} of {STEPS} steps");
        }
    }
}

#[test]
fn a_slow_device_says_how_slow() {
    let outcome = train("gpu_trainer.py", "slow-device@1", 10);
    check(&outcome);
    let pid = outcome.collectives().iter().find(|c| c.rank == 1).unwrap().pid;
    for op in outcome.ops().into_iter().filter(|o| o.kind == OpKind::Kernel) {
        let duration_ns = op.end_ns.unwrap() - op.start_ns.unwrap();
        let slowed_ns = if op.pid == pid { duration_ns / 2 } else { 0 };
        assert_eq!(op.slowed_ns, slowed_ns, "twice as slow, on rank 1 alone");
    }
}

#[test]
fn a_rank_that_profiles_itself_gets_its_records() {
    let outcome = train_with("gpu_trainer.py", &["--profile", "4:9"]);
    check(&outcome);
    // In each of five steps four kernels forward, four backward, four all-reduces, the optimiser; a copy.
    let records = outcome.lines("profiler")[0];
    assert!(records.contains(&format!("\"10\": {}", 5 * (3 * LAYERS + 1))), "{records}");
    assert!(records.contains("\"1\": 5,"), "{records}");
    let owed = outcome.ops().into_iter().filter(|o| o.observed).count();
    assert_eq!(owed, 5 * (3 * LAYERS + 2));
}

#[test]
fn blocking_calls_say_why() {
    for (fault, why) in [
        ("malloc-storm", Why::Alloc),
        ("sync-copy", Why::Copy),
        ("sync-loop", Why::Stream),
        ("lock", Why::Stream),
    ] {
        let outcome = train("gpu_trainer.cpp", &format!("{fault}@3"), 5);
        check(&outcome);
        let pid = outcome.collectives().iter().find(|c| c.rank == 3).unwrap().pid;
        let held = |on: bool| {
            let blocks = outcome.truth.iter().filter_map(|l| match l {
                Line::Block(b) if b.why == why && (b.pid == pid) == on => Some(b.leave_ns - b.enter_ns),
                _ => None,
            });
            blocks.count()
        };
        if why != Why::Stream {
            assert!(held(true) >= STEPS && held(false) < STEPS, "{fault}");
        } else if fault == "sync-loop" {
            assert!(held(true) > held(false), "{fault}: after each of eight kernels, against once a step");
        }
    }
}
