//! The fault matrix: a job with known faults is recorded, and what the report says is held against what was done.
//!
//! The GPUs are the double's, whose device time is virtual and exact; processes, threads, files, networks and the kernel are
//! real. What a fault really took is what the job or the kernel wrote down, not what was asked for. Figures say how well
//! causes are told, nothing about a GPU.

mod baseline;
mod cases;
mod inject;
mod mpi;
mod network;
mod page;
mod row;
mod run;
mod score;
mod spans;
mod splits;
mod summary;
mod truth;

use serde::Serialize;

pub use baseline::{Baselines, Verdict};
pub use cases::{CASES, Case};
pub use page::page;
pub use row::Row;
pub use run::{Options, run};
pub use summary::{BaselineSummaries, BaselineSummary, More, Summary};

/// All rows and what they come to.
#[derive(Debug, Serialize)]
pub struct Matrix {
    /// Over all rows.
    pub summary: Summary,
    /// What else there is to say over all rows.
    pub more: More,
    /// One a fault and dose.
    pub rows: Vec<Row>,
}
