//! How the clocks of several sources relate, from the collectives that they have in common.
//!
//! Nobody leaves an all-reduce, all-gather, reduce-scatter, all-to-all or barrier before all have entered. So for a kernel
//! `[s, e)` of one source and `[s', e')` of another in one operation, with `δ` what is added to the times of the other:
//!
//! ```text
//! s − e' <= δ <= e − s'
//! ```
//!
//! Clocks run apart by at most `MAX_DRIFT_PPM`, so that a bound at one moment is one at all others, wider by what may have
//! run apart since. What all bounds allow at a moment is an interval, and its ends are the error.
//! Within it the likely shift is the one by which ranks leave together; it serves to find which kernels are one, and is
//! not taken for known: a rank that leaves late by habit looks like a clock that is late.
//!
//! Where bounds contradict each other the clock was set: before and after are told apart, and between the two both may
//! hold. Where that happens too often nothing is claimed but the range of all bounds.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::units::{DeviceId, SourceId, TimeNs};

use super::lanes::{self, Lane};
use super::pairing::{Bound, bounds};
use crate::capture::{Capture, Moment, ReadAt, Relation, drift_ns};

/// Sources that are related to each other.
const MAX_SOURCES: usize = 128;
/// Lanes of a source that are held against those of another where communicators have no names.
const MAX_UNNAMED: usize = 16;
/// Moments that are kept of a relation.
const MAX_MOMENTS: usize = 4096;
/// Times that a clock may have been set in a capture.
const MAX_STRETCHES: u32 = 8;
/// Kernels of a communicator that two sources must have in common.
const ENOUGH: usize = 8;

/// What is known of one source's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The relation.
    pub relation: Relation,
    /// Whether bounds contradicted each other too often: nothing is claimed but their range.
    pub wild: bool,
}

/// Relates the clocks of sources that hold kernels of collectives. `same` says which kernel's clock a source is told by,
/// where that is known: sources of one are related without error.
pub(crate) fn relate<S: ReadAt>(
    capture: &Capture<S>,
    devices: &[DeviceId],
    same: &BTreeMap<SourceId, String>,
) -> Vec<Found> {
    let lanes = lanes::of(capture, devices, false);
    let mut by_source: BTreeMap<SourceId, Vec<&Lane>> = BTreeMap::new();
    for lane in lanes.iter().filter(|lane| !lane.marks.is_empty()) {
        if let Some(device) = capture.tables().device(lane.device) {
            by_source.entry(device.source).or_default().push(lane);
        }
    }
    let mut left: BTreeSet<SourceId> = by_source.keys().copied().take(MAX_SOURCES).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut group = 0u32;
    while let Some(root) = left.pop_first() {
        let first = found.len();
        found.push(Found { relation: Relation::common(root, group), wild: false });
        let mut at = first;
        while let Some(known) = found.get(at).cloned() {
            let of = |source: SourceId| by_source.get(&source).map_or(&[][..], Vec::as_slice);
            let next: Vec<Found> = left
                .iter()
                .filter_map(|&source| {
                    if let Some(shift_ns) = same_clock(capture, same, known.relation.source, source) {
                        let relation = beside(&known.relation, source, shift_ns);
                        return Some(Found { relation, wild: known.wild });
                    }
                    let (moments, wild) = between(of(known.relation.source), of(source))?;
                    let moments =
                        moments.into_iter().map(|moment| through(&known.relation, moment)).collect();
                    let relation = Relation { source, group, moments, steady: false };
                    Some(Found { relation, wild: wild || known.wild })
                })
                .collect();
            for one in next {
                left.remove(&one.relation.source);
                found.push(one);
            }
            at += 1;
        }
        group += 1;
    }
    // One that is related to no other is compared with none.
    let groups: Vec<u32> = found.iter().map(|f| f.relation.group).collect();
    found.retain(|f| groups.iter().filter(|group| **group == f.relation.group).count() > 1);
    found
}

/// What is added to the times of the other, where both are told by one kernel's clock.
fn same_clock<S: ReadAt>(
    capture: &Capture<S>,
    same: &BTreeMap<SourceId, String>,
    one: SourceId,
    other: SourceId,
) -> Option<i64> {
    (same.get(&one)? == same.get(&other)?).then_some(())?;
    let offset = |source| capture.tables().clock(source).map_or(0, |clock| clock.offset_ns);
    Some(offset(one).saturating_sub(offset(other)))
}

/// A source whose clock is that of another one, but for what is added.
fn beside(known: &Relation, source: SourceId, shift_ns: i64) -> Relation {
    let moved = |moment: &Moment| Moment {
        at: TimeNs(moment.at.0.saturating_sub(shift_ns)),
        shift_ns: moment.shift_ns.saturating_add(shift_ns),
        ..*moment
    };
    let mut moments: Vec<Moment> = known.moments.iter().map(moved).collect();
    let steady = known.moments.is_empty() || known.steady;
    if moments.is_empty() {
        moments.push(Moment { at: TimeNs(0), shift_ns, less_ns: 0, more_ns: 0, stretch: 0 });
    }
    Relation { source, group: known.group, moments, steady }
}

/// A moment of a source against the one that `known` relates to the common clock.
fn through(known: &Relation, moment: Moment) -> Moment {
    let beyond = known.at(TimeNs(moment.at.0.saturating_add(moment.shift_ns)));
    Moment {
        shift_ns: moment.shift_ns.saturating_add(beyond.ns),
        less_ns: moment.less_ns.saturating_add(beyond.less_ns),
        more_ns: moment.more_ns.saturating_add(beyond.more_ns),
        ..moment
    }
}

/// What the lanes of two sources say of their clocks.
pub(super) fn between(one: &[&Lane], other: &[&Lane]) -> Option<(Vec<Moment>, bool)> {
    let mut all: Vec<Bound> = Vec::new();
    let mut names: BTreeSet<_> = one.iter().filter_map(|lane| lane.group).collect();
    names.retain(|name| other.iter().any(|lane| lane.group == Some(*name)));
    for name in names {
        let of = |lanes: &[&Lane]| -> Vec<usize> {
            (0..lanes.len())
                .filter(|&at| lanes.get(at).is_some_and(|lane| lane.group == Some(name)))
                .collect()
        };
        add_pairs((one, &of(one)), (other, &of(other)), &mut all);
    }
    if all.len() < ENOUGH {
        all.clear();
        unnamed(one, other, &mut all);
    }
    (all.len() >= ENOUGH).then_some(())?;
    all.sort_unstable_by_key(|bound| bound.at);
    Some(moments(&thinned(&all)))
}

/// Bounds of lanes of one communicator: each lane with one of the other source is enough to bound by all.
fn add_pairs(
    (one, of_one): (&[&Lane], &[usize]),
    (other, of_other): (&[&Lane], &[usize]),
    all: &mut Vec<Bound>,
) {
    let (Some(&first), Some(&first_other)) = (of_one.first(), of_other.first()) else { return };
    let pairs =
        of_other.iter().map(|&at| (first, at)).chain(of_one.iter().skip(1).map(|&at| (at, first_other)));
    for (a, b) in pairs {
        if let (Some(a), Some(b)) = (one.get(a), other.get(b)) {
            all.extend(bounds(&a.marks, &b.marks).into_iter().flatten());
        }
    }
}

/// Communicators without names: the pair of lanes that lie side by side best is one.
fn unnamed(one: &[&Lane], other: &[&Lane], all: &mut Vec<Bound>) {
    let largest = |lanes: &[&Lane]| -> Vec<usize> {
        let mut by_size: Vec<usize> = (0..lanes.len()).collect();
        by_size.sort_by_key(|&at| std::cmp::Reverse(lanes.get(at).map_or(0, |lane| lane.marks.len())));
        by_size.truncate(MAX_UNNAMED);
        by_size
    };
    let of_other = largest(other);
    for a in largest(one) {
        for &b in &of_other {
            let (Some(lane), Some(with)) = (one.get(a), other.get(b)) else { continue };
            // Two communicators with names that differ are two.
            if lane.group.is_some() && with.group.is_some() {
                continue;
            }
            // Operations that differ in number by a lot are not those of one communicator.
            if let Some(found) = bounds(&lane.marks, &with.marks)
                && found.len() * 2 >= lane.marks.len().min(with.marks.len())
            {
                all.extend(found);
                return;
            }
        }
    }
}

/// Of bounds that lie close together in time the tightest.
fn thinned(all: &[Bound]) -> Vec<Bound> {
    let each = all.len().div_ceil(MAX_MOMENTS / 2).max(1);
    let mut out = Vec::new();
    for chunk in all.chunks(each) {
        let low = chunk.iter().max_by_key(|bound| bound.low);
        let high = chunk.iter().min_by_key(|bound| bound.high);
        let mut levels: Vec<i64> = chunk.iter().map(|bound| bound.level).collect();
        levels.sort_unstable();
        let usual = levels.get(levels.len() / 2).copied();
        let tightest = low.into_iter().chain(high);
        let mut both: Vec<Bound> =
            tightest.map(|bound| Bound { level: usual.unwrap_or(bound.level), ..*bound }).collect();
        both.sort_unstable_by_key(|bound| bound.at);
        both.dedup();
        out.extend(both);
    }
    out
}

/// What bounds allow at their moments, and whether they contradict each other too often.
fn moments(bounds: &[Bound]) -> (Vec<Moment>, bool) {
    let mut kept: Vec<(Bound, u32)> = Vec::with_capacity(bounds.len());
    let (mut low, mut high, mut since) = (i64::MIN / 2, i64::MAX / 2, TimeNs(0));
    let mut stretch = 0u32;
    for (at, bound) in bounds.iter().enumerate() {
        let drift = drift_ns(bound.at.since(since));
        let wide = (low.saturating_sub_unsigned(drift), high.saturating_add_unsigned(drift));
        let fits = |bound: &Bound, (low, high): (i64, i64)| bound.low.max(low) <= bound.high.min(high);
        if !kept.is_empty() && !fits(bound, wide) {
            // One that stands alone is no step of a clock but a pair that is none.
            let next = bounds.iter().skip(at + 1).take(3);
            if next.clone().count() == 3 && next.filter(|next| fits(next, wide)).count() >= 2 {
                continue;
            }
            stretch = stretch.saturating_add(1);
            (low, high) = (bound.low, bound.high);
        } else {
            (low, high) = (wide.0.max(bound.low), wide.1.min(bound.high));
        }
        since = bound.at;
        kept.push((*bound, stretch));
    }
    if stretch >= MAX_STRETCHES {
        return (range_of_all(bounds), true);
    }
    (tightened(&kept), false)
}

/// Each moment with what those before and after it in its stretch allow.
fn tightened(kept: &[(Bound, u32)]) -> Vec<Moment> {
    let mut all: Vec<(Bound, u32)> = kept.to_vec();
    let mut pass = |order: &mut dyn Iterator<Item = usize>| {
        let mut before: Option<(Bound, u32)> = None;
        for at in order {
            let Some((bound, stretch)) = all.get_mut(at) else { continue };
            if let Some((last, _)) = before.filter(|(_, of)| of == stretch) {
                let drift = drift_ns(bound.at.0.abs_diff(last.at.0));
                bound.low = bound.low.max(last.low.saturating_sub_unsigned(drift));
                bound.high = bound.high.min(last.high.saturating_add_unsigned(drift));
            }
            before = Some((*bound, *stretch));
        }
    };
    pass(&mut (0..kept.len()));
    pass(&mut (0..kept.len()).rev());
    let moment = |&(bound, stretch): &(Bound, u32)| {
        let (low, high) = (bound.low.min(bound.high), bound.low.max(bound.high));
        between_these(bound.at, bound.level, (low, high), stretch)
    };
    all.iter().map(moment).collect()
}

fn between_these(at: TimeNs, likely: i64, (low, high): (i64, i64), stretch: u32) -> Moment {
    let shift_ns = likely.max(low).min(high);
    let apart = |from: i64, to: i64| to.saturating_sub(from).unsigned_abs();
    Moment { at, shift_ns, less_ns: apart(low, shift_ns), more_ns: apart(shift_ns, high), stretch }
}

/// One moment that stands for all: nothing is claimed but that the shift lies where some bound lets it.
fn range_of_all(bounds: &[Bound]) -> Vec<Moment> {
    let low = bounds.iter().map(|bound| bound.low).min();
    let high = bounds.iter().map(|bound| bound.high).max();
    let (Some(low), Some(high), Some(first), Some(last)) = (low, high, bounds.first(), bounds.last()) else {
        return Vec::new();
    };
    let moment = |bound: &Bound| between_these(bound.at, bound.level, (low, high), 0);
    vec![moment(first), moment(last)]
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::units::TimeNs;

    use super::{Bound, moments};
    use crate::capture::Relation;
    use stallscope_schemas::units::SourceId;

    const MS: i64 = 1_000_000;

    /// Bounds of ±`width` around a shift, each 10 ms.
    fn around(shift: impl Fn(i64) -> i64, width: i64) -> Vec<Bound> {
        let bound = |k: i64| {
            let at = k * 10 * MS;
            Bound { at: TimeNs(at), low: shift(at) - width, high: shift(at) + width, level: shift(at) }
        };
        (0..1000).map(bound).collect()
    }

    /// The greatest error at a moment, which has to hold the truth.
    fn error(relation: &Relation, at: i64, truth: i64) -> u64 {
        let shift = relation.at(TimeNs(at));
        let (low, high) = (shift.ns - shift.less_ns.cast_signed(), shift.ns + shift.more_ns.cast_signed());
        assert!(low <= truth && truth <= high, "{at}: {low} to {high}, not {truth}");
        shift.less_ns.max(shift.more_ns)
    }

    fn relation(bounds: &[Bound]) -> (Relation, bool) {
        let (moments, wild) = moments(bounds);
        (Relation { source: SourceId(0), group: 0, moments, steady: false }, wild)
    }

    #[test]
    fn a_clock_that_drifts_is_followed_within_its_error() {
        let truth = |at: i64| 5 * MS + at / 1_000_000 * 30;
        let (relation, wild) = relation(&around(truth, 20_000));
        assert!(!wild);
        for at in (0..10_000 * MS).step_by(7_777_777) {
            let error = error(&relation, at, truth(at));
            assert!(error <= 21_000, "{error}");
        }
    }

    #[test]
    fn bounds_that_are_tight_at_different_moments_help_each_other() {
        // One in ten bounds from below, another from above; the others say little.
        let mut all = around(|_| 3 * MS, 50 * MS);
        for (k, bound) in all.iter_mut().enumerate() {
            match k % 10 {
                0 => bound.low = 3 * MS - 10_000,
                5 => bound.high = 3 * MS + 10_000,
                _ => {}
            }
        }
        let (relation, _) = relation(&all);
        assert!(error(&relation, 5_003 * MS, 3 * MS) < 20_000);
    }

    #[test]
    fn a_clock_that_was_set_has_two_stretches_and_between_them_either_may_hold() {
        let truth = |at: i64| if at < 5_000 * MS { 0 } else { 40 * MS };
        let (relation, wild) = relation(&around(truth, 20_000));
        assert!(!wild);
        assert_eq!(relation.moments.iter().map(|m| m.stretch).max(), Some(1));
        for at in [4_000, 4_980, 5_010, 6_000] {
            assert!(error(&relation, at * MS, truth(at * MS)) < 30_000);
        }
        for either in [0, 40 * MS] {
            error(&relation, 4_995 * MS, either);
        }
    }

    #[test]
    fn a_pair_that_is_none_is_no_step() {
        let mut all = around(|_| 0, 20_000);
        all[500].low = 7 * MS;
        all[500].high = 8 * MS;
        let (relation, _) = relation(&all);
        assert!(relation.moments.iter().all(|m| m.stretch == 0 && m.less_ns <= 20_000));
    }

    #[test]
    fn a_clock_that_jumps_all_the_time_is_claimed_to_lie_where_all_bounds_let_it() {
        let truth = |at: i64| if at / MS / 100 % 2 == 0 { 0 } else { 9 * MS };
        let (relation, wild) = relation(&around(truth, 20_000));
        assert!(wild);
        for either in [0, 9 * MS] {
            error(&relation, 5_000 * MS, either);
        }
    }
}
