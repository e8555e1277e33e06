//! What the program does with files that are missing, foreign or broken: it says what is wrong and why, ends with the
//! documented exit code, and never with a panic or a ledger that does not close.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use stallscope_core::capture::{CaptureWriter, Device, Process, Source, Thread, WriterOptions};
use stallscope_core::rows::{GpuOp, Launch};
use stallscope_schemas::record::{CopyKind, OpKind, device_kind};
use stallscope_schemas::units::{CorrelationId, StringId, TimeNs};
use tempfile::TempDir;

/// Exit codes as documented in the program's failure module.
const INPUT: i32 = 3;
const OUTPUT: i32 = 4;

fn stallscope(args: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallscope")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every command that reads `input`; output goes into `folder`.
fn readers(input: &Path, folder: &Path) -> Vec<Vec<PathBuf>> {
    let out = folder.join("out");
    let line = |words: &[&str]| -> Vec<PathBuf> {
        let word = |w: &&str| match *w {
            "IN" => input.to_owned(),
            "OUT" => out.clone(),
            other => PathBuf::from(other),
        };
        words.iter().map(word).collect()
    };
    vec![
        line(&["info", "IN"]),
        line(&["report", "IN"]),
        line(&["report", "IN", "--json"]),
        line(&["diff", "IN", "IN"]),
        line(&["flamegraph", "IN", "--weight", "gpu-idle", "-o", "OUT"]),
        line(&["export", "IN", "--to", "folded", "-o", "OUT"]),
        line(&["export", "IN", "--to", "pprof", "-o", "OUT"]),
        line(&["export", "IN", "--to", "perfetto", "-o", "OUT"]),
    ]
}

fn run(line: &[PathBuf]) -> Output {
    stallscope(&line.iter().map(PathBuf::as_path).collect::<Vec<_>>())
}

/// Every reader refuses the input with the code for it, names the file and says why; no output is left behind.
fn assert_refused(input: &Path, folder: &Path, why: &str) {
    let mut lines = readers(input, folder);
    lines.push(["import".into(), input.to_owned(), "-o".into(), folder.join("out")].to_vec());
    for line in lines {
        let output = run(&line);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(INPUT), "{line:?}: {said}");
        assert!(said.contains(&input.display().to_string()), "{line:?} does not name the file: {said}");
        assert!(said.to_lowercase().contains(why), "{line:?} does not say {why:?}: {said}");
        assert!(!folder.join("out").exists(), "{line:?} left a file behind");
    }
}

/// A capture of several segments with operations on one device.
fn capture_bytes() -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let source = writer.add_source(Source { path: "made".to_owned(), format: "live".to_owned() });
    let process = writer.add_process(Process { source, pid: 7, ..Process::default() });
    let thread = writer.add_thread(Thread { process, tid: 7, ..Thread::default() });
    let device = writer.add_device(Device {
        source,
        kind: device_kind::GPU,
        id: "GPU-0".to_owned(),
        processes: vec![process],
        ..Device::default()
    });
    let (kernel, call) = (writer.intern("kernel"), writer.intern("cudaLaunchKernel"));
    for at in 0..400_i64 {
        let start = TimeNs(1_700_000_000_000_000_000 + at * 10_000);
        let launch = Launch { thread, start: TimeNs(start.0 - 6_000), duration_ns: 4_000, name: call };
        writer.push_gpu_op(device, op(start, kernel, at, launch)).unwrap();
        if at % 100 == 99 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap().0
}

fn op(start: TimeNs, name: StringId, at: i64, launch: Launch) -> GpuOp {
    GpuOp {
        start,
        duration_ns: 7_000 + at.unsigned_abs() % 5,
        name,
        stream: 7,
        kind: OpKind::Kernel,
        flags: 0,
        correlation: CorrelationId(at.unsigned_abs()),
        bytes: 0,
        copy_kind: CopyKind::Unknown,
        launch: Some(launch),
    }
}

fn scratch(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.stall");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The report on a damaged capture: a whole ledger, or a refusal. Says which operations are left.
fn report_or_refusal(path: &Path, what: &str) -> Option<Value> {
    let output = stallscope(&[Path::new("report"), path, Path::new("--json")]);
    let said = stderr(&output);
    match output.status.code() {
        Some(0) => {}
        Some(INPUT) => {
            assert!(said.contains(&path.display().to_string()), "{what}: {said}");
            return None;
        }
        code => panic!("{what}: ended with {code:?}: {said}"),
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for device in report["devices"].as_array().unwrap() {
        let leaves: u64 = device["direct"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(device["wall_ns"].as_u64(), Some(leaves), "{what}: the leaves do not sum to wall time");
    }
    Some(report)
}

fn operations(report: &Value) -> u64 {
    report["devices"].as_array().unwrap().iter().filter_map(|d| d["operations"].as_u64()).sum()
}

fn has_losses(report: &Value) -> bool {
    report["capture"]["losses"].as_array().is_some_and(|losses| !losses.is_empty())
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert_refused(&folder.path().join("absent.stall"), folder.path(), "no such file");
}

#[test]
fn a_directory_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("traces");
    std::fs::create_dir(&input).unwrap();
    assert_refused(&input, folder.path(), "is a directory");
}

#[test]
fn an_empty_file_is_called_empty() {
    let (folder, path) = scratch(b"");
    assert_refused(&path, folder.path(), "empty");
}

#[test]
fn a_text_file_is_told_from_a_trace_and_the_known_formats_are_named() {
    let (folder, path) = scratch(b"step loss lr\n1 0.5 0.1\n");
    assert_refused(&path, folder.path(), "kineto");
}

#[test]
fn json_without_gpu_activity_is_called_so() {
    let (folder, path) =
        scratch(br#"{"traceEvents": [{"ph": "X", "name": "f", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]}"#);
    assert_refused(&path, folder.path(), "no gpu activity");
}

#[test]
fn a_capture_of_a_newer_version_asks_for_a_newer_program() {
    let mut bytes = capture_bytes();
    bytes[8] = 99;
    let (folder, path) = scratch(&bytes);
    for line in readers(&path, folder.path()) {
        let output = run(&line);
        assert_eq!(output.status.code(), Some(INPUT), "{line:?}");
        let said = stderr(&output);
        assert!(said.contains("version 99") && said.contains("newer stallscope"), "{line:?}: {said}");
    }
}

#[test]
fn a_whole_capture_is_reported_without_losses() {
    let (folder, path) = scratch(&capture_bytes());
    let report = report_or_refusal(&path, "whole").unwrap();
    assert_eq!(operations(&report), 400);
    assert!(!has_losses(&report));
    for line in readers(&path, folder.path()) {
        let output = run(&line);
        assert_eq!(output.status.code(), Some(0), "{line:?}: {}", stderr(&output));
        let _ = std::fs::remove_file(folder.path().join("out"));
    }
}

#[test]
fn a_file_of_someone_else_is_not_overwritten() {
    let (folder, path) = scratch(&capture_bytes());
    let notes = folder.path().join("out");
    std::fs::write(&notes, "do not lose this").unwrap();
    for line in readers(&path, folder.path()).into_iter().filter(|line| line.contains(&notes)) {
        assert_eq!(run(&line).status.code(), Some(OUTPUT), "{line:?}");
    }
    assert_eq!(std::fs::read(&notes).unwrap(), b"do not lose this");
}

#[test]
fn a_flipped_bit_is_noticed_and_costs_no_more_than_its_segment() {
    let bytes = capture_bytes();
    for at in (0..bytes.len()).step_by(61) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let (_folder, path) = scratch(&flipped);
        let what = format!("bit flipped in byte {at}");
        match report_or_refusal(&path, &what) {
            // The head of the file is not covered by any segment's checksum.
            None => assert!(at < 16, "{what}: the other segments can still be read"),
            Some(report) => {
                let left = operations(&report);
                assert!(at < 16 || has_losses(&report), "{what}: not noticed");
                assert!(left >= 300, "{what}: {left} of 400 operations are left");
            }
        }
    }
}

#[test]
fn a_capture_cut_anywhere_opens_up_to_its_last_whole_segment() {
    let bytes = capture_bytes();
    let mut before = 0;
    for end in (0..bytes.len()).step_by(97) {
        let (_folder, path) = scratch(&bytes[..end]);
        let left =
            report_or_refusal(&path, &format!("cut at byte {end}")).map_or(0, |report| operations(&report));
        assert_eq!(left % 100, 0, "cut at byte {end}: part of a segment");
        assert!(left >= before, "cut at byte {end}: {left} operations after {before}");
        before = left;
    }
    assert_eq!(before, 300, "the cut before the last takes one segment");
}

/// What is cut off may have been records of GPUs or of threads: nothing is said of one kind alone.
#[test]
fn a_capture_of_which_the_head_is_left_says_that_nothing_can_be_read() {
    let bytes = capture_bytes();
    let (folder, path) = scratch(&bytes[..40]);
    let mut lines = readers(&path, folder.path());
    // Its head can be shown.
    lines.retain(|line| line[0] != Path::new("info"));
    for weight in ["gpu", "off-cpu", "wait"] {
        let words = ["flamegraph", "IN", "--weight", weight, "-o", "OUT"].map(PathBuf::from);
        lines.push(words.map(|word| if word == Path::new("IN") { path.clone() } else { word }).to_vec());
    }
    for line in lines {
        let output = run(&line);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(INPUT), "{line:?}: {said}");
        assert!(said.contains("nothing of it can be read"), "{line:?}: {said}");
        assert!(said.contains("GPU operation") && said.contains("thread"), "{line:?}: {said}");
        assert!(said.contains("earlier copy") && said.contains("again"), "{line:?}: {said}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named_with_what_to_do() {
    let (folder, path) = scratch(&capture_bytes());
    for output in [folder.path().join("absent/out"), folder.path().to_owned()] {
        for mut line in readers(&path, folder.path()) {
            let Some(at) = line.iter().position(|word| word == Path::new("-o")) else { continue };
            line[at + 1] = output.clone();
            let ended = run(&line);
            let said = stderr(&ended);
            assert_eq!(ended.status.code(), Some(OUTPUT), "{line:?}: {said}");
            assert!(said.contains(&output.display().to_string()), "{line:?}: {said}");
            assert!(said.contains("check that the folder exists"), "{line:?}: {said}");
        }
    }
}

#[test]
fn an_import_whose_output_cannot_be_written_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/demo/rank0.json.gz");
    let output = folder.path().join("absent/run.stall");
    let ended = stallscope(&[Path::new("import"), &trace, Path::new("-o"), &output]);
    assert_eq!(ended.status.code(), Some(OUTPUT), "{}", stderr(&ended));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
