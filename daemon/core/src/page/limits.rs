//! What the capture cannot know: what was lost or refused, and how much of the ledger is unknown.

use super::html::{Html, grouped, put};
use super::parts::{devices, total, value, wall_ns};
use super::plural;
use crate::ledger::{CommLeaf, CpuLeaf, IdleLeaf, RootLeaf};
use crate::report::text::{duration, percent, short_name};
use crate::report::{DeviceReport, GpuReport, Report, saturating_sum};

/// Notes, inputs and labels that are shown; the rest are counted.
const SHOWN: usize = 20;

pub(super) fn section(html: &mut Html, report: &Report) {
    put!(html; "<section id=\"limits\"><h2>What this capture cannot know</h2>\n");
    shares(html, report);
    let mut said = Vec::new();
    missing(report, &mut said);
    put!(html; "<ul class=\"notes\">");
    for text in said.iter().chain(report.capture.notes.iter().take(SHOWN)) {
        put!(html; "<li>" (text));
    }
    rest(html, report.capture.notes.len());
    put!(html; "</ul>\n");
    losses(html, report);
    put!(html; "<h3>Inputs</h3><ul class=\"notes\">");
    for source in report.capture.sources.iter().take(SHOWN) {
        put!(html; "<li><code>" (short_name(&source.path, 120)) "</code> " (short_name(&source.format, 40)));
    }
    rest(html, report.capture.sources.len());
    for (key, label) in report.capture.labels.iter().take(SHOWN) {
        put!(html; "<li>" (short_name(key, 60)) " = " (short_name(label.as_str().unwrap_or(""), 120)));
    }
    rest(html, report.capture.labels.len());
    put!(html; "</ul></section>\n");
}

fn rest(html: &mut Html, all: usize) {
    if all > SHOWN {
        put!(html; "<li>… and " (all - SHOWN) " more");
    }
}

/// A share of time that says nothing, and why.
struct Share {
    what: &'static str,
    why: &'static str,
    ns: u64,
    of: u64,
}

fn shares(html: &mut Html, report: &Report) {
    let mut all: Vec<Share> = Vec::new();
    let gpus = devices(report, true);
    if !gpus.is_empty() {
        let wall = wall_ns(gpus.iter().copied());
        let sum = total(gpus.iter().copied());
        let direct = |leaf: RootLeaf| sum.iter().find(|p| p.key == leaf.key()).map_or(0, |p| p.direct_ns);
        let root = |leaf: RootLeaf| sum.iter().find(|p| p.key == leaf.key()).map_or(0, |p| p.root_ns);
        let mut add = |what, why, ns| all.push(Share { what, why, ns, of: wall });
        let before = saturating_sum(gpus.iter().filter_map(|d| Some(d.gpu.as_ref()?.unseen_ns)));
        add(
            "unknown: work from before",
            "nothing recorded ran, and work launched before the recording may have",
            before,
        );
        add(
            "unknown",
            "records of this time are missing, damaged, or have no end",
            direct(RootLeaf::Unknown).saturating_sub(before),
        );
        add(
            "idle: cause unknown",
            "no launch was recorded, or nothing says why the operation waited",
            direct(RootLeaf::IdleUnknown),
        );
        let unseen = saturating_sum(gpus.iter().filter_map(|d| Some(not_followed(d.gpu.as_ref()?))));
        add("idle: host, and the host was not seen", "no followed thread and no stack covers it", unseen);
        add(
            CommLeaf::Unsplit.text(),
            "communication whose partners are not all in the capture: waiting and transfer are not told apart",
            direct(RootLeaf::Unsplit),
        );
        add(
            CommLeaf::Uncertain.text(),
            "within the error of the clocks around the moment when the last rank came",
            direct(RootLeaf::Uncertain),
        );
        add(
            "waiting, cause unseen",
            "the rank that was late is known, what made it late is not",
            root(RootLeaf::Unseen),
        );
    }
    let cpus = devices(report, false);
    if !cpus.is_empty() {
        let unknown = |d: &&DeviceReport| value(&d.direct, CpuLeaf::Unknown.key());
        let wall = wall_ns(cpus.iter().copied());
        all.push(Share {
            what: "unknown, of ranks on CPUs",
            why: "records of this time are lost, or nothing says what was waited for",
            ns: saturating_sum(cpus.iter().map(unknown)),
            of: wall,
        });
    }
    all.retain(|share| share.ns > 0);
    if all.is_empty() {
        if !report.devices.is_empty() {
            put!(html; "<p class=\"none\">Every nanosecond of the ledger has a cause.</p>\n");
        }
        return;
    }
    put!(html; "<table class=\"leaves\"><thead><tr><th scope=\"col\">time<th scope=\"col\" colspan=\"2\"><th scope=\"col\" class=\"text\">because</thead><tbody>\n");
    for Share { what, why, ns, of } in all {
        put!(html; "<tr><th scope=\"row\">" (what) "<td>" (duration(ns)) "<td>" (percent(ns, of)) "<td class=\"text\">" (why) "\n");
    }
    put!(html; "</tbody></table>\n");
}

/// Idle time because of a host of which nothing was seen then, ns.
fn not_followed(gpu: &GpuReport) -> u64 {
    let host = gpu.idle_host.as_ref().map_or(0, |host| value(&host.root, CpuLeaf::Unknown.key()));
    let traced = gpu.idle_work.iter().filter(|work| work.unseen).map(|work| work.ns);
    host.saturating_add(saturating_sum(traced))
}

/// What is not in the capture at all.
fn missing(report: &Report, said: &mut Vec<String>) {
    let devices = &report.devices;
    let gpus: Vec<(&DeviceReport, &GpuReport)> =
        devices.iter().filter_map(|d| Some((d, d.gpu.as_ref()?))).collect();
    let world = devices.iter().filter_map(|d| d.world_size).max().unwrap_or(0) as usize;
    let mut ranks: Vec<u32> = devices.iter().filter_map(|d| d.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    if world > ranks.len() && !ranks.is_empty() {
        said.push(format!(
            "{} of {world} ranks are in this capture: what the others did, and whether these waited for them, is not known.",
            ranks.len()
        ));
    }
    if gpus.is_empty() && !devices.is_empty() {
        said.push("No GPU was recorded: this is the time of the threads that drive each rank.".to_owned());
    }
    let idle_host = saturating_sum(gpus.iter().map(|(_, gpu)| value(&gpu.idle, IdleLeaf::Host.key())));
    if idle_host > 0 && gpus.iter().all(|(_, gpu)| gpu.idle_host.is_none()) {
        said.push(
            "No thread was followed: what a host was busy with is what its stacks in the trace say, and what it waited for is not \
             known."
                .to_owned(),
        );
    }
    let before = saturating_sum(gpus.iter().map(|(_, gpu)| gpu.operations_before_window));
    if before > 0 {
        said.push(format!(
            "{} operations precede the window: they were launched before the recording began.",
            grouped(before)
        ));
    }
    let all = saturating_sum(gpus.iter().map(|(_, gpu)| gpu.operations));
    let unlaunched = all.saturating_sub(saturating_sum(gpus.iter().map(|(_, gpu)| gpu.launched_operations)));
    if unlaunched > 0 {
        said.push(format!(
            "Of {} operations {} have no recorded launch: idle time before them has no known cause.",
            grouped(all),
            grouped(unlaunched)
        ));
    }
    let stepless = gpus.iter().filter(|(_, gpu)| gpu.steps.is_none()).count();
    if stepless > 0 && stepless < gpus.len() {
        said.push(format!("No steps could be told on {}.", plural(stepless, "GPU")));
    }
    if let Some(state) = &report.collective_state
        && !state.ranks_missing.is_empty()
    {
        let named: Vec<String> = state.ranks_missing.iter().take(SHOWN).map(u32::to_string).collect();
        let more = state.ranks_missing.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        said.push(format!(
            "Nothing was heard of ranks {}{more}: what they did is not known.",
            named.join(", ")
        ));
    }
}

fn losses(html: &mut Html, report: &Report) {
    if report.capture.losses.is_empty() {
        put!(html; "<p class=\"none\">No record was lost on the way, and none is doubtful.</p>\n");
        return;
    }
    put!(html; "<h3>Lost or doubtful records</h3><table class=\"leaves\"><thead><tr><th scope=\"col\">counter<th scope=\"col\">records\
        <th scope=\"col\">kind<th scope=\"col\" class=\"text\">meaning</thead><tbody>\n");
    // One row a counter: there are as many as this program knows.
    for loss in &report.capture.losses {
        put!(html; "<tr><th scope=\"row\"><code>" (loss.counter) "</code><td>" (grouped(loss.count)) "<td>"
            (if loss.lost { "lost" } else { "doubtful" }) "<td class=\"text\">" (loss.meaning) "\n");
    }
    put!(html; "</tbody></table>\n");
}
