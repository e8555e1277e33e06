//! Jobs that are started with the agent: what cuInit takes then, what happens where the agent is not there, what CUPTI says
//! before cuInit, and CUDA that is initialised after an attachment.

use std::process::Command;
use std::time::Duration;

use super::WINDOW;
use crate::gpu::context::Context;
use crate::gpu::job::{Job, Word};
use crate::gpu::limit;
use crate::gpu::visit::{Visit, Way};

/// How often a job is started to see what cuInit takes.
const INIT_RUNS: usize = 3;

/// # Errors
/// Where nothing can be noted.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let agent = context.work().join("agent.so");
    std::fs::write(&agent, stallscope_cupti_image::AGENT)?;
    let done = init_times(context, &agent);
    context.part("cuInit", done)?;
    let done = codes(context);
    context.part("CUPTI before cuInit", done)?;
    let done = late_init(context);
    context.part("CUDA initialised after an attachment", done)
}

/// How long cuInit takes, ms, several times.
fn init_ms(context: &Context, name: &str, variables: &[(&str, &str)]) -> anyhow::Result<(Vec<f64>, Job)> {
    let mut all = Vec::new();
    loop {
        let page = context.work().join("init.page");
        let mut command = Command::new(context.pack.join("jobs/gpu_work"));
        command.args(["mode=loop", "kernel_ns=20000"]).arg(format!("page={}", page.display()));
        command.envs(variables.iter().copied());
        let job = Job::start(command, name, &context.work(), page)?;
        all.push(job.word(Word::InitNs) as f64 / 1e6);
        if all.len() >= INIT_RUNS {
            return Ok((all, job));
        }
    }
}

fn init_times(context: &mut Context, agent: &std::path::Path) -> anyhow::Result<()> {
    let (plain, job) = init_ms(context, "plain", &[])?;
    let command = job.command.clone();
    context.number("cuInit", "ms", &plain, &command)?;
    job.end()?;

    let missing = "/nonexistent/agent.so";
    let answer = match init_ms(context, "missing", &[("CUDA_INJECTION64_PATH", missing)]) {
        Ok((ms, job)) => {
            let said = job.said();
            job.end()?;
            context.number("cuInit, the injected file is not there", "ms", &ms, &command)?;
            format!("the job runs; it said: {said:?}")
        }
        Err(error) => format!("the job does not run: {error:#}"),
    };
    context.answer(6, &answer)?;

    let agent = agent.display().to_string();
    let cupti = context.facts.cuptis.first().map(|path| path.display().to_string()).unwrap_or_default();
    let kinds = stallscope_agents::everything().kinds.to_string();
    let variables = [
        ("CUDA_INJECTION64_PATH", agent.as_str()),
        ("STALLSCOPE_KINDS", kinds.as_str()),
        ("STALLSCOPE_CUPTI", cupti.as_str()),
        ("STALLSCOPE_WAIT_S", "5"),
    ];
    let (ms, mut job) = init_ms(context, "injected", &variables)?;
    context.number("cuInit, with the agent, collecting at once", "ms", &ms, &command)?;
    let mut visit = Visit::begin(context, Way::Agent, &[job.pid()])?;
    visit.on()?;
    job.rates(2, WINDOW)?;
    let least = job.count();
    let seen = visit.end()?;
    context.say(&format!(
        "started with the agent: {} kernels seen; launched since the start were {least} when it was asked to leave, {} when \
         it had left; lost: {}; refused: {}",
        seen.kernels,
        job.count(),
        seen.losses(),
        seen.refused.as_deref().unwrap_or("nothing")
    ))?;
    let (longest, plain) =
        (ms.iter().copied().fold(0.0, f64::max), plain.iter().copied().fold(0.0, f64::max));
    context.answer(
        5,
        &format!("cuInit takes at most {longest:.0} ms with the agent and {plain:.0} ms without; it waits for 500 ms"),
    )?;
    job.end()
}

fn codes(context: &mut Context) -> anyhow::Result<()> {
    if context.facts.cuptis.is_empty() {
        return context.skip("CUPTI before cuInit", "there is no libcupti");
    }
    for cupti in context.facts.cuptis.clone().into_iter().take(3) {
        let mut command = Command::new(context.pack.join("jobs/gpu_work"));
        command.arg("mode=before_init").arg(format!("cupti={}", cupti.display()));
        let out = context.work().join("codes.out");
        let ended = limit::run(command, &out, Duration::from_secs(5), &mut || {})?;
        let said = std::fs::read_to_string(&out).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let file = cupti.file_name().unwrap_or_default().to_string_lossy().into_owned();
        context.answer(8, &format!("{file} ({ended:?}): {}", lines.join(", ")))?;
    }
    Ok(())
}

/// The agent is asked for before the job has initialised CUDA.
fn late_init(context: &mut Context) -> anyhow::Result<()> {
    let page = context.work().join("late.page");
    let mut command = Command::new(context.pack.join("jobs/gpu_work"));
    command.args(["mode=loop", "wait_ms=1500", "kernel_ns=20000"]).arg(format!("page={}", page.display()));
    if let Some(runtime) = context.facts.cudart.as_ref().or(context.facts.cuptis.first()) {
        command.arg(format!("load={}", runtime.display()));
    }
    let mut job = Job::launch(command, "late", &context.work(), page)?;
    std::thread::sleep(Duration::from_millis(300));
    let visit = Visit::begin(context, Way::Agent, &[job.pid()])?;
    job.until(Duration::from_secs(6), |job| job.count() > 0)?;
    // It looks once a second.
    job.rates(8, WINDOW)?;
    let seen = visit.end()?;
    context.say(&format!(
        "attached before cuInit: {} kernels seen; refused: {}",
        seen.kernels,
        seen.refused.as_deref().unwrap_or("nothing")
    ))?;
    if seen.kernels == 0 {
        context.fail("no kernel was seen of a job that initialised CUDA after it was attached to")?;
    }
    job.end()
}
