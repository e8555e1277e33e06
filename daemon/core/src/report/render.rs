//! The report and the comparison as text for a terminal or a ticket: at most 110 columns, no colours, nothing to scroll.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use serde_json::{Map, Value};

use super::diff::Diff;
use super::odd::{self, Odd, odd};
use super::text::{bar, duration, percent, short_name};
use super::{DeviceReport, GpuReport, Report, jobs, render_cpu, render_whatif, saturating_sum};
use crate::findings::{Finding, Severity};
use crate::ledger::{CommLeaf, IdleLeaf, Leaf, RootLeaf};

/// Columns of prose.
const WIDTH: usize = 100;
/// Cells of the longest bar.
const BAR: u32 = 32;
/// Missing ranks that are named.
const MISSING: usize = 24;
/// Findings shown with everything; the rest are counted.
const SHOWN: usize = 6;

pub(super) fn value(map: &Map<String, Value>, key: &str) -> u64 {
    map.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn plural(n: usize, one: &str) -> String {
    if n == 1 { format!("{n} {one}") } else { format!("{n} {one}s") }
}

/// Writes the report.
///
/// # Errors
/// Only those of `out`.
pub fn render(report: &Report, out: &mut impl Write) -> fmt::Result {
    if report.devices.is_empty() && report.collective_state.is_some() {
        // Without time there is nothing to divide.
        calls_headline(report, out)?;
        findings(report, out)?;
        notes(report, out)?;
        return losses(report, out);
    }
    headline(report, out)?;
    jobs::render(report, out)?;
    if report.devices.iter().any(|d| d.gpu.is_some()) || report.devices.is_empty() {
        whole(report, out)?;
        if report.devices.len() > 1 {
            each_device(report, out)?;
        }
    }
    render_cpu::ranks(report, out)?;
    steps(report, out)?;
    findings(report, out)?;
    render_whatif::whatif(report.whatif.as_ref(), out)?;
    notes(report, out)?;
    losses(report, out)
}

fn headline(report: &Report, out: &mut impl Write) -> fmt::Result {
    let devices = &report.devices;
    let cpus = devices.iter().filter(|d| d.cpu.is_some()).count();
    let gpus = devices.len() - cpus;
    let mut parts = Vec::new();
    let ranks = devices.iter().filter(|d| d.gpu.is_some() && d.rank.is_some()).count();
    if ranks > 1 {
        parts.push(plural(ranks, "rank"));
    }
    if gpus > 0 || cpus == 0 {
        parts.push(plural(gpus, "GPU"));
    }
    if cpus > 0 {
        parts.push(format!("{} on CPUs", plural(cpus, "rank")));
    }
    let length = |d: &DeviceReport| d.window.end_ns.abs_diff(d.window.start_ns);
    parts.push(duration(devices.iter().map(length).max().unwrap_or(0)));
    if let Some(steps) = devices.iter().find_map(|d| d.gpu.as_ref()?.steps.as_ref()) {
        parts.push(format!(
            "{} of {} (p95 {})",
            plural(steps.count, "step"),
            duration(steps.median_ns),
            duration(steps.p95_ns)
        ));
    }
    parts.push(lost(report));
    let name = devices.iter().find_map(|d| d.job.clone()).or_else(|| {
        report.capture.sources.first().map(|s| s.path.rsplit('/').next().unwrap_or(&s.path).to_owned())
    });
    let more = report.capture.sources.len().saturating_sub(1);
    let more = if more > 0 { format!(" and {}", plural(more, "more file")) } else { String::new() };
    let name = short_name(&name.unwrap_or_else(|| "capture".to_owned()), 48);
    writeln!(out, "{name}{more} · {}", parts.join(" · "))?;
    let models: BTreeSet<&str> = devices.iter().filter_map(|d| d.model.as_deref()).collect();
    if !models.is_empty() {
        let host = report.capture.host.as_deref().map_or_else(String::new, |h| format!(" on {h}"));
        writeln!(out, "{}{host}", models.into_iter().collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

/// The head of a report about calls that were recorded without time.
fn calls_headline(report: &Report, out: &mut impl Write) -> fmt::Result {
    let Some(state) = &report.collective_state else { return Ok(()) };
    let name =
        report.capture.sources.first().map_or("capture", |s| s.path.rsplit('/').next().unwrap_or(&s.path));
    let more = report.capture.sources.len().saturating_sub(1);
    let more = if more > 0 { format!(" and {}", plural(more, "more file")) } else { String::new() };
    writeln!(
        out,
        "{}{more} · {} of {} · {}, {} of them not over · {}",
        short_name(name, 48),
        state.ranks.len(),
        plural(state.world_size, "rank"),
        plural(state.calls, "collective call"),
        state.open_calls,
        lost(report)
    )?;
    if !state.ranks_missing.is_empty() {
        let mut shown: Vec<String> = state.ranks_missing.iter().take(MISSING).map(u32::to_string).collect();
        let more = state.ranks_missing.len().saturating_sub(MISSING);
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        let ranks = if state.ranks_missing.len() == 1 { "rank" } else { "ranks" };
        let text = format!("no dump of {ranks} {}: what they did is not known", shown.join(", "));
        paragraph(out, "", &text)?;
    }
    Ok(())
}

fn lost(report: &Report) -> String {
    let cut = if report.capture.is_cut_short() { "cut short · " } else { "" };
    format!("{cut}records lost {}", report.capture.records_lost())
}

fn whole(report: &Report, out: &mut impl Write) -> fmt::Result {
    let gpus = || report.devices.iter().filter_map(|d| Some((d, d.gpu.as_ref()?)));
    let total = saturating_sum(gpus().map(|(d, _)| d.wall_ns));
    writeln!(out, "\nwhere {} of GPU time went", duration(total))?;
    let sum = |pick: &dyn Fn((&DeviceReport, &GpuReport)) -> u64| saturating_sum(gpus().map(pick));
    for &leaf in Leaf::ALL {
        let ns = sum(&|(d, _)| value(&d.direct, leaf.key()));
        if ns == 0 && leaf != Leaf::Compute && leaf != Leaf::Idle {
            continue;
        }
        let note = if leaf == Leaf::Idle { idle_note(report, ns) } else { String::new() };
        line(out, "  ", leaf.text(), ns, total, &note)?;
        let is_split = || sum(&|(_, gpu)| value(&gpu.comm, CommLeaf::Unsplit.key())) < ns;
        if leaf == Leaf::CommExposed && is_split() {
            for &comm in CommLeaf::ALL {
                let ns = sum(&|(_, gpu)| value(&gpu.comm, comm.key()));
                if ns > 0 {
                    line(out, "    ", comm.text(), ns, total, "")?;
                }
            }
        }
        if leaf == Leaf::Idle {
            for &idle in IdleLeaf::ALL {
                let ns = sum(&|(_, gpu)| value(&gpu.idle, idle.key()));
                if ns > 0 {
                    line(out, "    ", idle.text(), ns, total, "")?;
                }
            }
        }
    }
    let (comm, copies) = (sum(&|(_, gpu)| gpu.totals.comm_ns), sum(&|(_, gpu)| gpu.totals.memcpy_ns));
    if comm > 0 || copies > 0 {
        writeln!(
            out,
            "  (communication in all {}, copies in all {}, hidden behind computation or not)",
            duration(comm),
            duration(copies)
        )?;
    }
    launch_stacks(report, out)?;
    in_the_end(report, total, out)
}

/// The root ledger, where it says more than the direct one.
fn in_the_end(report: &Report, total: u64, out: &mut impl Write) -> fmt::Result {
    let gpus = || report.devices.iter().filter_map(|d| d.gpu.as_ref());
    let waited = saturating_sum(gpus().map(|gpu| value(&gpu.comm, CommLeaf::Wait.key())));
    if waited.saturating_mul(200) < total {
        return Ok(());
    }
    writeln!(out, "\nwhere it went in the end, each wait charged to what made the other rank late")?;
    let mut leaves: Vec<(u64, RootLeaf)> = RootLeaf::ALL
        .iter()
        .map(|&leaf| (saturating_sum(gpus().map(|gpu| value(&gpu.root, leaf.key()))), leaf))
        .filter(|(ns, _)| *ns > 0)
        .collect();
    leaves.sort_by_key(|&(ns, leaf)| (std::cmp::Reverse(ns), leaf));
    let told = leaves.iter().take_while(|(ns, _)| ns.saturating_mul(200) >= total).count().max(1);
    for &(ns, leaf) in leaves.iter().take(told) {
        line(out, "  ", leaf.text(), ns, total, "")?;
    }
    let rest = saturating_sum(leaves.iter().skip(told).map(|(ns, _)| *ns));
    if rest > 0 {
        line(out, "  ", "everything else", rest, total, "")?;
    }
    Ok(())
}

/// How much of the work can be led back to host stacks.
fn launch_stacks(report: &Report, out: &mut impl Write) -> fmt::Result {
    let all: Vec<_> = report.devices.iter().filter_map(|d| d.gpu.as_ref()?.launch_stacks.as_ref()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let sampled = saturating_sum(all.iter().map(|s| s.sampled));
    let launches = saturating_sum(all.iter().map(|s| s.launches));
    let shares = || all.iter().map(|s| s.share_of_gpu_time * 100.0);
    let (least, most) = (shares().fold(100.0, f64::min), shares().fold(0.0, f64::max));
    let time = if most - least < 0.1 { format!("{most:.1} %") } else { format!("{least:.1} to {most:.1} %") };
    writeln!(
        out,
        "  (host stacks of {sampled} of {launches} launched operations, {} of them, {time} of their time)",
        percent(sampled, launches)
    )
}

/// What most of the idle time is due to, if one thing is.
fn idle_note(report: &Report, idle_ns: u64) -> String {
    let mut by_what: BTreeMap<&str, u64> = BTreeMap::new();
    for finding in report.findings.iter().filter(|f| f.category == "idle") {
        let ns = by_what.entry(finding.what).or_default();
        *ns = ns.saturating_add(finding.ns);
    }
    match by_what.into_iter().max_by_key(|(_, ns)| *ns) {
        Some((what, ns)) if ns > idle_ns / 2 => format!("mostly {what}"),
        _ => String::new(),
    }
}

pub(super) fn line(
    out: &mut impl Write,
    indent: &str,
    name: &str,
    ns: u64,
    total: u64,
    note: &str,
) -> fmt::Result {
    let width = 30 - indent.len();
    let text = format!(
        "{indent}{name:<width$}{:>10} {:>8}  {}  {note}",
        duration(ns),
        percent(ns, total),
        bar(ns, total, BAR)
    );
    writeln!(out, "{}", text.trim_end())
}

fn each_device(report: &Report, out: &mut impl Write) -> fmt::Result {
    writeln!(
        out,
        "\n{:<26}{:>5}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "device", "rank", "wall", "compute", "exp.comm", "exp.copy", "idle", "unknown"
    )?;
    const LEAVES: [Leaf; 5] =
        [Leaf::Compute, Leaf::CommExposed, Leaf::MemcpyExposed, Leaf::Idle, Leaf::Unknown];
    let gpus: Vec<&DeviceReport> = report.devices.iter().filter(|d| d.gpu.is_some()).collect();
    let shares = |device: &&DeviceReport| {
        let share = |leaf: Leaf| value(&device.direct, leaf.key()) as f64 / device.wall_ns.max(1) as f64;
        LEAVES.map(share).to_vec()
    };
    let Odd { shown, rest } = odd(&gpus.iter().map(shares).collect::<Vec<_>>());
    for device in shown.into_iter().filter_map(|at| gpus.get(at)) {
        let rank = device.rank.map_or_else(|| "-".to_owned(), |r| r.to_string());
        write!(out, "{:<26}{rank:>5}{:>11}", short_name(&device.id, 25), duration(device.wall_ns))?;
        for leaf in LEAVES {
            write!(out, "{:>10}", percent(value(&device.direct, leaf.key()), device.wall_ns))?;
        }
        writeln!(out)?;
    }
    if let Some((medians, said)) = rest {
        write!(out, "{:<42}", format!("median of {}", gpus.len()))?;
        medians.into_iter().try_for_each(|median| write!(out, "{:>10}", odd::share(median)))?;
        writeln!(out)?;
        paragraph(out, "", &said)?;
    }
    Ok(())
}

/// Steps shown one by one: all of a single device where they are few, else the slow ones.
const FEW_STEPS: usize = 12;
/// Devices whose slow steps are shown.
const STEP_DEVICES: usize = 4;

fn steps(report: &Report, out: &mut impl Write) -> fmt::Result {
    let single = report.devices.len() == 1;
    let with_steps = report.devices.iter().filter_map(|d| Some((d, d.gpu.as_ref()?.steps.as_ref()?)));
    let told: Vec<_> = with_steps.filter(|(_, s)| single || s.each.iter().any(|s| s.slow)).collect();
    for (device, steps) in told.iter().take(STEP_DEVICES) {
        let slow = steps.each.iter().filter(|s| s.slow).count();
        let of = if single { String::new() } else { format!(" of {}", device.id) };
        writeln!(
            out,
            "\nsteps{of} (from {}): {} of {}, p95 {}, {slow} slow",
            steps.source,
            steps.count,
            duration(steps.median_ns),
            duration(steps.p95_ns)
        )?;
        let all = single && steps.count <= FEW_STEPS;
        let shown = steps.each.iter().enumerate().filter(|(_, s)| s.slow || all);
        for (i, step) in shown.clone().take(FEW_STEPS) {
            let name = step.name.clone().unwrap_or_else(|| format!("step {}", i + 1));
            let share = |leaf: Leaf| percent(value(&step.direct, leaf.key()), step.wall_ns);
            writeln!(
                out,
                "  {:<24}{:>10}  compute {:>7}  exp.comm {:>7}  exp.copy {:>7}  idle {:>7}{}",
                short_name(&name, 23),
                duration(step.wall_ns),
                share(Leaf::Compute),
                share(Leaf::CommExposed),
                share(Leaf::MemcpyExposed),
                share(Leaf::Idle),
                if step.slow { "  slow" } else { "" }
            )?;
        }
        let more = shown.count().saturating_sub(FEW_STEPS);
        if more > 0 {
            writeln!(out, "  … and {} (report --json has all)", plural(more, "more slow step"))?;
        }
    }
    let more = told.len().saturating_sub(STEP_DEVICES);
    if more > 0 {
        writeln!(out, "\n… and slow steps on {} (report --json has all)", plural(more, "more device"))?;
    }
    Ok(())
}

fn severity_mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// The findings with the number of devices that have them. The same rule on several devices is one story, and the worst one tells
/// it; but problems with different causes are each told.
pub(crate) fn told(report: &Report) -> Vec<(&Finding, usize)> {
    let mut told: Vec<(&Finding, BTreeSet<&str>)> = Vec::new();
    // Where in that list a cause, and a rule, was first told.
    let (mut causes, mut rules) = (BTreeMap::new(), BTreeMap::new());
    for finding in &report.findings {
        let cause = (finding.rule, cause(finding));
        let is_problem = finding.severity >= Severity::Warning;
        let same = causes.get(&cause).or(if is_problem { None } else { rules.get(finding.rule) }).copied();
        let story = same.filter(|_| !is_alone(finding.rule)).and_then(|same: usize| told.get_mut(same));
        match story {
            Some((_, devices)) => {
                devices.insert(&finding.device);
            }
            None => {
                causes.insert(cause, told.len());
                rules.entry(finding.rule).or_insert(told.len());
                told.push((finding, BTreeSet::from([finding.device.as_str()])));
            }
        }
    }
    told.into_iter().map(|(finding, devices)| (finding, devices.len())).collect()
}

/// Each hang is a story of its own, and so is each late rank.
fn is_alone(rule: &str) -> bool {
    matches!(rule, "hang-collective" | "rank-late")
}

/// What a finding says without its device and its numbers, with which units go: that of another shard, thread or share is the same.
fn cause(finding: &Finding) -> String {
    let summary = finding.summary.strip_prefix(&finding.device).unwrap_or(&finding.summary);
    let mut out = String::new();
    let mut after_number = false;
    for word in summary.split_whitespace() {
        let is_number = word.contains(|c: char| c.is_ascii_digit());
        let is_unit =
            matches!(word.trim_end_matches([',', ')', ';']), "%" | "s" | "ms" | "µs" | "ns" | "min");
        if !(is_number || after_number && is_unit) {
            out.push_str(word);
            out.push(' ');
        }
        after_number = is_number;
    }
    out
}

/// How many devices there are of the kind of those that a rule speaks of, and what they are called: to a reader a rank on CPUs is
/// none.
pub(crate) fn alike(report: &Report, rule: &str) -> (usize, &'static str) {
    let kind_of = |id: &str| report.devices.iter().find(|device| device.id == id).map(|device| device.kind);
    let spoken_of = report.findings.iter().filter(|finding| finding.rule == rule);
    let kinds: BTreeSet<&str> = spoken_of.filter_map(|finding| kind_of(&finding.device)).collect();
    if kinds.is_empty() {
        // About a job whose devices did nothing.
        return (report.devices.len(), "devices");
    }
    let all = report.devices.iter().filter(|device| kinds.contains(device.kind)).count();
    (all, if kinds.iter().all(|kind| *kind == "cpu") { "ranks" } else { "devices" })
}

fn findings(report: &Report, out: &mut impl Write) -> fmt::Result {
    let problems = report.findings.iter().filter(|f| f.severity >= Severity::Warning).count();
    if problems == 0 {
        writeln!(out, "\nnothing here is a problem by the rules of docs/findings.md")?;
    }
    let told = told(report);
    for (number, (finding, devices)) in told.iter().take(SHOWN).enumerate() {
        let on = match (report.devices.len(), *devices) {
            (0 | 1, _) => String::new(),
            // Summaries about ranks begin with the rank.
            (_, 1) if finding.summary.starts_with(&finding.device) => String::new(),
            (_, 1) => format!(" (on {})", finding.device),
            (_, n) => {
                let (all, devices) = alike(report, finding.rule);
                format!(" (on {n} of {all} {devices}, worst on {})", finding.device)
            }
        };
        let head = format!("{}{on}", finding.summary);
        writeln!(out)?;
        paragraph(out, &format!("{:<3}{:<9} ", number + 1, severity_mark(finding.severity)), &head)?;
        paragraph(out, "   because   ", &finding.evidence)?;
        if let Some(saved) = finding.blame.recoverable_ns {
            // Captures that are read together may lie far apart.
            let of = report.devices.iter().find(|device| device.id == finding.device);
            let of_job =
                |device: &&DeviceReport| of.is_none_or(|of| (of.kind, &of.job) == (device.kind, &device.job));
            let wall = report.devices.iter().filter(of_job).map(|device| device.wall_ns).max().unwrap_or(0);
            let saves_that = |f: &&Finding| f.rule == finding.rule && f.blame.recoverable_ns == Some(saved);
            // What a cause costs is simulated for all devices that have it.
            let having: BTreeSet<&str> =
                report.findings.iter().filter(saves_that).map(|f| f.device.as_str()).collect();
            let of_rule = report.findings.iter().filter(|f| f.rule == finding.rule).count();
            let (saved, wall) = (duration(saved), duration(wall));
            let text = match having.len() {
                _ if is_alone(finding.rule) => format!("{saved} of {wall}, had it not been"),
                n if n == *devices && n > 1 => format!("{saved} of {wall}, had it not been on any of them"),
                1 if *devices == 1 => format!("{saved} of {wall}, had it not been"),
                n if n == of_rule => {
                    let (_, devices) = alike(report, finding.rule);
                    format!("{saved} of {wall}, had it not been on any of {n} {devices}")
                }
                // Each job would save something else.
                _ => format!("{saved} of {wall} of the job of {}, had it not been", finding.device),
            };
            paragraph(out, "   saves     ", &text)?;
        }
        if finding.severity > Severity::Info {
            paragraph(out, "   try       ", finding.advice)?;
        }
    }
    let hidden = told.len().saturating_sub(SHOWN);
    if hidden > 0 {
        writeln!(out, "\n… and {hidden} more of less weight (report --json has all)")?;
    }
    Ok(())
}

/// Wraps text at the report's width, with the lead on the first line and blanks of its length on the rest.
pub(super) fn paragraph(out: &mut impl Write, lead: &str, text: &str) -> fmt::Result {
    let indent = lead.chars().count();
    let mut column = indent;
    write!(out, "{lead}")?;
    for (i, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > WIDTH {
            write!(out, "\n{:indent$}", "")?;
            column = indent;
        } else if i > 0 {
            write!(out, " ")?;
            column += 1;
        }
        write!(out, "{word}")?;
        column += length;
    }
    writeln!(out)
}

fn notes(report: &Report, out: &mut impl Write) -> fmt::Result {
    if report.capture.notes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nto be known")?;
    report.capture.notes.iter().try_for_each(|note| paragraph(out, "  ", note))
}

fn losses(report: &Report, out: &mut impl Write) -> fmt::Result {
    if report.capture.losses.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nlost or doubtful")?;
    for loss in &report.capture.losses {
        paragraph(out, &format!("  {:>9} × {:<24} ", loss.count, loss.counter), &loss.meaning)?;
    }
    Ok(())
}

/// Writes a comparison.
///
/// # Errors
/// Only those of `out`.
pub fn render_diff(diff: &Diff, out: &mut impl Write) -> fmt::Result {
    let cpus = diff.total.rows.iter().any(|row| row.key.starts_with("cpu."));
    let gpus = diff.total.rows.iter().any(|row| row.key != "wall_ns" && !row.key.starts_with("cpu."));
    writeln!(
        out,
        "{:<26}{:>12}{:>12}{:>12}{:>10}{:>10}{:>10}",
        match (gpus, cpus) {
            (true, true) => "time by leaf",
            (false, true) => "rank time by leaf",
            (_, false) => "GPU time by leaf",
        },
        "before",
        "after",
        "change",
        "before",
        "after",
        "points"
    )?;
    for row in &diff.total.rows {
        let change = i128::from(row.after_ns) - i128::from(row.before_ns);
        let sign = if change < 0 { "-" } else { "+" };
        let magnitude = duration(u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX));
        writeln!(
            out,
            "{:<26}{:>12}{:>12}{:>12}{:>9.1}%{:>9.1}%{:>+10.1}",
            row.name,
            duration(row.before_ns),
            duration(row.after_ns),
            format!("{sign}{magnitude}"),
            row.before_share * 100.0,
            row.after_share * 100.0,
            (row.after_share - row.before_share) * 100.0
        )?;
    }
    if let (Some(before), Some(after)) = (diff.total.before_step_ns, diff.total.after_step_ns) {
        let ratio = after as f64 / before.max(1) as f64;
        writeln!(
            out,
            "\nmedian step {} → {} ({})",
            duration(before),
            duration(after),
            if ratio < 1.0 {
                format!("{:.1} % shorter", (1.0 - ratio) * 100.0)
            } else {
                format!("{:.1} % longer", (ratio - 1.0) * 100.0)
            }
        )?;
    }
    for note in &diff.notes {
        paragraph(out, "note  ", note)?;
    }
    if cpus {
        let note = "lines with → charge each wait to what the thread that ended it did";
        paragraph(out, "note  ", note)?;
    }
    for (word, findings) in [("gone", &diff.gone), ("new", &diff.new)] {
        for finding in findings {
            paragraph(
                out,
                &format!("{word:<6}"),
                &format!("{}: {}", severity_mark(finding.severity), finding.summary),
            )?;
        }
    }
    Ok(())
}
