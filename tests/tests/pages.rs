//! The HTML page of a report, and flamegraphs of one rank against the median: made by the program, and held against its JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use stallscope_core::capture::{CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::rows::{GpuOp, Launch, ThreadSpan, ThreadWait};
use stallscope_schemas::record::{CopyKind, ObjectKind, OpKind, WaitKind, wait_flags};
use stallscope_schemas::units::{CorrelationId, StackId, TimeNs};
use stallscope_tests::{cli, demo};
use tempfile::TempDir;

const US: i64 = 1_000;
const RANKS: u32 = 4;
const STEPS: i64 = 16;
/// The rank that reads before some of its steps, and those steps.
const LATE: u32 = 2;
const LATE_STEPS: [i64; 3] = [4, 5, 9];
const LATE_NS: i64 = 300 * US;

/// A capture of ranks that meet once a step; one of them is late in three of sixteen. All of its names are `name`.
fn capture(path: &Path, name: &str) {
    let out = BufWriter::new(File::create(path).unwrap());
    let mut writer = CaptureWriter::new(out, WriterOptions::default()).unwrap();
    writer.add_label("gpu.clock_error_ns", "0");
    writer.add_label("note", &format!("note {name}"));
    writer.add_label(name, "label");
    let source = writer.add_source(Source { path: format!("./{name}"), format: "live".into() });
    let (gemm, reduce) =
        (writer.intern(&format!("gemm {name}")), writer.intern("ncclDevKernel_AllReduce_Sum_f32_RING_LL"));
    let (call, read, file) =
        (writer.intern("cuLaunchKernel"), writer.intern("read"), writer.intern(&format!("/data/{name}")));
    let frame = writer.intern(&format!("{name}.py(118): train"));
    let stack = writer.intern_frame(StackId(0), frame);
    for rank in 0..RANKS {
        let process = writer.add_process(Process {
            source,
            pid: 100 + i64::from(rank),
            name: format!("{rank}{name}"),
            rank: Some(rank),
            world_size: Some(RANKS),
            host: "node-1".into(),
            job: format!("job {}", name.chars().take(40).collect::<String>()),
        });
        let thread =
            writer.add_thread(Thread { process, tid: 100 + i64::from(rank), name: format!("{rank} {name}") });
        let until = ThreadSpan { start: TimeNs(0), duration_ns: 20_000 * US.unsigned_abs() };
        writer.push_thread_span(thread, until).unwrap();
        let id = format!("GPU-{rank}");
        let device = writer.add_device(Device {
            source,
            id,
            model: format!("model {rank} {name}"),
            processes: vec![process],
            ..Device::default()
        });
        let mut at = 100 * US;
        for step in 0..STEPS {
            let is_late = LATE_STEPS.contains(&step);
            let own = if is_late && rank == LATE { LATE_NS } else { 0 };
            let end = at + 600 * US + if is_late { LATE_NS } else { 0 };
            let mut op = |name, stream, start: i64, end: i64| {
                let launch = Launch { thread, start: TimeNs(start - US), duration_ns: 900, name: call };
                let op = GpuOp {
                    start: TimeNs(start),
                    duration_ns: (end - start).unsigned_abs(),
                    name,
                    stream,
                    kind: OpKind::Kernel,
                    flags: 0,
                    correlation: CorrelationId(start.unsigned_abs() + stream),
                    bytes: 0,
                    copy_kind: CopyKind::Unknown,
                    launch: Some(launch),
                };
                writer.push_gpu_op(device, op).unwrap();
            };
            op(gemm, 7, at + own, at + own + 500 * US);
            op(reduce, 20, at + own + 500 * US, end);
            if own > 0 {
                let wait = ThreadWait {
                    start: TimeNs(at),
                    duration_ns: (own - 10 * US).unsigned_abs(),
                    run_queue_ns: 0,
                    kind: WaitKind::Syscall,
                    call: read,
                    object_kind: ObjectKind::File,
                    object: file,
                    waker: None,
                    waker_stack: StackId(0),
                    stack,
                    preemptor: None,
                    flags: wait_flags::IRQ_WAKER,
                    result: 0,
                    peer: None,
                };
                writer.push_thread_wait(thread, wait).unwrap();
            }
            // Every rank has a little idle time of its own, and the same.
            at = end + 20 * US;
        }
    }
    writer.finish().unwrap();
}

fn made(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stall");
    capture(&path, name);
    (folder, path)
}

fn run(args: &[&str]) -> Output {
    cli::run(args.iter().copied()).unwrap()
}

/// The page of a capture, and its JSON from the same run.
fn page(capture: &Path) -> (String, Value) {
    let html = capture.with_extension("html");
    let output = run(&["report", capture.to_str().unwrap(), "--json", "--html", html.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (fs::read_to_string(html).unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Elements that may be left open.
const OPEN: [&str; 14] =
    ["meta", "input", "li", "p", "td", "th", "tr", "dt", "dd", "thead", "tbody", "br", "i", "html"];
const ELEMENTS: [&str; 49] = [
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "nav", "h1",
    "h2", "h3", "p", "a", "b", "i", "ul", "ol", "li", "dl", "dt", "dd", "div", "span", "small", "code",
    "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "input", "label", "svg", "g", "rect",
    "text", "tspan", "path", "defs", "pattern", "br", "colgroup", "col",
];

/// Checks that a page is of known elements with quoted attributes, properly nested, and that none of them does anything.
fn check_markup(page: &str) {
    let style = page.find("<style>").unwrap()..page.find("</style>").unwrap();
    let page = format!("{}{}", &page[..style.start + 7], &page[style.end..]);
    let mut open: Vec<String> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some((text, tag)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a stray > in {text:?}");
        // No attribute holds a bracket: all are escaped.
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        rest = after;
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(ELEMENTS.contains(&name.as_str()), "<{tag}>");
        if tag.starts_with('/') {
            if !OPEN.contains(&name.as_str()) {
                assert_eq!(open.pop().as_deref(), Some(name.as_str()), "</{name}> closes another");
            }
            continue;
        }
        if !tag.ends_with('/') && !OPEN.contains(&name.as_str()) {
            open.push(name.clone());
        }
        let mut attributes = tag[name.len()..].trim_end_matches('/').trim();
        while !attributes.is_empty() {
            let end = attributes.find(['=', ' ']).unwrap_or(attributes.len());
            let attribute = &attributes[..end];
            assert!(
                attribute.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-'),
                "{attribute:?} of <{tag}>"
            );
            assert!(!attribute.starts_with("on"), "<{tag}>");
            assert!(!matches!(attribute, "src" | "srcdoc" | "action" | "formaction" | "style"), "<{tag}>");
            attributes = attributes[end..].trim_start();
            if let Some(value) = attributes.strip_prefix("=\"") {
                let (value, after) = value.split_once('"').expect("an attribute's value ends");
                assert!(attribute != "href" || value.starts_with('#'), "<{tag}>");
                attributes = after.trim_start();
            }
        }
    }
    assert_eq!(open, Vec::<String>::new());
}

/// Numbers of the table with every number: by row, ledger and leaf.
fn numbers(page: &str) -> BTreeMap<(String, String, String), u64> {
    let mut all = BTreeMap::new();
    let table = page.split("<table class=\"numbers\">").nth(1).unwrap().split("</table>").next().unwrap();
    for row in table.split("<tr data-row=\"").skip(1) {
        let (name, rest) = row.split_once('"').unwrap();
        let ledger = rest.split("data-ledger=\"").nth(1).unwrap().split('"').next().unwrap();
        for cell in rest.split("<td data-leaf=\"").skip(1) {
            let (leaf, digits) = cell.split_once("\">").unwrap();
            let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
            all.insert((name.to_owned(), ledger.to_owned(), leaf.to_owned()), digits.parse().unwrap());
        }
    }
    all
}

/// The direct ledger of a device in the leaves of the root ledger.
fn direct(device: &Value, leaf: &str) -> u64 {
    let of = |group: &str, key: &str| device[group][key].as_u64();
    leaf.strip_prefix("comm_")
        .and_then(|key| of("comm", key))
        .or_else(|| leaf.strip_prefix("idle_").and_then(|key| of("idle", key)))
        .or_else(|| of("direct", leaf))
        .unwrap_or_else(|| panic!("no {leaf}"))
}

#[test]
fn the_page_has_the_numbers_of_the_json_and_both_ledgers_sum_to_wall() {
    let (_folder, path) = made("train");
    let (page, json) = page(&path);
    check_markup(&page);
    let numbers = numbers(&page);
    let devices = json["devices"].as_array().unwrap();
    assert_eq!(devices.len(), RANKS as usize);
    let mut checked = 0;
    for device in devices {
        let row = format!("rank {}", device["rank"]);
        for ledger in ["direct", "root"] {
            let cells = numbers.iter().filter(|((r, l, _), _)| *r == row && l == ledger);
            let mut sum = 0;
            for ((_, _, leaf), &ns) in cells {
                let expected = match (leaf.as_str(), ledger) {
                    ("sum" | "wall", _) => device["wall_ns"].as_u64().unwrap(),
                    (leaf, "root") => device["root"][leaf].as_u64().unwrap(),
                    (leaf, _) => direct(device, leaf),
                };
                assert_eq!(ns, expected, "{row} {ledger} {leaf}");
                sum += if leaf.ends_with("_ns") { ns } else { 0 };
                checked += 1;
            }
            assert_eq!(
                sum,
                device["wall_ns"].as_u64().unwrap(),
                "{row} {ledger}: every leaf that is not 0 is shown"
            );
        }
    }
    assert!(checked >= 4 * 2 * 5, "{checked}");
}

#[test]
fn waits_are_charged_to_the_steps_of_the_late_rank_and_nothing_is_lost_on_the_way() {
    let (_folder, path) = made("train");
    let (page, json) = page(&path);
    let devices = json["devices"].as_array().unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let waited: u64 = devices.iter().map(|d| number(&d["comm"]["wait_ns"])).sum();
    assert_eq!(waited, 3 * 3 * LATE_NS.unsigned_abs());
    let charged: u64 = devices.iter().map(|d| number(&d["charged_ns"])).sum();
    assert_eq!(charged, waited);
    for device in devices {
        let rank = number(&device["rank"]);
        let steps = device["steps"]["each"].as_array().unwrap();
        for (at, step) in steps.iter().enumerate() {
            let is_late = LATE_STEPS.iter().any(|&late| usize::try_from(late) == Ok(at));
            let (own, others) = (rank == u64::from(LATE), LATE_NS.unsigned_abs());
            assert_eq!(
                number(&step["charged_ns"]),
                if is_late && own { 3 * others } else { 0 },
                "rank {rank} step {at}"
            );
            assert_eq!(
                number(&step["wait_ns"]),
                if is_late && !own { others } else { 0 },
                "rank {rank} step {at}"
            );
        }
        for wait in device["waits"].as_array().unwrap() {
            let host: u64 = wait["host"].as_object().unwrap().values().map(number).sum();
            assert_eq!((host, wait["leaf"].as_str()), (number(&wait["ns"]), Some("idle_host_ns")));
            assert!(number(&wait["host"]["block_io_ns"]) > host / 10 * 9, "{wait}");
        }
    }
    // The picture of blame is as large.
    assert!(page.contains(&format!("data-drawn=\"{waited}\" data-ledger=\"{waited}\"")));
    assert!(page.contains("host: blocked I/O"));
    // And so is the default heat map: of the late rank the sum, in as many cells as it was late.
    let heat = page.split("<table class=\"heat").nth(1).unwrap().split("</table>").next().unwrap();
    assert_eq!(
        heat.matches("title=\"").count() - usize::try_from(RANKS).unwrap(),
        LATE_STEPS.len(),
        "{heat}"
    );
}

#[test]
fn hostile_names_do_not_get_out() {
    let name =
        "</script></title></style></svg><img src=x onerror=alert(1)>\"'&\u{202e}\u{2067}\u{7}\u{1b}[31m";
    // Ten thousand characters. No two names are the same: a header in which long ones stand for each other does not open.
    let long: Vec<String> =
        (0..110u64).map(|at| format!("{name}{:x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let (_folder, path) = made(&long.concat());
    let (page, _) = page(&path);
    check_markup(&page);
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert!(page.contains("&lt;img src=x"), "the name is shown");
    assert!(!page.contains(|c: char| (c.is_control() && c != '\n')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')));
}

#[test]
fn pages_of_the_shipped_trace_need_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.stall");
    cli::import(&[demo::trace_path(0), demo::trace_path(1)], &path).unwrap();
    let (page, json) = page(&path);
    check_markup(&page);
    assert!(page.len() < 200_000, "{}", page.len());
    for never in ["http:", "https:", "//", "<script", "@import"] {
        assert!(!page.contains(never), "{never}");
    }
    let first = json["findings"][0]["summary"].as_str().unwrap();
    assert!(page.contains(first), "{first}");
    // Both ranks come from traces of their own: nothing says what their threads waited for, and the page says so.
    assert!(page.contains("No thread was followed"));
}

#[test]
fn a_foreign_file_is_left_alone_and_json_keeps_standard_output() {
    let (folder, path) = made("train");
    let capture = path.to_str().unwrap();
    let other = folder.path().join("notes.txt");
    fs::write(&other, "mine").unwrap();
    let refused = run(&["report", capture, "--html", other.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(4));
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert!(run(&["report", capture, "--html", other.to_str().unwrap(), "--force"]).status.success());
    assert!(fs::read_to_string(&other).unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(
        run(&["report", capture, "--html", capture, "--force"]).status.code(),
        Some(4),
        "its own input"
    );
    let piped = run(&["report", capture, "--html", "-"]);
    assert!(piped.stdout.starts_with(b"<!DOCTYPE html>") && piped.stdout.ends_with(b"</html>\n"));
    assert_eq!(run(&["report", capture, "--html", "-", "--json"]).status.code(), Some(2));
}

/// The title of a frame in a flamegraph.
fn frame<'a>(svg: &'a str, name: &str) -> Option<&'a str> {
    svg.split("<title>")
        .skip(1)
        .filter_map(|rest| rest.split("</title>").next())
        .find(|title| title.starts_with(name))
}

#[test]
fn a_rank_is_held_against_the_median_of_all() {
    let (folder, path) = made("train");
    let capture = path.to_str().unwrap();
    let svg = folder.path().join("out.svg");
    let draw = |weight: &str, rank: &str, against: bool| {
        let mut args =
            vec!["flamegraph", capture, "--weight", weight, "--rank", rank, "-o", svg.to_str().unwrap()];
        args.extend(if against { &["--against", "median"][..] } else { &[] });
        let output = run(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(&svg).unwrap()
    };
    // What it reads the others do not: all of it is more than the median, which is 0.
    let late = draw("gpu-idle", "2", true);
    let read = frame(&late, "[read] /data/train (").expect("its reading");
    let share = |title: &str| {
        title.rsplit_once(", ").map(|(_, shares)| shares.trim_end_matches(')').to_owned()).unwrap()
    };
    let (own, change) = share(read).split_once("; +").map(|(a, b)| (a.to_owned(), b.to_owned())).expect(read);
    assert_eq!(own, change, "{read}");
    assert!(late.contains("median of 4 ranks"));
    // A rank like the others differs in nothing.
    let usual = draw("gpu-idle", "0", true);
    let changes = usual
        .split("<title>")
        .skip(1)
        .filter_map(|rest| rest.split("</title>").next())
        .filter(|title| title.contains("; +") || title.contains("; -"));
    assert_eq!(changes.count(), 0, "{usual}");
    // Nobody waits more than the three that wait alike, and the late one waits for nobody.
    let waits = draw("gpu-wait", "1", true);
    assert!(frame(&waits, "rank 2 · GPU-2 is late (").is_some(), "{waits}");
    assert!(draw("gpu-wait", "2", true).contains("Nothing to show"));
    // Without something to compare with it is that rank alone.
    let alone = draw("gpu-wait", "1", false);
    assert!(
        alone.contains("900 µs GPU time waited, 100.00%")
            || alone.contains("900,000 ns GPU time waited, 100.00%"),
        "{alone}"
    );
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let (_folder, path) = made("train");
    let capture = path.to_str().unwrap();
    let refused = |args: &[&str], code: i32, says: &str| {
        let output = run(&[&["flamegraph", capture, "-o", "-"], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    };
    refused(
        &["--weight", "gpu-idle", "--rank", "9", "--against", "median"],
        3,
        "no GPU of rank 9: it has 4 from 0 to 3",
    );
    refused(&["--weight", "gpu", "--rank", "1"], 2, "gpu-idle and gpu-wait");
    refused(&["--weight", "gpu-idle", "--against", "median"], 2, "--rank");
    let folder = tempfile::tempdir().unwrap();
    let single = folder.path().join("one.stall");
    cli::import(&[demo::trace_path(1)], &single).unwrap();
    let output =
        run(&["flamegraph", single.to_str().unwrap(), "--rank", "1", "--against", "median", "-o", "-"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("one rank only"));
}
