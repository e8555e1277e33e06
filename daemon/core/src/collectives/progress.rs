//! How far each rank had come in each communicator when a recording ended.
//!
//! A recording begins in the middle of a job, and each process counts its calls from then on: the counts of two ranks differ by
//! a number that stays the same. Kernels that were matched say which: the calls that launched the kernels of one operation
//! are one. So a rank whose kernels can be seen no longer (its process is stopped) is still known by its calls.

use std::collections::BTreeMap;

use stallscope_schemas::record::{CollectiveOp, gpu_op, op_flags};
use stallscope_schemas::units::{DeviceId, StackId, StringId, ThreadId, TimeNs};

use super::lanes::{self, Lane};
use super::matching::{operations, together};
use crate::capture::{Capture, ReadAt};
use crate::rows::{CollectiveCall, GpuOp};

/// Operations by which two counts are laid side by side.
const ENOUGH: u64 = 4;
/// Share of them that have to agree, in percent.
const AGREE_PERCENT: u64 = 90;
/// Calls of a rank that are looked at, the last ones.
const LAST: usize = 1024;
/// Calls of a thread that are read.
const MAX_CALLS: usize = 1 << 20;

/// A communicator in which something had not ended.
#[derive(Debug)]
pub(crate) struct Communicator {
    /// Ranks in it as the library says; 0 where unknown.
    pub(crate) size: u64,
    /// Its devices.
    pub(crate) members: Vec<Member>,
    /// Since when a kernel has not ended.
    pub(crate) open_since: TimeNs,
    /// How long the longest took that did end, ns.
    pub(crate) longest_ns: u64,
    /// Its name.
    pub(crate) operation: StringId,
}

/// One device in a communicator.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) device: DeviceId,
    /// Threads that launch on it there.
    pub(crate) threads: Vec<ThreadId>,
    /// The last calls, in order, by numbers that mean the same on all members; or why they cannot be numbered so.
    pub(crate) calls: Result<Vec<NumberedCall>, &'static str>,
}

/// A call whose number means the same on all members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberedCall {
    pub(crate) number: u64,
    pub(crate) at: TimeNs,
    pub(crate) operation: CollectiveOp,
    pub(crate) name: StringId,
    pub(crate) elements: u64,
    pub(crate) datatype: StringId,
    pub(crate) stack: StackId,
    /// Its kernel was seen to end.
    pub(crate) is_over: bool,
    /// Its kernel was seen to begin and not to end.
    pub(crate) is_open: bool,
}

/// Communicators in which a kernel had not ended when the recording did.
pub(crate) fn unfinished<S: ReadAt>(capture: &Capture<S>, devices: &[DeviceId]) -> Vec<Communicator> {
    // Nearly all recordings end without one: that is told by one column.
    let any = |device: &DeviceId| capture.may_have::<GpuOp>(device.0, gpu_op::FLAGS, op_flags::END_UNKNOWN);
    if !devices.iter().any(any) {
        return Vec::new();
    }
    let lanes = lanes::of(capture, devices, false);
    if lanes.iter().all(|lane| lane.open.is_empty()) {
        return Vec::new();
    }
    let clusters = together(&lanes, capture.tables());
    let mut all: Vec<Communicator> =
        clusters.iter().filter_map(|members| communicator(capture, members, &lanes)).collect();
    let alone = (0..lanes.len()).filter(|at| !clusters.iter().any(|members| members.contains(at)));
    let lone = alone.filter_map(|at| lanes.get(at)).find_map(|lane| Some((lane, lane.open.first()?)));
    if let Some((lane, open)) = lone.filter(|_| devices.len() > 1) {
        let calls = Err("its kernels could not be matched with those of other ranks");
        let member = Member { device: lane.device, threads: lane.threads.clone(), calls };
        let longest_ns = longest_ns(std::iter::once(lane));
        let (open_since, operation) = (open.start, open.name);
        all.push(Communicator { size: 0, members: vec![member], open_since, longest_ns, operation });
    }
    all
}

fn longest_ns<'a>(lanes: impl Iterator<Item = &'a Lane>) -> u64 {
    lanes.flat_map(|lane| &lane.marks).map(|mark| mark.end.since(mark.start)).max().unwrap_or(0)
}

fn communicator<S: ReadAt>(capture: &Capture<S>, members: &[usize], lanes: &[Lane]) -> Option<Communicator> {
    let of = |at: &usize| lanes.get(*at);
    let open = members.iter().filter_map(of).flat_map(|lane| &lane.open).min_by_key(|mark| mark.start)?;
    // By lane, how much less each counts than the first one.
    let reference = *members.iter().max_by_key(|at| of(at).map_or(0, |lane| lane.marks.len()))?;
    let mut votes: BTreeMap<usize, BTreeMap<i64, u64>> = BTreeMap::new();
    for kernels in operations(members, lanes) {
        let call = |lane: usize| {
            let (_, at) = *kernels.iter().find(|(of, _)| *of == lane)?;
            let call = lanes.get(lane)?.marks.get(at)?.call;
            (call > 0).then(|| i64::try_from(call).ok()).flatten()
        };
        let Some(first) = call(reference) else { continue };
        for &lane in members {
            if let Some(own) = call(lane) {
                let count = votes.entry(lane).or_default().entry(own.saturating_sub(first)).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
    let longest_ns = longest_ns(members.iter().filter_map(of));
    let members = members.iter().filter_map(|at| Some((votes.get(at), of(at)?)));
    let members: Vec<Member> = members
        .map(|(votes, lane)| Member {
            device: lane.device,
            threads: lane.threads.clone(),
            calls: ahead(votes).map(|ahead| calls(capture, lane, ahead)),
        })
        .collect();
    let size = lanes
        .iter()
        .filter(|lane| lane.group.is_some() && lane.open.contains(open))
        .map(|l| l.group_size)
        .max();
    Some(Communicator {
        size: size.unwrap_or(0),
        members,
        open_since: open.start,
        longest_ns,
        operation: open.name,
    })
}

/// By how much a rank's count is ahead of the reference's.
fn ahead(votes: Option<&BTreeMap<i64, u64>>) -> Result<i64, &'static str> {
    let votes = votes.ok_or("no kernel of it is known by its call on all ranks")?;
    let all: u64 = votes.values().sum();
    let (&ahead, &most) = votes
        .iter()
        .max_by_key(|(_, count)| **count)
        .ok_or("no kernel of it is known by its call on all ranks")?;
    if all < ENOUGH {
        return Err("too few of its operations were recorded on all ranks before");
    }
    if most.saturating_mul(100) < all.saturating_mul(AGREE_PERCENT) {
        return Err("calls of it were not recorded everywhere, so that counts do not stay level");
    }
    Ok(ahead)
}

/// The last calls of a lane.
fn calls<S: ReadAt>(capture: &Capture<S>, lane: &Lane, ahead: i64) -> Vec<NumberedCall> {
    let over = lane.marks.iter().map(|mark| mark.call).max().unwrap_or(0);
    let open = lane.open.iter().map(|mark| mark.call).filter(|call| *call > 0).min();
    let mut all: Vec<CollectiveCall> = lane
        .threads
        .iter()
        .flat_map(|thread| capture.rows::<CollectiveCall>(thread.0).take(MAX_CALLS))
        .filter(|call| call.group == lane.called && call.sequence > 0)
        .collect();
    all.sort_by_key(|call| call.sequence);
    let numbered = |call: &CollectiveCall| {
        let number = i64::try_from(call.sequence).ok()?.checked_sub(ahead)?;
        let is_open = open == Some(call.sequence);
        Some(NumberedCall {
            number: u64::try_from(number).ok()?,
            at: call.start,
            operation: call.operation,
            name: call.name,
            elements: call.elements,
            datatype: call.datatype,
            stack: call.stack,
            is_over: call.sequence <= over && open.is_none_or(|open| call.sequence < open),
            is_open,
        })
    };
    let skip = all.len().saturating_sub(LAST);
    all.iter().skip(skip).filter_map(numbered).collect()
}
