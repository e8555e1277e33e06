//! Exports of the shipped trace, read by parsers that are not ours and compared with what the generator knows.
//!
//! The parsers (tests/export_parsers) need Perfetto's message definitions and Go's pprof. Where they are not installed the
//! tests say "skipped", or fail if STALLSCOPE_REQUIRE_PARSERS is set, as `cargo xtask test` does.

use std::fs::File;
use std::path::{Path, PathBuf};

use stallscope_core::capture::{CaptureWriter, Device, WriterOptions};
use stallscope_core::rows::Counter;
use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::TimeNs;
use stallscope_tests::export_parsers::parse_export;
use stallscope_tests::host::{COMM_STREAM, COMPUTE_STREAM, Host, Work};
use stallscope_tests::oracle::truth;
use stallscope_tests::{cli, demo};
use tempfile::TempDir;

/// A class of operations by name, and how to tell its members.
type Kind = (&'static str, fn(Work) -> bool);

/// The shipped trace in another format.
fn export(to: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (capture, out) = (folder.path().join("demo.stall"), folder.path().join("demo.out"));
    cli::import(&[demo::trace_path(0), demo::trace_path(1)], &capture).unwrap();
    let words = [Path::new("export"), &capture, Path::new("--to"), Path::new(to), Path::new("-o"), &out];
    let output = cli::run(words).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, out)
}

/// Number and sum of the durations of the operations of all ranks that are of a kind.
fn tally(hosts: &[Host], wanted: fn(Work) -> bool) -> (usize, u64) {
    let durations: Vec<u64> =
        hosts.iter().flat_map(|h| &h.ops).filter(|op| wanted(op.work)).map(|op| op.duration).collect();
    (durations.len(), durations.iter().sum())
}

#[test]
fn perfetto_sees_every_operation_with_its_duration_and_its_launch() {
    let (_folder, trace) = export("perfetto");
    let hosts = demo::job().run();
    let mut expected = Vec::new();
    let kinds: [Kind; 3] = [
        ("kernel", |work| matches!(work, Work::Kernel | Work::AllReduce(_))),
        ("copy", |work| matches!(work, Work::Copy(_))),
        ("fill", |work| matches!(work, Work::Memset(_))),
    ];
    for (category, wanted) in kinds {
        let (count, ns) = tally(&hosts, wanted);
        expected.extend(["--category".to_owned(), format!("{category}={count}:{ns}")]);
    }
    for stream in [COMPUTE_STREAM, COMM_STREAM] {
        let count = hosts.iter().flat_map(|h| &h.ops).filter(|op| op.stream == stream).count();
        expected.extend(["--track".to_owned(), format!("stream {stream}={count}")]);
    }
    let all = hosts.iter().map(|h| h.ops.len()).sum::<usize>();
    expected.extend(["--flows".to_owned(), all.to_string()]);
    parse_export("check_perfetto.py", &trace, &expected).unwrap();
}

#[test]
fn perfetto_sees_every_value_of_a_counter() {
    let folder = tempfile::tempdir().unwrap();
    let (capture, trace) = (folder.path().join("a.stall"), folder.path().join("a.pftrace"));
    let mut writer = CaptureWriter::new(File::create(&capture).unwrap(), WriterOptions::default()).unwrap();
    let device = |kind, id: &str| Device { kind, id: id.to_owned(), ..Device::default() };
    let host = writer.add_device(device(device_kind::HOST, "node7"));
    let gpu = writer.add_device(device(device_kind::GPU, "GPU-1"));
    let names = ["cpu pressure some (us)", "sm clock (MHz)"].map(|name| writer.intern(name));
    for at in 0..7 {
        let row = |duration_ns, name| Counter { start: TimeNs(at * 1_000), duration_ns, name, value: 5 };
        writer.push_counter(host, row(1_000, names[0])).unwrap();
        writer.push_counter(gpu, row(0, names[1])).unwrap();
    }
    writer.finish().unwrap();
    let words =
        [Path::new("export"), &capture, Path::new("--to"), Path::new("perfetto"), Path::new("-o"), &trace];
    let output = cli::run(words).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The unit is the track's, and no part of its name.
    let counts = ["cpu pressure some=7", "sm clock=7"];
    let expected = counts.into_iter().flat_map(|count| ["--counter".to_owned(), count.to_owned()]);
    parse_export("check_perfetto.py", &trace, &expected.collect::<Vec<_>>()).unwrap();
}

#[test]
fn pprof_sees_all_idle_time() {
    let (_folder, profile) = export("pprof");
    let idle: u64 = demo::job().run().iter().map(|host| truth(host).direct.idle_ns).sum();
    parse_export("check_pprof.py", &profile, &["--total".to_owned(), format!("gpu_idle={idle}")]).unwrap();
}

#[test]
fn folded_stacks_hold_all_idle_time() {
    let (_folder, folded) = export("folded");
    let text = std::fs::read_to_string(folded).unwrap();
    let weights = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
    let idle: u64 = demo::job().run().iter().map(|host| truth(host).direct.idle_ns).sum();
    assert_eq!(weights.sum::<u64>(), idle);
}
