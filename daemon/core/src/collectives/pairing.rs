//! Which kernels of two sources are one operation when nothing is known of their clocks but what they say themselves.
//!
//! Operations of a communicator come in one order everywhere, so that the kernels of two lanes are one by a shift of their
//! positions. With the right shift all ends lie equally far apart, as far as clocks that run on steadily let them; with a
//! wrong one they lie apart as irregularly as the program's steps. Where several shifts do equally well (a program as
//! regular as a clock), the one is taken that the clocks themselves suggest, if they suggest one clearly; else none is.

use std::cmp::Reverse;

use stallscope_schemas::units::TimeNs;

use super::lanes::Mark;
use super::matching::synchronises;
use crate::capture::drift_ns;

/// How far apart clocks of hosts are believed to be at most: those that nobody sets are refused by their windows.
const MAX_APART_NS: u64 = 10_000_000_000;
/// Kernels by which a shift is judged.
const BLOCK: usize = 64;
/// Places at which a first shift is looked for: one block may have lost a record.
const PLACES: usize = 5;
/// Kernels by which a shift may change from block to block: lost records.
const LOST: isize = 16;
/// How much more irregular than the best shift another one has to be.
const CLEARLY: u64 = 4;
/// Irregularity that says nothing: how exactly devices leave an operation together.
const SKEW_NS: u64 = 20_000;

/// What one operation says of two clocks: `low <= shift <= high`, where the shift is added to the other's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// When it ended, by the other's clock.
    pub(super) at: TimeNs,
    pub(super) low: i64,
    pub(super) high: i64,
    /// The shift if both left it at once.
    pub(super) level: i64,
}

/// How the ends of a block lie apart under a shift.
#[derive(Clone, Copy, Debug)]
struct Fit {
    /// Median of how much later the first one's ends are.
    apart_ns: i64,
    /// Between the 10th and the 90th percentile.
    spread_ns: u64,
}

fn alike(one: &Mark, other: &Mark) -> bool {
    let same_size = one.bytes == 0 || other.bytes == 0 || one.bytes == other.bytes;
    one.operation == other.operation && same_size
}

/// Bounds of all operations that two lanes have in common; none where it cannot be told which are.
pub(super) fn bounds(one: &[Mark], other: &[Mark]) -> Option<Vec<Bound>> {
    let anchor = anchor(one, other)?;
    let mut out = Vec::new();
    follow(one, other, anchor, true, &mut out);
    follow(one, other, anchor, false, &mut out);
    out.sort_unstable_by_key(|bound| bound.at);
    Some(out)
}

/// A block of which it is known which kernels of the other lane are the same operations.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    /// Position of its first kernel.
    at: usize,
    /// What is added to get the position in the other lane.
    shift: isize,
    fit: Fit,
}

/// The kernels of a block in both lanes.
fn block<'a>(
    one: &'a [Mark],
    other: &'a [Mark],
    at: usize,
    shift: isize,
) -> Option<(&'a [Mark], &'a [Mark])> {
    let of_one = one.get(at..at.saturating_add(BLOCK).min(one.len()))?;
    let first = at.checked_add_signed(shift)?;
    let of_other = other.get(first..first.checked_add(of_one.len())?)?;
    Some((of_one, of_other))
}

fn fit(one: &[Mark], other: &[Mark], at: usize, shift: isize) -> Option<Fit> {
    let (one, other) = block(one, other, at, shift)?;
    // A few may be told apart by what one side does not know of them.
    let mut apart: Vec<i64> = Vec::with_capacity(one.len());
    for (one, other) in one.iter().zip(other) {
        if !alike(one, other) {
            return None;
        }
        apart.push(one.end.0.saturating_sub(other.end.0));
    }
    apart.sort_unstable();
    let of = |percent: usize| apart.get((apart.len().checked_sub(1)?).saturating_mul(percent) / 100).copied();
    let spread_ns = of(90)?.saturating_sub(of(10)?).unsigned_abs();
    Some(Fit { apart_ns: of(50)?, spread_ns })
}

/// Finds a block by which the lanes can be laid side by side.
fn anchor(one: &[Mark], other: &[Mark]) -> Option<Anchor> {
    let (first, last) = (other.first()?.end.minus(MAX_APART_NS), other.last()?.end.plus(MAX_APART_NS));
    let from = one.partition_point(|mark| mark.end < first);
    let to = one.partition_point(|mark| mark.end <= last);
    let room = to.checked_sub(from)?;
    let places = (1..=PLACES).map(|place| from.saturating_add(room.saturating_mul(place) / (PLACES + 1)));
    let found: Vec<Anchor> =
        places.filter_map(|at| anchor_at(one, other, at.min(to.saturating_sub(BLOCK.min(room))))).collect();
    // The shift that most places agree on.
    let votes = |anchor: &Anchor| {
        found.iter().filter(|a| a.shift.abs_diff(anchor.shift) <= LOST.unsigned_abs()).count()
    };
    let best = found.iter().max_by_key(|anchor| (votes(anchor), Reverse(anchor.fit.spread_ns)))?;
    (votes(best) * 2 > found.len()).then_some(*best)
}

fn anchor_at(one: &[Mark], other: &[Mark], at: usize) -> Option<Anchor> {
    let end = one.get(at)?.end;
    let from = other.partition_point(|mark| mark.end < end.minus(MAX_APART_NS));
    let to = other.partition_point(|mark| mark.end <= end.plus(MAX_APART_NS));
    let mut fits: Vec<(Fit, isize)> = (from..to)
        .filter_map(|place| place.checked_signed_diff(at))
        .filter_map(|shift| Some((fit(one, other, at, shift)?, shift)))
        .collect();
    let best = fits.iter().map(|(fit, _)| fit.spread_ns).min()?;
    let enough = best.saturating_mul(CLEARLY).saturating_add(SKEW_NS);
    fits.retain(|(fit, _)| fit.spread_ns <= enough);
    fits.sort_unstable_by_key(|(fit, _)| fit.apart_ns.unsigned_abs());
    let mut fits = fits.into_iter();
    let (fit, shift) = fits.next()?;
    let clear = fits.next().is_none_or(|(next, _)| {
        next.apart_ns.unsigned_abs() > fit.apart_ns.unsigned_abs().saturating_mul(CLEARLY)
    });
    clear.then_some(Anchor { at, shift, fit })
}

/// Goes from the anchor to one end of the lanes, block by block.
fn follow(one: &[Mark], other: &[Mark], anchor: Anchor, forward: bool, out: &mut Vec<Bound>) {
    let Anchor { mut shift, fit: mut known, .. } = anchor;
    let mut since = one.get(anchor.at).map_or(TimeNs(0), |mark| mark.end);
    let usual = known.spread_ns.max(SKEW_NS);
    let mut at = if forward { Some(anchor.at) } else { anchor.at.checked_sub(BLOCK) };
    while let Some(now) = at.and_then(|at| one.get(at)).map(|mark| mark.end) {
        let Some(place) = at else { return };
        let may_drift = drift_ns(now.0.abs_diff(since.0)).saturating_add(usual.saturating_mul(2));
        let regular = |fit: &Fit| fit.spread_ns <= usual.saturating_mul(CLEARLY);
        let steady = |fit: &Fit| fit.apart_ns.abs_diff(known.apart_ns) <= may_drift;
        let fits = (-LOST..=LOST)
            .filter_map(|by| Some((fit(one, other, place, shift.checked_add(by)?)?, shift.checked_add(by)?)));
        let best = fits
            .filter(|(fit, _)| regular(fit) && steady(fit))
            .min_by_key(|(fit, _)| fit.apart_ns.abs_diff(known.apart_ns));
        // A clock that was set: what comes next is still the next.
        let set = || fit(one, other, place, shift).filter(regular).map(|fit| (fit, shift));
        if let Some((fit, found)) = best.or_else(set) {
            (known, shift, since) = (fit, found, now);
            if let Some((of_one, of_other)) = block(one, other, place, shift) {
                let pairs = of_one.iter().zip(of_other).filter(|(one, _)| synchronises(one.operation, 0));
                out.extend(pairs.map(|(one, other)| Bound {
                    at: other.end,
                    low: one.start.0.saturating_sub(other.end.0),
                    high: one.end.0.saturating_sub(other.start.0),
                    level: one.end.0.saturating_sub(other.end.0),
                }));
            }
        }
        at = if forward { place.checked_add(BLOCK) } else { place.checked_sub(BLOCK) };
    }
}
