//! Modules, functions, and launches of kernels.
//!
//! A kernel is its name and a duration. Kernels of tests take their duration in nanoseconds as their first parameter,
//! a u64: on a real device a kernel that spins so long, here a record.

use std::ffi::{c_char, c_void};

use stallscope_double_shared::link::{Op, OpKind};
use stallscope_double_shared::{sys, truth};

use super::put;
use crate::calls::{Call, call, call_symbol};
use crate::engine;
use crate::launch::{self, Launch};
use crate::model::Work;
use crate::state::{Error, Function, Handle, State, Status};

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(module: Option<&mut Handle>, image: *const c_void) -> Status {
    call(19, c"cuModuleLoadData", |_| {
        if image.is_null() {
            return Err(Error::InvalidValue);
        }
        put(module, engine::lock().handle())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(_module: Handle) -> Status {
    call(22, c"cuModuleUnload", |_| Ok(()))
}

/// The function of any name: modules are not looked into.
#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(
    function: Option<&mut Handle>,
    _module: Handle,
    name: *const c_char,
) -> Status {
    call(23, c"cuModuleGetFunction", |_| get_function(function, name))
}

fn get_function(function: Option<&mut Handle>, name: *const c_char) -> Result<(), Error> {
    // SAFETY: the caller passes a C string or NULL.
    let text = unsafe { sys::text(name) }.ok_or(Error::InvalidValue)?;
    let mut state = engine::lock();
    let handle = state.handle();
    let name = sys::intern(&text);
    state.functions.insert(handle, Function { name, text, launches: 0 });
    put(function, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuLibraryLoadData(
    library: Option<&mut Handle>,
    image: *const c_void,
    _options: *const c_void,
    _values: *const c_void,
    _count: u32,
    _library_options: *const c_void,
    _library_values: *const c_void,
    _library_count: u32,
) -> Status {
    call(678, c"cuLibraryLoadData", |_| {
        if image.is_null() {
            return Err(Error::InvalidValue);
        }
        put(library, engine::lock().handle())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLibraryGetKernel(
    kernel: Option<&mut Handle>,
    _library: Handle,
    name: *const c_char,
) -> Status {
    call(681, c"cuLibraryGetKernel", |_| get_function(kernel, name))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetName(name: Option<&mut *const c_char>, function: Handle) -> Status {
    call(718, c"cuFuncGetName", |_| {
        let state = engine::lock();
        let function = state.functions.get(&function).ok_or(Error::InvalidHandle)?;
        put(name, function.name as *const c_char)
    })
}

/// A first parameter beyond this is not a duration but a pointer, or a kernel that hangs on purpose has a setting.
const LONGEST_NS: u64 = 600_000_000_000;

/// The duration that a launch asks for.
pub(super) fn duration_ns(parameters: *const *const u64) -> Option<u64> {
    if parameters.is_null() {
        return None;
    }
    // SAFETY: CUDA's array of pointers to parameters; the double's convention is that there is a first one.
    let first = unsafe { *parameters };
    if first.is_null() {
        return None;
    }
    // SAFETY: by the same convention it points to a u64, aligned or not.
    let duration_ns = unsafe { first.read_unaligned() };
    (duration_ns <= LONGEST_NS).then_some(duration_ns)
}

/// What a kernel of this function is as an operation.
pub(crate) fn describe(
    state: &mut State,
    blank: Op,
    function: Handle,
    launch_ns: Option<u64>,
    (grid, block): ([u32; 3], [u32; 3]),
) -> Result<Launch, Error> {
    let ordinal = usize::try_from(blank.device).unwrap_or(usize::MAX);
    let gpu = state.devices.get(ordinal).map_or(0, |d| d.gpu);
    let function = state.functions.get_mut(&function).ok_or(Error::InvalidHandle)?;
    let (plain_ns, slowed_ns) = state.tuning.kernel(&function.text, launch_ns, gpu);
    function.launches += 1;
    let hangs = state.tuning.hangs(&function.text, || function.launches);
    let work = if hangs { Work::Forever } else { Work::For(plain_ns + slowed_ns) };
    let record = Op { kind: OpKind::Kernel, name: function.name, grid, block, ..blank };
    Ok(Launch { record, kind: truth::OpKind::Kernel, work, slowed_ns, meeting: None })
}

fn symbol(function: Handle) -> usize {
    engine::lock().functions.get(&function).map_or(0, |f| f.name)
}

fn launch_kernel(
    call: &Call,
    function: Handle,
    shape: ([u32; 3], [u32; 3]),
    stream: Handle,
    parameters: *const *const u64,
) -> Result<(), Error> {
    let launch_ns = duration_ns(parameters);
    launch::launch(stream, call, |state, blank| describe(state, blank, function, launch_ns, shape))
        .map(|_| ())
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    _shared_bytes: u32,
    stream: Handle,
    parameters: *const *const u64,
    _extra: *const c_void,
) -> Status {
    let shape = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    call_symbol(
        307,
        c"cuLaunchKernel",
        || symbol(function),
        |call| launch_kernel(call, function, shape, stream, parameters),
    )
}

/// CUDA's CUlaunchConfig, as far as it is read here.
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: Handle,
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernelEx(
    config: Option<&LaunchConfig>,
    function: Handle,
    parameters: *const *const u64,
    _extra: *const c_void,
) -> Status {
    call_symbol(
        652,
        c"cuLaunchKernelEx",
        || symbol(function),
        |call| {
            let config = config.ok_or(Error::InvalidValue)?;
            launch_kernel(call, function, (config.grid, config.block), config.stream, parameters)
        },
    )
}
