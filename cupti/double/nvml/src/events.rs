//! Events: Xid errors. A new value of `nvml.GPU.xid` is an event; `79#2` is another 79.
#![allow(non_snake_case, reason = "NVML's names")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stallscope_double_shared::devices::Device;
use stallscope_double_shared::{settings, sys};

use crate::values::{self, Error, Status, device, handle, put, status};

const XID: u64 = 8;

/// What each set has seen of each device.
static SETS: Mutex<BTreeMap<usize, BTreeMap<usize, String>>> = Mutex::new(BTreeMap::new());

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetCreate(set: Option<&mut usize>) -> Status {
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    let new = sets.keys().next_back().map_or(0x57A1_4000, |last| last + 16);
    sets.insert(new, BTreeMap::new());
    status(put(set, new))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: usize) -> Status {
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    status(sets.remove(&set).map(|_| ()).ok_or(Error::InvalidArgument))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetSupportedEventTypes(of: usize, types: Option<&mut u64>) -> Status {
    status(device(of).and_then(|_| put(types, XID)))
}

fn xid(device: &Device) -> String {
    values::text(&settings::now(), device, "xid").unwrap_or_default().to_owned()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(of: usize, types: u64, set: usize) -> Status {
    status(device(of).and_then(|d| {
        if types & XID == 0 {
            return Err(Error::NotSupported);
        }
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.get_mut(&set).ok_or(Error::InvalidArgument)?.insert(handle(&d), xid(&d));
        Ok(())
    }))
}

/// nvmlEventData_t.
#[repr(C)]
struct Event {
    device: usize,
    kind: u64,
    data: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

/// The settings are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetWait_v2(set: usize, event: Option<&mut Event>, timeout_ms: u32) -> Status {
    status(wait(set, event, timeout_ms))
}

fn wait(set: usize, event: Option<&mut Event>, timeout_ms: u32) -> Result<(), Error> {
    let event = event.ok_or(Error::InvalidArgument)?;
    let until_ns = sys::monotonic_ns() + u64::from(timeout_ms) * 1_000_000;
    loop {
        if let Some((of, data)) = next(set)? {
            let none = u32::MAX;
            *event = Event { device: of, kind: XID, data, gpu_instance: none, compute_instance: none };
            return Ok(());
        }
        if sys::monotonic_ns() >= until_ns {
            return Err(Error::Timeout);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A device whose value has changed since the set saw it, and its error's number.
fn next(set: usize) -> Result<Option<(usize, u64)>, Error> {
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    for (of, seen) in sets.get_mut(&set).ok_or(Error::InvalidArgument)? {
        let now = device(*of).map(|d| xid(&d)).unwrap_or_default();
        if now != *seen {
            seen.clone_from(&now);
            let number = now.split('#').next().unwrap_or_default();
            if let Ok(number) = number.trim().parse() {
                return Ok(Some((*of, number)));
            }
        }
    }
    Ok(None)
}
