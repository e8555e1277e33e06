//! Kernel times against those of CUDA events and of torch.profiler.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use stallscope_agents::What;

use super::{ANSWER_WITHIN, WINDOW, best_way, has_torch};
use crate::gpu::context::Context;
use crate::gpu::job::Word;
use crate::gpu::stats::Spread;
use crate::gpu::visit::{Seen, Visit, Way};

/// Kernels that are compared with PyTorch's: those with most time.
const NAMES: usize = 8;

/// A kernel between two CUDA events: host times around it, the events' time between them.
#[derive(Clone, Debug, PartialEq)]
struct Bracket {
    name: String,
    before: u64,
    after: u64,
    elapsed_ns: f64,
}

/// # Errors
/// Where nothing can be noted.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let done = events(context);
    context.part("CUDA events", done)?;
    if !has_torch(context, "torch.profiler")? {
        return Ok(());
    }
    let done = profiler(context);
    context.part("torch.profiler", done)
}

/// Lines of `gpu_work mode=events`.
fn brackets(output: &str) -> Vec<Bracket> {
    let line = |line: &str| {
        let mut words = line.strip_prefix("event ")?.split(' ');
        Some(Bracket {
            name: words.next()?.to_owned(),
            before: words.next()?.parse().ok()?,
            after: words.next()?.parse().ok()?,
            elapsed_ns: words.next()?.parse().ok()?,
        })
    };
    output.lines().filter_map(line).collect()
}

/// The bracket that a time lies in: they come one after the other.
fn bracket_of(brackets: &[Bracket], start: u64) -> Option<&Bracket> {
    let at = brackets.partition_point(|bracket| bracket.before <= start);
    brackets.get(at.checked_sub(1)?).filter(|bracket| start < bracket.after)
}

fn events(context: &mut Context) -> anyhow::Result<()> {
    let mut job = context.work_job("events", &["mode=events"])?;
    let mut visit = Visit::begin(context, Way::Agent, &[job.pid()])?;
    visit.on()?;
    let seconds = if context.has(20.0) { 6 } else { 3 };
    job.rates(seconds * 5, WINDOW)?;
    let seen = visit.end()?;
    let command = job.command.clone();
    job.set(Word::End, 1)?;
    job.ended(Duration::from_secs(5))?;
    let brackets = brackets(&job.output());
    let mut differences: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let (mut kernels, mut outside, mut other) = (BTreeMap::<&str, Vec<f64>>::new(), 0, 0);
    for op in &seen.ops {
        let (What::Kernel(name), Some(end)) = (&op.what, op.end) else { continue };
        match bracket_of(&brackets, op.start) {
            Some(bracket) if *bracket.name == **name => {
                let ns = end.saturating_sub(op.start) as f64;
                kernels.entry(&bracket.name).or_default().push(ns);
                differences.entry(&bracket.name).or_default().push(bracket.elapsed_ns - ns);
                outside += usize::from(end > bracket.after);
            }
            _ => other += 1,
        }
    }
    for (name, values) in &kernels {
        context.number(&format!("{name}: duration by CUPTI"), "ns", values, &command)?;
        let more = differences.get(name).map_or(&[][..], Vec::as_slice);
        context.number(&format!("{name}: events say more by"), "ns", more, &command)?;
    }
    let compared: usize = kernels.values().map(Vec::len).sum();
    let refused = seen.refused.as_deref().unwrap_or("nothing");
    context.say(&format!(
        "{compared} kernels compared; {other} begin outside of their launch and wait, {outside} end after it, as the host \
         saw it (the error of times is at most {} ns); lost: {}; refused: {refused}",
        seen.clock_error_ns,
        seen.losses()
    ))?;
    let all: Vec<f64> = differences.into_values().flatten().collect();
    let spread = Spread::of(&all).context("no kernel was seen between its events")?;
    context.answer(
        9,
        &format!(
            "CUDA events around a kernel say {:.0} ns more than CUPTI ({:.0} to {:.0}, {} kernels)",
            spread.median, spread.low, spread.high, spread.count
        ),
    )
}

fn profiler(context: &mut Context) -> anyhow::Result<()> {
    let mut job = context.torch_job("times", &["--model", "transformer"])?;
    job.ask("", ANSWER_WITHIN)?;
    let trace = context.work().join("trace.json");
    let profiled = job.ask(&format!("profile 30 {}", trace.display()), ANSWER_WITHIN)?;
    let off = job.ask("times 50", ANSWER_WITHIN)?;
    let way = best_way(context)?;
    let mut visit = Visit::begin(context, way, &[job.pid()])?;
    visit.on()?;
    let on = job.ask("times 50", ANSWER_WITHIN)?;
    let command = visit.command.clone();
    let seen = visit.end()?;
    for (which, answer) in [("off", off), ("on", on)] {
        let median = answer["median_us"].as_f64();
        context.number(
            &format!("an iteration by CUDA events, {which}"),
            "µs",
            median.as_slice(),
            &command,
        )?;
    }
    let theirs: BTreeMap<String, (u64, f64)> = serde_json::from_value(profiled["names"].clone())?;
    let ratios = compare(context, &seen, &theirs, &command)?;
    let spread = Spread::of(&ratios).context("no kernel has a name that torch.profiler knows too")?;
    context.answer(
        9,
        &format!(
            "of {} kernels of a model the median time is {:.3} of torch.profiler's ({:.3} to {:.3})",
            spread.count, spread.median, spread.low, spread.high
        ),
    )?;
    drop(job.ask("quit", WINDOW));
    Ok(())
}

/// Medians of kernels that both know, ours by theirs.
fn compare(
    context: &mut Context,
    seen: &Seen,
    theirs: &BTreeMap<String, (u64, f64)>,
    command: &str,
) -> anyhow::Result<Vec<f64>> {
    let mut both: Vec<(&str, f64, f64, u64)> = Vec::new();
    for (name, (count, durations)) in &seen.by_name {
        let known = theirs.iter().find(|(other, _)| same(name, other));
        if let (Some((_, (_, median_us))), Some(ours)) = (known, Spread::of(durations)) {
            both.push((name, ours.median, median_us * 1e3, *count));
        }
    }
    both.sort_by(|a, b| (b.1 * b.3 as f64).total_cmp(&(a.1 * a.3 as f64)));
    for (name, ours, theirs, count) in both.iter().take(NAMES) {
        let name: String = name.chars().take(60).collect();
        context
            .say(&format!("{name}: {ours:.0} ns, torch.profiler {theirs:.0} ns, {count} times: {command}"))?;
    }
    context.say(&format!("{} names of {} are known to both", both.len(), seen.by_name.len()))?;
    Ok(both.iter().map(|(_, ours, theirs, _)| ours / theirs).collect())
}

/// Whether two spellings of a kernel's name are one: demanglers differ in blanks, and long names are cut.
fn same(ours: &str, theirs: &str) -> bool {
    let plain = |name: &str| name.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let (ours, theirs) = (plain(ours), plain(theirs));
    match ours.strip_suffix('…') {
        Some(begin) => theirs.starts_with(begin),
        None => ours == theirs,
    }
}

#[cfg(test)]
mod tests {
    use super::{bracket_of, brackets, same};

    #[test]
    fn a_kernel_belongs_to_the_bracket_that_it_begins_in() {
        let all = brackets("event a 100 200 50\nnoise\nevent b 210 300 60\nevent c 310\n");
        assert_eq!(all.len(), 2);
        let name = |at| bracket_of(&all, at).map(|b| b.name.as_str());
        assert_eq!(
            [99, 100, 199, 205, 210, 300].map(name),
            [None, Some("a"), Some("a"), None, Some("b"), None]
        );
    }

    #[test]
    fn names_differ_in_blanks_and_may_be_cut() {
        assert!(same("void f<int,float >(A*)", "void f<int, float>(A *)"));
        assert!(same("void f<int…", "void f<int, float>()"));
        assert!(!same("f", "g") && !same("void f<int…", "void g()"));
    }
}
