//! One run of the matrix.

use std::collections::BTreeMap;

use serde::Serialize;

use super::baseline::Baselines;
use super::cases::Case;

/// One run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The fault.
    pub fault: &'static str,
    /// `late`, `decoy`, `healthy`, `loss` or `clock`.
    pub kind: &'static str,
    /// Dose that was asked for: ms a step, or what the fault says.
    pub dose: f64,
    /// Why it could not be run here, or failed; then nothing else is known.
    pub skipped: Option<String>,
    /// Whether a dose delays the step by all that it takes.
    pub on_path: bool,
    /// What a dose took, mean, ms; none where nobody writes it down.
    pub actual_ms: Option<f64>,
    /// Share of the doses' time in which the trainer's threads that the step waited for waited for a CPU, by the kernel's account.
    pub queued_share: f64,
    /// It took less than 1 % of a step: there was no fault to be named.
    pub took_nothing: bool,
    /// Doses that fell into the recording: of those that delay a step, the ones whose collective was matched; one
    /// that the window cuts counts in part.
    pub doses: f64,
    /// Steps in the window, from the begin of the harm on.
    pub steps: u64,
    /// Largest difference between the leaves of a ledger and its wall time, ns.
    pub conservation_residual_ns: u64,
    /// Time that ranks waited for late ones by the report, ns.
    pub waited_ns: u64,
    /// The same by the truth log, ns.
    pub true_waited_ns: u64,
    /// Charged to a culprit and one of its leaves, ns.
    pub charged_ns: u64,
    /// The same for each rank that waits, a dose where all of it delays the step, else a step, ms.
    pub charged_ms: f64,
    /// Time that could not be split or lies within the clocks' error, ns.
    pub unsplit_ns: u64,
    /// Whether those that are late, and nobody else, are accused first, with the right causes.
    pub top1: Option<bool>,
    /// What the first accusations said, one a culprit.
    pub said: String,
    /// Findings that accuse a rank that is innocent, of warning or worse; of a healthy job any.
    pub false_findings: u64,
    /// Ranks whose device the recorder left out, because its clock cannot be trusted.
    pub refused: Vec<u32>,
    /// Of a decoy: what it took, and how much of this the report holds against the rank, ns.
    pub decoy: Option<(u64, u64)>,
    /// What the host of the first culprit did while others waited for its device, beyond what is usual, by leaf, ms for each
    /// step.
    pub host_excess_ms: BTreeMap<&'static str, f64>,
    /// Share of all GPU time that is UNKNOWN, idle without a cause, or not split.
    pub unknown_share: f64,
    /// By how much the direct leaf with the largest excess is larger than in truth, as a share of wall time.
    pub leaf_growth_share: f64,
    /// Kernels of collectives whose split was held against the truth log.
    pub splits: u64,
    /// Of these, wrong by at most 1 % or 5 µs.
    pub good_splits: u64,
    /// Kernels in operations of which the capture lacks a rank, or holds one apart: their wait is known from below only.
    pub partial_splits: u64,
    /// Of these, the ones that did wait for as long as is said.
    pub right_partial_splits: u64,
    /// Operations whose kernels are not one collective.
    pub mistaken_operations: u64,
    /// Of how many kernels the true last coming lies within the reported error.
    pub covered_splits: u64,
    /// The reported error, ns.
    pub epsilon_ns: u64,
    /// 99th percentile of what wait or transfer is wrong by, µs.
    pub split_error_p99_us: Option<f64>,
    /// What others' rules say of the same capture.
    pub baselines: Option<Baselines>,
    /// For the 99th percentile over all rows.
    #[serde(skip)]
    pub(super) split_errors_ns: Vec<u64>,
}

impl Row {
    /// Nothing known yet.
    pub(super) fn new(case: &Case, dose: f64) -> Self {
        let (kind, on_path) = (case.kind.name(), case.on_path);
        Self { fault: case.name, kind, dose, on_path, ..Self::default() }
    }

    /// A share of this row's time, where there is any.
    pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
        (whole > 0).then(|| part as f64 / whole as f64)
    }
}
