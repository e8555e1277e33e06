//! What the rows come to.

use serde::Serialize;

use super::baseline::{Baselines, Verdict};
use super::row::Row;
use super::splits::p99_us;

/// What the rows come to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Largest of all rows, ns.
    pub conservation_residual_ns: u64,
    /// Share of late runs that name culprits and causes first.
    pub top1: Option<f64>,
    /// Of the time that ranks waited by the report in late runs, the share that is charged to culprit and cause.
    pub precision_ns: Option<f64>,
    /// Of the time that ranks truly waited in late runs, the share that is charged to culprit and cause.
    pub recall_ns: Option<f64>,
    /// Of what decoys took, the share that is held against their ranks.
    pub decoy_blame: Option<f64>,
    /// Over all rows.
    pub false_findings: u64,
    /// Slope of what is charged over what a dose took.
    pub dose_slope: Option<f64>,
    /// 99th percentile over the kernels of all rows whose clocks are right, µs.
    pub split_error_p99_us: Option<f64>,
    /// Share of the kernels of all rows for which the true last coming lies within the reported error.
    pub epsilon_coverage: Option<f64>,
    /// Mean over the rows without loss.
    pub unknown_share: f64,
}

/// What the rows come to, beyond what is asked of [`Summary`].
#[derive(Clone, Debug, Serialize)]
pub struct More {
    /// Where the line of doses meets 0, µs.
    pub dose_intercept_us: Option<f64>,
    /// Share of the kernels of rows whose clocks are right that are split to 1 % or 5 µs.
    pub good_splits: Option<f64>,
    /// The same as [`Summary::epsilon_coverage`], of the rows whose clocks are right.
    pub epsilon_coverage_of_right_clocks: Option<f64>,
    /// With one record in a hundred lost: by how much the direct leaf that grows most does, as a share of wall time.
    pub leaf_growth_at_1_percent_loss: Option<f64>,
    /// What others' rules come to.
    pub baselines: BaselineSummaries,
}

/// What others' rules come to.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineSummaries {
    /// Whoever has most going on around the gaps.
    pub co_occurrence: BaselineSummary,
    /// Whoever has the largest gaps; it names no cause, and is right where the rank is.
    pub kernel_gaps: BaselineSummary,
}

/// What one rule comes to.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineSummary {
    /// Share of late runs in which it is right.
    pub top1: Option<f64>,
    /// Share of the idle time of late runs that it charges to whom and what it should.
    pub precision_ns: Option<f64>,
    /// Decoys and healthy runs in which it accuses somebody, as it always does where there is a gap.
    pub accuses_the_innocent: u64,
}

/// What the rows come to.
pub(super) fn of(rows: &[Row]) -> (Summary, More) {
    let ran: Vec<&Row> = rows.iter().filter(|row| row.skipped.is_none()).collect();
    // Those that failed were not named.
    let late: Vec<&Row> = rows.iter().filter(|row| row.top1.is_some()).collect();
    let sum = |rows: &[&Row], of: fn(&Row) -> u64| rows.iter().map(|row| of(row)).sum::<u64>();
    let (charged, waited) = (sum(&late, |r| r.charged_ns), sum(&late, |r| r.waited_ns));
    // What is charged beyond what was waited is no recall.
    let found = sum(&late, |r| r.charged_ns.min(r.true_waited_ns));
    let right_clock: Vec<&Row> = ran.iter().copied().filter(|row| row.kind != "clock").collect();
    let errors =
        right_clock.iter().filter(|r| r.kind != "loss").flat_map(|r| r.split_errors_ns.iter().copied());
    let decoys: Vec<(u64, u64)> = ran.iter().filter_map(|row| row.decoy).collect();
    let (took, blamed) = decoys.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let points: Vec<(f64, f64)> = late
        .iter()
        .filter(|row| row.on_path && row.waited_ns > 0)
        .filter_map(|row| Some((row.actual_ms?, row.charged_ms)))
        .collect();
    let line = line(&points);
    let covered = |rows: &[&Row]| {
        let of = sum(rows, |r| r.splits + r.partial_splits);
        Row::share(sum(rows, |r| r.covered_splits + r.right_partial_splits), of)
    };
    let whole: Vec<&Row> = ran.iter().copied().filter(|row| row.kind != "loss").collect();
    let lossy = ran.iter().filter(|row| row.kind == "loss" && (row.dose - 1.0).abs() < 1e-9);
    let summary = Summary {
        conservation_residual_ns: ran.iter().map(|r| r.conservation_residual_ns).max().unwrap_or(0),
        top1: Row::share(sum(&late, |r| u64::from(r.top1 == Some(true))), late.len() as u64),
        precision_ns: Row::share(charged, waited),
        recall_ns: Row::share(found, sum(&late, |r| r.true_waited_ns)),
        decoy_blame: Row::share(blamed, took),
        false_findings: sum(&ran, |r| r.false_findings),
        dose_slope: line.map(|(slope, _)| slope),
        split_error_p99_us: p99_us(errors.collect()),
        epsilon_coverage: covered(&ran),
        unknown_share: whole.iter().map(|r| r.unknown_share).sum::<f64>() / whole.len().max(1) as f64,
    };
    let more = More {
        dose_intercept_us: line.map(|(_, intercept)| intercept * 1000.0),
        good_splits: Row::share(sum(&right_clock, |r| r.good_splits), sum(&right_clock, |r| r.splits)),
        epsilon_coverage_of_right_clocks: covered(&right_clock),
        leaf_growth_at_1_percent_loss: lossy.map(|r| r.leaf_growth_share).reduce(f64::max),
        baselines: BaselineSummaries {
            co_occurrence: baseline(&ran, |b| &b.co_occurrence),
            kernel_gaps: baseline(&ran, |b| &b.kernel_gaps),
        },
    };
    (summary, more)
}

fn baseline(rows: &[&Row], of: impl Fn(&Baselines) -> &Verdict) -> BaselineSummary {
    let all = || rows.iter().filter_map(|row| Some((row, of(row.baselines.as_ref()?))));
    let late: Vec<&Verdict> =
        all().filter(|(row, _)| row.top1.is_some()).map(|(_, verdict)| verdict).collect();
    let sum = |of: fn(&Verdict) -> u64| late.iter().map(|verdict| of(verdict)).sum();
    let innocent =
        all().filter(|(row, verdict)| matches!(row.kind, "decoy" | "healthy") && verdict.rank.is_some());
    BaselineSummary {
        top1: Row::share(sum(|v| u64::from(v.top1 == Some(true))), late.len() as u64),
        precision_ns: Row::share(sum(|v| v.right_ns), sum(|v| v.charged_ns)),
        accuses_the_innocent: innocent.count() as u64,
    }
}

/// Slope and intercept of the least squares line.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    (points.len() > 2 && under > 0.0).then(|| (over / under, y - over / under * x))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_is_found() {
        let (slope, intercept) = line(&[(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]).unwrap();
        assert!((slope - 2.0).abs() < 1e-9 && (intercept - 1.0).abs() < 1e-9);
        assert_eq!(line(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
