//! When processes that are not part of a device's job had it.
//!
//! The job of a device is that of the first process that used it; ranks of one job that share a device are not each other's
//! others. What others ran counts where nothing of the job did: a gap is cut where they had the device, and only what is left of
//! it is asked for a cause. Others that were not recorded are not seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::{DeviceId, ProcessId, TimeNs};

use crate::capture::Tables;
use crate::rows::Launch;

/// Stretches that are remembered from one operation of the job to its next. What goes beyond counts as idle.
const MAX_STRETCHES: usize = 1 << 16;

/// What is known of the others on one device.
#[derive(Debug, Default)]
pub(super) struct Others {
    processes: BTreeSet<ProcessId>,
    /// When they had it, in order; none touch.
    stretches: VecDeque<(TimeNs, TimeNs)>,
    ns: BTreeMap<ProcessId, u64>,
}

/// A rank as the recorder knows it: the device that stands for it, with its process and helpers, and its job.
type Seat<'a> = (usize, &'a str, Option<u32>);

impl Others {
    pub(super) fn of(tables: &Tables, device: DeviceId) -> Self {
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
        let Some(own) = device.processes.first().and_then(|process| seats.get(process)) else {
            return Self::default();
        };
        let is_other = |process: &&ProcessId| seats.get(*process).is_some_and(|seat| !is_one_job(own, seat));
        Self { processes: device.processes.iter().filter(is_other).copied().collect(), ..Self::default() }
    }

    pub(super) fn any(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Takes what one of them launched; false where it is not theirs. Starts must not decrease.
    pub(super) fn take(&mut self, tables: &Tables, launch: Option<Launch>, from: TimeNs, to: TimeNs) -> bool {
        let process = launch.and_then(|launch| tables.thread(launch.thread)).map(|thread| thread.process);
        let Some(process) = process.filter(|process| self.processes.contains(process)) else { return false };
        let ns = self.ns.entry(process).or_default();
        *ns = ns.saturating_add(to.since(from));
        let has_room = self.stretches.len() < MAX_STRETCHES;
        match self.stretches.back_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ if to > from && has_room => self.stretches.push_back((from, to)),
            _ => {}
        }
        true
    }

    /// The first stretch in which they had the device within `[from, to)`. Questions must not go back in time.
    pub(super) fn next_within(&mut self, from: TimeNs, to: TimeNs) -> Option<(TimeNs, TimeNs)> {
        while self.stretches.front().is_some_and(|(_, end)| *end <= from) {
            self.stretches.pop_front();
        }
        let &(begin, end) = self.stretches.front().filter(|(begin, _)| *begin < to && from < to)?;
        Some((begin.max(from), end.min(to)))
    }

    /// How long the operations of each of them took, alone or beside the job's, ns; the longest first.
    pub(super) fn into_times(self) -> Vec<(ProcessId, u64)> {
        let mut times: Vec<(ProcessId, u64)> = self.ns.into_iter().collect();
        times.sort_by_key(|&(process, ns)| (std::cmp::Reverse(ns), process));
        times
    }
}
