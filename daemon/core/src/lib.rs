//! The pure half of Stallscope: records in, a ledger that sums to wall time out.
//!
//! Bytes, rows and clocks come in from the caller; values and `impl Write` go out. Nothing here opens a file, looks at a
//! clock or needs privileges, so that everything seen on a GPU host can be replayed from a file anywhere.
//!
//! ```text
//! importers, recorder ─ rows ─▶ ingest ─▶ capture (.stall) ─▶ timeline ─▶ ledger ─▶ findings ─▶ report
//!                                                                            └────▶ weights ─▶ export
//! ```

pub mod capture;
pub mod classify;
pub mod collectives;
pub mod export;
pub mod findings;
pub mod folded;
pub mod hang;
pub mod ingest;
pub mod ledger;
pub mod merge;
mod other_jobs;
pub mod page;
mod parts;
pub mod report;
pub mod rows;
pub mod steps;
pub mod timeline;
pub mod weights;
pub mod whatif;
