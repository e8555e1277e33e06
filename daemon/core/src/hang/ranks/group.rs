//! A group in which a call does not return: who belongs to it, how its calls are numbered, and what its ranks would have
//! said in a dump.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::TimeNs;

use super::super::live::MAX_WORLD;
use super::super::text::span;
use super::super::{Call, Group, Job, RankLog, State};
use super::Verdict;
use super::calls::{Fate, Lane, Mark, Rank};
use super::clusters::Cluster;
use super::numbers::{ahead, by_order};
use crate::capture::ReadAt;
use crate::findings::Finding;
use crate::report::text::{printable, short_name};

/// Ranks that the operations that do not end may have, all together: the sizes of groups come from a file.
pub(super) const MAX_MEMBERS: usize = 4 << 20;

/// Why nothing can be said of calls on groups that are too young.
pub(super) const UNMATCHED: &str = "its calls could not be matched with those of other ranks";

/// A group in which a call does not return.
pub(super) struct Hung {
    pub(super) cluster: Cluster,
    /// By lane, what its numbers are ahead; none where only their order is known.
    pub(super) ahead: Option<BTreeMap<usize, i64>>,
    pub(super) members: Vec<u32>,
    /// It is all ranks of the job, in their order.
    is_world: bool,
}

impl<S: ReadAt> Verdict<'_, S> {
    /// Who belongs to a group in which a call does not return, and how its calls are numbered; or what is not known.
    pub(super) fn hung(
        &self,
        cluster: Cluster,
        since: TimeNs,
        room: &mut usize,
    ) -> Result<Hung, Box<Finding>> {
        let called: Vec<u32> = self.lanes(&cluster).map(|(_, _, rank)| rank.rank).collect();
        let world = self.ranks.world();
        // A group of all ranks lacks those that made no call.
        let world = world.filter(|world| u64::from(*world) == cluster.size && cluster.size <= MAX_WORLD);
        let is_private = self.lanes(&cluster).any(|(_, lane, _)| lane.is_private);
        let is_world = world.is_some() && !is_private;
        let cannot = |why: &str| Box::new(self.cannot_tell(&cluster, since, why));
        let known = world.map_or(called.len(), |world| world as usize);
        if known < 2 || !cluster.is_matched {
            return Err(cannot(UNMATCHED));
        }
        if cluster.size > known as u64 {
            let some = |(_, lane, rank): (usize, &Lane, &Rank)| lane.open().is_none() || rank.has_ended;
            if !self.lanes(&cluster).any(some) {
                let size = cluster.size;
                return Err(cannot(&format!(
                    "only {known} of its {size} ranks were seen in a call of it on this host"
                )));
            }
        }
        let ahead = ahead(&cluster, &self.ranks.lanes, &self.ranks.ranks);
        if let Some(why) = self.gave_up(&cluster, since, ahead.as_ref().ok()) {
            return Err(cannot(&why));
        }
        let ahead = match ahead {
            Ok(ahead) => Some(ahead),
            Err(why) => {
                let is_alive = |rank: usize| self.ranks.ranks.get(rank).is_some_and(|rank| !rank.has_ended);
                if !by_order(&cluster, &self.ranks.lanes, is_alive) {
                    return Err(cannot(why.text()));
                }
                None
            }
        };
        let needed = known.saturating_mul(self.open_numbers(&cluster, ahead.as_ref()).len().max(1));
        *room = room
            .checked_sub(needed)
            .ok_or_else(|| cannot("what does not end are too many operations of too many ranks"))?;
        let members = world.map_or(called, |world| (0..world).collect());
        Ok(Hung { cluster, ahead, members, is_world })
    }

    /// Numbers of the operations that somebody is in; none where only their order is known.
    fn open_numbers(&self, cluster: &Cluster, ahead: Option<&BTreeMap<usize, i64>>) -> BTreeSet<u64> {
        let lanes = self.lanes(cluster).filter_map(|(at, lane, _)| Some((lane, *ahead?.get(&at)?)));
        lanes
            .flat_map(|(lane, ahead)| lane.marks.iter().map(move |mark| (mark, ahead)))
            .filter(|(mark, _)| mark.is_open())
            .filter_map(|(mark, ahead)| number(mark, ahead))
            .collect()
    }

    /// Who has left the operation that others are in, if somebody has: then neither who is in the next one nor who is in
    /// none says who has come to it.
    fn gave_up(
        &self,
        cluster: &Cluster,
        since: TimeNs,
        ahead: Option<&BTreeMap<usize, i64>>,
    ) -> Option<String> {
        let open = self.open_numbers(cluster, ahead);
        let number = |at: usize, mark: &Mark| number(mark, *ahead?.get(&at)?);
        self.lanes(cluster).find_map(|(at, lane, rank)| {
            let is_one = |mark: &&Mark| match number(at, mark) {
                Some(number) => open.contains(&number),
                None => mark.end >= since,
            };
            let mark = lane.marks.iter().filter(|mark| mark.fate == Fate::Left).find(is_one)?;
            let name = short_name(&printable(self.tables().string(mark.name)), 60);
            let number = number(at, mark).map_or_else(String::new, |number| format!(" #{number}"));
            Some(format!("rank {} gave up {name}{number}, which others are in", rank.rank))
        })
    }

    /// What all ranks say, as if each had left a dump.
    pub(super) fn job(&self, hung: &[Hung]) -> Job {
        let mut job = Job::default();
        let mut logs: BTreeMap<u32, RankLog> = BTreeMap::new();
        for rank in &self.ranks.ranks {
            logs.insert(rank.rank, RankLog { rank: rank.rank, ..RankLog::default() });
        }
        for (group, of) in hung.iter().enumerate() {
            let description = self.description(of);
            job.groups.push(Group { name: String::new(), description, members: of.members.clone() });
            for (at, lane, rank) in self.lanes(&of.cluster) {
                let Some(log) = logs.get_mut(&rank.rank) else { continue };
                let ahead = of.ahead.as_ref().map(|ahead| ahead.get(&at).copied().unwrap_or(0));
                log.calls.extend(lane.marks.iter().filter_map(|mark| call(mark, group, ahead)));
                log.calls.extend(lane.transfer.iter().filter_map(|mark| transfer(mark, group, of)));
            }
        }
        job.ranks = logs.into_values().collect();
        job.ranks.iter_mut().for_each(|log| log.calls.sort_by_key(|call| call.at));
        job
    }

    fn description(&self, group: &Hung) -> String {
        let lane = group.cluster.lanes.first().and_then(|&at| self.ranks.lanes.get(at));
        let Some(lane) = lane else { return "a group".to_owned() };
        if !lane.is_private {
            return printable(self.tables().string(lane.group.name)).into_owned();
        }
        let kind = match lane.group.library {
            CollectiveLibrary::Mpi => "the communicator",
            _ => "the group",
        };
        let some = if group.cluster.size > group.members.len() as u64 { " and others" } else { "" };
        format!("{kind} of ranks {}{some}", span(&group.members))
    }
}

/// The rank of the job that has a rank in a group, where that is known: in the group of all.
pub(super) fn member(group: &Hung, rank: u32) -> Option<u32> {
    group.members.get(rank as usize).copied().filter(|_| group.is_world)
}

/// The number of a call that means the same on all ranks.
fn number(mark: &Mark, ahead: i64) -> Option<u64> {
    let number = i64::try_from(mark.sequence).ok().filter(|number| *number > 0)?;
    u64::try_from(number.checked_sub(ahead)?).ok()
}

fn call(mark: &Mark, group: usize, ahead: Option<i64>) -> Option<Call> {
    let sequence = match ahead {
        None => u64::from(mark.is_open()),
        Some(ahead) => number(mark, ahead)?,
    };
    Some(Call {
        group,
        sequence,
        operation: mark.operation,
        name: mark.name,
        size: (mark.operation == CollectiveOp::AllReduce).then_some(mark.elements),
        datatype: mark.datatype,
        peer: None,
        state: if mark.is_open() { State::Started } else { State::Completed },
        at: mark.start,
        stack: mark.stack,
    })
}

pub(super) fn is_transfer(mark: &Mark) -> bool {
    matches!(mark.operation, CollectiveOp::Send | CollectiveOp::Recv)
}

/// A send or a receive: what it waits for is known where its peer is.
pub(super) fn transfer(mark: &Mark, group: usize, of: &Hung) -> Option<Call> {
    let peer = member(of, mark.peer?)?;
    let all = call(mark, group, None)?;
    Some(Call { sequence: 0, peer: Some(peer), size: None, ..all })
}
