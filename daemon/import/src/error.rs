//! What can go wrong with a whole file, said so that a person knows what to do.

use std::io;
use std::path::{Path, PathBuf};

use stallscope_core::capture::WriteError;

/// Why a file could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a directory.
    #[error("{0} is a directory; name the trace files in it (a shell pattern such as {0}/*.json.gz does)")]
    Directory(PathBuf),
    /// The path is a pipe or a device.
    #[error("{0} is not a file but a pipe or a device; store the trace in a file first")]
    NotAFile(PathBuf),
    /// The file has no bytes.
    #[error("{0} is empty; was the trace still being written?")]
    Empty(PathBuf),
    /// The first bytes belong to no format that is known here.
    #[error(
        "{path} is none of the formats that can be imported ({found}); known are Kineto and Chrome trace JSON \
         (.json, .json.gz), Nsight Systems SQLite exports (nsys export --type sqlite), \
         straggler traces (.parquet) and dumps of PyTorch's Flight Recorder (_dump_0, _dump_1 …)"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it looks like instead.
        found: &'static str,
    },
    /// The file was read and has no operation of any GPU.
    #[error("{path} holds no GPU activity{hint}")]
    NoGpuActivity {
        /// The file.
        path: PathBuf,
        /// What may be the reason.
        hint: String,
    },
    /// The file is of a known format and is broken in a way that leaves nothing to import.
    #[error("{path} cannot be understood: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// Files that are read together are not of one job.
    #[error("{path} cannot be read with the others: {reason}")]
    NotOneJob {
        /// The file that does not fit those before it.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The capture could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ImportError {
    pub(crate) fn open(path: &Path, source: io::Error) -> Self {
        Self::Open { path: path.to_owned(), source }
    }
}
