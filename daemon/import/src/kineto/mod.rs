//! Kineto (PyTorch) and Chrome trace JSON, plain or compressed with gzip, from 2021 to now, NVIDIA and AMD; also what XLA,
//! JAX and TensorFlow write.
//!
//! The files reach tens of gigabytes as one JSON document with one huge array. So this is a scanner of its own over a window
//! that slides along the text (`input`, `scanner`, `document`); libraries that parse a whole document (sonic-rs,
//! simd-json) need all of it in memory, refuse the NaN that profilers write, and pass times through doubles, which have
//! not enough digits for nanoseconds since 1970 (`time`).
//!
//! Invariants:
//! - memory is bounded by constants: the window, the caches of names, the tables of threads and streams;
//! - times are exact to the nanosecond; `baseTimeNanoseconds` may come last, so it becomes the source's clock;
//! - nothing recurses with the input; whatever is left out is counted.

mod actors;
mod args;
mod category;
mod devices;
mod document;
mod event;
mod input;
mod metadata;
mod names;
mod ranges;
mod scanner;
mod text;
mod time;
mod trace;
mod xla;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use stallscope_core::capture::Source;
use stallscope_core::ingest::Ingest;
use stallscope_schemas::loss::LossCounter;

use self::document::Outcome;
use self::input::{Input, Sizes};
use self::trace::{Counts, Trace};
use crate::{Format, ImportError, Imported, Progress};

/// Bytes of the file between two calls of the progress callback.
const PROGRESS_STEP: u64 = 4 << 20;

/// Compressed bytes that are read at once.
const GZIP_BUFFER: usize = 128 << 10;

/// Limits that tests lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that are read at once; 0 stands for the default.
    pub buffer: usize,
    /// Largest event that is not skipped, in bytes; 0 stands for the default.
    pub event: usize,
}

impl Limits {
    fn sizes(self) -> Sizes {
        let default = Sizes::default();
        Sizes {
            buffer: if self.buffer == 0 { default.buffer } else { self.buffer },
            value_limit: if self.event == 0 { default.value_limit } else { self.event },
        }
    }
}

/// Imports a Kineto or Chrome trace.
///
/// # Errors
/// [`ImportError`] when the file cannot be read, is no trace, or has no activity of a GPU. A damaged file is imported as
/// far as it can be understood, and the loss is counted.
pub fn import<W: Write>(
    path: &Path,
    file: File,
    format: Format,
    ingest: &mut Ingest<W>,
    progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    let total = file.metadata().ok().map(|m| m.len());
    let counted = Counting { inner: file, read: 0, told: 0, total, progress };
    import_from(path, counted, format, Limits::default(), ingest)
}

/// Imports a trace from any reader; `path` names it in the capture and in errors.
///
/// # Errors
/// As [`import`].
pub fn import_from<R: Read, W: Write>(
    path: &Path,
    reader: R,
    format: Format,
    limits: Limits,
    ingest: &mut Ingest<W>,
) -> Result<Imported, ImportError> {
    if format == Format::JsonGz {
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(GZIP_BUFFER, reader));
        import_text(path, decoder, format, limits, ingest)
    } else {
        import_text(path, reader, format, limits, ingest)
    }
}

fn import_text<R: Read, W: Write>(
    path: &Path,
    reader: R,
    format: Format,
    limits: Limits,
    ingest: &mut Ingest<W>,
) -> Result<Imported, ImportError> {
    let source = Source { path: path.to_string_lossy().into_owned(), format: format.name().to_owned() };
    let source = ingest.writer().add_source(source);
    let mut input = Input::new(reader, limits.sizes());
    let mut trace = Trace::new(ingest, source);
    let outcome = document::read(&mut input, &mut trace)?;
    let counts = trace.counts();
    trace.finish(&metadata::stem(path))?;
    // An error of the system is about the disk; anything else is the decoder's about the content, which ends the input.
    let mut damage = None;
    match input.take_failure() {
        Some(error) if error.raw_os_error().is_some() => return Err(ImportError::open(path, error)),
        Some(error) => damage = Some(error),
        None => {}
    }
    if !outcome.complete {
        ingest.writer().count_loss(LossCounter::InputTruncated, 1);
    }
    if counts.gpu_ops == 0 {
        return Err(nothing_there(path, &outcome, counts, damage));
    }
    Ok(Imported { format, gpu_ops: counts.gpu_ops, host_records: counts.host_records, bytes: input.passed() })
}

/// Says why a file gave no operation of a device.
fn nothing_there(path: &Path, outcome: &Outcome, counts: Counts, damage: Option<io::Error>) -> ImportError {
    let path = path.to_owned();
    let events = thousands(outcome.events);
    if let Some(error) = damage {
        let reason = format!(
            "its gzip stream is damaged ({error}) before the first activity of a GPU, after {events} events"
        );
        return ImportError::Malformed { path, reason };
    }
    if let (false, Some((offset, expected))) = (outcome.complete, outcome.problem) {
        let reason =
            format!("at byte {offset} of its text there should be {expected}; {events} events came before");
        return ImportError::Malformed { path, reason };
    }
    if !outcome.has_events {
        let keys = outcome.keys.join(", ");
        let reason =
            format!("it has no \"traceEvents\", which every Kineto or Chrome trace has (its keys: {keys})");
        return ImportError::Malformed { path, reason };
    }
    let hint = match (counts.host_records, outcome.events) {
        (_, 0) => ": its list of events is empty".to_owned(),
        (0, _) => format!(": none of its {events} events is a kernel, a copy or a fill"),
        (host, _) => {
            format!(
                "; it has {} host events: was the trace taken with ProfilerActivity.CUDA?",
                thousands(host)
            )
        }
    };
    ImportError::NoGpuActivity { path, hint }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Counts the bytes of a file as they are read and reports them.
struct Counting<'p> {
    inner: File,
    read: u64,
    told: u64,
    total: Option<u64>,
    progress: Progress<'p>,
}

impl Read for Counting<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(to)?;
        self.read += read as u64;
        if self.read - self.told >= PROGRESS_STEP || (read == 0 && self.told != self.read) {
            self.told = self.read;
            (self.progress)(self.read, self.total);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 12_345, 1_234_567].map(thousands),
            ["0", "999", "1,000", "12,345", "1,234,567"]
        );
    }
}
