//! The matrix as a page for docs/accuracy.md, misses included.

use std::fmt::Write as _;

use super::summary::BaselineSummary;
use super::{Matrix, Row};

/// The page.
///
/// # Panics
/// Never: writing to a text does not fail.
#[must_use]
pub fn page(matrix: &Matrix, date: &str) -> String {
    let mut out = String::new();
    let ran = matrix.rows.iter().filter(|row| row.skipped.is_none()).count();
    writeln!(out, "Run of {date}: {ran} runs.\n\n| | measured | wanted |\n|---|---|---|").expect("text");
    for (what, measured, wanted) in figures(matrix) {
        writeln!(out, "| {what} | {measured} | {wanted} |").expect("text");
    }
    out.push_str("\nThe rules of others on the same captures:\n\n| rule | top-1 | precision, by ns | accuses the innocent |\n|---|---|---|---|\n");
    let baselines = &matrix.more.baselines;
    for (rule, its) in [
        ("co-occurrence within 5 ms of a gap", &baselines.co_occurrence),
        ("the largest gaps (rank only)", &baselines.kernel_gaps),
    ] {
        let BaselineSummary { top1, precision_ns, accuses_the_innocent } = its;
        writeln!(
            out,
            "| {rule} | {} | {} | in {accuses_the_innocent} runs |",
            share(*top1),
            share(*precision_ns)
        )
        .expect("text");
    }
    out.push_str(
        "\n| fault | dose | took, ms | charged, ms | precision | top-1 | others' | split p99, µs | unknown | what was said first |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &matrix.rows {
        writeln!(out, "{}", line(row)).expect("text");
    }
    out
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "not measured".to_owned(), |v| format!("{v:.4}"))
}

fn figures(matrix: &Matrix) -> Vec<(&'static str, String, &'static str)> {
    let (summary, more) = (&matrix.summary, &matrix.more);
    let number = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "not measured".to_owned(), |v| format!("{v:+.1} {unit}"))
    };
    vec![
        ("conservation residual", format!("{} ns", summary.conservation_residual_ns), "0 ns"),
        ("top-1: culprit and cause", share(summary.top1), "0.99"),
        ("precision, by ns", share(summary.precision_ns), "0.97"),
        ("recall, by ns, against the truth log", share(summary.recall_ns), "0.97"),
        ("dose-response: slope", share(summary.dose_slope), "1 ± 0.02"),
        ("dose-response: intercept", number(more.dose_intercept_us, "µs"), "within 50 µs of 0"),
        ("decoys blamed", share(summary.decoy_blame), "at most 0.005"),
        ("findings that accuse the innocent", summary.false_findings.to_string(), "0"),
        ("unknown share, no loss", share(Some(summary.unknown_share)), "at most 0.01"),
        ("growth of another leaf at 1 % loss", share(more.leaf_growth_at_1_percent_loss), "at most 0.001"),
        ("error of the split, p99", number(summary.split_error_p99_us, "µs"), ""),
        ("splits right to 1 % or 5 µs", share(more.good_splits), ""),
        ("truth inside ±ε", share(summary.epsilon_coverage), "0.99"),
        ("the same, of clocks that are right", share(more.epsilon_coverage_of_right_clocks), ""),
    ]
}

fn line(row: &Row) -> String {
    if let Some(why) = &row.skipped {
        return format!("| {} | {} | – | – | – | – | – | – | – | not run: {why} |", row.fault, row.dose);
    }
    let top1 = match row.top1 {
        Some(true) => "yes",
        Some(false) => "**no**",
        None if row.false_findings > 0 => "**accuses**",
        None => "–",
    };
    let took = row.actual_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2}"));
    let is_late = row.kind == "late";
    let charged = if is_late { format!("{:.2}", row.charged_ms) } else { "–".to_owned() };
    let precision = Row::share(row.charged_ns, row.waited_ns).filter(|_| is_late);
    let precision = precision.map_or_else(|| "–".to_owned(), |share| format!("{share:.3}"));
    // Co-occurrence, then gaps.
    let others = row.baselines.as_ref().map_or_else(
        || "–".to_owned(),
        |b| {
            let of = |top1: Option<bool>| match top1 {
                Some(true) => "yes",
                Some(false) => "no",
                None => "–",
            };
            format!("{}, {}", of(b.co_occurrence.top1), of(b.kernel_gaps.top1))
        },
    );
    let split = row.split_error_p99_us.map_or_else(|| "–".to_owned(), |us| format!("{us:.1}"));
    // Numbers of threads differ from run to run, and where the job ran is the machine's affair.
    let here = std::env::current_dir().ok().filter(|here| here.parent().is_some());
    let said = match here {
        Some(here) => row.said.replace(&*here.to_string_lossy(), "$PWD"),
        None => row.said.clone(),
    };
    let said = match said.char_indices().nth(130).and_then(|(at, _)| said.get(..at)) {
        Some(long) => format!("{} …", long.rsplit_once(' ').map_or(long, |(words, _)| words)),
        None => said,
    };
    let unknown = format!("{:.1} %", row.unknown_share * 100.0);
    format!(
        "| {} | {} | {took} | {charged} | {precision} | {top1} | {others} | {split} | {unknown} | {said} |",
        row.fault, row.dose
    )
}
