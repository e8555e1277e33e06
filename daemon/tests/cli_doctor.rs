//! `stallscope doctor` on the machine that the test runs on, as root or not.

use std::process::{Command, Output};

use serde_json::Value;

fn doctor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .arg("doctor")
        .args(args)
        .output()
        .expect("the program runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON whatever was found")
}

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}"))
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(hex.trim(), 16).unwrap()
}

#[test]
fn json_says_what_this_machine_is() {
    let output = doctor(&["--json"]);
    let report = json(&output);
    assert_eq!(report["schema_version"], 1);

    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let finding = check(&report, "kernel.release")["finding"].as_str().unwrap();
    assert!(finding.starts_with(release.trim()), "{finding}");
    let types = std::path::Path::new("/sys/kernel/btf/vmlinux").exists();
    assert_eq!(check(&report, "kernel.btf")["status"] == "works", types);
    let set = effective_capabilities();
    for (id, number) in [("privileges.cap_bpf", 39), ("privileges.cap_perfmon", 38)] {
        let may = set & (1 << number | 1 << 21) != 0;
        assert_eq!(check(&report, id)["status"] == "works", may, "{id}");
    }
    assert_eq!(check(&report, "privileges.cap_sys_ptrace")["status"] == "works", set & 1 << 19 != 0);

    for check in report["checks"].as_array().unwrap() {
        let keys = match check["status"].as_str().unwrap() {
            "works" => [].as_slice(),
            "degraded" => &["lost", "remedy"],
            "missing" => &["reason", "remedy"],
            other => panic!("{other}"),
        };
        for key in keys {
            assert!(check[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {check}");
        }
    }

    // The exit code, the verdict and the checks say one thing; nothing can be recorded without the scheduler probe.
    let checks = report["checks"].as_array().unwrap();
    let hindered = checks.iter().any(|c| c["needed"] == true && c["status"] == "missing");
    assert_eq!(report["recording"] == "impossible", hindered);
    assert_eq!(output.status.code(), Some(if hindered { 6 } else { 0 }));
    if !hindered {
        assert_eq!(report["tried"], true);
        assert_eq!(check(&report, "probes.trial")["status"], "works");
        assert_ne!(check(&report, "probes.sched")["status"], "missing");
    }
    if hindered {
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("stallscope: "));
    }
}

#[test]
fn quick_loads_nothing_and_says_so() {
    let report = json(&doctor(&["--json", "--quick"]));
    assert_eq!(report["tried"], false);
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["id"] != "probes.trial"));
    if report["recording"] != "impossible" {
        assert!(report["summary"].as_str().unwrap().contains("not tried"));
    }
}

#[test]
fn text_fits_its_columns_and_ends_with_the_verdict() {
    let output = doctor(&["--quick"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    for group in ["kernel", "privileges", "where this runs", "probes"] {
        assert!(text.lines().any(|line| line == group), "{group} in {text}");
    }
    let verdict = text.rsplit("\n\n").next().unwrap();
    assert!(verdict.starts_with("recording "), "{verdict}");
}

/// Runs it inside of new namespaces; none where they cannot be made here.
fn doctor_in(namespaces: &[&str]) -> Option<Output> {
    let made = Command::new("unshare").args(namespaces).arg("true").status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare {namespaces:?} is not possible here");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_stallscope");
    Some(Command::new("unshare").args(namespaces).args([program, "doctor", "--json"]).output().unwrap())
}

#[test]
fn in_namespaces_of_its_own_recording_is_refused_by_name() {
    let cases: [(&[&str], &str); 2] = [
        (&["--pid", "--fork", "--mount-proc"], "place.pid_namespace"),
        (&["--user", "--map-root-user"], "place.user_namespace"),
    ];
    for (namespaces, id) in cases {
        let Some(output) = doctor_in(namespaces) else { continue };
        let report = json(&output);
        assert_eq!(output.status.code(), Some(6), "{namespaces:?}");
        assert_eq!(report["recording"], "impossible");
        assert_eq!(check(&report, id)["status"], "missing", "{namespaces:?}");
    }
}

/// Without capabilities nothing can be recorded, and what to type is said. Needs root, to give them up.
#[test]
fn without_capabilities_the_exit_code_is_6() {
    let drop = ["--inh-caps=-all", "--bounding-set=-all", "--ambient-caps=-all"];
    let output = Command::new("setpriv")
        .args(drop)
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_stallscope"))
        .args(["doctor", "--json"])
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: no setpriv on this machine");
        return;
    };
    if output.stdout.is_empty() {
        // Not root, or the executable lies where nobody may look.
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
        return;
    }
    let report = json(&output);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(report["recording"], "impossible");
    for id in ["privileges.cap_bpf", "privileges.cap_perfmon"] {
        assert_eq!(check(&report, id)["status"], "missing");
        assert!(check(&report, id)["remedy"].as_str().unwrap().contains("setcap"));
    }
    assert_eq!(check(&report, "privileges.cap_sys_ptrace")["status"], "degraded");
    assert_eq!(report["tried"], false);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("CAP_BPF") && error.contains("sudo"), "{error}");
}
