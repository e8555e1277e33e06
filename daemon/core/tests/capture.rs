//! What a capture promises: rows come back, a cut file opens up to its last whole segment, damage costs what it covers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and their numbers are small"
)]

use stallscope_core::capture::{
    Capture, CaptureError, CaptureWriter, Clock, Device, Process, Source, Thread, WriterOptions,
};
use stallscope_core::ledger::{Leaf, Options, all_ledgers};
use stallscope_core::rows::{GpuOp, HostSpan, Launch};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, RecordKind, SpanKind};
use stallscope_schemas::units::{CorrelationId, DeviceId, SourceId, StackId, ThreadId, TimeNs};

fn op(writer: &mut CaptureWriter<Vec<u8>>, thread: ThreadId, i: u64) -> GpuOp {
    let name = writer.intern(&format!("kernel_{}", i % 7));
    let launch_name = writer.intern("cudaLaunchKernel");
    let start = TimeNs(1_000_000 + (i * 10_000).cast_signed());
    GpuOp {
        start,
        duration_ns: 3_000 + i % 11 * 100,
        name,
        stream: 7 + i % 2,
        kind: OpKind::Kernel,
        flags: 0,
        correlation: CorrelationId(i),
        bytes: 0,
        copy_kind: CopyKind::Unknown,
        launch: (!i.is_multiple_of(5)).then_some(Launch {
            thread,
            start: TimeNs(start.0 - 5_000),
            duration_ns: 2_000,
            name: launch_name,
        }),
    }
}

/// A capture with one segment for each hundred operations.
fn capture_bytes(ops: u64) -> (Vec<u8>, Vec<GpuOp>, Vec<usize>) {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let source = writer.add_source(Source { path: "t".into(), format: "test".into() });
    let process = writer.add_process(Process { source, pid: 42, ..Process::default() });
    let thread = writer.add_thread(Thread { process, tid: 43, name: "main".into() });
    let device =
        writer.add_device(Device { source, id: "gpu".into(), processes: vec![process], ..Device::default() });
    let mut rows = Vec::new();
    for i in 0..ops {
        let row = op(&mut writer, thread, i);
        writer.push_gpu_op(device, row).unwrap();
        rows.push(row);
        if i % 100 == 99 {
            writer.flush().unwrap();
        }
    }
    let (bytes, _) = writer.finish().unwrap();
    let ends = segment_ends(&bytes);
    (bytes, rows, ends)
}

/// Ends of segments, from the lengths in their prefixes.
fn segment_ends(bytes: &[u8]) -> Vec<usize> {
    let mut at = 16;
    let mut ends = Vec::new();
    while at < bytes.len() {
        let header = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let body = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap()) as usize;
        at += 24 + header + body;
        ends.push(at);
    }
    ends
}

fn rows_of(bytes: &[u8]) -> Vec<GpuOp> {
    Capture::open(bytes.to_vec()).unwrap().rows::<GpuOp>(0).collect()
}

#[test]
fn rows_and_tables_come_back() {
    let (bytes, rows, _) = capture_bytes(1000);
    let capture = Capture::open(bytes).unwrap();
    assert_eq!(capture.rows::<GpuOp>(0).collect::<Vec<_>>(), rows);
    assert_eq!(capture.tables().string(rows[1].name), "kernel_1");
    assert_eq!(capture.tables().thread(ThreadId(0)).unwrap().tid, 43);
    assert!(capture.losses().is_empty());
}

#[test]
fn a_file_cut_at_any_byte_opens_up_to_its_last_whole_segment() {
    let (bytes, rows, ends) = capture_bytes(500);
    for cut in 0..bytes.len() {
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        match Capture::open(bytes[..cut].to_vec()) {
            Ok(capture) => {
                assert_eq!(capture.rows::<GpuOp>(0).count(), (whole * 100).min(rows.len()), "cut at {cut}");
                let inside = !ends.contains(&cut) && cut != 16;
                let counted = capture.losses().contains(&(LossCounter::CaptureTruncated.id(), 1));
                assert_eq!(counted, inside, "cut at {cut}");
            }
            Err(CaptureError::Empty | CaptureError::NotACapture) => assert!(cut < 16, "cut at {cut}"),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn a_flipped_bit_costs_at_most_its_segment_and_is_counted() {
    let (bytes, rows, ends) = capture_bytes(500);
    for at in (16..bytes.len()).step_by(13) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let capture = Capture::open(damaged).unwrap();
        let hit = ends.iter().filter(|&&end| end <= at).count();
        let read: Vec<GpuOp> = capture.rows::<GpuOp>(0).collect();
        let expected: Vec<GpuOp> =
            rows.iter().enumerate().filter(|(i, _)| i / 100 != hit).map(|(_, r)| *r).collect();
        assert!(read == expected || read == rows, "bit {at} in segment {hit}: {} rows", read.len());
        if read != rows {
            assert!(!capture.losses().is_empty(), "bit {at} lost rows without a word");
        }
        // The first segment holds the tables: without it the device is nameless, but the ledger still closes.
        for ledger in all_ledgers(&capture, Options::default()).unwrap() {
            assert_eq!(ledger.sums.total(), ledger.end.since(ledger.start));
        }
    }
}

#[test]
fn a_damaged_stretch_in_the_middle_is_unknown_not_idle() {
    let (bytes, _, ends) = capture_bytes(500);
    let whole = all_ledgers(&Capture::open(bytes.clone()).unwrap(), Options::default()).unwrap();
    for damage_at in [ends[1] + 2, ends[2] - 3] {
        let mut damaged = bytes.clone();
        damaged[damage_at] ^= 0x40;
        let ledgers = all_ledgers(&Capture::open(damaged).unwrap(), Options::default()).unwrap();
        let (before, after) = (&whole[0], &ledgers[0]);
        assert_eq!((before.start, before.end), (after.start, after.end));
        // The lost segment spans 100 operations, 10 µs apart.
        let unknown = after.sums.get(Leaf::Unknown);
        assert!((980_000..=1_010_000).contains(&unknown), "{unknown} ns unknown");
        for leaf in [Leaf::Compute, Leaf::Idle] {
            assert!(after.sums.get(leaf) <= before.sums.get(leaf), "{leaf:?} grew");
        }
    }
}

#[test]
fn a_newer_version_is_refused_by_number() {
    let (mut bytes, ..) = capture_bytes(10);
    bytes[8] = 9;
    match Capture::open(bytes) {
        Err(error @ CaptureError::NewerVersion { found: 9, .. }) => {
            let text = error.to_string();
            assert!(text.contains("version 9") && text.contains("newer stallscope"), "{text}");
        }
        other => panic!("{:?}", other.map(|c| c.segments())),
    }
}

#[test]
fn rows_that_arrive_out_of_order_are_read_in_order() {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    writer.add_device(Device::default());
    let mut starts: Vec<u64> = (0..3000).map(|i| i * 7919 % 3000).collect();
    for (n, &i) in starts.iter().enumerate() {
        let row = op(&mut writer, ThreadId(0), i);
        writer.push_gpu_op(DeviceId(0), row).unwrap();
        if n % 400 == 0 {
            writer.flush().unwrap();
        }
    }
    let (bytes, _) = writer.finish().unwrap();
    starts.sort_unstable();
    let read: Vec<u64> = rows_of(&bytes).iter().map(|r| r.correlation.0).collect();
    assert_eq!(read, starts);
}

#[test]
fn the_clock_of_a_source_moves_all_its_times() {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let source = writer.add_source(Source::default());
    let process = writer.add_process(Process { source, ..Process::default() });
    let thread = writer.add_thread(Thread { process, ..Thread::default() });
    let device = writer.add_device(Device { source, ..Device::default() });
    let row = op(&mut writer, thread, 1);
    writer.push_gpu_op(device, row).unwrap();
    let name = writer.intern("span");
    let span =
        HostSpan { start: TimeNs(5), duration_ns: 9, name, kind: SpanKind::Operator, stack: StackId(0) };
    writer.push_host_span(thread, span).unwrap();
    // The relation may become known last: Kineto writes baseTimeNanoseconds at the end.
    writer.set_clock(Clock { source: SourceId(0), offset_ns: 1 << 60, error_ns: 0, note: String::new() });
    let (bytes, _) = writer.finish().unwrap();
    let capture = Capture::open(bytes).unwrap();
    let moved: Vec<GpuOp> = capture.rows::<GpuOp>(0).collect();
    assert_eq!(moved[0].start.0, row.start.0 + (1 << 60));
    assert_eq!(moved[0].launch.unwrap().start.0, row.launch.unwrap().start.0 + (1 << 60));
    assert_eq!(capture.rows::<HostSpan>(0).next().unwrap().start.0, 5 + (1 << 60));
    assert_eq!(capture.extent(RecordKind::GpuOp, 0).unwrap().0, moved[0].start);
}

#[test]
fn a_stretch_of_time_is_read_without_touching_the_rest() {
    let (mut bytes, rows, ends) = capture_bytes(500);
    let (from, to) = (rows[210].start, rows[230].start);
    let read = |bytes: &[u8]| -> (Vec<GpuOp>, Vec<(u16, u64)>) {
        let capture = Capture::open(bytes.to_vec()).unwrap();
        (capture.rows_between::<GpuOp>(0, from, to).collect(), capture.losses())
    };
    assert_eq!(read(&bytes).0, rows[210..230]);
    // Whatever happened to the bodies of other segments goes unnoticed: they are not read.
    for end in [ends[0], ends[1], ends[3]] {
        bytes[end - 3] ^= 0xff;
    }
    assert_eq!(read(&bytes), (rows[210..230].to_vec(), vec![]));
}

/// The writer stores equal strings once: together the names may be longer than the header that holds them.
#[test]
fn a_long_name_that_many_processes_share_is_read_back() {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let source = writer.add_source(Source { path: "t".into(), format: "test".into() });
    let (name, host, job) = ("n".repeat(255), "h".repeat(64), "j".repeat(255));
    for pid in 0..2_000 {
        let (name, host, job) = (name.clone(), host.clone(), job.clone());
        let process = writer.add_process(Process { source, pid, name, host, job, ..Process::default() });
        writer.add_thread(Thread { process, tid: pid, name: "t".repeat(15) });
    }
    let capture = Capture::open(writer.finish().unwrap().0).unwrap();
    assert!(capture.losses().is_empty(), "{:?}", capture.losses());
    let processes = capture.tables().processes();
    assert_eq!(processes.len(), 2_000);
    assert!(processes.iter().all(|p| p.job == job && p.host == host && p.name == name));
}

#[test]
fn of_a_very_deep_stack_the_innermost_frames_are_told() {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let names = ["even", "odd", "inner"].map(|name| writer.intern(name));
    let deep = (0..5000).fold(StackId(0), |at, depth| writer.intern_frame(at, names[depth % 2]));
    let stack = writer.intern_frame(deep, names[2]);
    let capture = Capture::open(writer.finish().unwrap().0).unwrap();
    let told = capture.tables().stack_names(stack);
    assert_eq!((told.len(), told.last()), (2048, Some(&names[2])));
}
