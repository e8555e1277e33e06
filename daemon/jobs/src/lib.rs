//! Finds the jobs that run on a host: which processes are ranks, what started them, where they are contained, what they
//! use. Nothing is asked of a job and nothing is changed in it: everything is read from /proc and, for the names of
//! containers and pods, from the files that container runtimes keep.
//!
//! ```text
//! /proc ─▶ scan: a table of processes ─▶ find: ranks, helpers, jobs ─▶ target: what a user meant by --pid, --job …
//! ```
//!
//! What always holds here: a process is (pid, start time), so a pid that is used again is another process; what is read
//! is hostile, so every read has a cap and no text is trusted to be UTF-8 or free of control characters (print with
//! `stallscope_core::report::text::printable`); a process that vanishes while it is read is left out, never an error.
//! What could not be read is counted in [`Hidden`].
#![forbid(unsafe_code)]

mod cgroup;
mod door;
mod environment;
mod find;
mod gpus;
mod host;
mod identity;
mod job;
mod launcher;
mod mapped;
mod process;
mod procfs;
mod runtime;
mod target;

pub use cgroup::{ContainerRuntime, SlurmId};
pub use door::Door;
pub use gpus::Gpus;
pub use host::{Bystander, Hidden, Host, Roots};
pub use identity::{Source, became_rank};
pub use job::{Container, Job, Launcher, Pod, PodNameSource, Rank};
pub use launcher::LauncherKind;
pub use mapped::{Collective, Framework, Library, PythonVersion};
pub use process::{Life, Namespaces, Process, ProcessId, State};
pub use target::{ResolveError, Selection, Target, TargetSyntax};
