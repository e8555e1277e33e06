//! Writes a large capture directly: many GPUs, millions of operations each, with gaps, launches, overlap and host spans
//! like those of a training job.
//!
//! The host runs ahead of its GPU until it waits at the end of a step; some steps begin late. Devices take turns step by
//! step, so that the file is ordered in time as a recorder would leave it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use stallscope_core::capture::{CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::rows::{ApiCall, GpuOp, HostSpan, Launch};
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, device_kind};
use stallscope_schemas::units::{CorrelationId, DeviceId, SourceId, StackId, StringId, ThreadId, TimeNs};

use crate::rng::Rng;

/// Operations of one step on one device.
const STEP_OPS: u64 = 2_000;

/// Different kernels; a large model's trace has a few hundred.
const KERNELS: u64 = 160;

/// One device's part of the job.
#[derive(Debug)]
struct Actor {
    device: DeviceId,
    thread: ThreadId,
    rng: Rng,
    /// When the host is next free, ns.
    host: i64,
    /// When the compute stream is next free, ns.
    stream: i64,
    /// When the communication stream is next free, ns.
    comm: i64,
    correlation: u64,
    ops: u64,
}

/// Names used by the rows.
#[derive(Debug)]
struct Names {
    kernels: Vec<StringId>,
    all_reduce: StringId,
    copy: StringId,
    launch: StringId,
    memcpy: StringId,
    sync: StringId,
    operators: Vec<StringId>,
    loader: StringId,
}

/// Writes the capture of `gpus` devices with at least `ops` operations each; the size of the file.
///
/// # Errors
/// When the file cannot be written.
pub fn write_file(path: &Path, gpus: u32, ops: u64) -> anyhow::Result<u64> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let out = write(BufWriter::with_capacity(1 << 20, file), gpus, ops)?;
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(file.metadata()?.len())
}

/// Writes the capture to any output and hands that back.
///
/// # Errors
/// When the output refuses.
pub fn write<W: Write>(out: W, gpus: u32, ops: u64) -> anyhow::Result<W> {
    let options = WriterOptions { writer: "stallscope-tests".to_owned(), ..WriterOptions::default() };
    let mut writer = CaptureWriter::new(out, options)?;
    let source = writer.add_source(Source { path: "generated".to_owned(), format: "live".to_owned() });
    let names = Names::intern(&mut writer);
    let mut actors: Vec<Actor> = (0..gpus).map(|gpu| Actor::add(&mut writer, source, gpu)).collect();
    while actors.iter().any(|a| a.ops < ops) {
        for actor in actors.iter_mut().filter(|a| a.ops < ops) {
            actor.step(&mut writer, &names, (ops - actor.ops).min(STEP_OPS))?;
        }
    }
    Ok(writer.finish()?.0)
}

impl Names {
    fn intern<W: Write>(writer: &mut CaptureWriter<W>) -> Self {
        Self {
            kernels: (0..KERNELS)
                .map(|k| writer.intern(&format!("sm90_gemm_bf16_tile_{k}_execute_kernel")))
                .collect(),
            all_reduce: writer
                .intern("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"),
            copy: writer.intern("Memcpy HtoD (Pinned -> Device)"),
            launch: writer.intern("cudaLaunchKernel"),
            memcpy: writer.intern("cudaMemcpyAsync"),
            sync: writer.intern("cudaStreamSynchronize"),
            operators: (0..24).map(|k| writer.intern(&format!("aten::operator_{k}"))).collect(),
            loader: writer.intern("enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"),
        }
    }
}

impl Actor {
    fn add<W: Write>(writer: &mut CaptureWriter<W>, source: SourceId, gpu: u32) -> Self {
        let process = writer.add_process(Process {
            source,
            pid: 1000 + i64::from(gpu),
            name: "python".to_owned(),
            rank: Some(gpu),
            ..Process::default()
        });
        let thread =
            writer.add_thread(Thread { process, tid: 1000 + i64::from(gpu), name: "python".to_owned() });
        let device = writer.add_device(Device {
            source,
            kind: device_kind::GPU,
            id: format!("GPU-{gpu}"),
            ordinal: gpu,
            processes: vec![process],
            ..Device::default()
        });
        let start = 1_700_000_000_000_000_000;
        let rng = Rng::new(gpu.into());
        Self { device, thread, rng, host: start, stream: start, comm: start, correlation: 1, ops: 0 }
    }

    /// A step: load, copy, launch, wait.
    fn step<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        names: &Names,
        ops: u64,
    ) -> anyhow::Result<()> {
        let loading = if self.rng.between(0, 9) == 0 { 4_000_000 } else { 120_000 };
        let loaded = self.host + self.jitter(loading);
        self.span(writer, names.loader, SpanKind::Annotation, self.host, loaded)?;
        self.op(writer, names.copy, names.memcpy, OpKind::Memcpy, 60_000, false)?;
        let mut operator_start = self.host;
        for at in 1..ops {
            let kind = usize::try_from((at * 7 + at / 11) % KERNELS).unwrap_or(0);
            // A few long kernels and many short ones.
            let mean = if kind % 16 == 0 { 45_000 } else { 3_500 + 250 * kind as u64 % 6_000 };
            if at % 100 == 0 {
                self.op(writer, names.all_reduce, names.launch, OpKind::Kernel, 350_000, true)?;
            } else {
                self.op(writer, names.kernels[kind], names.launch, OpKind::Kernel, mean, false)?;
            }
            if at % 8 == 0 {
                let operator = names.operators[kind % names.operators.len()];
                self.span(writer, operator, SpanKind::Operator, operator_start, self.host)?;
                operator_start = self.host;
            }
        }
        let (start, end) = (self.host, self.host.max(self.stream).max(self.comm) + 3_000);
        let (duration_ns, correlation) = (delta(start, end), CorrelationId(self.correlation));
        self.correlation += 1;
        self.host = end;
        writer.push_api_call(
            self.thread,
            ApiCall { start: TimeNs(start), duration_ns, name: names.sync, correlation },
        )?;
        Ok(())
    }

    fn op<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        name: StringId,
        call: StringId,
        kind: OpKind,
        mean_ns: u64,
        comm: bool,
    ) -> anyhow::Result<()> {
        let called = self.host;
        let call_ns = self.rng.between(2_800, 4_600);
        self.host = called + call_ns.cast_signed() + self.jitter(1_900);
        let arrival = called + call_ns.cast_signed() + self.jitter(1_400);
        let gap = self.jitter(900);
        let free = if comm { &mut self.comm } else { &mut self.stream };
        let start = arrival.max(*free + gap);
        let duration_ns = self.rng.around(mean_ns, 4);
        *free = start + duration_ns.cast_signed();
        let correlation = CorrelationId(self.correlation);
        self.correlation += 1;
        self.ops += 1;
        let launch = Launch { thread: self.thread, start: TimeNs(called), duration_ns: call_ns, name: call };
        let copy = kind == OpKind::Memcpy;
        let op = GpuOp {
            start: TimeNs(start),
            duration_ns,
            name,
            stream: if comm { 20 } else { 7 },
            kind,
            flags: 0,
            correlation,
            bytes: if copy { 3_145_728 } else { 0 },
            copy_kind: if copy { CopyKind::HostToDevicePinned } else { CopyKind::Unknown },
            launch: Some(launch),
        };
        writer.push_gpu_op(self.device, op)?;
        Ok(())
    }

    fn span<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        name: StringId,
        kind: SpanKind,
        start: i64,
        end: i64,
    ) -> anyhow::Result<()> {
        let duration_ns = delta(start, end);
        self.host = self.host.max(end);
        writer.push_host_span(
            self.thread,
            HostSpan { start: TimeNs(start), duration_ns, name, kind, stack: StackId(0) },
        )?;
        Ok(())
    }

    fn jitter(&mut self, mean_ns: u64) -> i64 {
        self.rng.around(mean_ns, 25).cast_signed()
    }
}

fn delta(start: i64, end: i64) -> u64 {
    TimeNs(end).since(TimeNs(start))
}

#[cfg(test)]
mod tests {
    use stallscope_core::capture::Capture;
    use stallscope_schemas::record::RecordKind;

    #[test]
    fn every_device_gets_the_operations_asked_for() {
        let capture = Capture::open(super::write(Vec::new(), 2, 4_500).unwrap()).unwrap();
        for gpu in 0..2 {
            let rows: u32 = capture.batches_of(RecordKind::GpuOp, gpu).map(|b| b.rows).sum();
            assert_eq!(rows, 4_500);
        }
    }
}
