//! One rank's dump, whatever version of PyTorch wrote it.
//!
//! | key | since | use |
//! |---|---|---|
//! | `entries[]` | 1.0 | the calls; a version may leave the key out where there are none |
//! | `entries[].seq_id` | 1.0 – 2.1 | one count for collectives and point-to-point operations |
//! | `entries[].collective_seq_id`, `p2p_seq_id`, `is_p2p` | 2.2 | a count for each |
//! | `pg_config` | 2.0 | groups by name, with their ranks as text |
//! | `pg_status` | 2.3 | how far each group has come, by a number that the process made up |
//!
//! What is missing stays unknown; what is of another type counts as missing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::value::{Id, Node, Values};

/// Ranks that one group may have: no job is larger.
const MAX_RANKS: usize = 1 << 20;
/// Calls that are kept: buffers hold thousands.
const MAX_CALLS: usize = 1 << 18;
/// Groups that are kept.
const MAX_GROUPS: usize = 1 << 16;
/// Frames of a call that are kept, the innermost ones.
const MAX_FRAMES: usize = 128;
/// Characters of a function's or file's name.
const MAX_NAME: usize = 1024;

/// A dump.
#[derive(Debug, Default)]
pub(super) struct Dump<'v> {
    pub(super) version: &'v str,
    pub(super) groups: Vec<Group<'v>>,
    /// In the order in which the calls were made.
    pub(super) calls: Vec<Call<'v>>,
    /// By the number that the process gave the group.
    pub(super) status: BTreeMap<i64, Status>,
    /// Entries that are no calls.
    pub(super) skipped: u64,
}

/// A group that the rank is a member of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group<'v> {
    pub(super) name: Cow<'v, str>,
    pub(super) description: &'v str,
    /// In the order of their ranks in the group; empty where the dump does not say.
    pub(super) ranks: Vec<u32>,
    pub(super) status: Status,
}

/// How far the rank has come in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) enqueued: Option<u64>,
    pub(super) started: Option<u64>,
    pub(super) completed: Option<u64>,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Scheduled,
    Started,
    Completed,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Call<'v> {
    pub(super) group: Cow<'v, str>,
    pub(super) group_id: Option<i64>,
    pub(super) name: &'v str,
    pub(super) sequence: u64,
    /// The count of collectives, which entries of one batch share.
    pub(super) batch: (u64, u64),
    pub(super) peer_to_peer: bool,
    pub(super) state: State,
    pub(super) began: bool,
    pub(super) created_ns: Option<i64>,
    pub(super) completed_ns: Option<i64>,
    pub(super) input_elements: u64,
    pub(super) output_elements: u64,
    pub(super) datatype: &'v str,
    pub(super) thread: i64,
    pub(super) thread_name: &'v str,
    /// A list of frames, the innermost first.
    pub(super) frames: Option<Id>,
}

impl<'v> Dump<'v> {
    /// Reads a dump out of a file's values; `None` where they are none.
    pub(super) fn of(values: &'v Values<'_>, root: Id) -> Option<Self> {
        let known = |key: &str| values.get(root, key);
        let entries = known("entries").filter(|&id| values.is_list(id));
        let config = known("pg_config").filter(|&id| values.is_dict(id));
        let version = known("version").and_then(|id| values.text(id));
        // What else is a dict with a version is no dump.
        if version.is_none() || (entries.is_none() && config.is_none()) {
            return None;
        }
        let mut dump = Self { version: version.unwrap_or_default(), ..Self::default() };
        for &(key, value) in config.map_or(&[][..], |config| values.pairs(config)).iter().take(MAX_GROUPS) {
            dump.groups.push(group(values, key, value));
        }
        if let Some(status) = known("pg_status") {
            for &(key, value) in values.pairs(status) {
                if let Some(number) = values.int(key) {
                    dump.status.insert(number, status_of(values, value));
                }
            }
        }
        let mut calls: Vec<(i64, Call<'v>)> = Vec::new();
        let entries = entries.map_or(&[][..], |entries| values.items(entries));
        // The newest come last.
        let left_out = entries.len().saturating_sub(MAX_CALLS);
        dump.skipped = left_out as u64;
        for (position, &entry) in (0i64..).zip(entries.iter().skip(left_out)) {
            match call(values, entry) {
                Some(call) => {
                    let record = values.get(entry, "record_id").or_else(|| values.get(entry, "id"));
                    calls.push((record.and_then(|id| values.int(id)).unwrap_or(position), call));
                }
                None => dump.skipped = dump.skipped.saturating_add(1),
            }
        }
        calls.sort_by_key(|(record, _)| *record);
        dump.calls = calls.into_iter().map(|(_, call)| call).collect();
        dump.close_batches();
        dump.name_groups();
        Some(dump)
    }

    /// The parts of a batch of transfers have no end of their own: it is that of the batch, whose entry follows them.
    fn close_batches(&mut self) {
        type Batch<'v> = (Cow<'v, str>, Option<i64>, (u64, u64));
        fn batch<'v>(call: &Call<'v>) -> Batch<'v> {
            (call.group.clone(), call.group_id, call.batch)
        }
        let is_batch = |call: &Call<'_>| operation(call.name) == "coalesced" && call.peer_to_peer;
        let mut ends: BTreeMap<Batch<'v>, (State, bool, Option<i64>)> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| is_batch(call)) {
            ends.insert(batch(call), (call.state, call.began, call.completed_ns));
        }
        if ends.is_empty() {
            return;
        }
        self.calls.retain(|call| !is_batch(call));
        for call in self.calls.iter_mut().filter(|call| call.peer_to_peer) {
            if let Some(&(state, began, completed_ns)) = ends.get(&batch(call)) {
                (call.state, call.began, call.completed_ns) = (state, began, completed_ns);
            }
        }
    }

    /// Which group each number of `pg_status` is. Entries say it for the groups that they are of. Both numbers and names count
    /// up as groups are made, so where there are as many of one as of the other they belong together in that order, if the
    /// entries agree.
    fn name_groups(&mut self) {
        let mut names: BTreeMap<i64, Cow<'v, str>> = BTreeMap::new();
        for call in &self.calls {
            if let (Some(id), false) = (call.group_id, call.group.is_empty()) {
                names.entry(id).or_insert_with(|| call.group.clone());
            }
        }
        let numbered = |group: &Group<'v>| Some((group.name.parse::<u64>().ok()?, group.name.clone()));
        let mut made: Vec<(u64, Cow<'v, str>)> = self.groups.iter().filter_map(numbered).collect();
        made.sort_unstable();
        if made.len() == self.groups.len() && made.len() == self.status.len() {
            let in_order: BTreeMap<i64, Cow<'v, str>> =
                self.status.keys().copied().zip(made.into_iter().map(|(_, name)| name)).collect();
            if names.iter().all(|(id, name)| in_order.get(id) == Some(name)) {
                names = in_order;
            }
        }
        for call in self.calls.iter_mut().filter(|call| call.group.is_empty()) {
            // Before groups had names, ranks that made the same groups gave them the same numbers.
            if let Some(id) = call.group_id {
                call.group = names.get(&id).cloned().unwrap_or_else(|| Cow::Owned(id.to_string()));
            }
        }
        let status: BTreeMap<&str, Status> =
            names.iter().filter_map(|(id, name)| Some((name.as_ref(), *self.status.get(id)?))).collect();
        for group in &mut self.groups {
            if let Some(&status) = status.get(group.name.as_ref()) {
                group.status = status;
            }
        }
    }

    /// Groups of calls that the configuration does not know are added, without members.
    pub(super) fn add_unconfigured(&mut self) {
        let mut known: BTreeSet<&str> = self.groups.iter().map(|g| g.name.as_ref()).collect();
        let mut missing = Vec::new();
        for call in &self.calls {
            if known.insert(call.group.as_ref()) {
                missing.push(Group { name: call.group.clone(), ..Group::default() });
            }
        }
        self.groups.extend(missing);
    }

    /// The rank that all groups have in common, if there is just one: a process only knows groups of its own.
    pub(super) fn rank(&self) -> Option<u32> {
        let mut groups = self.groups.iter().filter(|group| !group.ranks.is_empty());
        let mut common = groups.next()?.ranks.clone();
        for group in groups {
            let ranks: BTreeSet<u32> = group.ranks.iter().copied().collect();
            common.retain(|rank| ranks.contains(rank));
        }
        match common.as_slice() {
            [rank] => Some(*rank),
            _ => None,
        }
    }

    /// The group of all ranks.
    pub(super) fn world(&self) -> Option<&Group<'v>> {
        let default = self.groups.iter().find(|g| g.description == "default_pg" || g.name == "default_pg");
        let default = default.or_else(|| self.groups.iter().find(|g| g.name == "0"));
        default.or_else(|| self.groups.iter().max_by_key(|g| g.ranks.len())).filter(|g| !g.ranks.is_empty())
    }
}

fn text<'v>(values: &'v Values<'_>, dict: Id, key: &str) -> &'v str {
    values.get(dict, key).and_then(|id| values.text(id)).unwrap_or_default()
}

fn number(values: &Values<'_>, dict: Id, key: &str) -> Option<u64> {
    values.get(dict, key).and_then(|id| values.int(id)).and_then(|value| u64::try_from(value).ok())
}

fn group<'v>(values: &'v Values<'_>, key: Id, value: Id) -> Group<'v> {
    let name = match text(values, value, "name") {
        "" => values.text(key).unwrap_or_default(),
        name => name,
    };
    let ranks = values.get(value, "ranks");
    let ranks = match ranks.and_then(|id| values.text(id)) {
        // Ranks are a list written as text.
        Some(list) if values.spend(list.len()) => list
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|rank| rank.parse().ok())
            .take(MAX_RANKS)
            .collect(),
        _ => {
            let items = ranks.map_or(&[][..], |id| values.items(id));
            items.iter().filter_map(|&id| u32::try_from(values.int(id)?).ok()).take(MAX_RANKS).collect()
        }
    };
    Group {
        name: Cow::Borrowed(name),
        description: text(values, value, "desc"),
        ranks,
        status: Status::default(),
    }
}

fn status_of(values: &Values<'_>, value: Id) -> Status {
    let of = |key: &str| number(values, value, key);
    Status {
        enqueued: of("last_enqueued_collective"),
        started: of("last_started_collective"),
        completed: of("last_completed_collective"),
    }
}

/// What a call does, without the library in front of it and the ranks behind.
pub(super) fn operation(name: &str) -> &str {
    let name = name.split_once(':').map_or(name, |(_, name)| name);
    name.split_once(' ').map_or(name, |(name, _)| name)
}

fn call<'v>(values: &'v Values<'_>, entry: Id) -> Option<Call<'v>> {
    if !values.is_dict(entry) {
        return None;
    }
    let name = text(values, entry, "profiling_name");
    let kind = operation(name);
    let flag = values.get(entry, "is_p2p").map(|id| values.node(id));
    let peer_to_peer = matches!(kind, "send" | "recv") || flag == Some(&Node::Bool(true));
    let collective = number(values, entry, "collective_seq_id");
    let transfer = number(values, entry, "p2p_seq_id");
    let old = number(values, entry, "seq_id");
    let sequence = if peer_to_peer { transfer.or(old) } else { collective.or(old) }?;
    let time = |key: &str| values.get(entry, key).and_then(|id| values.int(id));
    let began = time("time_discovered_started_ns").is_some();
    let state = match text(values, entry, "state") {
        "completed" => State::Completed,
        "started" => State::Started,
        _ => State::Scheduled,
    };
    let process_group = values.get(entry, "process_group");
    let group = process_group.and_then(|id| values.items(id).first().copied());
    let datatypes = values.get(entry, "input_dtypes");
    let datatype = datatypes.and_then(|id| values.items(id).first().copied());
    Some(Call {
        group: Cow::Borrowed(group.and_then(|id| values.text(id)).unwrap_or_default()),
        group_id: values.get(entry, "pg_id").and_then(|id| values.int(id)),
        sequence,
        batch: (collective.unwrap_or(0), transfer.unwrap_or(0)),
        peer_to_peer,
        state,
        began: began || state == State::Started,
        created_ns: time("time_created_ns"),
        completed_ns: time("time_discovered_completed_ns"),
        input_elements: elements(values, entry, "input_sizes"),
        output_elements: elements(values, entry, "output_sizes"),
        datatype: datatype.and_then(|id| values.text(id)).unwrap_or_default(),
        thread: time("thread_id").unwrap_or(0),
        thread_name: text(values, entry, "thread_name"),
        frames: values.get(entry, "frames"),
        name,
    })
}

/// Elements of all tensors of a list of their shapes.
fn elements(values: &Values<'_>, entry: Id, key: &str) -> u64 {
    let shapes = values.get(entry, key).map_or(&[][..], |id| values.items(id));
    shapes.iter().fold(0u64, |sum, &shape| {
        let sizes = values.items(shape).iter();
        let product = sizes.fold(1u64, |product, &size| {
            let size = values.int(size).and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
            product.saturating_mul(size)
        });
        sum.saturating_add(product)
    })
}

/// The frames of a call, the outermost first: `function at file:line`.
pub(super) fn frames<'v>(values: &'v Values<'_>, frames: Option<Id>) -> impl Iterator<Item = String> + 'v {
    let frames = frames.map_or(&[][..], |id| values.items(id));
    frames.iter().take(MAX_FRAMES).rev().map(|&frame| {
        let line = values.get(frame, "line").and_then(|id| values.int(id)).unwrap_or(0);
        let part = |key| text(values, frame, key).chars().take(MAX_NAME).collect::<String>();
        format!("{} at {}:{line}", part("name"), part("filename"))
    })
}
