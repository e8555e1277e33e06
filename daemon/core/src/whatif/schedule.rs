//! Who waits for whom in one step of one pipeline: the stages of one data-parallel rank.
//!
//! The model is that of "Understanding Stragglers in Large Model Training Using What-if Analysis" (OSDI '25, section 3).
//! A worker has a stream of computation, one for each direction and end of the pipeline's transfers, and one for what is
//! exchanged with other data-parallel ranks; each does one thing after the other, in the order that the trace shows.
//! Between streams:
//!
//! | who | waits for |
//! |---|---|
//! | a computation | the receive that brings its input |
//! | a send | the computation that makes what is sent |
//! | a receive | the computation of its direction before the one that it is for: only then it is asked for |
//! | the first backward transfers | the last forward computation but one before the first backward computation |
//! | the first forward computation of a model chunk | the gathering of the chunk's parameters |
//! | the reduction of a chunk's gradients, if it is overlapped | the chunk's last backward computation |
//! | garbage collection, layer norms, embedding, reduction, clipping, optimizer: in this order | the last computation |
//!
//! A send and its receive begin together, and so do the two ends of the embedding's reduction.

use std::collections::BTreeMap;

use stallscope_schemas::record::PipelineOpKind as Kind;

use super::Undecided;
use super::job::{Place, When};
use super::transfers::{Direction, Stage, transfers};

/// Positions of an operation within the group.
pub(super) type At = usize;

/// Waits and meetings within one pipeline.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Who waits, for whom.
    pub(super) waits: Vec<(At, At)>,
    /// Who begins together.
    pub(super) meetings: Vec<Vec<At>>,
}

impl Schedule {
    /// The schedule of one pipeline, from the times of one step. The gradients of data-parallel ranks are reduced while
    /// the last backward passes run if the job has reductions apart from the others.
    pub(super) fn new(places: &[Place], when: &[When], overlapped: bool) -> Result<Self, Undecided> {
        let mut schedule = Self::default();
        let stages = stages(places, when)?;
        for stage in &stages {
            schedule.chain(&stage.computes);
            for kind in [Kind::ForwardSend, Kind::ForwardRecv, Kind::BackwardSend, Kind::BackwardRecv] {
                schedule.chain(stage.of(kind));
            }
            schedule.first_backward(stage);
            schedule.parameters(stage, places, when);
            if overlapped {
                schedule.gradients(stage, places, when);
            }
            schedule.after_computation(stage, when, overlapped);
        }
        transfers(&stages, places, when, &mut schedule)?;
        let embedding: Vec<At> =
            stages.iter().flat_map(|s| s.of(Kind::EmbeddingGradsAllReduce).iter().copied()).collect();
        // Of several, those with the same number meet.
        let mut by_number: BTreeMap<u64, Vec<At>> = BTreeMap::new();
        for at in embedding {
            by_number.entry(places.get(at).map_or(0, |p| p.at.sequence)).or_default().push(at);
        }
        schedule.meetings.extend(by_number.into_values());
        Ok(schedule)
    }

    /// Has each of these wait for the one before.
    fn chain(&mut self, ops: &[At]) {
        self.waits.extend(ops.iter().zip(ops.iter().skip(1)).map(|(&before, &after)| (after, before)));
    }

    fn first_backward(&mut self, stage: &Stage) {
        let first = stage.computes.iter().position(|at| stage.of(Kind::BackwardCompute).contains(at));
        let Some(&asked_at) = first.and_then(|f| f.checked_sub(2)).and_then(|f| stage.computes.get(f)) else {
            return;
        };
        for kind in [Kind::BackwardRecv, Kind::BackwardSend] {
            self.waits.extend(stage.numbered(kind).first().map(|&at| (at, asked_at)));
        }
    }

    /// The first forward pass of a chunk waits for the last gathering of its parameters.
    fn parameters(&mut self, stage: &Stage, places: &[Place], when: &[When]) {
        let gathers = stage.numbered(Kind::ParamsAllGather);
        let last_of_chunk: BTreeMap<_, _> = gathers.iter().map(|&at| (chunk(places, at), at)).collect();
        for (of, gather) in last_of_chunk {
            let forward = stage.of(Kind::ForwardCompute).iter().filter(|&&at| chunk(places, at) == of);
            let first = forward.min_by_key(|&&at| when.get(at).map(|w| w.start));
            self.waits.extend(first.map(|&compute| (compute, gather)));
        }
        // Gathering and reducing share a stream.
        let mut exchanges = [stage.of(Kind::ParamsAllGather), stage.of(Kind::GradsReduceScatter)].concat();
        exchanges.sort_by_key(|&at| order(places, when, at));
        self.chain(&exchanges);
    }

    /// The first reduction of a chunk's gradients waits for its last backward pass.
    fn gradients(&mut self, stage: &Stage, places: &[Place], when: &[When]) {
        let mut first_of_chunk = BTreeMap::new();
        for &at in stage.numbered(Kind::GradsReduceScatter) {
            first_of_chunk.entry(chunk(places, at)).or_insert(at);
        }
        for (of, reduce) in first_of_chunk {
            let backward = stage.of(Kind::BackwardCompute).iter().filter(|&&at| chunk(places, at) == of);
            let last = backward.max_by_key(|&&at| when.get(at).map(|w| w.end));
            self.waits.extend(last.map(|&compute| (reduce, compute)));
        }
    }

    /// What follows the last computation.
    fn after_computation(&mut self, stage: &Stage, when: &[When], overlapped: bool) {
        let last_compute = stage.computes.iter().max_by_key(|&&at| when.get(at).map(|w| w.end)).copied();
        let mut tail: Vec<At> = last_compute.into_iter().collect();
        tail.extend(stage.numbered(Kind::GarbageCollection));
        let before_norms = tail.last().copied();
        let mut rest: Vec<At> = before_norms.into_iter().collect();
        let reduction = if overlapped { Kind::SeparateGradsAllReduce } else { Kind::GradsReduceScatter };
        for kind in [
            Kind::LayernormGradsAllReduce,
            Kind::EmbeddingGradsAllReduce,
            reduction,
            Kind::OptimizerClipMainGrad,
            Kind::Optimizer,
        ] {
            rest.extend(stage.numbered(kind));
        }
        self.chain(&tail);
        self.chain(&rest);
        if overlapped
            && let (Some(&reduce), Some(&next)) = (
                stage.numbered(Kind::GradsReduceScatter).last(),
                rest.get(usize::from(before_norms.is_some())),
            )
        {
            self.waits.push((next, reduce));
        }
    }
}

fn chunk(places: &[Place], at: At) -> Option<u32> {
    places.get(at).and_then(|p| p.at.chunk)
}

/// The order of operations on a stream: by their begin, then as the trace numbers them.
pub(super) fn order(places: &[Place], when: &[When], at: At) -> (i64, u64, &'static str) {
    let start = when.get(at).map_or(0, |w| w.start);
    places.get(at).map_or((start, 0, ""), |p| (start, p.at.sequence, p.at.kind.name()))
}

/// The operations of each stage, of which none may be missing.
fn stages(places: &[Place], when: &[When]) -> Result<Vec<Stage>, Undecided> {
    let mut stages: BTreeMap<u64, Stage> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        stages.entry(place.at.stage).or_insert_with(|| Stage::new(place.at.stage)).add(place.at.kind, at);
    }
    let count = stages.len() as u64;
    if let Some(absent) = (0..count).find(|stage| !stages.contains_key(stage)) {
        let dp_rank = places.first().map_or(0, |p| p.dp_rank);
        return Err(Undecided::StageAbsent { dp_rank, stage: absent });
    }
    let mut all: Vec<Stage> = stages.into_values().collect();
    for stage in &mut all {
        stage.sort(places, when);
        if [Direction::Forward, Direction::Backward].iter().all(|d| stage.of(d.compute()).is_empty()) {
            let dp_rank = places.first().map_or(0, |p| p.dp_rank);
            return Err(Undecided::NoComputation { dp_rank, stage: stage.number });
        }
    }
    Ok(all)
}
