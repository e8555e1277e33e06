//! What a dump holds, as nodes of one arena.
//!
//! Values refer to each other by number: a pickle may use one value a thousand times, and may put a list into itself. Memory
//! is bounded by the nodes and by the bytes of the file. Whoever reads the values asks for what is expected where, to a
//! fixed depth; each look at a list or dict counts, so that one that is used a million times ends the reading, not the memory.

use std::borrow::Cow;
use std::cell::Cell;

/// Number of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// Nodes of one file: a dump of 20,000 calls with 20 frames each has half as many.
const MAX_NODES: usize = 8 << 20;

/// Elements that may be looked at: a dump of 200,000 calls takes a tenth of it.
const MAX_WORK: u64 = 1 << 30;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// Floats, integers of more than 64 bits, bytes: nothing that a dump uses.
    Other,
    Text(Cow<'a, str>),
    /// A list or a tuple.
    List(Vec<Id>),
    /// Pairs in their order; of equal keys the last counts.
    Dict(Vec<(Id, Id)>),
}

/// The values of one file.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    nodes: Vec<Node<'a>>,
    work: Cell<u64>,
}

impl<'a> Values<'a> {
    /// Adds a value; `None` where there are too many.
    pub(super) fn push(&mut self, node: Node<'a>) -> Option<Id> {
        if self.nodes.len() >= MAX_NODES {
            return None;
        }
        let id = Id(u32::try_from(self.nodes.len()).ok()?);
        self.nodes.push(node);
        Some(id)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::None)
    }

    pub(super) fn node_mut(&mut self, id: Id) -> Option<&mut Node<'a>> {
        self.nodes.get_mut(id.0 as usize)
    }

    /// Counts elements that are about to be looked at; false where that is too much.
    pub(super) fn spend(&self, elements: usize) -> bool {
        self.work.set(self.work.get().saturating_add(elements as u64));
        !self.is_spent()
    }

    /// Whether more had to be looked at than any dump is worth: what was read is not all.
    pub(super) fn is_spent(&self) -> bool {
        self.work.get() > MAX_WORK
    }

    /// The pairs of a dict; none of anything else.
    pub(super) fn pairs(&self, id: Id) -> &[(Id, Id)] {
        match self.node(id) {
            Node::Dict(pairs) if self.spend(pairs.len()) => pairs,
            _ => &[],
        }
    }

    /// The values of a list or tuple; none of anything else.
    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.node(id) {
            Node::List(items) if self.spend(items.len()) => items,
            _ => &[],
        }
    }

    pub(super) fn is_dict(&self, id: Id) -> bool {
        matches!(self.node(id), Node::Dict(_))
    }

    pub(super) fn is_list(&self, id: Id) -> bool {
        matches!(self.node(id), Node::List(_))
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, also one that is written as text.
    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            Node::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The value of a text key.
    pub(super) fn get(&self, dict: Id, key: &str) -> Option<Id> {
        let found = self.pairs(dict).iter().rev().find(|(k, _)| self.text(*k) == Some(key));
        found.map(|(_, value)| *value)
    }
}
