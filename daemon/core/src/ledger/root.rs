//! Charges the time that a device waited for a late one to what made that one late.
//!
//! Since the last operation that both had, in whichever communicator, at whose end they were level, the late one `q` did more of
//! something than `r`, which waited for it (delays after Böhme and others, ICPP'10, with leaves for call paths):
//!
//! ```text
//! q_c, r_c    time of leaf c on q and on r, each from its own end of that operation to its own coming
//! excess_c    max(0, q_c − r_c)
//! BLAME(r waits W for q) = W · excess_c / Σ excess, of q, for each leaf c;
//!                          the part of c = waiting for others: what q's own waits in that time are charged to
//!                          no excess, or no records of either: UNSEEN, of q
//! ```
//!
//! A device that waits may get on with work of its own meanwhile. Where the late one has to do that work later, and is late
//! for the next operation by it, that has the cause of the first wait.
//!
//! Without such an operation, `q_c` is what q did while r waited, and `r_c` is 0. Waits are worked out in the order in
//! which they ended, so that those of the late one are known. Parts are rounded so that they sum to the wait: the root
//! leaves of a device sum to its wall time as its direct ones do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use stallscope_schemas::units::{DeviceId, ThreadId, TimeNs};

use super::book::History;
use super::causes::Amount;
use super::charged::{Charged, Key, Parts, add};
use super::cpu::idle::{HostWalk, HostWork};
use super::cpu::{CpuLeaf, CpuSums};
use super::device::{DeviceLedger, NotConserved, Options};
use super::leaf::{CommLeaf, IdleLeaf, Leaf, Sums};
use super::parallel::each;
use super::pieces::Pieces;
pub use super::root_leaf::RootLeaf;
use super::so_far::{ByLeaf, Reader};
use super::stepper::{ChargedSteps, StepBounds};
use crate::capture::{Capture, ReadAt};
use crate::collectives::{Came, Operation, OperationId};
use crate::parts::in_proportion;

/// Devices on the way from one that waits to one that is to blame; of longer ways the middle is left out.
pub const MAX_HOPS: usize = 8;

/// What a wait was for: the devices on the way, the last of which is to blame, and what that one did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitedFor {
    /// The device that was waited for, the one that it waited for itself, and so on.
    pub via: Vec<DeviceId>,
    /// What the last of them did.
    pub leaf: RootLeaf,
}

impl WaitedFor {
    /// Who is to blame.
    #[must_use]
    pub fn culprit(&self) -> Option<DeviceId> {
        self.via.last().copied()
    }
}

/// Where a device's time went in the end.
#[derive(Debug, Default)]
pub struct Root {
    sums: [u64; RootLeaf::ALL.len()],
    /// What its waits are charged to; sums to the direct ledger's wait.
    pub waits: BTreeMap<WaitedFor, Amount>,
    /// Time that others waited for it as the one to blame, ns.
    pub charged_ns: u64,
    /// What the threads that launch on it did in the time of its host that made it late.
    pub held_up: HostWork,
    /// That time, ns: each nanosecond once, however many waited.
    pub held_up_ns: u64,
    /// By how much earlier operations would have begun if it had come with the one before it, each nanosecond once.
    pub ahead_ns: u64,
    /// What the launching threads of those that waited did in their time of the same: what is usual.
    pub usual: CpuSums,
    /// Of the computing in that, what they did themselves, and not threads that they waited for, ns.
    pub usual_own_ns: u64,
}

impl Root {
    /// Time of a leaf, ns.
    #[must_use]
    pub fn get(&self, leaf: RootLeaf) -> u64 {
        self.sums.get(leaf as usize).copied().unwrap_or(0)
    }

    /// Sum of all leaves, ns.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sums.iter().sum()
    }

    fn add(&mut self, leaf: RootLeaf, ns: u64) {
        if let Some(sum) = self.sums.get_mut(leaf as usize) {
            *sum = sum.saturating_add(ns);
        }
    }

    /// A device's own time: everything but what it waited.
    fn own(sums: &Sums) -> Self {
        let mut root = Self::default();
        for &leaf in Leaf::ALL {
            if !matches!(leaf, Leaf::Idle | Leaf::CommExposed) {
                root.add(RootLeaf::of(leaf), sums.get(leaf));
            }
        }
        for &leaf in IdleLeaf::ALL {
            root.add(RootLeaf::of_idle(leaf), sums.idle(leaf));
        }
        for &leaf in CommLeaf::ALL {
            if leaf != CommLeaf::Wait {
                root.add(RootLeaf::of_comm(leaf), sums.comm(leaf));
            }
        }
        root
    }
}

/// A stretch in which a device's host made it late, and one of the device that waited longest to hold it against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    from: TimeNs,
    to: TimeNs,
    usual: Option<(DeviceId, TimeNs, TimeNs)>,
}

/// Of what one wait is passed on to, the most that keep the devices on the way.
const MAX_PASSED_ON: usize = 32;
/// Ways that are told apart: each is a line of the report. Beyond them only who is to blame is kept.
const MAX_WAYS: usize = 1 << 14;

/// Operations of a device that are remembered to find one that another device had, too.
const RECENT: usize = 64;

/// Follows waits from device to device.
struct Blame<'a> {
    operations: &'a [Operation],
    histories: HashMap<DeviceId, (&'a History, Reader<'a>)>,
    keys: Vec<WaitedFor>,
    numbers: HashMap<WaitedFor, Key>,
    /// Numbers that were asked for before: of a late device with a leaf, and with a key beyond it.
    own_keys: HashMap<(DeviceId, RootLeaf), Key>,
    keys_beyond: HashMap<(DeviceId, Key), Key>,
    charged: Charged,
    /// The last operations of each device and when they ended there, the latest last.
    recent: HashMap<DeviceId, VecDeque<(OperationId, TimeNs)>>,
    /// When a device's host made it late.
    late: HashMap<DeviceId, Vec<Late>>,
}

impl Blame<'_> {
    /// Charges the waits in one operation. Those in operations that the last one came to earlier are charged already.
    fn operation(&mut self, number: OperationId) {
        let operations = self.operations;
        let Some(operation) = operations.get(number as usize) else { return };
        if let Some(its) = operation.came.iter().find(|came| came.device == operation.last) {
            let mut came = operation.came.clone();
            came.sort_unstable_by_key(|own| (own.at, own.device));
            for own in came.iter().filter(|own| own.at < own.last_at) {
                let ns = own.last_at.since(own.at);
                let meanwhile = self.between(own.device, own.at, own.last_at);
                let ahead = meanwhile.iter().flat_map(|by_leaf| RootLeaf::ALL.iter().zip(by_leaf));
                let ahead = ahead.filter(|(leaf, _)| leaf.is_own_work());
                let mut lead_ns = ahead.fold(0u64, |sum, (_, ns)| sum.saturating_add(*ns)).min(ns);
                let parts = self.parts(operation, (*own, *its), ns, &mut lead_ns);
                self.charged.push(number, own.device, &parts, lead_ns);
            }
        }
        for came in &operation.came {
            let recent = self.recent.entry(came.device).or_default();
            recent.push_back((number, came.end));
            if recent.len() > RECENT {
                recent.pop_front();
            }
        }
    }

    /// What a device did between two of its moments.
    fn between(&mut self, device: DeviceId, from: TimeNs, to: TimeNs) -> Option<ByLeaf> {
        self.histories.get_mut(&device)?.1.between(from, to)
    }

    /// The ends, on both devices, of the last operation that both had and that was over on both before they came to this one.
    fn level(&self, own: Came, its: Came) -> Option<(TimeNs, TimeNs)> {
        let (mine, theirs) = (self.recent.get(&own.device)?, self.recent.get(&its.device)?);
        mine.iter().rev().filter(|(_, end)| *end <= own.at).find_map(|&(number, end)| {
            let both = theirs.iter().rev().find(|(other, _)| *other == number)?;
            (both.1 <= its.at).then_some((end, both.1))
        })
    }

    fn parts(
        &mut self,
        operation: &Operation,
        (own, its): (Came, Came),
        ns: u64,
        lead_ns: &mut u64,
    ) -> Parts {
        let late = its.device;
        let level = self.level(own, its);
        let excess = self.excess(own, its, level);
        let Some((excess, (from, to))) = excess.filter(|(excess, _)| excess.iter().any(|ns| *ns > 0)) else {
            return vec![(self.own_key(late, RootLeaf::Unseen), ns)];
        };
        // While it waited for the same device before, this one got on with what comes next: that the late one still had
        // to do it has the cause of that wait.
        let before = operation
            .before
            .filter(|before| self.operations.get(*before as usize).is_some_and(|before| before.last == late));
        let mut lead = before.map_or(0, |before| self.charged.lead_ns(before, own.device));
        let mut sums = Parts::new();
        for (&leaf, share) in
            RootLeaf::ALL.iter().zip(in_proportion(ns, &excess)).filter(|(_, share)| *share > 0)
        {
            let mut share = share;
            if leaf.is_own_work() {
                let had = share.min(lead);
                if let Some(before) = before.filter(|_| had > 0) {
                    let (keys, weights) = self.charged.parts(before, own.device);
                    for (&key, part) in keys.iter().zip(in_proportion(had, weights)) {
                        add(&mut sums, key, part);
                    }
                    (share, lead) = (share - had, lead - had);
                }
            }
            match leaf {
                _ if share == 0 => {}
                RootLeaf::Unseen => self.passed_on((own.device, late), (from, to), share, &mut sums),
                leaf => {
                    if leaf == RootLeaf::IdleHost {
                        let all = self.late.entry(late).or_default();
                        // Of those that waited in one operation the first has waited longest.
                        if all.last().is_none_or(|last| (last.from, last.to) != (from, to)) {
                            let usual = level.map(|(since, _)| (own.device, since, own.at));
                            all.push(Late { from, to, usual });
                        }
                    }
                    let key = self.own_key(late, leaf);
                    add(&mut sums, key, share);
                }
            }
        }
        *lead_ns = lead_ns.saturating_add(lead);
        sums
    }

    /// By how much the late device did more of each leaf, and when it did.
    fn excess(
        &mut self,
        own: Came,
        its: Came,
        level: Option<(TimeNs, TimeNs)>,
    ) -> Option<(ByLeaf, (TimeNs, TimeNs))> {
        let Some((own_since, its_since)) = level else {
            let since = its.when_it_came(&own);
            return Some((self.between(its.device, since, its.at)?, (since, its.at)));
        };
        let mut excess = self.between(its.device, its_since, its.at)?;
        let usual = self.between(own.device, own_since, own.at)?;
        for (more, usual) in excess.iter_mut().zip(usual) {
            *more = more.saturating_sub(usual);
        }
        Some((excess, (its_since, its.at)))
    }

    /// What was waited for a device because it had waited itself. What it had waited for the one that waits now, or for itself
    /// by way of others, comes from nowhere else.
    fn passed_on(
        &mut self,
        (waiting, late): (DeviceId, DeviceId),
        (from, to): (TimeNs, TimeNs),
        ns: u64,
        parts: &mut Parts,
    ) {
        let waits = self.histories.get(&late).map(|(history, _)| history.waits.ending_after(from));
        let mut sums = Parts::new();
        for wait in waits.into_iter().flatten().take_while(|wait| wait.to <= to) {
            let (keys, weights) = self.charged.parts(wait.about, late);
            for (&key, &ns) in keys.iter().zip(weights) {
                let is_others = |k: &WaitedFor| !k.via.contains(&waiting) && !k.via.contains(&late);
                if self.keys.get(key as usize).is_some_and(is_others) {
                    add(&mut sums, key, ns);
                }
            }
        }
        if sums.is_empty() {
            let key = self.own_key(late, RootLeaf::Unseen);
            add(parts, key, ns);
            return;
        }
        sums.sort_unstable_by_key(|&(key, ns)| (Reverse(ns), key));
        let weights: Vec<u64> = sums.iter().map(|(_, ns)| *ns).collect();
        let shares = in_proportion(ns, &weights);
        for (at, (&(key, _), share)) in sums.iter().zip(shares).enumerate().filter(|(_, (_, ns))| *ns > 0) {
            let key = if at < MAX_PASSED_ON { self.key_beyond(late, key) } else { self.end_of(key) };
            add(parts, key, share);
        }
    }

    /// The number of the key of a late device itself.
    fn own_key(&mut self, late: DeviceId, leaf: RootLeaf) -> Key {
        if let Some(&known) = self.own_keys.get(&(late, leaf)) {
            return known;
        }
        let key = self.key(&[], late, leaf);
        self.own_keys.insert((late, leaf), key);
        key
    }

    /// The number of the key of who is to blame at the end of a way.
    fn end_of(&mut self, key: Key) -> Key {
        let end = self.keys.get(key as usize).and_then(|way| Some((way.culprit()?, way.leaf)));
        end.map_or(key, |(culprit, leaf)| self.own_key(culprit, leaf))
    }

    /// The number of the key of a late device that waited for another key itself.
    fn key_beyond(&mut self, late: DeviceId, beyond: Key) -> Key {
        if let Some(&known) = self.keys_beyond.get(&(late, beyond)) {
            return known;
        }
        if self.keys.len() >= MAX_WAYS {
            return self.end_of(beyond);
        }
        let Some(WaitedFor { via, leaf }) = self.keys.get(beyond as usize).cloned() else { return beyond };
        let key = self.key(&via, late, leaf);
        self.keys_beyond.insert((late, beyond), key);
        key
    }

    /// The number of a key: `late`, then `beyond` it.
    fn key(&mut self, beyond: &[DeviceId], late: DeviceId, leaf: RootLeaf) -> Key {
        let mut via = vec![late];
        via.extend(beyond);
        if via.len() > MAX_HOPS {
            via.remove(MAX_HOPS - 1);
        }
        let key = WaitedFor { via, leaf };
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        // A billion keys would take more memory than there is.
        let number = Key::try_from(self.keys.len()).unwrap_or(Key::MAX);
        self.keys.push(key.clone());
        self.numbers.insert(key, number);
        number
    }
}

/// Fills in the root ledgers. Returns what each device did, without its stretches.
///
/// # Errors
/// [`NotConserved`] if the root leaves of a device do not sum to its wall time.
pub(super) fn charge<S: ReadAt>(
    capture: &Capture<S>,
    operations: &[Operation],
    ledgers: &mut [DeviceLedger],
    options: Options,
) -> Result<Vec<(DeviceId, History)>, NotConserved> {
    let histories: Vec<(DeviceId, History)> =
        ledgers.iter_mut().map(|l| (l.device, std::mem::take(&mut l.history))).collect();
    let (keys, charged, late) = blame(operations, &histories);
    let found = Found { operations, histories: &histories, keys, charged, late };
    let bounds = StepBounds::of(ledgers);
    let places: Vec<(&DeviceLedger, &History)> =
        ledgers.iter().zip(histories.iter().map(|(_, h)| h)).collect();
    let made = each(&places, options.in_turn, |&(ledger, history)| {
        found.root(capture, (ledger, history), &bounds, options.waker_stacks)
    });
    let mut steps = ChargedSteps::default();
    for (ledger, made) in ledgers.iter_mut().zip(made) {
        let (root, charged) = made?;
        ledger.root = root;
        steps.merge(charged);
    }
    steps.fill(ledgers);
    let without_pieces = |(device, h): (_, History)| {
        (device, History { so_far: h.so_far, total: h.total, ..History::default() })
    };
    Ok(histories.into_iter().map(without_pieces).collect())
}

/// Follows the waits of all operations: those who are to blame, what each wait is charged to, and when a host made its device
/// late.
fn blame(
    operations: &[Operation],
    histories: &[(DeviceId, History)],
) -> (Vec<WaitedFor>, Charged, HashMap<DeviceId, Vec<Late>>) {
    let mut blame = Blame {
        operations,
        histories: histories.iter().map(|(device, h)| (*device, (h, Reader::new(&h.so_far)))).collect(),
        keys: Vec::new(),
        numbers: HashMap::new(),
        own_keys: HashMap::new(),
        keys_beyond: HashMap::new(),
        charged: Charged::new(operations.len()),
        recent: HashMap::new(),
        late: HashMap::new(),
    };
    let mut order: Vec<(TimeNs, OperationId)> = operations.iter().map(|o| o.at).zip(0..).collect();
    order.sort_unstable();
    for (_, operation) in order {
        blame.operation(operation);
    }
    let Blame { keys, charged, late, .. } = blame;
    (keys, charged, late)
}

/// Everything that root ledgers are made of.
struct Found<'a> {
    operations: &'a [Operation],
    histories: &'a [(DeviceId, History)],
    keys: Vec<WaitedFor>,
    charged: Charged,
    late: HashMap<DeviceId, Vec<Late>>,
}

impl Found<'_> {
    /// The root ledger of a device, and what it charges to the steps of others.
    fn root<S: ReadAt>(
        &self,
        capture: &Capture<S>,
        (ledger, history): (&DeviceLedger, &History),
        bounds: &StepBounds,
        waker_stacks: bool,
    ) -> Result<(Root, ChargedSteps), NotConserved> {
        let device = ledger.device;
        let mut root = Root::own(&ledger.sums);
        let mut steps = ChargedSteps::default();
        let mut amounts: HashMap<Key, Amount> = HashMap::new();
        for wait in history.waits.iter() {
            let (numbers, weights) = self.charged.parts(wait.about, device);
            for (&number, ns) in numbers.iter().zip(in_proportion(wait.to.since(wait.from), weights)) {
                let Some(key) = self.keys.get(number as usize).filter(|_| ns > 0) else { continue };
                root.add(key.leaf, ns);
                if let Some(culprit) = key.culprit() {
                    // By its own clock, where it was in the operation itself.
                    let of = self.operations.get(wait.about as usize);
                    let came = of.map_or(&[][..], |o| o.came.as_slice());
                    let at = came.iter().find(|came| came.device == culprit).map_or(wait.to, |came| came.at);
                    steps.add(bounds, culprit, at, ns);
                }
                amounts.entry(number).or_default().add(ns);
            }
        }
        let named = |(number, amount)| Some((self.keys.get(number as usize)?.clone(), amount));
        root.waits = amounts.into_iter().filter_map(named).collect();
        let wall_ns = ledger.end.since(ledger.start);
        if root.total() != wall_ns {
            let (device, from, to) = (ledger.device.0, ledger.start, ledger.end);
            return Err(NotConserved { device, from, to, sum_ns: root.total(), wall_ns });
        }
        let stretches = self.late.get(&device).map_or(&[][..], Vec::as_slice);
        (root.held_up, root.held_up_ns) =
            host_work(capture, device, stretches.iter().map(|l| (l.from, l.to)), &history.host, waker_stacks);
        root.ahead_ns = ahead_ns(self.operations, device);
        for (peer, history) in self.histories {
            let mut of_peer =
                stretches.iter().filter_map(|late| late.usual).filter(|usual| usual.0 == *peer).peekable();
            if of_peer.peek().is_none() {
                continue;
            }
            let of_peer = of_peer.map(|(_, from, to)| (from, to));
            let (work, _) = host_work(capture, *peer, of_peer, &history.host, false);
            root.usual.merge(&work.root);
            root.usual_own_ns = root.usual_own_ns.saturating_add(work.direct.get(CpuLeaf::Compute));
        }
        Ok((root, steps))
    }
}

/// How long only this device was missing, over all operations.
fn ahead_ns(operations: &[Operation], device: DeviceId) -> u64 {
    let alone = operations.iter().filter(|operation| operation.last == device).filter_map(|operation| {
        let last = operation.last_one()?;
        let others = operation.came.iter().filter(|came| came.device != device);
        Some((others.map(|came| last.when_it_came(came)).max()?, last.at))
    });
    let mut alone: Vec<_> = alone.collect();
    alone.sort_unstable();
    let (mut at, mut ns) = (TimeNs(i64::MIN), 0u64);
    for (from, to) in alone {
        ns = ns.saturating_add(to.since(from.max(at)));
        at = at.max(to);
    }
    ns
}

/// What the threads that launch on a device did in those of its waits for them that lie in `stretches`, and how long these
/// are.
fn host_work<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    stretches: impl Iterator<Item = (TimeNs, TimeNs)>,
    pieces: &Pieces,
    waker_stacks: bool,
) -> (HostWork, u64) {
    let mut stretches: Vec<(TimeNs, TimeNs)> = stretches.collect();
    stretches.sort_unstable();
    let mut walk = HostWalk::of_device(capture, device, waker_stacks);
    let (mut at, mut total_ns) = (TimeNs(i64::MIN), 0u64);
    for (from, to) in stretches {
        let from = from.max(at);
        for piece in pieces.ending_after(from).take_while(|piece| piece.from < to) {
            let (begin, end) = (piece.from.max(from), piece.to.min(to));
            total_ns = total_ns.saturating_add(end.since(begin));
            let thread = ThreadId(piece.about);
            if walk.follows(thread) {
                walk.charge(thread, begin, end);
            }
        }
        at = at.max(to);
    }
    (walk.finish(), total_ns)
}
