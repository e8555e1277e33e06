//! The scoreboard: what the program says of real traces, beside what is known of them from elsewhere.
//!
//! One module a source of traces. Expected values come from other tools' results kept beside the traces, or are worked
//! out here, from the trace itself, by arithmetic that shares nothing with the program.

mod flight_recorder;
mod kineto;
mod nsys;
mod stragglers;
mod table;
mod tracelens;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use table::render;

/// Whether a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What was got is what was expected.
    Met,
    /// It is not.
    NotMet,
    /// The program cannot answer yet.
    NotYet,
}

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Trace.
    pub case: String,
    /// What is compared.
    pub quantity: String,
    /// What is known.
    pub expected: String,
    /// What the program says.
    pub got: String,
    /// Their difference, where both are numbers.
    pub difference: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Where the expectation comes from, or why the program differs.
    pub note: String,
}

impl Row {
    /// A comparison of times, ns: met within 2 µs or 0.01 %.
    fn time(case: &str, quantity: &str, expected_ns: f64, got_ns: Option<u64>) -> Self {
        let got = got_ns.map(|ns| ns as f64);
        let difference = got.map(|got| got - expected_ns);
        let met = difference.is_some_and(|d| d.abs() <= 2_000.0 || d.abs() <= expected_ns.abs() * 1e-4);
        let us = |ns: f64| format!("{:.3} µs", ns / 1e3);
        Self {
            case: case.to_owned(),
            quantity: quantity.to_owned(),
            expected: us(expected_ns),
            got: got.map_or_else(|| "nothing".to_owned(), us),
            difference: difference.map(us).unwrap_or_default(),
            verdict: if met { Verdict::Met } else { Verdict::NotMet },
            note: String::new(),
        }
    }

    /// A comparison of shares, %: met within `tolerance` points.
    fn share(case: &str, quantity: &str, expected: f64, got: Option<f64>, tolerance: f64) -> Self {
        let met = got.is_some_and(|got| (got - expected).abs() <= tolerance);
        Self {
            case: case.to_owned(),
            quantity: quantity.to_owned(),
            expected: format!("{expected:.2} % ± {tolerance}"),
            got: got.map_or_else(|| "nothing".to_owned(), |got| format!("{got:.2} %")),
            difference: got.map(|got| format!("{:+.2}", got - expected)).unwrap_or_default(),
            verdict: if met { Verdict::Met } else { Verdict::NotMet },
            note: String::new(),
        }
    }

    /// A statement that holds or not.
    fn statement(case: &str, quantity: &str, expected: &str, got: String, met: bool) -> Self {
        Self {
            case: case.to_owned(),
            quantity: quantity.to_owned(),
            expected: expected.to_owned(),
            got,
            difference: String::new(),
            verdict: if met { Verdict::Met } else { Verdict::NotMet },
            note: String::new(),
        }
    }

    fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// A source of rows: the folder of its traces and what to do with them.
type Source = (&'static str, fn(&Path) -> anyhow::Result<Vec<Row>>);

const SOURCES: &[Source] = &[
    ("tracelens", tracelens::rows),
    ("kineto", kineto::rows),
    ("nsys", nsys::rows),
    ("stragglers", stragglers::rows),
    ("flight-recorder", flight_recorder::rows),
];

/// The folder of the real traces, if this checkout has them beside it.
#[must_use]
pub fn ground_truth() -> Option<PathBuf> {
    let folder = crate::cli::root().join("../shared/ground-truth");
    folder.is_dir().then_some(folder)
}

/// All rows. A source that cannot be evaluated yields a row that is not met and says why.
#[must_use]
pub fn rows(ground_truth: &Path) -> Vec<Row> {
    let of_source = |&(name, rows): &Source| {
        rows(&ground_truth.join(name)).unwrap_or_else(|error| {
            vec![Row::statement(name, "all", "an answer", format!("{error:#}"), false)]
        })
    };
    SOURCES.iter().flat_map(of_source).collect()
}

/// A number of the report, by its path from the device down.
fn ns(device: &Value, path: &str) -> Option<u64> {
    device.pointer(path).and_then(Value::as_u64)
}

/// The report's only device.
fn only_device(report: &Value) -> anyhow::Result<&Value> {
    match report["devices"].as_array().map(Vec::as_slice) {
        Some([device]) => Ok(device),
        other => anyhow::bail!("{} devices instead of one", other.map_or(0, <[Value]>::len)),
    }
}

/// `part` of `whole`, %.
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::{Row, Verdict};

    #[test]
    fn times_are_met_within_two_microseconds_or_a_ten_thousandth() {
        let verdict = |expected, got| Row::time("c", "q", expected, got).verdict;
        assert_eq!(verdict(1e6, Some(1_002_000)), Verdict::Met);
        assert_eq!(verdict(1e6, Some(1_002_001)), Verdict::NotMet);
        assert_eq!(verdict(1e9, Some(1_000_100_000)), Verdict::Met);
        assert_eq!(verdict(1e9, Some(1_000_100_001)), Verdict::NotMet);
        assert_eq!(verdict(0.0, None), Verdict::NotMet);
    }
}
