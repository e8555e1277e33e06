//! A made-up host, for tests of what threads did.
#![allow(clippy::unwrap_used, dead_code, reason = "tests fail by panicking, and each uses a part")]

pub(crate) mod gpus;

use stallscope_core::capture::{Capture, CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::rows::{
    BlockIo, CollectiveCall, CpuSample, GpuOp, Launch, ThreadLoss, ThreadPreempt, ThreadSpan, ThreadWait,
};
use stallscope_schemas::record::{
    BlockOp, CollectiveLibrary, CollectiveOp, CopyKind, ObjectKind, OpKind, WaitKind, device_kind, wait_flags,
};
use stallscope_schemas::units::{CorrelationId, ProcessId, SourceId, StackId, StringId, ThreadId, TimeNs};

pub(crate) const MS: i64 = 1_000_000;

/// A capture under construction.
pub(crate) struct Host {
    pub(crate) writer: CaptureWriter<Vec<u8>>,
    source: SourceId,
    /// Ranks of the job and of the communicators of calls.
    pub(crate) group_size: u32,
}

impl Host {
    pub(crate) fn new() -> Self {
        let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
        let source = writer.add_source(Source { path: "live".into(), format: "live".into() });
        Self { writer, source, group_size: 4 }
    }

    pub(crate) fn process(&mut self, pid: i64, name: &str, rank: Option<u32>) -> ProcessId {
        self.writer.add_process(Process {
            source: self.source,
            pid,
            name: name.into(),
            rank,
            world_size: rank.map(|_| self.group_size),
            host: "node-1".into(),
            job: if rank.is_some() { "train".into() } else { String::new() },
        })
    }

    /// A process of the job without a rank of its own: a data-loader worker.
    pub(crate) fn helper(&mut self, pid: i64, name: &str) -> ProcessId {
        let id = self.process(pid, name, None);
        self.writer.update_process(id, |p| p.job = "train".into());
        id
    }

    pub(crate) fn rank(&mut self, id: &str, processes: &[ProcessId]) {
        let device = Device {
            source: self.source,
            kind: device_kind::CPU,
            id: id.into(),
            ordinal: 0,
            model: String::new(),
            processes: processes.to_vec(),
        };
        self.writer.add_device(device);
    }

    /// A thread that is not followed.
    pub(crate) fn outsider(&mut self, process: ProcessId, tid: i64, name: &str) -> ThreadId {
        self.writer.add_thread(Thread { process, tid, name: name.into() })
    }

    /// A followed thread.
    pub(crate) fn thread(
        &mut self,
        process: ProcessId,
        tid: i64,
        name: &str,
        from: i64,
        to: i64,
    ) -> ThreadId {
        let id = self.outsider(process, tid, name);
        self.span(id, from, to);
        id
    }

    pub(crate) fn span(&mut self, thread: ThreadId, from: i64, to: i64) {
        let span = ThreadSpan { start: TimeNs(from), duration_ns: (to - from).unsigned_abs() };
        self.writer.push_thread_span(thread, span).unwrap();
    }

    pub(crate) fn stack(&mut self, frames: &[&str]) -> StackId {
        frames.iter().fold(StackId(0), |parent, frame| {
            let name = self.writer.intern(frame);
            self.writer.intern_frame(parent, name)
        })
    }

    /// A kernel that ran in `[start, end)`, launched by a call in `[from, to)`.
    pub(crate) fn kernel(
        &mut self,
        thread: ThreadId,
        (name, stream): (&str, u64),
        (from, to): (i64, i64),
        (start, end): (i64, i64),
    ) -> GpuOp {
        let call = self.writer.intern("cuLaunchKernel");
        let launch =
            Launch { thread, start: TimeNs(from), duration_ns: (to - from).unsigned_abs(), name: call };
        GpuOp {
            start: TimeNs(start),
            duration_ns: (end - start).unsigned_abs(),
            name: self.writer.intern(name),
            stream,
            kind: OpKind::Kernel,
            flags: 0,
            correlation: CorrelationId(start.unsigned_abs() + 1),
            bytes: 0,
            copy_kind: CopyKind::Unknown,
            launch: Some(launch),
        }
    }

    /// Adds a wait inside a system call; `more` says what else is known.
    pub(crate) fn wait(
        &mut self,
        thread: ThreadId,
        from: i64,
        to: i64,
        call: &str,
        more: impl FnOnce(&mut ThreadWait, &mut Self),
    ) {
        let mut row = ThreadWait {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            run_queue_ns: 0,
            kind: WaitKind::Syscall,
            call: self.writer.intern(call),
            object_kind: ObjectKind::None,
            object: StringId(0),
            waker: None,
            waker_stack: StackId(0),
            stack: StackId(0),
            preemptor: None,
            flags: 0,
            result: 0,
            peer: None,
        };
        more(&mut row, self);
        self.writer.push_thread_wait(thread, row).unwrap();
    }

    /// A wait that `waker` ended.
    pub(crate) fn woken(&mut self, thread: ThreadId, from: i64, to: i64, call: &str, waker: ThreadId) {
        self.wait(thread, from, to, call, |w, _| w.waker = Some(waker));
    }

    /// A wait for an object that an interrupt ended.
    pub(crate) fn on(
        &mut self,
        thread: ThreadId,
        from: i64,
        to: i64,
        call: &str,
        kind: ObjectKind,
        object: &str,
    ) {
        self.wait(thread, from, to, call, |w, host| {
            w.object_kind = kind;
            w.object = host.writer.intern(object);
            w.flags = wait_flags::IRQ_WAKER;
        });
    }

    pub(crate) fn preempt(
        &mut self,
        thread: ThreadId,
        from: i64,
        to: i64,
        run_queue_ns: u64,
        preemptor: Option<ThreadId>,
    ) {
        let row = ThreadPreempt {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            run_queue_ns,
            times: 3,
            preemptor,
            kind: WaitKind::Preempted,
        };
        self.writer.push_thread_preempt(thread, row).unwrap();
    }

    pub(crate) fn sample(&mut self, thread: ThreadId, at: i64, period_ns: u64, stack: StackId) {
        let row = CpuSample { start: TimeNs(at), duration_ns: period_ns, stack };
        self.writer.push_cpu_sample(thread, row).unwrap();
    }

    pub(crate) fn call(
        &mut self,
        thread: ThreadId,
        from: i64,
        to: i64,
        name: &str,
        library: CollectiveLibrary,
    ) {
        self.call_of(thread, from, to, name, library, CollectiveOp::AllReduce, "world", 0);
    }

    #[allow(clippy::too_many_arguments, reason = "a row has that many columns")]
    pub(crate) fn call_of(
        &mut self,
        thread: ThreadId,
        from: i64,
        to: i64,
        name: &str,
        library: CollectiveLibrary,
        operation: CollectiveOp,
        group: &str,
        sequence: u64,
    ) {
        let row = CollectiveCall {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            name: self.writer.intern(name),
            library,
            operation,
            bytes: 4096,
            elements: 1024,
            datatype: StringId(0),
            reduction: StringId(0),
            group: self.writer.intern(group),
            group_size: u64::from(self.group_size),
            rank: None,
            peer: None,
            stream: 0,
            sequence,
            result: 0,
            flags: 0,
            stack: StackId(0),
        };
        self.writer.push_collective_call(thread, row).unwrap();
    }

    pub(crate) fn lose(&mut self, thread: ThreadId, from: i64, to: i64) {
        let row = ThreadLoss {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            counter: 19,
            records: 1,
        };
        self.writer.push_thread_loss(thread, row).unwrap();
    }

    pub(crate) fn block_io(&mut self, thread: ThreadId, from: i64, to: i64, device: &str, file: &str) {
        let row = BlockIo {
            start: TimeNs(from),
            duration_ns: (to - from).unsigned_abs(),
            queued_ns: 0,
            device: self.writer.intern(device),
            bytes: 65536,
            operation: BlockOp::Read,
            file: self.writer.intern(file),
            sector: 0,
            error: 0,
        };
        self.writer.push_block_io(thread, row).unwrap();
    }

    pub(crate) fn capture(self) -> Capture<Vec<u8>> {
        Capture::open(self.writer.finish().unwrap().0).unwrap()
    }
}
