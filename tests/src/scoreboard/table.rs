//! Rows as a table for people.

use comfy_table::{ContentArrangement, Table};

use super::{Row, Verdict};

/// The table, the notes below it, and a line with the count.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["trace", "quantity", "expected", "got", "difference", "met"]);
    let mut notes = Vec::new();
    for row in rows {
        let mark = if row.note.is_empty() {
            String::new()
        } else {
            notes.push(&row.note);
            format!(" [{}]", notes.len())
        };
        let met = match row.verdict {
            Verdict::Met => "yes",
            Verdict::NotMet => "NO",
            Verdict::NotYet => "not yet",
        };
        table.add_row([
            &row.case,
            &row.quantity,
            &row.expected,
            &row.got,
            &row.difference,
            &format!("{met}{mark}"),
        ]);
    }
    let count = |verdict| rows.iter().filter(|r| r.verdict == verdict).count();
    let notes: String = notes.iter().enumerate().map(|(at, note)| format!("\n[{}] {note}", at + 1)).collect();
    format!(
        "{table}\n{notes}\n\nscoreboard: {} met, {} not met, {} not yet",
        count(Verdict::Met),
        count(Verdict::NotMet),
        count(Verdict::NotYet)
    )
}
