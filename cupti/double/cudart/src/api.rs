//! The functions of CUDA's runtime API that the stand-in has. Numbers are CUPTI's cbids.
//!
//! A kernel is launched by the handle that cudaLibraryGetKernel returned; there are no functions compiled into programs.
#![allow(non_snake_case, reason = "CUDA's names")]

use std::cell::Cell;
use std::ffi::CStr;

use stallscope_double_shared::link;

use crate::driver;

/// The runtime's codes: those that occur here have the driver's numbers.
type Status = u32;

thread_local! {
    static DEVICE: Cell<i32> = const { Cell::new(0) };
    static LAST: Cell<Status> = const { Cell::new(0) };
}

/// Make a call of the runtime.
fn call(cbid: u32, name: &'static CStr, body: impl FnOnce() -> Status) -> Status {
    let Some(cuda) = link::load_cuda() else { return driver::NO_DRIVER };
    if !(cuda.initialised)() {
        let status = driver::cuInit(0);
        if status != 0 {
            return status;
        }
    }
    (cuda.enter_runtime)(cbid, name.as_ptr() as usize);
    let status = with_context(body);
    (cuda.leave_runtime)(status);
    // Not being ready is an answer, not an error.
    if status != 0 && status != 600 {
        LAST.set(status);
    }
    status
}

fn with_context(body: impl FnOnce() -> Status) -> Status {
    let mut context = 0;
    let known = driver::cuCtxGetCurrent(Some(&mut context));
    if known == 0 && context == 0 {
        let made = driver::cuDevicePrimaryCtxRetain(Some(&mut context), DEVICE.get());
        if made != 0 {
            return made;
        }
        driver::cuCtxSetCurrent(context);
    }
    body()
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetDeviceCount(count: Option<&mut i32>) -> Status {
    call(3, c"cudaGetDeviceCount", || driver::cuDeviceGetCount(count))
}

#[unsafe(no_mangle)]
extern "C" fn cudaSetDevice(device: i32) -> Status {
    DEVICE.set(device);
    call(16, c"cudaSetDevice", || {
        let mut context = 0;
        let status = driver::cuDevicePrimaryCtxRetain(Some(&mut context), device);
        if status == 0 { driver::cuCtxSetCurrent(context) } else { status }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetDevice(device: Option<&mut i32>) -> Status {
    call(17, c"cudaGetDevice", || driver::cuCtxGetDevice(device))
}

#[unsafe(no_mangle)]
extern "C" fn cudaRuntimeGetVersion(version: Option<&mut i32>) -> Status {
    driver::cuDriverGetVersion(version)
}

#[unsafe(no_mangle)]
extern "C" fn cudaDriverGetVersion(version: Option<&mut i32>) -> Status {
    driver::cuDriverGetVersion(version)
}

#[unsafe(no_mangle)]
extern "C" fn cudaDeviceSynchronize() -> Status {
    call(165, c"cudaDeviceSynchronize", driver::cuCtxSynchronize)
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetLastError() -> Status {
    LAST.take()
}

#[unsafe(no_mangle)]
extern "C" fn cudaPeekAtLastError() -> Status {
    LAST.get()
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorName(code: Status) -> usize {
    let mut name = c"cudaErrorUnknown".as_ptr() as usize;
    driver::cuGetErrorName(code, Some(&mut name));
    name
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorString(code: Status) -> usize {
    let mut text = c"unknown error".as_ptr() as usize;
    driver::cuGetErrorString(code, Some(&mut text));
    text
}

#[unsafe(no_mangle)]
extern "C" fn cudaMalloc(address: Option<&mut u64>, bytes: usize) -> Status {
    call(20, c"cudaMalloc", || driver::cuMemAlloc_v2(address, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cudaFree(address: u64) -> Status {
    call(22, c"cudaFree", || driver::cuMemFree_v2(address))
}

#[unsafe(no_mangle)]
extern "C" fn cudaMallocHost(address: Option<&mut usize>, bytes: usize) -> Status {
    call(25, c"cudaMallocHost", || driver::cuMemHostAlloc(address, bytes, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaHostAlloc(address: Option<&mut usize>, bytes: usize, flags: u32) -> Status {
    call(27, c"cudaHostAlloc", || driver::cuMemHostAlloc(address, bytes, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cudaFreeHost(address: usize) -> Status {
    call(26, c"cudaFreeHost", || driver::cuMemFreeHost(address))
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemGetInfo(free: Option<&mut usize>, total: Option<&mut usize>) -> Status {
    call(30, c"cudaMemGetInfo", || driver::cuMemGetInfo_v2(free, total))
}

/// The direction is taken from the addresses, whatever the caller says.
#[unsafe(no_mangle)]
extern "C" fn cudaMemcpy(to: u64, from: u64, bytes: usize, _direction: u32) -> Status {
    call(31, c"cudaMemcpy", || driver::cuMemcpy(to, from, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemcpyAsync(to: u64, from: u64, bytes: usize, _direction: u32, stream: usize) -> Status {
    call(41, c"cudaMemcpyAsync", || driver::cuMemcpyAsync(to, from, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemset(to: u64, value: u8, bytes: usize) -> Status {
    call(49, c"cudaMemset", || driver::cuMemsetD8_v2(to, value, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemsetAsync(to: u64, value: u8, bytes: usize, stream: usize) -> Status {
    call(51, c"cudaMemsetAsync", || driver::cuMemsetD8Async(to, value, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamCreate(stream: Option<&mut usize>) -> Status {
    call(129, c"cudaStreamCreate", || driver::cuStreamCreate(stream, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamCreateWithFlags(stream: Option<&mut usize>, flags: u32) -> Status {
    call(198, c"cudaStreamCreateWithFlags", || driver::cuStreamCreate(stream, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamDestroy(stream: usize) -> Status {
    call(201, c"cudaStreamDestroy", || driver::cuStreamDestroy_v2(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamSynchronize(stream: usize) -> Status {
    call(131, c"cudaStreamSynchronize", || driver::cuStreamSynchronize(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamQuery(stream: usize) -> Status {
    call(132, c"cudaStreamQuery", || driver::cuStreamQuery(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamWaitEvent(stream: usize, event: usize, flags: u32) -> Status {
    call(147, c"cudaStreamWaitEvent", || driver::cuStreamWaitEvent(stream, event, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventCreate(event: Option<&mut usize>) -> Status {
    call(133, c"cudaEventCreate", || driver::cuEventCreate(event, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventCreateWithFlags(event: Option<&mut usize>, flags: u32) -> Status {
    call(134, c"cudaEventCreateWithFlags", || driver::cuEventCreate(event, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventDestroy(event: usize) -> Status {
    call(136, c"cudaEventDestroy", || driver::cuEventDestroy_v2(event))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventRecord(event: usize, stream: usize) -> Status {
    call(135, c"cudaEventRecord", || driver::cuEventRecord(event, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventSynchronize(event: usize) -> Status {
    call(137, c"cudaEventSynchronize", || driver::cuEventSynchronize(event))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventQuery(event: usize) -> Status {
    call(138, c"cudaEventQuery", || driver::cuEventQuery(event))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventElapsedTime(milliseconds: Option<&mut f32>, start: usize, end: usize) -> Status {
    call(139, c"cudaEventElapsedTime", || driver::cuEventElapsedTime(milliseconds, start, end))
}

#[unsafe(no_mangle)]
extern "C" fn cudaLibraryLoadData(
    library: Option<&mut usize>,
    image: usize,
    _options: usize,
    _values: usize,
    _count: u32,
    _library_options: usize,
    _library_values: usize,
    _library_count: u32,
) -> Status {
    call(470, c"cudaLibraryLoadData", || driver::cuLibraryLoadData(library, image, 0, 0, 0, 0, 0, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaLibraryGetKernel(kernel: Option<&mut usize>, library: usize, name: usize) -> Status {
    call(473, c"cudaLibraryGetKernel", || driver::cuLibraryGetKernel(kernel, library, name))
}

/// CUDA's dim3.
#[derive(Clone, Copy)]
#[repr(C)]
struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

#[unsafe(no_mangle)]
extern "C" fn cudaLaunchKernel(
    function: usize,
    grid: Dim3,
    block: Dim3,
    parameters: usize,
    shared_bytes: usize,
    stream: usize,
) -> Status {
    let shared_bytes = u32::try_from(shared_bytes).unwrap_or(u32::MAX);
    call(211, c"cudaLaunchKernel", || {
        driver::cuLaunchKernel(
            function,
            grid.x,
            grid.y,
            grid.z,
            block.x,
            block.y,
            block.z,
            shared_bytes,
            stream,
            parameters,
            0,
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaGraphLaunch(executable: usize, stream: usize) -> Status {
    call(311, c"cudaGraphLaunch", || driver::cuGraphLaunch(executable, stream))
}
