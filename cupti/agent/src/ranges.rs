//! Ranges of the user (NVTX) whose end has not come: CUPTI reports the start and the end apart.

/// Ranges that can be open at once, over all threads.
pub(crate) const ENTRIES: usize = 4096;

/// An id is looked for in one row of so many places.
const WAYS: usize = 4;

/// A range that is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Open {
    /// CUPTI's number for it.
    pub(crate) id: u32,
    /// Whether this place is taken.
    taken: u32,
    /// CUPTI's time.
    pub(crate) start: u64,
    /// Thread that opened it.
    pub(crate) thread: u32,
    /// Number of its name.
    pub(crate) name: u32,
    /// Number of its domain's name.
    pub(crate) domain: u32,
    padding: u32,
}

impl Open {
    pub(crate) const fn new(id: u32, start: u64, thread: u32, name: u32, domain: u32) -> Self {
        Self { id, taken: 1, start, thread, name, domain, padding: 0 }
    }
}

/// The ranges that are open.
#[derive(Debug)]
pub(crate) struct Ranges<'a> {
    table: &'a mut [Open],
}

impl<'a> Ranges<'a> {
    /// `table` has [`ENTRIES`] entries, all zero.
    pub(crate) fn new(table: &'a mut [Open]) -> Self {
        Self { table }
    }

    /// Remembers a range; false where there is no room.
    pub(crate) fn open(&mut self, range: Open) -> bool {
        let Some(place) = self.row(range.id).iter_mut().find(|place| place.taken == 0) else { return false };
        *place = range;
        true
    }

    /// Forgets a range and returns it; none where its start was not seen or not remembered.
    pub(crate) fn close(&mut self, id: u32) -> Option<Open> {
        let place = self.row(id).iter_mut().find(|place| place.taken != 0 && place.id == id)?;
        Some(core::mem::take(place))
    }

    fn row(&mut self, id: u32) -> &mut [Open] {
        // Ids count up: neighbours fall into different rows.
        let first = id as usize % (ENTRIES / WAYS) * WAYS;
        self.table.get_mut(first..first + WAYS).unwrap_or_default()
    }
}
