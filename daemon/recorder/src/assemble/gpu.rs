//! What the agents tell: operations with their launches, ranges, orders between streams, losses.
//!
//! Processes number their devices and threads as they see them; here devices are known by UUID and threads by the tid of
//! the recorder's own pid namespace (the team of agents has translated it).

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use stallscope_agents::{Copied, Event, Op, What};
use stallscope_core::capture::{Device, WriteError};
use stallscope_core::classify::copies::{copy_kind, copy_name, memory_kind, memset_name};
use stallscope_core::ingest::{Ingest, Scope};
use stallscope_core::rows::{ApiCall, DeviceWindow, GpuOp, HostSpan, LossWindow, StreamWait};
use stallscope_cupti_wire::Lost;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, device_kind, op_flags, window_flags};
use stallscope_schemas::units::{CorrelationId, DeviceId, StackId, TimeNs};

use super::tasks::Tasks;
use super::time;

/// Devices of all processes together, each counted once a process that sees it: a host has some dozens, with MIG some
/// hundreds.
const MAX_DEVICES: usize = 1 << 14;

/// Stretches of losses that are remembered of all processes, for devices that they turn out to use.
const MAX_LOSSES: usize = 1 << 12;

/// GPUs of the job.
///
/// A process sees every GPU that is not hidden from it and uses few of them, often one. A GPU is a process's once that has
/// launched something on it; one that sees a single GPU can use no other.
#[derive(Debug, Default)]
pub(super) struct Gpus {
    /// By UUID.
    known: HashMap<String, DeviceId>,
    /// UUID and model, by process and its own number.
    seen: HashMap<(u32, u32), (String, String)>,
    /// Those that are used, by process and its own number.
    numbers: HashMap<(u32, u32), DeviceId>,
    /// What a process lost, whichever of its devices it was about.
    losses: Vec<(u32, LossWindow)>,
    /// When a process may have used its devices without anybody being told.
    unseen: Vec<(u32, DeviceWindow)>,
    /// When the last device was observed.
    observed_until: TimeNs,
}

/// The counter of a loss that an agent reports.
pub(crate) fn counter(why: Lost) -> LossCounter {
    match why {
        Lost::RingFull => LossCounter::AgentRingFull,
        Lost::CuptiDropped => LossCounter::CuptiDropped,
        Lost::NoBuffer => LossCounter::AgentNoBuffer,
        Lost::Malformed => LossCounter::AgentMalformed,
        Lost::NameLost => LossCounter::AgentNameLost,
        Lost::Unfinished => LossCounter::OperationUnfinished,
        Lost::RangeLost => LossCounter::RangeLost,
        Lost::Yielded => LossCounter::AgentYielded,
        Lost::Taken => LossCounter::AgentTaken,
    }
}

impl Gpus {
    pub(super) fn event<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tasks: &mut Tasks,
        pid: u32,
        event: Event,
    ) -> Result<(), WriteError> {
        let duration = |start: u64, end: u64| end.saturating_sub(start);
        match event {
            Event::Device(info) => {
                if self.seen.len() < MAX_DEVICES {
                    self.seen.insert((pid, info.number), (info.uuid, info.model));
                }
                Ok(())
            }
            Event::Op(op) => self.op(ingest, tasks, pid, &op),
            Event::Call { tid, name, correlation, start, end } => {
                let Some(thread) = tasks.thread_of_tid(ingest.writer(), pid, tid) else { return Ok(()) };
                let call = ApiCall {
                    start: time(start),
                    duration_ns: duration(start, end),
                    name: ingest.writer().intern(&name),
                    correlation: CorrelationId(correlation.into()),
                };
                ingest.api_call(Scope(pid), thread, call, false)
            }
            Event::StreamWait { stream, correlation, start, end } => {
                let row = StreamWait {
                    start: time(start),
                    duration_ns: duration(start, end),
                    stream: stream.into(),
                    on_stream: None,
                    correlation: CorrelationId(correlation.into()),
                };
                for device in self.devices_of(pid) {
                    ingest.writer().push_stream_wait(device, row)?;
                }
                Ok(())
            }
            Event::Range { tid, name, start, end } => {
                let Some(thread) = tasks.thread_of_tid(ingest.writer(), pid, tid) else { return Ok(()) };
                let row = HostSpan {
                    start: time(start),
                    duration_ns: duration(start, end),
                    name: ingest.writer().intern(&name),
                    kind: SpanKind::Annotation,
                    stack: StackId(0),
                };
                ingest.writer().push_host_span(thread, row)
            }
            Event::Loss { start, end, why, .. } => {
                let row = LossWindow {
                    start: time(start),
                    duration_ns: duration(start, end),
                    counter: counter(why).id(),
                };
                for device in self.devices_of(pid) {
                    ingest.writer().push_loss_window(device, row)?;
                }
                if self.losses.len() < MAX_LOSSES {
                    self.losses.push((pid, row));
                }
                Ok(())
            }
        }
    }

    /// The device with this UUID, where the job uses it.
    pub(super) fn by_uuid(&self, uuid: &str) -> Option<DeviceId> {
        self.known.get(uuid).copied()
    }

    /// The devices of a process were observed.
    pub(super) fn observed<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tasks: &Tasks,
        pid: u32,
        window: DeviceWindow,
    ) -> Result<(), WriteError> {
        let seen: Vec<u32> =
            self.seen.keys().filter(|(of, _)| *of == pid).map(|(_, number)| *number).collect();
        if let [only] = seen[..] {
            self.device(ingest, tasks, pid, only)?;
        }
        self.observed_until = self.observed_until.max(window.start.plus(window.duration_ns));
        for device in self.devices_of(pid) {
            ingest.writer().push_device_window(device, window)?;
        }
        Ok(())
    }

    /// A process may have used its devices between these moments, whichever those turn out to be.
    pub(super) fn unseen<W: Write>(&mut self, ingest: &mut Ingest<W>, pid: u32, from: u64, to: Option<u64>) {
        if self.unseen.len() >= MAX_LOSSES {
            ingest.writer().count_loss(LossCounter::TableFull, 1);
            return;
        }
        let duration_ns = to.unwrap_or(u64::MAX).saturating_sub(from);
        let window = DeviceWindow { start: time(from), duration_ns, flags: window_flags::UNSEEN };
        self.unseen.push((pid, window));
    }

    /// Writes what had to wait for the devices of all processes.
    pub(super) fn finish<W: Write>(&mut self, ingest: &mut Ingest<W>) -> Result<(), WriteError> {
        for (pid, mut window) in std::mem::take(&mut self.unseen) {
            window.duration_ns = window.duration_ns.min(self.observed_until.since(window.start));
            for device in self.devices_of(pid) {
                ingest.writer().push_device_window(device, window)?;
            }
        }
        Ok(())
    }

    fn devices_of(&self, pid: u32) -> Vec<DeviceId> {
        self.numbers.iter().filter(|((of, _), _)| *of == pid).map(|(_, device)| *device).collect()
    }

    /// The device that a process has this number for, which it uses.
    fn device<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tasks: &Tasks,
        pid: u32,
        number: u32,
    ) -> Result<Option<DeviceId>, WriteError> {
        if let Some(&device) = self.numbers.get(&(pid, number)) {
            return Ok(Some(device));
        }
        if self.numbers.len() >= MAX_DEVICES {
            return Ok(None);
        }
        // One whose introduction was lost is known by its number alone.
        let made_up = || (format!("pid {pid} device {number}"), String::new());
        let (uuid, model) = self.seen.get(&(pid, number)).cloned().unwrap_or_else(made_up);
        let process = tasks.process(pid);
        let device = *self.known.entry(uuid.clone()).or_insert_with(|| {
            ingest.writer().add_device(Device {
                source: tasks.source(),
                kind: device_kind::GPU,
                id: uuid,
                ordinal: number,
                model,
                processes: Vec::new(),
            })
        });
        if let Some(process) = process {
            tasks.computes(ingest.writer(), pid);
            ingest.writer().update_device(device, |d| {
                if !d.processes.contains(&process) {
                    d.processes.push(process);
                }
            });
        }
        self.numbers.insert((pid, number), device);
        for (_, row) in self.losses.iter().filter(|(of, _)| *of == pid) {
            ingest.writer().push_loss_window(device, *row)?;
        }
        Ok(Some(device))
    }

    fn op<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tasks: &Tasks,
        pid: u32,
        op: &Op,
    ) -> Result<(), WriteError> {
        let device = self.device(ingest, tasks, pid, op.device)?;
        let Some(device) = device else {
            ingest.writer().count_loss(LossCounter::TableFull, 1);
            return Ok(());
        };
        let (kind, name, copy) = described(&op.what);
        let name = ingest.writer().intern(&name);
        let mut flags = 0;
        if op.graph_node {
            flags |= op_flags::GRAPH_NODE;
        }
        if op.end.is_none() {
            flags |= op_flags::END_UNKNOWN;
        }
        let row = GpuOp {
            start: time(op.start),
            duration_ns: op.end.unwrap_or(op.start).saturating_sub(op.start),
            name,
            stream: op.stream.into(),
            kind,
            flags,
            correlation: CorrelationId(op.correlation.into()),
            bytes: op.bytes,
            copy_kind: copy,
            launch: None,
        };
        ingest.gpu_op(Scope(pid), device, row)
    }
}

fn described(what: &What) -> (OpKind, Arc<str>, CopyKind) {
    match what {
        What::Kernel(name) => (OpKind::Kernel, Arc::clone(name), CopyKind::Unknown),
        What::Graph => (OpKind::Other, Arc::from("CUDA graph"), CopyKind::Unknown),
        What::Copy(copied) => {
            let Copied { kind, from, to, peer } = *copied;
            let (kind, from, to) = (Some(i64::from(kind)), memory(from), memory(to));
            let name = copy_name(kind, memory_kind(from), memory_kind(to));
            (OpKind::Memcpy, Arc::from(name), copy_kind(kind, from, to, peer))
        }
        What::Fill(filled) => {
            let name = memset_name(memory_kind(memory(filled.to)));
            (OpKind::Memset, Arc::from(name), CopyKind::Unknown)
        }
    }
}

/// CUPTI's number of a kind of memory as Nsight Systems has it.
fn memory(kind: u8) -> Option<i64> {
    i64::from(kind).checked_sub(1).filter(|&k| k >= 0)
}
