//! Rows of one key in the order of their starts, from batches that may overlap in time.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

use stallscope_schemas::units::TimeNs;

use super::batch::{BatchColumns, ColumnSet};
use super::read_at::ReadAt;
use super::reader::{BatchInfo, Capture};
use crate::rows::Row;

/// Where an iterator over rows notes the stretches of damaged batches, as it comes to them.
pub type DamageNotes = Rc<RefCell<Vec<(TimeNs, TimeNs)>>>;

/// A decoded batch with the part that has not been handed out.
#[derive(Debug)]
struct Active {
    columns: BatchColumns,
    at: usize,
}

impl Active {
    fn head(&self) -> Option<i64> {
        self.columns.starts().get(self.at).map(|s| s.cast_signed())
    }
}

/// A stretch of consecutive rows, or the place of rows that could not be read.
#[derive(Debug)]
pub enum Run<'a> {
    /// These rows of these columns come next.
    Rows(&'a BatchColumns, Range<usize>),
    /// A damaged batch held the rows of this stretch of time.
    Damaged(TimeNs, TimeNs),
}

/// Merges the batches of one key by start. A batch is decoded when its first row is due, so that memory is the decoded
/// size of the batches that overlap in time; on a time-ordered file that is one.
#[derive(Debug)]
pub struct Merged<'a, S, R> {
    capture: &'a Capture<S>,
    set: ColumnSet,
    pending: Vec<&'a BatchInfo>,
    next: usize,
    active: Vec<Active>,
    spare: Vec<BatchColumns>,
    row: PhantomData<R>,
}

impl<'a, S: ReadAt, R: Row> Merged<'a, S, R> {
    /// Merges batches of one key, which must be in the order of their least starts.
    pub(super) fn new(capture: &'a Capture<S>, set: ColumnSet, pending: Vec<&'a BatchInfo>) -> Self {
        Self { capture, set, pending, next: 0, active: Vec::new(), spare: Vec::new(), row: PhantomData }
    }

    /// The next run of rows, or `None` at the end.
    pub fn next_run(&mut self) -> Option<Run<'_>> {
        self.next_run_of(usize::MAX)
    }

    /// The next run of at most that many rows.
    fn next_run_of(&mut self, most: usize) -> Option<Run<'_>> {
        loop {
            while let Some(done) = self.active.iter().position(|a| a.head().is_none()) {
                self.spare.push(self.active.swap_remove(done).columns);
            }
            let head = self.active.iter().filter_map(Active::head).min();
            let due = self.pending.get(self.next).filter(|b| head.is_none_or(|h| b.min.0 <= h));
            let Some(due) = due.copied() else { break };
            self.next += 1;
            let mut columns = self.spare.pop().unwrap_or_default();
            if self.capture.read_batch::<R>(due, self.set, &mut columns).is_some() {
                self.active.push(Active { columns, at: 0 });
            } else {
                self.spare.push(columns);
                return Some(Run::Damaged(due.min, due.max));
            }
        }
        let first = self.active.iter().enumerate().filter_map(|(i, a)| a.head().map(|h| (h, i))).min()?.1;
        let others =
            self.active.iter().enumerate().filter(|(i, _)| *i != first).filter_map(|(_, a)| a.head()).min();
        let unopened = self.pending.get(self.next).map(|b| b.min.0);
        let limit = others.into_iter().chain(unopened).min();
        let active = self.active.get_mut(first)?;
        let from = active.at;
        let rest = active.columns.starts().get(from..)?;
        let len = limit.map_or(rest.len(), |limit| rest.partition_point(|s| s.cast_signed() <= limit));
        active.at = from + len.clamp(1, most.max(1));
        Some(Run::Rows(&active.columns, from..active.at))
    }
}

/// Rows that are built ahead of need: they stay in a near cache, and a reader of many threads holds little.
const ROWS_AHEAD: usize = 256;

/// Iterates over rows of one key in the order of their starts.
#[derive(Debug)]
pub struct MergedRows<'a, S, R> {
    merged: Merged<'a, S, R>,
    /// Rows of the current run; the buffer is kept from run to run.
    run: Vec<R>,
    /// Position of the next row in `run`.
    at: usize,
    damage: Option<DamageNotes>,
}

impl<'a, S: ReadAt, R: Row> MergedRows<'a, S, R> {
    pub(super) fn new(merged: Merged<'a, S, R>, damage: Option<DamageNotes>) -> Self {
        Self { merged, run: Vec::new(), at: 0, damage }
    }
}

impl<S: ReadAt, R: Row> Iterator for MergedRows<'_, S, R> {
    type Item = R;

    #[inline]
    fn next(&mut self) -> Option<R> {
        loop {
            if let Some(&row) = self.run.get(self.at) {
                self.at += 1;
                return Some(row);
            }
            match self.merged.next_run_of(ROWS_AHEAD)? {
                Run::Rows(columns, range) => {
                    self.run.clear();
                    self.run.extend(range.map(|at| columns.row::<R>(at)));
                    self.at = 0;
                }
                Run::Damaged(from, to) => {
                    if let Some(damage) = &self.damage {
                        damage.borrow_mut().push((from, to));
                    }
                }
            }
        }
    }
}
