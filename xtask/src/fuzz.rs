//! `cargo xtask fuzz`: libFuzzer on everything that reads foreign bytes.
//!
//! The sanitizers need unstable compiler flags; RUSTC_BOOTSTRAP lets the project's own stable compiler accept them, so
//! that what is fuzzed is what is shipped.

use std::fmt::Write as _;

use anyhow::{Context, bail};

use crate::shell::{command, find, output, root, spelled};

/// Target and the longest input that it is given, bytes: enough for every branch, small enough to be fast.
const TARGETS: &[(&str, u32)] = &[
    ("kineto", 32_768),
    ("nsys", 65_536),
    ("stragglers", 32_768),
    ("flight_recorder", 32_768),
    ("capture", 65_536),
    ("wire", 16_384),
    ("ring", 32_768),
];

/// Where outcomes are kept.
const REPORT: &str = "docs/fuzz.md";

struct Outcome {
    target: &'static str,
    seconds: u64,
    executions: u64,
    edges: u64,
    failed: bool,
}

/// Runs one target or all.
pub(crate) fn fuzz(only: Option<&str>, minutes: u32, report: bool) -> anyhow::Result<()> {
    let targets: Vec<_> = TARGETS.iter().filter(|(name, _)| only.is_none_or(|o| o == *name)).collect();
    if targets.is_empty() {
        let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        bail!("no such target; there are {}", known.join(", "));
    }
    let outcomes: Vec<Outcome> =
        targets.iter().map(|(name, longest)| one(name, *longest, minutes)).collect::<anyhow::Result<_>>()?;
    println!();
    for o in &outcomes {
        let verdict = if o.failed { "FAILED: see tests/fuzz/artifacts" } else { "nothing found" };
        println!(
            "{:8} {:>6} s  {:>10} runs  {:>6} edges  {verdict}",
            o.target, o.seconds, o.executions, o.edges
        );
    }
    if report {
        append_report(&outcomes)?;
    }
    if outcomes.iter().any(|o| o.failed) { bail!("fuzzing found something") } else { Ok(()) }
}

fn one(target: &'static str, longest: u32, minutes: u32) -> anyhow::Result<Outcome> {
    let program = find("cargo-fuzz").context("cargo-fuzz is not installed; run cargo xtask setup")?;
    let seconds = u64::from(minutes) * 60;
    // New inputs go to a folder that git ignores; the committed corpus is only read.
    let found = root().join("target/fuzz-corpus").join(target);
    std::fs::create_dir_all(&found)?;
    let mut command = command(program);
    command
        .args(["run", "--fuzz-dir", "tests/fuzz", target])
        .arg(&found)
        .arg(root().join("tests/fuzz/corpus").join(target))
        .arg("--")
        .args([format!("-max_total_time={seconds}"), format!("-max_len={longest}")])
        // An importer that needs this much for an input of that size does not bound its memory.
        .args(["-rss_limit_mb=1536", "-timeout=20", "-print_final_stats=1"])
        .env("RUSTC_BOOTSTRAP", "1");
    eprintln!("$ {}", spelled(&command));
    let output =
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::inherit()).output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    // libFuzzer's last status line and its statistics.
    let tail: Vec<&str> = log.lines().rev().take(60).collect();
    // Whole inputs and dictionaries are of no use on a terminal; a failing input is in a file.
    for line in tail.iter().rev().filter(|l| l.len() < 300 && !l.contains("# Uses:")) {
        eprintln!("{line}");
    }
    let after = |line: &str, key: &str| line.split_once(key).and_then(|(_, rest)| first_number(rest));
    let executions = tail.iter().find_map(|l| after(l, "stat::number_of_executed_units:"));
    let edges = log.lines().rev().find_map(|l| after(l, " cov: "));
    let failed = !output.status.success();
    if failed && executions.is_none() && edges.is_none() {
        bail!("cargo fuzz did not get to run {target}");
    }
    Ok(Outcome {
        target,
        // Without the time to build, which libFuzzer does not count.
        seconds: tail.iter().find_map(|l| after(l, " runs in ")).unwrap_or(0),
        executions: executions.unwrap_or(0),
        edges: edges.unwrap_or(0),
        failed,
    })
}

fn first_number(text: &str) -> Option<u64> {
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn append_report(outcomes: &[Outcome]) -> anyhow::Result<()> {
    let path = root().join(REPORT);
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|_| {
        "# Fuzzing\n\nOutcomes of `cargo xtask fuzz --report`, the newest last.\n".to_owned()
    });
    let line = |command: &mut std::process::Command| output(command).unwrap_or_default().trim().to_owned();
    let date = line(command("date").args(["-u", "+%Y-%m-%d"]));
    let commit = line(command("git").args(["describe", "--always", "--dirty"]));
    let rustc = line(command("rustc").arg("--version"));
    write!(
        text,
        "\n## {date}, {commit}, {rustc}\n\n| Target | Time | Runs | Edges | Outcome |\n|---|---|---|---|---|\n"
    )?;
    for o in outcomes {
        let verdict = if o.failed { "a failure" } else { "nothing found" };
        writeln!(text, "| {} | {} s | {} | {} | {verdict} |", o.target, o.seconds, o.executions, o.edges)?;
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {REPORT}"))
}
