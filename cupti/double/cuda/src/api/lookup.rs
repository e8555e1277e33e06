//! How CUDA's runtime and others find the driver's functions.

use std::ffi::{CString, c_char, c_int};

use stallscope_double_shared::sys::{self, Library};

use super::put;
use crate::state::{Error, Status};

/// Address of a function of this library: of its newest version, as CUDA does for programs built with new headers.
fn find(name: *const c_char) -> Result<usize, Error> {
    // SAFETY: the caller passes a C string or NULL.
    let name = unsafe { sys::text(name) }.ok_or(Error::InvalidValue)?;
    let library = Library::loaded(c"libcuda.so.1").ok_or(Error::NotFound)?;
    let versions = [format!("{name}_v2"), name];
    let named = versions.iter().filter_map(|n| CString::new(n.as_str()).ok());
    named.filter_map(|n| library.function(&n)).next().ok_or(Error::NotFound)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress(
    name: *const c_char,
    function: Option<&mut usize>,
    _version: c_int,
    _flags: u64,
) -> Status {
    find(name).and_then(|f| put(function, f)).map_or_else(|e| e as Status, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    name: *const c_char,
    function: Option<&mut usize>,
    _version: c_int,
    _flags: u64,
    status: Option<&mut c_int>,
) -> Status {
    let found = find(name);
    if let Some(status) = status {
        *status = c_int::from(found.is_err());
    }
    found.and_then(|f| put(function, f)).map_or_else(|e| e as Status, |()| 0)
}
