//! Findings about ranks on CPUs that others wait for in collectives.

use std::collections::BTreeMap;

use stallscope_schemas::units::{StringId, ThreadId};

use super::cpu::name;
use super::whose::{other_rank, rank_of_thread};
use super::{Finding, Found};
use crate::capture::Tables;
use crate::collectives::Operation;
use crate::ledger::cpu::arrivals::{Arrival, Arrivals, position};
use crate::ledger::{CpuLeaf, CpuLedger};
use crate::report::rank_of;
use crate::report::text::{duration, percent, short_name};
use crate::whatif::{MAX_COMINGS, Recorded, Took};

/// Ranks that wait which are named.
const MAX_NAMED: usize = 4;

const HELD_UP_BY_ANOTHER: &str =
    "look at the thread of the other rank that is named: it holds the late rank up before that can come";

/// The matched calls of ranks on CPUs, with what these did between them.
pub(super) fn recorded(operations: Vec<Operation>, ledgers: &[CpuLedger]) -> Recorded {
    let history = |(at, ledger): (usize, &CpuLedger)| Some((position(at), ledger.outside.clone()?));
    Recorded::new(operations, ledgers.iter().enumerate().filter_map(history).collect())
}

/// Findings about ranks that others wait for: one each.
pub(super) fn late(
    arrivals: &Arrivals,
    recorded: &Recorded,
    ledgers: &[CpuLedger],
    ids: &[String],
    tables: &Tables,
) -> Vec<Finding> {
    let mut out = Vec::new();
    // The worst first, for as long as simulations may take.
    let mut ranks: Vec<&Arrival> = arrivals.ranks.iter().collect();
    ranks.sort_by_key(|arrival| (std::cmp::Reverse(arrival.caused_ns), arrival.ledger));
    let mut left = MAX_COMINGS;
    for arrival in ranks {
        let Some((ledger, id)) = ledgers.get(arrival.ledger).zip(ids.get(arrival.ledger)) else { continue };
        let mut waiting: Vec<(usize, u64)> = arrivals
            .waited_for
            .range((arrival.ledger, 0)..=(arrival.ledger, usize::MAX))
            .map(|(&(_, waiting), &ns)| (waiting, ns))
            .collect();
        // The share is of the time of those who wait.
        let walls = waiting.iter().filter_map(|(waiting, _)| ledgers.get(*waiting));
        let wall = walls.fold(0u64, |sum, l| sum.saturating_add(l.wall_ns));
        let mut found = Found { id, wall, device: None, out: Vec::new() };
        // Threads that only transport may be followed for longer than those whose time is the ranks'.
        let caused_ns = arrival.caused_ns.min(wall);
        let mut held_up_by = None;
        found.add("rank-late", "a late rank", caused_ns, || {
            let name = short_name(tables.string(arrival.name), 40);
            let one = waiting.len() == 1;
            let summary = format!(
                "{id} keeps {} waiting in {name}: it arrives last in {} of {} calls",
                if one { "another rank".to_owned() } else { format!("{} ranks", waiting.len()) },
                arrival.last,
                arrival.calls
            );
            waiting.sort_by_key(|&(waiting, ns)| (std::cmp::Reverse(ns), waiting));
            let shown = waiting.iter().take(MAX_NAMED).filter_map(|(waiting, _)| ids.get(*waiting));
            let waiters: Vec<&str> = shown.map(String::as_str).collect();
            let more = waiting.len().saturating_sub(waiters.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let mut evidence = format!(
                "{}{more} {} {} for it, {} of {} time",
                waiters.join(", "),
                if one { "waits" } else { "wait" },
                duration(caused_ns),
                percent(caused_ns, wall),
                if one { "its" } else { "their" }
            );
            // Ranks that are late in turn do the same over the whole recording: it is the calls to which this one came last that tell.
            let before =
                if left > 0 { recorded.before_late_calls(position(arrival.ledger)) } else { BTreeMap::new() };
            let (is_whole, before) = if before.is_empty() {
                (true, whole(arrivals, arrival.ledger, ledgers))
            } else {
                (false, before)
            };
            let explains = |took: &Took| !is_whole || took.more() * 2 >= arrival.longest_ns;
            if let Some((leaf, took)) = stands_out(&before).filter(|(_, took)| explains(took)) {
                let is_usual = is_whole || arrival.last.saturating_mul(10) >= arrival.calls.saturating_mul(9);
                let when = if is_usual { "" } else { "before those calls " };
                let (share, took_ns) = (percent(took.late_ns, ledger.wall_ns), duration(took.late_ns));
                let does = in_a_sentence(leaf);
                held_up_by = held_up(ledger, leaf, tables);
                evidence.push_str(&match held_up_by.and_then(|thread| named(thread, tables)) {
                    Some(who) => format!(
                        "; {when}{id} waits for {who}, which {does}, for {share} of its time ({took_ns})"
                    ),
                    None => format!(
                        "; {when}{id} {does} for {share} of its time ({took_ns}), {} {}",
                        if arrivals.ranks.len() == 2 { "the other" } else { "the others on average" },
                        duration(took.others_ns)
                    ),
                });
            }
            (summary, evidence)
        });
        for finding in &mut found.out {
            if held_up_by.is_some() {
                finding.advice = HELD_UP_BY_ANOTHER;
            }
            // What another call or somebody else held it up for would still have done so.
            left = left.saturating_sub(recorded.comings());
            let simulated = || recorded.without_lateness(position(arrival.ledger));
            let saved = (left > 0).then(simulated).flatten();
            finding.blame.recoverable_ns = saved.map(|ns| ns.min(arrival.longest_ns));
            finding.blame.culprit_ranks = rank_of(ledger.device, tables).into_iter().collect();
            // Ranks of one host have one clock, and only calls that were matched are counted.
            finding.blame.confidence = Some(1.0);
        }
        out.append(&mut found.out);
    }
    out
}

/// What a rank does, after its name.
fn in_a_sentence(leaf: CpuLeaf) -> String {
    match leaf {
        CpuLeaf::Compute => "computes".to_owned(),
        CpuLeaf::RunQueue => "waits for a CPU".to_owned(),
        CpuLeaf::Throttled => "may not run".to_owned(),
        CpuLeaf::Stopped => "is stopped".to_owned(),
        CpuLeaf::Sleep => "sleeps".to_owned(),
        CpuLeaf::Unknown => "is not seen".to_owned(),
        _ => format!("is in {}", leaf.text()),
    }
}

/// The thread of another rank that did most of what a rank's time outside of collectives is charged to as one leaf.
fn held_up(ledger: &CpuLedger, leaf: CpuLeaf, tables: &Tables) -> Option<ThreadId> {
    let causes = ledger.causes.ranked();
    let of_leaf = causes.iter().filter(|(c, _)| c.collective == StringId(0) && c.root == leaf);
    let mut by_thread: BTreeMap<Option<ThreadId>, u64> = BTreeMap::new();
    for (cause, amount) in of_leaf {
        let last = ledger.causes.chains.links(cause.chain).last().map(|link| link.thread);
        let other = last.filter(|&last| other_rank(last, cause.thread, tables).is_some());
        let ns = by_thread.entry(other).or_default();
        *ns = ns.saturating_add(amount.ns);
    }
    let all = by_thread.values().fold(0u64, |sum, ns| sum.saturating_add(*ns));
    let (thread, ns) = by_thread.into_iter().max_by_key(|(_, ns)| *ns)?;
    thread.filter(|_| ns > all / 2)
}

/// A thread of a rank, in words.
fn named(thread: ThreadId, tables: &Tables) -> Option<String> {
    let rank = rank_of_thread(thread, tables)?;
    Some(format!("{} of rank {rank}", name(thread, tables)))
}

/// What a rank and the others did outside of collectives in the whole recording, where nothing is known of single calls.
fn whole(arrivals: &Arrivals, late: usize, ledgers: &[CpuLedger]) -> BTreeMap<CpuLeaf, Took> {
    let others = (arrivals.ranks.len() as u64).saturating_sub(1).max(1);
    let mut all: BTreeMap<CpuLeaf, Took> = BTreeMap::new();
    for (rank, ledger) in arrivals.ranks.iter().filter_map(|a| Some((a.ledger, ledgers.get(a.ledger)?))) {
        for (cause, amount) in ledger.causes.ranked().iter().filter(|(c, _)| c.collective == StringId(0)) {
            all.entry(cause.root).or_default().add(amount.ns, rank == late, others);
        }
    }
    all
}

/// What stands out about a rank that others wait for: the leaf by which it exceeds their mean most.
fn stands_out(before: &BTreeMap<CpuLeaf, Took>) -> Option<(CpuLeaf, Took)> {
    let all = before.iter().map(|(&leaf, &took)| (leaf, took));
    all.filter(|(_, took)| took.more() > 0).max_by_key(|(_, took)| took.more())
}
