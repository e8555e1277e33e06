//! What users see, held fast: help, the report of the shipped trace, its JSON. A change shows up as a diff of a snapshot
//! (`cargo insta review`, or INSTA_UPDATE=always and a look at git diff).

use std::path::Path;
use std::process::Command;

fn stallscope(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .args(args)
        .env("COLUMNS", "100")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/demo"))
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

/// The shipped trace as a capture, in a folder that lives as long as the result.
fn capture() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("demo.stall").to_str().expect("a path of text").to_owned();
    stallscope(&["import", "rank0.json.gz", "rank1.json.gz", "-o", &path, "--label", "job=demo"]);
    (folder, path)
}

#[test]
fn help_of_every_command() {
    let mut text = stallscope(&["--help"]);
    for command in ["record", "ps", "doctor", "import", "info", "report", "diff", "flamegraph", "export"] {
        text.push_str(&format!("\n$ stallscope {command} --help\n"));
        text.push_str(&stallscope(&[command, "--help"]));
    }
    insta::assert_snapshot!("help", text);
}

#[test]
fn report_of_the_shipped_trace() {
    let (_folder, path) = capture();
    insta::assert_snapshot!("report", stallscope(&["report", &path]));
    let mut json: serde_json::Value =
        serde_json::from_str(&stallscope(&["report", "--json", &path])).expect("JSON");
    // Every step has the same keys: one shows them.
    for device in json["devices"].as_array_mut().expect("devices") {
        let steps = device["steps"]["each"].as_array_mut().expect("steps");
        steps.truncate(1);
    }
    insta::assert_snapshot!("report_json", format!("{json:#}"));
}

#[test]
fn comparison_of_the_two_ranks() {
    insta::assert_snapshot!("diff", stallscope(&["diff", "rank0.json.gz", "rank1.json.gz"]));
}

#[test]
fn a_report_does_not_depend_on_the_number_of_threads_or_the_run() {
    let (_folder, path) = capture();
    let first = stallscope(&["report", "--json", &path]);
    for _ in 0..3 {
        assert_eq!(stallscope(&["report", "--json", &path]), first);
    }
}
