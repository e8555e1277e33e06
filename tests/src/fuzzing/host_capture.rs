//! A small capture with every kind of row that a recording of a host has, for the corpus.

use anyhow::Result;
use stallscope_core::capture::{CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::rows::{
    BlockIo, CollectiveCall, Connection, CpuSample, FileIo, PageFaults, ThreadLoss, ThreadPreempt,
    ThreadSpan, ThreadWait,
};
use stallscope_schemas::record::{
    BlockOp, CollectiveLibrary, CollectiveOp, ObjectKind, WaitKind, call_flags, device_kind, wait_flags,
};
use stallscope_schemas::units::{ProcessId, StackId, StringId, ThreadId, TimeNs};

type Writer = CaptureWriter<Vec<u8>>;

const STEP: i64 = 1_000_000;

fn span(from: i64, to: i64) -> (TimeNs, u64) {
    (TimeNs(from), (to - from).unsigned_abs())
}

/// Two ranks of a process group over Gloo, the second of which reads its samples through a thread that is slow.
pub(super) fn write(steps: i64) -> Result<Vec<u8>> {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default())?;
    let source = writer.add_source(Source { path: "live".into(), format: "live".into() });
    let mut peers = Vec::new();
    for rank in 0..2u32 {
        let process = writer.add_process(Process {
            source,
            pid: 100 + i64::from(rank),
            name: "python3".into(),
            rank: Some(rank),
            world_size: Some(2),
            host: "node-1".into(),
            job: "train".into(),
        });
        let id = format!("rank {rank}");
        let model = String::new();
        let kind = device_kind::CPU;
        writer.add_device(Device { source, kind, id, ordinal: 0, model, processes: vec![process] });
        peers.push(process);
    }
    for (rank, &process) in peers.iter().enumerate() {
        let tid = 100 + i64::try_from(rank)?;
        let names = ["MainThread", "gloo", "loader"];
        let [main, gloo, loader] =
            names.map(|name| writer.add_thread(Thread { process, tid, name: name.into() }));
        let threads = Threads { main, gloo, loader, process, peer: peers[1 - rank] };
        for &thread in &[main, gloo, loader] {
            let (start, duration_ns) = span(0, steps * STEP);
            writer.push_thread_span(thread, ThreadSpan { start, duration_ns })?;
        }
        for step in 0..steps {
            rows(&mut writer, &threads, rank == 1, step * STEP)?;
        }
    }
    Ok(writer.finish()?.0)
}

struct Threads {
    main: ThreadId,
    gloo: ThreadId,
    loader: ThreadId,
    process: ProcessId,
    peer: ProcessId,
}

/// The rows of one step that begins at `at`.
fn rows(writer: &mut Writer, threads: &Threads, late: bool, at: i64) -> Result<()> {
    let &Threads { main, gloo, loader, process, peer } = threads;
    let stack = ["train.py(10): main", "train.py(20): step"].iter().fold(StackId(0), |parent, frame| {
        let name = writer.intern(frame);
        writer.intern_frame(parent, name)
    });
    let reads = if late { 400_000 } else { 50_000 };
    let mut wait = |thread, (from, to), call: &str, kind, object: &str, waker| {
        let (start, duration_ns) = span(at + from, at + to);
        let row = ThreadWait {
            start,
            duration_ns,
            run_queue_ns: 3000,
            kind: WaitKind::Syscall,
            call: writer.intern(call),
            object_kind: kind,
            object: writer.intern(object),
            waker,
            waker_stack: stack,
            stack,
            preemptor: None,
            flags: wait_flags::RETURNED,
            result: 1,
            peer: (kind == ObjectKind::TcpSocket).then_some(peer),
        };
        writer.push_thread_wait(thread, row)
    };
    wait(main, (10_000, reads), "poll", ObjectKind::Pipe, "pipe:[1]", Some(loader))?;
    wait(loader, (5000, reads - 5000), "read", ObjectKind::File, "/data/samples", None)?;
    wait(main, (reads + 70_000, 900_000), "futex", ObjectKind::Futex, "futex", Some(gloo))?;
    wait(gloo, (reads + 80_000, 880_000), "epoll_wait", ObjectKind::TcpSocket, "tcp 1 → 2", Some(gloo))?;
    let mut call = |thread, (from, to), library: CollectiveLibrary, operation, group: &str, bytes, flags| {
        let (start, duration_ns) = span(at + from, at + to);
        let name = writer.intern(&format!("{}::call", library.name()));
        let (datatype, reduction) = (StringId(0), StringId(0));
        let row = CollectiveCall {
            start,
            duration_ns,
            name,
            library,
            operation,
            bytes,
            elements: bytes / 4,
            datatype,
            reduction,
            group: writer.intern(group),
            group_size: 2,
            rank: Some(u32::from(late)),
            peer: None,
            stream: 0,
            sequence: at.unsigned_abs() / STEP.unsigned_abs() + 1,
            result: 0,
            flags,
            stack,
        };
        writer.push_collective_call(thread, row)
    };
    let (c10d, own) = (CollectiveLibrary::C10d, CollectiveLibrary::Gloo);
    let all_reduce = CollectiveOp::AllReduce;
    call(main, (reads + 50_000, reads + 55_000), c10d, all_reduce, "c10d@1", 0, call_flags::ASYNC)?;
    call(gloo, (reads + 60_000, 890_000), own, all_reduce, "gloo@2", 4096, 0)?;
    call(main, (reads + 60_000, 910_000), c10d, CollectiveOp::Wait, "", 0, 0)?;
    let (start, duration_ns) = span(at + 920_000, at + 980_000);
    let kind = WaitKind::Preempted;
    let preempt =
        ThreadPreempt { start, duration_ns, run_queue_ns: 20_000, times: 4, preemptor: Some(loader), kind };
    writer.push_thread_preempt(main, preempt)?;
    writer.push_cpu_sample(main, CpuSample { start: TimeNs(at + 915_000), duration_ns: 10_000, stack })?;
    let (start, duration_ns) = span(at + 985_000, at + 990_000);
    writer.push_thread_loss(main, ThreadLoss { start, duration_ns, counter: 19, records: 1 })?;
    let (start, duration_ns) = span(at, at + STEP);
    writer.push_page_faults(loader, PageFaults { start, duration_ns, minor: 3, major: 1 })?;
    let (device, file) = (writer.intern("vdb"), writer.intern("/data/samples"));
    let (operation, bytes) = (BlockOp::Read, 65_536);
    let block = BlockIo {
        start,
        duration_ns: 4000,
        queued_ns: 10,
        device,
        bytes,
        operation,
        file,
        sector: 8,
        error: 0,
    };
    writer.push_block_io(loader, block)?;
    let object_kind = ObjectKind::File;
    let (reads, read_bytes) = (4, 16_384);
    let file = FileIo {
        start,
        duration_ns,
        object_kind,
        object: file,
        reads,
        read_bytes,
        writes: 0,
        written_bytes: 0,
    };
    writer.push_file_io(process, file)?;
    let name = writer.intern("tcp 1 → 2");
    writer.push_connection(
        process,
        Connection {
            start,
            duration_ns,
            name,
            sent_bytes: 4096,
            received_bytes: 4096,
            segments: 3,
            retransmits: 1,
            rtt_ns: 50_000,
            delivery_rate: 1_000_000,
        },
    )?;
    Ok(())
}
