//! Reads below a /proc, real or made up for a test.
//!
//! A process is read through one descriptor of its folder, which stays bound to that process: once it has ended, reads
//! fail, whoever has its pid by then. Every read has a cap.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

/// A stat line is about 350 bytes; the name in it has at most 64.
const STAT_BYTES: u64 = 4 << 10;
/// The list of groups is what can be long in it: 65,536 of ten digits.
const STATUS_BYTES: u64 = 1 << 20;
/// A cgroup path is at most a page a hierarchy.
const CGROUP_BYTES: u64 = 64 << 10;
/// Enough for a launcher's options and a script's name. The whole may be megabytes.
const CMDLINE_BYTES: u64 = 4 << 10;
/// Three quarters of the kernel's `_STK_LIM`: more than arguments and environment together can be at exec.
const ENVIRON_BYTES: u64 = 6 << 20;
/// 65,530 mappings (the default of vm.max_map_count) of 250 bytes.
pub(crate) const MAPS_BYTES: u64 = 16 << 20;
/// Names that a runtime or the kubelet writes.
const SMALL_FILE_BYTES: u64 = 4 << 10;
/// Descriptors looked at for GPUs. CUDA opens its own early, so they have low numbers.
const DESCRIPTORS: usize = 4 << 10;

/// Why something of a process was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The process ended, or the file is not there.
    Gone,
    /// The kernel refused.
    Denied,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Denied } else { Self::Gone }
    }
}

impl From<rustix::io::Errno> for Unread {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// A /proc.
#[derive(Clone, Debug)]
pub(crate) struct ProcFs {
    root: PathBuf,
}

impl ProcFs {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Pids of all processes that we may see, in no order.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            // A folder that cannot be listed to the end: what was listed is better than nothing.
            let Ok(entry) = entry else { break };
            pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(pids)
    }

    pub(crate) fn process(&self, pid: u32) -> Result<ProcessDir, Unread> {
        let path = self.root.join(pid.to_string());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(ProcessDir { folder: rustix::fs::open(&path, flags, Mode::empty())? })
    }

    /// Our own pid, as this /proc numbers processes.
    pub(crate) fn own_pid(&self) -> Option<u32> {
        std::fs::read_link(self.root.join("self")).ok()?.to_str()?.parse().ok()
    }

    /// Time since boot in ms.
    pub(crate) fn uptime_ms(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.root.join("uptime")).ok()?;
        let (seconds, rest) = text.split_once('.')?;
        let hundredths: u64 = rest.get(..2)?.parse().ok()?;
        seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(hundredths * 10)
    }

    /// Whether the kernel has a driver whose devices we would count as GPUs; true where that cannot be told.
    pub(crate) fn has_gpu_drivers(&self) -> bool {
        let Ok(devices) = std::fs::read_to_string(self.root.join("devices")) else { return true };
        devices.lines().any(|line| {
            let name = line.trim_start().split_ascii_whitespace().nth(1).unwrap_or("");
            name.starts_with("nvidia") || name == "kfd"
        })
    }
}

/// The folder of one process.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    folder: OwnedFd,
}

impl ProcessDir {
    pub(crate) fn stat(&self) -> Result<Vec<u8>, Unread> {
        self.read("stat", STAT_BYTES)
    }

    pub(crate) fn status(&self) -> Result<Vec<u8>, Unread> {
        self.read("status", STATUS_BYTES)
    }

    pub(crate) fn cgroup(&self) -> Result<Vec<u8>, Unread> {
        self.read("cgroup", CGROUP_BYTES)
    }

    pub(crate) fn cmdline(&self) -> Result<Vec<u8>, Unread> {
        self.read("cmdline", CMDLINE_BYTES)
    }

    pub(crate) fn environ(&self) -> Result<Vec<u8>, Unread> {
        self.read("environ", ENVIRON_BYTES)
    }

    /// The maps file, to be read in pieces.
    pub(crate) fn maps(&self) -> Result<impl Read + use<>, Unread> {
        Ok(self.open("maps")?.take(MAPS_BYTES))
    }

    fn open(&self, name: &str) -> Result<std::fs::File, Unread> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?.into())
    }

    fn read(&self, name: &str, cap: u64) -> Result<Vec<u8>, Unread> {
        let mut bytes = Vec::new();
        self.open(name)?.take(cap).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The target of a link such as `exe` or `ns/net`.
    pub(crate) fn link(&self, name: &str) -> Result<String, Unread> {
        let target = rustix::fs::readlinkat(&self.folder, name, Vec::new())?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// Calls `each` with what the process's descriptors point at.
    pub(crate) fn descriptors(&self, mut each: impl FnMut(&str)) -> Result<(), Unread> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let folder = rustix::fs::openat(&self.folder, "fd", flags, Mode::empty())?;
        let mut buffer = Vec::new();
        for entry in Dir::read_from(&folder)?.take(DESCRIPTORS) {
            let Ok(entry) = entry else { break };
            if let Ok(target) = rustix::fs::readlinkat(&folder, entry.file_name(), buffer) {
                each(&target.to_string_lossy());
                buffer = target.into_bytes();
            } else {
                buffer = Vec::new();
            }
        }
        Ok(())
    }

    /// A small text file as the process sees it, for instance what the kubelet mounts into a container.
    ///
    /// The tree belongs to the process, so the path is resolved beneath its root, links and all, and only a regular file
    /// is opened: opening a device or a pipe would already do something.
    pub(crate) fn small_file(&self, path: &str) -> Option<String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&self.folder, "root", flags, Mode::empty()).ok()?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found =
            rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
        let kind = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH).ok()?;
        if FileType::from_raw_mode(kind.st_mode) != FileType::RegularFile {
            return None;
        }
        // Our own descriptor, opened again for reading: the path is not walked a second time.
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
        read_text(Path::new(&own), SMALL_FILE_BYTES)
    }
}

/// A file of at most `cap` bytes of UTF-8; none where there is no such file.
pub(crate) fn read_text(path: &Path, cap: u64) -> Option<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(cap + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > cap {
        return None;
    }
    String::from_utf8(bytes).ok()
}
