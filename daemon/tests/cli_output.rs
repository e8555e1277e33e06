//! What the program writes appears whole or not at all, and never in place of something that is not its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn stallscope(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallscope")).args(args).current_dir(folder).output().unwrap()
}

/// A folder with a copy of the shipped trace and a capture of it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/demo");
    for rank in ["rank0.json.gz", "rank1.json.gz"] {
        fs::copy(fixture.join(rank), folder.path().join(rank)).unwrap();
    }
    assert!(stallscope(folder.path(), &["import", "rank0.json.gz", "-o", "a.stall"]).status.success());
    folder
}

/// Runs a command that must refuse, and checks that the file is as it was.
fn refuses(folder: &Path, file: &str, args: &[&str]) {
    let path = folder.join(file);
    let before = fs::read(&path).unwrap();
    let output = stallscope(folder, args);
    assert_eq!(output.status.code(), Some(4), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(&path).unwrap(), before, "{args:?} changed {file}");
    assert_eq!(leftovers(folder), Vec::<PathBuf>::new(), "{args:?}");
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    names.filter(|p| p.extension().is_some_and(|e| e == "partial")).collect()
}

#[test]
fn an_input_is_never_replaced_even_by_force() {
    let folder = folder();
    let folder = folder.path();
    fs::hard_link(folder.join("rank0.json.gz"), folder.join("link.pb.gz")).unwrap();
    refuses(
        folder,
        "rank0.json.gz",
        &["export", "rank0.json.gz", "--to", "pprof", "-o", "rank0.json.gz", "--force"],
    );
    refuses(folder, "rank0.json.gz", &["export", "rank0.json.gz", "--to", "pprof", "-o", "link.pb.gz"]);
    refuses(folder, "a.stall", &["flamegraph", "a.stall", "-o", "a.stall", "--force"]);
    refuses(folder, "rank0.json.gz", &["import", "rank0.json.gz", "-o", "rank0.json.gz", "--force"]);
}

#[test]
fn a_foreign_file_is_replaced_only_by_force() {
    let folder = folder();
    let folder = folder.path();
    for (file, args) in [
        ("backup.tar.gz", ["export", "a.stall", "--to", "pprof", "-o", "backup.tar.gz"].as_slice()),
        ("notes.txt", &["export", "a.stall", "--to", "perfetto", "-o", "notes.txt"]),
        ("pom.xml", &["flamegraph", "a.stall", "-o", "pom.xml"]),
        ("train.py", &["import", "rank0.json.gz", "-o", "train.py"]),
    ] {
        fs::write(folder.join(file), "\nmine").unwrap();
        refuses(folder, file, args);
        let forced: Vec<&str> = args.iter().copied().chain(["--force"]).collect();
        assert!(stallscope(folder, &forced).status.success(), "{forced:?}");
        assert_ne!(fs::read(folder.join(file)).unwrap(), b"\nmine");
    }
}

#[test]
fn an_earlier_output_is_replaced_without_a_word() {
    let folder = folder();
    for _ in 0..2 {
        for args in [
            ["import", "rank1.json.gz", "-o", "a.stall"].as_slice(),
            &["flamegraph", "a.stall", "-o", "a.svg"],
            &["export", "a.stall", "--to", "pprof", "-o", "a.pb.gz"],
            &["export", "a.stall", "--to", "perfetto", "-o", "a.pftrace"],
            &["export", "a.stall", "--to", "folded", "-o", "a.folded"],
        ] {
            let output = stallscope(folder.path(), args);
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
    let folder = folder();
    let target = folder.path().join("target.svg");
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, folder.path().join("link.svg")).unwrap();
    assert!(stallscope(folder.path(), &["flamegraph", "a.stall", "-o", "link.svg"]).status.success());
    assert!(fs::symlink_metadata(folder.path().join("link.svg")).unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().contains("<svg"));
}

#[test]
fn one_bad_file_of_several_is_left_out_and_said() {
    let folder = folder();
    fs::write(folder.path().join("bad.json"), "{").unwrap();
    let args = ["import", "rank0.json.gz", "bad.json", "rank1.json.gz", "-o", "both.stall"];
    let output = stallscope(folder.path(), &args);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("left out: bad.json"));
    let info = stallscope(folder.path(), &["info", "both.stall"]);
    assert!(String::from_utf8_lossy(&info.stdout).contains("2 devices"));
}

#[test]
fn the_same_file_twice_is_read_once() {
    let folder = folder();
    let output =
        stallscope(folder.path(), &["import", "rank0.json.gz", "./rank0.json.gz", "-o", "once.stall"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("named twice"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("on 1 device,"));
}
