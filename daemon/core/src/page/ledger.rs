//! The ledger as bars: by what each device did, and with waits charged to what they are due to.

use super::html::{Html, coordinate, grouped, put};
use super::parts::{Part, devices, parts, total, wall_ns};
use super::{Labels, MOST_DEVICES, plural};
use crate::report::text::{duration, percent, short_name};
use crate::report::{DeviceReport, Report};

/// From more rows on bars are low and have no names inside: the legend is above.
const MANY: usize = 16;
/// A part of a bar has its name inside from this share on, in percent.
const NAMED_PERCENT: u64 = 8;

pub(super) fn section(html: &mut Html, report: &Report, labels: &Labels) {
    put!(html; "<section id=\"ledger\"><h2>Where the time went</h2>\n<p class=\"how\"><b>Direct</b> is what each device did itself. \
        <b>Root</b> charges each wait to what it was due to: what the late rank did, or the thread that ended the wait. Both sum to \
        wall time, to the nanosecond.</p>\n");
    for gpus in [true, false] {
        let devices = devices(report, gpus);
        if !devices.is_empty() {
            of_kind(html, &devices, gpus, labels);
        }
    }
    put!(html; "</section>\n");
}

fn of_kind(html: &mut Html, devices: &[&DeviceReport], gpus: bool, labels: &Labels) {
    let wall = wall_ns(devices.iter().copied());
    let job = total(devices.iter().copied());
    put!(html; "<h3>" (duration(wall)) (if gpus { " of GPU time" } else { " of rank time on CPUs" }) "</h3>\n");
    sums(html, &job, wall);
    if devices.len() > 1 {
        let mut rows = Rows::of(devices, labels);
        rows.bars(html, gpus);
        rows.whole = Some((job, wall));
        rows.numbers(html);
    }
}

/// The job's total: two bars, and each leaf with both of its times.
fn sums(html: &mut Html, job: &[Part], wall: u64) {
    put!(html; "<table class=\"bars total\"><tbody><tr><th scope=\"row\">direct<td>");
    bar(html, job, wall, |part| part.direct_ns);
    put!(html; "<tr><th scope=\"row\">root<td>");
    bar(html, job, wall, |part| part.root_ns);
    put!(html; "</tbody></table>\n<div class=\"wide\"><table class=\"leaves\"><thead><tr><th scope=\"col\">leaf\
        <th scope=\"col\" colspan=\"2\">direct<th scope=\"col\">ns<th scope=\"col\" colspan=\"2\">root<th scope=\"col\">ns</thead><tbody>\n");
    for part in job.iter().filter(|part| part.direct_ns > 0 || part.root_ns > 0) {
        put!(html; "<tr data-leaf=\"" (part.key) "\"><th scope=\"row\"><svg class=\"swatch\" aria-hidden=\"true\">\
            <rect width=\"100%\" height=\"100%\" class=\"" (part.class) "\"/></svg> " (part.text)
            "<td>" (duration(part.direct_ns)) "<td>" (percent(part.direct_ns, wall)) "<td class=\"ns\">" (grouped(part.direct_ns))
            "<td>" (duration(part.root_ns)) "<td>" (percent(part.root_ns, wall)) "<td class=\"ns\">" (grouped(part.root_ns)) "\n");
    }
    let sum = |ns: fn(&Part) -> u64| job.iter().map(ns).fold(0u64, u64::saturating_add);
    let (direct, root) = (sum(|part| part.direct_ns), sum(|part| part.root_ns));
    put!(html; "<tr class=\"sum\"><th scope=\"row\">all, which is wall time<td>" (duration(direct)) "<td>" (percent(direct, wall))
        "<td class=\"ns\">" (grouped(direct)) "<td>" (duration(root)) "<td>" (percent(root, wall)) "<td class=\"ns\">" (grouped(root))
        "</tbody></table></div>\n");
}

/// One stacked bar.
fn bar(html: &mut Html, parts: &[Part], wall: u64, ns: fn(&Part) -> u64) {
    put!(html; "<svg class=\"bar\" width=\"100%\" height=\"20\" role=\"img\">");
    let mut before = 0u64;
    for part in parts.iter().filter(|part| ns(part) > 0) {
        let ns = ns(part);
        put!(html; "<svg x=\"" (coordinate(before, wall)) "%\" width=\"" (coordinate(ns, wall)) "%\"><title>" (part.text) ": "
            (duration(ns)) ", " (percent(ns, wall)) ", " (grouped(ns)) " ns</title><rect width=\"100%\" height=\"100%\" class=\""
            (part.class) "\"/>");
        if ns.saturating_mul(100) >= wall.saturating_mul(NAMED_PERCENT) {
            put!(html; "<text x=\"5\" y=\"14\">" (part.text) "</text>");
        }
        put!(html; "</svg>");
        before = before.saturating_add(ns);
    }
    put!(html; "</svg>");
}

/// A device, or several together.
struct Row {
    name: String,
    id: String,
    wall: u64,
    parts: Vec<Part>,
}

struct Rows {
    rows: Vec<Row>,
    folded: usize,
    /// All of them together.
    whole: Option<(Vec<Part>, u64)>,
}

impl Rows {
    fn of(devices: &[&DeviceReport], labels: &Labels) -> Self {
        let mut shown: Vec<&DeviceReport> = devices.to_vec();
        // Those that computed least have most to tell.
        let lost = |d: &DeviceReport| {
            let computed = parts(d).first().map_or(0, |compute| compute.direct_ns.max(compute.root_ns));
            d.wall_ns.saturating_sub(computed)
        };
        if devices.len() > MOST_DEVICES {
            shown.sort_by_key(|d| std::cmp::Reverse(lost(d)));
        }
        let rest = shown.split_off(shown.len().min(MOST_DEVICES));
        shown.sort_by_key(|d| (d.rank.unwrap_or(u32::MAX), d.ordinal));
        let row = |device: &&DeviceReport| Row {
            name: labels.get(&device.id),
            id: device.id.clone(),
            wall: device.wall_ns,
            parts: parts(device),
        };
        let mut rows: Vec<Row> = shown.iter().map(row).collect();
        if !rest.is_empty() {
            rows.push(Row {
                name: format!("{} more", rest.len()),
                id: "those that computed most".to_owned(),
                wall: wall_ns(rest.iter().copied()),
                parts: total(rest.iter().copied()),
            });
        }
        Self { rows, folded: rest.len(), whole: None }
    }

    fn bars(&self, html: &mut Html, gpus: bool) {
        put!(html; "<h3>Each " (if gpus { "GPU" } else { "rank" }) "</h3>\n");
        if self.folded > 0 {
            put!(html; "<p class=\"how\">The " (MOST_DEVICES) " that computed least; the other " (self.folded)
                " are one bar together.</p>\n");
        }
        // Both kinds of device have switches of their own.
        if gpus {
            put!(html; "<div class=\"ledgers\"><input type=\"radio\" name=\"gpus\" id=\"g-both\" class=\"both\" checked>\
                <label for=\"g-both\">both</label><input type=\"radio\" name=\"gpus\" id=\"g-direct\" class=\"direct\">\
                <label for=\"g-direct\">direct</label><input type=\"radio\" name=\"gpus\" id=\"g-root\" class=\"root\">\
                <label for=\"g-root\">root</label>\n");
        } else {
            put!(html; "<div class=\"ledgers\"><input type=\"radio\" name=\"cpus\" id=\"c-both\" class=\"both\" checked>\
                <label for=\"c-both\">both</label><input type=\"radio\" name=\"cpus\" id=\"c-direct\" class=\"direct\">\
                <label for=\"c-direct\">direct</label><input type=\"radio\" name=\"cpus\" id=\"c-root\" class=\"root\">\
                <label for=\"c-root\">root</label>\n");
        }
        put!(html; "<table class=\"bars" (if self.rows.len() > MANY { " many" } else { "" }) "\"><thead><tr><th scope=\"col\">" (if gpus { "GPU" } else { "rank" })
            "<td><th scope=\"col\">wall</thead><tbody>\n");
        for row in &self.rows {
            put!(html; "<tr><th scope=\"row\" rowspan=\"2\" title=\"" (short_name(&row.id, 80)) "\">" (row.name)
                "<td class=\"direct\" data-ledger=\"direct\">");
            bar(html, &row.parts, row.wall, |part| part.direct_ns);
            put!(html; "<td rowspan=\"2\" class=\"ns\">" (duration(row.wall)) "<tr><td class=\"root\" data-ledger=\"root\">");
            bar(html, &row.parts, row.wall, |part| part.root_ns);
            put!(html; "\n");
        }
        put!(html; "</tbody></table></div>\n");
    }

    /// Every number of both ledgers.
    fn numbers(&self, html: &mut Html) {
        let all = || self.rows.iter().map(|row| &row.parts);
        let used = |at: usize| all().any(|p| p.get(at).is_some_and(|p| p.direct_ns > 0 || p.root_ns > 0));
        let columns = self.rows.first().map_or(0, |row| row.parts.len());
        let columns: Vec<usize> = (0..columns).filter(|&at| used(at)).collect();
        put!(html; "<details><summary>Exact numbers of " (plural(self.rows.len(), "row")) ", in ns</summary><div class=\"wide\" tabindex=\"0\">\
            <table class=\"numbers\"><thead><tr><td><td>");
        for &at in &columns {
            let text = self.rows.first().and_then(|row| row.parts.get(at)).map_or("", |part| part.text);
            put!(html; "<th scope=\"col\">" (text));
        }
        put!(html; "<th scope=\"col\">sum<th scope=\"col\">wall</thead><tbody>\n");
        for row in &self.rows {
            numbers(html, &row.name, &columns, &row.parts, row.wall);
        }
        if let Some((parts, wall)) = &self.whole {
            numbers(html, "all", &columns, parts, *wall);
        }
        put!(html; "</tbody></table></div></details>\n");
    }
}

fn numbers(html: &mut Html, name: &str, columns: &[usize], parts: &[Part], wall: u64) {
    for ledger in ["direct", "root"] {
        let ns = |part: &Part| if ledger == "root" { part.root_ns } else { part.direct_ns };
        put!(html; "<tr data-row=\"" (name) "\" data-ledger=\"" (ledger) "\"><th scope=\"row\">" (name) "<th scope=\"row\">" (ledger));
        for part in columns.iter().filter_map(|&at| parts.get(at)) {
            put!(html; "<td data-leaf=\"" (part.key) "\">" (grouped(ns(part))));
        }
        let sum = parts.iter().map(ns).fold(0u64, u64::saturating_add);
        put!(html; "<td data-leaf=\"sum\">" (grouped(sum)) "<td data-leaf=\"wall\">" (grouped(wall)) "\n");
    }
}
