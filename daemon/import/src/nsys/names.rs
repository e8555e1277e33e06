//! Names: the export's string table, and what the text of an NVTX range says about the range.

use std::io::Write;

use hashbrown::HashMap;
use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement};
use stallscope_core::ingest::Ingest;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::SpanKind;
use stallscope_schemas::units::StringId;

use super::database::{Database, WrongType, integer, text};

/// Longest name that is kept whole: heavy C++ templates reach tens of KiB.
const MAX_NAME_BYTES: usize = 64 << 10;

/// Ids that are remembered; beyond, each use is a look-up again.
const MAX_REMEMBERED: usize = 4 << 20;

/// Resolves references into `StringIds`, on demand: the table also holds texts that no row refers to, such as the whole
/// output of the program.
#[derive(Debug)]
pub(super) struct Names<'d> {
    known: HashMap<i64, StringId>,
    look_up: Option<Statement<'d>>,
}

impl<'d> Names<'d> {
    /// Prepares look-ups. Where `id` is no key, a look-up would be a scan, so the table is read once instead.
    pub(super) fn new<W: Write>(database: &'d Database, ingest: &mut Ingest<W>) -> Self {
        let mut known = HashMap::new();
        let Some(table) = database.table("StringIds").filter(|t| t.has("id") && t.has("value")) else {
            ingest.writer().count_loss(LossCounter::TableMissing, 1);
            return Self { known, look_up: None };
        };
        if table.is_row_id("id") {
            let look_up = database.connection().prepare("SELECT value FROM \"StringIds\" WHERE id = ?1").ok();
            return Self { known, look_up };
        }
        // A damaged page loses names, which then read as unknown.
        let _ = database.scan(table, &["id", "value"], |row| {
            if let (Ok(Some(id)), Ok(Some(value))) = (integer(row, 0), text(row, 1))
                && known.len() < MAX_REMEMBERED
            {
                known.insert(id, intern(ingest, &value));
            }
            Ok(())
        });
        Self { known, look_up: None }
    }

    /// The text behind an id; `None` where the table has no such row.
    pub(super) fn get<W: Write>(&mut self, ingest: &mut Ingest<W>, id: i64) -> Option<StringId> {
        if let Some(&name) = self.known.get(&id) {
            return Some(name);
        }
        let mut rows = self.look_up.as_mut()?.query([id]).ok()?;
        let row = rows.next().ok()??;
        let name = intern(ingest, &text(row, 0).ok()??);
        if self.known.len() < MAX_REMEMBERED {
            self.known.insert(id, name);
        }
        Some(name)
    }

    /// A cell that names something: a reference into the table, or the text itself (some converters write it in place).
    pub(super) fn cell<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        row: &Row<'_>,
        at: usize,
    ) -> Result<Option<StringId>, WrongType> {
        match row.get_ref(at) {
            Ok(ValueRef::Null) => Ok(None),
            Ok(ValueRef::Integer(id)) => Ok(self.get(ingest, id)),
            Ok(ValueRef::Text(bytes)) => Ok(Some(intern(ingest, &String::from_utf8_lossy(bytes)))),
            _ => Err(WrongType),
        }
    }
}

/// Interns a name; one that is too long is cut, and counted.
pub(super) fn intern<W: Write>(ingest: &mut Ingest<W>, name: &str) -> StringId {
    let end = name.floor_char_boundary(MAX_NAME_BYTES);
    if end < name.len() {
        ingest.writer().count_loss(LossCounter::StringTableFull, 1);
    }
    ingest.writer().intern(name.get(..end).unwrap_or_default())
}

/// What `torch.autograd.profiler.emit_nvtx` appends to an operator's name.
const OPERATOR_SUFFIXES: &[&str] = &[", seq = ", ", op_id = ", ", sizes = ", ", input_op_ids = "];

/// Words that people put before the number of a step.
const STEP_WORDS: &[&str] =
    &["profilerstep", "train_step", "training_step", "train step", "step", "iteration", "iter", "batch"];

/// What may stand between the word and the number.
const STEP_SEPARATORS: &[char] = &[' ', '#', ':', '_', '-', '=', '/'];

/// The name and kind of an NVTX range, from its text.
///
/// - `aten::empty, op_id = 990346` is the operator `aten::empty`: the numbers differ in every call and are cut off;
/// - one of [`STEP_WORDS`] followed by a number and nothing else is a step: `step 12`, `Iteration: 7`, `iter_3`,
///   `ProfilerStep#4`, `[train_step 5]`. A word that merely occurs in a longer text (`optimizer step 3 of 8`) is not;
/// - everything else is an annotation.
pub(super) fn range_kind(text: &str) -> (&str, SpanKind) {
    let cut = OPERATOR_SUFFIXES.iter().filter_map(|suffix| text.find(suffix)).min();
    if let Some(name) = cut.and_then(|at| text.get(..at)) {
        return (name, SpanKind::Operator);
    }
    (text, if is_step(text) { SpanKind::Step } else { SpanKind::Annotation })
}

fn is_step(text: &str) -> bool {
    // Longer than any step's name: not worth a lower-case copy.
    if text.len() > 64 {
        return false;
    }
    let lower = text.trim_matches(|c: char| c.is_whitespace() || "[]()<>".contains(c)).to_ascii_lowercase();
    STEP_WORDS.iter().any(|word| {
        lower.strip_prefix(word).is_some_and(|rest| {
            let number = rest.trim_start_matches(STEP_SEPARATORS);
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::SpanKind;

    use super::range_kind;

    #[test]
    fn a_word_for_step_with_a_number_is_a_step() {
        for text in [
            "ProfilerStep#4",
            "step 12",
            "Step 12",
            "iteration 3",
            "iter_7",
            "Iteration: 9",
            "batch 1",
            "[train_step 5]",
        ] {
            assert_eq!(range_kind(text), (text, SpanKind::Step), "{text}");
        }
    }

    #[test]
    fn texts_that_only_mention_steps_are_annotations() {
        for text in
            ["step", "optimizer step 3", "step 3 of 8", "batch_norm", "iterate 5", "stepping 4", "", "12"]
        {
            assert_eq!(range_kind(text), (text, SpanKind::Annotation), "{text}");
        }
    }

    #[test]
    fn the_numbers_of_emit_nvtx_are_cut_off() {
        assert_eq!(range_kind("aten::empty, op_id = 990346"), ("aten::empty", SpanKind::Operator));
        assert_eq!(range_kind("AddBackward0, seq = 12, op_id = 3"), ("AddBackward0", SpanKind::Operator));
        assert_eq!(range_kind("aten::mm, op_id = 3, sizes = [[2, 3]]"), ("aten::mm", SpanKind::Operator));
    }
}
