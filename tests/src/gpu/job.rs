//! A job to look at: it counts what it does in a page that others read while it runs, and can be asked to end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::limit::wait_within;

/// How long a job may take to begin: loading PyTorch from a cold disk takes most of it.
const BEGIN_WITHIN: Duration = Duration::from_secs(40);
const END_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Words of the page (tests/jobs/gpu_work.c).
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// What the job counts.
    Done = 0,
    /// Bytes of records that a CUPTI in the job itself returned.
    CuptiBytes = 1,
    /// Free bytes of the device.
    FreeBytes = 2,
    /// All bytes of the device.
    TotalBytes = 3,
    /// Duration of cuInit, ns.
    InitNs = 4,
    /// What is asked.
    Asked = 5,
    /// What was asked and is done.
    Answered = 6,
    /// Asks the job to end.
    End = 7,
}

/// What a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belongings {
    /// Resident memory, KiB.
    pub rss_kib: u64,
    /// Open files.
    pub files: u64,
    /// Mappings.
    pub maps: u64,
    /// Threads.
    pub threads: u64,
}

/// A job. Dropping it kills it.
#[derive(Debug)]
pub struct Job {
    child: Child,
    page: File,
    output: PathBuf,
    errors: PathBuf,
    lines_read: usize,
    /// How it was started.
    pub command: String,
}

impl Job {
    /// Starts it and waits until it has counted something.
    ///
    /// # Errors
    /// Where it cannot be started, ends, or does not begin in time.
    pub fn start(command: Command, name: &str, work: &Path, page: PathBuf) -> anyhow::Result<Self> {
        let mut job = Self::launch(command, name, work, page)?;
        job.until(BEGIN_WITHIN, |job| job.count() > 0)?;
        Ok(job)
    }

    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch(mut command: Command, name: &str, work: &Path, page: PathBuf) -> anyhow::Result<Self> {
        let spelled = spelled(&command);
        let (output, errors) = (work.join(format!("{name}.out")), work.join(format!("{name}.err")));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(page)?;
        file.set_len(64)?;
        command.stdin(Stdio::piped()).stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let child = command.spawn().with_context(|| format!("cannot start {spelled}"))?;
        Ok(Self { child, page: file, output, errors, lines_read: 0, command: spelled })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A word of its page.
    #[must_use]
    pub fn word(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        let read = self.page.read_exact_at(&mut bytes, word as u64 * 8);
        if read.is_ok() { u64::from_ne_bytes(bytes) } else { 0 }
    }

    /// Sets a word of its page.
    ///
    /// # Errors
    /// Where the page cannot be written.
    pub fn set(&self, word: Word, value: u64) -> anyhow::Result<()> {
        Ok(self.page.write_all_at(&value.to_ne_bytes(), word as u64 * 8)?)
    }

    /// How much it has done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.word(Word::Done)
    }

    /// Waits until something holds; an error where the job ends before that.
    ///
    /// # Errors
    /// See above, and where the time is over.
    pub fn until(&mut self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.command, self.said());
            }
            ensure!(begun.elapsed() < limit, "{} did not get on in {limit:?}", self.command);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The end of what it wrote to standard error.
    #[must_use]
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.errors).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }

    /// What it wrote to standard output.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks something by its standard input and waits for the line of JSON that answers; without a question for the next.
    ///
    /// # Errors
    /// Where it ends, does not answer in time, or answers that it could not.
    pub fn ask(&mut self, question: &str, limit: Duration) -> anyhow::Result<Value> {
        if !question.is_empty() {
            let input = self.child.stdin.as_mut().context("no standard input")?;
            writeln!(input, "{question}")?;
        }
        let at = self.lines_read;
        // A line counts once it is whole.
        self.until(limit, |job| job.output().matches('\n').count() > at)?;
        self.lines_read += 1;
        let output = self.output();
        let line = output.lines().nth(at).unwrap_or_default();
        let answer: Value = serde_json::from_str(line).with_context(|| format!("it answered {line}"))?;
        ensure!(answer["error"].is_null(), "{question}: {}", answer["error"]);
        Ok(answer)
    }

    /// How much it does a second, several times for so long.
    ///
    /// # Errors
    /// Where it ends.
    pub fn rates(&mut self, windows: usize, each: Duration) -> anyhow::Result<Vec<f64>> {
        let mut rates = Vec::new();
        let (mut count, mut at) = (self.count(), Instant::now());
        for _ in 0..windows {
            std::thread::sleep(each);
            let (now, time) = (self.count(), Instant::now());
            rates.push(now.saturating_sub(count) as f64 / time.duration_since(at).as_secs_f64());
            (count, at) = (now, time);
        }
        ensure!(self.lives(), "{} ended: {}", self.command, self.said());
        Ok(rates)
    }

    /// Whether it runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has.
    #[must_use]
    pub fn belongings(&self) -> Belongings {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let of = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let entries = |name: &str| std::fs::read_dir(proc.join(name)).map_or(0, |all| all.count() as u64);
        let maps = std::fs::read_to_string(proc.join("maps")).unwrap_or_default();
        Belongings {
            rss_kib: of("VmRSS:"),
            files: entries("fd"),
            maps: maps.lines().count() as u64,
            threads: of("Threads:"),
        }
    }

    /// Waits for its end and says with which code; `None` where a signal ended it.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn ended(&mut self, limit: Duration) -> anyhow::Result<Option<i32>> {
        let status = wait_within(&mut self.child, limit)?;
        Ok(status.with_context(|| format!("{} did not end in {limit:?}", self.command))?.code())
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// Where it fails, or does not end in time.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.set(Word::End, 1)?;
        drop(self.child.stdin.take());
        let code = self.ended(END_WITHIN)?;
        ensure!(code == Some(0), "{} ended with {code:?}: {}", self.command, self.said());
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // It may have ended by itself. One that hangs in the kernel is left to it.
        let _ = self.child.kill();
        let _ = wait_within(&mut self.child, END_WITHIN);
    }
}

/// A command as it would be typed beside its files: of paths the last part, because folders differ from run to run.
#[must_use]
pub fn spelled(command: &Command) -> String {
    let cut = |word: &OsStr| {
        let word = word.to_string_lossy();
        let (key, value) = word.split_once('=').map_or(("", &*word), |(key, value)| (key, value));
        let value = if value.starts_with('/') { value.rsplit('/').next().unwrap_or(value) } else { value };
        if key.is_empty() { value.to_owned() } else { format!("{key}={value}") }
    };
    let mut words = vec![cut(command.get_program())];
    words.extend(command.get_args().map(cut));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Job, spelled};

    #[test]
    fn a_command_is_shown_without_the_folders_of_this_run() {
        let mut command = Command::new("/tmp/pack/jobs/gpu_work");
        command.args(["mode=loop", "page=/tmp/out/a.page", "-o", "/tmp/out/x.stall", "a/b"]);
        assert_eq!(spelled(&command), "gpu_work mode=loop page=a.page -o x.stall a/b");
    }

    #[test]
    fn a_job_that_crashes_is_told_with_what_it_said() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", "echo no driver here >&2; kill -SEGV $$"]);
        let begun = Job::start(command, "x", folder.path(), folder.path().join("page"));
        let why = format!("{:#}", begun.expect_err("it crashed"));
        assert!(why.contains("signal: 11") && why.contains("no driver here"), "{why}");
        Ok(())
    }

    #[test]
    fn questions_are_answered_line_by_line_and_errors_are_errors() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        let script = r#"echo '{"ready":1}'; while read -r a; do echo "{\"$a\": 7}"; done"#;
        command.args(["-c", script]);
        let mut job = Job::launch(command, "x", folder.path(), folder.path().join("page"))?;
        let limit = Duration::from_secs(20);
        assert_eq!(job.ask("", limit)?["ready"], 1);
        assert_eq!(job.ask("memory", limit)?["memory"], 7);
        assert!(job.ask("error", limit).is_err());
        assert!(job.ask("", Duration::from_millis(50)).is_err(), "nothing more was asked");
        assert!(job.belongings().threads == 1 && job.belongings().rss_kib > 0);
        job.end()
    }
}
