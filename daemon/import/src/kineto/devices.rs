//! Devices and streams of one file.

use std::io::Write;

use hashbrown::HashMap;
use stallscope_core::capture::{CaptureWriter, Device};
use stallscope_core::rows::{GpuOp, LossWindow};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{device_kind, op_flags};
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, TimeNs};

/// Devices of one file.
const MAX_DEVICES: usize = 1 << 12;

/// Streams whose last operation is remembered.
const MAX_STREAMS: usize = 1 << 16;

/// By how much operations of one stream may overlap before that is called damage: traces in whole microseconds round both
/// ends.
const OVERLAP_SLACK_NS: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
struct LastOp {
    start: i64,
    end: i64,
    correlation: u64,
}

/// Devices and streams.
#[derive(Debug)]
pub(super) struct Devices {
    source: SourceId,
    by_ordinal: HashMap<i64, DeviceId>,
    /// In the order in which they were seen.
    devices: Vec<(i64, DeviceId)>,
    last: Option<(i64, DeviceId)>,
    streams: HashMap<(DeviceId, u64), LastOp>,
    /// Events that may have been operations of any device and were left out, so far.
    left_out: u64,
    /// By device: the greatest end so far, and `left_out` at that time.
    ends: HashMap<DeviceId, (TimeNs, u64)>,
}

impl Devices {
    pub(super) fn new(source: SourceId) -> Self {
        Self {
            source,
            by_ordinal: HashMap::new(),
            devices: Vec::new(),
            last: None,
            streams: HashMap::new(),
            left_out: 0,
            ends: HashMap::new(),
        }
    }

    /// The device of an ordinal. `None` where the file has too many.
    pub(super) fn device<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        ordinal: i64,
    ) -> Option<DeviceId> {
        if let Some((_, id)) = self.last.filter(|(last, _)| *last == ordinal) {
            return Some(id);
        }
        let id = match self.by_ordinal.get(&ordinal) {
            Some(&id) => id,
            None if self.devices.len() >= MAX_DEVICES => return None,
            None => {
                let id = writer.add_device(Device {
                    source: self.source,
                    kind: device_kind::GPU,
                    ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
                    ..Device::default()
                });
                self.by_ordinal.insert(ordinal, id);
                self.devices.push((ordinal, id));
                id
            }
        };
        self.last = Some((ordinal, id));
        Some(id)
    }

    /// Notes that an event was left out that may have been an operation.
    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Takes the next operation of a device in the order of the file. Where something was left out since the one before,
    /// the time between the two may have held it: nobody can call that idle.
    pub(super) fn hidden_since(&mut self, device: DeviceId, op: &GpuOp) -> Option<LossWindow> {
        let end = op.start.plus(op.duration_ns);
        let Some((last_end, seen)) = self.ends.get_mut(&device) else {
            self.ends.insert(device, (end, self.left_out));
            return None;
        };
        let hidden = *seen < self.left_out && op.start > *last_end;
        let window = hidden.then(|| LossWindow {
            start: *last_end,
            duration_ns: op.start.since(*last_end),
            counter: LossCounter::EventMalformed.id(),
        });
        *seen = self.left_out;
        *last_end = (*last_end).max(end);
        window
    }

    /// Whether an operation begins before the one before it on its stream has ended.
    ///
    /// Only operations that come in the order of their starts are judged. Nodes of a graph share a stream in the trace and
    /// not on the device, so they are left alone; so are the parts of one call.
    pub(super) fn overlaps(&mut self, device: DeviceId, op: &GpuOp) -> bool {
        let key = (device, op.stream);
        let now =
            LastOp { start: op.start.0, end: op.start.plus(op.duration_ns).0, correlation: op.correlation.0 };
        let Some(last) = self.streams.get_mut(&key) else {
            if self.streams.len() < MAX_STREAMS {
                self.streams.insert(key, now);
            }
            return false;
        };
        if now.start < last.start {
            return false;
        }
        let one_call = now.correlation == last.correlation || op.flags & op_flags::GRAPH_NODE != 0;
        let overlaps = !one_call && op.start.plus(OVERLAP_SLACK_NS).0 < last.end;
        *last = LastOp { end: now.end.max(last.end), ..now };
        overlaps
    }

    /// Tells the capture what is known of each device. `owner` names what tells devices of different files apart.
    pub(super) fn finish<W: Write>(
        &self,
        writer: &mut CaptureWriter<W>,
        owner: &str,
        models: &HashMap<i64, String>,
        processes: &[ProcessId],
    ) {
        // AMD's traces number devices by node and their properties by ordinal: where all are one model, that is it.
        let mut distinct: Vec<&String> = models.values().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let only = if let [only] = distinct[..] { only.clone() } else { String::new() };
        for &(ordinal, id) in &self.devices {
            let mut name = format!("{owner}-gpu{ordinal}");
            // Two files of one rank (two windows of a run) must not look like one device.
            if writer.tables().devices().iter().any(|device| device.id == name) {
                name = format!("{name}#{}", self.source.0);
            }
            writer.update_device(id, |device| {
                device.id = name;
                device.model = models.get(&ordinal).unwrap_or(&only).clone();
                device.processes = processes.to_vec();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use stallscope_core::rows::GpuOp;
    use stallscope_schemas::record::{CopyKind, OpKind, op_flags};
    use stallscope_schemas::units::{CorrelationId, DeviceId, SourceId, StringId, TimeNs};

    use super::Devices;

    fn op(start: i64, duration_ns: u64, correlation: u64) -> GpuOp {
        GpuOp {
            start: TimeNs(start),
            duration_ns,
            name: StringId(0),
            stream: 7,
            kind: OpKind::Kernel,
            flags: 0,
            correlation: CorrelationId(correlation),
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: None,
        }
    }

    #[test]
    fn overlap_is_seen_on_one_stream_beyond_the_rounding_of_microseconds() {
        let mut devices = Devices::new(SourceId(0));
        let device = DeviceId(0);
        assert!(!devices.overlaps(device, &op(0, 10_000, 1)));
        assert!(!devices.overlaps(device, &op(9_000, 5_000, 2)), "rounding");
        assert!(devices.overlaps(device, &op(10_000, 1_000, 3)));
        assert!(!devices.overlaps(device, &GpuOp { stream: 8, ..op(10_500, 1_000, 4) }), "another stream");
        assert!(!devices.overlaps(device, &op(5_000, 1_000, 5)), "out of order, not judged");
        assert!(
            !devices.overlaps(device, &GpuOp { flags: op_flags::GRAPH_NODE, ..op(10_500, 1, 6) }),
            "a graph"
        );
    }
}
