//! Writes the capture of a whole job directly: every GPU with its host, as `record` would leave it, of any size.
//!
//! Ranks train together: collectives end for all at once, after the last rank has come. Now and then one rank's loader is
//! slow, or one rank has more work, so that idle time, blame and root ledgers all have something to tell. Proportions
//! follow recordings of data-parallel training with PyTorch, where a step has some two thousand operations in a sixth of
//! a second; of each rank and step there are, beside its operations with their launches:
//!
//! ```text
//! 440  API calls that launch nothing (events, queries; two a collective; one wait for the device)
//!  65  of collectives: two calls each (c10d, NCCL beneath), orders between streams
//!  64  waits of the launching thread, a third of them for the interpreter lock, and one for the loader
//!  53  waits of another thread and of the loader's worker, ended by another thread or by a disk
//!  40  preemptions
//!  43  samples at 99 Hz of the threads that run
//!  44  requests to a disk, page faults, files, counters, spans of threads and devices
//! ```
//!
//! So three rows of four are operations. Same parameters, same bytes.

mod names;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use stallscope_core::capture::{CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::rows::{
    ApiCall, BlockIo, CollectiveCall, Counter, CpuSample, DeviceWindow, FileIo, GpuOp, Launch, PageFaults,
    StreamWait, ThreadPreempt, ThreadSpan,
};
use stallscope_schemas::record::{
    BlockOp, CollectiveLibrary, CollectiveOp, CopyKind, ObjectKind, OpKind, WaitKind, call_flags,
    device_kind, window_flags,
};
use stallscope_schemas::units::{CorrelationId, DeviceId, ProcessId, SourceId, StringId, ThreadId, TimeNs};

use self::names::{Names, pick, wait_row};
use crate::rng::Rng;

/// Operations of one step on one device.
const STEP_OPS: u64 = 2_000;
/// Different kernels; a large model's trace has a few hundred.
const KERNELS: usize = 160;
/// Stacks that samples are of.
const STACKS: usize = 200;
/// Time between two samples of a thread.
const SAMPLE_NS: u64 = 10_101_010;
/// Streams of computation and of communication.
const COMPUTE: u64 = 7;
const COMM: u64 = 20;

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobShape {
    /// Ranks, each with a GPU.
    pub ranks: u32,
    /// Operations of each rank.
    pub ops: u64,
    /// Of so many operations one is a collective; 1 for a job of collectives alone.
    pub collective_every: u64,
}

/// Writes the capture to a file; the number of rows in it.
///
/// # Errors
/// When the file cannot be written.
pub fn write_file(path: &Path, shape: JobShape) -> anyhow::Result<u64> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let (out, rows) = write(BufWriter::with_capacity(1 << 20, file), shape)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(rows)
}

/// Writes the capture to any output and hands that back, with the number of rows.
///
/// # Errors
/// When the output refuses.
pub fn write<W: Write>(out: W, shape: JobShape) -> anyhow::Result<(W, u64)> {
    let options = WriterOptions {
        writer: "stallscope-tests".to_owned(),
        host: "made-up".to_owned(),
        ..WriterOptions::default()
    };
    let mut writer = CaptureWriter::new(out, options)?;
    let source = writer.add_source(Source { path: "generated".to_owned(), format: "live".to_owned() });
    let names = Names::intern(&mut writer);
    let mut ranks: Vec<Rank> =
        (0..shape.ranks).map(|rank| Rank::add(&mut writer, source, rank, shape)).collect();
    let mut out = Out { writer, names, rows: 0 };
    let mut rng = Rng::new(u64::MAX);
    let mut done = 0;
    while done < shape.ops {
        let ops = (shape.ops - done).min(STEP_OPS);
        step(&mut out, &mut ranks, shape, ops, &mut rng)?;
        done += ops;
    }
    Ok((out.writer.finish()?.0, out.rows))
}

/// One step of all ranks.
fn step<W: Write>(
    out: &mut Out<W>,
    ranks: &mut [Rank],
    shape: JobShape,
    ops: u64,
    rng: &mut Rng,
) -> anyhow::Result<()> {
    let pick = |rng: &mut Rng| if rng.between(0, 3) == 0 { rng.between(0, 7) } else { 5 };
    let slow_loader = (rng.between(0, 1) == 0).then(|| pick(rng));
    let more_work = (rng.between(0, 4) == 0).then(|| pick(rng));
    for (rank, number) in ranks.iter_mut().zip(0..) {
        let load_ns = if slow_loader == Some(number) { 24_000_000 } else { 300_000 };
        rank.begin_step(out, load_ns, more_work == Some(number))?;
    }
    let mut at = 1;
    while at < ops {
        let until = (at + shape.collective_every).min(ops);
        for rank in &mut *ranks {
            for op in at..until - 1 {
                rank.compute(out, op)?;
            }
        }
        let transfer_ns = rng.around(300_000, 15);
        let mut last = i64::MIN;
        for rank in &mut *ranks {
            last = last.max(rank.come(out)?);
        }
        let waits = (until / shape.collective_every).is_multiple_of(4) || until == ops;
        for rank in &mut *ranks {
            rank.leave(out, last + transfer_ns.cast_signed(), waits)?;
        }
        at = until;
    }
    ranks.iter_mut().try_for_each(|rank| rank.end_step(out))
}

/// The writer with what rows refer to.
struct Out<W: Write> {
    writer: CaptureWriter<W>,
    names: Names,
    rows: u64,
}

macro_rules! put {
    ($out:expr, $method:ident, $key:expr, $row:expr) => {{
        $out.rows += 1;
        $out.writer.$method($key, $row)
    }};
}

/// A thread beside the launching one, which waits and runs in turn.
#[derive(Debug)]
struct Helper {
    thread: ThreadId,
    /// Up to when its records are written.
    at: i64,
}

/// One rank of the job.
#[derive(Debug)]
struct Rank {
    device: DeviceId,
    process: ProcessId,
    worker_process: ProcessId,
    main: ThreadId,
    pin: Helper,
    worker: Helper,
    shape: JobShape,
    rng: Rng,
    step_began: i64,
    /// When the host is next free, ns.
    host: i64,
    /// When the compute stream is next free, ns.
    stream: i64,
    /// When the communication stream is next free, ns.
    comm: i64,
    /// Of each hundred nanoseconds of work this rank takes so many in this step.
    pace: u64,
    correlation: u64,
    sequence: u64,
    /// The next sample of the launching thread.
    sample: i64,
    /// The collective that has been launched and begun.
    open: Option<(i64, Launch, u64)>,
}

impl Rank {
    fn add<W: Write>(writer: &mut CaptureWriter<W>, source: SourceId, rank: u32, shape: JobShape) -> Self {
        let pid = 1000 + i64::from(rank) * 100;
        let process = |writer: &mut CaptureWriter<W>, pid: i64, rank: Option<u32>| {
            writer.add_process(Process {
                source,
                pid,
                name: "python".to_owned(),
                rank,
                world_size: Some(shape.ranks),
                host: "made-up".to_owned(),
                job: "train".to_owned(),
            })
        };
        let of_rank = process(writer, pid, Some(rank));
        let worker_process = process(writer, pid + 50, Some(rank));
        let mut thread =
            |process, tid, name: &str| writer.add_thread(Thread { process, tid, name: name.to_owned() });
        let main = thread(of_rank, pid, "python");
        let pin = thread(of_rank, pid + 1, "pin_memory");
        let worker = thread(worker_process, pid + 50, "pt_data_worker");
        let device = writer.add_device(Device {
            source,
            kind: device_kind::GPU,
            id: format!("GPU-{rank}"),
            ordinal: rank,
            processes: vec![of_rank],
            ..Device::default()
        });
        let start = 1_700_000_000_000_000_000;
        Self {
            device,
            process: of_rank,
            worker_process,
            main,
            pin: Helper { thread: pin, at: start },
            worker: Helper { thread: worker, at: start },
            shape,
            rng: Rng::new(rank.into()),
            step_began: start,
            host: start,
            stream: start,
            comm: start,
            pace: 100,
            correlation: 1,
            sequence: 1,
            sample: start,
            open: None,
        }
    }

    /// Loads, and copies what was loaded.
    fn begin_step<W: Write>(
        &mut self,
        out: &mut Out<W>,
        load_ns: u64,
        more_work: bool,
    ) -> anyhow::Result<()> {
        self.step_began = self.host;
        self.pace = if more_work { 130 } else { 100 };
        let wait_ns = self.rng.around(load_ns, 25);
        self.wait(out, wait_ns, (out.names.read, ObjectKind::Pipe, out.names.queue), Some(self.pin.thread))?;
        let launch = self.call(out.names.memcpy);
        self.op(out, out.names.copy, OpKind::Memcpy, 60_000, launch)
    }

    /// A kernel, and what the host does around it.
    fn compute<W: Write>(&mut self, out: &mut Out<W>, at: u64) -> anyhow::Result<()> {
        let kind = usize::try_from((at * 7 + at / 11) % KERNELS as u64).unwrap_or(0);
        // A few long kernels and many short ones: 69 µs on average.
        let mean_ns = if kind % 16 == 0 { 500_000 } else { 16_000 + 1_000 * kind as u64 % 48_000 };
        self.around_launch(out, at)?;
        let launch = self.call(out.names.launch);
        self.op(out, out.names.kernels[kind], OpKind::Kernel, mean_ns * self.pace / 100, launch)
    }

    /// What the launching thread does between launches: short calls, a wait now and then, a preemption.
    fn around_launch<W: Write>(&mut self, out: &mut Out<W>, at: u64) -> anyhow::Result<()> {
        let names = &out.names;
        let (futex, ioctl, lock) = (names.futex, names.ioctl, names.lock);
        if at.is_multiple_of(5) {
            let name = names.calls[usize::try_from(at / 5 % 4).unwrap_or(0)];
            self.api(out, name, 900)?;
        }
        if at.is_multiple_of(50) {
            let ns = self.rng.between(20_000, 400_000);
            self.wait(out, ns, (futex, ObjectKind::Futex, lock), Some(self.pin.thread))?;
        }
        if at.is_multiple_of(47) {
            let ns = self.rng.between(3_000, 60_000);
            self.wait(out, ns, (ioctl, ObjectKind::CharDevice, StringId(0)), None)?;
        }
        if at.is_multiple_of(67) {
            let duration_ns = self.rng.between(4_000, 150_000);
            let row = ThreadPreempt {
                start: TimeNs(self.host),
                duration_ns,
                run_queue_ns: duration_ns,
                times: 1,
                preemptor: Some(self.worker.thread),
                kind: WaitKind::Preempted,
            };
            self.host += duration_ns.cast_signed();
            put!(out, push_thread_preempt, self.main, row)?;
        }
        if self.host >= self.sample {
            let row = CpuSample {
                start: TimeNs(self.host),
                duration_ns: SAMPLE_NS,
                stack: out.names.stack(&mut self.rng),
            };
            self.sample = self.host + SAMPLE_NS.cast_signed();
            put!(out, push_cpu_sample, self.main, row)?;
        }
        Ok(())
    }

    /// Launches a collective; when its kernel begins.
    fn come<W: Write>(&mut self, out: &mut Out<W>) -> anyhow::Result<i64> {
        let began = self.host;
        self.api(out, out.names.event_record, 1_200)?;
        let told = StreamWait {
            start: TimeNs(self.host),
            duration_ns: 1_100,
            stream: COMM,
            on_stream: Some(COMPUTE),
            correlation: CorrelationId(self.correlation),
        };
        put!(out, push_stream_wait, self.device, told)?;
        self.api(out, out.names.wait_event, 1_100)?;
        let inner = self.host;
        let launch = self.call(out.names.launch);
        let start = (launch.start.0 + launch.duration_ns.cast_signed() + self.jitter(1_400))
            .max(self.comm + self.jitter(900))
            .max(self.stream + self.jitter(1_500));
        let names = &out.names;
        let bytes = 25 << 20;
        let call = CollectiveCall {
            start: TimeNs(began),
            duration_ns: since(began, self.host) + 2_000,
            name: names.c10d,
            library: CollectiveLibrary::C10d,
            operation: CollectiveOp::AllReduce,
            bytes,
            elements: bytes / 2,
            datatype: names.float,
            reduction: names.sum,
            group: names.group,
            group_size: self.shape.ranks.into(),
            rank: None,
            peer: None,
            stream: COMM,
            sequence: self.sequence,
            result: 0,
            flags: call_flags::ASYNC | call_flags::RETURNED,
            stack: names.stacks[0],
        };
        let nested = CollectiveCall {
            start: TimeNs(inner),
            duration_ns: since(inner, self.host) + 500,
            name: names.nccl,
            library: CollectiveLibrary::Nccl,
            flags: call_flags::NESTED | call_flags::RETURNED,
            ..call
        };
        put!(out, push_collective_call, self.main, call)?;
        put!(out, push_collective_call, self.main, nested)?;
        self.host += 2_000;
        self.sequence += 1;
        self.open = Some((start, launch, self.correlation));
        self.correlation += 1;
        Ok(start)
    }

    /// The collective is over for all; the compute stream may have been told to wait for it.
    fn leave<W: Write>(&mut self, out: &mut Out<W>, end: i64, waits: bool) -> anyhow::Result<()> {
        let Some((start, launch, correlation)) = self.open.take() else { return Ok(()) };
        let end = end + self.jitter(1_000);
        self.comm = end;
        let op = GpuOp {
            start: TimeNs(start),
            duration_ns: since(start, end),
            name: out.names.all_reduce,
            stream: COMM,
            kind: OpKind::Kernel,
            flags: 0,
            correlation: CorrelationId(correlation),
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: Some(launch),
        };
        put!(out, push_gpu_op, self.device, op)?;
        if waits {
            self.stream = self.stream.max(end);
            let row = StreamWait {
                start: TimeNs(self.host),
                duration_ns: 1_100,
                stream: COMPUTE,
                on_stream: Some(COMM),
                correlation: CorrelationId(self.correlation),
            };
            put!(out, push_stream_wait, self.device, row)?;
            self.api(out, out.names.wait_event, 1_100)?;
        }
        Ok(())
    }

    /// Waits for the device, and writes what else went on in the step.
    fn end_step<W: Write>(&mut self, out: &mut Out<W>) -> anyhow::Result<()> {
        let done = self.host.max(self.stream).max(self.comm) + 3_000;
        let began = self.host;
        self.host += 2_000;
        let blocked = since(self.host, done);
        self.wait(out, blocked, (out.names.poll, ObjectKind::Anonymous, StringId(0)), None)?;
        self.host += 1_000;
        let row = ApiCall {
            start: TimeNs(began),
            duration_ns: since(began, self.host),
            name: out.names.sync,
            correlation: CorrelationId(self.correlation),
        };
        self.correlation += 1;
        put!(out, push_api_call, self.main, row)?;
        self.helpers(out)?;
        let (start, duration_ns) = (TimeNs(self.step_began), since(self.step_began, self.host));
        let flags = window_flags::FROM_START;
        put!(out, push_device_window, self.device, DeviceWindow { start, duration_ns, flags })?;
        for thread in [self.main, self.pin.thread, self.worker.thread] {
            put!(out, push_thread_span, thread, ThreadSpan { start, duration_ns })?;
            let faults = PageFaults { start, duration_ns, minor: self.rng.between(0, 400), major: 0 };
            put!(out, push_page_faults, thread, faults)?;
        }
        for (name, mean) in [(out.names.clock, 1_980), (out.names.power, 650_000)] {
            let value = self.rng.around(mean, 3);
            put!(out, push_counter, self.device, Counter { start, duration_ns, name, value })?;
        }
        for (process, object_kind, object) in [
            (self.process, ObjectKind::Pipe, out.names.queue),
            (self.worker_process, ObjectKind::File, out.names.shards[0]),
        ] {
            let row = FileIo {
                start,
                duration_ns,
                object_kind,
                object,
                reads: 30,
                read_bytes: 30 << 18,
                writes: 0,
                written_bytes: 0,
            };
            put!(out, push_file_io, process, row)?;
        }
        Ok(())
    }

    /// What the threads beside the launching one did in the step.
    fn helpers<W: Write>(&mut self, out: &mut Out<W>) -> anyhow::Result<()> {
        let step_ns = since(self.step_began, self.host);
        let names = &out.names;
        let (futex, read, queue) = (names.futex, names.read, names.queue);
        for _ in 0..20 {
            let (thread, at) = (self.pin.thread, self.pin.at);
            let ns = self.rng.around(step_ns / 25, 30);
            if since(at, self.host) < ns + step_ns / 100 {
                break;
            }
            let row = wait_row(
                at,
                ns,
                (futex, ObjectKind::Futex, queue),
                Some(self.worker.thread),
                &mut self.rng,
                out,
            );
            put!(out, push_thread_wait, thread, row)?;
            self.pin.at = at + ns.cast_signed() + (step_ns / 100).cast_signed();
            self.run(out, thread, self.pin.at)?;
        }
        let shard = out.names.shards[pick(&mut self.rng, 64)];
        for _ in 0..35 {
            let (thread, at) = (self.worker.thread, self.worker.at);
            let ns = self.rng.around(step_ns / 50, 30);
            if since(at, self.host) < ns + step_ns / 100 {
                break;
            }
            let row = wait_row(at, ns, (read, ObjectKind::File, shard), None, &mut self.rng, out);
            put!(out, push_thread_wait, thread, row)?;
            let request = BlockIo {
                start: TimeNs(at + 1_000),
                duration_ns: ns - 2_000,
                queued_ns: 3_000,
                device: out.names.disk,
                bytes: 1 << 18,
                operation: BlockOp::Read,
                file: shard,
                sector: self.rng.between(0, 1 << 30),
                error: 0,
            };
            put!(out, push_block_io, thread, request)?;
            self.worker.at = at + ns.cast_signed() + (step_ns / 100).cast_signed();
            self.run(out, thread, self.worker.at)?;
        }
        self.pin.at = self.host;
        self.worker.at = self.host;
        Ok(())
    }

    /// A helper ran up to a moment: a sample, and a short time without a CPU.
    fn run<W: Write>(&mut self, out: &mut Out<W>, thread: ThreadId, until: i64) -> anyhow::Result<()> {
        if self.rng.between(0, 1) == 0 {
            let stack = out.names.stack(&mut self.rng);
            let row = CpuSample { start: TimeNs(until - 3_000), duration_ns: SAMPLE_NS, stack };
            put!(out, push_cpu_sample, thread, row)?;
        }
        if self.rng.between(0, 5) == 0 {
            let row = ThreadPreempt {
                start: TimeNs(until - 900),
                duration_ns: 800,
                run_queue_ns: 500,
                times: 2,
                preemptor: Some(self.main),
                kind: WaitKind::Preempted,
            };
            put!(out, push_thread_preempt, thread, row)?;
        }
        Ok(())
    }

    /// The launching thread waits, and goes on when that is over.
    fn wait<W: Write>(
        &mut self,
        out: &mut Out<W>,
        ns: u64,
        what: (StringId, ObjectKind, StringId),
        waker: Option<ThreadId>,
    ) -> anyhow::Result<()> {
        let row = wait_row(self.host, ns, what, waker, &mut self.rng, out);
        self.host += ns.cast_signed();
        put!(out, push_thread_wait, self.main, row)?;
        Ok(())
    }

    /// A call that launches nothing.
    fn api<W: Write>(&mut self, out: &mut Out<W>, name: StringId, mean_ns: u64) -> anyhow::Result<()> {
        let duration_ns = self.rng.around(mean_ns, 25);
        let correlation = CorrelationId(self.correlation);
        let row = ApiCall { start: TimeNs(self.host), duration_ns, name, correlation };
        self.correlation += 1;
        self.host += duration_ns.cast_signed() + 300;
        put!(out, push_api_call, self.main, row)?;
        Ok(())
    }

    /// A call that launches something, and the interpreter before the next.
    fn call(&mut self, name: StringId) -> Launch {
        let duration_ns = self.rng.between(2_800, 4_600);
        let launch = Launch { thread: self.main, start: TimeNs(self.host), duration_ns, name };
        self.host += duration_ns.cast_signed() + self.jitter(19_000);
        launch
    }

    /// An operation on the compute stream.
    fn op<W: Write>(
        &mut self,
        out: &mut Out<W>,
        name: StringId,
        kind: OpKind,
        mean_ns: u64,
        launch: Launch,
    ) -> anyhow::Result<()> {
        let arrival = launch.start.0 + launch.duration_ns.cast_signed() + self.jitter(1_400);
        let start = arrival.max(self.stream + self.jitter(900));
        let duration_ns = self.rng.around(mean_ns, 4);
        self.stream = start + duration_ns.cast_signed();
        let copy = kind == OpKind::Memcpy;
        let op = GpuOp {
            start: TimeNs(start),
            duration_ns,
            name,
            stream: COMPUTE,
            kind,
            flags: 0,
            correlation: CorrelationId(self.correlation),
            bytes: if copy { 3_145_728 } else { 0 },
            copy_kind: if copy { CopyKind::HostToDevicePinned } else { CopyKind::Unknown },
            launch: Some(launch),
        };
        self.correlation += 1;
        put!(out, push_gpu_op, self.device, op)?;
        Ok(())
    }

    fn jitter(&mut self, mean_ns: u64) -> i64 {
        self.rng.around(mean_ns, 25).cast_signed()
    }
}

fn since(start: i64, end: i64) -> u64 {
    TimeNs(end).since(TimeNs(start))
}

#[cfg(test)]
mod tests;
