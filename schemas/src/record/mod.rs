//! The kinds of record that a capture holds and the columns of each.
//!
//! Numbers are part of the file format: append, never reuse. Every column is a sequence of unsigned 64-bit values;
//! what a value means, and its unit, is said here. How a column is packed is decided per batch by the writer.

macro_rules! numbered_enum {
    ($(#[$doc:meta])* $name:ident : $repr:ty { $($(#[$vdoc:meta])* $variant:ident = $id:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $id,)*
        }

        impl $name {
            /// Every variant, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The variant with this number, if this version knows it.
            #[must_use]
            pub fn from_id(id: u64) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// The number in files.
            #[must_use]
            pub const fn id(self) -> $repr {
                self as $repr
            }

            /// The name shown to people and used in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

numbered_enum! {
    /// What one record describes. The key of its batches is given in brackets.
    RecordKind: u16 {
        /// A kernel, copy or memset on a device, with the host call that launched it \[device\].
        GpuOp = 1 "gpu operation",
        /// A host call into CUDA or HIP that did not launch anything: synchronise, allocate, query … \[thread\].
        ApiCall = 2 "api call",
        /// A named range on a host thread: a framework operator, a Python function, an NVTX range \[thread\].
        HostSpan = 3 "host span",
        /// A stretch in which records of a device were lost \[device\].
        LossWindow = 4 "loss window",
        /// An order between streams: a stream was told to wait for an event \[device\].
        StreamWait = 5 "stream wait",
        /// What is known of a collective beyond its kernel: operation, size, group \[device\].
        Collective = 6 "collective",
        /// A range that the profiler drew on a device's own time line \[device\].
        DeviceSpan = 7 "device span",
        /// A stretch in which a thread was followed \[thread\].
        ThreadSpan = 8 "followed thread",
        /// A thread was off the CPU because it waited or was stopped \[thread\].
        ThreadWait = 9 "thread wait",
        /// A thread was runnable and did not run, or a stretch in which that happened often \[thread\].
        ThreadPreempt = 10 "preemption",
        /// A thread was found running on a CPU \[thread\].
        CpuSample = 11 "cpu sample",
        /// A host call into a collective library \[thread\].
        CollectiveCall = 12 "collective call",
        /// Page faults of a thread in a stretch of time \[thread\].
        PageFaults = 13 "page faults",
        /// A request to a block device \[thread\].
        BlockIo = 14 "block i/o",
        /// Bytes that a process read from and wrote to one file in a stretch of time \[process\].
        FileIo = 15 "file i/o",
        /// What a network connection did in a stretch of time \[process\].
        Connection = 16 "connection",
        /// A stretch in which records of a thread were lost \[thread\].
        ThreadLoss = 17 "thread loss",
        /// A stretch in which a device was observed: what it does not do then is idle time \[device\].
        DeviceWindow = 18 "observed device",
        /// A value that was asked for at a moment: a clock, a temperature, bytes on a link \[device\].
        Counter = 19 "counter",
        /// Where a thread was when it launched something on a device: of a sample of the launches \[thread\].
        LaunchStack = 20 "launch stack",
        /// What a worker of a pipelined job did, with its place in the job \[device\].
        PipelineOp = 21 "pipeline operation",
        /// How far a process had come in a group of ranks when it was asked \[process\].
        GroupState = 22 "state of a group",
    }
}

mod host;
mod pipeline;

pub use host::{
    BlockOp, CollectiveLibrary, CollectiveOp, ObjectKind, WaitKind, block_io, call_flags, collective_call,
    connection, counter, cpu_sample, device_window, file_io, group_state, launch_stack, page_faults,
    thread_loss, thread_preempt, thread_span, thread_wait, wait_flags, window_flags,
};
pub use pipeline::{PipelineOpKind, pipeline_op};

/// What the key of a batch numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySpace {
    /// A row of the device table.
    Device,
    /// A row of the thread table.
    Thread,
    /// A row of the process table.
    Process,
}

impl RecordKind {
    /// What the keys of this kind's batches number.
    #[must_use]
    pub const fn key_space(self) -> KeySpace {
        match self {
            Self::GpuOp
            | Self::LossWindow
            | Self::StreamWait
            | Self::Collective
            | Self::DeviceSpan
            | Self::DeviceWindow
            | Self::Counter
            | Self::PipelineOp => KeySpace::Device,
            Self::FileIo | Self::Connection | Self::GroupState => KeySpace::Process,
            Self::ApiCall
            | Self::HostSpan
            | Self::ThreadSpan
            | Self::ThreadWait
            | Self::ThreadPreempt
            | Self::CpuSample
            | Self::CollectiveCall
            | Self::PageFaults
            | Self::BlockIo
            | Self::ThreadLoss
            | Self::LaunchStack => KeySpace::Thread,
        }
    }
}

numbered_enum! {
    /// What a [`RecordKind::GpuOp`] did.
    OpKind: u8 {
        /// A kernel.
        Kernel = 0 "kernel",
        /// A copy; [`CopyKind`] says between what.
        Memcpy = 1 "memcpy",
        /// A fill.
        Memset = 2 "memset",
        /// Something that occupied the device and is none of the above.
        Other = 3 "other",
    }
}

numbered_enum! {
    /// Between what a copy moved data, and whether the host side was page-locked.
    CopyKind: u8 {
        /// Not a copy, or the trace does not say.
        Unknown = 0 "unknown",
        /// Host to device from pageable memory (staged through a driver buffer, the caller waits).
        HostToDevicePageable = 1 "host to device, pageable",
        /// Host to device from page-locked memory.
        HostToDevicePinned = 2 "host to device, pinned",
        /// Device to host into pageable memory.
        DeviceToHostPageable = 3 "device to host, pageable",
        /// Device to host into page-locked memory.
        DeviceToHostPinned = 4 "device to host, pinned",
        /// Within one device.
        DeviceToDevice = 5 "within the device",
        /// Between two devices.
        PeerToPeer = 6 "peer to peer",
        /// Host to device; the trace does not say which memory.
        HostToDevice = 7 "host to device",
        /// Device to host; the trace does not say which memory.
        DeviceToHost = 8 "device to host",
    }
}

numbered_enum! {
    /// Where a [`RecordKind::HostSpan`] comes from.
    SpanKind: u8 {
        /// A framework operator (aten::…, autograd nodes).
        Operator = 0 "operator",
        /// A Python function.
        Python = 1 "python",
        /// A range that the user marked (NVTX, record_function).
        Annotation = 2 "annotation",
        /// A step of the training or inference loop as the profiler marked it (ProfilerStep#N).
        Step = 3 "step",
        /// Something else on a host thread.
        Other = 4 "other",
    }
}

/// Bits of [`gpu_op::FLAGS`].
pub mod op_flags {
    /// The operation has a launch (the launch columns are meaningful).
    pub const HAS_LAUNCH: u64 = 1;
    /// The trace's metadata says that this is a collective or point-to-point operation.
    pub const COLLECTIVE_METADATA: u64 = 2;
    /// The launch happened inside a host range that belongs to a collective library.
    pub const COLLECTIVE_CORRELATED: u64 = 4;
    /// The operation is a node of a graph replay.
    pub const GRAPH_NODE: u64 = 8;
    /// The trace has no end for the operation: its time is UNKNOWN.
    pub const END_UNKNOWN: u64 = 16;
}

/// Columns of [`RecordKind::GpuOp`], sorted by start.
pub mod gpu_op {
    /// Start, ns in the source's clock.
    pub const START: u16 = 0;
    /// Duration, ns.
    pub const DURATION: u16 = 1;
    /// Name of the kernel or copy (string id).
    pub const NAME: u16 = 2;
    /// Stream or HIP queue, as numbered by the trace.
    pub const STREAM: u16 = 3;
    /// An `OpKind`.
    pub const KIND: u16 = 4;
    /// Bits of `op_flags`.
    pub const FLAGS: u16 = 5;
    /// Correlation id.
    pub const CORRELATION: u16 = 6;
    /// Bytes moved or filled; 0 where unknown.
    pub const BYTES: u16 = 7;
    /// A `CopyKind`.
    pub const COPY_KIND: u16 = 8;
    /// Thread that made the launching call (thread id of the capture).
    pub const LAUNCH_THREAD: u16 = 9;
    /// Start of the launching call, ns.
    pub const LAUNCH_START: u16 = 10;
    /// Duration of the launching call, ns.
    pub const LAUNCH_DURATION: u16 = 11;
    /// Name of the launching call (string id).
    pub const LAUNCH_NAME: u16 = 12;
    /// How many columns there are.
    pub const COUNT: u16 = 13;
}

/// Columns of [`RecordKind::ApiCall`], sorted by start.
pub mod api_call {
    /// Start, ns.
    pub const START: u16 = 0;
    /// Duration, ns.
    pub const DURATION: u16 = 1;
    /// Name (string id).
    pub const NAME: u16 = 2;
    /// Correlation id.
    pub const CORRELATION: u16 = 3;
    /// How many columns there are.
    pub const COUNT: u16 = 4;
}

/// Columns of [`RecordKind::HostSpan`], sorted by start, the longer of two that start together first.
pub mod host_span {
    /// Start, ns.
    pub const START: u16 = 0;
    /// Duration, ns.
    pub const DURATION: u16 = 1;
    /// Name (string id).
    pub const NAME: u16 = 2;
    /// A `SpanKind`.
    pub const KIND: u16 = 3;
    /// Stack of the caller where the trace has one (stack id), else 0.
    pub const STACK: u16 = 4;
    /// How many columns there are.
    pub const COUNT: u16 = 5;
}

/// Columns of [`RecordKind::LossWindow`].
pub mod loss_window {
    /// Start, ns.
    pub const START: u16 = 0;
    /// Duration, ns.
    pub const DURATION: u16 = 1;
    /// A `LossCounter` number.
    pub const COUNTER: u16 = 2;
    /// How many columns there are.
    pub const COUNT: u16 = 3;
}

/// Columns of [`RecordKind::StreamWait`], sorted by start.
pub mod stream_wait {
    /// Start of the host call, ns.
    pub const START: u16 = 0;
    /// Duration of the host call, ns.
    pub const DURATION: u16 = 1;
    /// The stream that waits.
    pub const STREAM: u16 = 2;
    /// The stream that it waits for; all ones where the trace does not say.
    pub const ON_STREAM: u16 = 3;
    /// Correlation id of the host call.
    pub const CORRELATION: u16 = 4;
    /// How many columns there are.
    pub const COUNT: u16 = 5;
}

/// Columns of [`RecordKind::Collective`], sorted by start.
pub mod collective {
    /// Start of the device operation, ns.
    pub const START: u16 = 0;
    /// Duration of the device operation, ns.
    pub const DURATION: u16 = 1;
    /// Name of the collective as the trace gives it (string id).
    pub const NAME: u16 = 2;
    /// Bytes that this rank put in; 0 where unknown.
    pub const BYTES: u16 = 3;
    /// Name or identity of the group (string id).
    pub const GROUP: u16 = 4;
    /// Ranks in the group; 0 where unknown.
    pub const GROUP_SIZE: u16 = 5;
    /// Sequence number plus one; 0 where unknown.
    pub const SEQUENCE: u16 = 6;
    /// Correlation id of the device operation.
    pub const CORRELATION: u16 = 7;
    /// How many columns there are.
    pub const COUNT: u16 = 8;
}

/// Columns of [`RecordKind::DeviceSpan`], sorted by start.
pub mod device_span {
    /// Start, ns.
    pub const START: u16 = 0;
    /// Duration, ns.
    pub const DURATION: u16 = 1;
    /// Name (string id).
    pub const NAME: u16 = 2;
    /// A `SpanKind`.
    pub const KIND: u16 = 3;
    /// How many columns there are.
    pub const COUNT: u16 = 4;
}

/// What kind of thing a device is.
pub mod device_kind {
    /// A GPU or a MIG instance.
    pub const GPU: u8 = 0;
    /// A rank that runs on CPUs.
    pub const CPU: u8 = 1;
    /// A host: it has counters and no time of its own.
    pub const HOST: u8 = 2;

    /// The stable name used in JSON. A kind that this version does not know is taken for a GPU.
    #[must_use]
    pub fn name(kind: u8) -> &'static str {
        match kind {
            CPU => "cpu",
            HOST => "host",
            _ => "gpu",
        }
    }
}
