//! Stand-in for libcupti.so, for tests only: it proves our plumbing, never NVIDIA's behaviour.
//!
//! It speaks the ABI of CUPTI 11.8, 12.4, 12.8, 13.0 or 13.3: sizes of records and numbers of versions. What happens on
//! the devices comes from libcuda's stand-in; [`state`] holds who wants what, [`buffers`] hands records over,
//! [`faults`] does what tests ask for. Functions that a version lacks are hidden when the folder is made.
//!
//! What always holds: no lock is held while a client's function runs, and a record is either in a buffer, or counted as
//! dropped, or the subject of a line in the truth log.

mod api;
mod buffers;
mod clock;
mod faults;
mod layout;
mod observer;
mod record;
mod state;
