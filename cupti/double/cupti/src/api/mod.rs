//! The functions of CUPTI that the stand-in has. `Option<&mut T>` is a pointer that may be NULL.
#![allow(non_snake_case, reason = "CUPTI's names")]

mod activity;
mod attribute;
mod callback;
mod info;
mod second;

use stallscope_double_shared::truth::{self, Line};
use stallscope_double_shared::{settings, sys};

use crate::faults;
use crate::layout::Version;
use crate::state::{cuda, lock};

/// Codes of CUPTI.
type Status = u32;

const INVALID_PARAMETER: Status = 1;
const INVALID_OPERATION: Status = 7;
const PARAMETER_SIZE_NOT_SUFFICIENT: Status = 10;
const MAX_LIMIT_REACHED: Status = 12;
const NOT_INITIALIZED: Status = 15;
const INVALID_KIND: Status = 21;
const MULTIPLE_SUBSCRIBERS: Status = 39;
const UNKNOWN: Status = 999;

/// Make a call: with the faults that are set for it, and only where there is a driver. What it changes is noted in the
/// truth log where `detail` says something.
fn enter(function: &str, detail: &str, body: impl FnOnce() -> Result<(), Status>) -> Status {
    let status = match faults::on_entry(function) {
        Some(code) => code,
        None if cuda().is_none() || settings::now().is_on("cupti.absent") => {
            if lock().version >= Version::V13_0 { UNKNOWN } else { NOT_INITIALIZED }
        }
        None => body().err().unwrap_or(0),
    };
    if !detail.is_empty() {
        note(function, detail, status);
    }
    status
}

fn note(function: &str, detail: &str, code: Status) {
    let (pid, thread, at_ns) = (sys::process_id(), sys::thread_id(), sys::monotonic_ns());
    let (call, detail) = (function.to_owned(), detail.to_owned());
    truth::write(&[Line::Cupti(truth::Cupti { pid, thread, at_ns, call, detail, code })]);
}

/// Write through a pointer that may be NULL.
fn put<T>(to: Option<&mut T>, value: T) -> Result<(), Status> {
    *to.ok_or(INVALID_PARAMETER)? = value;
    Ok(())
}
