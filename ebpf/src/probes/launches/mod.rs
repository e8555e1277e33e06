//! Sampled launches: the site that the agent in a CUDA process fires, and the stacks taken there.
//!
//! - `site`: where the site is in the agent's file, by the note that describes it.
//!
//! The agent is a memfd of each process, or one file that several processes of a launched job have loaded: a probe is on
//! a file, so that each file is probed once, whoever maps it.

mod site;

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;

use libbpf_rs::{Link, UprobeMultiOpts};

use super::collectives::processes::{Mapping, mappings};
use super::{Probe, ProbeId, Standing, basics};
use crate::kernel::Kernel;
use crate::skeleton::StallscopeSkel;
use site::{SiteError, launch_site};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Launches,
    sees: "host stacks of a sample of the launches on GPUs (asked for by --launch-stacks)",
    programs: &["launch_multi", "launch_each"],
    can_run,
    // The agents come later: Launches does it.
    attach: |_, _| Ok(Vec::new().into()),
};

/// What the agent's file is called, whichever way it came in: a memfd, a hidden file, a file of the recorder.
const NAME_PARTS: [&str; 2] = ["stallscope-agent", "stallscope_agent"];

/// Agents that are probed: a job that makes processes without end gets no more links.
const MAX_FILES: usize = 4096;

fn can_run(kernel: &Kernel) -> Standing {
    if std::env::consts::ARCH != "x86_64" {
        return Standing::Missing {
            reason: "the agent's site is only known on x86-64".to_owned(),
            remedy: "none yet".to_owned(),
        };
    }
    match basics(kernel) {
        Standing::Works if !multi(kernel) => Standing::Degraded {
            lost: "nothing of the launches; attaching needs CAP_SYS_ADMIN".to_owned(),
            remedy: "use kernel 6.6 or newer (uprobe.multi)".to_owned(),
        },
        standing => standing,
    }
}

fn multi(kernel: &Kernel) -> bool {
    kernel.at_least(6, 6)
}

/// Whether a program is of the way of attaching that this kernel is not used with.
pub(crate) fn is_other_way(kernel: &Kernel, program: &str) -> bool {
    match program {
        "launch_multi" => !multi(kernel),
        "launch_each" => multi(kernel),
        _ => false,
    }
}

/// Why the launches of a process are not seen.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// Nobody may look at what it has mapped, or it is gone.
    #[error("its maps cannot be read: {0}")]
    Maps(#[source] std::io::Error),
    /// No file of the agent's name is mapped.
    #[error("the agent's file is not among what it has mapped")]
    NoAgent,
    /// The file is not to be opened.
    #[error("the agent's file cannot be opened: {0}")]
    Open(#[source] std::io::Error),
    /// The file describes no site that is understood.
    #[error("{0}")]
    Site(#[from] SiteError),
    /// The kernel refuses the probe.
    #[error("the kernel refuses the probe: {0}")]
    Attach(#[source] libbpf_rs::Error),
    /// There are too many.
    #[error("more than {MAX_FILES} agents are probed already")]
    TooMany,
}

/// The probes on the agents of one recording.
pub(crate) struct Launches {
    multi: bool,
    /// Device and inode of the files that are probed.
    files: HashSet<(String, u64)>,
    links: Vec<Link>,
}

impl Launches {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        Self { multi: multi(kernel), files: HashSet::new(), links: Vec::new() }
    }

    /// Probes the agent in a process, unless its file is probed already.
    pub(crate) fn follow(&mut self, skeleton: &StallscopeSkel<'static>, pid: u32) -> Result<(), Unseen> {
        let mappings = mappings(pid).map_err(Unseen::Maps)?;
        let agents: Vec<&Mapping> = mappings.iter().filter(|m| is_agent(&m.path)).collect();
        if agents.is_empty() {
            return Err(Unseen::NoAgent);
        }
        // An agent of another version may be there, at rest: each that fires is seen.
        for agent in agents {
            if self.files.contains(&agent.file) {
                continue;
            }
            if self.files.len() >= MAX_FILES {
                return Err(Unseen::TooMany);
            }
            let file = agent.open(pid).map_err(Unseen::Open)?;
            let at = launch_site(&file)?;
            self.links.push(attach(skeleton, self.multi, &file, at).map_err(Unseen::Attach)?);
            self.files.insert(agent.file.clone());
        }
        Ok(())
    }

    /// Takes all probes off.
    pub(crate) fn detach(&mut self) {
        self.links.clear();
        self.files.clear();
    }
}

fn is_agent(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    NAME_PARTS.iter().any(|part| name.contains(part))
}

fn attach(
    skeleton: &StallscopeSkel<'static>,
    multi: bool,
    file: &File,
    at: usize,
) -> Result<Link, libbpf_rs::Error> {
    // This names the file that was looked into, whatever has become of its path.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    if multi {
        let options = UprobeMultiOpts { offsets: vec![at], ..UprobeMultiOpts::default() };
        skeleton.progs.launch_multi.attach_uprobe_multi_with_opts(-1, path, "", options)
    } else {
        skeleton.progs.launch_each.attach_uprobe(false, -1, path, at)
    }
}

#[cfg(test)]
mod tests {
    use super::is_agent;

    #[test]
    fn the_agent_is_known_by_its_name_whichever_way_it_came_in() {
        for path in [
            "/memfd:stallscope-agent (deleted)",
            "/tmp/.stallscope-agent-17.so (deleted)",
            "/tmp/stallscope-x/libstallscope_agent.so",
        ] {
            assert!(is_agent(path), "{path}");
        }
        for path in ["/memfd:stallscope-ring (deleted)", "/usr/bin/stallscope", "/stallscope-agent/libx.so"] {
            assert!(!is_agent(path), "{path}");
        }
    }
}
