//! Which thread is borrowed: candidates are tried, the best first, until one is at a safe point or time is up.

use std::thread;
use std::time::{Duration, Instant};

use crate::Refusal;
use crate::borrow::{Setback, borrow};
use crate::candidate::{Rank, candidates};
use crate::examine::Facts;
use crate::libraries::CLibrary;
use crate::process::Process;
use crate::room::Room;
use crate::safe_point;
use crate::step::Observer;
use crate::unsafe_point::{Tally, UnsafePoint};

/// Threads whose call ends with EINTR are borrowed only after nothing better was there for this long.
const PATIENCE: Duration = Duration::from_millis(30);
/// A thread that was stopped and could not be borrowed is not stopped again for this long.
const PAUSE_PER_THREAD: Duration = Duration::from_millis(50);

/// What the seed needs to know, whichever thread it is.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) process: &'a Process,
    pub(crate) facts: Facts,
    pub(crate) library: &'a CLibrary,
    pub(crate) room: &'a Room,
    pub(crate) within: Duration,
    pub(crate) trust_seccomp: bool,
}

impl Plan<'_> {
    /// Whether a function of the C library is there, and not the seed, which may lie behind it.
    pub(crate) fn is_library_code(&self, instruction: u64) -> bool {
        !self.room.contains(instruction) && self.library.code.iter().any(|map| map.contains(instruction))
    }
}

/// The new thread exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planted {
    /// The memory that the borrowed thread mapped.
    pub(crate) region: u64,
    pub(crate) victim: i32,
    /// From the request to stop until the thread went on.
    pub(crate) stopped: Duration,
    /// Threads that were stopped, this one included.
    pub(crate) attempts: u32,
}

/// Borrows a thread.
pub(crate) fn plant(plan: &Plan<'_>, observer: &mut Observer<'_>) -> Result<Planted, Refusal> {
    let pid = plan.process.pid;
    let began = Instant::now();
    let mut attempts = 0;
    let mut tried: Vec<(i32, Instant)> = Vec::new();
    let mut pause = Duration::from_micros(200);
    loop {
        let mut tally = Tally::default();
        let found = candidates(plan.process, |at| plan.is_library_code(at), &mut tally)
            .map_err(|error| plan.process.error("list the threads", error))?;
        tried.retain(|(_, when)| when.elapsed() < PAUSE_PER_THREAD);
        let patient = began.elapsed() < PATIENCE.min(plan.within);
        for candidate in found {
            if tried.iter().any(|(tid, _)| *tid == candidate.tid)
                || (patient && candidate.rank >= Rank::Interrupted)
            {
                continue;
            }
            // Most handlers are seen before the thread is disturbed.
            if safe_point::in_handler(plan.process, candidate.waiting.stack, safe_point::STACK_BYTES)
                .unwrap_or(true)
            {
                tally.add(UnsafePoint::Handler);
                continue;
            }
            attempts += 1;
            tried.push((candidate.tid, Instant::now()));
            match on_its_own_thread(|| borrow(plan, &candidate, observer)) {
                Ok((region, stopped)) => {
                    return Ok(Planted { region, victim: candidate.tid, stopped, attempts });
                }
                Err(Setback::Thread(point)) => tally.add(point),
                Err(Setback::Target(refusal)) => return Err(refusal),
            }
        }
        if !plan.process.is_alive() || !plan.process.runs_what_has(plan.room.address) {
            return Err(Refusal::Gone { pid });
        }
        if began.elapsed() >= plan.within {
            return Err(Refusal::NoSafePoint { pid, waited: plan.within, tally });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// The kernel lets go of what a thread traces when it ends, whatever state that is in.
fn on_its_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
