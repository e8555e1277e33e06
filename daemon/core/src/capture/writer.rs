//! Writes a capture: rows go in one by one, in roughly any order; segments come out.
//!
//! Rows wait in a buffer per key (device or thread) and leave as a batch, sorted by start. A segment is written when
//! enough encoded bytes have gathered; what it does not yet hold is in no file, so a recorder that must survive a crash
//! calls [`CaptureWriter::flush`] on a timer.

use std::collections::BTreeMap;
use std::io::{self, Write};

use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, StackId, StringId, ThreadId, TimeNs};

use super::columns::{Encoded, Shape, encode};
use super::frame::{Prefix, file_head};
use super::segment::{BatchPlace, ColumnPlace, HeaderContent, Marks, Origin, build};
use super::tables::{Clock, Device, Frame, Interner, Process, Source, Tables, Thread};
use crate::rows::{
    ApiCall, BlockIo, Collective, CollectiveCall, Connection, Counter, CpuSample, DeviceSpan, DeviceWindow,
    FileIo, GpuOp, GroupState, HostSpan, LaunchStack, LossWindow, PageFaults, PipelineOp, Row, StreamWait,
    ThreadLoss, ThreadPreempt, ThreadSpan, ThreadWait,
};

/// Rows of a batch: a decoded batch of 13 columns is 6.5 MiB, which two threads hold a few of.
const BATCH_ROWS: usize = 1 << 16;

/// Rows that may wait in all buffers together; beyond, even small buffers leave.
const MAX_WAITING_ROWS: usize = 1 << 20;

/// Encoded bytes that make a segment: what a cut file may lose, a hundred thousand operations or so.
const SEGMENT_BODY_BYTES: usize = 1 << 20;

/// New string bytes that make a segment: headers stay far from the reader's limit.
const SEGMENT_STRING_BYTES: usize = 8 << 20;

/// Why writing stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output refused; the file ends at the last whole segment.
    #[error("cannot write the capture: {0}")]
    Output(#[from] io::Error),
    /// More rows, strings or batches than the format can number.
    #[error("the capture is full: {0}")]
    Full(&'static str),
}

/// What a capture says of its origin.
#[derive(Clone, Debug, Default)]
pub struct WriterOptions {
    /// Program and version that writes.
    pub writer: String,
    /// Host name; empty where the input does not say.
    pub host: String,
    /// Boot id of the host; empty where unknown.
    pub boot_id: String,
}

/// Rows of one kind that wait, by key.
#[derive(Debug)]
struct Waiting<R> {
    by_key: Vec<Vec<R>>,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self { by_key: Vec::new() }
    }
}

impl<R: Row> Waiting<R> {
    /// Adds a row and says how many of its key now wait.
    fn push(&mut self, key: u32, row: R) -> usize {
        let key = key as usize;
        if key >= self.by_key.len() {
            self.by_key.resize_with(key + 1, Vec::new);
        }
        self.by_key.get_mut(key).map_or(0, |rows| {
            rows.push(row);
            rows.len()
        })
    }
}

/// Encoded batches of the segment under construction.
#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    batches: Vec<BatchPlace>,
    /// One vector a column, reused.
    columns: Vec<Vec<u64>>,
    scratch: Vec<u64>,
}

impl Body {
    /// Sorts, transposes and encodes rows as one batch.
    fn add<R: Row>(&mut self, key: u32, rows: &mut [R]) -> Result<(), WriteError> {
        let order = |r: &R| (r.start(), std::cmp::Reverse(r.duration_ns()));
        if !rows.is_sorted_by_key(order) {
            rows.sort_by_key(order);
        }
        let (Some(first), Some(max_ns)) = (rows.first(), rows.iter().map(|r| r.end().0).max()) else {
            return Ok(());
        };
        let min_ns = first.start().0;
        self.columns.resize_with(R::COLUMNS.len().max(self.columns.len()), Vec::new);
        let columns = self.columns.get_mut(..R::COLUMNS.len()).unwrap_or_default();
        columns.iter_mut().for_each(Vec::clear);
        let mut values = vec![0u64; R::COLUMNS.len()];
        for row in rows.iter() {
            row.store(&mut values);
            for (column, &value) in columns.iter_mut().zip(&values) {
                column.push(value);
            }
        }
        let offset = self.bytes.len();
        let mut places = Vec::with_capacity(R::COLUMNS.len());
        for (spec, column) in R::COLUMNS.iter().zip(columns.iter()) {
            let durations = match spec.shape {
                Shape::Start { duration } => {
                    columns.get(usize::from(duration)).map_or(&[][..], Vec::as_slice)
                }
                _ => &[],
            };
            let Encoded { transform, encoding, bytes } =
                encode(spec.shape, column, durations, &mut self.scratch);
            places.push(ColumnPlace {
                id: spec.id,
                transform: transform as u8,
                encoding: encoding as u8,
                offset: u32::try_from(self.bytes.len() - offset).map_err(|_| WriteError::Full("batch"))?,
                stored_len: u32::try_from(bytes.len()).map_err(|_| WriteError::Full("column"))?,
            });
            self.bytes.extend_from_slice(&bytes);
        }
        let stored = self.bytes.get(offset..).unwrap_or_default();
        self.batches.push(BatchPlace {
            kind: R::KIND.id(),
            key,
            rows: u32::try_from(rows.len()).map_err(|_| WriteError::Full("rows"))?,
            min_ns,
            max_ns,
            offset: offset as u64,
            stored_len: u32::try_from(stored.len()).map_err(|_| WriteError::Full("batch"))?,
            crc32c: crc32c::crc32c(stored),
            columns: places,
        });
        Ok(())
    }

    fn add_waiting<R: Row>(
        &mut self,
        waiting: &mut Waiting<R>,
        at_least: usize,
    ) -> Result<usize, WriteError> {
        let mut left = 0;
        for (key, rows) in waiting.by_key.iter_mut().enumerate() {
            if rows.is_empty() || rows.len() < at_least {
                left += rows.len();
                continue;
            }
            let key = u32::try_from(key).map_err(|_| WriteError::Full("keys"))?;
            for batch in rows.chunks_mut(BATCH_ROWS) {
                self.add(key, batch)?;
            }
            rows.clear();
        }
        Ok(left)
    }
}

/// Writes one capture to any output.
#[derive(Debug)]
pub struct CaptureWriter<W: Write> {
    out: W,
    origin: Origin,
    tables: Tables,
    interner: Interner,
    marks: Marks,
    actors_changed: bool,
    sequence: u64,
    losses: BTreeMap<u16, u64>,
    body: Body,
    waiting_rows: usize,
    gpu_ops: Waiting<GpuOp>,
    api_calls: Waiting<ApiCall>,
    host_spans: Waiting<HostSpan>,
    loss_windows: Waiting<LossWindow>,
    stream_waits: Waiting<StreamWait>,
    collectives: Waiting<Collective>,
    device_spans: Waiting<DeviceSpan>,
    thread_spans: Waiting<ThreadSpan>,
    thread_waits: Waiting<ThreadWait>,
    thread_preempts: Waiting<ThreadPreempt>,
    cpu_samples: Waiting<CpuSample>,
    collective_calls: Waiting<CollectiveCall>,
    page_faults: Waiting<PageFaults>,
    block_ios: Waiting<BlockIo>,
    file_ios: Waiting<FileIo>,
    connections: Waiting<Connection>,
    thread_losses: Waiting<ThreadLoss>,
    device_windows: Waiting<DeviceWindow>,
    counters: Waiting<Counter>,
    launch_stacks: Waiting<LaunchStack>,
    group_states: Waiting<GroupState>,
    pipeline_ops: Waiting<PipelineOp>,
}

macro_rules! push_methods {
    ($($(#[$doc:meta])* $method:ident($key:ident: $key_type:ty, $row:ty) => $field:ident;)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// [`WriteError`] when a segment had to be written and could not be.
        pub fn $method(&mut self, $key: $key_type, row: $row) -> Result<(), WriteError> {
            let waiting = self.$field.push($key.0, row);
            self.waiting_rows += 1;
            if waiting >= BATCH_ROWS {
                if let Some(rows) = self.$field.by_key.get_mut($key.index()) {
                    self.body.add($key.0, rows)?;
                    rows.clear();
                }
                self.waiting_rows -= waiting;
                self.write_full_segment()?;
            } else if self.waiting_rows >= MAX_WAITING_ROWS {
                self.encode_waiting(BATCH_ROWS / 16)?;
                if self.waiting_rows >= MAX_WAITING_ROWS / 2 {
                    self.encode_waiting(1)?;
                }
                self.write_full_segment()?;
            }
            Ok(())
        })*
    };
}

impl<W: Write> CaptureWriter<W> {
    /// Starts a capture: writes the file's head.
    ///
    /// # Errors
    /// [`WriteError::Output`] when the output refuses.
    pub fn new(mut out: W, options: WriterOptions) -> Result<Self, WriteError> {
        out.write_all(&file_head())?;
        let tables = Tables::default();
        let marks =
            Marks { strings: tables.string_count(), stacks: tables.stack_count(), ..Marks::default() };
        Ok(Self {
            out,
            origin: Origin { writer: options.writer, host: options.host, boot_id: options.boot_id },
            tables,
            interner: Interner::default(),
            marks,
            actors_changed: false,
            sequence: 0,
            losses: BTreeMap::new(),
            body: Body::default(),
            waiting_rows: 0,
            gpu_ops: Waiting::default(),
            api_calls: Waiting::default(),
            host_spans: Waiting::default(),
            loss_windows: Waiting::default(),
            stream_waits: Waiting::default(),
            collectives: Waiting::default(),
            device_spans: Waiting::default(),
            thread_spans: Waiting::default(),
            thread_waits: Waiting::default(),
            thread_preempts: Waiting::default(),
            cpu_samples: Waiting::default(),
            collective_calls: Waiting::default(),
            page_faults: Waiting::default(),
            block_ios: Waiting::default(),
            file_ios: Waiting::default(),
            connections: Waiting::default(),
            thread_losses: Waiting::default(),
            device_windows: Waiting::default(),
            counters: Waiting::default(),
            launch_stacks: Waiting::default(),
            group_states: Waiting::default(),
            pipeline_ops: Waiting::default(),
        })
    }

    push_methods! {
        /// Adds a device operation.
        push_gpu_op(device: DeviceId, GpuOp) => gpu_ops;
        /// Adds a host call that launched nothing.
        push_api_call(thread: ThreadId, ApiCall) => api_calls;
        /// Adds a range on a host thread.
        push_host_span(thread: ThreadId, HostSpan) => host_spans;
        /// Adds a stretch without records of a device.
        push_loss_window(device: DeviceId, LossWindow) => loss_windows;
        /// Adds an order between streams.
        push_stream_wait(device: DeviceId, StreamWait) => stream_waits;
        /// Adds what is known of a collective.
        push_collective(device: DeviceId, Collective) => collectives;
        /// Adds a range on a device's own time line.
        push_device_span(device: DeviceId, DeviceSpan) => device_spans;
        /// Adds a stretch in which a thread was followed.
        push_thread_span(thread: ThreadId, ThreadSpan) => thread_spans;
        /// Adds a wait of a thread.
        push_thread_wait(thread: ThreadId, ThreadWait) => thread_waits;
        /// Adds time in which a thread was runnable and did not run.
        push_thread_preempt(thread: ThreadId, ThreadPreempt) => thread_preempts;
        /// Adds a sample of a running thread.
        push_cpu_sample(thread: ThreadId, CpuSample) => cpu_samples;
        /// Adds a call into a collective library.
        push_collective_call(thread: ThreadId, CollectiveCall) => collective_calls;
        /// Adds page faults of a thread.
        push_page_faults(thread: ThreadId, PageFaults) => page_faults;
        /// Adds a request to a block device.
        push_block_io(thread: ThreadId, BlockIo) => block_ios;
        /// Adds what a process read and wrote.
        push_file_io(process: ProcessId, FileIo) => file_ios;
        /// Adds what a connection did.
        push_connection(process: ProcessId, Connection) => connections;
        /// Adds a stretch without records of a thread.
        push_thread_loss(thread: ThreadId, ThreadLoss) => thread_losses;
        /// Adds a stretch in which a device was observed.
        push_device_window(device: DeviceId, DeviceWindow) => device_windows;
        /// Adds a value of a device, or of a host.
        push_counter(device: DeviceId, Counter) => counters;
        /// Adds where a thread launched something.
        push_launch_stack(thread: ThreadId, LaunchStack) => launch_stacks;
        /// Adds how far a process had come in a group.
        push_group_state(process: ProcessId, GroupState) => group_states;
        /// Adds what a worker of a pipelined job did.
        push_pipeline_op(device: DeviceId, PipelineOp) => pipeline_ops;
    }

    /// The tables so far.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Says what is now known of the host.
    pub fn set_host(&mut self, host: &str) {
        if self.origin.host.is_empty() {
            host.clone_into(&mut self.origin.host);
        }
    }

    /// The id of a string, new or known. A full table counts a loss and yields the empty string.
    pub fn intern(&mut self, text: &str) -> StringId {
        self.interner.string(&mut self.tables, text).unwrap_or_else(|| {
            self.count_loss(LossCounter::StringTableFull, 1);
            StringId(0)
        })
    }

    /// The id of the stack in which `parent` calls `name`. A full table counts a loss and yields `parent`.
    pub fn intern_frame(&mut self, parent: StackId, name: StringId) -> StackId {
        self.interner.stack(&mut self.tables, Frame { parent, name }).unwrap_or_else(|| {
            self.count_loss(LossCounter::TableFull, 1);
            parent
        })
    }

    /// Adds a source.
    pub fn add_source(&mut self, source: Source) -> SourceId {
        self.tables.sources.push(source);
        SourceId(last_index(self.tables.sources.len()))
    }

    /// Says how a source's clock relates to the capture's time line; the last word counts.
    pub fn set_clock(&mut self, clock: Clock) {
        self.tables.clocks.push(clock);
    }

    /// Adds a process.
    pub fn add_process(&mut self, process: Process) -> ProcessId {
        self.actors_changed = true;
        self.tables.processes.push(process);
        ProcessId(last_index(self.tables.processes.len()))
    }

    /// Changes what is known of a process.
    pub fn update_process(&mut self, id: ProcessId, change: impl FnOnce(&mut Process)) {
        self.actors_changed = true;
        if let Some(process) = self.tables.processes.get_mut(id.index()) {
            change(process);
        }
    }

    /// Adds a thread.
    pub fn add_thread(&mut self, thread: Thread) -> ThreadId {
        self.actors_changed = true;
        self.tables.threads.push(thread);
        ThreadId(last_index(self.tables.threads.len()))
    }

    /// Changes what is known of a thread.
    pub fn update_thread(&mut self, id: ThreadId, change: impl FnOnce(&mut Thread)) {
        self.actors_changed = true;
        if let Some(thread) = self.tables.threads.get_mut(id.index()) {
            change(thread);
        }
    }

    /// Adds a device.
    pub fn add_device(&mut self, device: Device) -> DeviceId {
        self.actors_changed = true;
        self.tables.devices.push(device);
        DeviceId(last_index(self.tables.devices.len()))
    }

    /// Changes what is known of a device.
    pub fn update_device(&mut self, id: DeviceId, change: impl FnOnce(&mut Device)) {
        self.actors_changed = true;
        if let Some(device) = self.tables.devices.get_mut(id.index()) {
            change(device);
        }
    }

    /// Adds a label.
    pub fn add_label(&mut self, key: &str, value: &str) {
        self.tables.labels.push((key.to_owned(), value.to_owned()));
    }

    /// Counts lost records.
    pub fn count_loss(&mut self, counter: LossCounter, count: u64) {
        if count > 0 {
            *self.losses.entry(counter.id()).or_default() += count;
        }
    }

    /// Writes everything that waits as a segment, so that it survives a crash.
    ///
    /// # Errors
    /// [`WriteError`] when the output refuses.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.encode_waiting(1)?;
        self.write_segment()?;
        self.out.flush()?;
        Ok(())
    }

    /// Ends the capture and hands the output back.
    ///
    /// # Errors
    /// [`WriteError`] when the output refuses.
    pub fn finish(mut self) -> Result<(W, Tables), WriteError> {
        self.flush()?;
        Ok((self.out, self.tables))
    }

    /// Encodes the buffers that hold at least that many rows.
    fn encode_waiting(&mut self, at_least: usize) -> Result<(), WriteError> {
        let body = &mut self.body;
        self.waiting_rows = body.add_waiting(&mut self.gpu_ops, at_least)?
            + body.add_waiting(&mut self.api_calls, at_least)?
            + body.add_waiting(&mut self.host_spans, at_least)?
            + body.add_waiting(&mut self.loss_windows, at_least)?
            + body.add_waiting(&mut self.stream_waits, at_least)?
            + body.add_waiting(&mut self.collectives, at_least)?
            + body.add_waiting(&mut self.device_spans, at_least)?
            + body.add_waiting(&mut self.thread_spans, at_least)?
            + body.add_waiting(&mut self.thread_waits, at_least)?
            + body.add_waiting(&mut self.thread_preempts, at_least)?
            + body.add_waiting(&mut self.cpu_samples, at_least)?
            + body.add_waiting(&mut self.collective_calls, at_least)?
            + body.add_waiting(&mut self.page_faults, at_least)?
            + body.add_waiting(&mut self.block_ios, at_least)?
            + body.add_waiting(&mut self.file_ios, at_least)?
            + body.add_waiting(&mut self.connections, at_least)?
            + body.add_waiting(&mut self.thread_losses, at_least)?
            + body.add_waiting(&mut self.device_windows, at_least)?
            + body.add_waiting(&mut self.counters, at_least)?
            + body.add_waiting(&mut self.launch_stacks, at_least)?
            + body.add_waiting(&mut self.group_states, at_least)?
            + body.add_waiting(&mut self.pipeline_ops, at_least)?;
        Ok(())
    }

    fn write_full_segment(&mut self) -> Result<(), WriteError> {
        let new_strings = self.tables.string_count() - self.marks.strings;
        if self.body.bytes.len() >= SEGMENT_BODY_BYTES || new_strings * 64 >= SEGMENT_STRING_BYTES {
            self.write_segment()?;
        }
        Ok(())
    }

    fn write_segment(&mut self) -> Result<(), WriteError> {
        let marks = Marks {
            strings: self.tables.string_count(),
            stacks: self.tables.stack_count(),
            sources: self.tables.sources.len(),
            clocks: self.tables.clocks.len(),
            labels: self.tables.labels.len(),
        };
        if self.body.batches.is_empty()
            && marks == self.marks
            && self.losses.is_empty()
            && !self.actors_changed
            && self.sequence > 0
        {
            return Ok(());
        }
        let content = HeaderContent {
            sequence: self.sequence,
            origin: self.origin.clone(),
            losses: std::mem::take(&mut self.losses).into_iter().collect(),
            batches: std::mem::take(&mut self.body.batches),
        };
        let header = build(&content, &self.tables, self.marks, self.actors_changed);
        let prefix = Prefix {
            header_len: u32::try_from(header.len()).map_err(|_| WriteError::Full("segment header"))?,
            body_len: self.body.bytes.len() as u64,
            header_crc: crc32c::crc32c(&header),
        };
        self.out.write_all(&prefix.to_bytes())?;
        self.out.write_all(&header)?;
        self.out.write_all(&self.body.bytes)?;
        self.body.bytes.clear();
        self.marks = marks;
        self.actors_changed = false;
        self.sequence += 1;
        Ok(())
    }
}

fn last_index(len: usize) -> u32 {
    u32::try_from(len - 1).unwrap_or(u32::MAX)
}

/// Ends of the range of times that a capture may hold: beyond, sums would overflow.
pub(super) fn plausible(time: TimeNs) -> bool {
    time.0.unsigned_abs() < 1 << 62
}
