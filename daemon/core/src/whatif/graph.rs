//! A graph of operations of which some wait for others, and when each ends if they last so long.
//!
//! ```text
//! start(n) = max end(m) over all m that n waits for, 0 where it waits for none
//! end(n)   = start(n) + duration(n)
//! ```
//!
//! The graph says who waits for whom and nothing else: durations come with each simulation, so that one graph answers
//! what would be if some of them were different. It knows nothing of where the operations come from.
//!
//! Operations that move data between each other begin together: none moves anything before the last of them is there. A
//! [rendezvous](Builder::together) says that: what one of them waits for, all wait for, and the duration of each counts from
//! there.

use hashbrown::HashMap;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Something that does one operation after the other: a stream of a device, a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(pub u64);

/// Operations that wait for each other in a circle, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<NodeId>);

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Builder {
    nodes: u32,
    /// Who waits, for whom.
    waits: Vec<(NodeId, NodeId)>,
    last: HashMap<Resource, NodeId>,
    /// The rendezvous that an operation takes part in.
    meets: HashMap<NodeId, u32>,
    rendezvous: u32,
}

impl Builder {
    /// A graph of so many operations, of which none waits yet.
    #[must_use]
    pub fn new(nodes: u32) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Has an operation wait for another.
    pub fn wait(&mut self, who: NodeId, for_whom: NodeId) {
        self.waits.push((who, for_whom));
    }

    /// Puts an operation on a resource, after those that were put there before.
    pub fn on(&mut self, resource: Resource, node: NodeId) {
        if let Some(before) = self.last.insert(resource, node) {
            self.wait(node, before);
        }
    }

    /// Has operations begin together. An operation takes part in one rendezvous; of several the last counts.
    pub fn together(&mut self, nodes: &[NodeId]) {
        if nodes.len() > 1 {
            self.meets.extend(nodes.iter().map(|&n| (n, self.rendezvous)));
            self.rendezvous += 1;
        }
    }

    /// Puts the operations in an order in which none precedes what it waits for.
    ///
    /// # Errors
    /// [`Cycle`] where there is none.
    pub fn build(self) -> Result<Graph, Cycle> {
        let total = self.nodes.saturating_add(self.rendezvous) as usize;
        let entry = |node: NodeId| self.meets.get(&node).map_or(node.index(), |r| (self.nodes + r) as usize);
        let mut edges: Vec<(usize, usize)> = self
            .waits
            .iter()
            .filter(|(who, for_whom)| who.0 < self.nodes && for_whom.0 < self.nodes)
            .map(|&(who, for_whom)| (entry(who), for_whom.index()))
            .collect();
        edges.extend(self.meets.keys().filter(|n| n.0 < self.nodes).map(|&n| (n.index(), entry(n))));
        edges.sort_unstable();
        edges.dedup();
        order(total, &edges)
            .map(|(order, before)| Graph { nodes: self.nodes as usize, order, before })
            .map_err(|circle| {
                let nodes = circle.into_iter().filter(|&n| n < self.nodes as usize);
                Cycle(nodes.filter_map(|n| u32::try_from(n).ok()).map(NodeId).collect())
            })
    }
}

/// Positions of operations in the order of simulation, and of what each waits for.
type Ordered = (Vec<usize>, Vec<Vec<usize>>);

/// Kahn's algorithm. An edge is who waits, for whom. The error is a circle.
fn order(total: usize, edges: &[(usize, usize)]) -> Result<Ordered, Vec<usize>> {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); total];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); total];
    for &(who, for_whom) in edges {
        if let (Some(b), Some(a)) = (before.get_mut(who), after.get_mut(for_whom)) {
            b.push(for_whom);
            a.push(who);
        }
    }
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..total).filter(|&n| open.get(n) == Some(&0)).collect();
    let mut at = 0;
    while let Some(&node) = order.get(at) {
        at += 1;
        for &next in after.get(node).into_iter().flatten() {
            if let Some(left) = open.get_mut(next) {
                *left -= 1;
                if *left == 0 {
                    order.push(next);
                }
            }
        }
    }
    if order.len() == total { Ok((order, before)) } else { Err(circle(&before, &open)) }
}

/// A circle among the nodes that still wait: each of them waits for another such node, so a walk comes back.
fn circle(before: &[Vec<usize>], open: &[usize]) -> Vec<usize> {
    let waits = |&n: &usize| open.get(n).is_some_and(|&left| left > 0);
    let mut walk: Vec<usize> = (0..open.len()).find(|n| waits(n)).into_iter().collect();
    let mut seen_at = vec![None; open.len()];
    while let Some(&node) = walk.last() {
        match seen_at.get_mut(node) {
            Some(&mut Some(first)) => {
                walk.pop();
                let mut circle = walk.split_off(first);
                circle.reverse();
                return circle;
            }
            Some(seen) => *seen = Some(walk.len() - 1),
            None => break,
        }
        match before.get(node).into_iter().flatten().find(|n| waits(n)) {
            Some(&next) => walk.push(next),
            None => break,
        }
    }
    walk
}

/// Operations in an order in which they can be simulated.
#[derive(Debug)]
pub struct Graph {
    nodes: usize,
    /// Operations and rendezvous, whose numbers follow those of the operations.
    order: Vec<usize>,
    before: Vec<Vec<usize>>,
}

impl Graph {
    /// Simulates, and says when the last operation ends; the first one begins at 0. A duration may be negative where the
    /// clocks of two ranks disagree: errors then cancel out. `ends` is overwritten with the end of each operation.
    pub fn simulate(&self, duration: impl Fn(NodeId) -> i64, ends: &mut Vec<i64>) -> i64 {
        ends.clear();
        ends.resize(self.before.len(), 0);
        let mut last = 0;
        for &node in &self.order {
            let waits_for = self.before.get(node).map_or(&[][..], Vec::as_slice);
            let ready = waits_for.iter().filter_map(|&n| ends.get(n).copied()).max().unwrap_or(0);
            let id = u32::try_from(node).ok().filter(|_| node < self.nodes).map(NodeId);
            let end = ready.saturating_add(id.map_or(0, &duration));
            if let Some(slot) = ends.get_mut(node) {
                *slot = end;
            }
            last = last.max(end);
        }
        ends.truncate(self.nodes);
        last
    }
}

#[cfg(test)]
mod tests {
    use super::{Builder, Cycle, NodeId, Resource};

    const N: [NodeId; 6] = [NodeId(0), NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5)];

    fn ends(builder: Builder, durations: &[i64]) -> Vec<i64> {
        let mut ends = Vec::new();
        builder.build().unwrap().simulate(|n| durations[n.index()], &mut ends);
        ends
    }

    #[test]
    fn an_operation_begins_when_all_that_it_waits_for_has_ended() {
        let mut graph = Builder::new(4);
        graph.wait(N[2], N[0]);
        graph.wait(N[2], N[1]);
        graph.wait(N[3], N[2]);
        assert_eq!(ends(graph, &[10, 30, 5, 1]), [10, 30, 35, 36]);
    }

    #[test]
    fn a_resource_does_one_thing_after_the_other() {
        let mut graph = Builder::new(4);
        for node in [N[3], N[1]] {
            graph.on(Resource(7), node);
        }
        graph.on(Resource(8), N[0]);
        assert_eq!(ends(graph, &[1, 2, 3, 4]), [1, 6, 3, 4]);
    }

    #[test]
    fn those_who_meet_count_from_the_last_to_come() {
        let mut graph = Builder::new(4);
        graph.wait(N[2], N[0]);
        graph.wait(N[3], N[1]);
        graph.together(&[N[2], N[3]]);
        assert_eq!(ends(graph, &[10, 30, 5, 6]), [10, 30, 35, 36]);
    }

    #[test]
    fn a_circle_is_named_in_the_order_of_waiting() {
        let mut graph = Builder::new(6);
        graph.wait(N[0], N[1]);
        for (who, for_whom) in [(1, 3), (3, 5), (5, 1)] {
            graph.wait(N[who], N[for_whom]);
        }
        let Err(Cycle(circle)) = graph.build() else { panic!("a circle has no order") };
        let at = circle.iter().position(|&n| n == N[1]).unwrap();
        let turned: Vec<u32> = circle[at..].iter().chain(&circle[..at]).map(|n| n.0).collect();
        assert_eq!(turned, [1, 5, 3], "each is waited for by the next");
        // Two that meet cannot wait for each other.
        let mut graph = Builder::new(2);
        graph.wait(N[1], N[0]);
        graph.together(&[N[0], N[1]]);
        assert!(graph.build().is_err());
    }

    #[test]
    fn nothing_takes_no_time_and_numbers_without_an_operation_are_passed_over() {
        assert_eq!(Builder::new(0).build().unwrap().simulate(|_| 1, &mut Vec::new()), 0);
        let mut graph = Builder::new(1);
        graph.wait(N[0], N[5]);
        assert_eq!(ends(graph, &[4]), [4]);
    }
}
