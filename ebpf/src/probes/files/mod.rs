//! User side of the sums of calls and bytes by file: nothing to attach, since the system call probe's program adds them
//! up; [`Session::report_totals`](crate::Session::report_totals) has them told.

use super::{Probe, ProbeId, basics};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Files,
    sees: "calls and bytes that threads read from and wrote to each file, pipe and socket",
    programs: &["gather_file_io", "report_file_io"],
    can_run: basics,
    attach: |_, _| Ok(Vec::new().into()),
};
