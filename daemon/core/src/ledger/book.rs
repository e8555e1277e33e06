//! Books the stretches of a device: by leaf, communication by its phase, with how far each leaf had come at the moments that
//! will be compared between devices.

use stallscope_schemas::units::{DeviceId, ThreadId, TimeNs};

use super::leaf::{CommLeaf, IdleLeaf, Leaf, Sums};
use super::root::RootLeaf;
use crate::collectives::{Collectives, OperationId, Phase, Stretch};
use crate::timeline::sweep::{Cover, Visitor};

/// Stretches of one device that are remembered.
const MAX_REMEMBERED: usize = 1 << 24;

/// Time by root leaf; waits for late ranks are [`RootLeaf::Unseen`].
pub(super) type ByLeaf = [u64; RootLeaf::ALL.len()];

/// A wait for the last one to come to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) from: TimeNs,
    pub(super) to: TimeNs,
    pub(super) operation: OperationId,
}

/// Time in which a device waited for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPiece {
    pub(super) from: TimeNs,
    pub(super) to: TimeNs,
    pub(super) thread: ThreadId,
}

/// What a device did, as far as other devices' ledgers need it.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Moments, in order, and what had been booked up to each.
    moments: Vec<(TimeNs, ByLeaf)>,
    /// When its exposed communication waited, in order.
    pub(super) waits: Vec<Wait>,
    /// When it waited for its host, in order; empty where nobody will ask.
    pub(super) host: Vec<HostPiece>,
}

impl History {
    /// What it did between two of the moments.
    pub(super) fn between(&self, from: TimeNs, to: TimeNs) -> Option<ByLeaf> {
        let at = |moment| {
            let at = self.moments.binary_search_by_key(&moment, |(at, _)| *at).ok()?;
            self.moments.get(at).map(|(_, by_leaf)| by_leaf)
        };
        let (begin, mut end) = (at(from)?, *at(to)?);
        let mut known = 0u64;
        for (end, begin) in end.iter_mut().zip(begin) {
            *end = end.saturating_sub(*begin);
            known = known.saturating_add(*end);
        }
        // Outside of the device's window nothing is known of it.
        if let Some(unknown) = end.get_mut(RootLeaf::Unknown as usize) {
            *unknown = unknown.saturating_add(to.since(from).saturating_sub(known));
        }
        Some(end)
    }
}

/// Books stretches in the order of time; a gap is put aside for explanation.
pub(super) struct Book<'a> {
    pub(super) sums: Sums,
    pub(super) gap: Option<(TimeNs, TimeNs)>,
    /// What communication was when; those ahead.
    phases: &'a [Stretch],
    /// Moments ahead.
    moments: &'a [TimeNs],
    keeps_host: bool,
    so_far: ByLeaf,
    pub(super) history: History,
}

impl<'a> Book<'a> {
    pub(super) fn new(collectives: &'a Collectives, device: DeviceId) -> Self {
        let moments = collectives.moments(device);
        Self {
            sums: Sums::default(),
            gap: None,
            phases: collectives.stretches(device),
            moments,
            keeps_host: !moments.is_empty(),
            so_far: [0; RootLeaf::ALL.len()],
            history: History::default(),
        }
    }

    /// Books a piece of a gap.
    pub(super) fn idle(&mut self, from: TimeNs, to: TimeNs, leaf: IdleLeaf, thread: Option<ThreadId>) {
        self.sums.add_idle(leaf, to.since(from));
        self.advance(from, to, RootLeaf::of_idle(leaf));
        if let (true, IdleLeaf::Host, Some(thread)) = (self.keeps_host, leaf, thread) {
            let host = &mut self.history.host;
            let is_full = host.len() >= MAX_REMEMBERED;
            match host.last_mut() {
                Some(last) if last.to == from && last.thread == thread => last.to = to,
                _ if is_full => {}
                _ => host.push(HostPiece { from, to, thread }),
            }
        }
    }

    /// Books exposed communication by its phases.
    fn comm(&mut self, from: TimeNs, to: TimeNs) {
        let mut at = from;
        while at < to {
            while self.phases.first().is_some_and(|next| next.to <= at) {
                self.phases = self.phases.get(1..).unwrap_or_default();
            }
            let (until, phase) = match self.phases.first() {
                Some(now) if now.from <= at => (now.to.min(to), now.phase),
                Some(next) => (next.from.min(to), Phase::Unsplit),
                None => (to, Phase::Unsplit),
            };
            let leaf = CommLeaf::of(phase);
            self.sums.add_comm(leaf, until.since(at));
            self.advance(at, until, RootLeaf::of_comm(leaf));
            if let Phase::Wait(operation) = phase {
                match self.history.waits.last_mut() {
                    Some(last) if last.to == at && last.operation == operation => last.to = until,
                    _ => self.history.waits.push(Wait { from: at, to: until, operation }),
                }
            }
            at = until;
        }
    }

    /// Notes how far each leaf has come at the moments in `[from, to)`, which is all of one leaf.
    #[inline]
    fn advance(&mut self, from: TimeNs, to: TimeNs, leaf: RootLeaf) {
        let mut at = from;
        while let Some(&moment) = self.moments.first() {
            if moment >= to {
                break;
            }
            self.count(leaf, moment.since(at));
            at = at.max(moment);
            self.history.moments.push((moment, self.so_far));
            self.moments = self.moments.get(1..).unwrap_or_default();
        }
        self.count(leaf, to.since(at));
    }

    fn count(&mut self, leaf: RootLeaf, ns: u64) {
        if let Some(sum) = self.so_far.get_mut(leaf as usize) {
            *sum = sum.saturating_add(ns);
        }
    }

    /// All that was booked.
    pub(super) fn into_history(mut self) -> History {
        let so_far = self.so_far;
        self.history.moments.extend(self.moments.iter().map(|&moment| (moment, so_far)));
        self.history
    }
}

impl Visitor<()> for Book<'_> {
    #[inline]
    fn busy(&mut self, cover: Cover, from: TimeNs, to: TimeNs) {
        match Leaf::of(cover) {
            Leaf::CommExposed => self.comm(from, to),
            leaf => {
                self.sums.add(leaf, to.since(from));
                self.advance(from, to, RootLeaf::of(leaf));
            }
        }
    }

    #[inline]
    fn gap(&mut self, from: TimeNs, to: TimeNs, _: Option<()>) {
        self.gap = Some((from, to));
    }
}
