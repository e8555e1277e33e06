//! What the sections do. Each measures, notes what it found at once, and leaves nothing running: its jobs die with it.

pub mod attach;
pub mod cost;
pub mod cycles;
pub mod kernel;
pub mod launch;
pub mod memory;
pub mod nccl;
pub mod profiler;
pub mod times;

use std::time::Duration;

use super::context::Context;
use super::visit::Way;

/// One look at a rate.
const WINDOW: Duration = Duration::from_millis(200);
/// How long a loop in PyTorch may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The ways that this machine allows, the agent alone first: it needs the least, and what it needs is the riskiest.
fn ways(context: &mut Context) -> anyhow::Result<Vec<Way>> {
    let Some(why) = context.facts.without_recording() else { return Ok(vec![Way::Agent, Way::Program]) };
    context.skip("stallscope record", &why)?;
    Ok(vec![Way::Agent])
}

/// The fullest of them.
fn best_way(context: &mut Context) -> anyhow::Result<Way> {
    Ok(ways(context)?.last().copied().unwrap_or(Way::Agent))
}

/// Notes that the section needs PyTorch where it is missing; whether it is there.
fn has_torch(context: &mut Context, what: &str) -> anyhow::Result<bool> {
    let Some(why) = context.facts.without_torch() else { return Ok(true) };
    context.skip(what, &why)?;
    Ok(false)
}
