//! The kernel and what this process may ask of it.

use stallscope_ebpf::Standing;

use super::facts::{Cgroups, KernelSymbols};
use super::{Check, Group, Seen, degraded, missing};

/// Numbers of capabilities, as in `linux/capability.h`.
pub(super) const SYS_PTRACE: u32 = 19;
pub(super) const SYS_ADMIN: u32 = 21;
pub(super) const SYS_RESOURCE: u32 = 24;
pub(super) const SYSLOG: u32 = 34;
pub(super) const PERFMON: u32 = 38;
pub(super) const BPF: u32 = 39;
pub(super) const CHECKPOINT_RESTORE: u32 = 40;

/// Gives the executable what it needs; root needs nothing.
const SETCAP: &str = "run as root (sudo stallscope …), or once: sudo setcap \
                      cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_checkpoint_restore=ep \
                      \"$(command -v stallscope)\"";

pub(super) fn kernel(seen: &Seen) -> Vec<Check> {
    let facts = &seen.facts;
    let kernel = &facts.kernel;
    let check = |id: &str, name: &str, finding: String, standing| {
        Check::new(&format!("kernel.{id}"), Group::Kernel, name, finding, standing)
    };
    let release = if kernel.at_least(5, 15) {
        Standing::Works
    } else {
        missing(
            format!("kernel {} is older than 5.15", kernel.release),
            "boot kernel 5.15 or newer (on Ubuntu 20.04: sudo apt install linux-generic-hwe-20.04)",
        )
    };
    let types = if kernel.btf {
        Standing::Works
    } else {
        missing(
            format!(
                "kernel {} does not describe its types: /sys/kernel/btf/vmlinux is missing",
                kernel.release
            ),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (check: grep BTF= \"/boot/config-$(uname -r)\")",
        )
    };
    let types_found = match kernel.btf {
        true => format!("/sys/kernel/btf/vmlinux, {:.1} MB", mb(facts.btf_bytes)),
        false => "no /sys/kernel/btf/vmlinux".to_owned(),
    };
    vec![
        check("release", "release", format!("{}; 5.15 or newer is needed", kernel.release), release).needed(),
        check("btf", "types (BTF)", types_found, types).needed(),
        lockdown(seen).needed(),
        tracefs(seen),
        uprobes(seen),
        symbols(seen),
        perf_events(seen),
        cgroups(seen),
    ]
}

fn lockdown(seen: &Seen) -> Check {
    let lockdown = seen.facts.kernel.lockdown.as_str();
    let (finding, standing) = match lockdown {
        "confidentiality" => (
            "confidentiality".to_owned(),
            missing(
                "kernel lockdown is in confidentiality mode, which forbids reading kernel memory",
                "boot with lockdown=integrity on the kernel's command line; it cannot be loosened while running",
            ),
        ),
        "" if seen.facts.lockdown_known => ("not understood".to_owned(), Standing::Works),
        "" => ("not built in, or /sys/kernel/security is not mounted".to_owned(), Standing::Works),
        mode => (mode.to_owned(), Standing::Works),
    };
    Check::new("kernel.lockdown", Group::Kernel, "lockdown", finding, standing)
}

fn tracefs(seen: &Seen) -> Check {
    // The probes attach by the kernel's types and not by names in this file system.
    let finding = match &seen.facts.tracefs {
        Some(place) => format!("mounted at {place}; not needed"),
        None => "not mounted; not needed, nothing is lost".to_owned(),
    };
    Check::new("kernel.tracefs", Group::Kernel, "tracefs", finding, Standing::Works)
}

fn uprobes(seen: &Seen) -> Check {
    let facts = &seen.facts;
    let (finding, standing) = if facts.kernel.at_least(6, 6) {
        ("uprobe.multi (6.6 or newer)", Standing::Works)
    } else if !facts.uprobe_events {
        (
            "no uprobe.multi (before 6.6), no perf uprobes",
            degraded(
                "collective calls",
                "boot kernel 6.6 or newer, or one built with CONFIG_UPROBE_EVENTS=y",
            ),
        )
    } else if !facts.has(SYS_ADMIN) {
        (
            "perf uprobes (before 6.6), which need CAP_SYS_ADMIN",
            degraded("collective calls", "run as root (sudo stallscope …), or boot kernel 6.6 or newer"),
        )
    } else {
        // The collectives probe says itself that it takes longer this way.
        ("perf uprobes (before 6.6)", Standing::Works)
    };
    Check::new("kernel.uprobes", Group::Kernel, "uprobes", finding, standing)
}

fn symbols(seen: &Seen) -> Check {
    let facts = &seen.facts;
    let restrict = facts.kptr_restrict.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let lost = "names of kernel functions in stacks";
    let (finding, standing) = match facts.symbols {
        KernelSymbols::Shown => ("/proc/kallsyms shows addresses".to_owned(), Standing::Works),
        KernelSymbols::Absent => {
            ("no /proc/kallsyms".to_owned(), degraded(lost, "boot a kernel built with CONFIG_KALLSYMS=y"))
        }
        KernelSymbols::Hidden => {
            // At 2 they are hidden from everyone.
            let remedy = if facts.has(SYSLOG) { "sudo sysctl kernel.kptr_restrict=1" } else { SETCAP };
            let finding = format!("/proc/kallsyms shows no addresses (kernel.kptr_restrict is {restrict})");
            (finding, degraded(lost, remedy))
        }
    };
    Check::new("kernel.symbols", Group::Kernel, "kernel symbols", finding, standing)
}

fn perf_events(seen: &Seen) -> Check {
    let facts = &seen.facts;
    let paranoid = facts.perf_event_paranoid;
    let cycles = if facts.hardware_counters {
        "samples by the CPU's cycles"
    } else {
        "samples by the CPU's clock: no cycle counter here, as in most virtual machines"
    };
    let (finding, standing) = match paranoid {
        None => (
            "no perf events".to_owned(),
            degraded(
                "what threads run while they are on a CPU",
                "boot a kernel built with CONFIG_PERF_EVENTS=y",
            ),
        ),
        Some(level) => {
            let finding = format!("{cycles}; kernel.perf_event_paranoid is {level}");
            let permitted = level <= 0 || facts.has(PERFMON) || facts.has(SYS_ADMIN);
            let standing = if permitted {
                Standing::Works
            } else {
                degraded("what threads run while they are on a CPU", SETCAP)
            };
            (finding, standing)
        }
    };
    Check::new("kernel.perf_events", Group::Kernel, "perf events", finding, standing)
}

fn cgroups(seen: &Seen) -> Check {
    let (finding, standing) = match seen.facts.cgroups {
        Cgroups::V1 => ("version 1", Standing::Works),
        Cgroups::V2 => ("version 2", Standing::Works),
        Cgroups::Both => ("version 1, and version 2 beside it", Standing::Works),
        Cgroups::NotMounted => ("not mounted here; processes tell theirs all the same", Standing::Works),
        Cgroups::NotBuiltIn => (
            "not built in",
            degraded(
                "containers, pods, Slurm steps and throttling",
                "boot a kernel built with CONFIG_CGROUPS=y",
            ),
        ),
    };
    Check::new("kernel.cgroups", Group::Kernel, "control groups", finding, standing)
}

pub(super) fn privileges(seen: &Seen) -> Vec<Check> {
    let facts = &seen.facts;
    let all = facts.has(SYS_ADMIN);
    // Whether what a capability is for is permitted, by it or by another one; and what is lost if not.
    let checks = [
        ("cap_bpf", BPF, all, missing("not permitted to load kernel probes: CAP_BPF is missing", SETCAP)),
        (
            "cap_perfmon",
            PERFMON,
            all,
            missing("not permitted to trace the kernel: CAP_PERFMON is missing", SETCAP),
        ),
        (
            "cap_sys_ptrace",
            SYS_PTRACE,
            false,
            degraded(
                "of other users' and protected processes: ranks, libraries, names of functions, Python frames, GPU work",
                SETCAP,
            ),
        ),
        (
            "cap_checkpoint_restore",
            CHECKPOINT_RESTORE,
            all,
            degraded(
                "names of functions and Python frames of programs and libraries that were replaced or deleted on disk",
                SETCAP,
            ),
        ),
    ];
    let mut out: Vec<Check> = Vec::new();
    for (id, number, implied, otherwise) in checks {
        let name = id.to_uppercase();
        let (finding, standing) = match (facts.has(number), implied) {
            (true, _) => ("there", Standing::Works),
            (false, true) => ("not there; CAP_SYS_ADMIN stands for it", Standing::Works),
            (false, false) => ("not there", otherwise),
        };
        let check = Check::new(&format!("privileges.{id}"), Group::Privileges, &name, finding, standing);
        out.push(if matches!(number, BPF | PERFMON) { check.needed() } else { check });
    }
    let unneeded = [
        ("cap_sys_admin", SYS_ADMIN, "not needed (where uprobe.multi is missing, collective calls need it)"),
        ("cap_sys_resource", SYS_RESOURCE, "not needed (kernels from 5.11 on count maps by control group)"),
    ];
    for (id, number, why) in unneeded {
        let there = if facts.has(number) { "there" } else { "not there" };
        let name = id.to_uppercase();
        let finding = format!("{there}; {why}");
        out.push(Check::new(&format!("privileges.{id}"), Group::Privileges, &name, finding, Standing::Works));
    }
    out
}

#[allow(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
