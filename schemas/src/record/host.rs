//! Records of the host half: what threads did and waited for, and what moved meanwhile.
//!
//! A thread that is followed ([`RecordKind::ThreadSpan`](super::RecordKind::ThreadSpan)) was on a CPU in every nanosecond
//! of the span that no wait, preemption or loss covers. Records of one kind on one thread do not overlap.

numbered_enum! {
    /// Why a thread was off the CPU.
    WaitKind: u8 {
        /// The kernel does not say.
        Unknown = 0 "unknown",
        /// It waited inside a system call.
        Syscall = 1 "system call",
        /// It waited inside a page fault.
        PageFault = 2 "page fault",
        /// A signal or a tracer had stopped it.
        Stopped = 3 "stopped",
        /// It waited in the kernel outside of both (on the way out, in a kernel thread).
        Kernel = 4 "kernel",
        /// It was runnable and another thread ran.
        Preempted = 5 "run queue",
        /// Its cgroup had used up its CPU time.
        Throttled = 6 "throttled",
    }
}

numbered_enum! {
    /// What a file descriptor or an address that a call named stands for.
    ObjectKind: u8 {
        /// The call names none, or it could not be read.
        None = 0 "none",
        /// A regular file.
        File = 1 "file",
        /// A directory.
        Directory = 2 "directory",
        /// A block device.
        BlockDevice = 3 "block device",
        /// A character device.
        CharDevice = 4 "character device",
        /// A pipe or FIFO.
        Pipe = 5 "pipe",
        /// A Unix socket.
        UnixSocket = 6 "unix socket",
        /// A TCP socket.
        TcpSocket = 7 "tcp socket",
        /// A UDP socket.
        UdpSocket = 8 "udp socket",
        /// A socket of another family.
        OtherSocket = 9 "socket",
        /// An eventfd.
        EventFd = 10 "eventfd",
        /// An epoll instance.
        Epoll = 11 "epoll",
        /// A timerfd.
        Timer = 12 "timerfd",
        /// An io_uring instance.
        IoUring = 13 "io_uring",
        /// Another anonymous inode.
        Anonymous = 14 "anonymous inode",
        /// A futex.
        Futex = 15 "futex",
    }
}

numbered_enum! {
    /// What a request to a block device asks for.
    BlockOp: u8 {
        /// Something else.
        Other = 0 "other",
        /// Reads.
        Read = 1 "read",
        /// Writes.
        Write = 2 "write",
        /// Flushes the device's cache.
        Flush = 3 "flush",
        /// Discards blocks.
        Discard = 4 "discard",
    }
}

numbered_enum! {
    /// The library that a collective call enters. Outer libraries call inner ones: c10d calls Gloo, MPI or NCCL.
    CollectiveLibrary: u8 {
        /// Not known to this version.
        Other = 0 "other",
        /// NVIDIA's NCCL.
        Nccl = 1 "NCCL",
        /// AMD's RCCL.
        Rccl = 2 "RCCL",
        /// Any MPI.
        Mpi = 3 "MPI",
        /// Gloo.
        Gloo = 4 "Gloo",
        /// PyTorch's process groups.
        C10d = 5 "c10d",
        /// Intel's oneCCL.
        OneCcl = 6 "oneCCL",
    }
}

numbered_enum! {
    /// What a collective call does, in the field's words.
    CollectiveOp: u8 {
        /// None of the below.
        Other = 0 "other",
        /// Everyone gets the reduction.
        AllReduce = 1 "all-reduce",
        /// Everyone gets everyone's part.
        AllGather = 2 "all-gather",
        /// Everyone gets a part of the reduction.
        ReduceScatter = 3 "reduce-scatter",
        /// Everyone sends everyone a part.
        AllToAll = 4 "all-to-all",
        /// One sends all the same.
        Broadcast = 5 "broadcast",
        /// One gets the reduction.
        Reduce = 6 "reduce",
        /// One gets everyone's part.
        Gather = 7 "gather",
        /// One sends everyone a part.
        Scatter = 8 "scatter",
        /// Nobody leaves before all have entered.
        Barrier = 9 "barrier",
        /// Sends to one peer.
        Send = 10 "send",
        /// Receives from one peer.
        Recv = 11 "receive",
        /// Waits for operations begun before.
        Wait = 12 "wait",
        /// Prefix reduction.
        Scan = 13 "scan",
        /// Makes or takes apart a communicator, or the library.
        Init = 14 "init",
        /// Brackets calls that become one.
        Group = 15 "group",
    }
}

impl CollectiveOp {
    /// Whether it goes to or from one rank, its root.
    #[must_use]
    pub fn has_root(self) -> bool {
        matches!(self, Self::Broadcast | Self::Reduce | Self::Gather | Self::Scatter)
    }
}

/// Declares the column numbers of a record kind. `START` and `DURATION` are those of every kind: begin in the source's
/// clock and length, ns.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident: $count:literal { $($(#[$cdoc:meta])* $column:ident = $id:literal,)* }) => {
        $(#[$doc])*
        pub mod $name {
            /// Begin, ns in the source's clock.
            pub const START: u16 = 0;
            /// Length, ns.
            pub const DURATION: u16 = 1;
            $($(#[$cdoc])* pub const $column: u16 = $id;)*
            /// How many columns there are.
            pub const COUNT: u16 = $count;
        }
    };
}

/// Bits of [`thread_wait::FLAGS`].
pub mod wait_flags {
    /// An interrupt ended the wait: the waker column names whom it interrupted, which is nobody's doing.
    pub const IRQ_WAKER: u64 = 1;
    /// The system call returned after this wait; the result column holds its return value.
    pub const RETURNED: u64 = 2;
    /// The wait had begun before the recording did; its begin is that of the recording.
    pub const BEGAN_BEFORE: u64 = 4;
    /// The wait went on when the recording ended.
    pub const GOES_ON: u64 = 8;
    /// The wait is a later part of a call that waited before.
    pub const CONTINUED: u64 = 16;
    /// The CPU that the thread came back to had been idle: nobody ran instead, and the time in which it was runnable is what
    /// waking that CPU took.
    pub const FROM_IDLE: u64 = 32;
}

/// Bits of [`device_window::FLAGS`].
pub mod window_flags {
    /// Whatever runs in it was launched under observation: it began before the process could launch anything.
    pub const FROM_START: u64 = 1;
    /// The other way round: a process that uses the device was not observed, while others may have been.
    pub const UNSEEN: u64 = 2;
}

/// Bits of [`collective_call::FLAGS`].
pub mod call_flags {
    /// Another collective call was open on the thread when this one began.
    pub const NESTED: u64 = 1;
    /// The call had not returned when the recording ended, or its return was not seen.
    pub const OPEN: u64 = 2;
    /// The call only begins the operation; a later wait ends it.
    pub const ASYNC: u64 = 4;
    /// The result column holds the return value.
    pub const RETURNED: u64 = 8;
    /// The device was seen to have begun the operation.
    pub const STARTED: u64 = 16;
}

columns! {
    /// Columns of [`RecordKind::ThreadSpan`](super::RecordKind::ThreadSpan).
    thread_span: 2 {}
}
columns! {
    /// Columns of [`RecordKind::ThreadWait`](super::RecordKind::ThreadWait), from leaving the CPU to being on one again.
    thread_wait: 14 {
        /// Time at the end of the record in which the thread was runnable again and waited for a CPU, ns.
        RUN_QUEUE = 2,
        /// A `WaitKind`.
        KIND = 3,
        /// Name of the system call (string id); empty outside of one.
        CALL = 4,
        /// An `ObjectKind`: what the call's file descriptor or address stands for.
        OBJECT_KIND = 5,
        /// Path, connection or other name of the object (string id).
        OBJECT = 6,
        /// Thread that ended the wait, plus one; 0 where unknown.
        WAKER = 7,
        /// Stack of the waker when it did (stack id).
        WAKER_STACK = 8,
        /// Stack of the waiting thread (stack id).
        STACK = 9,
        /// Thread that ran while this one was runnable, plus one; 0 where none or unknown.
        PREEMPTOR = 10,
        /// Bits of `wait_flags`.
        FLAGS = 11,
        /// Return value of the call as a two's complement number, where a flag says so.
        RESULT = 12,
        /// Peer process of a socket or pipe on this host (process id plus one); 0 where unknown.
        PEER = 13,
    }
}
columns! {
    /// Columns of [`RecordKind::ThreadPreempt`](super::RecordKind::ThreadPreempt). A record is one long wait for a CPU
    /// or a stretch with many short ones; in the rest of the stretch the thread ran.
    thread_preempt: 6 {
        /// Time in which the thread was runnable and did not run, ns.
        RUN_QUEUE = 2,
        /// How often it was taken off.
        TIMES = 3,
        /// Who ran most of that time (thread id plus one); 0 where unknown.
        PREEMPTOR = 4,
        /// A `WaitKind`: preempted or throttled.
        KIND = 5,
    }
}
columns! {
    /// Columns of [`RecordKind::CpuSample`](super::RecordKind::CpuSample). The duration is the time that the sample
    /// stands for; the start is when it was taken.
    cpu_sample: 3 {
        /// Stack (stack id).
        STACK = 2,
    }
}
columns! {
    /// Columns of [`RecordKind::CollectiveCall`](super::RecordKind::CollectiveCall), from entry to return.
    collective_call: 18 {
        /// Name of the function (string id).
        NAME = 2,
        /// A `CollectiveLibrary`.
        LIBRARY = 3,
        /// A `CollectiveOp`.
        OPERATION = 4,
        /// Bytes that this rank puts in; 0 where unknown.
        BYTES = 5,
        /// Elements as the caller counts them.
        ELEMENTS = 6,
        /// Name of the data type (string id).
        DATATYPE = 7,
        /// Name of the reduction (string id).
        REDUCTION = 8,
        /// Identity of the communicator (string id).
        GROUP = 9,
        /// Ranks in the communicator; 0 where unknown.
        GROUP_SIZE = 10,
        /// This process's rank in the communicator plus one; 0 where unknown.
        RANK = 11,
        /// Root or peer plus one; 0 where the operation has none or it is unknown.
        PEER = 12,
        /// Stream that the operation was put on; 0 on a CPU.
        STREAM = 13,
        /// Position among the calls of this process on the communicator since the recording began, plus one.
        SEQUENCE = 14,
        /// Return value as a two's complement number, where a flag says so.
        RESULT = 15,
        /// Bits of `call_flags`.
        FLAGS = 16,
        /// Stack of the caller (stack id).
        STACK = 17,
    }
}
columns! {
    /// Columns of [`RecordKind::PageFaults`](super::RecordKind::PageFaults).
    page_faults: 4 {
        /// Faults that needed no I/O.
        MINOR = 2,
        /// Faults that did.
        MAJOR = 3,
    }
}
columns! {
    /// Columns of [`RecordKind::BlockIo`](super::RecordKind::BlockIo), from being queued to completion; the key is the
    /// thread that queued it.
    block_io: 9 {
        /// Time at the start of the record before the device was given the request, ns.
        QUEUED = 2,
        /// Name of the device (string id).
        DEVICE = 3,
        /// Bytes.
        BYTES = 4,
        /// A `BlockOp`.
        OPERATION = 5,
        /// Path of the file, where it could be told (string id).
        FILE = 6,
        /// First sector (of 512 bytes).
        SECTOR = 7,
        /// Error number; 0 where it succeeded.
        ERROR = 8,
    }
}
columns! {
    /// Columns of [`RecordKind::FileIo`](super::RecordKind::FileIo).
    file_io: 8 {
        /// An `ObjectKind`.
        OBJECT_KIND = 2,
        /// Path, connection or other name (string id).
        OBJECT = 3,
        /// Calls that read.
        READS = 4,
        /// Bytes that they returned.
        READ_BYTES = 5,
        /// Calls that wrote.
        WRITES = 6,
        /// Bytes that they took.
        WRITTEN_BYTES = 7,
    }
}
columns! {
    /// Columns of [`RecordKind::Connection`](super::RecordKind::Connection).
    connection: 9 {
        /// `local → peer` (string id).
        NAME = 2,
        /// Bytes sent, retransmitted ones not counted again.
        SENT = 3,
        /// Bytes received.
        RECEIVED = 4,
        /// Segments sent again.
        RETRANSMITS = 5,
        /// Smoothed round-trip time at the end of the stretch, ns.
        RTT = 6,
        /// Segments sent, the repeated ones among them.
        SEGMENTS = 7,
        /// What the kernel estimated the connection to deliver at the end of the stretch, bytes a second; 0 where unknown.
        DELIVERY_RATE = 8,
    }
}
columns! {
    /// Columns of [`RecordKind::ThreadLoss`](super::RecordKind::ThreadLoss).
    thread_loss: 4 {
        /// A `LossCounter` number.
        COUNTER = 2,
        /// Records that were lost.
        RECORDS = 3,
    }
}
columns! {
    /// Columns of [`RecordKind::DeviceWindow`](super::RecordKind::DeviceWindow).
    device_window: 3 {
        /// Bits of `window_flags`.
        FLAGS = 2,
    }
}
columns! {
    /// Columns of [`RecordKind::Counter`](super::RecordKind::Counter). The duration is the time that the value stands for:
    /// up to the next one, or back to the one before where the value is a difference.
    counter: 4 {
        /// Name with its unit, such as `sm clock (MHz)` (string id).
        NAME = 2,
        /// The value.
        VALUE = 3,
    }
}
columns! {
    /// Columns of [`RecordKind::LaunchStack`](super::RecordKind::LaunchStack). The duration is 0.
    launch_stack: 4 {
        /// Correlation id of the launching call: with the thread, the operations that it launched.
        CORRELATION = 2,
        /// Stack of the launching thread (stack id), 0 where none could be taken.
        STACK = 3,
    }
}
columns! {
    /// Columns of [`RecordKind::GroupState`](super::RecordKind::GroupState): a group that the process is a member of, and
    /// its last operations there. The duration is 0. Numbers are those of
    /// [`collective_call::SEQUENCE`]; whether the last operation was a collective or a point-to-point one, each of which
    /// has a count of its own, is not said.
    group_state: 8 {
        /// Identity of the group (string id), as in `collective_call::GROUP`.
        GROUP = 2,
        /// What the program calls it (string id).
        DESCRIPTION = 3,
        /// Ranks of the job in the order of their ranks in the group: `0-3,8` (string id).
        MEMBERS = 4,
        /// Last operation that was handed over, plus one; 0 where unknown.
        ENQUEUED = 5,
        /// Last operation that was seen to begin, plus one; 0 where unknown.
        STARTED = 6,
        /// Last operation that was seen to end, plus one; 0 where unknown.
        COMPLETED = 7,
    }
}
