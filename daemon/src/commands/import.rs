//! `stallscope import`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::json;
use stallscope_core::report::loss_report;
use stallscope_import::{Format, ImportError, format_of};

use crate::args::ImportArgs;
use crate::failure::{Failure, Outcome};
use crate::files::{
    Output, Replace, beside, import_job, import_one, open, print, start_capture, write_failure,
};

pub(crate) fn run(args: &ImportArgs) -> Result<Outcome, Failure> {
    let default = || args.traces.first().map_or_else(|| "capture.stall".into(), |t| beside(t, ".stall"));
    let path = args.output.clone().unwrap_or_else(default);
    let inputs: Vec<&Path> = args.traces.iter().map(PathBuf::as_path).collect();
    let replace = Replace { suffixes: &[".stall"], inputs: &inputs, force: args.force };
    let output = Output::create(&path, &replace)?;
    let mut ingest = start_capture(output, &path)?;
    for (key, value) in &args.label {
        ingest.writer().add_label(key, value);
    }
    let mut imported = Vec::new();
    let mut left_out = Vec::new();
    let mut read = HashSet::new();
    let mut dumps: Vec<&PathBuf> = Vec::new();
    for trace in &args.traces {
        // The same file twice would be two devices that do the same.
        if !read.insert(std::fs::canonicalize(trace).unwrap_or_else(|_| trace.clone())) {
            eprintln!("stallscope: {} is named twice and read once", trace.display());
            continue;
        }
        // Dumps say what they say as a job: they are read together.
        if matches!(format_of(trace), Ok(Format::FlightRecorder)) {
            dumps.push(trace);
            continue;
        }
        match import_one(trace, &mut ingest) {
            Ok(file) => {
                ingest.end_scopes().map_err(|e| write_failure(&path, e))?;
                imported.push((trace, file));
            }
            // A capture that cannot be written will not be with the next file either.
            Err(failure @ (Failure::Output { .. } | Failure::Write { .. })) => return Err(failure),
            Err(failure) if args.traces.len() == 1 => return Err(failure),
            Err(failure) => {
                left_out.push(failure);
            }
        }
    }
    if !dumps.is_empty() {
        let job = import_job(&dumps, &mut ingest).map_err(|failure| match failure {
            Failure::Import(ImportError::Write(error)) => write_failure(&path, error),
            other => other,
        })?;
        imported.extend(job.files.iter().filter_map(|(at, file)| Some((*dumps.get(*at)?, *file))));
        left_out.extend(job.left_out.into_iter().map(Failure::Import));
    }
    let last = if imported.is_empty() { left_out.pop() } else { None };
    for failure in &left_out {
        eprintln!("stallscope: left out: {failure}");
    }
    if let Some(failure) = last {
        return Err(failure);
    }
    let (output, _) = ingest.finish().map_err(|e| write_failure(&path, e))?;
    let to_stdout = output.path() == Path::new("-");
    output.commit()?;
    if !to_stdout {
        summarise(args, &path, &imported, left_out.len())?;
    }
    Ok(if left_out.is_empty() { Outcome::Done } else { Outcome::Partial })
}

fn summarise(
    args: &ImportArgs,
    path: &Path,
    imported: &[(&PathBuf, stallscope_import::Imported)],
    left_out: usize,
) -> Result<(), Failure> {
    // Read back: what counts is what the file says.
    let capture = open(path)?;
    let losses: BTreeMap<u16, u64> = capture.losses().into_iter().collect();
    if args.json {
        let files: Vec<_> = imported
            .iter()
            .map(|(trace, file)| {
                json!({
                    "path": trace.display().to_string(),
                    "format": file.format.name(),
                    "gpu_operations": file.gpu_ops,
                    "host_records": file.host_records,
                    "bytes": file.bytes,
                })
            })
            .collect();
        let losses: Vec<_> = losses.iter().map(|(&c, &n)| json!(loss_report(c, n))).collect();
        let summary = json!({
            "schema_version": 1,
            "capture": path.display().to_string(),
            "bytes": capture.file_len(),
            "devices": capture.tables().devices().len(),
            "files": files,
            "files_left_out": left_out,
            "losses": losses,
        });
        return print(&format!("{summary:#}\n"));
    }
    let ops: u64 = imported.iter().map(|(_, f)| f.gpu_ops).sum();
    let host: u64 = imported.iter().map(|(_, f)| f.host_records).sum();
    let devices = capture.tables().devices().len();
    let plural = if devices == 1 { "" } else { "s" };
    let content = if imported.iter().all(|(_, f)| f.format == Format::FlightRecorder) {
        format!("{host} collective calls of {devices} rank{plural}")
    } else {
        format!("{ops} GPU operations on {devices} device{plural}, {host} host records")
    };
    let megabytes = capture.file_len() as f64 / 1e6;
    let mut text = format!("{}: {content}, {megabytes:.1} MB\n", path.display());
    for (&counter, &count) in &losses {
        let loss = loss_report(counter, count);
        text.push_str(&format!("  {count} × {}: {}\n", loss.counter, loss.meaning));
    }
    text.push_str(&format!("next: stallscope report {}\n", path.display()));
    print(&text)
}
