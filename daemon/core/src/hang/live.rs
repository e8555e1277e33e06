//! The verdict on a recording that ended while a collective did not.
//!
//! What a dump says by itself is put together here from calls and kernels: which operation of a communicator each rank had
//! come to, by numbers that mean the same on all of them (`collectives::progress`), and what the threads of those that are
//! to blame were doing at the end. Where the ranks' counts cannot be laid side by side the finding says why and blames
//! nobody.

use std::collections::BTreeMap;

use stallscope_schemas::record::{CollectiveOp, RecordKind};
use stallscope_schemas::units::{DeviceId, ThreadId, TimeNs};

use super::blocked::{blocked, link, say, wait_at};
use super::text::{Text, Witness, span};
use super::{Call, Group, Job, RankLog, State, judge};
use crate::capture::{Capture, ReadAt, Tables};
use crate::collectives::progress::{Communicator, Member, NumberedCall, unfinished};
use crate::findings::rules::rule;
use crate::findings::{Blame, Finding, Severity};
use crate::report::rank_of;
use crate::report::text::{duration, printable, short_name};

/// What has gone on for less when the recording ends is under way.
pub(super) const HANG_NS: u64 = 2_000_000_000;
/// So is what has not gone on for so many times what the longest took: a job may wait long for a checkpoint, and did before.
pub(super) const LONGER: u64 = 2;
/// Ranks that a group may have: its size comes from a file.
pub(super) const MAX_WORLD: u64 = 1 << 20;

/// What is to be said of collectives that a recording did not see end.
pub(crate) fn live_findings<S: ReadAt>(capture: &Capture<S>) -> Vec<Finding> {
    let mut out = of_gpus(capture);
    out.extend(super::ranks::findings(capture));
    out
}

/// Of those whose kernels were recorded.
fn of_gpus<S: ReadAt>(capture: &Capture<S>) -> Vec<Finding> {
    let devices: Vec<DeviceId> = capture.keys(RecordKind::DeviceWindow).into_iter().map(DeviceId).collect();
    let ends =
        devices.iter().filter_map(|device| Some(capture.extent(RecordKind::DeviceWindow, device.0)?.1));
    let Some(end) = ends.max() else { return Vec::new() };
    let hangs =
        |c: &Communicator| end.since(c.open_since) >= HANG_NS.max(c.longest_ns.saturating_mul(LONGER));
    let hung: Vec<Communicator> = unfinished(capture, &devices).into_iter().filter(hangs).collect();
    let mut out: Vec<Finding> = hung.iter().filter_map(|c| cannot_tell(c, capture.tables(), end)).collect();
    if !out.is_empty() || hung.is_empty() {
        // Of several communicators one may be behind another: without all of them nobody is blamed.
        return out;
    }
    let job = job(&hung, capture.tables(), end);
    let text = Text::new(&job, capture.tables(), Witness::Devices);
    out = judge(&job).iter().map(|hang| text.finding(hang, end)).collect();
    let threads: BTreeMap<u32, Vec<ThreadId>> = hung
        .iter()
        .flat_map(|c| &c.members)
        .filter_map(|m| Some((rank_of(m.device, capture.tables())?, m.threads.clone())))
        .collect();
    for finding in &mut out {
        finding.evidence.push_str("; operations are counted since the recording began");
        say_blocked(capture, finding, &threads, end);
    }
    out
}

fn ranks_of(communicator: &Communicator, tables: &Tables) -> Vec<u32> {
    let mut ranks: Vec<u32> = communicator.members.iter().filter_map(|m| rank_of(m.device, tables)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

/// A finding for a communicator whose ranks' counts cannot be laid side by side.
fn cannot_tell(communicator: &Communicator, tables: &Tables, end: TimeNs) -> Option<Finding> {
    let without_rank = communicator.members.iter().any(|m| rank_of(m.device, tables).is_none());
    let why = communicator.members.iter().find_map(|m| m.calls.as_ref().err().copied());
    let why = why.or(without_rank.then_some("the ranks of its devices are not known"))?;
    let ns = end.since(communicator.open_since);
    let name = short_name(&printable(tables.string(communicator.operation)), 60);
    Some(undecided(ranks_of(communicator, tables).first().copied(), &name, ns, why))
}

/// A finding that blames nobody.
pub(super) fn undecided(rank: Option<u32>, operation: &str, ns: u64, why: &str) -> Finding {
    let rule = rule("hang-collective");
    Finding {
        category: rule.category,
        severity: Severity::Warning,
        rule: rule.id,
        device: rank.map_or_else(String::new, |rank| format!("rank {rank}")),
        what: "a collective that does not end",
        ns,
        share: 0.0,
        summary: format!(
            "{operation} had not ended after {}, and which rank is missing cannot be told",
            duration(ns)
        ),
        evidence: why.to_owned(),
        advice: rule.advice,
        pointer: None,
        lost: None,
        blame: Blame::default(),
    }
}

/// What all ranks say, as if each had left a dump.
fn job(hung: &[Communicator], tables: &Tables, end: TimeNs) -> Job {
    let mut job = Job::default();
    let mut logs: BTreeMap<u32, RankLog> = BTreeMap::new();
    for (group, communicator) in hung.iter().enumerate() {
        let mut members = ranks_of(communicator, tables);
        let world = communicator.members.iter().filter_map(|m| {
            tables.device(m.device)?.processes.iter().find_map(|&p| tables.process(p)?.world_size)
        });
        // One of all ranks lacks those that were not recorded.
        if let Some(world) = world.max().filter(|world| u64::from(*world) == communicator.size)
            && communicator.size <= MAX_WORLD
        {
            members = (0..world).collect();
        }
        let description = format!("the communicator of ranks {}", span(&members));
        job.groups.push(Group { name: String::new(), description, members });
        // Nobody leaves before all have come: what is over for one is over for all that came to it.
        let over = communicator
            .members
            .iter()
            .flat_map(known)
            .filter(|call| call.is_over)
            .map(|call| call.number)
            .max();
        for member in &communicator.members {
            let Some(rank) = rank_of(member.device, tables) else { continue };
            let log = logs.entry(rank).or_insert_with(|| RankLog { rank, ..RankLog::default() });
            log.calls.extend(known(member).iter().map(|call| Call {
                group,
                sequence: call.number,
                operation: call.operation,
                name: call.name,
                size: (call.operation == CollectiveOp::AllReduce).then_some(call.elements),
                datatype: call.datatype,
                peer: None,
                state: match over {
                    Some(over) if call.number <= over => State::Completed,
                    _ if call.is_open => State::Started,
                    _ => State::Scheduled,
                },
                at: call.at.min(end),
                stack: call.stack,
            }));
        }
    }
    job.ranks = logs.into_values().collect();
    job.ranks.iter_mut().for_each(|log| log.calls.sort_by_key(|call| call.at));
    job
}

fn known(member: &Member) -> &[NumberedCall] {
    member.calls.as_deref().unwrap_or(&[])
}

/// Adds what the threads of culprits were doing at the end.
fn say_blocked<S: ReadAt>(
    capture: &Capture<S>,
    finding: &mut Finding,
    threads: &BTreeMap<u32, Vec<ThreadId>>,
    end: TimeNs,
) {
    for rank in finding.blame.culprit_ranks.clone() {
        let of_rank = threads.get(&rank).into_iter().flatten();
        let longest = of_rank.filter_map(|&thread| Some((thread, wait_at(capture, thread, end)?)));
        let Some((thread, wait)) = longest.max_by_key(|(_, wait)| wait.duration_ns) else {
            finding
                .evidence
                .push_str(&format!("; nothing shows what the launching thread of rank {rank} waited for"));
            continue;
        };
        let what = blocked(&wait, capture.tables());
        say(finding, rank, &what);
        let link = link(rank, thread, what, end.since(wait.start), capture.tables());
        finding.blame.chain.push(link);
    }
}
