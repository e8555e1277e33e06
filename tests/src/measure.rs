//! Runs a program once and says how long it took and how much memory it had.
//!
//! The peak of the resident set comes from the kernel (getrusage of the children), which knows only the largest child of
//! a process: so the measured program is the only child of a helper, which is this executable started again.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// First argument that turns the executable into the helper.
pub const HELPER: &str = "--measure-one-child";

/// What one run of a program cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Elapsed time, s.
    pub wall_s: f64,
    /// CPU time of all threads, s.
    pub cpu_s: f64,
    /// Peak of the resident set, bytes.
    pub peak_bytes: u64,
}

/// Runs a program through the helper.
///
/// # Errors
/// When it cannot be started or fails.
pub fn measure<A: AsRef<OsStr>>(program: &OsStr, args: impl IntoIterator<Item = A>) -> anyhow::Result<Cost> {
    let helper: PathBuf = std::env::current_exe()?;
    let output =
        Command::new(helper).arg(HELPER).arg(program).args(args).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{} failed", program.display());
    serde_json::from_slice(&output.stdout).context("the measuring helper printed no cost")
}

/// The helper's side: to be called first in `main`. Returns whether it was the helper's turn.
///
/// # Errors
/// When the program cannot be started or fails.
pub fn help() -> anyhow::Result<bool> {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|a| a != HELPER) {
        return Ok(false);
    }
    let program = args.next().context("nothing to measure")?;
    let start = Instant::now();
    let status = Command::new(&program).args(args).stdout(Stdio::null()).status()?;
    let wall_s = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{} ended with {status}", program.display());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| {
        // Both parts are small: CPU seconds of one program.
        t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6
    };
    let cost = Cost {
        wall_s,
        cpu_s: seconds(usage.user_time()) + seconds(usage.system_time()),
        peak_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(true)
}
