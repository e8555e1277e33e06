//! The kernel half: BPF programs that follow the threads of a job, and what loads, attaches, reads and detaches them.
//!
//! - `bpf/`: what the programs share. Each probe is a folder in `src/probes` with its kernel side (`*.bpf.h`) and its
//!   user side: whether it can run here, and how it is attached.
//! - [`kernel`]: what this kernel offers, found by looking and never by assuming.
//! - [`session`]: one recording: load, attach, follow, read, detach.
//! - [`object`]: what a file, socket or pipe is called.
//! - [`python`]: interpreters in the followed processes, and their frames' names.
//! - [`event`]: the bytes of a record as a value; lengths and types are checked, nothing else is believed.
//!
//! Invariants: a missing capability degrades by name and never fails the recording as long as the scheduler probe runs;
//! nothing is pinned, so that the death of this process takes every probe off; the job is never stopped or written to.

pub mod cost;
pub mod event;
pub mod kernel;
pub mod object;
pub mod probes;
pub mod python;
pub mod session;
mod skeleton;

pub use event::{Event, Malformed};
pub use kernel::Kernel;
pub use probes::{ProbeId, Standing};
pub use session::{Session, SessionError, Settings};
