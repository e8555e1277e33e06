//! Attach side of the scheduler probe. Nothing else can be seen without it.

use super::{Probe, ProbeId, basics};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Sched,
    sees: "waits and who ended them, run queue and who ran instead, throttling, stops, threads that come and go",
    programs: &[
        "sched_switch",
        "sched_waking",
        "sched_process_fork",
        "sched_process_exec",
        "sched_process_exit",
        "follow_tasks",
        "leave_tasks",
    ],
    can_run: basics,
    attach: |skeleton, _| {
        let programs = &mut skeleton.progs;
        // Threads that come and go first, so that none is missed between the look at /proc and the first switch.
        let links = vec![
            programs.sched_process_fork.attach()?,
            programs.sched_process_exec.attach()?,
            programs.sched_process_exit.attach()?,
            programs.sched_waking.attach()?,
            programs.sched_switch.attach()?,
        ];
        Ok(links.into())
    },
};
