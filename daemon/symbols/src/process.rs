//! What is known of one process: where its code is mapped, and how to reach its files while it lives.
//!
//! What always holds here: a process is its id and the moment it started, so an id that is used again is noticed and
//! never read in the other's place. Ranges that were mapped once are remembered after they are gone, unless something
//! else is mapped there now: stacks are resolved later than they were taken.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, fstat, open, openat};

use crate::limits::Limits;
use crate::maps::{self, MappedFile, Mapping, Place};
use crate::open::{Found, is_same, read_capped};
use crate::perf_map::PerfMap;

/// A process with a million mappings has 100 MB of text; what lies beyond is not seen.
const LONGEST_MAPS_BYTES: u64 = 16 << 20;
const LONGEST_STATUS_BYTES: u64 = 64 << 10;

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It has exited, or another has its id now.
    #[error("process {0} is gone")]
    Gone(u32),
    /// It is there and may not be read.
    #[error("what process {pid} maps cannot be read: {error}")]
    Unreadable {
        /// The process.
        pid: u32,
        /// What the kernel said.
        error: io::Error,
    },
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    started: u64,
    /// Its id in its own namespace, by which its perf map is called.
    own_pid: u32,
    owner: u32,
    mappings: Vec<Mapping>,
    /// Its root, held for a process with code that has no file: its perf map is beneath.
    root: Option<OwnedFd>,
    perf_map: Option<PerfMap>,
    mappings_read: Instant,
    perf_map_read: Option<Instant>,
    /// When it went away, as the owner counts.
    pub(crate) gone: Option<u64>,
}

impl Process {
    /// Looks at a process for the first time.
    pub(crate) fn look(pid: u32, limits: &Limits) -> Result<Self, ProcessError> {
        let directory = directory(pid).map_err(|error| failed(pid, error))?;
        let started = start_time(&directory).map_err(|error| failed(pid, error))?;
        let status =
            read_in(&directory, "status", LONGEST_STATUS_BYTES).map_err(|error| failed(pid, error))?;
        let mut process = Self {
            pid,
            started,
            own_pid: own_pid(&status).unwrap_or(pid),
            owner: fstat(&directory).map_err(|error| failed(pid, error.into()))?.st_uid,
            mappings: Vec::new(),
            root: None,
            perf_map: None,
            mappings_read: Instant::now(),
            perf_map_read: None,
            gone: None,
        };
        process.read_mappings(&directory, limits).map_err(|error| failed(pid, error))?;
        Ok(process)
    }

    /// Looks at the mappings again. Those that are gone are kept behind the new ones.
    pub(crate) fn look_again(&mut self, limits: &Limits) -> Result<(), ProcessError> {
        self.mappings_read = Instant::now();
        let directory = self.directory()?;
        self.read_mappings(&directory, limits).map_err(|error| failed(self.pid, error))
    }

    /// Whether enough time has passed to look at the mappings again because of an address that is not in them.
    pub(crate) fn may_look_again(&self, limits: &Limits) -> bool {
        self.gone.is_none() && self.mappings_read.elapsed() >= limits.reread_pause
    }

    /// The mapping that holds an address.
    pub(crate) fn mapping(&self, address: u64) -> Option<&Mapping> {
        let before = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings[..before].last().filter(|mapping| address < mapping.end)
    }

    /// All mapped files with one range of each.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Mapping, &MappedFile)> {
        self.mappings.iter().filter_map(|mapping| match &mapping.place {
            Place::File(file) => Some((mapping, file)),
            _ => None,
        })
    }

    /// A directory below /proc of this very process.
    pub(crate) fn directory(&self) -> Result<OwnedFd, ProcessError> {
        let directory = directory(self.pid).map_err(|error| failed(self.pid, error))?;
        match start_time(&directory) {
            Ok(started) if started == self.started => Ok(directory),
            _ => Err(ProcessError::Gone(self.pid)),
        }
    }

    /// Notes that the process is going: what can only be read while it lives is read now.
    pub(crate) fn leave(&mut self, now: u64, limits: &Limits) {
        self.perf_map_read = None;
        self.refresh_perf_map(limits);
        self.root = None;
        self.gone = Some(now);
    }

    /// The name that the process's own JIT compiler gave to the code at an address.
    pub(crate) fn jit_name(&mut self, address: u64, limits: &Limits) -> Option<&str> {
        let pause_is_over = self.perf_map_read.is_none_or(|read| read.elapsed() >= limits.reread_pause);
        let known = self.perf_map.as_ref().is_some_and(|map| map.name(address).is_some());
        if self.gone.is_none() && !known && pause_is_over {
            self.refresh_perf_map(limits);
        }
        self.perf_map.as_ref()?.name(address)
    }

    fn refresh_perf_map(&mut self, limits: &Limits) {
        let Some(root) = &self.root else { return };
        self.perf_map_read = Some(Instant::now());
        let Ok(file) = PerfMap::find(root, self.own_pid, self.owner) else { return };
        if self.perf_map.as_ref().is_none_or(|map| map.is_stale(&file))
            && let Ok(map) = PerfMap::read(file, limits.perf_map_bytes)
        {
            self.perf_map = Some(map);
        }
    }

    fn read_mappings(&mut self, directory: &OwnedFd, limits: &Limits) -> io::Result<()> {
        let text = read_in(directory, "maps", LONGEST_MAPS_BYTES)?;
        let mut mappings = maps::executable(&text, limits.mappings);
        let former = std::mem::take(&mut self.mappings);
        let replaced = |old: &Mapping| {
            let next = mappings.partition_point(|new| new.end <= old.start);
            mappings.get(next).is_some_and(|new| new.start < old.end)
        };
        let mut kept: Vec<_> = former.into_iter().filter(|old| !replaced(old)).collect();
        kept.truncate(limits.mappings.saturating_sub(mappings.len()));
        mappings.append(&mut kept);
        mappings.sort_by_key(|mapping| mapping.start);
        self.mappings = mappings;

        let has_jit = self.mappings.iter().any(|mapping| is_written_code(&mapping.place));
        if has_jit && self.root.is_none() {
            self.root = root_of(directory).ok();
        }
        Ok(())
    }
}

fn is_written_code(place: &Place) -> bool {
    match place {
        Place::Jit => true,
        Place::File(file) => file.key.name.starts_with("memfd:"),
        Place::Vdso | Place::Special(_) => false,
    }
}

/// Opens a mapped file: by the kernel's own link where that is permitted, which holds for deleted files and in other
/// mount namespaces; else by its path beneath the process's root, if that is still the mapped file.
pub(crate) fn open_mapped(
    directory: BorrowedFd<'_>,
    mapping: &Mapping,
    file: &MappedFile,
) -> io::Result<File> {
    let link = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
    if let Ok(found) = Found::by_link(directory, link) {
        return found.open();
    }
    let found = Found::beneath(root_of(directory)?, &file.path)?;
    if !is_same(&found.stat, file.key.major, file.key.minor, file.key.inode) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "another file has its path"));
    }
    found.open()
}

/// The process's root directory.
pub(crate) fn root_of(directory: impl AsFd) -> io::Result<OwnedFd> {
    Ok(openat(directory, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn directory(pid: u32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}");
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn read_in(directory: &OwnedFd, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_capped(file.into(), most)
}

/// Field 22 of `stat`; the name in field 2 may hold anything, so fields are counted behind its last bracket.
fn start_time(directory: &OwnedFd) -> io::Result<u64> {
    let text = read_in(directory, "stat", LONGEST_STATUS_BYTES)?;
    let text = String::from_utf8_lossy(&text);
    let field =
        text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat without a start time"))
}

fn own_pid(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

fn failed(pid: u32, error: io::Error) -> ProcessError {
    let gone = matches!(error.kind(), io::ErrorKind::NotFound)
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if gone { ProcessError::Gone(pid) } else { ProcessError::Unreadable { pid, error } }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::{Process, open_mapped, own_pid};
    use crate::limits::Limits;

    #[test]
    fn without_the_kernels_link_a_path_counts_only_for_the_same_inode() {
        let own = Process::look(std::process::id(), &Limits::default()).unwrap();
        let directory = own.directory().unwrap();
        let program = std::env::current_exe().unwrap();
        let (mapping, file) = own.files().find(|(_, file)| file.path == program).unwrap();
        // No mapping has these bounds, so its link is not there.
        let mut elsewhere = mapping.clone();
        (elsewhere.start, elsewhere.end) = (4096, 8192);
        let opened = open_mapped(directory.as_fd(), &elsewhere, file).unwrap();
        let same = opened.metadata().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&same), file.key.inode);
        let mut other = file.clone();
        other.key.inode += 1;
        assert!(open_mapped(directory.as_fd(), &elsewhere, &other).is_err());
        let mut device = file.clone();
        device.path = "/dev/zero".into();
        assert!(open_mapped(directory.as_fd(), &elsewhere, &device).is_err());
    }

    #[test]
    fn an_id_that_is_used_again_is_another_process() {
        let mut own = Process::look(std::process::id(), &Limits::default()).unwrap();
        own.started += 1;
        assert!(own.directory().is_err());
        assert!(own.look_again(&Limits::default()).is_err());
    }

    #[test]
    fn ranges_that_are_gone_are_kept_unless_something_else_is_there() {
        let mut own = Process::look(std::process::id(), &Limits::default()).unwrap();
        let now = own.mappings.len();
        let (first, mut gone) = (own.mappings[0].clone(), own.mappings[0].clone());
        (gone.start, gone.end) = (0x1000, 0x3000);
        let mut replaced = first.clone();
        (replaced.start, replaced.end, replaced.offset) = (first.start - 0x1000, first.start + 0x1000, 77);
        own.mappings.extend([gone.clone(), replaced]);
        own.look_again(&Limits::default()).unwrap();
        assert_eq!(own.mapping(0x2000), Some(&gone));
        assert_eq!(own.mapping(first.start), Some(&first));
        assert!(own.mappings.len() >= now && own.mappings.iter().all(|m| m.offset != 77));
        let few = Limits { mappings: 2, ..Limits::default() };
        own.look_again(&few).unwrap();
        assert_eq!(own.mappings.len(), 2);
    }

    #[test]
    fn the_id_in_the_innermost_namespace_is_the_last() {
        assert_eq!(own_pid(b"Name:\tx\nNSpid:\t4242\t17\t1\nx"), Some(1));
        assert_eq!(own_pid(b"Name:\tx\n"), None);
    }
}
