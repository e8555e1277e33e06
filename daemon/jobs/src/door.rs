//! Whether a process can be looked at without being held up by it.
//!
//! The kernel shows a process's arguments, environment, mappings and memory under the lock of that memory. A thread may
//! hang in the kernel and hold it: one that unmaps a page which another is writing to, on a file system that does not
//! answer. Whoever reads then hangs as well, and not even a signal ends it but SIGKILL. So before anything of a process
//! is read, one short read is made by a thread that may be left behind: it ends when the process answers, or with us.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Threads left behind at most: more processes than this that hang are not knocked at.
const LEFT_BEHIND: usize = 1024;
/// Where many hang, each further one is waited for less long, down to this.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);

/// A thread that reads one file after another, and says when it has.
#[derive(Debug)]
struct Knocker {
    ask: Sender<PathBuf>,
    answer: Receiver<()>,
}

impl Knocker {
    fn start() -> Option<Self> {
        let (ask, asked) = channel::<PathBuf>();
        let (answered, answer) = channel();
        let body = move || {
            for path in asked {
                // Only that the read comes back is of interest: it does at once where the process is gone.
                let mut byte = [0];
                let _ =
                    std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut byte));
                if answered.send(()).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("knocker".to_owned()).spawn(body).ok()?;
        Some(Self { ask, answer })
    }
}

/// Knocks at processes before they are looked at.
#[derive(Debug)]
pub struct Door {
    proc: PathBuf,
    patience: Duration,
    idle: Option<Knocker>,
    /// Who was left behind, by the process that did not answer.
    waiting: HashMap<u32, Knocker>,
}

impl Door {
    /// To the processes of a /proc; one that takes longer than this to answer hangs.
    #[must_use]
    pub fn new(proc: &Path, patience: Duration) -> Self {
        Self { proc: proc.to_owned(), patience, idle: None, waiting: HashMap::new() }
    }

    /// Whether reading what the kernel shows of a process's memory comes back. Costs about 10 µs; once the patience where
    /// it does not.
    pub fn answers(&mut self, pid: u32) -> bool {
        if let Some(knocker) = self.waiting.remove(&pid) {
            if knocker.answer.try_recv().is_err() {
                self.waiting.insert(pid, knocker);
                return false;
            }
            self.idle = Some(knocker);
        }
        if self.waiting.len() >= LEFT_BEHIND {
            return false;
        }
        // Without a thread nobody can be left behind: then it is as if there were no door.
        let Some(knocker) = self.idle.take().or_else(Knocker::start) else { return true };
        let asked = knocker.ask.send(self.proc.join(pid.to_string()).join("cmdline"));
        let many = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).saturating_add(1);
        let patience = (self.patience / many).max(LEAST_PATIENCE);
        if asked.is_ok() && knocker.answer.recv_timeout(patience).is_ok() {
            self.idle = Some(knocker);
            return true;
        }
        self.waiting.insert(pid, knocker);
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::Duration;

    use super::Door;

    /// A pipe without a writer holds up whoever opens it, as a process does that hangs.
    #[test]
    fn who_does_not_answer_is_left_and_heard_when_it_does() {
        let proc = tempfile::tempdir().unwrap();
        for pid in ["1", "2"] {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
        }
        std::fs::write(proc.path().join("1/cmdline"), "init").unwrap();
        let hangs = proc.path().join("2/cmdline");
        assert!(std::process::Command::new("mkfifo").arg(&hangs).status().unwrap().success());
        let mut door = Door::new(proc.path(), Duration::from_millis(50));
        assert!(door.answers(1));
        assert!(!door.answers(2));
        assert!(door.answers(1), "others are heard meanwhile");
        assert!(door.answers(3), "a process that is gone holds nobody up");
        let asked = std::time::Instant::now();
        door.patience = Duration::from_secs(60);
        assert!(!door.answers(2));
        assert!(asked.elapsed() < Duration::from_secs(30), "it is not waited for twice");

        let nonblocking = 0o4000;
        let mut end = std::fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&hangs).unwrap();
        end.write_all(b"job").unwrap();
        // The thread that was left behind has yet to run.
        while !door.answers(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
