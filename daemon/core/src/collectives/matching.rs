//! Which kernels of different devices are one operation, and who came last.
//!
//! Kernels of one communicator come in the same order everywhere. Lanes of a communicator that all ranks call the same
//! belong together; others do where their kernels end together, because nobody leaves early. Within a communicator the
//! kernels of two lanes are paired by a shift that holds for a while: a recording does not begin with the same operation
//! everywhere, and records may be lost on the way.
//!
//! Times here are those of the clock that lanes have in common; what leaves is told by each device's own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::{DeviceId, StringId, TimeNs};

use super::comings::Comings;
use super::lanes::{Lane, LaneClock, Mark};
use super::transfers::{Kind, KindKey, Transfer, floors};
use crate::capture::Tables;

/// Pairs of kernels by which two lanes are judged.
const JUDGED: usize = 512;
/// Share of pairs that have to agree for two lanes to be of one communicator, in percent: a few may be cut or lost.
const AGREE_PERCENT: usize = 80;
/// Kernels for which one shift is looked for.
const BLOCK: usize = 64;
/// How much farther apart than others' the ends of two lanes of one communicator may be.
const SKEW_NS: u64 = 2_000;
/// Lanes without a name that are held against each other.
const MAX_LANES: usize = 256;

/// When a kernel waited and when it moved data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// The operation that it waited in; none for the one that came last.
    pub(super) waits_in: Option<OperationId>,
    /// When the last one came.
    pub(super) came: TimeNs,
    /// End of the wait.
    pub(super) wait_until: TimeNs,
    /// Until when the error of the clocks does not let it be told.
    pub(super) uncertain_until: TimeNs,
    /// Until when it moved data at its best pace.
    pub(super) floor_until: TimeNs,
    /// All ranks of the communicator were seen: else what follows the last one seen may be waiting as well.
    pub(super) is_whole: bool,
}

/// Position in the list of operations.
pub type OperationId = u32;

/// An operation that nobody left before all had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who came last.
    pub last: DeviceId,
    /// When that was, on the clock that the devices have in common: operations are in order by it.
    pub at: TimeNs,
    /// When each came.
    pub came: Vec<Came>,
    /// The one before it on the same communicator.
    pub before: Option<OperationId>,
}

impl Operation {
    /// The coming of the last one.
    #[must_use]
    pub fn last_one(&self) -> Option<&Came> {
        self.came.iter().find(|came| came.device == self.last)
    }
}

impl Came {
    /// When another one came, on the clock of this one, which came last.
    #[must_use]
    pub fn when_it_came(&self, other: &Self) -> TimeNs {
        self.at.minus(other.last_at.since(other.at))
    }
}

/// A device's coming to an operation, as its own clock tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// The device.
    pub device: DeviceId,
    /// When it came.
    pub at: TimeNs,
    /// When the last one came.
    pub last_at: TimeNs,
    /// When the operation ended there.
    pub end: TimeNs,
}

/// What was matched.
pub(super) struct Matched {
    /// One entry a kernel, in the order of the lanes.
    pub(super) splits: Vec<Vec<Option<Split>>>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) operations: Vec<Operation>,
}

/// Matches the kernels of all lanes and splits them.
pub(super) fn matched(lanes: &[Lane], tables: &Tables, error_ns: u64) -> Matched {
    let mut work = Splitting {
        splits: lanes.iter().map(|lane| vec![None; lane.marks.len()]).collect(),
        lanes,
        error_ns,
        kinds: BTreeMap::new(),
        operations: Vec::new(),
    };
    let groups = together(lanes, tables);
    let alone = alone(&groups, lanes);
    for members in groups {
        let is_whole = is_whole(&members, lanes, tables, &alone);
        let group = Group { is_whole, ranks: ranks(&members, lanes, tables, is_whole) };
        let mut before = None;
        for kernels in operations(&members, lanes) {
            before = work.split(&kernels, &group, before);
        }
    }
    let transfers = floors(lanes, &mut work.splits, work.kinds);
    Matched { splits: work.splits, transfers, operations: work.operations }
}

/// Clock and job of a device: what differs in either is not compared.
type Origin<'a> = ((bool, u32), &'a str);

/// Positions in `lanes` of those that are one communicator.
pub(super) fn together(lanes: &[Lane], tables: &Tables) -> Vec<Vec<usize>> {
    // One clock, one job.
    let source = |lane: &Lane| {
        let device = tables.device(lane.device)?;
        let process = device.processes.first().and_then(|&p| tables.process(p));
        Some((lane.clock.domain(), process.map_or("", |p| p.job.as_str())))
    };
    let mut named: BTreeMap<(Option<Origin<'_>>, StringId), Vec<usize>> = BTreeMap::new();
    for (at, lane) in lanes.iter().enumerate() {
        if let Some(group) = lane.group {
            named.entry((source(lane), group)).or_default().push(at);
        }
    }
    let mut out: Vec<Vec<usize>> = Vec::new();
    let mut placed = vec![false; lanes.len()];
    for members in named.into_values().filter(|members| members.len() > 1) {
        for &at in &members {
            if let Some(slot) = placed.get_mut(at) {
                *slot = true;
            }
        }
        out.push(members);
    }
    let rest: Vec<(usize, &Lane)> =
        lanes.iter().enumerate().filter(|(at, _)| !placed.get(*at).copied().unwrap_or(true)).collect();
    out.extend(ending_together(&rest, source));
    out
}

/// Lanes whose kernels end together.
fn ending_together<K: PartialEq>(
    lanes: &[(usize, &Lane)],
    source: impl Fn(&Lane) -> Option<K>,
) -> Vec<Vec<usize>> {
    let lanes = lanes.get(..MAX_LANES).unwrap_or(lanes);
    let mut pairs: Vec<(u64, usize, usize)> = Vec::new();
    for (at, (_, one)) in lanes.iter().enumerate() {
        for (other_at, (_, other)) in lanes.iter().enumerate().skip(at + 1) {
            let may_be = one.device != other.device && source(one) == source(other);
            if let Some(apart) = may_be.then(|| apart(one, other)).flatten() {
                pairs.push((apart, at, other_at));
            }
        }
    }
    pairs.sort_unstable();
    let known: HashMap<(usize, usize), u64> = pairs.iter().map(|&(apart, a, b)| ((a, b), apart)).collect();
    let widest = |members: &[usize], others: &[usize]| {
        let each = members.iter().flat_map(|&a| others.iter().map(move |&b| (a.min(b), a.max(b))));
        let each = each.filter(|(a, b)| a != b).map(|pair| known.get(&pair).copied());
        each.collect::<Option<Vec<u64>>>().map(|all| all.into_iter().max().unwrap_or(0))
    };
    // The best pairs first; a communicator has one lane a device, and no more than its size.
    let mut cluster: Vec<usize> = (0..lanes.len()).collect();
    for (_, one, other) in pairs {
        let (Some(&a), Some(&b)) = (cluster.get(one), cluster.get(other)) else { continue };
        // Most pairs of a large communicator: what follows looks at all of its lanes.
        if a == b {
            continue;
        }
        let members: Vec<&Lane> = lanes
            .iter()
            .zip(&cluster)
            .filter(|(_, of)| **of == a || **of == b)
            .map(|((_, l), _)| *l)
            .collect();
        let size = members.iter().map(|lane| lane.group_size).filter(|size| *size > 0).min();
        let mut devices: Vec<DeviceId> = members.iter().map(|lane| lane.device).collect();
        devices.sort_unstable();
        devices.dedup();
        let of = |number: usize| -> Vec<usize> {
            cluster.iter().enumerate().filter(|(_, of)| **of == number).map(|(at, _)| at).collect()
        };
        let (of_a, of_b) = (of(a), of(b));
        // Two communicators that work at the same time end near each other too, but not as near as the lanes of one.
        let within = widest(&of_a, &of_a).unwrap_or(0).max(widest(&of_b, &of_b).unwrap_or(0));
        let alone = of_a.len() == 1 && of_b.len() == 1;
        let near = widest(&of_a, &of_b)
            .is_some_and(|across| alone || across <= within.saturating_mul(4).saturating_add(SKEW_NS));
        let fits =
            near && devices.len() == members.len() && size.is_none_or(|size| members.len() as u64 <= size);
        if fits {
            cluster.iter_mut().filter(|of| **of == b).for_each(|of| *of = a);
        }
    }
    let mut by_cluster: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for ((at, _), of) in lanes.iter().zip(cluster) {
        by_cluster.entry(of).or_default().push(*at);
    }
    by_cluster.into_values().filter(|members| members.len() > 1).collect()
}

/// How far apart kernels of two lanes end on average, where most of them overlap and do the same.
fn apart(one: &Lane, other: &Lane) -> Option<u64> {
    let (first, last) = (other.marks.first()?.start, other.marks.last()?.end);
    let inside = one.marks.iter().filter(|mark| mark.end > first && mark.start < last);
    let (mut pairs, mut agree, mut apart) = (0usize, 0usize, 0u64);
    for mark in inside.take(JUDGED) {
        pairs += 1;
        let twin = nearest(&other.marks, mark.end).and_then(|at| other.marks.get(at));
        if let Some(twin) = twin.filter(|twin| are_one(mark, twin)) {
            agree += 1;
            apart = apart.saturating_add(mark.end.0.abs_diff(twin.end.0));
        }
    }
    (agree > 1 && agree * 100 >= pairs * AGREE_PERCENT).then(|| apart / agree as u64)
}

/// Position of the kernel that ends nearest to a moment.
fn nearest(marks: &[Mark], end: TimeNs) -> Option<usize> {
    let after = marks.partition_point(|mark| mark.end < end);
    let of = |at: usize| marks.get(at).map(|mark| (mark.end.0.abs_diff(end.0), at));
    [after.checked_sub(1).and_then(of), of(after)].into_iter().flatten().min().map(|(_, at)| at)
}

/// Whether two kernels may be the same operation: they do the same, and each began before the other ended.
fn are_one(one: &Mark, other: &Mark) -> bool {
    let same_size = one.bytes == 0 || other.bytes == 0 || one.bytes == other.bytes;
    let overlap = one.start <= other.end && other.start <= one.end;
    one.operation == other.operation && same_size && overlap
}

/// Positions of the kernels of one operation: lane and place in it.
pub(super) type Kernels = Vec<(usize, usize)>;

/// The operations of a communicator of which all lanes have the kernel.
pub(super) fn operations<'a>(members: &[usize], lanes: &'a [Lane]) -> impl Iterator<Item = Kernels> + 'a {
    let marks = |lane: usize| lanes.get(lane).map_or(&[][..], |lane| lane.marks.as_slice());
    let reference = members.iter().copied().max_by_key(|&lane| (marks(lane).len(), Reverse(lane)));
    let kernels = reference.map_or(&[][..], marks);
    let twins: Vec<(usize, Vec<u32>)> = members
        .iter()
        .filter(|&&lane| Some(lane) != reference)
        .map(|&lane| (lane, twins(kernels, marks(lane))))
        .collect();
    let operation = move |reference: usize, at: usize| {
        let mut operation = Kernels::with_capacity(twins.len() + 1);
        for (lane, twins) in &twins {
            operation
                .push((*lane, twins.get(at).filter(|&&twin| twin != NO_TWIN).map(|&twin| twin as usize)?));
        }
        operation.push((reference, at));
        // Each was held against the reference: they have to be one among themselves as well. Who does not wait in one with a root
        // may leave early.
        let all = || operation.iter().filter_map(|&(lane, at)| lanes.get(lane)?.marks.get(at));
        let last = all().map(|mark| mark.start).max()?;
        all().all(|mark| last <= mark.end || mark.operation.has_root()).then_some(operation)
    };
    let all =
        reference.map(move |reference| (0..kernels.len()).filter_map(move |at| operation(reference, at)));
    all.into_iter().flatten()
}

/// Stands for a kernel that another lane has not.
const NO_TWIN: u32 = u32::MAX;

/// For each kernel of `of` the position of the same operation's in `other`.
fn twins(of: &[Mark], other: &[Mark]) -> Vec<u32> {
    let number = |at: Option<usize>| at.and_then(|at| u32::try_from(at).ok()).unwrap_or(NO_TWIN);
    let sequenced: BTreeMap<u64, usize> =
        other.iter().enumerate().filter_map(|(at, mark)| Some((mark.sequence?, at))).collect();
    if !sequenced.is_empty() && of.iter().all(|mark| mark.sequence.is_some()) {
        let same = |mark: &Mark| {
            let at = *sequenced.get(&mark.sequence?)?;
            other.get(at).filter(|twin| are_one(mark, twin)).map(|_| at)
        };
        return of.iter().map(|mark| number(same(mark))).collect();
    }
    let mut out = Vec::with_capacity(of.len());
    for (block, marks) in of.chunks(BLOCK).enumerate() {
        let first = block * BLOCK;
        let mut shifts: BTreeMap<isize, usize> = BTreeMap::new();
        for (at, mark) in marks.iter().enumerate() {
            let near = nearest(other, mark.end).filter(|&n| other.get(n).is_some_and(|t| are_one(mark, t)));
            if let Some(shift) = near.and_then(|n| n.checked_signed_diff(first + at)) {
                *shifts.entry(shift).or_default() += 1;
            }
        }
        let shift = shifts.into_iter().max_by_key(|&(shift, count)| (count, Reverse(shift.unsigned_abs())));
        let twin = |at: usize, mark: &Mark| {
            let twin = (first + at).checked_add_signed(shift?.0)?;
            other.get(twin).filter(|other| are_one(mark, other)).map(|_| twin)
        };
        out.extend(marks.iter().enumerate().map(|(at, mark)| number(twin(at, mark))));
    }
    fill_in_order(of, other, &mut out);
    out
}

/// Finds the twins of kernels of operations with a root that were over on one device before they began on the other: between two
/// pairs with as many kernels between them on both devices these are the same ones in turn, if their calls are numbered alike.
fn fill_in_order(of: &[Mark], other: &[Mark], twins: &mut [u32]) {
    let is_same = |mark: &Mark, twin: &Mark, ahead: u64| {
        let same_size = mark.bytes == 0 || twin.bytes == 0 || mark.bytes == twin.bytes;
        let is_known = mark.call > 0 && twin.call > 0 && twin.call.wrapping_sub(mark.call) == ahead;
        let may_be = mark.operation == twin.operation && same_size && mark.operation.has_root();
        is_known && (may_be || are_one(mark, twin))
    };
    let mut last: Option<usize> = None;
    for at in 0..twins.len() {
        let Some(twin) = twins.get(at).copied().filter(|&twin| twin != NO_TWIN) else { continue };
        let (Some(before), end) = (last.replace(at), twin as usize) else { continue };
        let Some(first) = twins.get(before).map(|&twin| twin as usize) else { continue };
        if at == before + 1 || end.checked_sub(first) != Some(at - before) {
            continue;
        }
        let (Some(own), Some(its)) = (of.get(before..=at), other.get(first..=end)) else { continue };
        let ahead = match (own.first(), its.first()) {
            (Some(own), Some(its)) => its.call.wrapping_sub(own.call),
            _ => continue,
        };
        if own.iter().zip(its).all(|(mark, twin)| is_same(mark, twin, ahead)) {
            for ((slot, mark), twin) in twins.iter_mut().skip(before).zip(own).zip(first..) {
                if mark.operation.has_root() {
                    *slot = u32::try_from(twin).unwrap_or(NO_TWIN);
                }
            }
        }
    }
}

/// Devices with a lane that matches none, of a communicator whose size is not known: it may be a rank of any.
fn alone(groups: &[Vec<usize>], lanes: &[Lane]) -> BTreeSet<DeviceId> {
    let placed: BTreeSet<usize> = groups.iter().flatten().copied().collect();
    let others = lanes.iter().enumerate().filter(|(at, lane)| !placed.contains(at) && lane.group_size == 0);
    others.map(|(_, lane)| lane.device).collect()
}

/// Whether all ranks of the communicator are among the lanes.
fn is_whole(members: &[usize], lanes: &[Lane], tables: &Tables, alone: &BTreeSet<DeviceId>) -> bool {
    let of = members.iter().filter_map(|&at| lanes.get(at));
    match of.clone().map(|lane| lane.group_size).max() {
        Some(size) if size > 0 => members.len() as u64 >= size,
        // Its size is not known: then only a capture of all ranks has all of its ranks for certain.
        _ => {
            let processes = of.filter_map(|lane| tables.device(lane.device)?.processes.first().copied());
            let jobs =
                processes.filter_map(|p| tables.process(p)).filter_map(|p| Some((p.world_size?, &p.job)));
            jobs.max().is_some_and(|(world, job)| {
                let of_job = tables.processes().iter().filter(|p| p.job == *job);
                let all = of_job.filter_map(|p| p.rank).collect::<BTreeSet<u32>>().len() >= world as usize;
                // One whose clock is wrong is in the capture and matches nobody.
                let of_this = |device: &DeviceId| {
                    let device = tables.device(*device);
                    let process = device.and_then(|d| tables.process(*d.processes.first()?));
                    process.is_some_and(|p| p.job == *job)
                };
                all && !alone.iter().any(of_this)
            })
        }
    }
}

/// The ranks of a communicator's lanes in it, by position of the lane; none where they are not known. Where calls do not say and
/// all of its ranks are there, they are taken to have the order that they have in the job.
fn ranks(members: &[usize], lanes: &[Lane], tables: &Tables, is_whole: bool) -> BTreeMap<usize, u32> {
    let said = members.iter().map(|&at| Some((at, lanes.get(at)?.rank?)));
    if let Some(said) = said.collect() {
        return said;
    }
    let of_job = |&at: &usize| {
        let process = tables.device(lanes.get(at)?.device)?.processes.first().copied();
        Some((tables.process(process?)?.rank?, at))
    };
    let in_order: Option<BTreeMap<u32, usize>> = members.iter().map(of_job).collect();
    let in_order = in_order.filter(|all| is_whole && all.len() == members.len()).unwrap_or_default();
    let ranks: BTreeMap<usize, u32> = in_order.into_values().zip(0..).collect();
    // What one call says of its rank may show that they have another order.
    let fits =
        |(&at, &rank): (&usize, &u32)| lanes.get(at).and_then(|lane| lane.rank).is_none_or(|of| of == rank);
    if ranks.iter().all(fits) { ranks } else { BTreeMap::new() }
}

/// Whether nobody leaves before all have entered.
pub(super) fn synchronises(operation: CollectiveOp, ranks: usize) -> bool {
    match operation {
        CollectiveOp::AllReduce
        | CollectiveOp::AllGather
        | CollectiveOp::ReduceScatter
        | CollectiveOp::AllToAll
        | CollectiveOp::Barrier => true,
        // Of a pair, neither is done before the other has come.
        CollectiveOp::Send | CollectiveOp::Recv => ranks == 2,
        _ => false,
    }
}

/// The kernels of an operation that could not end before the last one of them had begun. Of a broadcast and a scatter that is
/// the root with those that came before it; of a reduction and a gather it is the last one with the root. None where there are
/// no two, it is not known who is the root, or one did end: then these are not one operation.
fn dependent(kernels: Vec<Kernel>) -> Option<Vec<Kernel>> {
    let operation = kernels.first()?.mark.operation;
    if synchronises(operation, kernels.len()) {
        return Some(kernels);
    }
    let mut roots = kernels.iter().filter(|kernel| kernel.is_root != Some(false));
    let root = *roots.next().filter(|root| root.is_root == Some(true) && roots.next().is_none())?;
    let kept: Vec<Kernel> = match operation {
        CollectiveOp::Broadcast | CollectiveOp::Scatter => {
            kernels.into_iter().filter(|kernel| kernel.mark.start <= root.mark.start).collect()
        }
        CollectiveOp::Reduce | CollectiveOp::Gather => {
            let last = *kernels.iter().max_by_key(|kernel| (kernel.mark.start, Reverse(kernel.device)))?;
            if last.device == root.device { Vec::new() } else { vec![root, last] }
        }
        _ => return None,
    };
    let last = kept.iter().map(|kernel| kernel.mark.start).max()?;
    (kept.len() > 1 && kept.iter().all(|kernel| kernel.mark.end >= last)).then_some(kept)
}

/// A kernel of an operation.
#[derive(Clone, Copy)]
struct Kernel {
    lane: usize,
    at: usize,
    device: DeviceId,
    clock: LaneClock,
    mark: Mark,
    /// Whether it is the root of its operation; none where that is not known.
    is_root: Option<bool>,
}

impl Kernel {
    fn came(&self) -> (DeviceId, LaneClock, &Mark) {
        (self.device, self.clock, &self.mark)
    }
}

/// What is known of a communicator.
struct Group {
    /// All of its ranks were seen.
    is_whole: bool,
    /// Ranks by position of their lanes.
    ranks: BTreeMap<usize, u32>,
}

/// What is worked out operation by operation.
struct Splitting<'a> {
    lanes: &'a [Lane],
    error_ns: u64,
    splits: Vec<Vec<Option<Split>>>,
    kinds: BTreeMap<KindKey, Kind>,
    operations: Vec<Operation>,
}

impl Splitting<'_> {
    /// Splits one operation's kernels. Returns its number.
    fn split(
        &mut self,
        kernels: &Kernels,
        group: &Group,
        before: Option<OperationId>,
    ) -> Option<OperationId> {
        let lanes = self.lanes;
        let kernels: Vec<Kernel> = kernels
            .iter()
            .filter_map(|&(lane, at)| {
                let of = lanes.get(lane)?;
                let mark = *of.marks.get(at)?;
                let is_root = mark.root.rank().zip(group.ranks.get(&lane)).map(|(root, rank)| root == *rank);
                Some(Kernel { lane, at, device: of.device, clock: of.clock, mark, is_root })
            })
            .collect();
        let all = kernels.len();
        let kernels = dependent(kernels)?;
        // Where some neither waited for the last one nor were waited for, what the others do after it is not known.
        let is_whole = group.is_whole && kernels.len() == all;
        // Of those that come at once it is the root that is waited for.
        let order =
            |kernel: &&Kernel| (kernel.mark.start, kernel.is_root == Some(true), Reverse(kernel.device));
        let latest = kernels.iter().max_by_key(order);
        let &Kernel { device: last_device, mark: last, .. } = latest?;
        let bytes = kernels.iter().map(|k| k.mark.bytes).max().unwrap_or(0);
        let key = (last.operation.id(), bytes, last.name, kernels.len());
        let mut kind = (kernels.len() == all).then(|| self.kinds.entry(key).or_default());
        if let Some(kind) = &mut kind {
            kind.operation = Some(last.operation);
            kind.count += 1;
        }
        let number = OperationId::try_from(self.operations.len()).ok();
        let comings = Comings::of(kernels.iter().map(Kernel::came), self.error_ns);
        for own in &kernels {
            let &Kernel { lane, at, device, mark, .. } = own;
            // Each of the others came within the error of its clock against this one's: so did the last.
            let (surely, at_most) = comings.last_of_others(own.came()).unwrap_or((mark.start, mark.start));
            let uncertain_until = at_most.max(mark.start);
            let (waits_in, wait_until) = if device == last_device {
                // It may have waited for the one before it by the error at most.
                (None, mark.start)
            } else {
                let wait_until = surely.max(mark.start);
                (number.filter(|_| wait_until > mark.start), wait_until)
            };
            if let Some(kind) = &mut kind {
                kind.wait_ns = kind.wait_ns.saturating_add(wait_until.since(mark.start));
                if let (Ok(lane), Ok(at)) = (u32::try_from(lane), u32::try_from(at)) {
                    kind.kernels.push((lane, at));
                }
                kind.transfers_ns.push(mark.end.since(last.start));
            }
            if let Some(slot) = self.splits.get_mut(lane).and_then(|of| of.get_mut(at)) {
                let (came, floor_until) = (last.start, uncertain_until);
                *slot = Some(Split { waits_in, came, wait_until, uncertain_until, floor_until, is_whole });
            }
        }
        let came = kernels.iter().map(|kernel| {
            let mark = kernel.mark;
            let (at, last_at, end) = (mark.own(mark.start), mark.own(last.start), mark.own(mark.end));
            Came { device: kernel.device, at, last_at, end }
        });
        let came = came.collect();
        self.operations.push(Operation { last: last_device, at: last.start, came, before });
        number
    }
}
