//! A database like an export of Nsight Systems whose tables, columns and cells follow from bytes.
//!
//! Mutating an SQLite file mostly yields files that SQLite refuses; mutating what is in the tables gets to the importer.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// Tables that importers look at, with the columns that they may have.
const TABLES: &[(&str, &[&str])] = &[
    ("StringIds", &["id", "value"]),
    (
        "CUPTI_ACTIVITY_KIND_KERNEL",
        &[
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "demangledName",
            "shortName",
            "graphNodeId",
        ],
    ),
    (
        "CUPTI_ACTIVITY_KIND_RUNTIME",
        &["start", "end", "eventClass", "globalTid", "correlationId", "nameId", "returnValue"],
    ),
    (
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        &[
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "bytes",
            "copyKind",
            "srcKind",
            "dstKind",
        ],
    ),
    (
        "CUPTI_ACTIVITY_KIND_MEMSET",
        &["start", "end", "deviceId", "streamId", "correlationId", "globalPid", "bytes", "value"],
    ),
    (
        "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
        &[
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "syncType",
            "eventId",
            "eventSyncId",
        ],
    ),
    (
        "CUPTI_ACTIVITY_KIND_CUDA_EVENT",
        &["deviceId", "streamId", "correlationId", "globalPid", "eventId", "eventSyncId"],
    ),
    (
        "NVTX_EVENTS",
        &["start", "end", "eventType", "text", "textId", "globalTid", "domainId", "category", "rangeId"],
    ),
    ("TARGET_INFO_GPU", &["id", "name", "uuid", "busLocation", "cuDevice"]),
    ("TARGET_INFO_SESSION_START_TIME", &["utcEpochNs", "utcTime"]),
    ("PROCESSES", &["globalPid", "pid", "name"]),
    ("ThreadNames", &["globalTid", "nameId"]),
    (
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
        &["start", "end", "deviceId", "streamId", "correlationId", "globalPid", "graphId"],
    ),
];

/// Rows of one database: enough to join, few enough to be quick.
const MOST_ROWS: usize = 256;

/// Takes bytes apart; at the end everything is zero.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> i64 {
        i64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A cell: mostly small numbers, which join; now and then something that does not belong there.
    fn cell(&mut self) -> Value {
        match self.byte() {
            0 => Value::Null,
            1 => Value::Integer(self.word()),
            2 => Value::Real(f64::from_bits(self.word().cast_unsigned())),
            3 => {
                let len = usize::from(self.byte()) % 40;
                Value::Text(
                    String::from_utf8_lossy(&(0..len).map(|_| self.byte()).collect::<Vec<_>>()).into_owned(),
                )
            }
            4 => Value::Blob((0..usize::from(self.byte()) % 16).map(|_| self.byte()).collect()),
            // A process in the upper half, a thread in the lower, as the exports do.
            5 => Value::Integer(i64::from(self.byte()) << 24 | i64::from(self.byte())),
            6 => Value::Integer(i64::from(self.byte()) << 8 | i64::from(self.byte())),
            small => Value::Integer(i64::from(small) - 7),
        }
    }
}

/// Makes the database.
pub(super) fn make(data: &[u8], path: &Path) -> rusqlite::Result<()> {
    let mut bytes = Bytes(data);
    let database = Connection::open(path)?;
    // Some callers' inputs are numbers without meaning; without a transaction every row would be written by itself.
    database.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")?;
    let absent = u16::from_le_bytes([bytes.byte(), bytes.byte()]);
    for (at, (table, columns)) in TABLES.iter().enumerate() {
        if absent & (1 << at) == 0 {
            // One column of some tables is missing, as in other versions of the exporter.
            let dropped = usize::from(bytes.byte());
            let columns: Vec<&str> =
                columns.iter().enumerate().filter(|(i, _)| i + 1 != dropped).map(|(_, name)| *name).collect();
            // Quoted: "end" and "text" are words of SQL.
            database.execute_batch(&format!("CREATE TABLE \"{table}\" (\"{}\")", columns.join("\", \"")))?;
        }
    }
    for _ in 0..MOST_ROWS {
        if bytes.0.is_empty() {
            break;
        }
        let (table, columns) = TABLES[usize::from(bytes.byte()) % TABLES.len()];
        let cells: Vec<Value> = columns.iter().map(|_| bytes.cell()).collect();
        let places = vec!["?"; cells.len()].join(", ");
        // A table that is absent or lacks a column takes no row.
        let _ =
            database.execute(&format!("INSERT INTO \"{table}\" VALUES ({places})"), params_from_iter(cells));
    }
    database.execute_batch("COMMIT")
}

/// An input that makes a kernel, its launch and their names.
pub(super) fn sample() -> Vec<u8> {
    let small = |n: u8| n + 7;
    let mut out = vec![0; 2 + TABLES.len()];
    out.extend([0, small(1), 3, 4]);
    out.extend(b"gemm");
    out.extend([0, small(2), 3, 16]);
    out.extend(b"cudaLaunchKernel");
    // Kernel: start, end, device, stream, correlation, process, two names, no graph.
    out.extend([1, 6, 4, 0, 6, 5, 0, small(0), small(7), small(9), 5, 1, 0, small(1), small(1), 0]);
    // Runtime: start, end, class, thread, correlation, name, result.
    out.extend([2, 6, 3, 0, 6, 3, 9, small(0), 5, 1, 4, small(9), small(2), small(0)]);
    // A copy and a range.
    out.extend([
        3,
        6,
        6,
        0,
        6,
        7,
        0,
        small(0),
        small(7),
        small(10),
        5,
        1,
        0,
        6,
        1,
        0,
        small(1),
        small(0),
        small(2),
    ]);
    out.extend([7, 6, 1, 0, 6, 8, 0, small(59), 3, 4]);
    out.extend(b"step");
    out.extend([0, 5, 1, 4, small(0), 0, 0]);
    out
}

/// The same as a file.
pub(super) fn sample_file() -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sample.sqlite");
    make(&sample(), &path)?;
    Ok(std::fs::read(path)?)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    #[test]
    fn the_sample_has_a_kernel_with_its_launch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.sqlite");
        super::make(&super::sample(), &path).unwrap();
        let joined: i64 = Connection::open(path)
            .unwrap()
            .query_row(
                "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL k
                 JOIN CUPTI_ACTIVITY_KIND_RUNTIME r ON r.correlationId = k.correlationId
                 JOIN StringIds s ON s.id = k.demangledName WHERE k.start > r.start AND s.value = 'gemm'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(joined, 1);
    }
}
