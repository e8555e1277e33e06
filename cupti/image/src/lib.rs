//! The agent as bytes.
//!
//! What always holds (`tests/image.rs`): it needs no library and no symbol, has no thread-local storage, no memory that is
//! both writable and executable, no stack that is executable, and no path on which it could panic.

/// A shared object for the loader of a CUDA job.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.so"));
