//! From records in time order to exclusive stretches of time: the sweep of a device, and what a host thread was doing.

pub mod host;
pub mod sweep;
