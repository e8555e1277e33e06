//! The matrix as a page for docs/accuracy.md, misses included.

use std::fmt::Write as _;

use super::{Matrix, Row};

/// The page.
///
/// # Panics
/// Never: writing to a text does not fail.
#[must_use]
pub fn page(matrix: &Matrix, date: &str) -> String {
    let mut out = String::new();
    let summary = &matrix.summary;
    let share = |value: Option<f64>| value.map_or_else(|| "not measured".to_owned(), |v| format!("{v:.4}"));
    let slope = summary
        .dose_slope
        .map_or_else(|| "not measured".to_owned(), |(s, i)| format!("{s:.4}, {:+.0} µs", i * 1000.0));
    let lines = [
        ("conservation residual", format!("{} ns", summary.conservation_residual_ns), "0 ns"),
        ("top-1: culprit and cause", share(summary.top1), "0.99"),
        ("precision, by ns", share(summary.precision_ns), "0.97"),
        ("recall, by ns", share(summary.recall_ns), "0.97"),
        ("dose-response: slope, intercept", slope, "1 ± 0.02, within 50 µs of 0"),
        ("decoys blamed", share(summary.decoy_blame), "at most 0.005"),
        ("findings that accuse the innocent", summary.false_findings.to_string(), "0"),
        ("unknown share", share(Some(summary.unknown_share)), ""),
        ("error of the split, p99", share(summary.split_error_p99_us), "2 µs"),
        ("coverage of ε", share(summary.epsilon_coverage), "0.99"),
    ];
    writeln!(out, "Run of {date}: {} runs.\n\n| | measured | wanted |\n|---|---|---|", matrix.rows.len())
        .expect("text");
    for (what, measured, wanted) in lines {
        writeln!(out, "| {what} | {measured} | {wanted} |").expect("text");
    }
    out.push_str(
        "\n| fault | asked, ms | took, ms | charged, ms a step | precision | top-1 | unknown | what was said first |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in &matrix.rows {
        writeln!(out, "{}", line(row)).expect("text");
    }
    out
}

fn line(row: &Row) -> String {
    let top1 = match row.top1 {
        Some(true) => "yes",
        Some(false) => "**no**",
        None if row.false_findings > 0 => "**accuses**",
        None => "–",
    };
    let took = row.actual_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2}"));
    let precision = row.charged_ns as f64 / row.waited_ns.max(1) as f64;
    let (charged, precision) = if row.kind == "late" {
        (format!("{:.2}", row.charged_ms_a_step), format!("{precision:.3}"))
    } else {
        ("–".to_owned(), "–".to_owned())
    };
    // Numbers of threads and paths differ from run to run.
    let said = match row.said.char_indices().nth(110).and_then(|(at, _)| row.said.get(..at)) {
        Some(long) => format!("{} …", long.rsplit_once(' ').map_or(long, |(words, _)| words)),
        None => row.said.clone(),
    };
    let unknown = format!("{:.1} %", row.unknown_share * 100.0);
    format!(
        "| {} | {} | {took} | {charged} | {precision} | {top1} | {unknown} | {said} |",
        row.fault, row.dose_ms
    )
}
