//! Where ranks sit.

use std::collections::{BTreeMap, BTreeSet};

use super::launchers_above;
use super::tree::Tree;
use crate::host::Host;
use crate::identity::{Identity, Source, set_here};
use crate::job::Launcher;
use crate::launcher::{LauncherKind, is_wrapper, launcher};
use crate::mapped::Mapped;
use crate::process::{Process, ProcessId, State};

/// One rank to be.
#[derive(Debug)]
pub(super) struct Seat {
    /// Where its variables are set: the rank's process, or a wrapper around it.
    root: u32,
    /// The rank's process.
    pub(super) main: u32,
    pub(super) identity: Option<Identity>,
    pub(super) launchers: Vec<Launcher>,
    /// Equal for the ranks of a job.
    pub(super) key: String,
}

/// All seats, and what was read to find them.
#[derive(Debug, Default)]
pub(super) struct Seats {
    pub(super) all: Vec<Seat>,
    /// Roots that belong to a seat although they are not below it: `(root, seat)`.
    strays: Vec<(u32, usize)>,
    /// What processes have mapped; none where that could not be read.
    mapped: BTreeMap<u32, Option<Mapped>>,
}

impl Seats {
    pub(super) fn find(host: &Host, tree: &Tree<'_>) -> Self {
        let mut seats = Self::default();
        seats.numbered(host, tree);
        seats.merge(host, tree);
        seats.unnumbered(host, tree);
        // A rank's libraries are told even where it was found without them.
        let mains: Vec<u32> = seats.all.iter().map(|seat| seat.main).collect();
        for main in mains {
            if let Some(process) = host.process(main) {
                seats.weight(host, process);
            }
        }
        seats
    }

    pub(super) fn mapped(&self, pid: u32) -> Option<&Mapped> {
        self.mapped.get(&pid)?.as_ref()
    }

    /// How surely a process computes; 0 for one with nothing mapped that does.
    fn weight(&mut self, host: &Host, process: &Process) -> u32 {
        let mapped = self.mapped.entry(process.id.pid).or_insert_with(|| host.mapped(process));
        mapped.as_ref().map_or(0, Mapped::weight) + if process.gpus.compute() { 4 } else { 0 }
    }

    fn numbered(&mut self, host: &Host, tree: &Tree<'_>) {
        let identities: BTreeMap<u32, Identity> = host
            .processes()
            .filter(|p| p.state != State::Zombie && !host.is_self(p))
            .filter_map(|p| {
                let parent = tree.parent(p).filter(|parent| !host.is_self(parent));
                let parent = parent.and_then(|parent| parent.environment.get());
                Some((p.id.pid, set_here(p.environment.get()?, parent)?))
            })
            .collect();
        for (&root, identity) in &identities {
            let Some(process) = host.process(root) else { continue };
            if launcher(process).is_some() {
                continue;
            }
            let Some(main) = self.main_of(host, tree, process, &identities) else { continue };
            let launchers = launchers_above(host, tree, root);
            let key = key(tree, process, identity, &launchers);
            self.all.push(Seat { root, main, identity: Some(identity.clone()), launchers, key });
        }
    }

    /// The process that does the work of a rank whose variables are set at `root`.
    fn main_of(
        &mut self,
        host: &Host,
        tree: &Tree<'_>,
        root: &Process,
        identities: &BTreeMap<u32, Identity>,
    ) -> Option<u32> {
        let works = !is_wrapper(root);
        if works && (self.weight(host, root) > 0 || tree.children(root.id.pid).is_empty()) {
            return Some(root.id.pid);
        }
        // Another's variables, or a launcher, begin something else.
        let below = tree.descendants_where(root.id.pid, |pid| {
            !identities.contains_key(&pid)
                && host
                    .process(pid)
                    .is_some_and(|p| p.state != State::Zombie && launcher(p).is_none() && !host.is_self(p))
        });
        let mut best = works.then_some((0, root.id.pid));
        for process in below.iter().filter_map(|&pid| host.process(pid)).filter(|p| !is_wrapper(p)) {
            let weight = self.weight(host, process);
            if best.is_none_or(|(most, _)| weight > most) {
                best = Some((weight, process.id.pid));
            }
        }
        best.map(|(_, pid)| pid)
    }

    /// One job has each rank once. A second process with the same number is either a helper that lost its parent, and
    /// then belongs to the first, or, where nothing but the parent names the job, a job of its own.
    fn merge(&mut self, host: &Host, tree: &Tree<'_>) {
        let weights: Vec<u32> = (0..self.all.len())
            .map(|at| host.process(self.all[at].main).map_or(0, |p| self.weight(host, p)))
            .collect();
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|&at| {
            let start = host.process(self.all[at].main).map(|p| p.id.start_ticks);
            (std::cmp::Reverse(weights[at]), start, self.all[at].main)
        });
        let mut first: BTreeMap<(String, u32), usize> = BTreeMap::new();
        let mut dropped: BTreeMap<usize, usize> = BTreeMap::new();
        for at in order {
            let seat = &mut self.all[at];
            let Some(identity) = &seat.identity else { continue };
            match first.get(&(seat.key.clone(), identity.rank)) {
                None => {
                    first.insert((seat.key.clone(), identity.rank), at);
                }
                Some(&kept) => {
                    let (root, main) = (seat.root, seat.main);
                    let kept_root = self.all[kept].root;
                    let below = tree.ancestors(root).any(|p| p.id.pid == kept_root);
                    if self.all[at].identity.as_ref().is_some_and(|i| i.job.is_some()) || below {
                        dropped.insert(at, kept);
                    } else {
                        self.all[at].key.push_str(&format!("|{main}"));
                    }
                }
            }
        }
        let mut new_index = BTreeMap::new();
        let mut kept_seats = Vec::new();
        let mut roots = Vec::new();
        for (at, seat) in std::mem::take(&mut self.all).into_iter().enumerate() {
            if let Some(&kept) = dropped.get(&at) {
                roots.push((seat.root, kept));
            } else {
                new_index.insert(at, kept_seats.len());
                kept_seats.push(seat);
            }
        }
        self.all = kept_seats;
        self.strays =
            roots.into_iter().filter_map(|(root, kept)| Some((root, *new_index.get(&kept)?))).collect();
    }

    fn unnumbered(&mut self, host: &Host, tree: &Tree<'_>) {
        let owners = self.owners();
        let above: BTreeSet<u32> =
            self.all.iter().flat_map(|seat| tree.ancestors(seat.root)).map(|p| p.id.pid).collect();
        let mut working: BTreeSet<u32> = BTreeSet::new();
        let mut tops: Vec<&Process> = Vec::new();
        // Parents before children: below a process that computes, maps need not be read.
        let mut by_age: Vec<&Process> = host.processes().collect();
        by_age.sort_by_key(|p| (p.id.start_ticks, p.id.pid));
        for process in by_age {
            let candidate = (process.is_python() || process.gpus.compute())
                && process.state != State::Zombie
                && !above.contains(&process.id.pid)
                && owner(tree, &owners, process.id.pid).is_none()
                && launcher(process).is_none()
                && !tree.ancestors(process.id.pid).any(|p| working.contains(&p.id.pid));
            if candidate && self.weight(host, process) > 0 {
                working.insert(process.id.pid);
                tops.push(process);
            }
        }
        let on_gpu = |pid: u32| host.process(pid).is_some_and(|p| p.gpus.compute());
        for process in tops {
            let top = process.id.pid;
            // A program that leaves the GPUs to its children has started ranks: torch.multiprocessing.spawn, servers.
            let mut ranks: Vec<u32> = Vec::new();
            if !on_gpu(top) {
                ranks = tree.descendants(top).into_iter().filter(|&pid| on_gpu(pid)).collect();
                let all: BTreeSet<u32> = ranks.iter().copied().collect();
                ranks.retain(|&pid| !tree.ancestors(pid).any(|p| all.contains(&p.id.pid)));
            }
            let started = |main| Seat {
                root: main,
                main,
                identity: None,
                launchers: vec![Launcher { kind: LauncherKind::Python, process: process.id }],
                key: format!("python|{top}.{}", process.id.start_ticks),
            };
            if ranks.is_empty() {
                let key = format!("pid|{top}.{}", process.id.start_ticks);
                self.all.push(Seat { root: top, main: top, identity: None, launchers: Vec::new(), key });
            } else {
                self.all.extend(ranks.into_iter().map(started));
            }
        }
    }

    /// Which seat a process begins.
    fn owners(&self) -> BTreeMap<u32, usize> {
        let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
        for (at, seat) in self.all.iter().enumerate() {
            owners.entry(seat.root).or_insert(at);
            owners.insert(seat.main, at);
        }
        for &(root, at) in &self.strays {
            owners.entry(root).or_insert(at);
        }
        owners
    }

    /// For each seat the processes that belong to it besides its own, by age.
    pub(super) fn helpers(&self, host: &Host, tree: &Tree<'_>) -> Vec<Vec<ProcessId>> {
        let owners = self.owners();
        let mut helpers = vec![Vec::new(); self.all.len()];
        for process in host.processes() {
            if process.state == State::Zombie || process.kernel_thread || host.is_self(process) {
                continue;
            }
            if let Some(at) = owner(tree, &owners, process.id.pid)
                && self.all[at].main != process.id.pid
            {
                helpers[at].push(process.id);
            }
        }
        for list in &mut helpers {
            list.sort_by_key(|id| (id.start_ticks, id.pid));
        }
        helpers
    }
}

/// The nearest seat at or above a process.
fn owner(tree: &Tree<'_>, owners: &BTreeMap<u32, usize>, pid: u32) -> Option<usize> {
    owners.get(&pid).or_else(|| tree.ancestors(pid).find_map(|p| owners.get(&p.id.pid))).copied()
}

/// What the ranks of one job have in common: the name their variables give it, else their launcher, else their parent.
fn key(tree: &Tree<'_>, root: &Process, identity: &Identity, launchers: &[Launcher]) -> String {
    let source = identity.source.name();
    if let Some(job) = &identity.job {
        // Two network namespaces may use the same loopback address and port.
        let place = identity.host_only.then_some(root.namespaces.net).flatten();
        if identity.source != Source::Slurm {
            return format!("{source}|{job:?}|{place:?}");
        }
    }
    if identity.source == Source::Slurm
        && let Some(slurm) = super::slurm_of(root)
    {
        return format!("{source}|{slurm}");
    }
    let above = launchers.first().map(|l| l.process).or_else(|| tree.parent(root).map(|p| p.id));
    match above {
        // The first process adopts orphans: having it as parent is nothing in common.
        Some(above) if above.pid != 1 => format!("{source}|{}.{}", above.pid, above.start_ticks),
        _ => format!("{source}|{}.{}", root.id.pid, root.id.start_ticks),
    }
}
