//! The verdict on a recording of ranks on CPUs that ended while a collective call did not return.
//!
//! A rank is in a collective from its call to its return, so what a dump says by itself is in the calls: `processes` finds the
//! process that is each rank, `calls` reads its last ones, `clusters` finds out which are on one group, `numbers` how far each
//! rank had come in it, and `group` puts this together. The rules are those of all hangs; what is added is what the driving
//! thread of a rank did at the end (`end`), and two faults that only a recording can see: ranks that came and whose process
//! ended, or is stopped, inside the operation.
//!
//! What always holds: a rank is blamed for not coming only if it was seen to be elsewhere. One of which records are missing,
//! that may have come before the recording began, or that waits itself for something that says of nobody, is not blamed,
//! and the finding says why. Nothing is said of what only processes wait for that have ended.

mod calls;
mod clusters;
mod end;
mod group;
mod numbers;
mod processes;

use std::collections::BTreeMap;

use stallscope_schemas::record::WaitKind;
use stallscope_schemas::units::TimeNs;

use super::live::{HANG_NS, LONGER, undecided};
use super::operations::Key;
use super::text::{Text, Witness, span};
use super::{Fault, Hang, judge};
use crate::capture::{Capture, ReadAt, Tables};
use crate::findings::Finding;
use crate::report::text::{duration, printable, short_name};
pub(super) use calls::{ENDED_NS, hides_calls, main_thread};
use calls::{Lane, Mark, Rank, Ranks, has_lost, jobs};
use clusters::{Cluster, Clusters, clusters};
use group::{Hung, MAX_MEMBERS, UNMATCHED, is_transfer, member, transfer};
pub(super) use processes::ranks_of_processes;

/// Groups of a job of which it is said that nothing can be told.
const MAX_UNDECIDED: usize = 4;

/// What is to be said of calls that had not returned when the recording ended.
pub(super) fn findings<S: ReadAt>(capture: &Capture<S>) -> Vec<Finding> {
    jobs(capture).iter().flat_map(|ranks| Verdict { capture, ranks }.findings()).collect()
}

struct Verdict<'a, S: ReadAt> {
    capture: &'a Capture<S>,
    ranks: &'a Ranks,
}

impl<S: ReadAt> Verdict<'_, S> {
    fn tables(&self) -> &Tables {
        self.capture.tables()
    }

    fn lanes<'b>(&'b self, cluster: &'b Cluster) -> impl Iterator<Item = (usize, &'b Lane, &'b Rank)> {
        cluster.lanes.iter().filter_map(|&at| {
            let lane = self.ranks.lanes.get(at)?;
            Some((at, lane, self.ranks.ranks.get(lane.rank)?))
        })
    }

    fn rank(&self, rank: u32) -> Option<&Rank> {
        self.ranks.ranks.iter().find(|of| of.rank == rank)
    }

    fn findings(&self) -> Vec<Finding> {
        if let Some(rank) = self.ranks.mixed {
            return self.mixed(rank).into_iter().collect();
        }
        let Clusters { all, was_cut } = clusters(&self.ranks.lanes, self.ranks.world());
        let mut out = self.verdicts(all);
        if was_cut {
            let cut = "; not all groups that each rank calls by a name of its own were compared: there are too many";
            out.iter_mut().for_each(|finding| finding.evidence.push_str(cut));
        }
        out
    }

    fn verdicts(&self, clusters: Vec<Cluster>) -> Vec<Finding> {
        let (mut hung, mut out, mut room) = (Vec::new(), Vec::new(), MAX_MEMBERS);
        let mut unmatched: BTreeMap<_, (TimeNs, Cluster)> = BTreeMap::new();
        for cluster in clusters {
            let Some(since) = self.hangs_since(&cluster) else { continue };
            let library = self.lanes(&cluster).next().map(|(_, lane, _)| lane.group.library);
            match cluster {
                // One finding for all that may be one group.
                Cluster { is_matched: false, size, lanes } => {
                    let none = || (since, Cluster { is_matched: false, size, lanes: Vec::new() });
                    let (first, all) = unmatched.entry((library, size)).or_insert_with(none);
                    *first = since.min(*first);
                    all.lanes.extend(lanes);
                }
                cluster => match self.hung(cluster, since, &mut room) {
                    Ok(group) => hung.push(group),
                    Err(finding) => out.push(*finding),
                },
            }
        }
        out.extend(unmatched.values().map(|(since, all)| self.cannot_tell(all, *since, UNMATCHED)));
        if !out.is_empty() || hung.is_empty() {
            // Of several groups one may be behind another: without all of them nobody is blamed.
            out.sort_by_key(|finding| std::cmp::Reverse(finding.ns));
            out.truncate(MAX_UNDECIDED);
            return out;
        }
        let job = self.job(&hung);
        let mut text = Text::new(&job, self.tables(), Witness::Calls);
        text.unnumbered =
            hung.iter().enumerate().filter(|(_, group)| group.ahead.is_none()).map(|(at, _)| at).collect();
        judge(&job).into_iter().filter_map(|hang| self.finding(hang, &hung, &text)).collect()
    }

    /// Since when a call of somebody who lives has been open in it, if that is long for the group.
    fn hangs_since(&self, cluster: &Cluster) -> Option<TimeNs> {
        let alive = self.lanes(cluster).filter(|(_, _, rank)| !rank.has_ended);
        let since = alive.filter_map(|(_, lane, _)| lane.open()).map(|mark| mark.start).min()?;
        let longest = self.lanes(cluster).map(|(_, lane, _)| lane.longest_ns).max().unwrap_or(0);
        (self.ranks.end.since(since) >= HANG_NS.max(longest.saturating_mul(LONGER))).then_some(since)
    }

    /// Whose calls belong together is not known.
    fn mixed(&self, rank: u32) -> Option<Finding> {
        let alone = |at| Cluster { lanes: vec![at], size: 0, is_matched: false };
        let hangs = (0..self.ranks.lanes.len()).map(alone);
        let (since, first) = hangs
            .filter_map(|cluster| Some((self.hangs_since(&cluster)?, cluster)))
            .min_by_key(|(since, _)| *since)?;
        let why = format!(
            "several processes of rank {rank} made calls at the same time, so that whose calls belong together is not known: \
             jobs of one name are not told apart"
        );
        Some(self.cannot_tell(&first, since, &why))
    }

    fn cannot_tell(&self, cluster: &Cluster, since: TimeNs, why: &str) -> Finding {
        let open: Vec<(&Mark, u32)> =
            self.lanes(cluster).filter_map(|(_, lane, rank)| Some((lane.open()?, rank.rank))).collect();
        let first = open.iter().min_by_key(|(mark, _)| mark.start);
        let name = first.map_or("", |(mark, _)| self.tables().string(mark.name));
        let name = short_name(&printable(name), 60);
        let mut ranks: Vec<u32> = open.iter().map(|(_, rank)| *rank).collect();
        ranks.sort_unstable();
        let mut why = format!("{why}; in it: ranks {}", span(&ranks));
        let elsewhere = self.ranks.ranks.iter().filter(|rank| !ranks.contains(&rank.rank));
        for rank in elsewhere.filter(|_| self.ranks.mixed.is_none()).take(4) {
            why.push_str(&format!("; rank {} {}", rank.rank, self.does(rank).what));
        }
        undecided(ranks.first().copied(), &name, self.ranks.end.since(since), &why)
    }

    /// Says a verdict, with what is known only here.
    fn finding(&self, mut hang: Hang, hung: &[Hung], text: &Text<'_>) -> Option<Finding> {
        // Somebody who sends or receives may well wait for long: what is looked for are collectives.
        if matches!(hang.key, Key::Transfer { .. }) && hang.behind.is_empty() {
            return None;
        }
        let group = hung.get(hang.key.group())?;
        self.only_the_root(&mut hang, group);
        if hang.fault == Fault::Unknown {
            self.halted(&mut hang, group);
        }
        // Nobody waits any more where all that did have ended.
        let lives = |rank: &u32| self.rank(*rank).is_none_or(|of| !of.has_ended);
        if !hang.waiting.iter().chain(&hang.behind).any(lives) {
            return None;
        }
        if let Some(why) = self.doubt(&hang, group, hung) {
            let ns = self.ranks.end.since(hang.since);
            let operation = text.operation(&hang.call, hang.key);
            return Some(undecided(hang.waiting.first().copied(), &operation, ns, &why));
        }
        hang.waiting.retain(lives);
        hang.behind.retain(lives);
        let mut finding = text.finding(&hang, self.ranks.end);
        let of_group = group.cluster.size.max(group.members.len() as u64);
        if let Some(confidence) = &mut finding.blame.confidence {
            *confidence = confidence.min(hang.heard as f64 / of_group.max(1) as f64);
        }
        finding.evidence.push_str(if group.ahead.is_some() {
            "; operations are counted since the recording began"
        } else {
            "; which operation since the recording began it is, is not known"
        });
        for rank in finding.blame.culprit_ranks.clone() {
            self.say(&mut finding, rank, hang.fault);
        }
        Some(finding)
    }

    /// Of an operation that goes through one rank, only that one's absence keeps the others for certain.
    fn only_the_root(&self, hang: &mut Hang, group: &Hung) {
        if hang.fault != Fault::NeverCame || !hang.call.operation.has_root() {
            return;
        }
        let call = self.lanes(&group.cluster).find_map(|(_, lane, _)| lane.open()?.peer);
        let Some(root) = call.and_then(|root| member(group, root)) else { return };
        if hang.culprits.contains(&root) {
            hang.culprits = vec![root];
        }
    }

    /// All came: whether the process of one ended there, or has been stopped there for as long as others hang.
    fn halted(&self, hang: &mut Hang, group: &Hung) {
        let mut by_fault: BTreeMap<Fault, Vec<u32>> = BTreeMap::new();
        for (_, lane, rank) in self.lanes(&group.cluster) {
            let Some(open) = lane.open() else { continue };
            let is_stopped = || {
                let wait = self.wait(open.thread);
                wait.is_some_and(|wait| wait.kind == WaitKind::Stopped && wait.duration_ns >= HANG_NS)
            };
            if rank.has_ended {
                by_fault.entry(Fault::Ended).or_default().push(rank.rank);
            } else if is_stopped() {
                by_fault.entry(Fault::Stopped).or_default().push(rank.rank);
            }
        }
        let Some((fault, mut culprits)) = by_fault.pop_first() else { return };
        // Where all are, nobody waits for anybody.
        if culprits.len() >= hang.waiting.len() {
            return;
        }
        culprits.sort_unstable();
        hang.waiting.retain(|rank| !culprits.contains(rank));
        hang.fault = fault;
        hang.culprits = culprits;
    }

    /// Why nobody can be blamed, if so.
    fn doubt(&self, hang: &Hang, group: &Hung, hung: &[Hung]) -> Option<String> {
        let is_unheard = hang.fault == Fault::Unknown && hang.heard < hang.members;
        if hang.fault == Fault::Unheard || is_unheard {
            return Some(format!(
                "only {} of its {} ranks were recorded on this host, and {} of those came",
                hang.heard,
                hang.members,
                if hang.heard == hang.waiting.len() { "all" } else { "most" }
            ));
        }
        if hang.fault != Fault::NeverCame {
            return None;
        }
        let mut why = Vec::new();
        for &culprit in &hang.culprits {
            let Some(rank) = self.rank(culprit) else { continue };
            let lane = self.lanes(&group.cluster).find(|(_, _, of)| of.rank == culprit);
            let does = || self.does(rank).what;
            if has_lost(self.capture, rank, hang.since, self.ranks.end) {
                why.push(format!("records of rank {culprit} are missing since then; it {}", does()));
            } else if let Some(call) = self.elsewhere(rank, hung).filter(|_| !rank.has_ended) {
                why.push(format!(
                    "rank {culprit} has not come and is itself in {} for {}, for what is not recorded",
                    short_name(&printable(self.tables().string(call.name)), 40),
                    duration(self.ranks.end.since(call.start))
                ));
            } else if lane.is_none() && !rank.has_ended && !rank.saw_init {
                why.push(format!(
                    "no call of rank {culprit} on this group was recorded, so that it may have come before the recording began; \
                     it {}",
                    does()
                ));
            }
        }
        (!why.is_empty()).then(|| why.join("; "))
    }

    /// The call that a rank is in, if the verdict does not know what it waits for there.
    fn elsewhere<'b>(&'b self, rank: &'b Rank, hung: &[Hung]) -> Option<&'b Mark> {
        let mut found = rank.elsewhere.as_ref();
        for (at, lane) in self.ranks.lanes.iter().enumerate() {
            if self.ranks.ranks.get(lane.rank).is_none_or(|of| of.rank != rank.rank) {
                continue;
            }
            let group = hung.iter().enumerate().find(|(_, group)| group.cluster.lanes.contains(&at));
            let is_placed = |mark: &&Mark| {
                group.is_some_and(|(number, of)| !is_transfer(mark) || transfer(mark, number, of).is_some())
            };
            let open = || lane.open().into_iter().chain(&lane.transfer);
            if open().any(|mark| is_placed(&mark)) {
                return None;
            }
            found = found.or(open().next());
        }
        found
    }
}
