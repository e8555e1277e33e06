//! The exclusive sweep of one device.
//!
//! Operations arrive in the order of their starts, from all streams together. Every nanosecond of the window is given to
//! exactly one class, the first in this order that covers it:
//!
//! ```text
//! LOST > COMPUTE > COMM > COPY > open-ended operation > nothing (a gap)
//! ```
//!
//! Because starts are ordered, the part of a class that is still ahead is one interval, from now to the greatest end seen:
//! one number a class is the whole state, and the sweep costs O(1) an operation. The stretches handed to the visitor are
//! half-open, adjacent and in order, so their lengths sum to the window by construction; the ledger checks it all the same.

use hashbrown::HashSet;
use stallscope_schemas::units::TimeNs;

/// What can cover a moment of a device, in falling priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Cover {
    /// Records of this time were lost: nothing can be said.
    Lost = 0,
    /// A kernel that computes, or a fill.
    Compute = 1,
    /// Communication.
    Comm = 2,
    /// A copy.
    Copy = 3,
    /// An operation began here whose end the trace does not know.
    Open = 4,
}

const COVERS: [Cover; 5] = [Cover::Lost, Cover::Compute, Cover::Comm, Cover::Copy, Cover::Open];

/// Receives the stretches of the sweep, in order.
pub trait Visitor<Op: Copy> {
    /// `cover` had the device from `from` to `to`.
    fn busy(&mut self, cover: Cover, from: TimeNs, to: TimeNs);
    /// Nothing covered the device from `from` to `to`; `closing` is the operation that ended it, if one did.
    fn gap(&mut self, from: TimeNs, to: TimeNs, closing: Option<Op>);
}

/// State of the sweep.
#[derive(Debug)]
pub struct Sweep {
    now: i64,
    ahead: [i64; 5],
    totals: [u64; 5],
    open_streams: HashSet<u64>,
    last_end: i64,
}

impl Sweep {
    /// Starts at the beginning of the window.
    #[must_use]
    pub fn new(window_start: TimeNs) -> Self {
        Self {
            now: window_start.0,
            ahead: [i64::MIN; 5],
            totals: [0; 5],
            open_streams: HashSet::new(),
            last_end: window_start.0,
        }
    }

    /// Up to where time has been given away.
    #[must_use]
    pub fn now(&self) -> TimeNs {
        TimeNs(self.now)
    }

    /// Up to where something known covers the device: a later start opens a gap from here.
    #[must_use]
    pub fn covered_until(&self) -> TimeNs {
        TimeNs(self.ahead.iter().copied().fold(self.now, i64::max))
    }

    /// Greatest end so far.
    #[must_use]
    pub fn last_end(&self) -> TimeNs {
        TimeNs(self.last_end)
    }

    /// Length of the union of everything of a class inside the window so far, whether exposed or not.
    #[must_use]
    pub fn total_ns(&self, cover: Cover) -> u64 {
        self.totals.get(cover as usize).copied().unwrap_or(0)
    }

    /// Gives away time up to `to`. `closing` is the operation that begins there.
    #[inline]
    pub fn advance<Op: Copy>(&mut self, to: TimeNs, closing: Option<Op>, visitor: &mut impl Visitor<Op>) {
        while self.now < to.0 {
            let covering = COVERS.iter().zip(self.ahead).find(|(_, ahead)| *ahead > self.now);
            let from = TimeNs(self.now);
            match covering {
                Some((&cover, ahead)) => {
                    // A class of higher priority cannot begin in between: all starts up to `to` have been seen.
                    self.now = ahead.min(to.0);
                    visitor.busy(cover, from, TimeNs(self.now));
                }
                None => {
                    self.now = to.0;
                    visitor.gap(from, to, closing);
                }
            }
        }
    }

    /// Takes an operation. Starts must not decrease.
    #[inline]
    pub fn op<Op: Copy>(
        &mut self,
        cover: Cover,
        start: TimeNs,
        end: TimeNs,
        closing: Op,
        visitor: &mut impl Visitor<Op>,
    ) {
        self.advance(start, Some(closing), visitor);
        self.cover(cover, start, end);
    }

    /// Marks a stretch as covered without giving away any time: for what began before the window.
    #[inline]
    pub fn cover(&mut self, cover: Cover, start: TimeNs, end: TimeNs) {
        if let (Some(ahead), Some(total)) =
            (self.ahead.get_mut(cover as usize), self.totals.get_mut(cover as usize))
        {
            let from = start.0.max(*ahead).max(self.now);
            if end.0 > from {
                *total += end.0.abs_diff(from);
                *ahead = end.0;
            }
        }
        self.last_end = self.last_end.max(end.0);
    }

    /// An operation without an end began on `stream`: what nothing else covers is unknown until the stream's next one.
    pub fn open(&mut self, stream: u64) {
        self.open_streams.insert(stream);
        self.set_open(i64::MAX);
    }

    /// The next operation of `stream` began: whatever was open there has ended.
    #[inline]
    pub fn close(&mut self, stream: u64) {
        if !self.open_streams.is_empty() {
            self.open_streams.remove(&stream);
            if self.open_streams.is_empty() {
                self.set_open(i64::MIN);
            }
        }
    }

    fn set_open(&mut self, until: i64) {
        if let Some(ahead) = self.ahead.get_mut(Cover::Open as usize) {
            *ahead = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};
    use stallscope_schemas::units::TimeNs;

    use super::{COVERS, Cover, Sweep, Visitor};

    #[derive(Default)]
    struct Sums {
        busy: [u64; 5],
        idle: u64,
        at: Option<i64>,
    }

    impl Visitor<()> for Sums {
        fn busy(&mut self, cover: Cover, from: TimeNs, to: TimeNs) {
            assert!(self.at.is_none_or(|at| at == from.0), "stretches touch");
            self.at = Some(to.0);
            self.busy[cover as usize] += to.since(from);
        }

        fn gap(&mut self, from: TimeNs, to: TimeNs, _: Option<()>) {
            assert!(self.at.is_none_or(|at| at == from.0), "stretches touch");
            self.at = Some(to.0);
            self.idle += to.since(from);
        }
    }

    fn sweep(ops: &[(usize, i64, i64)]) -> (Sums, [u64; 5]) {
        let mut sums = Sums::default();
        let start = ops.iter().map(|o| o.1).min().unwrap_or(0);
        let mut sweep = Sweep::new(TimeNs(start));
        for &(class, from, to) in ops {
            sweep.op(COVERS[class], TimeNs(from), TimeNs(to), (), &mut sums);
        }
        let end = sweep.last_end();
        sweep.advance(end, None, &mut sums);
        (sums, COVERS.map(|c| sweep.total_ns(c)))
    }

    /// For every nanosecond, ask every operation: slow and obviously right.
    fn naive(ops: &[(usize, i64, i64)]) -> ([u64; 5], u64, [u64; 5]) {
        let start = ops.iter().map(|o| o.1).min().unwrap_or(0);
        let end = ops.iter().map(|o| o.2).max().unwrap_or(0);
        let (mut busy, mut idle, mut total) = ([0; 5], 0, [0; 5]);
        for t in start..end {
            let covers = |class: usize| ops.iter().any(|o| o.0 == class && o.1 <= t && t < o.2);
            match (0..5).find(|&c| covers(c)) {
                Some(class) => busy[class] += 1,
                None => idle += 1,
            }
            (0..5).filter(|&c| covers(c)).for_each(|c| total[c] += 1);
        }
        (busy, idle, total)
    }

    proptest! {
        #[test]
        fn the_sweep_equals_a_naive_reference_and_sums_to_wall(
            mut ops in prop::collection::vec((0..4usize, 0..300i64, 0..40i64), 1..60)
        ) {
            for op in &mut ops {
                op.2 += op.1;
            }
            ops.sort_by_key(|o| o.1);
            let (sums, totals) = sweep(&ops);
            let (busy, idle, total) = naive(&ops);
            assert_eq!((sums.busy, sums.idle, totals), (busy, idle, total));
            let wall = ops.iter().map(|o| o.2).max().unwrap() - ops[0].1;
            assert_eq!(sums.busy.iter().sum::<u64>() + sums.idle, wall.unsigned_abs());
        }
    }

    #[test]
    fn an_open_operation_is_unknown_until_its_streams_next() {
        let mut sums = Sums::default();
        let mut sweep = Sweep::new(TimeNs(0));
        sweep.op(Cover::Compute, TimeNs(0), TimeNs(10), (), &mut sums);
        sweep.advance(TimeNs(20), Some(()), &mut sums);
        sweep.open(7);
        sweep.op(Cover::Compute, TimeNs(30), TimeNs(40), (), &mut sums);
        sweep.advance(TimeNs(50), Some(()), &mut sums);
        sweep.close(7);
        sweep.op(Cover::Compute, TimeNs(60), TimeNs(70), (), &mut sums);
        sweep.advance(TimeNs(70), None, &mut sums);
        assert_eq!(sums.busy[Cover::Open as usize], 20);
        assert_eq!(sums.busy[Cover::Compute as usize], 30);
        assert_eq!(sums.idle, 20);
    }
}
