//! Made-up hosts: what is said about them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use stallscope_ebpf::{ProbeId, Standing};
use stallscope_jobs::{Host, Roots};

use super::facts::Facts;
use super::gpu::Libraries;
use super::trial::Trial;
use super::{Check, Diagnosis, Group, Seen, show};

/// A host on which all is well, until a test changes it.
struct HostFiles(tempfile::TempDir);

impl HostFiles {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files
            .write("proc/sys/kernel/osrelease", "6.8.0-45-generic\n")
            .write("proc/version", "Linux version 6.8.0-45-generic (buildd@lcy02) #45-Ubuntu SMP\n")
            .write("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n")
            .write("proc/sys/kernel/kptr_restrict", "1\n")
            .write("proc/sys/kernel/perf_event_paranoid", "4\n")
            .write("proc/kallsyms", "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n")
            .write("proc/meminfo", "MemTotal: 65000000 kB\nMemAvailable:   60000000 kB\n")
            .write("proc/uptime", "5000.00 9000.00\n")
            .write("proc/self/cgroup", "0::/user.slice\n")
            .write("proc/self/mounts", "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
            .write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
            .write("sys/kernel/btf/vmlinux", "\x01")
            .write("sys/devices/system/cpu/possible", "0-7\n")
            .write("sys/bus/event_source/devices/cpu/type", "4\n")
            .write("sys/bus/event_source/devices/uprobe/type", "7\n")
            .capabilities(0x1ff_ffff_ffff)
            .link("proc/self/ns/pid", "pid:[4026531836]")
            .link("proc/self/ns/user", "user:[4026531837]")
            .process(1, "systemd", &["/sbin/init"]);
        files
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn remove(&self, path: &str) -> &Self {
        fs::remove_file(self.root().join(path)).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
        self
    }

    fn capabilities(&self, set: u64) -> &Self {
        self.write("proc/self/status", &format!("Name:\tstallscope\nCapEff:\t{set:016x}\nSeccomp:\t0\n"))
    }

    fn process(&self, pid: u32, name: &str, command: &[&str]) -> &Self {
        let zeros = "0 ".repeat(30);
        self.write(
            &format!("proc/{pid}/stat"),
            &format!("{pid} ({name}) S 0 {pid} {pid} 0 -1 4194304 {zeros}\n"),
        )
        .write(&format!("proc/{pid}/status"), &format!("Name:\t{name}\nUid:\t0\t0\t0\t0\nNSpid:\t{pid}\n"))
        .write(&format!("proc/{pid}/cmdline"), &command.join("\0"))
        .write(&format!("proc/{pid}/environ"), "")
        .write(&format!("proc/{pid}/maps"), "")
        .link(&format!("proc/{pid}/exe"), command.first().unwrap())
    }

    /// What is said after the probes were tried with success, unless they could not be.
    fn diagnosis(&self) -> Diagnosis {
        Diagnosis::of(&self.seen())
    }

    fn seen(&self) -> Seen {
        let facts = Facts::read(self.root());
        // Where the kernel will do, what the probes say depends on the machine that the test runs on.
        let asked = stallscope_ebpf::probes::standings(&facts.kernel);
        let refused = asked.iter().any(|(id, _, s)| *id == ProbeId::Sched && !s.usable());
        let probes =
            asked.into_iter().map(|(id, sees, s)| (id, sees, if refused { s } else { Standing::Works }));
        let probes: Vec<_> = probes.collect();
        let trial = if refused {
            Trial::NotTried
        } else {
            Trial::Attached {
                standings: probes.iter().map(|(id, _, s)| (*id, s.clone())).collect(),
                attach: Duration::from_millis(200),
                detach: Duration::from_millis(50),
                map_bytes: 40 << 20,
            }
        };
        let roots = Roots { proc: self.root().join("proc"), host: self.root().to_owned() };
        Seen {
            processes: Host::scan_roots(&roots).ok(),
            libraries: Libraries::find(self.root()),
            facts,
            probes,
            trial,
        }
    }
}

fn check<'a>(diagnosis: &'a Diagnosis, id: &str) -> &'a Check {
    diagnosis.checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("no check {id}"))
}

fn status(diagnosis: &Diagnosis, id: &str) -> &'static str {
    match &check(diagnosis, id).standing {
        Standing::Works => "works",
        Standing::Degraded { .. } => "degraded",
        Standing::Missing { .. } => "missing",
    }
}

/// Checks outside of the GPU's group that are not as they should be.
fn complaints(diagnosis: &Diagnosis) -> Vec<&str> {
    let seen = diagnosis.checks.iter().filter(|c| c.group != Group::Gpu && c.standing != Standing::Works);
    seen.map(|c| c.id.as_str()).collect()
}

#[test]
fn on_a_fine_host_nothing_is_lost() {
    let diagnosis = HostFiles::new().diagnosis();
    assert_eq!(complaints(&diagnosis), [""; 0]);
    assert_eq!(diagnosis.recording(), "works");
    assert_eq!(diagnosis.obstacle(), None);
    assert_eq!(diagnosis.summary(), "recording works here; nothing is lost");
    let mut ids: Vec<&str> = diagnosis.checks.iter().map(|c| c.id.as_str()).collect();
    for probe in ProbeId::all() {
        assert!(ids.contains(&format!("probes.{probe}").as_str()));
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are unique");
}

#[test]
fn an_old_kernel_is_refused_by_its_release() {
    let files = HostFiles::new();
    files.write("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n");
    let diagnosis = files.diagnosis();
    assert_eq!(status(&diagnosis, "kernel.release"), "missing");
    assert_eq!(status(&diagnosis, "probes.sched"), "missing");
    assert_eq!(diagnosis.recording(), "impossible");
    assert_eq!(
        diagnosis.summary(),
        "recording does not work here: kernel 5.10.0-28-amd64 is older than 5.15"
    );
    let text = show::text(&diagnosis);
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    // What all probes lack is said once, beside the kernel's own line and the summary.
    assert_eq!(text.matches("is older than 5.15").count(), 3, "{text}");
}

#[test]
fn a_kernel_without_types_is_refused() {
    let files = HostFiles::new();
    files.remove("sys/kernel/btf/vmlinux");
    let diagnosis = files.diagnosis();
    assert_eq!(status(&diagnosis, "kernel.btf"), "missing");
    assert_eq!(diagnosis.recording(), "impossible");
}

#[test]
fn lockdown_matters_in_confidentiality_mode_only() {
    let files = HostFiles::new();
    for (mode, expected) in
        [("[none] integrity confidentiality", "works"), ("none integrity [confidentiality]", "missing")]
    {
        files.write("sys/kernel/security/lockdown", mode);
        let diagnosis = files.diagnosis();
        assert_eq!(status(&diagnosis, "kernel.lockdown"), expected);
        assert_eq!(diagnosis.obstacle().is_some(), expected == "missing");
    }
    files.remove("sys/kernel/security/lockdown");
    assert_eq!(status(&files.diagnosis(), "kernel.lockdown"), "works");
}

#[test]
fn each_capability_that_is_missing_is_named_with_what_it_loses() {
    const BPF_AND_PERFMON: u64 = 3 << 38;
    let files = HostFiles::new();
    files.capabilities(0);
    let none = files.diagnosis();
    for id in ["privileges.cap_bpf", "privileges.cap_perfmon"] {
        assert_eq!(status(&none, id), "missing");
    }
    assert_eq!(status(&none, "privileges.cap_sys_resource"), "works", "no kernel that is supported needs it");
    assert_eq!(status(&none, "kernel.perf_events"), "degraded");
    assert_eq!(none.recording(), "impossible");
    let Standing::Missing { remedy, .. } = &check(&none, "privileges.cap_bpf").standing else { panic!() };
    assert!(remedy.contains("sudo setcap"), "{remedy}");

    files.capabilities(BPF_AND_PERFMON);
    let few = files.diagnosis();
    assert_eq!(complaints(&few), ["privileges.cap_sys_ptrace", "privileges.cap_checkpoint_restore"]);
    assert_eq!(few.recording(), "degraded");
    assert_eq!(few.summary(), "recording works here; 2 things are not seen");

    // Before 6.6, uprobes are perf events, which CAP_PERFMON does not open.
    files.write("proc/sys/kernel/osrelease", "5.15.0-1063-azure\n");
    let Standing::Degraded { lost, .. } = &check(&files.diagnosis(), "kernel.uprobes").standing.clone()
    else {
        panic!()
    };
    assert_eq!(lost, "collective calls");

    // CAP_SYS_ADMIN stands for those that were once part of it, and not for CAP_SYS_PTRACE.
    files.capabilities(1 << 21).write("proc/sys/kernel/osrelease", "6.8.0\n");
    assert_eq!(complaints(&files.diagnosis()), ["privileges.cap_sys_ptrace"]);
}

#[test]
fn a_gvisor_sandbox_is_refused_by_name() {
    let files = HostFiles::new();
    files
        .write("proc/version", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n")
        .write("proc/sys/kernel/osrelease", "4.4.0\n")
        .remove("sys/kernel/btf/vmlinux");
    let diagnosis = files.diagnosis();
    assert_eq!(status(&diagnosis, "place.gvisor"), "missing");
    // Not the release, which is made up as well.
    assert!(diagnosis.summary().contains("gVisor"), "{}", diagnosis.summary());
}

#[test]
fn sandboxes_beside_us_are_named_and_do_not_hinder() {
    let files = HostFiles::new();
    files
        .process(71, "exe", &["runsc-sandbox", "--root=/run/containerd/runsc/k8s.io", "boot", "--bundle=/x"])
        .process(72, "containerd-shim", &["/opt/kata/bin/containerd-shim-kata-v2", "-namespace", "k8s.io"])
        .process(73, "grep", &["/usr/bin/grep", "containerd-shim-kata-v2", "runsc-sandbox"]);
    let diagnosis = files.diagnosis();
    assert_eq!(complaints(&diagnosis), ["place.gvisor", "place.kata"]);
    assert_eq!(check(&diagnosis, "place.gvisor").finding, "sandboxes on this host: 1 (pid 71)");
    assert_eq!(check(&diagnosis, "place.kata").finding, "sandboxes on this host: 1 (pid 72)");
    assert_eq!(diagnosis.recording(), "degraded");
}

#[test]
fn the_guest_of_a_kata_sandbox_is_refused_by_name() {
    let by_command_line = HostFiles::new();
    by_command_line
        .write("proc/cmdline", "tsc=reliable quiet systemd.unit=kata-containers.target agent.log=debug\n");
    let by_mount = HostFiles::new();
    by_mount.write("proc/self/mounts", "kataShared / virtiofs rw,relatime 0 0\n");
    for files in [by_command_line, by_mount] {
        let diagnosis = files.diagnosis();
        assert_eq!(complaints(&diagnosis), ["place.kata"]);
        assert!(diagnosis.summary().contains("Kata"), "{}", diagnosis.summary());
        assert_eq!(diagnosis.recording(), "impossible");
    }
}

#[test]
fn pids_that_are_not_the_hosts_are_refused() {
    let files = HostFiles::new();
    files.link("proc/self/ns/pid", "pid:[4026532201]");
    let diagnosis = files.diagnosis();
    let told = complaints(&diagnosis);
    assert!(told.contains(&"place.pid_namespace"), "{told:?}");
    assert!(told.iter().all(|id| *id == "place.pid_namespace" || id.starts_with("probes.")), "{told:?}");
    assert_eq!(diagnosis.recording(), "impossible");
}

#[test]
fn capabilities_of_another_user_namespace_do_not_count() {
    let files = HostFiles::new();
    files.link("proc/self/ns/user", "user:[4026532200]").capabilities(0);
    assert_eq!(status(&files.diagnosis(), "place.user_namespace"), "missing");
    // Unless the probes could be attached all the same.
    files.capabilities(3 << 38);
    assert_eq!(status(&files.diagnosis(), "place.user_namespace"), "works");
}

#[test]
fn hidden_kernel_symbols_tell_how_to_show_them() {
    let files = HostFiles::new();
    files.write("proc/kallsyms", "0000000000000000 T _text\n").write("proc/sys/kernel/kptr_restrict", "2\n");
    let diagnosis = files.diagnosis();
    let Standing::Degraded { remedy, .. } = &check(&diagnosis, "kernel.symbols").standing else { panic!() };
    assert_eq!(remedy, "sudo sysctl kernel.kptr_restrict=1");
}

#[test]
fn memory_of_the_control_group_bounds_the_rings() {
    let files = HostFiles::new();
    for (limit, expected) in [("max\n", "works"), ("104857600\n", "degraded"), ("33554432\n", "missing")] {
        files.write("sys/fs/cgroup/memory.max", limit);
        assert_eq!(status(&files.diagnosis(), "probes.rings"), expected, "{limit}");
    }
}

#[test]
fn gpu_libraries_are_found_where_they_are_installed_and_count_as_lost_only_where_there_are_gpus() {
    let files = HostFiles::new();
    let without = files.diagnosis();
    for id in ["gpu.nvidia_driver", "gpu.cupti", "gpu.nccl"] {
        assert_eq!(status(&without, id), "missing");
    }
    assert_eq!(without.summary(), "recording works here; nothing is lost");
    let module =
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Tue Mar  5 22:42:15 UTC 2024\nGCC\n";
    files
        .write("proc/driver/nvidia/version", module)
        .write("dev/nvidia0", "")
        .write("dev/nvidia1", "")
        .write("dev/nvidiactl", "")
        .write("dev/nvidia-uvm", "");
    let bare = files.diagnosis();
    assert_eq!((status(&bare, "gpu.cupti"), bare.unseen()), ("degraded", 1));
    files
        .write("usr/local/cuda-12.4/extras/CUPTI/lib64/libcupti.so.2024.1.1", "")
        .write("usr/lib/python3.12/dist-packages/nvidia/nccl/lib/libnccl.so.2", "")
        .write("opt/nccl/libnccl.so.2.21", "")
        .write(
            "etc/ld.so.cache",
            "glibc-ld.so.cache1.1\0\0libnccl.so.2\0/opt/nccl/libnccl.so.2\0/lib/libc.so.6\0",
        );
    let diagnosis = files.diagnosis();
    assert_eq!(diagnosis.unseen(), 0);
    assert!(!show::text(&diagnosis).contains("not record"), "GPUs are recorded");
    assert_eq!(check(&diagnosis, "gpu.nvidia_driver").finding, "driver 535.161.08, device files: 2");
    let cupti = check(&diagnosis, "gpu.cupti");
    assert_eq!(cupti.standing, Standing::Works);
    assert_eq!(
        cupti.finding,
        "/usr/local/cuda-12.4/extras/CUPTI/lib64/libcupti.so.2024.1.1; the agent takes the job's own first, of 11.8 to 13.x"
    );
    let nccl = &check(&diagnosis, "gpu.nccl").finding;
    assert_eq!(nccl, "/opt/nccl/libnccl.so.2.21 and 1 more; ranks that have it mapped: 0");
    fs::remove_file(files.root().join("dev/nvidia-uvm")).unwrap();
    assert_eq!(status(&files.diagnosis(), "gpu.nvidia_driver"), "missing");
}

#[test]
fn probes_that_the_kernel_refuses_do_not_work() {
    let files = HostFiles::new();
    let (reason, remedy) = ("cannot load: EPERM".to_owned(), "none".to_owned());
    let mut seen = Seen { trial: Trial::Failed { reason, remedy }, ..files.seen() };
    let diagnosis = Diagnosis::of(&seen);
    assert_eq!(diagnosis.recording(), "impossible");
    assert_eq!(status(&diagnosis, "probes.trial"), "missing");
    assert_eq!(status(&diagnosis, "probes.network"), "missing");
    // One that is left out alone is just not seen.
    seen.trial = match files.seen().trial {
        Trial::Attached { mut standings, attach, detach, map_bytes } => {
            let refused = super::missing("the kernel refuses its programs", "use a newer kernel");
            standings
                .iter_mut()
                .filter(|(id, _)| *id == ProbeId::Block)
                .for_each(|(_, s)| *s = refused.clone());
            Trial::Attached { standings, attach, detach, map_bytes }
        }
        _ => panic!("a fine host is tried"),
    };
    let diagnosis = Diagnosis::of(&seen);
    assert_eq!(complaints(&diagnosis), ["probes.block"]);
    assert_eq!(diagnosis.summary(), "recording works here; 1 thing is not seen");
}

#[test]
fn a_remedy_is_told_once() {
    let files = HostFiles::new();
    files.capabilities(0);
    let text = show::text(&files.diagnosis());
    assert_eq!(text.matches("sudo setcap").count(), 1, "{text}");
    assert!(text.contains("remedy: as for "), "{text}");
}
