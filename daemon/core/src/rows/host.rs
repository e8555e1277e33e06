//! Rows of the host half and of whole jobs. Each is declared once: field, type, column and what its values look like.

use stallscope_schemas::record::{
    BlockOp, CollectiveLibrary, CollectiveOp, ObjectKind, PipelineOpKind, RecordKind, WaitKind, block_io,
    collective_call, connection, counter, cpu_sample, device_window, file_io, group_state, launch_stack,
    page_faults, pipeline_op, thread_loss, thread_preempt, thread_span, thread_wait,
};
use stallscope_schemas::units::{CorrelationId, ProcessId, StackId, StringId, ThreadId, TimeNs};

use super::{Row, bits, put, spec, string, time};
use crate::capture::columns::{ColumnSpec, Shape};

/// A type of field that a column can hold.
trait Value: Copy {
    fn into_column(self) -> u64;
    fn from_column(value: u64) -> Self;
}

impl Value for u64 {
    fn into_column(self) -> u64 {
        self
    }

    fn from_column(value: u64) -> Self {
        value
    }
}

impl Value for i64 {
    fn into_column(self) -> u64 {
        self.cast_unsigned()
    }

    fn from_column(value: u64) -> Self {
        value.cast_signed()
    }
}

impl Value for u16 {
    fn into_column(self) -> u64 {
        self.into()
    }

    fn from_column(value: u64) -> Self {
        Self::try_from(value).unwrap_or(Self::MAX)
    }
}

impl Value for StringId {
    fn into_column(self) -> u64 {
        self.0.into()
    }

    fn from_column(value: u64) -> Self {
        string(value)
    }
}

impl Value for CorrelationId {
    fn into_column(self) -> u64 {
        self.0
    }

    fn from_column(value: u64) -> Self {
        Self(value)
    }
}

impl Value for StackId {
    fn into_column(self) -> u64 {
        self.0.into()
    }

    fn from_column(value: u64) -> Self {
        Self(u32::try_from(value).unwrap_or(0))
    }
}

/// Ids that may be missing and numbers that may be unknown are stored plus one.
macro_rules! optional {
    ($($type:ty: |$value:ident| $to:expr, |$stored:ident| $from:expr;)*) => {
        $(impl Value for Option<$type> {
            fn into_column(self) -> u64 {
                self.map_or(0, |$value| u64::from($to).saturating_add(1))
            }

            fn from_column(value: u64) -> Self {
                let $stored = u32::try_from(value.checked_sub(1)?).ok()?;
                Some($from)
            }
        })*
    };
}

optional! {
    ThreadId: |id| id.0, |id| ThreadId(id);
    ProcessId: |id| id.0, |id| ProcessId(id);
    u32: |number| number, |number| number;
}

macro_rules! enums {
    ($($type:ty: $unknown:expr;)*) => {
        $(impl Value for $type {
            fn into_column(self) -> u64 {
                self.id().into()
            }

            fn from_column(value: u64) -> Self {
                <$type>::from_id(value).unwrap_or($unknown)
            }
        })*
    };
}

enums! {
    WaitKind: WaitKind::Unknown;
    ObjectKind: ObjectKind::None;
    BlockOp: BlockOp::Other;
    CollectiveLibrary: CollectiveLibrary::Other;
    CollectiveOp: CollectiveOp::Other;
    PipelineOpKind: PipelineOpKind::Other;
}

macro_rules! host_row {
    ($(#[$doc:meta])* $name:ident in $columns:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty = $column:ident $shape:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// When it began.
            pub start: TimeNs,
            /// How long it lasted, ns.
            pub duration_ns: u64,
            $($(#[$fdoc])* pub $field: $type,)*
        }

        impl Row for $name {
            const KIND: RecordKind = RecordKind::$name;
            const COLUMNS: &'static [ColumnSpec] = &[
                spec($columns::START, Shape::Start { duration: $columns::DURATION }),
                spec($columns::DURATION, Shape::Measure),
                $(spec($columns::$column, Shape::$shape),)*
            ];

            timed!();

            fn store(&self, values: &mut [u64]) {
                put(
                    values,
                    [
                        ($columns::START, bits(self.start)),
                        ($columns::DURATION, self.duration_ns),
                        $(($columns::$column, self.$field.into_column()),)*
                    ],
                );
            }

            fn load(column: impl Fn(u16) -> u64) -> Self {
                Self {
                    start: time(column($columns::START)),
                    duration_ns: column($columns::DURATION),
                    $($field: <$type>::from_column(column($columns::$column)),)*
                }
            }
        }
    };
}

host_row! {
    /// A stretch in which a thread was followed: it ran in every nanosecond that no other record of it covers.
    ThreadSpan in thread_span {}
}

host_row! {
    /// A thread left the CPU to wait, until it was on one again.
    ThreadWait in thread_wait {
        /// Time at the end in which it was runnable and waited for a CPU, ns.
        run_queue_ns: u64 = RUN_QUEUE Measure,
        /// Why it was off the CPU.
        kind: WaitKind = KIND Repeating,
        /// Name of the system call; empty outside of one.
        call: StringId = CALL Repeating,
        /// What the call's descriptor or address stands for.
        object_kind: ObjectKind = OBJECT_KIND Repeating,
        /// Path, connection or other name of it.
        object: StringId = OBJECT Repeating,
        /// Who ended the wait.
        waker: Option<ThreadId> = WAKER Repeating,
        /// Stack of the waker at that moment.
        waker_stack: StackId = WAKER_STACK Repeating,
        /// Stack of the waiting thread.
        stack: StackId = STACK Repeating,
        /// Who ran while this thread was runnable.
        preemptor: Option<ThreadId> = PREEMPTOR Repeating,
        /// Bits of [`wait_flags`](stallscope_schemas::record::wait_flags).
        flags: u64 = FLAGS Repeating,
        /// Return value of the call, where a flag says so.
        result: i64 = RESULT Repeating,
        /// Process at the other end of a socket or pipe, if it is on this host.
        peer: Option<ProcessId> = PEER Repeating,
    }
}

host_row! {
    /// A thread was runnable and did not run: one long stretch, or one with many short ones, between which it ran.
    ThreadPreempt in thread_preempt {
        /// Time in which it was runnable and did not run, ns.
        run_queue_ns: u64 = RUN_QUEUE Measure,
        /// How often it was taken off the CPU.
        times: u64 = TIMES Repeating,
        /// Who ran most of that time.
        preemptor: Option<ThreadId> = PREEMPTOR Repeating,
        /// Preempted or throttled.
        kind: WaitKind = KIND Repeating,
    }
}

host_row! {
    /// A thread was found on a CPU. The duration is the time that the sample stands for.
    CpuSample in cpu_sample {
        /// Its stack.
        stack: StackId = STACK Repeating,
    }
}

host_row! {
    /// A host call into a collective library.
    CollectiveCall in collective_call {
        /// Name of the function.
        name: StringId = NAME Repeating,
        /// Which library.
        library: CollectiveLibrary = LIBRARY Repeating,
        /// What it does.
        operation: CollectiveOp = OPERATION Repeating,
        /// Bytes that this rank puts in; 0 where unknown.
        bytes: u64 = BYTES Repeating,
        /// Elements as the caller counts them.
        elements: u64 = ELEMENTS Repeating,
        /// Name of the data type.
        datatype: StringId = DATATYPE Repeating,
        /// Name of the reduction.
        reduction: StringId = REDUCTION Repeating,
        /// Identity of the communicator.
        group: StringId = GROUP Repeating,
        /// Ranks in it; 0 where unknown.
        group_size: u64 = GROUP_SIZE Repeating,
        /// This process's rank in it.
        rank: Option<u32> = RANK Repeating,
        /// Root or peer.
        peer: Option<u32> = PEER Repeating,
        /// Stream that it was put on; 0 on a CPU.
        stream: u64 = STREAM Repeating,
        /// Position among this process's calls on the communicator since the recording began, plus one; 0 where unknown.
        sequence: u64 = SEQUENCE Counter,
        /// Return value, where a flag says so.
        result: i64 = RESULT Repeating,
        /// Bits of [`call_flags`](stallscope_schemas::record::call_flags).
        flags: u64 = FLAGS Repeating,
        /// Stack of the caller.
        stack: StackId = STACK Repeating,
    }
}

host_row! {
    /// Page faults of a thread in a stretch of time.
    PageFaults in page_faults {
        /// Faults that needed no I/O.
        minor: u64 = MINOR Measure,
        /// Faults that did.
        major: u64 = MAJOR Repeating,
    }
}

host_row! {
    /// A request to a block device, from being queued to its completion.
    BlockIo in block_io {
        /// Time at the start before the device was given the request, ns.
        queued_ns: u64 = QUEUED Measure,
        /// Name of the device.
        device: StringId = DEVICE Repeating,
        /// Bytes.
        bytes: u64 = BYTES Repeating,
        /// What it asks for.
        operation: BlockOp = OPERATION Repeating,
        /// Path of the file, where it could be told.
        file: StringId = FILE Repeating,
        /// First sector, of 512 bytes.
        sector: u64 = SECTOR Counter,
        /// Error number; 0 where it succeeded.
        error: u64 = ERROR Repeating,
    }
}

host_row! {
    /// What a process read from and wrote to one file in a stretch of time.
    FileIo in file_io {
        /// What it is.
        object_kind: ObjectKind = OBJECT_KIND Repeating,
        /// Path, connection or other name.
        object: StringId = OBJECT Repeating,
        /// Calls that read.
        reads: u64 = READS Repeating,
        /// Bytes that they returned.
        read_bytes: u64 = READ_BYTES Repeating,
        /// Calls that wrote.
        writes: u64 = WRITES Repeating,
        /// Bytes that they took.
        written_bytes: u64 = WRITTEN_BYTES Repeating,
    }
}

host_row! {
    /// What a network connection did in a stretch of time.
    Connection in connection {
        /// `local → peer`.
        name: StringId = NAME Repeating,
        /// Bytes sent, retransmitted ones not counted again.
        sent_bytes: u64 = SENT Measure,
        /// Bytes received.
        received_bytes: u64 = RECEIVED Measure,
        /// Segments sent again.
        retransmits: u64 = RETRANSMITS Repeating,
        /// Smoothed round-trip time at the end, ns.
        rtt_ns: u64 = RTT Measure,
        /// Segments sent, the repeated ones among them.
        segments: u64 = SEGMENTS Measure,
        /// What the kernel estimated it to deliver at the end, bytes a second; 0 where unknown. It takes no sample into account
        /// that the program cut short by sending nothing more, unless that is a better one.
        delivery_rate: u64 = DELIVERY_RATE Measure,
    }
}

host_row! {
    /// A stretch in which records of a thread are missing.
    ThreadLoss in thread_loss {
        /// Number of the loss counter that says why.
        counter: u16 = COUNTER Repeating,
        /// How many records.
        records: u64 = RECORDS Repeating,
    }
}

host_row! {
    /// A stretch in which a device was observed.
    DeviceWindow in device_window {
        /// Bits of [`window_flags`](stallscope_schemas::record::window_flags).
        flags: u64 = FLAGS Repeating,
    }
}

host_row! {
    /// A value at a moment.
    Counter in counter {
        /// Name with its unit.
        name: StringId = NAME Repeating,
        /// The value.
        value: u64 = VALUE Measure,
    }
}

host_row! {
    /// Where a thread launched something.
    LaunchStack in launch_stack {
        /// Correlation id of the launching call.
        correlation: CorrelationId = CORRELATION Counter,
        /// Its stack.
        stack: StackId = STACK Repeating,
    }
}

host_row! {
    /// What a worker of a pipelined job did.
    PipelineOp in pipeline_op {
        /// What it does.
        kind: PipelineOpKind = KIND Repeating,
        /// Its name in the trace.
        name: StringId = NAME Repeating,
        /// Number of the training step.
        step: i64 = STEP Repeating,
        /// Data-parallel rank of the worker.
        dp_rank: u64 = DP_RANK Repeating,
        /// Pipeline stage of the worker.
        stage: u64 = STAGE Repeating,
        /// Position among the operations of its kind, step and worker.
        sequence: u64 = SEQUENCE Counter,
        /// Model chunk within the stage.
        chunk: Option<u32> = CHUNK Repeating,
        /// Model chunk within the model.
        global_chunk: Option<u32> = GLOBAL_CHUNK Repeating,
        /// Micro-batch.
        microbatch: Option<u32> = MICROBATCH Repeating,
    }
}

host_row! {
    /// How far a process had come in a group of ranks when it was asked.
    GroupState in group_state {
        /// Identity of the group.
        group: StringId = GROUP Repeating,
        /// What the program calls it.
        description: StringId = DESCRIPTION Repeating,
        /// Ranks of the job in the order of their ranks in the group: `0-3,8`.
        members: StringId = MEMBERS Repeating,
        /// Last operation that was handed over, plus one; 0 where unknown.
        enqueued: u64 = ENQUEUED Repeating,
        /// Last operation that was seen to begin, plus one; 0 where unknown.
        started: u64 = STARTED Repeating,
        /// Last operation that was seen to end, plus one; 0 where unknown.
        completed: u64 = COMPLETED Repeating,
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::{ObjectKind, WaitKind, collective_call, thread_wait};
    use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

    use super::{CollectiveCall, Row, ThreadWait};

    #[test]
    fn every_column_of_a_kind_has_a_field_and_its_own_number() {
        let numbers = |columns: &[crate::capture::columns::ColumnSpec]| {
            columns.iter().map(|c| c.id).collect::<Vec<_>>()
        };
        assert_eq!(numbers(ThreadWait::COLUMNS), (0..thread_wait::COUNT).collect::<Vec<_>>());
        assert_eq!(numbers(CollectiveCall::COLUMNS), (0..collective_call::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_comes_back_as_it_was_stored() {
        let wait = ThreadWait {
            start: TimeNs(-5),
            duration_ns: 41_000_000,
            run_queue_ns: 17,
            kind: WaitKind::Syscall,
            call: StringId(3),
            object_kind: ObjectKind::File,
            object: StringId(9),
            waker: Some(ThreadId(0)),
            waker_stack: StackId(4),
            stack: StackId(5),
            preemptor: None,
            flags: 3,
            result: -11,
            peer: None,
        };
        let mut values = vec![0; usize::from(thread_wait::COUNT)];
        wait.store(&mut values);
        assert_eq!(ThreadWait::load(|c| values.get(usize::from(c)).copied().unwrap_or(0)), wait);
    }
}
