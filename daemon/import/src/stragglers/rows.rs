//! The rows of a trace: one operation each, checked.

use std::path::Path;

use hashbrown::HashMap;
use stallscope_schemas::record::PipelineOpKind;

use super::parquet::{Cell, Damage, Table};
use crate::{ImportError, Progress};

/// Columns that a trace has to have.
const COLUMNS: [&str; 11] =
    ["dp_rank", "stage", "rank", "step", "optype", "start_ts", "duration", "seq_id", "mc", "gmc", "mb_id"];

/// Rows that are held in memory at once, at 160 bytes each: seventy times the trace that the format became known by.
const MAX_ROWS: usize = 1 << 23;

/// Kinds of operation that are told apart by name; traces know fourteen.
const MAX_NAMES: usize = 1 << 10;

/// The longest name of a kind that is kept.
const MAX_NAME_BYTES: usize = 256;

/// Times beyond cannot be put on one line with others: 73 years.
const MAX_TIME_S: f64 = 2.3e9;

/// The longest operation, s: eleven days.
const MAX_DURATION_S: f64 = 1e6;

/// The highest rank, stage, sequence or chunk number: beyond, ids are noise.
const MAX_NUMBER: i64 = 1 << 24;

/// One operation, as the trace has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) dp_rank: u32,
    pub(super) stage: u32,
    pub(super) rank: u32,
    pub(super) step: i64,
    pub(super) kind: PipelineOpKind,
    /// Position in [`Ops::names`].
    pub(super) name: u32,
    pub(super) start_ns: i64,
    pub(super) duration_ns: u64,
    pub(super) sequence: u32,
    pub(super) chunk: Option<u32>,
    pub(super) global_chunk: Option<u32>,
    pub(super) microbatch: Option<u32>,
}

/// All operations of a trace.
#[derive(Debug, Default)]
pub(super) struct Ops {
    pub(super) ops: Vec<Op>,
    pub(super) names: Vec<String>,
    /// Rows without a value that they have to have, or with one out of range.
    pub(super) invalid: u64,
    /// Rows whose times are no times.
    pub(super) invalid_times: u64,
}

/// A row while its columns come in, one after the other.
#[derive(Clone, Copy, Debug)]
struct Raw {
    numbers: [i64; 8],
    start_s: f64,
    duration_s: f64,
    name: u32,
}

/// No value, or none that counts.
const NONE: i64 = i64::MIN;
/// Columns of whole numbers, in the order of [`Raw::numbers`].
const NUMBERS: [&str; 8] = ["dp_rank", "stage", "rank", "step", "seq_id", "mc", "gmc", "mb_id"];
const NO_NAME: u32 = u32::MAX;

impl Default for Raw {
    fn default() -> Self {
        Self { numbers: [NONE; 8], start_s: f64::NAN, duration_s: f64::NAN, name: NO_NAME }
    }
}

/// Reads all operations.
pub(super) fn read(
    path: &Path,
    mut table: Table,
    bytes: u64,
    progress: &mut Progress<'_>,
) -> Result<Ops, ImportError> {
    let malformed = |reason: String| ImportError::Malformed { path: path.to_owned(), reason };
    let damaged = |damage: Damage| malformed(format!("it {damage}"));
    let have: Vec<String> = table.columns().map(str::to_owned).collect();
    let missing: Vec<&str> = COLUMNS.iter().copied().filter(|name| !have.iter().any(|h| h == name)).collect();
    if !missing.is_empty() {
        let some = have.get(..have.len().min(16)).unwrap_or_default().join(", ");
        return Err(malformed(format!(
            "it is a Parquet file without the column{} {} (it has: {some}); a stragglers trace has one row an \
             operation with the columns {}",
            if missing.len() == 1 { "" } else { "s" },
            missing.join(", "),
            COLUMNS.join(", ")
        )));
    }
    let rows = table.rows().map_err(damaged)?;
    if rows == 0 {
        return Err(malformed(
            "it has the columns of a stragglers trace and no rows; record a step at least".into(),
        ));
    }
    if rows > MAX_ROWS {
        return Err(malformed(format!(
            "it has {rows} operations and {MAX_ROWS} are the limit; cut it to fewer steps"
        )));
    }
    let mut raw: Vec<Raw> = Vec::new();
    let mut names = Names::default();
    for (number, column) in (1u64..).zip(COLUMNS) {
        let mut wrong = None;
        let slot = NUMBERS.iter().position(|n| *n == column);
        table
            .read(column, &mut |row, cell| {
                if row >= raw.len() {
                    raw.resize(row + 1, Raw::default());
                }
                let Some(raw) = raw.get_mut(row) else { return };
                let fits = match slot {
                    Some(slot) => raw.number(slot, cell),
                    None if column == "optype" => raw.name(cell, &mut names),
                    None => raw.time(column == "start_ts", cell),
                };
                if !fits {
                    wrong.get_or_insert(row);
                }
            })
            .map_err(damaged)?;
        if let Some(row) = wrong {
            let expected = match column {
                "start_ts" | "duration" => "seconds as floating-point numbers",
                "optype" => "text",
                _ => "whole numbers",
            };
            return Err(malformed(format!(
                "its column {column} is to hold {expected} and row {row} does not; convert the column"
            )));
        }
        progress(bytes / COLUMNS.len() as u64 * number, Some(bytes));
    }
    Ok(checked(&raw, names.all))
}

impl Raw {
    fn number(&mut self, slot: usize, cell: Cell<'_>) -> bool {
        let value = match cell {
            Cell::Missing => NONE,
            Cell::Integer(value) => value,
            // pandas makes floats of whole numbers where some are missing.
            Cell::Real(value) if value.is_nan() => NONE,
            Cell::Real(value) if value.fract() == 0.0 && value.abs() < 1e15 => whole(value),
            Cell::Real(_) | Cell::Text(_) => return false,
        };
        if let Some(slot) = self.numbers.get_mut(slot) {
            *slot = value;
        }
        true
    }

    fn time(&mut self, is_start: bool, cell: Cell<'_>) -> bool {
        let value = match cell {
            Cell::Missing => f64::NAN,
            Cell::Real(value) => value,
            Cell::Integer(_) | Cell::Text(_) => return false,
        };
        *(if is_start { &mut self.start_s } else { &mut self.duration_s }) = value;
        true
    }

    fn name(&mut self, cell: Cell<'_>, names: &mut Names) -> bool {
        match cell {
            Cell::Missing => {}
            Cell::Text(bytes) => self.name = names.number(bytes),
            Cell::Integer(_) | Cell::Real(_) => return false,
        }
        true
    }
}

#[derive(Default)]
struct Names {
    all: Vec<String>,
    numbers: HashMap<Vec<u8>, u32>,
}

impl Names {
    fn number(&mut self, bytes: &[u8]) -> u32 {
        let bytes = bytes.get(..MAX_NAME_BYTES).unwrap_or(bytes);
        if let Some(&number) = self.numbers.get(bytes) {
            return number;
        }
        if self.all.len() >= MAX_NAMES {
            return NO_NAME;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(NO_NAME);
        self.all.push(String::from_utf8_lossy(bytes).into_owned());
        self.numbers.insert(bytes.to_vec(), number);
        number
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "callers check that the number is whole and far from the limits"
)]
fn whole(value: f64) -> i64 {
    value as i64
}

fn nanoseconds(seconds: f64) -> i64 {
    whole((seconds * 1e9).round())
}

/// Ranks, stages and the like.
fn small(value: i64) -> Option<u32> {
    u32::try_from(value).ok().filter(|_| value <= MAX_NUMBER)
}

/// What may be nothing: -1, or no value.
#[expect(clippy::option_option, reason = "nothing is an answer, and a number out of range is none")]
fn small_or_none(value: i64) -> Option<Option<u32>> {
    if value == NONE || value == -1 { Some(None) } else { small(value).map(Some) }
}

fn checked(raw: &[Raw], names: Vec<String>) -> Ops {
    let kinds: Vec<PipelineOpKind> =
        names.iter().map(|name| PipelineOpKind::from_name(name).unwrap_or(PipelineOpKind::Other)).collect();
    let mut all = Ops { names, ..Ops::default() };
    all.ops.reserve_exact(raw.len());
    for row in raw {
        let Some(mut op) = row.op(&kinds) else {
            all.invalid += 1;
            continue;
        };
        let valid = row.start_s.abs() <= MAX_TIME_S && (0.0..=MAX_DURATION_S).contains(&row.duration_s);
        if !valid {
            all.invalid_times += 1;
            continue;
        }
        op.start_ns = nanoseconds(row.start_s);
        let end_ns = nanoseconds(row.start_s + row.duration_s);
        op.duration_ns = u64::try_from(end_ns - op.start_ns).unwrap_or(0);
        all.ops.push(op);
    }
    all
}

impl Raw {
    fn op(&self, kinds: &[PipelineOpKind]) -> Option<Op> {
        let [dp_rank, stage, rank, step, sequence, chunk, global_chunk, microbatch] = self.numbers;
        Some(Op {
            dp_rank: small(dp_rank)?,
            stage: small(stage)?,
            rank: small(rank)?,
            step: Some(step).filter(|&s| s != NONE)?,
            kind: *kinds.get(self.name as usize)?,
            name: self.name,
            start_ns: 0,
            duration_ns: 0,
            sequence: small(sequence)?,
            chunk: small_or_none(chunk)?,
            global_chunk: small_or_none(global_chunk)?,
            microbatch: small_or_none(microbatch)?,
        })
    }
}
