//! Findings about GPUs that others wait for: how much time of the others that cost, and what the late one did meanwhile.

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::cpu::{HeldUp, held_up};
use super::host_work::{UNSEEN, host_work};
use super::rules::rule;
use super::slow_device::clocks;
use super::uneven::{few_steps, uneven};
use super::{Blame, Finding, Found, Link, top_names};
use crate::capture::{Capture, ReadAt, Tables};
use crate::classify::OpClass;
use crate::ledger::device::Tally;
use crate::ledger::{CpuLeaf, CpuSums, DeviceLedger, IdleLeaf, RootLeaf};
use crate::report::text::{duration, percent, short_name};
use crate::report::{device_name, rank_of};

/// A kernel says something about a device if it has this share of its computation, in permille.
const TELLING_PERMILLE: u64 = 10;

/// Kernels are slower alike where the least slow one loses at least this share of what the slowest loses: clocks slow down
/// what computes more than what moves memory.
const ALIKE: f64 = 0.6;

/// A kernel whose time exceeds what the clocks account for by more has more work.
const CLOCKS_DO_NOT_TELL: f64 = 0.05;

/// What to try where a thread of another rank holds the late one up: that one may well be among those that wait.
const HELD_UP_BY_ANOTHER: &str = "look at the thread of the other rank that the last link of the chain names: it holds the late rank up before that can launch";

/// What a device cost the others.
#[derive(Default)]
struct Cost {
    ns: u64,
    by_leaf: BTreeMap<RootLeaf, u64>,
    /// Time by the device that waited.
    waiting: BTreeMap<DeviceId, u64>,
    /// Of that, what was waited because it computed.
    computing: BTreeMap<DeviceId, u64>,
    /// Of this, time that reached them through a third one.
    passed_on_ns: u64,
}

/// All findings about late GPUs, unranked.
pub(crate) fn of_gpus<S: ReadAt>(
    capture: &Capture<S>,
    ledgers: &[DeviceLedger],
    lateness: &BTreeMap<DeviceId, Result<u64, &'static str>>,
) -> Vec<Finding> {
    let mut costs: BTreeMap<DeviceId, Cost> = BTreeMap::new();
    for ledger in ledgers {
        for (waited, amount) in &ledger.root.waits {
            let Some(culprit) = waited.culprit().filter(|&culprit| culprit != ledger.device) else {
                continue;
            };
            let cost = costs.entry(culprit).or_default();
            cost.ns = cost.ns.saturating_add(amount.ns);
            let of_leaf = cost.by_leaf.entry(waited.leaf).or_default();
            *of_leaf = of_leaf.saturating_add(amount.ns);
            let of_device = cost.waiting.entry(ledger.device).or_default();
            *of_device = of_device.saturating_add(amount.ns);
            if waited.leaf == RootLeaf::Compute {
                let computing = cost.computing.entry(ledger.device).or_default();
                *computing = computing.saturating_add(amount.ns);
            }
            if waited.via.len() > 1 {
                cost.passed_on_ns = cost.passed_on_ns.saturating_add(amount.ns);
            }
        }
    }
    let mut out = Vec::new();
    for ledger in ledgers {
        let Some(cost) = costs.get(&ledger.device) else { continue };
        let Some(mut finding) = finding(capture, ledger, ledgers, cost) else { continue };
        let saved_ns = match lateness.get(&ledger.device).copied().unwrap_or(Ok(0)) {
            Ok(ns) => ns,
            Err(why) => {
                let how = "recoverable is how long it alone was missing, not simulated";
                finding.evidence.push_str(&format!("; {how}: {why}"));
                // No rank gains more than it waited.
                ledger.root.ahead_ns.min(cost.waiting.values().max().copied().unwrap_or(0))
            }
        };
        finding.blame.recoverable_ns = Some(saved_ns);
        out.push(finding);
    }
    out
}

/// How a device is called: by its rank where it has one.
pub(super) fn name(device: DeviceId, tables: &Tables) -> String {
    rank_of(device, tables).map_or_else(|| device_name(device, tables), |rank| format!("rank {rank}"))
}

fn finding<S: ReadAt>(
    capture: &Capture<S>,
    late: &DeviceLedger,
    all: &[DeviceLedger],
    cost: &Cost,
) -> Option<Finding> {
    let tables = capture.tables();
    let others: Vec<&DeviceLedger> = all.iter().filter(|l| cost.waiting.contains_key(&l.device)).collect();
    // Devices that have nothing to do with it would make the share of those that wait look small.
    let wall = others.iter().fold(0u64, |sum, l| sum.saturating_add(l.end.since(l.start)));
    let id = device_name(late.device, tables);
    let mut found = Found { id: &id, wall, device: None, out: Vec::new() };
    rule("rank-late").severity(found.share(cost.ns))?;
    let why = reason(capture, late, &others, cost);
    let who = name(late.device, tables);
    let waiting = cost.waiting.len();
    // Where steps are told by the period of an operation, not all devices of a job have the same: most do.
    let a_step =
        |of: &&DeviceLedger| cost.waiting.get(&of.device)?.checked_div(of.whole_steps().count() as u64);
    let mut a_step: Vec<u64> = others.iter().filter_map(a_step).collect();
    a_step.sort_unstable();
    let each = a_step.get(a_step.len() / 2);
    let each = each.map_or_else(String::new, |&ns| format!(" ({} a step each)", duration(ns)));
    let each = few_steps(late, cost.ns).unwrap_or(each);
    let summary = format!(
        "{who} keeps {} waiting for {}{each}: {}",
        if waiting == 1 { "another rank".to_owned() } else { format!("{waiting} ranks") },
        duration(cost.ns),
        why.sentence
    );
    found.add("rank-late", "a late rank", cost.ns, || (summary, evidence(late, cost, &why, wall, tables)));
    let mut finding = found.out.pop()?;
    finding.blame = Blame {
        culprit_ranks: rank_of(late.device, tables).into_iter().collect(),
        chain: chain(late, cost, &why, tables),
        confidence: Some(why.seen_ns as f64 / cost.ns.max(1) as f64),
        recoverable_ns: None,
    };
    finding.advice = why.advice.unwrap_or(finding.advice);
    if why.held_up.as_ref().is_some_and(|held_up| held_up.of_other_rank) {
        finding.advice = HELD_UP_BY_ANOTHER;
    }
    finding.pointer = why.held_up.map(|held_up| held_up.pointer);
    Some(finding)
}

/// Why a device was late.
struct Why {
    /// After the name and a colon.
    sentence: String,
    evidence: String,
    /// Where the rule's advice does not fit.
    advice: Option<&'static str>,
    /// Where its host held it up most of the time.
    held_up: Option<HeldUp>,
    /// Of the time that it cost, how much has a cause that was seen, ns.
    seen_ns: u64,
}

fn reason<S: ReadAt>(
    capture: &Capture<S>,
    late: &DeviceLedger,
    others: &[&DeviceLedger],
    cost: &Cost,
) -> Why {
    let tables = capture.tables();
    let of = |leaf: RootLeaf| cost.by_leaf.get(&leaf).copied().unwrap_or(0);
    let unseen = [RootLeaf::Unseen, RootLeaf::Unknown, RootLeaf::IdleUnknown, RootLeaf::Unsplit].map(of);
    let unseen_ns = unseen.iter().fold(0u64, |sum, ns| sum.saturating_add(*ns));
    // Of its host's part, what no record of a thread covers is not seen either.
    let host = of(RootLeaf::IdleHost);
    let work = &late.root.held_up;
    let traced = Traced::of(late, tables);
    let (unknown, of_ns) = if work.root.total() > 0 {
        let not_followed = late.root.held_up_ns.saturating_sub(work.root.total());
        (not_followed.saturating_add(work.root.get(CpuLeaf::Unknown)), late.root.held_up_ns)
    } else {
        (traced.unseen_ns, traced.all_ns)
    };
    let host_unseen = u128::from(host) * u128::from(unknown) / u128::from(of_ns.max(1));
    let unseen_ns = unseen_ns.saturating_add(u64::try_from(host_unseen).unwrap_or(u64::MAX));
    let seen_ns = cost.ns.saturating_sub(unseen_ns);
    let top = cost.by_leaf.iter().max_by_key(|(_, ns)| **ns).map_or(RootLeaf::Unseen, |(leaf, _)| *leaf);
    let share = format!("{}, {} of that time", top.text(), percent(of(top), cost.ns));
    let mut advice = None;
    let (sentence, evidence, held_up) = match top {
        RootLeaf::IdleHost => {
            let usual = &late.root.usual;
            // What was waited for another thread that computed is not the launching thread's computation.
            let ranked = work.causes.ranked();
            let on_cpu = || ranked.iter().filter(|(c, _)| c.direct == CpuLeaf::Compute);
            let own = on_cpu().fold(0u64, |sum, (_, amount)| sum.saturating_add(amount.ns));
            let computes = own.saturating_sub(late.root.usual_own_ns);
            match held_up(&late.root, tables).filter(|h| h.excess_ns > 0 && h.excess_ns >= computes) {
                Some(held_up) => {
                    let sentence = format!("its launching thread {}", held_up.sentence);
                    let mut evidence = held_up.evidence.clone();
                    evidence.extend(among_others(&work.root, usual, held_up.leaf));
                    (sentence, evidence, Some(held_up))
                }
                None if computes > 0 => {
                    let mut evidence = format!(
                        "the thread was on a CPU for {} more than those of the others",
                        duration(computes)
                    );
                    evidence.extend(among_others(&work.root, usual, CpuLeaf::Compute));
                    let stacks = on_cpu().map(|(cause, amount)| (tables.stack_names(cause.stack), amount.ns));
                    let stacks =
                        stacks.map(|(frames, ns)| (frames.iter().map(|&f| tables.string(f)).collect(), ns));
                    let sentence = match most_in_a_call(stacks, own) {
                        Some(call) => format!("its launching thread computes in {call}()"),
                        None => "its launching thread computes".to_owned(),
                    };
                    (sentence, evidence, None)
                }
                None if work.root.total() > 0 => (
                    "its host launched late".to_owned(),
                    "nothing that its threads did exceeds what those of the others did".to_owned(),
                    None,
                ),
                None => {
                    let (sentence, evidence) = traced.text();
                    (sentence, evidence, None)
                }
            }
        }
        RootLeaf::Compute => {
            let (sentence, evidence, other_advice) = computes(capture, late, others, cost);
            advice = other_advice;
            (sentence, evidence, None)
        }
        RootLeaf::Floor | RootLeaf::Excess | RootLeaf::Uncertain => {
            ("it moves data in another operation".to_owned(), share, None)
        }
        RootLeaf::Memcpy => ("its copies hold it up".to_owned(), share, None),
        RootLeaf::Unseen | RootLeaf::Unknown | RootLeaf::Unsplit | RootLeaf::IdleUnknown => {
            ("what it does is not seen".to_owned(), share, None)
        }
        leaf => (format!("it is {}", leaf.text()), share, None),
    };
    Why { sentence, evidence, advice, held_up, seen_ns }
}

/// Share of what a host did longer than the others' from which on the cause that is named is the cause, in percent.
const THE_CAUSE_PERCENT: u64 = 60;

/// How much of what a host did longer than the others' the cause is that is named, where there is more of another kind.
fn among_others(work: &CpuSums, usual: &CpuSums, named: CpuLeaf) -> Option<String> {
    let excess_ns = |leaf: CpuLeaf| work.get(leaf).saturating_sub(usual.get(leaf));
    let all = CpuLeaf::ALL.iter().fold(0u64, |sum, &leaf| sum.saturating_add(excess_ns(leaf)));
    if u128::from(excess_ns(named)) * 100 >= u128::from(all) * u128::from(THE_CAUSE_PERCENT) {
        return None;
    }
    let others = CpuLeaf::ALL.iter().copied().filter(|&leaf| leaf != named);
    let next = others.max_by_key(|&leaf| excess_ns(leaf))?;
    let [of_named, of_next] = [named, next].map(|leaf| percent(excess_ns(leaf), all));
    Some(format!(
        "; that is {of_named} of what its host did longer than those of the others, {} is {of_next}",
        next.text()
    ))
}

/// The system call in which a thread spent more than half of its time on a CPU, by the stacks of its samples.
fn most_in_a_call<'a>(stacks: impl Iterator<Item = (Vec<&'a str>, u64)>, all_ns: u64) -> Option<&'a str> {
    let mut by_call: BTreeMap<&str, u64> = BTreeMap::new();
    for (frames, ns) in stacks {
        if let Some(call) = frames.into_iter().find_map(call_of_frame) {
            let sum = by_call.entry(call).or_default();
            *sum = sum.saturating_add(ns);
        }
    }
    let (call, ns) = by_call.into_iter().max_by_key(|(_, ns)| *ns)?;
    (ns.saturating_mul(2) > all_ns).then_some(call)
}

/// The system call whose entry into the kernel a frame is: `__x64_sys_fsync [kernel]`.
fn call_of_frame(frame: &str) -> Option<&str> {
    let name = frame.strip_suffix(" [kernel]")?;
    name.strip_prefix("__x64_sys_").or_else(|| name.strip_prefix("__arm64_sys_"))
}

/// What a trace shows of a device's host in all of its idle time: no thread was followed.
struct Traced {
    /// What it was busy with most, and for how long, ns.
    most: Option<(&'static str, u64)>,
    unseen_ns: u64,
    all_ns: u64,
}

impl Traced {
    fn of(late: &DeviceLedger, tables: &Tables) -> Self {
        let mut by_what: BTreeMap<&'static str, u64> = BTreeMap::new();
        let (mut unseen_ns, mut all_ns) = (0u64, 0u64);
        for (cause, amount) in late.causes.ranked().iter().filter(|(c, _)| c.leaf == IdleLeaf::Host) {
            let ids = late.tree.names(cause.node);
            let names: Vec<&str> = ids.iter().map(|&n| tables.string(n)).collect();
            all_ns = all_ns.saturating_add(amount.ns);
            let work = host_work(&names).0;
            if work == UNSEEN {
                unseen_ns = unseen_ns.saturating_add(amount.ns);
            } else {
                let sum = by_what.entry(work.what).or_default();
                *sum = sum.saturating_add(amount.ns);
            }
        }
        let most = by_what.into_iter().max_by_key(|(_, ns)| *ns).filter(|(_, ns)| *ns > unseen_ns);
        Self { most, unseen_ns, all_ns }
    }

    fn text(&self) -> (String, String) {
        match self.most {
            Some((what, ns)) => {
                let evidence =
                    format!("{} in {} of its host's idle time", duration(ns), duration(self.all_ns));
                (format!("its host is busy with {what}"), evidence)
            }
            None => (
                "its host launched nothing, and what it did is not seen".to_owned(),
                "no thread of it was followed, and no stack is in the capture then".to_owned(),
            ),
        }
    }
}

/// Why a device's computation makes it late, and other advice than the rule's: against the same kernels on the others.
fn computes<S: ReadAt>(
    capture: &Capture<S>,
    late: &DeviceLedger,
    others: &[&DeviceLedger],
    cost: &Cost,
) -> (String, String, Option<&'static str>) {
    let longer = longer_kernels(capture.tables(), late, others);
    let waited = cost.computing.iter().max_by_key(|(device, ns)| (**ns, std::cmp::Reverse(**device)));
    let waited = waited.and_then(|(device, ns)| Some((*others.iter().find(|l| l.device == *device)?, *ns)));
    if let Some((sentence, evidence, advice)) =
        waited.and_then(|(waiting, ns)| uneven(late, waiting, ns, &longer, capture.tables()))
    {
        return (sentence, evidence, advice);
    }
    let (sentence, evidence) = longer_always(capture, late, others, &longer);
    (sentence, evidence, None)
}

/// How the kernels of a late device differ from those of the others over the whole recording.
pub(super) struct LongerKernels<'a> {
    /// Time of kernels that the others run less often or not at all, ns; less than 0 where they run more.
    pub(super) more: f64,
    /// Time that the kernels which both run take longer, ns.
    pub(super) slower: f64,
    /// What its kernels would take on the others, ns.
    expected: f64,
    /// Kernels with a notable share of its time; the least and the most times as long that one of them takes.
    telling: u32,
    least: f64,
    most: (f64, &'a str),
}

fn longer_kernels<'a>(
    tables: &'a Tables,
    late: &DeviceLedger,
    others: &[&DeviceLedger],
) -> LongerKernels<'a> {
    let own = top_names(late, OpClass::Compute);
    let all_ns = own.iter().fold(0u64, |sum, (_, tally)| sum.saturating_add(tally.ns));
    let peers = |name| {
        let tallies = others.iter().filter_map(|l| l.by_name.get(&name)).map(|(_, tally)| *tally);
        tallies.fold(Tally::default(), |sum, t| Tally {
            count: sum.count.saturating_add(t.count),
            ns: sum.ns.saturating_add(t.ns),
            bytes: 0,
        })
    };
    let (mut expected, mut more, mut least, mut most) = (0.0, 0.0, f64::MAX, (0.0, ""));
    let mut telling = 0;
    for (name, tally) in &own {
        let theirs = peers(*name);
        let (count, ns) = (tally.count as f64, tally.ns as f64);
        if theirs.count == 0 || tally.count == 0 {
            more += ns;
            continue;
        }
        let mean = theirs.ns as f64 / theirs.count as f64;
        expected += count * mean;
        let runs_it = others.iter().filter(|l| l.by_name.contains_key(name)).count();
        more += (count - theirs.count as f64 / runs_it.max(1) as f64) * mean;
        let ratio = ns / (count * mean).max(1.0);
        if tally.ns.saturating_mul(1000) >= all_ns.saturating_mul(TELLING_PERMILLE) {
            telling += 1;
            least = f64::min(least, ratio);
            if ratio > most.0 {
                most = (ratio, tables.string(*name));
            }
        }
    }
    let slower = own.iter().map(|(_, t)| t.ns as f64).sum::<f64>() - expected - more.max(0.0);
    LongerKernels { more, slower, expected, telling, least, most }
}

/// The reason where the averages of the whole recording have it.
fn longer_always<S: ReadAt>(
    capture: &Capture<S>,
    late: &DeviceLedger,
    others: &[&DeviceLedger],
    &LongerKernels { more, slower, expected, telling, least, most }: &LongerKernels<'_>,
) -> (String, String) {
    if more > slower && more > 0.0 {
        let evidence =
            format!("{} more than the others on average, in kernels that are more or other", ns(more));
        return ("it has more work".to_owned(), evidence);
    }
    if slower <= 0.0 {
        return ("it computes".to_owned(), "its kernels take no longer than those of the others".to_owned());
    }
    let ratio = 1.0 + slower / expected.max(1.0);
    let clocks = clocks(capture, late, others);
    let said = clocks.said.join("; ");
    let slow = format!("its device is slow: its kernels take {ratio:.2} times as long as on the others");
    // What waits for memory does not slow down with the clock of what computes, so that kernels need not be slower alike.
    if clocks.others_are.is_some_and(|times| most.0 <= times * (1.0 + CLOCKS_DO_NOT_TELL)) {
        return (slow, format!("{} more in all; {said}", ns(slower)));
    }
    if telling < 2 {
        let sentence = format!("its kernels take {ratio:.2} times as long as on the others");
        let one = "one kernel does not tell a slow device from more work";
        return (sentence, format!("{} more in all; {one}; {said}", ns(slower)));
    }
    // Where all kernels are slower alike it is the device; where some are more so, these have more to do.
    if least - 1.0 > (most.0 - 1.0) * ALIKE {
        let alike = format!("every kernel takes at least {least:.2} times as long");
        (slow, format!("{} more in all; {alike}; {said}", ns(slower)))
    } else {
        let sentence = "some of its kernels take longer than on the others: more work".to_owned();
        let kernel = short_name(most.1, 60);
        (sentence, format!("{} more in all; {kernel} takes {:.2} times as long", ns(slower), most.0))
    }
}

/// A time that was worked out, in words.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; negative is 0")]
fn ns(value: f64) -> String {
    duration(value.max(0.0) as u64)
}

fn evidence(late: &DeviceLedger, cost: &Cost, why: &Why, wall: u64, tables: &Tables) -> String {
    let mut waiting: Vec<_> = cost.waiting.iter().collect();
    waiting.sort_by_key(|(_, ns)| std::cmp::Reverse(**ns));
    let each: Vec<String> = waiting
        .iter()
        .take(4)
        .map(|(device, ns)| format!("{} {}", name(**device, tables), duration(**ns)))
        .collect();
    let more = if waiting.len() > 4 { format!(" and {} more", waiting.len() - 4) } else { String::new() };
    let mut text = format!("{} of the others' time: {}{more}", percent(cost.ns, wall), each.join(", "));
    if cost.passed_on_ns > 0 {
        text.push_str(&format!(
            "; {} of it through ranks that waited themselves",
            percent(cost.passed_on_ns, cost.ns)
        ));
    }
    text.push_str(&format!("; meanwhile {}: {}", name(late.device, tables), why.evidence));
    text
}

fn chain(late: &DeviceLedger, cost: &Cost, why: &Why, tables: &Tables) -> Vec<Link> {
    let culprit = rank_of(late.device, tables);
    let most = cost.waiting.iter().max_by_key(|(device, ns)| (**ns, std::cmp::Reverse(**device)));
    let most_ns = most.map_or(0, |(_, ns)| *ns);
    let most = most.map(|(device, _)| *device);
    let of_top = cost.by_leaf.values().copied().max().unwrap_or(0);
    let mut out = vec![
        Link {
            rank: most.and_then(|device| rank_of(device, tables)),
            what: format!("{} waited for {}", plural(cost.waiting.len()), name(late.device, tables)),
            ns: cost.ns,
            ..Link::default()
        },
        Link {
            rank: culprit,
            what: format!("{}: {}", name(late.device, tables), why.sentence),
            ns: why.held_up.as_ref().map_or(of_top.min(most_ns), |held_up| held_up.excess_ns),
            ..Link::default()
        },
    ];
    if let Some(held_up) = &why.held_up {
        // The launching thread is the late rank's own; of others it is what their processes say.
        let own = held_up.links.first().and_then(|link| link.pid);
        let rank = |link: &Link| link.rank.or(culprit.filter(|_| link.pid == own));
        out.extend(held_up.links.iter().map(|link| Link { rank: rank(link), ..link.clone() }));
    }
    out
}

fn plural(ranks: usize) -> String {
    if ranks == 1 { "a rank".to_owned() } else { format!("{ranks} ranks") }
}

#[cfg(test)]
mod tests {
    use super::most_in_a_call;

    #[test]
    fn a_call_is_named_where_most_of_the_time_was_spent_in_it() {
        let fsync = vec![
            "train.py(7): save",
            "__GI_fsync (libc.so.6)",
            "__x64_sys_fsync [kernel]",
            "do_fsync [kernel]",
        ];
        let write = vec!["train.py(6): save", "__arm64_sys_pwrite64 [kernel]"];
        let python = vec!["train.py(5): step"];
        let most = |fsync_ns, write_ns, python_ns| {
            let stacks = [(fsync.clone(), fsync_ns), (write.clone(), write_ns), (python.clone(), python_ns)];
            most_in_a_call(stacks.into_iter(), fsync_ns + write_ns + python_ns)
        };
        assert_eq!(most(60, 10, 20), Some("fsync"));
        assert_eq!(most(10, 60, 20), Some("pwrite64"));
        assert_eq!(most(40, 30, 20), None, "less than half");
        assert_eq!(most(0, 0, 20), None);
    }
}
