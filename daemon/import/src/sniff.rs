//! Tells formats apart by their first bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{ImportError, flight_recorder};

/// Formats that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Kineto or Chrome trace JSON.
    Json,
    /// The same, compressed with gzip.
    JsonGz,
    /// SQLite export of Nsight Systems.
    Nsys,
    /// Parquet file with the operations of a pipelined job.
    Stragglers,
    /// Dump of PyTorch's Flight Recorder, one of a rank.
    FlightRecorder,
}

impl Format {
    /// Name in captures and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json | Self::JsonGz => "kineto",
            Self::Nsys => "nsys",
            Self::Stragglers => "stragglers",
            Self::FlightRecorder => "flight-recorder",
        }
    }
}

/// Signatures of files that people mistake for traces, with what to call them.
const OTHERS: &[(&[u8], &str)] = &[
    (b"\x89STALL\r\n", "it is already a Stallscope capture: use it with report"),
    (b"PK\x03\x04", "it is a zip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it first"),
    (b"BZh", "it is compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "it is compressed with xz: unpack it first"),
    (b"\x7fELF", "it is a program"),
];

pub(crate) fn sniff(path: &Path, mut file: &File) -> Result<Format, ImportError> {
    let mut head = Vec::with_capacity(4096);
    file.by_ref().take(4096).read_to_end(&mut head).map_err(|e| ImportError::open(path, e))?;
    std::io::Seek::rewind(&mut file).map_err(|e| ImportError::open(path, e))?;
    if head.is_empty() {
        return Err(ImportError::Empty(path.to_owned()));
    }
    if head.starts_with(b"SQLite format 3\0") {
        return Ok(Format::Nsys);
    }
    if head.starts_with(b"PAR1") {
        return Ok(Format::Stragglers);
    }
    if head.starts_with(b"\x80") {
        return Ok(Format::FlightRecorder);
    }
    if head.starts_with(b"\x1f\x8b") {
        return Ok(Format::JsonGz);
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(&head);
    if flight_recorder::is_json_dump(text) {
        return Ok(Format::FlightRecorder);
    }
    let first = text.iter().find(|b| !b.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'[')) || first.is_none() {
        return Ok(Format::Json);
    }
    let found =
        OTHERS.iter().find(|(magic, _)| head.starts_with(magic)).map_or("it is not JSON", |(_, name)| name);
    Err(ImportError::UnknownFormat { path: path.to_owned(), found })
}
