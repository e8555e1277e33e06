//! The transfers of a pipeline: which computation each serves, and which send goes with which receive.
//!
//! The n-th transfer of a kind serves the n-th computation of its direction, with exceptions that traces have:
//! - a stage may list transfers that were prepared and never started: receives that begin after the last computation of
//!   their direction began, sends that end before the first one ended;
//! - with several model chunks a stage, the first chunk of the model receives nothing and the last one sends nothing, and
//!   yet both may list the transfer; or the first stage may lack the very first one.

use std::collections::BTreeMap;

use stallscope_schemas::record::PipelineOpKind as Kind;

use super::Undecided;
use super::job::{Place, When};
use super::schedule::{At, Schedule, order};

/// How far the clocks of two streams of one device may be apart, ns: times in the trace are 32-bit floats of seconds,
/// which resolves 4 µs in a step of a minute.
const CLOCK_NS: i64 = 50_000;

/// Which way through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    pub(super) fn compute(self) -> Kind {
        match self {
            Self::Forward => Kind::ForwardCompute,
            Self::Backward => Kind::BackwardCompute,
        }
    }

    fn send(self) -> Kind {
        match self {
            Self::Forward => Kind::ForwardSend,
            Self::Backward => Kind::BackwardSend,
        }
    }

    fn recv(self) -> Kind {
        match self {
            Self::Forward => Kind::ForwardRecv,
            Self::Backward => Kind::BackwardRecv,
        }
    }
}

/// The operations of a stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) number: u64,
    /// Both directions, in the order of their begins.
    pub(super) computes: Vec<At>,
    by_start: BTreeMap<Kind, Vec<At>>,
    by_number: BTreeMap<Kind, Vec<At>>,
}

impl Stage {
    pub(super) fn new(number: u64) -> Self {
        Self { number, computes: Vec::new(), by_start: BTreeMap::new(), by_number: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, kind: Kind, at: At) {
        self.by_start.entry(kind).or_default().push(at);
    }

    pub(super) fn sort(&mut self, places: &[Place], when: &[When]) {
        self.by_number = self.by_start.clone();
        let number = |at: &At| places.get(*at).map_or(0, |p| p.at.sequence);
        self.by_number.values_mut().for_each(|ops| ops.sort_by_key(number));
        self.by_start.values_mut().for_each(|ops| ops.sort_by_key(|&at| order(places, when, at)));
        self.computes = [self.of(Kind::ForwardCompute), self.of(Kind::BackwardCompute)].concat();
        self.computes.sort_by_key(|&at| order(places, when, at));
    }

    /// Operations of a kind, by their begin.
    pub(super) fn of(&self, kind: Kind) -> &[At] {
        self.by_start.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// Operations of a kind, as the trace numbers them.
    pub(super) fn numbered(&self, kind: Kind) -> &[At] {
        self.by_number.get(&kind).map_or(&[], Vec::as_slice)
    }
}

/// What is the same for all transfers of a pipeline.
struct Pipeline<'a> {
    places: &'a [Place],
    when: &'a [When],
    stages: u64,
    /// Model chunks of the whole model.
    chunks: u64,
}

/// Adds what transfers wait for, what waits for them, and who begins together.
pub(super) fn transfers(
    stages: &[Stage],
    places: &[Place],
    when: &[When],
    schedule: &mut Schedule,
) -> Result<(), Undecided> {
    let chunks_a_stage = places.iter().filter_map(|p| p.at.chunk).max().map_or(1, |last| u64::from(last) + 1);
    let count = stages.len() as u64;
    let pipeline = Pipeline { places, when, stages: count, chunks: count.saturating_mul(chunks_a_stage) };
    for direction in [Direction::Forward, Direction::Backward] {
        // What really moves data, by stage, in the order of begins.
        let mut sends = Vec::with_capacity(stages.len());
        let mut recvs = Vec::with_capacity(stages.len());
        for stage in stages {
            sends.push(pipeline.serve(stage, direction, true, schedule)?);
            recvs.push(pipeline.serve(stage, direction, false, schedule)?);
        }
        for (stage, sent) in (0..count).zip(&sends) {
            let step = if direction == Direction::Forward { 1 } else { count - 1 };
            let to = (stage + step) % count;
            let received =
                usize::try_from(to).ok().and_then(|to| recvs.get(to)).map_or(&[][..], Vec::as_slice);
            if sent.len() != received.len() {
                let (send, recv) = (direction.send().name(), direction.recv().name());
                let dp_rank = places.first().map_or(0, |p| p.dp_rank);
                let (sent, received) = (sent.len(), received.len());
                return Err(Undecided::Unpaired { dp_rank, send, from: stage, sent, recv, to, received });
            }
            schedule.meetings.extend(sent.iter().zip(received).map(|(&send, &recv)| vec![send, recv]));
        }
    }
    Ok(())
}

impl Pipeline<'_> {
    fn when(&self, at: At) -> When {
        self.when.get(at).copied().unwrap_or(When { start: 0, end: 0 })
    }

    /// Ties the transfers of one kind to their computations; those that move data are returned.
    fn serve(
        &self,
        stage: &Stage,
        direction: Direction,
        is_send: bool,
        schedule: &mut Schedule,
    ) -> Result<Vec<At>, Undecided> {
        let kind = if is_send { direction.send() } else { direction.recv() };
        let computes = stage.numbered(direction.compute());
        let last_start = computes.iter().map(|&at| self.when(at).start).max();
        let first_end = computes.iter().map(|&at| self.when(at).end).min();
        let started: Vec<At> = stage
            .of(kind)
            .iter()
            .copied()
            .filter(|&at| {
                let op = self.when(at);
                if is_send {
                    first_end.is_some_and(|first| op.end >= first.saturating_sub(CLOCK_NS))
                } else {
                    last_start.is_some_and(|last| op.start <= last.saturating_add(CLOCK_NS))
                }
            })
            .collect();
        let missing = computes.len().checked_sub(started.len());
        let at_an_end = stage.number == 0 || stage.number + 1 == self.stages;
        let expected = matches!(missing, Some(0)) || at_an_end && (started.is_empty() || missing == Some(1));
        if !expected {
            return Err(Undecided::Uneven {
                dp_rank: self.places.first().map_or(0, |p| p.dp_rank),
                stage: stage.number,
                transfers: started.len(),
                kind: kind.name(),
                computes: computes.len(),
                compute: direction.compute().name(),
            });
        }
        // Where a receive is missing it is that of the very first computation; a send, that of the very last.
        let skipped = if is_send || started.is_empty() { 0 } else { missing.unwrap_or(0) };
        let mut moving = Vec::with_capacity(started.len());
        for (number, &transfer) in (skipped..).zip(&started) {
            let Some(&compute) = computes.get(number) else { break };
            if is_send {
                schedule.waits.push((transfer, compute));
            } else {
                schedule.waits.push((compute, transfer));
                let before = number.checked_sub(1).and_then(|n| computes.get(n));
                schedule.waits.extend(before.map(|&before| (transfer, before)));
            }
            if self.has_peer(compute, stage.number, direction, is_send) {
                moving.push(transfer);
            }
        }
        Ok(moving)
    }

    /// Whether the model goes on beyond a computation's chunk, on the side of the transfer.
    fn has_peer(&self, compute: At, stage: u64, direction: Direction, is_send: bool) -> bool {
        let place = self.places.get(compute).map(|p| p.at);
        let inferred = || {
            let chunk = place.and_then(|p| p.chunk).unwrap_or(0);
            u64::from(chunk).saturating_mul(self.stages).saturating_add(stage)
        };
        let chunk = place.and_then(|p| p.global_chunk).map_or_else(inferred, u64::from);
        if is_send == (direction == Direction::Forward) {
            chunk.saturating_add(1) < self.chunks
        } else {
            chunk > 0
        }
    }
}
