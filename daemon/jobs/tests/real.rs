//! Real processes, found in the real /proc.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stallscope_jobs::{Collective, Framework, Host, Job, LauncherKind, Life, ResolveError, Source, Target};

/// A child that is ended with its process group when the test is over.
struct Group(Child);

impl Group {
    /// Starts a program, and waits until it has printed `lines` lines.
    fn start(command: &mut Command, lines: usize) -> Self {
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let read = output.lines().map_while(Result::ok).take(lines).count();
        let group = Self(child);
        assert_eq!(read, lines, "it ended too early");
        group
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn python() -> Command {
    Command::new("/usr/bin/python3")
}

fn scan() -> Host {
    Host::scan(Path::new("/proc")).unwrap()
}

fn job_of(host: &Host, pid: u32) -> Job {
    let selection = Target::Pid { pids: vec![pid], only: false }.resolve(host).unwrap();
    assert_eq!(selection.jobs.len(), 1);
    selection.jobs[0].clone()
}

/// A launcher of three ranks; each forks a helper and starts a compiler of a sort.
const LAUNCHER: &str = r#"
import os, subprocess, sys
RANK = '''
import os, subprocess, sys, time
if os.fork() == 0:
    print("helper", flush=True); time.sleep(600)
subprocess.Popen(["sleep", "600"])
print("rank", flush=True)
time.sleep(600)
'''
ranks = [subprocess.Popen([sys.executable, "-c", RANK], env=dict(os.environ, RANK=str(r), WORLD_SIZE="5", LOCAL_RANK=str(r)))
         for r in range(3)]
for rank in ranks:
    rank.wait()
"#;

#[test]
fn ranks_of_a_real_launcher_with_forked_and_started_helpers() {
    let launcher = Group::start(python().args(["-c", LAUNCHER]), 6);
    let host = scan();
    let job = job_of(&host, launcher.pid());
    assert_eq!(job.ranks.iter().map(|r| r.rank).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert_eq!((job.world_size, job.launchers[0].kind), (Some(5), LauncherKind::Python));
    assert_eq!(job.launchers[0].process.pid, launcher.pid());
    for rank in &job.ranks {
        let comms: Vec<_> = rank.helpers.iter().map(|h| host.process(h.pid).unwrap().comm.clone()).collect();
        assert_eq!(comms.len(), 2, "{comms:?}");
        assert!(comms.iter().any(|c| c == "sleep"), "{comms:?}");
        assert_eq!((rank.source, rank.threads, rank.examined), (Some(Source::Torch), 1, true));
        assert_eq!(rank.python.map(|p| p.major), Some(3));
        assert!(rank.elapsed_ms < 60_000, "{}", rank.elapsed_ms);
        assert_eq!(host.life(rank.process), Life::Running);
    }
    // A helper stands for its job; the program that asks is not part of it.
    assert_eq!(job_of(&host, job.ranks[1].helpers[0].pid).id, job.id);
    assert!(job.processes().all(|p| p.pid != std::process::id()));

    let first = job.ranks[0].process;
    drop(launcher);
    // Killed; whoever adopted it has yet to wait for it.
    while host.life(first) == Life::Running {
        std::thread::yield_now();
    }
    let named = Target::Pid { pids: vec![first.pid], only: false };
    assert!(matches!(named.resolve(&host), Err(ResolveError::Exited { .. } | ResolveError::Zombie { .. })));
}

#[test]
fn a_thread_is_told_from_a_process() {
    const THREAD: &str = "
import threading, time
t = threading.Thread(target=time.sleep, args=(600,), daemon=True); t.start()
print(t.native_id, flush=True)
time.sleep(600)
";
    let mut child = python().args(["-c", THREAD]).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let group = Group(child);
    let tid: u32 = line.trim().parse().unwrap();
    let error = Target::Pid { pids: vec![tid], only: false }.resolve(&scan()).unwrap_err();
    assert_eq!(error, ResolveError::Thread { tid, pid: group.pid() });
}

#[test]
fn a_zombie_is_named_as_one() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    let stat = format!("/proc/{pid}/stat");
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let error = Target::Pid { pids: vec![pid], only: false }.resolve(&scan()).unwrap_err();
    assert_eq!(error, ResolveError::Zombie { pid });
    child.wait().unwrap();
}

/// Set for the second half of the test below, which runs as another user.
const AS_NOBODY: &str = "STALLSCOPE_TEST_AS_NOBODY";

#[test]
fn a_process_of_another_user_is_named_as_one() {
    if let Ok(pid) = std::env::var(AS_NOBODY) {
        let pid = pid.parse().unwrap();
        let host = scan();
        let error = Target::Pid { pids: vec![pid], only: false }.resolve(&host).unwrap_err();
        assert_eq!(error, ResolveError::AnotherUser { pid, uid: Some(0) });
        assert!(host.hidden().closed > 0 && host.hidden().any());
        println!("refused as it should be");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let target =
        Group::start(python().args(["-c", "import time; print('up', flush=True); time.sleep(600)"]), 1);
    // Another user may not be able to enter the folder that we were built in.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(&copy)
        .args(["--exact", "a_process_of_another_user_is_named_as_one", "--nocapture"])
        .env(AS_NOBODY, target.pid().to_string())
        .current_dir("/")
        .gid(65534)
        .uid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("refused as it should be"), "{text}");
}

/// An environment with Open MPI's mpirun and mpi4py, or why there is none.
fn mpi() -> Result<PathBuf, String> {
    let folder = std::env::var_os("STALLSCOPE_MPI_VENV").ok_or("STALLSCOPE_MPI_VENV is not set")?;
    let folder = PathBuf::from(folder);
    if folder.join("bin/mpirun").exists() { Ok(folder) } else { Err(format!("no bin/mpirun in {folder:?}")) }
}

#[test]
fn four_ranks_of_a_real_mpirun() {
    let folder = match mpi() {
        Ok(folder) => folder,
        Err(why) => return println!("skipped: {why}"),
    };
    const RANK: &str = "
from mpi4py import MPI
import sys, time
MPI.COMM_WORLD.Barrier()
sys.stdout.write('up\\n'); sys.stdout.flush()
time.sleep(600)
";
    let scripts = tempfile::tempdir().unwrap();
    let script = scripts.path().join("ranks.py");
    std::fs::write(&script, RANK).unwrap();
    let mut command = Command::new(folder.join("bin/mpirun"));
    command
        .args(["--allow-run-as-root", "--oversubscribe", "-n", "4"])
        .arg(folder.join("bin/python"))
        .arg(&script);
    let mpirun = Group::start(&mut command, 4);
    let host = scan();
    let job = job_of(&host, mpirun.pid());
    assert_eq!(job.ranks.iter().map(|r| r.rank).collect::<Vec<_>>(), [0, 1, 2, 3].map(Some));
    assert_eq!((job.world_size, job.name.as_str()), (Some(4), "ranks.py"));
    assert_eq!(job.launchers[0].kind, LauncherKind::Mpirun);
    for rank in &job.ranks {
        assert_eq!(rank.source, Some(Source::OpenMpi));
        assert_eq!(rank.frameworks, [Framework::Mpi4py]);
        assert_eq!(rank.collectives.iter().filter(|c| c.kind == Collective::Mpi).count(), 1);
        assert!(rank.threads > 1, "Open MPI's progress thread");
        assert_eq!(job_of(&host, rank.process.pid).id, job.id);
    }
    // Open MPI does not number them in the order of ranks.
    let mut local: Vec<_> = job.ranks.iter().map(|r| r.local_rank).collect();
    local.sort_unstable();
    assert_eq!(local, [0, 1, 2, 3].map(Some));
    assert_eq!(scan().jobs().iter().filter(|j| j.id == job.id).count(), 1);
}
