//! Faults happen as often as they are asked for, and the truth log says where.

mod common;

use std::collections::BTreeMap;

use common::{Lab, Outcome};
use stallscope_cupti_double::folder::Version;

/// Start and end of each kernel, copy and memset, by correlation and name or bytes.
fn times(outcome: &Outcome) -> Vec<(u32, u64, u64)> {
    let lines = outcome.lines("record").into_iter().map(|l| l.split(' ').collect::<Vec<_>>());
    let device = lines.filter(|w| ["1", "2", "10"].contains(&w[0]));
    device.map(|w| (w[7].parse().unwrap(), w[2].parse().unwrap(), w[3].parse().unwrap())).collect()
}

fn observe(settings: &str) -> Outcome {
    let lab = Lab::new(Version::V12_8);
    lab.run("observe.c", &[Version::V12_8.cupti(), "6"], settings)
}

fn observed(outcome: &Outcome) -> usize {
    outcome.ops().iter().filter(|o| o.observed).count()
}

#[test]
fn each_third_record_ends_at_zero() {
    let outcome = observe("fault.end_zero=3");
    let spoilt: Vec<u32> = times(&outcome).iter().filter(|t| t.2 == 0).map(|t| t.0).collect();
    let said: Vec<u32> = outcome.faults().iter().map(|f| f.correlation).collect();
    assert!(!spoilt.is_empty());
    assert_eq!(spoilt, said);
    // The graph that was traced as a whole is one more record.
    assert_eq!(spoilt.len(), (observed(&outcome) + 1) / 3);
}

#[test]
fn each_fourth_record_ends_before_it_starts() {
    let outcome = observe("fault.end_before_start=4");
    let spoilt: Vec<u32> = times(&outcome).iter().filter(|t| t.2 < t.1).map(|t| t.0).collect();
    assert!(!spoilt.is_empty());
    assert_eq!(spoilt, outcome.faults().iter().map(|f| f.correlation).collect::<Vec<_>>());
}

#[test]
fn dropped_records_are_counted_or_not() {
    for (key, counted) in [("fault.drop", true), ("fault.drop_uncounted", false)] {
        let outcome = observe(&format!("{key}=5"));
        let faults = outcome.faults().len();
        assert!(faults > 0);
        assert_eq!(times(&outcome).len() + faults, observed(&outcome), "{key}");
        let said = if counted { faults } else { 0 };
        assert_eq!(outcome.lines("dropped"), [said.to_string()], "{key}");
    }
}

#[test]
fn a_client_without_buffers_is_told_what_it_missed() {
    let lab = Lab::new(Version::V12_8);
    let name = Version::V12_8.cupti();
    let all = lab.run("observe.c", &[name, "3"], "").lines("record").len();
    let outcome = lab.run("observe.c", &[name, "3", "7"], "");
    assert_eq!(outcome.lines("dropped"), ["7"]);
    assert_eq!(outcome.lines("record").len(), all - 7);
}

#[test]
fn functions_return_the_codes_that_tests_ask_for() {
    for code in [15, 39, 999] {
        let outcome = observe(&format!("fault.code.cuptiActivityEnable={code}"));
        let seven = vec![format!("cuptiActivityEnable {code}"); 7];
        assert_eq!(outcome.lines("code"), seven);
        assert_eq!(outcome.lines("record").len(), 4, "only contexts and streams were dumped");
    }
}

#[test]
fn without_a_driver_each_version_fails_in_its_own_way() {
    for (version, code) in [(Version::V11_8, 15), (Version::V12_8, 15), (Version::V13_0, 999)] {
        let outcome = Lab::new(version).run("observe.c", &[version.cupti(), "1"], "cupti.absent=1");
        let codes = outcome.lines("code");
        assert!(!codes.is_empty());
        assert!(codes.iter().all(|c| c.ends_with(&format!(" {code}"))), "{codes:?}");
    }
}

#[test]
fn delays_are_noted_before_they_end() {
    let outcome = observe("fault.delay_ms.cuptiActivityFlushAll=50");
    let faults: Vec<_> = outcome.faults().iter().map(|f| (f.key.as_str(), f.dose)).collect();
    assert_eq!(faults, [("fault.delay_ms.cuptiActivityFlushAll", 50_000_000)]);
}

#[test]
fn clocks_can_be_wrong() {
    let by_correlation = |outcome: &Outcome| -> BTreeMap<u32, u64> {
        outcome
            .ops()
            .iter()
            .filter(|o| o.observed && o.graph == 0)
            .map(|o| (o.correlation, o.start_ns.unwrap()))
            .collect()
    };
    let outcome = observe("cupti.clock=monotonic; cupti.device_skew_ns=-5000");
    let truth = by_correlation(&outcome);
    let mut seen = 0;
    for (correlation, start, _) in times(&outcome) {
        if let Some(true_start) = truth.get(&correlation) {
            let error = i128::from(start) - i128::from(*true_start) + 5_000;
            assert_eq!(error, 0, "this clock needs no reading");
            seen += 1;
        }
    }
    assert_eq!(seen, truth.len());
}

#[test]
fn a_misspelt_setting_ends_the_process() {
    let lab = Lab::new(Version::V12_8);
    let program = lab.compile(&common::here().join("tests/c/observe.c"));
    let output =
        lab.command(&program, "fault.dropped=1", "log").args(["libcupti.so.12", "1"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("fault.dropped"));
}
