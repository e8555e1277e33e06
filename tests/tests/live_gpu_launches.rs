//! Where launches come from, and which device it is that they go to: on the double, so that nothing here says anything
//! about a GPU; the injection, the agent, the probe in it and the stacks are real. Without root each test says so and
//! passes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_cupti_double::folder::Version;
use stallscope_tests::live::gpu::{GpuJob, double};
use stallscope_tests::live::job::programs;
use stallscope_tests::live::lab::{Running, json, obstacle, run, until};

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

fn record(job: &GpuJob, capture: &Path, more: &[&str]) -> anyhow::Result<Value> {
    let pid = job.pid().to_string();
    let mut arguments = vec!["record", "--pid", &pid, "-d", "3s", "-o", text(capture), "--json", "--force"];
    arguments.extend(more);
    json(&arguments)
}

/// Stacks with their times.
fn folded(capture: &Path, weight: &str) -> anyhow::Result<Vec<(Vec<String>, u64)>> {
    let output = run(&["export", text(capture), "--to", "folded", "--weight", weight, "-o", "-"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let stack = |line: &str| {
        let (frames, ns) = line.rsplit_once(' ').expect("a weight");
        (frames.split(';').map(str::to_owned).collect(), ns.parse().expect("a number"))
    };
    Ok(lines.lines().map(stack).collect())
}

/// The line of the trainer that contains this text.
fn line_of(what: &str) -> usize {
    let trainer = include_str!("../jobs/gpu_trainer.py");
    1 + trainer.lines().position(|line| line.contains(what)).expect("the trainer has it")
}

fn sum<'a>(stacks: impl Iterator<Item = &'a (Vec<String>, u64)>) -> u64 {
    stacks.map(|(_, ns)| ns).sum()
}

#[test]
fn kernels_are_led_back_to_the_lines_that_launched_them() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = GpuJob::start(folder.path(), &libraries, 1, &[])?;
    let capture = folder.path().join("a.stall");
    let summary = record(&job, &capture, &["--launch-stacks"])?;
    job.goes_on()?;
    assert!(summary["gpus"][0]["refused"].is_null(), "{summary:#}");
    let notes = summary["notes"].as_array().expect("notes");
    assert!(!notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains("launches"))), "{notes:?}");

    let report = json(&["report", text(&capture), "--json"])?;
    let device = &report["devices"][0];
    let stacks = &device["launch_stacks"];
    let (sampled, launches) = (stacks["sampled"].as_u64(), stacks["launches"].as_u64());
    // A kernel begins with one in 64; within the first second it is found that it can have more.
    assert!(sampled > launches.map(|n| n / 32) && sampled <= launches, "{stacks}");
    assert_eq!(launches, device["launched_operations"].as_u64());
    let share = stacks["share_of_gpu_time"].as_f64().expect("a share");
    assert!(share > 1.0 / 32.0 && share <= 1.0, "{share}");
    let told = String::from_utf8(run(&["report", text(&capture)])?.stdout)?;
    assert!(told.contains("(host stacks of "), "{told}");

    let gpu = folded(&capture, "gpu")?;
    for (kernel, call) in [
        ("forward_gemm", r#"self.kernel("forward_gemm""#),
        ("backward_gemm", r#"self.kernel("backward_gemm""#),
        ("optimizer_step", r#"self.kernel("optimizer_step""#),
    ] {
        let of_kernel = |(frames, _): &&(Vec<String>, u64)| frames.last().is_some_and(|f| f == kernel);
        // The frame of Trainer.step at the line of this kernel, with main outside of it and Gpu.launch inside.
        let (wanted, file) = (format!("gpu_trainer.py({}): ", line_of(call)), "gpu_cuda.py(");
        let led_back = |(frames, _): &&(Vec<String>, u64)| {
            let at = |part: &str| frames.iter().position(|f| f.contains(part));
            matches!((at("): main"), at(&wanted), at(file)), (Some(a), Some(b), Some(c)) if a < b && b < c)
        };
        let sampled = |(frames, _): &&(Vec<String>, u64)| !frames[1].starts_with('[');
        let exact = sum(gpu.iter().filter(of_kernel).filter(sampled));
        assert!(exact > 0, "{kernel}: {gpu:#?}");
        assert_eq!(sum(gpu.iter().filter(of_kernel).filter(sampled).filter(led_back)), exact, "{gpu:#?}");
        // A kernel that one line launches has that line for all of its time.
        assert_eq!(
            sum(gpu.iter().filter(of_kernel)),
            sum(gpu.iter().filter(of_kernel).filter(led_back)),
            "{gpu:#?}"
        );
    }
    let ours = gpu.iter().flat_map(|(frames, _)| frames).find(|f| f.contains("stallscope-agent"));
    assert_eq!(ours, None, "the agent is no part of the job");
    Ok(())
}

/// `gpu_callers` on these libraries.
fn callers(folder: &Path, libraries: &Path) -> anyhow::Result<Running> {
    let (program, ready) = (folder.join("gpu_callers"), folder.join("ready"));
    let source = programs().join("gpu_callers.cpp");
    let flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-o", text(&program), text(&source), "-ldl"];
    let compiled = Command::new("c++").args(flags).status().context("cannot run a C++ compiler")?;
    ensure!(compiled.success(), "gpu_callers.cpp does not compile");
    let mut command = Command::new(program);
    command.args(["60", text(&ready)]).env("LD_LIBRARY_PATH", libraries).env("STALLSCOPE_DOUBLE", "gpus=1");
    let job = Running(command.spawn()?);
    until("the program to launch", || ready.exists())?;
    Ok(job)
}

#[test]
fn a_kernel_that_launches_seldom_has_its_caller_and_a_program_without_python_has_stacks() -> anyhow::Result<()>
{
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = callers(folder.path(), &libraries)?;
    let (capture, pid) = (folder.path().join("a.stall"), job.0.id().to_string());
    json(&["record", "--pid", &pid, "-d", "4s", "-o", text(&capture), "--json", "--launch-stacks"])?;
    drop(job);

    let report = json(&["report", text(&capture), "--json"])?;
    let device = &report["devices"][0];
    let count = |name: &str| {
        let all = device["top_operations"].as_array().expect("operations");
        all.iter().find(|op| op["name"] == name).and_then(|op| op["count"].as_u64()).unwrap_or(0)
    };
    let sampled = device["launch_stacks"]["sampled"].as_u64().unwrap_or(0);
    assert!(count("frequent") > 1_000 && count("rare") > 5, "{:#}", device["top_operations"]);
    // 500 a second in 4 s, and as many at the begin as are saved up; of some the moment lies outside of the window.
    assert!((100..=500 * 6).contains(&sampled), "{}", device["launch_stacks"]);

    let gpu = folded(&capture, "gpu")?;
    let of = |kernel: &str, caller: &str, exact: bool| {
        sum(gpu.iter().filter(|(frames, _)| {
            let is_exact = !frames[1].starts_with('[');
            frames.last().is_some_and(|f| f == kernel)
                && is_exact == exact
                && frames.iter().any(|f| f.ends_with(&format!(": {caller}")))
        }))
    };
    let ns = |kernel: &str| sum(gpu.iter().filter(|(frames, _)| frames.last().is_some_and(|f| f == kernel)));
    // All of its launches, though it is one in thousands.
    let (rare, led_back) = (ns("rare"), of("rare", "launch_rarely", true));
    assert!(led_back * 10 >= rare * 8, "{led_back} of {rare} ns: {gpu:#?}");
    assert!(of("frequent", "launch_often", true) > 0, "{gpu:#?}");
    // Of two callers of one kernel each is there, in about the proportion in which they launch: 19 to 1.
    let often = of("shared", "launch_shared_often", true) + of("shared", "launch_shared_often", false);
    let seldom = of("shared", "launch_shared_seldom", true) + of("shared", "launch_shared_seldom", false);
    assert!(seldom > 0 && often > seldom * 8 && often < seldom * 50, "{often} and {seldom} ns: {gpu:#?}");
    Ok(())
}

#[test]
fn without_being_asked_for_no_launch_is_sampled() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V13_0)?;
    let job = GpuJob::start(folder.path(), &libraries, 1, &[])?;
    let capture = folder.path().join("a.stall");
    // An agent that has sampled and is woken again without being asked to does not go on.
    record(&job, &capture, &["--launch-stacks"])?;
    record(&job, &capture, &[])?;
    let report = json(&["report", text(&capture), "--json"])?;
    assert!(report["devices"][0]["launched_operations"].as_u64() > Some(0));
    assert!(report["devices"][0]["launch_stacks"].is_null(), "{:#}", report["devices"][0]["launch_stacks"]);
    let gpu = folded(&capture, "gpu")?;
    assert!(gpu.iter().all(|(frames, _)| frames.iter().all(|f| !f.starts_with('['))), "{gpu:#?}");
    Ok(())
}

/// The UUIDs of a machine's GPUs, as NVML says them.
fn nvml(libraries: &Path, gpus: u32) -> anyhow::Result<Vec<String>> {
    const ASK: &str = "
import ctypes, sys
nvml = ctypes.CDLL(sys.argv[1])
assert nvml.nvmlInit_v2() == 0
for index in range(int(sys.argv[2])):
    device, text = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    assert nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0
    assert nvml.nvmlDeviceGetUUID(device, text, 96) == 0
    print(text.value.decode())
";
    let mut ask = Command::new("python3");
    ask.args(["-c", ASK]).arg(libraries.join("libnvidia-ml.so.1")).arg(gpus.to_string());
    let output = ask.env("STALLSCOPE_DOUBLE", format!("gpus={gpus}")).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

#[test]
fn a_device_has_the_uuid_that_nvml_gives_it_also_where_a_process_sees_only_some() -> anyhow::Result<()> {
    needs_root!();
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let nvml = nvml(&libraries, 4)?;
    let job = GpuJob::start(folder.path(), &libraries, 2, &[])?;
    let capture = folder.path().join("a.stall");
    record(&job, &capture, &[])?;
    drop(job);
    let ids = |capture: &Path| -> anyhow::Result<Vec<String>> {
        let report = json(&["report", text(capture), "--json"])?;
        let devices = report["devices"].as_array().expect("devices").clone();
        Ok(devices.iter().filter_map(|d| Some(d["id"].as_str()?.to_owned())).collect())
    };
    assert_eq!(ids(&capture)?, nvml[..2]);

    // The same job on the machine's third and fourth GPU, which it knows as 0 and 1, the other way round.
    let settings = [("STALLSCOPE_DOUBLE", "gpus=4"), ("CUDA_VISIBLE_DEVICES", "3,2")];
    let again = folder.path().join("again");
    std::fs::create_dir(&again)?;
    let job = GpuJob::start_with(&again, &libraries, 2, &[], &settings)?;
    record(&job, &capture, &[])?;
    assert_eq!(ids(&capture)?, [&nvml[3][..], &nvml[2]]);
    Ok(())
}
