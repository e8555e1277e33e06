//! Two NCCL ranks on one GPU: does it run, and do the kernels have the names that we know?

use std::process::Command;
use std::time::{Duration, Instant};

use super::{WINDOW, best_way, has_torch};
use crate::gpu::context::Context;
use crate::gpu::job::{Job, Word};
use crate::gpu::visit::Visit;

/// NCCL is not known to say no to this at once, it may wait.
const BEGIN_WITHIN: Duration = Duration::from_secs(12);

/// # Errors
/// Where nothing can be noted.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    if context.facts.python.is_empty() {
        return context.skip("", "there is no python3");
    }
    if has_torch(context, "torch.distributed")? {
        let done = ranks(context, "torch.distributed", &["torch"], "29611");
        return context.part("torch.distributed", done);
    }
    let done = ranks(context, "NCCL itself", &[], "29612");
    context.part("NCCL itself", done)
}

fn rank(context: &Context, rank: u32, nccl: &str, more: &[&str], port: &str) -> anyhow::Result<Job> {
    let work = context.work();
    let name = format!("{nccl}-{rank}");
    let page = work.join(format!("{name}.page"));
    let mut command: Command = context.python_with_libraries("gpu_nccl.py");
    command.arg(rank.to_string()).arg("2").arg(&page).arg(&work).args(more);
    // One machine is made to look like two, and a GPU may be given twice; few blocks, so that both fit on it.
    command.env("NCCL_MULTI_RANK_GPU_ENABLE", "1").env("NCCL_HOSTID", format!("stallscope-{rank}"));
    command.env("NCCL_MAX_CTAS", "4").env("NCCL_DEBUG", "WARN");
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
    command.env("NCCL_SOCKET_IFNAME", "lo").env("NCCL_IB_DISABLE", "1");
    command.env("RANK", rank.to_string()).env("LOCAL_RANK", "0").env("WORLD_SIZE", "2");
    Job::launch(command, &name, &work, page)
}

fn ranks(context: &mut Context, what: &str, more: &[&str], port: &str) -> anyhow::Result<()> {
    let name = what.replace(' ', "-");
    // Where ranks met in an earlier run.
    let _ = std::fs::remove_file(context.work().join("meet"));
    let mut jobs = [rank(context, 0, &name, more, port)?, rank(context, 1, &name, more, port)?];
    let begun = Instant::now();
    while jobs.iter().any(|job| job.count() == 0) {
        for job in &mut jobs {
            if !job.lives() {
                let text = format!("{what}: no: {} {}", job.said(), job.output());
                context.say(&text)?;
                return context.answer(12, &text);
            }
        }
        if begun.elapsed() > BEGIN_WITHIN {
            let text = format!("{what}: no all-reduce was done within {BEGIN_WITHIN:?}: {}", jobs[0].said());
            context.say(&text)?;
            return context.answer(12, &text);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let rate = jobs[0].rates(5, WINDOW)?;
    context.number(&format!("{what}: all-reduces of 4 MiB"), "/s", &rate, &jobs[0].command)?;
    let way = best_way(context)?;
    let mut visit = Visit::begin(context, way, &[jobs[0].pid(), jobs[1].pid()])?;
    visit.on()?;
    jobs[0].rates(5, WINDOW)?;
    let seen = visit.end()?;
    let kernels: Vec<String> = seen.by_name.iter().map(|(name, (n, _))| format!("{name} × {n}")).collect();
    let kernels = kernels.join(", ");
    let refused = seen.refused.as_deref().unwrap_or("nothing");
    context.say(&format!("{what}: kernels: {kernels}; lost: {}; refused: {refused}", seen.losses()))?;
    let said = jobs[0].output();
    context.answer(
        12,
        &format!("{what}: yes ({}); kernels: {kernels}", said.lines().next().unwrap_or_default()),
    )?;
    for job in jobs {
        // One may wait for the other in a kernel: then it is killed.
        job.set(Word::End, 1)?;
    }
    Ok(())
}
