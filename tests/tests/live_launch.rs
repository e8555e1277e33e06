//! Jobs that are started under the recorder, and the file that is recorded to. Without root each test says so and passes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use stallscope_tests::cli::stallscope;
use stallscope_tests::live::hostile::{Bench, report, text, tool};
use stallscope_tests::live::lab::{Running, json, obstacle, run, start, until};

macro_rules! needs_root {
    () => {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return Ok(());
        }
    };
}

/// Runs the recorder in a folder, which is also the one for temporary files.
fn in_folder(folder: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(stallscope()?);
    command.arg("record").args(arguments).current_dir(folder).env("TMPDIR", folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The code and the messages of a recorder that ends.
fn ended(recorder: &mut Running) -> anyhow::Result<(Option<i32>, String)> {
    let mut told = String::new();
    recorder.0.stderr.take().expect("piped").read_to_string(&mut told)?;
    Ok((recorder.0.wait()?.code(), told))
}

#[test]
fn a_command_has_its_own_name_and_a_file_of_that_name() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let output = in_folder(folder.path(), &["--no-gpu", "--", "sleep", "0.5"])?.output()?;
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    // What is going on when: the first line before the probes are on, the second once events flow.
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("attaching to sleep (1 process: pid "), "{told}");
    assert!(
        lines[1].starts_with("recording (attached in ") && lines[1].contains("until the job ends"),
        "{told}"
    );
    let capture = folder.path().join("sleep.stall");
    let report = report(&capture)?;
    let shown = report.to_string();
    assert!(shown.contains("\"sleep\"") && !shown.contains("\"sh\""), "{report:#}");

    let script = folder.path().join("train.py");
    std::fs::write(&script, "import time\ntime.sleep(0.3)\n")?;
    let output =
        in_folder(folder.path(), &["--no-gpu", "--json", "--", "python3", "-u", "train.py"])?.output()?;
    assert!(output.status.success(), "{}", said(&output));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(told["jobs"][0]["name"], "train.py", "{told:#}");
    assert!(folder.path().join("train.py.stall").exists());
    Ok(())
}

/// What the command sees of us: descriptors, and the agent's file.
#[test]
fn a_command_gets_the_agents_file_to_keep_and_nothing_else_of_ours() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let script = "ls /proc/self/fd; echo agent=$CUDA_INJECTION64_PATH";
    let plain = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output()?;
    let plain = String::from_utf8(plain.stdout)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for _ in 0..2 {
        let output = in_folder(folder.path(), &["-o", "a.stall", "--", "sh", "-c", script])?.output()?;
        assert!(output.status.success(), "{}", said(&output));
        let printed = String::from_utf8(output.stdout)?;
        let (descriptors, rest) = printed.split_once("agent=").expect("the variable");
        assert_eq!(Some(descriptors), plain.split_once("agent=").map(|(before, _)| before));
        files.push(rest.lines().next().expect("a path").into());
    }
    assert_eq!(files[0], files[1], "one file for one version");
    let name = files[0].file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("stallscope-agent-") && name.ends_with(".so"), "{name}");
    assert_eq!(std::fs::read(&files[0])?, stallscope_cupti_image::AGENT);
    for path in files[0].ancestors() {
        let found = std::fs::symlink_metadata(path)?;
        let sticky = found.mode() & 0o1000 != 0 && path != files[0];
        assert!(found.uid() == 0 && (found.mode() & 0o022 == 0 || sticky), "{}", path.display());
    }
    // Nothing of ours lies about.
    let left: Vec<_> = std::fs::read_dir(folder.path())?.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a.stall"]);
    // Without an agent nothing is said of one.
    let output =
        in_folder(folder.path(), &["-o", "a.stall", "--no-gpu", "--", "sh", "-c", script])?.output()?;
    assert!(String::from_utf8(output.stdout)?.contains("agent=\n"));
    Ok(())
}

/// A file that cannot be loaded, or that somebody else could change, is worse than none.
#[test]
fn the_agents_file_is_put_where_code_is_loaded_from_or_nowhere() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let launched = |mounts: &str| -> anyhow::Result<(String, String)> {
        let script = format!("set -e; {mounts}; exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(stallscope()?).current_dir(folder.path());
        command.args(["record", "-o", "a.stall", "--", "sh", "-c", "echo agent=$CUDA_INJECTION64_PATH"]);
        let output = command.stdin(Stdio::null()).output()?;
        assert!(output.status.success(), "{}", said(&output));
        let printed = String::from_utf8(output.stdout.clone())?;
        let path = printed.lines().find_map(|line| line.strip_prefix("agent=")).expect("the variable");
        Ok((path.to_owned(), said(&output)))
    };
    // As Debian and Ubuntu mount it.
    let noexec = "mount -t tmpfs -o noexec,mode=755 none /run";
    let (path, _) = launched(&format!("{noexec}; mount -t tmpfs -o mode=755 none /var/cache"))?;
    assert!(path.starts_with("/var/cache/stallscope/stallscope-agent-"), "{path}");
    let open = "mount -t tmpfs -o mode=777 none /var/cache; mount -t tmpfs none /var/tmp; mkdir /var/tmp/stallscope-0; \
                chown 65534 /var/tmp/stallscope-0";
    let (path, told) = launched(&format!("{noexec}; {open}"))?;
    assert_eq!(path, "");
    for why in
        ["/run/stallscope: it is mounted noexec", "owns /var/cache or", "/var/tmp/stallscope-0: another user"]
    {
        assert!(told.contains(why), "{told}");
    }
    Ok(())
}

#[test]
fn a_command_does_not_begin_where_the_recorder_dies_before_it_is_attached() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let mut recorder = Running(in_folder(folder.path(), &["--", "touch", "begun"])?.spawn()?);
    let mut line = String::new();
    BufReader::new(recorder.0.stderr.take().expect("piped")).read_line(&mut line)?;
    let pid: u32 =
        line.rsplit("pid ").next().and_then(|rest| rest.trim_end_matches(")\n").parse().ok()).expect("a pid");
    recorder.0.kill()?;
    recorder.0.wait()?;
    let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    until("the shell that waits to have ended", gone)?;
    let left: Vec<_> = std::fs::read_dir(folder.path())?.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{line}: {left:?}");
    Ok(())
}

/// Neither has the file first: there is none to lock before the recording.
#[test]
fn of_two_recorders_to_one_file_one_is_refused_and_the_other_whole() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", "3"])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let arguments = ["record", "--pid", &pid, "-o", text(&capture)];
    let mut recorders = [start(&arguments)?, start(&arguments)?];
    let mut refused = None;
    until("one of them to end", || {
        refused = recorders.iter_mut().position(|r| r.0.try_wait().is_ok_and(|status| status.is_some()));
        refused.is_some()
    })?;
    let at = refused.unwrap_or_default();
    let second = ended(&mut recorders[at])?;
    assert_eq!(second.0, Some(4), "{second:?}");
    assert!(second.1.contains("another recording is writing"), "{second:?}");
    std::thread::sleep(Duration::from_secs(2));
    tool("kill", &["-INT", &recorders[1 - at].0.id().to_string()])?;
    let first = ended(&mut recorders[1 - at])?;
    assert_eq!(first.0, Some(0), "{first:?}");
    let whole = report(&capture)?;
    assert!(whole["devices"][0]["wall_ns"].as_u64() > Some(0), "{whole:#}");
    let losses = whole["capture"]["losses"].to_string();
    assert!(!losses.contains("damaged") && !losses.contains("truncated"), "{losses}");

    // One that is there is refused before anything is attached.
    let mut recorder = start(&arguments)?;
    let mut line = String::new();
    BufReader::new(recorder.0.stderr.as_mut().expect("piped")).read_line(&mut line)?;
    assert!(line.starts_with("attaching to "), "{line}");
    let second = run(&arguments)?;
    assert_eq!(second.status.code(), Some(4), "{}", said(&second));
    assert!(!said(&second).contains("attaching"), "{}", said(&second));
    assert!(recorder.0.try_wait()?.is_none(), "the first goes on");
    assert!(job.running()?);
    Ok(())
}

/// The command goes on to its end, and the recorder waits for it.
#[test]
fn a_command_whose_recording_breaks_off_goes_on() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk)?;
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24k", "none"]).arg(&disk).status()?;
    assert!(mounted.success());
    // Each process that it starts has records of its own.
    let script = "i=0; while [ $i -lt 3000 ]; do /bin/true; i=$((i+1)); done; sleep 1; touch ended";
    let arguments = ["-o", "disk/a.stall", "--no-gpu", "--", "sh", "-c", script];
    let output = in_folder(folder.path(), &arguments)?.output();
    let capture = disk.join("a.stall");
    let info = json(&["info", text(&capture), "--json"]);
    assert!(Command::new("umount").arg(&disk).status()?.success());
    let output = output?;
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("No space left") && told.contains("is a whole capture that opens"), "{told}");
    info?;
    assert!(folder.path().join("ended").exists(), "the command was cut off: {told}");
    Ok(())
}

/// A launcher's children become ranks when they begin their programs, long after the choice of what is followed.
#[test]
fn what_a_command_starts_as_ranks_has_numbers_and_ledgers() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let ranks = "for rank in 0 1; do RANK=$rank WORLD_SIZE=2 sh -c 'sleep 0.2; sleep 1; true' & done; wait";
    let output =
        in_folder(folder.path(), &["--no-gpu", "-o", "a.stall", "--", "sh", "-c", ranks])?.output()?;
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&folder.path().join("a.stall"))?;
    let devices = report["devices"].as_array().expect("devices");
    let rank = |number: u64| devices.iter().find(|d| d["rank"] == number).expect("a device of that rank");
    for number in [0, 1] {
        let wall = rank(number)["wall_ns"].as_u64();
        assert!(wall > Some(1_000_000_000), "its shell and both of its children: {wall:?}");
        assert_eq!(rank(number)["id"], format!("rank {number}"));
    }
    assert_eq!(devices.len(), 2, "the launcher has none: {report:#}");
    Ok(())
}
