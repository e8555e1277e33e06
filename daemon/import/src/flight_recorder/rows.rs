//! A dump's rows.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use stallscope_core::capture::{Device, Process, Source, Thread};
use stallscope_core::ingest::Ingest;
use stallscope_core::rows::{CollectiveCall, GroupState};
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags, device_kind};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use super::dump::{Call, Dump, State, frames, operation};
use super::job::Job;
use super::value::Values;
use crate::{Format, ImportError};

/// Stored numbers are one more, so that 0 can say that there is none.
fn plus_one(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value.saturating_add(1))
}

/// `0-3,8` for ranks in their order.
fn members(ranks: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(rank) => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let text = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Writes one rank: a process, its device, and a thread for each that made calls.
pub(super) fn write<W: Write>(
    path: &Path,
    rank: u32,
    job: &Job,
    dump: &Dump<'_>,
    values: &Values<'_>,
    ingest: &mut Ingest<W>,
) -> Result<(), ImportError> {
    let writer = ingest.writer();
    let source = writer.add_source(Source {
        path: path.to_string_lossy().into_owned(),
        format: Format::FlightRecorder.name().to_owned(),
    });
    let process = writer.add_process(Process {
        source,
        name: format!("rank {rank}"),
        rank: Some(rank),
        world_size: job.world_size(),
        ..Process::default()
    });
    writer.add_device(Device {
        source,
        kind: device_kind::GPU,
        id: format!("rank {rank}"),
        processes: vec![process],
        ..Device::default()
    });
    let last = dump.calls.iter().filter_map(|call| call.completed_ns.max(call.created_ns)).max();
    for group in &dump.groups {
        let row = GroupState {
            start: TimeNs(last.unwrap_or(0)),
            duration_ns: 0,
            group: writer.intern(&group.name),
            description: writer.intern(group.description),
            members: writer.intern(&members(&group.ranks)),
            enqueued: plus_one(group.status.enqueued),
            started: plus_one(group.status.started),
            completed: plus_one(group.status.completed),
        };
        writer.push_group_state(process, row)?;
    }
    let sizes: BTreeMap<&str, (u64, Option<u32>)> = dump
        .groups
        .iter()
        .map(|group| {
            let own = group.ranks.iter().position(|&member| member == rank);
            (group.name.as_ref(), (group.ranks.len() as u64, own.and_then(|own| u32::try_from(own).ok())))
        })
        .collect();
    let mut threads: BTreeMap<(i64, &str), ThreadId> = BTreeMap::new();
    for (position, call) in (0i64..).zip(&dump.calls) {
        let key = (call.thread, call.thread_name);
        let thread = *threads.entry(key).or_insert_with(|| {
            writer.add_thread(Thread { process, tid: call.thread, name: call.thread_name.to_owned() })
        });
        let mut stack = StackId(0);
        for frame in frames(values, call.frames) {
            let name = writer.intern(&frame);
            stack = writer.intern_frame(stack, name);
        }
        let (group_size, own) = sizes.get(call.group.as_ref()).copied().unwrap_or_default();
        let row = CollectiveCall {
            name: writer.intern(call.name),
            datatype: writer.intern(call.datatype),
            group: writer.intern(&call.group),
            group_size,
            rank: own,
            stack,
            // Dumps of before the times were recorded keep their order.
            start: TimeNs(call.created_ns.unwrap_or(position)),
            ..row(call)
        };
        writer.push_collective_call(thread, row)?;
    }
    Ok(())
}

/// The parts of a row that need no tables.
fn row(call: &Call<'_>) -> CollectiveCall {
    let operation = operation_of(operation(call.name));
    let open = if call.state == State::Completed { 0 } else { call_flags::OPEN };
    let started = if call.began { call_flags::STARTED } else { 0 };
    let end = call.completed_ns.zip(call.created_ns);
    CollectiveCall {
        start: TimeNs(0),
        duration_ns: end.map_or(0, |(end, begin)| TimeNs(end).since(TimeNs(begin))),
        name: StringId(0),
        library: library_of(call.name),
        operation,
        bytes: bytes_each(call.datatype).map_or(0, |bytes| bytes.saturating_mul(call.input_elements)),
        elements: if operation == CollectiveOp::Recv { call.output_elements } else { call.input_elements },
        datatype: StringId(0),
        reduction: StringId(0),
        group: StringId(0),
        group_size: 0,
        rank: None,
        peer: peer_of(call.name),
        stream: 0,
        sequence: plus_one(Some(call.sequence)),
        result: 0,
        flags: call_flags::ASYNC | open | started,
        stack: StackId(0),
    }
}

fn library_of(name: &str) -> CollectiveLibrary {
    match name.split_once(':').map_or("", |(library, _)| library) {
        "nccl" => CollectiveLibrary::Nccl,
        "rccl" => CollectiveLibrary::Rccl,
        "gloo" => CollectiveLibrary::Gloo,
        "mpi" => CollectiveLibrary::Mpi,
        _ => CollectiveLibrary::Other,
    }
}

/// The operation of a name such as `_all_gather_base` or `allreduce_coalesced`.
fn operation_of(name: &str) -> CollectiveOp {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    // The longer names first: all-gather contains gather.
    const NAMES: &[(&str, CollectiveOp)] = &[
        ("barrier", CollectiveOp::Barrier),
        ("allreduce", CollectiveOp::AllReduce),
        ("reducescatter", CollectiveOp::ReduceScatter),
        ("allgather", CollectiveOp::AllGather),
        ("alltoall", CollectiveOp::AllToAll),
        ("broadcast", CollectiveOp::Broadcast),
        ("reduce", CollectiveOp::Reduce),
        ("gather", CollectiveOp::Gather),
        ("scatter", CollectiveOp::Scatter),
        ("send", CollectiveOp::Send),
        ("recv", CollectiveOp::Recv),
    ];
    let known = NAMES.iter().find(|(part, _)| letters.contains(part));
    known.map_or(CollectiveOp::Other, |(_, operation)| *operation)
}

/// The other side of `nccl:send 0->1` or `nccl:recv 1<-0`, as ranks of the group: it stands last.
fn peer_of(name: &str) -> Option<u32> {
    let (_, ranks) = name.split_once(' ')?;
    let (_, peer) = ranks.split_once("->").or_else(|| ranks.split_once("<-"))?;
    peer.trim().parse().ok()
}

/// Bytes of an element, by PyTorch's name of its type.
fn bytes_each(datatype: &str) -> Option<u64> {
    Some(match datatype {
        "Double" | "Long" | "ComplexFloat" => 8,
        "Float" | "Int" => 4,
        "Half" | "BFloat16" | "Short" => 2,
        "ComplexDouble" => 16,
        "Byte" | "Char" | "Bool" => 1,
        name if name.starts_with("Float8") => 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::CollectiveOp;

    use super::{members, operation_of, peer_of};

    #[test]
    fn names_of_every_kind_of_call_are_understood() {
        let cases = [
            ("all_reduce", CollectiveOp::AllReduce),
            ("allreduce_coalesced", CollectiveOp::AllReduce),
            ("all_reduce_barrier", CollectiveOp::Barrier),
            ("_all_gather_base", CollectiveOp::AllGather),
            ("all_gather_into_tensor_coalesced", CollectiveOp::AllGather),
            ("_reduce_scatter_base", CollectiveOp::ReduceScatter),
            ("reduce", CollectiveOp::Reduce),
            ("gather", CollectiveOp::Gather),
            ("scatter", CollectiveOp::Scatter),
            ("all_to_all", CollectiveOp::AllToAll),
            ("broadcast", CollectiveOp::Broadcast),
            ("send", CollectiveOp::Send),
            ("coalesced", CollectiveOp::Other),
        ];
        for (name, operation) in cases {
            assert_eq!(operation_of(name), operation, "{name}");
        }
    }

    #[test]
    fn the_peer_is_the_second_rank() {
        assert_eq!(peer_of("nccl:send 0->1"), Some(1));
        assert_eq!(peer_of("nccl:recv 0<-8"), Some(8));
        assert_eq!(peer_of("nccl:all_reduce"), None);
        assert_eq!(peer_of("nccl:send x"), None);
    }

    #[test]
    fn members_are_written_as_runs_in_their_order() {
        assert_eq!(members(&[0, 1, 2, 8]), "0-2,8");
        assert_eq!(members(&[3, 1, 2]), "3,1-2");
        assert_eq!(members(&[u32::MAX, 0]), "4294967295,0");
        assert_eq!(members(&[]), "");
    }
}
