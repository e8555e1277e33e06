//! The faults, with what the report has to say of each.

/// One fault at several doses.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the matrix.
    pub name: &'static str,
    /// What the trainer is told.
    pub fault: &'static str,
    /// Doses, ms a step.
    pub doses_ms: &'static [f64],
    /// The root leaf that others' waits have to be charged to.
    pub leaf: &'static str,
    /// What the finding about the late rank has to say; one of these. Empty: the leaf says all.
    pub says: &'static [&'static str],
    /// What kind of run it is.
    pub kind: Kind,
    /// All of a dose delays the step: nothing of it is hidden behind what was fetched ahead.
    pub on_path: bool,
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One rank is late.
    Late,
    /// A rank uses the same resource where nothing waits for it.
    Decoy,
    /// Nothing is wrong.
    Healthy,
}

/// A fault that the trainer does not know: it is done to it.
pub(super) const STOP: &str = "stop";

const DOSES: &[f64] = &[2.0, 10.0, 40.0, 100.0];

const fn late(
    name: &'static str,
    fault: &'static str,
    leaf: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case { name, fault, doses_ms: DOSES, leaf, says, kind: Kind::Late, on_path: true }
}

const fn decoy(name: &'static str, fault: &'static str) -> Case {
    Case { doses_ms: &[10.0, 40.0], kind: Kind::Decoy, on_path: false, ..late(name, fault, "", &[]) }
}

/// All of them.
pub const CASES: &[Case] = &[
    Case { doses_ms: &[0.0, 0.0], kind: Kind::Healthy, on_path: false, ..late("healthy", "none", "", &[]) },
    late("late rank", "late", "idle_host_ns", &["sleeps"]),
    Case {
        // The loader works while the step before runs: a dose counts as far as it is longer.
        on_path: false,
        doses_ms: &[40.0, 100.0],
        ..late("slow loader", "slow-read", "idle_host_ns", &["sleeps", "waits in"])
    },
    late("computing host", "busy", "idle_host_ns", &["computes"]),
    late("lock", "lock", "idle_host_ns", &["sleeps", "locks"]),
    late("GIL", "gil", "idle_host_ns", &["sleeps", "locks"]),
    late("checkpoint fsync", "fsync", "idle_host_ns", &["fsync", "pwrite"]),
    late("page faults", "page-faults", "idle_host_ns", &["computes", "page faults"]),
    late("subprocess", "subprocess", "idle_host_ns", &["sleeps", "waits in"]),
    // From outside, four times a second: not every step has one.
    Case {
        on_path: false,
        doses_ms: &[40.0, 100.0],
        ..late("SIGSTOP", STOP, "idle_host_ns", &["is stopped"])
    },
    late("allocation storm", "malloc-storm", "idle_driver_ns", &["driver calls"]),
    late("synchronous copies", "sync-copy", "memcpy_exposed_ns", &["copies"]),
    late("more work", "more-work", "compute_ns", &["more work"]),
    Case { doses_ms: &[1.0, 5.0], ..late("slow device", "slow-device", "compute_ns", &["device is slow"]) },
    decoy("decoy: sleep", "late"),
    decoy("decoy: fsync", "fsync"),
    decoy("decoy: subprocess", "subprocess"),
];
