//! Ranks under an MPI, each in a network namespace of its own: they talk TCP by way of a bridge, and the link of one can be
//! made bad while they run. Everything is gone when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::cases::Link;
use super::inject::tool;
use crate::live::job::{mpi_venv, programs};

/// Namespaces, a link from each to a bridge, and the job in them.
#[derive(Debug)]
pub(super) struct Ranks {
    names: Names,
    count: u32,
    job: Option<Child>,
    /// What carries the packets of each rank, where links are to be made slow: of all, so that they are alike.
    relays: Vec<Child>,
}

/// Names and addresses, of this run alone.
#[derive(Clone, Debug)]
struct Names {
    prefix: String,
    /// The first three numbers of each address.
    subnet: String,
}

impl Names {
    fn new() -> Self {
        let pid = std::process::id();
        Self { prefix: format!("sf{pid}"), subnet: format!("10.214.{}", pid % 256) }
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    fn namespace(&self, rank: u32) -> String {
        format!("{}r{rank}", self.prefix)
    }

    /// The end of a rank's link that lies in the bridge.
    fn port(&self, rank: u32) -> String {
        format!("{}p{rank}", self.prefix)
    }
}

/// The other end of a link, in the rank's namespace.
const INNER: &str = "rank";

impl Ranks {
    /// Makes the network, with links to which [`Link::Delay`] can be done, where that is asked for.
    pub(super) fn new(count: u32, are_relayed: bool) -> anyhow::Result<Self> {
        let names = Names::new();
        let (bridge, subnet) = (names.bridge(), names.subnet.clone());
        let mut ranks = Self { names, count, job: None, relays: Vec::new() };
        let ip = |arguments: &str| tool("ip", arguments);
        ip(&format!("link add {bridge} type bridge"))?;
        // mpirun, which ranks ask about each other, stays outside.
        ip(&format!("addr add {subnet}.254/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for rank in 0..count {
            let (namespace, port) = (ranks.names.namespace(rank), ranks.names.port(rank));
            ip(&format!("netns add {namespace}"))?;
            if are_relayed {
                ranks.relays.push(relay(&port)?);
                ip(&format!("link set {port}{INNER} netns {namespace} name {INNER}"))?;
            } else {
                ip(&format!("link add {port} type veth peer name {INNER} netns {namespace}"))?;
            }
            ip(&format!("link set {port} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {subnet}.{}/24 dev {INNER}", rank + 1))?;
            ip(&format!("-n {namespace} link set {INNER} up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            // The same everywhere, and one that a namespace may always choose.
            let reno = "sysctl -qw net.ipv4.tcp_congestion_control=reno";
            ip(&format!("netns exec {namespace} {reno}"))?;
        }
        Ok(ranks)
    }

    /// Starts the job; the bridge has to be there.
    pub(super) fn start(&mut self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let venv = mpi_venv()?;
        let inside = format!("exec ip netns exec {}r$OMPI_COMM_WORLD_RANK \"$@\"", self.names.prefix);
        // Ahead of what else the machine does, as the ranks on GPUs are.
        let child = Command::new("nice")
            .args(["-n", "-10"])
            .arg(venv.join("bin/mpirun"))
            .args(["--allow-run-as-root", "--oversubscribe", "-n", &self.count.to_string()])
            .args(["--mca", "mpi_yield_when_idle", "1", "--mca", "pml", "ob1", "--mca", "btl", "tcp,self"])
            .args(["--mca", "btl_tcp_if_include", &format!("{}.0/24", self.names.subnet)])
            .args(["sh", "-c", &inside, "sh"])
            .arg(venv.join("bin/python"))
            .arg(programs().join(program))
            .args(arguments)
            .env("PMIX_MCA_ptl_base_if_include", self.names.bridge())
            .env("OMP_NUM_THREADS", "1")
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start mpirun")?;
        self.job = Some(child);
        Ok(())
    }

    /// Pid of mpirun, once the job has created a file.
    pub(super) fn begun(&mut self, file: &Path, patience: Duration) -> anyhow::Result<u32> {
        let job = self.job.as_mut().context("a job")?;
        let begin = Instant::now();
        while !file.exists() {
            if let Some(status) = job.try_wait()? {
                bail!("the job ended before it had begun: {status}");
            }
            ensure!(begin.elapsed() < patience, "the job has not begun within {patience:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(job.id())
    }

    /// Makes the link of a rank bad, both ways.
    pub(super) fn harm(&mut self, rank: u32, link: Link, dose: f64) -> anyhow::Result<()> {
        let (namespace, port) = (self.names.namespace(rank), self.names.port(rank));
        let inside = |command: &str| tool("ip", &format!("netns exec {namespace} {command}"));
        match link {
            Link::Good => Ok(()),
            Link::Rate => {
                let tbf = format!("root tbf rate {dose}mbit burst 20kb latency 200ms");
                inside(&format!("tc qdisc add dev {INNER} {tbf}"))?;
                tool("tc", &format!("qdisc add dev {port} {tbf}"))
            }
            Link::Delay => {
                let relay = usize::try_from(rank).ok().and_then(|rank| self.relays.get_mut(rank));
                let input = relay.and_then(|relay| relay.stdin.as_mut());
                Ok(writeln!(input.context("a link that can be made slow")?, "{dose}")?)
            }
            Link::Loss => {
                // Packets pass it one by one, as they do a network card: else there would be few, and large.
                inside(&format!("ip link set dev {INNER} gso_max_segs 1"))?;
                tool("ip", &format!("link set dev {port} gso_max_segs 1"))?;
                let table = &self.names.prefix;
                let drop = |device: &str, run: &dyn Fn(&str) -> anyhow::Result<()>| {
                    run(&format!("nft add table netdev {table}"))?;
                    let hook = format!("{{ type filter hook ingress device {device} priority 0 ; }}");
                    run(&format!("nft add chain netdev {table} in {hook}"))?;
                    run(&format!("nft add rule netdev {table} in numgen random mod 100 < {dose} drop"))
                };
                drop(INNER, &inside)?;
                drop(&port, &|command| tool("nft", command.trim_start_matches("nft ")))
            }
        }
    }
}

/// Starts what carries packets between two devices, and holds them back for as long as it is told. Kernels without `netem`
/// have nothing for that.
fn relay(port: &str) -> anyhow::Result<Child> {
    let mut relay = Command::new("nice")
        .args(["-n", "-10", "python3"])
        .arg(programs().join("slow_link.py"))
        .args([port, &format!("{port}{INNER}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(relay.stdout.take().context("its output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "no link that can be made slow: is there a /dev/net/tun?");
    Ok(relay)
}

impl Drop for Ranks {
    fn drop(&mut self) {
        if let Some(job) = &mut self.job
            && let Ok(None) = job.try_wait()
        {
            // mpirun passes SIGTERM on to its ranks; a SIGKILL would leave them behind.
            let _ = Command::new("kill").arg(job.id().to_string()).status();
            let _ = job.wait();
        }
        for relay in &mut self.relays {
            let _ = relay.kill();
            let _ = relay.wait();
        }
        if self.has_table() {
            let _ = tool("nft", &format!("delete table netdev {}", self.names.prefix));
        }
        for rank in 0..self.count {
            // Where it was not made, there is nothing to take away.
            let _ = tool("ip", &format!("link del {}", self.names.port(rank)));
            let _ = tool("ip", &format!("netns del {}", self.names.namespace(rank)));
        }
        let _ = tool("ip", &format!("link del {}", self.names.bridge()));
    }
}

impl Ranks {
    fn has_table(&self) -> bool {
        let tables = Command::new("nft").args(["list", "tables"]).output();
        tables.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(&self.names.prefix))
    }
}

/// When each step of a job began and ended, Unix ns, as it wrote that down; the last line may be cut off.
pub(super) fn steps(path: &Path) -> anyhow::Result<Vec<(i64, i64)>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let step = |line: &str| {
        let (from, to) = line.split_once(' ')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    Ok(whole.lines().filter_map(step).collect())
}
