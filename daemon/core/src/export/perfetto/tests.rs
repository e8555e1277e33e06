//! Reads traces back as a reader does: packets sorted by time, ends closing the innermost slice of their track.

use std::collections::BTreeMap;
use std::io;

use prost::Message;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, device_kind};
use stallscope_schemas::units::{
    CorrelationId, DeviceId, ProcessId, SourceId, StackId, StringId, ThreadId, TimeNs,
};

use super::super::perfetto_proto::{TracePacket, TrackDescriptor, event_type};
use super::{PerfettoSummary, write_perfetto};
use crate::capture::{Capture, CaptureWriter, Device, Process, Thread, WriterOptions};
use crate::rows::{ApiCall, Counter, DeviceSpan, GpuOp, HostSpan, Launch, LossWindow};

/// `Trace` as a whole.
#[derive(Clone, PartialEq, prost::Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

/// A slice as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    track: String,
    name: String,
    category: String,
    start: i64,
    end: i64,
    depth: usize,
    flows: Vec<u64>,
    bytes: Option<u64>,
}

struct Read {
    slices: Vec<Seen>,
    /// Track, when, value.
    values: Vec<(u64, i64, f64)>,
    tracks: Vec<TrackDescriptor>,
    summary: PerfettoSummary,
}

impl Read {
    fn on(&self, track: &str) -> Vec<(&str, i64, i64, usize)> {
        let on = self.slices.iter().filter(|s| s.track == track);
        on.map(|s| (s.name.as_str(), s.start, s.end, s.depth)).collect()
    }

    fn track(&self, uuid: Option<u64>) -> &TrackDescriptor {
        self.tracks.iter().find(|t| t.uuid == uuid).expect("the track is described")
    }

    /// Process, counter and unit, then when and which value.
    fn counters(&self) -> Vec<(&str, &str, Option<&str>, i64, f64)> {
        let seen = |&(uuid, at, value): &(u64, i64, f64)| {
            let track = self.track(Some(uuid));
            let process =
                self.track(track.parent_uuid).process.as_ref().and_then(|p| p.process_name.as_deref());
            let unit = track.counter.as_ref().expect("a counter's track").unit_name.as_deref();
            (process.unwrap_or_default(), track.name.as_deref().unwrap_or_default(), unit, at, value)
        };
        self.values.iter().map(seen).collect()
    }

    fn named(&self, name: &str) -> Option<&Seen> {
        self.slices.iter().find(|s| s.name == name)
    }
}

type Writer = CaptureWriter<Vec<u8>>;

fn capture(
    fill: impl FnOnce(&mut Writer) -> Result<(), crate::capture::WriteError>,
) -> io::Result<Capture<Vec<u8>>> {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).map_err(io::Error::other)?;
    let process = writer.add_process(Process { pid: 44, name: "python".to_owned(), ..Process::default() });
    writer.add_thread(Thread { process, tid: 44, name: "main".to_owned() });
    writer.add_thread(Thread { process, tid: 45, name: "loader".to_owned() });
    writer.add_device(Device { source: SourceId(0), id: "GPU-x".to_owned(), ..Device::default() });
    fill(&mut writer).map_err(io::Error::other)?;
    let (bytes, _) = writer.finish().map_err(io::Error::other)?;
    Capture::open(bytes).map_err(io::Error::other)
}

fn read(fill: impl FnOnce(&mut Writer) -> Result<(), crate::capture::WriteError>) -> io::Result<Read> {
    let mut out = Vec::new();
    let summary = write_perfetto(&capture(fill)?, &mut out)?;
    replay(&Trace::decode(out.as_slice()).map_err(io::Error::other)?, summary)
}

fn replay(trace: &Trace, summary: PerfettoSummary) -> io::Result<Read> {
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    let mut categories: BTreeMap<u64, String> = BTreeMap::new();
    let mut tracks: BTreeMap<u64, TrackDescriptor> = BTreeMap::new();
    let mut events = Vec::new();
    for packet in &trace.packet {
        assert_eq!(packet.trusted_packet_sequence_id, Some(1));
        let interned = packet.interned_data.clone().unwrap_or_default();
        names.extend(interned.event_names.into_iter().filter_map(|n| Some((n.iid?, n.name?))));
        categories.extend(interned.event_categories.into_iter().filter_map(|n| Some((n.iid?, n.name?))));
        if let Some(track) = &packet.track_descriptor {
            assert!(
                tracks.insert(track.uuid.unwrap_or(0), track.clone()).is_none(),
                "a track is described once"
            );
        }
        if let (Some(event), Some(at)) = (&packet.track_event, packet.timestamp) {
            // Names are known when they are used.
            let name = event.name.clone().or_else(|| event.name_iid.and_then(|iid| names.get(&iid).cloned()));
            events.push((at, event.clone(), name));
        }
    }
    events.sort_by_key(|(at, ..)| *at);
    let mut open: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
    let mut slices = Vec::new();
    let mut values = Vec::new();
    for (at, event, name) in events {
        let at = i64::try_from(at).map_err(io::Error::other)? - summary.shift_ns;
        let uuid = event.track_uuid.unwrap_or(0);
        let track =
            tracks.get(&uuid).cloned().ok_or_else(|| io::Error::other("an event before its track"))?;
        assert_eq!(
            event.kind == Some(event_type::COUNTER),
            track.counter.is_some(),
            "values and slices are apart"
        );
        if event.kind == Some(event_type::COUNTER) {
            #[allow(clippy::cast_precision_loss, reason = "the tests' values are small")]
            let whole = event.counter_value.map(|value| value as f64);
            values.push((uuid, at, whole.or(event.double_counter_value).expect("a value")));
            continue;
        }
        let stack = open.entry(uuid).or_default();
        if event.kind == Some(event_type::SLICE_BEGIN) {
            let thread = track.thread.and_then(|t| t.thread_name);
            stack.push(Seen {
                track: track.name.or(thread).unwrap_or_default(),
                name: name.ok_or_else(|| io::Error::other("a slice without a name"))?,
                category: event
                    .category_iids
                    .first()
                    .and_then(|c| categories.get(c))
                    .cloned()
                    .unwrap_or_default(),
                start: at,
                end: at,
                depth: stack.len(),
                flows: event.flow_ids,
                bytes: event
                    .debug_annotations
                    .iter()
                    .find(|a| a.name_iid == Some(2))
                    .and_then(|a| a.uint_value),
            });
        } else {
            let mut slice = stack.pop().ok_or_else(|| io::Error::other("an end without a begin"))?;
            slice.end = at;
            slices.push(slice);
        }
    }
    assert!(open.values().all(Vec::is_empty), "every slice ends");
    slices.sort_by(|a, b| (&a.track, a.start, a.depth).cmp(&(&b.track, b.start, b.depth)));
    assert_eq!(slices.len() as u64, summary.slices);
    assert_eq!(values.len() as u64, summary.values);
    Ok(Read { slices, values, tracks: tracks.into_values().collect(), summary })
}

fn op(name: StringId, start: i64, duration_ns: u64, stream: u64, launch: Option<Launch>) -> GpuOp {
    GpuOp {
        start: TimeNs(start),
        duration_ns,
        name,
        stream,
        kind: OpKind::Kernel,
        flags: 0,
        correlation: CorrelationId(0),
        bytes: 0,
        copy_kind: CopyKind::Unknown,
        launch,
    }
}

fn launch(name: StringId, thread: u32, start: i64, duration_ns: u64) -> Launch {
    Launch { thread: ThreadId(thread), start: TimeNs(start), duration_ns, name }
}

fn span(name: StringId, start: i64, duration_ns: u64) -> HostSpan {
    HostSpan { start: TimeNs(start), duration_ns, name, kind: SpanKind::Operator, stack: StackId(0) }
}

const GPU: DeviceId = DeviceId(0);
const MAIN: ThreadId = ThreadId(0);

#[test]
fn operations_lie_on_the_track_of_their_stream_and_overlaps_on_another() -> io::Result<()> {
    let read = read(|w| {
        let name = w.intern("gemm");
        for (start, duration, stream) in [(100, 50, 7), (150, 10, 7), (120, 100, 7), (100, 10, 13)] {
            w.push_gpu_op(GPU, op(name, start, duration, stream, None))?;
        }
        Ok(())
    })?;
    assert_eq!(read.on("stream 7"), [("gemm", 100, 150, 0), ("gemm", 150, 160, 0)]);
    assert_eq!(read.on("stream 7 (2)"), [("gemm", 120, 220, 0)]);
    assert_eq!(read.on("stream 13"), [("gemm", 100, 110, 0)]);
    Ok(())
}

#[test]
fn launches_nest_in_the_operator_that_made_them_and_flow_to_the_device() -> io::Result<()> {
    let read = read(|w| {
        let (kernel, call, outer) = (w.intern("gemm"), w.intern("cudaLaunchKernel"), w.intern("aten::mm"));
        w.push_host_span(MAIN, span(outer, 10, 40))?;
        // The device runs the later launch first.
        w.push_gpu_op(GPU, op(kernel, 100, 10, 7, Some(launch(call, 0, 30, 5))))?;
        w.push_gpu_op(GPU, op(kernel, 120, 10, 8, Some(launch(call, 0, 15, 5))))?;
        let sync = w.intern("cudaStreamSynchronize");
        w.push_api_call(
            MAIN,
            ApiCall { start: TimeNs(60), duration_ns: 9, name: sync, correlation: CorrelationId(0) },
        )
    })?;
    assert_eq!(
        read.on("main"),
        [
            ("aten::mm", 10, 50, 0),
            ("cudaLaunchKernel", 15, 20, 1),
            ("cudaLaunchKernel", 30, 35, 1),
            ("cudaStreamSynchronize", 60, 69, 0),
        ]
    );
    let flow_of = |start: i64| read.slices.iter().find(|s| s.start == start).map(|s| s.flows.clone());
    assert_eq!(flow_of(30), flow_of(100));
    assert_eq!(flow_of(15), flow_of(120));
    assert_ne!(flow_of(15), flow_of(30));
    Ok(())
}

#[test]
fn a_graph_launch_is_drawn_once_and_flows_to_all_its_nodes() -> io::Result<()> {
    let read = read(|w| {
        let (kernel, call) = (w.intern("node"), w.intern("cudaGraphLaunch"));
        for k in 0..5 {
            w.push_gpu_op(GPU, op(kernel, 100 + k * 10, 10, 7, Some(launch(call, 0, 30, 5))))?;
        }
        Ok(())
    })?;
    assert_eq!(read.on("main"), [("cudaGraphLaunch", 30, 35, 0)]);
    let flows = read.named("cudaGraphLaunch").map(|s| s.flows.clone());
    assert!(read.slices.iter().filter(|s| s.name == "node").all(|s| Some(&s.flows) == flows.as_ref()));
    Ok(())
}

#[test]
fn a_copy_call_that_is_stored_twice_is_drawn_once() -> io::Result<()> {
    let read = read(|w| {
        let (copy, call) = (w.intern("Memcpy HtoD"), w.intern("cudaMemcpyAsync"));
        let op =
            GpuOp { bytes: 4096, kind: OpKind::Memcpy, ..op(copy, 100, 10, 7, Some(launch(call, 0, 30, 5))) };
        w.push_gpu_op(GPU, op)?;
        w.push_api_call(
            MAIN,
            ApiCall { start: TimeNs(30), duration_ns: 5, name: call, correlation: CorrelationId(1) },
        )
    })?;
    assert_eq!(read.on("main"), [("cudaMemcpyAsync", 30, 35, 0)]);
    let copy = read.named("Memcpy HtoD");
    assert_eq!(copy.map(|s| (s.category.as_str(), s.bytes)), Some(("copy", Some(4096))));
    Ok(())
}

#[test]
fn ranges_that_only_partly_overlap_are_drawn_on_a_track_beside() -> io::Result<()> {
    let read = read(|w| {
        let (a, b) = (w.intern("a"), w.intern("b"));
        w.push_host_span(MAIN, span(a, 10, 10))?;
        w.push_host_span(MAIN, span(b, 15, 10))
    })?;
    assert_eq!(read.on("main"), [("a", 10, 20, 0)]);
    assert_eq!(read.on("overlapping (2)"), [("b", 15, 25, 0)]);
    Ok(())
}

#[test]
fn ranges_of_the_device_and_lost_records_have_tracks_of_their_own() -> io::Result<()> {
    let read = read(|w| {
        let name = w.intern("step 1");
        w.push_device_span(
            GPU,
            DeviceSpan { start: TimeNs(5), duration_ns: 50, name, kind: SpanKind::Step },
        )?;
        let counter = LossCounter::BatchDamaged.id();
        w.push_loss_window(GPU, LossWindow { start: TimeNs(60), duration_ns: 7, counter })
    })?;
    assert_eq!(read.on("ranges"), [("step 1", 5, 55, 0)]);
    assert_eq!(read.on("lost records"), [("batch_damaged", 60, 67, 0)]);
    Ok(())
}

#[test]
fn times_before_zero_are_shifted_and_unix_times_are_not() -> io::Result<()> {
    let at = |start: i64| {
        read(|w| {
            let (kernel, call) = (w.intern("gemm"), w.intern("cudaLaunchKernel"));
            w.push_gpu_op(GPU, op(kernel, start, 10, 7, Some(launch(call, 0, start - 3000, 5))))
        })
    };
    let early = at(0)?;
    assert!(early.summary.shift_ns > 3000);
    assert_eq!(early.named("cudaLaunchKernel").map(|s| s.start), Some(-3000));
    let unix = at(1_700_000_000_000_000_000)?;
    assert_eq!(
        (unix.summary.shift_ns, unix.named("gemm").map(|s| s.start)),
        (0, Some(1_700_000_000_000_000_000))
    );
    Ok(())
}

#[test]
fn processes_of_equal_pids_stay_apart() -> io::Result<()> {
    let read = read(|w| {
        let other = w.add_process(Process { pid: 44, ..Process::default() });
        assert_eq!(other, ProcessId(1));
        let thread = w.add_thread(Thread { process: other, tid: 44, name: "other".to_owned() });
        let name = w.intern("x");
        w.push_host_span(MAIN, span(name, 1, 1))?;
        w.push_host_span(thread, span(name, 1, 1))
    })?;
    let mut pids: Vec<i32> =
        read.tracks.iter().filter_map(|t| t.process.as_ref()).filter_map(|p| p.pid).collect();
    assert_eq!(pids.len(), 3, "a device and two processes");
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3);
    for thread in read.tracks.iter().filter_map(|t| t.thread.as_ref()) {
        assert!(thread.pid.is_some_and(|pid| pids.contains(&pid)), "a thread's process is described");
    }
    Ok(())
}

fn counter(name: StringId, start: i64, duration_ns: u64, value: u64) -> Counter {
    Counter { start: TimeNs(start), duration_ns, name, value }
}

#[test]
fn values_of_a_moment_are_drawn_as_they_are_and_growth_as_growth_a_second() -> io::Result<()> {
    let read = read(|w| {
        let (clock, bytes, plain) =
            (w.intern("sm clock (MHz)"), w.intern("pcie sent (bytes)"), w.intern("odd"));
        for (start, value) in [(10, 1980), (20, 300), (30, u64::MAX)] {
            w.push_counter(GPU, counter(clock, start, 0, value))?;
        }
        w.push_counter(GPU, counter(bytes, 15, 500_000_000, 30))?;
        w.push_counter(GPU, counter(plain, 40, 0, 7))?;
        w.push_counter(GPU, counter(plain, 50, 2_000_000_000, 7))
    })?;
    let gpu = "GPU 0 GPU-x";
    assert_eq!(
        read.counters(),
        [
            (gpu, "sm clock", Some("MHz"), 10, 1980.0),
            (gpu, "pcie sent", Some("bytes/s"), 15, 60.0),
            (gpu, "sm clock", Some("MHz"), 20, 300.0),
            (gpu, "sm clock", Some("MHz"), 30, 2f64.powi(64)),
            (gpu, "odd", None, 40, 7.0),
            (gpu, "odd", Some("/s"), 50, 3.5),
        ]
    );
    assert_eq!(read.tracks.iter().filter(|t| t.counter.is_some()).count(), 4, "a track a counter");
    Ok(())
}

#[test]
fn counters_of_a_host_lie_below_it_and_a_device_without_any_has_no_process() -> io::Result<()> {
    let read = read(|w| {
        let mut device =
            |kind, id: &str| w.add_device(Device { kind, id: id.to_owned(), ..Device::default() });
        let host = device(device_kind::HOST, "node7");
        device(device_kind::HOST, "silent");
        device(device_kind::CPU, "rank 0");
        let name = w.intern("cpu pressure some (us)");
        w.push_counter(host, counter(name, 10, 1_000_000_000, 250))
    })?;
    assert_eq!(read.counters(), [("host node7", "cpu pressure some", Some("us/s"), 10, 250.0)]);
    let processes: Vec<&str> =
        read.tracks.iter().filter_map(|t| t.process.as_ref()?.process_name.as_deref()).collect();
    assert_eq!(processes, ["GPU 0 GPU-x", "host node7"]);
    Ok(())
}

#[test]
fn an_empty_capture_is_a_valid_trace() -> io::Result<()> {
    let read = read(|_| Ok(()))?;
    assert_eq!((read.slices.len(), read.summary.left_out), (0, 0));
    Ok(())
}
