//! Tests of the parts, and of the state machine on a made-up CUPTI.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers of a test are small"
)]

mod clock;
// The rest makes system calls, which Miri cannot.
#[cfg(not(miri))]
mod devices;
#[cfg(not(miri))]
mod fake;
#[cfg(not(miri))]
mod losses;
#[cfg(not(miri))]
mod machine;
mod names;
#[cfg(not(miri))]
mod others;
mod pool;
#[cfg(not(miri))]
mod process;
mod progress;
mod ranges;
#[cfg(not(miri))]
mod records;
#[cfg(not(miri))]
mod setup;
