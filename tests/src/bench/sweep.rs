//! Size of captures, speed of the ledger, and a whole report on a large capture.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use stallscope_core::capture::{Capture, CaptureWriter, ColumnSet, ReadAt, Run, WriterOptions};
use stallscope_core::collectives::Collectives;
use stallscope_core::ledger::{self, device::device_ledger};
use stallscope_core::rows::{ApiCall, GpuOp, HostSpan, Row};
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::DeviceId;

use super::{Measurement, Options, floors, inputs, repeat};
use crate::cli;
use crate::measure::measure;

const RUNS: usize = 5;

/// A file as a source of positioned reads.
pub(super) struct InputFile(File);

impl ReadAt for InputFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

pub(super) fn open(path: &Path) -> anyhow::Result<Capture<InputFile>> {
    Capture::open(InputFile(File::open(path)?)).with_context(|| path.display().to_string())
}

fn dimensions(options: &Options) -> (u32, u64) {
    if options.quick { (8, 500_000) } else { (8, 18_000_000) }
}

/// Real traces whose operations are repeated to measure their size: times in whole microseconds, in nanoseconds from
/// CUPTI, and of two GPUs with several streams.
const REAL: &[&str] = &[
    "kineto/resnet50_num_workers_0.json.gz",
    "tracelens/h100/facebook_timesformer-base-finetuned-k400__1016002.json.gz",
    "nsys/mfu_2gpu_before.sqlite",
];

/// Operations that a repeated trace has at least.
const REPEATED_OPS: usize = 1_000_000;

/// Bytes of the file for each operation with its launch, of a generated job and of real traces repeated.
pub(super) fn size(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let (gpus, ops) = dimensions(options);
    let mut results = vec![bytes_per_op("generated job", &open(&inputs::capture(gpus, ops)?)?)];
    let folder = tempfile::tempdir()?;
    for name in REAL {
        let Some(trace) = crate::scoreboard::ground_truth().map(|g| g.join(name)) else { continue };
        let capture = folder.path().join("size.stall");
        cli::import(&[trace], &capture)?;
        results.push(bytes_per_op(&format!("{name}, repeated"), &repeated(&open(&capture)?)?));
    }
    Ok(results)
}

/// A capture with the operations of another over and over, later each time, until there are enough.
fn repeated(of: &Capture<InputFile>) -> anyhow::Result<Capture<Vec<u8>>> {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default())?;
    let devices = of.keys(RecordKind::GpuOp);
    let rows: Vec<Vec<GpuOp>> = devices.iter().map(|&d| of.rows::<GpuOp>(d).collect()).collect();
    let extents = devices.iter().filter_map(|&d| of.extent(RecordKind::GpuOp, d));
    let (first, last) = extents.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).context("no operations")?;
    let period = last.since(first) + 1_000_000;
    let correlations = rows.iter().flatten().map(|op| op.correlation.0).max().unwrap_or(0) + 1;
    let each: usize = rows.iter().map(Vec::len).sum();
    for round in 0..REPEATED_OPS.div_ceil(each) as u64 {
        for (&device, rows) in devices.iter().zip(&rows) {
            for op in rows {
                let mut op = *op;
                op.start = op.start.plus(round * period);
                op.correlation.0 += round * correlations;
                if let Some(launch) = &mut op.launch {
                    launch.start = launch.start.plus(round * period);
                }
                writer.push_gpu_op(DeviceId(device), op)?;
            }
        }
    }
    Ok(Capture::open(writer.finish()?.0)?)
}

fn bytes_per_op<S: ReadAt>(name: &str, capture: &Capture<S>) -> Measurement {
    let kind = RecordKind::GpuOp.id();
    let (rows, bytes) = capture.sizes().iter().find(|s| s.0 == kind).map_or((0, 0), |s| (s.1, s.2));
    let name = format!("size of an operation with its launch, {name} ({rows} operations)");
    Measurement::new(name, "bytes", vec![bytes as f64 / rows.max(1) as f64])
}

/// Decodes everything that the ledger of device 0 reads, and nothing more.
fn decode_only<S: ReadAt>(capture: &Capture<S>) -> u64 {
    fn drain<S: ReadAt, R: Row>(capture: &Capture<S>, key: u32) -> u64 {
        let mut merged = capture.merged::<R>(key, ColumnSet::ALL);
        let mut rows = 0;
        while let Some(run) = merged.next_run() {
            if let Run::Rows(_, range) = run {
                rows += range.len() as u64;
            }
        }
        rows
    }
    let spans: u64 =
        capture.keys(RecordKind::HostSpan).into_iter().map(|k| drain::<S, HostSpan>(capture, k)).sum();
    let calls: u64 =
        capture.keys(RecordKind::ApiCall).into_iter().map(|k| drain::<S, ApiCall>(capture, k)).sum();
    drain::<S, GpuOp>(capture, 0) + spans + calls
}

/// Events per second through the ledger of one device on one core: with decoding, and without.
pub(super) fn speed(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let ops = if options.quick { 500_000 } else { 5_000_000 };
    let capture = open(&inputs::capture(1, ops)?)?;
    let events = decode_only(&capture) as f64 / 1e6;
    let (mut whole, mut joined) = (Vec::new(), Vec::new());
    // In turn, so that both see the same machine: the difference of a pair is what sweep and join took.
    for _ in 0..RUNS {
        let start = Instant::now();
        std::hint::black_box(decode_only(&capture));
        let decode_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        device_ledger(&capture, DeviceId(0), &Collectives::default(), ledger::Options::default())?
            .context("no operations")?;
        let ledger_s = start.elapsed().as_secs_f64();
        whole.push(events / ledger_s);
        joined.push(events / (ledger_s - decode_s).max(1e-9));
    }
    // 13 columns of 8 bytes have to be read at least once.
    let floor = repeat(RUNS, || Ok(floors::memory() * 1e3 / 104.0))?;
    let unit = "million events/s";
    Ok(vec![
        Measurement::new(
            "sweep and idle join of one device over decoded events, per core".to_owned(),
            unit,
            joined,
        )
        .with_floor(floor.clone(), "reading as many decoded bytes from memory"),
        Measurement::new("ledger of one device with decoding, per core".to_owned(), unit, whole)
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
