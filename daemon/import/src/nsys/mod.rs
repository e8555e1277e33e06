//! SQLite exports of Nsight Systems (`nsys export --type sqlite`).
//!
//! Versions from 2020 on differ in their tables and columns, and `--lazy` leaves out tables without rows, so everything is
//! discovered: a table or column that is missing costs what only it says, never the import. What holds:
//! - the file is opened read-only and immutable, and nothing is written beside it;
//! - rows stream: memory is bounded by distinct names, threads, and the join's own limits;
//! - a row of wrong types, a negative duration or a damaged page costs itself, and is counted.
//!
//! | Tables | Become |
//! |---|---|
//! | `CUPTI_ACTIVITY_KIND_{KERNEL,MEMCPY,MEMSET,GRAPH_TRACE}` | device operations |
//! | `CUPTI_ACTIVITY_KIND_{RUNTIME,DRIVER}` | host calls, joined by correlation id within a process |
//! | `CUPTI_ACTIVITY_KIND_SYNCHRONIZATION`, `…_CUDA_EVENT` | waits of streams for streams |
//! | `NVTX_EVENTS`, `NVTX_PAYLOAD_SCHEMA_ENTRIES` | host spans, and which calls belong to a collective library |
//! | `PROFILER_OVERHEAD`, `CUPTI_ACTIVITY_KIND_OVERHEAD` | host spans |
//! | `TARGET_INFO_{GPU,CUDA_DEVICE,SYSTEM_ENV,SESSION_START_TIME}` | devices, host, rank, clock |
//! | `PROCESSES`, `ThreadNames`, `StringIds` | names |
//! | `DIAGNOSTIC_EVENT` | losses that the profiler reports |

mod activity;
mod actors;
mod database;
mod names;
mod ranges;
mod session;

use std::io::Write;
use std::path::Path;

use hashbrown::HashMap;
use stallscope_core::capture::{Source, WriteError};
use stallscope_core::ingest::Ingest;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::SpanKind;
use stallscope_schemas::units::{SourceId, StringId, TimeNs};

use self::actors::{Actors, ProcessKey};
use self::database::{Database, Scan};
use self::names::Names;
use crate::{Format, ImportError, Imported, Progress};

/// Times beyond are refused: with a clock's offset on top they must stay within what a capture can hold.
const MAX_TIME_NS: i64 = 1 << 61;

/// Rows between two calls of the progress function.
const ROWS_PER_PROGRESS: u64 = 1 << 14;

/// How to record what is missing.
const HOW_TO_TRACE: &str =
    "record it with nsys profile --trace=cuda,nvtx,osrt and export with nsys export --type sqlite";

/// Tables without which a trace says much less.
const EXPECTED: &[&str] = &["CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME"];

/// A valid stretch of time.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: TimeNs,
    duration_ns: u64,
}

/// The stretch between two times; `None` where it runs backward or is out of range.
fn span(start: i64, end: i64) -> Option<Span> {
    let valid = -MAX_TIME_NS < start && start <= end && end < MAX_TIME_NS;
    valid.then(|| Span { start: TimeNs(start), duration_ns: TimeNs(end).since(TimeNs(start)) })
}

/// One import under way.
struct Reader<'d, 'i, W: Write> {
    database: &'d Database,
    ingest: &'i mut Ingest<W>,
    names: Names<'d>,
    actors: Actors,
    /// Registered NVTX strings, with what they mean.
    registered: HashMap<i64, (StringId, SpanKind, bool)>,
    sole_process: Option<ProcessKey>,
    gpu_ops: u64,
    host_records: u64,
    /// Tables that ended at a damaged page.
    cut_short: u64,
    progress: Progress<'i>,
    rows_read: u64,
    rows_total: u64,
    bytes_total: u64,
    failure: Option<WriteError>,
}

/// Imports an export.
///
/// # Errors
/// [`ImportError`] when the file is no Nsight Systems export, holds no GPU activity or is damaged beyond use, or when the
/// capture cannot be written.
pub fn import<W: Write>(
    path: &Path,
    ingest: &mut Ingest<W>,
    progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    let bytes = std::fs::metadata(path).map_err(|e| ImportError::open(path, e))?.len();
    let database = Database::open(path)?;
    refuse_foreign(path, &database)?;
    let source = ingest.writer().add_source(Source {
        path: path.to_string_lossy().into_owned(),
        format: Format::Nsys.name().to_owned(),
    });
    let names = Names::new(&database, ingest);
    let actors = Actors::new(&database, path, source)?;
    let mut reader = Reader {
        database: &database,
        ingest,
        names,
        actors,
        registered: HashMap::new(),
        sole_process: None,
        gpu_ops: 0,
        host_records: 0,
        cut_short: 0,
        progress,
        rows_read: 0,
        rows_total: database
            .table_names()
            .iter()
            .filter_map(|n| database.table(n))
            .map(database::Table::rows)
            .sum(),
        bytes_total: bytes,
        failure: None,
    };
    reader.read(source)?;
    let (gpu_ops, host_records, cut_short) = (reader.gpu_ops, reader.host_records, reader.cut_short);
    (reader.progress)(bytes, Some(bytes));
    if gpu_ops == 0 {
        return Err(nothing_found(path, cut_short > 0));
    }
    Ok(Imported { format: Format::Nsys, gpu_ops, host_records, bytes })
}

/// Refuses databases that hold no table of CUDA activity, saying why that may be.
fn refuse_foreign(path: &Path, database: &Database) -> Result<(), ImportError> {
    if activity::device_tables().any(|name| database.table(name).is_some()) {
        return Ok(());
    }
    let names = database.table_names();
    let is_export =
        names.iter().any(|n| n.starts_with("CUPTI_") || n.starts_with("META_DATA_") || *n == "StringIds");
    if is_export {
        let hint = format!(": the export has no table CUPTI_ACTIVITY_KIND_KERNEL; {HOW_TO_TRACE}");
        return Err(ImportError::NoGpuActivity { path: path.to_owned(), hint });
    }
    let shown = match names.as_slice() {
        [] => "no tables".to_owned(),
        [first @ .., _] if first.len() >= 8 => {
            format!("tables {}, …", names.get(..8).unwrap_or_default().join(", "))
        }
        all => format!("tables {}", all.join(", ")),
    };
    let reason =
        format!("it has {shown} but none of CUPTI_ACTIVITY_KIND_*, so it is no Nsight Systems export");
    Err(ImportError::Malformed { path: path.to_owned(), reason })
}

fn nothing_found(path: &Path, damaged: bool) -> ImportError {
    let path = path.to_owned();
    if damaged {
        let reason =
            "its pages are damaged and no GPU operation could be read; export it again with nsys export"
                .to_owned();
        return ImportError::Malformed { path, reason };
    }
    ImportError::NoGpuActivity {
        path,
        hint: format!(": its CUDA tables have no usable rows; {HOW_TO_TRACE}"),
    }
}

impl<W: Write> Reader<'_, '_, W> {
    fn read(&mut self, source: SourceId) -> Result<(), ImportError> {
        let missing = EXPECTED.iter().filter(|name| self.database.table(name).is_none()).count() as u64;
        if missing > 0 {
            self.ingest.writer().count_loss(LossCounter::TableMissing, missing);
        }
        if self.database.is_unfinished() {
            self.count(LossCounter::InputTruncated);
        }
        self.read_clock(source)?;
        let times = self.read_ranges()?;
        self.read_activity(&times)?;
        drop(times);
        self.read_stream_waits()?;
        self.read_overhead()?;
        self.read_environment()?;
        self.actors.read_names(self.database, &mut self.names, self.ingest)?;
        self.read_diagnostics()?;
        // Correlation ids of this file's processes cannot match another file's.
        self.ingest.end_scopes()?;
        Ok(())
    }

    fn count(&mut self, counter: LossCounter) {
        self.ingest.writer().count_loss(counter, 1);
    }

    fn string(&mut self, id: StringId) -> &str {
        self.ingest.writer().tables().string(id)
    }

    /// Notes that a table was not read to its end.
    fn note_scan(&mut self, outcome: Scan) {
        if outcome == Scan::CutShort {
            self.cut_short += 1;
            self.count(LossCounter::InputTruncated);
        }
    }

    /// Counts a row towards the progress, if its table is part of the total: of a damaged table the size is unknown.
    fn step(&mut self, table_rows: u64) {
        if table_rows == 0 {
            return;
        }
        self.rows_read += 1;
        if self.rows_read.is_multiple_of(ROWS_PER_PROGRESS) {
            let share = u128::from(self.bytes_total) * u128::from(self.rows_read.min(self.rows_total));
            let bytes = u64::try_from(share / u128::from(self.rows_total.max(1))).unwrap_or(self.bytes_total);
            (self.progress)(bytes, Some(self.bytes_total));
        }
    }

    /// Keeps a failure to write until the row's own errors are dealt with.
    fn remember_failure(&mut self, written: Result<(), WriteError>) {
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }

    fn take_failure(&mut self) -> Result<(), ImportError> {
        self.failure.take().map_or(Ok(()), |error| Err(error.into()))
    }
}
