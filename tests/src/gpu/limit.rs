//! A command with a time limit. It gets a process group of its own, and when its time is over the whole group is killed:
//! a job that hangs in the driver must not keep the sections after it from running.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a killed process may take to go. One that is stuck in the kernel stays; nobody can end it.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was killed when its time was over.
    OverTime {
        /// False where it could not be ended: it hangs in the kernel.
        gone: bool,
    },
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// Waits until a process has ended, or the time is over.
///
/// # Errors
/// What waiting says.
pub fn wait_within(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Sends a signal to one process.
pub fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid_of(child) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Runs a command with its output in a file, for at most so long. `tick` is called all the while.
///
/// # Errors
/// Where the file cannot be made or the command not be started.
pub fn run(
    mut command: Command,
    output: &Path,
    limit: Duration,
    tick: &mut dyn FnMut(),
) -> io::Result<Ended> {
    let file = File::create(output)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut child = command.spawn()?;
    let begun = Instant::now();
    let status = loop {
        let left = limit.saturating_sub(begun.elapsed());
        let ended = wait_within(&mut child, left.min(Duration::from_millis(200)))?;
        tick();
        if ended.is_some() || left.is_zero() {
            break ended;
        }
    };
    // Also where it ended by itself: what it has started goes with it.
    if let Some(group) = pid_of(&child) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    match status {
        Some(status) => Ok(how(status)),
        None => Ok(Ended::OverTime { gone: wait_within(&mut child, GONE_WITHIN)?.is_some() }),
    }
}

/// What a command prints, if it ends well within its time. `scratch` is a file for that.
#[must_use]
pub fn printed(command: Command, scratch: &Path, limit: Duration) -> Option<String> {
    match run(command, scratch, limit, &mut || {}) {
        Ok(Ended::Code(0)) => {
            std::fs::read(scratch).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{Ended, printed, run};

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_what_it_has_started() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (out, child) = (folder.path().join("out"), folder.path().join("child"));
        // It does not listen to requests, and its child is what really hangs.
        let script = format!("trap '' TERM INT; sleep 1000 & echo $! > {}; wait", child.display());
        let mut ticks = 0;
        let begun = Instant::now();
        let ended = run(shell(&script), &out, Duration::from_millis(600), &mut || ticks += 1)?;
        assert_eq!(ended, Ended::OverTime { gone: true });
        assert!(begun.elapsed() >= Duration::from_millis(600), "it had its time");
        assert!(ticks >= 2);
        let stat = format!("/proc/{}/stat", std::fs::read_to_string(child)?.trim());
        // Whoever inherits it may not have waited for it yet: then it is a zombie.
        for _ in 0..200 {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("its child lives");
    }

    #[test]
    fn how_a_command_ended_is_told() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("out");
        let long = Duration::from_secs(60);
        assert_eq!(run(shell("exit 7"), &out, long, &mut || {})?, Ended::Code(7));
        assert_eq!(run(shell("kill -SEGV $$"), &out, long, &mut || {})?, Ended::Signal(11));
        assert!(run(Command::new("/nonexistent/python3"), &out, long, &mut || {}).is_err());
        assert_eq!(printed(shell("echo a; echo b >&2"), &out, long).as_deref(), Some("a\nb\n"));
        assert_eq!(printed(shell("echo a; exit 1"), &out, long), None);
        Ok(())
    }
}
