//! `CUpti_ActivityKind`, as far as something is done with it, and flags within records.

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $id:literal $header:literal,)*) => {
        /// What a record is about. Bit n of the wire's `kinds` is the kind n.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum ActivityKind { $($(#[$doc])* $variant = $id,)* }

        impl ActivityKind {
            /// Every one that is known here.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The kind with this number.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// What the header calls it, after `CUPTI_ACTIVITY_KIND_`.
            #[must_use]
            pub const fn header_name(self) -> &'static str {
                match self { $(Self::$variant => $header),* }
            }
        }
    };
}

kinds! {
    /// A copy.
    Copy = 1 "MEMCPY",
    /// A fill.
    Fill = 2 "MEMSET",
    /// A kernel, serialised: enabling it changes what the job does, so it never is. Named to be refused.
    SerialKernel = 3 "KERNEL",
    /// A call of the driver API.
    Driver = 4 "DRIVER",
    /// A call of the runtime API.
    Runtime = 5 "RUNTIME",
    /// A device.
    Device = 8 "DEVICE",
    /// A context.
    Context = 9 "CONTEXT",
    /// A kernel.
    Kernel = 10 "CONCURRENT_KERNEL",
    /// A mark of the user (NVTX).
    Marker = 12 "MARKER",
    /// What profiling costs.
    Overhead = 17 "OVERHEAD",
    /// A copy between devices.
    PeerCopy = 22 "MEMCPY2",
    /// A stream.
    Stream = 37 "STREAM",
    /// A wait for the device.
    Synchronization = 38 "SYNCHRONIZATION",
    /// What another tool calls a call.
    ExternalCorrelation = 39 "EXTERNAL_CORRELATION",
    /// A replay of a graph, as one.
    GraphTrace = 51 "GRAPH_TRACE",
}

impl ActivityKind {
    /// Its number.
    #[must_use]
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Its bit in a set of kinds.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self.id()
    }
}

/// Flags of a marker (`CUPTI_ACTIVITY_FLAG_MARKER_…`).
pub mod marker_flags {
    /// A moment.
    pub const INSTANTANEOUS: u32 = 1;
    /// A range begins.
    pub const START: u32 = 2;
    /// A range ends.
    pub const END: u32 = 4;
}

/// Flags of a copy (`CUPTI_ACTIVITY_FLAG_MEMCPY_…`).
pub mod memcpy_flags {
    /// The call did not wait.
    pub const ASYNC: u8 = 1;
}

/// What a record's `object_id` names (`CUPTI_ACTIVITY_OBJECT_…`).
pub mod object {
    /// A process and a thread.
    pub const THREAD: u32 = 2;
}
