//! Text of Kineto traces per second, from bytes in memory to a capture that is thrown away.
//!
//! The traces are real ones of the shared ground truth, repeated with shifted times and correlation ids, so that the caches
//! and the join work as on one long trace. Where there is no ground truth a made-up trace stands in.

use std::io::{Read, Write};
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use stallscope_core::capture::{CaptureWriter, WriterOptions};
use stallscope_core::ingest::Ingest;
use stallscope_import::Format;
use stallscope_import::kineto::{Limits, import_from};

/// Length of a benchmark's text.
const TEXT_BYTES: usize = 100 << 20;

/// Adds `shift` to every whole number that follows `key`.
fn shifted(text: &str, key: &str, shift: u64) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 64);
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (before, after) = rest.split_at(at + key.len());
        out.push_str(before);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        match after[..digits].parse::<u64>() {
            Ok(number) => out.push_str(&(number + shift).to_string()),
            Err(_) => out.push_str(&after[..digits]),
        }
        rest = &after[digits..];
    }
    out.push_str(rest);
    out
}

/// Events of a trace of the ground truth, as text without the array's brackets.
fn events(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ground-truth").join(name);
    let Ok(file) = std::fs::File::open(path) else { return made_up() };
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("a whole trace");
    let key = "\"traceEvents\": [";
    let start = text.find(key).expect("events") + key.len();
    // The array ends at the last bracket after which no event begins.
    let last = text.rfind("\"ph\":").expect("events");
    let end = last + text[last..].find("\n  }").map_or(0, |at| at + 4);
    text[start..end].to_owned()
}

fn made_up() -> String {
    let event = |i: u64| {
        format!(
            r#"{{"ph": "X", "cat": "cpu_op", "name": "aten::op{}", "pid": 1, "tid": 1, "ts": {}.125, "dur": 3.5,
            "args": {{"External id": {i}, "Input Dims": [[1, 2], [3]], "Input type": ["float", "float"]}}}}"#,
            i % 100,
            i * 10
        )
    };
    let kernel =
        r#"{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": 1, "dur": 1, "args": {}}"#;
    (0..50_000).map(event).chain([kernel.to_owned()]).collect::<Vec<_>>().join(",\n")
}

fn repeated(events: &str) -> String {
    let mut text = String::from("{\"traceEvents\": [");
    for round in 0.. {
        if text.len() + events.len() > TEXT_BYTES {
            break;
        }
        if round > 0 {
            text.push(',');
        }
        let moved = shifted(events, "\"ts\": ", round * 3_000_000);
        text.push_str(&shifted(&moved, "\"correlation\": ", round * 1_000_000));
    }
    text.push_str("]}");
    text
}

fn import(bytes: &[u8], format: Format) -> u64 {
    let writer =
        CaptureWriter::new(std::io::sink(), WriterOptions::default()).expect("a sink takes everything");
    let mut ingest = Ingest::new(writer);
    let imported =
        import_from(Path::new("bench"), bytes, format, Limits::default(), &mut ingest).expect("a trace");
    ingest.finish().expect("a sink takes everything");
    imported.gpu_ops
}

fn kineto(criterion: &mut Criterion) {
    for (name, file) in [
        ("resnet50", "kineto/resnet50_num_workers_0.json.gz"),
        ("timesformer", "tracelens/h100/facebook_timesformer-base-finetuned-k400__1016002.json.gz"),
    ] {
        let text = repeated(&events(file));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(text.as_bytes()).expect("a Vec takes everything");
        let packed = encoder.finish().expect("a Vec takes everything");
        let mut group = criterion.benchmark_group("kineto");
        group.sample_size(10).throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{name}/json"), |b| b.iter(|| import(text.as_bytes(), Format::Json)));
        group.bench_function(format!("{name}/json.gz"), |b| b.iter(|| import(&packed, Format::JsonGz)));
        group.finish();
    }
}

criterion_group!(benches, kineto);
criterion_main!(benches);
