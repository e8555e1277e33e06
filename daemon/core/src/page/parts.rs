//! The leaves of a device as parts of a bar: what each is called, how long it was, and its colour.

use serde_json::{Map, Value};

use crate::ledger::{CommLeaf, CpuLeaf, IdleLeaf, Leaf, RootLeaf};
use crate::report::{DeviceReport, GpuReport, Report, saturating_sum};

/// One leaf of one device, or of several together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Key in JSON of the root ledger, which names the leaves of both here.
    pub(super) key: &'static str,
    /// Name.
    pub(super) text: &'static str,
    /// CSS class of the colour.
    pub(super) class: &'static str,
    /// By its own doing, ns.
    pub(super) direct_ns: u64,
    /// With waits charged to what they are due to, ns.
    pub(super) root_ns: u64,
}

pub(super) fn value(map: &Map<String, Value>, key: &str) -> u64 {
    map.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// The parts of a device, all of its leaves in the order of the root ledger; each of the two columns sums to its wall time.
pub(super) fn parts(device: &DeviceReport) -> Vec<Part> {
    if let Some(gpu) = &device.gpu {
        let part = |&leaf: &RootLeaf| Part {
            key: leaf.key(),
            text: text(leaf),
            class: class(leaf),
            direct_ns: direct_ns(device, gpu, leaf),
            root_ns: value(&gpu.root, leaf.key()),
        };
        return RootLeaf::ALL.iter().map(part).collect();
    }
    let root = device.cpu.as_ref().map_or(&device.direct, |cpu| &cpu.root);
    let part = |&leaf: &CpuLeaf| Part {
        key: leaf.key(),
        text: leaf.text(),
        class: cpu_class(leaf),
        direct_ns: value(&device.direct, leaf.key()),
        root_ns: value(root, leaf.key()),
    };
    CpuLeaf::ALL.iter().map(part).collect()
}

/// The parts of several devices of one kind together.
pub(super) fn total<'a>(devices: impl Iterator<Item = &'a DeviceReport>) -> Vec<Part> {
    let mut sum: Vec<Part> = Vec::new();
    for device in devices {
        let own = parts(device);
        if sum.is_empty() {
            sum = own;
            continue;
        }
        for (sum, own) in sum.iter_mut().zip(own) {
            sum.direct_ns = sum.direct_ns.saturating_add(own.direct_ns);
            sum.root_ns = sum.root_ns.saturating_add(own.root_ns);
        }
    }
    sum
}

/// Devices of a report that are GPUs, or ranks on CPUs.
pub(super) fn devices(report: &Report, gpus: bool) -> Vec<&DeviceReport> {
    report.devices.iter().filter(|d| d.gpu.is_some() == gpus).collect()
}

pub(super) fn wall_ns<'a>(devices: impl Iterator<Item = &'a DeviceReport>) -> u64 {
    saturating_sum(devices.map(|d| d.wall_ns))
}

/// Both ledgers have the same leaves but one: what waited for a late rank, and what of it nobody is seen to be to blame for.
fn text(leaf: RootLeaf) -> &'static str {
    if leaf == RootLeaf::Unseen { "waiting for a late rank" } else { leaf.text() }
}

fn direct_ns(device: &DeviceReport, gpu: &GpuReport, leaf: RootLeaf) -> u64 {
    let direct = |leaf: Leaf| value(&device.direct, leaf.key());
    let comm = |leaf: CommLeaf| value(&gpu.comm, leaf.key());
    let idle = |leaf: IdleLeaf| value(&gpu.idle, leaf.key());
    match leaf {
        RootLeaf::Compute => direct(Leaf::Compute),
        RootLeaf::Unseen => comm(CommLeaf::Wait),
        RootLeaf::Uncertain => comm(CommLeaf::Uncertain),
        RootLeaf::Floor => comm(CommLeaf::Floor),
        RootLeaf::Excess => comm(CommLeaf::Excess),
        RootLeaf::Unsplit => comm(CommLeaf::Unsplit),
        RootLeaf::Memcpy => direct(Leaf::MemcpyExposed),
        RootLeaf::IdleHost => idle(IdleLeaf::Host),
        RootLeaf::IdleDriver => idle(IdleLeaf::Driver),
        RootLeaf::IdleSync => idle(IdleLeaf::Sync),
        RootLeaf::IdleLaunch => idle(IdleLeaf::Launch),
        RootLeaf::IdleDep => idle(IdleLeaf::Dep),
        RootLeaf::IdleDevice => idle(IdleLeaf::Device),
        RootLeaf::IdleGraph => idle(IdleLeaf::Graph),
        RootLeaf::IdleUnknown => idle(IdleLeaf::Unknown),
        RootLeaf::OtherProcess => direct(Leaf::OtherProcess),
        RootLeaf::Profiler => direct(Leaf::Profiler),
        RootLeaf::Unknown => direct(Leaf::Unknown),
    }
}

/// The colour of a leaf: work recedes, losses stand out, what is not known is hatched.
pub(super) fn class(leaf: RootLeaf) -> &'static str {
    match leaf {
        RootLeaf::Compute => "k-compute",
        RootLeaf::Unseen => "k-wait",
        RootLeaf::Uncertain => "k-uncertain",
        RootLeaf::Floor => "k-floor",
        RootLeaf::Excess => "k-excess",
        RootLeaf::Unsplit => "k-unsplit",
        RootLeaf::Memcpy => "k-copy",
        RootLeaf::IdleHost => "k-host",
        RootLeaf::IdleDriver => "k-driver",
        RootLeaf::IdleSync => "k-sync",
        RootLeaf::IdleLaunch => "k-launch",
        RootLeaf::IdleDep => "k-dep",
        RootLeaf::IdleDevice => "k-device",
        RootLeaf::IdleGraph => "k-graph",
        RootLeaf::OtherProcess => "k-other",
        RootLeaf::Profiler => "k-profiler",
        RootLeaf::IdleUnknown | RootLeaf::Unknown => "k-unknown",
    }
}

pub(super) fn cpu_class(leaf: CpuLeaf) -> &'static str {
    match leaf {
        CpuLeaf::Compute => "k-compute",
        CpuLeaf::CommOnCpu => "k-floor",
        CpuLeaf::CommBlocked => "k-wait",
        CpuLeaf::RunQueue => "k-launch",
        CpuLeaf::Throttled => "k-driver",
        CpuLeaf::Lock => "k-dep",
        CpuLeaf::PageFault => "k-device",
        CpuLeaf::BlockIo => "k-host",
        CpuLeaf::Network => "k-excess",
        CpuLeaf::Ipc => "k-sync",
        CpuLeaf::Sleep => "k-graph",
        CpuLeaf::Syscall => "k-copy",
        CpuLeaf::Stopped => "k-other",
        CpuLeaf::Unknown => "k-unknown",
    }
}
