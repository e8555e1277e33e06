//! The report as one page for a browser: no script, nothing from elsewhere, readable from a file, on paper and in the dark.
//!
//! What always holds:
//! - every number is one of [`Report`], or a sum of such numbers: text, JSON and page never disagree;
//! - everything from a capture is text (`html` has no other way), and the page forbids a browser to load or run anything;
//! - its size is bounded: each list has a limit, and says what was left out.
//!
//! Switches are radio buttons, tips are titles: so the page works with a keyboard, and on paper as it stands.

mod blame;
mod findings;
mod flame;
mod heat;
mod html;
mod ledger;
mod limits;
mod parts;
mod sankey;
mod whatif;

use std::collections::{BTreeMap, BTreeSet};

use crate::folded::Folded;
use crate::report::text::{civil, duration, short_name};
use crate::report::{DeviceReport, Report};
use html::{Html, put};

/// Devices that have rows of their own; of more, the rest is one row.
const MOST_DEVICES: usize = 64;

/// Stacks to draw.
#[derive(Clone, Copy, Debug)]
pub struct Stacks<'a> {
    /// What the width is: `idle GPU time`.
    pub what: &'static str,
    /// How to read it, in a sentence.
    pub how: &'static str,
    /// Whether it is time spent waiting for someone.
    pub waits: bool,
    /// The stacks.
    pub folded: &'a Folded,
}

/// Renders a report.
///
/// `name` is that of the capture, `made_by` name and version of the program.
#[must_use]
pub fn page(report: &Report, stacks: &[Stacks<'_>], name: &str, made_by: &str) -> String {
    let mut html = Html::default();
    let name = short_name(name, 80);
    put!(html;
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"generator\" content=\"" (made_by) "\">\
         <title>" (name) " · stallscope report</title>\n<style>\n");
    html.markup(include_str!("style.css"));
    // The hatching of what is not known; it must not be hidden, or browsers do not draw with it.
    put!(html;
        "</style></head>\n<body>\n<svg width=\"0\" height=\"0\" class=\"defs\" aria-hidden=\"true\"><defs>\
         <pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" class=\"hatch-ground\"/><rect width=\"2.5\" height=\"6\" class=\"hatch-line\"/>\
         </pattern></defs></svg>\n<header>");
    headline(&mut html, report, &name);
    put!(html; "</header>\n<main>\n");
    let labels = Labels::of(report);
    findings::section(&mut html, report, &labels);
    if report.devices.is_empty() {
        calls(&mut html, report);
    } else {
        ledger::section(&mut html, report, &labels);
        heat::section(&mut html, report, &labels);
        blame::section(&mut html, report, &labels);
        flame::section(&mut html, stacks);
    }
    whatif::section(&mut html, report);
    limits::section(&mut html, report);
    put!(html; "</main>\n<footer><p>" (made_by) " · all numbers are those of <code>stallscope report --json</code>, schema version "
        (report.schema_version) " · times are wall time of a GPU or rank</p></footer>\n</body></html>\n");
    html.finish()
}

/// How devices are called on the page.
struct Labels {
    by_id: BTreeMap<String, String>,
}

impl Labels {
    fn of(report: &Report) -> Self {
        let name = |device: &DeviceReport| {
            device.rank.map_or_else(|| short_name(&device.id, 24), |r| format!("rank {r}"))
        };
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for device in &report.devices {
            *names.entry(name(device)).or_default() += 1;
        }
        // Of several jobs, or of a rank with several GPUs, the identity says which one.
        let label = |device: &DeviceReport| match name(device) {
            name if names.get(&name) == Some(&1) => name,
            name => format!("{name} · {}", short_name(&device.id, 24)),
        };
        Self { by_id: report.devices.iter().map(|d| (d.id.clone(), label(d))).collect() }
    }

    /// The name of a device, from its identity.
    fn get(&self, id: &str) -> String {
        self.by_id.get(id).cloned().unwrap_or_else(|| short_name(id, 24))
    }
}

/// `1 rank`, `8 ranks`.
fn plural(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// Names that are listed in a line.
const MOST_NAMES: usize = 8;

/// A fact that may have several names.
fn list(html: &mut Html, what: &'static str, names: &BTreeSet<&str>) {
    for (at, name) in names.iter().take(MOST_NAMES).enumerate() {
        match at {
            0 => put!(html; "<li>" (what) (if names.len() > 1 { "s" } else { "" }) " "),
            _ => put!(html; ", "),
        }
        put!(html; "<b>" (short_name(name, 48)) "</b>");
    }
    if names.len() > MOST_NAMES {
        put!(html; " and " (names.len() - MOST_NAMES) " more");
    }
}

fn headline(html: &mut Html, report: &Report, name: &str) {
    let devices = &report.devices;
    let cpus = devices.iter().filter(|d| d.cpu.is_some()).count();
    let gpus = devices.len() - cpus;
    put!(html; "<h1>" (name) "</h1>\n<ul class=\"facts\">");
    let jobs: BTreeSet<&str> = devices.iter().filter_map(|d| d.job.as_deref()).collect();
    list(html, "job", &jobs);
    let mut hosts: BTreeSet<&str> = devices.iter().filter_map(|d| d.host.as_deref()).collect();
    hosts.extend(report.capture.host.as_deref());
    list(html, "host", &hosts);
    if gpus > 0 {
        let mut models: BTreeMap<&str, usize> = BTreeMap::new();
        for model in devices.iter().filter_map(|d| d.model.as_deref()) {
            *models.entry(model).or_default() += 1;
        }
        put!(html; "<li><b>" (plural(gpus, "GPU")) "</b>");
        if let Some((model, _)) = models.iter().max_by_key(|(_, count)| **count) {
            put!(html; " " (short_name(model, 40)) (if models.len() > 1 { " and others" } else { "" }));
        }
    }
    if cpus > 0 {
        put!(html; "<li><b>" (plural(cpus, "rank")) "</b> on CPUs");
    }
    let world = devices.iter().filter_map(|d| d.world_size).max().unwrap_or(0) as usize;
    let ranks = devices.iter().filter_map(|d| d.rank).collect::<BTreeSet<_>>().len();
    let is_said = ranks == devices.len() && gpus == 0 && world <= ranks;
    if ranks > 0 && !is_said {
        let of = if world > ranks { format!(" of {world}") } else { String::new() };
        put!(html; "<li>" (plural(ranks, "rank")) (of));
    }
    if !devices.is_empty() {
        let window = report.capture.window;
        let length = duration(window.end_ns.abs_diff(window.start_ns));
        put!(html; "<li>window <b>" (length) "</b>");
        if let Some(at) = civil(window.start_ns) {
            put!(html; " from " (at));
        }
    }
    if let Some(steps) = devices.iter().find_map(|d| d.gpu.as_ref()?.steps.as_ref()) {
        put!(html; "<li>" (plural(steps.count, "step")) " of <b>" (duration(steps.median_ns)) "</b> (p95 "
            (duration(steps.p95_ns)) ")");
    }
    if let Some(state) = &report.collective_state {
        put!(html; "<li>" (state.ranks.len()) " of " (plural(state.world_size, "rank")) " heard");
    }
    if report.capture.is_cut_short() {
        put!(html; "<li class=\"bad\"><a href=\"#limits\">cut short</a>");
    }
    let lost = report.capture.records_lost();
    if lost > 0 {
        put!(html; "<li class=\"bad\"><a href=\"#limits\">records lost: " (html::grouped(lost)) "</a>");
    } else {
        put!(html; "<li>no records lost");
    }
    put!(html; "</ul>\n<nav aria-label=\"Sections\"><a href=\"#findings\">Findings</a>");
    if !devices.is_empty() {
        put!(html; " <a href=\"#ledger\">Ledger</a> <a href=\"#steps\">Steps</a> <a href=\"#blame\">Blame</a> \
            <a href=\"#flame\">Stacks</a>");
    }
    if report.whatif.is_some() {
        put!(html; " <a href=\"#whatif\">What if</a>");
    }
    put!(html; " <a href=\"#limits\">What is not known</a></nav>\n");
}

/// What is known of a job by its own account alone.
fn calls(html: &mut Html, report: &Report) {
    put!(html; "<section id=\"calls\"><h2>How far the ranks have come</h2>\n");
    let Some(state) = &report.collective_state else {
        put!(html; "<p class=\"none\">This capture holds no GPU and no rank.</p></section>\n");
        return;
    };
    put!(html; "<p>This capture holds what ranks said of their collective calls, and no time in which anything ran: there is no \
        ledger, and the findings above are all that can be said.</p>\n<ul class=\"facts\"><li><b>" (state.ranks.len())
        "</b> ranks were heard, of <b>" (state.world_size) "</b><li><b>" (plural(state.groups, "group")) "</b><li><b>"
        (html::grouped(state.calls as u64)) "</b> calls<li><b>" (html::grouped(state.open_calls as u64))
        "</b> of them not over</ul></section>\n");
}

#[cfg(test)]
mod tests;
