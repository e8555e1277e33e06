//! nsys
use std::io::Write;
use std::path::Path;
use stallscope_core::ingest::Ingest;
use crate::{Imported, ImportError, Progress};
/// Imports an Nsight Systems SQLite export.
pub fn import<W: Write>(path: &Path, _ingest: &mut Ingest<W>, _progress: Progress<'_>) -> Result<Imported, ImportError> { Err(ImportError::Empty(path.to_owned())) }
