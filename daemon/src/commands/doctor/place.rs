//! Where this process runs, and what runs beside it that a probe on this kernel cannot see.

use stallscope_ebpf::Standing;
use stallscope_jobs::{Host, Process, State};

use super::trial::Trial;
use super::{Check, Group, Seen, degraded, missing};

/// The kernel gives its first namespaces numbers of their own, the same on every host.
pub(super) const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";
const HOST_USER_NAMESPACE: &str = "user:[4026531837]";

pub(super) fn checks(seen: &Seen) -> Vec<Check> {
    vec![
        gvisor(seen).needed(),
        kata(seen).needed(),
        pid_namespace(seen).needed(),
        user_namespace(seen).needed(),
        processes(seen),
    ]
}

fn check(id: &str, name: &str, finding: impl Into<String>, standing: Standing) -> Check {
    Check::new(&format!("place.{id}"), Group::Place, name, finding, standing)
}

fn gvisor(seen: &Seen) -> Check {
    let beside = those(seen.processes.as_ref(), is_gvisor);
    let (finding, standing) = if let Some(sign) = seen.facts.gvisor {
        (
            format!("this is a gVisor sandbox: {sign}"),
            missing(
                "refused: this is a gVisor sandbox. Its kernel is a program that has no probes, and its processes are \
                 not the host kernel's processes: not even a recorder on the host sees their threads, calls and files",
                "run the job under runc: docker run --runtime=runc …, or a pod without runtimeClassName: gvisor",
            ),
        )
    } else if !beside.is_empty() {
        (
            format!("sandboxes on this host: {}", pids(&beside)),
            degraded(
                "refused: processes in a gVisor sandbox are not the host kernel's processes: their threads, calls and \
                 files are not seen",
                "run those jobs under runc: docker run --runtime=runc …, or a pod without runtimeClassName: gvisor",
            ),
        )
    } else {
        ("no sandbox, here or beside us".to_owned(), Standing::Works)
    };
    check("gvisor", "gVisor", finding, standing)
}

fn kata(seen: &Seen) -> Check {
    let beside = those(seen.processes.as_ref(), is_kata);
    let (finding, standing) = if let Some(sign) = seen.facts.kata {
        (
            format!("this is the guest of a Kata sandbox: {sign}"),
            missing(
                "refused: this is the guest of a Kata sandbox. What takes time away from it (the host's scheduler, \
                 disks, other pods) is not seen from inside, so that causes would be blamed wrongly",
                "run the job under runc: a pod without runtimeClassName: kata, and record on the node",
            ),
        )
    } else if !beside.is_empty() {
        (
            format!("sandboxes on this host: {}", pids(&beside)),
            degraded(
                "refused: processes in a Kata sandbox belong to the kernel of a virtual machine: on this host they are \
                 not to be seen, just the threads of the hypervisor",
                "run those jobs under runc: a pod without runtimeClassName: kata",
            ),
        )
    } else {
        ("no sandbox, here or beside us".to_owned(), Standing::Works)
    };
    check("kata", "Kata", finding, standing)
}

fn pid_namespace(seen: &Seen) -> Check {
    let (finding, standing) = match seen.facts.pid_namespace.as_deref() {
        Some(HOST_PID_NAMESPACE) => ("the host's".to_owned(), Standing::Works),
        Some(other) => (
            format!("{other}, not the host's"),
            missing(
                "this is not the host's pid namespace: the pids seen here are not those that the kernel's probes see, \
                 and other processes would be recorded in place of the job's",
                "run with the host's pids: docker run --pid=host …, in Kubernetes hostPID: true in the pod's spec",
            ),
        ),
        None => (
            "/proc/self/ns/pid cannot be read".to_owned(),
            degraded(
                "whether the pids seen here are those of the host",
                "mount /proc: sudo mount -t proc proc /proc",
            ),
        ),
    };
    check("pid_namespace", "pid namespace", finding, standing)
}

fn user_namespace(seen: &Seen) -> Check {
    let (finding, standing) = match seen.facts.user_namespace.as_deref() {
        Some(HOST_USER_NAMESPACE) => ("the host's".to_owned(), Standing::Works),
        // A namespace may be given the right to load programs.
        Some(other) if matches!(seen.trial, Trial::Attached { .. }) => {
            (format!("{other}, not the host's; probes are permitted all the same"), Standing::Works)
        }
        Some(other) => (
            format!("{other}, not the host's"),
            missing(
                "capabilities hold only inside of this user namespace, and loading kernel probes needs the host's",
                "run outside of it: with sudo and not in a rootless container (docker, podman: as root, --privileged)",
            ),
        ),
        None => ("none".to_owned(), Standing::Works),
    };
    check("user_namespace", "user namespace", finding, standing)
}

fn processes(seen: &Seen) -> Check {
    let (id, name) = ("processes", "processes");
    let Some(host) = &seen.processes else {
        let remedy = "mount it: sudo mount -t proc proc /proc";
        return check(id, name, "/proc cannot be listed", missing("/proc cannot be listed", remedy)).needed();
    };
    let listed = host.processes().filter(|process| !process.kernel_thread).count();
    let hidden = host.hidden();
    // The first process is what starts all others, and is often protected from everyone.
    let closed =
        |p: &Process| !p.kernel_thread && p.state != State::Zombie && !p.is_readable() && p.id.pid != 1;
    let closed = those(Some(host), closed);
    let may = seen.facts.has(super::checks::SYS_PTRACE);
    let standing = if hidden.unlisted || hidden.unreadable > 0 {
        degraded(
            "ranks among the processes that this /proc hides (it is mounted with hidepid)",
            "run as root (sudo stallscope …)",
        )
    } else if closed.is_empty() {
        Standing::Works
    } else if may {
        degraded(
            format!("ranks among processes that are closed to root as well: {}", pids(&closed)),
            "look into the rules of the security module (SELinux, AppArmor) that protects them",
        )
    } else {
        degraded(
            format!("ranks among processes of other users or protected ones: {}", pids(&closed)),
            "run as root (sudo stallscope …), or give CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        )
    };
    let jobs = host.jobs().len();
    check(id, name, format!("{listed}, in them jobs: {jobs} (stallscope ps lists them)"), standing)
}

/// Pids of the processes that are such.
fn those(host: Option<&Host>, are: fn(&Process) -> bool) -> Vec<u32> {
    host.into_iter().flat_map(Host::processes).filter(|p| are(p)).map(|p| p.id.pid).collect()
}

/// The program of a process: its name may be anything.
fn program(process: &Process) -> &str {
    let path = process.exe.as_deref().or(process.cmdline.first().map(String::as_str)).unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// `runsc boot` is the sandbox's kernel, and calls itself runsc-sandbox.
fn is_gvisor(process: &Process) -> bool {
    let first = process.cmdline.first().map(String::as_str).unwrap_or_default();
    first == "runsc-sandbox"
        || program(process) == "runsc" && process.cmdline.iter().any(|word| word == "boot")
}

/// Each sandbox has one shim; the hypervisor below it may be part of it.
fn is_kata(process: &Process) -> bool {
    program(process) == "containerd-shim-kata-v2"
}

/// `3 (pid 12, 13, 14)`
fn pids(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(4).map(u32::to_string).collect();
    let more = if pids.len() > named.len() { ", …" } else { "" };
    format!("{} (pid {}{more})", pids.len(), named.join(", "))
}
