//! Traces of ByteDance's straggler analysis (<https://github.com/ByteDance-Seed/StragglerAnalysis>): a Parquet file with
//! one row an operation of a pipelined training job, and beside it a YAML file with the job's sizes.
//!
//! | Column | Meaning |
//! |---|---|
//! | `rank`, `dp_rank`, `stage` | who: global rank, data-parallel rank, pipeline stage |
//! | `step`, `optype`, `seq_id` | what: training step, kind, position among those of its kind, step and rank |
//! | `start_ts`, `duration` | when, in seconds |
//! | `mc`, `gmc`, `mb_id` | model chunk within the stage and within the model, micro-batch; -1 for none |
//!
//! Each rank becomes a device, each row a pipeline operation (what the what-if analysis reads) and, unless it runs on the
//! host, an operation of the device (what the ledger reads). The trace has no host side, so idle time has no known cause.
//! A trace whose steps are timed each from its own begin is laid out step after step.

mod meta;
mod parquet;
mod rows;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use hashbrown::HashMap;
use stallscope_core::capture::{Device, Process, Source};
use stallscope_core::ingest::Ingest;
use stallscope_core::rows::{DeviceSpan, DeviceWindow, GpuOp, PipelineOp};
use stallscope_core::whatif::label;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{
    CopyKind, OpKind, PipelineOpKind, SpanKind, device_kind, op_flags, window_flags,
};
use stallscope_schemas::units::{CorrelationId, DeviceId, SourceId, StringId, TimeNs};

use self::meta::Meta;
use self::rows::{Op, Ops};
use crate::{Format, ImportError, Imported, Progress};

/// Ranks that a trace may have; those beyond are left out and counted.
const MAX_RANKS: usize = 1 << 14;

/// What people see of a recorder's or an importer's remarks.
const NOTE: &str = "note";

/// Imports a trace.
///
/// # Errors
/// [`ImportError`] when the file is no such trace, is damaged or empty, or describes times that cannot be; when the
/// description beside it is wrong; or when the capture cannot be written.
pub fn import<W: Write>(
    path: &Path,
    file: File,
    ingest: &mut Ingest<W>,
    mut progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    let malformed = |reason: String| ImportError::Malformed { path: path.to_owned(), reason };
    let bytes = file.metadata().map_err(|e| ImportError::open(path, e))?.len();
    let table = parquet::Table::open(file).map_err(|damage| malformed(format!("it {damage}")))?;
    let described = meta::beside(path)?;
    let mut trace = rows::read(path, table, bytes, &mut progress)?;
    if trace.ops.is_empty() {
        let hint = format!(
            ": all {} rows lack a value or have one that cannot be; look at its ranks, steps and times",
            trace.invalid + trace.invalid_times
        );
        return Err(ImportError::NoGpuActivity { path: path.to_owned(), hint });
    }
    let steps = Steps::of(&trace.ops).ok_or_else(|| {
        malformed(
            "its steps together are longer than a time can say; look at start_ts and duration".to_owned(),
        )
    })?;
    trace.ops.sort_unstable_by_key(|op| (op.step, op.start_ns, op.rank, op.kind, op.sequence));
    let writer = ingest.writer();
    writer.count_loss(LossCounter::RowInvalid, trace.invalid);
    writer.count_loss(LossCounter::EventTimeInvalid, trace.invalid_times);
    let source = writer.add_source(Source {
        path: path.to_string_lossy().into_owned(),
        format: Format::Stragglers.name().to_owned(),
    });
    let found = described.as_ref().map(|(_, meta)| meta.clone()).unwrap_or_default();
    describe(path, described, &steps, &trace, ingest);
    let gpu_ops = write(path, source, &found, &steps, &trace, ingest)?;
    progress(bytes, Some(bytes));
    Ok(Imported { format: Format::Stragglers, gpu_ops, host_records: 0, bytes })
}

/// Where the steps of a trace lie on one line of time.
struct Steps {
    /// Begin and end of each on that line, and what to add to the trace's times.
    by_number: BTreeMap<i64, (i64, i64, i64)>,
    /// Whether they had to be moved.
    laid_out: bool,
}

impl Steps {
    /// `None` where the steps together are too long.
    fn of(ops: &[Op]) -> Option<Self> {
        let mut extents: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for op in ops {
            let end = TimeNs(op.start_ns).plus(op.duration_ns).0;
            let extent = extents.entry(op.step).or_insert((op.start_ns, end));
            *extent = (extent.0.min(op.start_ns), extent.1.max(end));
        }
        let mut until = i64::MIN;
        let in_order = extents.values().all(|&(start, end)| start >= std::mem::replace(&mut until, end));
        let mut next = if in_order { 0 } else { extents.values().map(|e| e.0).min()? };
        let mut by_number = BTreeMap::new();
        for (number, (start, end)) in extents {
            let add = if in_order { 0 } else { next.checked_sub(start)? };
            next = end.checked_add(add).filter(|&end| end < i64::MAX / 2)?;
            by_number.insert(number, (start.checked_add(add)?, next, add));
        }
        Some(Self { by_number, laid_out: !in_order })
    }
}

/// Leaves the job's sizes and what is to be known as labels.
fn describe<W: Write>(
    path: &Path,
    described: Option<(std::path::PathBuf, Meta)>,
    steps: &Steps,
    trace: &Ops,
    ingest: &mut Ingest<W>,
) {
    let writer = ingest.writer();
    let count = |of: fn(&Op) -> u32| {
        let mut seen: Vec<u32> = trace.ops.iter().map(of).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.len() as u64
    };
    let chunks = trace.ops.iter().filter_map(|op| op.chunk).max().map_or(1, |last| u64::from(last) + 1);
    let seen = [
        (label::DP, "dp_size", count(|op| op.dp_rank)),
        (label::PP, "pp_size", count(|op| op.stage)),
        (label::VPP, "vpp_size", chunks),
    ];
    for (label, _, size) in seen {
        writer.add_label(label, &size.to_string());
    }
    match described {
        Some((meta_path, meta)) => {
            let said = [meta.dp, meta.pp, meta.vpp];
            for ((_, name, seen), said) in seen.into_iter().zip(said) {
                if let Some(said) = said.filter(|&said| said != seen) {
                    let file = meta_path.display();
                    writer.add_label(
                        NOTE,
                        &format!(
                            "{file} says {name} {said} and the trace shows {seen}: the trace is believed"
                        ),
                    );
                }
            }
            for (label, size) in [(label::DSP, meta.dsp), (label::TP, meta.tp), (label::WORLD, meta.world)] {
                if let Some(size) = size {
                    writer.add_label(label, &size.to_string());
                }
            }
        }
        None => {
            let wanted = meta::candidates(path).into_iter().next().unwrap_or_default();
            writer.add_label(
                NOTE,
                &format!(
                    "there is no {} beside the trace: sizes are those that the trace shows, and the data of a \
                     data-parallel rank is taken to be on one rank (dsp_size 1)",
                    wanted.display()
                ),
            );
        }
    }
    if steps.laid_out {
        writer.add_label(
            NOTE,
            "the trace times each step from its own begin: the steps are laid out one after the other, \
             and what lay between them is not in the trace",
        );
    }
    writer.add_label(NOTE, "the trace has no host side: what idle time waits for is not in it");
}

/// Writes devices and rows; the number of operations on devices.
fn write<W: Write>(
    path: &Path,
    source: SourceId,
    meta: &Meta,
    steps: &Steps,
    trace: &Ops,
    ingest: &mut Ingest<W>,
) -> Result<u64, ImportError> {
    let writer = ingest.writer();
    let names: Vec<StringId> = trace.names.iter().map(|name| writer.intern(name)).collect();
    let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let job = meta.name.clone().unwrap_or_else(|| stem.clone());
    let world_size = meta.world.and_then(|w| u32::try_from(w).ok());
    let mut ranks: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for op in &trace.ops {
        ranks.entry(op.rank).or_insert((op.dp_rank, op.stage));
    }
    let mut devices: HashMap<u32, DeviceId> = HashMap::new();
    for (&rank, &(dp_rank, stage)) in ranks.iter().take(MAX_RANKS) {
        let process = writer.add_process(Process {
            source,
            name: format!("data-parallel rank {dp_rank}, stage {stage}"),
            rank: Some(rank),
            world_size,
            job: job.clone(),
            ..Process::default()
        });
        let device = writer.add_device(Device {
            source,
            kind: device_kind::GPU,
            id: format!("{stem}:rank-{rank}"),
            ordinal: rank,
            model: String::new(),
            processes: vec![process],
        });
        devices.insert(rank, device);
    }
    // What ran in a step began in it.
    let flags = window_flags::FROM_START;
    for (&number, &(start, end, _)) in &steps.by_number {
        let name = writer.intern(&format!("step {number}"));
        let (start, duration_ns) = (TimeNs(start), TimeNs(end).since(TimeNs(start)));
        for &device in devices.values() {
            writer.push_device_window(device, DeviceWindow { start, duration_ns, flags })?;
            writer.push_device_span(device, DeviceSpan { start, duration_ns, name, kind: SpanKind::Step })?;
        }
    }
    let mut gpu_ops = 0;
    let mut left_out = 0;
    for op in &trace.ops {
        let (Some(&device), Some(&(_, _, add)), Some(&name)) =
            (devices.get(&op.rank), steps.by_number.get(&op.step), names.get(op.name as usize))
        else {
            left_out += 1;
            continue;
        };
        let start = TimeNs(op.start_ns.saturating_add(add));
        writer.push_pipeline_op(device, pipeline_op(op, start, name))?;
        if op.kind != PipelineOpKind::GarbageCollection {
            gpu_ops += 1;
            writer.push_gpu_op(device, gpu_op(op, start, name))?;
        }
    }
    writer.count_loss(LossCounter::TableFull, left_out);
    Ok(gpu_ops)
}

fn pipeline_op(op: &Op, start: TimeNs, name: StringId) -> PipelineOp {
    PipelineOp {
        start,
        duration_ns: op.duration_ns,
        kind: op.kind,
        name,
        step: op.step,
        dp_rank: op.dp_rank.into(),
        stage: op.stage.into(),
        sequence: op.sequence.into(),
        chunk: op.chunk,
        global_chunk: op.global_chunk,
        microbatch: op.microbatch,
    }
}

fn gpu_op(op: &Op, start: TimeNs, name: StringId) -> GpuOp {
    let communicates = op.kind.is_communication();
    GpuOp {
        start,
        duration_ns: op.duration_ns,
        name,
        stream: stream(op.kind),
        kind: OpKind::Kernel,
        flags: if communicates { op_flags::COLLECTIVE_METADATA } else { 0 },
        correlation: CorrelationId(0),
        bytes: 0,
        copy_kind: CopyKind::Unknown,
        launch: None,
    }
}

/// The streams of a worker: what computes, each direction and end of the pipeline's transfers, what is exchanged.
fn stream(kind: PipelineOpKind) -> u64 {
    match kind {
        PipelineOpKind::ForwardSend => 1,
        PipelineOpKind::ForwardRecv => 2,
        PipelineOpKind::BackwardSend => 3,
        PipelineOpKind::BackwardRecv => 4,
        other if other.is_communication() => 5,
        _ => 0,
    }
}
