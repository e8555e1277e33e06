//! Weighted stacks: what flamegraphs, pprof profiles and folded files are made of.

use std::collections::BTreeMap;

/// Stacks with a weight in nanoseconds, outermost frame first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    stacks: BTreeMap<Vec<String>, u64>,
}

impl Folded {
    /// Adds weight to a stack; a weight of 0 adds nothing.
    pub fn add(&mut self, frames: Vec<String>, weight_ns: u64) {
        if weight_ns > 0 {
            let sum = self.stacks.entry(frames).or_default();
            *sum = sum.saturating_add(weight_ns);
        }
    }

    /// Stacks in the order of their frames, with their weights in ns.
    pub fn iter(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.stacks.iter().map(|(frames, &ns)| (frames.as_slice(), ns))
    }

    /// Sum of all weights, ns; saturates.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.stacks.values().fold(0, |sum, &ns| sum.saturating_add(ns))
    }

    /// Whether there is no stack.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}
