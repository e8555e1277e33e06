//! Activity records as bytes: each field at its offset of `cupti_activity.h`.

use std::sync::OnceLock;

use stallscope_double_shared::link::{self, Memory, OpKind};

use crate::layout::{self, Version, kind};

/// This process; asked for once, because it is written into every record of a call.
fn process_id() -> u32 {
    static ID: OnceLock<u32> = OnceLock::new();
    *ID.get_or_init(std::process::id)
}

/// A record of some version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    bytes: [u8; 256],
    length: usize,
}

impl Record {
    fn new(version: Version, kind: u32) -> Self {
        let mut record = Self { bytes: [0; 256], length: layout::size(version, kind).unwrap_or(8) };
        record.u32(0, kind);
        record
    }

    /// A field, as its bytes. Fields that this version's record is too short for are left out.
    fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> &mut Self {
        if offset + N <= self.length
            && let Some(field) = self.bytes.get_mut(offset..offset + N)
        {
            field.copy_from_slice(&bytes);
        }
        self
    }

    fn u8(&mut self, offset: usize, value: u8) -> &mut Self {
        self.put(offset, [value])
    }

    fn u16(&mut self, offset: usize, value: u16) -> &mut Self {
        self.put(offset, value.to_ne_bytes())
    }

    fn u32(&mut self, offset: usize, value: u32) -> &mut Self {
        self.put(offset, value.to_ne_bytes())
    }

    fn u64(&mut self, offset: usize, value: u64) -> &mut Self {
        self.put(offset, value.to_ne_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A device's operation; `op` has the times of CUPTI's clock. `serial` chooses the kind that kernels are recorded as.
pub(crate) fn op(version: Version, op: &link::Op, serial: bool) -> Record {
    match op.kind {
        OpKind::Kernel => kernel(version, op, if serial { kind::KERNEL } else { kind::CONCURRENT_KERNEL }),
        OpKind::Copy => copy(version, op),
        OpKind::Set => *Record::new(version, kind::MEMSET)
            .u32(4, op.value)
            .u64(8, op.bytes)
            .u64(16, op.start_ns)
            .u64(24, op.end_ns)
            .u32(32, op.device)
            .u32(36, op.context)
            .u32(40, op.stream)
            .u32(44, op.correlation)
            .u16(50, u16::from(op.to as u8))
            .u64(64, op.node)
            .u32(72, op.graph),
        OpKind::Graph => *Record::new(version, kind::GRAPH_TRACE)
            .u32(4, op.correlation)
            .u64(8, op.start_ns)
            .u64(16, op.end_ns)
            .u32(24, op.device)
            .u32(28, op.graph)
            .u32(32, op.context)
            .u32(36, op.stream)
            .u32(48, op.device)
            .u32(52, op.context),
        OpKind::Event => *Record::new(version, kind::CUDA_EVENT)
            .u32(4, op.correlation)
            .u32(8, op.context)
            .u32(12, op.stream)
            .u32(16, op.value)
            .u32(24, op.device)
            .u64(40, op.end_ns),
    }
}

fn kernel(version: Version, op: &link::Op, kind: u32) -> Record {
    let ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]) = (op.grid, op.block);
    let local_bytes = 0;
    *Record::new(version, kind)
        .u16(6, 32)
        .u64(16, op.start_ns)
        .u64(24, op.end_ns)
        .u64(32, op.end_ns)
        .u32(40, op.device)
        .u32(44, op.context)
        .u32(48, op.stream)
        .u32(52, grid_x)
        .u32(56, grid_y)
        .u32(60, grid_z)
        .u32(64, block_x)
        .u32(68, block_y)
        .u32(72, block_z)
        .u32(84, local_bytes)
        .u32(92, op.correlation)
        .u64(96, op.correlation.into())
        .u64(104, op.name as u64)
        .u64(144, op.node)
        .u32(156, op.graph)
}

fn copy(version: Version, op: &link::Op) -> Record {
    let copy_kind = match (op.from == Memory::Device, op.to == Memory::Device) {
        (false, true) => 1,
        (true, false) => 2,
        (true, true) => 8,
        (false, false) => 9,
    };
    *Record::new(version, kind::MEMCPY)
        .u8(4, copy_kind)
        .u8(5, op.from as u8)
        .u8(6, op.to as u8)
        .u8(7, u8::from(op.is_async))
        .u64(8, op.bytes)
        .u64(16, op.start_ns)
        .u64(24, op.end_ns)
        .u32(32, op.device)
        .u32(36, op.context)
        .u32(40, op.stream)
        .u32(44, op.correlation)
        .u64(64, op.node)
        .u32(72, op.graph)
        .u64(88, 1)
}

/// A call of the driver's (domain 1) or the runtime's API.
pub(crate) fn call(version: Version, call: &link::Call, start: u64, end: u64, thread: u32) -> Record {
    *Record::new(version, if call.domain == 1 { kind::DRIVER } else { kind::RUNTIME })
        .u32(4, call.cbid)
        .u64(8, start)
        .u64(16, end)
        .u32(24, process_id())
        .u32(28, thread)
        .u32(32, call.correlation)
        .u32(36, call.code)
}

/// A synchronisation.
pub(crate) fn sync(version: Version, sync: &link::Sync, start: u64, end: u64) -> Record {
    *Record::new(version, kind::SYNCHRONIZATION)
        .u32(4, sync.kind as u32)
        .u64(8, start)
        .u64(16, end)
        .u32(24, sync.correlation)
        .u32(28, sync.context)
        .u32(32, sync.stream)
        .u32(36, sync.event)
}

/// A context, or a stream of it.
pub(crate) fn resource(version: Version, resource: &link::Resource) -> Record {
    if resource.stream == 0 {
        // 1: CUDA, not OpenCL or the like.
        return *Record::new(version, kind::CONTEXT)
            .u32(4, resource.context)
            .u32(8, resource.device)
            .u16(12, 1)
            .u16(14, u16::try_from(resource.null_stream).unwrap_or(u16::MAX))
            .u64(32, process_id().into());
    }
    *Record::new(version, kind::STREAM)
        .u32(4, resource.context)
        .u32(8, resource.stream)
        .u32(16, resource.flag)
        .u32(20, resource.correlation)
}

/// Kinds of overhead.
pub(crate) const BUFFER_FLUSH: u32 = 1 << 16;
pub(crate) const COMMAND_BUFFER_FULL: u32 = 6 << 16;

/// Time that the profiler or a full queue took.
pub(crate) fn overhead(
    version: Version,
    overhead: u32,
    thread: u32,
    start: u64,
    end: u64,
    correlation: u32,
) -> Record {
    /// The object is a thread.
    const OBJECT_THREAD: u32 = 2;
    *Record::new(version, kind::OVERHEAD)
        .u32(4, overhead)
        .u32(8, OBJECT_THREAD)
        .u32(12, process_id())
        .u32(16, thread)
        .u64(24, start)
        .u64(32, end)
        .u32(40, correlation)
}
