//! The operations of a pipelined job, step by step: which steps are alike, and what each worker did in them.
//!
//! A *place* is an operation's position in a step: worker, kind, sequence number, model chunk. Steps with the same places
//! are instances of one schedule, and only those can be compared; the commonest set of places is what is analysed, steps
//! with others are left out and counted.

use hashbrown::HashMap;
use stallscope_schemas::record::{PipelineOpKind, RecordKind};
use stallscope_schemas::units::DeviceId;

use super::Undecided;
use crate::capture::{Capture, ReadAt};
use crate::rows::PipelineOp;

/// Operations of a job that are held in memory, at about a hundred bytes each.
const MAX_OPS: usize = 1 << 24;

/// Where an operation stands in a step. The order is that of workers: all operations of a data-parallel rank are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) dp_rank: u64,
    pub(super) at: InGroup,
}

/// Where an operation stands among those of one data-parallel rank: of all stages of one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InGroup {
    pub(super) stage: u64,
    pub(super) kind: PipelineOpKind,
    pub(super) sequence: u64,
    pub(super) chunk: Option<u32>,
    pub(super) global_chunk: Option<u32>,
}

/// When an operation began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl When {
    pub(super) fn length(self) -> i64 {
        self.end.saturating_sub(self.start)
    }
}

/// One training step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) number: i64,
    /// In the order of the job's places.
    pub(super) ops: Vec<When>,
}

impl Step {
    /// From the first begin to the last end.
    pub(super) fn wall_ns(&self) -> i64 {
        let start = self.ops.iter().map(|op| op.start).min().unwrap_or(0);
        self.ops.iter().map(|op| op.end).max().unwrap_or(0).saturating_sub(start)
    }
}

/// A worker of the job: one of each tensor-parallel group, which do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) device: DeviceId,
    pub(super) dp_rank: u64,
    pub(super) stage: u64,
}

/// Steps of one schedule.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) places: Vec<Place>,
    pub(super) steps: Vec<Step>,
    /// By data-parallel rank, then stage.
    pub(super) workers: Vec<Worker>,
    pub(super) notes: Vec<String>,
}

struct Op {
    step: i64,
    place: Place,
    device: u32,
    when: When,
}

impl Job {
    /// Reads the operations of a capture. `None` where it has none.
    pub(super) fn read<S: ReadAt>(capture: &Capture<S>) -> Result<Option<Self>, Undecided> {
        let tables = capture.tables();
        let devices = capture.keys(RecordKind::PipelineOp);
        let mut sources = devices.iter().filter_map(|&d| Some(tables.device(DeviceId(d))?.source));
        if let Some(first) = sources.next()
            && sources.any(|other| other != first)
        {
            return Err(Undecided::SeveralJobs);
        }
        let (mut ops, mut strange) = (Vec::new(), 0u64);
        for &device in &devices {
            for row in capture.rows::<PipelineOp>(device) {
                if row.kind == PipelineOpKind::Other {
                    strange += 1;
                    continue;
                }
                if ops.len() >= MAX_OPS {
                    return Err(Undecided::TooLarge(MAX_OPS));
                }
                ops.push(op(device, &row));
            }
        }
        if ops.is_empty() && strange == 0 {
            return Ok(None);
        }
        let mut notes = Vec::new();
        if strange > 0 {
            notes.push(format!(
                "{strange} operations are of kinds whose dependencies are not known; left out"
            ));
        }
        // Where all ranks of a tensor-parallel group were recorded, one stands for the group: they do the same.
        let of_worker: HashMap<(u64, u64), u32> = ops.iter().fold(HashMap::new(), |mut first, op: &Op| {
            let device = first.entry((op.place.dp_rank, op.place.at.stage)).or_insert(op.device);
            *device = op.device.min(*device);
            first
        });
        let before = ops.len();
        ops.retain(|op| of_worker.get(&(op.place.dp_rank, op.place.at.stage)) == Some(&op.device));
        if ops.len() < before {
            let out = before - ops.len();
            notes.push(format!(
                "{out} operations are of further ranks of a data-parallel rank and stage; left out"
            ));
        }
        ops.sort_unstable_by_key(|op| (op.step, op.place, op.when.start, op.when.end));
        let before = ops.len();
        ops.dedup_by_key(|op| (op.step, op.place));
        if ops.len() < before {
            notes.push(format!("{} operations have the number of another; left out", before - ops.len()));
        }
        let mut workers: Vec<Worker> = of_worker
            .into_iter()
            .map(|((dp_rank, stage), device)| Worker { device: DeviceId(device), dp_rank, stage })
            .collect();
        workers.sort_unstable_by_key(|w| (w.dp_rank, w.stage));
        let (places, steps) = alike(&ops, &mut notes).ok_or(Undecided::NoOperations)?;
        workers.retain(|w| {
            let first = places.partition_point(|p| (p.dp_rank, p.at.stage) < (w.dp_rank, w.stage));
            places.get(first).is_some_and(|p| (p.dp_rank, p.at.stage) == (w.dp_rank, w.stage))
        });
        Ok(Some(Self { places, steps, workers, notes }))
    }

    /// The places of each data-parallel rank, with the position of the first among all.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, &[Place])> {
        let mut at = 0;
        self.places.chunk_by(|a, b| a.dp_rank == b.dp_rank).map(move |group| {
            let first = at;
            at += group.len();
            (first, group)
        })
    }
}

fn op(device: u32, row: &PipelineOp) -> Op {
    let start = row.start.0;
    let end = row.start.plus(row.duration_ns).0;
    let at = InGroup {
        stage: row.stage,
        kind: row.kind,
        sequence: row.sequence,
        chunk: row.chunk,
        global_chunk: row.global_chunk,
    };
    Op { step: row.step, place: Place { dp_rank: row.dp_rank, at }, device, when: When { start, end } }
}

/// The commonest set of places, the earliest of several that are as common, and the steps that have it.
fn alike(ops: &[Op], notes: &mut Vec<String>) -> Option<(Vec<Place>, Vec<Step>)> {
    let steps = || ops.chunk_by(|a, b| a.step == b.step);
    let places = |step: &[Op]| step.iter().map(|op| op.place).collect::<Vec<_>>();
    let mut shapes: HashMap<Vec<Place>, (u64, i64)> = HashMap::new();
    for step in steps() {
        let number = step.first().map_or(0, |op| op.step);
        shapes.entry(places(step)).or_insert((0, number)).0 += 1;
    }
    let kinds = shapes.len();
    let (shape, _) =
        shapes.into_iter().max_by_key(|(_, (count, first))| (*count, std::cmp::Reverse(*first)))?;
    let is_alike = |step: &[Op]| step.iter().map(|op| op.place).eq(shape.iter().copied());
    let kept: Vec<Step> = steps()
        .filter(|step| is_alike(step))
        .map(|step| Step {
            number: step.first().map_or(0, |op| op.step),
            ops: step.iter().map(|op| op.when).collect(),
        })
        .collect();
    if kinds > 1 {
        let out: Vec<String> = steps()
            .filter(|step| !is_alike(step))
            .filter_map(|step| step.first().map(|op| op.step.to_string()))
            .collect();
        let shown = out.get(..out.len().min(8)).unwrap_or_default().join(", ");
        let more = if out.len() > 8 { ", …" } else { "" };
        notes.push(format!(
            "{} of {} steps have other operations than the rest (steps {shown}{more}); left out",
            out.len(),
            out.len() + kept.len()
        ));
    }
    Some((shape, kept))
}
