//! The functions of NVML that the stand-in has, but for links and events. `Option<&mut T>` is a pointer that may be
//! NULL.
#![allow(non_snake_case, reason = "NVML's names")]

use std::ffi::{CStr, c_char};

use stallscope_double_shared::devices::{self, Device};
use stallscope_double_shared::{settings, sys};

use crate::values::{Error, Status, device, handle, number, put, put_text, small, status, text};

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Status {
    0
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: u32) -> Status {
    0
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Status {
    0
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: Status) -> *const c_char {
    let text: &CStr = match code {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        10 => c"Timeout",
        15 => c"GPU is lost",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetDriverVersion(to: *mut u8, length: u32) -> Status {
    let settings = settings::now();
    // SAFETY: the caller passes a buffer of `length` bytes.
    status(unsafe { put_text(settings.get("nvml.driver").unwrap_or("570.86.10"), to, length) })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetNVMLVersion(to: *mut u8, length: u32) -> Status {
    // SAFETY: the caller passes a buffer of `length` bytes.
    status(unsafe { put_text("12.570.86.10", to, length) })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: Option<&mut i32>) -> Status {
    status(put(version, settings::now().number("cuda.version", 12_080)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: Option<&mut u32>) -> Status {
    status(put(count, devices::gpus(&settings::now())))
}

fn found(to: Option<&mut usize>, wanted: impl Fn(&Device) -> bool) -> Result<(), Error> {
    let settings = settings::now();
    let of = |gpu| {
        let whole = Device { gpu, instance: None };
        let parts = (0..devices::instances(&settings, gpu)).map(move |i| Device { gpu, instance: Some(i) });
        std::iter::once(whole).chain(parts)
    };
    let device = (0..devices::gpus(&settings)).flat_map(of).find(wanted).ok_or(Error::NotFound)?;
    put(to, handle(&device))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, to: Option<&mut usize>) -> Status {
    if index >= devices::gpus(&settings::now()) {
        return Error::InvalidArgument as Status;
    }
    status(found(to, |d| d.gpu == index))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: Option<&mut usize>) -> Status {
    // SAFETY: the caller passes a C string or NULL.
    let uuid = unsafe { sys::text(uuid) }.unwrap_or_default();
    status(found(to, |d| d.uuid_text() == uuid))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, to: Option<&mut usize>) -> Status {
    // SAFETY: the caller passes a C string or NULL.
    let address = unsafe { sys::text(address) }.unwrap_or_default().to_ascii_uppercase();
    // With a domain of four or eight digits.
    status(found(to, |d| address.len() >= 12 && d.pci().ends_with(&address)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetIndex(of: usize, index: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| put(index, d.instance.unwrap_or(d.gpu))))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMinorNumber(of: usize, number: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| put(number, d.gpu)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetName(of: usize, to: *mut u8, length: u32) -> Status {
    let settings = settings::now();
    let name = settings.get("gpu.name").unwrap_or("Stallscope Double H100");
    // SAFETY: the caller passes a buffer of `length` bytes.
    status(device(of).and_then(|_| unsafe { put_text(name, to, length) }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUUID(of: usize, to: *mut u8, length: u32) -> Status {
    // SAFETY: the caller passes a buffer of `length` bytes.
    status(device(of).and_then(|d| unsafe { put_text(&d.uuid_text(), to, length) }))
}

/// nvmlPciInfo_t.
#[repr(C)]
struct Pci {
    legacy: [u8; 16],
    domain: u32,
    bus: u32,
    device: u32,
    device_id: u32,
    subsystem_id: u32,
    address: [u8; 32],
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(text.bytes()).take(N.saturating_sub(1)) {
        *to = from;
    }
    bytes
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPciInfo_v3(of: usize, to: Option<&mut Pci>) -> Status {
    status(device(of).and_then(|d| {
        let address = d.pci();
        let legacy = padded(address.get(4..).unwrap_or_default());
        let (bus, device_id, subsystem_id) = (d.gpu + 1, 0x2330_10DE, 0x16C1_10DE);
        let address = padded(&address);
        put(to, Pci { legacy, domain: 0, bus, device: 0, device_id, subsystem_id, address })
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCudaComputeCapability(
    of: usize,
    major: Option<&mut i32>,
    minor: Option<&mut i32>,
) -> Status {
    status(device(of).and_then(|_| put(major, 9)).and_then(|()| put(minor, 0)))
}

/// nvmlUtilization_t.
#[repr(C)]
struct Utilization {
    gpu: u32,
    memory: u32,
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUtilizationRates(of: usize, to: Option<&mut Utilization>) -> Status {
    status(device(of).and_then(|d| {
        // A divided GPU has no rates of its own: NVML says so.
        if d.instance.is_some() || devices::instances(&settings::now(), d.gpu) > 0 {
            return Err(Error::NotSupported);
        }
        let (gpu, memory) = (small(&d, "utilization_gpu", 0)?, small(&d, "utilization_memory", 0)?);
        put(to, Utilization { gpu, memory })
    }))
}

/// nvmlMemory_t.
#[repr(C)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// nvmlMemory_v2_t.
#[repr(C)]
struct Memory2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// All, reserved, used.
fn memory(device: &Device) -> Result<(u64, u64, u64), Error> {
    let total: u64 = settings::now().number("gpu.memory_mib", 81_920);
    Ok((total << 20, 500 << 20, number(device, "memory_used_mib", 0)? << 20))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo(of: usize, to: Option<&mut Memory>) -> Status {
    status(device(of).and_then(|d| {
        let (total, reserved, used) = memory(&d)?;
        // The first version counts what the driver keeps as used.
        let used = used + reserved;
        put(to, Memory { total, free: total.saturating_sub(used), used })
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo_v2(of: usize, to: Option<&mut Memory2>) -> Status {
    status(device(of).and_then(|d| {
        let (total, reserved, used) = memory(&d)?;
        let to = to.ok_or(Error::InvalidArgument)?;
        let free = total.saturating_sub(used + reserved);
        *to = Memory2 { version: to.version, total, reserved, free, used };
        Ok(())
    }))
}

/// nvmlClockType_t: the part of the keys, MHz.
const CLOCKS: [(&str, u32); 4] = [("graphics", 1_980), ("sm", 1_980), ("memory", 2_619), ("video", 1_545)];

fn clock(of: usize, kind: u32, prefix: &str, to: Option<&mut u32>) -> Result<(), Error> {
    let device = device(of)?;
    let found = usize::try_from(kind).ok().and_then(|k| CLOCKS.get(k));
    let (name, otherwise) = found.ok_or(Error::InvalidArgument)?;
    put(to, small(&device, &format!("{prefix}_{name}_mhz"), *otherwise)?)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetClockInfo(of: usize, kind: u32, to: Option<&mut u32>) -> Status {
    status(clock(of, kind, "clock", to))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMaxClockInfo(of: usize, kind: u32, to: Option<&mut u32>) -> Status {
    status(clock(of, kind, "max_clock", to))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperature(of: usize, sensor: u32, to: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| {
        if sensor != 0 {
            return Err(Error::InvalidArgument);
        }
        put(to, small(&d, "temperature_c", 40)?)
    }))
}

/// Functions that write one number: of a device, from one key.
macro_rules! numbers {
    ($($name:ident: $type:ty = $read:ident($key:literal, $otherwise:literal);)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(of: usize, to: Option<&mut $type>) -> Status {
            status(device(of).and_then(|d| put(to, $read(&d, $key, $otherwise)?)))
        }
    )*};
}

numbers! {
    nvmlDeviceGetCurrentClocksThrottleReasons: u64 = number("throttle_reasons", 0);
    nvmlDeviceGetCurrentClocksEventReasons: u64 = number("throttle_reasons", 0);
    nvmlDeviceGetSupportedClocksThrottleReasons: u64 = number("supported_throttle_reasons", 511);
    nvmlDeviceGetPowerUsage: u32 = small("power_mw", 120_000);
    nvmlDeviceGetEnforcedPowerLimit: u32 = small("power_limit_mw", 700_000);
    nvmlDeviceGetPowerManagementLimit: u32 = small("power_limit_mw", 700_000);
    nvmlDeviceGetTotalEnergyConsumption: u64 = number("energy_mj", 0);
    nvmlDeviceGetPerformanceState: u32 = small("performance_state", 0);
    nvmlDeviceGetCurrPcieLinkGeneration: u32 = small("pcie_generation", 5);
    nvmlDeviceGetCurrPcieLinkWidth: u32 = small("pcie_width", 16);
    nvmlDeviceGetMaxPcieLinkGeneration: u32 = small("pcie_max_generation", 5);
    nvmlDeviceGetMaxPcieLinkWidth: u32 = small("pcie_max_width", 16);
    nvmlDeviceGetPcieReplayCounter: u32 = small("pcie_replays", 0);
}

/// Transmitted or received, KB/s: NVML measures for 20 ms; here it takes no time.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPcieThroughput(of: usize, direction: u32, to: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| match direction {
        0 => put(to, small(&d, "pcie_tx_kbps", 0)?),
        1 => put(to, small(&d, "pcie_rx_kbps", 0)?),
        _ => Err(Error::InvalidArgument),
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetEccMode(of: usize, now: Option<&mut u32>, later: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| {
        put(now, small(&d, "ecc_mode", 1)?)?;
        put(later, small(&d, "ecc_mode", 1)?)
    }))
}

fn ecc_key(kind: u32, span: u32) -> Result<&'static str, Error> {
    match (kind, span) {
        (0, 0) => Ok("ecc_corrected"),
        (1, 0) => Ok("ecc_uncorrected"),
        (0, 1) => Ok("ecc_corrected_lifetime"),
        (1, 1) => Ok("ecc_uncorrected_lifetime"),
        _ => Err(Error::InvalidArgument),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTotalEccErrors(of: usize, kind: u32, span: u32, to: Option<&mut u64>) -> Status {
    status(device(of).and_then(|d| put(to, number(&d, ecc_key(kind, span)?, 0)?)))
}

/// The place (cache, memory, registers) is not told apart: all are in device memory.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    of: usize,
    kind: u32,
    span: u32,
    place: u32,
    to: Option<&mut u64>,
) -> Status {
    const DEVICE_MEMORY: u32 = 2;
    status(device(of).and_then(|d| {
        let all = number(&d, ecc_key(kind, span)?, 0)?;
        put(to, if place == DEVICE_MEMORY { all } else { 0 })
    }))
}

/// nvmlProcessInfo_t from its second version on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Process {
    pid: u32,
    used: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

/// `processes = PID:MIB, …` of a GPU, or of each of its instances.
fn processes(device: &Device) -> Vec<Process> {
    let settings = settings::now();
    let listed = |of: &Device| -> Vec<Process> {
        let list = text(&settings, of, "processes").unwrap_or_default();
        let pairs = list.split(',').filter_map(|p| p.trim().split_once(':'));
        let whole = u32::MAX;
        let (gpu_instance, compute_instance) = of.instance.map_or((whole, whole), |i| (i, 0));
        let process = |(pid, mib): (&str, &str)| {
            let used = mib.trim().parse::<u64>().ok()? << 20;
            Some(Process { pid: pid.trim().parse().ok()?, used, gpu_instance, compute_instance })
        };
        pairs.filter_map(process).collect()
    };
    let instances =
        (0..devices::instances(&settings, device.gpu)).map(|i| Device { instance: Some(i), ..*device });
    match device.instance {
        None if devices::instances(&settings, device.gpu) > 0 => instances.flat_map(|d| listed(&d)).collect(),
        _ => listed(device),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    of: usize,
    count: Option<&mut u32>,
    to: *mut Process,
) -> Status {
    status(device(of).and_then(|d| {
        let found = processes(&d);
        let count = count.ok_or(Error::InvalidArgument)?;
        let room = usize::try_from(*count).unwrap_or(0);
        *count = u32::try_from(found.len()).unwrap_or(u32::MAX);
        if room < found.len() {
            return Err(Error::InsufficientSize);
        }
        if to.is_null() && !found.is_empty() {
            return Err(Error::InvalidArgument);
        }
        if !found.is_empty() {
            // SAFETY: the caller says that there is room for `*count` elements, and there are no more.
            unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), to, found.len()) };
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigMode(of: usize, now: Option<&mut u32>, later: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| {
        let on = u32::from(devices::instances(&settings::now(), d.gpu) > 0);
        put(now, on)?;
        put(later, on)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMaxMigDeviceCount(of: usize, count: Option<&mut u32>) -> Status {
    status(device(of).and_then(|_| put(count, 7)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(of: usize, index: u32, to: Option<&mut usize>) -> Status {
    status(device(of).and_then(|d| {
        if index >= devices::instances(&settings::now(), d.gpu) {
            return Err(Error::NotFound);
        }
        put(to, handle(&Device { instance: Some(index), ..d }))
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(of: usize, to: Option<&mut usize>) -> Status {
    status(device(of).and_then(|d| put(to, handle(&Device { instance: None, ..d }))))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceIsMigDeviceHandle(of: usize, is: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| put(is, u32::from(d.instance.is_some()))))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceId(of: usize, id: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| put(id, d.instance.ok_or(Error::NotSupported)?)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetComputeInstanceId(of: usize, id: Option<&mut u32>) -> Status {
    status(device(of).and_then(|d| put(id, d.instance.map(|_| 0).ok_or(Error::NotSupported)?)))
}
