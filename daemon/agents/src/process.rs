//! What is to be known of a process before and while an agent is in it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

/// How the name of an agent's file begins that a job is started with.
pub const AGENT_FILE: &str = "stallscope-agent-";

/// Where CUDA's toolkit has its CUPTI.
const TOOLKIT: [&str; 2] = ["/usr/local/cuda/extras/CUPTI/lib64", "/usr/lib/x86_64-linux-gnu"];

/// Folders that are looked into, and names in each: both are the job's.
const MAX_FOLDERS: usize = 64;
/// Arguments and environment together are at most three quarters of the kernel's largest stack for them, 6 MiB.
const MAX_ENVIRON_BYTES: u64 = 6 << 20;
const MAX_ENTRIES: usize = 1 << 16;

/// CUPTI has about 10 MB.
const MAX_CUPTI_BYTES: i64 = 1 << 30;

/// Threads of a process whose numbers are remembered.
const MAX_THREADS: usize = 1 << 16;

/// Files of a process that it has mapped to run, by name: what matters to CUDA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// `libcuda.so` is there.
    pub(crate) cuda: bool,
    /// `libcupti.so` is there.
    pub(crate) cupti: bool,
    /// Folders of CUDA's libraries, as the process names them.
    pub(crate) folders: Vec<PathBuf>,
}

/// The environment of a process, as far as a real one goes: a process may claim any of its memory to be that.
fn environment(proc: &Path, pid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(proc.join(pid.to_string()).join("environ")) {
        // What could be read says as much as there is.
        let _ = file.take(MAX_ENVIRON_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

/// What a process has mapped; `None` where it is gone or nobody may look.
pub(crate) fn mapped(pid: u32) -> Option<Mapped> {
    let maps = BufReader::new(File::open(format!("/proc/{pid}/maps")).ok()?);
    let mut found = Mapped::default();
    for line in maps.split(b'\n').map_while(Result::ok) {
        let Some(at) = line.iter().position(|&b| b == b'/') else { continue };
        let path = String::from_utf8_lossy(&line[at..]);
        let path = Path::new(path.strip_suffix(" (deleted)").unwrap_or(&path));
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        found.cuda |= name.starts_with("libcuda.so");
        found.cupti |= name.starts_with("libcupti.so");
        let of_cuda = ["libcudart.so", "libcublas.so", "libnvrtc.so", "libcudnn.so"];
        if of_cuda.iter().any(|of| name.starts_with(of))
            && let Some(folder) = path.parent()
            && found.folders.len() < MAX_FOLDERS
            && !found.folders.iter().any(|known| known == folder)
        {
            found.folders.push(folder.to_owned());
        }
    }
    Some(found)
}

/// A CUPTI for a process that has none mapped, as the process names it: where its loader looks first, beside the CUDA
/// libraries that it uses, as PyPI's packages lay them out and as the toolkit does, in its own file system.
///
/// Its folders belong to it: they are walked beneath its root, links and all, nothing in them is opened, and it is the
/// process itself that will, with its own rights.
pub(crate) fn cupti_within(pid: u32, mapped: &Mapped) -> Option<PathBuf> {
    let environment = environment(Path::new("/proc"), pid);
    let named = environment.split(|&b| b == 0).find_map(|line| line.strip_prefix(b"LD_LIBRARY_PATH="));
    let named = std::ffi::OsStr::from_bytes(named.unwrap_or_default());
    // A relative folder would be one of ours.
    let mut folders: Vec<PathBuf> = std::env::split_paths(named).filter(|f| f.is_absolute()).collect();
    for folder in &mapped.folders {
        // …/nvidia/cuda_runtime/lib → …/nvidia/cuda_cupti/lib; …/cuda/lib64 → …/cuda/extras/CUPTI/lib64
        for beside in ["../../cuda_cupti/lib", "../extras/CUPTI/lib64", "../../../extras/CUPTI/lib64", ""] {
            folders.push(folder.join(beside));
        }
    }
    folders.extend(TOOLKIT.map(PathBuf::from));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    folders.iter().take(MAX_FOLDERS).find_map(|folder| {
        let found = openat2(&root, folder, flags, Mode::empty(), resolve).ok()?;
        let name = name_of_cupti(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))?;
        Some(folder.join(name))
    })
}

/// The toolkit's CUPTI on this host, for a process that has none. Only root can have put it there.
pub(crate) fn cupti_of_host() -> Option<File> {
    TOOLKIT.iter().map(Path::new).find_map(|folder| {
        let path = folder.join(name_of_cupti(folder)?);
        let found = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let of = fstat(&found).ok()?;
        let is_file = FileType::from_raw_mode(of.st_mode) == FileType::RegularFile;
        let is_roots = of.st_uid == 0 && of.st_mode & 0o022 == 0;
        (is_file && is_roots && of.st_size <= MAX_CUPTI_BYTES).then(|| File::from(found))
    })
}

/// A CUPTI for a process that is still to be started: where its loader will look, in its Python environment, in the
/// toolkit.
pub fn cupti_for_launch() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        folders.extend(std::env::split_paths(&paths));
    }
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os);
    for environment in environments {
        let pythons = fs::read_dir(Path::new(&environment).join("lib")).into_iter().flatten().flatten();
        for python in pythons.map(|entry| entry.path().join("site-packages/nvidia")) {
            let packages = fs::read_dir(python).into_iter().flatten().flatten();
            folders.extend(packages.map(|package| package.path().join("lib")));
        }
    }
    folders.extend(TOOLKIT.map(PathBuf::from));
    folders.iter().find_map(|folder| Some(folder.join(name_of_cupti(folder)?)))
}

/// What the CUPTI in a folder is called.
fn name_of_cupti(folder: &Path) -> Option<OsString> {
    let names = fs::read_dir(folder).ok()?.take(MAX_ENTRIES).flatten().map(|entry| entry.file_name());
    // The longest name is the file itself, the others are links to it.
    names.filter(|name| name.as_bytes().starts_with(b"libcupti.so")).max_by_key(|name| name.len())
}

/// Whether a process was started with an agent, which CUDA will load.
pub(crate) fn brings_its_own(proc: &Path, pid: u32) -> bool {
    let environment = environment(proc, pid);
    let value = environment.split(|&b| b == 0).find_map(|line| line.strip_prefix(b"CUDA_INJECTION64_PATH="));
    let path = value.map(|value| Path::new(std::ffi::OsStr::from_bytes(value)));
    path.and_then(Path::file_name).is_some_and(|name| name.as_bytes().starts_with(AGENT_FILE.as_bytes()))
}

/// A process: a number may be used again, a number with the time of its start is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    started: u64,
}

impl Process {
    /// The process that has this number now; none where there is none, or it has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    /// Whether it is there and has not ended.
    pub(crate) fn lives(self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// When a process was started, in ticks since the machine was; none of one that has ended.
fn started(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let is_there = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| is_there)?.parse().ok()
}

/// Whether a process is a copy, by `fork` without `exec`, of one that uses a GPU: the worker of a data loader. It has the
/// driver mapped as its parent has, and CUDA does not work in it: so there is nothing to see, and it is left alone.
pub(crate) fn is_copy_of_gpu_user(proc: &Path, pid: u32) -> bool {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).unwrap_or_default();
    parent_of_copy(&stat).is_some_and(|parent| has_gpu_open(proc, parent))
}

/// Whether a process has executed nothing since it was forked.
pub(crate) fn is_forked_only(proc: &Path, pid: u32) -> bool {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).unwrap_or_default();
    parent_of_copy(&stat).is_some()
}

/// The parent of a process that has not executed a program of its own, from /proc/PID/stat.
fn parent_of_copy(stat: &str) -> Option<u32> {
    const PF_FORKNOEXEC: u32 = 0x40;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let parent = fields.nth(1)?.parse().ok()?;
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    (flags & PF_FORKNOEXEC != 0).then_some(parent)
}

fn has_gpu_open(proc: &Path, pid: u32) -> bool {
    let files = fs::read_dir(proc.join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.map(PathBuf::into_os_string).any(|target| target.as_encoded_bytes().starts_with(b"/dev/nvidia"))
}

/// Threads of a process in another pid namespace: its numbers to ours.
#[derive(Debug)]
pub(crate) struct Threads {
    pid: u32,
    /// Whether the process sees other numbers than we do.
    translate: bool,
    known: HashMap<u32, u32>,
}

/// The innermost number of a thread, and whether that is another one than ours.
fn innermost(status: &str) -> Option<(u32, bool)> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Some((*numbers.last()?, numbers.len() > 1))
}

impl Threads {
    pub(crate) fn new(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let translate = innermost(&status).is_some_and(|(_, nested)| nested);
        Self { pid, translate, known: HashMap::new() }
    }

    /// Our number of a thread. One that is gone already keeps the process's number for it.
    pub(crate) fn outer(&mut self, inner: u32) -> u32 {
        if !self.translate {
            return inner;
        }
        if let Some(&outer) = self.known.get(&inner) {
            return outer;
        }
        if self.known.len() >= MAX_THREADS {
            return inner;
        }
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        for task in tasks {
            let Some(outer) = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            if let Some((number, _)) = innermost(&status) {
                self.known.entry(number).or_insert(outer);
            }
        }
        *self.known.entry(inner).or_insert(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Mapped, Mode, Process, Threads, brings_its_own, cupti_within, fs, innermost, is_copy_of_gpu_user,
        mapped, parent_of_copy, started,
    };

    #[test]
    fn the_innermost_number_is_its_own() {
        assert_eq!(innermost("Name:\tx\nNSpid:\t4242\t17\n"), Some((17, true)));
        assert_eq!(innermost("NSpid:\t4242\n"), Some((4242, false)));
        assert_eq!(innermost("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_of_this_namespace_needs_no_translation() {
        let own = std::process::id();
        assert!(Process::of(own).unwrap().lives());
        assert_eq!(Threads::new(own).outer(77), 77);
        assert_eq!(mapped(own).map(|m| m.cuda), Some(false));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(!Process { started: own.started - 1, ..own }.lives());
        let stat = |state: &str| format!("42 (a ) b) {state} 1 {}4711 0 0", "0 ".repeat(17));
        assert_eq!((started(&stat("S")), started(&stat("Z")), started("42 (x")), (Some(4711), None, None));
    }

    #[test]
    fn a_process_that_was_started_with_an_agent_says_so() {
        let proc = tempfile::tempdir().unwrap();
        let of = |pid: u32, environment: &str| {
            fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            fs::write(proc.path().join(format!("{pid}/environ")), environment).unwrap();
            brings_its_own(proc.path(), pid)
        };
        assert!(of(1, "A=1\0CUDA_INJECTION64_PATH=/run/stallscope/stallscope-agent-12ab.so\0B=2\0"));
        assert!(!of(2, "CUDA_INJECTION64_PATH=/opt/nsys/libToolsInjection64.so\0"), "another tool's");
        assert!(!of(3, "PATH=/bin\0"));
        assert!(!brings_its_own(proc.path(), 4), "gone");
    }

    #[test]
    fn cupti_is_looked_for_where_the_loader_does() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libcupti.so.12");
        fs::write(&library, "").unwrap();
        let path = format!("relative:/nowhere:{}", folder.path().display());
        let mut child =
            std::process::Command::new("sleep").arg("100").env("LD_LIBRARY_PATH", path).spawn().unwrap();
        // A program that has just begun has no environment yet.
        while fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let found = cupti_within(child.id(), &Mapped::default());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Some(library));
    }

    #[test]
    fn cupti_is_looked_for_beside_the_libraries_that_are_mapped_and_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (runtime, beside) =
            (folder.path().join("cuda_runtime/lib"), folder.path().join("cuda_cupti/lib"));
        fs::create_dir_all(&runtime).unwrap();
        fs::create_dir_all(&beside).unwrap();
        // Whoever opened it would wait for ever.
        rustix::fs::mkfifoat(rustix::fs::CWD, beside.join("libcupti.so.12"), Mode::from_raw_mode(0o600))
            .unwrap();
        let mapped = Mapped { folders: vec![runtime.clone()], ..Mapped::default() };
        let found = cupti_within(std::process::id(), &mapped);
        assert_eq!(found, Some(runtime.join("../../cuda_cupti/lib/libcupti.so.12")));
    }

    #[test]
    fn a_copy_of_a_process_that_uses_a_gpu_is_left_alone_and_one_that_executed_a_program_is_not() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, parent: u32, flags: u32, open: &str| {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir_all(folder.join("fd")).unwrap();
            let stat = format!("{pid} (a) b) S {parent} 1 1 0 -1 {flags} 0 0\n");
            fs::write(folder.join("stat"), stat).unwrap();
            std::os::unix::fs::symlink(open, folder.join("fd/3")).unwrap();
        };
        process(10, 1, 0x40_0000, "/dev/nvidia-uvm");
        process(11, 10, 0x40_0040, "/dev/nvidia-uvm");
        process(12, 10, 0x40_0000, "/dev/null");
        process(20, 1, 0x40_0000, "/dev/null");
        process(21, 20, 0x40_0040, "/dev/nvidia0");
        let copies: Vec<u32> = [10, 11, 12, 20, 21, 99]
            .into_iter()
            .filter(|&pid| is_copy_of_gpu_user(proc.path(), pid))
            .collect();
        assert_eq!(copies, [11], "one whose parent uses no GPU may begin to use one itself");
    }

    #[test]
    fn a_child_is_told_from_a_program_by_the_real_kernel() {
        let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert_eq!(parent_of_copy(&stat("self")), None, "a test is a program");
        // A shell makes a copy of itself for what is in parentheses.
        let copy = ["-c", "(read line < /proc/self/stat; echo $line); true"];
        let out = std::process::Command::new("sh").args(copy).output().unwrap().stdout;
        let text = String::from_utf8(out).unwrap();
        let parent: u32 = text.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(parent_of_copy(&text), Some(parent));
    }
}
