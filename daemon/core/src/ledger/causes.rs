//! Idle time by what was going on: leaf, call and host stack. This is what findings and flamegraphs are made of.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;
use stallscope_schemas::units::{StringId, ThreadId};

use super::leaf::IdleLeaf;
use crate::timeline::host::Node;

/// Why a leaf is what it is, beyond the call and the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The evidence is the call or the stack itself.
    Plain,
    /// No host call is recorded for the operation that ended the gap.
    NoLaunch,
    /// The gap ends where lost records begin, or records of the launching thread are lost.
    Lost,
    /// The operation was queued long before it began, and no recorded order explains it.
    Queued,
    /// The device was not observed before, and nothing shows that it had nothing left to do: such a piece is no idle time.
    Unseen,
}

impl Reason {
    /// The sentence behind the reason, for reports.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::NoLaunch => "no host call is recorded for the operation that ended the gap",
            Self::Lost => "records were lost here",
            Self::Queued => "the operation was queued, and nothing recorded says what it waited for",
            Self::Unseen => {
                "work launched before the device was observed may have run: nothing shows that it had ended"
            }
        }
    }
}

/// One cause of idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Which leaf the time is in.
    pub leaf: IdleLeaf,
    /// Why.
    pub reason: Reason,
    /// The call into the driver that was open; the empty string where none was.
    pub call: StringId,
    /// Stack on the thread.
    pub node: Node,
    /// The thread, where one is to blame.
    pub thread: Option<ThreadId>,
}

/// Every piece of every gap is looked up by its cause: two words are hashed in place of five fields.
impl Hash for Cause {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.node.0) << 32 | u64::from(self.call.0));
        let thread = self.thread.map_or(0, |t| u64::from(t.0) + 1);
        state.write_u64(thread << 16 | (self.leaf as u64) << 8 | self.reason as u64);
    }
}

/// Time and number of pieces of a cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Time, ns.
    pub ns: u64,
    /// Pieces of gaps.
    pub count: u64,
    /// The longest piece, ns.
    pub longest_ns: u64,
}

/// Idle time by cause.
#[derive(Debug, Default)]
pub struct Causes {
    amounts: HashMap<Cause, Amount>,
    /// The device's own latency ends nearly every gap and has no call and no stack: it is kept out of the map.
    device: Amount,
}

/// The cause that [`Causes::device`] counts.
const DEVICE: Cause =
    Cause { leaf: IdleLeaf::Device, reason: Reason::Plain, call: StringId(0), node: Node(0), thread: None };

impl Amount {
    pub(super) fn add(&mut self, ns: u64) {
        self.ns += ns;
        self.count += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }
}

impl Causes {
    /// Adds a piece of a gap.
    pub(super) fn add(&mut self, cause: Cause, ns: u64) {
        if cause.leaf == IdleLeaf::Device && cause == DEVICE {
            self.device.add(ns);
        } else {
            self.amounts.entry(cause).or_default().add(ns);
        }
    }

    /// Time of all causes, ns.
    pub(super) fn total_ns(&self) -> u64 {
        self.amounts.values().fold(self.device.ns, |sum, amount| sum.saturating_add(amount.ns))
    }

    /// All causes, the largest first; equal ones in the order of their fields, so that output is stable.
    #[must_use]
    pub fn ranked(&self) -> Vec<(Cause, Amount)> {
        let device = (self.device.count > 0).then_some((DEVICE, self.device));
        let mut all: Vec<_> = self.amounts.iter().map(|(c, a)| (*c, *a)).chain(device).collect();
        all.sort_by_key(|(cause, amount)| (std::cmp::Reverse(amount.ns), *cause));
        all
    }
}
