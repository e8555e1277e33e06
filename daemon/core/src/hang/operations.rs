//! One operation as all of its ranks tell it.
//!
//! A collective is known by group and sequence number. Sends and receives are numbered by each rank for itself: in a group
//! of two both count the same operations, in a larger one the open ones of a pair are laid side by side, first to first.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::StringId;

use super::{Call, Job, RankLog, State};

/// Open calls of a rank that are looked at: the first ones are what it is stuck in.
const OPEN_CALLS: usize = 512;

/// What makes calls of several ranks one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A collective.
    Collective {
        /// Position of the group.
        group: usize,
        /// Its number there.
        sequence: u64,
    },
    /// A send with its receive.
    Transfer {
        /// Position of the group.
        group: usize,
        /// Rank that sends.
        from: u32,
        /// Rank that receives.
        to: u32,
        /// Its number, of the pair or of the group.
        number: u64,
    },
}

impl Key {
    /// Position of the group.
    #[must_use]
    pub fn group(self) -> usize {
        match self {
            Self::Collective { group, .. } | Self::Transfer { group, .. } => group,
        }
    }

    /// The number that orders operations of a group.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Collective { sequence, .. } => sequence,
            Self::Transfer { number, .. } => number,
        }
    }

    /// What a rank has to come to in order; an absence at one operation is an absence at all later ones of its lane.
    pub(super) fn lane(self) -> (usize, Option<(u32, u32)>) {
        match self {
            Self::Collective { group, .. } => (group, None),
            Self::Transfer { group, from, to, .. } => (group, Some((from, to))),
        }
    }
}

/// One rank in an operation that is not over for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Position of the rank.
    pub(super) rank: usize,
    /// Position of its call.
    pub(super) call: usize,
}

/// An operation that some rank is in.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) key: Key,
    pub(super) members: usize,
    /// Who is in it.
    pub(super) arrived: Vec<Arrival>,
    /// Whom it was over for.
    pub(super) done: Vec<usize>,
    /// Who was heard and has not come.
    pub(super) absent: Vec<usize>,
    /// Who was not heard.
    pub(super) unheard: Vec<u32>,
    /// Who came with something else than most.
    pub(super) odd: Vec<usize>,
    /// Whether those that came cannot be told apart by how many said what.
    pub(super) undecided: bool,
    /// Whether who is missing is told by position and not by number.
    pub(super) uncertain: bool,
    /// Nobody leaves it before all have come, and somebody has left.
    pub(super) passed: bool,
}

/// How far a rank is known to have come in a group, of one of the two kinds of operation.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    entered: Option<u64>,
    completed: Option<u64>,
    /// The first one that the rank's record still has.
    recorded: Option<u64>,
}

/// What is known of a rank that is not in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// It has not come.
    Absent,
    /// It has left.
    Done,
    /// It has come, and its record no longer says whether it left.
    Unknown,
}

/// Which kinds of operation a group is used for.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    collectives: bool,
    transfers: bool,
}

/// Everything that is open, and how far each rank has come.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) all: Vec<Operation>,
    /// Open calls of each rank with their operation, in the order of the calls.
    pub(super) open: Vec<Vec<(usize, usize)>>,
}

/// Builds the operations.
struct Builder<'a> {
    job: &'a Job,
    uses: Vec<Uses>,
    /// By group, in ascending order.
    members: Vec<Vec<u32>>,
    /// By rank, whether calls that are over stay in its record.
    keeps_what_is_over: Vec<bool>,
    /// By rank and group: collectives, transfers.
    reached: Vec<BTreeMap<usize, (Reached, Reached)>>,
}

/// Calls of one direction between two ranks.
#[derive(Debug, Default)]
struct Pair {
    sends: Vec<(u64, Arrival)>,
    receives: Vec<(u64, Arrival)>,
}

impl Operations {
    pub(super) fn of(job: &Job) -> Self {
        let builder = Builder::new(job);
        let mut collectives: BTreeMap<Key, Vec<Arrival>> = BTreeMap::new();
        let mut pairs: BTreeMap<(usize, u32, u32), Pair> = BTreeMap::new();
        for (rank, log) in job.ranks.iter().enumerate() {
            let open = log.calls.iter().enumerate().filter(|(_, call)| builder.is_open(rank, call));
            for (position, call) in open.take(OPEN_CALLS) {
                let arrival = Arrival { rank, call: position };
                match (call.operation, call.peer) {
                    (CollectiveOp::Send, Some(peer)) => {
                        let pair = pairs.entry((call.group, log.rank, peer)).or_default();
                        pair.sends.push((call.sequence, arrival));
                    }
                    (CollectiveOp::Recv, Some(peer)) => {
                        let pair = pairs.entry((call.group, peer, log.rank)).or_default();
                        pair.receives.push((call.sequence, arrival));
                    }
                    // Whom it is with is not known: nothing can be said of it.
                    (CollectiveOp::Send | CollectiveOp::Recv, None) => {}
                    _ => {
                        let key = Key::Collective { group: call.group, sequence: call.sequence };
                        collectives.entry(key).or_default().push(arrival);
                    }
                }
            }
        }
        let mut all: Vec<Operation> =
            collectives.into_iter().map(|(key, arrived)| builder.collective(key, arrived)).collect();
        for ((group, from, to), pair) in pairs {
            builder.transfers(group, from, to, &pair, &mut all);
        }
        for operation in &mut all {
            builder.compare(operation);
        }
        let siblings = Siblings::of(job, &all);
        for operation in all.iter_mut().filter(|o| o.undecided) {
            siblings.decide(job, operation);
        }
        let mut open = vec![Vec::new(); job.ranks.len()];
        for (number, operation) in all.iter().enumerate() {
            for arrival in &operation.arrived {
                if let Some(of_rank) = open.get_mut(arrival.rank) {
                    of_rank.push((arrival.call, number));
                }
            }
        }
        open.iter_mut().for_each(|of_rank| of_rank.sort_unstable());
        Self { all, open }
    }
}

/// The members of each group, in ascending order. Where nobody says who they are, those that use it are.
fn members(job: &Job) -> Vec<Vec<u32>> {
    let mut members: Vec<Vec<u32>> = job.groups.iter().map(|g| g.members.clone()).collect();
    for log in &job.ranks {
        let used: BTreeSet<usize> = log.calls.iter().map(|call| call.group).collect();
        for group in used {
            if job.groups.get(group).is_some_and(|g| g.members.is_empty()) {
                members.get_mut(group).into_iter().for_each(|of_group| of_group.push(log.rank));
            }
        }
    }
    for of_group in &mut members {
        of_group.sort_unstable();
        of_group.dedup();
    }
    members
}

/// The call behind an arrival.
pub(super) fn call_of(job: &Job, arrival: Arrival) -> Option<&Call> {
    job.ranks.get(arrival.rank)?.calls.get(arrival.call)
}

impl<'a> Builder<'a> {
    fn new(job: &'a Job) -> Self {
        let mut uses = vec![Uses::default(); job.groups.len()];
        for call in job.ranks.iter().flat_map(|log| &log.calls) {
            if let Some(uses) = uses.get_mut(call.group) {
                uses.transfers |= call.is_transfer();
                uses.collectives |= !call.is_transfer();
            }
        }
        let members = members(job);
        let over = |log: &RankLog| log.calls.iter().any(|call| !call.is_open());
        let keeps_what_is_over = job.ranks.iter().map(over).collect();
        let mut builder = Self { job, uses, members, keeps_what_is_over, reached: Vec::new() };
        builder.reached = job.ranks.iter().map(|log| builder.reached_by(log)).collect();
        builder
    }

    fn reached_by(&self, log: &RankLog) -> BTreeMap<usize, (Reached, Reached)> {
        let mut all: BTreeMap<usize, (Reached, Reached)> = BTreeMap::new();
        for call in &log.calls {
            let (collectives, transfers) = all.entry(call.group).or_default();
            let reached = if call.is_transfer() { transfers } else { collectives };
            reached.entered = reached.entered.max(Some(call.sequence));
            reached.recorded = Some(reached.recorded.map_or(call.sequence, |first| first.min(call.sequence)));
        }
        for (&group, progress) in &log.progress {
            // One number for both kinds: it can be read where the job uses the group for one of them only.
            let reached = all.entry(group).or_default();
            let reached = match self.uses.get(group) {
                Some(Uses { collectives: true, transfers: false }) => &mut reached.0,
                Some(Uses { collectives: false, transfers: true }) => &mut reached.1,
                _ => continue,
            };
            reached.entered = reached.entered.max(progress.enqueued);
            reached.completed = progress.completed;
        }
        all
    }

    fn reached(&self, rank: usize, group: usize, transfer: bool) -> Reached {
        let of_group = self.reached.get(rank).and_then(|groups| groups.get(&group));
        of_group.map_or_else(
            Reached::default,
            |&(collectives, transfers)| {
                if transfer { transfers } else { collectives }
            },
        )
    }

    /// Where a rank is that is not in an operation.
    fn elsewhere(&self, rank: usize, key: Key) -> Elsewhere {
        let (number, transfer) = (key.number(), matches!(key, Key::Transfer { .. }));
        let reached = self.reached(rank, key.group(), transfer);
        if reached.entered.is_none_or(|entered| entered < number) {
            return Elsewhere::Absent;
        }
        let recorded = reached.recorded.is_some_and(|first| first <= number);
        let known = match reached.completed {
            Some(completed) => completed >= number || recorded,
            // A record that keeps what is over would have it, had it not been pushed out by later calls.
            None => recorded || !self.keeps_what_is_over.get(rank).copied().unwrap_or(false),
        };
        if known { Elsewhere::Done } else { Elsewhere::Unknown }
    }

    /// A part of a batch of transfers has no end of its own: the rank's own account says that it is over.
    fn is_open(&self, rank: usize, call: &Call) -> bool {
        let completed = self.reached(rank, call.group, call.is_transfer()).completed;
        call.is_open() && completed.is_none_or(|completed| completed < call.sequence)
    }

    fn collective(&self, key: Key, arrived: Vec<Arrival>) -> Operation {
        let members = self.members.get(key.group()).map_or(&[][..], Vec::as_slice);
        let mut operation = Operation::new(key, members.len());
        for &rank in members {
            let Some(position) = self.job.position(rank) else {
                operation.unheard.push(rank);
                continue;
            };
            // They came in the order of the ranks.
            if arrived.binary_search_by_key(&position, |arrival| arrival.rank).is_ok() {
                continue;
            }
            match self.elsewhere(position, key) {
                Elsewhere::Absent => operation.absent.push(position),
                Elsewhere::Done => operation.done.push(position),
                Elsewhere::Unknown => {}
            }
        }
        let synchronises = arrived.iter().filter_map(|&a| call_of(self.job, a)).all(Call::synchronises);
        operation.arrived = arrived;
        operation.pass(synchronises);
        operation
    }

    /// Lays sends and receives of a pair side by side.
    fn transfers(&self, group: usize, from: u32, to: u32, pair: &Pair, all: &mut Vec<Operation>) {
        let two = self.members.get(group).is_some_and(|members| members.len() == 2);
        let sent: BTreeSet<u64> = pair.sends.iter().map(|(number, _)| *number).collect();
        let common = pair.receives.iter().any(|(number, _)| sent.contains(number));
        let mut by_number: BTreeMap<u64, [Option<Arrival>; 2]> = BTreeMap::new();
        for (side, calls) in [&pair.sends, &pair.receives].into_iter().enumerate() {
            for (position, &(sequence, arrival)) in (0u64..).zip(calls) {
                let number = if two || common { sequence } else { position };
                if let Some(slot) = by_number.entry(number).or_default().get_mut(side) {
                    *slot = Some(arrival);
                }
            }
        }
        for (number, sides) in by_number {
            let mut operation = Operation::new(Key::Transfer { group, from, to, number }, 2);
            operation.uncertain = !two && !common;
            for (rank, arrival) in [from, to].into_iter().zip(sides) {
                match (arrival, self.job.position(rank)) {
                    (Some(arrival), _) => operation.arrived.push(arrival),
                    (None, None) => operation.unheard.push(rank),
                    (None, Some(position)) => {
                        // Numbers of a larger group's ranks do not compare.
                        let known = two || common;
                        match if known { self.elsewhere(position, operation.key) } else { Elsewhere::Absent }
                        {
                            Elsewhere::Absent => operation.absent.push(position),
                            Elsewhere::Done => operation.done.push(position),
                            Elsewhere::Unknown => {}
                        }
                    }
                }
            }
            // A receive that is over had its send; a small send is over without its receive.
            let receive_done = operation.done.first().copied() == self.job.position(to);
            operation.pass(receive_done);
            all.push(operation);
        }
    }

    /// Finds who came with another operation, size or type than most of the others.
    fn compare(&self, operation: &mut Operation) {
        if operation.passed || matches!(operation.key, Key::Transfer { .. }) {
            return;
        }
        let mut said: BTreeMap<Signature, Vec<usize>> = BTreeMap::new();
        for &arrival in &operation.arrived {
            if let Some(call) = call_of(self.job, arrival) {
                said.entry(signature(call)).or_default().push(arrival.rank);
            }
        }
        if said.len() < 2 {
            return;
        }
        let most = said.values().map(Vec::len).max().unwrap_or(0);
        operation.undecided = said.values().filter(|ranks| ranks.len() == most).count() > 1;
        let odd = said.into_values().filter(|ranks| operation.undecided || ranks.len() < most);
        operation.odd = odd.flatten().collect();
        operation.odd.sort_unstable();
    }
}

impl Operation {
    fn new(key: Key, members: usize) -> Self {
        Self {
            key,
            members,
            arrived: Vec::new(),
            done: Vec::new(),
            absent: Vec::new(),
            unheard: Vec::new(),
            odd: Vec::new(),
            undecided: false,
            uncertain: false,
            passed: false,
        }
    }

    /// An operation that nobody leaves before all have come, and that somebody left, lacks nobody.
    fn pass(&mut self, synchronises: bool) {
        if synchronises && !self.done.is_empty() {
            self.passed = true;
            self.absent.clear();
            self.unheard.clear();
        }
    }

    /// Whether somebody is known not to have come, or to have come with something else.
    pub(super) fn lacks(&self) -> bool {
        !self.absent.is_empty() || !self.odd.is_empty()
    }
}

/// What has to be the same on all ranks.
type Signature = (CollectiveOp, StringId, Option<u64>, StringId);

fn signature(call: &Call) -> Signature {
    (call.operation, call.name, call.size, call.datatype)
}

/// What groups of the same description do at the same number: they run the same program.
struct Siblings<'a> {
    said: BTreeMap<(&'a str, u64), BTreeMap<Signature, usize>>,
}

impl<'a> Siblings<'a> {
    fn of(job: &'a Job, all: &[Operation]) -> Self {
        let mut said: BTreeMap<(&str, u64), BTreeMap<Signature, usize>> = BTreeMap::new();
        for Operation { key, .. } in all.iter().filter(|o| o.undecided) {
            if let Some(group) = job.groups.get(key.group()) {
                said.entry((group.description.as_str(), key.number())).or_default();
            }
        }
        for call in job.ranks.iter().flat_map(|log| &log.calls).filter(|call| !call.is_transfer()) {
            let Some(group) = job.groups.get(call.group) else { continue };
            if let Some(said) = said.get_mut(&(group.description.as_str(), call.sequence)) {
                let count = said.entry(signature(call)).or_default();
                *count = count.saturating_add(1);
            }
        }
        Self { said }
    }

    fn decide(&self, job: &Job, operation: &mut Operation) {
        let Some(group) = job.groups.get(operation.key.group()) else { return };
        let Some(said) = self.said.get(&(group.description.as_str(), operation.key.number())) else { return };
        let most = said.values().max().copied().unwrap_or(0);
        let mut usual = said.iter().filter(|(_, count)| **count == most).map(|(signature, _)| *signature);
        let (Some(usual), None) = (usual.next(), usual.next()) else { return };
        let differs = |a: &&Arrival| call_of(job, **a).is_some_and(|call| signature(call) != usual);
        let odd: Vec<usize> = operation.arrived.iter().filter(differs).map(|a| a.rank).collect();
        if odd.len() < operation.arrived.len() {
            operation.odd = odd;
            operation.undecided = false;
        }
    }
}

/// Whether a rank's record tells when devices begin operations.
pub(super) fn tells_starts(log: &RankLog) -> bool {
    log.calls.iter().any(|call| call.state == State::Started)
        || log.progress.values().any(|p| p.started.is_some())
}
