//! NVLink: state, and throughput through field values.
#![allow(non_snake_case, reason = "NVML's names")]

use stallscope_double_shared::devices::Device;
use stallscope_double_shared::sys;

use crate::values::{Error, Status, device, number, put, small, status};

/// Links of an H100.
const LINKS: u32 = 18;

fn link_count(device: &Device) -> Result<u32, Error> {
    small(device, "nvlinks", LINKS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkState(of: usize, link: u32, active: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| {
        if link >= link_count(&d)? {
            return Err(Error::InvalidArgument);
        }
        put(active, small(&d, &format!("nvlink{link}_active"), 1)?)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkVersion(of: usize, link: u32, version: Option<&mut u32>) -> Status {
    status(
        device(of)
            .and_then(|d| if link < link_count(&d)? { put(version, 4) } else { Err(Error::InvalidArgument) }),
    )
}

/// Replays, recoveries, and checksum errors of data and of flits, in one counter for each link.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    of: usize,
    link: u32,
    _kind: u32,
    to: Option<&mut u64>,
) -> Status {
    status(device(of).and_then(|d| put(to, number(&d, &format!("nvlink{link}_errors"), 0)?)))
}

/// nvmlFieldValue_t.
#[repr(C)]
struct Field {
    id: u32,
    /// The link; `u32::MAX` for all.
    scope: u32,
    timestamp_us: i64,
    latency_us: i64,
    /// 1 unsigned int, 3 unsigned long long.
    value_type: u32,
    code: Status,
    value: u64,
}

/// Number of the field, key of all links, key of one (`*` is the link), type of the value.
const FIELDS: [(u32, &str, &str, u32); 9] = [
    (138, "nvlink_tx_kib", "nvlink*_tx_kib", 3),
    (139, "nvlink_rx_kib", "nvlink*_rx_kib", 3),
    (140, "nvlink_raw_tx_kib", "nvlink*_raw_tx_kib", 3),
    (141, "nvlink_raw_rx_kib", "nvlink*_raw_rx_kib", 3),
    (90, "nvlink_speed_mbps", "nvlink_speed_mbps", 1),
    (91, "nvlinks", "nvlinks", 1),
    (94, "pcie_replays", "pcie_replays", 1),
    (197, "pcie_tx_bytes", "pcie_tx_bytes", 3),
    (198, "pcie_rx_bytes", "pcie_rx_bytes", 3),
];

fn field(device: &Device, field: &mut Field) -> Result<(), Error> {
    let found = FIELDS.iter().find(|(id, ..)| *id == field.id);
    let (_, all, one, value_type) = found.ok_or(Error::NotSupported)?;
    let otherwise = match field.id {
        90 => 26_562,
        91 => LINKS.into(),
        _ => 0,
    };
    let key = match field.scope {
        u32::MAX => (*all).to_owned(),
        link => one.replace('*', &link.to_string()),
    };
    // Without a scope a program means all links too: it leaves 0 where it does not know of scopes.
    let value = match number(device, &key, otherwise)? {
        0 if field.scope == 0 => number(device, all, otherwise)?,
        value => value,
    };
    (field.value, field.value_type) = (value, *value_type);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetFieldValues(of: usize, count: i32, values: *mut Field) -> Status {
    status(device(of).and_then(|d| {
        let count = usize::try_from(count).map_err(|_| Error::InvalidArgument)?;
        if values.is_null() {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: the caller passes an array of so many fields.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
        for value in values {
            value.timestamp_us = i64::try_from(sys::realtime_ns() / 1_000).unwrap_or(0);
            value.latency_us = 0;
            value.code = status(field(&d, value));
        }
        Ok(())
    }))
}
