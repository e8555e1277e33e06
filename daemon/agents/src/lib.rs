//! The agents in the processes of a job: put in, told what to collect, read out, put to rest.
//!
//! - `clock`: CUPTI's clock to CLOCK_MONOTONIC. `decode`: slots of a ring to events, with names and times.
//! - `memory`: a ring in this process's memory. `control`: the words by which an agent is told what to do.
//! - `process`: what is to be known of the process; `room`: whether its memory limits leave room. `agent`: one of them. `team`: all of a recording.
//!
//! What always holds: everything that comes out of a ring was written by the job, which may be hostile. It is checked,
//! bounded and counted; it never makes anything here panic.

mod agent;
mod clock;
mod control;
mod decode;
mod memory;
mod process;
mod room;
mod stop;
mod team;

use std::time::Duration;

pub use clock::{Clock, Reading};
pub use control::{Standing, Wanted};
pub use decode::{Copied, Decoder, DeviceInfo, Event, Op, What};
pub use process::{AGENT_FILE, cupti_for_launch};
use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_inject::Refusal;
use stallscope_cupti_wire::{Detached, Lost, Reason, RingError};
pub use team::Team;

/// What the team tells the recorder.
#[derive(Debug)]
pub enum Told {
    /// What an agent told.
    Events {
        /// Its process.
        pid: u32,
        /// In the order of the ring.
        events: Vec<Event>,
    },
    /// An agent collects.
    On {
        /// Its process.
        pid: u32,
        /// From the decision to put it in until records could flow.
        attach: Duration,
        /// CUPTI's version, such as 130100.
        cupti_version: u32,
        /// It was put in just now; else it was there.
        new: bool,
    },
    /// An agent has collected, and rests.
    Observed {
        /// Its process.
        pid: u32,
        /// From when, CLOCK_MONOTONIC ns.
        from: u64,
        /// Until when.
        to: u64,
        /// It collected before the process could launch anything.
        from_start: bool,
        /// How long it took to rest.
        detach: Duration,
        /// How CUPTI was left.
        left: Detached,
    },
    /// The process may have used its devices without anybody being told: before its agent collected, after that, or while
    /// another profiler had its records.
    Unseen {
        /// Its process.
        pid: u32,
        /// From when, CLOCK_MONOTONIC ns.
        from: u64,
        /// Until when; none to the end of the recording.
        to: Option<u64>,
    },
    /// What was lost.
    Losses {
        /// The process.
        pid: u32,
        /// What the agent and the reader counted.
        lost: Vec<(Lost, u64)>,
        /// The largest error of a time that was converted, ns.
        clock_error_ns: u64,
    },
    /// Nothing more comes of this process.
    Ended {
        /// The process.
        pid: u32,
        /// Why.
        why: Why,
    },
}

/// Why an agent no longer tells anything.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The recording has ended.
    #[error("the recording has ended")]
    Asked,
    /// The recording ended before the agent collected.
    #[error("the recording ended before the agent was attached: record for longer")]
    TooShort,
    /// The process has ended.
    #[error("the process has ended")]
    ProcessEnded,
    /// It has not loaded the CUDA driver.
    #[error("the process does not use CUDA")]
    NoCuda,
    /// The agent could not be put in.
    #[error("the agent cannot be put in: {0}")]
    Refused(#[source] Refusal),
    /// Somebody else collects.
    #[error("another recorder is at work in the process: end that one first")]
    Busy,
    /// The ring's memory could not be mapped.
    #[error("the ring cannot be mapped: {0}")]
    Memory(#[source] std::io::Error),
    /// The limits of its control groups leave too little memory.
    #[error(
        "its control group's memory limit leaves {} MiB, and the agent may need {}: raise memory.max",
        .0 >> 20,
        room::NEEDED_BYTES >> 20
    )]
    NoRoom(u64),
    /// What is there is no ring of ours.
    #[error("the agent in the process does not fit this version: {0}; it goes with the process")]
    Ring(RingError),
    /// The agent says why.
    #[error("{}{}{}", .0.reason.name(), code(.0), remedy(.0))]
    Agent(Standing),
    /// The agent does not answer.
    #[error("the agent does not answer (it is {})", .0.state.name())]
    Silent(Standing),
    /// The process executes another program now; the agent went with the one before.
    #[error("the process executes another program")]
    Replaced,
    /// The agent's thread has ended.
    #[error("the agent has ended")]
    AgentGone,
}

/// What helps, where something does.
fn remedy(standing: &Standing) -> &'static str {
    match (standing.reason, standing.detail) {
        (Reason::OtherProfiler, _) => {
            ": end it (torch.profiler, Nsight Systems, a debugger, another tool that uses CUPTI) and record again"
        }
        (Reason::NoCupti, _) => ": install the CUPTI that goes with the job's CUDA (PyPI: nvidia-cuda-cupti)",
        (Reason::ForeignClock, _) => ": start the job without the profiler that has changed it",
        (Reason::CuptiTooOld, _) => ": 11.8 is the oldest whose records are known",
        (Reason::CuptiTooNew, _) => ": use a newer stallscope",
        (Reason::NoMemory, _) => ": raise the job's memory limit by 16 MiB",
        (Reason::Stuck, _) => ": start the job again to see its GPU work",
        // CUPTI_ERROR_INSUFFICIENT_PRIVILEGES
        (Reason::Cupti, 35) => {
            ": allow profiling to all users (driver option NVreg_RestrictProfilingToAdminUsers=0), or run the job as root"
        }
        _ => "",
    }
}

fn code(standing: &Standing) -> String {
    if standing.detail == 0 { String::new() } else { format!(" (code {})", standing.detail) }
}

/// All that the ledger uses: kernels, copies, fills, calls into the driver, orders between streams.
#[must_use]
pub fn everything() -> Wanted {
    let kinds = [
        ActivityKind::Device,
        ActivityKind::Runtime,
        ActivityKind::Kernel,
        ActivityKind::Copy,
        ActivityKind::PeerCopy,
        ActivityKind::Fill,
        ActivityKind::Driver,
        ActivityKind::Synchronization,
        ActivityKind::Overhead,
        ActivityKind::Marker,
    ];
    Wanted {
        kinds: kinds.iter().fold(0, |bits, kind| bits | kind.bit()),
        heartbeat_timeout: Duration::from_secs(3),
        flush_interval: Duration::from_millis(50),
        launch_stacks_a_second: 0,
    }
}

/// Stacks of launches that are taken of one process in a second, at most: at 10 µs each they cost its threads half a
/// percent of a core.
pub const LAUNCH_STACKS_A_SECOND: u64 = 500;
