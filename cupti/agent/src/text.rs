//! Texts in the job's memory, of which CUPTI gives the addresses.

use core::ffi::{CStr, c_char};

use stallscope_cupti_wire::name;

/// Bytes of a text that are looked at.
pub(crate) const MAX_BYTES: usize = name::MAX_BYTES;

/// The C library's `strnlen`, which looks at 32 bytes at a time.
pub(crate) type StrnLen = unsafe extern "C" fn(*const c_char, usize) -> usize;

/// The name under which it is found.
pub(crate) const STRNLEN: &CStr = c"strnlen";

/// How texts are measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Texts {
    pub(crate) strnlen: Option<StrnLen>,
}

impl Texts {
    /// The text at an address that CUPTI gave; none for null. What lies beyond [`MAX_BYTES`] is not looked at.
    ///
    /// # Safety
    /// The address is 0 or that of a text which ends with a zero and stays for as long as the result is used.
    pub(crate) unsafe fn at<'t>(&self, address: u64) -> Option<&'t [u8]> {
        let address = usize::try_from(address).ok().filter(|address| *address != 0)?;
        let text: *const c_char = core::ptr::with_exposed_provenance(address);
        let bytes = match self.strnlen {
            // SAFETY: by the caller's word there is a zero, and nothing behind it is read.
            Some(strnlen) => unsafe { strnlen(text, MAX_BYTES) }.min(MAX_BYTES),
            // SAFETY: as above.
            None => unsafe { length(text) },
        };
        // SAFETY: `bytes` bytes before the zero are there.
        Some(unsafe { core::slice::from_raw_parts(text.cast(), bytes) })
    }
}

/// Without the C library: byte by byte.
///
/// # Safety
/// As for [`Texts::at`].
unsafe fn length(text: *const c_char) -> usize {
    (0..MAX_BYTES)
        .find(|index| {
            let byte = text.wrapping_add(*index);
            // SAFETY: no byte before this one was the zero with which the text ends.
            unsafe { byte.read() == 0 }
        })
        .unwrap_or(MAX_BYTES)
}
