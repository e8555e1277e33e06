//! Records a running job: what the probes see becomes rows of a capture.
//!
//! ```text
//! rings ─ reader (never waits for anything) ─▶ queue ─▶ writer (names stacks and objects, encodes) ─▶ output
//! ```
//!
//! - [`record`] runs both and ends when the time is over, the job has ended, the output refuses or the caller says so.
//! - [`queue`]: what is between them, bounded; what does not fit becomes stretches of lost time, by thread.
//! - [`pace`]: takes the probes on collective calls off where these come too often.
//! - [`assemble`]: events to rows. It only sees events, so that it is tested without a kernel.
//!
//! Invariants: a capture is whole up to the last second whenever the recorder dies; a thread's time is only claimed as
//! followed up to its last record; every record that does not become a row is counted.

mod assemble;
mod believable;
mod clock;
mod counters;
mod gpu;
mod interpreters;
mod naming;
mod newborn;
mod pace;
mod queue;
mod run;

pub use gpu::GpuProcess;
pub use run::{Ended, Plan, Progress, RecordError, Summary, record};
