//! Imports a trace from memory and opens the capture that it gave.

use std::io::Read;
use std::path::{Path, PathBuf};

use stallscope_core::capture::{Capture, CaptureWriter, WriterOptions};
use stallscope_core::ingest::Ingest;
use stallscope_core::rows::Row;
use stallscope_import::kineto::{Limits, import_from};
use stallscope_import::{Format, ImportError, Imported};
use stallscope_schemas::loss::LossCounter;

/// What an import gave.
#[allow(dead_code, reason = "each test file uses its own part")]
pub(crate) struct Import {
    pub(crate) result: Result<Imported, ImportError>,
    pub(crate) capture: Capture<Vec<u8>>,
    pub(crate) bytes: Vec<u8>,
}

#[allow(dead_code, reason = "each test file uses its own part")]
impl Import {
    pub(crate) fn of(text: impl AsRef<[u8]>) -> Self {
        Self::limited(text, Limits::default())
    }

    pub(crate) fn limited(text: impl AsRef<[u8]>, limits: Limits) -> Self {
        Self::read("trace.json", text.as_ref(), Format::Json, limits)
    }

    pub(crate) fn read(name: &str, reader: impl Read, format: Format, limits: Limits) -> Self {
        let writer =
            CaptureWriter::new(Vec::new(), WriterOptions::default()).expect("a Vec takes everything");
        let mut ingest = Ingest::new(writer);
        let result = import_from(Path::new(name), reader, format, limits, &mut ingest);
        let (bytes, _) = ingest.finish().expect("a Vec takes everything");
        let capture = Capture::open(bytes.clone()).expect("what was written opens");
        Self { result, capture, bytes }
    }

    /// All rows of a kind, by key and start.
    pub(crate) fn rows<R: Row>(&self) -> Vec<R> {
        self.capture.keys(R::KIND).into_iter().flat_map(|key| self.capture.rows::<R>(key)).collect()
    }

    /// Losses by name.
    pub(crate) fn losses(&self) -> Vec<(&'static str, u64)> {
        let named = |(id, count)| (LossCounter::from_id(id).map_or("?", LossCounter::name), count);
        self.capture.losses().into_iter().map(named).collect()
    }

    pub(crate) fn string(&self, id: stallscope_schemas::units::StringId) -> &str {
        self.capture.tables().string(id)
    }

    pub(crate) fn error(&self) -> String {
        self.result.as_ref().expect_err("an error").to_string()
    }
}

/// A document with these events.
#[allow(dead_code, reason = "each test file uses its own part")]
pub(crate) fn document(events: &[&str]) -> String {
    format!("{{\"schemaVersion\":1,\"traceEvents\":[{}],\"displayTimeUnit\":\"ms\"}}", events.join(",\n"))
}

/// A kernel at these microseconds.
#[allow(dead_code, reason = "each test file uses its own part")]
pub(crate) fn kernel(start: &str, duration: &str, correlation: u64) -> String {
    format!(
        r#"{{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":{start},"dur":{duration},
        "args":{{"device":0,"stream":7,"correlation":{correlation}}}}}"#
    )
}

/// A launch at these microseconds.
#[allow(dead_code, reason = "each test file uses its own part")]
pub(crate) fn launch(start: &str, duration: &str, correlation: u64) -> String {
    format!(
        r#"{{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":42,"tid":43,"ts":{start},"dur":{duration},
        "args":{{"cbid":211,"correlation":{correlation}}}}}"#
    )
}

/// A file of the shared ground truth; says so where there is none.
#[allow(dead_code, reason = "each test file uses its own part")]
pub(crate) fn ground_truth(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ground-truth").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no {name} in ../shared/ground-truth");
    None
}
