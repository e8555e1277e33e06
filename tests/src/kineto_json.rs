//! Writes a rank of the model the way PyTorch's profiler does: Kineto's JSON of 2025, fields and order included.
//!
//! Written as text, so that the bytes depend on nothing but the model (the order of a JSON map's keys depends on what else
//! is built). Times are microseconds with three decimals relative to `baseTimeNanoseconds`, so nothing is rounded.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::host::{COMM_STREAM, COMPUTE_STREAM, DeviceOp, Host, HostEvent, HostKind, Work};

/// 2025-10-06 00:00:00 UTC: any time will do, as long as it is always the same.
pub const BASE_TIME_NS: u64 = 1_759_708_800_000_000_000;

/// Pid of rank 0; the others follow.
const FIRST_PID: u64 = 48_210;

/// Pid of a rank.
#[must_use]
pub fn pid(rank: u32) -> u64 {
    FIRST_PID + u64::from(rank)
}

/// Writes the trace of one rank.
///
/// # Errors
/// Whatever the output reports.
pub fn write(host: &Host, world_size: u32, out: &mut impl Write) -> io::Result<()> {
    let ranks: Vec<String> = (0..world_size).map(|rank| rank.to_string()).collect();
    let ranks = format!("[{}]", ranks.join(", "));
    let devices: Vec<String> = (0..world_size).map(device_properties).collect();
    writeln!(out, "{{\n  \"schemaVersion\": 1,\n  \"deviceProperties\": [{}],", devices.join(", "))?;
    writeln!(out, "  \"cupti_version\": 26,\n  \"cuda_runtime_version\": 12080,\n  \"with_stack\": 1,")?;
    writeln!(
        out,
        "  \"distributedInfo\": {{\"backend\": \"nccl\", \"rank\": {}, \"world_size\": {world_size}, \
         \"pg_count\": 1, \"pg_config\": [{{\"pg_name\": \"0\", \"pg_desc\": \"default_pg\", \
         \"backend_config\": \"cuda:nccl\", \"pg_size\": {world_size}, \"ranks\": {ranks}}}], \
         \"nccl_version\": \"2.26.2\"}},",
        host.rank
    )?;
    writeln!(
        out,
        "  \"displayTimeUnit\": \"ms\",\n  \"baseTimeNanoseconds\": {BASE_TIME_NS},\n  \"traceEvents\": ["
    )?;
    write_events(host, world_size, &ranks, out)?;
    writeln!(out, "  ],\n  \"traceName\": \"demo-rank{}.json\"\n}}", host.rank)
}

fn device_properties(id: u32) -> String {
    format!(
        "{{\"id\": {id}, \"name\": \"NVIDIA H100 80GB HBM3\", \"totalGlobalMem\": 85028896768, \
         \"computeMajor\": 9, \"computeMinor\": 0, \"maxThreadsPerBlock\": 1024, \
         \"maxThreadsPerMultiprocessor\": 2048, \"regsPerBlock\": 65536, \"warpSize\": 32, \
         \"sharedMemPerBlock\": 49152, \"numSms\": 132}}"
    )
}

fn write_events(host: &Host, world_size: u32, ranks: &str, out: &mut impl Write) -> io::Result<()> {
    let mut events: Vec<&HostEvent> = host.events.iter().collect();
    events.sort_by_key(|e| {
        (matches!(e.kind, HostKind::Runtime { .. }), e.start, std::cmp::Reverse(e.duration))
    });
    let launched: std::collections::HashMap<u64, &DeviceOp> =
        host.ops.iter().map(|op| (op.correlation, op)).collect();
    for (at, event) in events.iter().enumerate() {
        host_event(host.rank, at, event, out)?;
        let HostKind::Runtime { correlation } = event.kind else { continue };
        if let Some(op) = launched.get(&correlation) {
            let tid = pid(host.rank) + event.thread as u64;
            let flow = "\"cat\": \"ac2g\", \"name\": \"ac2g\"";
            let (from, to) = (micros(event.start), micros(op.start));
            let (pid, device, stream) = (pid(host.rank), host.rank, op.stream);
            writeln!(
                out,
                "  {{\"ph\": \"s\", \"id\": {correlation}, \"pid\": {pid}, \"tid\": {tid}, \"ts\": {from}, {flow}}},"
            )?;
            writeln!(
                out,
                "  {{\"ph\": \"f\", \"id\": {correlation}, \"pid\": {device}, \"tid\": {stream}, \"ts\": {to}, {flow}, \"bp\": \"e\"}},"
            )?;
            device_op(host.rank, op, world_size, ranks, out)?;
        }
    }
    for wait in &host.waits {
        let (device, ts) = (host.rank, micros(wait.start));
        let (stream, on_stream, correlation) = (wait.stream, wait.on_stream, wait.correlation);
        writeln!(
            out,
            "  {{\"ph\": \"X\", \"cat\": \"cuda_sync\", \"name\": \"Stream Wait Event\", \"pid\": {device}, \
             \"tid\": {stream}, \"ts\": {ts}, \"dur\": 0.001, \"args\": {{\"cuda_sync_kind\": \"Stream Wait Event\", \
             \"wait_on_stream\": {on_stream}, \"wait_on_cuda_event_record_corr_id\": 0, \"wait_on_cuda_event_id\": 1, \
             \"stream\": {stream}, \"correlation\": {correlation}, \"device\": {device}, \"context\": 1}}}},"
        )?;
    }
    metadata(host, out)
}

fn host_event(rank: u32, at: usize, event: &HostEvent, out: &mut impl Write) -> io::Result<()> {
    let record = format!("\"External id\": {}, \"Record function id\": 0, \"Ev Idx\": {at}", at + 1);
    let (category, args) = match event.kind {
        HostKind::Operator => ("cpu_op", record),
        HostKind::Annotation => ("user_annotation", record),
        HostKind::Python { id, parent } => {
            let parent = if parent == 0 { "null".to_owned() } else { parent.to_string() };
            (
                "python_function",
                format!("\"Python parent id\": {parent}, \"Python id\": {id}, \"Ev Idx\": {at}"),
            )
        }
        HostKind::Runtime { correlation } => {
            ("cuda_runtime", format!("\"cbid\": 211, \"correlation\": {correlation}"))
        }
    };
    let tid = pid(rank) + event.thread as u64;
    let head = head(category, &event.name, pid(rank), tid, event.start, event.duration);
    writeln!(out, "  {head}, \"args\": {{{args}}}}},")
}

fn device_op(rank: u32, op: &DeviceOp, world_size: u32, ranks: &str, out: &mut impl Write) -> io::Result<()> {
    let more = match op.work {
        Work::Kernel => "\"queued\": 0, \"registers per thread\": 168, \"shared memory\": 98304, \
                         \"grid\": [264, 1, 1], \"block\": [256, 1, 1]"
            .to_owned(),
        Work::Memset(bytes) | Work::Copy(bytes) => format!("\"bytes\": {bytes}"),
        Work::AllReduce(elements) => format!(
            "\"queued\": 0, \"grid\": [24, 1, 1], \"block\": [544, 1, 1], \"Collective name\": \"allreduce\", \
             \"In msg nelems\": {elements}, \"Out msg nelems\": {elements}, \"Group size\": {world_size}, \
             \"dtype\": \"Float\", \"In split size\": \"[]\", \"Out split size\": \"[]\", \
             \"Process Group Name\": \"0\", \"Process Group Description\": \"default_pg\", \
             \"Process Group Ranks\": \"{ranks}\""
        ),
    };
    let (stream, correlation) = (op.stream, op.correlation);
    let args = format!(
        "\"device\": {rank}, \"context\": 1, \"stream\": {stream}, \"correlation\": {correlation}, {more}"
    );
    let category = match op.work {
        Work::Kernel | Work::AllReduce(_) => "kernel",
        Work::Memset(_) => "gpu_memset",
        Work::Copy(_) => "gpu_memcpy",
    };
    let head = head(category, op.name, rank.into(), op.stream as u64, op.start, op.duration);
    writeln!(out, "  {head}, \"args\": {{{args}}}}},")
}

/// Names of processes, threads and streams, and the profiler's own marks; closes the list of events.
fn metadata(host: &Host, out: &mut impl Write) -> io::Result<()> {
    let (pid, device) = (pid(host.rank), host.rank);
    let mut line = |name: &str, pid: u64, tid: u64, key: &str, value: &str| {
        writeln!(
            out,
            "  {{\"name\": \"{name}\", \"ph\": \"M\", \"ts\": 0.000, \"pid\": {pid}, \"tid\": {tid}, \
             \"args\": {{\"{key}\": \"{value}\"}}}},"
        )
    };
    line("process_name", pid, 0, "name", "python")?;
    line("process_labels", pid, 0, "labels", "CPU")?;
    line("process_name", device.into(), 0, "name", "python")?;
    line("process_labels", device.into(), 0, "labels", &format!("GPU {device}"))?;
    for (thread, name) in Host::THREADS.iter().enumerate() {
        let tid = pid + thread as u64;
        line("thread_name", pid, tid, "name", &format!("thread {tid} ({name})"))?;
    }
    for stream in [COMPUTE_STREAM, COMM_STREAM] {
        line("thread_name", device.into(), stream as u64, "name", &format!("stream {stream}"))?;
    }
    let end = micros(host.now);
    writeln!(
        out,
        "  {{\"ph\": \"X\", \"cat\": \"Trace\", \"ts\": 0.000, \"dur\": {end}, \"pid\": \"Spans\", \"tid\": \"PyTorch Profiler\", \"name\": \"PyTorch Profiler (0)\", \"args\": {{\"Op count\": 0}}}},"
    )?;
    writeln!(
        out,
        "  {{\"name\": \"Record Window End\", \"ph\": \"i\", \"s\": \"g\", \"pid\": \"\", \"tid\": \"\", \"ts\": {end}}}"
    )
}

fn head(category: &str, name: &str, pid: u64, tid: u64, start: u64, duration: u64) -> String {
    let mut text = String::new();
    let (ts, dur) = (micros(start), micros(duration));
    // Names of the model hold no character that JSON escapes.
    let _ = write!(
        text,
        "{{\"ph\": \"X\", \"cat\": \"{category}\", \"name\": \"{name}\", \"pid\": {pid}, \"tid\": {tid}, \"ts\": {ts}, \"dur\": {dur}"
    );
    text
}

fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}
