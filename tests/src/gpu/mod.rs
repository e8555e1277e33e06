//! What only a GPU can answer, asked on a machine that has one: `cargo xtask gpu`, and the `gpu` executable that it packs.
//!
//! - `plan`: the sections. `sections`: what they do. `run`: one after the other, each a process of its own with a limit.
//! - `facts`: the machine. `questions`: those of docs/gpu/OPEN.md. `notes`: what a section finds out. `report`: all of it.
//! - `job`, `visit`: a job, and the agent or the program in it. `context`: what a section has at hand.
//! - `limit`: a time limit that holds. `stats`: medians, spreads, pairs.
//!
//! What always holds: nothing is said of a GPU that was not measured on one. On the double (docs/double.md) everything
//! runs, which tests this program; the report says so in its first line.

pub mod context;
pub mod facts;
pub mod job;
pub mod limit;
pub mod notes;
pub mod plan;
pub mod questions;
pub mod report;
pub mod run;
pub mod sections;
pub mod stats;
pub mod visit;
