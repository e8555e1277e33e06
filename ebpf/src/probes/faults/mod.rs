//! Attach side of the page fault probe: which file a fault waits for. How many faults there were, the kernel counts
//! itself, and the scheduler probe reports.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Typedef;

use super::{Probe, ProbeId, Standing, basics};
use crate::kernel::Kernel;

/// The tracepoint that older kernels lack.
const NEWER: &str = "mm_filemap_fault";

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Faults,
    sees: "the file that a page fault waits for",
    programs: &["mm_filemap_add_to_page_cache", NEWER],
    can_run,
    attach: |skeleton, _| {
        let programs = &mut skeleton.progs;
        let mut links = vec![programs.mm_filemap_add_to_page_cache.attach()?];
        if loadable(NEWER) {
            links.push(programs.mm_filemap_fault.attach()?);
        }
        Ok(links.into())
    },
};

fn can_run(kernel: &Kernel) -> Standing {
    match basics(kernel) {
        Standing::Works if !loadable(NEWER) => Standing::Degraded {
            lost: "the file of a page fault that waits for another thread's read: the kernel lacks the tracepoint filemap:mm_filemap_fault"
                .to_owned(),
            remedy: "use a newer kernel".to_owned(),
        },
        standing => standing,
    }
}

/// Whether the kernel has what this program attaches to.
pub(crate) fn loadable(program: &str) -> bool {
    program != NEWER
        || Btf::from_vmlinux()
            .is_ok_and(|btf| btf.type_by_name::<Typedef<'_>>(&format!("btf_trace_{NEWER}")).is_some())
}
