//! Which processes that used a device are not part of the job whose ledger it is.
//!
//! The job of a device is the one with most ranks, of several that of the process that used it first; ranks of one job that
//! share a device are not each other's others. Processes that were not recorded are not known.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::{DeviceId, ProcessId, ThreadId};

use crate::capture::{Process, Tables};

/// The processes on one device that are not its job's.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtherJobs(BTreeSet<ProcessId>);

/// A rank as the recorder knows it: the device that stands for it, with its process and helpers, and its job.
type Seat<'a> = (usize, &'a str, Option<u32>);

impl OtherJobs {
    pub(crate) fn on(device: DeviceId, tables: &Tables) -> Self {
        let Some(device) = tables.device(device).filter(|d| d.processes.len() > 1) else {
            return Self::default();
        };
        let mut seats: BTreeMap<ProcessId, Seat<'_>> = BTreeMap::new();
        for (seat, of) in tables.devices().iter().enumerate().filter(|(_, d)| d.kind == device_kind::CPU) {
            let main = of.processes.first().and_then(|&p| tables.process(p));
            let (job, rank) = main.map_or(("", None), |main| (main.job.as_str(), main.rank));
            seats.extend(of.processes.iter().map(|&process| (process, (seat, job, rank))));
        }
        // A process without a rank is a job by itself, with those below it.
        let is_one_job = |a: &Seat<'_>, b: &Seat<'_>| {
            a.0 == b.0 || (a.1 == b.1 && a.2.zip(b.2).is_some_and(|(one, other)| one != other))
        };
        // Of processes that are alike the first one.
        let size = |process: &&ProcessId| {
            let of = tables.process(**process);
            of.map(|of| (of.rank.is_some(), of.world_size.unwrap_or(0)))
        };
        let own = device.processes.iter().rev().max_by_key(size);
        let Some(own) = own.and_then(|process| seats.get(process)) else {
            return Self::default();
        };
        let is_other = |process: &&ProcessId| seats.get(*process).is_some_and(|seat| !is_one_job(own, seat));
        Self(device.processes.iter().filter(is_other).copied().collect())
    }

    /// The processes of a device that are its job's.
    pub(crate) fn own(device: DeviceId, tables: &Tables) -> impl Iterator<Item = &Process> {
        let others = Self::on(device, tables);
        let all = tables.device(device).map_or(&[][..], |of| of.processes.as_slice());
        all.iter()
            .filter(move |&&process| !others.has(process))
            .filter_map(|&process| tables.process(process))
    }

    pub(crate) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn has(&self, process: ProcessId) -> bool {
        self.0.contains(&process)
    }

    /// Whose it is what a thread launched, where it is theirs.
    pub(crate) fn launched(&self, thread: Option<ThreadId>, tables: &Tables) -> Option<ProcessId> {
        let process = thread.and_then(|thread| tables.thread(thread)).map(|thread| thread.process);
        process.filter(|process| self.has(*process))
    }
}
