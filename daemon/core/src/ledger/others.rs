//! When processes that are not part of a device's job had it.
//!
//! What they ran counts where nothing of the job did: a gap is cut where they had the device, and only what is left of it is asked
//! for a cause.

use std::collections::{BTreeMap, VecDeque};

use stallscope_schemas::units::{DeviceId, ProcessId, TimeNs};

use crate::capture::Tables;
use crate::other_jobs::OtherJobs;
use crate::rows::Launch;

/// Stretches that are remembered from one operation of the job to its next. What goes beyond counts as idle.
const MAX_STRETCHES: usize = 1 << 16;

/// What is known of the others on one device.
#[derive(Debug, Default)]
pub(super) struct Others {
    jobs: OtherJobs,
    /// When they had it, in order; none touch.
    stretches: VecDeque<(TimeNs, TimeNs)>,
    ns: BTreeMap<ProcessId, u64>,
}

impl Others {
    pub(super) fn of(tables: &Tables, device: DeviceId) -> Self {
        Self { jobs: OtherJobs::on(device, tables), ..Self::default() }
    }

    pub(super) fn any(&self) -> bool {
        self.jobs.any()
    }

    /// Takes what one of them launched; false where it is not theirs. Starts must not decrease.
    pub(super) fn take(&mut self, tables: &Tables, launch: Option<Launch>, from: TimeNs, to: TimeNs) -> bool {
        let Some(process) = self.jobs.launched(launch.map(|launch| launch.thread), tables) else {
            return false;
        };
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
