//! Who waits for what: operations, what each of them lacks, and what keeps those that are lacking.
//!
//! An operation leads to the ranks that have not come to it. Such an absence leads to the operations that its rank is stuck
//! in, with one exception: an operation that others were waiting in as well when they went on, or its like in a group of
//! the same description, kept nobody from going on; and an operation that others have left keeps nobody. An operation to which all have come leads to what its members are
//! stuck in from before: devices work in order. An absence that leads nowhere is a cause.

use std::collections::BTreeMap;

use stallscope_schemas::record::CollectiveOp;

use super::operations::{Arrival, Operation, Operations, call_of, tells_starts};
use super::{Call, Job, State};

/// Open operations of an absent rank that are looked at for what keeps it.
const KEEPING: usize = 64;

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// An operation, by its number.
    Operation(usize),
    /// A rank, by its position, that has not come to an operation.
    Absent { rank: usize, operation: usize },
    /// A rank that came with something else than most.
    Odd { rank: usize, operation: usize },
    /// A rank whose device has not begun what others have, or not ended what others have left.
    Stuck { rank: usize, operation: usize },
}

/// Nodes and whom they wait for.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Vec<usize>>,
}

/// What calls of ranks that run the same program have in common: description of the group, what it does, its number.
type Like<'a> = (&'a str, CollectiveOp, u64);

/// Builds the graph.
struct Builder<'a> {
    job: &'a Job,
    operations: &'a Operations,
    /// Of each rank, its open calls by what they are like, with their positions.
    open: Vec<BTreeMap<Like<'a>, usize>>,
    numbers: BTreeMap<Node, usize>,
    graph: Graph,
}

impl Graph {
    pub(super) fn of(job: &Job, operations: &Operations) -> Self {
        let open = operations.open.iter().zip(&job.ranks).map(|(open, log)| {
            let mut of_rank = BTreeMap::new();
            for &(position, _) in open {
                if let Some(like) = log.calls.get(position).and_then(|call| like(job, call)) {
                    of_rank.entry(like).or_insert(position);
                }
            }
            of_rank
        });
        let graph = Self { nodes: Vec::new(), edges: Vec::new() };
        let open = open.collect();
        let mut builder = Builder { job, operations, open, numbers: BTreeMap::new(), graph };
        builder.build();
        builder.graph
    }

    /// Sets of nodes that reach each other and nothing else: where waiting ends.
    pub(super) fn ends(&self) -> Vec<Vec<usize>> {
        let components = components(&self.edges);
        let mut of_node = vec![0; self.edges.len()];
        for (number, component) in components.iter().enumerate() {
            for &node in component {
                if let Some(slot) = of_node.get_mut(node) {
                    *slot = number;
                }
            }
        }
        let leaves = |number: usize, component: &[usize]| {
            component.iter().all(|&node| {
                let mut next = self.edges.get(node).into_iter().flatten();
                next.all(|&to| of_node.get(to).copied() == Some(number))
            })
        };
        let numbered = components.iter().enumerate();
        numbered.filter(|(number, c)| leaves(*number, c)).map(|(_, c)| c.clone()).collect()
    }
}

fn like<'a>(job: &'a Job, call: &Call) -> Option<Like<'a>> {
    let group = job.groups.get(call.group)?;
    let name = if group.description.is_empty() { &group.name } else { &group.description };
    Some((name.as_str(), call.operation, call.sequence))
}

/// The first operation that a rank is in.
pub(super) fn head(operations: &Operations, rank: usize) -> Option<(usize, usize)> {
    operations.open.get(rank)?.first().copied()
}

/// The call that a rank is stuck in although others have left the operation, which nobody does before all have come.
pub(super) fn lags(operations: &Operations, rank: usize) -> Option<usize> {
    let (position, first) = head(operations, rank)?;
    operations.all.get(first).is_some_and(|o| o.passed).then_some(position)
}

impl<'a> Builder<'a> {
    fn number(&mut self, node: Node) -> usize {
        let next = self.graph.nodes.len();
        let number = *self.numbers.entry(node).or_insert(next);
        if number == next {
            self.graph.nodes.push(node);
            self.graph.edges.push(Vec::new());
        }
        number
    }

    fn add(&mut self, from: usize, to: Node) {
        let to = self.number(to);
        if let Some(edges) = self.graph.edges.get_mut(from) {
            edges.push(to);
        }
    }

    fn build(&mut self) {
        let operations = self.operations;
        for number in 0..operations.all.len() {
            self.number(Node::Operation(number));
        }
        // A rank that has not come to one operation of a group has not come to the later ones either.
        let mut first = BTreeMap::new();
        let mut order: Vec<usize> = (0..operations.all.len()).collect();
        order.sort_by_key(|&n| operations.all.get(n).map(|o| o.key.number()));
        for number in order {
            let Some(operation) = operations.all.get(number) else { continue };
            for &rank in &operation.absent {
                let operation = *first.entry((rank, operation.key.lane())).or_insert(number);
                self.add(number, Node::Absent { rank, operation });
            }
            for &rank in &operation.odd {
                self.add(number, Node::Odd { rank, operation: number });
            }
            if !operation.lacks() && !operation.passed {
                self.behind(number, operation);
            }
        }
        for ((rank, _), operation) in first {
            self.kept(rank, operation);
        }
    }

    /// All that could be asked have come: members are stuck in something from before, or their devices are.
    fn behind(&mut self, number: usize, operation: &Operation) {
        let mut any = false;
        for arrival in &operation.arrived {
            let Some((position, before)) = head(self.operations, arrival.rank) else { continue };
            if position >= arrival.call || before == number {
                continue;
            }
            any = true;
            let passed = self.operations.all.get(before).is_some_and(|o| o.passed);
            let node = if passed {
                Node::Stuck { rank: arrival.rank, operation: before }
            } else {
                Node::Operation(before)
            };
            self.add(number, node);
        }
        if !any && operation.unheard.is_empty() {
            self.unbegun(number, operation);
        }
    }

    /// Devices of some members have begun, those of others have not, and nothing else keeps them.
    fn unbegun(&mut self, number: usize, operation: &Operation) {
        let state = |a: &Arrival| call_of(self.job, *a).map(|call| call.state);
        if !operation.arrived.iter().any(|a| state(a) == Some(State::Started)) {
            return;
        }
        let waiting = |a: &&Arrival| {
            state(a) == Some(State::Scheduled) && self.job.ranks.get(a.rank).is_some_and(tells_starts)
        };
        let ranks: Vec<usize> = operation.arrived.iter().filter(waiting).map(|a| a.rank).collect();
        for rank in ranks {
            self.add(number, Node::Stuck { rank, operation: number });
        }
    }

    /// What keeps a rank from coming to an operation.
    fn kept(&mut self, rank: usize, operation: usize) {
        let from = self.number(Node::Absent { rank, operation });
        let (Some(missed), Some(open), Some(log)) =
            (self.operations.all.get(operation), self.operations.open.get(rank), self.job.ranks.get(rank))
        else {
            return;
        };
        // What others have left cannot be waiting for anybody: a rank that is still in it has a device that is stuck.
        if lags(self.operations, rank).is_some() {
            return;
        }
        for &(position, stuck) in open.iter().take(KEEPING) {
            let passed = self.operations.all.get(stuck).is_none_or(|o| o.passed);
            let like = log.calls.get(position).and_then(|call| like(self.job, call));
            if !passed && !like.is_some_and(|like| self.went_on(missed, like)) {
                self.add(from, Node::Operation(stuck));
            }
        }
    }

    /// Whether somebody came to an operation while such a call of its own was open.
    fn went_on(&self, operation: &Operation, like: Like<'_>) -> bool {
        operation.arrived.iter().any(|arrival| {
            let open = self.open.get(arrival.rank).and_then(|open| open.get(&like));
            open.is_some_and(|&position| position < arrival.call)
        })
    }
}

/// Strongly connected components, by Tarjan's algorithm with a stack of its own.
pub(super) fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let count = edges.len();
    let (mut index, mut low) = (vec![UNSEEN; count], vec![UNSEEN; count]);
    let mut on_stack = vec![false; count];
    let (mut stack, mut found) = (Vec::new(), Vec::new());
    let mut next = 0;
    let get = |of: &[usize], node: usize| of.get(node).copied().unwrap_or(UNSEEN);
    let lower = |low: &mut [usize], node: usize, value: usize| {
        if let Some(slot) = low.get_mut(node) {
            *slot = value.min(*slot);
        }
    };
    for root in 0..count {
        if get(&index, root) != UNSEEN {
            continue;
        }
        let mut walk = vec![(root, 0usize)];
        while let Some((node, edge)) = walk.pop() {
            if edge == 0 {
                for of in [&mut index, &mut low] {
                    if let Some(slot) = of.get_mut(node) {
                        *slot = next;
                    }
                }
                next += 1;
                stack.push(node);
                if let Some(slot) = on_stack.get_mut(node) {
                    *slot = true;
                }
            }
            if let Some(&to) = edges.get(node).and_then(|of_node| of_node.get(edge)) {
                walk.push((node, edge + 1));
                if get(&index, to) == UNSEEN {
                    walk.push((to, 0));
                } else if on_stack.get(to).copied().unwrap_or(false) {
                    lower(&mut low, node, get(&index, to));
                }
                continue;
            }
            if let Some(&(above, _)) = walk.last() {
                let of_node = get(&low, node);
                lower(&mut low, above, of_node);
            }
            if get(&low, node) == get(&index, node) {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    if let Some(slot) = on_stack.get_mut(member) {
                        *slot = false;
                    }
                    component.push(member);
                    if member == node {
                        break;
                    }
                }
                found.push(component);
            }
        }
    }
    found
}
