//! The findings in words, the worst first.

use super::html::{Html, put};
use super::{Labels, plural};
use crate::findings::{Finding, Severity};
use crate::report::text::duration;
use crate::report::{Report, alike, told};

/// Findings that are open to the eye, and those behind a fold; the rest are counted.
const SHOWN: usize = 5;
const FOLDED: usize = 25;
/// Bytes of all of them: what a person would read in an hour.
const MOST_BYTES: usize = 300_000;
/// Links of a chain.
const MOST_LINKS: usize = 12;
/// Culprits that are named.
const MOST_RANKS: usize = 16;

pub(super) fn section(html: &mut Html, report: &Report, labels: &Labels) {
    put!(html; "<section id=\"findings\"><h2>Findings</h2>\n");
    let begin = html.len();
    let told = told(report);
    let problems = report.findings.iter().filter(|f| f.severity >= Severity::Warning).count();
    if problems == 0 {
        put!(html; "<p class=\"none\">Nothing here is a problem by the rules.</p>\n");
    }
    put!(html; "<ol class=\"findings\">\n");
    // What only describes the run does not push the rest of the page down.
    let open = told.iter().take(SHOWN).take_while(|(f, _)| f.severity > Severity::Info).count();
    for (finding, devices) in told.iter().take(open) {
        entry(html, report, labels, finding, *devices);
    }
    put!(html; "</ol>\n");
    let folded = told.len().saturating_sub(open);
    if folded > 0 {
        put!(html; "<details><summary>" (plural(folded, if open == 0 { "remark" } else { "more finding" }))
            (if open == 0 { "" } else { " of less weight" }) "</summary><ol class=\"findings\" start=\"" (open + 1) "\">\n");
        let mut left = folded;
        for (finding, devices) in told.iter().skip(open).take(FOLDED) {
            if html.len() - begin > MOST_BYTES {
                break;
            }
            entry(html, report, labels, finding, *devices);
            left -= 1;
        }
        put!(html; "</ol>");
        if left > 0 {
            put!(html; "<p>… and " (left) " more, which <code>report --json</code> has.</p>");
        }
        put!(html; "</details>\n");
    }
    put!(html; "</section>\n");
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Info => "info",
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn entry(html: &mut Html, report: &Report, labels: &Labels, finding: &Finding, devices: usize) {
    let severity = severity(finding);
    put!(html; "<li class=\"finding " (severity) "\"><p class=\"summary\"><span class=\"severity\">" (severity) "</span> <b>"
        (finding.summary) "</b>");
    match (report.devices.len(), devices) {
        (0 | 1, _) => {}
        (_, 1) if finding.summary.starts_with(&finding.device) || finding.category == "rank" => {}
        (_, 1) => put!(html; " <span class=\"on\">on " (labels.get(&finding.device)) "</span>"),
        (_, n) => {
            let (all, devices) = alike(report, finding.rule);
            put!(html; " <span class=\"on\">on " (n) " of " (all) " " (devices) ", worst on "
                (labels.get(&finding.device)) "</span>");
        }
    }
    put!(html; "</p>\n");
    measures(html, finding);
    chain(html, finding);
    if !finding.evidence.is_empty() {
        put!(html; "<p class=\"why\"><span class=\"key\">because</span><span>" (finding.evidence) "</span></p>");
    }
    if finding.severity > Severity::Info {
        put!(html; "<p class=\"why\"><span class=\"key\">try</span><span>" (finding.advice) "</span></p>");
    }
    put!(html; "</li>\n");
}

/// Who, how much, how sure.
fn measures(html: &mut Html, finding: &Finding) {
    put!(html; "<dl class=\"measures\">");
    let ranks = &finding.blame.culprit_ranks;
    if let Some(first) = ranks.first() {
        put!(html; "<div><dt>to blame</dt><dd>" (if ranks.len() == 1 { "rank" } else { "ranks" }) " " (first));
        for rank in ranks.iter().skip(1).take(MOST_RANKS - 1) {
            put!(html; ", " (rank));
        }
        if ranks.len() > MOST_RANKS {
            put!(html; " and " (ranks.len() - MOST_RANKS) " more");
        }
        put!(html; "</dd></div>");
    }
    if finding.ns > 0 {
        put!(html; "<div><dt>time</dt><dd>" (duration(finding.ns)));
        if finding.share > 0.0 {
            // In thousandths a share is a whole number as all others here.
            put!(html; " <small>" (format!("{:.1} %", finding.share * 100.0)) "</small>");
        }
        put!(html; "</dd></div>");
    }
    if let Some(ns) = finding.blame.recoverable_ns {
        put!(html; "<div><dt>recoverable</dt><dd>" (duration(ns)) "</dd></div>");
    }
    if let Some(confidence) = finding.blame.confidence {
        put!(html; "<div><dt>sure</dt><dd>" (format!("{:.0} %", confidence * 100.0)) "</dd></div>");
    }
    put!(html; "<div><dt>rule</dt><dd><code>" (finding.rule) "</code></dd></div></dl>\n");
}

fn chain(html: &mut Html, finding: &Finding) {
    let chain = &finding.blame.chain;
    if chain.is_empty() {
        return;
    }
    put!(html; "<ol class=\"chain\" aria-label=\"from the loss to its root\">");
    for link in chain.iter().take(MOST_LINKS) {
        put!(html; "<li>");
        // Other chains name their ranks in words.
        if let Some(rank) = link.rank.filter(|_| finding.category == "hang") {
            put!(html; "rank " (rank) " ");
        }
        put!(html; (link.what));
        if let (Some(pid), Some(tid)) = (link.pid, link.tid) {
            put!(html; " <small>process " (pid) ", thread " (tid) "</small>");
        }
        if link.ns > 0 {
            put!(html; " <small>" (duration(link.ns)) "</small>");
        }
        put!(html; "</li>");
    }
    if chain.len() > MOST_LINKS {
        put!(html; "<li>… and " (plural(chain.len() - MOST_LINKS, "more link")) "</li>");
    }
    put!(html; "</ol>\n");
}
