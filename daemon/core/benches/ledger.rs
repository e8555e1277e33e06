//! The inner loops of core: writing batches, decoding them, and the ledger of a device.
//!
//! Throughput is in operations per second on one core. Run by `cargo bench -p stallscope-core`.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark whose input fails has to stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stallscope_core::capture::{Capture, CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::collectives::Collectives;
use stallscope_core::ledger::Options;
use stallscope_core::ledger::cpu::cpu_ledger;
use stallscope_core::ledger::device::device_ledger;
use stallscope_core::rows::{ApiCall, GpuOp, Launch, ThreadSpan, ThreadWait};
use stallscope_schemas::record::{CopyKind, ObjectKind, OpKind, WaitKind, device_kind};
use stallscope_schemas::units::{CorrelationId, DeviceId, StackId, StringId, TimeNs};

/// Several batches of 65536, so that the merge of batches is part of what is measured.
const OPS: u32 = 400_000;

/// A job whose host runs ahead for 500 operations and then waits: mostly busy, some gaps.
fn capture() -> Vec<u8> {
    let mut writer =
        CaptureWriter::new(Vec::new(), WriterOptions::default()).expect("memory takes everything");
    let source = writer.add_source(Source::default());
    let process = writer.add_process(Process { source, pid: 1, ..Process::default() });
    let thread = writer.add_thread(Thread { process, tid: 1, ..Thread::default() });
    let kind = device_kind::GPU;
    let device = writer.add_device(Device { source, kind, processes: vec![process], ..Device::default() });
    let kernels: Vec<_> = (0..64).map(|k| writer.intern(&format!("kernel_{k}"))).collect();
    let (call, sync) = (writer.intern("cudaLaunchKernel"), writer.intern("cudaStreamSynchronize"));
    let (mut host, mut stream) = (1_700_000_000_000_000_000_i64, 1_700_000_000_000_000_000_i64);
    for at in 0..OPS {
        // A multiplicative hash stands in for jitter.
        let jitter = i64::from(at.wrapping_mul(2_654_435_761) >> 22);
        let called = host;
        host += 5_000 + jitter;
        let start = TimeNs((called + 4_500).max(stream + 900));
        let duration = 2_000 + 20 * jitter;
        stream = start.0 + duration;
        let correlation = CorrelationId(at.into());
        let launch = Launch { thread, start: TimeNs(called), duration_ns: 3_900, name: call };
        let op = GpuOp {
            start,
            duration_ns: duration.unsigned_abs(),
            name: kernels[at as usize % kernels.len()],
            stream: 7,
            kind: OpKind::Kernel,
            flags: 0,
            correlation,
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: Some(launch),
        };
        writer.push_gpu_op(device, op).expect("memory takes everything");
        if at % 500 == 499 {
            let end = stream.max(host) + 2_000;
            let wait = ApiCall {
                start: TimeNs(host),
                duration_ns: (end - host).unsigned_abs(),
                name: sync,
                correlation,
            };
            writer.push_api_call(thread, wait).expect("memory takes everything");
            host = end;
        }
    }
    writer.finish().expect("memory takes everything").0
}

/// Waits of each of the two threads of a rank.
const WAITS: u32 = 1_000_000;

/// A main thread that waits for a worker, which waits for a file: every wait is walked into.
fn waits() -> Vec<u8> {
    let mut writer =
        CaptureWriter::new(Vec::new(), WriterOptions::default()).expect("memory takes everything");
    let source = writer.add_source(Source::default());
    let process = writer.add_process(Process { source, pid: 1, rank: Some(0), ..Process::default() });
    let main = writer.add_thread(Thread { process, tid: 1, ..Thread::default() });
    let worker = writer.add_thread(Thread { process, tid: 2, ..Thread::default() });
    let kind = device_kind::CPU;
    writer.add_device(Device { source, kind, processes: vec![process], ..Device::default() });
    let (futex, read) = (writer.intern("futex"), writer.intern("read"));
    let stacks: Vec<StackId> = (0..64)
        .map(|frame| {
            let name = writer.intern(&format!("train.py({frame}): step"));
            writer.intern_frame(StackId(0), name)
        })
        .collect();
    let mut at = 1_700_000_000_000_000_000_i64;
    let begin = at;
    for number in 0..WAITS {
        // A multiplicative hash stands in for jitter.
        let jitter = i64::from(number.wrapping_mul(2_654_435_761) >> 20);
        let stack = stacks[number as usize % stacks.len()];
        let row = |start: i64, duration: i64, call, object_kind, waker| ThreadWait {
            start: TimeNs(start),
            duration_ns: duration.unsigned_abs(),
            run_queue_ns: 500,
            kind: WaitKind::Syscall,
            call,
            object_kind,
            object: StringId(0),
            waker,
            waker_stack: StackId(0),
            stack,
            preemptor: None,
            flags: 0,
            result: 0,
            peer: None,
        };
        let waits = row(at, 20_000 + jitter, futex, ObjectKind::Futex, Some(worker));
        writer.push_thread_wait(main, waits).expect("memory takes everything");
        let reads = row(at + 3_000, 12_000 + jitter, read, ObjectKind::File, None);
        writer.push_thread_wait(worker, reads).expect("memory takes everything");
        at += 30_000 + jitter;
    }
    for thread in [main, worker] {
        let span = ThreadSpan { start: TimeNs(begin), duration_ns: (at - begin).unsigned_abs() };
        writer.push_thread_span(thread, span).expect("memory takes everything");
    }
    writer.finish().expect("memory takes everything").0
}

fn benches(c: &mut Criterion) {
    let bytes = capture();
    let open = Capture::open(bytes.clone()).expect("a capture of our own opens");
    let mut group = c.benchmark_group("operations");
    group.throughput(Throughput::Elements(OPS.into())).sample_size(10);
    group.bench_function("write", |b| b.iter(|| black_box(capture()).len()));
    group.bench_function("decode to rows", |b| b.iter(|| open.rows::<GpuOp>(0).count()));
    group.bench_function("ledger", |b| {
        b.iter(|| {
            black_box(device_ledger(&open, DeviceId(0), &Collectives::default(), Options::default())).is_ok()
        });
    });
    group.finish();
    let of_waits = Capture::open(waits()).expect("a capture of our own opens");
    let mut group = c.benchmark_group("waits");
    group.throughput(Throughput::Elements(u64::from(WAITS) * 2)).sample_size(10);
    group.bench_function("decode to rows", |b| {
        b.iter(|| of_waits.rows::<ThreadWait>(0).count() + of_waits.rows::<ThreadWait>(1).count())
    });
    group.bench_function("rank ledger", |b| {
        b.iter(|| black_box(cpu_ledger(&of_waits, DeviceId(0), Options::default())).is_ok());
    });
    group.finish();
    c.bench_function("open", |b| b.iter(|| black_box(Capture::open(bytes.clone())).is_ok()));
}

criterion_group!(ledger, benches);
criterion_main!(ledger);
