//! Who started whom. Parents are read at different moments than their children, so the links are checked.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::Host;
use crate::process::Process;

/// Deeper than any real chain of parents; ends a walk over links that make a circle.
const DEPTH: usize = 4096;

pub(super) struct Tree<'h> {
    host: &'h Host,
    children: BTreeMap<u32, Vec<u32>>,
}

impl<'h> Tree<'h> {
    pub(super) fn new(host: &'h Host) -> Self {
        let mut tree = Self { host, children: BTreeMap::new() };
        for process in host.processes() {
            if let Some(parent) = tree.parent(process) {
                tree.children.entry(parent.id.pid).or_default().push(process.id.pid);
            }
        }
        tree
    }

    /// The parent. A process younger than its child has only the pid of a parent that is gone.
    pub(super) fn parent(&self, process: &Process) -> Option<&'h Process> {
        let parent = self.host.process(process.ppid)?;
        (parent.id != process.id && parent.id.start_ticks <= process.id.start_ticks).then_some(parent)
    }

    /// Parent, its parent, and so on.
    pub(super) fn ancestors(&self, pid: u32) -> impl Iterator<Item = &'h Process> {
        let first = self.host.process(pid).and_then(|p| self.parent(p));
        std::iter::successors(first, |p| self.parent(p)).take(DEPTH)
    }

    pub(super) fn children(&self, pid: u32) -> &[u32] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// All below, nearest first.
    pub(super) fn descendants(&self, pid: u32) -> Vec<u32> {
        self.descendants_where(pid, |_| true)
    }

    /// All below that are reached through processes for which `enter` holds, nearest first.
    pub(super) fn descendants_where(&self, pid: u32, enter: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut seen = BTreeSet::from([pid]);
        let mut found = Vec::new();
        let mut level = vec![pid];
        while !level.is_empty() {
            let mut next = Vec::new();
            for &child in level.iter().flat_map(|&p| self.children(p)) {
                if enter(child) && seen.insert(child) {
                    next.push(child);
                }
            }
            found.extend_from_slice(&next);
            level = next;
        }
        found
    }
}
