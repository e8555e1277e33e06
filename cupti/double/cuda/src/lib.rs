//! Stand-in for libcuda.so.1, for tests only: it proves our plumbing, never NVIDIA's behaviour.
//!
//! [`model`] says when each operation starts and ends, [`state`] holds what handles stand for, [`engine`] joins them
//! with the clock and makes callers wait, [`calls`] is the way in and out of every function, `api` has the functions.
//! No thread of its own: times are computed when somebody calls. Nothing is computed or copied on a "device":
//! its memory cannot be read, and a copy moves no bytes.

mod api;
mod calls;
mod engine;
mod launch;
mod model;
mod state;
mod table;
mod tuning;
