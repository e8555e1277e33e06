//! The driver's functions, found in libcuda's stand-in when they are first called.

use std::sync::OnceLock;

use stallscope_double_shared::sys::Library;

/// Code of a driver that cannot be loaded: cudaErrorInsufficientDriver.
pub(crate) const NO_DRIVER: u32 = 35;

macro_rules! functions {
    ($($name:ident($($parameter:ident: $type:ty),*);)*) => {$(
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "CUDA's names and parameters")]
        pub(crate) fn $name($($parameter: $type),*) -> u32 {
            static ADDRESS: OnceLock<Option<usize>> = OnceLock::new();
            let found = ADDRESS.get_or_init(|| {
                let name = concat!(stringify!($name), "\0");
                let name = std::ffi::CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
                Library::load(c"libcuda.so.1")?.function(name)
            });
            let Some(address) = *found else { return NO_DRIVER };
            // SAFETY: the prototype is that of the stand-in's function of this name.
            let function = unsafe { std::mem::transmute::<usize, extern "C" fn($($type),*) -> u32>(address) };
            function($($parameter),*)
        }
    )*};
}

functions! {
    cuInit(flags: u32);
    cuDriverGetVersion(version: Option<&mut i32>);
    cuDeviceGetCount(count: Option<&mut i32>);
    cuDevicePrimaryCtxRetain(context: Option<&mut usize>, device: i32);
    cuCtxGetCurrent(context: Option<&mut usize>);
    cuCtxSetCurrent(context: usize);
    cuCtxGetDevice(device: Option<&mut i32>);
    cuCtxSynchronize();
    cuMemAlloc_v2(address: Option<&mut u64>, bytes: usize);
    cuMemFree_v2(address: u64);
    cuMemHostAlloc(address: Option<&mut usize>, bytes: usize, flags: u32);
    cuMemFreeHost(address: usize);
    cuMemGetInfo_v2(free: Option<&mut usize>, total: Option<&mut usize>);
    cuMemcpy(to: u64, from: u64, bytes: usize);
    cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: usize);
    cuMemsetD8_v2(to: u64, value: u8, bytes: usize);
    cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: usize);
    cuStreamCreate(stream: Option<&mut usize>, flags: u32);
    cuStreamDestroy_v2(stream: usize);
    cuStreamSynchronize(stream: usize);
    cuStreamQuery(stream: usize);
    cuStreamWaitEvent(stream: usize, event: usize, flags: u32);
    cuEventCreate(event: Option<&mut usize>, flags: u32);
    cuEventDestroy_v2(event: usize);
    cuEventRecord(event: usize, stream: usize);
    cuEventSynchronize(event: usize);
    cuEventQuery(event: usize);
    cuEventElapsedTime(milliseconds: Option<&mut f32>, start: usize, end: usize);
    cuLibraryLoadData(
        library: Option<&mut usize>,
        image: usize,
        options: usize,
        values: usize,
        count: u32,
        library_options: usize,
        library_values: usize,
        library_count: u32
    );
    cuLibraryGetKernel(kernel: Option<&mut usize>, library: usize, name: usize);
    cuLaunchKernel(
        function: usize,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: usize,
        parameters: usize,
        extra: usize
    );
    cuGraphLaunch(executable: usize, stream: usize);
    cuGetErrorName(code: u32, name: Option<&mut usize>);
    cuGetErrorString(code: u32, text: Option<&mut usize>);
}
