//! Which calls of several ranks are on one group.
//!
//! A name that all ranks share says it. Where each calls a group by an address of its own, calls that go together do: what
//! was called too little to tell is left unmatched, with all that it may be one group with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stallscope_schemas::record::CollectiveLibrary;

use super::calls::Lane;
use super::numbers::{Unlevel, level};

/// How often calls of two lanes are held against each other, at most: how many there are says a file.
const MAX_COMPARED: usize = 1 << 17;

/// Calls on one group.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Positions of the lanes; one a rank.
    pub(super) lanes: Vec<usize>,
    /// Ranks in it; 0 where unknown.
    pub(super) size: u64,
    /// No rank that is missing has calls that may be on this group.
    pub(super) is_matched: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    pub(super) all: Vec<Cluster>,
    /// There was more than is compared.
    pub(super) was_cut: bool,
}

/// Puts together what is one group of a job of so many ranks.
pub(super) fn clusters(lanes: &[Lane], world: Option<u32>) -> Clusters {
    let mut named: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let mut private: BTreeMap<CollectiveLibrary, Vec<usize>> = BTreeMap::new();
    for (at, lane) in lanes.iter().enumerate() {
        if lane.is_private {
            private.entry(lane.group.library).or_default().push(at);
        } else {
            named.entry(lane.group).or_default().push(at);
        }
    }
    let size = |members: &[usize]| members.iter().filter_map(|&at| lanes.get(at)).map(|l| l.size).max();
    let cluster = |lanes: Vec<usize>| Cluster { size: size(&lanes).unwrap_or(0), lanes, is_matched: true };
    let mut out = Clusters { all: named.into_values().map(cluster).collect(), was_cut: false };
    let mut left = MAX_COMPARED;
    for of_library in private.into_values() {
        let (found, untold) = by_times(of_library, lanes, world, &mut left);
        let mut found: Vec<Cluster> = found.into_iter().map(cluster).collect();
        note_unmatched(&mut found, lanes, &untold, left == 0);
        out.all.extend(found);
    }
    out.was_cut = left == 0;
    out
}

/// Lanes of which too little was recorded to tell whether they are of one group.
type Untold = Vec<(usize, usize)>;

/// Of two groups that lack ranks and have none in common, each may be what is missing of the other, where that is untold.
fn note_unmatched(found: &mut [Cluster], lanes: &[Lane], untold: &Untold, was_cut: bool) {
    let lacks = |cluster: &Cluster| (cluster.lanes.len() as u64) < cluster.size;
    let rank = |at: &usize| lanes.get(*at).map(|lane| lane.rank);
    let ranks_of = |cluster: &Cluster| cluster.lanes.iter().filter_map(rank).collect::<BTreeSet<usize>>();
    let ranks: Vec<BTreeSet<usize>> = found.iter().map(ranks_of).collect();
    let numbered = found.iter().enumerate();
    let number: BTreeMap<usize, usize> =
        numbered.flat_map(|(number, cluster)| cluster.lanes.iter().map(move |&at| (at, number))).collect();
    let mut unmatched: BTreeSet<usize> = BTreeSet::new();
    for (one, other) in untold {
        let (Some(one), Some(other)) = (number.get(one), number.get(other)) else { continue };
        let may_lack = |at: usize| found.get(at).is_some_and(|cluster| cluster.size == 0 || lacks(cluster));
        let are_apart = ranks.get(*one).zip(ranks.get(*other)).is_some_and(|(a, b)| a.is_disjoint(b));
        if are_apart && may_lack(*one) && may_lack(*other) {
            unmatched.extend([*one, *other]);
        }
    }
    for (number, cluster) in found.iter_mut().enumerate().filter(|(_, cluster)| lacks(cluster)) {
        cluster.is_matched = !was_cut && !unmatched.contains(&number);
    }
}

/// Groups that each rank calls by a name of its own: those whose calls go together. Where each rank of the job has one only,
/// and that is of all ranks, they are one.
fn by_times(
    mut left: Vec<usize>,
    lanes: &[Lane],
    world: Option<u32>,
    compared: &mut usize,
) -> (Vec<Vec<usize>>, Untold) {
    let lane = |at: usize| lanes.get(at);
    // What does not return is looked at first: where it is too much, whole groups are left out, and those that do.
    left.sort_by_key(|&at| {
        let of = lane(at).map(|l| (l.open().is_none(), std::cmp::Reverse(l.marks.len())));
        (of, at)
    });
    let rank = |at: usize| lane(at).map(|l| l.rank);
    let mut ranks: Vec<_> = left.iter().map(|&at| rank(at)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let is_world = |size: u64| world.is_some_and(|world| u64::from(world) == size);
    let mut sizes = left.iter().filter_map(|&at| lane(at)).map(|l| l.size).chain([ranks.len() as u64]);
    if ranks.len() == left.len() && sizes.all(is_world) {
        return (vec![left], Untold::new());
    }
    let (mut out, mut untold) = (Vec::new(), Untold::new());
    let mut left: VecDeque<usize> = left.into();
    while let Some(first) = left.pop_front() {
        let Some(seed) = lane(first) else { continue };
        if *compared < left.len() {
            *compared = 0;
            out.push(vec![first]);
            out.extend(left.drain(..).map(|at| vec![at]));
            break;
        }
        *compared = compared.saturating_sub(left.len());
        let mut fits: Vec<(u64, usize)> = Vec::new();
        for &at in &left {
            let Some(other) = lane(at).filter(|other| other.rank != seed.rank) else { continue };
            if seed.size != other.size && seed.size != 0 && other.size != 0 {
                continue;
            }
            match level(seed, other) {
                Ok(level) => fits.push((level.apart_ns, at)),
                Err(Unlevel::Few) => untold.push((first, at)),
                Err(_) => {}
            }
        }
        fits.sort_unstable();
        let mut members = vec![first];
        let mut taken: BTreeSet<usize> = BTreeSet::from([seed.rank]);
        for (_, at) in fits {
            let full = seed.size > 0 && members.len() as u64 >= seed.size;
            if !full && rank(at).is_some_and(|rank| taken.insert(rank)) {
                members.push(at);
            }
        }
        if members.len() > 1 {
            let members: BTreeSet<usize> = members.iter().copied().collect();
            left.retain(|at| !members.contains(at));
        }
        out.push(members);
    }
    (out, untold)
}
