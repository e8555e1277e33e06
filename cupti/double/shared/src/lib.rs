//! What the stand-ins for NVIDIA's libraries share. Tests only: they prove plumbing, never NVIDIA's behaviour.
//!
//! Each stand-in is a shared object with its own copy of this crate, so no variable here is common to two of them: settings
//! are read by each, truth lines are appended by each, and [`link`] is the one way from one library into another.

pub mod devices;
pub mod link;
pub mod memory;
pub mod settings;
pub mod sys;
pub mod truth;
