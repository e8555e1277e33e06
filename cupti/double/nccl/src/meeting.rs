//! Who has arrived where, as one rank knows it. An arrival is told once to each rank that it concerns; in what order they
//! come to know of them does not matter.

use std::collections::HashMap;
use std::sync::Arc;

use crate::board::Progress;
use crate::launch::Launch;
use crate::message::{Arrival, Key};

/// Meetings at which somebody is missing.
#[derive(Debug)]
pub(crate) struct Meetings {
    world: u32,
    open: HashMap<Key, Meeting>,
    /// What has been read of the board and added to it; absent where there is none.
    pub(crate) progress: Option<Progress>,
}

/// Who has arrived, and the kernel that waits for all to have.
#[derive(Debug, Default)]
struct Meeting {
    arrivals: Vec<Arrival>,
    launch: Option<Arc<Launch>>,
}

/// A meeting at which all have arrived, and this rank's kernel, which need wait no longer.
#[derive(Debug)]
pub(crate) struct Complete {
    key: Key,
    /// In the order of ranks.
    arrivals: Vec<Arrival>,
    pub(crate) launch: Arc<Launch>,
}

/// What came of a meeting.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) key: Key,
    /// Ranks and their starts by this process's clock, in the order of ranks.
    pub(crate) starts: Vec<(u32, u64)>,
    /// The longest of the ranks' transfer times, and the part of it that a setting added.
    pub(crate) transfer_ns: u64,
    pub(crate) slowed_ns: u64,
}

impl Meetings {
    pub(crate) fn new(world: u32, progress: Option<Progress>) -> Self {
        Self { world, open: HashMap::new(), progress }
    }

    /// Somebody has arrived, with the kernel that waits if it was this rank.
    pub(crate) fn add(&mut self, arrival: Arrival, launch: Option<Arc<Launch>>) -> Option<Complete> {
        let key = arrival.key.clone();
        let parties = match key {
            Key::All(_) => usize::try_from(self.world).unwrap_or(usize::MAX),
            Key::Pair(..) => 2,
        };
        let meeting = self.open.entry(key.clone()).or_default();
        meeting.arrivals.push(arrival);
        meeting.launch = launch.or(meeting.launch.take());
        if meeting.arrivals.len() < parties || meeting.launch.is_none() {
            return None;
        }
        let Meeting { mut arrivals, launch } = self.open.remove(&key)?;
        arrivals.sort_by_key(|a| (a.rank, a.start_ns));
        Some(Complete { key, arrivals, launch: launch? })
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Forget all; returns the kernels that waited.
    pub(crate) fn give_up(&mut self) -> Vec<Arc<Launch>> {
        std::mem::take(&mut self.open).into_values().filter_map(|m| m.launch).collect()
    }
}

impl Complete {
    /// What came of it, by a clock that is so far ahead of the machine's.
    pub(crate) fn met(self, offset_ns: i64) -> Met {
        let longest = self.arrivals.iter().max_by_key(|a| a.transfer_ns);
        let (transfer_ns, slowed_ns) = longest.map_or((0, 0), |a| (a.transfer_ns, a.slowed_ns));
        let starts = self.arrivals.iter().map(|a| (a.rank, a.start_ns.saturating_add_signed(offset_ns)));
        Met { key: self.key, starts: starts.collect(), transfer_ns, slowed_ns }
    }
}
