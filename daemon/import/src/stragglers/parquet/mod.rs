//! As much of Parquet as flat tables of numbers and texts need: what pyarrow writes when nobody asks for more.
//!
//! Why not the `parquet` crate: one in eight hundred damaged files makes it panic, and it adds a third to the time that
//! this workspace takes to build. What holds here:
//! - plain and dictionary pages of either version, with Snappy, gzip or nothing; anything else is refused by its name;
//! - no length is believed before the bytes are there: memory is bounded by the file's length times a small factor;
//! - values are handed over one by one, so that a column is never held twice.

mod codec;
mod levels;
mod metadata;
mod page;
mod thrift;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use metadata::{FileMeta, Physical};

/// Both ends of a file.
const MAGIC: &[u8; 4] = b"PAR1";
/// The other magic: the footer itself is encrypted.
const MAGIC_ENCRYPTED: &[u8; 4] = b"PARE";

/// Columns, their pages and row groups of a footer are a few hundred bytes each.
const MAX_FOOTER_BYTES: u64 = 64 << 20;

/// Eleven values a row, of which times hardly repeat: real traces take ten bytes a row. Made-up ones repeat.
const MAX_ROWS_A_BYTE: u64 = 64;

/// Why a file cannot be read, in words that fit behind "it".
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// The system refused.
    #[error("could not be read: {0}")]
    Io(#[from] io::Error),
    /// It ends where more was promised.
    #[error("ends in the middle of {0}; copy it again, whole")]
    Cut(&'static str),
    /// Bytes that no writer of the format writes.
    #[error("is damaged: {0} makes no sense; write it again")]
    Nonsense(&'static str),
    /// It is valid and this reader does not know how to read it.
    #[error(
        "is compressed with {0}; write it again with Snappy (in pandas: to_parquet(…, compression=\"snappy\"))"
    )]
    Codec(&'static str),
    /// Likewise.
    #[error(
        "stores column {0} in a way that is not read here; write it again with pandas' to_parquet, which asks for nothing special"
    )]
    Encoding(String),
    /// Likewise.
    #[error("is encrypted; write it again without")]
    Encrypted,
    /// A file that claims more rows than its bytes can hold.
    #[error("claims {rows} rows in {bytes} bytes, which is more than can be; write it again")]
    Rows {
        /// Rows claimed.
        rows: u64,
        /// Bytes of the file.
        bytes: u64,
    },
}

/// A value of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// None.
    Missing,
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// Text, or bytes that pass for it.
    Text(&'a [u8]),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Table {
    file: File,
    length: u64,
    meta: FileMeta,
}

impl Table {
    /// Reads the footer.
    pub(super) fn open(mut file: File) -> Result<Self, Damage> {
        let length = file.seek(SeekFrom::End(0))?;
        // Magic, footer, its length, magic.
        let Some(before_tail) = length.checked_sub(8).filter(|&rest| rest >= 4) else {
            return Err(Damage::Cut("its first bytes"));
        };
        let mut tail = [0; 8];
        file.seek(SeekFrom::Start(before_tail))?;
        file.read_exact(&mut tail)?;
        let [l0, l1, l2, l3, magic @ ..] = tail;
        if &magic == MAGIC_ENCRYPTED {
            return Err(Damage::Encrypted);
        }
        if &magic != MAGIC {
            return Err(Damage::Cut("its data: the table of contents at the end is missing"));
        }
        let footer = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let Some(start) = before_tail.checked_sub(footer).filter(|_| footer <= MAX_FOOTER_BYTES) else {
            return Err(Damage::Nonsense("the length of its table of contents"));
        };
        let bytes = read_at(&mut file, start, footer)?;
        let meta = metadata::file_meta(&bytes)?;
        if meta.encrypted {
            return Err(Damage::Encrypted);
        }
        Ok(Self { file, length, meta })
    }

    /// Names of the columns that are no part of a nested one.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.meta.columns.iter().map(|c| c.name.as_str())
    }

    /// What the file says about the number of rows, if that can be.
    pub(super) fn rows(&self) -> Result<usize, Damage> {
        let rows = self.meta.groups.iter().fold(0usize, |sum, group| sum.saturating_add(group.rows));
        if rows as u64 / MAX_ROWS_A_BYTE > self.length {
            return Err(Damage::Rows { rows: rows as u64, bytes: self.length });
        }
        Ok(rows)
    }

    /// Hands over the values of a column in the order of the rows. One call a row, or an error.
    pub(super) fn read(&mut self, name: &str, each: &mut dyn FnMut(usize, Cell<'_>)) -> Result<(), Damage> {
        let column = self.meta.columns.iter().find(|c| c.name == name).cloned();
        let unreadable = || Damage::Encoding(name.to_owned());
        let column = column.filter(|c| c.physical != Physical::Other).ok_or_else(unreadable)?;
        let mut first_row = 0;
        for at in 0..self.meta.groups.len() {
            let Some(group) = self.meta.groups.get(at) else { break };
            let chunk = group.chunks.iter().find(|c| matches!(c.path.as_slice(), [only] if only == name));
            let chunk = chunk.ok_or(Damage::Nonsense("a group without one of its columns"))?.clone();
            let rows = group.rows;
            if chunk.values != rows {
                return Err(Damage::Nonsense("the length of a column"));
            }
            if chunk.in_other_file {
                return Err(unreadable());
            }
            let start = chunk.dictionary_offset.filter(|&o| o > 0).unwrap_or(chunk.data_offset);
            let start = start.min(chunk.data_offset) as u64;
            if start.saturating_add(chunk.stored_len as u64) > self.length {
                return Err(Damage::Cut("a column"));
            }
            let bytes = read_at(&mut self.file, start, chunk.stored_len as u64)?;
            page::read_chunk(&bytes, &column, chunk.codec, rows, &mut |row, cell| {
                each(first_row + row, cell)
            })?;
            first_row += rows;
        }
        Ok(())
    }
}

/// Reads a stretch that lies within the file.
fn read_at(file: &mut File, start: u64, length: u64) -> Result<Vec<u8>, Damage> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(Damage::Cut("a column")) }
}
