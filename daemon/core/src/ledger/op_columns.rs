//! The columns of a batch of GPU operations, as the ledger reads them.

use stallscope_schemas::record::{gpu_op, op_flags};
use stallscope_schemas::units::{CorrelationId, StringId, ThreadId, TimeNs};

use super::gap::Closing;
use crate::capture::BatchColumns;
use crate::rows::Launch;

/// The columns of a batch that the ledger reads, looked up once a batch and not once a value.
pub(super) struct OpColumns<'a> {
    pub(super) start: &'a [u64],
    pub(super) duration: &'a [u64],
    pub(super) name: &'a [u64],
    stream: &'a [u64],
    pub(super) kind: &'a [u64],
    pub(super) flags: &'a [u64],
    correlation: &'a [u64],
    pub(super) bytes: &'a [u64],
    pub(super) copy_kind: &'a [u64],
    launch_thread: &'a [u64],
    launch_start: &'a [u64],
    launch_duration: &'a [u64],
    launch_name: &'a [u64],
}

impl<'a> OpColumns<'a> {
    pub(super) fn new(columns: &'a BatchColumns) -> Self {
        Self {
            start: columns.column(gpu_op::START),
            duration: columns.column(gpu_op::DURATION),
            name: columns.column(gpu_op::NAME),
            stream: columns.column(gpu_op::STREAM),
            kind: columns.column(gpu_op::KIND),
            flags: columns.column(gpu_op::FLAGS),
            correlation: columns.column(gpu_op::CORRELATION),
            bytes: columns.column(gpu_op::BYTES),
            copy_kind: columns.column(gpu_op::COPY_KIND),
            launch_thread: columns.column(gpu_op::LAUNCH_THREAD),
            launch_start: columns.column(gpu_op::LAUNCH_START),
            launch_duration: columns.column(gpu_op::LAUNCH_DURATION),
            launch_name: columns.column(gpu_op::LAUNCH_NAME),
        }
    }

    /// What the gap rules need of one operation.
    #[inline]
    pub(super) fn closing(&self, at: usize, flags: u64) -> Closing {
        Closing {
            stream: value(self.stream, at),
            correlation: CorrelationId(value(self.correlation, at)),
            flags,
            launch: (flags & op_flags::HAS_LAUNCH != 0).then(|| Launch {
                thread: ThreadId(narrow(value(self.launch_thread, at))),
                start: TimeNs(value(self.launch_start, at).cast_signed()),
                duration_ns: value(self.launch_duration, at),
                name: StringId(narrow(value(self.launch_name, at))),
            }),
            lost: false,
        }
    }
}

#[inline]
pub(super) fn value(column: &[u64], at: usize) -> u64 {
    column.get(at).copied().unwrap_or(0)
}

#[inline]
pub(super) fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
