//! The input of the verdict from a capture: collective calls and states of groups.
//!
//! Sequence numbers mean the same on every rank only where a source says so: recordings of ours count from their own
//! beginning, so only captures with states of groups are taken.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use stallscope_schemas::record::{CollectiveOp, RecordKind, call_flags};
use stallscope_schemas::units::{ProcessId, StringId, ThreadId, TimeNs};

use super::{Call, Group, Job, Progress, RankLog, State};
use crate::capture::{Capture, ReadAt, Tables};
use crate::rows::{CollectiveCall, GroupState};

/// Rows that are read: a dump of the largest jobs has thousands a rank.
const MAX_CALLS: usize = 4 << 20;
/// States of groups that are read.
const MAX_GROUPS: usize = 1 << 20;
/// Ranks that the lists of members of all groups may name together.
const MAX_MEMBERS: usize = 8 << 20;

/// What the report says of calls that were recorded without time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectiveState {
    /// Ranks that were heard.
    pub ranks: Vec<u32>,
    /// Ranks of the job that were not.
    pub ranks_missing: Vec<u32>,
    /// Ranks in the job, as far as groups name them.
    pub world_size: usize,
    /// Groups.
    pub groups: usize,
    /// Calls.
    pub calls: usize,
    /// Of those, the ones that are not over.
    pub open_calls: usize,
}

impl CollectiveState {
    pub(crate) fn of(job: &Job) -> Self {
        let calls = || job.ranks.iter().flat_map(|log| &log.calls);
        Self {
            ranks: job.ranks.iter().map(|log| log.rank).collect(),
            ranks_missing: job.unheard(),
            world_size: job.world().len(),
            groups: job.groups.len(),
            calls: calls().count(),
            open_calls: calls().filter(|call| call.is_open()).count(),
        }
    }
}

/// Reads a list such as `0-3,8`, up to a number of ranks. What cannot be read is left out.
fn members(text: &str, most: usize) -> Vec<u32> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            all.extend((first..=last).take(most.saturating_sub(all.len())));
        }
    }
    all
}

/// Groups by identity and members: a name may mean different groups on different ranks.
#[derive(Default)]
struct Groups {
    all: Vec<Group>,
    /// Ranks that all of them name.
    named: usize,
    by_identity: HashMap<(StringId, StringId), usize>,
    by_process: HashMap<(ProcessId, StringId), usize>,
}

impl Groups {
    fn add(&mut self, tables: &Tables, process: ProcessId, row: &GroupState) -> usize {
        let (all, named) = (&mut self.all, &mut self.named);
        let position = *self.by_identity.entry((row.group, row.members)).or_insert_with(|| {
            let members = members(tables.string(row.members), MAX_MEMBERS.saturating_sub(*named));
            *named = named.saturating_add(members.len());
            let name = tables.string(row.group).to_owned();
            let description = tables.string(row.description).to_owned();
            all.push(Group { name, description, members });
            all.len().saturating_sub(1)
        });
        self.by_process.insert((process, row.group), position);
        position
    }

    /// The group that a process means by a name; one of unknown members where no state of it is recorded.
    fn of_call(&mut self, tables: &Tables, process: ProcessId, name: StringId) -> usize {
        if let Some(&position) = self.by_process.get(&(process, name)) {
            return position;
        }
        let nobody = GroupState {
            start: TimeNs(0),
            duration_ns: 0,
            group: name,
            description: StringId(0),
            members: StringId(0),
            enqueued: 0,
            started: 0,
            completed: 0,
        };
        self.add(tables, process, &nobody)
    }
}

/// What the ranks of a capture say of their collectives; `None` where it has no states of groups.
#[must_use]
pub fn job_of<S: ReadAt>(capture: &Capture<S>) -> Option<Job> {
    let tables = capture.tables();
    let processes = capture.keys(RecordKind::GroupState);
    if processes.is_empty() {
        return None;
    }
    let mut groups = Groups::default();
    let mut logs: BTreeMap<u32, RankLog> = BTreeMap::new();
    let mut left = MAX_GROUPS;
    for key in processes {
        let process = ProcessId(key);
        let Some(rank) = tables.process(process).and_then(|p| p.rank) else { continue };
        let log = logs.entry(rank).or_insert_with(|| RankLog { rank, ..RankLog::default() });
        for row in capture.rows::<GroupState>(key).take(left) {
            left = left.saturating_sub(1);
            let group = groups.add(tables, process, &row);
            let progress = Progress {
                enqueued: row.enqueued.checked_sub(1),
                started: row.started.checked_sub(1),
                completed: row.completed.checked_sub(1),
            };
            if progress != Progress::default() {
                log.progress.insert(group, progress);
            }
        }
    }
    let mut left = MAX_CALLS;
    for key in capture.keys(RecordKind::CollectiveCall) {
        let Some(thread) = tables.thread(ThreadId(key)) else { continue };
        let Some(rank) = tables.process(thread.process).and_then(|p| p.rank) else { continue };
        let Some(log) = logs.get_mut(&rank) else { continue };
        for row in capture.rows::<CollectiveCall>(key).take(left) {
            left = left.saturating_sub(1);
            let Some(sequence) = row.sequence.checked_sub(1) else { continue };
            let group = groups.of_call(tables, thread.process, row.group);
            let peer = row.peer.and_then(|peer| {
                let members = &groups.all.get(group)?.members;
                members.get(usize::try_from(peer).ok()?).copied()
            });
            log.calls.push(call(tables, &row, group, sequence, peer));
        }
    }
    let mut ranks: Vec<RankLog> = logs.into_values().collect();
    for log in &mut ranks {
        // Threads of a rank come one after the other; calls of one thread are in order already.
        log.calls.sort_by_key(|call| call.at);
    }
    Some(Job { groups: groups.all, ranks })
}

fn call(tables: &Tables, row: &CollectiveCall, group: usize, sequence: u64, peer: Option<u32>) -> Call {
    let state = match row.flags {
        flags if flags & call_flags::OPEN == 0 => State::Completed,
        flags if flags & call_flags::STARTED != 0 => State::Started,
        _ => State::Scheduled,
    };
    Call {
        group,
        sequence,
        operation: row.operation,
        name: row.name,
        size: same_everywhere(tables, row).then_some(row.elements),
        datatype: row.datatype,
        peer,
        state,
        at: row.start,
        stack: row.stack,
    }
}

/// Whether all ranks have to give the same number of elements. The forms of all-gather and reduce-scatter that take lists
/// may be uneven.
fn same_everywhere(tables: &Tables, row: &CollectiveCall) -> bool {
    match row.operation {
        CollectiveOp::AllReduce | CollectiveOp::Broadcast | CollectiveOp::Reduce => true,
        CollectiveOp::AllGather | CollectiveOp::ReduceScatter => {
            let name = tables.string(row.name);
            name.ends_with("_base") || name.ends_with("_tensor")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn members_are_ranges_and_single_ranks_in_their_order() {
        assert_eq!(members("0-3,8", 9), [0, 1, 2, 3, 8]);
        assert_eq!(members("7,0-1", 9), [7, 0, 1]);
        assert_eq!(members("x,2,,3-", 9), [2]);
        assert!(members("", 9).is_empty());
        assert_eq!(members("0-4294967295", 3), [0, 1, 2]);
    }
}
