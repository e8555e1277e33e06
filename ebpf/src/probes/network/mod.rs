//! Attach side of the TCP probe. [`Session::report_totals`](crate::Session::report_totals) has the open connections told;
//! those that close are told by then.

use super::{Probe, ProbeId, basics};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Network,
    sees: "TCP connections that threads use: bytes each way, segments sent again, round-trip time",
    programs: &["inet_sock_set_state", "report_connections"],
    can_run: basics,
    attach: |skeleton, _| Ok(vec![skeleton.progs.inet_sock_set_state.attach()?].into()),
};
