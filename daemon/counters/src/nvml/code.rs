//! What functions of NVML return.

use std::fmt;

/// A result of NVML other than success: the number of an `nvmlReturn_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

/// Numbers and meanings, as public documentation has them. Those of vGPUs are left out.
const MEANINGS: [(u32, &str); 21] = [
    (1, "NVML is not initialised"),
    (2, "invalid argument"),
    (3, "not supported"),
    (4, "no permission"),
    (6, "not found"),
    (7, "insufficient size"),
    (8, "a power cable is missing"),
    (9, "the driver is not loaded"),
    (10, "timeout"),
    (11, "interrupts of the GPU do not work"),
    (12, "the library was not found"),
    (13, "this version of NVML lacks the function"),
    (14, "the infoROM is corrupted"),
    (15, "the GPU is lost"),
    (16, "the GPU needs a reset"),
    (17, "the operating system blocks the GPU"),
    (18, "driver and library are of different versions"),
    (19, "in use"),
    (20, "out of memory"),
    (21, "no data"),
    (999, "unknown error of the driver"),
];

impl Code {
    /// The device does not have this.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(6);
    /// The caller's array is too small.
    pub const INSUFFICIENT_SIZE: Self = Self(7);
    /// Nothing happened in the time given.
    pub const TIMEOUT: Self = Self(10);
    /// The library does not have the function; also where its symbol is missing.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);
    /// The driver cannot say more.
    pub const UNKNOWN: Self = Self(999);

    /// The result of a function that returned `code`.
    pub(super) fn check(code: u32) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self(code)) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MEANINGS.iter().find(|(number, _)| *number == self.0) {
            Some((_, meaning)) => f.write_str(meaning),
            None => write!(f, "NVML's code {}", self.0),
        }
    }
}
