//! How the other stand-ins reach libcuda: a table of functions that it exports under [`SYMBOL`].
//!
//! The libraries are built together from one source; `version` guards against folders that mix two builds.

use std::ffi::CStr;
use std::sync::OnceLock;

use crate::sys::Library;

/// Name of the function that returns the table.
pub const SYMBOL: &CStr = c"stallscope_double_cuda";

/// Raised with every change of a structure of this file.
pub const VERSION: u32 = 1;

/// What an operation on a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OpKind {
    /// A kernel, also one that communicates.
    Kernel,
    /// A copy.
    Copy,
    /// A memset.
    Set,
    /// A whole launch of a graph.
    Graph,
    /// The record of an event: takes no time.
    Event,
}

/// Memory as CUPTI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Memory {
    /// Not said.
    Unknown = 0,
    /// Host memory that can be paged out.
    Pageable = 1,
    /// Host memory that cannot.
    Pinned = 2,
    /// Of the device.
    Device = 3,
}

/// An operation of a device that has ended; when `end_ns` is 0, one that still runs; when both times are, one that
/// could not be timed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    /// What it is.
    pub kind: OpKind,
    /// CUDA's number of the device in this process.
    pub device: u32,
    /// Number of the context.
    pub context: u32,
    /// Number of the stream.
    pub stream: u32,
    /// Of the call that launched it.
    pub correlation: u32,
    /// The graph that it is part of; 0 if none.
    pub graph: u32,
    /// Its node in the graph; 0 if none.
    pub node: u64,
    /// Address of its name, NUL-terminated, valid as long as the process; 0 if it has none.
    pub name: usize,
    /// Start, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// End, CLOCK_MONOTONIC.
    pub end_ns: u64,
    /// Bytes copied or set.
    pub bytes: u64,
    /// Where the bytes of a copy come from.
    pub from: Memory,
    /// Where they go.
    pub to: Memory,
    /// The call did not wait for the copy.
    pub is_async: bool,
    /// Byte or word of a memset.
    pub value: u32,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
}

/// A call into the driver or the runtime.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Call {
    /// CUPTI's domain: 1 driver, 2 runtime.
    pub domain: u32,
    /// CUPTI's number of the function.
    pub cbid: u32,
    /// Address of the function's name.
    pub name: usize,
    /// Address of the kernel's name, for launches; else 0.
    pub symbol: usize,
    /// Number of the call.
    pub correlation: u32,
    /// Number of the current context.
    pub context: u32,
    /// Handle of the current context.
    pub context_handle: usize,
    /// When it was entered, CLOCK_MONOTONIC.
    pub enter_ns: u64,
    /// When it was left; 0 on entry.
    pub leave_ns: u64,
    /// What it returned; 0 on entry.
    pub code: u32,
    /// The caller.
    pub thread: u32,
    /// Address of eight bytes that an observer may use between entry and exit.
    pub data: usize,
}

/// How the host waited for the device, as CUPTI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SyncKind {
    /// The host waited for an event.
    Event = 1,
    /// A stream was told to wait for an event: the host does not wait.
    StreamWaitEvent = 2,
    /// The host waited for a stream.
    Stream = 3,
    /// The host waited for a context.
    Context = 4,
}

/// A synchronisation.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sync {
    /// Which.
    pub kind: SyncKind,
    /// Of the call.
    pub correlation: u32,
    /// The context.
    pub context: u32,
    /// The stream; `u32::MAX` if none.
    pub stream: u32,
    /// The event; 0 if none.
    pub event: u32,
    /// When the call was entered.
    pub enter_ns: u64,
    /// When the wait was over.
    pub leave_ns: u64,
}

/// A context (`stream` 0) or a stream that exists or was made.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Resource {
    /// Number of the context.
    pub context: u32,
    /// Its handle.
    pub context_handle: usize,
    /// Its device.
    pub device: u32,
    /// Number of the stream; 0 if the context itself is meant.
    pub stream: u32,
    /// Its handle.
    pub stream_handle: usize,
    /// Number of the context's null stream.
    pub null_stream: u32,
    /// CUPTI's flag of a stream: 1 default, 2 non-blocking, 3 the null stream.
    pub flag: u32,
    /// Of the call that made it.
    pub correlation: u32,
}

/// What libcupti hands to libcuda. Its functions are called with no lock of libcuda held.
#[derive(Debug)]
#[repr(C)]
pub struct Observer {
    /// A call begins.
    pub enter: extern "C" fn(&Call),
    /// A call ends.
    pub leave: extern "C" fn(&Call),
    /// An operation is over.
    pub op: extern "C" fn(&Op),
    /// A synchronisation is over.
    pub sync: extern "C" fn(&Sync),
    /// A context or stream was made.
    pub resource: extern "C" fn(&Resource),
    /// A launch found its stream's queue full and waited from the first to the second moment.
    pub queue_full: extern "C" fn(correlation: u32, enter_ns: u64, leave_ns: u64),
}

/// An operation that ends when the ranks have met.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Meeting {
    /// Handle of the stream.
    pub stream: usize,
    /// Address of the kernel's name.
    pub name: usize,
    /// Bytes that it moves.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u32,
    /// Called once, when the start is known, with no lock held: (`argument`, operation, start).
    pub started: extern "C" fn(u64, u64, u64),
    /// Passed to `started`.
    pub argument: u64,
}

/// What libcuda offers.
#[derive(Debug)]
#[repr(C)]
pub struct Cuda {
    /// [`VERSION`].
    pub version: u32,
    /// Observe from now on: operations of the kinds in the mask (1 << CUPTI's number of the kind), and calls if
    /// `calls`. Repeating it changes the mask.
    pub observe: extern "C" fn(&'static Observer, kinds: u64, calls: bool),
    /// Stop observing.
    pub forget: extern "C" fn(),
    /// Hand over every operation that has ended; if asked for, also those that run, with an end of 0.
    pub collect: extern "C" fn(running: bool),
    /// Hand over contexts (false) or streams (true) that exist.
    pub replay: extern "C" fn(streams: bool),
    /// Observed operations that may wait to be handed over before more get no times, and the bytes that each takes.
    pub pool: extern "C" fn(operations: u64, bytes: u64),
    /// Has cuInit been called in this process?
    pub initialised: extern "C" fn() -> bool,
    /// Number of a context by its handle (0: the current one); 0 if there is none.
    pub context_id: extern "C" fn(usize) -> u32,
    /// Number of the device of a context by its handle; `u32::MAX` if there is none.
    pub device_id: extern "C" fn(usize) -> u32,
    /// Number of a stream by its handle in the current context; 0 if there is none.
    pub stream_id: extern "C" fn(usize) -> u32,
    /// Number of a graph or an executable graph by its handle; 0 if there is none.
    pub graph_id: extern "C" fn(usize) -> u32,
    /// A call of the runtime begins.
    pub enter_runtime: extern "C" fn(cbid: u32, name: usize),
    /// It ends with this code.
    pub leave_runtime: extern "C" fn(code: u32),
    /// Put a meeting into a stream; returns the operation's number, or 0 with no such stream.
    pub meet: extern "C" fn(&Meeting) -> u64,
    /// A meeting's end is known.
    pub finish: extern "C" fn(op: u64, end_ns: u64),
    /// A meeting will not take place.
    pub cancel: extern "C" fn(op: u64),
    /// The device of the current context; `u32::MAX` if there is none.
    pub current_device: extern "C" fn() -> u32,
}

/// The table, if libcuda's stand-in is in this process.
///
/// # Panics
/// If the folder mixes two builds.
#[must_use]
pub fn cuda() -> Option<&'static Cuda> {
    from(Library::loaded(c"libcuda.so.1")?)
}

/// The same for libraries that cannot do without libcuda: it is loaded if need be.
#[must_use]
pub fn load_cuda() -> Option<&'static Cuda> {
    // Asked for with each collective; looking a library up by name costs more than all the rest of one.
    static KNOWN: OnceLock<&'static Cuda> = OnceLock::new();
    if KNOWN.get().is_none()
        && let Some(cuda) = from(Library::load(c"libcuda.so.1")?)
    {
        let _ = KNOWN.set(cuda);
    }
    KNOWN.get().copied()
}

fn from(library: Library) -> Option<&'static Cuda> {
    let address = library.function(SYMBOL)?;
    // SAFETY: the symbol is defined by the double's libcuda alone, with this type.
    let table = unsafe { std::mem::transmute::<usize, extern "C" fn() -> &'static Cuda>(address) };
    let cuda = table();
    assert_eq!(cuda.version, VERSION, "libcuda.so.1 of another build of the double");
    Some(cuda)
}
