//! Puts the agent into a running process and leaves the process as it was.
mod arch;
mod borrow;
mod candidate;
mod examine;
mod file;
mod find;
mod inject;
mod libraries;
mod load;
mod marker;
mod new_thread;
mod plant;
mod process;
mod refusal;
mod room;
mod safe_point;
mod seccomp;
mod settle;
mod step;
mod sys;
mod unsafe_point;

pub use find::{Found, find_agent};
pub use inject::{Injected, Options, Payload, inject};
pub use refusal::Refusal;
pub use step::Step;
pub use unsafe_point::{Tally, UnsafePoint};
