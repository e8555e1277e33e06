//! GPU time lost to late ranks.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use stallscope_schemas::units::DeviceId;

use super::{device_frame, host};
use crate::capture::Tables;
use crate::folded::Folded;
use crate::ledger::{CpuLeaf, DeviceLedger, Root, RootLeaf};
use crate::parts::in_proportion;

/// Time that devices waited for late ranks: who was late, what made it late, and on top who waited for it. Its total is the wait of all
/// ledgers, to the nanosecond. What the host of a late rank did is divided as its excess over the hosts of those that waited.
#[must_use]
pub fn gpu_wait(ledgers: &[DeviceLedger], tables: &Tables) -> Folded {
    let mut folded = Folded::default();
    let mut late = Late::new(ledgers, tables);
    ledgers.iter().for_each(|ledger| late.waits_of(ledger, &mut folded));
    folded
}

/// Frames of late ranks.
pub(super) struct Late<'a> {
    ledgers: &'a [DeviceLedger],
    tables: &'a Tables,
    /// Of each that was late, what its host did.
    hosts: HashMap<DeviceId, (Vec<Vec<String>>, Vec<u64>)>,
}

impl<'a> Late<'a> {
    pub(super) fn new(ledgers: &'a [DeviceLedger], tables: &'a Tables) -> Self {
        Self { ledgers, tables, hosts: HashMap::new() }
    }

    fn frame(&self, device: DeviceId) -> String {
        let ledger = self.ledgers.iter().find(|l| l.device == device);
        ledger.map_or_else(|| format!("device {}", device.0), |ledger| device_frame(ledger, self.tables))
    }

    /// The causes of a late rank's host as frames, with their weights.
    fn host(&mut self, culprit: DeviceId) -> &(Vec<Vec<String>>, Vec<u64>) {
        self.hosts.entry(culprit).or_insert_with(|| {
            let Some(late) = self.ledgers.iter().find(|l| l.device == culprit) else {
                return Default::default();
            };
            let frames = host::launching_frames(&late.root.held_up, self.tables);
            (frames.map(|(_, frames, _)| frames).collect(), host_weights(&late.root))
        })
    }

    /// Adds what one device waited; it is the last frame itself.
    pub(super) fn waits_of(&mut self, ledger: &DeviceLedger, folded: &mut Folded) {
        for (waited, amount) in &ledger.root.waits {
            let Some((&culprit, through)) = waited.via.split_last() else { continue };
            let frames = [format!("{} is late", self.frame(culprit)), waited.leaf.text().to_owned()];
            let mut top: Vec<String> =
                through.iter().rev().map(|&device| format!("{} waits", self.frame(device))).collect();
            top.push(format!("{} waits", device_frame(ledger, self.tables)));
            let none = (Vec::new(), Vec::new());
            let (host, weights) = if waited.leaf == RootLeaf::IdleHost { self.host(culprit) } else { &none };
            if host.is_empty() {
                folded.add([&frames[..], &top].concat(), amount.ns);
            }
            for (host, ns) in host.iter().zip(in_proportion(amount.ns, weights)).filter(|(_, ns)| *ns > 0) {
                folded.add([&frames[..], host, &top].concat(), ns);
            }
        }
    }
}

/// By what a late rank's host was late: the weight of each of the causes, by how much of it was more than usual.
fn host_weights(root: &Root) -> Vec<u64> {
    let causes = root.held_up.causes.ranked();
    let excess = causes.iter().map(|(cause, amount)| {
        let (total, usual) = (root.held_up.root.get(cause.root), root.usual.get(cause.root));
        let more = u128::from(amount.ns) * u128::from(total.saturating_sub(usual)) / u128::from(total.max(1));
        u64::try_from(more).unwrap_or(u64::MAX)
    });
    let excess: Vec<u64> = excess.collect();
    if excess.iter().any(|ns| *ns > 0) {
        excess
    } else {
        causes.iter().map(|(_, amount)| amount.ns).collect()
    }
}

/// Divides a wait that a late rank's host is to blame for by what its threads did, as [`gpu_wait`] does. Empty where they were not
/// followed.
#[derive(Debug)]
pub(crate) struct LateHost {
    leaves: Vec<CpuLeaf>,
    weights: Vec<u64>,
}

impl LateHost {
    pub(crate) fn of(root: &Root) -> Self {
        let leaves = root.held_up.causes.ranked().into_iter().map(|(cause, _)| cause.root).collect();
        Self { leaves, weights: host_weights(root) }
    }

    /// Time by leaf; sums to `ns` or is empty.
    pub(crate) fn divide(&self, ns: u64) -> BTreeMap<CpuLeaf, u64> {
        let mut by_leaf = BTreeMap::new();
        let parts = self.leaves.iter().zip(in_proportion(ns, &self.weights));
        for (&leaf, ns) in parts.filter(|(_, ns)| *ns > 0) {
            let sum: &mut u64 = by_leaf.entry(leaf).or_default();
            *sum = sum.saturating_add(ns);
        }
        by_leaf
    }
}
