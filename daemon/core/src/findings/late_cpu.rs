//! Findings about ranks on CPUs that others wait for in collectives.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use stallscope_schemas::units::StringId;

use super::{Finding, Found};
use crate::capture::Tables;
use crate::collectives::Operation;
use crate::ledger::cpu::arrivals::{Arrival, Arrivals, position};
use crate::ledger::{CpuLeaf, CpuLedger};
use crate::report::rank_of;
use crate::report::text::{duration, percent, short_name};
use crate::whatif::{MAX_COMINGS, Recorded};

/// Ranks that wait which are named.
const MAX_NAMED: usize = 4;

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
    let outside: HashMap<usize, Leaves> =
        arrivals.ranks.iter().filter_map(|a| Some((a.ledger, outside(ledgers.get(a.ledger)?)))).collect();
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
            let named = waiting.iter().take(MAX_NAMED).filter_map(|(waiting, _)| ids.get(*waiting));
            let named: Vec<&str> = named.map(String::as_str).collect();
            let more = waiting.len().saturating_sub(named.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let mut evidence = format!(
                "{}{more} {} {} for it, {} of {} time",
                named.join(", "),
                if one { "waits" } else { "wait" },
                duration(caused_ns),
                percent(caused_ns, wall),
                if one { "its" } else { "their" }
            );
            if let Some((leaf, its, theirs)) = stands_out(arrival.ledger, &outside) {
                evidence.push_str(&format!(
                    "; {id} {} for {} of its time ({}), {} {}",
                    in_a_sentence(leaf),
                    percent(its, ledger.wall_ns),
                    duration(its),
                    if outside.len() == 2 { "the other" } else { "the others on average" },
                    duration(theirs)
                ));
            }
            (summary, evidence)
        });
        for finding in &mut found.out {
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

/// Time by leaf, ns.
type Leaves = BTreeMap<CpuLeaf, u64>;

/// Root time outside of collectives.
fn outside(ledger: &CpuLedger) -> Leaves {
    let mut leaves = Leaves::new();
    for (cause, amount) in ledger.causes.ranked().iter().filter(|(c, _)| c.collective == StringId(0)) {
        let ns = leaves.entry(cause.root).or_default();
        *ns = ns.saturating_add(amount.ns);
    }
    leaves
}

/// What stands out about a rank that others wait for: the leaf outside of collectives by which it exceeds their mean most.
fn stands_out(late: usize, all: &HashMap<usize, Leaves>) -> Option<(CpuLeaf, u64, u64)> {
    let others = (all.len() as u64).saturating_sub(1).max(1);
    let mean = |leaf: CpuLeaf| {
        let of = |(_, leaves): (&usize, &Leaves)| leaves.get(&leaf).copied().unwrap_or(0);
        all.iter().filter(|(rank, _)| **rank != late).map(of).fold(0u64, u64::saturating_add) / others
    };
    all.get(&late)?
        .iter()
        .map(|(&leaf, &its)| (leaf, its, mean(leaf)))
        .filter(|(_, its, theirs)| its > theirs)
        .max_by_key(|(_, its, theirs)| its - theirs)
}
