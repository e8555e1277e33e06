//! Late attach: do records come from a job that was started without any preparation, how many of what it did, how long does
//! it take, and is the job as fast afterwards as before? And the same a second time.

use std::fmt::Write as _;

use super::{WINDOW, best_way, has_torch, ways};
use crate::gpu::context::Context;
use crate::gpu::job::Job;
use crate::gpu::stats::{Spread, costs_percent};
use crate::gpu::visit::{Seen, Visit, Way};

/// Looks at a rate before, during and after.
const WINDOWS: usize = 6;
/// Kernels of a graph.
const NODES: &str = "nodes=100";
/// Kernels that a job may have launched and not yet counted.
const IN_FLIGHT: u64 = 1024;
/// What is told once is told at this.
const FIRST: &str = "first visit";
/// A capture that may be kept in the repository.
const SMALL_BYTES: u64 = 500_000;
/// Calls of the runtime and of the driver that launch kernels. Where the first are recorded, do the second come with them?
const RUNTIME_LAUNCHES: [&str; 2] = ["cudaLaunchKernel", "cudaLaunchKernelExC"];
const DRIVER_LAUNCHES: [&str; 2] = ["cuLaunchKernel", "cuLaunchKernelEx"];

/// On the driver's API.
///
/// # Errors
/// Where nothing can be noted.
pub fn driver(context: &mut Context) -> anyhow::Result<()> {
    let ways = ways(context)?;
    for (label, nodes) in [("no graphs", "nodes=0"), ("graphs", NODES)] {
        let done = context.work_job(label, &["mode=loop", "kernel_ns=2000", nodes]).and_then(|mut job| {
            visits(context, label, &mut job, Some(1), &ways)?;
            job.end()
        });
        context.part(label, done)?;
    }
    let kept = small(context);
    context.part("a small capture", kept)
}

/// On PyTorch.
///
/// # Errors
/// As above.
pub fn torch(context: &mut Context) -> anyhow::Result<()> {
    if !has_torch(context, "")? {
        return Ok(());
    }
    let ways = ways(context)?;
    for (label, arguments) in [("torch, no graphs", &[][..]), ("torch, graphs", &["--graphs"])] {
        let done = context.torch_job(&label.replace(", ", "-"), arguments).and_then(|mut job| {
            let kernels = job.ask("", super::ANSWER_WITHIN)?["kernels"].as_u64();
            visits(context, label, &mut job, kernels, &ways)?;
            job.end()
        });
        context.part(label, done)?;
    }
    Ok(())
}

/// Twice the agent alone, once the program; `per_count` kernels for each unit that the job counts, where that is known.
fn visits(
    context: &mut Context,
    label: &str,
    job: &mut Job,
    per_count: Option<u64>,
    ways: &[Way],
) -> anyhow::Result<()> {
    let mut before = job.rates(WINDOWS, WINDOW)?;
    let command = job.command.clone();
    context.number(&format!("{label}: rate before"), "/s", &before, &command)?;
    let untouched = before.clone();
    let (first, more) = (ways.first().copied().unwrap_or(Way::Agent), ways.get(1).copied());
    let all = [(Some(first), FIRST), (Some(first), "second visit"), (more, "visit")];
    for (way, which) in all.into_iter().filter_map(|(way, which)| Some((way?, which))) {
        let label = format!("{label}, {which}, {}", way.name());
        let seen = visit(context, &label, job, per_count, way, &before)?;
        let after = job.rates(WINDOWS, WINDOW)?;
        context.number(&format!("{label}: rate after"), "/s", &after, &command)?;
        let pairs: Vec<(f64, f64)> = untouched.iter().copied().zip(after.iter().copied()).collect();
        let costs = costs_percent(&pairs);
        context.number(&format!("{label}: slower afterwards than before anything"), "%", &costs, &command)?;
        answers(context, &label, which, &seen, Spread::of(&costs))?;
        before = after;
    }
    Ok(())
}

/// One visit, and what it saw.
fn visit(
    context: &mut Context,
    label: &str,
    job: &mut Job,
    per_count: Option<u64>,
    way: Way,
    before: &[f64],
) -> anyhow::Result<Seen> {
    let outer = job.count();
    let mut visit = Visit::begin(context, way, &[job.pid()])?;
    visit.on()?;
    let command = visit.command.clone();
    let inner = job.count();
    let during = job.rates(WINDOWS, WINDOW)?;
    let inner = job.count() - inner;
    let seen = visit.end()?;
    let outer = job.count() - outer;
    context.number(&format!("{label}: rate during"), "/s", &during, &command)?;
    let pairs: Vec<(f64, f64)> = before.iter().copied().zip(during.iter().copied()).collect();
    context.number(&format!("{label}: cost during"), "%", &costs_percent(&pairs), &command)?;
    let times = [
        ("attach, eBPF", seen.host_attach_ms),
        ("attach, agent", seen.attach_ms),
        ("detach, agent", seen.detach_ms),
    ];
    for (what, value) in times.into_iter().filter(|(_, value)| value.is_some()) {
        context.number(&format!("{label}: {what}"), "ms", value.as_slice(), &command)?;
    }
    let mut text = format!("{label}: {} kernels", seen.kernels);
    if let Some(each) = per_count {
        let (least, most) = (inner * each, outer * each + IN_FLIGHT);
        let _ = write!(
            text,
            "; launched were {least} while it was on, at most {most} from before it to after it"
        );
        let verdict = if seen.kernels < least {
            "SOME ARE MISSING"
        } else if seen.kernels > most {
            "MORE THAN THERE WERE"
        } else {
            "none of those is missing"
        };
        let _ = write!(text, ": {verdict}");
    }
    let _ = write!(text, "; lost: {}; error of times at most {} ns", seen.losses(), seen.clock_error_ns);
    if let Some(version) = seen.cupti_version {
        let _ = write!(text, "; CUPTI {version}");
    }
    if let Some(why) = &seen.refused {
        let _ = write!(text, "; REFUSED: {why}");
    }
    context.say(&text)?;
    Ok(seen)
}

fn answers(
    context: &mut Context,
    label: &str,
    which: &str,
    seen: &Seen,
    slower: Option<Spread>,
) -> anyhow::Result<()> {
    let refused = seen.refused.as_deref().unwrap_or("no kernel came");
    let came = if seen.kernels > 0 { "yes".to_owned() } else { format!("no: {refused}") };
    context.answer(1, &format!("{label}: {came}"))?;
    if let Some(slower) = slower {
        let (median, low, high) = (slower.median, slower.low, slower.high);
        context.answer(2, &format!("{label}: afterwards slower by {median:.1} % ({low:.1} to {high:.1})"))?;
    }
    if which != FIRST {
        return Ok(());
    }
    if !seen.devices.is_empty() {
        context.answer(3, &format!("{label}: devices were told: {}", seen.devices.join(", ")))?;
    } else if seen.kernels > 0 {
        context.answer(3, &format!("{label}: no"))?;
    }
    let sum =
        |names: &[&str]| names.iter().map(|&name| seen.calls.get(name).copied().unwrap_or(0)).sum::<u64>();
    let (runtime, driver) = (sum(&RUNTIME_LAUNCHES), sum(&DRIVER_LAUNCHES));
    if runtime > 0 {
        let text =
            format!("{label}: {runtime} launches of the runtime and {driver} of the driver were recorded");
        context.answer(4, &text)?;
    }
    Ok(())
}

/// A short recording with few kernels, to be replayed where there is no GPU.
fn small(context: &mut Context) -> anyhow::Result<()> {
    if best_way(context)? != Way::Program {
        return Ok(());
    }
    let name = if context.facts.double { "double" } else { "gpu" };
    for (which, nodes) in [("loop", "nodes=0"), ("graphs", "nodes=20")] {
        let mut job = context.work_job(which, &["mode=loop", "kernel_ns=200000", nodes])?;
        let mut visit = Visit::begin(context, Way::Program, &[job.pid()])?;
        visit.on()?;
        job.rates(1, WINDOW)?;
        let command = visit.command.clone();
        let seen = visit.end()?;
        job.end()?;
        let Some(capture) = seen.capture else { continue };
        let bytes = std::fs::metadata(&capture)?.len();
        if bytes > SMALL_BYTES {
            context.say(&format!("the capture of {which} has {bytes} bytes and was not kept"))?;
            continue;
        }
        let path = format!("captures/{name}-{which}.stall");
        std::fs::copy(&capture, context.out.join(&path))?;
        context.file(&path, &format!("{} kernels, {bytes} bytes: {command}", seen.kernels))?;
    }
    Ok(())
}
