//! The probes, tried: loaded, attached with nobody to follow, and taken off again.

use std::time::{Duration, Instant};

use stallscope_ebpf::{Kernel, ProbeId, Session, SessionError, Settings, Standing};

use super::{Check, Group, Seen, degraded, missing};

/// Most rings of a recording: `MAX_SHARDS` of the kernel half.
const MAX_RINGS: u32 = 64;

pub(super) enum Trial {
    /// Not asked for, or known to fail.
    NotTried,
    Attached {
        standings: Vec<(ProbeId, Standing)>,
        /// Until all probes were attached, and until they were off again.
        attach: Duration,
        detach: Duration,
        /// Memory of all maps, as the kernel says; 0 where it does not.
        map_bytes: u64,
    },
    Failed {
        reason: String,
        remedy: String,
    },
}

impl Trial {
    /// For as long as this takes, every switch of the host runs through the probes' first test: what a recording costs
    /// those who are not recorded.
    pub(super) fn run() -> Self {
        let began = Instant::now();
        let attached = Session::load(&Kernel::detect(), Settings::default())
            .and_then(|mut session| session.attach(&[]).map(|()| session));
        match attached {
            Ok(mut session) => {
                let attach = began.elapsed();
                let standings = session.standings().to_vec();
                let map_bytes = map_bytes();
                let ending = Instant::now();
                let left = session.detach();
                drop(session);
                match left {
                    Ok(()) => Self::Attached { standings, attach, detach: ending.elapsed(), map_bytes },
                    Err(error) => Self::failed(&error),
                }
            }
            Err(error) => Self::failed(&error),
        }
    }

    fn failed(error: &SessionError) -> Self {
        match error {
            SessionError::Unable { reason, remedy } => {
                Self::Failed { reason: reason.clone(), remedy: remedy.clone() }
            }
            SessionError::Kernel { .. } => Self::Failed {
                reason: error.to_string(),
                remedy: "look into the audit log of a security module (SELinux, AppArmor); else report this with the \
                         kernel's release"
                    .to_owned(),
            },
        }
    }
}

pub(super) fn checks(seen: &Seen) -> Vec<Check> {
    let mut checks = vec![rings(seen)];
    let trial = trial(seen).map(Check::needed);
    checks.extend(trial.clone());
    for (probe, sees, before) in &seen.probes {
        let standing = match (&seen.trial, &trial) {
            (Trial::Attached { standings, .. }, _) => {
                standings.iter().find(|(id, _)| id == probe).map_or(before, |(_, standing)| standing)
            }
            // What could run by what was looked at, and did not.
            (Trial::Failed { .. }, Some(trial)) if before.usable() => &trial.standing,
            _ => before,
        };
        let id = format!("probes.{probe}");
        let check = Check::new(&id, Group::Probes, probe.name(), *sees, standing.clone());
        checks.push(if *probe == ProbeId::Sched { check.needed() } else { check });
    }
    checks
}

fn trial(seen: &Seen) -> Option<Check> {
    let ms = |time: &Duration| time.as_millis();
    let (finding, standing) = match &seen.trial {
        Trial::NotTried => return None,
        Trial::Attached { attach, detach, .. } => (
            format!("attached in {} ms with nobody followed, and taken off in {} ms", ms(attach), ms(detach)),
            Standing::Works,
        ),
        Trial::Failed { reason, remedy } => {
            let mut remedy = remedy.clone();
            if seen.facts.seccomp {
                remedy.push_str(
                    "; a seccomp filter rules this process: docker run --security-opt seccomp=unconfined …",
                );
            }
            ("the kernel refuses them".to_owned(), missing(reason.clone(), remedy))
        }
    };
    Some(Check::new("probes.trial", Group::Probes, "trial", finding, standing))
}

/// Number of rings and bytes of each, as a recording makes them: powers of two of at least 64 KiB.
fn shape(cpus: u32, bytes: u32) -> (u32, u32) {
    let rings = cpus.clamp(1, MAX_RINGS);
    let each = (bytes / rings).max(64 << 10);
    (rings, 1 << each.ilog2())
}

fn rings(seen: &Seen) -> Check {
    let cpus = seen.facts.kernel.cpus;
    let (rings, each) = shape(cpus, Settings::default().ring_bytes);
    let mut finding = format!("{rings} of {} KiB for {cpus} CPUs", each >> 10);
    let mut needs = u64::from(rings) * u64::from(each);
    if let Trial::Attached { map_bytes, .. } = seen.trial
        && map_bytes > 0
    {
        finding.push_str(&format!("; with all tables {} MiB of kernel memory", map_bytes >> 20));
        needs = needs.max(map_bytes);
    }
    let standing = match seen.facts.memory_available {
        Some(available) if available < needs => missing(
            format!("{} MiB of memory are available and the rings need {}", available >> 20, needs >> 20),
            "give this process's control group more memory, or end something",
        ),
        Some(available) if available < 4 * needs => degraded(
            format!(
                "possibly records: {} MiB of memory are available to rings of {}",
                available >> 20,
                needs >> 20
            ),
            "give this process's control group more memory, or end something",
        ),
        _ => Standing::Works,
    };
    Check::new("probes.rings", Group::Probes, "rings", finding, standing)
}

/// Memory of the maps that this process has open.
fn map_bytes() -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc/self/fdinfo") else { return 0 };
    let of_one = |text: String| {
        text.contains("map_type:").then_some(())?;
        text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse::<u64>().ok()
    };
    entries.filter_map(|entry| of_one(std::fs::read_to_string(entry.ok()?.path()).ok()?)).sum()
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn rings_share_their_bytes_and_are_never_tiny() {
        assert_eq!(shape(2, 16 << 20), (2, 8 << 20));
        assert_eq!(shape(96, 16 << 20), (64, 256 << 10));
        assert_eq!(shape(3, 16 << 20), (3, 4 << 20));
        assert_eq!(shape(64, 1 << 20), (64, 64 << 10));
    }
}
