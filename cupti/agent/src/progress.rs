//! What records tell of the job's progress: what was launched and has not come back, and which calls have.
//!
//! Times are CUPTI's. Correlation ids count up, over all threads; they may wrap.

/// How far a record's time may lie before a reading of CUPTI's clock that was made before it: records are converted from
/// other clocks.
const SLACK: u64 = 1_000_000;

/// As far as records have come back.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The newest launch, and the newest operation that came back.
    launched: u32,
    done: u32,
    /// When the oldest launch began whose operation may still be out; 0 where all came back.
    waiting_since: u64,
    /// When the last operation ended that came back; 0 none.
    last_end: u64,
    /// When the first operation began that came back since this was last asked for; 0 none.
    first_start: u64,
    /// When the newest mark was made that came back; 0 none.
    mark: u64,
}

/// Whether a number is newer than another, both counting up.
const fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl Progress {
    /// A launch or a copy was asked for.
    pub(crate) fn launch(&mut self, correlation: u32, start: u64) {
        if is_newer(correlation, self.done) && self.waiting_since == 0 {
            self.waiting_since = start;
        }
        if is_newer(correlation, self.launched) {
            self.launched = correlation;
        }
    }

    /// An operation came back; `end` is 0 where that is not known.
    pub(crate) fn operation(&mut self, correlation: u32, start: u64, end: u64) {
        if is_newer(correlation, self.done) {
            self.done = correlation;
        }
        if !is_newer(self.launched, self.done) {
            self.waiting_since = 0;
        }
        self.last_end = self.last_end.max(end);
        if self.first_start == 0 || start < self.first_start {
            self.first_start = start;
        }
    }

    /// A mark came back.
    pub(crate) fn mark(&mut self, start: u64) {
        self.mark = self.mark.max(start);
    }

    /// Whether a mark that was made at that time has come back, or a later one.
    pub(crate) const fn has_mark(&self, made: u64) -> bool {
        is_mark(self.mark, made)
    }

    /// From when on an operation may run, or wait, that has not come back: none where there is none.
    pub(crate) fn unfinished_since(&self) -> Option<u64> {
        (self.waiting_since != 0).then_some(self.waiting_since.max(self.last_end))
    }

    /// Forgets when the first operation began.
    pub(crate) fn expect_first(&mut self) {
        self.first_start = 0;
    }

    /// When the first operation began since then.
    pub(crate) fn first_start(&self) -> Option<u64> {
        (self.first_start != 0).then_some(self.first_start)
    }
}

/// Whether a record that begins at `start` is that of a mark made at `made`, or of a later one.
pub(crate) const fn is_mark(start: u64, made: u64) -> bool {
    start != 0 && start.saturating_add(SLACK) >= made
}
