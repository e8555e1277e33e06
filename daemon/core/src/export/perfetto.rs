//! Perfetto traces: what happened when, for ui.perfetto.dev and trace_processor.
//!
//! | Track | Slices |
//! |---|---|
//! | a process per device, a track per stream | kernels, copies, fills |
//! | … a track "ranges" and a track "lost records" | ranges on the device's time line, loss windows |
//! | … a counter track per counter; a process per host with those of the host | values (`counters`) |
//! | a process per process, a track per thread | ranges, calls and waits, nested |
//!
//! A flow leads from every launching call to what it launched, and through the kernels of a collective from the first rank that
//! came to the last. Packets are streamed: memory is bounded by the names, the tracks, the matched collectives and what the
//! capture's reader holds. A reader sorts packets by time, so tracks are written one after the other.

use std::collections::BTreeSet;
use std::io::{self, Write};

use hashbrown::{HashMap, HashSet};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{OpKind, RecordKind, SpanKind, device_kind};
use stallscope_schemas::units::{DeviceId, StringId, ThreadId, TimeNs};

use super::lanes::{Lanes, Overlap};
use super::perfetto_proto::{
    DebugAnnotation, InternedData, InternedText, ProcessDescriptor, TRACE_PACKET, ThreadDescriptor,
    TracePacket, TrackDescriptor, TrackEvent, event_type, sequence_flags,
};
use super::proto::FieldWriter;
use super::thread_calls::{Call, CallKind, ThreadCalls};
use crate::capture::{Capture, ReadAt, Tables};
use crate::classify::{OpClass, kernel_class, op_class};
use crate::collectives::Collectives;
use crate::rows::{DeviceSpan, GpuOp, Launch, LossWindow};

/// All packets are of one sequence.
const SEQUENCE: u32 = 1;

/// Where the least time of a capture whose clock is not Unix time is put: timestamps are unsigned, and launches come
/// before the first operation.
const EARLIEST_NS: i64 = 3_600_000_000_000;

/// Streams of a device with tracks of their own; programs have tens.
const MAX_STREAMS: usize = 1 << 12;

/// Pairs of a thread and a device that it launched to. Each costs a pass over the device's operations.
const MAX_PAIRS: usize = 1 << 12;

/// Greatest process or thread id of Linux: made-up ids are above.
const MAX_REAL_ID: i64 = 1 << 22;
const FIRST_MADE_UP_ID: i32 = 1 << 24;

/// Categories, by the numbers that events refer to them with.
const CATEGORIES: &[(u64, &str)] = &[
    (category::KERNEL, "kernel"),
    (category::COPY, "copy"),
    (category::FILL, "fill"),
    (category::OTHER, "other"),
    (category::LAUNCH, "launch"),
    (category::CALL, "call"),
    (category::OPERATOR, "operator"),
    (category::PYTHON, "python"),
    (category::ANNOTATION, "annotation"),
    (category::STEP, "step"),
    (category::LOSS, "loss"),
    (category::COLLECTIVE, "collective"),
    (category::WAIT, "wait"),
];

mod category {
    pub(super) const KERNEL: u64 = 1;
    pub(super) const COPY: u64 = 2;
    pub(super) const FILL: u64 = 3;
    pub(super) const OTHER: u64 = 4;
    pub(super) const LAUNCH: u64 = 5;
    pub(super) const CALL: u64 = 6;
    pub(super) const OPERATOR: u64 = 7;
    pub(super) const PYTHON: u64 = 8;
    pub(super) const ANNOTATION: u64 = 9;
    pub(super) const STEP: u64 = 10;
    pub(super) const LOSS: u64 = 11;
    pub(super) const COLLECTIVE: u64 = 12;
    pub(super) const WAIT: u64 = 13;
}

/// Names of values shown with slices.
const ANNOTATIONS: &[(u64, &str)] = &[(annotation::CORRELATION, "correlation"), (annotation::BYTES, "bytes")];

mod annotation {
    pub(super) const CORRELATION: u64 = 1;
    pub(super) const BYTES: u64 = 2;
}

/// What a trace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerfettoSummary {
    /// Slices written.
    pub slices: u64,
    /// Records that did not fit: too many at once on one track, too deeply nested, or on too many tracks.
    pub left_out: u64,
    /// Values of counters written.
    pub values: u64,
    /// Added to every time, ns: 0 where the capture's times are Unix times.
    pub shift_ns: i64,
}

/// Writes a capture as a trace.
///
/// # Errors
/// Whatever the output reports. Damaged parts of the capture are left out, and counted by the capture.
pub fn write_perfetto<S: ReadAt>(capture: &Capture<S>, out: impl Write) -> io::Result<PerfettoSummary> {
    let mut trace = Trace::new(capture, FieldWriter::new(out));
    trace.preamble()?;
    let mut launchers: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for device in 0..u32::try_from(capture.tables().devices().len()).unwrap_or(u32::MAX) {
        trace.device(device, &mut launchers)?;
    }
    trace.threads(&launchers)?;
    trace.out.finish()?;
    Ok(trace.summary)
}

/// The identity of a launch, from what both sides know. Many operations may share it: a graph's.
fn flow_id(launch: &Launch) -> u64 {
    flow_of(launch.thread, launch.start)
}

fn flow_of(thread: ThreadId, start: TimeNs) -> u64 {
    // Spread over all bits (the finaliser of SplitMix64): ids of different threads at close times must not meet.
    let mut x = start.0.cast_unsigned() ^ (u64::from(thread.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a slice is called.
#[derive(Clone, Copy, Debug)]
enum Name {
    /// A name of the capture.
    Capture(StringId),
    /// A name of ours.
    Fixed(&'static str),
}

/// A slice to be drawn.
#[derive(Clone, Debug)]
struct Slice {
    start: TimeNs,
    end: TimeNs,
    name: Name,
    category: u64,
    /// To or from the launch, and between the devices of a collective.
    flows: [Option<u64>; 2],
    values: Vec<DebugAnnotation>,
}

/// A track and its further lanes.
#[derive(Debug)]
struct Track {
    lanes: Lanes,
    /// Tracks of the lanes, as far as they have been described.
    uuids: Vec<u64>,
    parent: u64,
    name: String,
}

struct Trace<'c, S: ReadAt, W: Write> {
    capture: &'c Capture<S>,
    out: FieldWriter<W>,
    next_uuid: u64,
    /// Names that the reader knows, by string id.
    known: Vec<bool>,
    collectives: Collectives,
    summary: PerfettoSummary,
}

impl<'c, S: ReadAt, W: Write> Trace<'c, S, W> {
    fn new(capture: &'c Capture<S>, out: FieldWriter<W>) -> Self {
        let first = capture.batches().iter().map(|b| b.min.0).min().unwrap_or(0);
        let shift_ns = if first < EARLIEST_NS { EARLIEST_NS.saturating_sub(first) } else { 0 };
        let known = vec![false; capture.tables().string_count()];
        let devices: Vec<DeviceId> = capture.keys(RecordKind::GpuOp).into_iter().map(DeviceId).collect();
        Self {
            capture,
            out,
            next_uuid: 1,
            known,
            collectives: Collectives::of(capture, &devices),
            summary: PerfettoSummary { shift_ns, ..PerfettoSummary::default() },
        }
    }

    fn tables(&self) -> &'c Tables {
        self.capture.tables()
    }

    /// Says what later packets refer to by number.
    fn preamble(&mut self) -> io::Result<()> {
        let texts = |list: &[(u64, &str)]| {
            list.iter()
                .map(|&(iid, name)| InternedText { iid: Some(iid), name: Some(name.to_owned()) })
                .collect()
        };
        self.packet(TracePacket {
            sequence_flags: Some(sequence_flags::INCREMENTAL_STATE_CLEARED),
            interned_data: Some(InternedData {
                event_categories: texts(CATEGORIES),
                debug_annotation_names: texts(ANNOTATIONS),
                event_names: Vec::new(),
            }),
            ..TracePacket::default()
        })
    }

    fn packet(&mut self, packet: TracePacket) -> io::Result<()> {
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        self.out.message(TRACE_PACKET, &packet)
    }

    fn describe(&mut self, descriptor: TrackDescriptor) -> io::Result<u64> {
        let uuid = self.next_uuid;
        self.next_uuid += 1;
        let descriptor = TrackDescriptor { uuid: Some(uuid), ..descriptor };
        self.packet(TracePacket { track_descriptor: Some(descriptor), ..TracePacket::default() })?;
        Ok(uuid)
    }

    fn timestamp(&self, at: TimeNs) -> Option<u64> {
        Some(u64::try_from(at.0.saturating_add(self.summary.shift_ns)).unwrap_or(0))
    }

    /// Draws everything on one device, and notes which threads launched to it.
    fn device(&mut self, key: u32, launchers: &mut HashMap<u32, BTreeSet<u32>>) -> io::Result<()> {
        let Some(device) = self.tables().devices().get(key as usize) else { return Ok(()) };
        let gpu = !matches!(device.kind, device_kind::CPU | device_kind::HOST);
        if !gpu && !self.capture.keys(RecordKind::Counter).contains(&key) {
            // What a rank on CPUs does is on its threads' tracks.
            return Ok(());
        }
        let model = if device.model.is_empty() { String::new() } else { format!(" {}", device.model) };
        let name = match device.kind {
            device_kind::CPU => device.id.clone(),
            device_kind::HOST => format!("host {}", device.id),
            _ => format!("GPU {}{model} {}", device.ordinal, device.id),
        };
        let pid = FIRST_MADE_UP_ID.saturating_add_unsigned(key);
        let parent = self.describe(TrackDescriptor {
            process: Some(ProcessDescriptor { pid: Some(pid), process_name: Some(name) }),
            ..TrackDescriptor::default()
        })?;
        if gpu {
            self.operations(key, parent, launchers)?;
            self.device_ranges(key, parent)?;
        }
        self.counters(key, parent)
    }

    fn operations(
        &mut self,
        key: u32,
        parent: u64,
        launchers: &mut HashMap<u32, BTreeSet<u32>>,
    ) -> io::Result<()> {
        let mut streams: HashMap<u64, Track> = HashMap::new();
        let collectives = collective_flows(&self.collectives, DeviceId(key));
        for op in self.capture.rows::<GpuOp>(key) {
            if let Some(launch) = &op.launch {
                note_launcher(launchers, launch.thread.0, key);
            }
            if !streams.contains_key(&op.stream) && streams.len() >= MAX_STREAMS {
                self.summary.left_out += 1;
                continue;
            }
            let track = streams
                .entry(op.stream)
                .or_insert_with(|| Track::new(parent, format!("stream {}", op.stream), Overlap::Separate));
            let collective = collectives.get(&op.start).copied().filter(|_| {
                op_class(op.kind, op.flags, kernel_class(self.tables().string(op.name))) == OpClass::Comm
            });
            self.slice(track, op_slice(&op, collective))?;
        }
        let mut streams: Vec<(u64, Track)> = streams.into_iter().collect();
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        streams.into_iter().try_for_each(|(_, track)| self.close(track))
    }

    fn device_ranges(&mut self, key: u32, parent: u64) -> io::Result<()> {
        let mut track = Track::new(parent, "ranges".to_owned(), Overlap::Nest);
        for span in self.capture.rows::<DeviceSpan>(key) {
            let end = span.start.plus(span.duration_ns);
            let (name, category) = (Name::Capture(span.name), span_category(span.kind));
            self.slice(
                &mut track,
                Slice { start: span.start, end, name, category, flows: [None; 2], values: Vec::new() },
            )?;
        }
        self.close(track)?;
        let mut track = Track::new(parent, "lost records".to_owned(), Overlap::Separate);
        for window in self.capture.rows::<LossWindow>(key) {
            let name = LossCounter::from_id(window.counter).map_or("unknown reason", LossCounter::name);
            let end = window.start.plus(window.duration_ns);
            let (name, category) = (Name::Fixed(name), category::LOSS);
            self.slice(
                &mut track,
                Slice { start: window.start, end, name, category, flows: [None; 2], values: Vec::new() },
            )?;
        }
        self.close(track)
    }

    /// Draws all threads, process by process.
    fn threads(&mut self, launchers: &HashMap<u32, BTreeSet<u32>>) -> io::Result<()> {
        let mut keys: BTreeSet<u32> = launchers.keys().copied().collect();
        keys.extend(self.capture.keys(RecordKind::ApiCall));
        keys.extend(self.capture.keys(RecordKind::HostSpan));
        keys.extend(self.capture.keys(RecordKind::CollectiveCall));
        keys.extend(self.capture.keys(RecordKind::ThreadWait));
        let mut ids = Ids::default();
        let mut processes: HashMap<u32, i32> = HashMap::new();
        for key in keys {
            let thread = self.tables().thread(ThreadId(key)).cloned().unwrap_or_default();
            let pid = match processes.get(&thread.process.0) {
                Some(&pid) => pid,
                None => {
                    let pid = self.process(thread.process.0, &mut ids)?;
                    processes.insert(thread.process.0, pid);
                    pid
                }
            };
            let name = if thread.name.is_empty() { format!("thread {}", thread.tid) } else { thread.name };
            let tid = ids.claim(Some(pid), thread.tid);
            let uuid = self.describe(TrackDescriptor {
                thread: Some(ThreadDescriptor { pid: Some(pid), tid: Some(tid), thread_name: Some(name) }),
                ..TrackDescriptor::default()
            })?;
            let devices: Vec<u32> = launchers.get(&key).into_iter().flatten().copied().collect();
            self.thread(ThreadId(key), uuid, &devices)?;
        }
        Ok(())
    }

    fn process(&mut self, key: u32, ids: &mut Ids) -> io::Result<i32> {
        let process = self.tables().processes().get(key as usize).cloned().unwrap_or_default();
        let pid = ids.claim(None, process.pid);
        let name = if process.name.is_empty() { "process".to_owned() } else { process.name };
        let rank = process.rank.map_or_else(String::new, |rank| format!(" rank {rank}"));
        let host = if process.host.is_empty() { String::new() } else { format!(" on {}", process.host) };
        let process_name = Some(format!("{name}{rank} (pid {}){host}", process.pid));
        self.describe(TrackDescriptor {
            process: Some(ProcessDescriptor { pid: Some(pid), process_name }),
            ..TrackDescriptor::default()
        })?;
        Ok(pid)
    }

    fn thread(&mut self, thread: ThreadId, uuid: u64, devices: &[u32]) -> io::Result<()> {
        let mut track = Track::new(uuid, "overlapping".to_owned(), Overlap::Nest);
        // The first lane is the thread's own track.
        track.uuids.push(uuid);
        for call in ThreadCalls::new(self.capture, thread, devices) {
            self.slice(&mut track, call_slice(thread, &call))?;
        }
        self.close(track)
    }

    /// Draws a slice on a lane of a track that has room for it.
    fn slice(&mut self, track: &mut Track, slice: Slice) -> io::Result<()> {
        let mut ends = Vec::new();
        let lane = track.lanes.place(slice.start.0, slice.end.0, |lane, at| ends.push((lane, at)));
        let Some(lane) = lane else {
            self.summary.left_out += 1;
            return Ok(());
        };
        for (lane, at) in ends {
            self.end(track, lane, at)?;
        }
        let uuid = self.lane(track, lane)?;
        let (iid, fixed) = match slice.name {
            Name::Capture(id) => (Some(u64::from(id.0) + 1), None),
            Name::Fixed(name) => (None, Some(name.to_owned())),
        };
        let mut interned = None;
        if let Name::Capture(id) = slice.name
            && let Some(known) = self.known.get_mut(id.index())
            && !std::mem::replace(known, true)
        {
            let text = Some(self.tables().string(id)).filter(|t| !t.is_empty()).unwrap_or("(unnamed)");
            let name = InternedText { iid, name: Some(text.to_owned()) };
            interned = Some(InternedData { event_names: vec![name], ..InternedData::default() });
        }
        self.summary.slices += 1;
        self.packet(TracePacket {
            timestamp: self.timestamp(slice.start),
            sequence_flags: Some(sequence_flags::NEEDS_INCREMENTAL_STATE),
            interned_data: interned,
            track_event: Some(TrackEvent {
                kind: Some(event_type::SLICE_BEGIN),
                track_uuid: Some(uuid),
                name_iid: iid,
                name: fixed,
                category_iids: vec![slice.category],
                flow_ids: slice.flows.into_iter().flatten().collect(),
                debug_annotations: slice.values,
                ..TrackEvent::default()
            }),
            ..TracePacket::default()
        })
    }

    fn close(&mut self, mut track: Track) -> io::Result<()> {
        let lanes = std::mem::replace(&mut track.lanes, Lanes::new(Overlap::Nest));
        let mut ends = Vec::new();
        lanes.finish(|lane, at| ends.push((lane, at)));
        ends.into_iter().try_for_each(|(lane, at)| self.end(&mut track, lane, at))
    }

    fn end(&mut self, track: &mut Track, lane: usize, at: i64) -> io::Result<()> {
        let uuid = self.lane(track, lane)?;
        self.packet(TracePacket {
            timestamp: self.timestamp(TimeNs(at)),
            track_event: Some(TrackEvent {
                kind: Some(event_type::SLICE_END),
                track_uuid: Some(uuid),
                ..TrackEvent::default()
            }),
            ..TracePacket::default()
        })
    }

    /// The track of a lane, described when first used.
    fn lane(&mut self, track: &mut Track, lane: usize) -> io::Result<u64> {
        while track.uuids.len() <= lane {
            let number = track.uuids.len() + 1;
            let name = if number == 1 { track.name.clone() } else { format!("{} ({number})", track.name) };
            let uuid = self.describe(TrackDescriptor {
                parent_uuid: Some(track.parent),
                name: Some(name),
                ..TrackDescriptor::default()
            })?;
            track.uuids.push(uuid);
        }
        Ok(track.uuids.get(lane).copied().unwrap_or(track.parent))
    }
}

impl Track {
    fn new(parent: u64, name: String, overlap: Overlap) -> Self {
        Self { lanes: Lanes::new(overlap), uuids: Vec::new(), parent, name }
    }
}

/// Process and thread ids that are taken. Readers tell processes apart by pid alone, and captures of several hosts or
/// containers repeat them.
#[derive(Debug, Default)]
struct Ids {
    taken: HashSet<(Option<i32>, i32)>,
    made_up: i32,
}

impl Ids {
    /// The id itself where it is free and possible, else a made-up one.
    fn claim(&mut self, of: Option<i32>, id: i64) -> i32 {
        let real = i32::try_from(id).ok().filter(|_| (1..=MAX_REAL_ID).contains(&id));
        if let Some(real) = real.filter(|&real| self.taken.insert((of, real))) {
            return real;
        }
        self.made_up = self.made_up.saturating_add(1);
        // Above the ids of devices.
        (FIRST_MADE_UP_ID << 1).saturating_add(self.made_up)
    }
}

fn note_launcher(launchers: &mut HashMap<u32, BTreeSet<u32>>, thread: u32, device: u32) {
    let known = launchers.get(&thread).is_some_and(|devices| devices.contains(&device));
    if !known && launchers.values().map(BTreeSet::len).sum::<usize>() < MAX_PAIRS {
        launchers.entry(thread).or_default().insert(device);
    }
}

/// By the moment when its kernel began on a device: the identity of each collective that was matched.
fn collective_flows(collectives: &Collectives, device: DeviceId) -> HashMap<TimeNs, u64> {
    let operations = collectives.operations.iter().zip(0u64..);
    let came =
        operations.flat_map(|(operation, number)| operation.came.iter().map(move |came| (came, number)));
    // Not among the numbers of launches, which fill all bits: two that meet would draw one arrow too many.
    came.filter(|(came, _)| came.device == device).map(|(came, number)| (came.at, !number)).collect()
}

fn op_slice(op: &GpuOp, collective: Option<u64>) -> Slice {
    let category = match op.kind {
        OpKind::Kernel => category::KERNEL,
        OpKind::Memcpy => category::COPY,
        OpKind::Memset => category::FILL,
        OpKind::Other => category::OTHER,
    };
    let value = |name, value| DebugAnnotation { name_iid: Some(name), uint_value: Some(value) };
    let mut values = Vec::new();
    if op.correlation.0 != 0 {
        values.push(value(annotation::CORRELATION, op.correlation.0));
    }
    if op.bytes != 0 {
        values.push(value(annotation::BYTES, op.bytes));
    }
    let end = op.start.plus(op.duration_ns);
    Slice {
        start: op.start,
        end,
        name: Name::Capture(op.name),
        category,
        flows: [op.launch.as_ref().map(flow_id), collective],
        values,
    }
}

fn call_slice(thread: ThreadId, call: &Call) -> Slice {
    let (category, flow) = match call.kind {
        CallKind::Range(kind) => (span_category(kind), None),
        CallKind::Launch => (category::LAUNCH, Some(flow_of(thread, call.start))),
        CallKind::Call => (category::CALL, None),
        CallKind::Collective => (category::COLLECTIVE, None),
        CallKind::Wait(_) => (category::WAIT, None),
    };
    let name = match call.kind {
        // A wait outside of a system call is named by its kind.
        CallKind::Wait(kind) if call.name == StringId(0) => Name::Fixed(kind.name()),
        _ => Name::Capture(call.name),
    };
    let end = call.start.plus(call.duration_ns.0);
    Slice { start: call.start, end, name, category, flows: [flow, None], values: Vec::new() }
}

fn span_category(kind: SpanKind) -> u64 {
    match kind {
        SpanKind::Operator => category::OPERATOR,
        SpanKind::Python => category::PYTHON,
        SpanKind::Annotation => category::ANNOTATION,
        SpanKind::Step => category::STEP,
        SpanKind::Other => category::OTHER,
    }
}

mod counters;
#[cfg(test)]
mod tests;
