//! CUPTI's records of a program, read by offsets written down independently, against the truth log.

mod common;

use std::collections::BTreeMap;

use common::{Lab, Outcome};
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_double::truth::{Line, OpKind};

/// Kind, and the size of its record in 11.8, 12.4, 12.8, 13.0, 13.3: from the headers of those versions.
const SIZES: [(u32, [usize; 5]); 9] = [
    (1, [88, 88, 96, 96, 96]),
    (2, [88, 88, 88, 88, 88]),
    (4, [40, 40, 40, 40, 40]),
    (9, [16, 24, 32, 32, 40]),
    (10, [200, 208, 208, 216, 232]),
    (17, [40, 56, 56, 56, 56]),
    (37, [24, 24, 24, 24, 24]),
    (38, [40, 40, 56, 56, 56]),
    (51, [48, 56, 56, 56, 56]),
];

const NUMBERS: [(Version, u32); 5] = [
    (Version::V11_8, 18),
    (Version::V12_4, 22),
    (Version::V12_8, 26),
    (Version::V13_0, 130_001),
    (Version::V13_3, 130_301),
];

/// CUPTI's clock is read anew now and then; what lies between two readings is slewing and the readings' own length.
const CLOCK_ERROR_NS: i64 = 20_000;

/// A record: kind, start, end, and the fields after them.
struct Record {
    kind: u32,
    start: i64,
    end: i64,
    fields: Vec<String>,
}

fn records(outcome: &Outcome) -> Vec<Record> {
    let timed = outcome.lines("record").into_iter().filter_map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let kind = words.next()?.parse().unwrap();
        let _offset = words.next()?;
        let (start, end) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Record { kind, start, end, fields: words.collect() })
    });
    timed.collect()
}

fn signed(ns: Option<u64>) -> i64 {
    i64::try_from(ns.unwrap()).unwrap()
}

#[test]
fn every_version_has_its_record_sizes() {
    for (index, (version, number)) in NUMBERS.into_iter().enumerate() {
        let lab = Lab::new(version);
        let outcome = lab.run("observe.c", &[version.cupti(), "2"], "");
        assert_eq!(outcome.lines("version"), [number.to_string()]);
        let mut before: Option<(u32, usize)> = None;
        let mut seen = BTreeMap::new();
        for line in outcome.text.lines().filter(|l| l.starts_with("record") || l.starts_with("end")) {
            let words: Vec<&str> = line.split(' ').collect();
            let offset: usize = if words[0] == "end" { words[1] } else { words[2] }.parse().unwrap();
            if let Some((kind, at)) = before {
                let expected = SIZES.iter().find(|(k, _)| *k == kind).unwrap().1[index];
                assert_eq!(offset - at, expected, "kind {kind} of {}", version.name());
                *seen.entry(kind).or_insert(0) += 1;
            }
            before = (words[0] == "record").then(|| (words[1].parse().unwrap(), offset));
        }
        let kinds: Vec<u32> = seen.into_keys().collect();
        assert_eq!(kinds, [1, 2, 4, 9, 10, 37, 38, 51], "{}", version.name());
        assert_eq!(outcome.misuses(), Vec::<&str>::new());
    }
}

#[test]
fn serial_tracing_has_a_kind_of_its_own_and_is_misuse() {
    for (index, (version, _)) in NUMBERS.into_iter().enumerate() {
        let outcome = Lab::new(version).run("observe.c", &[version.cupti(), "1", "0", "3"], "");
        assert_eq!(outcome.misuses(), ["CUPTI_ACTIVITY_KIND_KERNEL makes kernels run one by one"]);
        let kernels = records(&outcome).iter().filter(|r| r.kind == 3).count();
        assert_eq!(kernels, outcome.ops().iter().filter(|o| o.observed && o.kind == OpKind::Kernel).count());
        let places: Vec<(u32, usize)> = outcome
            .lines("record")
            .iter()
            .map(|l| l.split(' ').collect::<Vec<_>>())
            .map(|w| (w[0].parse().unwrap(), w[1].parse().unwrap()))
            .collect();
        let size = SIZES.iter().find(|(k, _)| *k == 10).unwrap().1[index];
        let followed = places.windows(2).filter(|w| w[0].0 == 3 && w[1].1 > 0);
        assert!(followed.map(|w| w[1].1 - w[0].1).all(|s| s == size), "{}", version.name());
    }
}

#[test]
fn records_of_operations_are_the_truth() {
    for version in Version::ALL {
        let lab = Lab::new(version);
        let outcome = lab.run("observe.c", &[version.cupti(), "5"], "");
        let offset_ns = outcome.offset_ns();
        let mut expected: BTreeMap<(u32, u64), _> = BTreeMap::new();
        for op in outcome.ops().into_iter().filter(|o| o.observed) {
            assert!(expected.insert((op.correlation, op.node), op).is_none());
        }
        for record in records(&outcome).iter().filter(|r| [1, 2, 10].contains(&r.kind)) {
            let number = |i: usize| record.fields[i].parse::<u64>().unwrap();
            let correlation = u32::try_from(number(3)).unwrap();
            let node = if record.kind == 10 { number(4) } else { 0 };
            let op = expected.remove(&(correlation, node)).expect("a record for each operation, once");
            let (start, end) = (signed(op.start_ns), signed(op.end_ns));
            assert_eq!(record.end - record.start, end - start, "durations are exact");
            assert!((record.start - start - offset_ns).abs() < CLOCK_ERROR_NS);
            let place = (u64::from(op.device), u64::from(op.context), u64::from(op.stream));
            assert_eq!((number(0), number(1), number(2)), place);
            match record.kind {
                10 => {
                    assert_eq!((op.kind, op.name.as_str()), (OpKind::Kernel, record.fields[6].as_str()));
                    assert_eq!(number(5), u64::from(op.graph));
                }
                1 => {
                    assert_eq!((op.kind, number(4)), (OpKind::Copy, op.bytes));
                    // To the device from pinned memory (2 to 3), or from it to pageable memory (3 to 1).
                    let fields = if op.name == "HtoD" { (1, 0x23) } else { (2, 0x31) };
                    assert_eq!((number(5), number(6)), fields);
                }
                _ => assert_eq!((op.kind, number(4)), (OpKind::Set, op.bytes)),
            }
        }
        assert!(expected.is_empty(), "operations without a record: {expected:?}");
        // One kernel before and one after CUPTI, and a graph of three traced as a whole.
        assert_eq!(outcome.ops().iter().filter(|o| o.kind == OpKind::Kernel && !o.observed).count(), 5);
        assert_eq!(outcome.lines("dropped"), ["0"]);
    }
}

#[test]
fn calls_and_synchronisations_enclose_what_they_did() {
    let lab = Lab::new(Version::V12_8);
    let outcome = lab.run("observe.c", &[Version::V12_8.cupti(), "20"], "");
    let offset_ns = outcome.offset_ns();
    let records = records(&outcome);
    let calls: BTreeMap<u64, &Record> =
        records.iter().filter(|r| r.kind == 4).map(|r| (r.fields[3].parse().unwrap(), r)).collect();
    for op in outcome.ops().into_iter().filter(|o| o.observed) {
        let call = calls[&u64::from(op.correlation)];
        assert!((call.start - signed(Some(op.launched_ns)) - offset_ns).abs() < CLOCK_ERROR_NS);
        assert!(signed(op.start_ns) > signed(Some(op.launched_ns)));
        assert_eq!(call.fields[2].parse::<u32>().unwrap(), op.thread, "the kernel's id of the thread");
    }
    let mut waits = 0;
    for line in &outcome.truth {
        let Line::Block(block) = line else { continue };
        assert!(block.enter_ns <= block.until_ns && block.until_ns <= block.leave_ns);
        let Some(call) = calls.get(&u64::from(block.correlation)) else { continue };
        assert!(call.end - call.start >= i64::try_from(block.leave_ns - block.enter_ns).unwrap());
        waits += 1;
    }
    // Up to two in each round; a host that is slow finds the device done.
    assert!(waits > 0);
    for sync in records.iter().filter(|r| r.kind == 38) {
        let call = calls[&sync.fields[1].parse::<u64>().unwrap()];
        assert!(call.start <= sync.start && sync.end <= call.end);
    }
}

#[test]
fn a_graph_traced_as_a_whole_spans_its_nodes() {
    let lab = Lab::new(Version::V13_3);
    let outcome = lab.run("observe.c", &[Version::V13_3.cupti(), "1"], "");
    let records = records(&outcome);
    let whole = records.iter().find(|r| r.kind == 51).unwrap();
    let correlation: u32 = whole.fields[0].parse().unwrap();
    let nodes: Vec<_> = outcome.ops().into_iter().filter(|o| o.correlation == correlation).collect();
    assert_eq!(nodes.len(), 3);
    let start = nodes.iter().map(|o| signed(o.start_ns)).min().unwrap();
    let end = nodes.iter().map(|o| signed(o.end_ns)).max().unwrap();
    assert_eq!(whole.end - whole.start, end - start);
    assert!((whole.start - start - outcome.offset_ns()).abs() < CLOCK_ERROR_NS);
    assert_eq!(whole.fields[1].parse::<u32>().unwrap(), nodes[0].graph);
}

#[test]
fn events_measure_device_time() {
    let lab = Lab::new(Version::V12_8);
    let outcome = lab.run("observe.c", &[Version::V12_8.cupti(), "1"], "");
    let events: Vec<_> = outcome.ops().into_iter().filter(|o| o.kind == OpKind::Event).collect();
    let measured: f64 = outcome.lines("elapsed")[0].parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a test")]
    let truth = (signed(events[1].end_ns) - signed(events[0].end_ns)) as f64 / 1e6;
    assert!((measured - truth).abs() < 1e-5, "{measured} {truth}");
}
