//! Import of JSON: speed on a core, and memory on a large file.

use std::ffi::OsStr;
use std::path::Path;

use super::{Measurement, Options, floors, inputs, repeat};
use crate::cli;
use crate::measure::{Cost, measure};

const RUNS: usize = 5;

fn import(trace: &Path, capture: &Path) -> anyhow::Result<Cost> {
    let args = [OsStr::new("import"), trace.as_os_str(), OsStr::new("-o"), capture.as_os_str()];
    measure(cli::stallscope()?.as_os_str(), args)
}

/// MB of JSON text per second of CPU time.
pub(super) fn speed(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let megabytes = if options.quick { 60 } else { 500 };
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("bench.stall");
    let plain = inputs::trace(megabytes, "json")?;
    let packed = inputs::trace(megabytes, "json.gz")?;
    let text_mb = std::fs::metadata(&plain)?.len() as f64 / 1e6;
    // Per core: several threads would make the clock on the wall look better than the machine is.
    let rate = |trace: &Path| repeat(RUNS, || Ok(text_mb / import(trace, &capture)?.cpu_s));
    floors::read_file(&plain)?;
    let plain_floor = repeat(RUNS, || floors::read_file(&plain))?;
    let packed_floor = repeat(RUNS, || floors::inflate(&packed))?;
    Ok(vec![
        Measurement::new(format!("import of {megabytes} MB JSON, per core"), "MB/s", rate(&plain)?)
            .with_floor(plain_floor, "reading the file from the page cache"),
        Measurement::new(
            format!("import of {megabytes} MB JSON, gzipped, per core"),
            "MB/s of text",
            rate(&packed)?,
        )
        .with_floor(packed_floor, "inflating it and nothing else"),
    ])
}

/// Peak memory of the import of a file that fits into no memory that one would spare for it.
pub(super) fn memory(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let megabytes = if options.quick { 500 } else { 10_000 };
    let folder = tempfile::tempdir()?;
    let trace = inputs::trace(megabytes, "json")?;
    let cost = import(&trace, &folder.path().join("bench.stall"))?;
    if !options.quick {
        // Too large to keep, and made again in half a minute.
        std::fs::remove_file(&trace)?;
    }
    let name = format!("import of {} GB JSON", megabytes as f64 / 1000.0);
    Ok(vec![
        Measurement::new(format!("{name}: peak memory"), "MB", vec![cost.peak_bytes as f64 / 1e6]),
        Measurement::new(format!("{name}: time"), "s", vec![cost.wall_s]),
    ])
}
