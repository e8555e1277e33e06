//! The verdict on a recording of ranks on CPUs that ended while a collective call did not return.
//!
//! A rank is in a collective from its call to its return, so what a dump says by itself is in the calls: `calls` reads the
//! last ones of each rank, `numbers` finds out which are on one group and how far each rank had come in it. The rules are
//! those of all hangs; what is added is what the driving thread of a rank did at the end, and two faults that only a
//! recording can see: ranks that came and whose process ended, or is stopped, inside the operation.
//!
//! What always holds: a rank is blamed for not coming only if it was seen to be elsewhere. One of which records are missing,
//! that may have come before the recording began, or that waits itself for something that says of nobody, is not blamed,
//! and the finding says why.

mod calls;
mod numbers;

use std::collections::BTreeMap;

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, RecordKind, WaitKind};
use stallscope_schemas::units::{ThreadId, TimeNs};

use super::blocked::{blocked, is_for_a_thread, last_waker, link, named, say, wait_at};
use super::live::{HANG_NS, LONGER, MAX_WORLD, undecided};
use super::operations::Key;
use super::text::{Text, Witness, span};
use super::{Call, Fault, Group, Hang, Job, RankLog, State, judge};
use crate::capture::{Capture, ReadAt, Tables};
use crate::findings::{Finding, user_frame};
use crate::report::text::{duration, printable, short_name};
use crate::rows::{CpuSample, ThreadLoss, ThreadWait};
use calls::{Lane, Mark, Rank, Ranks, has_lost, jobs};
use numbers::{Cluster, ahead, by_order, clusters};

/// How far back from the end a sample says what a thread computes.
const SAMPLES_NS: u64 = 1_000_000_000;

/// What is to be said of calls that had not returned when the recording ended.
pub(super) fn findings<S: ReadAt>(capture: &Capture<S>) -> Vec<Finding> {
    jobs(capture).iter().flat_map(|ranks| Verdict { capture, ranks }.findings()).collect()
}

/// A group in which a call does not return.
struct Hung {
    cluster: Cluster,
    /// By lane, what its numbers are ahead; none where only their order is known.
    ahead: Option<BTreeMap<usize, i64>>,
    members: Vec<u32>,
    /// It is all ranks of the job, in their order.
    is_world: bool,
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
        let mut hung = Vec::new();
        let mut out = Vec::new();
        for cluster in clusters(&self.ranks.lanes) {
            let Some(since) = self.hangs_since(&cluster) else { continue };
            match self.hung(cluster, since) {
                Ok(group) => hung.push(group),
                Err(finding) => out.push(*finding),
            }
        }
        if !out.is_empty() || hung.is_empty() {
            // Of several groups one may be behind another: without all of them nobody is blamed.
            return out;
        }
        let job = self.job(&hung);
        let mut text = Text::new(&job, self.tables(), Witness::Calls);
        text.unnumbered =
            hung.iter().enumerate().filter(|(_, group)| group.ahead.is_none()).map(|(at, _)| at).collect();
        judge(&job).into_iter().filter_map(|hang| self.finding(hang, &hung, &text)).collect()
    }

    /// Since when a call has been open in it, if that is long for the group.
    fn hangs_since(&self, cluster: &Cluster) -> Option<TimeNs> {
        let since =
            self.lanes(cluster).filter_map(|(_, lane, _)| lane.open()).map(|mark| mark.start).min()?;
        let longest = self.lanes(cluster).map(|(_, lane, _)| lane.longest_ns).max().unwrap_or(0);
        (self.ranks.end.since(since) >= HANG_NS.max(longest.saturating_mul(LONGER))).then_some(since)
    }

    /// Who belongs to a group in which a call does not return, and how its calls are numbered; or what is not known.
    fn hung(&self, cluster: Cluster, since: TimeNs) -> Result<Hung, Box<Finding>> {
        let called: Vec<u32> = self.lanes(&cluster).map(|(_, _, rank)| rank.rank).collect();
        let world = self.ranks.ranks.iter().filter_map(|rank| rank.world).max();
        // A group of all ranks lacks those that made no call.
        let world = world.filter(|world| u64::from(*world) == cluster.size && cluster.size <= MAX_WORLD);
        let is_private = self.lanes(&cluster).any(|(_, lane, _)| lane.is_private);
        let is_world = world.is_some() && !is_private;
        let members = world.map_or(called, |world| (0..world).collect());
        let cannot = |why: &str| Box::new(self.cannot_tell(&cluster, since, why));
        if members.len() < 2 {
            return Err(cannot("its calls could not be matched with those of other ranks"));
        }
        if cluster.size > members.len() as u64 {
            let some = |(_, lane, rank): (usize, &Lane, &Rank)| lane.open().is_none() || rank.has_ended;
            if !self.lanes(&cluster).any(some) {
                let (known, size) = (members.len(), cluster.size);
                return Err(cannot(&format!(
                    "only {known} of its {size} ranks were seen in a call of it on this host"
                )));
            }
        }
        let ahead = match ahead(&cluster, &self.ranks.lanes, &self.ranks.ranks) {
            Ok(ahead) => Some(ahead),
            Err(why) => {
                let is_alive = |rank: usize| self.ranks.ranks.get(rank).is_some_and(|rank| !rank.has_ended);
                if !by_order(&cluster, &self.ranks.lanes, is_alive) {
                    return Err(cannot(why));
                }
                None
            }
        };
        Ok(Hung { cluster, ahead, members, is_world })
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
        let elsewhere: Vec<&Rank> =
            self.ranks.ranks.iter().filter(|rank| !ranks.contains(&rank.rank)).collect();
        for rank in elsewhere.iter().take(4) {
            why.push_str(&format!("; rank {} {}", rank.rank, self.does(rank).what));
        }
        undecided(ranks.first().copied(), &name, self.ranks.end.since(since), &why)
    }

    /// What all ranks say, as if each had left a dump.
    fn job(&self, hung: &[Hung]) -> Job {
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
        if let Some(why) = self.doubt(&hang, group, hung) {
            let ns = self.ranks.end.since(hang.since);
            let operation = text.operation(&hang.call, hang.key);
            return Some(undecided(hang.waiting.first().copied(), &operation, ns, &why));
        }
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
        use CollectiveOp::{Broadcast, Gather, Reduce, Scatter};
        if hang.fault != Fault::NeverCame
            || !matches!(hang.call.operation, Broadcast | Gather | Reduce | Scatter)
        {
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
                    "no call of rank {culprit} was recorded, so that it may have come before the recording began; it {}",
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

    fn wait(&self, thread: ThreadId) -> Option<ThreadWait> {
        let (_, end) = self.capture.extent(RecordKind::ThreadSpan, thread.0)?;
        wait_at(self.capture, thread, end)
    }

    /// What the driving thread of a rank was doing at the end.
    fn does(&self, rank: &Rank) -> Does {
        let nothing = |what: &str| Does { what: what.to_owned(), since: rank.end, evidence: None };
        if rank.has_ended {
            return nothing("has ended");
        }
        let Some(thread) = rank.driver else { return nothing("is not seen") };
        let tables = self.tables();
        let Some(wait) = self.wait(thread) else {
            let from = rank.end.minus(SAMPLES_NS);
            let sample = self.capture.rows_between::<CpuSample>(thread.0, from, rank.end).last();
            let place = sample.and_then(|sample| user_frame(sample.stack, tables));
            let mut lost = self.capture.rows_between::<ThreadLoss>(thread.0, from, rank.end);
            return match place {
                Some(place) => nothing(&format!("is on a CPU, at {}", place.text)),
                None if lost.next().is_some() => nothing("is not seen at the end"),
                None => nothing("is on a CPU"),
            };
        };
        let mut evidence = Vec::new();
        if let Some(place) = user_frame(wait.stack, tables) {
            evidence.push(format!("rank {} waits at {}", rank.rank, place.text));
        }
        if is_for_a_thread(&wait, tables)
            && let Some(waker) = last_waker(self.capture, thread, &wait)
        {
            let state = match self.wait(waker) {
                Some(wait) => blocked(&wait, tables),
                None => "is on a CPU or has ended".to_owned(),
            };
            evidence.push(format!("{} ended its last such wait, and now {state}", named(waker, tables)));
        }
        let evidence = (!evidence.is_empty()).then(|| evidence.join("; "));
        Does { what: blocked(&wait, tables), since: wait.start, evidence }
    }

    /// Adds what a culprit was doing.
    fn say(&self, finding: &mut Finding, culprit: u32, fault: Fault) {
        let Some(rank) = self.rank(culprit) else { return };
        let Does { what, since, evidence } = self.does(rank);
        if !matches!(fault, Fault::Ended | Fault::Stopped) {
            say(finding, culprit, &what);
        }
        if let Some(evidence) = evidence {
            finding.evidence.push_str(&format!("; {evidence}"));
        }
        if let Some(thread) = rank.driver {
            let ns = self.ranks.end.since(since);
            finding.blame.chain.push(link(culprit, thread, what, ns, self.tables()));
        }
    }
}

/// What a thread was doing.
struct Does {
    /// As a predicate.
    what: String,
    since: TimeNs,
    evidence: Option<String>,
}

/// The rank of the job that has a rank in a group, where that is known: in the group of all.
fn member(group: &Hung, rank: u32) -> Option<u32> {
    group.members.get(rank as usize).copied().filter(|_| group.is_world)
}

fn call(mark: &Mark, group: usize, ahead: Option<i64>) -> Option<Call> {
    let sequence = match ahead {
        None => u64::from(mark.is_open),
        Some(ahead) => {
            let number = i64::try_from(mark.sequence).ok().filter(|number| *number > 0)?;
            u64::try_from(number.checked_sub(ahead)?).ok()?
        }
    };
    Some(Call {
        group,
        sequence,
        operation: mark.operation,
        name: mark.name,
        size: (mark.operation == CollectiveOp::AllReduce).then_some(mark.elements),
        datatype: mark.datatype,
        peer: None,
        state: if mark.is_open { State::Started } else { State::Completed },
        at: mark.start,
        stack: mark.stack,
    })
}

fn is_transfer(mark: &Mark) -> bool {
    matches!(mark.operation, CollectiveOp::Send | CollectiveOp::Recv)
}

/// A send or a receive: what it waits for is known where its peer is.
fn transfer(mark: &Mark, group: usize, of: &Hung) -> Option<Call> {
    let peer = member(of, mark.peer?)?;
    let all = call(mark, group, None)?;
    Some(Call { sequence: 0, peer: Some(peer), size: None, ..all })
}
