//! What a visit costs while it lasts: for each launch, and for a model that is trained.
//!
//! Rates are taken in turns, off and on, again and again; each on is set against the off just before it. CUPTI alone is the
//! job's own, with its records thrown away: what nobody who uses CUPTI can be cheaper than. The agent alone is that and
//! our own part inside the job, without eBPF and without a capture.

use std::time::Duration;

use super::{ANSWER_WITHIN, has_torch};
use crate::gpu::context::Context;
use crate::gpu::job::{Job, Word};
use crate::gpu::stats::{Spread, costs_ns, costs_percent};
use crate::gpu::visit::{Visit, Way};

/// One look at a rate.
const LOOK: Duration = Duration::from_millis(700);
/// What a round of all ways may take, s: there is no use in half a one.
const ROUND_S: f64 = 9.0;
/// Short looks, to see whether anything happens once a second.
const GLANCE: Duration = Duration::from_millis(20);

/// # Errors
/// Where the job does not run or nothing can be noted.
pub fn launches(context: &mut Context) -> anyhow::Result<()> {
    let mut job = context.work_job("launches", &["mode=loop", "kernel_ns=2000"])?;
    let mut costs = in_turns(context, &mut job, 15.0)?;
    let done = once_a_second(context, &mut job);
    context.part("what is asked once a second", done)?;
    job.end()?;
    let alone = cupti_alone(context);
    match alone {
        Ok(pairs) => costs.push(("CUPTI alone", pairs)),
        Err(error) => context.fail(&format!("CUPTI alone: {error:#}"))?,
    }
    summary(context, &costs)
}

/// # Errors
/// Where nothing can be noted.
pub fn model(context: &mut Context) -> anyhow::Result<()> {
    if !has_torch(context, "")? {
        return Ok(());
    }
    let mut job = context.torch_job("model", &["--model", "transformer"])?;
    job.ask("", ANSWER_WITHIN)?;
    let costs = in_turns(context, &mut job, 3.0)?;
    summary(context, &costs)?;
    drop(job.ask("quit", LOOK));
    Ok(())
}

type Pairs = Vec<(f64, f64)>;

/// All ways in turns until only so much time is left; at least one round where there is any time.
fn in_turns(
    context: &mut Context,
    job: &mut Job,
    reserve_s: f64,
) -> anyhow::Result<Vec<(&'static str, Pairs)>> {
    let ways = match context.facts.without_recording() {
        None => vec![Way::ProgramWithoutGpu, Way::Agent, Way::Program],
        Some(why) => {
            context.skip("levels 1 and 3", &why)?;
            vec![Way::Agent]
        }
    };
    let mut all: Vec<(Way, Pairs, String)> =
        ways.into_iter().map(|way| (way, Pairs::new(), String::new())).collect();
    let mut lost = Vec::new();
    while context.has(reserve_s + ROUND_S) {
        for (way, pairs, command) in &mut all {
            let off = rate(job)?;
            let mut visit = Visit::begin(context, *way, &[job.pid()])?;
            visit.on()?;
            let on = rate(job)?;
            command.clone_from(&visit.command);
            let seen = visit.end()?;
            if *way != Way::ProgramWithoutGpu && seen.kernels == 0 {
                let why = seen.refused.as_deref().unwrap_or("no reason was given");
                context.fail(&format!("{}: no kernel came: {why}", way.name()))?;
            }
            lost.extend(seen.lost.iter().map(|(what, n)| format!("{} {what} {n}", way.name())));
            pairs.push((off, on));
        }
    }
    let off: Vec<f64> = all.iter().flat_map(|(_, pairs, _)| pairs.iter().map(|p| p.0)).collect();
    context.number("rate, off", "/s", &off, &job.command)?;
    let mut named = Vec::new();
    for (way, pairs, command) in all {
        costs(context, way.name(), &pairs, &command)?;
        named.push((way.name(), pairs));
    }
    lost.truncate(8);
    context.say(&format!("lost, the first of it: {}", lost.join("; ")))?;
    Ok(named)
}

fn rate(job: &mut Job) -> anyhow::Result<f64> {
    Ok(job.rates(1, LOOK)?.into_iter().sum())
}

fn costs(context: &mut Context, what: &str, pairs: &[(f64, f64)], command: &str) -> anyhow::Result<()> {
    let on: Vec<f64> = pairs.iter().map(|p| p.1).collect();
    context.number(&format!("rate, {what}"), "/s", &on, command)?;
    context.number(&format!("cost of {what}"), "%", &costs_percent(pairs), command)?;
    context.number(&format!("cost of {what} for each launch or iteration"), "ns", &costs_ns(pairs), command)
}

/// What is the agent's on top of CUPTI alone.
fn summary(context: &mut Context, costs: &[(&str, Pairs)]) -> anyhow::Result<()> {
    let median = |name: &str| {
        let pairs = costs.iter().find(|(of, _)| *of == name).map(|(_, pairs)| costs_percent(pairs));
        Spread::of(&pairs?).map(|spread| spread.median)
    };
    let alone = median("CUPTI alone");
    let show = |name: &str| {
        median(name).map_or_else(|| format!("{name} not measured"), |cost| format!("{name} {cost:.1} %"))
    };
    let mut text = ["level 1", "CUPTI alone", "agent alone", "level 3"].map(show).join(", ");
    if let (Some(alone), Some(full)) = (alone, median("level 3").or(median("agent alone"))) {
        text += &format!("; on top of CUPTI alone {:.1} points", full - alone);
    }
    context.say(&text)
}

/// CUPTI in a job of its own, which switches it on and off itself.
fn cupti_alone(context: &mut Context) -> anyhow::Result<Pairs> {
    let Some(cupti) = context.facts.cuptis.first().cloned() else {
        context.skip("CUPTI alone", "there is no libcupti")?;
        return Ok(Pairs::new());
    };
    let argument = format!("cupti={}", cupti.display());
    let mut job = context.work_job("cupti", &["mode=loop", "kernel_ns=2000", &argument])?;
    let switch = |job: &mut Job, word: u64| {
        job.set(Word::Asked, word)?;
        job.until(Duration::from_secs(5), |job| job.word(Word::Answered) == word)
    };
    let (mut pairs, mut bytes) = (Pairs::new(), 0);
    while context.has(2.5) && pairs.len() < 8 {
        let off = rate(&mut job)?;
        switch(&mut job, 1)?;
        let on = rate(&mut job)?;
        switch(&mut job, 2)?;
        pairs.push((off, on));
        let now = job.word(Word::CuptiBytes);
        anyhow::ensure!(now > bytes, "CUPTI returned no records");
        bytes = now;
    }
    costs(context, "CUPTI alone", &pairs, &job.command)?;
    job.end()?;
    Ok(pairs)
}

/// The agent asks for CUPTI's subscription once a second. Is there a moment each second in which less gets done?
fn once_a_second(context: &mut Context, job: &mut Job) -> anyhow::Result<()> {
    let slowest = |rates: &[f64]| {
        // Of each second the slowest glance, as a share of the median.
        let median = Spread::of(rates).map_or(1.0, |s| s.median);
        let seconds = rates.chunks(50).map(|second| second.iter().copied().fold(f64::MAX, f64::min));
        seconds.map(|slow| (1.0 - slow / median) * GLANCE.as_secs_f64() * 1e6).collect::<Vec<f64>>()
    };
    let off = slowest(&job.rates(150, GLANCE)?);
    let mut visit = Visit::begin(context, Way::Agent, &[job.pid()])?;
    visit.on()?;
    let on = slowest(&job.rates(150, GLANCE)?);
    let command = visit.command.clone();
    visit.end()?;
    context.number("lost in the slowest 20 ms of each second, off", "µs", &off, &job.command)?;
    context.number("lost in the slowest 20 ms of each second, agent alone", "µs", &on, &command)?;
    if let (Some(off), Some(on)) = (Spread::of(&off), Spread::of(&on)) {
        let text = format!(
            "at most what is lost in the slowest 20 ms of a second: {:.0} µs, without the agent {:.0} µs",
            on.median, off.median
        );
        context.answer(7, &text)?;
    }
    Ok(())
}
