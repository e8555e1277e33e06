//! Device operations and the host calls behind them.
//!
//! The rows of one export are grouped by process and thread, not ordered by time, while the join of launches with
//! operations waits in bounded maps. So the tables are merged by start, each sorted by SQLite (which spills to temporary
//! files) where it is too large for those maps to hold whole.

use std::io::Write;

use hashbrown::HashMap;
use rusqlite::{Row, Rows};
use stallscope_core::classify::copies::{copy_kind, copy_name, memory_kind, memset_name};
use stallscope_core::rows::{ApiCall, GpuOp, StreamWait};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, op_flags};
use stallscope_schemas::units::{CorrelationId, StringId, TimeNs};

use super::actors::ProcessKey;
use super::database::{Scan, Table, WrongType, integer};
use super::names::intern;
use super::ranges::CollectiveTimes;
use super::{Reader, Span, span};
use crate::ImportError;

/// Rows of all joined tables that the join can hold whole, in any order.
const MAX_UNSORTED_ROWS: u64 = 1 << 20;

/// Event ids whose stream is remembered.
const MAX_EVENTS: usize = 1 << 20;

/// `syncType` of "a stream waits for an event".
const STREAM_WAIT_EVENT: i64 = 2;

/// A joined table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Api,
    Kernel,
    Memcpy,
    Memset,
    Graph,
}

/// The joined tables, with the columns that are read. Every device table begins with the columns of [`device`].
const TABLES: &[(&str, Kind, &[&str])] = &[
    ("CUPTI_ACTIVITY_KIND_RUNTIME", Kind::Api, &["start", "end", "globalTid", "correlationId", "nameId"]),
    // Exports before 2021 keep the driver's calls apart.
    ("CUPTI_ACTIVITY_KIND_DRIVER", Kind::Api, &["start", "end", "globalTid", "correlationId", "nameId"]),
    (
        "CUPTI_ACTIVITY_KIND_KERNEL",
        Kind::Kernel,
        &[
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "graphNodeId",
            "contextId",
            "demangledName",
            "shortName",
            "mangledName",
        ],
    ),
    (
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        Kind::Memcpy,
        &[
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "graphNodeId",
            "contextId",
            "bytes",
            "copyKind",
            "srcKind",
            "dstKind",
            "srcDeviceId",
            "dstDeviceId",
        ],
    ),
    (
        "CUPTI_ACTIVITY_KIND_MEMSET",
        Kind::Memset,
        &[
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "graphNodeId",
            "contextId",
            "bytes",
            "memKind",
        ],
    ),
    (
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
        Kind::Graph,
        &["start", "end", "deviceId", "streamId", "correlationId", "globalPid", "graphId", "contextId"],
    ),
];

/// Names of the tables any of which holds device operations.
pub(super) fn device_tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(|(_, kind, _)| *kind != Kind::Api).map(|(name, ..)| *name)
}

/// Positions of the columns that all device tables share.
mod device {
    pub(super) const DEVICE: usize = 2;
    pub(super) const STREAM: usize = 3;
    pub(super) const CORRELATION: usize = 4;
    pub(super) const PROCESS: usize = 5;
    pub(super) const GRAPH_NODE: usize = 6;
    pub(super) const CONTEXT: usize = 7;
    /// First column of the table's own.
    pub(super) const OWN: usize = 8;
}

/// A row that was read and checked, before it is known whose turn it is.
#[derive(Clone, Copy, Debug)]
enum Record {
    Api { global_tid: Option<i64>, call: ApiCall },
    Op { process: ProcessKey, context: Option<i64>, ordinal: i64, op: GpuOp },
}

impl Record {
    fn start(&self) -> TimeNs {
        match self {
            Self::Api { call, .. } => call.start,
            Self::Op { op, .. } => op.start,
        }
    }
}

/// A joined table that the file has.
type JoinedTable<'d> = (&'d Table, Kind, &'static [&'static str]);

/// One table under the merge.
struct Cursor<'d, 's> {
    table: JoinedTable<'d>,
    rows: Rows<'s>,
    head: Option<Record>,
    begun: bool,
    failed: bool,
}

impl<'d, W: Write> Reader<'d, '_, W> {
    /// Reads calls and operations, and hands them to the join in the order of their starts.
    pub(super) fn read_activity(&mut self, times: &CollectiveTimes) -> Result<(), ImportError> {
        let database = self.database;
        let present: Vec<_> = TABLES
            .iter()
            .filter_map(|(name, kind, columns)| Some((database.table(name)?, *kind, *columns)))
            .collect();
        let rows: u64 = present.iter().map(|(table, ..)| table.rows()).fold(0, u64::saturating_add);
        let mut unread = present;
        if rows > MAX_UNSORTED_ROWS {
            // A sort needs every page of its table, and room for temporary files: without, rows come as they are.
            unread = self.merge(&unread, Some("start"), times)?;
        }
        for _ in self.merge(&unread, None, times)? {
            self.note_scan(Scan::CutShort);
        }
        Ok(())
    }

    /// Merges tables by start. Yields those of which not one row could be read.
    fn merge(
        &mut self,
        tables: &[JoinedTable<'d>],
        order: Option<&str>,
        times: &CollectiveTimes,
    ) -> Result<Vec<JoinedTable<'d>>, ImportError> {
        let database = self.database;
        let mut unread = Vec::new();
        let mut statements = Vec::new();
        for &table in tables {
            match database.connection().prepare(&table.0.select(table.2, order)) {
                Ok(statement) => statements.push((statement, table)),
                Err(_) => unread.push(table),
            }
        }
        let mut cursors: Vec<Cursor<'d, '_>> = Vec::new();
        for (statement, table) in &mut statements {
            match statement.query([]) {
                Ok(rows) => {
                    cursors.push(Cursor { table: *table, rows, head: None, begun: false, failed: false })
                }
                Err(_) => unread.push(*table),
            }
        }
        for cursor in &mut cursors {
            self.advance(cursor);
        }
        loop {
            let due = cursors
                .iter_mut()
                .filter_map(|c| c.head.map(|head| (head, c)))
                .min_by_key(|(h, _)| h.start());
            let Some((head, cursor)) = due else { break };
            self.join(head, times)?;
            self.advance(cursor);
        }
        unread.extend(cursors.iter().filter(|c| c.failed && !c.begun).map(|c| c.table));
        self.take_failure()?;
        Ok(unread)
    }

    /// Moves a cursor to its next usable row.
    fn advance(&mut self, cursor: &mut Cursor<'_, '_>) {
        let (table, kind, _) = cursor.table;
        cursor.head = None;
        while cursor.head.is_none() {
            match cursor.rows.next() {
                Ok(Some(row)) => {
                    cursor.begun = true;
                    self.step(table.rows());
                    match self.record(kind, row) {
                        Ok(record) => cursor.head = record,
                        Err(WrongType) => self.count(LossCounter::RowInvalid),
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    cursor.failed = true;
                    if cursor.begun {
                        self.note_scan(Scan::CutShort);
                    }
                    return;
                }
            }
        }
    }

    fn join(&mut self, record: Record, times: &CollectiveTimes) -> Result<(), ImportError> {
        match record {
            Record::Api { global_tid, call } => {
                let (thread, scope) = self.actors.thread(self.ingest, global_tid);
                let collective = times.contain(global_tid, call.start);
                self.host_records += 1;
                self.ingest.api_call(scope, thread, call, collective)?;
            }
            Record::Op { process, context, ordinal, mut op } => {
                let Some((device, user)) = self.actors.device(self.ingest, process, context, ordinal) else {
                    return Ok(());
                };
                let (_, scope) = self.actors.process(self.ingest, process);
                op.stream = stream_of_user(op.stream, user);
                self.gpu_ops += 1;
                self.ingest.gpu_op(scope, device, op)?;
            }
        }
        Ok(())
    }

    /// Checks a row; `None` where it is left out, which is then already counted.
    fn record(&mut self, kind: Kind, row: &Row<'_>) -> Result<Option<Record>, WrongType> {
        let Some(start) = integer(row, 0)? else { return Err(WrongType) };
        let end = integer(row, 1)?;
        if kind == Kind::Api {
            let Some(end) = end else {
                self.count(LossCounter::EventWithoutDuration);
                return Ok(None);
            };
            let Some(span) = self.valid_span(start, end) else { return Ok(None) };
            return self.api_record(row, span).map(Some);
        }
        // CUPTI writes 0 for both when it could not collect the times.
        if start == 0 && end == Some(0) {
            self.count(LossCounter::EventTimeInvalid);
            return Ok(None);
        }
        let Some(span) = self.valid_span(start, end.unwrap_or(start)) else { return Ok(None) };
        let mut op = self.device_op(kind, row, span)?;
        if end.is_none() {
            self.count(LossCounter::EventWithoutDuration);
            op.flags |= op_flags::END_UNKNOWN;
        }
        let process = match integer(row, device::PROCESS)? {
            Some(global_pid) => ProcessKey::of(global_pid),
            None => self.sole_process(),
        };
        let Some(ordinal) = integer(row, device::DEVICE)? else { return Err(WrongType) };
        let context = integer(row, device::CONTEXT)?;
        Ok(Some(Record::Op { process, context, ordinal, op }))
    }

    fn api_record(&mut self, row: &Row<'_>, span: Span) -> Result<Record, WrongType> {
        let global_tid = integer(row, 2)?;
        let correlation = correlation(row, 3)?;
        let name = self.names.cell(self.ingest, row, 4)?;
        let name = name.unwrap_or_else(|| intern(self.ingest, "unnamed CUDA call"));
        let call = ApiCall { start: span.start, duration_ns: span.duration_ns, name, correlation };
        Ok(Record::Api { global_tid, call })
    }

    fn device_op(&mut self, kind: Kind, row: &Row<'_>, span: Span) -> Result<GpuOp, WrongType> {
        let is_node = kind != Kind::Graph && integer(row, device::GRAPH_NODE)?.is_some();
        let mut op = GpuOp {
            start: span.start,
            duration_ns: span.duration_ns,
            name: StringId(0),
            stream: integer(row, device::STREAM)?.map_or(0, i64::cast_unsigned),
            kind: OpKind::Kernel,
            flags: if is_node { op_flags::GRAPH_NODE } else { 0 },
            correlation: correlation(row, device::CORRELATION)?,
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: None,
        };
        match kind {
            Kind::Api | Kind::Kernel => op.name = self.kernel_name(row)?,
            Kind::Memcpy => {
                op.kind = OpKind::Memcpy;
                op.bytes = bytes(row, device::OWN)?;
                let [kind, from, to, from_device, to_device] = integers(row, device::OWN + 1)?;
                let two_devices = from_device.is_some() && to_device.is_some() && from_device != to_device;
                op.copy_kind = copy_kind(kind, from, to, two_devices);
                op.name = intern(self.ingest, &copy_name(kind, memory_kind(from), memory_kind(to)));
            }
            Kind::Memset => {
                op.kind = OpKind::Memset;
                op.bytes = bytes(row, device::OWN)?;
                op.name = intern(self.ingest, &memset_name(memory_kind(integer(row, device::OWN + 1)?)));
            }
            Kind::Graph => {
                // The whole replay is one row: that the device was busy is known, with what is not.
                op.kind = OpKind::Other;
                op.flags |= op_flags::GRAPH_NODE;
                let graph = integer(row, device::GRAPH_NODE)?;
                let name = graph.map_or_else(|| "graph".to_owned(), |id| format!("graph {id}"));
                op.name = intern(self.ingest, &name);
            }
        }
        Ok(op)
    }

    /// A kernel's fullest name.
    fn kernel_name(&mut self, row: &Row<'_>) -> Result<StringId, WrongType> {
        for at in device::OWN..device::OWN + 3 {
            if let Some(name) = self.names.cell(self.ingest, row, at)?
                && name != StringId(0)
            {
                return Ok(name);
            }
        }
        Ok(intern(self.ingest, "unnamed kernel"))
    }

    fn valid_span(&mut self, start: i64, end: i64) -> Option<Span> {
        let span = span(start, end);
        if span.is_none() {
            self.count(LossCounter::EventTimeInvalid);
        }
        span
    }

    /// The process of rows that do not name theirs: the one that made CUDA calls, where there is only one.
    fn sole_process(&mut self) -> ProcessKey {
        if let Some(known) = self.sole_process {
            return known;
        }
        let mut keys = Vec::new();
        for (name, ..) in TABLES.iter().filter(|(_, kind, _)| *kind == Kind::Api) {
            if !self.database.table(name).is_some_and(|t| t.has("globalTid")) {
                continue;
            }
            let sql = format!(
                "SELECT DISTINCT \"globalTid\" >> 24 << 24 FROM \"{name}\" WHERE \"globalTid\" NOTNULL LIMIT 2"
            );
            let Ok(mut statement) = self.database.connection().prepare(&sql) else { continue };
            let Ok(mut rows) = statement.query([]) else { continue };
            while let Ok(Some(row)) = rows.next() {
                keys.extend(integer(row, 0).ok().flatten().map(ProcessKey::of));
            }
        }
        keys.dedup();
        let sole = match keys.as_slice() {
            [only] => *only,
            _ => ProcessKey::UNKNOWN,
        };
        self.sole_process = Some(sole);
        sole
    }

    /// Reads which streams were told to wait, and for which stream where the export has the events.
    pub(super) fn read_stream_waits(&mut self) -> Result<(), ImportError> {
        let database = self.database;
        let Some(table) = database.table("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION") else { return Ok(()) };
        let recorded = self.read_event_streams()?;
        let columns = [
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "syncType",
            "contextId",
            "eventSyncId",
        ];
        let outcome = database.scan(table, &columns, |row| {
            self.step(table.rows());
            match self.stream_wait(row, &recorded) {
                Ok(()) => {}
                Err(WrongType) => self.count(LossCounter::RowInvalid),
            }
            self.take_failure()
        })?;
        self.note_scan(outcome);
        Ok(())
    }

    fn stream_wait(
        &mut self,
        row: &Row<'_>,
        recorded: &HashMap<(ProcessKey, i64), i64>,
    ) -> Result<(), WrongType> {
        if integer(row, 6)? != Some(STREAM_WAIT_EVENT) {
            return Ok(());
        }
        let (Some(start), Some(end)) = (integer(row, 0)?, integer(row, 1)?) else { return Err(WrongType) };
        let (ordinal, context) = (integer(row, device::DEVICE)?, integer(row, device::CONTEXT)?);
        let Some(stream) = integer(row, device::STREAM)? else { return Err(WrongType) };
        let correlation = correlation(row, device::CORRELATION)?;
        let process = integer(row, device::PROCESS)?.map(ProcessKey::of);
        let on = integer(row, 8)?;
        let Some(span) = self.valid_span(start, end) else { return Ok(()) };
        let process = process.unwrap_or_else(|| self.sole_process());
        let Some((device, user)) = self.actors.known_device(process, context, ordinal) else { return Ok(()) };
        let on_stream = on.and_then(|id| recorded.get(&(process, id)));
        let wait = StreamWait {
            start: span.start,
            duration_ns: span.duration_ns,
            stream: stream_of_user(stream.cast_unsigned(), user),
            on_stream: on_stream.map(|s| stream_of_user(s.cast_unsigned(), user)),
            correlation,
        };
        let written = self.ingest.writer().push_stream_wait(device, wait);
        self.remember_failure(written);
        Ok(())
    }

    /// The stream on which each event was recorded, by the id that ties a wait to the record.
    fn read_event_streams(&mut self) -> Result<HashMap<(ProcessKey, i64), i64>, ImportError> {
        let mut streams = HashMap::new();
        let database = self.database;
        let Some(table) = database.table("CUPTI_ACTIVITY_KIND_CUDA_EVENT").filter(|t| t.has("eventSyncId"))
        else {
            return Ok(streams);
        };
        database.scan(table, &["globalPid", "eventSyncId", "streamId"], |row| {
            if let (Ok(pid), Ok(Some(id)), Ok(Some(stream))) =
                (integer(row, 0), integer(row, 1), integer(row, 2))
                && streams.len() < MAX_EVENTS
            {
                let process = pid.map_or_else(|| self.sole_process(), ProcessKey::of);
                streams.insert((process, id), stream);
            }
            Ok(())
        })?;
        Ok(streams)
    }
}

/// Streams are numbered by each process: those of a device's second and later users are kept apart by the upper half.
fn stream_of_user(stream: u64, user: usize) -> u64 {
    stream ^ ((user as u64) << 32)
}

fn correlation(row: &Row<'_>, at: usize) -> Result<CorrelationId, WrongType> {
    Ok(CorrelationId(integer(row, at)?.map_or(0, i64::cast_unsigned)))
}

/// A size; one that is missing or negative is unknown.
fn bytes(row: &Row<'_>, at: usize) -> Result<u64, WrongType> {
    Ok(integer(row, at)?.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

fn integers<const N: usize>(row: &Row<'_>, from: usize) -> Result<[Option<i64>; N], WrongType> {
    let mut values = [None; N];
    for (value, at) in values.iter_mut().zip(from..) {
        *value = integer(row, at)?;
    }
    Ok(values)
}
