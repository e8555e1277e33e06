//! CUPTI as every version from 11.8 to 13.x has it: numbers of kinds, calls and errors, the fields of activity records,
//! and the functions, found one by one in a library that is loaded at run time.
//!
//! What always holds:
//! - From version to version records only grow at their end: the fields here have the offsets they had in 11.8.
//!   `tests/headers.rs` checks each offset and number against the headers of each version, where it can fetch them.
//! - A record is read from bytes that are known to be there; a record that is too short is none.
//! - Versions differ in how large a record is: a buffer is walked by CUPTI's own function, never by a size from here.
#![no_std]
#![deny(unsafe_code)]

mod call;
mod functions;
mod kind;
mod record;
mod result;
mod runtime_call;

pub use call::{Call, DRIVER_CALLS, Group, MARK_CALL, driver_call};
pub use functions::{
    BufferCompleted, BufferRequested, CallbackData, CallbackFunction, Functions, Subscriber, VERSION_11_8,
    VERSION_12_6, VERSION_14_0, domain, flush, site, thread_id,
};
pub use kind::{ActivityKind, marker_flags, memcpy_flags, object};
pub use record::{
    ApiCall, Context, Copy, Device, ExternalCorrelation, Field, Fill, GraphTrace, Kernel, Marker, Overhead,
    PeerCopy, RECORDS, RecordLayout, Stream, Synchronization, kind_of,
};
pub use result::{CuptiResult, RESULTS, code, result_name};
pub use runtime_call::{RUNTIME_CALLS, runtime_call};
