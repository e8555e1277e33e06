//! `cargo xtask test`: everything that CI checks, one after the other, all of them even where one fails.
//!
//! A check that cannot run says why and is shown as skipped; only what is known to be absent by design (no network, no
//! ground truth) may be skipped. A missing tool is a failure.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::shell::{cargo, command, find, mpi_venv, root, run, target_dir, venv};
use crate::{codegen, delegate, setup};

enum Outcome {
    Passed,
    Skipped(String),
}

type Check = (&'static str, fn() -> anyhow::Result<Outcome>);

/// Cheap checks first: they tell most mistakes within seconds.
const CHECKS: &[Check] = &[
    ("format", format),
    ("generated code", generated_code),
    ("spelling", spelling),
    ("licences, bans, sources", licences),
    ("security advisories", advisories),
    ("lints", lints),
    ("tests", tests),
    ("agent: format, lints, tests", agent),
    ("documentation tests", doc_tests),
    ("fuzz targets", fuzz_targets),
    ("scoreboard", scoreboard),
];

/// Runs all checks and prints a summary; an error where one failed.
pub(crate) fn test() -> anyhow::Result<()> {
    let mut failed = 0;
    let mut lines = Vec::new();
    if let Err(error) = setup::for_test() {
        failed += 1;
        lines.push(format!("FAILED   setup: {error:#}"));
    }
    for (name, check) in CHECKS {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = check();
        let took = seconds(start.elapsed());
        lines.push(match outcome {
            Ok(Outcome::Passed) => format!("passed   {name} ({took})"),
            Ok(Outcome::Skipped(why)) => format!("skipped  {name}: {why}"),
            Err(error) => {
                failed += 1;
                eprintln!("{error:#}");
                format!("FAILED   {name} ({took}): {error:#}")
            }
        });
    }
    println!("\n{}\n", lines.join("\n"));
    let skipped = lines.iter().filter(|line| line.starts_with("skipped")).count();
    let passed = lines.iter().filter(|line| line.starts_with("passed")).count();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        anyhow::bail!("{failed} checks failed");
    }
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn passed(command: &mut Command) -> anyhow::Result<Outcome> {
    run(command).map(|()| Outcome::Passed)
}

fn format() -> anyhow::Result<Outcome> {
    passed(cargo().args(["fmt", "--all", "--check"]))
}

fn generated_code() -> anyhow::Result<Outcome> {
    codegen::check().map(|()| Outcome::Passed)
}

fn spelling() -> anyhow::Result<Outcome> {
    let typos = find("typos").context("typos is not installed; run cargo xtask setup")?;
    passed(&mut command(typos))
}

fn deny() -> anyhow::Result<Command> {
    let deny = find("cargo-deny").context("cargo-deny is not installed; run cargo xtask setup")?;
    let mut command = command(deny);
    command.args(["--workspace", "check"]);
    Ok(command)
}

fn licences() -> anyhow::Result<Outcome> {
    passed(deny()?.args(["licenses", "bans", "sources"]))
}

/// Advisories live in a Git repository; without a way to it nothing can be said.
fn advisories() -> anyhow::Result<Outcome> {
    let reachable = std::net::ToSocketAddrs::to_socket_addrs("github.com:443").is_ok_and(|mut addresses| {
        addresses.any(|a| std::net::TcpStream::connect_timeout(&a, Duration::from_secs(5)).is_ok())
    });
    if !reachable {
        return Ok(Outcome::Skipped(
            "github.com, which has the list, cannot be reached from here".to_owned(),
        ));
    }
    passed(deny()?.arg("advisories"))
}

fn lints() -> anyhow::Result<Outcome> {
    passed(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

fn tests() -> anyhow::Result<Outcome> {
    let mut command = cargo();
    if find("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        command.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    }
    // The program's own integration tests make cargo build it, here, before any test runs.
    command.env("STALLSCOPE", target_dir().join("debug/stallscope"));
    // What setup has installed: an MPI, and py-spy to compare Python stacks with.
    command.env("STALLSCOPE_MPI_VENV", mpi_venv()).env("STALLSCOPE_PYSPY", venv().join("bin/py-spy"));
    // setup has installed the parsers of the exports: a test that finds none of them has to fail.
    passed(command.env("STALLSCOPE_REQUIRE_PARSERS", "1"))
}

/// The agent is outside of the workspace: it is built without the standard library, by a crate that embeds it.
fn agent() -> anyhow::Result<Outcome> {
    let manifest = root().join("cupti/agent/Cargo.toml");
    let of_agent = |arguments: &[&str]| {
        let mut command = cargo();
        let (task, rest) = arguments.split_first().context("a task")?;
        command.arg(task).arg("--manifest-path").arg(&manifest).args(rest);
        run(command.env("CARGO_TARGET_DIR", target_dir().join("agent")))
    };
    of_agent(&["fmt", "--check"])?;
    of_agent(&["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    of_agent(&["test", "--quiet"])?;
    Ok(Outcome::Passed)
}

fn doc_tests() -> anyhow::Result<Outcome> {
    passed(cargo().args(["test", "--workspace", "--doc"]))
}

/// The fuzz crate is outside of the workspace; that its targets compile is checked where libFuzzer can be built.
fn fuzz_targets() -> anyhow::Result<Outcome> {
    if find("c++").is_none() {
        return Ok(Outcome::Skipped("no C++ compiler for libFuzzer".to_owned()));
    }
    passed(
        cargo()
            .args(["check", "--quiet", "--manifest-path", "tests/fuzz/Cargo.toml"])
            .arg("--target-dir")
            .arg(target_dir()),
    )
}

fn scoreboard() -> anyhow::Result<Outcome> {
    if !root().join("../shared/ground-truth").is_dir() {
        return Ok(Outcome::Skipped("../shared/ground-truth is not there".to_owned()));
    }
    delegate::require_scoreboard().map(|()| Outcome::Passed)
}
