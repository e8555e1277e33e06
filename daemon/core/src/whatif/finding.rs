//! What is said of a slowdown: who or what it comes from, as far as a simulation without it shows.

use super::WhatIf;
use crate::findings::rules::rule;
use crate::findings::{Blame, Finding};
use crate::report::text::{duration, percent};

/// The share of the slowdown that has to go away with a part for the part to be called its cause: as in the paper, half.
const MOST: f64 = 0.5;

/// The share of the job's time that is not simulated from which on the simulation is doubted.
const FAITHFUL: f64 = 0.05;

/// The finding about a slowdown. `None` where there is none to speak of.
pub(crate) fn finding(what_if: &WhatIf) -> Option<Finding> {
    let slowdown = what_if.slowdown?;
    let total =
        |pick: fn(&super::StepReport) -> u64| what_if.steps.iter().map(pick).fold(0, u64::saturating_add);
    let (simulated, actual) = (total(|s| s.simulated_ns), total(|s| s.actual_ns));
    let share = if simulated == 0 { 0.0 } else { what_if.lost_ns as f64 / simulated as f64 };
    let rule = rule("rank-straggler");
    let severity = rule.severity(share)?;
    let steps = what_if.steps.len() as u64;
    let saved = |without: Option<u64>| {
        without.map(|ns| what_if.simulated_ns.saturating_sub(ns).saturating_mul(steps).min(what_if.lost_ns))
    };
    let (m_w, m_s) = (what_if.m_w.unwrap_or(0.0), what_if.m_s.unwrap_or(0.0));
    let slowest = &what_if.slowest_workers;
    let last_stage = what_if.sizes.pp.saturating_sub(1);
    let (cause, culprit_ranks, recoverable_ns) = if m_w >= MOST && m_w >= m_s {
        let mut ranks: Vec<u32> = slowest.iter().filter_map(|w| w.rank).collect();
        ranks.sort_unstable();
        let who = match slowest.as_slice() {
            [one] => match one.rank {
                Some(rank) => format!("rank {rank}"),
                None => one.device.clone(),
            },
            several => format!("{} workers", several.len()),
        };
        (format!("{who} slows the job down"), ranks, saved(what_if.without_slowest_workers_ns))
    } else if m_s >= MOST {
        let last = what_if.workers.iter().filter(|w| w.stage == last_stage);
        let mut ranks: Vec<u32> = last.filter_map(|w| w.rank).collect();
        ranks.sort_unstable();
        let cause = format!("the last pipeline stage (stage {last_stage}) slows the job down");
        (cause, ranks, saved(what_if.without_last_stage_ns))
    } else {
        let most = what_if.operations.first().map_or("operations", |part| part.id);
        (format!("uneven {most} all over the job slows it down"), Vec::new(), None)
    };
    let device = slowest.first().map_or_else(String::new, |w| w.device.clone());
    let blames = recoverable_ns.is_some();
    let fidelity = if actual == 0 { 0.0 } else { 1.0 - simulated.abs_diff(actual) as f64 / actual as f64 };
    let doubt = if fidelity < 1.0 - FAITHFUL { "; the simulation is far from what was recorded" } else { "" };
    let part = |name: &str, m: f64| format!("with {name} at their best {:.1} % of that goes away", m * 100.0);
    let mut evidence = vec![format!(
        "simulated from what each operation waits for, a step takes {} and with every operation at its best {} \
         (mean of {steps}; recorded {}{doubt})",
        duration(what_if.simulated_ns),
        duration(what_if.ideal_ns),
        duration(what_if.actual_ns)
    )];
    evidence.push(part("the slowest 3 % of the workers", m_w));
    if what_if.m_s.is_some() {
        evidence.push(part("the workers of the last stage", m_s));
    }
    Some(Finding {
        category: rule.category,
        severity,
        rule: rule.id,
        device,
        what: "stragglers",
        ns: what_if.lost_ns,
        share,
        summary: format!(
            "{cause}: steps take {slowdown:.2} times as long, {} of the time is lost",
            percent(what_if.lost_ns, simulated)
        ),
        evidence: evidence.join("; "),
        advice: rule.advice,
        pointer: None,
        lost: None,
        blame: Blame {
            culprit_ranks,
            chain: Vec::new(),
            confidence: blames.then_some(fidelity.clamp(0.0, 1.0)),
            recoverable_ns,
        },
    })
}
