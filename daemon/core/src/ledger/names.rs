//! What is counted by name: one look-up an operation yields the class of its name and the place to count it.

use hashbrown::HashMap;
use stallscope_schemas::units::StringId;

use super::device::Tally;
use crate::capture::Tables;
use crate::classify::{OpClass, kernel_class};

/// A name that operations of the device carry.
pub(super) struct NameRow {
    name: StringId,
    /// What the name alone says.
    pub(super) by_name: OpClass,
    /// What its first operation counted as.
    pub(super) class: Option<OpClass>,
    pub(super) tally: Tally,
}

/// Names seen on the device, found by string id without hashing.
pub(super) struct Names<'a> {
    tables: &'a Tables,
    /// By string id: position in `rows` plus one, 0 for a name not seen.
    places: Vec<u32>,
    rows: Vec<NameRow>,
}

impl<'a> Names<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, places: vec![0; tables.string_count()], rows: Vec::new() }
    }

    /// The row of a name; `None` for an id that the string table does not have.
    #[inline]
    pub(super) fn row(&mut self, name: StringId) -> Option<&mut NameRow> {
        let place = self.places.get_mut(name.index())?;
        if *place == 0 {
            let by_name = kernel_class(self.tables.string(name));
            self.rows.push(NameRow { name, by_name, class: None, tally: Tally::default() });
            *place = u32::try_from(self.rows.len()).ok()?;
        }
        self.rows.get_mut(*place as usize - 1)
    }

    /// Names that operations of the window carried.
    pub(super) fn counted(self) -> HashMap<StringId, (OpClass, Tally)> {
        self.rows.into_iter().filter_map(|r| Some((r.name, (r.class?, r.tally)))).collect()
    }
}
