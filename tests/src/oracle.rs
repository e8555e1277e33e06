//! The true ledger of a modelled rank, by brute force: every stretch between two neighbouring times is looked at on its
//! own, against all operations and all calls.
//!
//! This follows the published rules (the taxonomy and the equations at the head of the ledger's gap rules), not the code
//! that implements them, and takes from the model what the program has to infer: which operations waited for another.

use serde::{Deserialize, Serialize};

use crate::host::{DeviceOp, Host, HostEvent, HostKind, Work};

/// A launch call longer than this did more than launch (the documented bound).
const LONG_CALL_NS: u64 = 500_000;

/// What the device itself may take between launch and start (the documented bound).
const DEVICE_FLOOR_NS: u64 = 10_000;

/// Exclusive leaves, ns; names are those of the report's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direct {
    /// A kernel other than communication, or a fill.
    pub compute_ns: u64,
    /// Communication and no computation.
    pub comm_exposed_ns: u64,
    /// A copy and nothing else.
    pub memcpy_exposed_ns: u64,
    /// Nothing.
    pub idle_ns: u64,
}

/// Unions over time, ns, whatever else ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Communication.
    pub comm_ns: u64,
    /// Copies.
    pub memcpy_ns: u64,
}

/// Idle time by cause, ns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// The launching thread did something other than calling the driver.
    pub host_ns: u64,
    /// It was in an allocation or the like.
    pub driver_ns: u64,
    /// It waited for the device.
    pub sync_ns: u64,
    /// It was in a launch call.
    pub launch_ns: u64,
    /// The operation waited for another stream.
    pub dep_ns: u64,
    /// The device's own latency.
    pub device_ns: u64,
    /// Inside a graph replay: the model has none.
    pub graph_ns: u64,
    /// Nothing explains it.
    pub unknown_ns: u64,
}

/// The answer for one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Rank.
    pub rank: u32,
    /// From the first operation's begin to the last one's end, ns.
    pub wall_ns: u64,
    /// Exclusive leaves.
    pub direct: Direct,
    /// Unions.
    pub totals: Totals,
    /// Idle time by cause.
    pub idle: Idle,
}

/// Computes the true ledger of a rank.
#[must_use]
pub fn truth(host: &Host) -> Truth {
    let mut times: Vec<u64> = host.ops.iter().flat_map(|op| [op.start, op.end()]).collect();
    times.sort_unstable();
    times.dedup();
    let mut truth = Truth {
        rank: host.rank,
        wall_ns: times.last().zip(times.first()).map_or(0, |(end, start)| end - start),
        direct: Direct::default(),
        totals: Totals::default(),
        idle: Idle::default(),
    };
    for pair in times.windows(2) {
        let &[a, b] = pair else { continue };
        let resident: Vec<&DeviceOp> = host.ops.iter().filter(|op| op.start <= a && b <= op.end()).collect();
        let any = |wanted: fn(Work) -> bool| resident.iter().any(|op| wanted(op.work));
        let compute = any(|w| matches!(w, Work::Kernel | Work::Memset(_)));
        let comm = any(|w| matches!(w, Work::AllReduce(_)));
        let copy = any(|w| matches!(w, Work::Copy(_)));
        let ns = b - a;
        truth.totals.comm_ns += if comm { ns } else { 0 };
        truth.totals.memcpy_ns += if copy { ns } else { 0 };
        if compute {
            truth.direct.compute_ns += ns;
        } else if comm {
            truth.direct.comm_exposed_ns += ns;
        } else if copy {
            truth.direct.memcpy_exposed_ns += ns;
        } else {
            truth.direct.idle_ns += ns;
            explain(host, a, b, &mut truth.idle);
        }
    }
    truth
}

/// Books the gap `[a, b)`, which ends with an operation's begin.
fn explain(host: &Host, a: u64, b: u64, idle: &mut Idle) {
    let closing = host.ops.iter().find(|op| op.start == b);
    let launch = closing.and_then(|op| {
        host.events.iter().find(|e| e.kind == HostKind::Runtime { correlation: op.correlation })
    });
    let (Some(op), Some(launch)) = (closing, launch) else {
        idle.unknown_ns += b - a;
        return;
    };
    let h0 = launch.start.clamp(a, b);
    let h1 = (launch.start + launch.duration).clamp(h0, b);
    before_the_call(host, launch.thread, a, h0, idle);
    if launch.duration > LONG_CALL_NS {
        idle.driver_ns += h1 - h0;
    } else {
        idle.launch_ns += h1 - h0;
    }
    // Up to the end of what it waited for; on one device that was over before the device fell idle.
    let waited = op.waited_for.clamp(h1, b);
    idle.dep_ns += waited - h1;
    let h1 = waited;
    let floor = (h1 + DEVICE_FLOOR_NS).min(b);
    idle.device_ns += floor - h1;
    idle.unknown_ns += b - floor;
}

fn before_the_call(host: &Host, thread: usize, a: u64, h0: u64, idle: &mut Idle) {
    let calls: Vec<&HostEvent> = host
        .events
        .iter()
        .filter(|e| e.thread == thread && matches!(e.kind, HostKind::Runtime { .. }))
        .filter(|e| e.start < h0 && a < e.start + e.duration)
        .collect();
    let mut edges = vec![a, h0];
    edges.extend(calls.iter().flat_map(|c| [c.start.max(a), (c.start + c.duration).min(h0)]));
    edges.sort_unstable();
    for pair in edges.windows(2) {
        let &[from, to] = pair else { continue };
        let call = calls.iter().find(|c| c.start <= from && to <= c.start + c.duration);
        let leaf = match call.map(|c| (c.name.as_str(), c.start)) {
            Some(("cudaStreamSynchronize", _)) => &mut idle.sync_ns,
            Some(("cudaMalloc", _)) => &mut idle.driver_ns,
            // The copy was under way when the gap began: its caller waited for the device.
            Some(("cudaMemcpyAsync", start)) if start < a => &mut idle.sync_ns,
            Some(("cudaLaunchKernel" | "cudaLaunchKernelExC" | "cudaMemsetAsync" | "cudaMemcpyAsync", _)) => {
                &mut idle.launch_ns
            }
            _ => &mut idle.host_ns,
        };
        *leaf += to - from;
    }
}

#[cfg(test)]
mod tests {
    use super::truth;
    use crate::demo::job;

    #[test]
    fn leaves_of_a_rank_sum_to_its_wall_time() {
        for host in job().run() {
            let t = truth(&host);
            let direct = &t.direct;
            let sum = direct.compute_ns + direct.comm_exposed_ns + direct.memcpy_exposed_ns + direct.idle_ns;
            assert_eq!(sum, t.wall_ns);
            let i = &t.idle;
            let idle =
                i.host_ns + i.driver_ns + i.sync_ns + i.launch_ns + i.dep_ns + i.device_ns + i.unknown_ns;
            assert_eq!(idle, direct.idle_ns);
        }
    }

    #[test]
    fn a_slow_loader_makes_its_gpu_idle_and_the_other_rank_wait_in_communication() {
        let (slow, even) = (job(), crate::job::Job { slow_steps: Vec::new(), ..job() });
        let ledgers = |job: &crate::job::Job| -> Vec<_> { job.run().iter().map(truth).collect() };
        let (slow_ledgers, even_ledgers) = (ledgers(&slow), ledgers(&even));
        // The host runs ahead of its GPU, which hides a part of what the loader takes.
        let lost = slow.slow_load_ns * slow.slow_steps.len() as u64 / 2;
        assert!(slow_ledgers[1].idle.host_ns > even_ledgers[1].idle.host_ns + lost);
        assert!(slow_ledgers[0].direct.comm_exposed_ns > even_ledgers[0].direct.comm_exposed_ns + lost);
    }
}
