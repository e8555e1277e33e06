//! Harm that is done to a rank from outside, and what it really took. Everything is undone when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};

use super::cases::{Network, RATE_BYTES_A_MS};
use super::spans::Span;
use crate::live::job::programs;

/// Harm begins once the recording is under way: it is the job that is to be harmed, not the attaching, and of the time until
/// each device was seen to be at rest nothing is known.
pub(super) const ATTACHED_AFTER: Duration = Duration::from_millis(1500);

/// Stops a process again and again while something else is done; says when.
pub(super) fn stopped_meanwhile<T: Send>(
    pid: u32,
    dose_ms: f64,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(Vec<Span>, T)> {
    let send = |signal: &str| Command::new("kill").args([signal, &pid.to_string()]).status();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| -> anyhow::Result<Vec<Span>> {
            let mut stops = Vec::new();
            std::thread::sleep(ATTACHED_AFTER);
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(250));
                send("-STOP")?;
                let from = unix_ns();
                std::thread::sleep(Duration::from_secs_f64(dose_ms / 1000.0));
                // Whatever happens here, it must not stay stopped.
                let to = unix_ns();
                send("-CONT")?;
                stops.push((from, to));
            }
            Ok(stops)
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let stops = stopping.join().map_err(|_| anyhow::anyhow!("whoever stops the rank panicked"))??;
        Ok((stops, done?))
    })
}

pub(super) fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Where cgroups with CPU limits are made, and whether that is the second version.
fn parent() -> (PathBuf, bool) {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers"));
    if controllers.is_ok_and(|all| all.split_whitespace().any(|one| one == "cpu")) {
        (root.to_owned(), true)
    } else {
        (root.join("cpu"), false)
    }
}

/// Niceness of ranks, and a cgroup's shares that are as much.
pub(super) const RANKS_NICE: &str = "-10";
const RANKS_SHARES: &str = "9548";

/// A cgroup that may run 1 ms in each period, with the main thread of a process in it. A device goes on while its host may
/// not run; the stand-ins' threads, which tell other ranks what their device does, have to go on as well.
#[derive(Debug)]
pub(super) struct Throttled {
    /// Folders to remove, the innermost first; the first has the limit.
    folders: Vec<PathBuf>,
    parent: PathBuf,
    pid: u32,
}

impl Throttled {
    /// Why this cannot be done here.
    pub(super) fn obstacle() -> Option<&'static str> {
        let (root, _) = parent();
        (!root.join("cgroup.procs").exists()).then_some("this machine has no cgroup with a CPU controller")
    }

    /// Puts a process into one: of the second version where that has the CPU controller, else of the first.
    pub(super) fn new(pid: u32, period_ms: f64) -> anyhow::Result<Self> {
        let period_us = (period_ms * 1000.0).round();
        let (parent, is_second) = parent();
        if is_second {
            fs::write(parent.join("cgroup.subtree_control"), "+cpu").context("cannot have CPU limits")?;
        }
        // One that a killed run left behind is taken over.
        let outer = parent.join("stallscope-faults");
        let inner = outer.join("late");
        let throttled = Self { folders: vec![inner.clone(), outer.clone()], parent, pid };
        fs::create_dir_all(&inner).with_context(|| format!("cannot make {}", inner.display()))?;
        let set = |folder: &Path, file: &str, value: &str| {
            fs::write(folder.join(file), value).with_context(|| format!("cannot write {value} to {file}"))
        };
        if is_second {
            set(&outer, "cgroup.procs", &pid.to_string())?;
            set(&inner, "cgroup.type", "threaded")?;
            set(&outer, "cgroup.subtree_control", "+cpu")?;
            // Its limit is to harm it, and not its share: that of the other ranks.
            for folder in [&outer, &inner] {
                set(folder, "cpu.weight.nice", RANKS_NICE)?;
            }
            set(&inner, "cpu.max", &format!("1000 {period_us}"))?;
            set(&inner, "cgroup.threads", &pid.to_string())?;
        } else {
            for folder in [&outer, &inner] {
                set(folder, "cpu.shares", RANKS_SHARES)?;
            }
            set(&inner, "cpu.cfs_period_us", &period_us.to_string())?;
            set(&inner, "cpu.cfs_quota_us", "1000")?;
            set(&inner, "tasks", &pid.to_string())?;
        }
        Ok(throttled)
    }

    /// For how long it has been throttled, ns.
    pub(super) fn throttled_ns(&self) -> anyhow::Result<u64> {
        let folder = self.folders.first().context("a folder")?;
        let text = fs::read_to_string(folder.join("cpu.stat"))?;
        let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        of("throttled_time ").or_else(|| of("throttled_usec ").map(|us| us * 1000)).context("cpu.stat")
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        // The process may be gone; then its cgroup is empty.
        let _ = fs::write(self.parent.join("cgroup.procs"), self.pid.to_string());
        for folder in &self.folders {
            for _ in 0..100 {
                if fs::remove_dir(folder).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Processes that compute on one CPU.
#[derive(Debug)]
pub(super) struct Antagonists(Vec<Child>);

impl Antagonists {
    /// Gives a rank's main thread one CPU, those of the others the rest, and starts so many.
    pub(super) fn new(pid: u32, others: &[u32], count: u32) -> anyhow::Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        ensure!(cpus > 1, "there is one CPU only");
        pin(pid, "0")?;
        for other in others {
            pin(*other, &format!("1-{}", cpus - 1))?;
        }
        let start = |_| {
            let mut command = Command::new("python3");
            command.arg(programs().join("antagonist.py")).arg("0").stdin(Stdio::null()).spawn()
        };
        Ok(Self((0..count).map(start).collect::<Result<_, _>>()?))
    }
}

impl Drop for Antagonists {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pin(pid: u32, cpus: &str) -> anyhow::Result<()> {
    let done = Command::new("taskset").args(["-p", "-c", cpus, &pid.to_string()]).output()?;
    ensure!(done.status.success(), "taskset: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// How long the main thread of a process has waited for a CPU, ns.
pub(super) fn run_delay_ns(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(text.split(' ').nth(1).context("schedstat")?.parse()?)
}

/// A network namespace with a server behind a link.
#[derive(Debug)]
pub(super) struct Peer {
    name: String,
    server: Option<Child>,
}

const PEER: &str = "10.213.77.2";
const PORT: &str = "7777";

impl Peer {
    pub(super) fn new(what: Network) -> anyhow::Result<Self> {
        let name = "stallfaults".to_owned();
        let outer = format!("{name}o");
        // One that a killed run left behind.
        drop(Self { name: name.clone(), server: None });
        let mut peer = Self { name: name.clone(), server: None };
        let ip = |arguments: &str| tool("ip", arguments);
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {outer} type veth peer name inner netns {name}"))?;
        ip(&format!("addr add 10.213.77.1/24 dev {outer}"))?;
        ip(&format!("link set {outer} up"))?;
        ip(&format!("-n {name} addr add {PEER}/24 dev inner"))?;
        ip(&format!("-n {name} link set inner up"))?;
        let inside = |command: &str| tool("ip", &format!("netns exec {name} {command}"));
        match what {
            Network::SlowPeer => {}
            Network::Rate => {
                let kbit = RATE_BYTES_A_MS * 8;
                inside(&format!("tc qdisc add dev inner root tbf rate {kbit}kbit burst 20kb latency 200ms"))?;
            }
            Network::Loss => {
                inside("nft add table ip faults")?;
                inside("nft add chain ip faults out { type filter hook output priority 0 ; }")?;
                // Packets leave it one by one, as from a network card: else there would be few, and large.
                inside("ip link set dev inner gso_max_segs 1")?;
                inside("nft add rule ip faults out numgen random mod 10 0 drop")?;
            }
        }
        let mut server = Command::new("ip")
            .args(["netns", "exec", &name, "python3"])
            .arg(programs().join("slow_peer.py"))
            .args([PEER, PORT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("its output")?).read_line(&mut line)?;
        peer.server = Some(server);
        ensure!(line == "ready\n", "the peer did not start");
        Ok(peer)
    }

    /// What the trainer is told.
    pub(super) fn arguments(what: Network) -> [String; 4] {
        let bytes = match what {
            Network::SlowPeer => 0,
            Network::Rate => RATE_BYTES_A_MS,
            Network::Loss => RATE_BYTES_A_MS / 10,
        };
        ["--fetch-from".into(), format!("{PEER}:{PORT}"), "--fetch-bytes-a-ms".into(), bytes.to_string()]
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        // The link goes with the namespace.
        let _ = tool("ip", &format!("link del {}o", self.name));
        let _ = tool("ip", &format!("netns del {}", self.name));
    }
}

pub(super) fn tool(program: &str, arguments: &str) -> anyhow::Result<()> {
    let done =
        Command::new(program).args(arguments.split(' ')).output().with_context(|| program.to_owned())?;
    ensure!(done.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
