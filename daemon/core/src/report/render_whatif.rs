//! The what-if analysis in words.

use std::fmt::{self, Write};

use super::render::paragraph;
use super::text::{duration, short_name};
use crate::whatif::{Part, WhatIf};

/// Stages, data-parallel ranks and kinds of operation shown of each.
const SHOWN: usize = 5;

/// A factor up to which a part slows nothing down, as it is shown.
const NONE: f64 = 1.005;

/// Writes the section, if there is something to write.
pub(super) fn whatif(whatif: Option<&WhatIf>, out: &mut impl Write) -> fmt::Result {
    let Some(whatif) = whatif else { return Ok(()) };
    writeln!(out, "\nwhat if every operation took as long as it does at its best")?;
    if let Some(why) = &whatif.undecided {
        return paragraph(out, "  cannot be said: ", why);
    }
    let slowdown = whatif.slowdown.unwrap_or(1.0);
    let line = format!(
        "a step would take {} in place of {}: the job is slowed down by a factor of {slowdown:.3} (mean of {} steps, \
         simulated; recorded {})",
        duration(whatif.ideal_ns),
        duration(whatif.simulated_ns),
        whatif.steps.len(),
        duration(whatif.actual_ns)
    );
    paragraph(out, "  ", &line)?;
    if let (Some(m_w), Some(without)) = (whatif.m_w, whatif.without_slowest_workers_ns) {
        let who: Vec<String> = whatif
            .slowest_workers
            .iter()
            .take(SHOWN)
            .map(|w| w.rank.map_or_else(|| short_name(&w.device, 25), |rank| format!("rank {rank}")))
            .collect();
        let more = whatif.slowest_workers.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let best = if whatif.slowest_workers.len() == 1 { "its best" } else { "their best" };
        removed(out, &format!("{}{more} at {best}", who.join(", ")), without, m_w, "M_W")?;
    }
    if let (Some(m_s), Some(without)) = (whatif.m_s, whatif.without_last_stage_ns) {
        removed(out, "the last pipeline stage at its best", without, m_s, "M_S")?;
    }
    parts(out, "by stage", &whatif.stages)?;
    parts(out, "by data-parallel rank", &whatif.dp_ranks)?;
    parts(out, "by operation", &whatif.operations)?;
    whatif.notes.iter().try_for_each(|note| paragraph(out, "  note  ", note))
}

fn removed(out: &mut impl Write, who: &str, without_ns: u64, share: f64, name: &str) -> fmt::Result {
    let line = format!(
        "with only {who}: {} a step, {:.1} % of the slowdown is gone ({name} {share:.4})",
        duration(without_ns),
        share * 100.0
    );
    paragraph(out, "  ", &line)
}

/// The parts that by themselves slow the job down most.
fn parts<T: fmt::Display>(out: &mut impl Write, title: &str, parts: &[Part<T>]) -> fmt::Result {
    let slow: Vec<String> = parts
        .iter()
        .filter(|part| part.slowdown >= NONE)
        .take(SHOWN)
        .map(|part| format!("{} {:.3}", part.id, part.slowdown))
        .collect();
    let text = if slow.is_empty() { "none slows the job down by itself".to_owned() } else { slow.join(", ") };
    paragraph(out, &format!("  {title:<22}"), &text)
}
