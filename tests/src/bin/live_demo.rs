//! The demonstrations: a job of four ranks, one of which reads from a slow file; attach, record, explain. The ranks compute on
//! CPUs and are real MPI, or (`gpu`) use CUDA: the double's, which says nothing about a GPU.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use stallscope_cupti_double::folder::Version;
use stallscope_tests::live::gpu::{GpuJob, double};
use stallscope_tests::live::job::MpiJob;
use stallscope_tests::live::slow_file::SlowFile;

/// The rank whose shard is slow, and how slow.
const SLOW_RANK: u32 = 2;
const LATENCY: Duration = Duration::from_millis(40);
const SHARD_BYTES: u64 = 16 << 20;
/// The trainer's loader reads a megabyte in requests of 128 KiB.
const GPU_LATENCY: Duration = Duration::from_millis(5);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().context("usage: live_demo FOLDER [gpu]")?;
    with_own_mounts().context("cannot keep what is mounted to itself (needs root)")?;
    if arguments.next().is_some() { on_gpus(&folder) } else { on_cpus(&folder) }
}

/// From here on what is mounted goes with the last process of the demonstration, however that ends.
fn with_own_mounts() -> std::io::Result<()> {
    // SAFETY: no other thread has begun that could count on what is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Runs the program that is demonstrated, and shows how it was called.
fn show(arguments: &[&str]) -> anyhow::Result<()> {
    let program = std::env::var_os("STALLSCOPE").map_or_else(|| PathBuf::from("stallscope"), PathBuf::from);
    println!("\n$ stallscope {}", arguments.join(" "));
    let status = Command::new(&program).args(arguments).status()?;
    if status.success() { Ok(()) } else { bail!("stallscope {}: {status}", arguments.join(" ")) }
}

fn on_gpus(folder: &Path) -> anyhow::Result<()> {
    println!(
        "no GPU is used: the job runs on stand-ins for NVIDIA's libraries, which prove the way from a GPU's idle"
    );
    println!("time to the host and nothing about a GPU. Processes, files, waits and the agent are real.\n");
    let libraries = double(folder, Version::V12_8)?;
    let slow = SlowFile::mount(&folder.join("slow-disk"), "shard-0002", SHARD_BYTES, GPU_LATENCY)
        .context("cannot mount the slow file system (needs root and /dev/fuse)")?;
    let data = folder.join("gpu-data");
    for rank in 0..4 {
        let of_rank = data.join(rank.to_string());
        std::fs::create_dir_all(&of_rank)?;
        let shard = of_rank.join(format!("shard-{rank:04}"));
        // Left over from an earlier run.
        let _ = std::fs::remove_file(&shard);
        if rank == SLOW_RANK {
            std::os::unix::fs::symlink(std::path::absolute(slow.path())?, &shard)?;
        } else {
            std::fs::write(&shard, vec![0; usize::try_from(SHARD_BYTES)?])?;
        }
    }
    println!(
        "starting a trainer of four ranks; the shard of rank {SLOW_RANK} takes {GPU_LATENCY:?} for 128 KiB"
    );
    let job = GpuJob::start(folder, &libraries, 4, &["--data", &format!("{}/%r", text(&data)?)])?;
    let (capture, graph) = (folder.join("gpu.stall"), folder.join("gpu-idle.svg"));
    show(&["ps"])?;
    show(&["record", "--pid", &job.pid().to_string(), "-d", "6s", "-o", text(&capture)?, "--force"])?;
    job.goes_on()?;
    drop(job);
    show(&["report", text(&capture)?])?;
    show(&["flamegraph", text(&capture)?, "--weight", "gpu-idle", "-o", text(&graph)?, "--force"])?;
    println!("\ncapture                  {}", capture.display());
    println!("what GPUs waited for     {} (open it in a browser)", graph.display());
    Ok(())
}

fn on_cpus(folder: &Path) -> anyhow::Result<()> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    let slow = SlowFile::mount(&folder.join("slow-disk"), "shard-0002", SHARD_BYTES, LATENCY)
        .context("cannot mount the slow file system (needs root and /dev/fuse)")?;
    for rank in 0..4 {
        let shard = data.join(format!("shard-{rank:04}"));
        // Left over from an earlier run.
        let _ = std::fs::remove_file(&shard);
        if rank == SLOW_RANK {
            std::os::unix::fs::symlink(std::path::absolute(slow.path())?, &shard)?;
        } else {
            std::fs::write(&shard, vec![0; usize::try_from(SHARD_BYTES)?])?;
        }
    }
    let ready = folder.join("ready");
    let _ = std::fs::remove_file(&ready);
    println!("starting a job of four ranks; the shard of rank {SLOW_RANK} takes {LATENCY:?} a read");
    let mut job = MpiJob::start(4, "train.py", &[text(&data)?, "60", text(&ready)?])?;
    job.wait_for(&ready, Duration::from_secs(60))?;

    let (capture, graph) = (folder.join("live.stall"), folder.join("waits.svg"));
    let pid = job.pid().to_string();
    show(&["ps"])?;
    show(&["record", "--pid", &pid, "-d", "8s", "-o", text(&capture)?, "--force"])?;
    if !job.running()? {
        bail!("the job ended while it was recorded");
    }
    drop(job);
    show(&["report", text(&capture)?])?;
    show(&["flamegraph", text(&capture)?, "--weight", "off-cpu", "-o", text(&graph)?, "--force"])?;
    println!("\ncapture                  {}", capture.display());
    println!("what ranks waited for    {} (open it in a browser)", graph.display());
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path of the demonstration is not UTF-8")
}
