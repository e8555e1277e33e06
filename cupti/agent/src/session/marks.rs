//! Whether records still come to us.
//!
//! CUPTI has one pair of buffer callbacks and one set of kinds for the whole process, and no function that says whose they
//! are. A profiler in the job takes the callbacks, and leaves nothing enabled when it is done. So with each flush the agent
//! makes a call into the driver of which CUPTI must write a record: a mark.
//!
//! | The newest mark | Meaning |
//! |---|---|
//! | has come back | until it was made the callbacks were ours: nobody but us puts them back |
//! | lies in a buffer of ours that CUPTI holds | not known yet: something else in that buffer may not be complete |
//! | is nowhere | it went to somebody else, or nothing is recorded any more |
//!
//! A mark may be found in another's profile: one or two, until its absence here is noticed.

use crate::clock::{Clock, Pair};
use crate::progress::Progress;

/// Marks that were made, and what is known by them.
#[derive(Debug)]
pub(super) struct Marks {
    /// CUPTI's time before the newest was made; 0 none.
    made: u64,
    /// CLOCK_MONOTONIC then.
    made_ns: u64,
    /// What was complete until then has come to us, CLOCK_MONOTONIC.
    known_until_ns: u64,
    /// Since when marks are nowhere, or since something was last done about it.
    missing_since_ns: Option<u64>,
    /// The callbacks were registered again meanwhile.
    is_retaken: bool,
}

/// What is known by the newest mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Records come to us; `again` where they went elsewhere for a while.
    Ours { again: bool },
    /// Nothing yet.
    Waiting,
    /// They go elsewhere, since then, or for all that was done then.
    Missing { since_ns: u64, is_new: bool },
}

impl Marks {
    pub(super) const fn new(now_ns: u64) -> Self {
        Self { made: 0, made_ns: now_ns, known_until_ns: now_ns, missing_since_ns: None, is_retaken: false }
    }

    /// A mark is about to be made.
    pub(super) const fn make(&mut self, cupti: u64, now_ns: u64) {
        self.made = cupti;
        self.made_ns = now_ns;
    }

    /// Looks where the newest mark is; `is_held` asks whether it lies in a buffer of ours.
    pub(super) fn look(
        &mut self,
        progress: &Progress<'_>,
        now_ns: u64,
        is_held: impl FnOnce(u64) -> bool,
    ) -> Known {
        if self.made == 0 || progress.has_mark(self.made) {
            let again = core::mem::take(&mut self.is_retaken);
            self.known_until_ns = if self.made == 0 { now_ns } else { self.made_ns };
            self.missing_since_ns = None;
            return Known::Ours { again };
        }
        if is_held(self.made) {
            return Known::Waiting;
        }
        let is_new = self.missing_since_ns.is_none();
        Known::Missing { since_ns: *self.missing_since_ns.get_or_insert(now_ns), is_new }
    }

    /// The callbacks were registered again. Should that not help, it is not done again at once.
    pub(super) const fn retake(&mut self, now_ns: u64) {
        self.missing_since_ns = Some(now_ns);
        self.is_retaken = true;
    }

    /// Whether records are known to have gone elsewhere, or may do so now.
    pub(super) const fn is_missing(&self) -> bool {
        self.missing_since_ns.is_some()
    }

    /// Until when everything has come to us: what ran then and had not ended is not among it.
    pub(super) fn known_until_ns(&self, progress: &Progress<'_>, clock: Clock, near: &Pair) -> u64 {
        let unfinished_ns = progress.unfinished_since().map(|cupti| clock.monotonic(near, cupti));
        unfinished_ns.map_or(self.known_until_ns, |ns| ns.min(self.known_until_ns))
    }
}
