use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Stacks, page};
use crate::findings::{Blame, Finding, Link, Severity};
use crate::folded::Folded;
use crate::ledger::{CommLeaf, IdleLeaf, Leaf, RootLeaf};
use crate::report::{
    CaptureReport, DeviceReport, Gaps, GpuReport, LossReport, Report, SourceReport, StepReport, StepsReport,
    Totals, WaitReport, Window,
};

/// Ten thousand characters that try everything.
fn hostile() -> String {
    "</script></title></svg><img src=x onerror=alert(1)>\"'&\u{202e}\u{2066}\u{7}\u{1b}[31m\n".repeat(120)
}

fn map<'a>(keys: impl Iterator<Item = (&'a str, u64)>) -> Map<String, Value> {
    keys.map(|(key, ns)| (key.to_owned(), ns.into())).collect()
}

/// The direct leaves of a device or step: a third computes, a third waits, the rest is idle because of the host.
fn direct(wall: u64) -> Map<String, Value> {
    map(Leaf::ALL.iter().map(|&leaf| {
        let ns = match leaf {
            Leaf::Compute | Leaf::CommExposed => wall / 3,
            Leaf::Idle => wall - wall / 3 * 2,
            _ => 0,
        };
        (leaf.key(), ns)
    }))
}

fn idle(wall: u64) -> Map<String, Value> {
    let host = wall - wall / 3 * 2;
    map(IdleLeaf::ALL.iter().map(|&leaf| (leaf.key(), if leaf == IdleLeaf::Host { host } else { 0 })))
}

fn device(name: &str, rank: u32, steps: u64) -> DeviceReport {
    let wall_ns = steps * 3_000_000 + 1;
    let wait = wall_ns / 3;
    let step = |at: u64| StepReport {
        name: Some(format!("{name}#{at}")),
        start_ns: i64::try_from(at * 3_000_000).unwrap(),
        wall_ns: 3_000_000 + at % 7 * 10_000,
        whole: true,
        slow: false,
        wait_ns: 1_000_000 + at * u64::from(rank) % 997,
        charged_ns: at * u64::from(rank) % 100_003,
        direct: direct(3_000_000),
        idle: idle(3_000_000),
    };
    let waits = (0..8).map(|other| WaitReport {
        via: vec![format!("{name} through {other}"), format!("{name} {other}")],
        via_ranks: vec![Some(other), None],
        leaf: RootLeaf::Compute.key(),
        host: Map::new(),
        ns: if other == 0 { wait - wait / 8 * 7 } else { wait / 8 },
        count: 1,
        longest_ns: 1,
    });
    let gpu = GpuReport {
        totals: Totals { comm_ns: wait, memcpy_ns: 0 },
        idle: idle(wall_ns),
        unseen_ns: 0,
        operations: 10,
        launched_operations: 5,
        operations_before_window: 3,
        launch_stacks: None,
        comm: map(CommLeaf::ALL.iter().map(|&l| (l.key(), if l == CommLeaf::Wait { wait } else { 0 }))),
        root: map(RootLeaf::ALL.iter().map(|&leaf| {
            let ns = match leaf {
                RootLeaf::Compute => wait * 2,
                RootLeaf::IdleHost => wall_ns - wait * 2,
                _ => 0,
            };
            (leaf.key(), ns)
        })),
        waits: waits.collect(),
        charged_ns: 0,
        slowdown: None,
        gaps: Gaps { count: 1, longest_ns: 1, longest_start_ns: 0 },
        device_floor_ns: 10_000,
        idle_causes: Vec::new(),
        idle_host: None,
        idle_work: Vec::new(),
        top_operations: Vec::new(),
        steps: (steps > 0).then(|| StepsReport {
            source: "host ranges",
            count: usize::try_from(steps).unwrap(),
            median_ns: 3_000_000,
            p95_ns: 3_060_000,
            each: (0..steps).map(step).collect(),
        }),
    };
    DeviceReport {
        id: format!("{name} {rank}"),
        kind: "gpu",
        ordinal: 0,
        rank: Some(rank),
        world_size: Some(4096),
        pids: vec![1],
        job: Some(name.to_owned()),
        host: Some(format!("{name}{rank}")),
        model: Some(name.to_owned()),
        wall_ns,
        window: Window { start_ns: 0, end_ns: i64::try_from(wall_ns).unwrap() },
        direct: direct(wall_ns),
        gpu: Some(gpu),
        cpu: None,
    }
}

fn finding(name: &str, at: u32) -> Finding {
    let link = Link { rank: Some(at), pid: Some(1), tid: Some(2), what: name.to_owned(), ns: 5 };
    Finding {
        category: "hang",
        severity: Severity::Critical,
        rule: "hang-collective",
        device: name.to_owned(),
        what: "x",
        ns: 5,
        share: 0.5,
        summary: name.to_owned(),
        evidence: name.to_owned(),
        advice: "try",
        pointer: None,
        lost: None,
        blame: Blame {
            culprit_ranks: (0..4096).collect(),
            chain: vec![link; 200],
            confidence: Some(0.97),
            recoverable_ns: Some(7),
        },
    }
}

fn report(name: &str, devices: u32, steps: u64) -> Report {
    let loss = |_| LossReport { counter: name.to_owned(), lost: true, count: 3, meaning: name.to_owned() };
    Report {
        schema_version: 1,
        capture: CaptureReport {
            host: Some(name.to_owned()),
            boot_id: None,
            window: Window { start_ns: 0, end_ns: 1_000_000_000 },
            sources: vec![SourceReport { path: name.to_owned(), format: name.to_owned() }; 3000],
            labels: (0..3000).map(|at| (format!("{name}{at}"), name.into())).collect(),
            notes: vec![name.to_owned(); 3000],
            losses: (0..5).map(loss).collect(),
        },
        devices: (0..devices).map(|rank| device(name, rank, steps)).collect(),
        jobs: Vec::new(),
        findings: (0..400).map(|at| finding(name, at)).collect(),
        collective_state: None,
        whatif: None,
    }
}

/// Many stacks, deep and with hostile names.
fn folded(name: &str, stacks: u64) -> Folded {
    let mut folded = Folded::default();
    for stack in 0..stacks {
        let frames = (0..80).map(|depth| format!("{name} {} {depth}", if depth < 3 { 0 } else { stack }));
        folded.add(frames.collect(), 1_000 + stack);
    }
    folded
}

fn rendered(name: &str, devices: u32, steps: u64, stacks: u64) -> String {
    let folded = folded(name, stacks);
    let stacks = [
        Stacks { what: "idle GPU time", how: "How.", waits: false, folded: &folded },
        Stacks { what: "GPU time lost to late ranks", how: "How.", waits: true, folded: &folded },
    ];
    page(&report(name, devices, steps), &stacks, name, "stallscope 0")
}

const MOST_BYTES: usize = 3_000_000;

#[test]
fn the_largest_page_has_a_bound() {
    let page = rendered("train.py", 80, 1000, 200);
    assert!(page.len() < MOST_BYTES, "{}", page.len());
    for said in [
        "are one bar together",
        "Each cell is the worst of up to",
        "The 64 ranks that lost most, of 80",
        "too narrow or too deep",
    ] {
        assert!(page.contains(said), "the page does not say: {said}");
    }
}

#[test]
fn hostile_names_stay_text_and_do_not_blow_the_page_up() {
    let page = rendered(&hostile(), 70, 40, 60);
    assert!(page.len() < MOST_BYTES, "{}", page.len());
    assert!(!page.contains("<img") && !page.contains("<script") && !page.contains("onerror=alert(1)>"));
    // The one title of the document, and tips.
    assert_eq!(page.matches("<body>").count(), 1);
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2066}');
    assert!(!page.contains(bad));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = rendered("train.py", 4, 12, 5);
    assert!(page.contains("default-src 'none'"));
    for never in ["http:", "https:", "//", "@import", "<script", "<link", "javascript:", "data:", "src="] {
        assert!(!page.contains(never), "{never}");
    }
    // What a style refers to is in the page.
    assert_eq!(page.matches("url(").count(), page.matches("url(#hatch)").count());
    assert!(page.contains("id=\"hatch\""));
}

#[test]
fn ids_are_unique_and_links_lead_somewhere() {
    let page = rendered("train.py", 4, 12, 5);
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for id in page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        *ids.entry(id).or_default() += 1;
    }
    assert!(ids.values().all(|count| *count == 1), "{ids:?}");
    for attribute in ["href=\"#", " for=\""] {
        for target in page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(ids.contains_key(target), "{attribute}{target}");
        }
    }
}

#[test]
fn both_ledgers_sum_to_wall_time_on_the_page() {
    let devices = 70;
    let page = rendered("train.py", devices, 5, 5);
    let numbers = page.split("<table class=\"numbers\">").nth(1).unwrap().split("</table>").next().unwrap();
    let rows: Vec<&str> = numbers.split("<tr data-row=").skip(1).collect();
    assert_eq!(rows.len(), (64 + 1 + 1) * 2, "of each device, of the others and of all, both ledgers");
    let value = |cell: &str| -> u64 {
        cell.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let mut walls = Vec::new();
    for row in rows {
        let cells: Vec<(&str, u64)> = row
            .split("<td data-leaf=\"")
            .skip(1)
            .map(|cell| cell.split_once("\">").map(|(leaf, number)| (leaf, value(number))).unwrap())
            .collect();
        let of = |name: &str| cells.iter().find(|(leaf, _)| *leaf == name).unwrap().1;
        let leaves: u64 = cells.iter().filter(|(leaf, _)| leaf.ends_with("_ns")).map(|(_, ns)| ns).sum();
        assert_eq!((leaves, of("sum")), (of("wall"), of("wall")), "{row}");
        walls.push(of("wall"));
    }
    let whole = walls.pop().unwrap();
    assert_eq!(whole, u64::from(devices) * (5 * 3_000_000 + 1));
    walls.pop();
    assert_eq!(walls.iter().sum::<u64>(), whole * 2);
}

#[test]
fn the_blame_graph_has_all_waiting_and_says_so() {
    let page = rendered("train.py", 4, 5, 5);
    let drawn: Vec<(&str, &str)> = page
        .split("data-drawn=\"")
        .skip(1)
        .map(|rest| {
            let mut parts = rest.split('"');
            (parts.next().unwrap(), parts.nth(1).unwrap())
        })
        .collect();
    let waited = 4 * ((5 * 3_000_000 + 1) / 3);
    assert_eq!(drawn.first().unwrap().0, waited.to_string());
    assert!(
        drawn.iter().all(|(drawn, ledger)| drawn == ledger || *ledger != waited.to_string()),
        "{drawn:?}"
    );
}

#[test]
fn empty_parts_are_said_to_be_empty() {
    let mut report = report("train.py", 1, 0);
    report.findings.clear();
    report.capture.losses.clear();
    report.capture.notes.clear();
    let none = Folded::default();
    let stacks = [Stacks { what: "idle GPU time", how: "How.", waits: false, folded: &none }];
    let text = page(&report, &stacks, "a.stall", "stallscope 0");
    for said in [
        "Nothing here is a problem",
        "No steps could be told",
        "None: this capture has no idle GPU time",
        "No record was lost",
    ] {
        assert!(text.contains(said), "{said}");
    }
    report.devices.clear();
    let text = page(&report, &[], "a.stall", "stallscope 0");
    assert!(text.contains("holds no GPU and no rank"));
}
