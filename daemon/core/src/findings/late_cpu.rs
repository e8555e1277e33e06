//! Findings about ranks on CPUs that others wait for in collectives.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use stallscope_schemas::units::StringId;

use super::{Finding, Found};
use crate::capture::Tables;
use crate::ledger::cpu::arrivals::{Arrivals, position};
use crate::ledger::{CpuLeaf, CpuLedger};
use crate::report::rank_of;
use crate::report::text::{duration, percent, short_name};
use crate::whatif::Recorded;

/// Findings about ranks that others wait for: one each.
pub(super) fn late(
    arrivals: &Arrivals,
    ledgers: &[CpuLedger],
    ids: &[String],
    tables: &Tables,
) -> Vec<Finding> {
    let mut out = Vec::new();
    let recorded = Recorded::new(arrivals.operations.clone(), Vec::new());
    let outside: HashMap<usize, Leaves> =
        arrivals.ranks.iter().filter_map(|a| Some((a.ledger, outside(ledgers.get(a.ledger)?)))).collect();
    for arrival in &arrivals.ranks {
        let Some((ledger, id)) = ledgers.get(arrival.ledger).zip(ids.get(arrival.ledger)) else { continue };
        let others: Vec<&CpuLedger> = arrivals
            .ranks
            .iter()
            .filter(|other| other.ledger != arrival.ledger)
            .filter_map(|other| ledgers.get(other.ledger))
            .collect();
        // The share is of the time of those who wait.
        let wall = others.iter().fold(0u64, |sum, l| sum.saturating_add(l.wall_ns));
        let mut found = Found { id, wall, device: None, out: Vec::new() };
        // Threads that only transport may be followed for longer than those whose time is the ranks'.
        let caused_ns = arrival.caused_ns.min(wall);
        found.add("rank-late", "a late rank", caused_ns, || {
            let name = short_name(tables.string(arrivals.name), 40);
            let summary = format!(
                "{id} keeps {} waiting in {name}: it arrives last in {} of {} calls",
                if others.len() == 1 { "another rank".to_owned() } else { format!("{} ranks", others.len()) },
                arrival.last,
                arrivals.calls
            );
            let waiting: Vec<&str> = arrivals
                .ranks
                .iter()
                .filter(|other| other.ledger != arrival.ledger && other.waited_ns > 0)
                .filter_map(|other| ids.get(other.ledger).map(String::as_str))
                .collect();
            let mut evidence = format!(
                "{} {} {} for it, {} of {} time",
                waiting.join(", "),
                if waiting.len() == 1 { "waits" } else { "wait" },
                duration(caused_ns),
                percent(caused_ns, wall),
                if others.len() == 1 { "its" } else { "their" }
            );
            if let Some((leaf, its, theirs)) = stands_out(arrival.ledger, &outside) {
                evidence.push_str(&format!(
                    "; {id} {} for {} of its time ({}), {} {}",
                    in_a_sentence(leaf),
                    percent(its, ledger.wall_ns),
                    duration(its),
                    if others.len() == 1 { "the other" } else { "the others on average" },
                    duration(theirs)
                ));
            }
            (summary, evidence)
        });
        for finding in &mut found.out {
            // What another call or somebody else held it up for would still have done so.
            let saved = recorded.without_lateness(position(arrival.ledger));
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
