//! The faults, with what the report has to say of each.

/// One fault at several doses.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the matrix.
    pub name: &'static str,
    /// What the trainer is told, or `none` where the harm comes from outside.
    pub fault: &'static str,
    /// Doses; ms where the means does not say otherwise.
    pub doses: &'static [f64],
    /// Who is late, and why.
    pub culprits: &'static [Culprit],
    /// What kind of run it is.
    pub kind: Kind,
    /// How the harm is done.
    pub means: Means,
    /// All of a dose delays the step: nothing of it is hidden behind what was fetched ahead.
    pub on_path: bool,
}

/// A rank that others wait for.
#[derive(Clone, Copy, Debug)]
pub struct Culprit {
    /// Which.
    pub rank: u32,
    /// The root leaves that others' waits have to be charged to.
    pub leaves: &'static [&'static str],
    /// What the finding about it has to say; one of these.
    pub says: &'static [&'static str],
    /// What the rule of co-occurrence may say; nothing where no host event is behind it.
    pub events: &'static [&'static str],
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ranks are late.
    Late,
    /// A rank uses the same resource where nothing waits for it.
    Decoy,
    /// Nothing is wrong.
    Healthy,
    /// Nothing is wrong with the job, but records of its devices are lost.
    Loss,
    /// Nothing is wrong with the job, but a device's clock is.
    Clock,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Decoy => "decoy",
            Self::Healthy => "healthy",
            Self::Loss => "loss",
            Self::Clock => "clock",
        }
    }
}

/// How harm is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The trainer does it to itself.
    Trainer,
    /// The same; each rank meets its neighbours only.
    Chain,
    /// The same; rank 0 sends the others something at the begin of each step.
    Buffers,
    /// The rank's process is stopped four times a second for the dose.
    Stop,
    /// The rank's launching thread may run 1 ms in each period; the dose is the period.
    Throttle,
    /// The rank has one CPU, and so many processes compute on it.
    Antagonists,
    /// Every so manieth record of a device is lost, and counted: the dose is the share, in percent.
    Loss,
    /// The rank asks a peer in another network namespace.
    Network(Network),
    /// Ranks on CPUs, under an MPI.
    Mpi,
    /// The same, each in a network namespace of its own. Some time after the recording has begun the link of one gets bad.
    MpiLink(Link),
}

/// What is wrong with the link of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    Good,
    /// It carries the dose, in Mbit/s, each way.
    Rate,
    /// Each way it drops the dose of a hundred packets.
    Loss,
    /// Each way takes the dose longer, in ms.
    Delay,
}

/// What is wrong with a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The peer takes the dose to answer.
    SlowPeer,
    /// The link carries [`RATE_BYTES_A_MS`], and the answer is as long as takes the dose.
    Rate,
    /// One packet in ten is dropped; the answer is as long as would take a tenth of the dose at that rate.
    Loss,
}

/// Of a link with a rate, 100 Mbit/s.
pub(super) const RATE_BYTES_A_MS: u32 = 12_500;

/// The rank with the fault, where there is one.
const LATE: u32 = 2;

const DOSES: &[f64] = &[2.0, 10.0, 40.0, 100.0];
/// Of what is fetched ahead, and of what happens a few times a second.
const LONG: &[f64] = &[40.0, 100.0];

const HOST: &[&str] = &["idle_host_ns"];

type Words = &'static [&'static str];

macro_rules! culprit {
    ($rank:expr, $leaves:expr, $says:expr, $events:expr) => {
        &[Culprit { rank: $rank, leaves: $leaves, says: $says, events: $events }]
    };
}

const fn case(name: &'static str, fault: &'static str, culprits: &'static [Culprit]) -> Case {
    Case { name, fault, doses: DOSES, culprits, kind: Kind::Late, means: Means::Trainer, on_path: true }
}

/// A fault whose doses are not what the step is late by.
const fn beside(case: Case, doses: &'static [f64]) -> Case {
    Case { on_path: false, doses, ..case }
}

const fn by(means: Means, case: Case) -> Case {
    Case { means, ..case }
}

const fn innocent(kind: Kind, name: &'static str, fault: &'static str, doses: &'static [f64]) -> Case {
    Case { kind, on_path: false, doses, ..case(name, fault, &[]) }
}

const SLEEPS: Words = &["sleeps"];
const COMPUTES: Words = &["computes"];
const NETWORK: Words = &["recvfrom", "network"];
const REPEATS: Words = &["connections of rank 2 sent segments again"];
const FAR: Words = &["connections of rank 2 had long round trips", "connections of rank 2 delivered little"];
/// By what the report takes a slow link for one: a queue that overflows loses segments as well.
const SLOW_LINK: Words = &[
    "connections of rank 2 delivered little",
    "connections of rank 2 had long round trips",
    "connections of rank 2 sent segments again",
];

/// All of them.
pub const CASES: &[Case] = &[
    innocent(Kind::Healthy, "healthy", "none@2", &[0.0, 0.0]),
    case("late rank", "late@2", culprit!(LATE, HOST, SLEEPS, SLEEP)),
    // The loader works while the step before runs: a dose counts as far as it is longer.
    beside(case("slow loader", "slow-read@2", culprit!(LATE, HOST, &["sleeps", "waits in"], PIPES)), LONG),
    beside(case("busy loader", "slow-worker@2", culprit!(LATE, HOST, COMPUTES, PIPES)), LONG),
    case("computing host", "busy@2", culprit!(LATE, HOST, COMPUTES, &[])),
    case("lock", "lock@2", culprit!(LATE, HOST, &["sleeps"], LOCK)),
    case("GIL", "gil@2", culprit!(LATE, HOST, &["sleeps"], LOCK)),
    case("busy GIL", "gil-busy@2", culprit!(LATE, HOST, COMPUTES, LOCK)),
    case("checkpoint fsync", "fsync@2", culprit!(LATE, HOST, &["fsync", "pwrite"], &["block I/O"])),
    case("page faults", "page-faults@2", culprit!(LATE, HOST, &["computes", "page faults"], &["page fault"])),
    case("subprocess", "subprocess@2", culprit!(LATE, HOST, &["sleeps", "waits in"], SUBPROCESS)),
    by(
        Means::Stop,
        beside(case("SIGSTOP", "none@2", culprit!(LATE, HOST, &["is stopped"], &["stopped"])), LONG),
    ),
    by(
        Means::Throttle,
        beside(
            case("CPU throttle", "none@2", culprit!(LATE, HOST, &["may not run"], &["throttled"])),
            &[20.0, 40.0, 100.0],
        ),
    ),
    by(
        Means::Antagonists,
        beside(
            case("run queue", "none@2", culprit!(LATE, HOST, &["waits for a CPU"], &["run queue"])),
            &[2.0, 4.0, 8.0],
        ),
    ),
    by(
        Means::Network(Network::SlowPeer),
        case("network, slow peer", "fetch@2", culprit!(LATE, HOST, NETWORK, &["network"])),
    ),
    by(
        Means::Network(Network::Rate),
        beside(
            case("network, rate", "fetch@2", culprit!(LATE, HOST, NETWORK, &["network"])),
            &[10.0, 40.0, 100.0],
        ),
    ),
    by(
        Means::Network(Network::Loss),
        beside(case("network, loss", "fetch@2", culprit!(LATE, HOST, NETWORK, &["network"])), LONG),
    ),
    case(
        "allocation storm",
        "malloc-storm@2",
        culprit!(LATE, &["idle_driver_ns"], &["driver calls"], &["sleep"]),
    ),
    // The call ends some time after the copy has.
    case(
        "synchronous copies",
        "sync-copy@2",
        culprit!(LATE, &["memcpy_exposed_ns", "idle_sync_ns"], &["copies"], &[]),
    ),
    beside(
        case(
            "tiny kernels",
            "tiny-kernels@2",
            culprit!(LATE, TINY, &["launch calls", "computes", "device latency", "more work"], &[]),
        ),
        &[10.0, 40.0],
    ),
    beside(
        case(
            "sync in the loop",
            "sync-loop@2",
            culprit!(
                LATE,
                &["idle_sync_ns", "idle_host_ns", "idle_launch_ns"],
                &["synchronisation", "computes", "launch calls", "waits for a CPU"],
                &["other call", "lock", "run queue"]
            ),
        ),
        &[0.0],
    ),
    case("more work", "more-work@2", culprit!(LATE, &["compute_ns"], &["more work"], &[])),
    Case {
        doses: &[1.0, 5.0],
        ..case("slow device", "slow-device@2", culprit!(LATE, &["compute_ns"], &["device is slow"], &[]))
    },
    beside(case("two faults", "late@1,busy@3", TWO), &[10.0, 40.0]),
    beside(case("two faults, device and host", "more-work@1,late@3", DEVICE_AND_HOST), &[10.0, 40.0]),
    by(
        // A dose reaches the last rank steps later, perhaps behind the window's end.
        Means::Chain,
        beside(case("chain of four ranks", "late@0", culprit!(0, HOST, SLEEPS, SLEEP)), &[10.0, 40.0, 100.0]),
    ),
    by(
        // What the root does before it launches is in the wait as well, which comes first in a step.
        Means::Buffers,
        beside(case("late root of a broadcast", "late@0", culprit!(0, HOST, SLEEPS, SLEEP)), DOSES),
    ),
    by(
        Means::Mpi,
        beside(
            case("ranks on CPUs: late", "late@2", culprit!(LATE, &[], SLEEPS, SLEEP)),
            &[10.0, 40.0, 100.0],
        ),
    ),
    by(
        Means::Mpi,
        beside(case("ranks on CPUs: computing", "busy@2", culprit!(LATE, &[], COMPUTES, &[])), LONG),
    ),
    by(
        Means::Mpi,
        beside(case("ranks on CPUs: lock", "lock@2", culprit!(LATE, &[], &["sleeps", "locks"], LOCK)), LONG),
    ),
    by(
        Means::Mpi,
        beside(
            case(
                "ranks on CPUs: late root of a broadcast",
                "late-root@2",
                culprit!(LATE, &[], SLEEPS, SLEEP),
            ),
            LONG,
        ),
    ),
    by(Means::MpiLink(Link::Good), innocent(Kind::Healthy, "ranks on CPUs: good links", "none@2", &[0.0])),
    by(
        Means::MpiLink(Link::Rate),
        beside(
            case("ranks on CPUs: link, rate", "none@2", culprit!(LATE, &[], SLOW_LINK, &[])),
            &[200.0, 50.0],
        ),
    ),
    by(
        Means::MpiLink(Link::Loss),
        beside(case("ranks on CPUs: link, loss", "none@2", culprit!(LATE, &[], REPEATS, &[])), &[2.0, 4.0]),
    ),
    // The process that holds packets back, without doing so.
    by(Means::MpiLink(Link::Delay), innocent(Kind::Healthy, "ranks on CPUs: relay", "none@2", &[0.0])),
    by(
        Means::MpiLink(Link::Delay),
        beside(case("ranks on CPUs: link, delay", "none@2", culprit!(LATE, &[], FAR, &[])), &[2.0, 10.0]),
    ),
    innocent(Kind::Decoy, "decoy: sleep", "late@2", &[10.0, 40.0]),
    innocent(Kind::Decoy, "decoy: fsync", "fsync@2", &[10.0, 40.0]),
    innocent(Kind::Decoy, "decoy: subprocess", "subprocess@2", &[10.0, 40.0]),
    by(Means::Loss, innocent(Kind::Loss, "lost GPU records", "none@2", &[0.1, 1.0, 10.0])),
    innocent(Kind::Clock, "clock: offset", "clock-offset@2", &[0.05, 1.0]),
    innocent(Kind::Clock, "clock: drift", "clock-drift@2", &[0.03]),
    innocent(Kind::Clock, "clock: step", "clock-step@2", &[1.0]),
    innocent(Kind::Clock, "clock: CUPTI's is fast", "cupti-fast@2", &[0.0]),
    innocent(Kind::Clock, "clock: CUPTI's jumps", "cupti-jumpy@2", &[1.0]),
];

const SLEEP: Words = &["sleep"];
const LOCK: Words = &["lock"];
const PIPES: Words = &["ipc", "lock", "other call"];
const SUBPROCESS: Words = &["kernel", "other call", "ipc", "sleep"];

/// In turns: one step waits for the one, the next for the other.
const TWO: &[Culprit] = &[
    Culprit { rank: 1, leaves: HOST, says: SLEEPS, events: SLEEP },
    Culprit { rank: 3, leaves: HOST, says: COMPUTES, events: &[] },
];

/// The device runs them, starts them, and waits for their launches.
const TINY: Words = &["idle_launch_ns", "idle_host_ns", "idle_device_ns", "compute_ns"];

const DEVICE_AND_HOST: &[Culprit] = &[
    Culprit { rank: 1, leaves: &["compute_ns"], says: &["more work"], events: &[] },
    Culprit { rank: 3, leaves: HOST, says: SLEEPS, events: SLEEP },
];
