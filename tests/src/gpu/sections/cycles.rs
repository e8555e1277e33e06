//! A hundred visits to one job: is it as fast afterwards, and what has it more than before?

use std::time::Duration;

use super::WINDOW;
use crate::gpu::context::Context;
use crate::gpu::job::{Belongings, Job, Word};
use crate::gpu::stats::{Spread, costs_percent};
use crate::gpu::visit::{Visit, Way};

const CYCLES: usize = 100;
/// How long the agent stays on.
const STAY: Duration = Duration::from_millis(50);

/// # Errors
/// Where the job does not run or nothing can be noted.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let mut job = context.work_job("cycles", &["mode=loop", "kernel_ns=2000"])?;
    let device_used =
        |job: &Job| job.word(Word::TotalBytes).saturating_sub(job.word(Word::FreeBytes)) as f64 / 1048576.0;
    let before = job.rates(10, WINDOW)?;
    let (had, device_had) = (job.belongings(), device_used(&job));
    context.number("rate before", "/s", &before, &job.command)?;
    context.say(&format!("the job before: {}; {device_had:.0} MiB of the device used", show(had)))?;
    let (mut attach, mut detach, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let (mut empty, mut done) = (0, 0);
    let mut command = String::new();
    while done < CYCLES && context.has(4.0) {
        let mut visit = Visit::begin(context, Way::Agent, &[job.pid()])?;
        visit.on()?;
        std::thread::sleep(STAY);
        command = format!("{}; {}", job.command, visit.command);
        let seen = visit.end()?;
        attach.extend(seen.attach_ms);
        detach.extend(seen.detach_ms);
        refused.extend(seen.refused);
        empty += usize::from(seen.kernels == 0);
        done += 1;
        if done == 1 || done % 25 == 0 {
            context.say(&format!("the job after {done}: {}", show(job.belongings())))?;
        }
        anyhow::ensure!(job.lives(), "the job ended in visit {done}: {}", job.said());
    }
    let (has, device_has) = (job.belongings(), device_used(&job));
    let after = job.rates(10, WINDOW)?;
    context
        .say(&format!("{done} of {CYCLES} visits; {empty} without a kernel; {} refused", refused.len()))?;
    if let Some(first) = refused.first() {
        context.fail(&format!("{} of {done} visits were refused, the first: {first}", refused.len()))?;
    }
    context.number("attach", "ms", &attach, &command)?;
    context.number("detach", "ms", &detach, &command)?;
    context.number("rate after", "/s", &after, &command)?;
    let pairs: Vec<(f64, f64)> = before.into_iter().zip(after).collect();
    let slower = costs_percent(&pairs);
    context.number("slower afterwards", "%", &slower, &command)?;
    context.say(&format!("the job at the end: {}; {device_has:.0} MiB of the device used", show(has)))?;
    let median = Spread::of(&slower).map_or(0.0, |s| s.median);
    context.answer(
        2,
        &format!("after {done} visits slower by {median:.1} %, {} refused, {empty} empty", refused.len()),
    )?;
    job.end()
}

fn show(b: Belongings) -> String {
    format!("{} KiB resident, {} files, {} mappings, {} threads", b.rss_kib, b.files, b.maps, b.threads)
}
