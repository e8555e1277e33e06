//! One process, as /proc describes it, and the parsers of the files that do.
//!
//! Parsers take bytes and never panic: names in them are chosen by whoever runs the process.

use crate::cgroup::Placement;
use crate::environment::Environment;
use crate::gpus::Gpus;

/// A process across time: the kernel may give a pid to another process, but not with the same start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Its pid in our pid namespace.
    pub pid: u32,
    /// When it started, in ticks of 10 ms since boot (field 22 of /proc/PID/stat).
    pub start_ticks: u64,
}

/// Whether a process that was seen is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is.
    Running,
    /// It ended and waits for its parent.
    Zombie,
    /// It is gone.
    Exited,
    /// Its pid belongs to another process now.
    Reused,
}

/// State letter of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// R
    Running,
    /// S or I
    Sleeping,
    /// D: waits in the kernel and cannot be interrupted.
    Uninterruptible,
    /// T or t: stopped by a signal or by a tracer.
    Stopped,
    /// Z or X
    Zombie,
    /// A letter of another kernel.
    Other,
}

impl State {
    pub(crate) fn from_letter(letter: u8) -> Self {
        match letter {
            b'R' => Self::Running,
            b'S' | b'I' => Self::Sleeping,
            b'D' => Self::Uninterruptible,
            b'T' | b't' => Self::Stopped,
            b'Z' | b'X' | b'x' => Self::Zombie,
            _ => Self::Other,
        }
    }

    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Stopped => "stopped",
            Self::Zombie => "zombie",
            Self::Other => "other",
        }
    }
}

/// Inode numbers that name namespaces; none where the links could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Pid namespace.
    pub pid: Option<u64>,
    /// Mount namespace.
    pub mnt: Option<u64>,
    /// Network namespace.
    pub net: Option<u64>,
}

/// A file of a process that may be closed to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readable<T> {
    /// Read.
    Yes(T),
    /// The kernel refused.
    Denied,
}

impl<T> Readable<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Yes(value) => Some(value),
            Self::Denied => None,
        }
    }
}

/// One process (a thread group).
#[derive(Clone, Debug)]
pub struct Process {
    /// Who it is.
    pub id: ProcessId,
    /// Parent; 0 for those without one in our namespace.
    pub ppid: u32,
    /// Real user id.
    pub uid: Option<u32>,
    /// The kernel's short name of it.
    pub comm: String,
    /// Its arguments, at most 4 KiB of them. Empty for kernel threads and zombies.
    pub cmdline: Vec<String>,
    /// Where its executable lies in its own mount namespace; none where that could not be read.
    pub exe: Option<String>,
    /// What it was doing.
    pub state: State,
    /// How many threads it had.
    pub threads: u32,
    /// A thread of the kernel, which has no memory of its own.
    pub kernel_thread: bool,
    /// It hangs in the kernel: of what the kernel shows under the lock of its memory nothing was read ([`crate::Door`]).
    pub hangs: bool,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Its pid in each pid namespace from ours inward.
    pub ns_pids: Vec<u32>,
    pub(crate) placement: Placement,
    pub(crate) environment: Readable<Environment>,
    pub(crate) gpus: Gpus,
}

impl Process {
    /// Whether the kernel let us read its environment. Where not, it belongs to another user, and cannot be recorded.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.environment.get().is_some()
    }

    /// The container its cgroup names, if any.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        self.placement.container.as_ref().map(|(_, id)| id.as_str())
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get().and_then(|e| e.get(name))
    }

    /// What a user would call it: the first argument's file name, else the kernel's name.
    pub(crate) fn program(&self) -> &str {
        self.cmdline.first().map(|a| base_name(a)).filter(|name| !name.is_empty()).unwrap_or(&self.comm)
    }

    /// Whether it runs CPython, as far as its names say.
    pub(crate) fn is_python(&self) -> bool {
        let named = |name: &str| name.starts_with("python") || name.starts_with("pypy");
        self.exe.as_deref().is_some_and(|exe| named(base_name(exe))) || named(self.program())
    }
}

/// What follows the last `/`.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Fields of /proc/PID/stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    pub(crate) state: State,
    pub(crate) ppid: u32,
    pub(crate) threads: u32,
    pub(crate) start_ticks: u64,
    pub(crate) kernel_thread: bool,
}

/// The flag of the kernel's own threads, from include/linux/sched.h; part of the stat format, so it does not change.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Reads `PID (comm) state ppid …`. The name may hold anything, also `) R 1`: the last parenthesis ends it.
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let comm = bytes.get(open + 1..close)?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    Some(Stat {
        comm: String::from_utf8_lossy(comm).into_owned(),
        state: State::from_letter(*fields.first()?.as_bytes().first()?),
        ppid: u32::try_from(number(1)?).ok()?,
        kernel_thread: number(6)? & PF_KTHREAD != 0,
        threads: u32::try_from(number(17)?).unwrap_or(u32::MAX),
        start_ticks: number(19)?,
    })
}

/// Fields of /proc/PID/status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) thread_group: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) ns_pids: Vec<u32>,
}

/// Reads the lines we need. The kernel escapes newlines in `Name:`, so a line that begins with a key is the kernel's.
pub(crate) fn parse_status(bytes: &[u8]) -> Status {
    let mut status = Status::default();
    for line in bytes.split(|&b| b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let Some((key, value)) = line.split_once(':') else { continue };
        let mut numbers = value.split_ascii_whitespace().filter_map(|n| n.parse::<u32>().ok());
        match key {
            "Tgid" => status.thread_group = numbers.next(),
            "Uid" => status.uid = numbers.next(),
            "NSpid" => status.ns_pids = numbers.collect(),
            _ => {}
        }
    }
    status
}

/// Arguments are separated by NUL. Programs that rewrite theirs (`slurmstepd: [4242.0]`) leave one string.
pub(crate) fn parse_cmdline(bytes: &[u8]) -> Vec<String> {
    // Everything is an argument up to the trailing NULs, also an empty string between two others.
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
    let Some(bytes) = bytes.get(..end).filter(|b| !b.is_empty()) else { return Vec::new() };
    bytes.split(|&b| b == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// Reads the inode out of `net:[4026531840]`.
pub(crate) fn parse_namespace(link: &str) -> Option<u64> {
    link.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{State, parse_cmdline, parse_namespace, parse_stat, parse_status};

    #[test]
    fn a_name_with_parentheses_and_newlines_does_not_shift_the_fields() {
        let text = b"42 (a) R 1\n(b) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 12 0 98765 1 2 3\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat.comm, "a) R 1\n(b");
        assert_eq!((stat.state, stat.ppid, stat.threads, stat.start_ticks), (State::Sleeping, 7, 12, 98765));
        assert!(!stat.kernel_thread);
    }

    #[test]
    fn a_cut_stat_is_nothing() {
        let text = b"42 (a) S 7 42 42 0 -1 69238880 1 2 3 4 5 6 7 8 20 0 12 0 98765 1 2 3\n";
        assert!(parse_stat(text).unwrap().kernel_thread);
        let longest = text.iter().rposition(|&b| b == b'5').unwrap();
        for cut in 0..longest - 4 {
            assert_eq!(parse_stat(&text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn status_lines_of_the_kernel_are_told_from_names() {
        let status = parse_status(b"Name:\tx\\nUid:\t9\nTgid:\t42\nUid:\t1000\t0\t0\t0\nNSpid:\t42\t7\n");
        assert_eq!((status.thread_group, status.uid), (Some(42), Some(1000)));
        assert_eq!(status.ns_pids, [42, 7]);
    }

    #[test]
    fn arguments_keep_empty_ones_and_lose_the_padding() {
        assert_eq!(parse_cmdline(b"python\0-c\0\0x\xff\0\0\0"), ["python", "-c", "", "x\u{fffd}"]);
        assert!(parse_cmdline(b"").is_empty());
        assert!(parse_cmdline(b"\0\0").is_empty());
    }

    #[test]
    fn namespace_links_are_numbers_in_brackets() {
        assert_eq!(parse_namespace("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(parse_namespace("/etc/passwd"), None);
    }
}
