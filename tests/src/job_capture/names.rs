//! Names, stacks and objects of a made-up job, and the waits that refer to them.

use std::io::Write;

use stallscope_core::capture::CaptureWriter;
use stallscope_core::rows::ThreadWait;
use stallscope_schemas::record::{ObjectKind, WaitKind, wait_flags};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use super::{KERNELS, Out, STACKS};
use crate::rng::Rng;

/// Names used by the rows.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) kernels: Vec<StringId>,
    pub(super) stacks: Vec<StackId>,
    pub(super) all_reduce: StringId,
    pub(super) copy: StringId,
    pub(super) launch: StringId,
    pub(super) memcpy: StringId,
    pub(super) sync: StringId,
    pub(super) calls: Vec<StringId>,
    pub(super) event_record: StringId,
    pub(super) wait_event: StringId,
    pub(super) c10d: StringId,
    pub(super) nccl: StringId,
    pub(super) group: StringId,
    pub(super) float: StringId,
    pub(super) sum: StringId,
    pub(super) futex: StringId,
    pub(super) poll: StringId,
    pub(super) read: StringId,
    pub(super) ioctl: StringId,
    pub(super) lock: StringId,
    pub(super) queue: StringId,
    pub(super) shards: Vec<StringId>,
    pub(super) disk: StringId,
    pub(super) clock: StringId,
    pub(super) power: StringId,
}

impl Names {
    pub(super) fn intern<W: Write>(writer: &mut CaptureWriter<W>) -> Self {
        let frames: Vec<StringId> =
            (0..STACKS).map(|k| writer.intern(&format!("module_{k}.forward (model.py:{k})"))).collect();
        let root = writer.intern("<module> (train.py:1)");
        let root = writer.intern_frame(StackId(0), root);
        let mut stacks = Vec::new();
        for (k, &frame) in frames.iter().enumerate() {
            let parent = if k % 8 == 0 { root } else { stacks[k - k % 8 / 2 - 1] };
            stacks.push(writer.intern_frame(parent, frame));
        }
        Self {
            kernels: (0..KERNELS)
                .map(|k| writer.intern(&format!("sm90_gemm_bf16_tile_{k}_execute_kernel")))
                .collect(),
            stacks,
            all_reduce: writer
                .intern("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"),
            copy: writer.intern("Memcpy HtoD (Pinned -> Device)"),
            launch: writer.intern("cudaLaunchKernel"),
            memcpy: writer.intern("cudaMemcpyAsync"),
            sync: writer.intern("cudaStreamSynchronize"),
            calls: ["cudaEventQuery", "cudaStreamIsCapturing", "cudaEventRecord", "cudaGetDevice"]
                .map(|name| writer.intern(name))
                .to_vec(),
            event_record: writer.intern("cudaEventRecord"),
            wait_event: writer.intern("cudaStreamWaitEvent"),
            c10d: writer.intern("c10d::ProcessGroupNCCL::allreduce"),
            nccl: writer.intern("ncclAllReduce"),
            group: writer.intern("7f3a19c0ffee"),
            float: writer.intern("bfloat16"),
            sum: writer.intern("sum"),
            futex: writer.intern("futex"),
            poll: writer.intern("poll"),
            read: writer.intern("read"),
            ioctl: writer.intern("ioctl"),
            lock: writer.intern("GIL"),
            queue: writer.intern("pipe:[4711]"),
            shards: (0..64).map(|k| writer.intern(&format!("/data/shard-{k:04}"))).collect(),
            disk: writer.intern("vdb"),
            clock: writer.intern("sm_clock_mhz"),
            power: writer.intern("power_mw"),
        }
    }

    pub(super) fn stack(&self, rng: &mut Rng) -> StackId {
        self.stacks[pick(rng, self.stacks.len())]
    }
}

/// A place in a list.
pub(super) fn pick(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.between(0, len as u64 - 1)).unwrap_or(0)
}

/// A wait; without a waker an interrupt ended it.
pub(super) fn wait_row<W: Write>(
    at: i64,
    ns: u64,
    (call, object_kind, object): (StringId, ObjectKind, StringId),
    waker: Option<ThreadId>,
    rng: &mut Rng,
    out: &Out<W>,
) -> ThreadWait {
    // Waits of a tenth of a millisecond have stacks.
    let stack = if ns >= 100_000 { out.names.stack(rng) } else { StackId(0) };
    let irq = if waker.is_none() { wait_flags::IRQ_WAKER } else { 0 };
    ThreadWait {
        start: TimeNs(at),
        duration_ns: ns,
        run_queue_ns: rng.between(1_000, 9_000).min(ns / 4),
        kind: WaitKind::Syscall,
        call,
        object_kind,
        object,
        waker,
        waker_stack: StackId(0),
        stack,
        preemptor: None,
        flags: wait_flags::RETURNED | irq,
        result: 1,
        peer: None,
    }
}
