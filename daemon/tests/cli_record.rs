//! What `stallscope record` refuses before anything is attached: no privilege is needed to be told.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn record(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallscope"));
    command.arg("record").args(arguments).current_dir(folder).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with this code and says all of this; no capture is left.
fn refused(folder: &Path, arguments: &[&str], code: i32, says: &[&str]) {
    let output = record(folder, arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for text in says {
        assert!(said.contains(text), "{arguments:?} does not say {text:?}: {said}");
    }
    assert!(!said.contains("attaching") && !said.contains("recording ("), "{said}");
    let captures = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let captures: Vec<_> = captures.filter(|path| path.extension().is_some_and(|e| e == "stall")).collect();
    assert!(captures.is_empty(), "{captures:?}");
}

#[test]
fn without_a_target_all_targets_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let targets = [
        "--pid <PID>",
        "--job <ID>",
        "--container <ID>",
        "--pod <NAMESPACE/NAME>",
        "--slurm <ID>",
        "-- COMMAND",
    ];
    refused(folder.path(), &[], 2, &targets);
    let output = record(folder.path(), &[]);
    let said = stderr(&output);
    let usage = said.split_once("Usage: ").expect("a usage").1;
    for target in targets {
        assert!(usage.contains(target), "{target} is not in the usage: {said}");
    }
    // One of them is enough, and no more than one is taken.
    refused(folder.path(), &["--pid", "1", "--", "true"], 2, &["cannot be used with"]);
    refused(folder.path(), &["--pid", "1", "--job", "x"], 2, &["cannot be used with"]);
}

#[test]
fn a_command_that_cannot_begin_is_told_as_a_shell_does() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let script = |name: &str, text: &str, mode: u32| {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
    };
    script("plain.sh", "#!/bin/sh\nexit 3\n", 0o644);
    script("orphan.sh", "#!/no/such/interpreter -x\n", 0o755);
    fs::create_dir(folder.join("folder")).unwrap();
    refused(
        folder,
        &["--", "no-such-program-here", "x"],
        127,
        &["cannot start no-such-program-here", "in PATH", "--"],
    );
    refused(folder, &["--", "./absent"], 127, &["cannot start ./absent", "no such file"]);
    refused(folder, &["--", "./orphan.sh"], 127, &["/no/such/interpreter", "not there"]);
    refused(folder, &["--", "./plain.sh"], 126, &["./plain.sh is not executable", "chmod +x"]);
    refused(folder, &["--", "./folder"], 126, &["is a folder"]);
    refused(folder, &["--", ""], 127, &["cannot start"]);
}

#[test]
fn an_output_that_is_no_file_is_called_an_output() {
    let scratch = tempfile::tempdir().unwrap();
    let pid = std::process::id().to_string();
    for output in ["/dev/full", "/dev/stdout", "-"] {
        // What standard output leads to may be a file.
        if output == "/dev/stdout" && fs::metadata(output).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let says = [&format!("cannot record to {output}") as &str, "with -o"];
        refused(scratch.path(), &["--pid", &pid, "-o", output], 4, &says);
    }
    assert!(!scratch.path().join("-").exists());
}

#[test]
fn an_output_that_another_recording_writes_is_left_as_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("a.capture");
    fs::write(&output, "of another").unwrap();
    let held = File::options().append(true).open(&output).unwrap();
    held.lock().unwrap();
    let pid = std::process::id().to_string();
    let arguments = ["--pid", &pid, "-o", output.to_str().unwrap(), "--force", "-d", "1s"];
    refused(scratch.path(), &arguments, 4, &["another recording is writing", "-o"]);
    assert_eq!(fs::read(&output).unwrap(), b"of another");
}
