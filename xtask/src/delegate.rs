//! Tasks whose work is done by the program itself or by executables of the tests crate.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::shell::{cargo, root, run, target_dir};

/// An executable of the tests crate; benchmarks are meaningless without optimisation.
fn tests_crate(bin: &str, release: bool) -> Command {
    let mut cargo = cargo();
    cargo.args(["run", "--quiet", "--package", "stallscope-tests", "--bin", bin]);
    if release {
        cargo.arg("--release");
    }
    cargo.arg("--");
    cargo
}

/// Rows of the scoreboard; with `require`, a row that is not met is an error.
pub(crate) fn scoreboard_command(json: bool, require: bool) -> Command {
    let mut command = tests_crate("scoreboard", !require);
    if json {
        command.arg("--json");
    }
    if require {
        command.arg("--require");
    }
    command
}

/// `cargo xtask scoreboard`.
pub(crate) fn scoreboard(json: bool) -> anyhow::Result<()> {
    run(&mut scoreboard_command(json, false))
}

/// `cargo xtask bench`.
pub(crate) fn bench(json: bool, quick: bool, only: &[String]) -> anyhow::Result<()> {
    let mut command = tests_crate("bench", true);
    if json {
        command.arg("--json");
    }
    if quick {
        command.arg("--quick");
    }
    run(command.args(only))
}

/// `cargo xtask demo`.
pub(crate) fn demo() -> anyhow::Result<()> {
    let folder = target_dir().join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    run(cargo().args(["build", "--quiet", "--release", "--package", "stallscope"]))?;
    let program = target_dir().join("release/stallscope");
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
