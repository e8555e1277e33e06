//! The fault matrix: a job with one known fault is recorded, and what the report says is held against what was done.
//!
//! The GPUs are the double's, whose device time is virtual and exact; processes, threads, files and the kernel are real. What a
//! fault really took is what the job wrote down, not what it was asked for. Figures say how well causes are told, nothing
//! about a GPU.

mod cases;
mod page;
mod run;
mod score;
mod truth;

use serde::Serialize;

pub use cases::{CASES, Case};
pub use page::page;
pub use run::{Options, run};
pub use score::{Row, Summary};

/// All rows and what they come to.
#[derive(Debug, Serialize)]
pub struct Matrix {
    /// Over all rows.
    pub summary: Summary,
    /// One a fault and dose.
    pub rows: Vec<Row>,
}
