//! Lanes: slices of one track must nest, and records need not.
//!
//! An end has no name: it closes the innermost open slice of its track. So what would only partly overlap an open slice
//! goes to the next lane, which is a track of its own. Invariant: on every lane, in the order of emission, times do not
//! decrease and every end closes the slice that it belongs to.

/// Lanes of one track; what needs more is left out.
const MAX_LANES: usize = 64;

/// Open slices of one lane: trace_processor drops what is nested deeper than 512.
const MAX_DEPTH: usize = 500;

/// What may lie within what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// Slices may contain others: calls on a thread.
    Nest,
    /// Slices follow one another: operations of a stream.
    Separate,
}

/// One lane: ends of the open slices, outermost first.
#[derive(Debug, Default)]
struct Lane {
    open: Vec<i64>,
    now: Option<i64>,
}

/// The lanes of one track.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    overlap: Overlap,
}

impl Lanes {
    pub(super) fn new(overlap: Overlap) -> Self {
        Self { lanes: Vec::new(), overlap }
    }

    /// Finds a lane for a slice and says what to close on it first, in order: `(lane, time)` of every end. Yields the
    /// lane, or `None` when there is no room.
    pub(super) fn place(&mut self, start: i64, end: i64, mut close: impl FnMut(usize, i64)) -> Option<usize> {
        let overlap = self.overlap;
        let found = self.lanes.iter().position(|lane| lane.takes(start, end, overlap));
        let at = match found {
            Some(at) => at,
            None if self.lanes.len() < MAX_LANES => {
                self.lanes.push(Lane::default());
                self.lanes.len() - 1
            }
            None => return None,
        };
        let lane = self.lanes.get_mut(at)?;
        while let Some(ended) = lane.open.pop_if(|ended| *ended <= start) {
            close(at, ended);
        }
        lane.open.push(end);
        lane.now = Some(start);
        Some(at)
    }

    /// Closes everything.
    pub(super) fn finish(self, mut close: impl FnMut(usize, i64)) {
        for (at, lane) in self.lanes.into_iter().enumerate() {
            for end in lane.open.into_iter().rev() {
                close(at, end);
            }
        }
    }
}

impl Lane {
    fn takes(&self, start: i64, end: i64, overlap: Overlap) -> bool {
        if self.now.is_some_and(|now| start < now) {
            return false;
        }
        let depth = self.open.iter().rev().skip_while(|e| **e <= start).count();
        let innermost = depth.checked_sub(1).and_then(|at| self.open.get(at));
        match (innermost, overlap) {
            (None, _) => true,
            (Some(_), Overlap::Separate) => false,
            (Some(&within), Overlap::Nest) => end <= within && depth < MAX_DEPTH,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Lanes, MAX_LANES, Overlap};

    /// Places slices and replays begins and ends as a reader would; yields `(lane, start, end)` as read.
    fn replay(overlap: Overlap, slices: &[(i64, i64)]) -> Vec<(usize, i64, i64)> {
        let mut lanes = Lanes::new(overlap);
        // (lane, time, slice that begins or None for an end), in the order of emission.
        let mut events: Vec<(usize, i64, Option<usize>)> = Vec::new();
        for (number, &(start, end)) in slices.iter().enumerate() {
            let lane = lanes.place(start, end, |lane, at| events.push((lane, at, None)));
            if let Some(lane) = lane {
                events.push((lane, start, Some(number)));
            }
        }
        lanes.finish(|lane, at| events.push((lane, at, None)));
        // A reader sorts by time and keeps the order of emission among equals.
        events.sort_by_key(|(_, at, _)| *at);
        let mut open: Vec<(usize, i64)> = Vec::new();
        let mut read = Vec::new();
        for (lane, at, begins) in events {
            if begins.is_some() {
                open.push((lane, at));
            } else if let Some(position) = open.iter().rposition(|(l, _)| *l == lane) {
                let (_, start) = open.remove(position);
                read.push((lane, start, at));
            }
        }
        assert!(open.is_empty(), "every slice ends");
        read
    }

    fn spans(read: &[(usize, i64, i64)]) -> Vec<(i64, i64)> {
        let mut spans: Vec<(i64, i64)> = read.iter().map(|&(_, start, end)| (start, end)).collect();
        spans.sort_unstable();
        spans
    }

    #[test]
    fn nested_slices_share_a_lane_and_partial_overlaps_do_not() {
        let read = replay(Overlap::Nest, &[(0, 10), (2, 5), (5, 10), (8, 12), (12, 13)]);
        assert!(read.contains(&(0, 2, 5)) && read.contains(&(0, 5, 10)) && read.contains(&(0, 0, 10)));
        assert!(read.contains(&(1, 8, 12)), "{read:?}");
    }

    #[test]
    fn operations_of_a_stream_that_overlap_at_all_are_drawn_apart() {
        let read = replay(Overlap::Separate, &[(0, 10), (2, 5), (10, 12)]);
        assert_eq!(read.iter().filter(|(lane, ..)| *lane == 0).count(), 2);
        assert!(read.contains(&(1, 2, 5)));
    }

    #[test]
    fn what_finds_no_lane_is_left_out() {
        let mut lanes = Lanes::new(Overlap::Separate);
        let placed = (0..100).filter(|&i| lanes.place(i, 1000, |_, _| {}).is_some()).count();
        assert_eq!(placed, MAX_LANES);
    }

    proptest! {
        #[test]
        fn a_reader_gets_back_every_slice(
            mut slices in prop::collection::vec((0i64..60, 0i64..30), 0..60),
            nest in any::<bool>(),
            sorted in any::<bool>(),
        ) {
            let mut slices: Vec<(i64, i64)> = slices.drain(..).map(|(start, len)| (start, start + len)).collect();
            if sorted {
                slices.sort_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
            }
            let overlap = if nest { Overlap::Nest } else { Overlap::Separate };
            let read = replay(overlap, &slices);
            slices.sort_unstable();
            prop_assert_eq!(spans(&read), slices);
        }
    }
}
