//! Stretches in which the probes on collective calls were off: for a thread that makes such calls, time of which nothing
//! can be said.
//!
//! A stretch of a thread begins when the probes were about to be taken off (a call that was open then, and began before,
//! the kernel half reports by itself) and ends with the first call that it began after they were on again: it may have
//! been inside one before that. A thread that makes none until it ends is unseen until then.

use std::collections::HashMap;

/// The probes were taken off or put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallsSeen {
    /// Not any more from this moment on, CLOCK_MONOTONIC ns.
    Off(u64),
    /// Again from this moment on.
    On(u64),
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    from: u64,
    until: Option<u64>,
}

/// Gaps of the recording, and how many of them are settled for each thread that has made a call.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    gaps: Vec<Gap>,
    callers: HashMap<u32, usize>,
}

impl Unseen {
    pub(super) fn change(&mut self, change: CallsSeen) {
        match change {
            CallsSeen::Off(from) => self.gaps.push(Gap { from, until: None }),
            CallsSeen::On(at) => {
                if let Some(gap) = self.gaps.last_mut() {
                    gap.until.get_or_insert(at);
                }
            }
        }
    }

    /// A thread began a call. Returns the stretch that this ends.
    pub(super) fn call(&mut self, task: u32, start: u64) -> Option<(u64, u64)> {
        let over = self.gaps.iter().take_while(|gap| gap.until.is_some_and(|until| until <= start)).count();
        // What came before a thread's first call is not said to be full of them.
        let settled = self.callers.insert(task, over).unwrap_or(over);
        // Calls of several CPUs arrive in disorder: an older one takes nothing back.
        if settled > over {
            self.callers.insert(task, settled);
            return None;
        }
        let first = self.gaps.get(settled).filter(|_| settled < over)?;
        Some((first.from, start))
    }

    /// A thread has ended, or is no longer followed. Returns the stretch that this ends.
    pub(super) fn end(&mut self, task: u32, at: u64) -> Option<(u64, u64)> {
        let settled = self.callers.remove(&task)?;
        let first = self.gaps.get(settled).filter(|gap| gap.from < at)?;
        Some((first.from, at))
    }
}

#[cfg(test)]
mod tests {
    use super::{CallsSeen, Unseen};

    #[test]
    fn a_gap_lasts_until_the_first_call_after_it() {
        let mut unseen = Unseen::default();
        assert_eq!(unseen.call(1, 10), None);
        unseen.change(CallsSeen::Off(20));
        assert_eq!(unseen.call(1, 19), None, "it began before");
        assert_eq!(unseen.call(1, 21), None, "it was seen while the probes went off");
        unseen.change(CallsSeen::On(100));
        assert_eq!(unseen.call(1, 130), Some((20, 130)));
        assert_eq!(unseen.call(1, 140), None);
        assert_eq!(unseen.end(1, 200), None);
    }

    #[test]
    fn a_thread_that_never_calls_again_is_unseen_to_its_end() {
        let mut unseen = Unseen::default();
        unseen.call(1, 10);
        unseen.change(CallsSeen::Off(20));
        unseen.change(CallsSeen::On(30));
        unseen.change(CallsSeen::Off(40));
        assert_eq!(unseen.end(1, 50), Some((20, 50)));
        assert_eq!(unseen.end(2, 50), None, "it made no calls");
    }

    #[test]
    fn what_is_before_a_threads_first_call_is_its_own() {
        let mut unseen = Unseen::default();
        unseen.change(CallsSeen::Off(20));
        unseen.change(CallsSeen::On(30));
        assert_eq!(unseen.call(1, 35), None);
        unseen.change(CallsSeen::Off(40));
        unseen.change(CallsSeen::On(50));
        assert_eq!(unseen.call(1, 60), Some((40, 60)));
    }
}
