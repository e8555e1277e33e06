//! Events to rows.
//!
//! What later records refer to (tasks, stacks, objects) may come out of another CPU's ring a moment after the record that
//! refers to it. So each batch is held back until the definitions of the next one are in.

mod counters;
mod gpu;
mod tasks;
#[cfg(test)]
mod tests;
mod unseen;
mod waits;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::Write;

use stallscope_agents::Told;
use stallscope_core::capture::{CaptureWriter, WriteError};
use stallscope_core::collectives::CLOCK_ERROR_LABEL;
use stallscope_core::ingest::Ingest;
use stallscope_core::rows::{
    BlockIo, CollectiveCall, Connection, CpuSample, DeviceWindow, FileIo, LaunchStack, PageFaults,
    ThreadLoss, ThreadSpan,
};
use stallscope_ebpf::Event;
use stallscope_ebpf::event::StackFrames;
use stallscope_ebpf::object::ObjectText;
use stallscope_ebpf::probes::collectives::Decoded;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{BlockOp, ObjectKind, window_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, StackId, StringId, ThreadId, TimeNs};
use stallscope_schemas::wire::{self, loss_flag, stack_flag};

use crate::queue::LeftOut;

use gpu::Gpus;
pub(crate) use gpu::counter as gpu_counter;
use tasks::Tasks;
pub(crate) use tasks::{NewRank, RankSeat, Seats};
pub(crate) use unseen::CallsSeen;
use unseen::Unseen;
use waits::loops_back;

/// Where names come from: the processes themselves, or a test.
pub(crate) trait Naming {
    /// A process is followed from now on.
    fn process_seen(&mut self, pid: u32);
    /// What a process is called: its first thread's name, which need not be the one that was met.
    fn process_name(&mut self, pid: u32) -> Option<String>;
    /// A process began another program.
    fn process_changed(&mut self, pid: u32);
    /// A process ended.
    fn process_gone(&mut self, pid: u32);
    /// Called every second: what is no longer needed can go.
    fn tidy(&mut self);
    /// The frames of a stack, outermost first, and how many of them have no name.
    fn stack(&mut self, pid: u32, user: Option<&StackFrames>, kernel: Option<&StackFrames>) -> NamedStack;
    /// What a descriptor stands for.
    fn object(&mut self, object: &wire::Object) -> ObjectText;
    /// The name of a block device.
    fn device(&mut self, number: u32) -> String;
    /// What a call into a collective library was.
    fn call(&mut self, pid: u32, call: &wire::Call) -> Decoded;
}

/// A stack in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedStack {
    /// Frames, outermost first.
    pub(crate) frames: Vec<String>,
    /// Frames that are only an address.
    pub(crate) unnamed: u64,
    /// Whether the native part ends early.
    pub(crate) cut: bool,
}

/// Most distinct stacks, objects: a hostile job makes new ones without end.
const MAX_STACKS: usize = 1 << 18;
const MAX_OBJECTS: usize = 1 << 17;
/// Ranks that wait for their process to become known: those that never do are forgotten.
const MAX_NEW_RANKS: usize = 1 << 12;

#[derive(Clone, Copy, Debug)]
struct KnownObject {
    kind: ObjectKind,
    text: StringId,
    peer_pid: Option<u32>,
    /// A connection from this host to itself.
    loops_back: bool,
}

/// Turns batches of events into rows of one capture.
#[derive(Debug)]
pub(crate) struct Assembler<W: Write, N: Naming> {
    ingest: Ingest<W>,
    naming: N,
    tasks: Tasks,
    gpus: Gpus,
    /// The largest error of a GPU's clock, where there was one.
    clock_error_ns: Option<u64>,
    /// The device that has the host's counters, from the first of them on.
    host: Option<DeviceId>,
    /// Ranks whose process is not known yet.
    new_ranks: Vec<NewRank>,
    held: Vec<Event>,
    stacks: HashMap<u64, StackFrames>,
    stack_ids: HashMap<(u64, u64), StackId>,
    objects: HashMap<u64, KnownObject>,
    devices: HashMap<u32, StringId>,
    calls: Vec<StringId>,
    connections: HashMap<u64, wire::Connection>,
    file_since: HashMap<(u32, u64), u64>,
    unseen: Unseen,
    losses: BTreeMap<LossCounter, u64>,
}

/// What is told again and again is told about every second; what was not for longer is over.
const TOLD_AGAIN_NS: u64 = 5_000_000_000;
/// Files and connections that are remembered from one telling to the next: more than the kernel half has at a time.
const MAX_TOLD: usize = 1 << 17;

/// Makes room where a job goes through files or connections without end. Returns how many were forgotten that may be told
/// again.
fn forget_old<K: Eq + Hash, V>(told: &mut HashMap<K, V>, now_ns: u64, when_ns: impl Fn(&V) -> u64) -> u64 {
    if told.len() < MAX_TOLD {
        return 0;
    }
    told.retain(|_, value| when_ns(value).saturating_add(TOLD_AGAIN_NS) >= now_ns);
    if told.len() <= MAX_TOLD / 2 {
        return 0;
    }
    // So many in so short a time: all go, rather than that all are looked through for each.
    let forgotten = told.len() as u64;
    told.clear();
    forgotten
}

fn time(ns: u64) -> TimeNs {
    TimeNs(i64::try_from(ns).unwrap_or(i64::MAX))
}

impl<W: Write, N: Naming> Assembler<W, N> {
    /// Starts with the processes that are known from outside.
    pub(crate) fn new(mut writer: CaptureWriter<W>, mut naming: N, seats: Seats) -> Self {
        let tasks = Tasks::new(&mut writer, &mut naming, seats);
        Self {
            ingest: Ingest::new(writer).bounded_by_launches(),
            naming,
            tasks,
            gpus: Gpus::default(),
            clock_error_ns: None,
            host: None,
            new_ranks: Vec::new(),
            held: Vec::new(),
            stacks: HashMap::new(),
            stack_ids: HashMap::new(),
            objects: HashMap::new(),
            devices: HashMap::new(),
            calls: Vec::new(),
            connections: HashMap::new(),
            file_since: HashMap::new(),
            unseen: Unseen::default(),
            losses: BTreeMap::new(),
        }
    }

    /// The capture under construction, for labels, clocks and losses.
    pub(crate) fn writer(&mut self) -> &mut CaptureWriter<W> {
        self.ingest.writer()
    }

    /// Where names come from.
    pub(crate) fn naming(&mut self) -> &mut N {
        &mut self.naming
    }

    /// Takes a batch in. Its rows are written with the next one.
    ///
    /// # Errors
    /// [`WriteError`] when the output refuses.
    pub(crate) fn batch(
        &mut self,
        events: Vec<Event>,
        left_out: &[LeftOut],
        malformed: u64,
    ) -> Result<(), WriteError> {
        self.count(LossCounter::RecordMalformed, malformed);
        let mut rest = Vec::with_capacity(events.len());
        for event in events {
            match event {
                Event::Task(task) => {
                    let met = self.tasks.begin(self.ingest.writer(), &mut self.naming, &task);
                    self.count(LossCounter::TableFull, u64::from(!met));
                }
                Event::Stack(stack) => self.define_stack(stack),
                Event::Object(object) => self.define_object(&object),
                other => rest.push(other),
            }
        }
        let (tasks, writer) = (&mut self.tasks, self.ingest.writer());
        self.new_ranks.retain(|new| !tasks.became_rank(writer, new));
        let ready = std::mem::replace(&mut self.held, rest);
        self.write_rows(ready)?;
        for lost in left_out {
            self.lost(LossCounter::QueueFull, lost.task, lost.start_ns, lost.end_ns, lost.records)?;
        }
        Ok(())
    }

    /// Writes what is held back and what is known of each thread, so that it survives a crash.
    ///
    /// # Errors
    /// [`WriteError`] when the output refuses.
    pub(crate) fn flush(&mut self) -> Result<(), WriteError> {
        for (thread, span) in self.tasks.spans_so_far() {
            self.ingest.writer().push_thread_span(thread, span)?;
        }
        self.naming.tidy();
        self.ingest.writer().flush()
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// [`WriteError`] when the output refuses.
    pub(crate) fn finish(mut self) -> Result<(W, BTreeMap<LossCounter, u64>), WriteError> {
        let rest = std::mem::take(&mut self.held);
        self.write_rows(rest)?;
        self.flush()?;
        self.gpus.finish(&mut self.ingest)?;
        let early_ns = self.ingest.before_launch_ns();
        if early_ns > 0 {
            self.ingest.writer().add_label("gpu.corrected_to_launch_ns", &early_ns.to_string());
        }
        if let Some(error_ns) = self.clock_error_ns {
            self.ingest.writer().add_label(CLOCK_ERROR_LABEL, &error_ns.to_string());
        }
        Ok((self.ingest.finish()?.0, self.losses))
    }

    /// Counts what was lost, in the capture and for whoever asked for the recording.
    pub(crate) fn count(&mut self, loss: LossCounter, count: u64) {
        if count > 0 {
            *self.losses.entry(loss).or_default() += count;
            self.ingest.writer().count_loss(loss, count);
        }
    }

    /// A process has become a rank. Its own introduction may still come, in this batch or the next.
    pub(crate) fn rank(&mut self, new: NewRank) {
        if self.new_ranks.len() < MAX_NEW_RANKS {
            self.new_ranks.push(new);
        }
    }

    /// The probes on collective calls were taken off or put on.
    pub(crate) fn calls_seen(&mut self, change: CallsSeen) {
        self.unseen.change(change);
    }

    /// Takes in what the agents told.
    ///
    /// # Errors
    /// [`WriteError`] when the output refuses.
    pub(crate) fn told(&mut self, told: Told) -> Result<(), WriteError> {
        match told {
            Told::Events { pid, events } => {
                for event in events {
                    self.gpus.event(&mut self.ingest, &mut self.tasks, pid, event)?;
                }
                Ok(())
            }
            Told::Observed { pid, from, to, from_start, .. } => {
                let flags = if from_start { window_flags::FROM_START } else { 0 };
                let window = DeviceWindow { start: time(from), duration_ns: to.saturating_sub(from), flags };
                self.gpus.observed(&mut self.ingest, &self.tasks, pid, window)
            }
            Told::Unseen { pid, from, to } => {
                self.gpus.unseen(&mut self.ingest, pid, from, to);
                Ok(())
            }
            Told::Losses { clock_error_ns, .. } => {
                self.clock_error_ns = self.clock_error_ns.max(Some(clock_error_ns));
                Ok(())
            }
            Told::On { .. } | Told::Ended { .. } => Ok(()),
        }
    }

    fn define_stack(&mut self, stack: StackFrames) {
        if self.stacks.len() < MAX_STACKS {
            self.stacks.insert(stack.id, stack);
        } else {
            self.count(LossCounter::TableFull, 1);
        }
    }

    fn define_object(&mut self, object: &wire::Object) {
        if self.objects.len() >= MAX_OBJECTS {
            self.count(LossCounter::TableFull, 1);
            return;
        }
        let named = self.naming.object(object);
        let text = self.ingest.writer().intern(&named.text);
        self.objects.insert(
            object.id,
            KnownObject {
                kind: named.kind,
                text,
                peer_pid: named.peer_pid,
                loops_back: named.kind == ObjectKind::TcpSocket && loops_back(object),
            },
        );
    }

    fn write_rows(&mut self, events: Vec<Event>) -> Result<(), WriteError> {
        for event in events {
            match event {
                Event::Wait(wait) => self.wait(&wait)?,
                Event::Preempt(preempt) => self.preempt(&preempt)?,
                Event::Sample(sample) => self.sample(&sample)?,
                Event::TaskEnd(end) => {
                    let unseen = self.unseen.end(end.head.task, end.time_ns);
                    self.calls_unseen(end.head.task, unseen)?;
                    if let Some((thread, span)) = self.tasks.end(&mut self.naming, &end) {
                        self.ingest.writer().push_thread_span(thread, span)?;
                    }
                }
                Event::Exec(exec) => self.tasks.exec(self.ingest.writer(), &mut self.naming, &exec),
                Event::Loss(loss) => {
                    let end_ns = loss.start_ns.saturating_add(loss.duration_ns);
                    // The kernel half counts them itself: here only the stretch is of interest.
                    let why = match loss.head.flags {
                        loss_flag::LOSS_MISSED => LossCounter::ProbeMissed,
                        loss_flag::LOSS_PAUSED => LossCounter::CallsPaused,
                        _ => LossCounter::RingFull,
                    };
                    self.lost_stretch(why, loss.head.task, loss.start_ns, end_ns, loss.records)?;
                }
                Event::Faults(faults) => self.faults(&faults)?,
                Event::BlockIo(io) => self.block_io(&io)?,
                Event::Call(call) => self.call(&call)?,
                Event::FileIo(io) => self.file_io(&io)?,
                Event::Connection(connection) => self.connection(&connection)?,
                Event::Launch(launch) => self.launch(&launch)?,
                Event::Task(_) | Event::Stack(_) | Event::Object(_) => {}
            }
        }
        Ok(())
    }

    /// The thread that a record names; one that was never introduced counts as a loss.
    fn thread(&mut self, task: u32) -> Option<ThreadId> {
        let thread = self.tasks.thread(task);
        if thread.is_none() {
            self.count(LossCounter::ThreadUnknown, 1);
        }
        thread
    }

    /// A thread named in passing (waker, preemptor): 0 and the unknown are nobody.
    fn other(&self, task: u32) -> Option<ThreadId> {
        if task == 0 { None } else { self.tasks.thread(task) }
    }

    fn stack(&mut self, task: u32, user: u64, kernel: u64) -> StackId {
        if user == 0 && kernel == 0 {
            return StackId(0);
        }
        if let Some(&id) = self.stack_ids.get(&(user, kernel)) {
            return id;
        }
        let (user_frames, kernel_frames) = (self.stacks.get(&user), self.stacks.get(&kernel));
        let lost = (user != 0 && user_frames.is_none()) || (kernel != 0 && kernel_frames.is_none());
        let pid = self.tasks.pid(task).unwrap_or(0);
        let named = self.naming.stack(pid, user_frames, kernel_frames);
        let flagged = |flag| user_frames.is_some_and(|s| s.flags & flag != 0);
        let cut = named.cut || flagged(stack_flag::STACK_CUT) || flagged(stack_flag::STACK_PYTHON_CUT);
        self.count(LossCounter::StackLost, u64::from(lost));
        self.count(LossCounter::StackCut, u64::from(cut));
        self.count(LossCounter::SymbolMissing, named.unnamed);
        let mut id = StackId(0);
        for frame in &named.frames {
            let name = self.ingest.writer().intern(frame);
            id = self.ingest.writer().intern_frame(id, name);
        }
        if self.stack_ids.len() < MAX_STACKS {
            self.stack_ids.insert((user, kernel), id);
        }
        id
    }

    fn call_name(&mut self, number: i32) -> StringId {
        let Ok(at) = usize::try_from(number) else { return StringId(0) };
        if let Some(&name) = self.calls.get(at).filter(|n| n.0 != 0) {
            return name;
        }
        let text = syscalls::Sysno::new(at).map_or_else(|| format!("syscall_{at}"), |s| s.name().to_owned());
        let name = self.ingest.writer().intern(&text);
        // Numbers beyond the table are hostile or of a newer kernel: they are named without being remembered.
        if at < 1024 {
            if self.calls.len() <= at {
                self.calls.resize(at + 1, StringId(0));
            }
            if let Some(slot) = self.calls.get_mut(at) {
                *slot = name;
            }
        }
        name
    }

    fn sample(&mut self, sample: &wire::Sample) -> Result<(), WriteError> {
        let Some(thread) = self.thread(sample.head.task) else { return Ok(()) };
        self.tasks.seen(sample.head.task, sample.time_ns);
        let stack = self.stack(sample.head.task, sample.stack, sample.kernel_stack);
        let row = CpuSample { start: time(sample.time_ns), duration_ns: sample.period_ns, stack };
        self.ingest.writer().push_cpu_sample(thread, row)
    }

    fn launch(&mut self, launch: &wire::Launch) -> Result<(), WriteError> {
        let task = launch.head.task;
        let Some(thread) = self.thread(task) else { return Ok(()) };
        self.tasks.seen(task, launch.time_ns);
        // One that could not be taken, or of which nothing is known without frame pointers, has been counted: the sample is
        // one all the same.
        let stack = self.stack(task, launch.stack, 0);
        let correlation = CorrelationId(launch.correlation.into());
        let row = LaunchStack { start: time(launch.time_ns), duration_ns: 0, correlation, stack };
        self.ingest.writer().push_launch_stack(thread, row)
    }

    fn faults(&mut self, faults: &wire::Faults) -> Result<(), WriteError> {
        let Some(thread) = self.thread(faults.head.task) else { return Ok(()) };
        let row = PageFaults {
            start: time(faults.start_ns),
            duration_ns: faults.duration_ns,
            minor: faults.minor,
            major: faults.major,
        };
        self.ingest.writer().push_page_faults(thread, row)
    }

    fn block_io(&mut self, io: &wire::BlockIo) -> Result<(), WriteError> {
        let Some(thread) = self.thread(io.head.task) else { return Ok(()) };
        let device = match self.devices.get(&io.device) {
            Some(&device) => device,
            None => {
                let name = self.naming.device(io.device);
                let device = self.ingest.writer().intern(&name);
                self.devices.insert(io.device, device);
                device
            }
        };
        let row = BlockIo {
            start: time(io.start_ns),
            duration_ns: io.duration_ns,
            queued_ns: io.queued_ns.min(io.duration_ns),
            device,
            bytes: io.bytes.into(),
            operation: BlockOp::from_id(io.operation.into()).unwrap_or(BlockOp::Other),
            file: self.objects.get(&io.object).map_or(StringId(0), |o| o.text),
            sector: io.sector,
            error: u64::from(io.error.unsigned_abs()),
        };
        self.ingest.writer().push_block_io(thread, row)
    }

    fn call(&mut self, call: &wire::Call) -> Result<(), WriteError> {
        let task = call.head.task;
        let Some(thread) = self.thread(task) else { return Ok(()) };
        let pid = self.tasks.pid(task).unwrap_or(0);
        let named = match self.naming.call(pid, call) {
            Decoded::Call(named) => named,
            Decoded::Learnt => return Ok(()),
            Decoded::Unknown => {
                self.count(LossCounter::RecordMalformed, 1);
                return Ok(());
            }
        };
        self.tasks.seen(task, named.start_ns.saturating_add(named.duration_ns));
        let unseen = self.unseen.call(task, named.start_ns);
        self.calls_unseen(task, unseen)?;
        self.count(LossCounter::CallOpen, u64::from(named.left));
        let row = CollectiveCall {
            start: time(named.start_ns),
            duration_ns: named.duration_ns,
            name: self.ingest.writer().intern(&named.name),
            library: named.library,
            operation: named.operation,
            bytes: named.bytes,
            elements: named.elements,
            datatype: self.ingest.writer().intern(named.datatype),
            reduction: self.ingest.writer().intern(named.reduction),
            group: self.ingest.writer().intern(&named.group),
            group_size: named.group_size,
            rank: named.rank,
            peer: named.peer,
            stream: named.stream,
            sequence: named.sequence.map_or(0, |s| s.saturating_add(1)),
            result: named.result,
            flags: named.flags,
            stack: self.stack(task, named.stack, 0),
        };
        self.ingest.writer().push_collective_call(thread, row)
    }

    fn file_io(&mut self, io: &wire::FileIo) -> Result<(), WriteError> {
        let Some(process) = self.tasks.process_of_task(io.head.task) else { return Ok(()) };
        let known = self.objects.get(&io.object).copied();
        forget_old(&mut self.file_since, io.time_ns, |told_ns| *told_ns);
        let since = self.file_since.insert((io.head.task, io.object), io.time_ns);
        let start = since.unwrap_or_else(|| self.tasks.begin_ns().min(io.time_ns));
        let row = FileIo {
            start: time(start),
            duration_ns: io.time_ns.saturating_sub(start),
            object_kind: known.map_or(ObjectKind::None, |o| o.kind),
            object: known.map_or(StringId(0), |o| o.text),
            reads: io.reads,
            read_bytes: io.read_bytes,
            writes: io.writes,
            written_bytes: io.written_bytes,
        };
        self.ingest.writer().push_file_io(process, row)
    }

    /// Connections are reported by totals: a row is what came since the report before, the first sets the mark.
    fn connection(&mut self, now: &wire::Connection) -> Result<(), WriteError> {
        let Some(process) = self.tasks.process_of_task(now.head.task) else { return Ok(()) };
        let forgotten = forget_old(&mut self.connections, now.time_ns, |told| told.time_ns);
        self.count(LossCounter::TableFull, forgotten);
        let Some(before) = self.connections.insert(now.object, *now) else { return Ok(()) };
        let name = self.objects.get(&now.object).map_or(StringId(0), |o| o.text);
        let row = Connection {
            start: time(before.time_ns),
            duration_ns: now.time_ns.saturating_sub(before.time_ns),
            name,
            sent_bytes: now.sent.saturating_sub(before.sent),
            received_bytes: now.received.saturating_sub(before.received),
            retransmits: u64::from(counted(now.retransmits, before.retransmits)),
            rtt_ns: now.rtt_ns,
            segments: u64::from(counted(now.segments, before.segments)),
            delivery_rate: now.delivery_rate,
        };
        self.ingest.writer().push_connection(process, row)
    }

    fn calls_unseen(&mut self, task: u32, stretch: Option<(u64, u64)>) -> Result<(), WriteError> {
        let Some((from, until)) = stretch else { return Ok(()) };
        self.lost(LossCounter::CallsPaused, task, from, until, 1)
    }

    fn lost(
        &mut self,
        why: LossCounter,
        task: u32,
        start_ns: u64,
        end_ns: u64,
        records: u64,
    ) -> Result<(), WriteError> {
        self.count(why, records);
        self.lost_stretch(why, task, start_ns, end_ns, records)
    }

    fn lost_stretch(
        &mut self,
        why: LossCounter,
        task: u32,
        start_ns: u64,
        end_ns: u64,
        records: u64,
    ) -> Result<(), WriteError> {
        let Some(thread) = self.thread(task) else { return Ok(()) };
        let duration_ns = end_ns.saturating_sub(start_ns);
        let row = ThreadLoss { start: time(start_ns), duration_ns, counter: why.id(), records };
        self.ingest.writer().push_thread_loss(thread, row)
    }
}

/// How far a number went that begins anew at 2^32; 0 where it went back, as that of another connection in its place.
fn counted(now: u32, before: u32) -> u32 {
    let by = now.wrapping_sub(before);
    if by <= u32::MAX / 2 { by } else { 0 }
}

/// What the spans of a thread look like.
fn span(from: u64, to: u64) -> ThreadSpan {
    ThreadSpan { start: time(from), duration_ns: to.saturating_sub(from) }
}

/// The name in a record: bytes up to the first zero.
fn comm(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
