//! When the ranks of an operation came to it, as each of the others saw it: told without holding each against each.

use std::collections::BTreeMap;

use stallscope_schemas::units::{DeviceId, TimeNs};

use super::lanes::{LaneClock, Mark};

/// A device, its clock, and its kernel of the operation.
type Came<'a> = (DeviceId, LaneClock, &'a Mark);

/// The highest of values with a key each, and the highest of those with another key than that.
#[derive(Clone, Copy, Debug)]
struct Highest<K> {
    first: Option<(TimeNs, K)>,
    next: Option<(TimeNs, K)>,
}

impl<K> Default for Highest<K> {
    fn default() -> Self {
        Self { first: None, next: None }
    }
}

impl<K: Copy + PartialEq> Highest<K> {
    fn add(&mut self, value: TimeNs, key: K) {
        match self.first {
            Some((first, of)) if of == key => self.first = Some((first.max(value), of)),
            Some((first, _)) if first >= value => {
                if self.next.is_none_or(|(next, _)| next < value) {
                    self.next = Some((value, key));
                }
            }
            first => *self = Self { first: Some((value, key)), next: first },
        }
    }

    /// The highest of those with another key.
    fn without(&self, key: K) -> Option<TimeNs> {
        let highest = self.first.filter(|(_, of)| *of != key).or(self.next);
        highest.map(|(value, _)| value)
    }
}

/// The comings of all ranks to an operation.
#[derive(Debug)]
pub(super) struct Comings {
    error_ns: u64,
    /// By clock, within which devices differ by the error at most.
    of_clock: BTreeMap<LaneClock, Highest<DeviceId>>,
    /// Of all clocks, as early and as late as may be by the common one.
    early: Highest<LaneClock>,
    late: Highest<LaneClock>,
}

impl Comings {
    pub(super) fn of<'a>(all: impl Iterator<Item = Came<'a>>, error_ns: u64) -> Self {
        let (early, late) = (Highest::default(), Highest::default());
        let mut comings = Self { error_ns, of_clock: BTreeMap::new(), early, late };
        for (device, clock, mark) in all {
            comings.of_clock.entry(clock).or_default().add(mark.start, device);
            comings.early.add(mark.start.minus(mark.shift.less_ns), clock);
            comings.late.add(mark.start.plus(mark.shift.more_ns), clock);
        }
        comings
    }

    /// Between which moments the last of the others came, as one of them saw it; none where there are no others.
    pub(super) fn last_of_others(&self, (device, clock, mark): Came<'_>) -> Option<(TimeNs, TimeNs)> {
        let near = self.of_clock.get(&clock).and_then(|all| all.without(device));
        let early = self.early.without(clock).map(|at| at.minus(mark.shift.more_ns));
        let late = self.late.without(clock).map(|at| at.plus(mark.shift.less_ns));
        Some((near.max(early)?.minus(self.error_ns), near.max(late)?.plus(self.error_ns)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};
    use stallscope_schemas::record::CollectiveOp;
    use stallscope_schemas::units::{SourceId, StringId};

    use super::super::lanes::Root;
    use super::{Came, Comings, DeviceId, LaneClock, Mark, TimeNs};
    use crate::capture::Shift;

    /// How one sees each of the others come, one by one.
    fn one_by_one(
        all: &[Came<'_>],
        (device, clock, mark): Came<'_>,
        error_ns: u64,
    ) -> Option<(TimeNs, TimeNs)> {
        let saw = |&(_, its_clock, its): &Came<'_>| {
            let (mut less, mut more) = (error_ns, error_ns);
            if its_clock != clock {
                less += its.shift.less_ns + mark.shift.more_ns;
                more += its.shift.more_ns + mark.shift.less_ns;
            }
            (its.start.minus(less), its.start.plus(more))
        };
        let others: Vec<_> = all.iter().filter(|other| other.0 != device).map(saw).collect();
        Some((others.iter().map(|seen| seen.0).max()?, others.iter().map(|seen| seen.1).max()?))
    }

    proptest! {
        #[test]
        fn the_last_of_the_others_is_that_of_looking_at_each(
            ranks in prop::collection::vec((0..3u32, 0..1000i64, 0..200u64, 0..200u64), 1..12),
            error_ns in 0..50u64,
        ) {
            let mark = |&(_, start, less_ns, more_ns): &(u32, i64, u64, u64)| Mark {
                start: TimeNs(start),
                end: TimeNs(2000),
                name: StringId(7),
                operation: CollectiveOp::AllReduce,
                root: Root::default(),
                bytes: 0,
                sequence: None,
                call: 0,
                shift: Shift { ns: 0, less_ns, more_ns },
            };
            let marks: Vec<Mark> = ranks.iter().map(mark).collect();
            let clocks = ranks.iter().map(|rank| LaneClock::Common(0, SourceId(rank.0)));
            let all: Vec<Came<'_>> =
                (0..).map(DeviceId).zip(clocks).zip(&marks).map(|((device, clock), mark)| (device, clock, mark)).collect();
            let comings = Comings::of(all.iter().copied(), error_ns);
            for &own in &all {
                prop_assert_eq!(comings.last_of_others(own), one_by_one(&all, own, error_ns));
            }
        }
    }
}
