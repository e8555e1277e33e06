//! What a pipelined job would gain, in words and a few numbers.

use std::fmt::Display;

use super::html::{Html, put};
use crate::report::Report;
use crate::report::text::{duration, short_name};
use crate::whatif::Part;

/// Stages, data-parallel ranks, workers that are shown of each.
const SHOWN: usize = 8;

pub(super) fn section(html: &mut Html, report: &Report) {
    let Some(whatif) = &report.whatif else { return };
    put!(html; "<section id=\"whatif\"><h2>What if every operation took as long as it does at its best</h2>\n");
    if let Some(why) = &whatif.undecided {
        put!(html; "<p class=\"none\">It cannot be said: " (why) "</p></section>\n");
        return;
    }
    put!(html; "<p>A step would take <b>" (duration(whatif.ideal_ns)) "</b> in place of <b>" (duration(whatif.simulated_ns))
        "</b> (simulated; " (duration(whatif.actual_ns)) " as recorded)");
    if let Some(slowdown) = whatif.slowdown {
        put!(html; ": the job is slowed down by a factor of <b>" (format!("{slowdown:.3}")) "</b>");
    }
    put!(html; ".</p>\n<table class=\"leaves\"><thead><tr><th scope=\"col\">at its best<th scope=\"col\">a step takes\
        <th scope=\"col\">of the slowdown is gone</thead><tbody>\n");
    if let (Some(share), Some(ns)) = (whatif.m_w, whatif.without_slowest_workers_ns) {
        let name = |rank: Option<u32>, device: &str| {
            rank.map_or_else(|| short_name(device, 25), |rank| format!("rank {rank}"))
        };
        let who: Vec<String> =
            whatif.slowest_workers.iter().take(SHOWN).map(|w| name(w.rank, &w.device)).collect();
        let more = whatif.slowest_workers.len().saturating_sub(SHOWN);
        put!(html; "<tr><th scope=\"row\">the slowest workers: " (who.join(", ")));
        if more > 0 {
            put!(html; " and " (more) " more");
        }
        put!(html; "<td>" (duration(ns)) "<td>" (format!("{:.1} %", share * 100.0)) "\n");
    }
    if let (Some(share), Some(ns)) = (whatif.m_s, whatif.without_last_stage_ns) {
        put!(html; "<tr><th scope=\"row\">the last pipeline stage<td>" (duration(ns)) "<td>" (format!("{:.1} %", share * 100.0)) "\n");
    }
    put!(html; "</tbody></table>\n<p class=\"how\">How much longer a step takes with one part as it was and all else at its best:</p>\
        <dl class=\"parts\">");
    put!(html; "<div><dt>by worker</dt><dd>");
    for worker in whatif.workers.iter().take(SHOWN) {
        let name = worker.rank.map_or_else(|| short_name(&worker.device, 25), |rank| format!("rank {rank}"));
        put!(html; "<span>" (name) " <b>" (format!("{:.3}", worker.slowdown)) "</b></span> ");
    }
    put!(html; "</dd></div>");
    parts(html, "by stage", &whatif.stages);
    parts(html, "by data-parallel rank", &whatif.dp_ranks);
    parts(html, "by operation", &whatif.operations);
    put!(html; "</dl>\n");
    for note in whatif.notes.iter().take(SHOWN) {
        put!(html; "<p class=\"how\">" (note) "</p>");
    }
    put!(html; "</section>\n");
}

fn parts<T: Display>(html: &mut Html, title: &'static str, parts: &[Part<T>]) {
    put!(html; "<div><dt>" (title) "</dt><dd>");
    for part in parts.iter().take(SHOWN) {
        put!(html; "<span>" (part.id) " <b>" (format!("{:.3}", part.slowdown)) "</b></span> ");
    }
    let more = parts.len().saturating_sub(SHOWN);
    if more > 0 {
        put!(html; "and " (more) " more");
    }
    put!(html; "</dd></div>");
}
