//! Where values come from: settings, with defaults of an idle H100.

use stallscope_double_shared::devices::{self, Device};
use stallscope_double_shared::settings::{self, Settings};
use stallscope_double_shared::sys;

/// NVML's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Error {
    InvalidArgument = 2,
    NotSupported = 3,
    NotFound = 6,
    InsufficientSize = 7,
    Timeout = 10,
    GpuIsLost = 15,
    Unknown = 999,
}

/// What functions return: 0 or an [`Error`].
pub(crate) type Status = u32;

/// The C side of a result.
pub(crate) fn status(result: Result<(), Error>) -> Status {
    result.map_or_else(|e| e as Status, |()| 0)
}

/// Write through a pointer that may be NULL.
pub(crate) fn put<T>(to: Option<&mut T>, value: T) -> Result<(), Error> {
    *to.ok_or(Error::InvalidArgument)? = value;
    Ok(())
}

/// Write a text and its end into a buffer of `length` bytes.
///
/// # Safety
/// `to` is NULL or has room for `length` bytes.
pub(crate) unsafe fn put_text(text: &str, to: *mut u8, length: u32) -> Result<(), Error> {
    let length = usize::try_from(length).map_err(|_| Error::InvalidArgument)?;
    if to.is_null() {
        return Err(Error::InvalidArgument);
    }
    if length <= text.len() {
        return Err(Error::InsufficientSize);
    }
    // SAFETY: not NULL, and of this length by the contract.
    let to = unsafe { std::slice::from_raw_parts_mut(to, length) };
    let (text_part, rest) = to.split_at_mut(text.len());
    text_part.copy_from_slice(text.as_bytes());
    rest.fill(0);
    Ok(())
}

/// What programs hold for a device: not an address of anything.
const FIRST_HANDLE: usize = 0x57A1_3000;
const PER_GPU: usize = 16;

/// The handle of a device.
pub(crate) fn handle(device: &Device) -> usize {
    let number = |n: u32| usize::try_from(n).unwrap_or(0);
    FIRST_HANDLE + number(device.gpu) * PER_GPU + device.instance.map_or(0, |i| number(i) + 1)
}

/// The device that a handle means.
pub(crate) fn device(handle: usize) -> Result<Device, Error> {
    let index = handle.checked_sub(FIRST_HANDLE).ok_or(Error::InvalidArgument)?;
    let part = |n: usize| u32::try_from(n).map_err(|_| Error::InvalidArgument);
    let (gpu, instance) = (part(index / PER_GPU)?, part(index % PER_GPU)?.checked_sub(1));
    let settings = settings::now();
    let known =
        gpu < devices::gpus(&settings) && instance.is_none_or(|i| i < devices::instances(&settings, gpu));
    let device = Device { gpu, instance };
    match text(&settings, &device, "state") {
        _ if !known => Err(Error::InvalidArgument),
        Some("lost") => Err(Error::GpuIsLost),
        _ => Ok(device),
    }
}

/// The setting of a device: its own, else that of all.
pub(crate) fn text<'a>(settings: &'a Settings, device: &Device, key: &str) -> Option<&'a str> {
    let own = match device.instance {
        None => format!("nvml.{}.{key}", device.gpu),
        Some(instance) => format!("nvml.{}.mig{instance}.{key}", device.gpu),
    };
    settings.get(&own).or_else(|| settings.get(&format!("nvml.{key}")))
}

/// A number: `N`, or `N+R` for a counter that has grown by R a second since the machine started.
pub(crate) fn number(device: &Device, key: &str, otherwise: u64) -> Result<u64, Error> {
    let settings = settings::now();
    let Some(text) = text(&settings, device, key) else { return Ok(otherwise) };
    if text == "unsupported" {
        return Err(Error::NotSupported);
    }
    let (base, rate) = text.split_once('+').unwrap_or((text, "0"));
    let parse = |t: &str| t.trim().parse::<u64>().map_err(|_| Error::Unknown);
    let grown = u128::from(parse(rate)?) * u128::from(sys::monotonic_ns()) / 1_000_000_000;
    Ok(parse(base)? + u64::try_from(grown).unwrap_or(u64::MAX / 2))
}

/// The same where NVML has 32 bits.
pub(crate) fn small(device: &Device, key: &str, otherwise: u32) -> Result<u32, Error> {
    u32::try_from(number(device, key, otherwise.into())?).map_err(|_| Error::Unknown)
}
