//! Recording a job that uses CUDA: the double's, so that nothing here says anything about a GPU; the injection, the agent,
//! the host's waits are real. Without root each test says so and passes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stallscope_cupti_double::folder::Version;
use stallscope_tests::cli::stallscope;
use stallscope_tests::live::gpu::{GpuJob, command, double};
use stallscope_tests::live::lab::{json, leaves, obstacle, run};

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

fn record(job: &GpuJob, capture: &Path, seconds: u32) -> anyhow::Result<Value> {
    let (pid, time) = (job.pid().to_string(), format!("{seconds}s"));
    // On a busy machine the time may be over before the agent collects: then it is said, and tried again.
    let mut tries = 0;
    loop {
        let summary =
            json(&["record", "--pid", &pid, "-d", &time, "-o", text(capture), "--json", "--force"])?;
        tries += 1;
        if tries == 5 || !summary["gpus"].to_string().contains("record for longer") {
            return Ok(summary);
        }
    }
}

/// The GPUs of a report, by rank.
fn gpus(report: &Value) -> Vec<&Value> {
    let mut all: Vec<&Value> = report["devices"].as_array().expect("devices").iter().collect();
    all.sort_by_key(|device| device["rank"].as_u64());
    assert!(all.iter().all(|device| device["kind"] == "gpu"), "a rank that drives a GPU is no rank on CPUs");
    all
}

/// What is known of an operation: how often, and how long in all.
fn operation(device: &Value, name: &str) -> (u64, u64) {
    let all = device["top_operations"].as_array().expect("operations");
    let found = all.iter().find(|op| op["name"] == name).unwrap_or_else(|| panic!("no {name} in {all:?}"));
    (found["count"].as_u64().expect("a count"), found["ns"].as_u64().expect("a time"))
}

#[test]
fn a_running_trainer_is_attached_to_and_its_idle_time_led_back_to_the_slow_storage() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let arguments = ["--fault", "slow-read@1", "--dose-ms", "30"];
    let job = GpuJob::start(folder.path(), &libraries, 2, &arguments)?;
    let capture = folder.path().join("a.stall");
    let summary = record(&job, &capture, 4)?;
    job.goes_on()?;
    let seen = summary["gpus"].as_array().expect("processes");
    assert_eq!(seen.len(), 2, "{summary:#}");
    for process in seen {
        assert!(process["refused"].is_null() && process["events"].as_u64() > Some(100), "{process}");
        assert!(process["clock_error_ns"].as_u64() < Some(1_000_000), "{process}");
    }
    let report = json(&["report", text(&capture), "--json"])?;
    let devices = gpus(&report);
    assert_eq!(devices.len(), 2);
    for device in &devices {
        let direct = leaves(device, "direct")?;
        assert!(direct["compute_ns"] > 0 && direct["comm_exposed_ns"] > 0, "{direct:?}");
        // What a kernel takes is what the trainer asked for.
        let (count, ns) = operation(device, "optimizer_step");
        assert_eq!((ns + count * 500) / (count * 1000), 300, "{count} × 300 µs are {ns} ns");
        assert!(device["launched_operations"].as_u64() >= device["operations"].as_u64().map(|n| n * 9 / 10));
    }
    // Rank 1 waits for its loader, which sleeps in the place of a disk; rank 0 does not.
    let host = |device: &Value| device["idle_host"]["root"]["sleep_ns"].as_u64().unwrap_or(0);
    let (healthy, slow) = (host(devices[0]), host(devices[1]));
    assert!(healthy * 5 < slow, "{healthy} and {slow} ns: {:#}", devices[1]["idle_host"]["root"]);
    let findings = report["findings"].as_array().expect("findings");
    let blamed = findings.iter().find(|f| f["rule"] == "idle-sleep").expect("a finding");
    assert_eq!(blamed["device"], devices[1]["id"]);
    assert!(blamed["line"].as_str().is_some_and(|line| line.contains("gpu_trainer.py:")), "{blamed}");
    Ok(())
}

#[test]
fn an_agent_that_rests_is_woken_again_and_nothing_is_put_in_twice() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V13_0)?;
    let job = GpuJob::start(folder.path(), &libraries, 1, &[])?;
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", job.pid()))?;
        anyhow::Ok(tasks.count())
    };
    let before = threads()?;
    for _ in 0..3 {
        let capture = folder.path().join("a.stall");
        let summary = record(&job, &capture, 1)?;
        assert!(summary["gpus"][0]["refused"].is_null(), "{summary:#}");
        let report = json(&["report", text(&capture), "--json"])?;
        let device = gpus(&report)[0];
        let (count, _) = operation(device, "optimizer_step");
        assert!(count > 0, "names are known each time");
        assert_eq!(threads()?, before + 1, "one agent");
    }
    job.goes_on()
}

#[test]
fn a_job_that_is_left_alone_gets_no_agent() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_4)?;
    let job = GpuJob::start(folder.path(), &libraries, 1, &[])?;
    let capture = folder.path().join("a.stall");
    let pid = job.pid().to_string();
    let summary = json(&["record", "--pid", &pid, "-d", "1s", "-o", text(&capture), "--json", "--no-gpu"])?;
    assert_eq!(summary["gpus"].as_array().map(Vec::len), Some(0));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    assert!(!maps.contains("stallscope"), "{maps}");
    job.goes_on()
}

#[test]
fn a_command_is_recorded_and_its_code_is_ours() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let capture = folder.path().join("a.stall");
    let mut recorder = Command::new(stallscope()?);
    recorder.args(["record", "-o", text(&capture), "--json", "--"]);
    recorder.args(command(&libraries, 1, &["--steps", "150"])).env("LD_LIBRARY_PATH", &libraries);
    let output = recorder.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&["report", text(&capture), "--json"])?;
    let (count, _) = operation(gpus(&report)[0], "optimizer_step");
    // On a busy machine CUDA does not wait for the agent at the start, nor the agent for the recorder at the end.
    assert!((75..=150).contains(&count), "{count} of 150 steps");
    let failing = run(&["record", "-o", text(&capture), "--force", "--", "sh", "-c", "exit 7"])?;
    assert_eq!(failing.status.code(), Some(7), "{}", String::from_utf8_lossy(&failing.stderr));
    Ok(())
}

/// Where what the recorder prints begins, behind what the job has printed.
fn begin_of_json(output: &[u8]) -> usize {
    output.windows(2).rposition(|two| two == b"\n{").map_or(0, |at| at + 1)
}

#[test]
fn gpus_that_a_rank_sees_and_does_not_use_are_none_of_its_own() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let capture = folder.path().join("a.stall");
    let mut command = command(&libraries, 2, &["--steps", "300"]);
    for word in &mut command {
        *word = word.replace("STALLSCOPE_DOUBLE=gpus=2", "STALLSCOPE_DOUBLE=gpus=4");
    }
    let mut recorder = Command::new(stallscope()?);
    recorder.args(["record", "-o", text(&capture), "--json", "--"]).args(command);
    let output = recorder.env("LD_LIBRARY_PATH", &libraries).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout[begin_of_json(&output.stdout)..])?;
    assert!(summary["losses"]["agent_taken"].is_null(), "one agent each: {summary:#}");
    let report = json(&["report", text(&capture), "--json"])?;
    let devices = gpus(&report);
    let pids: Vec<usize> = devices.iter().map(|d| d["pids"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(pids, [1, 1], "{devices:#?}");
    let ranks: Vec<Option<u64>> = devices.iter().map(|d| d["rank"].as_u64()).collect();
    assert_eq!(ranks, [Some(0), Some(1)], "of processes that began long after the recording");
    assert!(devices.iter().all(|device| device["operations"].as_u64() > Some(100)));
    Ok(())
}

/// As PyPI's packages lay it out: nobody can know before the process has loaded CUDA's libraries which CUPTI goes with them.
#[test]
fn a_command_whose_cupti_lies_beside_its_libraries_is_recorded() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let made = double(folder.path(), Version::V12_8)?;
    let place = |name: &str| folder.path().join("nvidia").join(name).join("lib");
    let (runtime, cupti) = (place("cuda_runtime"), place("cuda_cupti"));
    std::fs::create_dir_all(&runtime)?;
    std::fs::create_dir_all(&cupti)?;
    for entry in std::fs::read_dir(made)? {
        let (from, name) = entry.map(|e| (e.path(), e.file_name()))?;
        let to = if name.to_string_lossy().starts_with("libcupti") { &cupti } else { &runtime };
        std::fs::rename(from, to.join(name))?;
    }
    let capture = folder.path().join("a.stall");
    let mut recorder = Command::new(stallscope()?);
    recorder.args(["record", "-o", text(&capture), "--json", "--"]).args(command(
        &runtime,
        1,
        &["--steps", "900"],
    ));
    let output = recorder.env("LD_LIBRARY_PATH", &runtime).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&["report", text(&capture), "--json"])?;
    let gpus = gpus(&report);
    assert!(!gpus.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let (count, _) = operation(gpus[0], "optimizer_step");
    assert!((1..900).contains(&count), "all but the first second: {count} of 900 steps");
    Ok(())
}

#[test]
fn what_another_job_runs_on_the_same_gpu_is_told_apart() -> anyhow::Result<()> {
    needs_root!();
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let libraries = double(folders[0].path(), Version::V12_8)?;
    let start = |folder: &Path| GpuJob::start(folder, &libraries, 1, &["--load-ms", "10"]);
    let jobs = [start(folders[0].path())?, start(folders[1].path())?];
    let pids = jobs.each_ref().map(|job| job.pid().to_string());
    let capture = folders[0].path().join("a.stall");
    let mut arguments = vec!["record", "-d", "5s", "-o", text(&capture), "--json"];
    pids.iter().for_each(|pid| arguments.extend(["--pid", pid]));
    json(&arguments)?;
    jobs.iter().try_for_each(GpuJob::goes_on)?;

    // All weights that a job on GPUs has, and what to use in place of the one that it has not.
    let pprof = folders[0].path().join("a.pb.gz");
    let exported = run(&["export", text(&capture), "--to", "pprof", "-o", text(&pprof)])?;
    assert!(exported.status.success() && pprof.exists(), "{}", String::from_utf8_lossy(&exported.stderr));
    let svg = folders[0].path().join("a.svg");
    let waits = run(&["flamegraph", text(&capture), "--weight", "wait", "-o", text(&svg)])?;
    let said = String::from_utf8_lossy(&waits.stderr);
    assert!(waits.status.code() == Some(3) && said.contains("gpu-idle") && !svg.exists(), "{said}");

    let report = json(&["report", text(&capture), "--json"])?;
    let gpus = gpus(&report);
    // The stand-ins of both have one GPU's name.
    let [gpu] = gpus[..] else { anyhow::bail!("{} GPUs", gpus.len()) };
    let direct = leaves(gpu, "direct")?;
    leaves(gpu, "root")?;
    assert!(direct["compute_ns"] > 0 && direct["other_process_ns"] > 0, "{direct:?}");
    let findings = report["findings"].as_array().expect("findings");
    let said = findings.iter().find(|f| f["rule"] == "device-shared").expect("a finding");
    let evidence = said["evidence"].as_str().expect("evidence");
    let named: Vec<&String> = pids.iter().filter(|pid| evidence.contains(&format!("(pid {pid})"))).collect();
    assert_eq!(named.len(), 1, "one of them is the job's: {evidence}");
    Ok(())
}

#[test]
fn processes_on_the_gpu_that_only_its_driver_names_are_told_of() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = GpuJob::start(folder.path(), &libraries, 1, &[])?;
    let pid = job.pid().to_string();
    let capture = folder.path().join("a.stall");
    let mut recorder = Command::new(stallscope()?);
    recorder.args(["record", "--pid", &pid, "-d", "4s", "-o", text(&capture), "--json"]);
    // What the recorder, not the job, asks NVML; 1 is no process of a job.
    recorder
        .env("LD_LIBRARY_PATH", &libraries)
        .env("STALLSCOPE_DOUBLE", format!("nvml.processes={pid}:512, 1:64"));
    let output = recorder.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    job.goes_on()?;
    let report = json(&["report", text(&capture), "--json"])?;
    let findings = report["findings"].as_array().expect("findings");
    let said = findings.iter().find(|f| f["rule"] == "device-shared-unseen").expect("a finding");
    assert_eq!((&said["severity"], &said["evidence"]), (&"info".into(), &"by NVML: pid 1 64 MiB".into()));
    Ok(())
}
