//! What if: a job's operations simulated anew with some of them at their best, to learn what the others cost.
//!
//! [`graph`] knows operations that wait for others and nothing of where they come from; [`analyse`] makes such a graph from
//! the operations of a pipelined training job (data-parallel ranks, pipeline stages, model chunks) and asks it:
//!
//! ```text
//! slowdown      = mean step as simulated / mean step with everything at its best
//! slowdown(x)   = mean step with only x as it was / mean step with everything at its best
//! slowdown(worker) = min(slowdown(its data-parallel rank), slowdown(its stage))
//! M_W = (simulated - without the slowest workers) / (simulated - ideal),  the slowest 3 %, at least one
//! M_S = (simulated - without the last stage)      / (simulated - ideal)
//! ```
//!
//! from "Understanding Stragglers in Large Model Training Using What-if Analysis" (OSDI '25, equations 1 to 5). "Without"
//! is: with their operations at their best. A share may be below 0 or above 1, because taking away one delay can move
//! another. Where the dependencies of a capture cannot be worked out, the result says why and has no numbers.
//!
//! `recorded` simulates the collectives of a recording in the same spirit, without a schedule to know of.

mod before;
mod finding;
pub mod graph;
mod hidden;
mod job;
mod recorded;
mod schedule;
mod simulate;
mod transfers;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::capture::{Capture, Device, ReadAt, Tables};
use job::{Job, Place, Worker};
use simulate::{Simulation, StepTimes};

pub(crate) use before::Took;
pub(crate) use finding::finding;
pub(crate) use recorded::{Loss, MAX_COMINGS, Recorded};

/// Workers that count as the slowest, in percent.
const SLOWEST_PERCENT: usize = 3;

/// From which slowdown on its shares mean something: below, one noise is divided by another.
const LEAST_SLOWDOWN: f64 = 1.01;

/// Data-parallel ranks that are simulated one by one.
const MAX_DP_RANKS: usize = 4096;

/// Labels under which an importer leaves the sizes of a job.
pub mod label {
    /// Data-parallel ranks.
    pub const DP: &str = "parallel.dp";
    /// Ranks over which the data of a data-parallel rank is spread.
    pub const DSP: &str = "parallel.dsp";
    /// Pipeline stages.
    pub const PP: &str = "parallel.pp";
    /// Tensor-parallel ranks.
    pub const TP: &str = "parallel.tp";
    /// Model chunks of a stage.
    pub const VPP: &str = "parallel.vpp";
    /// Ranks of the job.
    pub const WORLD: &str = "parallel.world";
}

/// Why a capture with operations of a pipelined job cannot be simulated, and what to do.
#[derive(Debug, thiserror::Error)]
enum Undecided {
    #[error("the capture holds several jobs; import each trace into a capture of its own")]
    SeveralJobs,
    #[error("there are more than {0} operations; cut the trace to fewer steps")]
    TooLarge(usize),
    #[error("no operation of a known kind was recorded; look at the trace's column optype")]
    NoOperations,
    #[error(
        "data-parallel rank {dp_rank} has no operations of stage {stage}; record every stage of the pipeline"
    )]
    StageAbsent { dp_rank: u64, stage: u64 },
    #[error(
        "stage {stage} of data-parallel rank {dp_rank} has neither forward nor backward computation; record them"
    )]
    NoComputation { dp_rank: u64, stage: u64 },
    #[error(
        "stage {stage} of data-parallel rank {dp_rank} has {transfers} {kind} for {computes} {compute}; operations \
         are missing: record the step again, whole"
    )]
    Uneven {
        dp_rank: u64,
        stage: u64,
        transfers: usize,
        kind: &'static str,
        computes: usize,
        compute: &'static str,
    },
    #[error(
        "in data-parallel rank {dp_rank}, the {sent} {send} of stage {from} do not match the {received} {recv} of \
         stage {to}; operations are missing: record the step again, whole"
    )]
    Unpaired {
        dp_rank: u64,
        send: &'static str,
        from: u64,
        sent: usize,
        recv: &'static str,
        to: u64,
        received: usize,
    },
    #[error(
        "operations wait for each other in a circle ({0}); the trace's times or sequence numbers contradict each other: \
         record the step again"
    )]
    Circle(String),
    #[error("there are more than {MAX_DP_RANKS} data-parallel ranks; cut the trace to fewer")]
    TooManyRanks,
}

/// What a job would gain if parts of it were as they are at their best. Times are means over the steps, ns.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WhatIf {
    /// Why there are no numbers, and what to do; null where there are.
    pub undecided: Option<String>,
    /// How much longer a step takes than with everything at its best, as a factor.
    pub slowdown: Option<f64>,
    /// Share of the slowdown that goes away with the slowest workers at their best; null where there is no slowdown.
    pub m_w: Option<f64>,
    /// The same with the last pipeline stage at its best; null without a slowdown and where there is but one stage.
    pub m_s: Option<f64>,
    /// A step, from its first begin to its last end.
    pub actual_ns: u64,
    /// A step as simulated with the durations that the operations had.
    pub simulated_ns: u64,
    /// A step with everything at its best.
    pub ideal_ns: u64,
    /// A step with the slowest workers at their best.
    pub without_slowest_workers_ns: Option<u64>,
    /// A step with the last stage at its best.
    pub without_last_stage_ns: Option<u64>,
    /// Simulated time beyond the ideal, of all steps together.
    pub lost_ns: u64,
    /// What was recorded of the job's sizes.
    pub sizes: Sizes,
    /// The slowest 3 % of the workers, the slowest first.
    pub slowest_workers: Vec<WorkerReport>,
    /// All workers, by data-parallel rank and stage.
    pub workers: Vec<WorkerReport>,
    /// Each data-parallel rank by itself, the slowest first.
    pub dp_ranks: Vec<Part<u64>>,
    /// Each pipeline stage by itself, the slowest first.
    pub stages: Vec<Part<u64>>,
    /// Each kind of operation by itself, the slowest first.
    pub operations: Vec<Part<&'static str>>,
    /// Each step.
    pub steps: Vec<StepReport>,
    /// What is to be known of the numbers, a sentence each.
    pub notes: Vec<String>,
}

/// Sizes of a job; those that no label gives are what was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Data-parallel ranks.
    pub dp: u64,
    /// Pipeline stages.
    pub pp: u64,
    /// Model chunks of a stage.
    pub vpp: u64,
    /// Tensor-parallel ranks; null where unknown.
    pub tp: Option<u64>,
    /// Ranks over which the data of a data-parallel rank is spread; null where unknown.
    pub dsp: Option<u64>,
    /// Ranks of the job; null where unknown.
    pub world: Option<u64>,
}

/// One worker. Of a tensor-parallel group one is recorded and stands for all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerReport {
    /// Rank in the job, or null.
    pub rank: Option<u32>,
    /// Identity of its device.
    pub device: String,
    /// Its data-parallel rank.
    pub dp_rank: u64,
    /// Its pipeline stage.
    pub stage: u64,
    /// How much it slows the job down by itself, as a factor.
    pub slowdown: f64,
}

/// A part of the job by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part<T> {
    /// Number or name.
    pub id: T,
    /// How much it slows the job down by itself, as a factor.
    pub slowdown: f64,
    /// How long it takes at its best, ns; only of operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ideal_ns: Option<i64>,
}

/// One training step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Number in the trace.
    pub step: i64,
    /// From its first begin to its last end, ns.
    pub actual_ns: u64,
    /// As simulated with the durations that the operations had, ns.
    pub simulated_ns: u64,
    /// With everything at its best, ns.
    pub ideal_ns: u64,
    /// `simulated_ns` over `ideal_ns`.
    pub slowdown: f64,
}

/// Simulates the pipelined job of a capture. `None` where the capture is of no such job.
pub fn analyse<S: ReadAt>(capture: &Capture<S>) -> Option<WhatIf> {
    let answer = match Job::read(capture) {
        Ok(None) => return None,
        Ok(Some(job)) => of_job(&job, capture.tables()),
        Err(undecided) => Err(undecided),
    };
    let reason =
        |undecided: Undecided| WhatIf { undecided: Some(undecided.to_string()), ..WhatIf::default() };
    Some(answer.unwrap_or_else(reason))
}

fn of_job(job: &Job, tables: &Tables) -> Result<WhatIf, Undecided> {
    let dp_ranks: BTreeSet<u64> = job.places.iter().map(|p| p.dp_rank).collect();
    let stages: BTreeSet<u64> = job.places.iter().map(|p| p.at.stage).collect();
    if dp_ranks.len() > MAX_DP_RANKS {
        return Err(Undecided::TooManyRanks);
    }
    let sizes = sizes(job, tables, &dp_ranks, &stages);
    let data_parallel = sizes.dp.saturating_mul(sizes.dsp.unwrap_or(1)) > 1;
    let simulation = Simulation::new(job, data_parallel)?;
    let simulated = simulation.steps(|_| true);
    let ideal = simulation.steps(|_| false);
    let alone = |is_real: &dyn Fn(&Place) -> bool| ratio(&simulation.steps(is_real), &ideal);
    let by_dp: Vec<Part<u64>> = dp_ranks.iter().map(|&id| part(id, alone(&|p| p.dp_rank == id))).collect();
    let by_stage: Vec<Part<u64>> = stages.iter().map(|&id| part(id, alone(&|p| p.at.stage == id))).collect();
    let by_kind: Vec<Part<&'static str>> = simulation
        .ideal()
        .iter()
        .map(|(&kind, &best)| Part {
            ideal_ns: Some(best),
            ..part(kind.name(), alone(&|p: &Place| p.at.kind == kind))
        })
        .collect();
    let workers: Vec<(Worker, f64)> =
        job.workers.iter().map(|&w| (w, of(&by_dp, w.dp_rank).min(of(&by_stage, w.stage)))).collect();
    let slowest = slowest(&workers);
    let slowest_places: BTreeSet<(u64, u64)> = slowest.iter().map(|(w, _)| (w.dp_rank, w.stage)).collect();
    let without_workers = simulation.steps(|p| !slowest_places.contains(&(p.dp_rank, p.at.stage)));
    let last = stages.last().copied();
    let without_stage = (stages.len() > 1).then(|| simulation.steps(|p| Some(p.at.stage) != last));
    let slowdown = ratio(&simulated, &ideal);
    let is_slow = slowdown >= LEAST_SLOWDOWN;
    let (whole, best) = (total(&simulated), total(&ideal));
    let share = |without: &StepTimes| (whole - total(without)) / (whole - best);
    let steps: Vec<StepReport> = job
        .steps
        .iter()
        .zip(simulated.iter().zip(&ideal))
        .map(|(step, (&simulated_ns, &ideal_ns))| StepReport {
            step: step.number,
            actual_ns: u64::try_from(step.wall_ns()).unwrap_or(0),
            simulated_ns,
            ideal_ns,
            slowdown: factor(simulated_ns as f64, ideal_ns as f64),
        })
        .collect();
    let worker = |&(w, slowdown): &(Worker, f64)| worker_report(w, slowdown, tables);
    Ok(WhatIf {
        undecided: None,
        slowdown: Some(slowdown),
        m_w: is_slow.then(|| share(&without_workers)),
        m_s: without_stage.as_ref().filter(|_| is_slow).map(&share),
        actual_ns: mean_ns(steps.iter().map(|s| s.actual_ns)),
        simulated_ns: mean_ns(simulated.iter().copied()),
        ideal_ns: mean_ns(ideal.iter().copied()),
        without_slowest_workers_ns: Some(mean_ns(without_workers.iter().copied())),
        without_last_stage_ns: without_stage.map(|steps| mean_ns(steps.into_iter())),
        lost_ns: simulated.iter().zip(&ideal).fold(0, |sum, (s, i)| sum + s.saturating_sub(*i)),
        sizes,
        slowest_workers: slowest.iter().map(worker).collect(),
        workers: workers.iter().map(worker).collect(),
        dp_ranks: slowest_first(by_dp),
        stages: slowest_first(by_stage),
        operations: slowest_first(by_kind),
        steps,
        notes: job.notes.clone(),
    })
}

/// The slowest of the workers; of several that are as slow, the ones with the lower ranks.
fn slowest(workers: &[(Worker, f64)]) -> Vec<(Worker, f64)> {
    let mut sorted = workers.to_vec();
    sorted.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.device.cmp(&b.device)));
    sorted.truncate((workers.len() * SLOWEST_PERCENT).div_ceil(100));
    sorted
}

fn sizes(job: &Job, tables: &Tables, dp_ranks: &BTreeSet<u64>, stages: &BTreeSet<u64>) -> Sizes {
    let given = |key: &str| {
        let value = tables.labels().iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        value.and_then(|v| v.parse::<u64>().ok()).filter(|&size| size > 0)
    };
    let chunks = job.places.iter().filter_map(|p| p.at.chunk).max().map_or(1, |last| u64::from(last) + 1);
    Sizes {
        dp: dp_ranks.len() as u64,
        pp: stages.len() as u64,
        vpp: chunks,
        tp: given(label::TP),
        dsp: given(label::DSP),
        world: given(label::WORLD),
    }
}

fn worker_report(worker: Worker, slowdown: f64, tables: &Tables) -> WorkerReport {
    let unknown = Device::default();
    let device = tables.device(worker.device).unwrap_or(&unknown);
    WorkerReport {
        rank: device.processes.iter().filter_map(|&p| tables.process(p)).find_map(|p| p.rank),
        device: crate::report::text::printable(&device.id).into_owned(),
        dp_rank: worker.dp_rank,
        stage: worker.stage,
        slowdown,
    }
}

fn part<T>(id: T, slowdown: f64) -> Part<T> {
    Part { id, slowdown, ideal_ns: None }
}

fn of(parts: &[Part<u64>], id: u64) -> f64 {
    parts.iter().find(|p| p.id == id).map_or(1.0, |p| p.slowdown)
}

fn slowest_first<T>(mut parts: Vec<Part<T>>) -> Vec<Part<T>> {
    parts.sort_by(|a, b| b.slowdown.total_cmp(&a.slowdown));
    parts
}

fn total(steps: &StepTimes) -> f64 {
    steps.iter().map(|&ns| ns as f64).sum()
}

fn ratio(steps: &StepTimes, ideal: &StepTimes) -> f64 {
    factor(total(steps), total(ideal))
}

/// Nothing is no slower than nothing.
fn factor(real: f64, ideal: f64) -> f64 {
    if ideal > 0.0 { real / ideal } else { 1.0 }
}

fn mean_ns(values: impl Iterator<Item = u64>) -> u64 {
    let (sum, count) = values.fold((0u128, 0u128), |(sum, n), v| (sum + u128::from(v), n + 1));
    u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX)
}
