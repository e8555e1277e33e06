//! Books the stretches of a device: by leaf, communication by its phase, with how far each leaf had come at the moments that
//! will be compared between devices.

use stallscope_schemas::units::{DeviceId, ThreadId, TimeNs};

use super::leaf::{CommLeaf, IdleLeaf, Leaf, Sums};
use super::pieces::{Piece, Pieces};
use super::root::RootLeaf;
use super::so_far::{Part, Progress, SoFar};
use super::{CpuLeaf, CpuSums};
use crate::collectives::{Collectives, Phase, Stretch};
use crate::timeline::sweep::{Cover, Visitor};

/// Stretches of one device that are remembered.
const MAX_REMEMBERED: usize = 1 << 24;

/// What a device did, as far as other devices' ledgers and the simulation of the job need it.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What had been booked up to each of the moments.
    pub(crate) so_far: SoFar,
    /// What had been booked in the end.
    pub(crate) total: Option<Progress>,
    /// When its exposed communication waited for the last one to come, and to which operation.
    pub(super) waits: Pieces,
    /// When it waited for its host, and for which thread; empty where nobody will ask.
    pub(super) host: Pieces,
}

/// What a launching thread did in some time, of which a piece of a gap is a part: all of that time alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Did {
    sums: CpuSums,
    of_ns: u64,
}

impl Did {
    /// What was added to sums, in so much time.
    pub(super) fn between(before: &CpuSums, after: &CpuSums, of_ns: u64) -> Self {
        let mut sums = CpuSums::default();
        for &leaf in CpuLeaf::ALL {
            sums.add(leaf, after.get(leaf).saturating_sub(before.get(leaf)));
        }
        Self { sums, of_ns }
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
    so_far: Progress,
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
            so_far: [0; RootLeaf::ALL.len() + CpuLeaf::ALL.len()],
            history: History::default(),
        }
    }

    /// Books a piece of a gap, and what the launching thread did where it was followed.
    pub(super) fn idle(
        &mut self,
        (from, to): (TimeNs, TimeNs),
        leaf: IdleLeaf,
        thread: Option<ThreadId>,
        did: Option<&Did>,
    ) {
        self.sums.add_idle(leaf, to.since(from));
        match did.filter(|_| self.keeps_host) {
            Some(did) => self.advance_with(from, to, RootLeaf::of_idle(leaf), did),
            None => self.advance(from, to, RootLeaf::of_idle(leaf)),
        }
        if let (true, IdleLeaf::Host, Some(thread)) = (self.keeps_host, leaf, thread) {
            let host = &mut self.history.host;
            let is_full = host.len() >= MAX_REMEMBERED;
            match host.last_mut() {
                Some(last) if last.to == from && last.about == thread.0 => last.to = to,
                _ if is_full => {}
                _ => host.push(Piece { from, to, about: thread.0 }),
            }
        }
    }

    /// Books a piece of a gap in which a process had the device that is not part of the job.
    pub(super) fn other(&mut self, from: TimeNs, to: TimeNs) {
        self.sums.add(Leaf::OtherProcess, to.since(from));
        self.advance(from, to, RootLeaf::OtherProcess);
    }

    /// Books a piece of a gap in which the device may have worked all the same.
    pub(super) fn unknown(&mut self, from: TimeNs, to: TimeNs) {
        self.sums.add(Leaf::Unknown, to.since(from));
        self.advance(from, to, RootLeaf::Unknown);
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
                    Some(last) if last.to == at && last.about == operation => last.to = until,
                    _ => self.history.waits.push(Piece { from: at, to: until, about: operation }),
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
            self.history.so_far.push(moment, &self.so_far);
            self.moments = self.moments.get(1..).unwrap_or_default();
        }
        self.count(leaf, to.since(at));
    }

    /// The same where the launching thread was followed.
    fn advance_with(&mut self, from: TimeNs, to: TimeNs, leaf: RootLeaf, did: &Did) {
        let mut at = from;
        while at < to {
            let next = self.moments.iter().find(|moment| **moment > at).copied();
            let until = next.map_or(to, |moment| moment.min(to));
            self.advance(at, until, leaf);
            for &part in CpuLeaf::ALL {
                // Rounded so that the pieces sum to what was done in all.
                let up_to = |moment: TimeNs| {
                    let ns = u128::from(did.sums.get(part)) * u128::from(moment.since(from));
                    u64::try_from(ns / u128::from(did.of_ns.max(1))).unwrap_or(u64::MAX)
                };
                if let Some(sum) = self.so_far.get_mut(Part::Host(part).index()) {
                    *sum = sum.saturating_add(up_to(until) - up_to(at));
                }
            }
            at = until;
        }
    }

    fn count(&mut self, leaf: RootLeaf, ns: u64) {
        if let Some(sum) = self.so_far.get_mut(Part::Device(leaf).index()) {
            *sum = sum.saturating_add(ns);
        }
    }

    /// All that was booked.
    pub(super) fn into_history(mut self) -> History {
        for &moment in self.moments {
            self.history.so_far.push(moment, &self.so_far);
        }
        self.history.total = Some(self.so_far);
        self.history.so_far.shrink();
        self.history.waits.close();
        self.history.host.close();
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
