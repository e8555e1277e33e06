//! Who waits for whom, through whom, and down to which cause.
//!
//! Of GPUs the picture has all waiting for late ranks and all idle time; of ranks on CPUs all time off the CPU. Both are what the
//! ledger has, to the nanosecond.

use super::html::{Html, grouped, put};
use super::parts::{class, cpu_class, devices, value};
use super::sankey::{Flow, MOST_NODES, Node, draw};
use super::{Labels, plural};
use crate::ledger::{CommLeaf, CpuLeaf, IdleLeaf, Leaf, RootLeaf};
use crate::report::text::{duration, short_name};
use crate::report::{CpuCauseReport, DeviceReport, GpuReport, Report, ThreadName, saturating_sum};

/// Columns of the picture.
const COLUMNS: [&str; 4] = ["lost on", "waiting for", "because of", "which was held up by"];

pub(super) fn section(html: &mut Html, report: &Report, labels: &Labels) {
    put!(html; "<section id=\"blame\"><h2>Who waits for whom, and why</h2>\n<p class=\"how\">The width of a band is time. A column has \
        its " (MOST_NODES) " largest; the others are one band together, so that every column sums to the whole.</p>\n");
    let gpus = devices(report, true);
    if !gpus.is_empty() {
        of_gpus(html, &gpus, labels);
    }
    let cpus = devices(report, false);
    if !cpus.is_empty() {
        let off_cpu: Vec<Flow> = cpus.iter().flat_map(|device| cpu_flows(device, &cpus, labels)).collect();
        let lost = saturating_sum(cpus.iter().map(|device| off_cpu_ns(device)));
        put!(html; "<h3>Ranks on CPUs: time off the CPU, and what the thread that ended it did</h3>\n");
        picture(html, &off_cpu, lost, "all time of the driving threads off the CPU, by the direct ledger");
    }
    put!(html; "</section>\n");
}

fn of_gpus(html: &mut Html, gpus: &[&DeviceReport], labels: &Labels) {
    let (mut waits, mut all) = (Vec::new(), Vec::new());
    for device in gpus {
        let Some(gpu) = &device.gpu else { continue };
        waits.extend(wait_flows(device, gpu, gpus, labels));
        all.extend(idle_flows(device, gpu, labels));
    }
    let waited =
        saturating_sum(gpus.iter().filter_map(|d| Some(value(&d.gpu.as_ref()?.comm, CommLeaf::Wait.key()))));
    let idle = saturating_sum(gpus.iter().map(|d| value(&d.direct, Leaf::Idle.key())));
    if waited == 0 {
        put!(html; "<p class=\"none\">" (if gpus.len() > 1 {
            "No GPU is seen to wait for another one; what is below is idle time."
        } else {
            "With one GPU nobody waits for another; what is below is its idle time."
        }) "</p>\n");
        picture(html, &all, idle, "all idle time of the ledger");
        return;
    }
    all.extend(waits.iter().cloned());
    put!(html; "<div class=\"tabs\"><input type=\"radio\" name=\"blame\" id=\"blame-0\" checked><label for=\"blame-0\">waiting for late \
        ranks</label><input type=\"radio\" name=\"blame\" id=\"blame-1\"><label for=\"blame-1\">and idle time</label>\n<div class=\"panel\">");
    picture(html, &waits, waited, "all waiting for late ranks in the direct ledger");
    put!(html; "</div><div class=\"panel\">");
    picture(
        html,
        &all,
        waited.saturating_add(idle),
        "all waiting for late ranks and all idle time of the direct ledger",
    );
    put!(html; "</div></div>\n");
}

/// The picture, and whether it is whole.
fn picture(html: &mut Html, flows: &[Flow], ledger_ns: u64, what: &str) {
    let drawn = saturating_sum(flows.iter().map(|flow| flow.ns));
    if drawn == 0 && ledger_ns == 0 {
        put!(html; "<p class=\"none\">None: there is no such time.</p>\n");
        return;
    }
    let folded = draw(html, &COLUMNS, flows);
    put!(html; "<p class=\"how\" data-drawn=\"" (drawn) "\" data-ledger=\"" (ledger_ns) "\">" (duration(drawn)) " (" (grouped(drawn)) " ns) of "
        (duration(ledger_ns)) " (" (grouped(ledger_ns)) " ns): " (what) ".");
    if folded > 0 {
        put!(html; " " (plural(folded, "smaller node")) " of all columns stand under “others”.");
    }
    put!(html; "</p>\n");
}

fn rank(device: &DeviceReport, labels: &Labels) -> Node {
    Node { order: device.rank.unwrap_or(u32::MAX - 1), name: labels.get(&device.id), class: "k-rank" }
}

/// A rank that is to blame: the one that costs most first.
fn culprit(id: &str, labels: &Labels) -> Node {
    Node { order: 0, name: labels.get(id), class: "k-culprit" }
}

fn cause(name: String, class: &'static str) -> Node {
    Node { order: 0, name, class }
}

fn host_cause(leaf: CpuLeaf) -> Node {
    let name = match leaf {
        CpuLeaf::Compute => "host: busy on a CPU".to_owned(),
        leaf => format!("host: {}", leaf.text()),
    };
    cause(name, cpu_class(leaf))
}

/// What a device waited for others.
fn wait_flows(device: &DeviceReport, gpu: &GpuReport, all: &[&DeviceReport], labels: &Labels) -> Vec<Flow> {
    let mut flows = Vec::new();
    for wait in &gpu.waits {
        let Some((last, through)) = wait.via.split_last() else { continue };
        let middle = through.first().map(|first| match through.len() {
            1 => culprit(first, labels),
            more => Node {
                name: format!("{} and {} more", labels.get(first), more - 1),
                ..culprit(first, labels)
            },
        });
        let mut flow = |why: Node, ns: u64| {
            let path =
                vec![Some(rank(device, labels)), middle.clone(), Some(culprit(last, labels)), Some(why)];
            flows.push(Flow { path, ns });
        };
        if wait.host.is_empty() {
            let leaf = RootLeaf::ALL
                .iter()
                .find(|leaf| leaf.key() == wait.leaf)
                .copied()
                .unwrap_or(RootLeaf::Unknown);
            let busy = all.iter().find(|d| d.id == *last).and_then(|d| d.gpu.as_ref()).and_then(mostly);
            let name = match (leaf, busy) {
                (RootLeaf::Compute, _) => "more or slower kernels".to_owned(),
                (RootLeaf::Unseen, _) => "not seen".to_owned(),
                (RootLeaf::IdleHost, Some(what)) => format!("host: mostly {what}"),
                (RootLeaf::IdleHost, None) => "host: not followed".to_owned(),
                _ => leaf.text().to_owned(),
            };
            flow(cause(name, class(leaf)), wait.ns);
        }
        for &leaf in CpuLeaf::ALL {
            let ns = value(&wait.host, leaf.key());
            if ns > 0 {
                flow(host_cause(leaf), ns);
            }
        }
    }
    flows
}

/// What most of a host's work was by the stacks of a trace.
fn mostly(gpu: &GpuReport) -> Option<&'static str> {
    let all = saturating_sum(gpu.idle_work.iter().map(|work| work.ns));
    gpu.idle_work.first().filter(|work| work.ns > all / 2).map(|work| work.what)
}

/// Why a device was idle.
fn idle_flows(device: &DeviceReport, gpu: &GpuReport, labels: &Labels) -> Vec<Flow> {
    let mut flows = Vec::new();
    let mut flow = |why: Node, ns: u64| {
        if ns > 0 {
            let itself = Node { order: 1, name: "itself".to_owned(), class: "k-rank" };
            flows.push(Flow { path: vec![Some(rank(device, labels)), None, Some(itself), Some(why)], ns });
        }
    };
    for &leaf in IdleLeaf::ALL.iter().filter(|leaf| **leaf != IdleLeaf::Host) {
        let root = RootLeaf::of_idle(leaf);
        flow(cause(root.text().to_owned(), class(root)), value(&gpu.idle, leaf.key()));
    }
    if let Some(host) = &gpu.idle_host {
        for &leaf in CpuLeaf::ALL {
            flow(host_cause(leaf), value(&host.root, leaf.key()));
        }
    }
    for work in &gpu.idle_work {
        flow(cause(format!("host: {}", work.what), class(RootLeaf::IdleHost)), work.ns);
    }
    flows
}

/// The leaves of a rank on CPUs in which its threads were on none.
fn off_cpu_ns(device: &DeviceReport) -> u64 {
    let off_cpu = CpuLeaf::ALL.iter().filter(|leaf| !leaf.is_on_cpu());
    saturating_sum(off_cpu.map(|leaf| value(&device.direct, leaf.key())))
}

fn cpu_flows(device: &DeviceReport, all: &[&DeviceReport], labels: &Labels) -> Vec<Flow> {
    let Some(cpu) = &device.cpu else { return Vec::new() };
    let mut flows = Vec::new();
    for &leaf in CpuLeaf::ALL.iter().filter(|leaf| !leaf.is_on_cpu()) {
        let mut left = value(&device.direct, leaf.key());
        for listed in cpu.causes.iter().filter(|listed| listed.leaf == leaf.key()) {
            let ns = listed.ns.min(left);
            left -= ns;
            if ns > 0 {
                flows.push(Flow { path: cpu_path(device, listed, all, labels), ns });
            }
        }
        if left > 0 {
            let why = cause(format!("{}, smaller causes", leaf.text()), cpu_class(leaf));
            let itself = Node { order: 1, name: "not listed".to_owned(), class: "k-rest" };
            flows.push(Flow {
                path: vec![Some(rank(device, labels)), None, Some(itself), Some(why)],
                ns: left,
            });
        }
    }
    flows
}

fn cpu_path(
    device: &DeviceReport,
    listed: &CpuCauseReport,
    all: &[&DeviceReport],
    labels: &Labels,
) -> Vec<Option<Node>> {
    let thread = |thread: &ThreadName| {
        let name = thread.comm.as_deref().or(thread.name.as_deref()).unwrap_or("thread");
        let of = all.iter().find(|d| d.pids.contains(&thread.pid) && d.id != device.id);
        let name = match of {
            Some(other) => format!("{} · {}", labels.get(&other.id), short_name(name, 20)),
            None => format!("{} (process {})", short_name(name, 24), thread.pid),
        };
        Node { order: 0, name, class: "k-culprit" }
    };
    let (through, last) = match listed.wakers.split_last() {
        Some((last, through)) => (through.first().map(thread), thread(last)),
        None => (None, Node { order: 1, name: "itself".to_owned(), class: "k-rank" }),
    };
    let root =
        CpuLeaf::ALL.iter().find(|leaf| leaf.key() == listed.root).copied().unwrap_or(CpuLeaf::Unknown);
    let name = match (&listed.object, &listed.call) {
        (Some(object), _) if !root.is_on_cpu() => format!("{} · {}", root.text(), short_name(object, 24)),
        (None, Some(call)) if !root.is_on_cpu() => format!("{} · {}", root.text(), short_name(call, 24)),
        _ => root.text().to_owned(),
    };
    vec![Some(rank(device, labels)), through, Some(last), Some(cause(name, cpu_class(root)))]
}
