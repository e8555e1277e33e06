//! What the workspace is measured against: jobs that never ran but whose every nanosecond is known, real traces with
//! answers from elsewhere, and the plumbing of the benchmarks.
//!
//! Nothing here is shipped. Invariants:
//! - whatever is generated is a function of its parameters alone, so that a fixture can be made again byte for byte;
//! - a true answer is computed from the model, by arithmetic of its own, never by the code under test;
//! - the program is driven from outside, through its command line and its JSON, as a user would.

pub mod bench;
pub mod big_capture;
pub mod cli;
pub mod demo;
pub mod export_parsers;
pub mod faults;
pub mod flight_recorder;
pub mod fuzzing;
pub mod gpu;
pub mod host;
pub mod job;
pub mod job_capture;
pub mod kineto_json;
pub mod live;
pub mod measure;
pub mod oracle;
pub mod repeat;
pub mod rng;
pub mod scoreboard;
pub mod stragglers;
