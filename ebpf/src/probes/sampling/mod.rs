//! Attach side of the on-CPU samples: one perf event on each CPU.

use std::os::fd::IntoRawFd;

use perf_event::Builder;
use perf_event::events::{Event, Hardware, Software};

use super::{Probe, ProbeId, Standing, basics};
use crate::kernel::Kernel;

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Sampling,
    sees: "what threads run while they are on a CPU",
    programs: &["sample"],
    can_run,
    attach: |skeleton, settings| {
        let mut links = Vec::new();
        for cpu in online_cpus() {
            let event = open(cpu, settings.sample_hz).map_err(libbpf_rs::Error::from)?;
            // The link closes the descriptor that it is given.
            links.push(skeleton.progs.sample.attach_perf_event(event.into_raw_fd())?);
        }
        Ok(links.into())
    },
};

fn can_run(kernel: &Kernel) -> Standing {
    match basics(kernel) {
        Standing::Works => {}
        missing => return missing,
    }
    match open(0, 1) {
        Ok(_) => Standing::Works,
        Err(error) => Standing::Missing {
            reason: format!("no perf event can be opened: {error}"),
            remedy: "give CAP_PERFMON, or set kernel.perf_event_paranoid to 0 or less".to_owned(),
        },
    }
}

/// Cycles where the machine counts them, else the scheduler's clock: most virtual machines have no counters.
fn open(cpu: usize, hz: u64) -> std::io::Result<perf_event::Counter> {
    fn of(event: impl Event, cpu: usize, hz: u64) -> std::io::Result<perf_event::Counter> {
        let mut builder = Builder::new(event);
        builder.any_pid().one_cpu(cpu).sample_frequency(hz).include_kernel();
        builder.enabled(true).build()
    }
    of(Hardware::CPU_CYCLES, cpu, hz).or_else(|_| of(Software::CPU_CLOCK, cpu, hz))
}

fn online_cpus() -> Vec<usize> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(from.parse::<usize>().ok()?..=to.parse().ok()?)
    });
    ranges.flatten().collect()
}
