//! Files in and out: captures by positioned reads, traces imported on the way, outputs that appear whole or not at all.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use stallscope_core::capture::{Capture, CaptureWriter, ReadAt, WriteError, WriterOptions};
use stallscope_core::ingest::Ingest;
use stallscope_core::merge::merge;
use stallscope_import::flight_recorder::{self, ImportedJob};
use stallscope_import::{ImportError, import_file};
use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::progress::Progress;

/// Bytes that the program waits to gather before it writes.
const WRITE_BUFFER: usize = 1 << 20;

/// Name and version for the captures that this program writes.
pub(crate) fn writer_name() -> String {
    format!("stallscope {}", env!("CARGO_PKG_VERSION"))
}

/// A capture's bytes.
#[derive(Debug)]
pub(crate) struct CaptureFile(File);

impl ReadAt for CaptureFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// Opens a capture; a trace of another tool is imported into a temporary file first.
pub(crate) fn open(path: &Path) -> Result<Capture<CaptureFile>, Failure> {
    let capture = |source| Failure::Capture { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(|e| capture(e.into()))?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(Failure::NotAFile(path.to_owned()));
    }
    if !metadata.is_dir() && begins_like_a_capture(path).map_err(|e| capture(e.into()))? {
        let file = File::open(path).map_err(|e| capture(e.into()))?;
        return Capture::open(CaptureFile(file)).map_err(capture);
    }
    // Positioned reads need a file; it has no name and is gone with this process.
    let folder = std::env::temp_dir();
    let spool = |source| Failure::Spool { folder: folder.clone(), source };
    let file = tempfile::tempfile_in(&folder).map_err(spool)?;
    let copy = file.try_clone().map_err(spool)?;
    let mut ingest = start_capture(BufWriter::with_capacity(WRITE_BUFFER, copy), path)?;
    import_one(path, &mut ingest).map_err(|failure| match failure {
        Failure::Import(ImportError::Write(WriteError::Output(source))) => spool(source),
        other => other,
    })?;
    let written = |error| match error {
        WriteError::Output(source) => spool(source),
        full @ WriteError::Full(_) => Failure::Write { path: path.to_owned(), source: full },
    };
    let (buffer, _) = ingest.finish().map_err(written)?;
    buffer.into_inner().map_err(|e| spool(e.into_error()))?;
    Capture::open(CaptureFile(file)).map_err(capture)
}

/// Opens captures of one job, one a host, as one. With one there is nothing to hold it against.
pub(crate) fn open_together(first: &Path, more: &[PathBuf]) -> Result<Capture<CaptureFile>, Failure> {
    if more.is_empty() {
        return open(first);
    }
    let paths: Vec<&Path> = std::iter::once(first).chain(more.iter().map(PathBuf::as_path)).collect();
    for (at, path) in paths.iter().enumerate() {
        let is_it =
            |metadata: &std::fs::Metadata| paths.iter().take(at).any(|other| same_file(other, metadata));
        if std::fs::metadata(path).is_ok_and(|metadata| is_it(&metadata)) {
            return Err(Failure::Twice(path.to_path_buf()));
        }
    }
    let captures = paths.iter().map(|path| Ok((path.display().to_string(), open(path)?)));
    let merged = merge(captures.collect::<Result<_, Failure>>()?).map_err(Failure::Together)?;
    // There is none only where none was given.
    merged.map_or_else(|| open(first), Ok)
}

/// Whether a file begins with the signature of a capture, or is cut within it.
fn begins_like_a_capture(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut head)?;
    Ok(head.starts_with(b"\x89STALL") || (!head.is_empty() && b"\x89STALL".starts_with(&head)))
}

/// Starts a capture on an output.
pub(crate) fn start_capture<W: Write>(out: W, path: &Path) -> Result<Ingest<W>, Failure> {
    let options = WriterOptions { writer: writer_name(), ..WriterOptions::default() };
    let writer = CaptureWriter::new(out, options).map_err(|e| write_failure(path, e))?;
    Ok(Ingest::new(writer))
}

/// Imports one trace with a progress bar.
pub(crate) fn import_one<W: Write>(
    path: &Path,
    ingest: &mut Ingest<W>,
) -> Result<stallscope_import::Imported, Failure> {
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut progress = Progress::new(&format!("importing {name}"));
    Ok(import_file(path, ingest, &mut |done, total| progress.update(done, total))?)
}

/// Imports the Flight Recorder dumps of one job with a progress bar.
pub(crate) fn import_job<W: Write>(
    paths: &[&PathBuf],
    ingest: &mut Ingest<W>,
) -> Result<ImportedJob, Failure> {
    let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    let mut progress = Progress::new("importing dumps");
    Ok(flight_recorder::import_job(&paths, ingest, &mut |done, total| progress.update(done, total))?)
}

pub(crate) fn output_failure(path: &Path, source: io::Error) -> Failure {
    Failure::Output { path: path.to_owned(), source }
}

pub(crate) fn write_failure(path: &Path, source: WriteError) -> Failure {
    match source {
        WriteError::Output(source) => Failure::Output { path: path.to_owned(), source },
        full @ WriteError::Full(_) => Failure::Write { path: path.to_owned(), source: full },
    }
}

/// Which existing file an output may replace.
pub(crate) struct Replace<'a> {
    /// Ends of names that this command gives its outputs.
    pub(crate) suffixes: &'a [&'a str],
    /// Files that the command reads.
    pub(crate) inputs: &'a [&'a Path],
    /// Whether the user said that any other file may be replaced.
    pub(crate) force: bool,
}

fn same_file(input: &Path, output: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(input).is_ok_and(|i| (i.dev(), i.ino()) == (output.dev(), output.ino()))
}

/// An output file that replaces what was there only when it is complete, or standard output.
pub(crate) struct Output {
    path: PathBuf,
    to: To,
}

enum To {
    File(BufWriter<NamedTempFile>),
    /// Something that cannot be replaced (a pipe, a device): written in place.
    Special(BufWriter<File>),
    Stdout(BufWriter<io::Stdout>),
}

/// What an output's path leads to: a link's end, with its metadata where it exists and may be replaced.
fn replaceable(path: &Path, replace: &Replace<'_>) -> Result<(PathBuf, Option<std::fs::Metadata>), Failure> {
    // What a link leads to is replaced, not the link.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Ok(metadata) = std::fs::metadata(&target) else { return Ok((target, None)) };
    if metadata.is_dir() {
        return Err(output_failure(path, io::ErrorKind::IsADirectory.into()));
    }
    if replace.inputs.iter().any(|input| same_file(input, &metadata)) {
        return Err(Failure::IsInput(path.to_owned()));
    }
    let named = || target.to_str().is_some_and(|name| replace.suffixes.iter().any(|s| name.ends_with(s)));
    if metadata.is_file() && metadata.len() > 0 && !replace.force && !named() {
        return Err(Failure::WouldOverwrite(path.to_owned()));
    }
    Ok((target, Some(metadata)))
}

/// A capture under recording: written in place, so that what is on disk opens whenever this program dies. Nothing is
/// touched before the first flush, which comes with the first records: a recording that cannot begin leaves an older file
/// of the name alone. One recording writes to a file, from its locking to the end of the program: an older file is locked
/// before anything is attached, a new one when it is made.
pub(crate) struct ResumableOutput {
    target: PathBuf,
    waiting: Vec<u8>,
    /// An older file, with its content.
    locked: Option<File>,
    /// What is written to, from the first flush on; locked too.
    file: Option<File>,
}

/// Takes a file for this program alone.
fn lock(file: File) -> io::Result<File> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        // Where a file system has no locks, nobody can be asked.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Why an output refused to be recorded to.
pub(crate) fn recording_failure(path: &Path, source: WriteError) -> Failure {
    match source {
        WriteError::Output(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            Failure::Busy(path.to_owned())
        }
        source if opens(path) => Failure::BrokeOff { path: path.to_owned(), source },
        source => write_failure(path, source),
    }
}

fn opens(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| Capture::open(CaptureFile(file)).is_ok())
}

impl ResumableOutput {
    /// Looks whether the output could be written, and writes nothing yet.
    pub(crate) fn prepare(path: &Path, replace: &Replace<'_>) -> Result<Self, Failure> {
        let (target, metadata) = replaceable(path, replace)?;
        if path == Path::new("-") || metadata.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(Failure::OutputNotAFile(path.to_owned()));
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A folder that refuses a new file would do so after the recording.
        tempfile::tempfile_in(folder).map_err(|source| output_failure(path, source))?;
        let locked = || lock(File::options().write(true).open(&target)?);
        let locked = metadata.is_some().then(locked).transpose().map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => Failure::Busy(path.to_owned()),
            _ => output_failure(path, error),
        })?;
        Ok(Self { target, waiting: Vec::new(), locked, file: None })
    }

    /// The file, empty.
    fn begin(&mut self) -> io::Result<File> {
        let is_there = |file: &File| file.metadata().is_ok_and(|found| same_file(&self.target, &found));
        // An older one that was removed or replaced meanwhile would take all that is written with it.
        let file = match self.locked.take().filter(is_there) {
            Some(file) => file,
            None => lock(File::options().write(true).create(true).truncate(false).open(&self.target)?)?,
        };
        file.set_len(0)?;
        Ok(file)
    }

    fn write_out(&mut self) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        let written = file.write_all(&self.waiting);
        self.file = Some(file);
        self.waiting.clear();
        written
    }
}

impl Write for ResumableOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= WRITE_BUFFER {
            self.write_out()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}

impl Output {
    /// Begins an output. A file that exists is replaced only where it is what this command writes, and never where it is
    /// an input.
    pub(crate) fn create(path: &Path, replace: &Replace<'_>) -> Result<Self, Failure> {
        let failed = |source| Failure::Output { path: path.to_owned(), source };
        if path == Path::new("-") {
            let to = To::Stdout(BufWriter::with_capacity(WRITE_BUFFER, io::stdout()));
            return Ok(Self { path: path.to_owned(), to });
        }
        let (target, metadata) = replaceable(path, replace)?;
        if metadata.is_some_and(|m| !m.is_file()) {
            let file = File::options().write(true).open(&target).map_err(failed)?;
            let to = To::Special(BufWriter::with_capacity(WRITE_BUFFER, file));
            return Ok(Self { path: path.to_owned(), to });
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".stallscope-")
            .suffix(".partial")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(failed)?;
        let to = To::File(BufWriter::with_capacity(WRITE_BUFFER, file));
        Ok(Self { path: target, to })
    }

    /// Puts the complete output in its place.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        let failed = |source| Failure::Output { path: self.path.clone(), source };
        match self.to {
            To::File(buffer) => {
                let file = buffer.into_inner().map_err(|e| failed(e.into_error()))?;
                file.persist(&self.path).map_err(|e| failed(e.error))?;
            }
            To::Special(mut buffer) => buffer.flush().map_err(failed)?,
            To::Stdout(mut buffer) => buffer.flush().map_err(failed)?,
        }
        Ok(())
    }

    /// Where it goes, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::File(out) => out.write(bytes),
            To::Special(out) => out.write(bytes),
            To::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::File(out) => out.flush(),
            To::Special(out) => out.flush(),
            To::Stdout(out) => out.flush(),
        }
    }
}

/// A name in this folder made from an input's: `runs/a.json.gz` with `.stall` gives `a.stall`.
pub(crate) fn beside(input: &Path, suffix: &str) -> PathBuf {
    let name = input.file_name().map_or_else(|| "capture".to_owned(), |n| n.to_string_lossy().into_owned());
    let mut stem = name.as_str();
    for known in [".gz", ".json", ".sqlite", ".db", ".stall"] {
        stem = stem.strip_suffix(known).unwrap_or(stem);
    }
    let stem = stem.strip_suffix(".pt.trace").unwrap_or(stem);
    PathBuf::from(format!("{stem}{suffix}"))
}

/// Prints to standard output; a reader that has gone away is reported as such.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Output { path: PathBuf::from("standard output"), source })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::beside;

    #[test]
    fn output_names_come_from_input_names() {
        assert_eq!(beside(Path::new("runs/a.json.gz"), ".stall"), PathBuf::from("a.stall"));
        assert_eq!(beside(Path::new("w0.1234.pt.trace.json"), ".stall"), PathBuf::from("w0.1234.stall"));
        assert_eq!(beside(Path::new("x.stall"), ".gpu-idle.svg"), PathBuf::from("x.gpu-idle.svg"));
    }
}
