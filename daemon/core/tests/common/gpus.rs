//! A made-up job of ranks with a GPU each.

use stallscope_core::capture::{Capture, Device};
use stallscope_core::rows::GpuOp;
use stallscope_schemas::units::{DeviceId, ThreadId};

use super::Host;

const US: i64 = 1_000;

/// A job of some ranks with a GPU and a launching thread each.
pub(crate) struct Job {
    pub(crate) host: Host,
    pub(crate) ranks: Vec<(DeviceId, ThreadId)>,
    pub(crate) ops: Vec<Vec<GpuOp>>,
}

impl Job {
    pub(crate) fn new(ranks: u32, until: i64) -> Self {
        let mut host = Host::new();
        host.writer.add_label("gpu.clock_error_ns", "0");
        let ranks: Vec<_> = (0..ranks)
            .map(|rank| {
                let pid = 100 + i64::from(rank);
                let process = host.process(pid, "python", Some(rank));
                host.writer.update_process(process, |p| p.world_size = Some(ranks));
                let thread = host.thread(process, pid, "MainThread", 0, until);
                let id = format!("GPU-{rank}");
                let device = Device { id, processes: vec![process], ..Device::default() };
                (host.writer.add_device(device), thread)
            })
            .collect();
        let ops = vec![Vec::new(); ranks.len()];
        Self { host, ranks, ops }
    }

    /// An operation of a rank, launched just before it begins.
    pub(crate) fn op(&mut self, rank: usize, name: &str, stream: u64, start: i64, end: i64) {
        self.launched(rank, name, stream, (start - US, start), start, end);
    }

    pub(crate) fn launched(
        &mut self,
        rank: usize,
        name: &str,
        stream: u64,
        (from, to): (i64, i64),
        start: i64,
        end: i64,
    ) {
        let op = self.host.kernel(self.ranks[rank].1, (name, stream), (from, to), (start, end));
        self.ops[rank].push(op);
    }

    /// A communication kernel on ranks that come at these moments, and all leave at `end`.
    pub(crate) fn collective(&mut self, stream: u64, came: &[(usize, i64)], end: i64) {
        for &(rank, start) in came {
            self.op(rank, "ncclDevKernel_AllReduce_Sum_f32_RING_LL", stream, start, end);
        }
    }

    pub(crate) fn capture(mut self) -> Capture<Vec<u8>> {
        for ((device, _), mut ops) in self.ranks.into_iter().zip(self.ops) {
            ops.sort_by_key(|op| op.start);
            for op in ops {
                self.host.writer.push_gpu_op(device, op).unwrap();
            }
        }
        self.host.capture()
    }
}
