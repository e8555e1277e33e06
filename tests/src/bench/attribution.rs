//! Full attribution: `report --json` on a job with host records, collectives and late ranks, as a user calls it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, ensure};
use stallscope_core::capture::{Capture, ColumnSet, ReadAt, Run};
use stallscope_core::rows::{
    ApiCall, BlockIo, CollectiveCall, Counter, CpuSample, DeviceWindow, FileIo, GpuOp, PageFaults, Row,
    StreamWait, ThreadPreempt, ThreadSpan, ThreadWait,
};

use super::sweep::{InputFile, open};
use super::{Measurement, Options, floors, inputs, repeat};
use crate::cli;
use crate::job_capture::JobShape;
use crate::measure::{Cost, measure};

const RUNS: usize = 5;

/// A job of eight ranks as `job_capture` makes it.
fn job(ops: u64) -> JobShape {
    JobShape { ranks: 8, ops, collective_every: 100 }
}

/// Ten seconds of eight GPUs with a hundred thousand operations a second together.
const TEN_SECONDS_OPS: u64 = 125_000;

fn report(capture: &Path) -> anyhow::Result<Cost> {
    let args = [OsStr::new("report"), capture.as_os_str(), OsStr::new("--json")];
    measure(cli::stallscope()?.as_os_str(), args)
}

fn rows<S: ReadAt>(capture: &Capture<S>) -> u64 {
    capture.sizes().iter().map(|(_, rows, _)| rows).sum()
}

/// One kind of record of one device, thread or process, to be decoded.
type Part<'a> = Box<dyn Fn() -> u64 + Send + Sync + 'a>;

fn add_parts<'a, S: ReadAt, R: Row>(capture: &'a Capture<S>, parts: &mut Vec<Part<'a>>) {
    for key in capture.keys(R::KIND) {
        parts.push(Box::new(move || {
            let mut merged = capture.merged::<R>(key, ColumnSet::ALL);
            let mut rows = 0;
            while let Some(run) = merged.next_run() {
                if let Run::Rows(_, range) = run {
                    rows += range.len() as u64;
                }
            }
            rows
        }));
    }
}

/// Decodes every column of every row once, on two threads; million rows a second.
fn decode_all(path: &Path) -> anyhow::Result<f64> {
    let capture: Capture<InputFile> = open(path)?;
    let mut parts: Vec<Part<'_>> = Vec::new();
    add_parts::<_, GpuOp>(&capture, &mut parts);
    add_parts::<_, ApiCall>(&capture, &mut parts);
    add_parts::<_, StreamWait>(&capture, &mut parts);
    add_parts::<_, ThreadWait>(&capture, &mut parts);
    add_parts::<_, ThreadPreempt>(&capture, &mut parts);
    add_parts::<_, ThreadSpan>(&capture, &mut parts);
    add_parts::<_, CpuSample>(&capture, &mut parts);
    add_parts::<_, CollectiveCall>(&capture, &mut parts);
    add_parts::<_, PageFaults>(&capture, &mut parts);
    add_parts::<_, BlockIo>(&capture, &mut parts);
    add_parts::<_, FileIo>(&capture, &mut parts);
    add_parts::<_, Counter>(&capture, &mut parts);
    add_parts::<_, DeviceWindow>(&capture, &mut parts);
    let start = Instant::now();
    let (left, decoded) = (Mutex::new(parts), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(part) = left.lock().ok().and_then(|mut left| left.pop()) else { return };
                    let rows = part();
                    if let Ok(mut decoded) = decoded.lock() {
                        *decoded += rows;
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let decoded = decoded.into_inner().unwrap_or_default();
    ensure!(decoded == rows(&capture), "{decoded} of {} rows were decoded", rows(&capture));
    Ok(decoded as f64 / 1e6 / seconds)
}

/// Events per second, memory, the delay of a finding, and a job of collectives alone.
pub(super) fn attribution(options: &Options) -> anyhow::Result<Vec<Measurement>> {
    let mut results = speed(if options.quick { 125_000 } else { 2_500_000 })?;
    results.push(delay()?);
    if !options.quick {
        results.extend(collectives()?);
    }
    results.extend(instructions()?);
    Ok(results)
}

fn speed(ops: u64) -> anyhow::Result<Vec<Measurement>> {
    let path = inputs::job(job(ops))?;
    let events = rows(&open(&path)?) as f64 / 1e6;
    floors::read_file(&path)?;
    let (mut wall, mut cpu, mut peak, mut floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let cost = report(&path)?;
        wall.push(events / cost.wall_s);
        cpu.push(events / cost.cpu_s);
        peak.push(cost.peak_bytes as f64 / 1e6);
        // In turn, so that both see the same machine.
        floor.push(decode_all(&path)?);
    }
    let name =
        format!("full attribution, 8 GPUs × {:.3} M operations, {events:.1} M events", ops as f64 / 1e6);
    Ok(vec![
        Measurement::new(name.clone(), "million events/s", wall)
            .with_floor(floor, "decoding every column once, on two threads"),
        Measurement::new(format!("{name}: by CPU time"), "million events/CPU s", cpu),
        Measurement::new(format!("{name}: peak memory"), "MB", peak),
    ])
}

/// How long after the end of a window of ten seconds its findings are there.
fn delay() -> anyhow::Result<Measurement> {
    let path = inputs::job(job(TEN_SECONDS_OPS))?;
    let wall = repeat(RUNS, || Ok(report(&path)?.wall_s))?;
    Ok(Measurement::new("findings of 10 s of 8 GPUs at 100,000 operations/s, from the file", "s", wall))
}

fn collectives() -> anyhow::Result<Vec<Measurement>> {
    let path = inputs::job(JobShape { ranks: 64, ops: 100_000, collective_every: 1 })?;
    let (mut wall, mut peak) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let cost = report(&path)?;
        wall.push(cost.wall_s);
        peak.push(cost.peak_bytes as f64 / 1e6);
    }
    let name = "full attribution, 64 ranks × 100,000 collectives";
    Ok(vec![Measurement::new(name, "s", wall), Measurement::new(format!("{name}: peak memory"), "MB", peak)])
}

/// Instructions of the whole program for each event of a small job, where valgrind is installed: unlike time they do not depend
/// on what else the machine does.
fn instructions() -> anyhow::Result<Option<Measurement>> {
    let path = inputs::job(job(25_000))?;
    let events = rows(&open(&path)?) as f64;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind.out");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--error-exitcode=1"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(cli::stallscope()?)
        .args([OsStr::new("report"), path.as_os_str(), OsStr::new("--json")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let Ok(status) = run else { return Ok(None) };
    ensure!(status.success(), "the program failed under valgrind");
    let text = std::io::read_to_string(File::open(&out)?)?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("totals: ")).context("no total of callgrind")?;
    let per_event = total.trim().parse::<f64>()? / events;
    let name = format!("full attribution, {events} events: instructions");
    Ok(Some(Measurement::new(name, "instructions/event", vec![per_event])))
}
