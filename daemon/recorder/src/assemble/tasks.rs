//! Who is who: tasks of the kernel half to threads, processes and devices of the capture.

use std::collections::HashMap;
use std::io::Write;

use stallscope_core::capture::{CaptureWriter, Device, Process, Thread};
use stallscope_core::rows::ThreadSpan;
use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, ThreadId};
use stallscope_schemas::wire::{self, OUTSIDE, task_flag};

use super::{Naming, comm, span};

/// One rank to record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RankSeat {
    /// Its process.
    pub(crate) pid: u32,
    /// Its rank, where known.
    pub(crate) rank: Option<u32>,
    /// Ranks in its job, where known.
    pub(crate) world_size: Option<u32>,
    /// Processes that work for it.
    pub(crate) helpers: Vec<u32>,
    /// Name of the job.
    pub(crate) job: String,
    /// Name of the program.
    pub(crate) name: String,
}

/// A process that has become a rank while it was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewRank {
    pub(crate) pid: u32,
    pub(crate) rank: u32,
    pub(crate) world_size: Option<u32>,
}

/// What is known before the first event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    /// Where the records come from.
    pub(crate) source: SourceId,
    /// This host.
    pub(crate) host: String,
    /// The ranks.
    pub(crate) ranks: Vec<RankSeat>,
    /// When the recording began, CLOCK_MONOTONIC ns.
    pub(crate) begin_ns: u64,
}

/// Threads that are told apart in one recording, those from outside among them: a job or a host that forks without end
/// makes new ones as long as it is recorded, and each is kept in memory to its end, in about 300 bytes.
pub(super) const MAX_THREADS: usize = 1 << 18;

/// Processes between a rank and what it forked, at most.
const MAX_GENERATIONS: usize = 64;

#[derive(Debug)]
struct Task {
    thread: ThreadId,
    pid: u32,
    /// End of the spans that are written.
    written_until: u64,
    /// End of the last record.
    known_until: u64,
    leader: bool,
}

#[derive(Debug)]
struct Known {
    process: ProcessId,
    device: Option<DeviceId>,
    /// Who forked it; 0 where it was there before.
    parent: u32,
    /// When its first thread was born: another one is another process.
    born_ns: u64,
}

#[derive(Debug)]
pub(super) struct Tasks {
    seats: Seats,
    tasks: HashMap<u32, Task>,
    processes: HashMap<u32, Known>,
    /// Threads from outside, and when each was born: another one is another thread.
    outsiders: HashMap<u32, (ThreadId, u64)>,
    /// Threads met so far.
    met: usize,
    /// Threads of the job by tid: the last that had it.
    by_tid: HashMap<u32, ThreadId>,
}

impl Tasks {
    pub(super) fn new<W: Write>(
        writer: &mut CaptureWriter<W>,
        naming: &mut impl Naming,
        seats: Seats,
    ) -> Self {
        let mut processes = HashMap::new();
        for seat in &seats.ranks {
            let row = |pid: u32, name: &str, ranked: bool| Process {
                source: seats.source,
                pid: pid.into(),
                name: name.to_owned(),
                rank: seat.rank.filter(|_| ranked),
                world_size: seat.world_size.filter(|_| ranked),
                host: seats.host.clone(),
                job: seat.job.clone(),
            };
            let process = writer.add_process(row(seat.pid, &seat.name, true));
            let helpers: Vec<(u32, ProcessId)> =
                seat.helpers.iter().map(|&pid| (pid, writer.add_process(row(pid, "", false)))).collect();
            let id = seat.rank.map_or_else(|| format!("pid {}", seat.pid), |rank| format!("rank {rank}"));
            let device = writer.add_device(Device {
                source: seats.source,
                kind: device_kind::CPU,
                id,
                ordinal: seat.rank.unwrap_or(0),
                model: String::new(),
                processes: std::iter::once(process).chain(helpers.iter().map(|(_, p)| *p)).collect(),
            });
            for (pid, process) in std::iter::once((seat.pid, process)).chain(helpers) {
                processes.insert(pid, Known { process, device: Some(device), parent: 0, born_ns: 0 });
                naming.process_seen(pid);
            }
        }
        Self {
            seats,
            tasks: HashMap::new(),
            processes,
            outsiders: HashMap::new(),
            met: 0,
            by_tid: HashMap::new(),
        }
    }

    pub(super) fn begin_ns(&self) -> u64 {
        self.seats.begin_ns
    }

    /// A thread is followed from now on, or one from outside was met. False where there is no room for it.
    pub(super) fn begin<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        naming: &mut impl Naming,
        task: &wire::Task,
    ) -> bool {
        // The kernel half forgets whom it has introduced lately.
        if self.outsiders.get(&task.head.task).is_some_and(|(_, born_ns)| *born_ns == task.born_ns) {
            return true;
        }
        if self.met >= MAX_THREADS {
            return false;
        }
        self.met += 1;
        let number = task.head.task;
        let name = comm(&task.comm);
        let leader = task.head.flags & task_flag::TASK_LEADER != 0;
        let outside = number & OUTSIDE != 0;
        let process = self.process_of(writer, naming, task, &name, outside, leader);
        let thread = writer.add_thread(Thread { process, tid: task.tid.into(), name });
        if outside {
            self.outsiders.insert(number, (thread, task.born_ns));
            return true;
        }
        self.by_tid.insert(task.tid, thread);
        let from = task.time_ns;
        self.tasks
            .insert(number, Task { thread, pid: task.pid, written_until: from, known_until: from, leader });
        true
    }

    fn process_of<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        naming: &mut impl Naming,
        task: &wire::Task,
        name: &str,
        outside: bool,
        leader: bool,
    ) -> ProcessId {
        if let Some(known) = self.processes.get_mut(&task.pid) {
            if leader && known.born_ns == 0 {
                known.born_ns = task.born_ns;
                let unnamed = writer.tables().process(known.process).is_some_and(|p| p.name.is_empty());
                if unnamed {
                    writer.update_process(known.process, |p| name.clone_into(&mut p.name));
                }
            }
            if !leader || known.born_ns == task.born_ns {
                return known.process;
            }
        }
        // A process that a followed one forked works for the same rank.
        let parent = self.processes.get(&task.ppid).filter(|_| !outside);
        let device = parent.and_then(|p| p.device);
        let job = parent
            .and_then(|p| writer.tables().process(p.process))
            .map_or_else(String::new, |p| p.job.clone());
        let of_process = if leader { None } else { naming.process_name(task.pid) };
        let process = writer.add_process(Process {
            source: self.seats.source,
            pid: task.pid.into(),
            name: of_process.unwrap_or_else(|| name.to_owned()),
            rank: None,
            world_size: None,
            host: self.seats.host.clone(),
            job,
        });
        if let Some(device) = device {
            writer.update_device(device, |d| d.processes.push(process));
        }
        if !outside {
            naming.process_seen(task.pid);
        }
        let born_ns = if leader { task.born_ns } else { 0 };
        self.processes.insert(task.pid, Known { process, device, parent: task.ppid, born_ns });
        process
    }

    /// A followed process has become a rank: it and what it has forked get a ledger of their own. Whoever has started it has
    /// none any more, nor has what else that started: their time is no rank's. Who works for a rank already stays there.
    /// False where nothing is known of the process yet.
    pub(super) fn became_rank<W: Write>(&mut self, writer: &mut CaptureWriter<W>, new: &NewRank) -> bool {
        let Some(known) = self.processes.get(&new.pid) else { return false };
        let (process, before) = (known.process, known.device);
        if before.is_some_and(|device| self.rank_of(writer, device).is_some()) {
            return true;
        }
        writer.update_process(process, |p| (p.rank, p.world_size) = (Some(new.rank), new.world_size));
        let beside: Vec<u32> =
            self.processes.iter().filter(|(_, known)| known.device == before).map(|(&pid, _)| pid).collect();
        let (family, others): (Vec<u32>, Vec<u32>) =
            beside.into_iter().partition(|&pid| self.descends(pid, new.pid));
        let mut processes = vec![process];
        processes.extend(family.iter().filter_map(|&pid| self.process(pid)).filter(|&p| p != process));
        if let Some(before) = before {
            writer.update_device(before, |d| d.processes.clear());
        }
        let device = writer.add_device(Device {
            source: self.seats.source,
            kind: device_kind::CPU,
            id: format!("rank {}", new.rank),
            ordinal: new.rank,
            model: String::new(),
            processes,
        });
        let devices = [(family, Some(device)), (others, None)];
        for (pid, device) in devices.into_iter().flat_map(|(pids, d)| pids.into_iter().map(move |p| (p, d))) {
            self.processes.entry(pid).and_modify(|known| known.device = device);
        }
        true
    }

    /// Whether a process is this one or comes from it.
    fn descends(&self, mut pid: u32, from: u32) -> bool {
        // A number that is used again may close a circle.
        for _ in 0..=self.processes.len().min(MAX_GENERATIONS) {
            if pid == from {
                return true;
            }
            let Some(known) = self.processes.get(&pid) else { return false };
            pid = known.parent;
        }
        false
    }

    fn rank_of<W: Write>(&self, writer: &CaptureWriter<W>, device: DeviceId) -> Option<(u32, Option<u32>)> {
        let tables = writer.tables();
        let mut processes = tables.device(device)?.processes.iter().filter_map(|&p| tables.process(p));
        processes.find_map(|p| Some((p.rank?, p.world_size)))
    }

    /// A process uses a GPU: below a shell that was started as a rank, it is what computes for that rank.
    pub(super) fn computes<W: Write>(&self, writer: &mut CaptureWriter<W>, pid: u32) {
        let Some(known) = self.processes.get(&pid) else { return };
        let numbered = known.device.and_then(|device| self.rank_of(writer, device));
        if let Some((rank, world_size)) = numbered {
            writer.update_process(known.process, |p| {
                if p.rank.is_none() {
                    (p.rank, p.world_size) = (Some(rank), world_size);
                }
            });
        }
    }

    pub(super) fn thread(&self, task: u32) -> Option<ThreadId> {
        match self.tasks.get(&task) {
            Some(task) => Some(task.thread),
            None => self.outsiders.get(&task).map(|(thread, _)| *thread),
        }
    }

    /// The thread of a followed process that has this tid. One that was never met is made known, as long as there is room:
    /// the number comes from the job.
    pub(super) fn thread_of_tid<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        pid: u32,
        tid: u32,
    ) -> Option<ThreadId> {
        let process = self.process(pid)?;
        let known = self.by_tid.get(&tid).copied();
        if let Some(thread) = known
            && writer.tables().thread(thread).is_some_and(|t| t.process == process)
        {
            return Some(thread);
        }
        if self.met >= MAX_THREADS {
            return None;
        }
        self.met += 1;
        let thread = writer.add_thread(Thread { process, tid: tid.into(), name: String::new() });
        self.by_tid.insert(tid, thread);
        Some(thread)
    }

    /// Where all of this comes from.
    pub(super) fn source(&self) -> SourceId {
        self.seats.source
    }

    /// Name of this host.
    pub(super) fn host(&self) -> &str {
        &self.seats.host
    }

    pub(super) fn pid(&self, task: u32) -> Option<u32> {
        self.tasks.get(&task).map(|t| t.pid)
    }

    pub(super) fn process(&self, pid: u32) -> Option<ProcessId> {
        self.processes.get(&pid).map(|p| p.process)
    }

    pub(super) fn process_of_task(&self, task: u32) -> Option<ProcessId> {
        self.process(self.pid(task)?)
    }

    /// A record of the task ends at this time.
    pub(super) fn seen(&mut self, task: u32, until: u64) {
        if let Some(task) = self.tasks.get_mut(&task) {
            task.known_until = task.known_until.max(until);
        }
    }

    pub(super) fn exec<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        naming: &mut impl Naming,
        exec: &wire::Moment,
    ) {
        let Some(task) = self.tasks.get(&exec.head.task) else { return };
        naming.process_changed(task.pid);
        let name = comm(&exec.comm);
        writer.update_thread(task.thread, |t| t.name.clone_from(&name));
        if let Some(known) = self.processes.get(&task.pid) {
            writer.update_process(known.process, |p| p.name.clone_from(&name));
        }
    }

    /// The last span of a thread that ended.
    pub(super) fn end(
        &mut self,
        naming: &mut impl Naming,
        end: &wire::Moment,
    ) -> Option<(ThreadId, ThreadSpan)> {
        let task = self.tasks.get_mut(&end.head.task)?;
        let from = task.written_until;
        task.written_until = end.time_ns.max(from);
        task.known_until = task.written_until;
        if task.leader {
            naming.process_gone(task.pid);
        }
        Some((task.thread, span(from, end.time_ns)))
    }

    /// What is known of the threads since this was last asked.
    pub(super) fn spans_so_far(&mut self) -> Vec<(ThreadId, ThreadSpan)> {
        let known = self.tasks.values_mut().filter(|t| t.known_until > t.written_until);
        known
            .map(|task| {
                let from = std::mem::replace(&mut task.written_until, task.known_until);
                (task.thread, span(from, task.known_until))
            })
            .collect()
    }
}
