//! Builds exports, and reads back what an import made of them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use stallscope_core::capture::{Capture, CaptureWriter, Tables, WriterOptions};
use stallscope_core::ingest::Ingest;
use stallscope_core::rows::{ApiCall, GpuOp, HostSpan, StreamWait};
use stallscope_import::{ImportError, Imported, import_file};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::RecordKind;

/// A database in a folder of its own.
pub(crate) struct Export {
    folder: tempfile::TempDir,
}

/// A serialised id of a process and thread.
pub(crate) fn gid(pid: i64, tid: i64) -> i64 {
    1 << 48 | pid << 24 | tid
}

impl Export {
    /// A database without tables.
    pub(crate) fn empty() -> Self {
        let export = Self { folder: tempfile::tempdir().unwrap() };
        export.sql("CREATE TABLE gone (a); DROP TABLE gone;");
        export
    }

    /// The usual tables, without rows of activity.
    pub(crate) fn new() -> Self {
        let export = Self::empty();
        export.sql(
            "CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
             INSERT INTO StringIds VALUES (1, 'gemm'), (2, 'cudaLaunchKernel_v7000');
             CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, contextId, streamId, correlationId,
               globalPid, demangledName, shortName, graphNodeId);
             CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start, end, eventClass, globalTid, correlationId, nameId);
             CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start, end, deviceId, streamId, correlationId, globalPid, bytes,
               copyKind, srcKind, dstKind, srcDeviceId, dstDeviceId);
             CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start, end, deviceId, streamId, correlationId, globalPid, bytes,
               memKind);",
        );
        export
    }

    /// One kernel on device 0 from 100 to 200.
    pub(crate) fn with_kernel() -> Self {
        let export = Self::new();
        export.sql(
            "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName)
               VALUES (100, 200, 0, 7, 1, 1);",
        );
        export
    }

    /// Many kernels with their launches.
    pub(crate) fn with_many_kernels(count: u32) -> Self {
        let export = Self::new();
        export.sql(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
               INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
               SELECT i * 100, i * 100 + 50, i % 2, 7, i, {gid}, 1 FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
               INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
               SELECT i * 100 - 40, i * 100 - 30, {gid}, i, 2 FROM n;",
            gid = gid(5, 50)
        ));
        export
    }

    /// The usual tables and an empty table of ranges.
    pub(crate) fn with_nvtx() -> Self {
        let export = Self::new();
        export.add_nvtx();
        export
    }

    pub(crate) fn add_nvtx(&self) {
        self.sql("CREATE TABLE NVTX_EVENTS (start, end, eventType, text, textId, domainId, globalTid);");
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("trace.sqlite")
    }

    pub(crate) fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

/// What a capture holds.
pub(crate) struct Read {
    pub(crate) capture: Capture<Vec<u8>>,
    pub(crate) imported: Imported,
    /// With the key of the device, by start.
    pub(crate) ops: Vec<(u32, GpuOp)>,
    /// With the key of the thread.
    pub(crate) spans: Vec<(u32, HostSpan)>,
    pub(crate) calls: Vec<(u32, ApiCall)>,
    pub(crate) waits: Vec<StreamWait>,
    pub(crate) losses: Vec<(u16, u64)>,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.imported)
    }
}

impl Read {
    pub(crate) fn tables(&self) -> &Tables {
        self.capture.tables()
    }

    pub(crate) fn loss(&self, counter: LossCounter) -> u64 {
        self.losses.iter().find(|(id, _)| *id == counter.id()).map_or(0, |(_, n)| *n)
    }
}

pub(crate) fn import(path: impl AsRef<Path>) -> Result<Read, ImportError> {
    let mut ingest = Ingest::new(CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap());
    let imported = import_file(path.as_ref(), &mut ingest, &mut |_, _| {})?;
    let (bytes, _) = ingest.finish().unwrap();
    let capture = Capture::open(bytes).unwrap();
    let mut ops: Vec<(u32, GpuOp)> = capture
        .keys(RecordKind::GpuOp)
        .into_iter()
        .flat_map(|key| capture.rows::<GpuOp>(key).map(move |op| (key, op)).collect::<Vec<_>>())
        .collect();
    ops.sort_by_key(|(_, op)| op.start);
    let spans = capture
        .keys(RecordKind::HostSpan)
        .into_iter()
        .flat_map(|key| capture.rows::<HostSpan>(key).map(move |s| (key, s)).collect::<Vec<_>>())
        .collect();
    let calls = capture
        .keys(RecordKind::ApiCall)
        .into_iter()
        .flat_map(|key| capture.rows::<ApiCall>(key).map(move |s| (key, s)).collect::<Vec<_>>())
        .collect();
    let waits = capture
        .keys(RecordKind::StreamWait)
        .into_iter()
        .flat_map(|key| capture.rows::<StreamWait>(key))
        .collect();
    let losses = capture.losses();
    Ok(Read { imported, ops, spans, calls, waits, losses, capture })
}

pub(crate) fn read(export: &Export) -> Read {
    import(export.path()).unwrap()
}

pub(crate) fn only_op(read: &Read) -> GpuOp {
    assert_eq!(read.ops.len(), 1);
    read.ops[0].1
}
