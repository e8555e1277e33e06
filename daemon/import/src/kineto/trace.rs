//! Turns events into rows.
//!
//! Every event ends as a row, as a change to the tables, as a count of something lost, or belongs to a kind that is left
//! out on purpose (instants, flows, counters, the profiler's own bookkeeping). A "B" waits as a finished record for its
//! "E", which only adds the duration.

use std::io::Write;

use hashbrown::HashMap;
use stallscope_core::capture::{Clock, WriteError};
use stallscope_core::ingest::{Ingest, Scope};
use stallscope_core::rows::{ApiCall, Collective, DeviceSpan, GpuOp, HostSpan, StreamWait};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, op_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, SourceId, StackId, StringId, ThreadId, TimeNs};

use super::actors::{Actors, Place};
use super::args::{self, DeviceArgs};
use super::category::Category;
use super::devices::Devices;
use super::document::Sink;
use super::event::{Event, Ident, trailing_number};
use super::metadata::Metadata;
use super::names::{Name, Names};
use super::scanner::Value;
use super::text::decode;
use super::time::ns_from_us;
use super::xla::{self, Line};

/// Latest start that is believed, ns: with a base time on top, sums stay below what a capture may hold (1 << 62).
const MAX_START_NS: i64 = 1 << 61;

/// Longest duration that is believed, ns: 104 days, longer than any profiler ran.
const MAX_DURATION_NS: i64 = 1 << 53;

/// Begins that may wait for their ends on one thread.
const MAX_OPEN_OF_THREAD: usize = 4096;

/// The same in all.
const MAX_OPEN: usize = 1 << 18;

/// A row, but for its duration.
#[derive(Debug)]
enum Record {
    Op { device: DeviceId, op: GpuOp, collective: Option<Collective> },
    Api { place: Place, thread: ThreadId, call: ApiCall },
    Span { place: Place, thread: ThreadId, span: HostSpan, collective: bool },
    DeviceSpan { device: DeviceId, span: DeviceSpan },
    Wait { device: DeviceId, wait: StreamWait },
}

/// What one file has added so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Operations on devices.
    pub(super) gpu_ops: u64,
    /// Rows of the host.
    pub(super) host_records: u64,
}

/// The state of one import.
#[derive(Debug)]
pub(super) struct Trace<'i, W: Write> {
    ingest: &'i mut Ingest<W>,
    source: SourceId,
    scope: Scope,
    names: Names,
    actors: Actors,
    devices: Devices,
    open: HashMap<Place, Vec<Record>>,
    open_total: usize,
    metadata: Metadata,
    counts: Counts,
}

impl<'i, W: Write> Trace<'i, W> {
    pub(super) fn new(ingest: &'i mut Ingest<W>, source: SourceId) -> Self {
        Self {
            ingest,
            source,
            scope: Scope(source.0),
            names: Names::default(),
            actors: Actors::new(source),
            devices: Devices::new(source),
            open: HashMap::new(),
            open_total: 0,
            metadata: Metadata::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn count_loss(&mut self, counter: LossCounter) {
        self.ingest.writer().count_loss(counter, 1);
    }

    /// Start of an event; one that is no time is counted.
    fn start(&mut self, event: &Event<'_>) -> Option<TimeNs> {
        let start = event.start.and_then(ns_from_us).filter(|ns| (0..MAX_START_NS).contains(ns));
        if start.is_none() {
            self.count_loss(LossCounter::EventTimeInvalid);
        }
        start.map(TimeNs)
    }

    fn place(&mut self, event: &Event<'_>) -> Option<Place> {
        let place = self.actors.number(event.pid).zip(self.actors.number(event.tid));
        if place.is_none() {
            self.count_loss(LossCounter::TableFull);
        }
        place
    }

    fn complete(&mut self, event: &Event<'_>) -> Result<(), WriteError> {
        let category = Category::of(event.category);
        if category == Category::Ignored {
            return Ok(());
        }
        let Some(start) = self.start(event) else {
            if category.may_occupy_a_device() {
                self.devices.leave_out();
            }
            return Ok(());
        };
        let duration = match event.duration.map(duration_ns) {
            None => None,
            // An operation did run from its start on, until nobody knows when.
            Some(None) if category.may_occupy_a_device() => None,
            Some(None) => {
                self.count_loss(LossCounter::EventTimeInvalid);
                return Ok(());
            }
            Some(known) => known,
        };
        let Some(mut record) = self.record(event, category, start) else { return Ok(()) };
        if duration.is_none() {
            self.count_loss(LossCounter::EventWithoutDuration);
            if let Record::Op { op, .. } = &mut record {
                op.flags |= op_flags::END_UNKNOWN;
            }
        }
        self.write(record, duration.unwrap_or(0))
    }

    fn begin(&mut self, event: &Event<'_>) {
        let category = Category::of(event.category);
        if category == Category::Ignored {
            return;
        }
        let Some((start, place)) = self.start(event).zip(self.place(event)) else { return };
        let waiting = self.open.get(&place).map_or(0, Vec::len);
        if waiting >= MAX_OPEN_OF_THREAD || self.open_total >= MAX_OPEN {
            self.count_loss(LossCounter::SpanUnmatched);
            return;
        }
        if let Some(record) = self.record(event, category, start) {
            self.open.entry(place).or_default().push(record);
            self.open_total += 1;
        }
    }

    fn end(&mut self, event: &Event<'_>) -> Result<(), WriteError> {
        if Category::of(event.category) == Category::Ignored {
            return Ok(());
        }
        let Some(place) = self.place(event) else { return Ok(()) };
        let Some(record) = self.open.get_mut(&place).and_then(Vec::pop) else {
            self.count_loss(LossCounter::SpanUnmatched);
            return Ok(());
        };
        self.open_total -= 1;
        let Some(end) = self.start(event) else { return Ok(()) };
        let start = match &record {
            Record::Op { op, .. } => op.start,
            Record::Api { call, .. } => call.start,
            Record::Span { span, .. } => span.start,
            Record::DeviceSpan { span, .. } => span.start,
            Record::Wait { wait, .. } => wait.start,
        };
        if end < start || end.since(start) >= MAX_DURATION_NS.unsigned_abs() {
            self.count_loss(LossCounter::EventTimeInvalid);
            return Ok(());
        }
        self.write(record, end.since(start))
    }

    /// What the event becomes. `None` for what is left out, which has been counted where it is a loss.
    fn record(&mut self, event: &Event<'_>, category: Category, start: TimeNs) -> Option<Record> {
        let name = self.names.name(self.ingest.writer(), event.name);
        match category {
            Category::Kernel => self.op(event, name, name.op.unwrap_or(OpKind::Kernel), start, None),
            Category::Memcpy => self.op(event, name, OpKind::Memcpy, start, None),
            Category::Memset => self.op(event, name, OpKind::Memset, start, None),
            Category::Api => self.api(event, name, start),
            Category::Operator => self.operator(event, name, start),
            Category::Python => {
                let place = self.place(event)?;
                let place = self.actors.python_thread(place);
                self.span(place, name, SpanKind::Python, StackId(0), start)
            }
            Category::Annotation => {
                let place = self.place(event)?;
                self.span(place, name, step_or(name, SpanKind::Annotation), StackId(0), start)
            }
            Category::DeviceAnnotation => {
                let ordinal = self.ordinal(event, &DeviceArgs::parse(event.args))?;
                self.device_span(ordinal, name, step_or(name, SpanKind::Annotation), start)
            }
            Category::Sync => self.stream_wait(event, start),
            // CUPTI's own threads have no pid; where the trace knows the thread, the time is the host's.
            Category::Overhead if matches!(event.pid, Ident::Number(pid) if pid > 0) => {
                let place = self.place(event)?;
                self.span(place, name, SpanKind::Other, StackId(0), start)
            }
            Category::Overhead | Category::Ignored => None,
            Category::Other => {
                let place = self.place(event)?;
                self.span(place, name, step_or(name, SpanKind::Other), StackId(0), start)
            }
            Category::Absent => self.without_category(event, name, start),
        }
    }

    fn without_category(&mut self, event: &Event<'_>, name: Name, start: TimeNs) -> Option<Record> {
        let place = self.place(event)?;
        match xla::line(&self.actors, place) {
            Line::Stream { device, stream } => {
                let kind = name.op.unwrap_or(OpKind::Kernel);
                self.op(event, name, kind, start, Some((device, stream)))
            }
            Line::DeviceRanges { device, kind } => self.device_span(device, name, kind, start),
            Line::Host if name.api && args::correlation(event.args) != 0 => self.api(event, name, start),
            Line::Host => {
                let kind = if name.python { SpanKind::Python } else { SpanKind::Other };
                self.span(place, name, step_or(name, kind), StackId(0), start)
            }
        }
    }

    fn operator(&mut self, event: &Event<'_>, name: Name, start: TimeNs) -> Option<Record> {
        let place = self.place(event)?;
        let stack = match args::call_stack(event.args) {
            Some(raw) => self.names.call_stack(self.ingest.writer(), raw),
            None => StackId(0),
        };
        let record = self.span(place, name, step_or(name, SpanKind::Operator), stack, start)?;
        self.actors.ran_operator();
        Some(record)
    }

    fn span(
        &mut self,
        place: Place,
        name: Name,
        kind: SpanKind,
        stack: StackId,
        start: TimeNs,
    ) -> Option<Record> {
        let thread = self.thread(place)?;
        let span = HostSpan { start, duration_ns: 0, name: name.id, kind, stack };
        Some(Record::Span { place, thread, span, collective: name.collective })
    }

    fn api(&mut self, event: &Event<'_>, name: Name, start: TimeNs) -> Option<Record> {
        let place = self.place(event)?;
        let thread = self.thread(place)?;
        let correlation = CorrelationId(args::correlation(event.args));
        Some(Record::Api {
            place,
            thread,
            call: ApiCall { start, duration_ns: 0, name: name.id, correlation },
        })
    }

    fn thread(&mut self, place: Place) -> Option<ThreadId> {
        let thread = self.actors.thread(self.ingest.writer(), place).map(|thread| thread.id);
        if thread.is_none() {
            self.count_loss(LossCounter::TableFull);
        }
        thread
    }

    fn device(&mut self, ordinal: i64) -> Option<DeviceId> {
        let device = self.devices.device(self.ingest.writer(), ordinal);
        if device.is_none() {
            self.count_loss(LossCounter::TableFull);
        }
        device
    }

    /// Ordinal of the device that an event is about. Its pid is the ordinal where the arguments do not say.
    fn ordinal(&mut self, event: &Event<'_>, args: &DeviceArgs<'_>) -> Option<i64> {
        match (args.device, event.pid) {
            (Some(device), _) => Some(device),
            (None, Ident::Number(pid)) => Some(pid.max(0)),
            (None, Ident::Text(text)) => {
                Some(trailing_number(text).and_then(|n| i64::try_from(n).ok()).unwrap_or(0))
            }
        }
    }

    fn op(
        &mut self,
        event: &Event<'_>,
        name: Name,
        kind: OpKind,
        start: TimeNs,
        line: Option<(i64, u64)>,
    ) -> Option<Record> {
        let args = DeviceArgs::parse(event.args);
        let (ordinal, stream) = match line {
            Some((device, stream)) => (device, stream),
            None => (self.ordinal(event, &args)?, args.stream.unwrap_or_else(|| stream_of(event.tid))),
        };
        let device = self.device(ordinal)?;
        let copy_kind = match (kind, name.copy) {
            (OpKind::Memcpy, CopyKind::Unknown) => args::copy_kind(&decode(args.copy)),
            (OpKind::Memcpy, known) => known,
            _ => CopyKind::Unknown,
        };
        let mut flags = if args.graph_node { op_flags::GRAPH_NODE } else { 0 };
        let correlation = CorrelationId(args.correlation);
        let collective = args.collective.name.map(|collective| {
            flags |= op_flags::COLLECTIVE_METADATA;
            let group =
                if args.collective.group.is_empty() { args.collective.ranks } else { args.collective.group };
            Collective {
                start,
                duration_ns: 0,
                name: self.names.name(self.ingest.writer(), collective).id,
                bytes: args.collective.bytes(),
                group: self.group(group),
                group_size: args.collective.group_size,
                sequence: args.collective.sequence,
                correlation,
            }
        });
        let op = GpuOp {
            start,
            duration_ns: 0,
            name: name.id,
            stream,
            kind,
            flags,
            correlation,
            bytes: args.bytes,
            copy_kind,
            launch: None,
        };
        Some(Record::Op { device, op, collective })
    }

    fn group(&mut self, raw: &[u8]) -> StringId {
        if raw.is_empty() { StringId(0) } else { self.names.name(self.ingest.writer(), raw).id }
    }

    fn device_span(&mut self, ordinal: i64, name: Name, kind: SpanKind, start: TimeNs) -> Option<Record> {
        let device = self.device(ordinal)?;
        Some(Record::DeviceSpan { device, span: DeviceSpan { start, duration_ns: 0, name: name.id, kind } })
    }

    /// A synchronisation. Only "Stream Wait Event" says something that the host call of the same time does not.
    fn stream_wait(&mut self, event: &Event<'_>, start: TimeNs) -> Option<Record> {
        let args = DeviceArgs::parse(event.args);
        let kind = if args.sync_kind.is_empty() { event.name } else { args.sync_kind };
        if !kind.eq_ignore_ascii_case(b"Stream Wait Event") {
            return None;
        }
        let ordinal = self.ordinal(event, &args)?;
        let device = self.device(ordinal)?;
        let wait = StreamWait {
            start,
            duration_ns: 0,
            stream: args.stream.unwrap_or_else(|| stream_of(event.tid)),
            on_stream: args.wait_on_stream,
            correlation: CorrelationId(args.correlation),
        };
        Some(Record::Wait { device, wait })
    }

    fn write(&mut self, record: Record, duration_ns: u64) -> Result<(), WriteError> {
        match record {
            Record::Op { device, op, collective } => {
                let op = GpuOp { duration_ns, ..op };
                self.counts.gpu_ops += 1;
                if self.devices.overlaps(device, &op) {
                    self.count_loss(LossCounter::StreamOverlap);
                }
                if let Some(window) = self.devices.hidden_since(device, &op) {
                    self.ingest.writer().push_loss_window(device, window)?;
                }
                if let Some(collective) = collective {
                    self.ingest.writer().push_collective(device, Collective { duration_ns, ..collective })?;
                }
                self.ingest.gpu_op(self.scope, device, op)
            }
            Record::Api { place, thread, call } => {
                self.counts.host_records += 1;
                let call = ApiCall { duration_ns, ..call };
                let inside = self.actors.thread(self.ingest.writer(), place);
                let collective = inside.is_some_and(|thread| thread.collectives.contain(call.start.0));
                if call.correlation.0 != 0 && self.ingest.api_class(call.name).may_launch() {
                    self.actors.launched();
                }
                self.ingest.api_call(self.scope, thread, call, collective)
            }
            Record::Span { place, thread, span, collective } => {
                self.counts.host_records += 1;
                let span = HostSpan { duration_ns, ..span };
                if collective && let Some(thread) = self.actors.thread(self.ingest.writer(), place) {
                    thread.collectives.add(span.start.0, span.start.plus(duration_ns).0);
                }
                self.ingest.writer().push_host_span(thread, span)
            }
            Record::DeviceSpan { device, span } => {
                self.ingest.writer().push_device_span(device, DeviceSpan { duration_ns, ..span })
            }
            Record::Wait { device, wait } => {
                self.ingest.writer().push_stream_wait(device, StreamWait { duration_ns, ..wait })
            }
        }
    }

    /// Names of processes and threads.
    fn name_actor(&mut self, event: &Event<'_>) {
        let Some(Value::String(name)) = args::member(event.args, b"name") else { return };
        let Some(place) = self.place(event) else { return };
        let kept = match event.name {
            b"process_name" => self.actors.name_process(place.0, name),
            b"thread_name" => self.actors.name_thread(place, name),
            _ => true,
        };
        if !kept {
            self.count_loss(LossCounter::TableFull);
        }
    }

    /// Ends the file: nothing more of it will come.
    pub(super) fn finish(mut self, stem: &str) -> Result<(), WriteError> {
        self.ingest.writer().count_loss(LossCounter::SpanUnmatched, self.open_total as u64);
        if let Some(offset_ns) = self.metadata.base_ns {
            let note = "baseTimeNanoseconds of the trace".to_owned();
            self.ingest.writer().set_clock(Clock { source: self.source, offset_ns, error_ns: 0, note });
        }
        let rank = self.metadata.rank.or_else(|| super::metadata::rank_in_name(stem));
        let mut host = std::mem::take(&mut self.metadata.host);
        if host.is_empty() {
            let named = super::metadata::host_in_name(stem, |pid| self.actors.has_pid(pid));
            named.unwrap_or_default().clone_into(&mut host);
        }
        let writer = self.ingest.writer();
        if !host.is_empty() {
            writer.set_host(&host);
        }
        if self.counts.gpu_ops > 0 {
            self.actors.ensure_process(writer);
        }
        let processes = self.actors.finish(writer, rank, self.metadata.world_size, &host);
        let owner = rank.map_or_else(|| stem.to_owned(), |rank| format!("rank{rank}"));
        self.devices.finish(writer, &owner, &self.metadata.models, &processes);
        self.ingest.end_scopes()
    }
}

impl<W: Write> Sink for Trace<'_, W> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), WriteError> {
        match event.phase {
            b'X' => self.complete(event),
            b'B' => {
                self.begin(event);
                Ok(())
            }
            b'E' => self.end(event),
            b'M' => {
                self.name_actor(event);
                Ok(())
            }
            0 => {
                self.lost(LossCounter::EventMalformed);
                Ok(())
            }
            // Instants, flows, counters, asynchronous and object events: nothing here books time by them.
            _ => Ok(()),
        }
    }

    fn member(&mut self, key: &[u8], value: Value<'_>) {
        self.metadata.take(key, value);
    }

    fn lost(&mut self, counter: LossCounter) {
        self.count_loss(counter);
        self.devices.leave_out();
    }
}

/// A duration in ns; `None` for what is none: negative, not a number, absurdly long.
fn duration_ns(text: &[u8]) -> Option<u64> {
    let ns = ns_from_us(text).filter(|ns| (0..MAX_DURATION_NS).contains(ns))?;
    u64::try_from(ns).ok()
}

fn step_or(name: Name, kind: SpanKind) -> SpanKind {
    if name.step { SpanKind::Step } else { kind }
}

/// The stream that a time line of a device stands for.
fn stream_of(tid: Ident<'_>) -> u64 {
    match tid {
        Ident::Number(number) => u64::try_from(number).unwrap_or(0),
        Ident::Text(text) => trailing_number(text).unwrap_or(0),
    }
}
