//! An agent that is in a process already.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use stallscope_cupti_wire::{HEADER_BYTES, Header, MAGIC, RING_NAME, State};

use crate::Refusal;
use crate::new_thread::outer_tid;
use crate::process::{Mapping, Process};
use crate::sys;

/// An agent that was found.
#[derive(Debug)]
pub struct Found {
    /// The ring's memory. Of what it holds only the thread's number was believed.
    pub ring: OwnedFd,
    /// Bytes of the ring.
    pub ring_bytes: u64,
    /// The agent's thread, as this process numbers it.
    pub tid: i32,
    /// The version of the agent, as it says.
    pub version: u32,
}

/// The agent that lives in a process, if there is one: it has the ring mapped and its thread is there.
///
/// A child that was forked from a process with an agent has the memory, but not the thread.
///
/// # Errors
/// When the process is gone or may not be looked at, by name; a process without an agent is no error.
pub fn find_agent(pid: i32) -> Result<Option<Found>, Refusal> {
    let process = Process::open(pid)?;
    let label = format!("/memfd:{}", RING_NAME.to_string_lossy());
    let mut denied = None;
    for mapping in process.maps()? {
        if mapping.path.strip_suffix(" (deleted)").unwrap_or(&mapping.path) != label {
            continue;
        }
        match open(&process, &mapping) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error) => denied = Some(error),
        }
    }
    denied.map_or(Ok(None), |error| Err(process.error("open the ring", error)))
}

/// The ring behind a mapping, if an agent of this very process uses it.
fn open(process: &Process, mapping: &Mapping) -> io::Result<Option<Found>> {
    let link = process.file(&format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    let file = File::options().read(true).write(true).open(link)?;
    // The name of such memory is whatever its maker says. What is mapped here must not shrink.
    let Ok(seals) = sys::seals(&file) else { return Ok(None) };
    let ring_bytes = file.metadata()?.len();
    if seals & libc::F_SEAL_SHRINK == 0 || ring_bytes < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let word = |at: usize| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at as u64).map(|()| u32::from_ne_bytes(bytes))
    };
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, offset_of!(Header, magic) as u64)?;
    let is_gone = State::from_id(word(offset_of!(Header, state))?) == Some(State::Gone);
    let inner_tgid = process.status()?.innermost("NStgid");
    let is_of_this_process = inner_tgid == Some(word(offset_of!(Header, pid))?);
    if u64::from_ne_bytes(magic) != MAGIC || is_gone || !is_of_this_process {
        return Ok(None);
    }
    let Some(tid) = outer_tid(process, word(offset_of!(Header, tid))?) else { return Ok(None) };
    let version = word(offset_of!(Header, agent_version))?;
    Ok(Some(Found { ring: OwnedFd::from(file), ring_bytes, tid, version }))
}
