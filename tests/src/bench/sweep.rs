//! Size of captures, speed of the ledger, and a whole report on a large capture.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use stallscope_core::capture::{Capture, ReadAt};
use stallscope_core::ledger::{self, device::device_ledger};
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::DeviceId;

use super::{Measurement, Options, floors, inputs, repeat};
use crate::cli;
use crate::measure::measure;

const RUNS: usize = 5;

/// A file as a source of positioned reads.
struct InputFile(File);

impl ReadAt for InputFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

fn open(path: &Path) -> anyhow::Result<Capture<InputFile>> {
    Capture::open(InputFile(File::open(path)?)).with_context(|| path.display().to_string())
}

fn dimensions(options: &Options) -> (u32, u64) {
    if options.quick { (8, 500_000) } else { (8, 18_000_000) }
}

/// Bytes of the file for each operation with its launch, of a generated job and of a real trace.
pub(super) fn size(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let (gpus, ops) = dimensions(options);
    let mut results = vec![bytes_per_op("generated job", &inputs::capture(gpus, ops)?)?];
    let folder = tempfile::tempdir()?;
    for name in ["kineto/resnet50_num_workers_0.json.gz", "nsys/mfu_2gpu_before.sqlite"] {
        let Some(trace) = crate::scoreboard::ground_truth().map(|g| g.join(name)) else { continue };
        let capture = folder.path().join("size.stall");
        cli::import(&[trace], &capture)?;
        results.push(bytes_per_op(name, &capture)?);
    }
    Ok(results)
}

fn bytes_per_op(name: &str, path: &Path) -> anyhow::Result<Measurement> {
    let kind = RecordKind::GpuOp.id();
    let sizes = open(path)?.sizes();
    let (rows, bytes) = sizes.iter().find(|s| s.0 == kind).map_or((0, 0), |s| (s.1, s.2));
    let name = format!("size of an operation with its launch, {name} ({rows} operations)");
    Ok(Measurement::new(name, "bytes", vec![bytes as f64 / rows.max(1) as f64]))
}

/// Operations per second through decode, sweep, join with the host and booking, on one core.
pub(super) fn speed(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let ops = if options.quick { 500_000 } else { 5_000_000 };
    let capture = open(&inputs::capture(1, ops)?)?;
    let million_ops = |start: Instant| ops as f64 / 1e6 / start.elapsed().as_secs_f64();
    let runs = repeat(RUNS, || {
        let start = Instant::now();
        device_ledger(&capture, DeviceId(0), ledger::Options::default())?.context("no operations")?;
        Ok(million_ops(start))
    })?;
    // 13 columns of 8 bytes have to be read at least once.
    let floor = repeat(RUNS, || Ok(floors::memory() * 1e3 / 104.0))?;
    let name = "ledger of one device, per core";
    Ok(vec![
        Measurement::new(name, "million operations/s", runs)
            .with_floor(floor, "reading as many decoded bytes from memory"),
    ])
}

/// `stallscope report` on eight GPUs.
pub(super) fn report(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let (gpus, ops) = dimensions(options);
    let capture = inputs::capture(gpus, ops)?;
    let read_s = std::fs::metadata(&capture)?.len() as f64 / 1e6;
    floors::read_file(&capture)?;
    let floor = repeat(RUNS, || Ok(read_s / floors::read_file(&capture)?))?;
    let (mut wall, mut peak) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let cost = measure(cli::stallscope()?.as_os_str(), [OsStr::new("report"), capture.as_os_str()])?;
        wall.push(cost.wall_s);
        peak.push(cost.peak_bytes as f64 / 1e6);
    }
    let name = format!("report on {gpus} GPUs × {:.1} M operations", ops as f64 / 1e6);
    Ok(vec![
        Measurement::new(format!("{name}: time"), "s", wall)
            .with_floor(floor, "reading the file from the page cache"),
        Measurement::new(format!("{name}: peak memory"), "MB", peak),
    ])
}
