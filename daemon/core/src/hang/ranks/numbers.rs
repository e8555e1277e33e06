//! Which calls of several ranks are on one group, and by how much the ranks' counts of them differ.
//!
//! Each process counts its calls from the moment on at which it was first seen, so counts of two ranks differ by a number
//! that stays the same. Operations that nobody leaves before all have entered say which: with the right number their calls
//! overlap in time, all of them, and end close together. The ranks of one host have one clock.

use std::collections::{BTreeMap, HashMap};

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::TimeNs;

use super::calls::{Lane, Mark, Rank};

/// Calls by which two counts are laid side by side.
const ENOUGH: usize = 4;
/// Share of them that have to agree, in percent.
const AGREE_PERCENT: usize = 90;
/// Calls that are looked at, the last ones.
const JUDGED: usize = 256;
/// Differences of counts that are tried.
const TRIED: usize = 8;
/// Lanes whose names mean nothing to others that are held against each other.
const MAX_PRIVATE: usize = 256;

/// Calls on one group.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Positions of the lanes; one a rank.
    pub(super) lanes: Vec<usize>,
    /// Ranks in it; 0 where unknown.
    pub(super) size: u64,
}

/// How well two counts go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// By how much the other's count is ahead.
    pub(super) ahead: i64,
    /// How far apart calls end, on average, ns.
    apart_ns: u64,
}

/// Nobody leaves before all have entered.
pub(super) fn synchronises(operation: CollectiveOp) -> bool {
    use CollectiveOp::{AllGather, AllReduce, AllToAll, Barrier, ReduceScatter};
    matches!(operation, AllReduce | AllGather | ReduceScatter | AllToAll | Barrier)
}

/// Calls that say when an operation was over: those of operations that synchronise and have returned.
fn telling(lane: &Lane) -> impl Iterator<Item = &Mark> {
    let tells =
        |mark: &&Mark| !mark.is_open && !mark.is_async && mark.sequence > 0 && synchronises(mark.operation);
    lane.marks.iter().rev().filter(tells).take(JUDGED)
}

fn are_one(one: &Mark, other: &Mark) -> bool {
    one.operation == other.operation && one.start <= other.end && other.start <= one.end
}

/// By how much `other`'s count is ahead of `one`'s; the error says why that cannot be told.
pub(super) fn level(one: &Lane, other: &Lane) -> Result<Level, &'static str> {
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
    let mut tried: Vec<(usize, i64)> = votes.into_iter().map(|(ahead, count)| (count, ahead)).collect();
    tried.sort_unstable_by_key(|&(count, ahead)| (std::cmp::Reverse(count), ahead.unsigned_abs()));
    let few = "too few of its operations were recorded on all ranks before";
    let mut why = few;
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
        if agree.saturating_mul(100) < pairs.saturating_mul(AGREE_PERCENT) {
            why = "calls of it were not recorded everywhere, so that counts do not stay level";
            continue;
        }
        let apart_ns = apart / agree.max(1) as u64;
        if best.is_none_or(|best| apart_ns < best.apart_ns) {
            best = Some(Level { ahead, apart_ns });
        }
    }
    best.ok_or(why)
}

/// Puts together what is one group.
pub(super) fn clusters(lanes: &[Lane]) -> Vec<Cluster> {
    let mut named: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let mut private: BTreeMap<CollectiveLibrary, Vec<usize>> = BTreeMap::new();
    for (at, lane) in lanes.iter().enumerate() {
        if lane.is_private {
            private.entry(lane.group.library).or_default().push(at);
        } else {
            named.entry(lane.group).or_default().push(at);
        }
    }
    let mut out: Vec<Vec<usize>> = named.into_values().collect();
    for of_library in private.into_values() {
        out.extend(by_times(&of_library, lanes));
    }
    let size = |members: &[usize]| members.iter().filter_map(|&at| lanes.get(at)).map(|l| l.size).max();
    out.into_iter().map(|lanes| Cluster { size: size(&lanes).unwrap_or(0), lanes }).collect()
}

/// Groups that each rank calls by a name of its own: those whose calls go together. Where each rank has one only, they are
/// one if there are as many as it has ranks.
fn by_times(of_library: &[usize], lanes: &[Lane]) -> Vec<Vec<usize>> {
    let lane = |at: usize| lanes.get(at);
    let mut left: Vec<usize> = of_library.iter().copied().take(MAX_PRIVATE).collect();
    left.sort_by_key(|&at| (std::cmp::Reverse(lane(at).map_or(0, |l| l.marks.len())), at));
    let rank = |at: usize| lane(at).map(|l| l.rank);
    let mut ranks: Vec<_> = left.iter().map(|&at| rank(at)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let sizes = || left.iter().filter_map(|&at| lane(at)).map(|l| l.size);
    let alike = sizes().min() == sizes().max() && sizes().all(|size| size == ranks.len() as u64);
    if ranks.len() == left.len() && alike {
        return vec![left];
    }
    let mut out = Vec::new();
    while let Some(first) = (!left.is_empty()).then(|| left.remove(0)) {
        let Some(seed) = lane(first) else { continue };
        let mut fits: Vec<(u64, usize)> = left
            .iter()
            .filter_map(|&at| {
                let other = lane(at)?;
                let size = seed.size == 0 || other.size == 0 || seed.size == other.size;
                let fits = size && other.rank != seed.rank;
                Some((level(seed, other).ok().filter(|_| fits)?.apart_ns, at))
            })
            .collect();
        fits.sort_unstable();
        let mut members = vec![first];
        for (_, at) in fits {
            let full = seed.size > 0 && members.len() as u64 >= seed.size;
            if !full && members.iter().all(|&member| rank(member) != rank(at)) {
                members.push(at);
            }
        }
        left.retain(|at| !members.contains(at));
        out.push(members);
    }
    out
}

/// What a rank's numbers are ahead of those of all: numbers less this mean the same on all lanes of the cluster.
pub(super) fn ahead(
    cluster: &Cluster,
    lanes: &[Lane],
    ranks: &[Rank],
) -> Result<BTreeMap<usize, i64>, &'static str> {
    let of = |at: usize| lanes.get(at);
    let from_start = |at: usize| {
        let rank = of(at).filter(|lane| !lane.is_private).and_then(|lane| ranks.get(lane.rank));
        rank.is_some_and(|rank| rank.saw_init)
    };
    let reference = cluster
        .lanes
        .iter()
        .copied()
        .max_by_key(|&at| (of(at).map_or(0, |lane| telling(lane).count()), std::cmp::Reverse(at)));
    let (Some(reference), mut out) = (reference, BTreeMap::new()) else {
        return Err("no call of it was recorded");
    };
    let Some(first) = of(reference) else { return Err("no call of it was recorded") };
    for &at in &cluster.lanes {
        let Some(lane) = of(at) else { continue };
        let ahead = if at == reference {
            0
        } else {
            match level(first, lane) {
                Ok(level) => level.ahead,
                // Whoever was seen to set the library up was counted from the first call on.
                Err(_) if from_start(at) && from_start(reference) => 0,
                Err(why) => return Err(why),
            }
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
