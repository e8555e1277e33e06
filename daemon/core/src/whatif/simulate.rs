//! The job simulated with what it did and with what it would have done at its best, and everything between.
//!
//! Following "Understanding Stragglers in Large Model Training Using What-if Analysis" (OSDI '25, section 3):
//!
//! ```text
//! transfer of an operation = its end - the begin of the last of those that begin together
//! ideal(kind)              = mean over all steps and workers of a computation's durations,
//!                            median of a communication's transfers: an outlier there is a wait that was not seen
//! ```
//!
//! What is simulated begins as soon as it can; what kept the real job from that (the host, the network's set-up) is in no
//! simulation, and the distance of `actual` to `simulated` says how much it was.

use std::collections::BTreeMap;

use stallscope_schemas::record::PipelineOpKind as Kind;

use super::Undecided;
use super::graph::{Builder, Cycle, Graph, NodeId};
use super::job::{InGroup, Job, Place};
use super::schedule::Schedule;

/// A transfer that ends so much before its last participant begins is no error of clocks: the two do not belong
/// together, and nothing is known of it. As in the paper's own implementation.
const NOT_TOGETHER_NS: i64 = 10_000_000;

/// A job that can be simulated.
#[derive(Debug)]
pub(super) struct Simulation<'a> {
    pub(super) job: &'a Job,
    graph: Graph,
    /// How long each operation of each step takes once it has begun.
    work: Vec<Vec<i64>>,
    /// What takes as long as it takes at best.
    ideal: BTreeMap<Kind, i64>,
}

/// Lengths of the steps, ns.
pub(super) type StepTimes = Vec<u64>;

impl<'a> Simulation<'a> {
    /// Works out the dependencies and the durations of a job.
    pub(super) fn new(job: &'a Job, data_parallel: bool) -> Result<Self, Undecided> {
        let first = job.steps.first().ok_or(Undecided::NoOperations)?;
        let overlapped = job.places.iter().any(|p| p.at.kind == Kind::SeparateGradsAllReduce);
        let too_large = || Undecided::TooLarge(u32::MAX as usize);
        let mut builder = Builder::new(u32::try_from(job.places.len()).map_err(|_| too_large())?);
        let mut meetings: Vec<Vec<usize>> = Vec::new();
        // Pipelines that do the same operations share the schedule of the first of them.
        let mut schedules: BTreeMap<Vec<InGroup>, Schedule> = BTreeMap::new();
        for (offset, group) in job.groups() {
            let key: Vec<InGroup> = group.iter().map(|p| p.at).collect();
            if !schedules.contains_key(&key) {
                let when = first.ops.get(offset..offset + group.len()).unwrap_or_default();
                schedules.insert(key.clone(), Schedule::new(group, when, overlapped)?);
            }
            let Some(schedule) = schedules.get(&key) else { continue };
            for &(who, for_whom) in &schedule.waits {
                builder.wait(node(offset + who), node(offset + for_whom));
            }
            let moved = schedule.meetings.iter().map(|all| all.iter().map(|at| offset + at).collect());
            meetings.extend(moved);
        }
        meetings.extend(job_wide(&job.places, data_parallel));
        for meeting in &meetings {
            builder.together(&meeting.iter().map(|&at| node(at)).collect::<Vec<_>>());
        }
        let graph = builder.build().map_err(|circle| Undecided::Circle(names(&circle, &job.places)))?;
        let work: Vec<Vec<i64>> = job.steps.iter().map(|step| work(&step.ops, &meetings)).collect();
        let ideal = ideal(&job.places, &work);
        Ok(Self { job, graph, work, ideal })
    }

    /// The duration at best of each kind of operation that the job has.
    pub(super) fn ideal(&self) -> &BTreeMap<Kind, i64> {
        &self.ideal
    }

    /// Lengths of the steps if those operations that `is_real` accepts took as long as they did and all others as long as
    /// they take at best.
    pub(super) fn steps(&self, is_real: impl Fn(&Place) -> bool) -> StepTimes {
        let best: Vec<Option<i64>> = self
            .job
            .places
            .iter()
            .map(|p| if is_real(p) { None } else { self.ideal.get(&p.at.kind).copied() })
            .collect();
        let mut ends = Vec::new();
        self.work
            .iter()
            .map(|work| {
                let duration = |node: NodeId| {
                    let at = node.0 as usize;
                    let real = || work.get(at).copied().unwrap_or(0);
                    best.get(at).copied().flatten().unwrap_or_else(real)
                };
                u64::try_from(self.graph.simulate(duration, &mut ends)).unwrap_or(0)
            })
            .collect()
    }
}

/// Positions fit: the number of places was checked.
fn node(at: usize) -> NodeId {
    NodeId(u32::try_from(at).unwrap_or(u32::MAX))
}

/// What begins together over several pipelines: the exchanges of each stage's data-parallel ranks, and the agreement of all
/// workers on the norm of the gradients.
fn job_wide(places: &[Place], data_parallel: bool) -> Vec<Vec<usize>> {
    let mut together: BTreeMap<(Kind, Option<u64>, u64), Vec<usize>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        let stage = match place.at.kind {
            Kind::ParamsAllGather | Kind::GradsReduceScatter | Kind::SeparateGradsAllReduce
                if data_parallel =>
            {
                Some(place.at.stage)
            }
            Kind::OptimizerClipMainGrad => None,
            _ => continue,
        };
        together.entry((place.at.kind, stage, place.at.sequence)).or_default().push(at);
    }
    together.into_values().collect()
}

/// How long the operations of a step take once they have begun.
fn work(ops: &[super::job::When], meetings: &[Vec<usize>]) -> Vec<i64> {
    let mut work: Vec<i64> = ops.iter().map(|op| op.length()).collect();
    let when = |at: &usize| ops.get(*at).copied();
    for meeting in meetings {
        let Some(last) = meeting.iter().filter_map(when).map(|op| op.start).max() else { continue };
        for at in meeting {
            if let (Some(op), Some(slot)) = (when(at), work.get_mut(*at)) {
                let transfer = op.end.saturating_sub(last);
                *slot = if transfer <= -NOT_TOGETHER_NS { 0 } else { transfer };
            }
        }
    }
    work
}

fn ideal(places: &[Place], work: &[Vec<i64>]) -> BTreeMap<Kind, i64> {
    let mut by_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        by_kind.entry(place.at.kind).or_default().push(at);
    }
    let of = |kind: Kind, ats: &[usize]| {
        let values = || work.iter().flat_map(|step| ats.iter().filter_map(|&at| step.get(at).copied()));
        if kind.is_communication() { median(values().collect()) } else { mean(values()) }
    };
    by_kind.iter().map(|(&kind, ats)| (kind, of(kind, ats))).collect()
}

fn mean(values: impl Iterator<Item = i64>) -> i64 {
    let (sum, count) = values.fold((0i128, 0i128), |(sum, n), v| (sum + i128::from(v), n + 1));
    i64::try_from(sum / count.max(1)).unwrap_or(0)
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    let half = values.len() / 2;
    let at = |i: Option<usize>| i.and_then(|i| values.get(i).copied());
    match (at(Some(half)), at(half.checked_sub(1))) {
        (Some(high), Some(low)) if values.len().is_multiple_of(2) => mean([low, high].into_iter()),
        (Some(middle), _) => middle,
        _ => 0,
    }
}

/// The operations of a circle, in words, the shortest way round.
fn names(circle: &Cycle, places: &[Place]) -> String {
    let name = |node: &NodeId| {
        let place = places.get(node.0 as usize)?;
        let (at, dp_rank) = (place.at, place.dp_rank);
        Some(format!(
            "{} {} of stage {}, data-parallel rank {dp_rank}",
            at.kind.name(),
            at.sequence,
            at.stage
        ))
    };
    let mut names: Vec<String> = circle.0.iter().filter_map(name).take(6).collect();
    names.extend(if circle.0.len() > 6 { Some("…".to_owned()) } else { names.first().cloned() });
    names.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::{mean, median, work};
    use crate::whatif::job::When;

    #[test]
    fn the_ideal_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![9, 1, 3, 5]), 4);
        assert_eq!(median(vec![9, 1, 3]), 3);
        assert_eq!(median(Vec::new()), 0);
        assert_eq!(mean([1, 2, 6].into_iter()), 3);
        assert_eq!(mean(std::iter::empty()), 0);
    }

    #[test]
    fn a_transfer_counts_from_the_last_to_come_and_errors_of_clocks_stay() {
        let op = |start, end| When { start, end };
        let meetings = [vec![0, 1], vec![2, 3]];
        let ops = [op(0, 130), op(100, 129), op(0, 5), op(20_000_000, 20_000_007), op(3, 9)];
        assert_eq!(work(&ops, &meetings), [30, 29, 0, 7, 6]);
        assert_eq!(work(&[op(0, 95), op(100, 104)], &meetings), [-5, 4]);
    }
}
