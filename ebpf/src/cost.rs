//! What the programs cost, as the kernel accounts for it.
//!
//! The kernel measures the time inside each program while somebody asks it to; the way into a program and out of it
//! comes on top, and is measured apart.

use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;

/// Time and runs of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its name.
    pub name: String,
    /// How often it ran while accounting was on.
    pub runs: u64,
    /// Time in it, ns.
    pub time_ns: u64,
    /// Runs that the kernel left out because the program was running on that CPU already.
    pub missed: u64,
    /// Instructions that the verifier walked to accept it: most of the time of loading.
    pub verified_instructions: u32,
}

/// The kernel accounts while this lives.
#[derive(Debug)]
pub struct Accounting {
    _fd: OwnedFd,
}

impl Accounting {
    /// Switches accounting on. It slows every program of the host by two readings of the clock.
    ///
    /// # Errors
    /// What the kernel says; it needs the privilege of loading programs.
    pub fn start() -> std::io::Result<Self> {
        // SAFETY: the call takes a number and gives a new descriptor or a negative error; no memory is involved.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            return Err(std::io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: the descriptor is new and nobody else has it.
        Ok(Self { _fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}

/// The cost so far of the programs with these names: those of every session on this host.
#[must_use]
pub fn program_costs(names: &[&str]) -> Vec<ProgramCost> {
    let all = ProgInfoIter::default().map(|info| ProgramCost {
        name: info.name.to_string_lossy().into_owned(),
        runs: info.run_cnt,
        time_ns: info.run_time_ns,
        missed: info.recursion_misses,
        verified_instructions: info.verified_insns,
    });
    // The kernel keeps 15 bytes of a name.
    all.filter(|cost| names.iter().any(|n| n.get(..15).unwrap_or(n) == cost.name)).collect()
}
