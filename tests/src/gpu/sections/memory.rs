//! Memory of the job and of the device over many launches with a visit that lasts.

use std::time::Duration;

use super::best_way;
use crate::gpu::context::Context;
use crate::gpu::job::{Job, Word};
use crate::gpu::visit::Visit;

const LAUNCHES: u64 = 10_000_000;
/// On the double a launch says nothing, and time is shared with tests.
const LAUNCHES_OF_THE_DOUBLE: u64 = 500_000;
const LOOK: Duration = Duration::from_millis(250);

/// Memory at a number of launches.
#[derive(Clone, Copy, Debug)]
struct Sample {
    launches: u64,
    rss_kib: f64,
    device_mib: f64,
}

/// # Errors
/// Where nothing can be noted.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    for (label, nodes, reserve_s) in [("no graphs", "nodes=0", 35.0), ("graphs", "nodes=100", 1.0)] {
        let done = context
            .work_job(label, &["mode=loop", "kernel_ns=1000", nodes])
            .and_then(|job| over(context, label, job, reserve_s));
        context.part(label, done)?;
    }
    Ok(())
}

fn sample(job: &Job) -> Sample {
    let used = job.word(Word::TotalBytes).saturating_sub(job.word(Word::FreeBytes));
    Sample {
        launches: job.count(),
        rss_kib: job.belongings().rss_kib as f64,
        device_mib: used as f64 / 1048576.0,
    }
}

/// Growth for each million launches, between two samples.
fn growth(first: Sample, last: Sample, of: impl Fn(Sample) -> f64) -> f64 {
    let millions = last.launches.saturating_sub(first.launches) as f64 / 1e6;
    if millions > 0.0 { (of(last) - of(first)) / millions } else { 0.0 }
}

fn over(context: &mut Context, label: &str, mut job: Job, reserve_s: f64) -> anyhow::Result<()> {
    let wanted = if context.facts.double { LAUNCHES_OF_THE_DOUBLE } else { LAUNCHES };
    job.rates(6, LOOK)?;
    let before = sample(&job);
    let way = best_way(context)?;
    let mut visit = Visit::begin(context, way, &[job.pid()])?;
    visit.on()?;
    let command = format!("{}; {}", job.command, visit.command);
    let begun = sample(&job);
    let mut samples = vec![begun];
    while job.count() - begun.launches < wanted && context.has(reserve_s) {
        std::thread::sleep(LOOK);
        anyhow::ensure!(job.lives(), "the job ended: {}", job.said());
        samples.push(sample(&job));
    }
    let seen = visit.end()?;
    // The device's memory is looked at once a second.
    job.rates(6, LOOK)?;
    let after = sample(&job);
    let last = samples.last().copied().unwrap_or(begun);
    let launched = last.launches - begun.launches;
    context.say(&format!(
        "{label}: {launched} kernels launched of {wanted} wanted, {} recorded; lost: {}; refused: {}",
        seen.kernels,
        seen.losses(),
        seen.refused.as_deref().unwrap_or("nothing")
    ))?;
    // Pools fill at the beginning: what counts is what grows after that.
    let settled =
        samples.iter().find(|s| (s.launches - begun.launches) * 5 >= launched).copied().unwrap_or(begun);
    let rss: Vec<f64> = samples.iter().map(|s| s.rss_kib).collect();
    let device: Vec<f64> = samples.iter().map(|s| s.device_mib).collect();
    context.number(&format!("{label}: resident, before"), "KiB", &[before.rss_kib], &command)?;
    context.number(&format!("{label}: resident, during"), "KiB", &rss, &command)?;
    context.number(&format!("{label}: resident, after"), "KiB", &[after.rss_kib], &command)?;
    context.number(&format!("{label}: device, before"), "MiB", &[before.device_mib], &command)?;
    context.number(&format!("{label}: device, during"), "MiB", &device, &command)?;
    context.number(&format!("{label}: device, after"), "MiB", &[after.device_mib], &command)?;
    let host_growth = growth(settled, last, |s| s.rss_kib);
    let device_growth = growth(settled, last, |s| s.device_mib);
    context.number(
        &format!("{label}: resident, growth a million launches"),
        "KiB",
        &[host_growth],
        &command,
    )?;
    context.number(
        &format!("{label}: device, growth a million launches"),
        "MiB",
        &[device_growth],
        &command,
    )?;
    context.answer(
        11,
        &format!(
            "{label}, {launched} launches: the job grows by {host_growth:.0} KiB and the device by \
             {device_growth:.2} MiB a million launches after the first fifth; {:.0} KiB and {:.0} MiB at the attachment",
            settled.rss_kib - before.rss_kib,
            settled.device_mib - before.device_mib
        ),
    )?;
    job.end()
}

#[cfg(test)]
mod tests {
    use super::{Sample, growth};

    #[test]
    fn growth_is_for_each_million() {
        let at = |launches, rss_kib| Sample { launches, rss_kib, device_mib: 0.0 };
        let (first, last) = (at(1_000_000, 100.0), at(5_000_000, 300.0));
        assert!((growth(first, last, |s| s.rss_kib) - 50.0).abs() < 1e-9);
        assert!(growth(first, first, |s| s.rss_kib).abs() < 1e-9, "nothing was launched");
    }
}
