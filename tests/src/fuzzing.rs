//! What fuzzing does with an input: the bodies of the fuzz targets, callable from ordinary tests.
//!
//! An input may be refused; it may not panic, hang, take memory without a bound, or yield a ledger that does not close.

mod checksums;
mod database;
mod host_capture;
mod ring;
mod wire;

use std::io::Write;
use std::path::Path;

use stallscope_core::capture::{Capture, CaptureWriter, WriterOptions};
use stallscope_core::hang;
use stallscope_core::ingest::Ingest;
use stallscope_core::ledger::{self, CpuLeaf, CpuLedger, Ledgers, all_ledgers, cpu::cpu_ledger};
use stallscope_core::report::{Report, render};
use stallscope_core::rows::{
    ApiCall, BlockIo, Collective, CollectiveCall, Connection, CpuSample, DeviceSpan, FileIo, GpuOp,
    GroupState, HostSpan, LossWindow, PageFaults, PipelineOp, Row, StreamWait, ThreadLoss, ThreadPreempt,
    ThreadSpan, ThreadWait,
};
use stallscope_core::{weights, whatif};
use stallscope_import::import_file;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::DeviceId;

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// The targets, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("kineto", kineto),
    ("nsys", nsys),
    ("stragglers", stragglers),
    ("flight_recorder", flight_recorder),
    ("capture", capture),
    ("wire", wire),
    ("ring", ring),
];

/// Imports the input as a trace of any kind that it looks like.
pub fn kineto(data: &[u8]) {
    let Ok(mut file) = scratch_file() else { return };
    if file.write_all(data).is_ok() {
        import_and_read(file.path());
    }
}

/// Imports the input as an SQLite file, or a database whose tables and cells the input decides on.
pub fn nsys(data: &[u8]) {
    let Ok(mut file) = scratch_file() else { return };
    let made = if data.starts_with(b"SQLite format 3\0") {
        file.write_all(data).is_ok()
    } else {
        database::make(data, file.path()).is_ok()
    };
    if made {
        import_and_read(file.path());
    }
}

/// Imports the input as a Parquet file, or one of a job whose shape the input decides on.
pub fn stragglers(data: &[u8]) {
    let Ok(mut file) = scratch_file() else { return };
    let whole = data.starts_with(b"PAR1");
    let made = if whole { data.to_vec() } else { crate::stragglers::job_of(data).trace() };
    if file.write_all(&made).is_ok() {
        import_and_read(file.path());
    }
}

/// Imports the input as a Flight Recorder dump, a pickle if it does not look like JSON.
pub fn flight_recorder(data: &[u8]) {
    let Ok(mut file) = scratch_file() else { return };
    let head: &[u8] = if data.starts_with(b"{") || data.starts_with(b"\x80") { b"" } else { b"\x80\x02" };
    if file.write_all(head).is_ok() && file.write_all(data).is_ok() {
        import_and_read(file.path());
    }
}

/// Opens the input as a capture: as it is, with the checksums of its headers mended, and with all of them mended, so
/// that checksums do not keep the fuzzer out of what lies behind them.
pub fn capture(data: &[u8]) {
    read(data.to_vec());
    let headers_mended = checksums::mend_headers(data.to_vec());
    if let Some(all_mended) = checksums::mend_batches(&headers_mended) {
        read(all_mended);
    }
    read(headers_mended);
}

/// Decodes the input as records of the kernel's rings.
pub fn wire(data: &[u8]) {
    wire::read(data);
}

/// Does to an agent's ring what the input says, and reads it.
pub fn ring(data: &[u8]) {
    ring::read(data);
}

/// A file in memory where the system has such a place.
fn scratch_file() -> std::io::Result<tempfile::NamedTempFile> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::NamedTempFile::new_in(memory) } else { tempfile::NamedTempFile::new() }
}

fn import_and_read(path: &Path) {
    let Ok(writer) = CaptureWriter::new(Vec::new(), WriterOptions::default()) else { return };
    let mut ingest = Ingest::new(writer);
    let imported = import_file(path, &mut ingest, &mut |_, _| {});
    // What was read before the importer gave up has to be readable all the same.
    let finished = ingest.finish();
    drop(imported);
    if let Ok((bytes, _)) = finished {
        let losses = read(bytes);
        assert_eq!(losses, 0, "a capture of our own has damaged batches");
    }
}

/// Reads everything in a capture and works out its ledgers; the number of batches that were damaged.
fn read(bytes: Vec<u8>) -> u64 {
    let Ok(capture) = Capture::open(bytes) else { return 0 };
    // A hostile header can claim many rows in few bytes; what decoding them costs is bounded per batch.
    let rows: u64 = capture.sizes().iter().map(|s| s.1).sum();
    if rows > 1 << 20 {
        return 0;
    }
    count::<GpuOp>(&capture);
    count::<ApiCall>(&capture);
    count::<HostSpan>(&capture);
    count::<LossWindow>(&capture);
    count::<StreamWait>(&capture);
    count::<Collective>(&capture);
    count::<DeviceSpan>(&capture);
    count::<ThreadSpan>(&capture);
    count::<ThreadWait>(&capture);
    count::<ThreadPreempt>(&capture);
    count::<ThreadLoss>(&capture);
    count::<CpuSample>(&capture);
    count::<CollectiveCall>(&capture);
    count::<PageFaults>(&capture);
    count::<BlockIo>(&capture);
    count::<FileIo>(&capture);
    count::<Connection>(&capture);
    count::<GroupState>(&capture);
    if let Some(job) = hang::job_of(&capture) {
        for hang in hang::judge(&job) {
            assert!(hang.heard <= hang.members, "more ranks were heard than belong to a group");
        }
    }
    count::<PipelineOp>(&capture);
    // One device after the other: threads that end while libFuzzer looks for leaks pass for one.
    if let Err(error) = all_ledgers(&capture, ledger::Options { in_turn: true, ..Default::default() }) {
        panic!("{error}");
    }
    hosts(&capture);
    pipeline(&capture);
    let damaged = LossCounter::BatchDamaged.id();
    capture.losses().iter().filter(|(counter, _)| *counter == damaged).map(|(_, count)| count).sum()
}

/// What only a pipelined job has: an answer to what if, or why there is none.
fn pipeline(capture: &Capture<Vec<u8>>) {
    let Some(answer) = whatif::analyse(capture) else { return };
    assert_eq!(answer.slowdown.is_none(), answer.undecided.is_some());
    let numbers = answer.slowdown.iter().chain(&answer.m_w).chain(&answer.m_s);
    assert!(numbers.copied().all(f64::is_finite), "{answer:?}");
}

/// What only a recording of a host has: ledgers of ranks on CPUs, and what is said of them.
fn hosts(capture: &Capture<Vec<u8>>) {
    let options = ledger::Options { waker_stacks: true, ..ledger::Options::default() };
    let mut cpus = Vec::new();
    for (number, device) in (0u32..).zip(capture.tables().devices()) {
        // Ledgers are kept for the report: a hostile file may name any number of devices.
        if device.kind == device_kind::CPU && cpus.len() < 16 {
            match cpu_ledger(capture, DeviceId(number), options) {
                Ok(ledger) => cpus.extend(ledger),
                Err(error) => panic!("{error}"),
            }
        }
    }
    if cpus.is_empty() {
        return;
    }
    for ledger in &cpus {
        let causes: u64 = ledger.causes.ranked().iter().map(|(_, amount)| amount.ns).sum();
        assert_eq!(causes, ledger.wall_ns, "causes sum to the wall time");
    }
    let tables = capture.tables();
    let blocked = |ledger: &CpuLedger| -> u64 {
        CpuLeaf::ALL.iter().filter(|leaf| leaf.is_blocked()).map(|&leaf| ledger.direct.get(leaf)).sum()
    };
    assert_eq!(weights::wait(&cpus, tables).total_ns(), cpus.iter().map(blocked).sum::<u64>());
    assert!(weights::off_cpu(capture).total_ns() < u64::MAX);
    let mut ledgers = Ledgers::default();
    ledgers.cpus = cpus;
    let report = Report::build(capture, &ledgers);
    assert!(report.findings.iter().all(|f| (0.0..=1.0).contains(&f.share)), "{:?}", report.findings);
    assert!(render(&report, &mut String::new()).is_ok());
}

fn count<R: Row>(capture: &Capture<Vec<u8>>) -> usize {
    capture.keys(R::KIND).into_iter().map(|key| capture.rows::<R>(key).count()).sum()
}

/// Small inputs for the committed corpus: file name and content, by target.
///
/// # Errors
/// When a model cannot be written.
pub fn corpus() -> anyhow::Result<Vec<(&'static str, &'static str, Vec<u8>)>> {
    let tiny =
        crate::job::Job { ranks: 1, steps: 1, layers: 1, slow_steps: Vec::new(), ..crate::demo::job() };
    let mut trace = Vec::new();
    for host in tiny.run() {
        crate::kineto_json::write(&host, 1, &mut trace)?;
    }
    let legacy = br#"[{"ph":"B","name":"f","pid":1,"tid":1,"ts":10},{"ph":"E","pid":1,"tid":1,"ts":20},
{"ph":"X","cat":"Runtime","name":"cudaLaunchKernel","pid":1,"tid":1,"ts":11,"dur":3,"args":{"correlation":5}},
{"ph":"X","cat":"Kernel","name":"k","pid":"stream","tid":"stream 7","ts":15.5,"dur":2,"args":{"device":0,"stream":7,"correlation":5}}]"#;
    Ok(vec![
        ("kineto", "one-step.json", trace),
        ("kineto", "legacy-array.json", legacy.to_vec()),
        ("nsys", "rows.bin", database::sample()),
        ("nsys", "tiny.sqlite", database::sample_file()?),
        ("stragglers", "two-stages.parquet", crate::stragglers::Job::tiny().trace()),
        ("stragglers", "snappy.parquet", include_bytes!("../fixtures/stragglers/snappy.parquet").to_vec()),
        ("stragglers", "two-chunks.bin", vec![1, 1, 1, 1, 0, 9, 1, 130]),
        ("capture", "two-devices.stall", crate::big_capture::write(Vec::new(), 2, 120)?),
        ("capture", "one-device.stall", crate::big_capture::write(Vec::new(), 1, 9)?),
        ("capture", "two-ranks.stall", host_capture::write(6)?),
        ("wire", "each-type.bin", wire::sample()),
        ("wire", "calls.bin", wire::calls()),
        ("ring", "each-kind.bin", ring::sample()),
    ])
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::RecordKind;

    use super::{Capture, TARGETS, capture, corpus, read};

    #[test]
    fn targets_take_the_corpus_and_every_cut_of_it() {
        for (target, _, bytes) in corpus().unwrap() {
            let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
            for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1).chain([bytes.len()]) {
                body(&bytes[..end]);
            }
        }
    }

    #[test]
    fn the_corpus_has_every_kind_of_row() {
        let captures: Vec<_> = corpus()
            .unwrap()
            .into_iter()
            .filter(|(target, ..)| *target == "capture")
            .map(|(_, _, bytes)| Capture::open(bytes).unwrap())
            .collect();
        for kind in 8..=17 {
            let kind = RecordKind::from_id(kind).unwrap();
            assert!(captures.iter().any(|capture| !capture.keys(kind).is_empty()), "{kind:?}");
        }
    }

    #[test]
    fn flipped_bytes_reach_the_decoders_behind_the_checksums() {
        let (_, _, bytes) =
            corpus().unwrap().into_iter().find(|(_, name, _)| *name == "one-device.stall").unwrap();
        assert_eq!(read(bytes.clone()), 0);
        for at in (16..bytes.len()).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            capture(&flipped);
        }
    }
}
