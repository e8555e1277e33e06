//! kineto
use std::io::Write;
use std::path::Path;
use stallscope_core::ingest::Ingest;
use crate::{Imported, ImportError, Progress};
/// Imports a Kineto or Chrome trace.
pub fn import<W: Write>(path: &Path, _file: std::fs::File, _format: crate::Format, _ingest: &mut Ingest<W>, _progress: Progress<'_>) -> Result<Imported, ImportError> { Err(ImportError::Empty(path.to_owned())) }
