//! The collective calls of a rank's driving threads: how many, how long, how much of it on a CPU.

use hashbrown::HashMap;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::{StringId, ThreadId, TimeNs};

use crate::rows::CollectiveCall;
use crate::steps::percentile;

/// Values that a sample keeps.
const MAX_VALUES: usize = 1 << 16;

/// Evenly spaced values of a sequence: all of up to 65,536, of more every second, every fourth …
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    values: Vec<u64>,
    /// Every 2ⁿth value is kept.
    halvings: u32,
    seen: u64,
}

impl Spread {
    /// Adds a value.
    pub(super) fn add(&mut self, value: u64) {
        if self.seen.trailing_zeros() >= self.halvings || self.seen == 0 {
            if self.values.len() >= MAX_VALUES {
                let mut at = 0;
                self.values.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.halvings += 1;
            }
            if self.seen.trailing_zeros() >= self.halvings || self.seen == 0 {
                self.values.push(value);
            }
        }
        self.seen += 1;
    }

    /// The nearest-rank percentile of what is kept.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        percentile(&self.values, percent)
    }
}

/// What calls have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKind {
    /// Name of the function.
    pub name: StringId,
    /// Library.
    pub library: CollectiveLibrary,
    /// What it does.
    pub operation: CollectiveOp,
    /// Identity of the communicator.
    pub group: StringId,
    /// Ranks in it; 0 where unknown.
    pub group_size: u64,
}

/// Calls of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTally {
    /// How many.
    pub calls: u64,
    /// Bytes that this rank put in.
    pub bytes: u64,
    /// Time inside, ns.
    pub ns: u64,
    /// Of that, on a CPU.
    pub on_cpu_ns: u64,
    /// Of that, blocked.
    pub blocked_ns: u64,
    /// Lengths of the calls, ns.
    pub lengths: Spread,
}

/// All collective calls of a rank.
#[derive(Debug, Default)]
pub struct Calls {
    kinds: HashMap<CallKind, CallTally>,
    last: Option<(ThreadId, TimeNs)>,
}

impl Calls {
    /// Adds a stretch inside a call.
    pub(super) fn add(
        &mut self,
        thread: ThreadId,
        call: &CollectiveCall,
        ns: u64,
        on_cpu_ns: u64,
        blocked_ns: u64,
    ) {
        let kind = CallKind {
            name: call.name,
            library: call.library,
            operation: call.operation,
            group: call.group,
            group_size: call.group_size,
        };
        let tally = self.kinds.entry(kind).or_default();
        if self.last != Some((thread, call.start)) {
            self.last = Some((thread, call.start));
            tally.calls += 1;
            tally.bytes = tally.bytes.saturating_add(call.bytes);
            tally.lengths.add(call.duration_ns);
        }
        tally.ns = tally.ns.saturating_add(ns);
        tally.on_cpu_ns = tally.on_cpu_ns.saturating_add(on_cpu_ns);
        tally.blocked_ns = tally.blocked_ns.saturating_add(blocked_ns);
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// All kinds, those with most time first.
    #[must_use]
    pub fn ranked(&self) -> Vec<(CallKind, &CallTally)> {
        let mut all: Vec<_> = self.kinds.iter().map(|(kind, tally)| (*kind, tally)).collect();
        all.sort_by_key(|(kind, tally)| (std::cmp::Reverse(tally.ns), *kind));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_VALUES, Spread};

    #[test]
    fn a_spread_of_many_values_keeps_their_percentiles_in_bounded_memory() {
        let mut spread = Spread::default();
        let count = 10 * MAX_VALUES as u64;
        (0..count).for_each(|v| spread.add(v));
        assert!(spread.values.len() <= MAX_VALUES);
        let median = spread.percentile(50).unwrap_or(0);
        assert!(median.abs_diff(count / 2) < count / 1000, "{median}");
        assert!(spread.values.windows(2).all(|w| w[1] - w[0] == 16), "evenly spaced");
    }
}
