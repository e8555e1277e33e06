//! The agent: runs on one thread of its own inside a CUDA job, attaches CUPTI when the daemon asks for it, writes what
//! CUPTI reports into shared memory, and goes dormant.
//!
//! What always holds:
//! - It needs nothing: no library, no symbol, no thread-local storage. It makes system calls itself, and gets `dlopen` and
//!   `dlsym` from whoever starts it. So it loads wherever CUDA does.
//! - What runs on the job's threads (`callbacks`, `subscriber::on_call`) takes a bounded number of steps, waits for
//!   nothing, allocates nothing and cannot panic. All else runs on the agent's thread.
//! - A code from CUPTI is data. Whatever fails ends in a named `Reason` in the shared header; the job goes on.
//! - What is lost is counted in the shared header.
//! - It never unloads anything: CUPTI may hold pointers to the agent for as long as the process lives.
//!
//! `machine` is the state machine; `session` is one attachment; `docs/agent.md` tells the same to users.
#![cfg_attr(not(test), no_std)]

mod arch;
mod callbacks;
mod clock;
mod convert;
mod driver;
mod elf;
mod entry;
mod exit;
mod launch;
mod library;
mod machine;
mod names;
mod output;
#[cfg(not(test))]
mod panic;
mod pool;
mod progress;
mod ranges;
mod sample;
mod session;
mod subscriber;
mod sys;
#[cfg(test)]
mod tests;
mod text;
mod watch;

use stallscope_cupti_wire::Reason;

/// Why there is nothing to collect, with the code that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: i32,
}

impl Refusal {
    pub(crate) const fn new(reason: Reason, detail: i32) -> Self {
        Self { reason, detail }
    }
}
