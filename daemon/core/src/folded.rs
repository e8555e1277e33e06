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

    /// The same stacks without the numbers of processes and threads, which no two runs share.
    #[must_use]
    pub fn without_ids(&self) -> Self {
        let mut out = Self::default();
        for (frames, ns) in self.iter() {
            out.add(frames.iter().map(|frame| without_ids(frame)).collect(), ns);
        }
        out
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

/// `process 4242 · thread 4243 python` → `process · thread python`.
fn without_ids(frame: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in frame.split(' ') {
        let is_id = word.bytes().all(|b| b.is_ascii_digit());
        if !(is_id && matches!(words.last(), Some(&("process" | "thread")))) {
            words.push(word);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::Folded;

    #[test]
    fn stacks_of_two_runs_meet_without_their_numbers() {
        let mut folded = Folded::default();
        for (pid, rank) in [(42, 0), (43, 0), (44, 1)] {
            let frame = format!("waits for rank {rank} · process {pid} · thread {pid} python");
            folded.add(vec![frame, "read (data.py:17)".to_owned()], 5);
        }
        let without = folded.without_ids();
        let all: Vec<_> = without.iter().map(|(frames, ns)| (frames.join(";"), ns)).collect();
        let line = |rank| format!("waits for rank {rank} · process · thread python;read (data.py:17)");
        assert_eq!(all, [(line(0), 10), (line(1), 5)]);
    }
}
