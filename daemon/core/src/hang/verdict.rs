//! Where waiting ends, and who is to blame there.
//!
//! Rules, in order:
//! 1. A rank that has not come to an operation and that nothing keeps, or that came with something else than most, is to
//!    blame.
//! 2. Where ranks wait for each other in a circle, those are to blame whom most members of a collective are stuck for; then
//!    those that fell silent first; else all of them, if what they wait for is certain.
//! 3. Only where nobody is to blame by these: a rank whose device has not begun what others have, or not ended what others
//!    have left.
//! 4. In a job that was heard for the most part, a rank that was not is to blame if nothing else explains an operation
//!    that it belongs to, and it cannot itself be waiting for one that is to blame. If only such ranks are to blame, so are
//!    the other ones that were not heard: a process that is gone leaves no dump.
//! 5. Beside whoever is to blame: a rank that others have left behind in one operation of a group and in a later one. Nobody
//!    leaves the later one without data of its device, so what has stopped is the rank's own view of it.
//! 6. Else nobody is: all came, and nobody knows why it does not end.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, Node, head, lags};
use super::operations::{Key, Operation, Operations, call_of};
use super::{Call, Job};
use stallscope_schemas::units::TimeNs;

/// Clocks of hosts agree to about this: of two ranks that fell silent closer together, neither was first.
const SAME_MOMENT_NS: u64 = 10_000_000;
/// Steps of a path that are shown.
const PATH: usize = 16;
/// Operations told of where nobody is to blame.
const UNEXPLAINED: usize = 4;

/// What is wrong with the culprits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// They never came to the operation.
    NeverCame,
    /// They wait for each other: each is missing where another one is.
    Circle,
    /// They came with another operation, size or type than the others.
    Differs,
    /// Their devices have not begun it, though others have, or not ended what others have left.
    DeviceStuck,
    /// All came, and their processes ended inside it. Recordings only.
    Ended,
    /// All came, and they are stopped inside it. Recordings only.
    Stopped,
    /// They were not heard, and nobody else is missing.
    Unheard,
    /// All came.
    Unknown,
}

/// One step of a wait-for path.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Who waits.
    pub rank: u32,
    /// The operation.
    pub key: Key,
    /// Its call.
    pub call: Call,
}

/// What a rank is stuck in although the others have left it.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The first such call.
    pub call: Call,
    /// How many such calls follow it in its group.
    pub more: usize,
}

/// One operation that does not end because of somebody.
#[derive(Clone, Debug)]
pub struct Hang {
    /// The operation.
    pub key: Key,
    /// What is wrong.
    pub fault: Fault,
    /// Who is to blame, in ascending order.
    pub culprits: Vec<u32>,
    /// A call that belongs to it: of a rank that is not to blame, where there is one.
    pub call: Call,
    /// Ranks in it that are not to blame, in ascending order.
    pub waiting: Vec<u32>,
    /// Ranks that wait for those, directly or not.
    pub behind: Vec<u32>,
    /// Ranks that belong to it, and how many of them were heard.
    pub members: usize,
    /// How many of them were heard.
    pub heard: usize,
    /// From a rank far away to the operation.
    pub path: Vec<Wait>,
    /// Culprits that are stuck in what the others have left.
    pub lagging: BTreeMap<u32, Lag>,
    /// When the first rank came to it.
    pub since: TimeNs,
}

/// One rank in the wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Blamed {
    rank: u32,
    operation: usize,
    fault: Fault,
}

/// Who is to blame for what does not end. Empty where everything has ended, or is only a moment under way.
#[must_use]
pub fn judge(job: &Job) -> Vec<Hang> {
    let operations = Operations::of(job);
    let graph = Graph::of(job, &operations);
    let judge = Judge { job, operations: &operations, graph: &graph };
    let (mut blamed, loose) = judge.where_waiting_ends();
    if blamed.iter().any(|b| b.fault != Fault::DeviceStuck) {
        blamed.retain(|b| b.fault != Fault::DeviceStuck);
    }
    blamed.extend(judge.unheard(&loose, &blamed));
    blamed.extend(judge.gone(&blamed));
    blamed.extend(judge.left_behind(&blamed));
    let mut hangs = judge.hangs(&blamed);
    if hangs.is_empty() {
        hangs = judge.unexplained(&loose);
    }
    hangs
}

struct Judge<'a> {
    job: &'a Job,
    operations: &'a Operations,
    graph: &'a Graph,
}

impl Judge<'_> {
    fn operation(&self, number: usize) -> Option<&Operation> {
        self.operations.all.get(number)
    }

    fn name(&self, position: usize) -> Option<u32> {
        self.job.ranks.get(position).map(|log| log.rank)
    }

    fn blame(&self, node: Node) -> Option<Blamed> {
        let (rank, operation, fault) = match node {
            Node::Operation(_) => return None,
            Node::Absent { rank, operation } => (rank, operation, Fault::NeverCame),
            Node::Odd { rank, operation } => (rank, operation, Fault::Differs),
            Node::Stuck { rank, operation } => (rank, operation, Fault::DeviceStuck),
        };
        Some(Blamed { rank: self.name(rank)?, operation, fault })
    }

    /// Causes, and operations that lead to none.
    fn where_waiting_ends(&self) -> (Vec<Blamed>, Vec<usize>) {
        let (mut blamed, mut loose) = (Vec::new(), Vec::new());
        for end in self.graph.ends() {
            let nodes: Vec<Node> = end.iter().filter_map(|&n| self.graph.nodes.get(n).copied()).collect();
            if let [Node::Operation(number)] = nodes.as_slice() {
                if self.operation(*number).is_some_and(|o| !o.passed) {
                    loose.push(*number);
                }
            } else if let [node] = nodes.as_slice() {
                blamed.extend(self.blame(*node));
            } else {
                let culprits = self.circle(&end);
                if culprits.is_empty() {
                    let operations = nodes.iter().filter_map(|node| match node {
                        Node::Operation(number) => Some(*number),
                        _ => None,
                    });
                    loose.extend(operations.max_by_key(|&n| (self.heads(n), std::cmp::Reverse(n))));
                }
                blamed.extend(culprits);
            }
        }
        (blamed, loose)
    }

    /// Rule 2.
    fn circle(&self, end: &[usize]) -> Vec<Blamed> {
        let node = |n: usize| self.graph.nodes.get(n).copied();
        // That a device is behind does not show that its host is kept from coming: such steps do not close a circle. Without
        // them those are to blame that somebody is stuck for and nothing keeps.
        let inside: BTreeMap<usize, usize> = end.iter().zip(0..).map(|(&n, i)| (n, i)).collect();
        let is_operation = |n: usize| matches!(node(n), Some(Node::Operation(_)));
        let hard: Vec<Vec<usize>> = end
            .iter()
            .map(|&from| {
                let edges = self.graph.edges.get(from).into_iter().flatten();
                let hard = edges.filter(|&&to| !(is_operation(from) && is_operation(to)));
                hard.filter_map(|to| inside.get(to).copied()).collect()
            })
            .collect();
        let hard = Graph { nodes: end.iter().filter_map(|&n| node(n)).collect(), edges: hard };
        let circles: Vec<Vec<usize>> = hard.ends().into_iter().filter(|c| c.len() > 1).collect();
        if circles.is_empty() {
            let open = |i: &usize| hard.edges.get(*i).is_some_and(|edges| !edges.is_empty());
            let unkept = hard.nodes.iter().zip(&hard.edges).filter(|(_, edges)| !edges.iter().any(open));
            let blamed = unkept.filter_map(|(&node, _)| self.blame(node));
            return blamed.filter(|b| self.heads(b.operation) > 0).collect();
        }
        let of_circle = |circle: &Vec<usize>| {
            let nodes = circle.iter().filter_map(|&i| hard.nodes.get(i).copied());
            self.tie(&nodes.filter_map(|node| self.blame(node)).collect::<Vec<_>>())
        };
        circles.iter().flat_map(of_circle).collect()
    }

    /// Of absences that keep each other, those that are to blame.
    fn tie(&self, absences: &[Blamed]) -> Vec<Blamed> {
        let most_came = |blamed: &&Blamed| {
            let operation = self.operation(blamed.operation);
            operation.is_some_and(|o| {
                let most = o.arrived.len().saturating_mul(2) > o.members;
                matches!(o.key, Key::Collective { .. }) && most && self.heads(blamed.operation) > 0
            })
        };
        let missed: Vec<Blamed> = absences.iter().filter(most_came).copied().collect();
        if !missed.is_empty() {
            return missed;
        }
        // Sends and receives of larger groups are laid side by side, not known by their numbers: too little to blame all.
        let certain = |b: &Blamed| self.operation(b.operation).is_some_and(|o| !o.uncertain);
        if !absences.iter().all(certain) {
            return Vec::new();
        }
        let silent = |b: &&Blamed| {
            let log = self.job.position(b.rank).and_then(|p| self.job.ranks.get(p));
            log.and_then(|log| log.calls.iter().map(|call| call.at).max())
        };
        let mut since: Vec<(Option<TimeNs>, u32)> = absences.iter().map(|b| (silent(&b), b.rank)).collect();
        since.sort_unstable();
        since.dedup();
        if let [(Some(first), rank), (Some(second), other), ..] = since.as_slice()
            && rank != other
            && second.since(*first) > SAME_MOMENT_NS
        {
            return absences.iter().filter(|b| b.rank == *rank).copied().collect();
        }
        absences.iter().map(|b| Blamed { fault: Fault::Circle, ..*b }).collect()
    }

    /// Rule 4.
    fn unheard(&self, loose: &[usize], blamed: &[Blamed]) -> Vec<Blamed> {
        if !self.most_were_heard() {
            return Vec::new();
        }
        let culprits: BTreeSet<usize> = blamed.iter().filter_map(|b| self.job.position(b.rank)).collect();
        // Whoever belongs to an operation that lacks a culprit may be waiting in it.
        let mut may_wait: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (number, operation) in self.operations.all.iter().enumerate() {
            if operation.absent.iter().chain(&operation.odd).any(|rank| culprits.contains(rank)) {
                for &rank in &operation.unheard {
                    may_wait.entry(rank).or_default().insert(number);
                }
            }
        }
        let mut found = Vec::new();
        for &number in loose {
            let unheard = self.operation(number).map_or(&[][..], |o| &o.unheard);
            let excused =
                |rank: &u32| may_wait.get(rank).is_some_and(|all| all.iter().any(|&other| other != number));
            found.extend(unheard.iter().filter(|rank| !excused(rank)).map(|&rank| Blamed {
                rank,
                operation: number,
                fault: Fault::Unheard,
            }));
        }
        found
    }

    /// Where most of a job is missing, that a rank is missing says nothing of it.
    fn most_were_heard(&self) -> bool {
        self.job.unheard().len() <= self.job.ranks.len()
    }

    /// Rule 4, second half.
    fn gone(&self, blamed: &[Blamed]) -> Vec<Blamed> {
        let unheard = self.job.unheard();
        let Some(first) = blamed.first().filter(|_| blamed.iter().all(|b| b.fault == Fault::Unheard)) else {
            return Vec::new();
        };
        let known: BTreeSet<u32> = blamed.iter().map(|b| b.rank).collect();
        let others = unheard.into_iter().filter(|rank| !known.contains(rank));
        others.map(|rank| Blamed { rank, ..*first }).collect()
    }

    /// Rule 5.
    fn left_behind(&self, blamed: &[Blamed]) -> Vec<Blamed> {
        if blamed.is_empty() {
            return Vec::new();
        }
        let known: BTreeSet<u32> = blamed.iter().map(|b| b.rank).collect();
        let behind = |position| {
            let rank = self.name(position).filter(|rank| !known.contains(rank))?;
            let (_, operation) = head(self.operations, position)?;
            self.lag(position).filter(|lag| lag.more > 0)?;
            Some(Blamed { rank, operation, fault: Fault::DeviceStuck })
        };
        (0..self.job.ranks.len()).filter_map(behind).collect()
    }

    /// What a rank has not seen end although the others have left it.
    fn lag(&self, position: usize) -> Option<Lag> {
        let first = lags(self.operations, position)?;
        let open = self.operations.open.get(position)?;
        let mut passed = open.iter().filter_map(|&(_, number)| self.operation(number)).filter(|o| o.passed);
        let lane = passed.next()?.key.lane();
        let more = passed.filter(|operation| operation.key.lane() == lane).count();
        Some(Lag { call: *self.job.ranks.get(position)?.calls.get(first)?, more })
    }

    /// How many ranks are stuck in an operation before anything else.
    fn heads(&self, number: usize) -> usize {
        let arrived = self.operation(number).map_or(&[][..], |o| &o.arrived);
        arrived.iter().filter(|a| self.stuck_in(a.rank).is_some_and(|(_, first)| first == number)).count()
    }

    /// The first operation that a rank is in and that others have not left.
    fn stuck_in(&self, rank: usize) -> Option<(usize, usize)> {
        let open = self.operations.open.get(rank)?;
        let waits = |(_, number): &&(usize, usize)| self.operation(*number).is_some_and(|o| !o.passed);
        open.iter().find(waits).copied()
    }

    /// One hang an operation, told by the one that most ranks are stuck in.
    fn hangs(&self, blamed: &[Blamed]) -> Vec<Hang> {
        let mut by_rank: BTreeMap<u32, Vec<Blamed>> = BTreeMap::new();
        for &blamed in blamed {
            by_rank.entry(blamed.rank).or_default().push(blamed);
        }
        let weight = |b: &Blamed| {
            let arrived = self.operation(b.operation).map_or(0, |o| o.arrived.len());
            (b.fault == Fault::Differs, self.heads(b.operation), arrived, std::cmp::Reverse(b.operation))
        };
        let mut told: BTreeMap<(usize, Fault), Vec<u32>> = BTreeMap::new();
        for of_rank in by_rank.values() {
            if let Some(worst) = of_rank.iter().max_by_key(|b| weight(b)) {
                told.entry((worst.operation, worst.fault)).or_default().push(worst.rank);
            }
        }
        let all: BTreeSet<u32> = by_rank.keys().copied().collect();
        let hang = |((number, fault), culprits)| self.hang(number, fault, culprits, &all);
        let mut hangs: Vec<Hang> = told.into_iter().filter_map(hang).collect();
        hangs.sort_by_key(|h| (std::cmp::Reverse(h.waiting.len().saturating_add(h.behind.len())), h.key));
        hangs
    }

    /// Rule 6.
    fn unexplained(&self, loose: &[usize]) -> Vec<Hang> {
        let mut loose: Vec<usize> = loose.to_vec();
        loose.sort_by_key(|&n| (std::cmp::Reverse(self.heads(n)), n));
        let hang = |&number: &usize| self.hang(number, Fault::Unknown, Vec::new(), &BTreeSet::new());
        loose.iter().take(UNEXPLAINED).filter_map(hang).collect()
    }

    fn hang(&self, number: usize, fault: Fault, culprits: Vec<u32>, all: &BTreeSet<u32>) -> Option<Hang> {
        let operation = self.operation(number)?;
        let calls =
            || operation.arrived.iter().filter_map(|&a| Some((self.name(a.rank)?, *call_of(self.job, a)?)));
        let innocent = calls().find(|(rank, _)| !culprits.contains(rank));
        let (_, call) = innocent.or_else(|| calls().next())?;
        let mut waiting: Vec<u32> = calls().map(|(rank, _)| rank).filter(|r| !all.contains(r)).collect();
        waiting.sort_unstable();
        let mut behind = Vec::new();
        let mut longest = Vec::new();
        for (position, log) in self.job.ranks.iter().enumerate() {
            if all.contains(&log.rank) {
                continue;
            }
            let Some((path, into)) = self.path(position, number, &culprits) else { continue };
            if !waiting.contains(&log.rank) {
                behind.push(log.rank);
            }
            if into && path.len() > longest.len() {
                longest = path;
            }
        }
        let lag = |&rank: &u32| Some((rank, self.lag(self.job.position(rank)?)?));
        Some(Hang {
            lagging: culprits.iter().filter_map(lag).collect(),
            key: operation.key,
            fault,
            culprits,
            call,
            waiting,
            behind,
            members: operation.members,
            heard: operation.members.saturating_sub(operation.unheard.len()),
            path: longest,
            since: calls().map(|(_, call)| call.at).min().unwrap_or(call.at),
        })
    }

    /// What a rank waits for, up to the operation or to a culprit; whether it ends in the operation.
    fn path(&self, from: usize, target: usize, culprits: &[u32]) -> Option<(Vec<Wait>, bool)> {
        let mut path = Vec::new();
        let mut visited = BTreeSet::new();
        let mut rank = from;
        while path.len() < PATH && visited.insert(rank) {
            let (position, number) = self.stuck_in(rank)?;
            let operation = self.operation(number)?;
            let call = *self.job.ranks.get(rank)?.calls.get(position)?;
            path.push(Wait { rank: self.name(rank)?, key: operation.key, call });
            if number == target {
                return Some((path, true));
            }
            let missing = || operation.absent.iter().chain(&operation.odd).copied();
            let unheard = operation.unheard.iter().any(|rank| culprits.contains(rank));
            if unheard || missing().any(|r| self.name(r).is_some_and(|name| culprits.contains(&name))) {
                return Some((path, false));
            }
            let before = |r: &usize| head(self.operations, *r).is_some_and(|(_, first)| first != number);
            let others = operation.arrived.iter().map(|a| a.rank).filter(before);
            let next: Vec<usize> = missing().chain(others).filter(|r| !visited.contains(r)).collect();
            let direct = |r: &&usize| self.stuck_in(**r).is_some_and(|(_, first)| first == target);
            rank = *next.iter().find(direct).or_else(|| next.first())?;
        }
        None
    }
}
