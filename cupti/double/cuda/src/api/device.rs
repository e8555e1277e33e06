//! cuInit and what can be asked about devices.

use std::ffi::{CStr, c_char, c_int};

use stallscope_double_shared::devices::Device;
use stallscope_double_shared::{settings, sys};

use super::put;
use crate::calls::call;
use crate::engine;
use crate::state::{Error, Status};

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: u32) -> Status {
    match engine::initialise() {
        Ok(()) => {}
        Err(error) => return error as Status,
    }
    inject();
    call(1, c"cuInit", |_| if engine::lock().devices.is_empty() { Err(Error::NoDevice) } else { Ok(()) })
}

/// Load the library that `CUDA_INJECTION64_PATH` names and call its `InitializeInjection`, once.
fn inject() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let Ok(path) = std::env::var("CUDA_INJECTION64_PATH") else { return };
        let Ok(path) = std::ffi::CString::new(path) else { return };
        let function = sys::Library::load(&path).and_then(|l| l.function(c"InitializeInjection"));
        if let Some(address) = function {
            // SAFETY: the interface of CUDA's injection libraries: `int InitializeInjection(void)`.
            let initialise = unsafe { std::mem::transmute::<usize, extern "C" fn() -> c_int>(address) };
            initialise();
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Option<&mut c_int>) -> Status {
    let known = settings::now().number("cuda.version", 12_080);
    put(version, known).map_or_else(|e| e as Status, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Option<&mut c_int>) -> Status {
    call(4, c"cuDeviceGetCount", |_| {
        let devices = engine::lock().devices.len();
        put(count, c_int::try_from(devices).unwrap_or(c_int::MAX))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Option<&mut c_int>, ordinal: c_int) -> Status {
    call(3, c"cuDeviceGet", |_| {
        find(ordinal)?;
        put(device, ordinal)
    })
}

fn find(ordinal: c_int) -> Result<Device, Error> {
    let index = usize::try_from(ordinal).map_err(|_| Error::InvalidDevice)?;
    engine::lock().devices.get(index).cloned().ok_or(Error::InvalidDevice)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> Status {
    call(5, c"cuDeviceGetName", |_| {
        find(device)?;
        let known = settings::now().get("gpu.name").unwrap_or("Stallscope Double H100").to_owned();
        // SAFETY: the caller passes a buffer of `length` bytes.
        unsafe { write_text(&known, name, length) }
    })
}

/// # Safety
/// `to` is NULL or has room for `length` bytes.
unsafe fn write_text(text: &str, to: *mut c_char, length: c_int) -> Result<(), Error> {
    let length = usize::try_from(length).map_err(|_| Error::InvalidValue)?;
    if to.is_null() || length == 0 {
        return Err(Error::InvalidValue);
    }
    // SAFETY: not NULL, and of this length by the contract.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), length) };
    to.fill(0);
    let fits = text.len().min(length - 1);
    to[..fits].copy_from_slice(&text.as_bytes()[..fits]);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(uuid: Option<&mut [u8; 16]>, device: c_int) -> Status {
    call(482, c"cuDeviceGetUuid", |_| put(uuid, Device { instance: None, ..find(device)? }.uuid()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(uuid: Option<&mut [u8; 16]>, device: c_int) -> Status {
    call(647, c"cuDeviceGetUuid_v2", |_| put(uuid, find(device)?.uuid()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Option<&mut usize>, device: c_int) -> Status {
    call(259, c"cuDeviceTotalMem_v2", |_| {
        find(device)?;
        let total = engine::lock().total_bytes();
        put(bytes, usize::try_from(total).unwrap_or(usize::MAX))
    })
}

/// CU_DEVICE_ATTRIBUTE_*: number, value. Those of an H100, as far as anybody here asks.
const ATTRIBUTES: &[(u32, c_int)] = &[
    (1, 1024),       // threads of a block
    (10, 32),        // threads of a warp
    (13, 1_980_000), // clock, kHz
    (16, 132),       // multiprocessors
    (33, 1),         // PCI bus; the device's number is added
    (34, 0),         // PCI device
    (40, 3),         // asynchronous engines
    (41, 1),         // unified addressing
    (50, 0),         // PCI domain
    (75, 9),         // compute capability, major
    (76, 0),         // minor
];

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: Option<&mut c_int>, attribute: u32, device: c_int) -> Status {
    call(9, c"cuDeviceGetAttribute", |_| {
        let known = find(device)?;
        let found = ATTRIBUTES.iter().find(|(number, _)| *number == attribute).map_or(0, |(_, v)| *v);
        let bus = c_int::try_from(known.gpu).unwrap_or(0);
        put(value, if attribute == 33 { found + bus } else { found })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, length: c_int, device: c_int) -> Status {
    call(332, c"cuDeviceGetPCIBusId", |_| {
        let pci = find(device)?.pci();
        // SAFETY: the caller passes a buffer of `length` bytes.
        unsafe { write_text(pci.get(4..).unwrap_or_default(), text, length) }
    })
}

/// Codes, names and descriptions.
const ERRORS: &[(Status, &CStr, &CStr)] = &[
    (0, c"CUDA_SUCCESS", c"no error"),
    (1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (600, c"CUDA_ERROR_NOT_READY", c"device not ready"),
];

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: Status, name: Option<&mut *const c_char>) -> Status {
    let found = ERRORS.iter().find(|(c, ..)| *c == code).map(|(_, n, _)| n.as_ptr());
    found.ok_or(Error::InvalidValue).and_then(|n| put(name, n)).map_or_else(|e| e as Status, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: Status, text: Option<&mut *const c_char>) -> Status {
    let found = ERRORS.iter().find(|(c, ..)| *c == code).map(|(.., t)| t.as_ptr());
    found.ok_or(Error::InvalidValue).and_then(|t| put(text, t)).map_or_else(|e| e as Status, |()| 0)
}
