//! What a verdict says to people.

use std::collections::BTreeSet;

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::TimeNs;

use super::verdict::Lag;
use super::{Call, Fault, Hang, Job, Key, RankLog, State, judge};
use crate::capture::Tables;
use crate::findings::rules::rule;
use crate::findings::{Blame, Finding, Link, Severity};
use crate::report::text::{printable, short_name};

/// Ranks of a list that are written out.
const LISTED: usize = 12;
/// Time after which what nobody can explain is no longer a moment of a job under way.
pub(super) const UNEXPLAINED_NS: u64 = 30_000_000_000;

/// What is worth saying of the collectives of a job.
pub(crate) fn findings(job: &Job, tables: &Tables) -> Vec<Finding> {
    // A dump does not say when it was written.
    let last = job.ranks.iter().flat_map(|log| &log.calls).map(|call| call.at).max().unwrap_or(TimeNs(0));
    let text = Text::new(job, tables, Witness::Dumps);
    judge(job).iter().map(|hang| text.finding(hang, last)).collect()
}

/// Who tells what the ranks did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// Each rank's own dump.
    Dumps,
    /// A recording of calls and of devices.
    Devices,
    /// A recording of calls that return when the operation is over.
    Calls,
}

impl Witness {
    fn heard(self) -> &'static str {
        match self {
            Self::Dumps => "left dumps",
            Self::Devices | Self::Calls => "were recorded",
        }
    }

    fn unheard(self) -> &'static str {
        match self {
            Self::Dumps => "left no dump",
            Self::Devices | Self::Calls => "was not recorded",
        }
    }

    fn made_no_call(self) -> &'static str {
        match self {
            Self::Dumps => "its dump lists no call, so all that it began is over",
            Self::Devices | Self::Calls => "no call of it was recorded",
        }
    }

    fn unexplained(self) -> &'static str {
        match self {
            Self::Dumps => {
                "what the dumps say is the same of all of them: a device, a link or the library is stuck"
            }
            Self::Devices => "all have arrived: a device, a link or the library is stuck",
            Self::Calls => "all have arrived: what moves the data, or a peer in it, is stuck",
        }
    }
}

/// Words for verdicts.
pub(super) struct Text<'a> {
    job: &'a Job,
    tables: &'a Tables,
    witness: Witness,
    /// Groups whose operations have no numbers that mean the same on all ranks.
    pub(super) unnumbered: BTreeSet<usize>,
}

/// `rank 9`, `ranks 9 and 14`, `ranks 1, 2 and 3`.
pub(super) fn ranks(all: &[u32]) -> String {
    match all {
        [] => "nobody".to_owned(),
        [one] => format!("rank {one}"),
        all => {
            let mut shown: Vec<String> = all.iter().take(LISTED).map(u32::to_string).collect();
            let more = all.len().saturating_sub(LISTED);
            let last = if more > 0 { format!("{more} more") } else { shown.pop().unwrap_or_default() };
            format!("ranks {} and {last}", shown.join(", "))
        }
    }
}

fn count(n: usize) -> String {
    if n == 1 { "1 rank".to_owned() } else { format!("{n} ranks") }
}

/// Members in short: `0-3, 8`.
pub(super) fn span(members: &[u32]) -> String {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for rank in sorted {
        match parts.last_mut() {
            Some((_, last)) if rank == last.saturating_add(1) => *last = rank,
            Some((_, last)) if rank == *last => {}
            _ => parts.push((rank, rank)),
        }
    }
    let more = parts.len().saturating_sub(LISTED);
    let text = |&(first, last): &(u32, u32)| match last.saturating_sub(first) {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    let mut shown: Vec<String> = parts.iter().take(LISTED).map(text).collect();
    if more > 0 {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

impl<'a> Text<'a> {
    pub(super) fn new(job: &'a Job, tables: &'a Tables, witness: Witness) -> Self {
        Self { job, tables, witness, unnumbered: BTreeSet::new() }
    }

    pub(super) fn finding(&self, hang: &Hang, last: TimeNs) -> Finding {
        let rule = rule("hang-collective");
        let ns = last.since(hang.since);
        let severity = match hang.fault {
            Fault::Unknown if ns < UNEXPLAINED_NS => Severity::Notice,
            Fault::Unknown => Severity::Warning,
            _ => Severity::Critical,
        };
        let device = hang.culprits.first().or(hang.waiting.first());
        Finding {
            category: rule.category,
            severity,
            rule: rule.id,
            device: device.map_or_else(String::new, |rank| format!("rank {rank}")),
            what: "a collective that does not end",
            ns,
            share: 0.0,
            summary: self.summary(hang),
            evidence: self.evidence(hang),
            advice: rule.advice,
            pointer: None,
            lost: None,
            blame: self.blame(hang, last),
        }
    }

    fn blame(&self, hang: &Hang, last: TimeNs) -> Blame {
        if hang.culprits.is_empty() {
            return Blame { chain: self.chain(hang, last), ..Blame::default() };
        }
        let confidence = hang.heard as f64 / hang.members.max(1) as f64;
        Blame {
            culprit_ranks: hang.culprits.clone(),
            chain: self.chain(hang, last),
            confidence: Some(confidence),
            recoverable_ns: None,
        }
    }

    /// From a rank far away to the culprits.
    fn chain(&self, hang: &Hang, last: TimeNs) -> Vec<Link> {
        let link = |rank: u32, what: String, ns: u64| Link { rank: Some(rank), what, ns, ..Link::default() };
        let waits = hang.path.iter().map(|wait| {
            let what = format!("waits in {}", self.operation(&wait.call, wait.key));
            link(wait.rank, what, last.since(wait.call.at))
        });
        let culprits = hang.culprits.iter().map(|&rank| link(rank, self.state(hang, rank), 0));
        waits.chain(culprits).collect()
    }

    fn group(&self, group: usize) -> String {
        let Some(group) = self.job.groups.get(group) else { return "a group".to_owned() };
        let (name, description) = (printable(&group.name), printable(&group.description));
        match (description.is_empty(), name.is_empty()) {
            (true, _) => format!("group {}", short_name(&name, 40)),
            (false, true) => short_name(&description, 60),
            (false, false) => format!("{} ({})", short_name(&description, 60), short_name(&name, 24)),
        }
    }

    fn name(&self, call: &Call) -> String {
        let name = self.tables.string(call.name);
        // `nccl:all_reduce`, but `gloo::allreduce`.
        let name = name.split_once(':').map(|(_, name)| name).filter(|n| !n.starts_with(':')).unwrap_or(name);
        let name = name.split_once(' ').map_or(name, |(name, _)| name);
        short_name(&printable(name), 60)
    }

    /// `all_reduce #1842 of TENSOR_MODEL_PARALLEL_GROUP (35)`.
    pub(super) fn operation(&self, call: &Call, key: Key) -> String {
        let group = self.group(key.group());
        let number = self.number(call);
        match (call.operation, call.peer) {
            (CollectiveOp::Send, Some(peer)) => format!("send{number} to rank {peer} in {group}"),
            (CollectiveOp::Recv, Some(peer)) => format!("recv{number} from rank {peer} in {group}"),
            _ => format!("{}{number} of {group}", self.name(call)),
        }
    }

    /// ` #1842`, where numbers mean the same on all ranks: recorded calls that send and receive have none.
    fn number(&self, call: &Call) -> String {
        let unknown =
            self.unnumbered.contains(&call.group) || (self.witness == Witness::Calls && call.is_transfer());
        if unknown { String::new() } else { format!(" #{}", call.sequence) }
    }

    fn summary(&self, hang: &Hang) -> String {
        let culprits = ranks(&hang.culprits);
        let operation = self.operation(&hang.call, hang.key);
        let them = if hang.culprits.len() == 1 { "it" } else { "them" };
        let mut text = match hang.fault {
            Fault::NeverCame if matches!(hang.key, Key::Transfer { .. }) => {
                format!("{culprits} never came to match {operation}")
            }
            Fault::NeverCame => format!("{culprits} never arrived at {operation}"),
            Fault::Circle => format!("{culprits} wait for each other, among others in {operation}"),
            Fault::Differs => {
                format!("{culprits} called something else than the other ranks did as {operation}")
            }
            Fault::DeviceStuck => format!("the device of {culprits} does not get through {operation}"),
            Fault::Ended => format!("{culprits} ended inside {operation}"),
            Fault::Stopped => match hang.culprits.as_slice() {
                [_] => format!("{culprits} is stopped inside {operation}"),
                _ => format!("{culprits} are stopped inside {operation}"),
            },
            Fault::Unheard => match (hang.culprits.as_slice(), self.witness) {
                ([_], witness) => {
                    format!("{culprits}, which {}, is what {operation} waits for", witness.unheard())
                }
                (_, Witness::Dumps) => {
                    format!("some of {culprits}, which left no dumps, are what {operation} waits for")
                }
                _ => format!("some of {culprits}, which were not recorded, are what {operation} waits for"),
            },
            Fault::Unknown => {
                return format!("{} came to {operation} and it does not end", self.all_came(hang));
            }
        };
        if !hang.waiting.is_empty() {
            text.push_str(&format!("; {} wait for {them} in it", count(hang.waiting.len())));
        }
        if !hang.behind.is_empty() {
            let joined = if hang.waiting.is_empty() { ";" } else { "," };
            text.push_str(&format!("{joined} {} behind those", count(hang.behind.len())));
        }
        text.replace("1 rank wait ", "1 rank waits ")
    }

    fn all_came(&self, hang: &Hang) -> String {
        match hang.members.saturating_sub(hang.heard) {
            0 => format!("all {}", count(hang.members)),
            missing => format!("all but {missing} of {}", count(hang.members)),
        }
    }

    fn evidence(&self, hang: &Hang) -> String {
        let mut parts = Vec::new();
        if let (Key::Collective { group, .. }, Some(of)) = (hang.key, self.job.groups.get(hang.key.group()))
            && !of.members.is_empty()
        {
            let (group, members) = (self.group(group), span(&of.members));
            if !group.ends_with(&format!("ranks {members}")) {
                parts.push(format!("{group} is ranks {members}"));
            }
        }
        if hang.heard < hang.members {
            let heard = self.witness.heard();
            parts.push(format!("{} of its {} {heard}", hang.heard, count(hang.members)));
        }
        for &rank in hang.culprits.iter().take(4) {
            parts.push(format!("rank {rank} {}", self.state(hang, rank)));
        }
        if let [_, .., _] = hang.path.as_slice() {
            let steps: Vec<String> = hang
                .path
                .iter()
                .map(|wait| format!("rank {} waits in {}", wait.rank, self.operation(&wait.call, wait.key)))
                .collect();
            parts.push(steps.join(", "));
        }
        if let Some(frame) = self.frame(&hang.call) {
            parts.push(format!("the others called it from {frame}"));
        }
        if hang.fault == Fault::Unknown {
            parts.push(self.witness.unexplained().to_owned());
        }
        parts.join("; ")
    }

    /// What a culprit is known to have done, as a predicate.
    fn state(&self, hang: &Hang, rank: u32) -> String {
        let log = self.job.position(rank).and_then(|position| self.job.ranks.get(position));
        let Some(log) = log else { return self.witness.unheard().to_owned() };
        let mut text = match hang.fault {
            Fault::Differs => match Self::own_call(log, hang.key) {
                Some(call) => format!("called {} there", self.with_size(call)),
                None => "called something else".to_owned(),
            },
            Fault::DeviceStuck => "has handed it over".to_owned(),
            Fault::Ended | Fault::Stopped => "has come to it".to_owned(),
            _ => self.came_to(log, hang.key),
        };
        if hang.fault == Fault::Differs {
            text.push_str(&format!(", the others {}", self.with_size(&hang.call)));
        }
        if let Some(Lag { call, more }) = hang.lagging.get(&rank) {
            let key = Key::Collective { group: call.group, sequence: call.sequence };
            let operation = self.operation(call, key);
            let whose =
                if self.witness == Witness::Calls { "it has not left" } else { "its device has not ended" };
            text.push_str(&format!("; {whose} {operation}, which the others have left"));
            if *more > 0 {
                text.push_str(&format!(", nor {more} after it, which they left with data of its device"));
            }
        }
        match log.calls.last() {
            None => text.push_str(&format!("; {}", self.witness.made_no_call())),
            Some(call) => {
                let key = Key::Collective { group: call.group, sequence: call.sequence };
                text.push_str(&format!("; its last call was {}", self.operation(call, key)));
                if let Some(frame) = self.frame(call) {
                    text.push_str(&format!(" from {frame}"));
                }
                let open = log.calls.iter().filter(|call| call.is_open()).count();
                if open == 0 {
                    text.push_str(", and all that it began is over");
                }
            }
        }
        text
    }

    fn own_call(log: &RankLog, key: Key) -> Option<&Call> {
        let Key::Collective { group, sequence } = key else { return None };
        log.calls.iter().find(|call| (call.group, call.sequence) == (group, sequence) && !call.is_transfer())
    }

    fn with_size(&self, call: &Call) -> String {
        let name = self.name(call);
        let datatype = printable(self.tables.string(call.datatype)).into_owned();
        match call.size {
            Some(size) => format!("{name} of {size} {datatype}").trim_end().to_owned(),
            None => name,
        }
    }

    /// How far it came in the group.
    fn came_to(&self, log: &RankLog, key: Key) -> String {
        let enqueued = log.progress.get(&key.group()).and_then(|p| p.enqueued);
        let transfer = matches!(key, Key::Transfer { .. });
        let in_group = |call: &&Call| call.group == key.group() && call.is_transfer() == transfer;
        let last = log.calls.iter().filter(in_group).map(|call| call.sequence).max();
        let stuck = log.calls.iter().filter(|call| call.state == State::Started).count();
        let mut text = match last.max(enqueued) {
            Some(_) if self.unnumbered.contains(&key.group()) => "has left what came before".to_owned(),
            Some(last) => format!("came to #{last} there and no further"),
            None => "has made no call there".to_owned(),
        };
        if stuck > 0 && self.witness != Witness::Calls {
            text.push_str(&format!(", with {stuck} begun on its device"));
        }
        text
    }

    /// The program's own line: the innermost frame outside of the framework.
    fn frame(&self, call: &Call) -> Option<String> {
        let names = self.tables.stack_names(call.stack);
        let frames: Vec<&str> = names.iter().map(|&name| self.tables.string(name)).collect();
        let own = |frame: &&&str| !frame.contains("/torch/") && !frame.contains("site-packages");
        let frame = frames.iter().rev().find(own).or_else(|| frames.last());
        // An address says nothing to anybody.
        let frame = frame.filter(|frame| !frame.starts_with("0x"))?;
        Some(short_name(&printable(frame), 90))
    }
}
