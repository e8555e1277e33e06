//! What single ranks lose, in stacks that can be held against each other, and the median over the ranks.
//!
//! Stacks of a rank do not say whose they are: frames of its own device are left out, and its own number and those of processes and
//! threads. So the same loss has the same stack on all ranks.

use std::collections::BTreeMap;

use super::late::Late;
use super::{Weight, idle_of};
use crate::capture::Tables;
use crate::folded::Folded;
use crate::ledger::DeviceLedger;
use crate::parts::in_proportion;
use crate::report::rank_of;

/// What each rank lost, by rank; its total is that rank's part of [`super::gpu_idle`] or [`super::gpu_wait`]. `None` for weights
/// that are no loss of a GPU. Devices without a known rank are left out.
#[must_use]
pub fn by_rank(weight: Weight, ledgers: &[DeviceLedger], tables: &Tables) -> Option<BTreeMap<u32, Folded>> {
    let mut late = Late::new(ledgers, tables);
    let mut ranks: BTreeMap<u32, Folded> = BTreeMap::new();
    for ledger in ledgers {
        let Some(rank) = rank_of(ledger.device, tables) else { continue };
        let mut own = Folded::default();
        match weight {
            Weight::GpuIdle => idle_of(ledger, tables, &mut own),
            Weight::GpuWait => late.waits_of(ledger, &mut own),
            Weight::Gpu | Weight::Cpu | Weight::OffCpu | Weight::Wait => return None,
        }
        let of_rank = ranks.entry(rank).or_default();
        let number = format!("rank {rank} · ");
        for (frames, ns) in own.without_ids().iter() {
            // Whose loss it is stands first where it was idle, and last where it waited.
            let frames = match (weight, frames) {
                (Weight::GpuIdle, [_, rest @ ..]) | (_, [rest @ .., _]) => rest,
                (_, []) => frames,
            };
            let frames = frames.iter().map(|frame| match weight {
                Weight::GpuIdle => frame.replace(&number, ""),
                _ => frame.clone(),
            });
            of_rank.add(frames.collect(), ns);
        }
    }
    Some(ranks)
}

/// A frame with its callers.
#[derive(Default)]
struct Frame {
    parent: usize,
    name: String,
    callees: BTreeMap<String, usize>,
    /// By rank: time in it and below, and time in it alone.
    all: Vec<u64>,
    own: Vec<u64>,
}

/// The middle of the values; of an even number the mean of both.
fn middle(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = |at: usize| sorted.get(at).copied().unwrap_or(0);
    let (low, high) = (at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2));
    low + (high - low) / 2
}

/// What a rank in the middle loses: in each frame, with all below it, the median over the ranks, which is 0 for a rank without the
/// frame. Medians of callees need not sum to that of their caller: where they are more, they are scaled down to it; where they are
/// less, the rest is the caller's own.
#[must_use]
pub fn median<'a>(ranks: impl Iterator<Item = &'a Folded> + Clone) -> Folded {
    let count = ranks.clone().count();
    let frame = |parent, name: &str| Frame {
        parent,
        name: name.to_owned(),
        callees: BTreeMap::new(),
        all: vec![0; count],
        own: vec![0; count],
    };
    // Frames have higher numbers than their callers.
    let mut frames = vec![frame(0, "")];
    let add = |sum: Option<&mut u64>, ns: u64| {
        if let Some(sum) = sum {
            *sum = sum.saturating_add(ns);
        }
    };
    for (rank, folded) in ranks.enumerate() {
        for (stack, ns) in folded.iter() {
            let mut at = 0;
            add(frames.first_mut().and_then(|f| f.all.get_mut(rank)), ns);
            for name in stack {
                let next = frames.len();
                let Some(caller) = frames.get_mut(at) else { break };
                let callee = *caller.callees.entry(name.clone()).or_insert(next);
                if callee == next {
                    frames.push(frame(at, name));
                }
                at = callee;
                add(frames.get_mut(at).and_then(|f| f.all.get_mut(rank)), ns);
            }
            add(frames.get_mut(at).and_then(|f| f.own.get_mut(rank)), ns);
        }
    }
    divide(&frames)
}

/// Gives each frame its time, callers first.
fn divide(frames: &[Frame]) -> Folded {
    let mut folded = Folded::default();
    let mut given = vec![0u64; frames.len()];
    if let (Some(first), Some(all)) = (given.first_mut(), frames.first()) {
        *first = middle(&all.all);
    }
    for (at, frame) in frames.iter().enumerate() {
        let ns = given.get(at).copied().unwrap_or(0);
        let callees: Vec<usize> = frame.callees.values().copied().collect();
        let of_callee = |callee: &usize| frames.get(*callee).map_or(0, |f| middle(&f.all));
        let mut parts = vec![middle(&frame.own)];
        parts.extend(callees.iter().map(of_callee));
        let sum = parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
        if sum > ns {
            parts = in_proportion(ns, &parts);
        } else if let Some(own) = parts.first_mut() {
            *own += ns - sum;
        }
        let mut parts = parts.into_iter();
        let own = parts.next().unwrap_or(0);
        for (callee, part) in callees.iter().zip(parts) {
            if let Some(given) = given.get_mut(*callee) {
                *given = part;
            }
        }
        if own > 0 {
            folded.add(path(frames, at), own);
        }
    }
    folded
}

/// The names on the way to a frame.
fn path(frames: &[Frame], mut at: usize) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(frame) = frames.get(at).filter(|_| at > 0) {
        names.push(frame.name.clone());
        at = frame.parent;
    }
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::median;
    use crate::folded::Folded;

    fn rank(stacks: &[(&str, u64)]) -> Folded {
        let mut folded = Folded::default();
        for (frames, ns) in stacks {
            folded.add(frames.split(';').map(str::to_owned).collect(), *ns);
        }
        folded
    }

    fn lines(folded: &Folded) -> Vec<(String, u64)> {
        folded.iter().map(|(frames, ns)| (frames.join(";"), ns)).collect()
    }

    #[test]
    fn one_rank_that_loses_more_does_not_move_the_median() {
        let ranks = [rank(&[("a;b", 10)]), rank(&[("a;b", 12)]), rank(&[("a;b", 900), ("a;c", 70)])];
        assert_eq!(lines(&median(ranks.iter())), [("a;b".to_owned(), 12)]);
    }

    #[test]
    fn a_frame_has_its_median_even_where_its_callees_differ_on_every_rank() {
        let ranks = [rank(&[("a;x", 10)]), rank(&[("a;y", 10)]), rank(&[("a;z", 10)])];
        assert_eq!(lines(&median(ranks.iter())), [("a".to_owned(), 10)]);
    }

    #[test]
    fn callees_never_have_more_than_their_caller() {
        let ranks = [
            rank(&[("a;x", 10), ("a;y", 10)]),
            rank(&[("a;x", 10), ("a;z", 2)]),
            rank(&[("a;y", 10), ("a;z", 2)]),
        ];
        let median = median(ranks.iter());
        assert_eq!(median.total_ns(), 12);
        assert_eq!(lines(&median), [("a;x".to_owned(), 5), ("a;y".to_owned(), 5), ("a;z".to_owned(), 2)]);
    }

    #[test]
    fn of_two_ranks_the_median_is_the_mean() {
        let ranks = [rank(&[("a", 10)]), rank(&[("a", 21)])];
        assert_eq!(lines(&median(ranks.iter())), [("a".to_owned(), 15)]);
    }
}
