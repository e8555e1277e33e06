//! The functions of CUDA's driver API that the stand-in has, by topic.
//!
//! Names, numbers (CUPTI's cbids) and parameters are CUDA's. `Option<&mut T>` is a pointer that may be NULL; the
//! caller promises that it points to a `T` otherwise, as C callers do.
#![allow(non_snake_case, reason = "CUDA's names")]

mod context;
mod copy;
mod device;
mod event;
mod graph;
mod kernel;
mod lookup;
mod memory;
mod stream;

use crate::state::Error;

/// Write through a pointer that may be NULL.
fn put<T>(to: Option<&mut T>, value: T) -> Result<(), Error> {
    *to.ok_or(Error::InvalidValue)? = value;
    Ok(())
}
