//! What the ranks of a job leave, in the forms that versions of PyTorch give it.

use std::path::{Path, PathBuf};

use super::run::{Call, Job, State};
use super::{Fault, Group, Value, pickle};

/// What a dump says and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Calls that are over are left out, as the watchdog does since 2.5.
    pub open_only: bool,
    /// `pg_status` is there.
    pub status: bool,
    /// Begins of operations are recorded (`TORCH_NCCL_ENABLE_TIMING`).
    pub timed: bool,
    /// Calls have the frames of their caller.
    pub frames: bool,
    /// Sends and receives are parts of batches.
    pub batched: bool,
    /// One count for collectives and transfers, and no names of groups (before 2.3).
    pub old: bool,
    /// Most calls that the buffer holds.
    pub capacity: usize,
    /// JSON in place of a pickle.
    pub json: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            open_only: true,
            status: true,
            timed: false,
            frames: false,
            batched: false,
            old: false,
            capacity: 2000,
            json: false,
        }
    }
}

/// Writes the dumps of all ranks that leave one into a folder.
///
/// # Errors
/// When the folder refuses.
pub fn write(job: &Job, form: &Form, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (rank, state) in (0u32..).zip(&job.ranks) {
        if state.faulty && job.fault == Fault::Killed {
            continue;
        }
        let path = folder.join(format!("_dump_{rank}"));
        let dump = dump(job, form, rank);
        std::fs::write(&path, if form.json { json(&dump).into_bytes() } else { pickle(&dump) })?;
        paths.push(path);
    }
    Ok(paths)
}

fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn dict<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Dict(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The dump of one rank.
fn dump(job: &Job, form: &Form, rank: u32) -> Value {
    let own: Vec<&Group> = job.groups.iter().filter(|group| group.ranks.contains(&rank)).collect();
    let state = &job.ranks[rank as usize];
    let mut pairs = vec![("version".to_owned(), Value::from(if form.old { "2.1" } else { "2.9" }))];
    let config = own.iter().map(|group| {
        let value = dict([
            ("desc", Value::from(group.description)),
            ("name", Value::Text(group.name.to_string())),
            ("ranks", Value::Text(format!("{:?}", group.ranks))),
        ]);
        (group.name.to_string(), value)
    });
    pairs.push(("pg_config".to_owned(), Value::Dict(config.collect())));
    if form.status {
        // Numbers of groups are the process's own, and some are of other backends.
        let status = own.iter().enumerate().map(|(position, group)| {
            let calls = || state.calls.iter().filter(|call| job.groups[call.group].name == group.name);
            let last = |calls: &mut dyn Iterator<Item = &Call>| calls.last().map_or(-1, sequence);
            let completed = last(&mut calls().filter(|call| call.state == State::Completed));
            let started = last(&mut calls().filter(|call| call.state != State::Scheduled));
            let value = dict([
                ("last_enqueued_collective", Value::Int(last(&mut calls()))),
                ("last_started_collective", Value::Int(if form.timed { started } else { -1 })),
                ("last_completed_collective", Value::Int(completed)),
            ]);
            (number(position).to_string(), value)
        });
        pairs.push(("pg_status".to_owned(), Value::Dict(status.collect())));
    }
    let mut entries = Vec::new();
    for (record, call) in state.calls.iter().enumerate() {
        let position = own.iter().position(|g| g.name == job.groups[call.group].name).unwrap_or(0);
        let mut all = vec![entry(job, form, rank, call, record, number(position), false)];
        if form.batched && call.peer.is_some() {
            all.push(entry(job, form, rank, call, record, number(position), true));
        }
        for (value, over) in all {
            if !(form.open_only && over) {
                entries.push(value);
            }
        }
    }
    let evicted = entries.len().saturating_sub(form.capacity);
    pairs.push(("entries".to_owned(), Value::List(entries.split_off(evicted))));
    Value::Dict(pairs)
}

fn number(position: usize) -> usize {
    position * 2
}

fn sequence(call: &Call) -> i64 {
    let sequence = if call.peer.is_some() { call.transfers } else { call.collectives };
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// An entry, and whether the recorder knows that it is over.
fn entry(
    job: &Job,
    form: &Form,
    rank: u32,
    call: &Call,
    record: usize,
    group_id: usize,
    batch: bool,
) -> (Value, bool) {
    let group = &job.groups[call.group];
    let place = |rank: u32| group.ranks.iter().position(|&member| member == rank).unwrap_or(0);
    let name = match (call.name, call.peer, batch) {
        (_, _, true) => "nccl:coalesced".to_owned(),
        ("send", Some(peer), _) => format!("nccl:send {}->{}", place(rank), place(peer)),
        ("recv", Some(peer), _) => format!("nccl:recv {}<-{}", place(rank), place(peer)),
        (name, _, _) => format!("nccl:{name}"),
    };
    // The parts of a batch have no events of their own.
    let part = form.batched && call.peer.is_some() && !batch;
    let known = if part { State::Scheduled } else { call.state };
    let over = known == State::Completed;
    let began = form.timed && known != State::Scheduled;
    let time = |known: bool, after: u64| if known { int(call.at_ns + after) } else { Value::None };
    let state = match known {
        State::Completed => "completed",
        State::Started if form.timed => "started",
        State::Scheduled | State::Started => "scheduled",
    };
    let shape = Value::List(vec![Value::List(vec![int(call.elements)])]);
    let mut pairs = vec![
        ("record_id".to_owned(), Value::Int(i64::try_from(record * 2 + usize::from(batch)).unwrap_or(0))),
        ("pg_id".to_owned(), Value::Int(i64::try_from(group_id).unwrap_or(0))),
        ("profiling_name".to_owned(), Value::Text(name)),
        ("time_created_ns".to_owned(), int(call.at_ns)),
        ("input_sizes".to_owned(), shape.clone()),
        ("output_sizes".to_owned(), shape),
        ("state".to_owned(), Value::from(state)),
        ("time_discovered_started_ns".to_owned(), time(began, 10)),
        ("time_discovered_completed_ns".to_owned(), time(over, 500)),
        ("retired".to_owned(), Value::Bool(over)),
    ];
    if form.old {
        pairs.push(("seq_id".to_owned(), Value::Int(sequence(call))));
    } else {
        let description = Value::from(group.description);
        let pair = [Value::Text(group.name.to_string()), description];
        pairs.push(("process_group".to_owned(), Value::Pair(Box::new(pair))));
        pairs.push(("collective_seq_id".to_owned(), int(call.collectives)));
        pairs.push(("p2p_seq_id".to_owned(), int(call.transfers)));
        pairs.push(("is_p2p".to_owned(), Value::Bool(call.peer.is_some())));
        let types = Value::List(vec![Value::from("BFloat16")]);
        pairs.push(("input_dtypes".to_owned(), types.clone()));
        pairs.push(("output_dtypes".to_owned(), types));
        pairs.push(("thread_id".to_owned(), Value::from("23456244340032")));
        pairs.push(("thread_name".to_owned(), Value::from("python3")));
    }
    if form.frames {
        let frame = |name: &str, file: &str, line: i64| {
            dict([("name", Value::from(name)), ("filename", Value::from(file)), ("line", Value::Int(line))])
        };
        let frames = vec![
            frame(call.name, "/opt/conda/lib/python3.12/site-packages/torch/distributed/c10d.py", 83),
            frame("forward", "/job/model.py", 41),
            frame("main", "/job/train.py", 118),
        ];
        pairs.push(("frames".to_owned(), Value::List(frames)));
    }
    (Value::Dict(pairs), over)
}

/// The JSON of a dump, as PyTorch's other form has it.
fn json(value: &Value) -> String {
    fn of(value: &Value) -> serde_json::Value {
        match value {
            Value::None => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(of).collect::<Vec<_>>().into(),
            Value::Pair(pair) => pair.iter().map(of).collect::<Vec<_>>().into(),
            Value::Dict(pairs) => {
                serde_json::Value::Object(pairs.iter().map(|(k, v)| (k.clone(), of(v))).collect())
            }
        }
    }
    let mut document = of(value);
    // Its keys are in the order of the alphabet.
    if let Some(object) = document.as_object_mut() {
        object.sort_keys();
    }
    document.to_string()
}
