//! Tasks whose work is done by the program itself or by executables of the tests crate.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::setup;
use crate::shell::{cargo, command, mpi_venv, output, root, run, target_dir};

/// Builds the program and says where it is.
fn program(release: bool) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "stallscope"]);
    if release {
        build.arg("--release");
    }
    run(&mut build)?;
    Ok(target_dir().join(if release { "release/stallscope" } else { "debug/stallscope" }))
}

/// An executable of the tests crate that drives the program.
fn tests_crate(bin: &str, release: bool) -> anyhow::Result<Command> {
    let program = program(release)?;
    let mut cargo = cargo();
    cargo.args(["run", "--quiet", "--package", "stallscope-tests", "--bin", bin]).env("STALLSCOPE", program);
    if release {
        cargo.arg("--release");
    }
    cargo.arg("--");
    Ok(cargo)
}

/// `cargo xtask scoreboard`.
pub(crate) fn scoreboard(json: bool) -> anyhow::Result<()> {
    let mut command = tests_crate("scoreboard", true)?;
    if json {
        command.arg("--json");
    }
    run(&mut command)
}

/// The scoreboard, with a row that is not met as an error; not optimised, because CI has built that already.
pub(crate) fn require_scoreboard() -> anyhow::Result<()> {
    run(tests_crate("scoreboard", false)?.arg("--require"))
}

/// `cargo xtask bench`; without optimisation it would mean nothing.
pub(crate) fn bench(json: bool, quick: bool, only: &[String]) -> anyhow::Result<()> {
    let mut command = tests_crate("bench", true)?;
    if json {
        command.arg("--json");
    }
    if quick {
        command.arg("--quick");
    }
    run(command.args(only))
}

/// `cargo xtask faults`.
pub(crate) fn faults(json: bool, quick: bool, report: bool, only: &[String]) -> anyhow::Result<()> {
    let mut command = tests_crate("faults", false)?;
    for (flag, is_set) in [("--json", json), ("--quick", quick)] {
        if is_set {
            command.arg(flag);
        }
    }
    command.args(only);
    if !report {
        return run(&mut command);
    }
    let date = output(crate::shell::command("date").arg("+%Y-%m-%d")).context("no date")?;
    let table = output(command.args(["--page", date.trim()])).context("the matrix did not run")?;
    let path = root().join("docs/accuracy.md");
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (head, _) = page.split_once(ACCURACY_MARK).context("docs/accuracy.md has lost its mark")?;
    std::fs::write(&path, format!("{head}{ACCURACY_MARK}\n\n{}\n", table.trim_end()))?;
    println!("{}", path.display());
    Ok(())
}

/// What the figures in docs/accuracy.md follow.
const ACCURACY_MARK: &str = "<!-- made by cargo xtask faults --report -->";

/// `cargo xtask demo`: a real job, recorded while it runs. Where that is not possible, the trace in the repository.
pub(crate) fn demo(trace: bool, gpu: bool) -> anyhow::Result<()> {
    setup::for_demo()?;
    if trace {
        return trace_demo();
    }
    if let Some(why) = live_obstacle() {
        println!("the live demonstration needs {why}; here is the one with a trace of a GPU job instead\n");
        return trace_demo();
    }
    let folder = target_dir().join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut command = tests_crate("live_demo", true)?;
    command.arg(&folder).env("STALLSCOPE_MPI_VENV", mpi_venv());
    if gpu {
        command.arg("gpu");
    }
    run(&mut command)
}

/// What the live demonstration lacks here.
fn live_obstacle() -> Option<&'static str> {
    let is_root = output(command("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    if !is_root {
        return Some("root (it attaches kernel probes)");
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("/dev/fuse (for a slow file)");
    }
    if !mpi_venv().join("bin/mpirun").is_file() {
        return Some("an MPI (cargo xtask setup installs it)");
    }
    None
}

/// The trace of a GPU job that the repository ships, imported and explained.
fn trace_demo() -> anyhow::Result<()> {
    let folder = target_dir().join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let program = program(true)?;
    let traces: Vec<PathBuf> = ["rank0.json.gz", "rank1.json.gz"]
        .iter()
        .map(|name| root().join("tests/fixtures/demo").join(name))
        .collect();
    let (capture, graph) = (folder.join("demo.stall"), folder.join("idle.svg"));
    run(Command::new(&program)
        .arg("import")
        .args(&traces)
        .arg("-o")
        .arg(&capture)
        .args(["--label", "job=demo"]))?;
    run(Command::new(&program).arg("report").arg(&capture))?;
    run(Command::new(&program)
        .arg("flamegraph")
        .arg(&capture)
        .args(["--weight", "gpu-idle", "-o"])
        .arg(&graph))?;
    println!("\ncapture                    {}", capture.display());
    println!("what idle GPU time is for  {} (open it in a browser)", graph.display());
    Ok(())
}
