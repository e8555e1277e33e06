//! What a rank's processes read, wrote and sent meanwhile: evidence beside the ledger, no part of it.

use hashbrown::HashMap;
use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::units::{ProcessId, StringId, ThreadId};

use super::calls::Spread;
use crate::capture::{Capture, ReadAt};
use crate::rows::{BlockIo, Connection, FileIo, PageFaults};

/// Names that are kept apart in each map; further ones share the empty name.
const MAX_NAMES: usize = 1 << 16;

/// What was read from and written to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTally {
    /// Calls that read.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Calls that wrote.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// What went over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTally {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Segments sent, the repeated ones among them.
    pub segments: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round-trip time at the end, ns.
    pub rtt_ns: u64,
    /// What the kernel estimated it to deliver at the end, bytes a second; 0 where unknown.
    pub delivery_rate: u64,
}

/// Requests to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockTally {
    /// How many.
    pub requests: u64,
    /// Bytes.
    pub bytes: u64,
    /// How many failed.
    pub errors: u64,
    /// From queueing to completion, ns.
    pub latency: Spread,
}

impl BlockTally {
    fn add(&mut self, row: &BlockIo) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(row.bytes);
        self.errors += u64::from(row.error != 0);
        self.latency.add(row.duration_ns);
    }
}

/// Page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultTally {
    /// Without I/O.
    pub minor: u64,
    /// With I/O.
    pub major: u64,
}

/// What the processes of a rank moved.
#[derive(Debug, Default)]
pub struct Io {
    /// Files and other objects by name.
    pub files: HashMap<(ObjectKind, StringId), FileTally>,
    /// Connections by name.
    pub connections: HashMap<StringId, ConnectionTally>,
    /// Block devices.
    pub devices: HashMap<StringId, BlockTally>,
    /// Block devices by file, where the file is known.
    pub device_files: HashMap<(StringId, StringId), BlockTally>,
    /// Page faults of all threads.
    pub faults: FaultTally,
}

fn slot<K: std::hash::Hash + Eq + Copy, V: Default>(map: &mut HashMap<K, V>, key: K, other: K) -> &mut V {
    let key = if map.len() < MAX_NAMES || map.contains_key(&key) { key } else { other };
    map.entry(key).or_default()
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl Io {
    /// Adds up the rows of these processes and threads.
    pub(super) fn of<S: ReadAt>(capture: &Capture<S>, processes: &[ProcessId], threads: &[ThreadId]) -> Self {
        let mut io = Self::default();
        let none = StringId(0);
        for process in processes {
            for row in capture.rows::<FileIo>(process.0) {
                let file = slot(&mut io.files, (row.object_kind, row.object), (row.object_kind, none));
                add(&mut file.reads, row.reads);
                add(&mut file.read_bytes, row.read_bytes);
                add(&mut file.writes, row.writes);
                add(&mut file.written_bytes, row.written_bytes);
            }
            for row in capture.rows::<Connection>(process.0) {
                let connection = slot(&mut io.connections, row.name, none);
                add(&mut connection.sent_bytes, row.sent_bytes);
                add(&mut connection.received_bytes, row.received_bytes);
                add(&mut connection.segments, row.segments);
                add(&mut connection.retransmits, row.retransmits);
                if row.rtt_ns > 0 {
                    connection.rtt_ns = row.rtt_ns;
                }
                if row.delivery_rate > 0 {
                    connection.delivery_rate = row.delivery_rate;
                }
            }
        }
        for thread in threads {
            for row in capture.rows::<BlockIo>(thread.0) {
                slot(&mut io.devices, row.device, none).add(&row);
                if row.file != none {
                    slot(&mut io.device_files, (row.device, row.file), (none, none)).add(&row);
                }
            }
            for row in capture.rows::<PageFaults>(thread.0) {
                add(&mut io.faults.minor, row.minor);
                add(&mut io.faults.major, row.major);
            }
        }
        io
    }
}
