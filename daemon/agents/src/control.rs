//! What is wanted of an agent, and how it stands: the words of the ring's header.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::thread::futex;
use stallscope_cupti_wire::{Command, Detached, Header, LOST_COUNTERS, Lost, Reason, State};

/// What to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bits of activity kinds.
    pub kinds: u64,
    /// The agent goes to rest by itself when it has not heard of the recorder for so long.
    pub heartbeat_timeout: Duration,
    /// How often it asks CUPTI for what is complete.
    pub flush_interval: Duration,
    /// Launches that may fire the agent's USDT site in a second; 0 none.
    pub launch_stacks_a_second: u64,
}

/// How an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it is.
    pub state: State,
    /// Why it does not collect.
    pub reason: Reason,
    /// The code that goes with it.
    pub detail: i32,
    /// CUPTI's version; 0 while there is none.
    pub cupti_version: u32,
    /// Whether it has answered the last command.
    pub answered: bool,
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Says what is wanted, and wakes the agent.
pub(crate) fn command(header: &Header, command: Command, wanted: Option<&Wanted>) {
    if let Some(wanted) = wanted {
        header.kinds.store(wanted.kinds, Ordering::Relaxed);
        header.heartbeat_timeout_ns.store(ns(wanted.heartbeat_timeout), Ordering::Relaxed);
        header.flush_interval_ns.store(ns(wanted.flush_interval), Ordering::Relaxed);
        header.launch_sample.store(wanted.launch_stacks_a_second, Ordering::Relaxed);
    }
    header.command.store(command.id(), Ordering::Relaxed);
    header.control.fetch_add(1, Ordering::Release);
    // The agent may not wait just now: then it looks by itself.
    let _ = futex::wake(&header.control, futex::Flags::empty(), 1);
}

/// Tells the agent that the recorder is there.
pub(crate) fn heartbeat(header: &Header, now_ns: u64) {
    header.heartbeat.store(now_ns, Ordering::Relaxed);
}

/// How the agent stands, as it says. A number that means nothing is taken for the worst.
pub(crate) fn standing(header: &Header) -> Standing {
    let load = |word: &std::sync::atomic::AtomicU32| word.load(Ordering::Acquire);
    Standing {
        state: State::from_id(load(&header.state)).unwrap_or(State::Gone),
        reason: Reason::from_id(load(&header.reason)).unwrap_or(Reason::Version),
        detail: header.detail.load(Ordering::Relaxed),
        cupti_version: load(&header.cupti_version),
        answered: load(&header.answered) == load(&header.control),
    }
}

/// How CUPTI was left, as the agent says.
pub(crate) fn left(header: &Header) -> Detached {
    Detached::from_id(header.detached.load(Ordering::Acquire)).unwrap_or(Detached::None)
}

/// What the agent has counted as lost since it was put in.
pub(crate) fn lost(header: &Header) -> [u64; LOST_COUNTERS] {
    std::array::from_fn(|at| header.lost.get(at).map_or(0, |word| word.load(Ordering::Relaxed)))
}

/// What of it is new.
pub(crate) fn lost_since(now: &[u64; LOST_COUNTERS], before: &[u64; LOST_COUNTERS]) -> Vec<(Lost, u64)> {
    let count = |lost: Lost| {
        let at = lost.id() as usize;
        let (now, before) = (now.get(at)?, before.get(at)?);
        now.checked_sub(*before).filter(|&n| n > 0)
    };
    Lost::ALL.iter().filter_map(|&lost| Some((lost, count(lost)?))).collect()
}
