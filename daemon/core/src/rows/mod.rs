//! The records of a capture as plain rows, and how each maps onto columns.
//!
//! Importers and decoders produce rows; the capture writer turns them into columns. The hot paths (the sweep) read
//! columns and never build rows.

use stallscope_schemas::record::{
    CopyKind, OpKind, RecordKind, SpanKind, api_call, collective, device_span, gpu_op, host_span,
    loss_window, op_flags, stream_wait,
};
use stallscope_schemas::units::{CorrelationId, StackId, StringId, ThreadId, TimeNs};

use crate::capture::columns::{ColumnSpec, Shape};

/// The two methods that every row answers from its fields of these names.
macro_rules! timed {
    () => {
        fn start(&self) -> TimeNs {
            self.start
        }

        fn duration_ns(&self) -> u64 {
            self.duration_ns
        }
    };
}

mod host;

pub use host::{
    BlockIo, CollectiveCall, Connection, Counter, CpuSample, DeviceWindow, FileIo, GroupState, LaunchStack,
    PageFaults, PipelineOp, ThreadLoss, ThreadPreempt, ThreadSpan, ThreadWait,
};

/// The host call that put an operation on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Thread that made the call.
    pub thread: ThreadId,
    /// When the call began.
    pub start: TimeNs,
    /// How long the call took, ns.
    pub duration_ns: u64,
    /// Name of the call, for example `cudaLaunchKernel`.
    pub name: StringId,
}

/// A kernel, copy or fill on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuOp {
    /// When the device began it.
    pub start: TimeNs,
    /// How long it ran, ns.
    pub duration_ns: u64,
    /// Kernel name or a description of the copy.
    pub name: StringId,
    /// Stream or queue.
    pub stream: u64,
    /// What it did.
    pub kind: OpKind,
    /// Bits of [`op_flags`] other than `HAS_LAUNCH`, which follows from `launch`.
    pub flags: u64,
    /// Ties it to its host call.
    pub correlation: CorrelationId,
    /// Bytes moved or filled; 0 where unknown.
    pub bytes: u64,
    /// Between what a copy moved data.
    pub copy_kind: CopyKind,
    /// The host call that asked for it, where recorded.
    pub launch: Option<Launch>,
}

/// A host call into CUDA or HIP that launched nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiCall {
    /// When the call began.
    pub start: TimeNs,
    /// How long it took, ns.
    pub duration_ns: u64,
    /// Name of the call.
    pub name: StringId,
    /// Correlation id, 0 where the trace has none.
    pub correlation: CorrelationId,
}

/// A named range on a host thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSpan {
    /// When it began.
    pub start: TimeNs,
    /// How long it lasted, ns.
    pub duration_ns: u64,
    /// Operator, function or range name.
    pub name: StringId,
    /// Where it comes from.
    pub kind: SpanKind,
    /// Stack of the caller where the trace has one, else the empty stack.
    pub stack: StackId,
}

/// A stretch in which records of a device are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossWindow {
    /// First moment that may lack records.
    pub start: TimeNs,
    /// Length, ns.
    pub duration_ns: u64,
    /// Number of the loss counter that says why.
    pub counter: u16,
}

/// A stream was told to wait for an event that another stream (or device) records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamWait {
    /// When the host made the call.
    pub start: TimeNs,
    /// How long the call took, ns.
    pub duration_ns: u64,
    /// The stream that waits.
    pub stream: u64,
    /// The stream waited for, where the trace says.
    pub on_stream: Option<u64>,
    /// Correlation id of the call.
    pub correlation: CorrelationId,
}

/// What is known of a collective beyond its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collective {
    /// When the device began it.
    pub start: TimeNs,
    /// How long it was resident, ns.
    pub duration_ns: u64,
    /// Its name in the trace.
    pub name: StringId,
    /// Bytes that this rank put in; 0 where unknown.
    pub bytes: u64,
    /// The group's name.
    pub group: StringId,
    /// Ranks in the group; 0 where unknown.
    pub group_size: u64,
    /// Position in the group's sequence, where known.
    pub sequence: Option<u64>,
    /// Correlation id of the device operation.
    pub correlation: CorrelationId,
}

/// A range that a profiler drew on a device's own time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSpan {
    /// When it began.
    pub start: TimeNs,
    /// How long it lasted, ns.
    pub duration_ns: u64,
    /// Its name.
    pub name: StringId,
    /// Where it comes from.
    pub kind: SpanKind,
}

/// A record that can be written to and read from columns.
pub trait Row: Copy {
    /// Its number in the file.
    const KIND: RecordKind;
    /// Its columns, in the order of their numbers.
    const COLUMNS: &'static [ColumnSpec];

    /// When the record begins.
    fn start(&self) -> TimeNs;

    /// Its length in nanoseconds.
    fn duration_ns(&self) -> u64;

    /// Writes one value a column. `values` still holds those of the row before: a column that this row has no value
    /// for may be left alone, which costs nothing in the file.
    fn store(&self, values: &mut [u64]);

    /// Reads a row back; `column` yields the value of a column number.
    fn load(column: impl Fn(u16) -> u64) -> Self;

    /// When the record ends.
    fn end(&self) -> TimeNs {
        self.start().plus(self.duration_ns())
    }
}

/// Reinterprets a signed time for storage; [`time`] is the inverse.
fn bits(t: TimeNs) -> u64 {
    t.0.cast_unsigned()
}

fn time(value: u64) -> TimeNs {
    TimeNs(value.cast_signed())
}

fn string(value: u64) -> StringId {
    StringId(u32::try_from(value).unwrap_or(u32::MAX))
}

fn span_kind(value: u64) -> SpanKind {
    SpanKind::from_id(value).unwrap_or(SpanKind::Other)
}

/// Stores values into the columns that carry these numbers.
fn put<const N: usize>(values: &mut [u64], pairs: [(u16, u64); N]) {
    for (column, value) in pairs {
        if let Some(slot) = values.get_mut(usize::from(column)) {
            *slot = value;
        }
    }
}

const fn spec(id: u16, shape: Shape) -> ColumnSpec {
    ColumnSpec { id, shape }
}

impl Row for GpuOp {
    const KIND: RecordKind = RecordKind::GpuOp;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(gpu_op::START, Shape::Start { duration: gpu_op::DURATION }),
        spec(gpu_op::DURATION, Shape::Measure),
        spec(gpu_op::NAME, Shape::Repeating),
        spec(gpu_op::STREAM, Shape::Repeating),
        spec(gpu_op::KIND, Shape::Repeating),
        spec(gpu_op::FLAGS, Shape::Repeating),
        spec(gpu_op::CORRELATION, Shape::Counter),
        spec(gpu_op::BYTES, Shape::Repeating),
        spec(gpu_op::COPY_KIND, Shape::Repeating),
        spec(gpu_op::LAUNCH_THREAD, Shape::Repeating),
        spec(gpu_op::LAUNCH_START, Shape::Start { duration: gpu_op::LAUNCH_DURATION }),
        spec(gpu_op::LAUNCH_DURATION, Shape::Measure),
        spec(gpu_op::LAUNCH_NAME, Shape::Repeating),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        let has_launch = if self.launch.is_some() { op_flags::HAS_LAUNCH } else { 0 };
        put(
            values,
            [
                (gpu_op::START, bits(self.start)),
                (gpu_op::DURATION, self.duration_ns),
                (gpu_op::NAME, self.name.0.into()),
                (gpu_op::STREAM, self.stream),
                (gpu_op::KIND, self.kind.id().into()),
                (gpu_op::FLAGS, (self.flags & !op_flags::HAS_LAUNCH) | has_launch),
                (gpu_op::CORRELATION, self.correlation.0),
                (gpu_op::BYTES, self.bytes),
                (gpu_op::COPY_KIND, self.copy_kind.id().into()),
            ],
        );
        if let Some(launch) = self.launch {
            put(
                values,
                [
                    (gpu_op::LAUNCH_THREAD, launch.thread.0.into()),
                    (gpu_op::LAUNCH_START, bits(launch.start)),
                    (gpu_op::LAUNCH_DURATION, launch.duration_ns),
                    (gpu_op::LAUNCH_NAME, launch.name.0.into()),
                ],
            );
        }
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        let flags = column(gpu_op::FLAGS);
        let launch = (flags & op_flags::HAS_LAUNCH != 0).then(|| Launch {
            thread: ThreadId(u32::try_from(column(gpu_op::LAUNCH_THREAD)).unwrap_or(u32::MAX)),
            start: time(column(gpu_op::LAUNCH_START)),
            duration_ns: column(gpu_op::LAUNCH_DURATION),
            name: string(column(gpu_op::LAUNCH_NAME)),
        });
        Self {
            start: time(column(gpu_op::START)),
            duration_ns: column(gpu_op::DURATION),
            name: string(column(gpu_op::NAME)),
            stream: column(gpu_op::STREAM),
            kind: OpKind::from_id(column(gpu_op::KIND)).unwrap_or(OpKind::Other),
            flags: flags & !op_flags::HAS_LAUNCH,
            correlation: CorrelationId(column(gpu_op::CORRELATION)),
            bytes: column(gpu_op::BYTES),
            copy_kind: CopyKind::from_id(column(gpu_op::COPY_KIND)).unwrap_or(CopyKind::Unknown),
            launch,
        }
    }
}

impl Row for ApiCall {
    const KIND: RecordKind = RecordKind::ApiCall;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(api_call::START, Shape::Start { duration: api_call::DURATION }),
        spec(api_call::DURATION, Shape::Measure),
        spec(api_call::NAME, Shape::Repeating),
        spec(api_call::CORRELATION, Shape::Counter),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        put(
            values,
            [
                (api_call::START, bits(self.start)),
                (api_call::DURATION, self.duration_ns),
                (api_call::NAME, self.name.0.into()),
                (api_call::CORRELATION, self.correlation.0),
            ],
        );
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        Self {
            start: time(column(api_call::START)),
            duration_ns: column(api_call::DURATION),
            name: string(column(api_call::NAME)),
            correlation: CorrelationId(column(api_call::CORRELATION)),
        }
    }
}

impl Row for HostSpan {
    const KIND: RecordKind = RecordKind::HostSpan;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(host_span::START, Shape::Start { duration: host_span::DURATION }),
        spec(host_span::DURATION, Shape::Measure),
        spec(host_span::NAME, Shape::Repeating),
        spec(host_span::KIND, Shape::Repeating),
        spec(host_span::STACK, Shape::Repeating),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        put(
            values,
            [
                (host_span::START, bits(self.start)),
                (host_span::DURATION, self.duration_ns),
                (host_span::NAME, self.name.0.into()),
                (host_span::KIND, self.kind.id().into()),
                (host_span::STACK, self.stack.0.into()),
            ],
        );
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        Self {
            start: time(column(host_span::START)),
            duration_ns: column(host_span::DURATION),
            name: string(column(host_span::NAME)),
            kind: span_kind(column(host_span::KIND)),
            stack: StackId(u32::try_from(column(host_span::STACK)).unwrap_or(0)),
        }
    }
}

impl Row for LossWindow {
    const KIND: RecordKind = RecordKind::LossWindow;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(loss_window::START, Shape::Start { duration: loss_window::DURATION }),
        spec(loss_window::DURATION, Shape::Measure),
        spec(loss_window::COUNTER, Shape::Repeating),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        put(
            values,
            [
                (loss_window::START, bits(self.start)),
                (loss_window::DURATION, self.duration_ns),
                (loss_window::COUNTER, self.counter.into()),
            ],
        );
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        Self {
            start: time(column(loss_window::START)),
            duration_ns: column(loss_window::DURATION),
            counter: u16::try_from(column(loss_window::COUNTER)).unwrap_or(u16::MAX),
        }
    }
}

impl Row for StreamWait {
    const KIND: RecordKind = RecordKind::StreamWait;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(stream_wait::START, Shape::Start { duration: stream_wait::DURATION }),
        spec(stream_wait::DURATION, Shape::Measure),
        spec(stream_wait::STREAM, Shape::Repeating),
        spec(stream_wait::ON_STREAM, Shape::Repeating),
        spec(stream_wait::CORRELATION, Shape::Counter),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        put(
            values,
            [
                (stream_wait::START, bits(self.start)),
                (stream_wait::DURATION, self.duration_ns),
                (stream_wait::STREAM, self.stream),
                (stream_wait::ON_STREAM, self.on_stream.unwrap_or(u64::MAX)),
                (stream_wait::CORRELATION, self.correlation.0),
            ],
        );
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        Self {
            start: time(column(stream_wait::START)),
            duration_ns: column(stream_wait::DURATION),
            stream: column(stream_wait::STREAM),
            on_stream: Some(column(stream_wait::ON_STREAM)).filter(|&s| s != u64::MAX),
            correlation: CorrelationId(column(stream_wait::CORRELATION)),
        }
    }
}

impl Row for Collective {
    const KIND: RecordKind = RecordKind::Collective;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(collective::START, Shape::Start { duration: collective::DURATION }),
        spec(collective::DURATION, Shape::Measure),
        spec(collective::NAME, Shape::Repeating),
        spec(collective::BYTES, Shape::Repeating),
        spec(collective::GROUP, Shape::Repeating),
        spec(collective::GROUP_SIZE, Shape::Repeating),
        spec(collective::SEQUENCE, Shape::Counter),
        spec(collective::CORRELATION, Shape::Counter),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        put(
            values,
            [
                (collective::START, bits(self.start)),
                (collective::DURATION, self.duration_ns),
                (collective::NAME, self.name.0.into()),
                (collective::BYTES, self.bytes),
                (collective::GROUP, self.group.0.into()),
                (collective::GROUP_SIZE, self.group_size),
                (collective::SEQUENCE, self.sequence.map_or(0, |s| s.saturating_add(1))),
                (collective::CORRELATION, self.correlation.0),
            ],
        );
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        Self {
            start: time(column(collective::START)),
            duration_ns: column(collective::DURATION),
            name: string(column(collective::NAME)),
            bytes: column(collective::BYTES),
            group: string(column(collective::GROUP)),
            group_size: column(collective::GROUP_SIZE),
            sequence: column(collective::SEQUENCE).checked_sub(1),
            correlation: CorrelationId(column(collective::CORRELATION)),
        }
    }
}

impl Row for DeviceSpan {
    const KIND: RecordKind = RecordKind::DeviceSpan;
    const COLUMNS: &'static [ColumnSpec] = &[
        spec(device_span::START, Shape::Start { duration: device_span::DURATION }),
        spec(device_span::DURATION, Shape::Measure),
        spec(device_span::NAME, Shape::Repeating),
        spec(device_span::KIND, Shape::Repeating),
    ];

    timed!();

    fn store(&self, values: &mut [u64]) {
        put(
            values,
            [
                (device_span::START, bits(self.start)),
                (device_span::DURATION, self.duration_ns),
                (device_span::NAME, self.name.0.into()),
                (device_span::KIND, self.kind.id().into()),
            ],
        );
    }

    fn load(column: impl Fn(u16) -> u64) -> Self {
        Self {
            start: time(column(device_span::START)),
            duration_ns: column(device_span::DURATION),
            name: string(column(device_span::NAME)),
            kind: span_kind(column(device_span::KIND)),
        }
    }
}
