//! What a job wrote down of itself: what each fault took, and when each rank came to each collective.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// A job's own account, times in Unix ns.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// What the fault, or the decoy, took each time: begin and end.
    doses: Vec<(i64, i64)>,
    /// By rank: begins and ends of its collectives, in their order.
    collectives: BTreeMap<u32, Vec<(i64, i64)>>,
}

impl Truth {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let lines = std::fs::read_to_string(path)?;
        let lines: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut to_unix: BTreeMap<u64, i64> = BTreeMap::new();
        let mut ranks: BTreeMap<u64, u32> = BTreeMap::new();
        let mut any = 0;
        for line in lines.iter().filter(|line| line["t"] == "process") {
            let Some(pid) = line["pid"].as_u64() else { continue };
            any = line["realtime_minus_monotonic_ns"].as_i64().unwrap_or(any);
            to_unix.insert(pid, any);
            if let Some(rank) = line["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok()) {
                ranks.insert(pid, rank);
            }
        }
        let mut truth = Self::default();
        for line in &lines {
            let pid = line["pid"].as_u64().unwrap_or(0);
            let offset = to_unix.get(&pid).copied().unwrap_or(any);
            let span =
                |begin: &str, end: &str| Some((line[begin].as_i64()? + offset, line[end].as_i64()? + offset));
            if line["t"] == "dose" {
                truth.doses.extend(span("begin_ns", "end_ns"));
            } else if line["t"] == "op" && line["kind"] == "collective" {
                let Some(rank) = ranks.get(&pid) else { continue };
                truth.collectives.entry(*rank).or_default().extend(span("start_ns", "end_ns"));
            }
        }
        truth.collectives.values_mut().for_each(|all| all.sort_unstable());
        Ok(truth)
    }

    /// Doses that were given from outside, Unix ns.
    pub(super) fn add_doses(&mut self, doses: Vec<(i64, i64)>) {
        self.doses.extend(doses);
    }

    /// Doses that lie in a window: how many, and their mean length, ns.
    pub(super) fn doses(&self, from: i64, to: i64) -> (usize, f64) {
        let inside: Vec<f64> = self
            .doses
            .iter()
            .filter(|(begin, end)| *begin >= from && *end <= to)
            .map(|(begin, end)| (end - begin) as f64)
            .collect();
        (inside.len(), inside.iter().sum::<f64>() / inside.len().max(1) as f64)
    }

    /// How long a rank was resident in collectives before the last rank came, in a window, ns.
    pub(super) fn waited_ns(&self, rank: u32, from: i64, to: i64) -> i64 {
        let Some(own) = self.collectives.get(&rank) else { return 0 };
        let waits = own.iter().enumerate().map(|(at, &(begin, _))| {
            let begins = self.collectives.values().filter_map(|all| all.get(at)).map(|(begin, _)| *begin);
            let last = begins.max().unwrap_or(begin);
            (last.min(to) - begin.max(from)).max(0)
        });
        waits.sum()
    }
}
