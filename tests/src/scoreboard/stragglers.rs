//! Pipelined jobs, and what the reference implementation of the what-if analysis says of them.
//!
//! Every `trace-NAME.parquet` with a `result-NAME.json` beside it is a case; `mw-NAME.json` and `ms-NAME.json` hold the two
//! shares. Slowdown and shares are met within 0.02, times of steps within 1 %.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use super::Row;
use crate::cli;

const SHARE: f64 = 0.02;
const STEP: f64 = 0.01;

pub(super) fn rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut traces: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| name(path).is_some_and(|name| beside(path, "result", name).is_file()))
        .collect();
    traces.sort();
    let mut rows = Vec::new();
    for trace in &traces {
        let name = name(trace).unwrap_or_default();
        rows.extend(case(trace, name).with_context(|| trace.display().to_string())?);
    }
    Ok(rows)
}

/// What the trace is called: `trace-NAME.parquet`.
fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix("trace-")?.strip_suffix(".parquet")
}

fn beside(trace: &Path, what: &str, name: &str) -> PathBuf {
    trace.with_file_name(format!("{what}-{name}.json"))
}

fn json(path: &Path) -> anyhow::Result<Value> {
    serde_json::from_slice(&std::fs::read(path)?).with_context(|| path.display().to_string())
}

fn case(trace: &Path, name: &str) -> anyhow::Result<Vec<Row>> {
    let case = format!("stragglers/{name}");
    let report = cli::report(&[trace.to_owned()])?;
    let got = &report["whatif"];
    if let Some(why) = got["undecided"].as_str() {
        return Ok(vec![Row::statement(&case, "what if", "an answer", why.to_owned(), false)]);
    }
    let result = json(&beside(trace, "result", name))?;
    let mut rows =
        vec![number(&case, "slowdown", result["blocking_slowdown"].as_f64(), got["slowdown"].as_f64())];
    for (quantity, file, expected, key) in [
        ("recovered without the slowest workers (M_W)", "mw", "Mw", "m_w"),
        ("recovered without the last stage (M_S)", "ms", "Ms", "m_s"),
    ] {
        let path = beside(trace, file, name);
        if path.is_file() {
            rows.push(number(&case, quantity, json(&path)?[expected].as_f64(), got[key].as_f64()));
        }
    }
    for (quantity, expected, key) in [
        ("steps as recorded", "step_t_base", "actual_ns"),
        ("steps as simulated", "step_t_nodelay", "simulated_ns"),
        ("steps at their best", "step_t_noblk", "ideal_ns"),
    ] {
        rows.push(steps(&case, quantity, &result[expected], &got["steps"], key));
    }
    Ok(rows)
}

fn number(case: &str, quantity: &str, expected: Option<f64>, got: Option<f64>) -> Row {
    let text = |value: Option<f64>| value.map_or_else(|| "nothing".to_owned(), |v| format!("{v:.4}"));
    let difference = expected.zip(got).map(|(expected, got)| got - expected);
    let met = difference.is_some_and(|d| d.abs() <= SHARE);
    let mut row = Row::statement(case, quantity, &format!("{} ± {SHARE}", text(expected)), text(got), met);
    row.difference = difference.map(|d| format!("{d:+.6}")).unwrap_or_default();
    row
}

/// All steps, of which the one that is farthest off counts.
fn steps(case: &str, quantity: &str, expected: &Value, got: &Value, key: &str) -> Row {
    let expected: Vec<(String, f64)> = expected
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(step, seconds)| Some((step.clone(), seconds.as_f64()?)))
        .collect();
    let of = |step: &str| {
        let number: i64 = step.parse().ok()?;
        let step = got.as_array()?.iter().find(|s| s["step"].as_i64() == Some(number))?;
        step[key].as_f64().map(|ns| ns / 1e9)
    };
    let found: Vec<f64> =
        expected.iter().filter_map(|(step, seconds)| Some((of(step)? - seconds).abs() / seconds)).collect();
    let worst = found.iter().copied().fold(0.0, f64::max);
    let met = !expected.is_empty() && found.len() == expected.len() && worst <= STEP;
    let got = format!("{} of them, at most {:.4} % off", found.len(), worst * 100.0);
    Row::statement(case, quantity, &format!("{} steps within 1 %", expected.len()), got, met)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{number, steps};
    use crate::scoreboard::Verdict;

    #[test]
    fn a_step_that_is_missing_or_off_is_not_met() {
        let expected = json!({"7": 2.0, "9": 4.0});
        let verdict = |got| steps("c", "q", &expected, &got, "actual_ns").verdict;
        let step = |step: i64, ns: u64| json!({"step": step, "actual_ns": ns});
        assert_eq!(verdict(json!([step(7, 2_000_000_000), step(9, 4_030_000_000)])), Verdict::Met);
        assert_eq!(verdict(json!([step(7, 2_000_000_000), step(9, 4_050_000_000)])), Verdict::NotMet);
        assert_eq!(verdict(json!([step(7, 2_000_000_000)])), Verdict::NotMet);
        assert_eq!(steps("c", "q", &json!(null), &json!([]), "actual_ns").verdict, Verdict::NotMet);
    }

    #[test]
    fn numbers_are_met_within_two_hundredths() {
        assert_eq!(number("c", "q", Some(1.0), Some(1.019)).verdict, Verdict::Met);
        assert_eq!(number("c", "q", Some(1.0), Some(1.021)).verdict, Verdict::NotMet);
        assert_eq!(number("c", "q", Some(1.0), None).verdict, Verdict::NotMet);
    }
}
