//! Waits of real threads that another thread ended, by ways that are easily missed: its exit, a packet to itself, the CPU
//! that it held. Without root each test says so and passes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::Value;
use stallscope_tests::live::job::programs;
use stallscope_tests::live::lab::{Running, json, leaves, obstacle};

fn start(mode: &str) -> anyhow::Result<Running> {
    let mut command = Command::new("python3");
    command.arg(programs().join("blame.py")).arg(mode).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(command.spawn()?);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().context("its output")?).read_line(&mut line)?;
    Ok(running)
}

/// The one device of a recording of a process.
fn recorded(process: &Running, probes: &[&str]) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("a.stall");
    let (pid, to) = (process.0.id().to_string(), capture.display().to_string());
    let arguments = ["record", "--pid", &pid, "-d", "3s", "-o", &to, "--no-gpu"];
    json(&[&arguments, probes, &["--json"]].concat())?;
    let mut report = json(&["report", &to, "--json"])?;
    Ok(report["devices"][0].take())
}

/// Root time that somebody ran or wanted to, in parts of the direct leaf `of`.
fn charged(device: &Value, of: &[&str]) -> anyhow::Result<f64> {
    let (direct, root) = (leaves(device, "direct")?, leaves(device, "root")?);
    let sum = |all: &std::collections::BTreeMap<String, u64>, names: &[&str]| {
        names.iter().map(|&name| all.get(name).copied().unwrap_or(0)).sum::<u64>()
    };
    let ran = ["compute_ns", "run_queue_ns"];
    let more = sum(&root, &ran).saturating_sub(sum(&direct, &ran));
    let waited = sum(&direct, of);
    anyhow::ensure!(waited > 1_000_000_000, "it waits: {direct:?}");
    Ok(more as f64 / waited as f64)
}

#[test]
fn the_wait_for_a_child_is_charged_to_what_the_child_did() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let device = recorded(&start("child")?, &[])?;
    // A child that was there before, and the time in which it is made, are not.
    let share = charged(&device, &["syscall_ns"])?;
    assert!(share > 0.6, "{share} of the wait: {:#}", device["root"]);
    Ok(())
}

#[test]
fn the_wait_for_a_peer_on_this_host_is_charged_to_the_peer() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let device = recorded(&start("loopback")?, &[])?;
    let share = charged(&device, &["ipc_ns"])?;
    assert!(share > 0.9, "{share} of the wait: {:#}", device["root"]);
    let network = leaves(&device, "direct")?.get("network_ns").copied().unwrap_or(0);
    let wall = device["wall_ns"].as_u64().unwrap_or(0);
    assert!(network * 10 < wall, "{network} of {wall} ns are no network");
    Ok(())
}

#[test]
fn who_ran_instead_did_run() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    // Two that never end on one CPU, and whoever else wants it.
    let other = start("queue")?;
    let waiting = start("queue")?;
    let before = ran_ns();
    let device = recorded(&waiting, &["--probes", "sched"])?;
    let after = ran_ns();
    let queue = device["run_queue"].as_array().context("the run queue")?;
    let (mut total, mut named, mut rival) = (0, 0, 0);
    for row in queue {
        let ns = row["ns"].as_u64().context("a time")?;
        total += ns;
        let Some(tid) = row["ran_instead"]["tid"].as_u64() else { continue };
        named += ns;
        if tid == u64::from(other.0.id()) {
            rival = ns;
        }
        // Of one that is gone it is no longer known.
        let Some(until) = after.get(&tid) else { continue };
        let ran = until - before.get(&tid).copied().unwrap_or(0);
        assert!(ns <= 2 * ran, "tid {tid} is said to have run for {ns} ns and did so for {ran}");
    }
    assert!(
        total > 500_000_000 && named > 0 && rival > 0,
        "{total} ns, {named} of somebody, {rival} of the rival"
    );
    Ok(())
}

/// How long each thread of the host has run.
fn ran_ns() -> HashMap<u64, u64> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let processes = entries(Path::new("/proc")).map(|entry| entry.path().join("task"));
    let threads = processes.flat_map(|tasks| entries(&tasks).collect::<Vec<_>>());
    let number = |text: &str| text.split(' ').next()?.parse::<u64>().ok();
    threads
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((number(thread.file_name().to_str()?)?, number(&text)?))
        })
        .collect()
}
