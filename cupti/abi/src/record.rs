//! Activity records by the prefix that all versions share.
//!
//! `read` copies the fields out of bytes that may be unaligned and may belong to something else altogether; what the
//! fields say is checked by whoever uses them. Pointers in records are addresses here, nothing follows them.

/// A field of a record: what the header calls it, where it lies, and how many bytes it has.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the header.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A record's fields, for the check against headers.
#[derive(Clone, Copy, Debug)]
pub struct RecordLayout {
    /// `CUpti_Activity…` without that prefix and without the number that counts its versions.
    pub header_name: &'static str,
    /// The fields that are read.
    pub fields: &'static [Field],
}

/// The number of the kind: the first word of every record.
#[must_use]
pub fn kind_of(record: &[u8]) -> Option<u32> {
    record.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident $header:literal {
        $($(#[$fdoc:meta])* $field:ident: $type:ty = $offset:literal $hfield:literal,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

            impl $name {
                /// Bytes that have to be there.
                pub const PREFIX_BYTES: usize = {
                    let mut bytes = 0;
                    $(if $offset + size_of::<$type>() > bytes { bytes = $offset + size_of::<$type>(); })*
                    bytes
                };

                const LAYOUT: RecordLayout = RecordLayout {
                    header_name: $header,
                    fields: &[$(Field { name: $hfield, offset: $offset, size: size_of::<$type>() },)*],
                };

                /// Reads the record that begins here; none where it is cut short.
                #[must_use]
                #[inline]
                pub fn read(record: &[u8]) -> Option<Self> {
                    let record = record.first_chunk::<{ Self::PREFIX_BYTES }>()?;
                    Some(Self { $($field: FromBytes::at::<{ $offset }>(record)?,)* })
                }
            }
        )*

        /// Every record that is read here.
        pub const RECORDS: &[RecordLayout] = &[$($name::LAYOUT),*];
    };
}

trait FromBytes: Sized {
    fn at<const OFFSET: usize>(record: &[u8]) -> Option<Self>;
}

macro_rules! from_bytes {
    ($($type:ty)*) => { $(
        impl FromBytes for $type {
            #[inline]
            fn at<const OFFSET: usize>(record: &[u8]) -> Option<Self> {
                record.get(OFFSET..)?.first_chunk().map(|bytes| Self::from_ne_bytes(*bytes))
            }
        }
    )* };
}

from_bytes! { u8 u16 u32 u64 }

impl<const N: usize> FromBytes for [u8; N] {
    #[inline]
    fn at<const OFFSET: usize>(record: &[u8]) -> Option<Self> {
        record.get(OFFSET..)?.first_chunk().copied()
    }
}

records! {
    /// A kernel.
    Kernel "Kernel" {
        /// CUPTI's time; 0 with `end` 0 where it could not be measured.
        start: u64 = 16 "start",
        /// CUPTI's time; 0 while it runs.
        end: u64 = 24 "end",
        /// Device, as the process numbers them.
        device: u32 = 40 "deviceId",
        /// Context.
        context: u32 = 44 "contextId",
        /// Stream.
        stream: u32 = 48 "streamId",
        /// The launch's.
        correlation: u32 = 92 "correlationId",
        /// Address of its mangled name.
        name: u64 = 104 "name",
        /// Node of the graph, or 0.
        graph_node: u64 = 144 "graphNodeId",
        /// Graph, or 0.
        graph: u32 = 156 "graphId",
    }

    /// A copy.
    Copy "Memcpy" {
        /// From what to what.
        copy_kind: u8 = 4 "copyKind",
        /// Memory of the source.
        source_kind: u8 = 5 "srcKind",
        /// Memory of the destination.
        destination_kind: u8 = 6 "dstKind",
        /// [`crate::memcpy_flags`].
        flags: u8 = 7 "flags",
        /// Bytes.
        bytes: u64 = 8 "bytes",
        /// CUPTI's time.
        start: u64 = 16 "start",
        /// CUPTI's time.
        end: u64 = 24 "end",
        /// Device.
        device: u32 = 32 "deviceId",
        /// Context.
        context: u32 = 36 "contextId",
        /// Stream.
        stream: u32 = 40 "streamId",
        /// The call's.
        correlation: u32 = 44 "correlationId",
        /// Node of the graph, or 0.
        graph_node: u64 = 64 "graphNodeId",
        /// Graph, or 0.
        graph: u32 = 72 "graphId",
    }

    /// A copy from device to device.
    PeerCopy "MemcpyPtoP" {
        /// From what to what.
        copy_kind: u8 = 4 "copyKind",
        /// Memory of the source.
        source_kind: u8 = 5 "srcKind",
        /// Memory of the destination.
        destination_kind: u8 = 6 "dstKind",
        /// [`crate::memcpy_flags`].
        flags: u8 = 7 "flags",
        /// Bytes.
        bytes: u64 = 8 "bytes",
        /// CUPTI's time.
        start: u64 = 16 "start",
        /// CUPTI's time.
        end: u64 = 24 "end",
        /// Device that copies.
        device: u32 = 32 "deviceId",
        /// Context.
        context: u32 = 36 "contextId",
        /// Stream.
        stream: u32 = 40 "streamId",
        /// Device of the source.
        source_device: u32 = 44 "srcDeviceId",
        /// Device of the destination.
        destination_device: u32 = 52 "dstDeviceId",
        /// The call's.
        correlation: u32 = 60 "correlationId",
        /// Graph, or 0.
        graph: u32 = 80 "graphId",
    }

    /// A fill.
    Fill "Memset" {
        /// Bytes.
        bytes: u64 = 8 "bytes",
        /// CUPTI's time.
        start: u64 = 16 "start",
        /// CUPTI's time.
        end: u64 = 24 "end",
        /// Device.
        device: u32 = 32 "deviceId",
        /// Context.
        context: u32 = 36 "contextId",
        /// Stream.
        stream: u32 = 40 "streamId",
        /// The call's.
        correlation: u32 = 44 "correlationId",
        /// Memory that is filled.
        memory_kind: u16 = 50 "memoryKind",
        /// Node of the graph, or 0.
        graph_node: u64 = 64 "graphNodeId",
        /// Graph, or 0.
        graph: u32 = 72 "graphId",
    }

    /// A call of the driver or the runtime.
    ApiCall "API" {
        /// Which: [`crate::DRIVER_CALLS`] of the driver's.
        callback: u32 = 4 "cbid",
        /// CUPTI's time.
        start: u64 = 8 "start",
        /// CUPTI's time.
        end: u64 = 16 "end",
        /// Thread, of the kind that `cuptiSetThreadIdType` has set.
        thread: u32 = 28 "threadId",
        /// What the operations that it caused carry too.
        correlation: u32 = 32 "correlationId",
        /// What it returned.
        result: u32 = 36 "returnValue",
    }

    /// A wait of the host for the device.
    Synchronization "Synchronization" {
        /// For an event 1, stream wait event 2, stream 3, context 4.
        wait_kind: u32 = 4 "type",
        /// CUPTI's time.
        start: u64 = 8 "start",
        /// CUPTI's time.
        end: u64 = 16 "end",
        /// The call's.
        correlation: u32 = 24 "correlationId",
        /// Context.
        context: u32 = 28 "contextId",
        /// Stream, or all ones.
        stream: u32 = 32 "streamId",
    }

    /// A replay of a graph.
    GraphTrace "GraphTrace" {
        /// The launch's.
        correlation: u32 = 4 "correlationId",
        /// CUPTI's time.
        start: u64 = 8 "start",
        /// CUPTI's time.
        end: u64 = 16 "end",
        /// Device.
        device: u32 = 24 "deviceId",
        /// Graph.
        graph: u32 = 28 "graphId",
        /// Context.
        context: u32 = 32 "contextId",
        /// Stream.
        stream: u32 = 36 "streamId",
    }

    /// Time that profiling, or the driver, cost.
    Overhead "Overhead" {
        /// What for.
        overhead_kind: u32 = 4 "overheadKind",
        /// [`crate::object`] that `object_id` names.
        object_kind: u32 = 8 "objectKind",
        /// Process and thread, or device, context and stream.
        object_id: [u8; 12] = 12 "objectId",
        /// CUPTI's time.
        start: u64 = 24 "start",
        /// CUPTI's time.
        end: u64 = 32 "end",
    }

    /// What another tool calls what follows.
    ExternalCorrelation "ExternalCorrelation" {
        /// The tool.
        external_kind: u32 = 4 "externalKind",
        /// Its number.
        external: u64 = 8 "externalId",
        /// CUPTI's.
        correlation: u32 = 16 "correlationId",
    }

    /// A mark of the user.
    Marker "Marker" {
        /// [`crate::marker_flags`].
        flags: u32 = 4 "flags",
        /// CUPTI's time.
        timestamp: u64 = 8 "timestamp",
        /// The start's and the end's.
        id: u32 = 16 "id",
        /// [`crate::object`] that `object_id` names.
        object_kind: u32 = 20 "objectKind",
        /// Process and thread, or device, context and stream.
        object_id: [u8; 12] = 24 "objectId",
        /// Address of its text, of a start or a moment.
        name: u64 = 40 "name",
        /// Address of the name of its domain, or 0.
        domain: u64 = 48 "domain",
    }

    /// A device.
    Device "Device" {
        /// Bytes of memory.
        memory: u64 = 16 "globalMemorySize",
        /// Multiprocessors.
        multiprocessors: u32 = 44 "numMultiprocessors",
        /// Compute capability, before the dot.
        major: u32 = 104 "computeCapabilityMajor",
        /// Compute capability, after the dot.
        minor: u32 = 108 "computeCapabilityMinor",
        /// Its number in the process.
        id: u32 = 112 "id",
        /// Its UUID.
        uuid: [u8; 16] = 120 "uuid",
        /// Address of its name.
        name: u64 = 136 "name",
        /// Whether it is cut into instances (MIG).
        is_mig: u8 = 145 "isMigEnabled",
        /// UUID of the instance.
        mig_uuid: [u8; 16] = 160 "migUuid",
    }

    /// A context.
    Context "Context" {
        /// Its number.
        id: u32 = 4 "contextId",
        /// Device that it is on.
        device: u32 = 8 "deviceId",
        /// Its stream that has no name.
        null_stream: u16 = 14 "nullStreamId",
    }

    /// A stream.
    Stream "Stream" {
        /// Context that it is of.
        context: u32 = 4 "contextId",
        /// Its number.
        id: u32 = 8 "streamId",
        /// Smaller is sooner.
        priority: u32 = 12 "priority",
    }
}
