//! What a job wrote down of itself: what each fault took, what its devices did, and when each rank came to each collective.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;
use stallscope_cupti_double::truth::{Line, OpKind, parse};

use super::spans::{Span, length, union, without};

/// One collective as one rank took part in it, times in Unix ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The collective: the same for all ranks.
    pub(super) meeting: usize,
    /// When this rank came.
    pub(super) came: i64,
    /// When the last one came.
    pub(super) last: i64,
    /// When it ended here.
    pub(super) end: i64,
    /// Ranks that took part.
    pub(super) ranks: usize,
    /// Whether a record of the kernel was due: of what was launched before the recording there is none.
    is_observed: bool,
}

/// Harm that was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dose {
    /// To which rank.
    pub(super) rank: u32,
    /// Begin and end, Unix ns.
    pub(super) span: Span,
    /// How much of it was the harm, ns.
    pub(super) ns: u64,
    /// How long those whom the step waited for meanwhile waited for a CPU, ns.
    queued_ns: u64,
}

impl Dose {
    /// One that was nothing else.
    pub(super) fn whole(rank: u32, span: Span) -> Self {
        Self { rank, span, ns: span.1.abs_diff(span.0), queued_ns: 0 }
    }
}

/// What one device did.
#[derive(Debug, Default)]
struct Device {
    computes: Vec<Span>,
    copies: Vec<Span>,
    /// By when it came.
    parts: Vec<Part>,
}

/// A job's own account.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) doses: Vec<Dose>,
    /// Of rank 0.
    steps: Vec<Span>,
    devices: BTreeMap<u32, Device>,
}

/// What a device's time was, ns: the direct leaves of the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    pub(super) compute_ns: u64,
    pub(super) comm_exposed_ns: u64,
    pub(super) memcpy_exposed_ns: u64,
    pub(super) idle_ns: u64,
}

impl Truth {
    /// Reads a log whose last line may be cut off: the job was ended from outside.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        // A trainer's own doses have whatever thread the operating system gave; stand-ins' lines have a type each.
        let lines = parse(&text).map_err(anyhow::Error::msg)?;
        let mut ranks: HashMap<u32, (u32, i64)> = HashMap::new();
        let mut offset = 0;
        for line in &lines {
            if let Line::Process(process) = line {
                offset = process.realtime_minus_monotonic_ns;
                ranks.extend(process.rank.map(|rank| (process.pid, (rank, offset))));
            }
        }
        let unix = |ns: u64, offset: i64| i64::try_from(ns).unwrap_or(i64::MAX).saturating_add(offset);
        let mut truth = Self::default();
        let mut kernels: HashMap<(u32, u64), (i64, bool)> = HashMap::new();
        for line in &lines {
            match line {
                Line::Dose(dose) => {
                    let span = (unix(dose.begin_ns, offset), unix(dose.end_ns, offset));
                    let whole = Dose::whole(dose.rank, span);
                    let (ns, queued_ns) = (dose.own_ns.unwrap_or(whole.ns), dose.queued_ns.unwrap_or(0));
                    truth.doses.push(Dose { ns, queued_ns, ..whole });
                }
                Line::Op(op) => {
                    let Some(&(rank, offset)) = ranks.get(&op.pid) else { continue };
                    let Some(start) = op.start_ns else { continue };
                    let span = (unix(start, offset), op.end_ns.map_or(i64::MAX, |end| unix(end, offset)));
                    let device = truth.devices.entry(rank).or_default();
                    match op.kind {
                        OpKind::Kernel | OpKind::Set => device.computes.push(span),
                        OpKind::Copy => device.copies.push(span),
                        OpKind::Collective => {
                            kernels.insert((op.pid, op.id), (span.1, op.observed));
                        }
                        OpKind::Event => {}
                    }
                }
                Line::Step(step) if step.rank == 0 => {
                    truth.steps.push((unix(step.begin_ns, offset), unix(step.end_ns, offset)));
                }
                _ => {}
            }
        }
        let mut meetings: HashMap<(&str, u64), usize> = HashMap::new();
        for line in &lines {
            let Line::Collective(part) = line else { continue };
            let Some(&(rank, offset)) = ranks.get(&part.pid) else { continue };
            let own = part.ranks.iter().zip(&part.starts_ns).find(|(of, _)| **of == part.rank);
            let (Some((_, came)), Some(last)) = (own, part.starts_ns.iter().max()) else { continue };
            let number = meetings.len();
            let meeting = *meetings.entry((part.comm.as_str(), part.sequence)).or_insert(number);
            let (came, last) = (unix(*came, offset), unix(*last, offset));
            let kernel = kernels.get(&(part.pid, part.op)).copied();
            let (end, is_observed) = kernel.unwrap_or((i64::MAX, false));
            let ranks = part.ranks.len();
            let part = Part { meeting, came, last, end, ranks, is_observed };
            truth.devices.entry(rank).or_default().parts.push(part);
        }
        truth.devices.values_mut().for_each(|device| device.parts.sort_unstable_by_key(|part| part.came));
        Ok(truth)
    }

    /// What a job without stand-ins wrote: lines of a dose's begin and end, Unix ns.
    pub(super) fn of_doses(rank: u32, text: &str) -> Self {
        let span = |line: &str| {
            let (from, to) = line.split_once(' ')?;
            Some((from.parse().ok()?, to.trim().parse().ok()?))
        };
        let doses = text.lines().filter_map(span).map(|span| Dose::whole(rank, span)).collect();
        Self { doses, ..Self::default() }
    }

    /// Whole steps of rank 0 in a window.
    pub(super) fn steps(&self, window: Span) -> u64 {
        self.steps.iter().filter(|step| step.0 >= window.0 && step.1 <= window.1).count() as u64
    }

    /// Doses that lie in a window: how many, and their mean length, ns.
    pub(super) fn doses(&self, window: Span) -> (usize, f64) {
        let inside = self.doses.iter().filter(|d| d.span.0 >= window.0 && d.span.1 <= window.1);
        (inside.clone().count(), mean(inside.map(|dose| (dose, 1.0))).1)
    }

    /// What share of the doses in a window was waiting for a CPU; 0 where nobody wrote that down.
    pub(super) fn queued_share(&self, window: Span) -> f64 {
        let inside = self.doses.iter().filter(|d| d.span.0 >= window.0 && d.span.1 <= window.1);
        let (queued, all) = inside.fold((0, 0), |(queued, all), dose| {
            (queued + dose.queued_ns, all + dose.span.1.abs_diff(dose.span.0))
        });
        queued as f64 / all.max(1) as f64
    }

    /// Doses by which the first collective that came after them was late, of those collectives that `is_seen` has: how
    /// many, those that a window cuts counted in part, and their mean length, ns.
    pub(super) fn doses_seen(&self, window: Span, is_seen: impl Fn(usize) -> bool) -> (f64, f64) {
        let next = |dose: &Dose| {
            let parts = &self.devices.get(&dose.rank)?.parts;
            parts.get(parts.partition_point(|part| part.came < dose.span.1))
        };
        let seen = self.doses.iter().filter(|dose| next(dose).is_some_and(|part| is_seen(part.meeting)));
        mean(seen.map(|dose| {
            let inside = dose.span.1.min(window.1).saturating_sub(dose.span.0.max(window.0)).max(0);
            (dose, inside as f64 / dose.span.1.abs_diff(dose.span.0).max(1) as f64)
        }))
    }

    /// How much later the steps of rank 0 in a window were because of one rank, ns: by the most that it came to one of a step's
    /// collectives later than all others.
    pub(super) fn held_up_ns(&self, rank: u32, window: Span) -> u64 {
        let mut came: HashMap<usize, Vec<(i64, u32)>> = HashMap::new();
        for (&of, device) in &self.devices {
            for part in &device.parts {
                came.entry(part.meeting).or_default().push((part.came, of));
            }
        }
        let inside = |step: &Span| step.0 >= window.0 && step.1 <= window.1;
        let mut steps: Vec<(i64, u64)> =
            self.steps.iter().filter(|step| inside(step)).map(|step| (step.0, 0)).collect();
        steps.sort_unstable();
        for mut came in came.into_values() {
            came.sort_unstable();
            let [.., (before, _), (last, of)] = came[..] else { continue };
            let step = steps.partition_point(|(begin, _)| *begin <= last).checked_sub(1);
            if let Some((_, most)) =
                step.filter(|_| of == rank && last <= window.1).and_then(|at| steps.get_mut(at))
            {
                *most = last.abs_diff(before).max(*most);
            }
        }
        steps.into_iter().map(|(_, most)| most).sum()
    }

    /// A rank's part in the collective that it came to nearest to a moment.
    pub(super) fn nearest(&self, rank: u32, came: i64) -> Option<Part> {
        let parts = &self.devices.get(&rank)?.parts;
        let after = parts.partition_point(|part| part.came < came);
        let near = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|at| parts.get(at));
        near.min_by_key(|part| part.came.abs_diff(came)).copied()
    }

    /// What the device of a rank did in a window.
    pub(super) fn direct(&self, rank: u32, window: Span) -> Option<Direct> {
        let device = self.devices.get(&rank)?;
        let computes = union(device.computes.clone(), window);
        let comm = union(device.parts.iter().map(|part| (part.came, part.end)).collect(), window);
        let copies = union(device.copies.clone(), window);
        let exposed = without(&comm, &computes);
        let both = union([computes.clone(), comm].concat(), window);
        let alone = without(&copies, &both);
        let busy = length(&both) + length(&alone);
        Some(Direct {
            compute_ns: length(&computes),
            comm_exposed_ns: length(&exposed),
            memcpy_exposed_ns: length(&alone),
            idle_ns: window.1.abs_diff(window.0).saturating_sub(busy),
        })
    }

    /// How long a rank was resident in collectives before the last rank came, and neither computed nor moved data, in a
    /// window, ns; of kernels that the recorder was to be told of.
    pub(super) fn waited_ns(&self, rank: u32, window: Span) -> u64 {
        let Some(device) = self.devices.get(&rank) else { return 0 };
        let due = device.parts.iter().filter(|part| part.is_observed);
        let waits = union(due.map(|part| (part.came, part.last)).collect(), window);
        let moves = device.parts.iter().map(|part| (part.last, part.end));
        let gets_on = union(device.computes.iter().copied().chain(moves).collect(), window);
        length(&without(&waits, &gets_on))
    }
}

/// Sum of the parts, and mean length weighted by them.
fn mean<'a>(doses: impl Iterator<Item = (&'a Dose, f64)>) -> (f64, f64) {
    let (mut count, mut sum_ns) = (0.0, 0.0);
    for (dose, part) in doses {
        count += part;
        sum_ns += dose.ns as f64 * part;
    }
    (count, if count > 0.0 { sum_ns / count } else { 0.0 })
}

/// A number of a report; 0 where there is none.
pub(super) fn ns(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
