//! GPU time lost to late ranks.

use stallscope_schemas::units::DeviceId;

use super::{device_frame, host};
use crate::capture::Tables;
use crate::folded::Folded;
use crate::ledger::{DeviceLedger, Root, RootLeaf};
use crate::parts::in_proportion;

/// Frames with weights.
type Weighted = Vec<(Vec<String>, u64)>;

/// Time that devices waited for late ranks: who was late, what made it late, and on top who waited for it. Its total is the wait of all
/// ledgers, to the nanosecond. What the host of a late rank did is divided as its excess over the hosts of those that waited.
#[must_use]
pub fn gpu_wait(ledgers: &[DeviceLedger], tables: &Tables) -> Folded {
    let mut folded = Folded::default();
    let frame = |device: DeviceId| {
        let ledger = ledgers.iter().find(|l| l.device == device);
        ledger.map_or_else(|| format!("device {}", device.0), |ledger| device_frame(ledger, tables))
    };
    for ledger in ledgers {
        for (waited, amount) in &ledger.root.waits {
            let Some((&culprit, through)) = waited.via.split_last() else { continue };
            let frames = [format!("{} is late", frame(culprit)), waited.leaf.text().to_owned()];
            let mut top: Vec<String> =
                through.iter().rev().map(|&device| format!("{} waits", frame(device))).collect();
            top.push(format!("{} waits", device_frame(ledger, tables)));
            let late = ledgers.iter().find(|l| l.device == culprit);
            let work = late.filter(|_| waited.leaf == RootLeaf::IdleHost).map(|l| host_work(&l.root, tables));
            match work.filter(|work| !work.is_empty()) {
                Some(work) => {
                    let weights: Vec<u64> = work.iter().map(|(_, weight)| *weight).collect();
                    for ((host, _), ns) in work.iter().zip(in_proportion(amount.ns, &weights)) {
                        folded.add([&frames[..], host, &top].concat(), ns);
                    }
                }
                None => folded.add([&frames[..], &top].concat(), amount.ns),
            }
        }
    }
    folded
}

/// What a late rank's host did, by how much of it was more than usual.
fn host_work(root: &Root, tables: &Tables) -> Weighted {
    let all: Vec<_> = host::launching_frames(&root.held_up, tables).collect();
    let excess = all.iter().map(|(leaf, frames, ns)| {
        let (total, usual) = (root.held_up.root.get(*leaf), root.usual.get(*leaf));
        let more = u128::from(*ns) * u128::from(total.saturating_sub(usual)) / u128::from(total.max(1));
        (frames.clone(), u64::try_from(more).unwrap_or(u64::MAX))
    });
    let excess: Weighted = excess.filter(|(_, weight)| *weight > 0).collect();
    if excess.is_empty() { all.into_iter().map(|(_, frames, ns)| (frames, ns)).collect() } else { excess }
}
