//! Benchmarks of the program as users run it, and of its inner loop.
//!
//! Every number is the median of several runs with the least and the greatest, beside a floor measured on the same
//! machine in the same minute: how fast the bytes alone can be had. Inputs are made once and kept under the target
//! folder; the working set is read once before it is measured, so that the disk is not what is measured.

mod attribution;
mod floors;
mod host;
mod import;
mod inputs;
mod sweep;

use serde::Serialize;

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Smaller inputs.
    pub quick: bool,
    /// Only benchmarks whose name contains one of these; all where empty.
    pub only: Vec<String>,
}

/// Several runs of one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// Half of the runs had less.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
    /// Number of runs.
    pub runs: usize,
}

impl Spread {
    /// Sums up runs; zeros where there are none.
    #[must_use]
    pub fn of(mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        let at = |i: usize| runs.get(i).copied().unwrap_or(0.0);
        let last = runs.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, min: at(0), max: at(last), runs: runs.len() }
    }
}

/// One line of the outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// Unit of all numbers.
    pub unit: &'static str,
    /// What the runs gave.
    pub value: Spread,
    /// What the machine sets as the best possible, in the same unit.
    pub floor: Option<Spread>,
    /// What the floor is.
    pub floor_is: &'static str,
}

impl Measurement {
    fn new(name: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Self {
        Self { name: name.into(), unit, value: Spread::of(runs), floor: None, floor_is: "" }
    }

    fn with_floor(mut self, floor: Vec<f64>, is: &'static str) -> Self {
        self.floor = Some(Spread::of(floor));
        self.floor_is = is;
        self
    }
}

type Benchmark = (&'static str, fn(&Options) -> anyhow::Result<Vec<Measurement>>);

const BENCHMARKS: &[Benchmark] = &[
    ("import", import::speed),
    ("import-memory", import::memory),
    ("size", sweep::size),
    ("sweep", sweep::speed),
    ("report", sweep::report),
    ("attribution", attribution::attribution),
    ("host-switches", host::switches),
    ("host-jobs", host::jobs_slowdown),
    ("host-recorder", host::recorder),
];

/// Runs the benchmarks.
///
/// # Errors
/// When an input cannot be made or the program fails.
pub fn run(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let mut results = Vec::new();
    for (name, benchmark) in BENCHMARKS {
        if options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str())) {
            eprintln!("bench: {name}");
            results.extend(benchmark(options)?);
        }
    }
    Ok(results)
}

/// The outcome for people.
#[must_use]
pub fn render(results: &[Measurement]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(["benchmark", "unit", "median", "min", "max", "runs", "floor", "the floor is"]);
    for m in results {
        let number = |x: f64| if x >= 100.0 { format!("{x:.0}") } else { format!("{x:.2}") };
        let floor = m.floor.as_ref().map(|f| number(f.median)).unwrap_or_default();
        let v = &m.value;
        table.add_row([
            &m.name,
            m.unit,
            &number(v.median),
            &number(v.min),
            &number(v.max),
            &v.runs.to_string(),
            &floor,
            m.floor_is,
        ]);
    }
    table.to_string()
}

/// Calls something so many times; what each call gave.
fn repeat(runs: usize, mut one: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    (0..runs).map(|_| one()).collect()
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_between_the_middle_runs() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert!((spread.median - 2.5).abs() < 1e-9);
        assert!((spread.min - 1.0).abs() < 1e-9 && (spread.max - 4.0).abs() < 1e-9);
    }
}
