//! The columns of one batch in memory.

use crate::rows::Row;

/// The columns of one batch, decoded. Columns that were not asked for are empty.
#[derive(Debug, Default)]
pub struct BatchColumns {
    pub(super) columns: Vec<Vec<u64>>,
    pub(super) rows: usize,
    pub(super) body: Vec<u8>,
    pub(super) scratch: Vec<u8>,
}

impl BatchColumns {
    /// Values of a column, in the order of the rows; empty where it was not asked for.
    #[must_use]
    pub fn column(&self, id: u16) -> &[u64] {
        self.columns.get(usize::from(id)).map_or(&[], Vec::as_slice)
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn starts(&self) -> &[u64] {
        self.column(0)
    }

    pub(super) fn row<R: Row>(&self, at: usize) -> R {
        R::load(|column| self.column(column).get(at).copied().unwrap_or(0))
    }
}

/// Which columns to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSet(u64);

impl ColumnSet {
    /// Every column.
    pub const ALL: Self = Self(u64::MAX);

    /// These columns, with the starts and durations that reading always needs.
    #[must_use]
    pub fn of(columns: &[u16]) -> Self {
        Self(columns.iter().fold(0b11, |set, &c| set | 1u64.checked_shl(c.into()).unwrap_or(0)))
    }

    pub(super) fn has(self, column: u16) -> bool {
        1u64.checked_shl(column.into()).is_some_and(|bit| self.0 & bit != 0)
    }
}
