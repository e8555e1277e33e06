//! `stallscope doctor`: what of a job could be seen on this host, what is lost, and what would mend it.
//!
//! - [`facts`]: what /proc and /sys say, read below a root so that a made-up host is read in the same way.
//! - [`checks`], [`place`], [`gpu`]: facts become checks, each with a stable id. They read nothing.
//! - [`trial`]: the probes are loaded and attached for a moment, with nobody followed: the only answer that counts.
//! - [`show`]: checks as text and as JSON.
//!
//! What always holds: nothing is changed on the host, and a check that is not `works` says what would mend it.

mod checks;
mod facts;
mod gpu;
mod place;
mod show;
#[cfg(test)]
mod tests;
mod trial;

use std::path::Path;

use stallscope_ebpf::{ProbeId, SessionError, Standing};
use stallscope_jobs::{Host, Roots};
use stallscope_recorder::RecordError;

use crate::args::DoctorArgs;
use crate::failure::{Failure, Outcome};
use crate::files::print;
use facts::Facts;
use trial::Trial;

pub(crate) fn run(args: &DoctorArgs) -> Result<Outcome, Failure> {
    let root = Path::new("/");
    let facts = Facts::read(root);
    let before = stallscope_ebpf::probes::standings(&facts.kernel);
    let runnable = before.iter().any(|(id, _, standing)| *id == ProbeId::Sched && standing.usable());
    let trial = if args.quick || !runnable { Trial::NotTried } else { Trial::run() };
    let seen = Seen {
        processes: Host::scan_roots(&Roots { proc: root.join("proc"), host: root.to_owned() }).ok(),
        libraries: gpu::Libraries::find(root),
        facts,
        probes: before,
        trial,
    };
    let diagnosis = Diagnosis::of(&seen);
    print(&if args.json { show::json(&diagnosis) } else { show::text(&diagnosis) })?;
    match diagnosis.obstacle() {
        None => Ok(Outcome::Done),
        Some((reason, remedy)) => {
            let unable = SessionError::Unable { reason, remedy };
            Err(Failure::Record(RecordError::Session(unable)))
        }
    }
}

/// All that checks are made from.
struct Seen {
    facts: Facts,
    /// None where /proc cannot be listed.
    processes: Option<Host>,
    libraries: gpu::Libraries,
    /// Each probe with what it sees and how it stands before anything is loaded.
    probes: Vec<(ProbeId, &'static str, Standing)>,
    trial: Trial,
}

/// Checks are shown by group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Kernel,
    Privileges,
    /// Where this process runs, and what runs beside it.
    Place,
    Probes,
    /// What the agent needs that is put into processes which use CUDA. A host without GPUs lacks nothing.
    Gpu,
}

impl Group {
    const ALL: [Self; 5] = [Self::Kernel, Self::Privileges, Self::Place, Self::Probes, Self::Gpu];

    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Privileges => "privileges",
            Self::Place => "place",
            Self::Probes => "probes",
            Self::Gpu => "gpu",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    /// Never changes its meaning: scripts look for it.
    id: String,
    group: Group,
    /// For people.
    name: String,
    /// What there is, whatever it is worth.
    finding: String,
    standing: Standing,
    /// Nothing can be recorded where this is missing.
    needed: bool,
}

impl Check {
    fn new(id: &str, group: Group, name: &str, finding: impl Into<String>, standing: Standing) -> Self {
        let (id, name) = (id.to_owned(), name.to_owned());
        Self { id, group, name, finding: finding.into(), standing, needed: false }
    }

    fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    fn works(&self) -> bool {
        self.standing == Standing::Works
    }
}

fn degraded(lost: impl Into<String>, remedy: impl Into<String>) -> Standing {
    Standing::Degraded { lost: lost.into(), remedy: remedy.into() }
}

fn missing(reason: impl Into<String>, remedy: impl Into<String>) -> Standing {
    Standing::Missing { reason: reason.into(), remedy: remedy.into() }
}

/// All checks, and what they come to.
struct Diagnosis {
    checks: Vec<Check>,
    tried: bool,
}

impl Diagnosis {
    fn of(seen: &Seen) -> Self {
        let mut checks = checks::kernel(seen);
        checks.extend(checks::privileges(seen));
        checks.extend(place::checks(seen));
        checks.extend(trial::checks(seen));
        checks.extend(gpu::checks(seen));
        Self { checks, tried: !matches!(seen.trial, Trial::NotTried) }
    }

    /// Why nothing can be recorded, and what would mend it. Of several reasons the first, and a sandbox before all: what
    /// else is missing in it is its doing.
    fn obstacle(&self) -> Option<(String, String)> {
        let needed = |check: &&Check| check.needed;
        let (place, others): (Vec<&Check>, Vec<&Check>) =
            self.checks.iter().filter(needed).partition(|check| check.group == Group::Place);
        place.into_iter().chain(others).find_map(|check| match &check.standing {
            Standing::Missing { reason, remedy } => Some((reason.clone(), remedy.clone())),
            _ => None,
        })
    }

    /// What a recording would lack. What a GPU would need is no loss where there is none.
    fn unseen(&self) -> usize {
        let lost = |check: &&Check| match check.standing {
            Standing::Works => false,
            Standing::Degraded { .. } => true,
            Standing::Missing { .. } => check.group != Group::Gpu,
        };
        self.checks.iter().filter(lost).count()
    }

    /// `works`, `degraded` or `impossible`.
    fn recording(&self) -> &'static str {
        match (self.obstacle(), self.unseen()) {
            (Some(_), _) => "impossible",
            (None, 0) => "works",
            (None, _) => "degraded",
        }
    }

    fn summary(&self) -> String {
        if let Some((reason, _)) = self.obstacle() {
            return format!("recording does not work here: {reason}");
        }
        let works =
            if self.tried { "recording works here" } else { "recording should work here (not tried)" };
        match self.unseen() {
            0 => format!("{works}; nothing is lost"),
            1 => format!("{works}; 1 thing is not seen"),
            n => format!("{works}; {n} things are not seen"),
        }
    }
}
