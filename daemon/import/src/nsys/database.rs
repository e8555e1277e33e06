//! A foreign SQLite file: opened so that nothing is ever written, its tables discovered, its cells read by type.
//!
//! The file is hostile: its schema can hold views, triggers and virtual tables, its pages can be damaged, and a column can
//! hold any type in any row. So only plain tables are read, by the columns that they really have, and every cell is
//! checked.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use hashbrown::HashMap;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use crate::ImportError;

/// Longest text or blob that SQLite may hand out: far above any name, far below memory.
const MAX_VALUE_BYTES: i32 = 16 << 20;

/// Tables that are looked at; Nsight Systems has about 100.
const MAX_TABLES: usize = 4096;

/// Page cache, and so also what a sort holds in memory before it spills to a temporary file, KiB.
const CACHE_KIB: u32 = 64 << 10;

/// Leftovers of a writer that was interrupted; what is in them is not in the file.
const UNFINISHED: &[&str] = &["-journal", "-wal"];

/// An open export.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    tables: HashMap<String, Table>,
    unfinished: bool,
}

/// A table and the columns that this file's version of it has.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    columns: Vec<String>,
    /// The column that is another name for the row id, which makes a look-up by it quick.
    row_id: Option<String>,
    /// Greatest row id: about the number of rows.
    rows: u64,
}

impl Database {
    /// Opens a file read-only and immutable: SQLite takes no locks and creates no files beside it.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let missing = missing_bytes(path);
        let malformed = |e: &rusqlite::Error| {
            let reason = match missing {
                0 => damage(e),
                _ => format!("it is cut short: {missing} bytes are missing; export or copy it again"),
            };
            ImportError::Malformed { path: path.to_owned(), reason }
        };
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(immutable_uri(path), flags).map_err(|e| malformed(&e))?;
        let limits = [
            (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ];
        for (limit, value) in limits {
            connection.set_limit(limit, value).map_err(|e| malformed(&e))?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(|e| malformed(&e))?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)
            .map_err(|e| malformed(&e))?;
        connection
            .execute_batch(&format!(
                "PRAGMA cell_size_check = ON; PRAGMA query_only = ON; PRAGMA cache_size = -{CACHE_KIB}; \
                 PRAGMA temp_store = FILE;"
            ))
            .map_err(|e| malformed(&e))?;
        let tables = read_tables(&connection).map_err(|e| malformed(&e))?;
        let unfinished = missing > 0
            || UNFINISHED.iter().any(|suffix| {
                let mut beside = path.as_os_str().to_owned();
                beside.push(suffix);
                std::fs::metadata(beside).is_ok_and(|m| m.len() > 0)
            });
        Ok(Self { connection, tables, unfinished })
    }

    /// Whether the file is shorter than it says, or a journal lies beside it: its writer did not finish.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// A table by its name.
    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// Names of all tables, in order.
    pub(super) fn table_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tables.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The connection, for statements.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Calls `row` for every row of a table, with the columns in the order asked for; a column that the table lacks
    /// reads as NULL. A damaged page ends the table: the outcome says so.
    pub(super) fn scan(
        &self,
        table: &Table,
        columns: &[&str],
        mut row: impl FnMut(&Row<'_>) -> Result<(), ImportError>,
    ) -> Result<Scan, ImportError> {
        let Ok(mut statement) = self.connection.prepare(&table.select(columns, None)) else {
            return Ok(Scan::CutShort);
        };
        let Ok(mut rows) = statement.query([]) else { return Ok(Scan::CutShort) };
        loop {
            match rows.next() {
                Ok(Some(found)) => row(found)?,
                Ok(None) => return Ok(Scan::Whole),
                Err(_) => return Ok(Scan::CutShort),
            }
        }
    }
}

/// How reading a table ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// At its last row.
    Whole,
    /// At a damaged page.
    CutShort,
}

impl Table {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// About how many rows it has.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether it has this column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c == column)
    }

    /// Whether a look-up by this column is a look-up by row id.
    pub(super) fn is_row_id(&self, column: &str) -> bool {
        self.row_id.as_deref() == Some(column)
    }

    /// A statement that reads these columns, NULL for those that the table lacks.
    pub(super) fn select(&self, columns: &[&str], order_by: Option<&str>) -> String {
        let mut sql = String::from("SELECT ");
        for (at, column) in columns.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let expression = if self.has(column) { quoted(column) } else { "NULL".to_owned() };
            let _ = write!(sql, "{comma}{expression}");
        }
        let _ = write!(sql, " FROM {}", quoted(&self.name));
        if let Some(column) = order_by.filter(|c| self.has(c)) {
            let _ = write!(sql, " ORDER BY {}", quoted(column));
        }
        sql
    }
}

fn read_tables(connection: &Connection) -> rusqlite::Result<HashMap<String, Table>> {
    let mut tables = HashMap::new();
    let mut names = connection.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'table'")?;
    let mut rows = names.query([])?;
    while let Some(row) = rows.next()? {
        let (Some(name), Some(sql)) = (text(row, 0).ok().flatten(), text(row, 1).ok().flatten()) else {
            continue;
        };
        let is_virtual = sql.trim_start().get(..14).is_some_and(|s| s.eq_ignore_ascii_case("CREATE VIRTUAL"));
        if is_virtual || name.starts_with("sqlite_") {
            continue;
        }
        if tables.len() >= MAX_TABLES {
            break;
        }
        // A table whose definition SQLite refuses is as good as absent.
        if let Ok(table) = read_table(connection, name.into_owned()) {
            tables.insert(table.name.clone(), table);
        }
    }
    Ok(tables)
}

fn read_table(connection: &Connection, name: String) -> rusqlite::Result<Table> {
    let mut columns = Vec::new();
    let mut keys = Vec::new();
    let mut statement = connection.prepare("SELECT name, type, pk FROM pragma_table_info(?1)")?;
    let mut rows = statement.query([&name])?;
    while let Some(row) = rows.next()? {
        let column: String = row.get(0)?;
        if row.get::<_, i64>(2)? > 0 {
            keys.push((column.clone(), row.get::<_, String>(1)?));
        }
        columns.push(column);
    }
    let row_id = match keys.as_slice() {
        [(column, kind)] if kind.eq_ignore_ascii_case("INTEGER") => Some(column.clone()),
        _ => None,
    };
    // Only a hint for progress and for the choice of a plan: a table without row ids, or a damaged one, counts as 0.
    let rows = connection
        .query_row(&format!("SELECT max(rowid) FROM {}", quoted(&name)), [], |row| {
            row.get::<_, Option<i64>>(0)
        })
        .ok()
        .flatten()
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(0);
    Ok(Table { name, columns, row_id, rows })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The file's URI. Bytes that mean something in a URI are escaped, so that any path opens the file that it names.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    uri
}

/// How many bytes the file lacks of the pages that its header counts. SQLite refuses such a file, or reads zeros.
fn missing_bytes(path: &Path) -> u64 {
    let mut head = [0; 100];
    let Ok(mut file) = File::open(path) else { return 0 };
    let (Ok(()), Ok(metadata)) = (file.read_exact(&mut head), file.metadata()) else { return 0 };
    let number = |at: usize| {
        head.get(at..at + 4)
            .and_then(|b| b.first_chunk())
            .map_or(0, |b: &[u8; 4]| u64::from(u32::from_be_bytes(*b)))
    };
    // The count is valid where the last writer knew of it: both counters then agree. 1 stands for pages of 64 KiB.
    let page_bytes = match number(16) >> 16 {
        1 => 65536,
        bytes => bytes,
    };
    let whole = if number(24) == number(92) { number(28) * page_bytes } else { 0 };
    whole.saturating_sub(metadata.len())
}

/// What SQLite says, with what to do about it.
fn damage(error: &rusqlite::Error) -> String {
    format!(
        "SQLite says \"{error}\"; if the file was cut or is still being written, export it again with nsys export"
    )
}

/// A cell of a type that its column cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongType;

/// An integer, or `None` for NULL.
pub(super) fn integer(row: &Row<'_>, at: usize) -> Result<Option<i64>, WrongType> {
    match row.get_ref(at) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Integer(value)) => Ok(Some(value)),
        _ => Err(WrongType),
    }
}

/// A text, or `None` for NULL.
pub(super) fn text<'r>(row: &'r Row<'_>, at: usize) -> Result<Option<std::borrow::Cow<'r, str>>, WrongType> {
    match row.get_ref(at) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Text(bytes)) => Ok(Some(String::from_utf8_lossy(bytes))),
        _ => Err(WrongType),
    }
}
