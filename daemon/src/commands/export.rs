//! `stallscope export`.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use stallscope_core::capture::Capture;
use stallscope_core::export::folded::write_folded;
use stallscope_core::export::perfetto::write_perfetto;
use stallscope_core::export::pprof::write_pprof;
use stallscope_core::folded::Folded;
use stallscope_core::weights::{Weight, has_followed_threads};
use stallscope_schemas::record::RecordKind;

use super::{damaged, folded, natural_weight, nothing};
use crate::args::{ExportArgs, ExportFormat};
use crate::failure::{Failure, Outcome};
use crate::files::{CaptureFile, Output, Replace, beside, open_together, output_failure, print};

pub(crate) fn run(args: &ExportArgs) -> Result<Outcome, Failure> {
    let suffixes: &[&str] = match args.to {
        ExportFormat::Perfetto => &[".perfetto-trace", ".pftrace"],
        ExportFormat::Pprof => &[".pb.gz", ".pprof"],
        ExportFormat::Folded => &[".folded"],
    };
    let suffix = suffixes.first().copied().unwrap_or_default();
    let path = args.output.clone().unwrap_or_else(|| beside(&args.capture, suffix));
    let inputs: Vec<&Path> =
        std::iter::once(&args.capture).chain(&args.more).map(|path| path.as_path()).collect();
    let replace = Replace { suffixes, inputs: &inputs, force: args.force };
    let mut output = Output::create(&path, &replace)?;
    let capture = open_together(&args.capture, &args.more)?;
    let failed = |e| output_failure(&path, e);
    let mut note = String::new();
    match args.to {
        ExportFormat::Perfetto => {
            let summary = write_perfetto(&capture, &mut output).map_err(failed)?;
            if summary.slices == 0 && damaged(&capture) {
                return Err(nothing(&capture, &args.capture));
            }
            note = format!(": {} slices", summary.slices);
            if summary.left_out > 0 {
                note.push_str(&format!(", {} records did not fit and were left out", summary.left_out));
            }
            if summary.shift_ns != 0 {
                note.push_str(&format!(
                    "; times are shifted by {} ns, because the capture's clock is not Unix time",
                    summary.shift_ns
                ));
            }
        }
        ExportFormat::Pprof => pprof(&capture, &args.capture, &path, &mut output)?,
        ExportFormat::Folded => {
            let weight = args.weight.map_or_else(|| natural_weight(&capture), Weight::from);
            let folded = folded(&capture, &args.capture, weight)?;
            write_folded(&folded, &mut output).map_err(failed)?;
        }
    }
    output.commit()?;
    if path != Path::new("-") {
        print(&format!("{}{note}\n", path.display()))?;
    }
    Ok(Outcome::Done)
}

/// All weights that the capture has as one compressed profile.
fn pprof(
    capture: &Capture<CaptureFile>,
    input: &Path,
    path: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let failed = |e| output_failure(path, e);
    let has_gpus = !capture.keys(RecordKind::GpuOp).is_empty();
    let has_threads = has_followed_threads(capture);
    let mut weights = Vec::new();
    // Without either there is nothing to show: asking for GPUs says so.
    if has_gpus || !has_threads {
        weights.extend([Weight::GpuIdle, Weight::GpuWait, Weight::Gpu]);
    }
    weights.push(Weight::Cpu);
    if has_threads {
        weights.extend([Weight::OffCpu, Weight::Wait]);
    }
    let mut stacks = Vec::new();
    for weight in weights {
        stacks.push((weight.name().replace('-', "_"), folded(capture, input, weight)?));
    }
    let types: Vec<(&str, &Folded)> = stacks.iter().map(|(name, folded)| (name.as_str(), folded)).collect();
    let mut extent = None;
    for kind in [RecordKind::GpuOp, RecordKind::ThreadSpan] {
        for key in capture.keys(kind) {
            let Some((from, to)) = capture.extent(kind, key) else { continue };
            let (start, end) = extent.unwrap_or((from, to));
            extent = Some((from.min(start), to.max(end)));
        }
    }
    let (start, end) = extent.unwrap_or_default();
    let mut gzip = GzEncoder::new(&mut *output, Compression::default());
    write_pprof(&types, start.0, end.since(start), &mut gzip).map_err(failed)?;
    gzip.finish().and_then(|out| out.flush()).map_err(failed)
}
