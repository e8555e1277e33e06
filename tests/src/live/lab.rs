//! What tests with real kernel probes share: whether they can run here, the program under test, its JSON.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::stallscope;

/// Why tests with kernel probes cannot run here, if so. A test prints it and returns.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
    if !root {
        return Some("not root");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF");
    }
    None
}

/// Runs the program under test.
///
/// # Errors
/// Where it cannot be started.
pub fn run(arguments: &[&str]) -> anyhow::Result<Output> {
    Command::new(stallscope()?).args(arguments).output().context("cannot start stallscope")
}

/// Runs the program under test, which has to succeed, and reads the JSON that it prints.
///
/// # Errors
/// Where it fails or prints something else.
pub fn json(arguments: &[&str]) -> anyhow::Result<Value> {
    let output = run(arguments)?;
    if !output.status.success() {
        bail!(
            "stallscope {}: {}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Starts the program under test and lets it run. Dropping it kills it.
///
/// # Errors
/// Where it cannot be started.
pub fn start(arguments: &[&str]) -> anyhow::Result<Running> {
    let child = Command::new(stallscope()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Ok(Running(child.context("cannot start stallscope")?))
}

/// A process that does not outlive its test.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds.
///
/// # Errors
/// Where it does not within a minute.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !holds() {
        if begin.elapsed() > Duration::from_secs(60) {
            bail!("waited a minute for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The leaves of a device of a report, which have to sum to its wall time.
///
/// # Errors
/// Where they do not.
pub fn leaves(device: &Value, ledger: &str) -> anyhow::Result<std::collections::BTreeMap<String, u64>> {
    let map = device[ledger].as_object().with_context(|| format!("no {ledger} in {device}"))?;
    let leaves: std::collections::BTreeMap<String, u64> =
        map.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap_or(0))).collect();
    let (sum, wall) = (leaves.values().sum::<u64>(), device["wall_ns"].as_u64().unwrap_or(0));
    if sum != wall {
        bail!("the {ledger} leaves of {} sum to {sum} instead of {wall}", device["id"]);
    }
    Ok(leaves)
}
