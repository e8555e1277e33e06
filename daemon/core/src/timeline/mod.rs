//! From records in time order to exclusive stretches of time: the sweep of a device, what a host thread was
//! doing, and what a followed thread did.

pub mod host;
pub mod sweep;
pub mod thread;
