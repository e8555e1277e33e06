//! Reads other tools' traces. File formats and their I/O live here; what a row means is core's business.
//!
//! One folder a format. A format is recognised by its first bytes, never by the file's name. Everything that comes out of
//! a file is hostile until checked: sizes are bounded, nothing recurses with the input, nothing panics, and what is left
//! out is counted under a name of [`LossCounter`](stallscope_schemas::loss::LossCounter).
#![forbid(unsafe_code)]

mod error;
pub mod flight_recorder;
pub mod kineto;
pub mod nsys;
mod sniff;
pub mod stragglers;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use stallscope_core::ingest::Ingest;

pub use error::ImportError;
pub use sniff::Format;

/// Called with the bytes of the input consumed so far and, where known, their total.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// What one file added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What the file was.
    pub format: Format,
    /// Operations on devices.
    pub gpu_ops: u64,
    /// Host calls, operators, ranges.
    pub host_records: u64,
    /// Bytes of text or database read (uncompressed).
    pub bytes: u64,
}

/// What a file looks like.
///
/// # Errors
/// [`ImportError`] when it cannot be read, is no file, or is of no known format.
pub fn format_of(path: &Path) -> Result<Format, ImportError> {
    let metadata = std::fs::metadata(path).map_err(|e| ImportError::open(path, e))?;
    if metadata.is_dir() {
        return Err(ImportError::Directory(path.to_owned()));
    }
    if !metadata.is_file() {
        return Err(ImportError::NotAFile(path.to_owned()));
    }
    sniff::sniff(path, &File::open(path).map_err(|e| ImportError::open(path, e))?)
}

/// Adds one file to a capture.
///
/// # Errors
/// [`ImportError`] when the file cannot be read, is of no known format, or holds nothing that could be understood. A file
/// that is damaged part-way is not an error: what it held is kept and the loss is counted.
pub fn import_file<W: Write>(
    path: &Path,
    ingest: &mut Ingest<W>,
    progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    let metadata = std::fs::metadata(path).map_err(|e| ImportError::open(path, e))?;
    if metadata.is_dir() {
        return Err(ImportError::Directory(path.to_owned()));
    }
    if !metadata.is_file() {
        return Err(ImportError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(|e| ImportError::open(path, e))?;
    match sniff::sniff(path, &file)? {
        Format::Nsys => nsys::import(path, ingest, progress),
        Format::Stragglers => stragglers::import(path, file, ingest, progress),
        Format::FlightRecorder => flight_recorder::import(path, ingest, progress),
        format @ (Format::Json | Format::JsonGz) => kineto::import(path, file, format, ingest, progress),
    }
}
