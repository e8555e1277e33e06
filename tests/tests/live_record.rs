//! Recording real processes with real probes. Without root each test says so and passes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stallscope_ebpf::cost::program_costs;
use stallscope_ebpf::probes::programs;
use stallscope_tests::live::job::{MpiJob, mpi_venv, programs as jobs};
use stallscope_tests::live::lab::{Running, json, leaves, obstacle, run, start, until};

macro_rules! needs_root {
    () => {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return Ok(());
        }
    };
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A Python process that counts into a file.
fn sleeper(count: &Path) -> anyhow::Result<Running> {
    let child =
        Command::new("python3").arg(jobs().join("sleeper.py")).arg(count).stdin(Stdio::null()).spawn()?;
    until("the process to count", || counted(count) > 0)?;
    Ok(Running(child))
}

fn counted(count: &Path) -> u64 {
    std::fs::read_to_string(count).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Programs of ours that the kernel still has.
fn left_behind() -> usize {
    program_costs(&programs()).len()
}

fn all_reduces(ranks: u32, calls: u64, elements: u64) -> anyhow::Result<()> {
    if let Err(why) = mpi_venv() {
        println!("skipped: {why}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let arguments = [text(folder.path()), &calls.to_string(), &elements.to_string()];
    let mut job = MpiJob::start(ranks, "allreduce.py", &arguments)?;
    job.wait_for(&at("ready"), Duration::from_secs(60))?;
    let capture = at("job.stall");
    let pid = job.pid().to_string();
    let mut recorder = start(&["record", "--pid", &pid, "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists())?;
    std::fs::write(at("go"), "")?;
    job.wait_for(&at("done"), Duration::from_secs(120))?;
    std::fs::write(at("leave"), "")?;
    let printed = job.output()?;
    until("the recorder to notice the end of the job", || recorder.0.try_wait().is_ok_and(|s| s.is_some()))?;

    let report = json(&["report", text(&capture), "--json"])?;
    let devices = report["devices"].as_array().expect("a list of devices");
    assert_eq!(devices.len(), ranks as usize, "{printed}");
    for device in devices {
        leaves(device, "direct")?;
        leaves(device, "root")?;
        let rows = device["collectives"].as_array().expect("a list of collectives");
        let row = rows.iter().find(|row| row["name"] == "MPI_Allreduce").expect("all-reduces were seen");
        assert_eq!(row["calls"], calls, "{row} {}", report["capture"]["losses"]);
        assert_eq!(row["bytes"], calls * elements * 8, "{row}");
        assert_eq!(row["group_size"], ranks, "{row}");
        // The calls lie between the first and the last moment that the rank itself took down.
        let rank = device["rank"].as_u64().expect("a rank");
        let line =
            printed.lines().find(|l| l.starts_with(&format!("rank {rank} "))).expect("a line of each rank");
        let times: Vec<u64> = line.split(' ').skip(2).map(|t| t.parse().expect("a time")).collect();
        let inside = row["ns"].as_u64().expect("a time");
        assert!(inside <= times[1] - times[0], "{inside} ns in calls between {times:?}");
        assert!(
            inside * 2 > times[1] - times[0],
            "{inside} ns in calls between {times:?}: most of the time is there"
        );
    }
    Ok(())
}

#[test]
fn two_ranks_of_a_running_mpi_job_have_all_their_calls_counted() -> anyhow::Result<()> {
    needs_root!();
    all_reduces(2, 500, 64)
}

#[test]
fn four_ranks_on_fewer_cpus_have_all_their_calls_counted() -> anyhow::Result<()> {
    needs_root!();
    all_reduces(4, 200, 1024)
}

#[test]
fn calls_without_end_are_left_alone_most_of_the_time_and_that_time_is_unknown() -> anyhow::Result<()> {
    needs_root!();
    if let Err(why) = mpi_venv() {
        println!("skipped: {why}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let mut job = MpiJob::start(2, "all_reduce_storm.py", &[text(&at("count"))])?;
    job.wait_for(&at("count"), Duration::from_secs(60))?;
    let capture = at("storm.stall");
    let pid = job.pid().to_string();
    let summary = json(&["record", "--pid", &pid, "-d", "4s", "-o", text(&capture), "--json"])?;
    assert!(job.running()?, "the job goes on");
    assert!(summary["losses"]["calls_paused"].as_u64() >= Some(1), "{summary}");
    assert!(summary["losses"]["call_open"].is_null(), "no call is seen in part: {summary}");
    assert!(summary["notes"].to_string().contains("collective calls a second"), "{summary}");
    let report = json(&["report", text(&capture), "--json"])?;
    for device in report["devices"].as_array().expect("a list of devices") {
        let direct = leaves(device, "direct")?;
        let wall: u64 = direct.values().sum();
        let unknown = direct.get("unknown_ns").copied().unwrap_or(0);
        // How much depends on how quick the machine is: some is not known, and some is.
        assert!(unknown > 0 && unknown < wall, "{unknown} of {wall} ns");
        let rows = device["collectives"].as_array().expect("a list of collectives");
        assert!(rows.iter().any(|row| row["name"] == "MPI_Allreduce"), "{rows:?}");
    }
    Ok(())
}

#[test]
fn a_process_that_ends_while_it_is_recorded_leaves_a_whole_capture() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let (count, capture) = (folder.path().join("count"), folder.path().join("a.stall"));
    let mut target = sleeper(&count)?;
    let pid = target.0.id().to_string();
    let mut recorder = start(&["record", "--pid", &pid, "-o", text(&capture), "--json"])?;
    until("the capture to begin", || capture.exists())?;
    target.0.kill()?;
    target.0.wait()?;
    until("the recorder to notice", || recorder.0.try_wait().is_ok_and(|s| s.is_some()))?;
    assert!(recorder.0.wait()?.success());
    let report = json(&["report", text(&capture), "--json"])?;
    let direct = leaves(&report["devices"][0], "direct")?;
    assert!(direct["sleep_ns"] > direct["compute_ns"], "{direct:?}");
    Ok(())
}

/// Times that the recorder is killed: `cargo xtask soak` asks for more.
fn kills() -> u64 {
    std::env::var("STALLSCOPE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

#[test]
fn a_killed_recorder_leaves_the_job_alone_no_probe_behind_and_a_capture_that_opens() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let (count, capture) = (folder.path().join("count"), folder.path().join("a.stall"));
    let mut target = sleeper(&count)?;
    let pid = target.0.id().to_string();
    let mut moments = stallscope_tests::rng::Rng::new(20_261_121);
    let (mut begun, mut opened) = (0u64, 0u64);
    for _ in 0..kills() {
        let _ = std::fs::remove_file(&capture);
        let mut recorder = start(&["record", "--pid", &pid, "-o", text(&capture)])?;
        std::thread::sleep(Duration::from_millis(moments.between(0, 3000)));
        recorder.0.kill()?;
        recorder.0.wait()?;
        let before = counted(&count);
        until("the job to go on", || counted(&count) > before + 3)?;
        assert!(target.0.try_wait()?.is_none(), "the job ended");
        if capture.exists() {
            begun += 1;
            opened += u64::from(run(&["info", text(&capture), "--json"])?.status.success());
        }
    }
    println!("{} kills, {begun} captures begun, {opened} opened", kills());
    assert_eq!(begun, opened, "every capture that was begun opens");
    // The kernel takes programs off a moment after the process that held them.
    until("the kernel to take the probes off", || left_behind() == 0)?;
    Ok(())
}

#[test]
fn a_process_in_other_namespaces_is_explained_like_any_other() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let (count, capture) = (folder.path().join("count"), folder.path().join("a.stall"));
    // The program exists only in the mount namespace of the target.
    let script = format!(
        "mkdir -p {0}/inside && mount -t tmpfs none {0}/inside && cp {1} {0}/inside/program.py && \
         exec python3 {0}/inside/program.py {2}",
        text(folder.path()),
        text(&jobs().join("sleeper.py")),
        text(&count)
    );
    let child = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script])
        .stdin(Stdio::null())
        .spawn()?;
    let target = Running(child);
    until("the process to count", || counted(&count) > 0)?;
    let pid = target.0.id().to_string();
    json(&["record", "--pid", &pid, "-d", "1500ms", "-o", text(&capture), "--json"])?;
    let folded = run(&["export", text(&capture), "--to", "folded", "--weight", "off-cpu", "-o", "-"])?;
    let folded = String::from_utf8(folded.stdout)?;
    assert!(folded.lines().any(|l| l.contains("program.py(8): named_wait")), "{folded}");
    Ok(())
}

#[test]
fn what_cannot_be_recorded_is_said_and_leaves_no_file() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("a.stall");
    let refused = |pid: &str, says: &str| -> anyhow::Result<()> {
        let output = run(&["record", "--pid", pid, "-d", "1s", "-o", text(&capture)])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!capture.exists());
        Ok(())
    };
    refused("4194303", "there is no process 4194303")?;
    refused("2", "thread of the kernel")?;
    Ok(())
}

#[test]
fn a_full_disk_ends_the_recording_with_an_error_and_a_capture_that_opens() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk)?;
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "none"]).arg(&disk).status()?;
    assert!(mounted.success());
    let (count, capture) = (folder.path().join("count"), disk.join("a.stall"));
    let mut target = sleeper(&count)?;
    let pid = target.0.id().to_string();
    let output = run(&["record", "--pid", &pid, "-d", "30s", "-o", text(&capture)]);
    let info = run(&["info", text(&capture), "--json"]);
    assert!(Command::new("umount").arg(&disk).status()?.success());
    let output = output?;
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
    assert!(info?.status.success());
    assert!(target.0.try_wait()?.is_none(), "the job goes on");
    Ok(())
}
