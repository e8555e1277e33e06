//! The functions of libnvidia-ml.so.1 that are used, opened by name: all unsafe code of this crate is here.
//!
//! What always holds: the library is loaded and initialised for as long as an [`Api`] lives, handles come from it
//! alone, and every function has the type that public documentation gives it. A function that the library lacks answers
//! with [`Code::FUNCTION_NOT_FOUND`], so that old drivers yield fewer values and nothing else.

use std::ffi::{CStr, c_void};
use std::path::Path;

use libloading::Library;

use super::NvmlError;
use super::code::Code;
use super::processes::{self, Process};
use crate::sample::Why;

/// nvmlDevice_t: means something to the library alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Handle(usize);

/// nvmlEventSet_t.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct EventSet(usize);

/// nvmlUtilization_t, in percent of the driver's last period (1/6 s to 1 s).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Utilisation {
    pub(super) gpu: u32,
    pub(super) memory: u32,
}

/// nvmlMemory_t: `used` includes what the driver keeps for itself.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Memory {
    total: u64,
    free: u64,
    pub(super) used: u64,
}

/// nvmlMemory_v2_t.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Memory2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// The second version of a structure of 40 bytes, as NVML marks it.
const MEMORY_2: u32 = 40 | 2 << 24;
const _: () = assert!(size_of::<Memory2>() == 40);

/// nvmlTemperature_v1_t.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Temperature {
    version: u32,
    sensor: u32,
    celsius: i32,
}

const TEMPERATURE_1: u32 = 12 | 1 << 24;
const _: () = assert!(size_of::<Temperature>() == 12);

/// nvmlFieldValue_t. The value is a union of numbers of up to eight bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct FieldValue {
    field: u32,
    scope: u32,
    timestamp_us: i64,
    latency_us: i64,
    kind: u32,
    code: u32,
    value: u64,
}

const _: () = assert!(size_of::<FieldValue>() == 40);

/// A field's number and what it is asked of: a link.
pub(super) type FieldOf = (u32, u32);

/// A field's value, and how many bits it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) value: u64,
    pub(super) bits: u32,
}

impl FieldValue {
    fn decode(self) -> Result<Field, Why> {
        Code::check(self.code)?;
        let [a, b, c, d, ..] = self.value.to_ne_bytes();
        let small = u32::from_ne_bytes([a, b, c, d]);
        let (value, bits) = match self.kind {
            1 => (Some(small.into()), 32),
            2 | 3 => (Some(self.value), 64),
            4 => (u64::try_from(self.value.cast_signed()).ok(), 64),
            5 => (u64::try_from(small.cast_signed()).ok(), 32),
            6 => (Some(u16::from_ne_bytes([a, b]).into()), 16),
            // A fraction, or a kind of a later version.
            _ => (None, 0),
        };
        Ok(Field { value: value.ok_or(Why::Unclear)?, bits })
    }
}

/// nvmlEventData_t.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Event {
    pub(super) device: Handle,
    pub(super) kind: u64,
    pub(super) data: u64,
    pub(super) gpu_instance: u32,
    pub(super) compute_instance: u32,
}

const _: () = assert!(size_of::<Event>() == 32);

/// nvmlEventTypeXidCriticalError.
pub(super) const XID_EVENT: u64 = 8;

/// Room for a UUID or a name: NVML's longest has 96 bytes with its end.
const TEXT_BYTES: usize = 128;

type Text = unsafe extern "C" fn(Handle, *mut u8, u32) -> u32;
type DriverVersion = unsafe extern "C" fn(*mut u8, u32) -> u32;
type Plain = unsafe extern "C" fn() -> u32;
type ProcessesOf = unsafe extern "C" fn(Handle, *mut u32, *mut c_void) -> u32;
type FieldValuesOf = unsafe extern "C" fn(Handle, i32, *mut FieldValue) -> u32;
type CountDevices = unsafe extern "C" fn(*mut u32) -> u32;
type DeviceByIndex = unsafe extern "C" fn(u32, *mut Handle) -> u32;
type MakeSet = unsafe extern "C" fn(*mut EventSet) -> u32;
type FreeSet = unsafe extern "C" fn(EventSet) -> u32;
type Register = unsafe extern "C" fn(Handle, u64, EventSet) -> u32;
type WaitFor = unsafe extern "C" fn(EventSet, *mut Event, u32) -> u32;

/// Functions that write one value of a device: `method(arguments) -> type = name, or an older name of the same`.
macro_rules! readings {
    ($($(#[$doc:meta])* $method:ident($($argument:ident: $type:ty),*) -> $value:ty = $($symbol:literal)|+;)*) => {
        #[derive(Debug)]
        struct Readings {
            $($method: Option<unsafe extern "C" fn(Handle, $($type,)* *mut $value) -> u32>,)*
        }

        impl Readings {
            fn find(library: &Library) -> Self {
                Self {
                    // SAFETY: the table has the types of the public documentation.
                    $($method: unsafe { find(library, &[$($symbol),+]) },)*
                }
            }
        }

        impl Api {
            $($(#[$doc])*
            pub(super) fn $method(&self, of: Handle $(, $argument: $type)*) -> Result<$value, Code> {
                let function = self.readings.$method.ok_or(Code::FUNCTION_NOT_FOUND)?;
                let mut value = <$value>::default();
                // SAFETY: the library is initialised and `of` is its own; `value` is of the type that it writes.
                Code::check(unsafe { function(of, $($argument,)* &raw mut value) })?;
                Ok(value)
            })*
        }
    };
}

readings! {
    utilisation() -> Utilisation = "nvmlDeviceGetUtilizationRates";
    /// MHz; 1 is the clock of the SMs, 2 that of the memory.
    clock_mhz(kind: u32) -> u32 = "nvmlDeviceGetClockInfo";
    throttle_reasons() -> u64 =
        "nvmlDeviceGetCurrentClocksEventReasons" | "nvmlDeviceGetCurrentClocksThrottleReasons";
    power_mw() -> u32 = "nvmlDeviceGetPowerUsage";
    /// Degrees Celsius; sensor 0 is the die's.
    temperature_c(sensor: u32) -> u32 = "nvmlDeviceGetTemperature";
    memory() -> Memory = "nvmlDeviceGetMemoryInfo";
    /// Kind 0: corrected, 1: not; span 0: since the driver was loaded.
    ecc_errors(kind: u32, span: u32) -> u64 = "nvmlDeviceGetTotalEccErrors";
    /// KB/s in 20 ms, for which the call lasts; direction 0: sent, 1: received.
    pcie_rate(direction: u32) -> u32 = "nvmlDeviceGetPcieThroughput";
    pcie_replays() -> u32 = "nvmlDeviceGetPcieReplayCounter";
    pcie_generation() -> u32 = "nvmlDeviceGetCurrPcieLinkGeneration";
    pcie_generation_max() -> u32 = "nvmlDeviceGetMaxPcieLinkGeneration";
    pcie_width() -> u32 = "nvmlDeviceGetCurrPcieLinkWidth";
    pcie_width_max() -> u32 = "nvmlDeviceGetMaxPcieLinkWidth";
    /// 1 where the link is active.
    nvlink_active(link: u32) -> u32 = "nvmlDeviceGetNvLinkState";
    event_types() -> u64 = "nvmlDeviceGetSupportedEventTypes";
    instances_max() -> u32 = "nvmlDeviceGetMaxMigDeviceCount";
    instance(index: u32) -> Handle = "nvmlDeviceGetMigDeviceHandleByIndex";
    gpu_instance() -> u32 = "nvmlDeviceGetGpuInstanceId";
    compute_instance() -> u32 = "nvmlDeviceGetComputeInstanceId";
}

/// The library.
#[derive(Debug)]
pub(super) struct Api {
    readings: Readings,
    uuid: Option<Text>,
    name: Option<Text>,
    driver_version: Option<DriverVersion>,
    count: CountDevices,
    by_index: DeviceByIndex,
    memory_2: Option<unsafe extern "C" fn(Handle, *mut Memory2) -> u32>,
    temperature_1: Option<unsafe extern "C" fn(Handle, *mut Temperature) -> u32>,
    processes: Option<ProcessesOf>,
    fields: Option<FieldValuesOf>,
    register: Option<Register>,
    wait: Option<WaitFor>,
    free_set: Option<FreeSet>,
    shutdown: Option<Plain>,
    events: Result<EventSet, Code>,
    /// Dropped last: everything above is of it.
    _library: Library,
}

/// A function by the first of its names that the library has.
///
/// # Safety
/// `F` is the type of a pointer to a function, and the functions with these names are of that type.
unsafe fn find<F: Copy>(library: &Library, names: &[&str]) -> Option<F> {
    // SAFETY: a pointer to a function that may be NULL is an `Option` of one; its type is right by the contract.
    names.iter().find_map(|name| *unsafe { library.get::<Option<F>>(*name) }.ok()?)
}

impl Api {
    /// Loads the library and initialises it.
    pub(super) fn open(path: &Path) -> Result<Self, NvmlError> {
        // SAFETY: what runs when NVML (or a stand-in that a test names) is loaded asks nothing of its caller.
        let library = unsafe { Library::new(path) }
            .map_err(|error| NvmlError::Library { library: path.to_owned(), error: innermost(&error) })?;
        let lacks = |function| NvmlError::Function { library: path.to_owned(), function };
        // SAFETY: as documented, it takes nothing and returns a code.
        let init: Plain = unsafe { find(&library, &["nvmlInit_v2"]) }.ok_or(lacks("nvmlInit_v2"))?;
        let name = "nvmlDeviceGetCount_v2";
        // SAFETY: as documented, it writes a number.
        let count: CountDevices = unsafe { find(&library, &[name]) }.ok_or(lacks(name))?;
        let name = "nvmlDeviceGetHandleByIndex_v2";
        // SAFETY: as documented, it takes a number and writes a handle.
        let by_index: DeviceByIndex = unsafe { find(&library, &[name]) }.ok_or(lacks(name))?;
        // SAFETY: it has no requirements.
        Code::check(unsafe { init() }).map_err(NvmlError::Init)?;
        let processes = &[
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetComputeRunningProcesses_v2",
            "nvmlDeviceGetComputeRunningProcesses",
        ];
        // SAFETY: as documented, it writes a handle of a set.
        let make_set: Option<MakeSet> = unsafe { find(&library, &["nvmlEventSetCreate"]) };
        Ok(Self {
            readings: Readings::find(&library),
            // SAFETY: as documented, it takes a buffer and its length.
            uuid: unsafe { find(&library, &["nvmlDeviceGetUUID"]) },
            // SAFETY: as documented, it takes a buffer and its length.
            name: unsafe { find(&library, &["nvmlDeviceGetName"]) },
            // SAFETY: as documented, it takes a buffer and its length.
            driver_version: unsafe { find(&library, &["nvmlSystemGetDriverVersion"]) },
            count,
            by_index,
            // SAFETY: as documented, it takes the structure of that version.
            memory_2: unsafe { find(&library, &["nvmlDeviceGetMemoryInfo_v2"]) },
            // SAFETY: as documented, it takes the structure of that version.
            temperature_1: unsafe { find(&library, &["nvmlDeviceGetTemperatureV"]) },
            // SAFETY: as documented, they take the number of elements and an array, of structures that differ.
            processes: unsafe { find(&library, processes) },
            // SAFETY: as documented, it takes the number of elements and an array.
            fields: unsafe { find(&library, &["nvmlDeviceGetFieldValues"]) },
            // SAFETY: as documented, it takes a device, a mask and a set.
            register: unsafe { find(&library, &["nvmlDeviceRegisterEvents"]) },
            // SAFETY: as documented, it takes a set, an event to be written and a time in ms.
            wait: unsafe { find(&library, &["nvmlEventSetWait_v2"]) },
            // SAFETY: as documented, it takes a set.
            free_set: unsafe { find(&library, &["nvmlEventSetFree"]) },
            // SAFETY: as documented, it takes nothing.
            shutdown: unsafe { find(&library, &["nvmlShutdown"]) },
            events: make_set.ok_or(Code::FUNCTION_NOT_FOUND).and_then(|make| {
                let mut set = EventSet::default();
                // SAFETY: the library is initialised, and `set` is what it writes.
                Code::check(unsafe { make(&raw mut set) }).map(|()| set)
            }),
            _library: library,
        })
    }

    pub(super) fn count(&self) -> Result<u32, Code> {
        let mut count = 0;
        // SAFETY: the library is initialised, and `count` is what it writes.
        Code::check(unsafe { (self.count)(&raw mut count) })?;
        Ok(count)
    }

    pub(super) fn by_index(&self, index: u32) -> Result<Handle, Code> {
        let mut handle = Handle::default();
        // SAFETY: the library is initialised, and `handle` is what it writes.
        Code::check(unsafe { (self.by_index)(index, &raw mut handle) })?;
        Ok(handle)
    }

    pub(super) fn driver_version(&self) -> Result<String, Code> {
        let function = self.driver_version.ok_or(Code::FUNCTION_NOT_FOUND)?;
        // SAFETY: the library is initialised, and writes no more than the length.
        text(|to, length| unsafe { function(to, length) })
    }

    pub(super) fn uuid(&self, of: Handle) -> Result<String, Code> {
        let function = self.uuid.ok_or(Code::FUNCTION_NOT_FOUND)?;
        // SAFETY: the library is initialised, `of` is its own, and it writes no more than the length.
        text(|to, length| unsafe { function(of, to, length) })
    }

    pub(super) fn name(&self, of: Handle) -> Result<String, Code> {
        let function = self.name.ok_or(Code::FUNCTION_NOT_FOUND)?;
        // SAFETY: the library is initialised, `of` is its own, and it writes no more than the length.
        text(|to, length| unsafe { function(of, to, length) })
    }

    /// Bytes in use, without what the driver keeps for itself.
    pub(super) fn memory_used(&self, of: Handle) -> Result<u64, Code> {
        let function = self.memory_2.ok_or(Code::FUNCTION_NOT_FOUND)?;
        let mut memory = Memory2 { version: MEMORY_2, ..Memory2::default() };
        // SAFETY: the library is initialised, `of` is its own, and `memory` is of the version that it says.
        Code::check(unsafe { function(of, &raw mut memory) })?;
        Ok(memory.used)
    }

    /// Temperature of the die in degrees Celsius, from the function that replaces [`Self::temperature_c`].
    pub(super) fn temperature_now_c(&self, of: Handle) -> Result<i32, Code> {
        let function = self.temperature_1.ok_or(Code::FUNCTION_NOT_FOUND)?;
        let mut temperature = Temperature { version: TEMPERATURE_1, ..Temperature::default() };
        // SAFETY: the library is initialised, `of` is its own, and `temperature` is of the version that it says.
        Code::check(unsafe { function(of, &raw mut temperature) })?;
        Ok(temperature.celsius)
    }

    /// Processes that compute on a device.
    pub(super) fn processes(&self, of: Handle) -> Result<Vec<Process>, Why> {
        let function = self.processes.ok_or(Code::FUNCTION_NOT_FOUND)?;
        let mut room = processes::FEW;
        loop {
            let mut buffer = processes::buffer(room);
            let mut count = room;
            let to = buffer.as_mut_ptr().cast::<c_void>();
            // SAFETY: the library is initialised and `of` is its own; `buffer` has room for `count` elements of the
            // largest layout that any version has.
            let code = unsafe { function(of, &raw mut count, to) };
            match Code::check(code) {
                Ok(()) => return processes::decode(&buffer, count.min(room)).ok_or(Why::Unclear),
                Err(Code::INSUFFICIENT_SIZE) if room < processes::MOST => room = processes::MOST,
                Err(code) => return Err(code.into()),
            }
        }
    }

    /// Values of fields, in the order asked for.
    pub(super) fn fields(&self, of: Handle, wanted: &[FieldOf]) -> Vec<Result<Field, Why>> {
        let refused = |code: Code| wanted.iter().map(|_| Err(code.into())).collect();
        let Some(function) = self.fields else { return refused(Code::FUNCTION_NOT_FOUND) };
        let asked =
            |&(field, scope)| FieldValue { field, scope, code: Code::UNKNOWN.0, ..FieldValue::default() };
        let mut values: Vec<FieldValue> = wanted.iter().map(asked).collect();
        let Ok(count) = i32::try_from(values.len()) else { return refused(Code::INSUFFICIENT_SIZE) };
        // SAFETY: the library is initialised, `of` is its own, and `values` has `count` elements.
        match Code::check(unsafe { function(of, count, values.as_mut_ptr()) }) {
            Ok(()) => values.into_iter().map(FieldValue::decode).collect(),
            Err(code) => refused(code),
        }
    }

    /// Asks for the Xid errors of a GPU from now on.
    pub(super) fn watch(&self, of: Handle) -> Result<(), Code> {
        let set = self.events?;
        if self.event_types(of)? & XID_EVENT == 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let function = self.register.ok_or(Code::FUNCTION_NOT_FOUND)?;
        // SAFETY: the library is initialised, and both handles are its own.
        Code::check(unsafe { function(of, XID_EVENT, set) })
    }

    /// The next event that has happened; none where there is none. Does not wait.
    pub(super) fn next_event(&self) -> Result<Option<Event>, Code> {
        let set = self.events?;
        let function = self.wait.ok_or(Code::FUNCTION_NOT_FOUND)?;
        let mut event = Event::default();
        // SAFETY: the library is initialised, the set is its own, and `event` is what it writes.
        match Code::check(unsafe { function(set, &raw mut event, 0) }) {
            Ok(()) => Ok(Some(event)),
            Err(Code::TIMEOUT) => Ok(None),
            Err(code) => Err(code),
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let (Ok(set), Some(free)) = (self.events, self.free_set) {
            // SAFETY: the library is initialised, and the set is its own and not used again.
            unsafe { free(set) };
        }
        if let Some(shutdown) = self.shutdown {
            // SAFETY: the library was initialised once, and nothing of it is used again.
            unsafe { shutdown() };
        }
    }
}

/// A text of the library's.
fn text(write: impl FnOnce(*mut u8, u32) -> u32) -> Result<String, Code> {
    let mut bytes = [0; TEXT_BYTES];
    let length = u32::try_from(bytes.len()).map_err(|_| Code::INSUFFICIENT_SIZE)?;
    Code::check(write(bytes.as_mut_ptr(), length))?;
    let text = CStr::from_bytes_until_nul(&bytes).map_err(|_| Code::UNKNOWN)?;
    Ok(text.to_string_lossy().into_owned())
}

/// The sentence of the loader's at the bottom of an error.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
