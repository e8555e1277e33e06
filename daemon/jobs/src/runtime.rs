//! What containers and pods are called: the runtime's own files first, then what the kubelet mounts, then what the
//! process was told.
//!
//! | what | where |
//! |---|---|
//! | Docker's name | `/var/lib/docker/containers/ID/config.v2.json` |
//! | containerd's bundle | `/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json` |
//! | CRI-O's and Podman's bundle | `/run/containers/storage/overlay-containers/ID/userdata/config.json` |
//! | namespace of a pod | `/var/run/secrets/kubernetes.io/serviceaccount/namespace` in the container |
//! | name of a pod | `/etc/hostname` in the container, `POD_NAME`, `HOSTNAME` |

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::cgroup::ContainerRuntime;
use crate::environment::Environment;
use crate::job::{Container, Pod, PodNameSource};
use crate::process::{Process, Readable};
use crate::procfs::{ProcessDir, read_text};

/// Bundles are tens of KiB: all mounts, capabilities and seccomp rules of a container.
const BUNDLE_BYTES: u64 = 1 << 20;

/// The OCI bundle's part that we read.
#[derive(Debug, Default, Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The part of Docker's own state that we read.
#[derive(Debug, Deserialize)]
struct DockerState {
    #[serde(rename = "Name")]
    name: Option<String>,
}

/// Names of one container, from the files of its runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    container: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
}

/// Where a process is contained, with names as far as they can be found.
pub(crate) fn placed(
    host_root: &Path,
    folder: Option<&ProcessDir>,
    process: &Process,
) -> (Option<Container>, Option<Pod>) {
    let names = process
        .placement
        .container
        .as_ref()
        .map(|(runtime, id)| runtime_names(host_root, *runtime, id))
        .unwrap_or_default();
    let container = process.placement.container.as_ref().map(|(runtime, id)| Container {
        runtime: *runtime,
        id: id.clone(),
        name: names.container.clone(),
    });
    (container, pod(folder, process, names))
}

fn runtime_names(root: &Path, runtime: ContainerRuntime, id: &str) -> Names {
    // The id becomes part of a path. Those of LXC are names that its owner chose; it keeps no such files.
    if runtime == ContainerRuntime::Lxc || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Names::default();
    }
    if matches!(runtime, ContainerRuntime::Docker | ContainerRuntime::Unknown)
        && let Some(text) =
            read_text(&root.join(format!("var/lib/docker/containers/{id}/config.v2.json")), BUNDLE_BYTES)
        && let Ok(state) = serde_json::from_str::<DockerState>(&text)
    {
        let name = state.name.map(|n| n.trim_start_matches('/').to_owned());
        return Names { container: name, ..Names::default() };
    }
    let bundles = [
        format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
        format!("run/containerd/io.containerd.runtime.v2.task/default/{id}/config.json"),
        format!("run/containers/storage/overlay-containers/{id}/userdata/config.json"),
        format!("var/run/containers/storage/overlay-containers/{id}/userdata/config.json"),
    ];
    for bundle in bundles {
        let Some(text) = read_text(&root.join(bundle), BUNDLE_BYTES) else { continue };
        let Ok(bundle) = serde_json::from_str::<Bundle>(&text) else { continue };
        let first = |keys: &[&str]| keys.iter().find_map(|k| bundle.annotations.get(*k)).cloned();
        return Names {
            container: first(&[
                "io.kubernetes.cri.container-name",
                "io.kubernetes.container.name",
                "nerdctl/name",
            ]),
            pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
            namespace: first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        };
    }
    Names::default()
}

fn pod(folder: Option<&ProcessDir>, process: &Process, names: Names) -> Option<Pod> {
    let uid = process.placement.pod_uid.clone();
    let empty = Environment::default();
    let environment = match &process.environment {
        Readable::Yes(environment) => environment,
        Readable::Denied => &empty,
    };
    // Without a pod's cgroup (a private cgroup namespace hides it), only Kubernetes sets this variable.
    if uid.is_none() && names.pod.is_none() && environment.get("KUBERNETES_SERVICE_HOST").is_none() {
        return None;
    }
    if let Some(name) = names.pod {
        return Some(Pod {
            uid,
            name: Some(name),
            namespace: names.namespace,
            named_by: Some(PodNameSource::Runtime),
        });
    }
    let line = |path| {
        let text = folder?.small_file(path)?;
        text.lines().next().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned)
    };
    let variable = |name| environment.get(name).filter(|v| !v.is_empty()).map(str::to_owned);
    let namespace =
        line("var/run/secrets/kubernetes.io/serviceaccount/namespace").or_else(|| variable("POD_NAMESPACE"));
    let mounted = line("etc/hostname").map(|name| (name, PodNameSource::Mounted));
    let told = variable("POD_NAME").map(|name| (name, PodNameSource::Environment));
    // On the host's network /etc/hostname and HOSTNAME name the node; a pod that knows better sets POD_NAME.
    let named =
        told.or(mounted).or_else(|| variable("HOSTNAME").map(|name| (name, PodNameSource::Environment)));
    let (name, named_by) = named.unzip();
    Some(Pod { uid, name, namespace, named_by })
}
