//! What was lost on the way to a report.

use serde::Serialize;
use stallscope_schemas::loss::LossCounter;

use super::{CaptureReport, saturating_sum};

/// One loss counter.
#[derive(Clone, Debug, Serialize)]
pub struct LossReport {
    /// Stable name.
    pub counter: String,
    /// Whether records are gone; else something about records that were kept is missing or doubtful.
    pub lost: bool,
    /// Records.
    pub count: u64,
    /// What was lost and what that means.
    pub meaning: String,
}

impl CaptureReport {
    /// Records that are gone.
    pub(crate) fn records_lost(&self) -> u64 {
        saturating_sum(self.losses.iter().filter(|l| l.lost).map(|l| l.count))
    }

    /// Whether the capture, or what it was made from, ends in the middle: nobody knows how much is missing then.
    pub(crate) fn is_cut_short(&self) -> bool {
        let cut = [LossCounter::CaptureTruncated.name(), LossCounter::InputTruncated.name()];
        self.losses.iter().any(|loss| cut.contains(&loss.counter.as_str()))
    }
}

/// A loss counter in words; one of a newer version keeps its number.
#[must_use]
pub fn loss_report(counter: u16, count: u64) -> LossReport {
    match LossCounter::from_id(counter) {
        Some(known) => {
            let (counter, meaning) = (known.name().to_owned(), known.explanation().to_owned());
            LossReport { counter, lost: known.is_loss(), count, meaning }
        }
        None => LossReport {
            counter: format!("counter_{counter}"),
            lost: true,
            count,
            meaning: "A loss that this version of stallscope does not know.".to_owned(),
        },
    }
}
