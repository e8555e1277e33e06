//! Where a process is placed: container, pod and Slurm step, from the paths of its cgroups.
//!
//! Paths are made by runtimes and kubelets, in two drivers (systemd, cgroupfs) and two versions of cgroups. A path is read
//! component by component and the innermost match wins: a node that runs in a container has its pods' containers below.
//!
//! | who | component |
//! |---|---|
//! | Docker | `docker/ID`, `docker-ID.scope` |
//! | containerd | `cri-containerd-ID.scope`, `nerdctl-ID.scope` |
//! | CRI-O | `crio-ID.scope` (`crio-conmon-ID.scope` is its monitor, outside) |
//! | Podman | `libpod-ID.scope`, `libpod-ID` (likewise `libpod-conmon-…`) |
//! | any | a component that is nothing but an ID |
//! | LXC | `lxc/NAME`, `lxc.payload.NAME` |
//! | Kubernetes | `podUID`, `kubepods-…-podUID.slice` (dashes of the UID become underscores) |
//! | Slurm | `job_ID`, below it `step_N` |
//!
//! ID is 64 hexadecimal digits.

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerRuntime {
    /// Docker.
    Docker,
    /// containerd, by Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// LXC, LXD, Incus.
    Lxc,
    /// The path does not say: the cgroupfs driver of Kubernetes.
    Unknown,
}

impl ContainerRuntime {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Unknown => "unknown",
        }
    }
}

/// A Slurm job and the step in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlurmId {
    /// Job, in digits.
    pub job: String,
    /// Step: digits, or `batch`, `interactive`, `extern`.
    pub step: Option<String>,
}

impl std::fmt::Display for SlurmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.step {
            Some(step) => write!(f, "{}.{step}", self.job),
            None => write!(f, "{}", self.job),
        }
    }
}

/// What the cgroups of a process say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) container: Option<(ContainerRuntime, String)>,
    pub(crate) pod_uid: Option<String>,
    pub(crate) slurm: Option<SlurmId>,
}

impl Placement {
    /// Reads /proc/PID/cgroup: lines of `number:controllers:path`. On hosts with both versions the lines differ, and
    /// the one with most to say is right.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut placement = Self::default();
        for line in bytes.split(|&b| b == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some(path) = line.splitn(3, ':').nth(2) else { continue };
            let here = Self::of_path(path);
            // A named runtime is worth more than a bare id.
            let vague = |c: &Option<(ContainerRuntime, String)>| {
                c.as_ref().is_none_or(|(runtime, _)| *runtime == ContainerRuntime::Unknown)
            };
            if placement.container.is_none() || (vague(&placement.container) && !vague(&here.container)) {
                placement.container = here.container.or(placement.container);
            }
            placement.pod_uid = placement.pod_uid.or(here.pod_uid);
            let has_step = placement.slurm.as_ref().is_some_and(|s| s.step.is_some());
            if !has_step {
                placement.slurm = here.slurm.or(placement.slurm);
            }
        }
        placement
    }

    fn of_path(path: &str) -> Self {
        let mut placement = Self::default();
        let mut parent = "";
        for component in path.split('/').filter(|c| !c.is_empty()) {
            if let Some(container) = container(parent, component) {
                placement.container = Some(container);
            }
            if let Some(uid) = pod_uid(component) {
                placement.pod_uid = Some(uid);
            }
            if let Some(job) = component.strip_prefix("job_").filter(|j| is_digits(j)) {
                placement.slurm = Some(SlurmId { job: job.to_owned(), step: None });
            } else if let (Some(slurm), Some(step)) = (&mut placement.slurm, component.strip_prefix("step_"))
                && slurm.step.is_none()
                && (is_digits(step) || matches!(step, "batch" | "interactive" | "extern"))
            {
                slurm.step = Some(step.to_owned());
            }
            parent = component;
        }
        placement
    }
}

fn container(parent: &str, component: &str) -> Option<(ContainerRuntime, String)> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let prefixed = [
        ("docker-", ContainerRuntime::Docker),
        ("cri-containerd-", ContainerRuntime::Containerd),
        ("nerdctl-", ContainerRuntime::Containerd),
        ("crio-", ContainerRuntime::Crio),
        ("libpod-", ContainerRuntime::Podman),
    ];
    for (prefix, runtime) in prefixed {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((runtime, id.to_owned()));
        }
    }
    if is_id(name) {
        let runtime = if parent == "docker" { ContainerRuntime::Docker } else { ContainerRuntime::Unknown };
        return Some((runtime, name.to_owned()));
    }
    if parent == "lxc" {
        return Some((ContainerRuntime::Lxc, component.to_owned()));
    }
    let payload = component.strip_prefix("lxc.payload.").filter(|name| !name.is_empty())?;
    Some((ContainerRuntime::Lxc, payload.to_owned()))
}

/// The uid in `podUID` or `kubepods-burstable-podUID.slice`: a UUID, or for pods from a file 32 hexadecimal digits.
fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.rsplit_once("-pod")?.1,
    };
    let uuid = uid.replace('_', "-");
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    let shaped = matches!(groups.as_slice(), [32] | [8, 4, 4, 4, 12]);
    (shaped && uuid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())).then_some(uuid)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{ContainerRuntime, Placement};

    const ID: &str = "3f4c1b9e0a7d5c2f3f4c1b9e0a7d5c2f3f4c1b9e0a7d5c2f3f4c1b9e0a7d5c2f";
    const OUTER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
    const UID: &str = "1d2e3f40-5a6b-7c8d-9e0f-112233445566";

    fn place(text: &str) -> Placement {
        let uid = UID.replace('-', "_");
        let text = text.replace("OUTER", OUTER).replace("U_I_D", &uid).replace("UID", UID).replace("ID", ID);
        Placement::parse(text.as_bytes())
    }

    #[test]
    fn containers_of_every_runtime_and_driver() {
        use ContainerRuntime::{Containerd, Crio, Docker, Podman, Unknown};
        let pods = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice";
        for (text, runtime, in_pod) in [
            ("12:memory:/docker/ID\n0::/\n".to_owned(), Docker, false),
            ("0::/system.slice/docker-ID.scope\n".to_owned(), Docker, false),
            ("0::/machine.slice/libpod-ID.scope/container\n".to_owned(), Podman, false),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope".to_owned(),
                Podman,
                false,
            ),
            (format!("0::/{pods}/cri-containerd-ID.scope\n"), Containerd, true),
            (format!("4:pids:/{pods}/crio-ID.scope\n"), Crio, true),
            ("5:cpu:/kubepods/besteffort/podUID/ID\n".to_owned(), Unknown, true),
            ("0::/kubepods/podUID/ID".to_owned(), Unknown, true),
            ("0::/docker/OUTER/kubelet/kubepods/burstable/podUID/ID".to_owned(), Unknown, true),
            (
                "2:cpu:/kubepods/podUID/ID\n1:name=systemd:/x/cri-containerd-ID.scope".to_owned(),
                Containerd,
                true,
            ),
        ] {
            let placement = place(&text);
            assert_eq!(placement.container, Some((runtime, ID.to_owned())), "{text}");
            assert_eq!(placement.pod_uid.as_deref(), in_pod.then_some(UID), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_none() {
        for text in [
            "0::/\n",
            "0::/system.slice/docker.service",
            "0::/machine.slice/libpod-conmon-ID.scope",
            "0::/kubepods.slice/crio-conmon-ID.scope",
            "0::/system.slice/docker-IDID.scope",
            "0::/user.slice/podman-1234.scope",
            "0::/a/podcast-1234",
            "garbage",
            "",
        ] {
            assert_eq!(place(text), Placement::default(), "{text}");
        }
    }

    #[test]
    fn slurm_steps_of_both_versions() {
        for (text, id) in [
            ("9:memory:/slurm/uid_1000/job_4242/step_0/task_1", "4242.0"),
            ("0::/system.slice/slurmstepd.scope/job_4242/step_batch/user/task_0", "4242.batch"),
            ("9:memory:/slurm/uid_1000/job_4242\n8:cpu:/slurm/uid_1000/job_4242/step_3", "4242.3"),
            ("0::/system.slice/slurmstepd.scope/job_7", "7"),
        ] {
            assert_eq!(place(text).slurm.map(|s| s.to_string()).as_deref(), Some(id), "{text}");
        }
        assert_eq!(place("0::/job_x/step_1").slurm, None);
    }
}
