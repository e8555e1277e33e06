//! Finds jobs in a table of processes.
//!
//! 1. *Seats* with a number: a process at which rank variables are set ([`crate::identity`]) is the root of a rank. The
//!    rank's own process is that root, or, where the root is a shell or has nothing mapped that computes, the process
//!    below it that has.
//! 2. Seats without a number: the topmost processes outside those that compute on a GPU or have a framework mapped.
//! 3. A process belongs to the nearest seat above it.
//! 4. Seats of one key are a job.

mod seats;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use crate::cgroup::SlurmId;
use crate::host::{Bystander, Host};
use crate::identity::{Identity, Source};
use crate::job::{Job, Launcher, Rank};
use crate::launcher::{self, LauncherKind, work_name};
use crate::mapped::Mapped;
use crate::process::{Process, ProcessId, State};
use crate::runtime;

use seats::{Seat, Seats};
use tree::Tree;

/// All jobs, the oldest first.
pub(crate) fn jobs(host: &Host) -> Vec<Job> {
    let tree = Tree::new(host);
    let seats = Seats::find(host, &tree);
    let helpers = seats.helpers(host, &tree);
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, seat) in seats.all.iter().enumerate() {
        groups.entry(&seat.key).or_default().push(at);
    }
    let mut jobs: Vec<Job> = groups
        .into_values()
        .filter_map(|members| {
            let ranks = members
                .iter()
                .filter_map(|&at| {
                    let (seat, helpers) = (&seats.all[at], helpers[at].clone());
                    let mapped = seats.mapped(seat.main);
                    rank(host, host.process(seat.main)?, seat.identity.as_ref(), mapped, helpers)
                })
                .collect();
            job(host, members.iter().map(|&at| &seats.all[at]), ranks)
        })
        .collect();
    jobs.sort_by_key(|job| job.ranks.iter().map(|r| (r.process.start_ticks, r.process.pid)).min());
    jobs
}

/// A job of one process that no rule takes for a rank, with what runs below it or beside it.
pub(crate) fn single(host: &Host, pid: u32, helpers: Vec<ProcessId>) -> Option<Job> {
    let process = host.process(pid)?;
    let rank = rank(host, process, None, host.mapped(process).as_ref(), helpers)?;
    Some(Job {
        id: format!("pid-{pid}"),
        name: work_name(process),
        launchers: Vec::new(),
        world_size: None,
        ranks: vec![rank],
    })
}

/// All processes below one, by age.
pub(crate) fn below(host: &Host, pid: u32) -> Vec<ProcessId> {
    let mut below: Vec<ProcessId> = Tree::new(host)
        .descendants(pid)
        .into_iter()
        .filter_map(|pid| host.process(pid))
        .filter(|p| p.state != State::Zombie)
        .map(|p| p.id)
        .collect();
    below.sort_by_key(|id| (id.start_ticks, id.pid));
    below
}

fn job<'s>(host: &Host, seats: impl Iterator<Item = &'s Seat> + Clone, mut ranks: Vec<Rank>) -> Option<Job> {
    ranks.sort_by_key(|r| (r.rank.is_none(), r.rank, r.process.start_ticks, r.process.pid));
    let first = ranks.first()?;
    let mut launchers: Vec<Launcher> = Vec::new();
    for launcher in seats.clone().flat_map(|seat| &seat.launchers) {
        if !launchers.contains(launcher) {
            launchers.push(*launcher);
        }
    }
    let world_size = first.world_size.filter(|_| ranks.iter().all(|r| r.world_size == first.world_size));
    let seat = seats.clone().next()?;
    Some(Job {
        id: job_id(seat, &ranks),
        name: host.process(first.process.pid).map(work_name).unwrap_or_default(),
        launchers,
        world_size,
        ranks,
    })
}

/// Slurm's own id where Slurm made the ranks, the pid of a lone process, else a hash of the key.
fn job_id(seat: &Seat, ranks: &[Rank]) -> String {
    let slurm = ranks.first().and_then(|rank| rank.slurm.as_ref());
    let source = seat.identity.as_ref().map(|i| i.source);
    match (source, slurm, ranks) {
        (Some(Source::Slurm), Some(slurm), _) => format!("slurm-{slurm}"),
        (None, _, [rank]) if seat.launchers.is_empty() => format!("pid-{}", rank.process.pid),
        (None, ..) => format!("py-{:06x}", fnv1a(&seat.key) & 0xff_ffff),
        (Some(Source::Torch), ..) => format!("torch-{:06x}", fnv1a(&seat.key) & 0xff_ffff),
        (Some(_), ..) => format!("mpi-{:06x}", fnv1a(&seat.key) & 0xff_ffff),
    }
}

/// FNV-1a, 64 bits: the standard library's hash may change with its version, a job's id may not.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn rank(
    host: &Host,
    process: &Process,
    identity: Option<&Identity>,
    mapped: Option<&Mapped>,
    helpers: Vec<ProcessId>,
) -> Option<Rank> {
    let folder = host.folder(process.id);
    let (container, pod) = runtime::placed(host.host_root(), folder.as_ref(), process);
    let master = process
        .variable("MASTER_ADDR")
        .zip(process.variable("MASTER_PORT"))
        .map(|(address, port)| format!("{address}:{port}"));
    Some(Rank {
        process: process.id,
        rank: identity.map(|i| i.rank),
        world_size: identity.and_then(|i| i.world_size),
        local_rank: identity.and_then(|i| i.local_rank),
        source: identity.map(|i| i.source),
        master,
        helpers,
        container,
        pod,
        slurm: slurm_of(process),
        frameworks: mapped.map(|m| m.frameworks.clone()).unwrap_or_default(),
        collectives: mapped.map(|m| m.collectives.clone()).unwrap_or_default(),
        gpus: process.gpus.clone(),
        python: mapped.and_then(|m| m.python),
        threads: process.threads,
        uid: process.uid,
        state: process.state,
        comm: process.comm.clone(),
        cmdline: process.cmdline.clone(),
        ns_pids: process.ns_pids.clone(),
        elapsed_ms: host.elapsed_ms(process.id),
        examined: mapped.is_some(),
    })
}

/// The Slurm job and step of a process: its cgroup is Slurm's word, its environment may be anybody's.
pub(crate) fn slurm_of(process: &Process) -> Option<SlurmId> {
    let told = || {
        let job = process.variable("SLURM_JOB_ID")?;
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let step = process.variable("SLURM_STEP_ID").filter(digits).map(|step| match step {
            // Slurm's numbers for steps that srun did not make (slurm.h).
            "4294967290" => "interactive".to_owned(),
            "4294967291" => "batch".to_owned(),
            "4294967292" => "extern".to_owned(),
            other => other.to_owned(),
        });
        digits(&job).then(|| SlurmId { job: job.to_owned(), step })
    };
    process.placement.slurm.clone().or_else(told)
}

/// Processes in no job that run Python, compute on a GPU, or would launch ranks; by pid.
pub(crate) fn bystanders(host: &Host) -> Vec<Bystander> {
    let taken: BTreeSet<u32> = host
        .jobs()
        .iter()
        .flat_map(|job| job.processes().chain(job.launchers.iter().map(|l| l.process)))
        .map(|id| id.pid)
        .collect();
    host.processes()
        .filter(|p| !p.kernel_thread && p.state != State::Zombie && !taken.contains(&p.id.pid))
        .filter_map(|p| {
            let why = if p.gpus.compute() {
                "computes on a GPU"
            } else if launcher::launcher(p).is_some() {
                "launcher, no rank found"
            } else if p.is_python() {
                "Python"
            } else if !p.is_readable() && p.container_id().is_some() {
                "container of another user"
            } else {
                return None;
            };
            Some(Bystander { process: p.id, why })
        })
        .collect()
}

/// The launchers above a process, innermost first; a Python program directly above counts where no other does.
fn launchers_above(host: &Host, tree: &Tree<'_>, root: u32) -> Vec<Launcher> {
    let launchers: Vec<Launcher> = tree
        .ancestors(root)
        .filter_map(|p| Some(Launcher { kind: launcher::launcher(p)?, process: p.id }))
        .collect();
    if launchers.is_empty()
        && let Some(parent) = host.process(root).and_then(|p| tree.parent(p))
        && parent.is_python()
    {
        return vec![Launcher { kind: LauncherKind::Python, process: parent.id }];
    }
    launchers
}
