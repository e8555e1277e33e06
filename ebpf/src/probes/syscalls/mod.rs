//! Attach side of the system call probe.

use super::{Probe, ProbeId, basics};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Syscalls,
    sees: "results of system calls that waited, and the stacks that made them",
    programs: &["sys_exit"],
    can_run: basics,
    attach: |skeleton, _| Ok(vec![skeleton.progs.sys_exit.attach()?].into()),
};
