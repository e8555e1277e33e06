//! What the probes say against what happened: real processes that do one known thing and report it by their own clocks.
//!
//! Needs root and a C compiler; says so and passes where they are missing. Nothing here asserts how fast a machine is:
//! only that two accounts of the same stretch of time agree.

mod block;
mod faults;
mod network;
mod objects;
mod recording;
mod sched;
