//! The time of driving threads by cause: who lost it, to what, and who was behind that.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;
use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use super::leaf::CpuLeaf;

/// Causes that are kept apart; of further ones only the leaves and the threads are.
const MAX_CAUSES: usize = 1 << 18;

/// Stacks of samples that are kept apart.
const MAX_SAMPLED: usize = 1 << 18;

/// A list of threads, each of which ended a wait of the one before; 0 is the empty list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(u32);

/// One member of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The thread that ended the wait.
    pub thread: ThreadId,
    /// Its stack when it did, where stacks of wakers are kept apart; else the empty stack.
    pub stack: StackId,
    /// Whether an interrupt ended the wait, and the thread is only whom it interrupted.
    pub interrupt: bool,
}

/// All chains of a ledger, as a tree.
#[derive(Debug, Default)]
pub struct Chains {
    links: Vec<(ChainId, Link)>,
    known: HashMap<(ChainId, Link), ChainId>,
}

impl Chains {
    /// The chain that goes on with a link.
    pub(super) fn push(&mut self, chain: ChainId, link: Link) -> ChainId {
        let links = &mut self.links;
        *self.known.entry((chain, link)).or_insert_with(|| {
            links.push((chain, link));
            ChainId(u32::try_from(links.len()).unwrap_or(0))
        })
    }

    /// The links of a chain, the thread that ended the first wait first.
    #[must_use]
    pub fn links(&self, mut chain: ChainId) -> Vec<Link> {
        let mut all = Vec::new();
        while let Some(&(before, link)) = chain.0.checked_sub(1).and_then(|at| self.links.get(at as usize)) {
            all.push(link);
            chain = before;
        }
        all.reverse();
        all
    }
}

/// One cause of time of a driving thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuCause {
    /// The driving thread.
    pub thread: ThreadId,
    /// What the thread itself did.
    pub direct: CpuLeaf,
    /// What the thread at the end of the chain did; the same as `direct` where there is no chain.
    pub root: CpuLeaf,
    /// The collective that the driving thread was in; the empty string outside of one.
    pub collective: StringId,
    /// The driving thread's own stack; the empty stack where it ran.
    pub waiting_stack: StackId,
    /// The driving thread's own system call; the empty string where it was in none.
    pub waiting_call: StringId,
    /// Who ended the wait, who ended that one's wait, and so on.
    pub chain: ChainId,
    /// System call of the last thread of the chain (the driving thread's own where there is no chain).
    pub call: StringId,
    /// What the call was about.
    pub object_kind: ObjectKind,
    /// Its name.
    pub object: StringId,
    /// Stack of the last thread of the chain: of the wait, or of samples where it ran.
    pub stack: StackId,
    /// Who ran instead.
    pub preemptor: Option<ThreadId>,
}

/// Every piece of every wait is looked up by its cause: five words are hashed in place of twelve fields.
impl Hash for CpuCause {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        state.write_u64(pair(self.thread.0, self.chain.0));
        state.write_u64(pair(self.stack.0, self.object.0));
        state.write_u64(pair(self.waiting_stack.0, self.collective.0));
        state.write_u64(pair(self.call.0, self.waiting_call.0));
        let kinds = (self.direct as u64) << 16 | (self.root as u64) << 8 | u64::from(self.object_kind.id());
        state.write_u64(self.preemptor.map_or(0, |t| u64::from(t.0) + 1) << 24 ^ kinds);
    }
}

/// Time and number of the pieces of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuAmount {
    /// Time, ns.
    pub ns: u64,
    /// Waits, preemptions or samples.
    pub count: u64,
    /// The longest piece, ns.
    pub longest_ns: u64,
    /// When the record of the last piece began: a record that is cut into several pieces counts once.
    last: TimeNs,
}

impl Default for CpuAmount {
    fn default() -> Self {
        Self { ns: 0, count: 0, longest_ns: 0, last: TimeNs(i64::MIN) }
    }
}

impl CpuAmount {
    fn add(&mut self, ns: u64, began: TimeNs, times: u64) {
        self.ns = self.ns.saturating_add(ns);
        self.longest_ns = self.longest_ns.max(ns);
        if self.last != began {
            self.last = began;
            self.count = self.count.saturating_add(times);
        }
    }
}

/// Time on a CPU that samples divide among stacks.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    amount: CpuAmount,
    /// Weight and number of samples by stack.
    stacks: HashMap<StackId, (u64, u64)>,
}

impl Sampled {
    /// Adds a stretch on a CPU.
    pub(crate) fn add(&mut self, ns: u64, began: TimeNs) {
        self.amount.add(ns, began, 1);
    }

    /// Adds a sample; a sample that stands for no time stands for a nanosecond.
    pub(crate) fn sample(&mut self, stack: StackId, weight_ns: u64) {
        let stack = if self.stacks.len() < MAX_SAMPLED || self.stacks.contains_key(&stack) {
            stack
        } else {
            StackId(0)
        };
        let of_stack = self.stacks.entry(stack).or_default();
        of_stack.0 = of_stack.0.saturating_add(weight_ns.max(1));
        of_stack.1 += 1;
    }

    /// The time by stack; it sums to the time that was added. A sample is worth what it stands for, or less where there
    /// are more samples than time; what no sample stands for has the empty stack.
    pub(crate) fn divided(&self) -> Vec<(StackId, CpuAmount)> {
        let mut stacks: Vec<_> = self.stacks.iter().map(|(&stack, &amount)| (stack, amount)).collect();
        stacks.sort_unstable();
        let weight: u128 = stacks.iter().map(|(_, (w, _))| u128::from(*w)).sum();
        let (ns, of) = (u128::from(self.amount.ns), weight.max(self.amount.ns.into()).max(1));
        let until = |w: u128| u64::try_from(w * ns / of).unwrap_or(u64::MAX);
        let mut passed = 0u128;
        let mut out = Vec::with_capacity(stacks.len() + 1);
        for (stack, (weight, count)) in stacks {
            let before = until(passed);
            passed += u128::from(weight);
            let ns = until(passed) - before;
            if ns > 0 {
                let longest_ns = self.amount.longest_ns.min(ns);
                out.push((stack, CpuAmount { ns, count, longest_ns, ..CpuAmount::default() }));
            }
        }
        let rest = self.amount.ns - until(passed);
        if rest > 0 {
            let longest_ns = self.amount.longest_ns.min(rest);
            out.push((StackId(0), CpuAmount { ns: rest, longest_ns, ..self.amount }));
        }
        out
    }
}

/// Time by cause.
#[derive(Debug, Default)]
pub struct CpuCauses {
    amounts: HashMap<CpuCause, CpuAmount>,
    /// Time on a CPU, whose stacks are known once all samples are.
    on_cpu: HashMap<CpuCause, Sampled>,
    /// The chains that the causes refer to.
    pub chains: Chains,
}

impl CpuCauses {
    /// Adds a piece of a record that began at `began` and stands for `times` events.
    pub(super) fn add(&mut self, cause: CpuCause, ns: u64, began: TimeNs, times: u64) {
        if ns == 0 {
            return;
        }
        let key = if self.amounts.len() < MAX_CAUSES || self.amounts.contains_key(&cause) {
            cause
        } else {
            plain(cause)
        };
        self.amounts.entry(key).or_default().add(ns, began, times);
    }

    /// Time on a CPU for the cause, which has no stack yet.
    pub(super) fn on_cpu(&mut self, cause: CpuCause) -> &mut Sampled {
        let key = if self.on_cpu.len() < MAX_CAUSES || self.on_cpu.contains_key(&cause) {
            cause
        } else {
            plain(cause)
        };
        self.on_cpu.entry(key).or_default()
    }

    /// All causes, the largest first; equal ones in the order of their fields, so that output is stable.
    #[must_use]
    pub fn ranked(&self) -> Vec<(CpuCause, CpuAmount)> {
        let sampled = self.on_cpu.iter().flat_map(|(cause, sampled)| {
            sampled.divided().into_iter().map(|(stack, amount)| (CpuCause { stack, ..*cause }, amount))
        });
        let mut all: Vec<_> = self.amounts.iter().map(|(c, a)| (*c, *a)).chain(sampled).collect();
        all.sort_by_key(|(cause, amount)| (std::cmp::Reverse(amount.ns), *cause));
        all
    }
}

/// A cause without its particulars: there are few of them.
fn plain(cause: CpuCause) -> CpuCause {
    CpuCause {
        collective: StringId(0),
        waiting_stack: StackId(0),
        waiting_call: StringId(0),
        chain: ChainId(0),
        call: StringId(0),
        object_kind: ObjectKind::None,
        object: StringId(0),
        stack: StackId(0),
        preemptor: None,
        ..cause
    }
}

#[cfg(test)]
mod tests {
    use super::{Sampled, StackId, TimeNs};

    fn divided(ns: u64, samples: &[(u32, u64)]) -> Vec<(u32, u64, u64)> {
        let mut sampled = Sampled::default();
        sampled.add(ns, TimeNs(0));
        samples.iter().for_each(|&(stack, weight)| sampled.sample(StackId(stack), weight));
        sampled.divided().into_iter().map(|(s, a)| (s.0, a.ns, a.count)).collect()
    }

    #[test]
    fn samples_divide_the_time_and_what_none_stands_for_has_no_stack() {
        assert_eq!(divided(100, &[(1, 10), (2, 20), (1, 10)]), [(1, 20, 2), (2, 20, 1), (0, 60, 1)]);
        assert_eq!(divided(100, &[]), [(0, 100, 1)]);
    }

    #[test]
    fn more_samples_than_time_share_it() {
        assert_eq!(divided(10, &[(1, 10), (2, 10), (3, 10)]), [(1, 3, 1), (2, 3, 1), (3, 4, 1)]);
    }
}
