//! CUPTI's records to records of the ring.
//!
//! Nothing that a record says is trusted further than that it can be written down: a record that is too short or ends
//! before it starts is counted and dropped; one without an end is counted and kept, because that it began is known.

use stallscope_cupti_abi::{
    ActivityKind, ApiCall, Copy, Device, Fill, GraphTrace, Group, Kernel, MARK_CALL, Marker, Overhead,
    PeerCopy, Synchronization, driver_call, kind_of, marker_flags, memcpy_flags, object, runtime_call,
};
use stallscope_cupti_wire::{
    Kind, Lost, Record, api, device, launch_flags, memory, op, op_flags, overhead, range, sync,
};

use crate::driver::Found;
use crate::names::Names;
use crate::output::Output;
use crate::progress::Progress;
use crate::ranges::{Open, Ranges};
use crate::text::Texts;

/// What one attachment has to remember to convert.
#[derive(Debug)]
pub(crate) struct Converter<'a> {
    pub(crate) texts: Texts,
    pub(crate) names: Names<'a>,
    pub(crate) ranges: Ranges<'a>,
    pub(crate) progress: Progress<'a>,
    /// CUPTI reports every call of the driver, and those that are not wanted are dropped here.
    pub(crate) filter_driver: bool,
    /// The same for the runtime.
    pub(crate) filter_runtime: bool,
}

/// Low and high half to a word.
const fn halves(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Process and thread: the thread, where the record says that it is one.
fn thread_of(object_kind: u32, object_id: [u8; 12]) -> u32 {
    let [_, _, _, _, a, b, c, d, ..] = object_id;
    if object_kind == object::THREAD { u32::from_ne_bytes([a, b, c, d]) } else { 0 }
}

/// What operations on a device have in common.
struct Operation {
    kind: Kind,
    flags: u64,
    correlation: u32,
    start: u64,
    end: u64,
    device: u32,
    context: u32,
    stream: u32,
    graph: u32,
}

impl Operation {
    /// The record with its first words; none, and counted, where the times make no sense.
    fn record(&self, progress: &mut Progress<'_>, output: &Output<'_>) -> Option<Record> {
        progress.operation(self.correlation, (self.context, self.stream), self.end);
        if self.end == 0 {
            output.count(Lost::Unfinished, 1);
        } else if self.end < self.start {
            output.count(Lost::Malformed, 1);
            return None;
        }
        let mut record = Record::of(self.kind, self.flags, self.correlation);
        record.0[op::START] = self.start;
        record.0[op::END] = self.end;
        record.0[op::DEVICE_CONTEXT] = halves(self.device, self.context);
        record.0[op::STREAM_NAME] = self.stream.into();
        record.0[op::GRAPH] = self.graph.into();
        Some(record)
    }
}

impl Converter<'_> {
    /// Converts the record with which `bytes` begins; what lies behind it is not looked at.
    ///
    /// # Safety
    /// The record is CUPTI's: the addresses of texts in it are 0 or those of texts that are there.
    pub(crate) unsafe fn convert(&mut self, bytes: &[u8], output: &mut Output<'_>) {
        let Some(kind) = kind_of(bytes).and_then(ActivityKind::from_id) else { return };
        let whole = match kind {
            // SAFETY: by the caller's word the addresses in the record are those of texts.
            ActivityKind::Kernel => unsafe { self.kernel(bytes, output) },
            ActivityKind::Copy => copy(bytes, &mut self.progress, output),
            ActivityKind::PeerCopy => peer_copy(bytes, &mut self.progress, output),
            ActivityKind::Fill => fill(bytes, &mut self.progress, output),
            ActivityKind::Driver | ActivityKind::Runtime => self.api(kind, bytes, output),
            ActivityKind::Synchronization => synchronization(bytes, output),
            ActivityKind::GraphTrace => graph(bytes, &mut self.progress, output),
            ActivityKind::Overhead => cost(bytes, output),
            // SAFETY: as above.
            ActivityKind::Marker => unsafe { self.marker(bytes, output) },
            // SAFETY: as above.
            ActivityKind::Device => unsafe { self.device(bytes, output) },
            // Never enabled.
            ActivityKind::SerialKernel
            | ActivityKind::Context
            | ActivityKind::Stream
            | ActivityKind::ExternalCorrelation => Some(()),
        };
        if whole.is_none() {
            output.count(Lost::Malformed, 1);
        }
    }

    /// The number of the text at an address, which is written first where it is new; 0 where there is none.
    unsafe fn name(&mut self, address: u64, output: &mut Output<'_>) -> u32 {
        // SAFETY: by the caller's word the address is that of a text, and it is used before CUPTI is called again.
        let Some(text) = (unsafe { self.texts.at(address) }) else { return 0 };
        let mut refused = false;
        let number = self.names.number(text, |number, text| {
            let written = output.name(number, text);
            refused = !written;
            written
        });
        if number.is_none() && !refused {
            // The table is full; a refused text has been counted.
            output.count(Lost::NameLost, 1);
        }
        number.unwrap_or(0)
    }

    unsafe fn kernel(&mut self, bytes: &[u8], output: &mut Output<'_>) -> Option<()> {
        let kernel = Kernel::read(bytes)?;
        let operation = Operation {
            kind: Kind::Kernel,
            flags: 0,
            correlation: kernel.correlation,
            start: kernel.start,
            end: kernel.end,
            device: kernel.device,
            context: kernel.context,
            stream: kernel.stream,
            graph: kernel.graph,
        };
        let Some(mut record) = operation.record(&mut self.progress, output) else { return Some(()) };
        // SAFETY: by the caller's word the record is CUPTI's.
        let name = unsafe { self.name(kernel.name, output) };
        record.0[op::STREAM_NAME] = halves(kernel.stream, name);
        record.0[op::NODE_OR_BYTES] = kernel.graph_node;
        output.record(&record);
        Some(())
    }

    fn api(&mut self, kind: ActivityKind, bytes: &[u8], output: &mut Output<'_>) -> Option<()> {
        let call = ApiCall::read(bytes)?;
        let is_runtime = kind == ActivityKind::Runtime;
        if !is_runtime && call.callback == MARK_CALL {
            self.progress.mark(call.start);
            return Some(());
        }
        let known = if is_runtime { runtime_call(call.callback) } else { driver_call(call.callback) };
        let is_filtered = if is_runtime { self.filter_runtime } else { self.filter_driver };
        if is_filtered && known.is_none() {
            return Some(());
        }
        if call.end != 0 && call.end < call.start {
            return None;
        }
        if call.result == 0 && known.is_some_and(|known| matches!(known.group, Group::Launch | Group::Copy)) {
            self.progress.launch(call.correlation, call.start);
        }
        let flags = if is_runtime { launch_flags::RUNTIME } else { 0 };
        let mut record = Record::of(Kind::Api, flags, call.correlation);
        record.0[api::START] = call.start;
        record.0[api::END] = call.end;
        record.0[api::THREAD_CALLBACK] = halves(call.thread, call.callback);
        record.0[api::RESULT] = call.result.into();
        output.record(&record);
        Some(())
    }

    unsafe fn marker(&mut self, bytes: &[u8], output: &mut Output<'_>) -> Option<()> {
        let marker = Marker::read(bytes)?;
        let is_moment = marker.flags & marker_flags::INSTANTANEOUS != 0;
        let closed = if marker.flags & marker_flags::END != 0 {
            self.ranges.close(marker.id)
        } else {
            // SAFETY: by the caller's word the record is CUPTI's.
            let name = unsafe { self.name(marker.name, output) };
            // SAFETY: as above.
            let domain = unsafe { self.name(marker.domain, output) };
            let thread = thread_of(marker.object_kind, marker.object_id);
            let open = Open::new(marker.id, marker.timestamp, thread, name, domain);
            if !is_moment {
                if !self.ranges.open(open) {
                    output.count(Lost::RangeLost, 1);
                }
                return Some(());
            }
            Some(open)
        };
        let Some(closed) = closed else {
            output.count(Lost::RangeLost, 1);
            return Some(());
        };
        let mut record = Record::of(Kind::Range, 0, marker.id);
        record.0[range::START] = closed.start;
        record.0[range::END] = marker.timestamp.max(closed.start);
        record.0[range::THREAD] = closed.thread.into();
        record.0[range::NAME_DOMAIN] = halves(closed.name, closed.domain);
        output.record(&record);
        Some(())
    }

    unsafe fn device(&mut self, bytes: &[u8], output: &mut Output<'_>) -> Option<()> {
        let found = Device::read(bytes)?;
        // SAFETY: by the caller's word the record is CUPTI's.
        let name = unsafe { self.name(found.name, output) };
        let is_mig = found.is_mig != 0;
        let uuid = if is_mig { found.mig_uuid } else { found.uuid };
        let [first, second] = uuid.as_chunks().0 else { return None };
        let mut record = Record::of(Kind::Device, 0, 0);
        record.0[device::NUMBER_MIG] = halves(found.id, is_mig.into());
        record.0[device::UUID] = u64::from_le_bytes(*first);
        record.0[device::UUID + 1] = u64::from_le_bytes(*second);
        record.0[device::NAME] = name.into();
        record.0[device::SHAPE] = halves(found.multiprocessors, found.major << 8 | found.minor & 0xff);
        record.0[device::MEMORY] = found.memory;
        output.record(&record);
        Some(())
    }

    /// A device as the driver knows it; what it does not say here is 0.
    pub(crate) fn driver_device(&mut self, found: &Found, output: &mut Output<'_>) {
        // SAFETY: the name ends with a zero and lives through the call.
        let name = unsafe { self.name(found.name.as_ptr().expose_provenance() as u64, output) };
        let [first, second] = found.uuid.as_chunks().0 else { return };
        let mut record = Record::of(Kind::Device, 0, 0);
        record.0[device::NUMBER_MIG] = halves(found.number, found.is_mig.into());
        record.0[device::UUID] = u64::from_le_bytes(*first);
        record.0[device::UUID + 1] = u64::from_le_bytes(*second);
        record.0[device::NAME] = name.into();
        output.record(&record);
    }
}

/// The high half of `op::STREAM_NAME` of a copy or fill.
fn memory_word(copy_kind: u8, source: u8, destination: u8) -> u32 {
    u32::from(copy_kind)
        | u32::from(source) << memory::SOURCE_SHIFT
        | u32::from(destination) << memory::DESTINATION_SHIFT
}

fn asynchronous(flags: u8) -> u64 {
    if flags & memcpy_flags::ASYNC != 0 { op_flags::ASYNC } else { 0 }
}

fn copy(bytes: &[u8], progress: &mut Progress<'_>, output: &mut Output<'_>) -> Option<()> {
    let copy = Copy::read(bytes)?;
    let operation = Operation {
        kind: Kind::Copy,
        flags: asynchronous(copy.flags),
        correlation: copy.correlation,
        start: copy.start,
        end: copy.end,
        device: copy.device,
        context: copy.context,
        stream: copy.stream,
        graph: copy.graph,
    };
    let Some(mut record) = operation.record(progress, output) else { return Some(()) };
    let what = memory_word(copy.copy_kind, copy.source_kind, copy.destination_kind);
    record.0[op::STREAM_NAME] = halves(copy.stream, what);
    record.0[op::NODE_OR_BYTES] = copy.bytes;
    record.0[op::PEERS_OR_NODE] = copy.graph_node;
    output.record(&record);
    Some(())
}

fn peer_copy(bytes: &[u8], progress: &mut Progress<'_>, output: &mut Output<'_>) -> Option<()> {
    let copy = PeerCopy::read(bytes)?;
    let operation = Operation {
        kind: Kind::Copy,
        flags: asynchronous(copy.flags) | op_flags::PEER,
        correlation: copy.correlation,
        start: copy.start,
        end: copy.end,
        device: copy.device,
        context: copy.context,
        stream: copy.stream,
        graph: copy.graph,
    };
    let Some(mut record) = operation.record(progress, output) else { return Some(()) };
    let what = memory_word(copy.copy_kind, copy.source_kind, copy.destination_kind);
    record.0[op::STREAM_NAME] = halves(copy.stream, what);
    record.0[op::NODE_OR_BYTES] = copy.bytes;
    record.0[op::PEERS_OR_NODE] = halves(copy.source_device, copy.destination_device);
    output.record(&record);
    Some(())
}

fn fill(bytes: &[u8], progress: &mut Progress<'_>, output: &mut Output<'_>) -> Option<()> {
    let fill = Fill::read(bytes)?;
    let operation = Operation {
        kind: Kind::Fill,
        flags: 0,
        correlation: fill.correlation,
        start: fill.start,
        end: fill.end,
        device: fill.device,
        context: fill.context,
        stream: fill.stream,
        graph: fill.graph,
    };
    let Some(mut record) = operation.record(progress, output) else { return Some(()) };
    let destination = u8::try_from(fill.memory_kind).unwrap_or(0);
    record.0[op::STREAM_NAME] = halves(fill.stream, memory_word(0, 0, destination));
    record.0[op::NODE_OR_BYTES] = fill.bytes;
    record.0[op::PEERS_OR_NODE] = fill.graph_node;
    output.record(&record);
    Some(())
}

fn graph(bytes: &[u8], progress: &mut Progress<'_>, output: &mut Output<'_>) -> Option<()> {
    let graph = GraphTrace::read(bytes)?;
    let operation = Operation {
        kind: Kind::Graph,
        flags: 0,
        correlation: graph.correlation,
        start: graph.start,
        end: graph.end,
        device: graph.device,
        context: graph.context,
        stream: graph.stream,
        graph: graph.graph,
    };
    let Some(record) = operation.record(progress, output) else { return Some(()) };
    output.record(&record);
    Some(())
}

fn synchronization(bytes: &[u8], output: &mut Output<'_>) -> Option<()> {
    let wait = Synchronization::read(bytes)?;
    if wait.end != 0 && wait.end < wait.start {
        return None;
    }
    let mut record = Record::of(Kind::Sync, 0, wait.correlation);
    record.0[sync::START] = wait.start;
    record.0[sync::END] = wait.end;
    record.0[sync::CONTEXT_STREAM] = halves(wait.context, wait.stream);
    record.0[sync::TYPE] = wait.wait_kind.into();
    output.record(&record);
    Some(())
}

fn cost(bytes: &[u8], output: &mut Output<'_>) -> Option<()> {
    let cost = Overhead::read(bytes)?;
    if cost.end < cost.start {
        return None;
    }
    let mut record = Record::of(Kind::Overhead, 0, 0);
    record.0[overhead::START] = cost.start;
    record.0[overhead::END] = cost.end;
    record.0[overhead::THREAD] = thread_of(cost.object_kind, cost.object_id).into();
    record.0[overhead::KIND] = cost.overhead_kind.into();
    output.record(&record);
    Some(())
}
