//! Dumps of PyTorch's Flight Recorder: the last collective calls of each rank of a job, as its watchdog wrote them when they
//! did not end.
//!
//! A job is one file a rank, `_dump_0`, `_dump_1` and so on, as a pickle (`pickle`) or as JSON (`json`); `dump` makes sense of
//! either, whatever version wrote it; `job` sees that the files belong together. What holds:
//! - nothing that is in a file is executed: a pickle that asks for it is refused;
//! - memory and work are bounded by the bytes of the file, and by constants;
//! - the rank is what the groups have in common, else the number at the end of the file's name.
//!
//! Each rank becomes a process with a device and no time of its own: its calls are `collective call` rows, its groups are
//! `state of a group` rows.

mod dump;
mod job;
mod json;
mod pickle;
mod rows;
mod value;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use stallscope_core::ingest::Ingest;
use stallscope_schemas::loss::LossCounter;

use self::dump::Dump;
use self::job::Job;
use self::value::{Id, Values};
use crate::{Format, ImportError, Imported, Progress};

/// Dumps are read whole: 2,000 calls with stacks are 5 MB.
const MAX_BYTES: u64 = 64 << 20;

/// Whether a document's head looks like a dump in JSON. Kineto traces have a `pg_config` as well, further in.
pub(crate) fn is_json_dump(head: &[u8]) -> bool {
    let Some(rest) = head.trim_ascii_start().strip_prefix(b"{") else { return false };
    let rest = rest.trim_ascii_start();
    let first = [&b"\"entries\""[..], b"\"pg_config\"", b"\"pg_status\"", b"\"nccl_comm_state\""];
    first.iter().any(|key| rest.starts_with(key))
        || memchr::memmem::find(head, b"\"collective_seq_id\"").is_some()
}

/// What became of the files of a job.
#[derive(Debug, Default)]
pub struct ImportedJob {
    /// Positions of the files that were read, with what each added.
    pub files: Vec<(usize, Imported)>,
    /// Why others were not.
    pub left_out: Vec<ImportError>,
}

/// Imports the dumps of one job. A file that is no dump is left out: a job is told without some of its ranks, too.
///
/// # Errors
/// [`ImportError`] when two dumps are of the same rank or of different jobs, when none can be read, or when the capture cannot
/// be written. Nothing is written to the capture before all files are found to belong together.
pub fn import_job<W: Write>(
    paths: &[&Path],
    ingest: &mut Ingest<W>,
    progress: Progress<'_>,
) -> Result<ImportedJob, ImportError> {
    // Twice over the files: what does not belong together is refused as a whole, and memory is that of one of them.
    let mut job = Job::default();
    let mut found = ImportedJob::default();
    let (mut usable, mut total) = (Vec::new(), 0u64);
    for (position, path) in paths.iter().enumerate() {
        match with_dump(path, |dump, _, bytes| job.check(path, &dump).map(|()| bytes)) {
            Ok(checked) => {
                total = total.saturating_add(checked?);
                usable.push((position, *path));
            }
            Err(error) => found.left_out.push(error),
        }
    }
    if usable.is_empty() {
        return Err(found.left_out.pop().unwrap_or_else(|| malformed(Path::new(""), "no file".to_owned())));
    }
    let mut done = 0u64;
    for (position, path) in usable {
        let imported = with_dump(path, |mut dump, values, bytes| {
            let rank = job::rank_of(path, &dump)?;
            ingest.writer().count_loss(LossCounter::EventMalformed, dump.skipped);
            dump.add_unconfigured();
            rows::write(path, rank, &job, &dump, values, ingest)?;
            let (format, host_records) = (Format::FlightRecorder, dump.calls.len() as u64);
            Ok::<_, ImportError>(Imported { format, gpu_ops: 0, host_records, bytes })
        })??;
        found.files.push((position, imported));
        done = done.saturating_add(imported.bytes);
        progress(done, Some(total));
    }
    Ok(found)
}

/// Imports one dump by itself.
///
/// # Errors
/// As [`import_job`].
pub(crate) fn import<W: Write>(
    path: &Path,
    ingest: &mut Ingest<W>,
    progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    let mut job = import_job(&[path], ingest, progress)?;
    job.files.pop().map(|(_, imported)| imported).ok_or_else(|| ImportError::Empty(path.to_owned()))
}

/// Reads a dump and hands it on, with its values and the bytes that they took.
fn with_dump<T>(
    path: &Path,
    mut then: impl FnMut(Dump<'_>, &Values<'_>, u64) -> T,
) -> Result<T, ImportError> {
    let bytes = read(path)?;
    let (values, root) = parse(path, &bytes)?;
    let dump = dump_of(path, &values, root)?;
    job::rank_of(path, &dump)?;
    Ok(then(dump, &values, bytes.len() as u64))
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let file = File::open(path).map_err(|e| ImportError::open(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| ImportError::open(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(malformed(path, format!("it is larger than {} MiB, which no dump is", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

fn parse<'b>(path: &Path, bytes: &'b [u8]) -> Result<(Values<'b>, Id), ImportError> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        json::read(bytes).map_err(|reason| malformed(path, reason))
    } else {
        pickle::read(bytes).map_err(|error| malformed(path, error.to_string()))
    }
}

fn dump_of<'v>(path: &Path, values: &'v Values<'_>, root: Id) -> Result<Dump<'v>, ImportError> {
    let dump = Dump::of(values, root).ok_or_else(|| {
        let reason =
            "it has no \"version\" with \"entries\" or \"pg_config\", which every Flight Recorder dump has";
        malformed(path, reason.to_owned())
    })?;
    if values.is_spent() {
        return Err(malformed(path, "its values refer to each other more often than a dump's do".to_owned()));
    }
    Ok(dump)
}

fn malformed(path: &Path, reason: String) -> ImportError {
    ImportError::Malformed { path: path.to_owned(), reason }
}
