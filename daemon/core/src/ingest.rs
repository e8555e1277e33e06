//! The door for importers and decoders: rows come in as they are found, and operations leave with their launches.
//!
//! A GPU operation and the host call that asked for it are two records with one correlation id, written apart and in
//! either order. They are joined here, once, so that everything downstream is a scan. Both sides wait in bounded maps;
//! what is forgotten is counted and the operation is kept without its launch.

use std::collections::VecDeque;
use std::io::Write;

use hashbrown::HashMap;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::op_flags;
use stallscope_schemas::units::{DeviceId, StringId, ThreadId};

use crate::capture::{CaptureWriter, Tables, WriteError};
use crate::classify::{ApiClass, api_class};
use crate::rows::{ApiCall, GpuOp, Launch};

/// Host calls that may wait for their operation: 2 M × ~80 bytes, and minutes of a busy job.
const MAX_WAITING_LAUNCHES: usize = 2 << 20;

/// Operations that may wait for their host call.
const MAX_WAITING_OPS: usize = 1 << 20;

/// Correlation ids are unique within a scope: a process, or a file where the trace does not say which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope(pub u32);

type Key = (u32, u64);

#[derive(Clone, Copy, Debug)]
struct WaitingLaunch {
    thread: ThreadId,
    call: ApiCall,
    class: ApiClass,
    used: bool,
    /// Set by whoever knows that the call happened inside a collective library's range.
    collective: bool,
}

/// Joins launches with operations and writes both.
#[derive(Debug)]
pub struct Ingest<W: Write> {
    writer: CaptureWriter<W>,
    classes: HashMap<StringId, ApiClass>,
    launches: HashMap<Key, WaitingLaunch>,
    launch_order: VecDeque<Key>,
    ops: HashMap<Key, Vec<(DeviceId, GpuOp)>>,
    op_order: VecDeque<Key>,
    waiting_ops: usize,
    /// The longest that an operation was said to have begun before its launch, where that is corrected.
    before_launch_ns: Option<u64>,
}

impl<W: Write> Ingest<W> {
    /// Wraps a writer.
    pub fn new(writer: CaptureWriter<W>) -> Self {
        Self {
            writer,
            classes: HashMap::new(),
            launches: HashMap::new(),
            launch_order: VecDeque::new(),
            ops: HashMap::new(),
            op_order: VecDeque::new(),
            waiting_ops: 0,
            before_launch_ns: None,
        }
    }

    /// Has operations begin at their launch that are said to have begun before it: the clocks of host and device are read by
    /// the caller, and what comes out is as good as those readings. Not for traces, whose times are their producer's.
    #[must_use]
    pub fn bounded_by_launches(self) -> Self {
        Self { before_launch_ns: Some(0), ..self }
    }

    /// The longest that an operation was said to have begun before its launch, ns: so far off is the device's clock at least.
    #[must_use]
    pub fn before_launch_ns(&self) -> u64 {
        self.before_launch_ns.unwrap_or(0)
    }

    /// The writer: for tables, losses, and rows that need no join.
    pub fn writer(&mut self) -> &mut CaptureWriter<W> {
        &mut self.writer
    }

    /// The class of a host call, remembered by name.
    pub fn api_class(&mut self, name: StringId) -> ApiClass {
        if let Some(&class) = self.classes.get(&name) {
            return class;
        }
        let class = api_class(self.writer.tables().string(name));
        self.classes.insert(name, class);
        class
    }

    /// Takes a host call into CUDA or HIP. `collective` says that it happened inside a collective library's range.
    ///
    /// # Errors
    /// [`WriteError`] when the capture cannot be written.
    pub fn api_call(
        &mut self,
        scope: Scope,
        thread: ThreadId,
        call: ApiCall,
        collective: bool,
    ) -> Result<(), WriteError> {
        let class = self.api_class(call.name);
        if !class.may_launch() || call.correlation.0 == 0 {
            return self.writer.push_api_call(thread, call);
        }
        let key = (scope.0, call.correlation.0);
        let mut waiting = WaitingLaunch { thread, call, class, used: false, collective };
        if let Some(ops) = self.ops.remove(&key) {
            self.waiting_ops -= ops.len();
            waiting.used = true;
            for (device, op) in ops {
                self.write_joined(device, op, &waiting)?;
            }
        }
        if let Some(before) = self.launches.insert(key, waiting) {
            // A driver call inside a runtime call of the same id is normal (both layers are recorded): the outer one
            // is what the program did. Two separate calls with one id are damage.
            let nested = before.call.start <= call.start
                && call.start.plus(call.duration_ns) <= before.call.start.plus(before.call.duration_ns);
            let inner = if nested {
                self.launches.insert(key, WaitingLaunch { used: before.used || waiting.used, ..before });
                waiting
            } else {
                let enclosing = call.start <= before.call.start
                    && before.call.start.plus(before.call.duration_ns) <= call.start.plus(call.duration_ns);
                if !enclosing {
                    self.writer.count_loss(LossCounter::CorrelationDuplicate, 1);
                }
                before
            };
            if !inner.used {
                self.writer.push_api_call(inner.thread, inner.call)?;
            }
            return Ok(());
        }
        self.launch_order.push_back(key);
        if self.launches.len() > MAX_WAITING_LAUNCHES {
            self.forget_oldest_launch()?;
        }
        Ok(())
    }

    /// Takes a device operation; its `launch` is filled in here.
    ///
    /// # Errors
    /// [`WriteError`] when the capture cannot be written.
    pub fn gpu_op(&mut self, scope: Scope, device: DeviceId, op: GpuOp) -> Result<(), WriteError> {
        if op.correlation.0 == 0 || op.launch.is_some() {
            return self.write_op(device, op);
        }
        let key = (scope.0, op.correlation.0);
        if let Some(waiting) = self.launches.get_mut(&key) {
            waiting.used = true;
            let waiting = *waiting;
            return self.write_joined(device, op, &waiting);
        }
        let ops = self.ops.entry(key).or_default();
        if ops.is_empty() {
            self.op_order.push_back(key);
        }
        ops.push((device, op));
        self.waiting_ops += 1;
        while self.waiting_ops > MAX_WAITING_OPS {
            self.forget_oldest_ops()?;
        }
        Ok(())
    }

    /// Ends the capture: whatever still waits is written without its other half.
    ///
    /// # Errors
    /// [`WriteError`] when the capture cannot be written.
    pub fn finish(mut self) -> Result<(W, Tables), WriteError> {
        self.end_scopes()?;
        self.writer.finish()
    }

    /// Writes whatever waits: no more rows of the scopes so far will come.
    ///
    /// # Errors
    /// [`WriteError`] when the capture cannot be written.
    pub fn end_scopes(&mut self) -> Result<(), WriteError> {
        while !self.op_order.is_empty() {
            self.forget_oldest_ops()?;
        }
        while let Some(key) = self.launch_order.pop_front() {
            if let Some(waiting) = self.launches.remove(&key) {
                self.write_unused(&waiting)?;
            }
        }
        Ok(())
    }

    fn write_joined(
        &mut self,
        device: DeviceId,
        mut op: GpuOp,
        by: &WaitingLaunch,
    ) -> Result<(), WriteError> {
        if let Some(worst) = &mut self.before_launch_ns {
            let early = by.call.start.since(op.start);
            *worst = early.max(*worst);
            op.start = op.start.plus(early);
            op.duration_ns = op.duration_ns.saturating_sub(early);
        }
        op.launch = Some(Launch {
            thread: by.thread,
            start: by.call.start,
            duration_ns: by.call.duration_ns,
            name: by.call.name,
        });
        if by.class == ApiClass::GraphLaunch {
            op.flags |= op_flags::GRAPH_NODE;
        }
        if by.collective {
            op.flags |= op_flags::COLLECTIVE_CORRELATED;
        }
        // A copy may hold its caller up until the device is done, which matters to gaps other than its own.
        if by.class == ApiClass::Copy {
            self.writer.push_api_call(by.thread, by.call)?;
        }
        self.writer.push_gpu_op(device, op)
    }

    fn write_op(&mut self, device: DeviceId, op: GpuOp) -> Result<(), WriteError> {
        if op.launch.is_none() {
            self.writer.count_loss(LossCounter::LaunchMissing, 1);
        }
        self.writer.push_gpu_op(device, op)
    }

    fn write_unused(&mut self, waiting: &WaitingLaunch) -> Result<(), WriteError> {
        if waiting.used { Ok(()) } else { self.writer.push_api_call(waiting.thread, waiting.call) }
    }

    fn forget_oldest_launch(&mut self) -> Result<(), WriteError> {
        if let Some(waiting) = self.launch_order.pop_front().and_then(|key| self.launches.remove(&key)) {
            if !waiting.used {
                self.writer.count_loss(LossCounter::LaunchEvicted, 1);
            }
            self.write_unused(&waiting)?;
        }
        Ok(())
    }

    fn forget_oldest_ops(&mut self) -> Result<(), WriteError> {
        if let Some(ops) = self.op_order.pop_front().and_then(|key| self.ops.remove(&key)) {
            self.waiting_ops -= ops.len();
            for (device, op) in ops {
                self.write_op(device, op)?;
            }
        }
        Ok(())
    }
}
