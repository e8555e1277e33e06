//! One training job with two settings of its data loader, which Holistic Trace Analysis (HTA) has looked at too.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::{Row, ns, only_device, percent};
use crate::{cli, demo};

const SLOW: &str = "resnet50_num_workers_0";
const FAST: &str = "resnet50_num_workers_4";

/// Begin and end of an operation, and begin and end of its launch.
type Span = (u64, u64, Option<(u64, u64)>);

/// Idle and whole time between the first and the last activity of the GPU, in the trace's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gaps {
    idle: u64,
    whole: u64,
    /// Idle time before the launch of the operation that ends the gap returned.
    before_return: u64,
    /// Whole gaps that began before that launch did: HTA's host wait.
    host_wait: u64,
}

impl Gaps {
    fn percent(self) -> f64 {
        percent(self.idle, self.whole)
    }
}

pub(super) fn rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut idle_ns = Vec::new();
    for (name, hta) in [(SLOW, 39.43), (FAST, 24.32)] {
        let case = format!("kineto/{name}");
        let path = folder.join(format!("{name}.json.gz"));
        let trace: Value = serde_json::from_slice(&demo::read_gz(&path)?)?;
        let (all, without_last_step) = (gaps(&trace, None), gaps(&trace, last_step(&trace)));
        let report = cli::report(&[path])?;
        let device = only_device(&report)?;
        let (idle, wall) = (ns(device, "/direct/idle_ns"), ns(device, "/wall_ns"));
        idle_ns.push(idle);
        let got = idle.zip(wall).map(|(idle, wall)| percent(idle, wall));
        rows.push(Row::share(&case, "idle", all.percent(), got, 0.05).with_note(format!(
            "HTA says {hta:.2} %: it leaves the last ProfilerStep out. Union of the operations of the whole trace: \
             {} of {} µs; of those launched before the last step began: {} of {} µs, which is HTA's number",
            all.idle, all.whole, without_last_step.idle, without_last_step.whole
        )));
        rows.push(
            Row::share(&case, "idle without the last step", hta, Some(without_last_step.percent()), 0.05)
                .with_note(
                    "worked out here, not by the program: it shows that the reason given above is the reason",
                ),
        );
        rows.push(host_share(&case, device, all));
        if name == SLOW {
            rows.push(top_finding(&case, &report));
        }
    }
    if let [Some(slow), Some(fast)] = idle_ns.as_slice() {
        let got = format!("{:.1} ms less", (*slow as f64 - *fast as f64) / 1e6);
        rows.push(Row::statement(
            &format!("kineto/{FAST}"),
            "idle time",
            "less than without workers",
            got,
            fast < slow,
        ));
    }
    Ok(rows)
}

/// Idle time of the host: what precedes the return of the launch of the operation that ends the gap.
///
/// HTA books a whole gap as host wait where the launch began after the gap did, with the device's own latency at its end;
/// the ledger is exclusive, so the comparison is with the same rule made exclusive.
fn host_share(case: &str, device: &Value, exact: Gaps) -> Row {
    let leaves = ["host_ns", "driver_ns", "sync_ns", "launch_ns"];
    let host: Option<u64> = leaves.iter().map(|leaf| ns(device, &format!("/idle/{leaf}"))).sum();
    let share = host.zip(ns(device, "/direct/idle_ns")).map(|(host, idle)| percent(host, idle));
    let expected = percent(exact.before_return, exact.idle);
    Row::share(case, "of that, before the launch returned", expected, share, 0.05).with_note(format!(
        "the idle leaves host, driver, synchronisation and launch against the trace's own gaps. HTA books whole gaps \
         as host wait, with the device's latency at their end: {:.1} % by its rule (it says 97 % and 94 %)",
        percent(exact.host_wait, exact.idle)
    ))
}

fn top_finding(case: &str, report: &Value) -> Row {
    let finding = &report["findings"][0];
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let says = format!("{} {}", text("summary"), text("evidence"));
    let met = text("category") == "idle" && says.contains("DataLoader");
    let got = format!("{}: {}", text("category"), text("summary"));
    Row::statement(case, "first finding", "idle, because of the DataLoader", got, met)
}

/// Idle time of the operations that were launched before a moment, or of all.
fn gaps(trace: &Value, launched_before: Option<u64>) -> Gaps {
    let events = || trace["traceEvents"].as_array().into_iter().flatten();
    let number = |event: &Value, key: &str| event[key].as_u64();
    let correlation = |event: &Value| {
        event["args"]["correlation"].as_u64().or_else(|| event["args"]["external id"].as_u64())
    };
    let launches: HashMap<u64, (u64, u64)> = events()
        .filter(|e| e["cat"] == "Runtime")
        .filter_map(|e| Some((correlation(e)?, (number(e, "ts")?, number(e, "ts")? + number(e, "dur")?))))
        .collect();
    let launch = |event: &Value| correlation(event).and_then(|c| launches.get(&c)).copied();
    let mut spans: Vec<Span> = events()
        .filter(|e| ["Kernel", "Memcpy", "Memset"].iter().any(|category| e["cat"] == *category))
        .filter(|e| launched_before.is_none_or(|limit| launch(e).is_some_and(|(ts, _)| ts < limit)))
        .filter_map(|e| number(e, "ts").zip(number(e, "dur")).map(|(ts, dur)| (ts, ts + dur, launch(e))))
        .collect();
    spans.sort_unstable();
    let begin = spans.first().map_or(0, |s| s.0);
    let (mut gaps, mut end) = (Gaps { idle: 0, whole: 0, before_return: 0, host_wait: 0 }, begin);
    for (from, to, launch) in spans {
        if from > end {
            gaps.idle += from - end;
            let (called, returned) = launch.unwrap_or((0, 0));
            gaps.before_return += returned.clamp(end, from) - end;
            gaps.host_wait += if called > end { from - end } else { 0 };
        }
        end = end.max(to);
    }
    gaps.whole = end - begin;
    gaps
}

/// When the last step of the trace begins.
fn last_step(trace: &Value) -> Option<u64> {
    let events = trace["traceEvents"].as_array().into_iter().flatten();
    let steps = events.filter(|e| e["name"].as_str().is_some_and(|name| name.starts_with("ProfilerStep")));
    steps.filter_map(|e| e["ts"].as_u64()).max()
}

#[cfg(test)]
mod tests {
    use super::{Gaps, gaps, last_step};
    use serde_json::json;

    #[test]
    fn idle_time_is_what_no_operation_covers_and_is_split_at_the_return_of_the_launch() {
        let args = |correlation: u64| json!({"correlation": correlation});
        let op = |ts: u64, dur: u64, c: u64| json!({"cat": "Kernel", "ts": ts, "dur": dur, "args": args(c)});
        let call = |ts: u64, c: u64| json!({"cat": "Runtime", "ts": ts, "dur": 3, "args": args(c)});
        let trace = json!({"traceEvents": [
            op(10, 10, 1), op(15, 2, 2), op(25, 5, 3), op(100, 10, 4),
            call(1, 1), call(2, 2), call(19, 3), call(60, 4),
            {"name": "ProfilerStep#1", "ts": 0}, {"name": "ProfilerStep#2", "ts": 50},
        ]});
        assert_eq!(gaps(&trace, None), Gaps { idle: 75, whole: 100, before_return: 2 + 33, host_wait: 70 });
        assert_eq!(last_step(&trace), Some(50));
        assert_eq!(gaps(&trace, Some(50)), Gaps { idle: 5, whole: 20, before_return: 2, host_wait: 0 });
    }
}
