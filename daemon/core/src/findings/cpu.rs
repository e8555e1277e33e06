//! Findings of a rank on CPUs: what its time is charged to, by rule, with the largest single cause as evidence. The same of
//! the thread that a GPU waits for.
//!
//! A rank that waits in a collective may do so by yielding: it is runnable, and others run, for as long as its peers are
//! not there. That is no want of CPUs, so run-queue time inside collectives counts as time in collectives.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;
use stallscope_schemas::units::{StackId, StringId, ThreadId};

use super::frames::user_frame;
use super::whose::{other_rank, rank_of_thread};
use super::{Finding, Found, Link, Severity};
use crate::capture::Tables;
use crate::ledger::cpu::calls::Calls;
use crate::ledger::cpu::causes::{CpuAmount, CpuCause, CpuCauses};
use crate::ledger::cpu::idle::HostWork;
use crate::ledger::cpu::io::Io;
use crate::ledger::so_far;
use crate::ledger::{CpuLeaf, CpuLedger, Root};
use crate::report::text::{duration, percent, short_name, times};
use crate::report::{ThreadName, thread_name};
use crate::whatif::Loss;

/// Where a finding about a CPU rank points to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pointer {
    /// The thread to look at.
    pub thread: Option<ThreadName>,
    /// The rank's own thread that lost the time, where it is another.
    pub waiting_thread: Option<ThreadName>,
    /// Who ended the wait, who ended that one's wait, and so on.
    pub wakers: Vec<ThreadName>,
    /// System call or collective.
    pub call: Option<String>,
    /// File, connection or other object of the call.
    pub object: Option<String>,
    /// Place in the code of `thread`.
    pub line: Option<String>,
    /// Place in the code of `waiting_thread`.
    pub waiting_line: Option<String>,
    /// Calls, waits or samples at that place in that call of that object.
    pub count: u64,
    /// Their time, ns.
    pub cause_ns: u64,
}

/// Causes that one rule speaks of.
#[derive(Default)]
struct Group {
    ns: u64,
    longest_ns: u64,
    /// Of this, time that was waited for another thread.
    via_ns: u64,
    parts: HashMap<PartKey, Part>,
    /// By call and object.
    objects: HashMap<(StringId, StringId), u64>,
    /// Time in the run queue and how often, by who ran instead.
    queued: BTreeMap<Option<ThreadId>, (u64, u64)>,
}

/// What a person would call one thing: a line of code that waits in one call for one object, whichever thread is in it.
type PartKey = (Option<String>, StringId, StringId, bool);

/// Causes that are one thing to a person.
struct Part {
    ns: u64,
    count: u64,
    /// The largest of the causes.
    cause: CpuCause,
    /// How many threads were in it.
    threads: HashSet<ThreadId>,
}

impl Group {
    /// The parts, the largest first.
    fn ranked(&self) -> Vec<(&PartKey, &Part)> {
        let mut all: Vec<_> = self.parts.iter().collect();
        all.sort_by_key(|&(key, part)| (std::cmp::Reverse(part.ns), key));
        all
    }

    fn top(&self) -> Option<&Part> {
        self.ranked().first().map(|(_, part)| *part)
    }
}

/// Time of threads by cause, and what else is known of them.
#[derive(Clone, Copy)]
struct Work<'a> {
    causes: &'a CpuCauses,
    calls: Option<&'a Calls>,
    io: Option<&'a Io>,
}

/// Whose time is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loser {
    /// A rank's.
    Rank,
    /// That of a GPU, which waits for its launching thread.
    Gpu,
}

/// Adds time and number of pieces.
fn add(sum: &mut (u64, u64), amount: &CpuAmount) {
    *sum = (sum.0.saturating_add(amount.ns), sum.1.saturating_add(amount.count));
}

/// Whether a cause is time in collectives.
fn is_collective(cause: &CpuCause) -> bool {
    cause.root.is_comm() || (cause.root == CpuLeaf::RunQueue && cause.collective != StringId(0))
}

/// The rule that speaks of a cause.
fn rule_of(cause: &CpuCause) -> Option<&'static str> {
    let waits_for_another = cause.root != cause.direct;
    if is_collective(cause) {
        return Some("rank-collective");
    }
    Some(match cause.root {
        CpuLeaf::Compute if waits_for_another => "rank-other-thread",
        CpuLeaf::Compute | CpuLeaf::Unknown | CpuLeaf::CommOnCpu | CpuLeaf::CommBlocked => return None,
        CpuLeaf::RunQueue => "rank-run-queue",
        CpuLeaf::Throttled => "rank-throttled",
        CpuLeaf::Lock => "rank-lock",
        CpuLeaf::PageFault => "rank-page-fault",
        CpuLeaf::BlockIo => "rank-block-io",
        CpuLeaf::Network => "rank-network",
        CpuLeaf::Ipc => "rank-ipc",
        CpuLeaf::Sleep => "rank-sleep",
        CpuLeaf::Syscall => "rank-syscall",
        CpuLeaf::Stopped => "rank-stopped",
    })
}

/// The rule that speaks of idle time of a GPU where [`rule_of`] has this one for a rank's.
fn idle_rule(rule: &'static str) -> &'static str {
    match rule {
        "rank-other-thread" => "idle-other-thread",
        "rank-collective" => "idle-collective-call",
        "rank-run-queue" => "idle-run-queue",
        "rank-throttled" => "idle-throttled",
        "rank-lock" => "idle-lock",
        "rank-page-fault" => "idle-page-fault",
        "rank-block-io" => "idle-block-io",
        "rank-network" => "idle-network",
        "rank-ipc" => "idle-ipc",
        "rank-sleep" => "idle-sleep",
        "rank-stopped" => "idle-stopped",
        _ => "idle-syscall",
    }
}

fn what_of(rule: &str) -> &'static str {
    match rule {
        "rank-other-thread" => "work of another thread",
        "rank-collective" => "collectives",
        "rank-run-queue" => "the run queue",
        "rank-throttled" => "CPU limits",
        "rank-lock" => "locks",
        "rank-page-fault" => "page faults",
        "rank-block-io" => "blocked I/O",
        "rank-network" => "the network",
        "rank-ipc" => "other processes",
        "rank-sleep" => "sleep",
        "rank-stopped" => "being stopped",
        _ => "system calls",
    }
}

/// All findings of one rank by itself, unranked.
pub(super) fn of_rank(ledger: &CpuLedger, tables: &Tables, found: &mut Found<'_>) {
    let work = Work { causes: &ledger.causes, calls: Some(&ledger.calls), io: Some(&ledger.io) };
    of_work(&work, Loser::Rank, tables, found);
}

/// Makes a mention of a judgement about a rank whose GPU was not seen: calls that wait for a GPU look like any others.
pub(super) fn may_wait_for_a_gpu(finding: &mut Finding) {
    if matches!(finding.rule, "rank-lock" | "rank-sleep" | "rank-syscall" | "rank-ipc") {
        finding.severity = finding.severity.min(Severity::Notice);
        finding.evidence.push_str("; it uses a GPU that was not seen, and may wait for that");
    }
}

/// Findings of a GPU whose launching threads were followed, but for what these computed themselves.
pub(super) fn of_idle(work: &HostWork, tables: &Tables, found: &mut Found<'_>) {
    of_work(&Work { causes: &work.causes, calls: None, io: None }, Loser::Gpu, tables, found);
}

/// Causes by the rule that speaks of them.
fn grouped(work: &Work<'_>, tables: &Tables) -> BTreeMap<&'static str, Group> {
    let mut groups: BTreeMap<&'static str, Group> = BTreeMap::new();
    let mut lines: HashMap<StackId, Option<String>> = HashMap::new();
    for (cause, amount) in work.causes.ranked() {
        let Some(rule) = rule_of(&cause) else { continue };
        let group = groups.entry(rule).or_default();
        group.ns = group.ns.saturating_add(amount.ns);
        group.longest_ns = group.longest_ns.max(amount.longest_ns);
        let via = !work.causes.chains.links(cause.chain).is_empty();
        if via {
            group.via_ns = group.via_ns.saturating_add(amount.ns);
        }
        let line =
            lines.entry(cause.stack).or_insert_with(|| user_frame(cause.stack, tables).map(|p| p.line));
        let part = group.parts.entry((line.clone(), cause.call, cause.object, via)).or_insert_with(|| Part {
            ns: 0,
            count: 0,
            cause,
            threads: HashSet::new(),
        });
        part.ns = part.ns.saturating_add(amount.ns);
        part.count = part.count.saturating_add(amount.count);
        part.threads.insert(blamed(work, &cause));
        if cause.root == CpuLeaf::RunQueue {
            add(group.queued.entry(cause.preemptor).or_default(), &amount);
        }
        let object = group.objects.entry((cause.call, cause.object)).or_default();
        *object = object.saturating_add(amount.ns);
    }
    groups
}

fn of_work(work: &Work<'_>, loser: Loser, tables: &Tables, found: &mut Found<'_>) {
    for (rule, group) in grouped(work, tables) {
        let before = found.out.len();
        let (id, wall) = (found.id, found.wall);
        let named = if loser == Loser::Gpu { idle_rule(rule) } else { rule };
        found.add(named, what_of(rule), group.ns, || {
            let summary = match loser {
                Loser::Rank => summary(rule, work, tables, &group, id, wall),
                Loser::Gpu => idle_summary(rule, work, tables, &group, wall),
            };
            (summary, evidence(rule, work, tables, &group))
        });
        let device = found.device;
        if let Some(finding) = found.out.get_mut(before) {
            finding.pointer = group.top().map(|part| pointer(work, tables, part));
            // What a collective call waits for is not its own.
            let part = group.top().filter(|part| !is_collective(&part.cause));
            let part = part.map(|part| so_far::Part::Host(part.cause.root));
            finding.lost = device.zip(part).map(|(device, part)| Loss { device, part, ns: group.ns });
        }
    }
}

/// The thread at the end of a cause's chain.
fn blamed(work: &Work<'_>, cause: &CpuCause) -> ThreadId {
    work.causes.chains.links(cause.chain).last().map_or(cause.thread, |link| link.thread)
}

/// A thread in words.
pub(super) fn name(thread: ThreadId, tables: &Tables) -> String {
    let thread = thread_name(thread, tables);
    match thread.comm.or(thread.name) {
        Some(name) => format!("{} (tid {})", short_name(&name, 30), thread.tid),
        None => format!("thread {}", thread.tid),
    }
}

/// The same, with its rank where that is another one of the job than that of the thread that waits.
fn name_beside(thread: ThreadId, waiting: ThreadId, tables: &Tables) -> String {
    let rank = other_rank(thread, waiting, tables);
    name(thread, tables) + &rank.map_or_else(String::new, |rank| format!(" of rank {rank}"))
}

/// `read() of /data/shard-0017`, `a page fault`.
fn call_of(cause: &CpuCause, tables: &Tables) -> String {
    let call = tables.string(cause.call);
    let object = tables.string(cause.object);
    let call = if call.is_empty() { cause.root.text().to_owned() } else { format!("{call}()") };
    if object.is_empty() { call } else { format!("{call} of {}", short_name(object, 60)) }
}

/// What a group waits in: one call of one object where that has most of the time, else how much the largest has.
fn objects(group: &Group, tables: &Tables) -> String {
    let Some((&(call, object), &ns)) =
        group.objects.iter().max_by_key(|&(&key, &ns)| (ns, std::cmp::Reverse(key)))
    else {
        return String::new();
    };
    let Some(part) = group
        .ranked()
        .into_iter()
        .map(|(_, part)| part)
        .find(|part| (part.cause.call, part.cause.object) == (call, object))
    else {
        return String::new();
    };
    let named = call_of(&part.cause, tables);
    if ns.saturating_mul(10) >= group.ns.saturating_mul(9) {
        return named;
    }
    let files = group.objects.keys().filter(|(of, object)| *of == call && *object != StringId(0)).count();
    let of_call: u64 = group.objects.iter().filter(|((of, _), _)| *of == call).map(|(_, ns)| *ns).sum();
    if ns.saturating_mul(2) < group.ns
        && files > 1
        && of_call.saturating_mul(10) >= group.ns.saturating_mul(9)
    {
        let folder = tables.string(object).rsplit_once('/').map_or("", |(folder, _)| folder);
        let under =
            if folder.is_empty() { String::new() } else { format!(" under {}", short_name(folder, 50)) };
        return format!("{}() of {files} files{under} and the like", tables.string(call));
    }
    format!("{named} ({} of it) and others", percent(ns, group.ns))
}

/// What a thread does, by the rule that speaks of its time.
fn does(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "rank-run-queue" => "waits for a CPU while others run",
        "rank-throttled" => "may not run: its cgroup's CPU time is used up",
        "rank-stopped" => "is stopped by a signal",
        "rank-page-fault" => "waits in page faults",
        "rank-sleep" => "sleeps",
        "rank-lock" => "waits for locks and conditions",
        "rank-other-thread" => "computes",
        _ => return None,
    })
}

/// Whom most of a group's time was waited for, up to the verb.
fn waited_for(work: &Work<'_>, tables: &Tables, group: &Group) -> Option<String> {
    let part = group.top().filter(|part| is_via(work, &part.cause))?;
    (group.via_ns.saturating_mul(2) > group.ns).then(|| {
        let first = name_beside(blamed(work, &part.cause), part.cause.thread, tables);
        match part.threads.len() {
            0 | 1 => format!("{first}, which"),
            many => format!("{first} and {} more like it: each", many - 1),
        }
    })
}

fn is_via(work: &Work<'_>, cause: &CpuCause) -> bool {
    !work.causes.chains.links(cause.chain).is_empty()
}

/// Why a GPU is idle, in a sentence.
fn idle_summary(rule: &str, work: &Work<'_>, tables: &Tables, group: &Group, wall: u64) -> String {
    let share = percent(group.ns, wall);
    let why = match (does(rule), waited_for(work, tables, group)) {
        (Some(does), Some(who)) => format!("whose launching thread waits for {who} {does}"),
        (Some(does), None) => format!("whose launching thread {does}"),
        (None, _) if rule == "rank-collective" => "whose launching thread is in a collective".to_owned(),
        (None, _) => format!("which waits in {}", objects(group, tables)),
    };
    format!("the device is idle for {share} of the time because of its host, {why}")
}

/// What a host did most while others waited for its device.
pub(super) struct HeldUp {
    /// What its launching thread did, after "its launching thread".
    pub(super) sentence: String,
    /// The same in detail.
    pub(super) evidence: String,
    /// From the launching thread to the one at the end of the chain.
    pub(super) links: Vec<Link>,
    /// Time of it beyond what is usual, ns.
    pub(super) excess_ns: u64,
    /// What that is in the ledger.
    pub(super) leaf: CpuLeaf,
    /// Whether the one at the end of the chain is a thread of another rank of the job.
    pub(super) of_other_rank: bool,
    pub(super) pointer: Pointer,
}

/// What a host did most beyond what is usual, where it did not compute.
pub(super) fn held_up(root: &Root, tables: &Tables) -> Option<HeldUp> {
    let (work, usual) = (&root.held_up, &root.usual);
    let work = Work { causes: &work.causes, calls: None, io: None };
    let groups = grouped(&work, tables);
    let own = work.causes.ranked().into_iter().filter(|(cause, _)| cause.direct == CpuLeaf::Compute);
    let own_ns = own.fold(0u64, |sum, (_, amount)| sum.saturating_add(amount.ns));
    let excess_ns = |group: &Group| {
        let usual = group.top().map_or(0, |part| match part.cause.root {
            CpuLeaf::Compute => usual.get(CpuLeaf::Compute).saturating_sub(root.usual_own_ns),
            root => usual.get(root),
        });
        group.ns.saturating_sub(usual)
    };
    // What else it computes itself decides with what others do for it whether computing is the most; who, comes after.
    let of_its_kind_ns = |group: &Group| match group.top().map(|part| part.cause.root) {
        Some(CpuLeaf::Compute) => group.ns.saturating_add(own_ns).saturating_sub(usual.get(CpuLeaf::Compute)),
        _ => excess_ns(group),
    };
    let (rule, group) = groups.iter().max_by_key(|(_, group)| of_its_kind_ns(group))?;
    let part = group.top()?;
    let sentence = match (does(rule), waited_for(&work, tables, group)) {
        (Some(does), Some(who)) => format!("waits for {who} {does}"),
        (Some(does), None) => does.to_owned(),
        (None, _) if *rule == "rank-collective" => "is in a collective".to_owned(),
        (None, Some(who)) => format!("waits for {who} waits in {}", objects(group, tables)),
        (None, None) => format!("waits in {}", objects(group, tables)),
    };
    let cause = &part.cause;
    let mut threads: Vec<ThreadId> = vec![cause.thread];
    threads.extend(work.causes.chains.links(cause.chain).iter().map(|link| link.thread));
    let last = threads.len() - 1;
    let links = threads.iter().enumerate().map(|(at, &thread)| {
        let named = thread_name(thread, tables);
        let what = match threads.get(at + 1) {
            Some(&next) => {
                format!("{} waits for {}", name(thread, tables), name_beside(next, thread, tables))
            }
            None if cause.root.is_on_cpu() => format!("{} runs", name(thread, tables)),
            None => format!("{} is in {}", name(thread, tables), call_of(cause, tables)),
        };
        let place = user_frame(if at == last { cause.stack } else { cause.waiting_stack }, tables);
        let place =
            place.filter(|_| at == 0 || at == last).map_or_else(String::new, |p| format!(" at {}", p.text));
        Link {
            rank: rank_of_thread(thread, tables),
            pid: u32::try_from(named.pid).ok(),
            tid: u32::try_from(named.tid).ok(),
            what: what + &place,
            ns: part.ns,
        }
    });
    Some(HeldUp {
        sentence,
        evidence: evidence(rule, &work, tables, group),
        links: links.collect(),
        excess_ns: excess_ns(group),
        leaf: cause.root,
        of_other_rank: other_rank(blamed(&work, cause), cause.thread, tables).is_some(),
        pointer: pointer(&work, tables, part),
    })
}

fn summary(rule: &str, work: &Work<'_>, tables: &Tables, group: &Group, id: &str, wall: u64) -> String {
    let share = percent(group.ns, wall);
    if let (Some(does), Some(who)) = (does(rule), waited_for(work, tables, group)) {
        return format!("{id} waits {share} of its time for {who} {does}");
    }
    match rule {
        "rank-collective" => format!("{id} spends {share} of its time in collectives"),
        "rank-run-queue" => format!("{id} waits {share} of its time for a CPU while others run"),
        "rank-throttled" => {
            format!("{id} may not run for {share} of its time: its cgroup's CPU time is used up")
        }
        "rank-stopped" => format!("{id} is stopped by a signal for {share} of its time"),
        "rank-page-fault" => format!("{id} spends {share} of its time waiting in page faults"),
        "rank-sleep" => format!("{id} sleeps for {share} of its time"),
        "rank-lock" => format!("{id} waits {share} of its time for locks and conditions"),
        _ => format!("{id} spends {share} of its time waiting in {}", objects(group, tables)),
    }
}

/// Parts that are told of, and the least share of the group that they must have behind the first.
const PARTS: usize = 3;
const LEAST_PERMILLE: u64 = 50;

fn evidence(rule: &str, work: &Work<'_>, tables: &Tables, group: &Group) -> String {
    let mut text =
        format!("{} in all, at most {} at a stretch", duration(group.ns), duration(group.longest_ns));
    if rule == "rank-collective" {
        collectives(work, tables, group, &mut text);
        return text;
    }
    if rule == "rank-run-queue" {
        queued(tables, group, &mut text);
        return text;
    }
    let parts = group.ranked();
    let told = parts.iter().take(PARTS).enumerate().filter(|(at, (_, part))| {
        *at == 0 || part.ns.saturating_mul(1000) >= group.ns.saturating_mul(LEAST_PERMILLE)
    });
    for (_, (_, part)) in told {
        text.push_str("; ");
        if part.ns.saturating_mul(200) < group.ns.saturating_mul(199) {
            text.push_str(&format!("{} of it: ", percent(part.ns, group.ns)));
        }
        one_part(work, tables, part, &mut text);
    }
    if let ("rank-page-fault", Some(io)) = (rule, work.io) {
        let faults = io.faults;
        text.push_str(&format!("; {} faults without and {} with I/O", faults.minor, faults.major));
    }
    text
}

/// Who ran instead.
fn queued(tables: &Tables, group: &Group, text: &mut String) {
    let mut ran: Vec<_> = group.queued.iter().map(|(&thread, &(ns, count))| (thread, ns, count)).collect();
    ran.sort_by_key(|&(thread, ns, _)| (std::cmp::Reverse(ns), thread));
    for (thread, ns, count) in ran.into_iter().take(3) {
        let who =
            thread.map_or_else(|| "several took turns".to_owned(), |t| format!("{} ran", name(t, tables)));
        text.push_str(&format!("; {} while {who}, {}", duration(ns), times(count)));
    }
}

/// Who waits where for whom, in what, how often and how long.
fn one_part(work: &Work<'_>, tables: &Tables, part: &Part, text: &mut String) {
    let cause = &part.cause;
    let chain = work.causes.chains.links(cause.chain);
    text.push_str(&name(cause.thread, tables));
    if !chain.is_empty() {
        text.push_str(" waits");
        if let Some(place) = user_frame(cause.waiting_stack, tables) {
            text.push_str(&format!(" at {}", place.text));
        }
        let who: Vec<String> =
            chain.iter().map(|link| name_beside(link.thread, cause.thread, tables)).collect();
        text.push_str(&format!(" for {}", who.join(", which waits for ")));
    }
    if part.threads.len() > 1 {
        text.push_str(&format!(" and {} more like it", part.threads.len() - 1));
    }
    match cause.root {
        CpuLeaf::Stopped | CpuLeaf::Throttled => text.push_str(&format!(", {}", cause.root.text())),
        leaf if leaf.is_on_cpu() => {}
        _ => text.push_str(&format!(" in {}", call_of(cause, tables))),
    }
    if let Some(place) = user_frame(cause.stack, tables) {
        text.push_str(&format!(" at {}", place.text));
    }
    if part.count > 0 && !cause.root.is_on_cpu() {
        text.push_str(&match part.count {
            1 => format!("; once, {}", duration(part.ns)),
            count => format!("; {}, {} each", times(count), duration(part.ns / count)),
        });
    }
    devices(work, tables, cause, text);
}

/// What the block devices under the cause's file say, where requests could be joined with it.
fn devices(work: &Work<'_>, tables: &Tables, cause: &CpuCause, text: &mut String) {
    let Some(io) = work.io else { return };
    let of_file = io.device_files.iter().filter(|((_, file), _)| *file == cause.object && file.0 != 0);
    let Some(((device, _), tally)) = of_file.max_by_key(|(key, tally)| (tally.requests, **key)) else {
        return;
    };
    text.push_str(&format!(
        "; {} answers in {} (median of {} requests)",
        short_name(tables.string(*device), 20),
        duration(tally.latency.percentile(50).unwrap_or(0)),
        tally.requests
    ));
}

fn collectives(work: &Work<'_>, tables: &Tables, group: &Group, text: &mut String) {
    let queued = group.queued.values().fold(0u64, |sum, (ns, _)| sum.saturating_add(*ns));
    if queued > 0 {
        text.push_str(&format!(", {} of it runnable while others ran", percent(queued, group.ns)));
    }
    for (kind, tally) in work.calls.map(Calls::ranked).unwrap_or_default().into_iter().take(2) {
        text.push_str(&format!(
            "; {}: {}, {} in all, median {}, {} of it on a CPU",
            short_name(tables.string(kind.name), 40),
            times(tally.calls),
            duration(tally.ns),
            duration(tally.lengths.percentile(50).unwrap_or(0)),
            percent(tally.on_cpu_ns, tally.ns)
        ));
    }
}

fn pointer(work: &Work<'_>, tables: &Tables, part: &Part) -> Pointer {
    let cause = &part.cause;
    let chain = work.causes.chains.links(cause.chain);
    let text = |id: StringId| Some(tables.string(id).to_owned()).filter(|t| !t.is_empty());
    let call = if is_collective(cause) { cause.collective } else { cause.call };
    let waits = !chain.is_empty();
    Pointer {
        thread: Some(thread_name(blamed(work, cause), tables)),
        waiting_thread: waits.then(|| thread_name(cause.thread, tables)),
        wakers: chain.iter().map(|link| thread_name(link.thread, tables)).collect(),
        call: text(call).map(|t| crate::report::text::printable(&t).into_owned()),
        object: text(cause.object).map(|t| crate::report::text::printable(&t).into_owned()),
        line: user_frame(cause.stack, tables).map(|p| p.line),
        waiting_line: user_frame(cause.waiting_stack, tables).filter(|_| waits).map(|p| p.line),
        count: part.count,
        cause_ns: part.ns,
    }
}
