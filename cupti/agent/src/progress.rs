//! What records tell of the job's progress: what was launched and has not come back, and which calls have.
//!
//! Times are CUPTI's. Correlation ids count up, over all threads; they may wrap.

/// How far a record's time may lie before a reading of CUPTI's clock that was made before it: records are converted from
/// other clocks.
const SLACK: u64 = 1_000_000;

/// Launches that are looked after: as many numbers as the newest is ahead. One whose operation never comes, because the call
/// had nothing to do, is forgotten when so many others have come.
pub(crate) const ENTRIES: usize = 1024;

/// A launch, or an operation whose launch has not come yet: CUPTI hands them over in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Entry {
    /// When the launch began.
    start: u64,
    correlation: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
enum State {
    #[default]
    Empty = 0,
    /// The operation is out.
    Out = 1,
    /// It came back.
    Back = 2,
}

/// Streams that have had operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Streams {
    #[default]
    None,
    /// Its context and its number there: what is out begins after what came back.
    One(u32, u32),
    Several,
}

/// As far as records have come back.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    /// By the low bits of their numbers.
    table: &'a mut [Entry],
    streams: Streams,
    /// When the last operation ended that came back; 0 none.
    last_end: u64,
    /// When the newest mark was made that came back; 0 none.
    mark: u64,
}

/// Whether a number is newer than another, both counting up.
const fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl<'a> Progress<'a> {
    /// `table` has [`ENTRIES`] entries, all zero.
    pub(crate) fn new(table: &'a mut [Entry]) -> Self {
        Self { table, streams: Streams::None, last_end: 0, mark: 0 }
    }

    /// The place of a number, where nothing newer has it.
    fn place(&mut self, correlation: u32) -> Option<&mut Entry> {
        let place = self.table.get_mut(correlation as usize % ENTRIES)?;
        (place.state == State::Empty || !is_newer(place.correlation, correlation)).then_some(place)
    }

    /// A launch or a copy was asked for.
    pub(crate) fn launch(&mut self, correlation: u32, start: u64) {
        if let Some(place) = self.place(correlation)
            && (place.state == State::Empty || place.correlation != correlation)
        {
            *place = Entry { start, correlation, state: State::Out };
        }
    }

    /// An operation came back; `end` is 0 where that is not known.
    pub(crate) fn operation(&mut self, correlation: u32, (context, stream): (u32, u32), end: u64) {
        if let Some(place) = self.place(correlation) {
            *place = Entry { start: 0, correlation, state: State::Back };
        }
        self.streams = match self.streams {
            Streams::None => Streams::One(context, stream),
            one if one == Streams::One(context, stream) => one,
            _ => Streams::Several,
        };
        self.last_end = self.last_end.max(end);
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
        let out = self.table.iter().filter(|entry| entry.state == State::Out);
        let oldest = out.min_by_key(|entry| entry.start)?;
        // A single stream ends its work in order: where what was asked for later has come back, this is on another one.
        let is_later = |e: &Entry| e.state == State::Back && is_newer(e.correlation, oldest.correlation);
        let in_order = self.streams != Streams::Several && !self.table.iter().any(is_later);
        Some(if in_order { oldest.start.max(self.last_end) } else { oldest.start })
    }
}

/// Whether a record that begins at `start` is that of a mark made at `made`, or of a later one.
pub(crate) const fn is_mark(start: u64, made: u64) -> bool {
    start != 0 && start.saturating_add(SLACK) >= made
}
