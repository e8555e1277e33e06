//! The demonstration: a real job of four ranks, one of which reads from a slow file; attach, record, explain.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use stallscope_tests::live::job::MpiJob;
use stallscope_tests::live::slow_file::SlowFile;

/// The rank whose shard is slow, and how slow.
const SLOW_RANK: u32 = 2;
const LATENCY: Duration = Duration::from_millis(40);
const SHARD_BYTES: u64 = 16 << 20;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().context("usage: live_demo FOLDER")?;
    let program = std::env::var_os("STALLSCOPE").map_or_else(|| PathBuf::from("stallscope"), PathBuf::from);
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
    let run = |arguments: &[&str]| -> anyhow::Result<()> {
        println!("\n$ stallscope {}", arguments.join(" "));
        let status = Command::new(&program).args(arguments).status()?;
        if status.success() { Ok(()) } else { bail!("stallscope {}: {status}", arguments.join(" ")) }
    };
    run(&["ps"])?;
    run(&["record", "--pid", &pid, "-d", "8s", "-o", text(&capture)?, "--force"])?;
    if !job.running()? {
        bail!("the job ended while it was recorded");
    }
    drop(job);
    run(&["report", text(&capture)?])?;
    run(&["flamegraph", text(&capture)?, "--weight", "off-cpu", "-o", text(&graph)?, "--force"])?;
    println!("\ncapture                  {}", capture.display());
    println!("what ranks waited for    {} (open it in a browser)", graph.display());
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path of the demonstration is not UTF-8")
}
