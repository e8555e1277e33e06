//! Where a late GPU is late at times only: its work is uneven from step to step, or few steps have nearly all of it.
//!
//! Averages over the whole recording are level then, or hide it, and what is said of them would mislead.

use super::late::{LongerKernels, name};
use super::top_names;
use crate::capture::Tables;
use crate::classify::OpClass;
use crate::ledger::{DeviceLedger, Leaf};
use crate::report::text::duration;

/// What the whole recording shows is the reason from this share of what was waited on, in percent: below it most of the waiting
/// comes from something else.
const EXPLAINS_PERCENT: i128 = 50;

/// Where fewer than one of so many steps have more than half of what was waited, "a step" says nothing of any step.
const ONE_STEP_OF: usize = 10;

/// What helps ranks that compute longer by turns.
const BALANCE: &str = "balance the work of each step between ranks: batches of like length on all ranks (bucket by sequence length), like loads of experts; steps of this rank with much in charged_ns (report --json) are those to look at";

/// What is to be said of a late device whose kernels, over the whole recording, do not explain the time `waited_ns` that the
/// one which waited most for its computing waited for that: a sentence, the evidence, and other advice. None where they do.
///
/// That time is by how much the late one computed longer in the times before collectives. Where it has not computed that much
/// longer in all, the other has computed longer at other times.
pub(super) fn uneven(
    late: &DeviceLedger,
    waiting: &DeviceLedger,
    waited_ns: u64,
    longer: &LongerKernels<'_>,
    tables: &Tables,
) -> Option<(String, String, Option<&'static str>)> {
    let difference = |own: u64, other: u64| i128::from(own) - i128::from(other);
    let kernels = difference(kernels_ns(late), kernels_ns(waiting));
    let explains = |ns: i128| ns * 100 >= i128::from(waited_ns) * EXPLAINS_PERCENT;
    // Kernels of other names may do the same: they are more work only as far as all kernels take longer.
    let by_names = if longer.more > longer.slower {
        whole(longer.more).min(kernels)
    } else {
        whole(longer.slower.max(0.0) + longer.more.max(0.0))
    };
    if explains(by_names) {
        return None;
    }
    let who = name(waiting.device, tables);
    let waited = format!("{who} waited {} for its computing", duration(waited_ns));
    let taken = match u64::try_from(kernels) {
        Ok(ns) if ns > 0 => format!("only {} longer than those of {who}", duration(ns)),
        _ => format!("no longer than those of {who}"),
    };
    let [own_ns, other_ns] = [late, waiting].map(|ledger| ledger.sums.get(Leaf::Compute));
    if explains(difference(own_ns, other_ns)) {
        // Kernels that run one after the other in place of side by side, for one.
        let in_all = duration(own_ns.saturating_sub(other_ns));
        let evidence = format!("{waited}; it computes {in_all} longer in all, but its kernels take {taken}");
        return Some(("it computes longer".to_owned(), evidence, None));
    }
    let sentence = "it computes longer at times, others at other times: the work is uneven".to_owned();
    let evidence = format!("{waited}, but over the whole recording its kernels take {taken}");
    Some((sentence, evidence, Some(BALANCE)))
}

/// Time of all kernels that compute, ns.
fn kernels_ns(ledger: &DeviceLedger) -> u64 {
    top_names(ledger, OpClass::Compute).iter().fold(0, |sum, (_, tally)| sum.saturating_add(tally.ns))
}

#[allow(clippy::cast_possible_truncation, reason = "saturates")]
fn whole(ns: f64) -> i128 {
    ns as i128
}

/// In how few steps the late device came so late that others waited more than half of `ns`, in words. None where it is late in
/// many.
pub(super) fn few_steps(late: &DeviceLedger, ns: u64) -> Option<String> {
    let mut charged: Vec<u64> = late.whole_steps().map(|(_, step)| step.charged_ns).collect();
    let steps = charged.len();
    charged.sort_unstable_by_key(|&ns| std::cmp::Reverse(ns));
    let mut sum = 0u64;
    // Exactly one of ten is not few.
    let few = steps.saturating_sub(1) / ONE_STEP_OF;
    let most = charged.into_iter().take(few).position(|charged| {
        sum = sum.saturating_add(charged);
        sum > ns / 2
    })?;
    Some(format!(", {} of it in {} of {steps} steps", duration(sum), most + 1))
}
