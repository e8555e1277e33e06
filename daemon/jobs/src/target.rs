//! What a user meant by `--pid`, `--job`, `--container`, `--pod` or `--slurm`.
//!
//! | target | takes |
//! |---|---|
//! | a pid in a job: rank, helper or launcher | all ranks of that job on this host |
//! | a pid above the ranks of a job (a shell, sudo, a container's first process) | the same |
//! | any other pid | that process as a job of one rank without a number, with all below it |
//! | `only` with any pid | just that process, with all below it |
//! | a job | its ranks on this host |
//! | a container, pod or Slurm job | the ranks in it; with none, its processes as one rank without a number |

use std::collections::BTreeMap;

use crate::cgroup::SlurmId;
use crate::find::{self, below, slurm_of};
use crate::host::Host;
use crate::job::{Container, Job, Pod, Rank};
use crate::process::{Life, Process, ProcessId, State};
use crate::runtime;

/// What to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Processes.
    Pid {
        /// Their pids.
        pids: Vec<u32>,
        /// Just these and those below them, not the rest of their job.
        only: bool,
    },
    /// A job's id, or the beginning of one.
    Job(String),
    /// A container's id, the beginning of one, or its name.
    Container(String),
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name, or its uid.
        name: String,
    },
    /// A Slurm job `4242`, or one of its steps `4242.0`.
    Slurm(String),
}

/// A target that is not written as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetSyntax {
    /// A pod without its namespace.
    #[error("a pod is NAMESPACE/NAME")]
    Pod,
    /// Not a Slurm id.
    #[error("a Slurm job is a number, a step of it NUMBER.STEP")]
    Slurm,
}

impl Target {
    /// Reads `NAMESPACE/NAME`.
    ///
    /// # Errors
    ///
    /// Either part is missing.
    pub fn pod(text: &str) -> Result<Self, TargetSyntax> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(TargetSyntax::Pod),
        }
    }

    /// Reads `JOB` or `JOB.STEP`.
    ///
    /// # Errors
    ///
    /// The job is not a number.
    pub fn slurm(text: &str) -> Result<Self, TargetSyntax> {
        let job = text.split('.').next().unwrap_or(text);
        if job.is_empty() || !job.bytes().all(|b| b.is_ascii_digit()) || text.ends_with('.') {
            return Err(TargetSyntax::Slurm);
        }
        Ok(Self::Slurm(text.to_owned()))
    }

    /// Finds what is meant, and checks that it still runs.
    ///
    /// # Errors
    ///
    /// Nothing on this host is it, more than one thing is, or it cannot be recorded.
    pub fn resolve(&self, host: &Host) -> Result<Selection, ResolveError> {
        let selection = match self {
            Self::Pid { pids, only } => by_pids(host, pids, *only)?,
            Self::Job(id) => Selection { jobs: vec![by_job_id(host, id)?], notes: Vec::new() },
            Self::Container(text) => by_container(host, text)?,
            Self::Pod { namespace, name } => by_pod(host, namespace, name)?,
            Self::Slurm(text) => by_slurm(host, text)?,
        };
        selection.still_there(host)
    }
}

/// What a target stands for. There is at least one job, and each has at least one rank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Jobs with those of their ranks that are selected.
    pub jobs: Vec<Job>,
    /// What the user should know about how it was chosen: one sentence each.
    pub notes: Vec<String>,
}

impl Selection {
    /// All selected ranks.
    pub fn ranks(&self) -> impl Iterator<Item = &Rank> + '_ {
        self.jobs.iter().flat_map(|job| &job.ranks)
    }

    /// All selected processes: ranks and their helpers.
    pub fn processes(&self) -> impl Iterator<Item = ProcessId> + '_ {
        self.jobs.iter().flat_map(Job::processes)
    }

    /// Takes out ranks that ended since the host was looked at.
    fn still_there(mut self, host: &Host) -> Result<Self, ResolveError> {
        let mut gone = None;
        for job in &mut self.jobs {
            job.ranks.retain(|rank| {
                let runs = host.life(rank.process) == Life::Running;
                if !runs {
                    gone = Some(rank.process.pid);
                    self.notes.push(format!("process {} ended meanwhile and is left out", rank.process.pid));
                }
                runs
            });
        }
        self.jobs.retain(|job| !job.ranks.is_empty());
        let hangs = |id: &ProcessId| host.process(id.pid).is_some_and(|process| process.hangs);
        let hanging: Vec<String> = self.processes().filter(hangs).map(|id| id.pid.to_string()).collect();
        if !hanging.is_empty() {
            self.notes.push(format!(
                "process {} hangs in the kernel: what it was called with is not known, and its functions have no names",
                hanging.join(", ")
            ));
        }
        match gone {
            Some(pid) if self.jobs.is_empty() => Err(ResolveError::Exited { pid }),
            _ => Ok(self),
        }
    }
}

/// Why a target cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No process has this pid.
    #[error("there is no process {pid}")]
    NoSuchProcess {
        /// As asked for.
        pid: u32,
    },
    /// A thread's id.
    #[error("{tid} is a thread of process {pid}; name the process")]
    Thread {
        /// As asked for.
        tid: u32,
        /// Its process.
        pid: u32,
    },
    /// The kernel's own.
    #[error("process {pid} ({}) is a thread of the kernel", printable(.comm))]
    KernelThread {
        /// As asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// Ended, not yet waited for.
    #[error("process {pid} has ended; its parent has not waited for it yet (zombie)")]
    Zombie {
        /// As asked for.
        pid: u32,
    },
    /// It was there a moment ago.
    #[error("process {pid} ended meanwhile")]
    Exited {
        /// As asked for.
        pid: u32,
    },
    /// The kernel does not let us look at it.
    #[error("process {pid}{} is closed to us: another user's, or protected from tracing; root sees more, or CAP_SYS_PTRACE with CAP_DAC_READ_SEARCH",
        .uid.map(|u| format!(" of uid {u}")).unwrap_or_default())]
    AnotherUser {
        /// As asked for.
        pid: u32,
        /// Its user.
        uid: Option<u32>,
    },
    /// No process was named.
    #[error("no process is named")]
    Nothing,
    /// Not the id of a job.
    #[error("there is no job {} on this host{}", printable(.id), known(.near))]
    NoSuchJob {
        /// As asked for.
        id: String,
        /// Ids that exist.
        near: Vec<String>,
    },
    /// The beginning of several.
    #[error("several jobs begin with {}{}", printable(.id), known(.matches))]
    AmbiguousJob {
        /// As asked for.
        id: String,
        /// Those that match.
        matches: Vec<String>,
    },
    /// No process is in such a container.
    #[error("no container {} runs on this host{}", printable(.text), known(.near))]
    NoSuchContainer {
        /// As asked for.
        text: String,
        /// Those that are like it, or all.
        near: Vec<String>,
    },
    /// The beginning of several.
    #[error("several containers match {}{}", printable(.text), known(.matches))]
    AmbiguousContainer {
        /// As asked for.
        text: String,
        /// Those that match.
        matches: Vec<String>,
    },
    /// No process is in such a pod.
    #[error("no pod {}/{} runs on this host{}", printable(.namespace), printable(.name), known(.near))]
    NoSuchPod {
        /// As asked for.
        namespace: String,
        /// As asked for.
        name: String,
        /// Those that are like it, or all.
        near: Vec<String>,
    },
    /// No process is in such a Slurm job.
    #[error("Slurm job {} has no processes on this host{}", printable(.text), known(.near))]
    NoSuchSlurmJob {
        /// As asked for.
        text: String,
        /// Those that are here.
        near: Vec<String>,
    },
}

/// Names listed in an error message; more than these would hide it.
const NEAR: usize = 6;

/// Names come from other users: a control character in one would act on the terminal that shows the message.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let more = if names.len() > NEAR { ", …" } else { "" };
    let names: Vec<_> = names.iter().take(NEAR).map(|n| printable(n)).collect();
    format!("; there is {}{more}", names.join(", "))
}

/// Those of `all` that contain the text, else all.
fn near(text: &str, all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.sort();
    all.dedup();
    let like: Vec<String> = all.iter().filter(|name| name.contains(text)).cloned().collect();
    if like.is_empty() { all } else { like }
}

fn by_pids(host: &Host, pids: &[u32], only: bool) -> Result<Selection, ResolveError> {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for &pid in pids {
        let process = recordable(host, pid)?;
        let found = if only { vec![alone(host, process)?] } else { jobs_of(host, process)? };
        for job in found {
            jobs.entry(job.id.clone()).or_insert(job);
        }
    }
    if jobs.is_empty() {
        return Err(ResolveError::Nothing);
    }
    Ok(Selection { jobs: jobs.into_values().collect(), notes: Vec::new() })
}

/// The process of a pid, or why it cannot be recorded.
fn recordable(host: &Host, pid: u32) -> Result<&Process, ResolveError> {
    let Some(process) = host.process(pid) else {
        return Err(match host.process_of_thread(pid) {
            Some(group) => ResolveError::Thread { tid: pid, pid: group },
            None => ResolveError::NoSuchProcess { pid },
        });
    };
    match host.life(process.id) {
        Life::Running => {}
        Life::Zombie => return Err(ResolveError::Zombie { pid }),
        Life::Exited | Life::Reused => return Err(ResolveError::Exited { pid }),
    }
    if process.kernel_thread {
        return Err(ResolveError::KernelThread { pid, comm: process.comm.clone() });
    }
    if !process.is_readable() && !process.hangs {
        return Err(ResolveError::AnotherUser { pid, uid: process.uid });
    }
    Ok(process)
}

fn jobs_of(host: &Host, process: &Process) -> Result<Vec<Job>, ResolveError> {
    let is = |id: ProcessId| id == process.id;
    let own: Vec<Job> = host.jobs().iter().filter(|job| job.processes().any(is)).cloned().collect();
    if !own.is_empty() {
        return Ok(own);
    }
    let launched: Vec<Job> =
        host.jobs().iter().filter(|job| job.launchers.iter().any(|l| is(l.process))).cloned().collect();
    if !launched.is_empty() {
        return Ok(launched);
    }
    let below = below(host, process.id.pid);
    let contained: Vec<Job> = host
        .jobs()
        .iter()
        .filter(|job| job.ranks.iter().any(|rank| below.contains(&rank.process)))
        .cloned()
        .collect();
    if contained.is_empty() { Ok(vec![alone(host, process)?]) } else { Ok(contained) }
}

/// One process with all below it. A rank keeps its number.
fn alone(host: &Host, process: &Process) -> Result<Job, ResolveError> {
    for job in host.jobs() {
        if let Some(rank) = job.ranks.iter().find(|rank| rank.process == process.id) {
            let mut rank = rank.clone();
            let below = below(host, process.id.pid);
            // A rank's wrappers are above it.
            rank.helpers.retain(|helper| below.contains(helper));
            return Ok(Job { ranks: vec![rank], id: format!("pid-{}", process.id.pid), ..job.clone() });
        }
    }
    let pid = process.id.pid;
    find::single(host, pid, below(host, pid)).ok_or(ResolveError::Exited { pid })
}

fn by_job_id(host: &Host, id: &str) -> Result<Job, ResolveError> {
    if let Some(job) = host.jobs().iter().find(|job| job.id == id) {
        return Ok(job.clone());
    }
    let matches: Vec<&Job> =
        host.jobs().iter().filter(|job| !id.is_empty() && job.id.starts_with(id)).collect();
    match matches.as_slice() {
        [job] => Ok((*job).clone()),
        [] => Err(ResolveError::NoSuchJob {
            id: id.to_owned(),
            near: near(id, host.jobs().iter().map(|job| job.id.clone())),
        }),
        several => Err(ResolveError::AmbiguousJob {
            id: id.to_owned(),
            matches: several.iter().map(|job| job.id.clone()).collect(),
        }),
    }
}

/// One container, and who is in it.
struct Place {
    container: Option<Container>,
    pod: Option<Pod>,
    /// By age.
    members: Vec<ProcessId>,
}

/// All containers and pods with processes.
fn places(host: &Host) -> Vec<Place> {
    let mut members: BTreeMap<(Option<&str>, Option<&str>), Vec<&Process>> = BTreeMap::new();
    for process in host.processes().filter(|p| p.state != State::Zombie) {
        let key = (process.container_id(), process.placement.pod_uid.as_deref());
        // Kubernetes tells the processes of a pod where its server is, also where the cgroup is hidden.
        if key != (None, None) || process.variable("KUBERNETES_SERVICE_HOST").is_some() {
            members.entry(key).or_default().push(process);
        }
    }
    let mut places = Vec::new();
    for ((container, pod), mut processes) in members {
        processes.sort_by_key(|p| (p.id.start_ticks, p.id.pid));
        if container.is_none() && pod.is_none() {
            // Not known to be one place.
            places.extend(processes.into_iter().map(|p| place(host, p, vec![p.id])));
        } else if let Some(&first) = processes.first() {
            places.push(place(host, first, processes.iter().map(|p| p.id).collect()));
        }
    }
    places
}

fn place(host: &Host, process: &Process, members: Vec<ProcessId>) -> Place {
    let folder = host.folder(process.id);
    let (container, pod) = runtime::placed(host.host_root(), folder.as_ref(), process);
    Place { container, pod, members }
}

fn by_container(host: &Host, text: &str) -> Result<Selection, ResolveError> {
    let places: Vec<(Container, Place)> =
        places(host).into_iter().filter_map(|mut place| Some((place.container.take()?, place))).collect();
    let label = |container: &Container| {
        let short = container.id.get(..12).unwrap_or(&container.id);
        container.name.as_ref().map_or_else(|| short.to_owned(), |name| format!("{short} ({name})"))
    };
    let exact = |c: &Container| c.id == text || c.name.as_deref() == Some(text);
    let mut matches: Vec<&(Container, Place)> = places.iter().filter(|(c, _)| exact(c)).collect();
    if matches.is_empty() && !text.is_empty() {
        matches = places.iter().filter(|(c, _)| c.id.starts_with(text)).collect();
    }
    match matches.as_slice() {
        [(_, place)] => within(host, &place.members),
        [] => Err(ResolveError::NoSuchContainer {
            text: text.to_owned(),
            near: near(text, places.iter().map(|(c, _)| label(c))),
        }),
        several => Err(ResolveError::AmbiguousContainer {
            text: text.to_owned(),
            matches: several.iter().map(|(c, _)| label(c)).collect(),
        }),
    }
}

fn by_pod(host: &Host, namespace: &str, name: &str) -> Result<Selection, ResolveError> {
    let places = places(host);
    let mut members = Vec::new();
    let mut unsure = false;
    for place in &places {
        let Some(pod) = &place.pod else { continue };
        let named = pod.name.as_deref() == Some(name) || pod.uid.as_deref() == Some(name);
        if named && pod.namespace.as_deref().is_none_or(|n| n == namespace) {
            unsure |= pod.namespace.is_none();
            members.extend_from_slice(&place.members);
        }
    }
    if members.is_empty() {
        let names = places.iter().filter_map(|place| place.pod.as_ref()).map(|pod| {
            let name = pod.name.as_ref().or(pod.uid.as_ref());
            format!("{}/{}", pod.namespace.as_deref().unwrap_or("?"), name.map_or("?", String::as_str))
        });
        let near = near(name, names);
        return Err(ResolveError::NoSuchPod { namespace: namespace.to_owned(), name: name.to_owned(), near });
    }
    let mut selection = within(host, &members)?;
    if unsure {
        selection.notes.push(format!("pod {name} does not say its namespace; it is taken for {namespace}"));
    }
    Ok(selection)
}

fn by_slurm(host: &Host, text: &str) -> Result<Selection, ResolveError> {
    let matches = |id: &SlurmId| id.job == text || id.to_string() == text;
    let tasks = |p: &&Process| p.comm != "slurmstepd" && p.state != State::Zombie;
    let members: Vec<ProcessId> = host
        .processes()
        .filter(tasks)
        .filter(|p| slurm_of(p).as_ref().is_some_and(matches))
        .map(|p| p.id)
        .collect();
    if members.is_empty() {
        let ids = host.processes().filter_map(slurm_of).map(|id| id.to_string());
        return Err(ResolveError::NoSuchSlurmJob { text: text.to_owned(), near: near(text, ids) });
    }
    within(host, &members)
}

/// The ranks among some processes; with none, the processes as one rank: the oldest that does more than hold a pod's
/// namespaces, and the others as its helpers.
fn within(host: &Host, members: &[ProcessId]) -> Result<Selection, ResolveError> {
    let mut jobs: Vec<Job> = host.jobs().to_vec();
    for job in &mut jobs {
        job.ranks.retain(|rank| members.contains(&rank.process));
    }
    jobs.retain(|job| !job.ranks.is_empty());
    if jobs.is_empty() {
        let mut members: Vec<&Process> =
            members.iter().filter_map(|id| host.process(id.pid)).filter(|p| p.comm != "pause").collect();
        members.sort_by_key(|p| (p.id.start_ticks, p.id.pid));
        let first = *members.first().ok_or(ResolveError::Nothing)?;
        let first = recordable(host, first.id.pid)?;
        let pid = first.id.pid;
        let helpers = members.iter().map(|p| p.id).filter(|&id| id != first.id).collect();
        jobs.push(find::single(host, pid, helpers).ok_or(ResolveError::Exited { pid })?);
    }
    Ok(Selection { jobs, notes: Vec::new() })
}
