//! The rule table: what is worth saying, from which share on it counts as a problem, and what to try.
//!
//! Shares are of the device's wall time. Below `notice` nothing is said; from `notice` on it is mentioned, from `warning`
//! on it is called a problem. The thresholds are judgements, kept in one place so that they can be argued about: a percent
//! or two of idle time is what dispatch costs in a healthy job, a twentieth is worth a person's hour, a fifth is what
//! fleets find when they first look. docs/findings.md shows the same table to users, and a test holds the two together.

use super::Severity;

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Stable name.
    pub id: &'static str,
    /// Group in JSON.
    pub category: &'static str,
    /// Shares of wall time from which the severity is notice, warning, critical. Above 1 means never.
    pub thresholds: [f64; 3],
    /// One concrete thing to try.
    pub advice: &'static str,
}

const NEVER: f64 = 2.0;

macro_rules! rules {
    ($($id:literal $category:literal [$n:expr, $w:expr, $c:expr] $advice:literal;)*) => {
        /// All rules.
        pub const RULES: &[Rule] = &[$(Rule {
            id: $id, category: $category, thresholds: [$n, $w, $c], advice: $advice,
        }),*];
    };
}

rules! {
    "idle-data-loading" "idle" [0.02, 0.05, 0.20]
        "give the DataLoader workers (num_workers > 0, persistent_workers, prefetch_factor, pin_memory) or cheaper decoding, so that the next batch is ready before the step ends";
    "idle-checkpoint" "idle" [0.02, 0.05, 0.20]
        "write checkpoints asynchronously (torch.distributed.checkpoint.async_save) or less often";
    "idle-compilation" "idle" [0.02, 0.05, 0.20]
        "warm up before measuring, mark dynamic shapes, and keep a persistent compile cache";
    "idle-garbage-collection" "idle" [0.02, 0.05, 0.20]
        "call gc.freeze() after start-up and collect by hand every N steps, at the same step on all ranks";
    "idle-device-read" "idle" [0.02, 0.05, 0.20]
        "keep the value on the device: log it every N steps, or copy it without blocking and read it a step later";
    "idle-logging" "idle" [0.02, 0.05, 0.20]
        "log every N steps, from another thread";
    "idle-optimizer" "idle" [0.02, 0.05, 0.20]
        "use the fused or foreach optimizer (fused=True) and zero_grad(set_to_none=True)";
    "idle-collective-call" "idle" [0.02, 0.05, 0.20]
        "bucket small collectives together, and issue them from a thread that is not behind";
    "idle-backward" "idle" [0.02, 0.05, 0.20]
        "the host cannot launch the backward pass fast enough: torch.compile, CUDA graphs or a larger batch give the device more work per launch";
    "idle-framework" "idle" [0.02, 0.05, 0.20]
        "the host cannot launch fast enough: torch.compile (mode=\"reduce-overhead\"), CUDA graphs or a larger batch give the device more work per launch";
    "idle-kernel" "idle" [0.02, 0.05, 0.20]
        "the kernel computes for what the launching thread asks of it: files, page faults and locks of its memory cost CPU time; move such calls to another thread or process, map less, and reuse buffers";
    "idle-block-io" "idle" [0.02, 0.05, 0.20]
        "read ahead in more workers (num_workers, prefetch_factor), keep the data on a faster or local disk, and write checkpoints asynchronously";
    "idle-network" "idle" [0.02, 0.05, 0.20]
        "look at the peer: the host waits for it before it can launch; fetch ahead in another thread";
    "idle-run-queue" "idle" [0.02, 0.05, 0.20]
        "the launching thread cannot get a CPU: lower OMP_NUM_THREADS and num_workers, pin ranks apart, and move other work off the host";
    "idle-throttled" "idle" [0.01, 0.03, 0.10]
        "raise the CPU limit of the container (cpu.max), or start fewer threads: a rank that may not run cannot launch";
    "idle-lock" "idle" [0.02, 0.05, 0.20]
        "find out who holds it: the evidence names the thread that ended the wait, flamegraph --weight gpu-idle what it did";
    "idle-other-thread" "idle" [0.02, 0.05, 0.20]
        "the work of that thread is on the way to the next launch: start more of its kind, or make it cheaper";
    "idle-page-fault" "idle" [0.02, 0.05, 0.20]
        "keep the launching thread's memory resident: reuse buffers, avoid swap, raise memory.high";
    "idle-ipc" "idle" [0.02, 0.05, 0.20]
        "look at the process at the other end of the pipe or socket: it was not recorded, does not belong to the job, or the chain to it is longer than eight threads";
    "idle-sleep" "idle" [0.02, 0.05, 0.20]
        "whoever sleeps asks for this time, at the line that the evidence names: wait for the event in place of polling for it";
    "idle-syscall" "idle" [0.02, 0.05, 0.20]
        "the stack shows what asks for the call";
    "idle-stopped" "idle" [0.01, 0.03, 0.10]
        "someone stops the process: a debugger, a checkpointer, a job scheduler, or SIGSTOP by hand";
    "idle-host-unseen" "idle" [0.02, 0.05, 0.20]
        "nothing was recorded on the launching thread then: profile with with_stack=True, or record on the host";
    "idle-launch" "idle" [0.02, 0.10, 0.30]
        "launch less: CUDA graphs, torch.compile or fused kernels";
    "idle-sync" "idle" [0.02, 0.05, 0.15]
        "remove the synchronisation: .item(), .cpu(), print of a tensor and torch.cuda.synchronize() stop the launching thread until the device is empty";
    "idle-driver" "idle" [0.01, 0.03, 0.10]
        "allocate, load modules and instantiate graphs before the loop; let the caching allocator keep its memory (expandable_segments:True, no empty_cache() in the loop)";
    "idle-dependency" "idle" [0.02, 0.05, 0.20]
        "the next kernel waits for another stream or device: look at what that stream was doing";
    "idle-graph" "idle" [0.02, 0.10, 0.30]
        "the gaps are between nodes of one graph: fewer, larger nodes help";
    "idle-device" "idle" [0.02, 0.10, 0.30]
        "kernels are so short that the device's own start-up latency shows: fuse them or use a graph";
    "device-shared" "sharing" [0.02, 0.05, 0.20]
        "give each job a GPU of its own, or a part of one (MIG): what others run on it makes this job's operations wait";
    "device-shared-unseen" "sharing" [NEVER, NEVER, NEVER]
        "record these processes as well (--pid), so that their share of the device is told apart from the job's idle time";
    "idle-unknown" "idle" [0.02, 0.10, NEVER]
        "record with the host side on (ProfilerActivity.CPU, nsys -t cuda,nvtx,osrt), so that the gaps can be explained";
    "communication-exposed" "communication" [0.02, 0.10, 0.30]
        "overlap it with computation (bucket sizes, prefetch in FSDP, a separate stream), and check whether one rank is late";
    "communication-slow" "communication" [0.02, 0.05, 0.20]
        "look at the link that is named (cable, switch port, NIC firmware, PCIe slot) and at who else sends through it; where none is, compare the operation's size and algorithm with those of the fast ones";
    "memcpy-exposed" "memcpy" [0.02, 0.05, 0.15]
        "copy from pinned memory with non_blocking=True on a stream of its own, a batch ahead";
    "memcpy-exposed-device" "memcpy" [0.02, 0.05, 0.15]
        "avoid the copies within the device (clone, contiguous, cat of tensors that are used once) or fuse them into the kernels around them";
    "compute-dominant-kernel" "compute" [NEVER, NEVER, NEVER]
        "to go faster from here, this kernel is where the time is";
    "steps-slow" "steps" [0.01, 0.03, 0.10]
        "compare a slow step with a usual one: report --json has a ledger for each";
    "rank-late" "rank" [0.01, 0.05, 0.20]
        "look at what this rank does that the others do not: its other findings say; the ranks that wait are not the problem";
    "rank-straggler" "rank" [0.03, 0.09, 0.20]
        "one slow worker: check its clocks, throttling and host, and exchange the machine; a slow last stage: give it fewer layers; neither: balance sequence lengths over micro-batches";
    "rank-block-io" "rank" [0.02, 0.05, 0.20]
        "read ahead in more workers (num_workers, prefetch_factor), keep the data on a faster or local disk, and write checkpoints asynchronously";
    "rank-network" "rank" [0.02, 0.10, 0.30]
        "look at the peer and at connections[] in report --json: retransmits and round-trip time tell a slow link from a slow peer";
    "rank-run-queue" "rank" [0.02, 0.05, 0.20]
        "more threads want to run than there are CPUs: lower OMP_NUM_THREADS and num_workers, pin ranks apart, and move other work off the host";
    "rank-throttled" "rank" [0.01, 0.03, 0.10]
        "raise the CPU limit of the container (cpu.max), or start fewer threads";
    "rank-lock" "rank" [0.02, 0.05, 0.20]
        "find out who holds it: the stack shows the lock, flamegraph --weight wait shows who ended each wait";
    "rank-other-thread" "rank" [0.05, 0.20, 0.40]
        "the work of that thread is on the way: start more of its kind, or make it cheaper; flamegraph --weight cpu shows what it does";
    "rank-page-fault" "rank" [0.02, 0.05, 0.20]
        "keep memory mapped and resident: read files in place of mapping them, avoid swap, raise memory.high, reuse buffers";
    "rank-ipc" "rank" [0.02, 0.10, 0.30]
        "look at the process at the other end of the pipe or socket: it was not recorded, does not belong to the job, or the chain to it is longer than eight threads";
    "rank-sleep" "rank" [0.02, 0.05, 0.20]
        "whoever sleeps asks for this time, at the line that the evidence names: wait for the event in place of polling for it";
    "rank-syscall" "rank" [0.02, 0.10, 0.30]
        "the stack shows what asks for the call";
    "rank-stopped" "rank" [0.01, 0.03, 0.10]
        "someone stops the process: a debugger, a checkpointer, a job scheduler, or SIGSTOP by hand";
    "rank-collective" "rank" [0.10, NEVER, NEVER]
        "a rank that waits in collectives waits for a later one or for the network: look at the rank that is late";
    "hang-operation" "hang" [0.10, 0.30, 0.60]
        "a collective waits for a rank that does not come, a kernel for memory that nobody writes: look at the other ranks of its communicator, and at what the launching thread waits for";
    "hang-collective" "hang" [NEVER, NEVER, NEVER]
        "look at the ranks named, not at those that wait: py-spy dump and nvidia-smi on their hosts say whether a process is gone, stopped or holds the GIL, and whether its GPU has an error (Xid)";
    "capture-clock" "capture" [0.001, NEVER, NEVER]
        "record anew; if it stays, report it: the recorder compares the clocks of the agent and of the host all the time";
    "capture-unseen" "capture" [0.02, 0.10, NEVER]
        "record for longer, or start the job under stallscope; where this goes on, the device is at work from before the recording: look at its utilisation, and at the other ranks";
    "hang-standstill" "hang" [NEVER, NEVER, NEVER]
        "look at the ranks named, not at those in communication: py-spy dump --native on their hosts says where each is; where none is named, record while the job begins to hang, or import Flight Recorder dumps";
    "capture-unknown" "capture" [0.01, 0.05, 0.20]
        "records are missing for this time; the losses below say why";
}

/// The rule of that name. A name that is not in the table is a defect that the tests find; it reads as a rule that never
/// fires.
#[must_use]
pub fn rule(id: &str) -> Rule {
    let missing = Rule { id: "", category: "", thresholds: [NEVER; 3], advice: "" };
    RULES.iter().find(|r| r.id == id).copied().unwrap_or(missing)
}

impl Rule {
    /// How bad a share is; `None` below the rule's first threshold.
    #[must_use]
    pub fn severity(&self, share: f64) -> Option<Severity> {
        let [notice, warning, critical] = self.thresholds;
        if share >= critical {
            Some(Severity::Critical)
        } else if share >= warning {
            Some(Severity::Warning)
        } else if share >= notice {
            Some(Severity::Notice)
        } else {
            None
        }
    }
}
