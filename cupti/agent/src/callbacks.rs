//! What CUPTI calls to get and to return buffers, on threads of the job. CUPTI hands no pointer of ours through, so the
//! pool is the one thing here that is global.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

use crate::pool::{BUFFER_BYTES, Pool};

/// The buffers.
pub(crate) static POOL: Pool = Pool::new();

/// CUPTI wants a buffer.
pub(crate) unsafe extern "C" fn buffer_requested(
    buffer: *mut *mut u8,
    size: *mut usize,
    max_records: *mut usize,
) {
    let taken = if buffer.is_null() || size.is_null() || max_records.is_null() { None } else { POOL.take() };
    // 0 records at most: as many as fit.
    for (pointer, value) in [(size, if taken.is_some() { BUFFER_BYTES } else { 0 }), (max_records, 0)] {
        if !pointer.is_null() {
            // SAFETY: CUPTI passes addresses of variables of its own.
            unsafe { pointer.write(value) };
        }
    }
    if !buffer.is_null() {
        // SAFETY: as above.
        unsafe { buffer.write(taken.map_or(null_mut(), NonNull::as_ptr)) };
    }
}

/// CUPTI returns a buffer.
pub(crate) unsafe extern "C" fn buffer_completed(
    _context: *mut c_void,
    _stream: u32,
    buffer: *mut u8,
    _size: usize,
    valid: usize,
) {
    if !buffer.is_null() {
        POOL.give_back(buffer, valid);
    }
}
