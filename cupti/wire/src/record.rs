//! Records: eight words each. The first says what it is; what the others hold is said per kind.
//!
//! Times are CUPTI's, unconverted: the `Clock` records around them tie them to CLOCK_MONOTONIC, and the daemon converts.

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 64;

/// Bytes of text in a slot that follows a [`Kind::Name`].
pub const TEXT_BYTES: usize = SLOT_BYTES;

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Record(pub [u64; SLOT_BYTES / 8]);

impl Record {
    /// A record whose word 0 is filled and whose other words are 0. `flags` are those of bits 8-15, shifted to bit 0.
    #[must_use]
    pub const fn of(kind: Kind, flags: u64, correlation: u32) -> Self {
        let mut record = Self([0; SLOT_BYTES / 8]);
        record.0[0] = kind as u64 | (flags & 0xff) << 8 | (correlation as u64) << 32;
        record
    }

    /// Flags of word 0, shifted to bit 0.
    #[must_use]
    pub const fn flags(&self) -> u64 {
        self.0[0] >> 8 & 0xff
    }

    /// The correlation id of word 0.
    #[must_use]
    pub const fn correlation(&self) -> u32 {
        halves(self.0[0])[1]
    }
}

/// What a record is: the low 8 bits of word 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A kernel: see [`op`].
    Kernel = 1,
    /// A copy: [`op`] and [`memory`].
    Copy = 2,
    /// A fill: [`op`] and [`memory`].
    Fill = 3,
    /// A call into the driver or the runtime: see [`api`].
    Api = 4,
    /// A host thread waited for the device: see [`sync`].
    Sync = 5,
    /// A graph replay as one record: see [`op`]; word 5 is [`graph`].
    Graph = 6,
    /// Time that CUPTI says it cost: see [`overhead`].
    Overhead = 7,
    /// CUPTI's clock beside ours: see [`clock`].
    Clock = 8,
    /// A name that later records refer to: see [`name`].
    Name = 9,
    /// A device: see [`device`].
    Device = 10,
    /// A range that the user marked (NVTX): see [`range`].
    Range = 11,
    /// A stretch in which records were lost: see [`loss`].
    Loss = 12,
}

/// The low and the high half of a word.
#[must_use]
pub const fn halves(word: u64) -> [u32; 2] {
    let bytes = word.to_le_bytes();
    [
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    ]
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            1 => Self::Kernel,
            2 => Self::Copy,
            3 => Self::Fill,
            4 => Self::Api,
            5 => Self::Sync,
            6 => Self::Graph,
            7 => Self::Overhead,
            8 => Self::Clock,
            9 => Self::Name,
            10 => Self::Device,
            11 => Self::Range,
            12 => Self::Loss,
            _ => return None,
        })
    }
}

/// Words of an operation on a device. Word 0: bits 0-7 kind, 8-15 flags (below), 32-63 correlation id.
pub mod op {
    /// Start.
    pub const START: usize = 1;
    /// End; 0 where CUPTI did not know it.
    pub const END: usize = 2;
    /// Device in the low half, context in the high half.
    pub const DEVICE_CONTEXT: usize = 3;
    /// Stream in the low half, name (kernel) or what [`super::memory`] says in the high half.
    pub const STREAM_NAME: usize = 4;
    /// Node of a graph, 0 where it is none; bytes of a copy or fill.
    pub const NODE_OR_BYTES: usize = 5;
    /// Graph in the low half.
    pub const GRAPH: usize = 6;
    /// Of a copy between devices: the source's number in the low half, the destination's in the high half. Of another
    /// copy, and of a fill: the node of the graph, 0 where it is none.
    pub const PEERS_OR_NODE: usize = 7;
}

/// Flags of word 0 of operations on a device, shifted to bit 0.
pub mod op_flags {
    /// A copy between devices: `op::PEERS_OR_NODE` has the devices.
    pub const PEER: u64 = 1;
    /// The copy was asked for by a call that does not wait.
    pub const ASYNC: u64 = 2;
}

/// High half of `op::STREAM_NAME` of a copy or fill.
pub mod memory {
    /// Bits 0-7: CUPTI's copy kind.
    pub const COPY_KIND_MASK: u32 = 0xff;
    /// Bits 8-15: memory kind of the source (1 pageable, 2 pinned, 3 device …).
    pub const SOURCE_SHIFT: u32 = 8;
    /// Bits 16-23: of the destination.
    pub const DESTINATION_SHIFT: u32 = 16;
}

/// Words of a host call. Word 0 as in [`op`]; flag 1 says runtime (else driver).
pub mod api {
    /// Start.
    pub const START: usize = 1;
    /// End.
    pub const END: usize = 2;
    /// Thread in the low half (as the process's own pid namespace numbers it), callback id in the high half.
    pub const THREAD_CALLBACK: usize = 3;
    /// Return value in the low half.
    pub const RESULT: usize = 4;
}

/// Flags of word 0 of host calls.
pub mod launch_flags {
    /// A call of the runtime API.
    pub const RUNTIME: u64 = 1;
}

/// Words of a synchronisation. Word 0 as in [`op`].
pub mod sync {
    /// Start.
    pub const START: usize = 1;
    /// End.
    pub const END: usize = 2;
    /// Context in the low half, stream in the high half.
    pub const CONTEXT_STREAM: usize = 3;
    /// `CUpti_ActivitySynchronizationType`: 1 event, 2 stream wait event, 3 stream, 4 context.
    pub const TYPE: usize = 4;
}

/// Words of a range of the user. Word 0: kind; 32-63 its id, which is unique for as long as it is open.
pub mod range {
    /// Start.
    pub const START: usize = 1;
    /// End; the start where it is a moment.
    pub const END: usize = 2;
    /// Thread that opened it in the low half.
    pub const THREAD: usize = 3;
    /// Its name (number of a name) in the low half, the name of its domain in the high half, 0 where it has none.
    pub const NAME_DOMAIN: usize = 4;
}

/// Words of a graph replay beyond [`op`].
pub mod graph {
    /// Graph in the low half.
    pub const GRAPH: usize = 6;
}

/// Words of a stretch that CUPTI, or the driver, took for itself.
pub mod overhead {
    /// Start.
    pub const START: usize = 1;
    /// End.
    pub const END: usize = 2;
    /// Thread that it held up in the low half, 0 where it held up none.
    pub const THREAD: usize = 3;
    /// `CUpti_ActivityOverheadKind`: 65536 flush, 131072 instrumentation, 393216 command buffer full ….
    pub const KIND: usize = 4;
}

/// Words of a stretch in which records were lost.
pub mod loss {
    /// CLOCK_MONOTONIC of the last moment at which none had been lost.
    pub const SINCE: usize = 1;
    /// CLOCK_MONOTONIC of the first moment at which no more were lost.
    pub const UNTIL: usize = 2;
    /// How many, as far as is known.
    pub const COUNT: usize = 3;
    /// A [`crate::Lost`].
    pub const WHAT: usize = 4;
}

/// Words of a clock pair.
pub mod clock {
    /// CLOCK_MONOTONIC before.
    pub const BEFORE: usize = 1;
    /// CUPTI's time.
    pub const CUPTI: usize = 2;
    /// CLOCK_MONOTONIC after.
    pub const AFTER: usize = 3;
    /// CLOCK_REALTIME read in between.
    pub const REAL: usize = 4;
}

/// Words of a name; its text follows in slots of [`TEXT_BYTES`].
///
/// Names are numbered anew with each attach: a `Name` with a number that is known replaces it.
pub mod name {
    /// The longest text: longer ones are cut. Names of templates reach 3000 bytes, and a cut one cannot be demangled.
    pub const MAX_BYTES: usize = 4096;
    /// Its number (from 1 on) in the low half, bytes of text in the high half.
    pub const NUMBER_BYTES: usize = 1;
}

/// Words of a device.
pub mod device {
    /// Its number in the process in the low half; 1 in the high half where it is a MIG instance.
    pub const NUMBER_MIG: usize = 1;
    /// UUID, two words, in the order of its bytes.
    pub const UUID: usize = 2;
    /// Its name (number of a name) in the low half.
    pub const NAME: usize = 4;
    /// Multiprocessors in the low half, compute capability (major << 8 | minor) in the high half; 0 where the driver was
    /// asked for the device.
    pub const SHAPE: usize = 5;
    /// Bytes of memory; 0 likewise.
    pub const MEMORY: usize = 6;
}
