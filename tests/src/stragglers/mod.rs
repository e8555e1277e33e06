//! Pipelined training jobs that are made up: every operation's time follows from a few durations, so that what slows the
//! job down is known. Steps are run stage by stage, as a job runs them; there is no graph here.

pub mod parquet;

use std::collections::BTreeMap;

use parquet::Column;

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Data-parallel ranks.
    pub dp: u32,
    /// Pipeline stages.
    pub pp: u32,
    /// Model chunks of a stage.
    pub vpp: u32,
    /// Tensor-parallel ranks, of which the first is recorded.
    pub tp: u32,
    /// Micro-batches; with several chunks a multiple of `pp`.
    pub microbatches: u32,
    /// Steps, numbered from 10 by threes.
    pub steps: u32,
    /// Gradients are reduced while the last backward passes run.
    pub overlapped: bool,
    /// How much longer a worker computes, by data-parallel rank and stage.
    pub slow: BTreeMap<(u32, u32), f64>,
    /// Times are kept as the real traces have them, in 32 bits.
    pub single_precision: bool,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            dp: 2,
            pp: 3,
            vpp: 1,
            tp: 2,
            microbatches: 6,
            steps: 3,
            overlapped: false,
            slow: BTreeMap::new(),
            single_precision: false,
        }
    }
}

/// One row of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Data-parallel rank.
    pub dp_rank: u32,
    /// Pipeline stage.
    pub stage: u32,
    /// Rank in the job.
    pub rank: u32,
    /// Number of the step.
    pub step: i64,
    /// Kind.
    pub optype: String,
    /// Begin, s.
    pub start: f64,
    /// Length, s.
    pub duration: f64,
    /// Position among those of its kind.
    pub seq_id: u32,
    /// Chunk within the stage.
    pub mc: i32,
    /// Chunk within the model.
    pub gmc: i32,
    /// Micro-batch.
    pub mb_id: i32,
}

/// Durations of a healthy job, s.
const FORWARD: f64 = 0.020;
const BACKWARD: f64 = 0.040;
const TRANSFER: f64 = 0.001;
const GATHER: f64 = 0.010;
const REDUCE: f64 = 0.015;
const TAIL: f64 = 0.002;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

/// A computation of a stage: which micro-batch, which chunk.
#[derive(Clone, Copy)]
struct Compute {
    way: Way,
    microbatch: u32,
    chunk: u32,
}

/// What one pipeline did in one step.
struct Pipeline<'a> {
    job: &'a Job,
    dp_rank: u32,
    step: i64,
    ops: Vec<Op>,
    /// When the last computation of each stage ended, and of each of its chunks the last backward pass.
    last: Vec<f64>,
    last_of_chunk: Vec<Vec<f64>>,
}

/// A job that bytes decide on: its shape, then workers and how slow they are.
#[must_use]
pub fn job_of(data: &[u8]) -> Job {
    let byte = |at: usize| u32::from(data.get(at).copied().unwrap_or(0));
    let (dp, pp, vpp) = (1 + byte(0) % 3, 1 + byte(1) % 4, 1 + byte(2) % 3);
    let microbatches = pp * (1 + byte(3) % 3);
    let slow = data
        .get(5..)
        .unwrap_or_default()
        .chunks_exact(3)
        .map(|c| ((u32::from(c[0]) % dp, u32::from(c[1]) % pp), f64::from(c[2]) / 64.0))
        .collect();
    Job { dp, pp, vpp, microbatches, steps: 1, overlapped: byte(4) % 2 == 1, slow, ..Job::default() }
}

impl Job {
    /// One of few operations.
    #[must_use]
    pub fn tiny() -> Self {
        Self { dp: 1, pp: 2, microbatches: 2, steps: 1, ..Self::default() }
    }

    /// Rank of a worker.
    #[must_use]
    pub fn rank(&self, dp_rank: u32, stage: u32) -> u32 {
        (stage * self.dp + dp_rank) * self.tp
    }

    /// All operations.
    #[must_use]
    pub fn run(&self) -> Vec<Op> {
        (0..i64::from(self.steps)).flat_map(|step| self.step(10 + 3 * step)).collect()
    }

    /// The trace's file.
    #[must_use]
    pub fn trace(&self) -> Vec<u8> {
        parquet::write(&columns(&self.run(), self.single_precision))
    }

    /// The description beside it.
    #[must_use]
    pub fn meta(&self) -> String {
        let world = self.dp * self.pp * self.tp;
        format!(
            "trial_name: made-up\nrun_id: 0\ndp_size: {}\ndsp_size: 1\npp_size: {}\ntp_size: {}\nvpp_size: {}\nworld_size: {world}\n",
            self.dp, self.pp, self.tp, self.vpp
        )
    }

    /// The computations of a stage in the order in which it does them: some forward passes to fill the pipeline, then one
    /// of each, then the rest.
    fn order(&self, stage: u32) -> Vec<Compute> {
        let total = self.microbatches * self.vpp;
        let list = |way| -> Vec<Compute> {
            let groups = if self.vpp > 1 { self.microbatches / self.pp } else { 1 };
            let size = self.microbatches / groups;
            let of_group = |group: u32| {
                (0..self.vpp).flat_map(move |chunk| {
                    let chunk = if way == Way::Forward { chunk } else { self.vpp - 1 - chunk };
                    (0..size).map(move |i| Compute { way, microbatch: group * size + i, chunk })
                })
            };
            (0..groups).flat_map(of_group).collect()
        };
        let after = self.pp - stage - 1;
        let warm_up =
            if self.vpp > 1 { after * 2 + (self.vpp - 1) * self.pp } else { after }.min(total) as usize;
        let (forward, backward) = (list(Way::Forward), list(Way::Backward));
        let mut order = forward[..warm_up].to_vec();
        for (i, compute) in forward[warm_up..].iter().enumerate() {
            order.extend([*compute, backward[i]]);
        }
        order.extend(&backward[forward.len() - warm_up..]);
        order
    }

    fn step(&self, step: i64) -> Vec<Op> {
        let mut pipelines: Vec<Pipeline<'_>> = (0..self.dp).map(|d| self.pipeline(d, step)).collect();
        let count = |n: u32| n as usize;
        // Workers are ready for what follows the computation at different times; `ready[dp][stage]`.
        let mut ready: Vec<Vec<f64>> = pipelines.iter().map(|p| p.last.clone()).collect();
        let each =
            |ready: &mut Vec<Vec<f64>>, pipelines: &mut Vec<Pipeline<'_>>, optype: &str, lasts: f64| {
                for (p, ready) in pipelines.iter_mut().zip(ready) {
                    for (stage, ready) in (0..).zip(ready) {
                        p.push(stage, optype, 0, *ready, *ready + lasts, None, -1);
                        *ready += lasts;
                    }
                }
            };
        each(&mut ready, &mut pipelines, "gc", 0.0);
        let mut reduced = vec![vec![0.0; count(self.pp)]; count(self.dp)];
        if self.overlapped {
            for chunk in (0..self.vpp).rev() {
                for stage in 0..self.pp {
                    let starts: Vec<f64> = pipelines
                        .iter()
                        .zip(&reduced)
                        .map(|(p, reduced)| {
                            p.last_of_chunk[count(stage)][count(chunk)].max(reduced[count(stage)])
                        })
                        .collect();
                    let end = starts.iter().copied().fold(0.0, f64::max) + REDUCE;
                    for ((p, start), reduced) in pipelines.iter_mut().zip(starts).zip(&mut reduced) {
                        let number = self.vpp - 1 - chunk;
                        p.push(stage, "grads-reduce-scatter", number, start, end, Some(chunk), -1);
                        reduced[count(stage)] = end;
                    }
                }
            }
            for (ready, reduced) in ready.iter_mut().zip(&reduced) {
                ready.iter_mut().zip(reduced).for_each(|(ready, reduced)| *ready = ready.max(*reduced));
            }
        }
        each(&mut ready, &mut pipelines, "layernorm-grads-all-reduce", TAIL);
        // The ends of each pipeline share the embedding.
        for (p, ready) in pipelines.iter_mut().zip(&mut ready) {
            let (first, last) = (0, count(self.pp - 1));
            let end = ready[first].max(ready[last]) + TAIL;
            for stage in if first == last { vec![first] } else { vec![first, last] } {
                let number = u32::try_from(stage).unwrap();
                p.push(number, "embedding-grads-all-reduce", 0, ready[stage], end, None, -1);
                ready[stage] = end;
            }
        }
        let exchanges: Vec<(&str, u32, Option<u32>)> = if self.overlapped {
            vec![("separate-grads-all-reduce", 0, None)]
        } else {
            (0..self.vpp).map(|chunk| ("grads-reduce-scatter", chunk, Some(chunk))).collect()
        };
        for (optype, number, chunk) in exchanges {
            for stage in 0..self.pp {
                let end = ready.iter().map(|r| r[count(stage)]).fold(0.0, f64::max) + REDUCE;
                for (p, ready) in pipelines.iter_mut().zip(&mut ready) {
                    p.push(stage, optype, number, ready[count(stage)], end, chunk, -1);
                    ready[count(stage)] = end;
                }
            }
        }
        let agreed = ready.iter().flatten().copied().fold(0.0, f64::max) + TAIL;
        for (p, ready) in pipelines.iter_mut().zip(&mut ready) {
            for (stage, ready) in (0..).zip(ready) {
                p.push(stage, "optimizer-clip-main-grad", 0, *ready, agreed, None, -1);
                *ready = agreed;
            }
        }
        each(&mut ready, &mut pipelines, "optimizer", TAIL);
        pipelines.into_iter().flat_map(|p| p.ops).collect()
    }

    fn pipeline(&self, dp_rank: u32, step: i64) -> Pipeline<'_> {
        let count = |n: u32| n as usize;
        let chunks = self.pp * self.vpp;
        let mut p = Pipeline {
            job: self,
            dp_rank,
            step,
            ops: Vec::new(),
            last: vec![0.0; count(self.pp)],
            last_of_chunk: vec![vec![0.0; count(self.vpp)]; count(self.pp)],
        };
        let mut gathered = vec![vec![0.0; count(self.vpp)]; count(self.pp)];
        for stage in 0..self.pp {
            let mut now = 0.0;
            for chunk in 0..self.vpp {
                p.push(stage, "params-all-gather", chunk, now, now + GATHER, Some(chunk), -1);
                now += GATHER;
                gathered[count(stage)][count(chunk)] = now;
            }
        }
        let orders: Vec<Vec<Compute>> = (0..self.pp).map(|stage| self.order(stage)).collect();
        let mut next = vec![0usize; count(self.pp)];
        // When each transfer was ready to be sent, by way, receiving chunk of the model and micro-batch.
        let mut sent: BTreeMap<(bool, u32, u32), (f64, u32, usize)> = BTreeMap::new();
        let mut numbers: BTreeMap<(u32, bool), u32> = BTreeMap::new();
        // Ends of each stage's computations so far: all of them, and those of one way.
        let mut ends: Vec<Vec<f64>> = vec![Vec::new(); count(self.pp)];
        let mut ends_of_way: BTreeMap<(u32, bool), Vec<f64>> = BTreeMap::new();
        let mut sends: Vec<(usize, f64)> = Vec::new();
        loop {
            let mut moved = false;
            for stage in 0..self.pp {
                let Some(&compute) = orders[count(stage)].get(next[count(stage)]) else { continue };
                let forward = compute.way == Way::Forward;
                let global = compute.chunk * self.pp + stage;
                let receives = if forward { global > 0 } else { global + 1 < chunks };
                let source = sent.get(&(forward, global, compute.microbatch)).copied();
                if receives && source.is_none() {
                    continue;
                }
                let number = *numbers.entry((stage, forward)).or_default();
                let before = ends[count(stage)].last().copied().unwrap_or(0.0);
                let mine = ends_of_way.entry((stage, forward)).or_default();
                // The first backward transfer is asked for two computations before; any other after the one before.
                let asked = if let Some(last) = mine.last() {
                    *last
                } else if forward {
                    0.0
                } else {
                    ends[count(stage)].len().checked_sub(2).map_or(0.0, |i| ends[count(stage)][i])
                };
                let name = if forward { "forward" } else { "backward" };
                let mut start = before;
                if forward {
                    // Only the first pass of a chunk has to wait; the others come later anyway.
                    start = start.max(gathered[count(stage)][count(compute.chunk)]);
                }
                if let Some((ready, _, index)) = source {
                    let end = asked.max(ready) + TRANSFER;
                    p.push(stage, &format!("{name}-recv"), number, asked, end, None, -1);
                    sends.push((index, end));
                    start = start.max(end);
                } else if self.vpp > 1 {
                    // Prepared, and nothing to receive.
                    p.push(stage, &format!("{name}-recv"), number, asked, asked, None, -1);
                    start = start.max(asked);
                }
                let healthy = if forward { FORWARD } else { BACKWARD } / f64::from(self.vpp);
                let slow = self.slow.get(&(dp_rank, stage)).copied().unwrap_or(1.0);
                let end = start + healthy * slow;
                let microbatch = i32::try_from(compute.microbatch).unwrap();
                p.push(
                    stage,
                    &format!("{name}-compute"),
                    number,
                    start,
                    end,
                    Some(compute.chunk),
                    microbatch,
                );
                let sends_on = if forward { global + 1 < chunks } else { global > 0 };
                if sends_on {
                    let to = if forward { global + 1 } else { global - 1 };
                    // The end is known when the other side has asked.
                    p.push(stage, &format!("{name}-send"), number, end, f64::NAN, None, -1);
                    sent.insert((forward, to, compute.microbatch), (end, stage, p.ops.len() - 1));
                } else if self.vpp > 1 {
                    p.push(stage, &format!("{name}-send"), number, end, end, None, -1);
                }
                ends[count(stage)].push(end);
                ends_of_way.entry((stage, forward)).or_default().push(end);
                *numbers.entry((stage, forward)).or_default() += 1;
                next[count(stage)] += 1;
                p.last[count(stage)] = end;
                if !forward {
                    p.last_of_chunk[count(stage)][count(compute.chunk)] = end;
                }
                moved = true;
            }
            if !moved {
                break;
            }
        }
        for (index, end) in sends {
            p.ops[index].duration = end - p.ops[index].start;
        }
        assert!(
            next.iter().zip(&orders).all(|(n, order)| *n == order.len()),
            "the schedule does not come to its end"
        );
        p
    }
}

impl Pipeline<'_> {
    #[allow(clippy::too_many_arguments, reason = "a row has that many values")]
    fn push(
        &mut self,
        stage: u32,
        optype: &str,
        seq_id: u32,
        start: f64,
        end: f64,
        mc: Option<u32>,
        mb_id: i32,
    ) {
        let chunk = |c: u32| i32::try_from(c).unwrap();
        let global = optype.ends_with("compute").then_some(mc).flatten();
        self.ops.push(Op {
            dp_rank: self.dp_rank,
            stage,
            rank: self.job.rank(self.dp_rank, stage),
            step: self.step,
            optype: optype.to_owned(),
            start,
            duration: end - start,
            seq_id,
            mc: mc.map_or(-1, chunk),
            gmc: global.map_or(-1, |c| chunk(c * self.job.pp + stage)),
            mb_id,
        });
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the loss of digits is what is asked for")]
fn single(value: f64) -> f32 {
    value as f32
}

/// The columns of a trace.
#[must_use]
pub fn columns(ops: &[Op], single_precision: bool) -> Vec<Column> {
    let int = |of: fn(&Op) -> i32| ops.iter().map(of).collect::<Vec<_>>();
    let signed = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let seconds = |name: &'static str, of: fn(&Op) -> f64| {
        if single_precision {
            Column::Float(name, ops.iter().map(|op| single(of(op))).collect())
        } else {
            Column::Double(name, ops.iter().map(of).collect())
        }
    };
    vec![
        Column::Int("dp_rank", ops.iter().map(|op| signed(op.dp_rank)).collect()),
        Column::Int("stage", ops.iter().map(|op| signed(op.stage)).collect()),
        Column::Int("rank", ops.iter().map(|op| signed(op.rank)).collect()),
        Column::Long("step", ops.iter().map(|op| op.step).collect()),
        Column::Text("optype", ops.iter().map(|op| op.optype.clone()).collect()),
        seconds("start_ts", |op| op.start),
        seconds("duration", |op| op.duration),
        Column::Int("seq_id", ops.iter().map(|op| signed(op.seq_id)).collect()),
        Column::Int("mc", int(|op| op.mc)),
        Column::Int("mb_id", int(|op| op.mb_id)),
        Column::Int("gmc", int(|op| op.gmc)),
    ]
}
