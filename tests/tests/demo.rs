//! The shipped trace: it is what its generator makes, and the program's ledger of it is the true one.

use serde_json::Value;
use stallscope_tests::{cli, demo};

#[test]
fn the_committed_traces_are_what_the_generator_makes() {
    for (rank, made) in (0..).zip(demo::traces().unwrap()) {
        let committed = demo::read_gz(&demo::trace_path(rank)).unwrap();
        let at = made.iter().zip(&committed).position(|(a, b)| a != b);
        assert!(
            made == committed,
            "rank {rank} differs from byte {at:?} on; cargo run -p stallscope-tests --bin generate -- demo"
        );
        let size = std::fs::metadata(demo::trace_path(rank)).unwrap().len();
        assert!(size < 75_000, "{size} bytes: the fixture is meant to stay small");
    }
    let committed: demo::Answers =
        serde_json::from_slice(&std::fs::read(demo::answers_path()).unwrap()).unwrap();
    assert_eq!(committed, demo::answers());
}

/// Compares every number under `expected` with the same key under `got`.
fn assert_numbers(rank: &Value, group: &str, expected: &Value, got: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(got[key], *value, "rank {rank}, {group}.{key}, ns");
    }
}

#[test]
fn the_report_on_the_shipped_trace_is_true_to_the_nanosecond() {
    let report = cli::report(&[demo::trace_path(0), demo::trace_path(1)]).unwrap();
    let truth = serde_json::to_value(demo::answers()).unwrap();
    let devices = report["devices"].as_array().unwrap();
    let ranks = truth["ranks"].as_array().unwrap();
    assert_eq!(devices.len(), ranks.len());
    for (device, truth) in devices.iter().zip(ranks) {
        let rank = &truth["rank"];
        assert_eq!(device["rank"], *rank);
        assert_eq!(device["wall_ns"], truth["wall_ns"], "rank {rank}");
        for group in ["direct", "totals", "idle"] {
            assert_numbers(rank, group, &truth[group], &device[group]);
        }
        assert_eq!(device["steps"]["count"], demo::job().steps, "rank {rank}");
    }
}

#[test]
fn the_worst_idleness_on_the_shipped_trace_is_the_slow_data_loader() {
    let report = cli::report(&[demo::trace_path(0), demo::trace_path(1)]).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|f| f["category"] == "idle").unwrap();
    let says = format!("{} {}", finding["summary"], finding["evidence"]);
    assert!(says.contains("DataLoader"), "{says}");
    assert_eq!(finding["severity"], "critical", "{finding:#}");
    assert_eq!(finding["device"], report["devices"][1]["id"]);
}
