//! Which calls of several ranks are one operation.
//!
//! Calls on one communicator come in the same order on every rank, but a recording begins in the middle, not everywhere
//! at the same call, and records may be lost on the way. So sequences are shifted against each other, block by block, until
//! matching calls overlap in time, end together, and are numbered alike.
//!
//! Of an operation with a root it is known who waits for whom where the calls say who is the root: nobody leaves a broadcast or
//! scatter before the root has come, and the root leaves no reduction or gather before the last one has. Such calls may be over on
//! one rank before they begin on another, so they are matched by their order between two matched calls that all enter together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp};
use stallscope_schemas::units::StringId;

use super::sums::Sums;
use super::{Arrivals, Calls, Inside, Mark, OfGroup, Sequence};

/// Calls for which one shift is looked for: a lost record costs as many at most.
const BLOCK: usize = 64;
/// Calls by which sequences may be shifted against each other beyond what their times say.
const MAX_SHIFT: isize = 64;
/// Pairs that a shift is judged by, at least half as many.
const ENOUGH: usize = 8;
/// Share of pairs that have to agree, in percent: a call or two may be cut or lost.
const AGREE_PERCENT: usize = 80;
/// Blocks without a shift after which the rest is not looked at, where most have none.
const MIN_MISSED: usize = 16;
/// Pairs of ranks with a communicator of one name that are held against each other: handles may be the same numbers in many
/// communicators.
const MAX_TRIED: usize = 1 << 12;
/// Calls times ranks up to which they are kept for a simulation, 100 MB.
pub(super) const MAX_KEPT: usize = 1 << 22;

/// Sequences that belong together: those on a communicator of the same name; where a library's names differ from rank to
/// rank (they may be addresses), those of ranks that use one communicator each.
pub(super) fn sequences(ranks: &[Calls]) -> Vec<Vec<Sequence<'_>>> {
    let mut together: BTreeMap<(CollectiveLibrary, StringId), Vec<Sequence<'_>>> = BTreeMap::new();
    for Calls { ledger, groups, .. } in ranks {
        for (&key, marks) in groups {
            together.entry(key).or_default().push((*ledger, marks));
        }
    }
    let mut alone: BTreeMap<CollectiveLibrary, Vec<Sequence<'_>>> = BTreeMap::new();
    let mut out = Vec::new();
    for ((library, _), of_group) in together {
        if of_group.len() > 1 {
            out.push(of_group);
        } else {
            alone.entry(library).or_default().extend(of_group);
        }
    }
    for (_, of_library) in alone {
        let mut ranks: Vec<usize> = of_library.iter().map(|(rank, _)| *rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        if ranks.len() > 1 && ranks.len() == of_library.len() {
            out.push(of_library);
        }
    }
    out
}

/// Whether two calls may be the same operation: they do the same, and each began before the other ended.
fn are_one(one: &Mark, other: &Mark) -> bool {
    one.operation == other.operation && one.start <= other.end && other.start <= one.end
}

/// A shift under which calls of two ranks are the same ones.
#[derive(Clone, Copy)]
struct Fit {
    by: isize,
    /// By how much the other one's numbers are ahead.
    ahead: u64,
    /// How far apart they end on average, ns.
    apart_ns: u64,
}

impl Fit {
    /// The twin of a call, and its position.
    fn twin<'a>(&self, mark: &Mark, at: usize, other: &'a [Mark]) -> Option<(usize, &'a Mark)> {
        let place = at.checked_add_signed(self.by)?;
        let twin = other.get(place)?;
        let is_twin = are_one(mark, twin) && twin.sequence.wrapping_sub(mark.sequence) == self.ahead;
        is_twin.then_some((place, twin))
    }
}

/// How a block of calls, from position `first` on, fits to another rank's under a shift.
fn fit(block: &[Mark], first: usize, other: &[Mark], by: isize) -> Option<Fit> {
    let twin = |at: usize| other.get(first.checked_add(at)?.checked_add_signed(by)?);
    let pairs = || block.iter().enumerate().filter_map(|(at, mark)| Some((mark, twin(at)?)));
    let (mark, other_mark) = pairs().find(|(mark, twin)| are_one(mark, twin))?;
    let ahead = other_mark.sequence.wrapping_sub(mark.sequence);
    let (mut count, mut agree, mut apart_ns) = (0usize, 0usize, 0u64);
    for (mark, twin) in pairs() {
        count += 1;
        if are_one(mark, twin) && twin.sequence.wrapping_sub(mark.sequence) == ahead {
            agree += 1;
            apart_ns = apart_ns.saturating_add(mark.end.0.abs_diff(twin.end.0));
        }
    }
    let enough = ENOUGH.min(block.len()).min(other.len()).div_ceil(2);
    let fits = count >= enough && agree * 100 >= count * AGREE_PERCENT;
    fits.then(|| Fit { by, ahead, apart_ns: apart_ns / agree.max(1) as u64 })
}

/// The shift under which a block fits best, among those near the one that times suggest.
fn search(block: &[Mark], first: usize, other: &[Mark]) -> Option<Fit> {
    let middle = block.len() / 2;
    let end = block.get(middle)?.end;
    let near =
        other.partition_point(|mark| mark.end < end).checked_signed_diff(first.checked_add(middle)?)?;
    let shifts = near.saturating_sub(MAX_SHIFT)..=near.saturating_add(MAX_SHIFT);
    shifts.filter_map(|by| fit(block, first, other, by)).min_by_key(|fit| fit.apart_ns)
}

/// The calls of one rank beside those of another: how far apart they end on average, ns, and the position of each one's twin, where
/// it has one. None where most have none.
fn beside(of: &[Mark], other: &[Mark]) -> Option<(u64, Vec<Option<u32>>)> {
    let (from, to) = (other.first()?.start, other.last()?.end);
    let mut twins = Vec::with_capacity(of.len());
    let mut known: Option<isize> = None;
    let (mut same, mut apart_ns) = (0u64, 0u64);
    let (mut tried, mut missed) = (0usize, 0usize);
    for (number, block) in of.chunks(BLOCK).enumerate() {
        let first = number * BLOCK;
        let found = known.and_then(|by| fit(block, first, other, by)).or_else(|| search(block, first, other));
        known = found.map(|fit| fit.by);
        // Those of another communicator whose handle is the same number: the rest will not fit either.
        let is_beside = block.iter().any(|mark| mark.end > from && mark.start < to);
        tried += usize::from(is_beside);
        missed += usize::from(is_beside && found.is_none());
        if missed >= MIN_MISSED && missed * 2 > tried {
            return None;
        }
        for (at, mark) in (first..).zip(block) {
            let twin = found.and_then(|fit| fit.twin(mark, at, other));
            twins.push(twin.and_then(|(place, _)| u32::try_from(place).ok()));
            if let Some((_, twin)) = twin {
                same += 1;
                apart_ns = apart_ns.saturating_add(mark.end.0.abs_diff(twin.end.0));
            }
        }
    }
    let both = of.iter().filter(|mark| mark.end > from && mark.start < to).count() as u64;
    (same > 0 && same * 2 >= both).then(|| (apart_ns / same.max(1), twins))
}

/// A rank of a communicator.
struct Member<'a> {
    ledger: usize,
    calls: &'a OfGroup,
    /// The positions of its calls that are those of the reference; none of the reference itself.
    twins: Option<Vec<Option<u32>>>,
}

impl Member<'_> {
    /// Its call that is the reference's at a position.
    fn twin(&self, at: usize) -> Option<Mark> {
        let place = match &self.twins {
            Some(twins) => usize::try_from((*twins.get(at)?)?).ok()?,
            None => at,
        };
        self.calls.together.get(place).copied()
    }
}

/// The communicators whose calls have one name: handles may be the same numbers, and two jobs may have one name. Those belong
/// together that end together, no more than the communicator has ranks, and each rank once. Where nobody knows how many it has, it
/// may have as many as the job, `world`.
pub(super) fn matched(
    mut ranks: Vec<Sequence<'_>>,
    world: u64,
    inside: &BTreeMap<usize, &[Inside]>,
) -> Vec<Arrivals> {
    let mut out = Vec::new();
    let mut tried = 0usize;
    while ranks.len() > 1 && tried < MAX_TRIED {
        tried = tried.saturating_add(ranks.len());
        let Some(&reference) = ranks.iter().max_by_key(|(rank, of)| (of.together.len(), Reverse(*rank)))
        else {
            break;
        };
        ranks.retain(|(rank, _)| *rank != reference.0);
        let of = reference.1;
        let mut others: Vec<(u64, Member<'_>)> = Vec::new();
        for &(ledger, calls) in
            ranks.iter().filter(|(_, other)| of.size == 0 || [0, of.size].contains(&other.size))
        {
            let found = beside(&of.together, &calls.together);
            others.extend(found.map(|(apart, twins)| (apart, Member { ledger, calls, twins: Some(twins) })));
        }
        others.sort_by_key(|(apart, member)| (*apart, member.ledger));
        let mut taken: BTreeSet<u32> = of.rank.into_iter().collect();
        others.retain(|(_, member)| member.calls.rank.is_none_or(|rank| taken.insert(rank)));
        if let (Ok(most), true) = (usize::try_from(of.size.saturating_sub(1)), of.size > 0) {
            others.truncate(most);
        }
        let mut members = vec![Member { ledger: reference.0, calls: of, twins: None }];
        members.extend(others.into_iter().map(|(_, member)| member));
        if members.len() < 2 {
            continue;
        }
        members.sort_by_key(|member| member.ledger);
        ranks.retain(|(rank, _)| !members.iter().any(|member| member.ledger == *rank));
        let size = if of.size > 0 { of.size } else { world };
        let sees_all = members.len() as u64 >= size;
        let ledgers = members.iter().map(|member| member.ledger).collect();
        // Of a communicator with ranks that were not seen it is not known when its operations could have ended.
        let keeps = sees_all && are_kept(of, members.len());
        let mut sums = Sums::new(ledgers, inside, keeps, sees_all);
        add(of, &members, &mut sums);
        out.extend(sums.finish());
    }
    out
}

/// Whether so many operations can be kept.
pub(super) fn are_kept(of: &OfGroup, ranks: usize) -> bool {
    of.together.len().saturating_add(of.rooted.len()).saturating_mul(ranks) <= MAX_KEPT
}

/// Adds up the operations of a communicator.
fn add(of: &OfGroup, members: &[Member<'_>], sums: &mut Sums<'_>) {
    let mut before: Option<Vec<Mark>> = None;
    for at in 0..of.together.len() {
        let twins = members.iter().map(|member| member.twin(at)).collect::<Option<Vec<Mark>>>();
        let twins = twins.filter(|twins| enter_together(twins));
        if let Some((before, twins)) = before.as_ref().zip(twins.as_ref()) {
            let between = members.iter().zip(before.iter().zip(twins)).map(|(member, (from, to))| {
                let rooted = member.calls.rooted.as_slice();
                let first = rooted.partition_point(|mark| mark.start < from.end);
                let end = rooted.partition_point(|mark| mark.start < to.start);
                rooted.get(first..end).unwrap_or_default()
            });
            for calls in in_order(&between.collect::<Vec<_>>(), before) {
                if let Some(calls) = dependent(calls) {
                    sums.add(&calls);
                }
            }
        }
        if let Some(twins) = &twins {
            sums.add(&twins.iter().copied().enumerate().collect::<Vec<_>>());
        }
        before = twins;
    }
}

/// Whether nobody left before the last one had come.
fn enter_together(calls: &[Mark]) -> bool {
    let last = calls.iter().map(|mark| mark.start).max();
    calls.iter().all(|mark| Some(mark.end) >= last)
}

/// The calls with a root that all ranks made after one operation and before the next, one after the other; none where they differ
/// in what they are, or in how far their numbers are from that of the operation before: then records are lost.
fn in_order<'a>(
    ranks: &'a [&'a [Mark]],
    before: &[Mark],
) -> impl Iterator<Item = Vec<(usize, Mark)>> + use<'a> {
    let what =
        |mark: &Mark, before: &Mark| (mark.operation, mark.name, mark.sequence.wrapping_sub(before.sequence));
    let first = ranks.first().zip(before.first());
    let are_same = first.is_some_and(|(first, first_before)| {
        ranks.iter().zip(before).all(|(other, other_before)| {
            let mut pairs = first.iter().zip(*other);
            other.len() == first.len() && pairs.all(|(a, b)| what(a, first_before) == what(b, other_before))
        })
    });
    let count = first.filter(|_| are_same).map_or(0, |(first, _)| first.len());
    let of =
        |at: usize| ranks.iter().enumerate().filter_map(|(rank, of)| Some((rank, *of.get(at)?))).collect();
    (0..count).map(of)
}

/// Of an operation with a root those that could not leave it before the last one of them had come: of a broadcast and a scatter
/// the root with those that came before it, of a reduction and a gather the last one with the root. None where there are no two,
/// it is not known who is the root, or one did leave: then these calls are not one operation.
fn dependent(mut calls: Vec<(usize, Mark)>) -> Option<Vec<(usize, Mark)>> {
    let mut roots = calls.iter().filter(|(_, mark)| mark.is_root != Some(false));
    let root = *roots.next().filter(|(_, root)| root.is_root == Some(true) && roots.next().is_none())?;
    match root.1.operation {
        CollectiveOp::Broadcast | CollectiveOp::Scatter => {
            calls.retain(|(_, mark)| mark.start <= root.1.start);
        }
        CollectiveOp::Reduce | CollectiveOp::Gather => {
            let last = *calls.iter().max_by_key(|(_, mark)| mark.start)?;
            calls = if last.0 == root.0 { Vec::new() } else { vec![root, last] };
        }
        _ => return None,
    }
    let last = calls.iter().map(|(_, mark)| mark.start).max()?;
    (calls.len() > 1 && calls.iter().all(|(_, mark)| mark.end >= last)).then_some(calls)
}
