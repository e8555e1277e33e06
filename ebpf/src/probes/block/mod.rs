//! Attach side of the block device probe.

use super::{Probe, ProbeId, basics};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Block,
    sees: "requests to block devices that threads queued: device, time in the queue and in the device, file",
    programs: &[
        "block_bio_queue",
        "block_split",
        "block_rq_issue",
        "block_rq_complete",
        "block_bio_complete",
    ],
    can_run: basics,
    attach: |skeleton, _| {
        let programs = &mut skeleton.progs;
        // What ends a request first, so that none is remembered whose end is missed.
        let links = vec![
            programs.block_bio_complete.attach()?,
            programs.block_rq_complete.attach()?,
            programs.block_rq_issue.attach()?,
            programs.block_split.attach()?,
            programs.block_bio_queue.attach()?,
        ];
        Ok(links.into())
    },
};
