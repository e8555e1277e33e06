//! The agent as bytes: built beside this crate and embedded.
