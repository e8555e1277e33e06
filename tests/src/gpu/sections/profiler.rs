//! The job's own profiler before, during and after an attachment: are its traces whole?

use serde_json::Value;

use super::{ANSWER_WITHIN, WINDOW, best_way, has_torch};
use crate::gpu::context::Context;
use crate::gpu::job::Job;
use crate::gpu::visit::{Visit, Way};

/// # Errors
/// Where nothing can be noted.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let own = own_profiler(context);
    context.part("CUPTI used by the job", own)?;
    if !has_torch(context, "torch.profiler")? {
        return Ok(());
    }
    let torch =
        context.torch_job("profiled", &[]).and_then(|job| around(context, "torch.profiler", job, 100));
    context.part("torch.profiler", torch)
}

/// The same without PyTorch: a loop that uses CUPTI in the order that PyTorch does.
fn own_profiler(context: &mut Context) -> anyhow::Result<()> {
    if context.facts.python.is_empty() {
        return context.skip("CUPTI used by the job", "there is no python3");
    }
    if context.facts.cuptis.is_empty() {
        return context.skip("CUPTI used by the job", "there is no libcupti");
    }
    let page = context.work().join("own.page");
    let mut command = context.python_with_libraries("gpu_own_profiler.py");
    command.arg(&page);
    let job = Job::start(command, "own", &context.work(), page)?;
    around(context, "CUPTI used by the job", job, 2000)
}

fn around(context: &mut Context, what: &str, mut job: Job, iterations: u32) -> anyhow::Result<()> {
    job.ask("", ANSWER_WITHIN)?;
    let mut whole = Vec::new();
    for which in ["before", "before, again"] {
        whole.push(profile(context, what, which, &mut job, iterations)?);
    }
    for way in [Way::Agent, best_way(context)?] {
        let mut visit = Visit::begin(context, way, &[job.pid()])?;
        visit.on()?;
        job.rates(3, WINDOW)?;
        whole.push(profile(context, what, &format!("during ({})", way.name()), &mut job, iterations)?);
        job.rates(3, WINDOW)?;
        let seen = visit.end()?;
        let refused = seen.refused.as_deref().unwrap_or("it stayed until the end");
        context.say(&format!(
            "{what}: the visit ({}) saw {} kernels and lost {}; {refused}",
            way.name(),
            seen.kernels,
            seen.losses()
        ))?;
        for which in ["after", "after, again"] {
            let which = format!("{which} ({})", way.name());
            whole.push(profile(context, what, &which, &mut job, iterations)?);
        }
    }
    let rate = job.rates(5, WINDOW)?;
    context.number(&format!("{what}: rate at the end"), "/s", &rate, &job.command)?;
    let good = whole.iter().filter(|&&whole| whole).count();
    context.answer(10, &format!("{what}: {good} of {} traces are whole", whole.len()))?;
    drop(job.ask("quit", WINDOW));
    Ok(())
}

/// Lets the job profile itself. Whether its trace has every kernel that it launched.
fn profile(
    context: &mut Context,
    what: &str,
    which: &str,
    job: &mut Job,
    iterations: u32,
) -> anyhow::Result<bool> {
    let trace = context.work().join("trace.json");
    let answer = match job.ask(&format!("profile {iterations} {}", trace.display()), ANSWER_WITHIN) {
        Ok(answer) => answer,
        Err(error) if job.lives() => {
            context.fail(&format!("{what}, {which}: {error:#}"))?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let number = |key: &str| answer[key].as_u64().unwrap_or(0);
    let (kernels, launched) = (number("kernels"), number("expected"));
    let kinds = if answer["kinds"].is_null() { Value::Null } else { answer["kinds"].clone() };
    // Records of before may come along, which profilers tell by their times; missing ones are gone.
    let whole = kernels >= launched;
    let verdict = match kernels.checked_sub(launched) {
        Some(0) => "whole".to_owned(),
        Some(more) => format!("whole, and {more} that were launched before"),
        None => "NOT WHOLE".to_owned(),
    };
    context.say(&format!(
        "{what}, {which}: {kernels} kernels of {launched} launched: {verdict}; records by kind {kinds}"
    ))?;
    Ok(whole)
}
