//! By how much the counts that several ranks have of their calls on one group differ.
//!
//! Each process counts its calls from the moment on at which it was first seen, so counts of two ranks differ by a number
//! that stays the same. Operations that nobody leaves before all have entered say which: with the right number their calls
//! overlap in time, all of them, and end close together. The ranks of one host have one clock.

use std::collections::{BTreeMap, HashMap};

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::TimeNs;

use super::calls::{Fate, Lane, Mark, Rank};
use super::clusters::Cluster;

/// Calls by which two counts are laid side by side. The last ones have to agree, all of them: a call that was not counted
/// moves all that come after it.
const ENOUGH: usize = 4;
/// Share of all of them that has to, in percent.
const AGREE_PERCENT: usize = 90;
/// Calls that are looked at, the last ones.
const JUDGED: usize = 256;
/// Differences of counts that are tried.
const TRIED: usize = 8;

/// Why counts cannot be laid side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlevel {
    /// There are too few calls to tell.
    Few,
    /// No difference holds for all of them.
    Uneven,
    /// Calls have no numbers.
    Uncounted,
}

impl Unlevel {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Few => "too few of its operations were recorded on all ranks before",
            Self::Uneven => "calls of it were not recorded everywhere, so that counts do not stay level",
            Self::Uncounted => "its calls were not counted since the probes paused",
        }
    }
}

/// How well two counts go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// By how much the other's count is ahead.
    pub(super) ahead: i64,
    /// How far apart calls end, on average, ns.
    pub(super) apart_ns: u64,
}

/// Nobody leaves before all have entered.
pub(super) fn synchronises(operation: CollectiveOp) -> bool {
    use CollectiveOp::{AllGather, AllReduce, AllToAll, Barrier, ReduceScatter};
    matches!(operation, AllReduce | AllGather | ReduceScatter | AllToAll | Barrier)
}

/// Calls that say when an operation was over: those of operations that synchronise and have returned.
fn telling(lane: &Lane) -> impl Iterator<Item = &Mark> {
    let tells = |mark: &&Mark| {
        let is_over = mark.fate == Fate::Returned && !mark.is_async;
        is_over && mark.sequence > 0 && synchronises(mark.operation)
    };
    lane.marks.iter().rev().filter(tells).take(JUDGED)
}

fn are_one(one: &Mark, other: &Mark) -> bool {
    one.operation == other.operation && one.start <= other.end && other.start <= one.end
}

/// Whether the other rank had entered the last operations that this one left, if its count is so much ahead: nobody leaves
/// before.
fn had_entered(one: &Lane, other: &Lane, ahead: i64) -> bool {
    telling(one).take(ENOUGH).all(|mark| {
        let twin = mark.sequence.checked_add_signed(ahead);
        let is_twin = |other: &Mark| {
            Some(other.sequence) == twin && other.operation == mark.operation && other.start <= mark.end
        };
        other.marks.iter().rev().any(is_twin)
    })
}

fn is_possible(one: &Lane, other: &Lane, ahead: i64) -> bool {
    let back = ahead.checked_neg();
    had_entered(one, other, ahead) && back.is_some_and(|back| had_entered(other, one, back))
}

/// By how much `other`'s count is ahead of `one`'s.
pub(super) fn level(one: &Lane, other: &Lane) -> Result<Level, Unlevel> {
    let by_number: HashMap<u64, &Mark> = telling(other).map(|mark| (mark.sequence, mark)).collect();
    let mut by_end: Vec<&Mark> = by_number.values().copied().collect();
    by_end.sort_unstable_by_key(|mark| (mark.end, mark.sequence));
    let difference = |one: &Mark, other: &Mark| {
        i64::try_from(other.sequence).ok()?.checked_sub(i64::try_from(one.sequence).ok()?)
    };
    let mut votes: BTreeMap<i64, usize> = BTreeMap::new();
    for mark in telling(one) {
        let at = by_end.partition_point(|other| other.end < mark.end);
        let near = by_end.get(at.saturating_sub(1)..by_end.len().min(at.saturating_add(1)));
        for other in near.into_iter().flatten().filter(|other| are_one(mark, other)) {
            if let Some(ahead) = difference(mark, other) {
                *votes.entry(ahead).or_default() += 1;
            }
        }
    }
    // Of one group, some call would have been in one operation.
    let are_apart = votes.is_empty() && [one, other].iter().all(|lane| telling(lane).count() >= ENOUGH);
    let mut why = if are_apart { Unlevel::Uneven } else { Unlevel::Few };
    let mut tried: Vec<(usize, i64)> = votes.into_iter().map(|(ahead, count)| (count, ahead)).collect();
    tried.sort_unstable_by_key(|&(count, ahead)| (std::cmp::Reverse(count), ahead.unsigned_abs()));
    let mut best: Option<Level> = None;
    for (_, ahead) in tried.into_iter().take(TRIED) {
        let (mut pairs, mut agree, mut apart) = (0usize, 0usize, 0u64);
        for mark in telling(one) {
            let Some(twin) = mark.sequence.checked_add_signed(ahead).and_then(|n| by_number.get(&n)) else {
                continue;
            };
            pairs += 1;
            if are_one(mark, twin) {
                agree += 1;
                apart = apart.saturating_add(mark.end.0.abs_diff(twin.end.0));
            }
        }
        if pairs < ENOUGH {
            continue;
        }
        let most_agree = agree.saturating_mul(100) >= pairs.saturating_mul(AGREE_PERCENT);
        if !most_agree || !is_possible(one, other, ahead) {
            why = Unlevel::Uneven;
            continue;
        }
        let apart_ns = apart / agree.max(1) as u64;
        if best.is_none_or(|best| apart_ns < best.apart_ns) {
            best = Some(Level { ahead, apart_ns });
        }
    }
    best.ok_or(why)
}

/// What a rank's numbers are ahead of those of all: numbers less this mean the same on all lanes of the cluster.
pub(super) fn ahead(
    cluster: &Cluster,
    lanes: &[Lane],
    ranks: &[Rank],
) -> Result<BTreeMap<usize, i64>, Unlevel> {
    let of = |at: usize| lanes.get(at);
    let from_start = |at: usize| {
        let rank = of(at).filter(|lane| !lane.is_private).and_then(|lane| ranks.get(lane.rank));
        rank.is_some_and(|rank| rank.saw_init)
    };
    // After a pause of the probes calls have no numbers, and those from before say nothing of them.
    let is_uncounted =
        |lane: &Lane| lane.open().or_else(|| lane.marks.back()).is_some_and(|m| m.sequence == 0);
    if cluster.lanes.iter().filter_map(|&at| of(at)).any(is_uncounted) {
        return Err(Unlevel::Uncounted);
    }
    let reference = cluster
        .lanes
        .iter()
        .copied()
        .max_by_key(|&at| (of(at).map_or(0, |lane| telling(lane).count()), std::cmp::Reverse(at)));
    let mut out = BTreeMap::new();
    let Some((reference, first)) = reference.and_then(|at| Some((at, of(at)?))) else {
        return Err(Unlevel::Few);
    };
    for &at in &cluster.lanes {
        let Some(lane) = of(at).filter(|_| at != reference) else {
            out.insert(at, 0);
            continue;
        };
        // Whoever was seen to set the library up was counted from the first call on.
        let counts_from_start = from_start(at) && from_start(reference);
        let ahead = match level(first, lane) {
            Ok(level) => level.ahead,
            Err(Unlevel::Few) if counts_from_start && is_possible(first, lane, 0) => 0,
            Err(why) => return Err(why),
        };
        out.insert(at, ahead);
    }
    Ok(out)
}

/// Without numbers: whether all open calls are the same operation, and everybody who is in none left the one before. That
/// is so for whoever left a call before one of those that wait began to: nobody leaves before all have entered.
pub(super) fn by_order(cluster: &Cluster, lanes: &[Lane], is_alive: impl Fn(usize) -> bool) -> bool {
    let members = || cluster.lanes.iter().filter_map(|&at| lanes.get(at));
    let open: Vec<&Mark> = members().filter_map(Lane::open).collect();
    let Some(first) = open.first() else { return false };
    let alike = |mark: &&Mark| {
        mark.operation == first.operation && synchronises(mark.operation) && mark.elements == first.elements
    };
    let last = open.iter().map(|mark| mark.start).max().unwrap_or(TimeNs(i64::MIN));
    let left_before = |lane: &Lane| {
        let left = lane.marks.back().map(|mark| mark.end);
        left.is_some_and(|left| left < last) || !is_alive(lane.rank)
    };
    // One that is in a call was in none from before when it came.
    open.iter().all(alike) && members().filter(|lane| lane.open().is_none()).all(left_before)
}
