//! The processes of a host at one moment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::Placement;
use crate::door::Door;
use crate::environment::Environment;
use crate::find;
use crate::gpus::Gpus;
use crate::job::Job;
use crate::mapped::Mapped;
use crate::process::{
    Life, Namespaces, Process, ProcessId, Readable, State, parse_cmdline, parse_namespace, parse_stat,
    parse_status,
};
use crate::procfs::{ProcFs, ProcessDir, Unread};

/// A process that takes longer than this to say what it was called with hangs. Its pages may have to come from a disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the host is.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Its /proc.
    pub proc: PathBuf,
    /// Its file system: for the names that container runtimes keep.
    pub host: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), host: "/".into() }
    }
}

/// What could not be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Processes that are listed and of which nothing can be read (/proc with hidepid=1).
    pub unreadable: u32,
    /// Processes of other users, or protected from tracing: their environment is closed to us, so that ranks among them
    /// are not found.
    pub closed: u32,
    /// Processes that hang in the kernel in such a way that reading their environment would not come back.
    pub hang: u32,
    /// /proc does not list the processes of others at all (hidepid=2, or not the host's pid namespace).
    pub unlisted: bool,
}

impl Hidden {
    /// Whether anything could not be seen.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// A process that is in no job and looks as if it might be of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bystander {
    /// The process.
    pub process: ProcessId,
    /// Why it is listed.
    pub why: &'static str,
}

/// All processes at one moment, and the jobs among them.
#[derive(Debug)]
pub struct Host {
    proc: ProcFs,
    host_root: PathBuf,
    own_pid: Option<u32>,
    /// By pid.
    processes: BTreeMap<u32, Process>,
    uptime_ms: u64,
    hidden: Hidden,
    jobs: Vec<Job>,
}

impl Host {
    /// Looks at the host whose /proc this is.
    ///
    /// Costs about 0.1 ms a process, and 1 ms for each 1500 mappings of those whose mapped files are read.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed. What cannot be read of single processes is counted in [`Host::hidden`].
    pub fn scan(proc_root: &Path) -> io::Result<Self> {
        Self::scan_roots(&Roots { proc: proc_root.to_owned(), ..Roots::default() })
    }

    /// As [`Host::scan`], with the host's files elsewhere than at `/`.
    ///
    /// # Errors
    ///
    /// As for [`Host::scan`].
    pub fn scan_roots(roots: &Roots) -> io::Result<Self> {
        let proc = ProcFs::new(&roots.proc);
        let has_gpus = proc.has_gpu_drivers();
        let mut hidden = Hidden::default();
        let mut processes = BTreeMap::new();
        let mut door = Door::new(&roots.proc, PATIENCE);
        for pid in proc.pids()? {
            match read_process(&proc, pid, has_gpus, &mut door) {
                Ok(process) => {
                    let closed = !process.is_readable() && !process.kernel_thread;
                    let counted = process.state != State::Zombie && !process.hangs;
                    hidden.closed += u32::from(closed && counted);
                    hidden.hang += u32::from(process.hangs);
                    processes.insert(pid, process);
                }
                Err(Unread::Denied) => hidden.unreadable += 1,
                Err(Unread::Gone) => {}
            }
        }
        // Every pid namespace has a first process. Where it is not listed, others are not either.
        hidden.unlisted = !processes.contains_key(&1) && hidden.unreadable == 0;
        let uptime_ms = proc.uptime_ms().unwrap_or(0);
        let own_pid = proc.own_pid();
        let host_root = roots.host.clone();
        let mut host = Self { proc, host_root, own_pid, processes, uptime_ms, hidden, jobs: Vec::new() };
        host.jobs = find::jobs(&host);
        Ok(host)
    }

    /// The jobs, the oldest first.
    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// What could not be seen.
    #[must_use]
    pub fn hidden(&self) -> Hidden {
        self.hidden
    }

    /// A process by its pid.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// All processes, by pid.
    pub fn processes(&self) -> impl Iterator<Item = &Process> + '_ {
        self.processes.values()
    }

    /// Time since a process started, in ms. Start times have a step of 10 ms.
    #[must_use]
    pub fn elapsed_ms(&self, process: ProcessId) -> u64 {
        self.uptime_ms.saturating_sub(process.start_ticks.saturating_mul(10))
    }

    /// Whether a process that was seen is still there, now.
    #[must_use]
    pub fn life(&self, process: ProcessId) -> Life {
        let stat = self.proc.process(process.pid).and_then(|folder| folder.stat());
        match stat.ok().as_deref().and_then(parse_stat) {
            None => Life::Exited,
            Some(stat) if stat.start_ticks != process.start_ticks => Life::Reused,
            Some(stat) if stat.state == State::Zombie => Life::Zombie,
            Some(_) => Life::Running,
        }
    }

    /// The process whose thread this is: /proc has folders of threads, and does not list them.
    pub(crate) fn process_of_thread(&self, tid: u32) -> Option<u32> {
        let status = self.proc.process(tid).and_then(|folder| folder.status()).ok()?;
        parse_status(&status).thread_group.filter(|&group| group != tid)
    }

    /// The folder of a process, if it is still the same process.
    pub(crate) fn folder(&self, process: ProcessId) -> Option<ProcessDir> {
        let folder = self.proc.process(process.pid).ok()?;
        let stat = parse_stat(&folder.stat().ok()?)?;
        (stat.start_ticks == process.start_ticks).then_some(folder)
    }

    /// Whether this is the process that looks: never part of a job, whatever it inherited from the shell it runs in.
    pub(crate) fn is_self(&self, process: &Process) -> bool {
        self.own_pid == Some(process.id.pid)
    }

    pub(crate) fn host_root(&self) -> &Path {
        &self.host_root
    }

    /// What a process has mapped. Reading it holds the process's map lock for as long as the list is made.
    pub(crate) fn mapped(&self, process: &Process) -> Option<Mapped> {
        if process.hangs {
            return None;
        }
        let maps = self.folder(process.id)?.maps().ok()?;
        Some(Mapped::read(maps, process.exe.as_deref()))
    }

    /// Processes in no job that run Python, compute on a GPU or launch: for `ps --all`, by pid.
    #[must_use]
    pub fn bystanders(&self) -> Vec<Bystander> {
        find::bystanders(self)
    }
}

fn read_process(proc: &ProcFs, pid: u32, has_gpus: bool, door: &mut Door) -> Result<Process, Unread> {
    let folder = proc.process(pid)?;
    let stat = parse_stat(&folder.stat()?).ok_or(Unread::Gone)?;
    let status = parse_status(&folder.status()?);
    let mut process = Process {
        id: ProcessId { pid, start_ticks: stat.start_ticks },
        ppid: stat.ppid,
        uid: status.uid,
        comm: stat.comm,
        cmdline: Vec::new(),
        exe: None,
        state: stat.state,
        threads: stat.threads,
        kernel_thread: stat.kernel_thread,
        hangs: false,
        namespaces: Namespaces::default(),
        ns_pids: if status.ns_pids.is_empty() { vec![pid] } else { status.ns_pids },
        placement: Placement::default(),
        environment: Readable::Denied,
        gpus: Gpus::default(),
    };
    if process.kernel_thread {
        return Ok(process);
    }
    if let Ok(bytes) = folder.cgroup() {
        process.placement = Placement::parse(&bytes);
    }
    if process.state == State::Zombie {
        return Ok(process);
    }
    process.exe = folder.link("exe").ok();
    let inode = |name| folder.link(name).ok().as_deref().and_then(parse_namespace);
    process.namespaces = Namespaces { pid: inode("ns/pid"), mnt: inode("ns/mnt"), net: inode("ns/net") };
    if !door.answers(pid) {
        process.hangs = true;
        return Ok(process);
    }
    process.cmdline = folder.cmdline().map(|bytes| parse_cmdline(&bytes)).unwrap_or_default();
    process.environment = match folder.environ() {
        Ok(bytes) => Readable::Yes(Environment::parse(&bytes)),
        Err(Unread::Denied) => Readable::Denied,
        // It ended, or it is on its way out and has no memory left.
        Err(Unread::Gone) => return Err(Unread::Gone),
    };
    if has_gpus {
        // Descriptors that we may not list are those of a process that we may not examine either.
        let mut gpus = Gpus::default();
        let _ = folder.descriptors(|target| gpus.add(target));
        process.gpus = gpus;
    }
    if let Readable::Yes(environment) = &process.environment {
        process.gpus.limit(environment);
    }
    Ok(process)
}
