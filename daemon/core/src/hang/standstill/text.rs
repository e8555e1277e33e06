//! What is said of a job that stood still.

use std::collections::BTreeMap;

use stallscope_schemas::record::{WaitKind, wait_flags};

use super::place::Place;
use super::{Rank, Still};
use crate::capture::ReadAt;
use crate::findings::rules::rule;
use crate::findings::{Blame, Finding, Severity};
use crate::hang::blocked::{blocked, link, named};
use crate::hang::text::{UNEXPLAINED_NS, ranks};
use crate::report::text::{duration, percent};

/// Ranks outside of communication that the evidence tells of.
const TOLD: usize = 4;

impl<S: ReadAt> Still<'_, S> {
    pub(super) fn say(&self, inside: &[&Rank], outside: &[&Rank], culprits: &[&Rank]) -> Finding {
        let rule = rule("hang-standstill");
        let groups = self.groups(&[inside, outside].concat());
        // Where all are blocked alike they may wait for work: a server without requests.
        let is_waiting = |rank: &&Rank| matches!(&rank.place, Place::Blocked { wait, .. } if wait.kind != WaitKind::Stopped);
        let alike = inside.is_empty() && groups.len() < 2 && outside.iter().all(is_waiting);
        let odd = groups.into_iter().next();
        let odd = odd.and_then(|(members, _)| members.first().copied());
        let first = culprits.first().map(|rank| rank.rank).or(odd);
        Finding {
            category: rule.category,
            severity: match culprits {
                [] if alike => Severity::Notice,
                [] => Severity::Warning,
                _ if culprits.iter().all(|rank| self.is_at_work(rank)) && self.ns < UNEXPLAINED_NS => {
                    Severity::Notice
                }
                _ if culprits.iter().all(|rank| self.is_at_work(rank) || self.may_serve(rank)) => {
                    Severity::Warning
                }
                _ => Severity::Critical,
            },
            rule: rule.id,
            device: first.map_or_else(String::new, |rank| format!("rank {rank}")),
            what: "a job that stands still",
            ns: self.ns,
            share: 0.0,
            summary: self.summary(inside, outside, culprits),
            evidence: self.evidence(inside, outside, culprits),
            advice: rule.advice,
            pointer: None,
            lost: None,
            blame: self.blame(inside, culprits),
        }
    }

    fn summary(&self, inside: &[&Rank], outside: &[&Rank], culprits: &[&Rank]) -> String {
        let nothing = if self.has_gpus { "no collective and no work of a GPU" } else { "no collective" };
        let mut parts =
            vec![format!("the job stands still: for all of {} {nothing} began or ended", duration(self.ns))];
        let mut say = |of: &[&Rank]| parts.extend(self.groups(of).into_iter().map(|(_, text)| text));
        if culprits.is_empty() {
            say(&[inside, outside].concat());
            parts.push(match outside {
                [] => "which operation each is in was not seen".to_owned(),
                _ => "who waits for whom cannot be told".to_owned(),
            });
        } else {
            say(inside);
            say(outside);
        }
        parts.join("; ")
    }

    /// Ranks by place, with that in words: the odd ones first.
    fn groups(&self, of: &[&Rank]) -> Vec<(Vec<u32>, String)> {
        let mut places: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for rank in of {
            places.entry(self.does(rank, true)).or_default().push(rank.rank);
        }
        let mut places: Vec<(Vec<u32>, String)> = places.into_iter().map(|(does, of)| (of, does)).collect();
        places.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        for (members, text) in &mut places {
            let single = of.iter().find(|rank| *members == [rank.rank]);
            let does = single.map_or_else(|| text.clone(), |rank| self.does(rank, false));
            *text = format!("{} {does}", ranks(members));
        }
        places
    }

    /// What a rank does, as a predicate of one or of several.
    fn does(&self, rank: &Rank, several: bool) -> String {
        let verb = |one: &str, all: &str| if several { all.to_owned() } else { one.to_owned() };
        let at = |line: &Option<String>| line.as_ref().map_or_else(String::new, |line| format!(" at {line}"));
        match &rank.place {
            Place::Communicates { line, .. } => {
                format!("{} in communication{} since before the recording", verb("is", "are"), at(line))
            }
            Place::WaitsForDevice { line, .. } => format!(
                "{}{} since before the recording",
                verb("waits for its GPU", "wait for their GPUs"),
                at(line)
            ),
            Place::Blocked { wait, is_one, line } => {
                let does = blocked(wait, self.tables());
                let does = match does.strip_prefix("is ") {
                    Some(rest) => format!("{} {rest}", verb("is", "are")),
                    None => does,
                };
                format!("{does}{}{}", if *is_one { "" } else { " again and again" }, at(line))
            }
            Place::Computes { line } => format!("{} at {line}", verb("computes", "compute")),
            Place::Ended => format!("{} ended", verb("has", "have")),
            Place::Unseen | Place::Moves => format!("{} not seen", verb("is", "are")),
        }
    }

    fn evidence(&self, inside: &[&Rank], outside: &[&Rank], culprits: &[&Rank]) -> String {
        let mut parts =
            vec!["by samples and waits each main thread was at one place all the time".to_owned()];
        let began_before = |rank: &&&Rank| match &rank.place {
            Place::Blocked { wait, is_one: true, .. } => wait.flags & wait_flags::BEGAN_BEFORE != 0,
            _ => false,
        };
        let before: Vec<u32> = outside.iter().filter(began_before).map(|rank| rank.rank).collect();
        if !before.is_empty() {
            parts.push(format!("{} since before the recording", ranks(&before)));
        }
        for rank in outside.iter().take(TOLD) {
            if let Some((thread, ns)) = self.worker(rank) {
                let who = named(thread, self.tables());
                parts.push(format!("{who} of rank {} works {} of the time", rank.rank, percent(ns, self.ns)));
            }
            if self.is_at_work(rank) {
                parts.push(format!("rank {} is at work and may come yet", rank.rank));
            } else if self.may_serve(rank) {
                parts.push(format!("rank {} waits as a server waits for requests", rank.rank));
            }
            if outside.len() < inside.len() {
                parts.extend(self.excuse(rank));
            }
        }
        let unheard = self.world().saturating_sub(self.ranks.len());
        if unheard > 0 {
            parts.push(format!("{unheard} of {} ranks were not recorded", self.world()));
        }
        if culprits.is_empty() && !inside.is_empty() {
            parts.push(
                "the calls began before the recording, so that it has none of them; what tells is a recording that runs \
                 when the job stops, or Flight Recorder dumps (stallscope import)"
                    .to_owned(),
            );
        }
        parts.join("; ")
    }

    fn blame(&self, inside: &[&Rank], culprits: &[&Rank]) -> Blame {
        if culprits.is_empty() {
            return Blame::default();
        }
        let link = |rank: &&Rank| {
            let ns = match &rank.place {
                Place::Blocked { wait, is_one: true, .. } => self.end.since(wait.start),
                Place::Ended => 0,
                _ => self.ns,
            };
            link(rank.rank, rank.driver, self.does(rank, false), ns, self.tables())
        };
        let known = self.ranks.iter().filter(|rank| !rank.has_lost && rank.place != Place::Unseen).count();
        Blame {
            culprit_ranks: culprits.iter().map(|rank| rank.rank).collect(),
            chain: inside.first().into_iter().chain(culprits).map(link).collect(),
            confidence: Some(known as f64 / self.world().max(1) as f64),
            recoverable_ns: None,
        }
    }
}
