//! The target as /proc shows it.
//!
//! All of it is read through one open directory, so that it is always the same process: once that has ended nothing can
//! be read, whoever has its number by then. Memory is that of the program which ran when it was opened.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::Refusal;
use crate::sys;

/// The most that is read of a file of /proc: maps of the 65,530 mappings that a process may have are about 8 MiB.
const PROC_FILE_BYTES: u64 = 64 << 20;

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Open /proc/PID.
    directory: File,
    /// Path of `directory` that works whatever becomes of the number.
    path: String,
    pub(crate) pidfd: OwnedFd,
    memory: File,
}

impl Process {
    pub(crate) fn open(pid: i32) -> Result<Self, Refusal> {
        let gone = |_| Refusal::Gone { pid };
        let directory = File::open(format!("/proc/{pid}")).map_err(gone)?;
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let status = Status::read(&path).map_err(gone)?;
        let tgid = status.number("Tgid").unwrap_or(pid);
        if tgid != pid {
            return Err(Refusal::Thread { pid, process: tgid });
        }
        if pid.unsigned_abs() == std::process::id() {
            return Err(Refusal::SameProcess { pid });
        }
        if !status.has_ended()
            && fs::read_link(format!("{path}/exe"))
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return Err(Refusal::NotAProgram { pid });
        }
        let pidfd = sys::pidfd_open(pid).map_err(gone)?;
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("{path}/mem"))
            .map_err(|error| refused(pid, &path, error))?;
        Ok(Self { pid, directory, path, pidfd, memory })
    }

    /// Takes the target for this injector alone, for as long as the process that asks lives and this value does.
    pub(crate) fn lock(&self) -> Result<(), Refusal> {
        self.directory.try_lock().map_err(|_| Refusal::Busy { pid: self.pid })
    }

    /// Path of a file of its /proc directory.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// A file of its /proc directory.
    pub(crate) fn read(&self, name: &str) -> io::Result<String> {
        read_text(&self.file(name))
    }

    pub(crate) fn is_alive(&self) -> bool {
        Status::read(&self.path).is_ok_and(|status| !status.has_ended())
    }

    pub(crate) fn status(&self) -> io::Result<Status> {
        Status::read(&self.path)
    }

    pub(crate) fn thread_status(&self, tid: i32) -> io::Result<Status> {
        Status::read(&self.file(&format!("task/{tid}")))
    }

    /// Its threads, in the order of /proc.
    pub(crate) fn threads(&self) -> io::Result<Vec<i32>> {
        let entries = fs::read_dir(self.file("task"))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    pub(crate) fn has_thread(&self, tid: i32) -> bool {
        fs::exists(self.file(&format!("task/{tid}"))).unwrap_or(false)
    }

    /// The system call that a thread waits in; `None` while it runs.
    pub(crate) fn waiting(&self, tid: i32) -> io::Result<Option<Waiting>> {
        Ok(Waiting::parse(&self.read(&format!("task/{tid}/syscall"))?))
    }

    pub(crate) fn maps(&self) -> Result<Vec<Mapping>, Refusal> {
        let text = self.read("maps").map_err(|error| self.error("read the mappings", error))?;
        if text.is_empty() {
            return Err(Refusal::Gone { pid: self.pid });
        }
        Ok(text.lines().filter_map(Mapping::parse).collect())
    }

    /// As many bytes as there are at an address.
    pub(crate) fn peek(&self, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.memory.read_at(bytes, address)
    }

    pub(crate) fn peek_word(&self, address: u64) -> io::Result<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// Whether it still runs the program in whose memory this address was: of another's, nothing can be read.
    pub(crate) fn runs_what_has(&self, address: u64) -> bool {
        self.peek(address, &mut [0]).is_ok_and(|read| read == 1)
    }

    /// Writes to the target's memory. Where that is the memory of a file, the target alone sees it.
    pub(crate) fn poke(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, address)
    }

    /// What a failed step means: that the target is gone, if it is.
    pub(crate) fn error(&self, what: &'static str, error: io::Error) -> Refusal {
        // Of a program that another one has replaced, memory can be neither read nor written.
        let replaced = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero);
        if self.is_alive() && !replaced {
            Refusal::System { pid: self.pid, what, error }
        } else {
            Refusal::Gone { pid: self.pid }
        }
    }
}

fn read_text(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(PROC_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Which refusal it is that the target may not be traced.
pub(crate) fn refused(pid: i32, path: &str, error: io::Error) -> Refusal {
    let Ok(status) = Status::read(path) else { return Refusal::Gone { pid } };
    if status.has_ended() || error.raw_os_error() == Some(libc::ESRCH) {
        return Refusal::Gone { pid };
    }
    if let Some(tracer) = status.number("TracerPid").filter(|tracer| *tracer != 0) {
        if is_this_program(tracer) {
            return Refusal::Busy { pid };
        }
        let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
        return Refusal::OtherTracer { pid, tracer, name: name.trim().to_owned() };
    }
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    not_permitted(pid, scope.as_deref(), error)
}

/// Whether the tracer is another injection, which is over in a moment: there is nothing to end.
fn is_this_program(tracer: i32) -> bool {
    let file = |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).ok().map(|file| (file.dev(), file.ino()));
    file("self").is_some_and(|own| file(&tracer.to_string()) == Some(own))
}

/// The kernel refused: by Yama, if that is set to, else for want of privileges.
fn not_permitted(pid: i32, yama: Option<&str>, error: io::Error) -> Refusal {
    match yama.and_then(|scope| scope.trim().parse().ok()) {
        Some(scope) if scope > 0 => Refusal::Yama { pid, scope },
        _ => Refusal::NotPermitted { pid, error },
    }
}

/// /proc/PID/status.
#[derive(Debug)]
pub(crate) struct Status(String);

impl Status {
    fn read(directory: &str) -> io::Result<Self> {
        read_text(&format!("{directory}/status")).map(Self)
    }

    /// The text after a name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.field(name)?.parse().ok()
    }

    /// A set of signals.
    pub(crate) fn signals(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }

    /// The number that the process or thread has in its own PID namespace.
    pub(crate) fn innermost(&self, name: &str) -> Option<u32> {
        self.field(name)?.split_ascii_whitespace().next_back()?.parse().ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.field("State").is_none_or(|state| state.starts_with(['Z', 'X']))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.field("State").is_some_and(|state| state.starts_with('T'))
    }
}

/// A system call that a thread waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
    pub(crate) stack: u64,
    pub(crate) instruction: u64,
}

impl Waiting {
    /// A line of /proc/PID/task/TID/syscall: "running", or a number (-1: no system call) and eight hexadecimal ones.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut hexadecimal = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = hexadecimal()?;
        }
        Some(Self { number, arguments, stack: hexadecimal()?, instruction: hexadecimal()? })
    }
}

/// A line of /proc/PID/maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) executable: bool,
    pub(crate) private: bool,
    pub(crate) offset: u64,
    pub(crate) device: String,
    pub(crate) inode: u64,
    pub(crate) path: String,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let device = fields.next()?.to_owned();
        let inode = fields.next()?.parse().ok()?;
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            executable: permissions.contains('x'),
            private: permissions.ends_with('p'),
            offset,
            device,
            inode,
            path: fields.next().unwrap_or_default().trim_start().to_owned(),
        })
    }

    /// The last part of the path, of a file that may have been deleted since.
    pub(crate) fn name(&self) -> &str {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        path.rsplit('/').next().unwrap_or(path)
    }

    pub(crate) fn is_of_a_file(&self) -> bool {
        self.path.starts_with('/')
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Both are of the same file.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        self.inode == other.inode && self.device == other.device && self.path == other.path
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Mapping, Waiting, not_permitted};
    use crate::Refusal;

    #[test]
    fn yama_is_named_only_where_it_is_in_the_way() {
        let denied = || io::Error::from_raw_os_error(libc::EPERM);
        assert!(matches!(not_permitted(1, Some("1\n"), denied()), Refusal::Yama { scope: 1, .. }));
        assert!(not_permitted(1, Some("3\n"), denied()).to_string().contains("started again"));
        assert!(matches!(not_permitted(1, Some("0\n"), denied()), Refusal::NotPermitted { .. }));
        assert!(matches!(not_permitted(1, None, denied()), Refusal::NotPermitted { .. }));
    }

    #[test]
    fn mappings_with_spaces_and_deleted_files_are_read() {
        let line = "7f00-7f10 r-xp 00028000 fe:01 77                         /a b/libc.so.6 (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset, mapping.inode),
            (0x7f00, 0x7f10, 0x28000, 77)
        );
        assert!(mapping.executable && mapping.private);
        assert_eq!(mapping.name(), "libc.so.6");
        assert_eq!(Mapping::parse("7f00-7f10 rw-s 00000000 00:01 0 ").unwrap().path, "");
        assert!(Mapping::parse("7f00 r-xp").is_none());
    }

    #[test]
    fn a_running_thread_waits_in_nothing() {
        assert_eq!(Waiting::parse("running"), None);
        assert_eq!(Waiting::parse("-1 0x7ffd 0x7f52"), None);
        let waiting = Waiting::parse("230 0x0 0x0 0x7ffd 0x7ffe 0x0 0x0 0x10 0x20").unwrap();
        assert_eq!((waiting.number, waiting.arguments[2], waiting.stack), (230, 0x7ffd, 0x10));
    }
}
