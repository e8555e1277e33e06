//! What /proc and /sys say about this host. Files that are not there are facts too: nothing here fails.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use stallscope_ebpf::Kernel;

/// Largest file that is read whole: the kernel's types are about 6 MB.
const FILE_BYTES: u64 = 64 << 20;
/// Enough of kallsyms to meet an address that is not zero: symbols of per-CPU variables come first and begin at 0.
const KALLSYMS_BYTES: u64 = 64 << 10;

/// What reading the kernel's symbols gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelSymbols {
    Absent,
    /// All addresses are zero.
    Hidden,
    Shown,
}

/// A version of control groups, as mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cgroups {
    V1,
    V2,
    /// Controllers in version 1, and version 2 beside it.
    Both,
    NotMounted,
    NotBuiltIn,
}

#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) kernel: Kernel,
    /// Bytes of the kernel's description of its types.
    pub(super) btf_bytes: u64,
    pub(super) lockdown_known: bool,
    pub(super) symbols: KernelSymbols,
    pub(super) kptr_restrict: Option<i64>,
    pub(super) perf_event_paranoid: Option<i64>,
    /// The CPU's own counters, for cycles.
    pub(super) hardware_counters: bool,
    /// Perf events for uprobes, the way of kernels before 6.6.
    pub(super) uprobe_events: bool,
    /// Where it is mounted.
    pub(super) tracefs: Option<String>,
    pub(super) cgroups: Cgroups,
    /// Effective capabilities; none where they cannot be read.
    pub(super) capabilities: Option<u64>,
    /// A seccomp filter decides about the system calls of this process.
    pub(super) seccomp: bool,
    /// Targets of /proc/self/ns/pid and user.
    pub(super) pid_namespace: Option<String>,
    pub(super) user_namespace: Option<String>,
    /// What says that this is a gVisor sandbox.
    pub(super) gvisor: Option<&'static str>,
    /// What says that this is the guest of a Kata sandbox.
    pub(super) kata: Option<&'static str>,
    /// Bytes that may be allocated here: of the host, or of this process's control group where that is less.
    pub(super) memory_available: Option<u64>,
    /// First line about the NVIDIA kernel driver.
    pub(super) nvidia_driver: Option<String>,
    /// Device files of GPUs, and the one that computing needs.
    pub(super) nvidia_devices: usize,
    pub(super) nvidia_uvm: bool,
}

impl Facts {
    pub(super) fn read(root: &Path) -> Self {
        let read = |path: &str| bytes(root, path, FILE_BYTES);
        let text = |path: &str| String::from_utf8_lossy(&read(path)).into_owned();
        let number = |path: &str| text(path).trim().parse::<i64>().ok();
        let exists = |path: &str| root.join(path).exists();
        let link = |path: &str| Some(fs::read_link(root.join(path)).ok()?.to_string_lossy().into_owned());
        let status = text("proc/self/status");
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let types = read("sys/kernel/btf/vmlinux");
        let mounts = text("proc/self/mounts");
        Self {
            kernel: kernel(root, capabilities.unwrap_or(0)),
            btf_bytes: types.len() as u64,
            lockdown_known: exists("sys/kernel/security/lockdown"),
            symbols: kernel_symbols(root),
            kptr_restrict: number("proc/sys/kernel/kptr_restrict"),
            perf_event_paranoid: number("proc/sys/kernel/perf_event_paranoid"),
            // Machines with two kinds of cores have two of them.
            hardware_counters: exists("sys/bus/event_source/devices/cpu")
                || exists("sys/bus/event_source/devices/cpu_core"),
            uprobe_events: exists("sys/bus/event_source/devices/uprobe"),
            tracefs: mount_points(&mounts, "tracefs").next().map(str::to_owned),
            cgroups: cgroups(&mounts, exists("proc/self/cgroup")),
            capabilities,
            seccomp: field("Seccomp:").is_some_and(|mode| mode != "0"),
            pid_namespace: link("proc/self/ns/pid"),
            user_namespace: link("proc/self/ns/user"),
            gvisor: gvisor(exists("proc/gvisor"), &text("proc/version")),
            kata: kata(&text("proc/cmdline"), &mounts),
            memory_available: memory_available(root),
            nvidia_driver: text("proc/driver/nvidia/version").lines().next().map(str::to_owned),
            nvidia_devices: nvidia_devices(&root.join("dev")),
            nvidia_uvm: exists("dev/nvidia-uvm"),
        }
    }

    pub(super) fn has(&self, capability: u32) -> bool {
        self.capabilities.is_some_and(|set| set & (1 << capability) != 0)
    }
}

/// A file, as far as it can be read.
pub(super) fn bytes(root: &Path, path: &str, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(root.join(path)) {
        // What was read before an error is still true.
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

/// As [`Kernel::detect`] sees it; a test holds the two together.
fn kernel(root: &Path, capabilities: u64) -> Kernel {
    let text = |path: &str| String::from_utf8_lossy(&bytes(root, path, FILE_BYTES)).trim().to_owned();
    let release = text("proc/sys/kernel/osrelease");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let lockdown = text("sys/kernel/security/lockdown");
    let chosen = lockdown.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    let possible = text("sys/devices/system/cpu/possible");
    let last = possible.rsplit([',', '-']).next().and_then(|n| n.parse::<u32>().ok());
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    Kernel {
        version,
        release,
        btf: root.join("sys/kernel/btf/vmlinux").exists(),
        lockdown: chosen.unwrap_or_default().to_owned(),
        privileged: has(super::checks::SYS_ADMIN) || has(super::checks::BPF) && has(super::checks::PERFMON),
        host_pids: fs::read_link(root.join("proc/self/ns/pid"))
            .is_ok_and(|link| link.as_os_str() == super::place::HOST_PID_NAMESPACE),
        cpus: last.map_or(1, |n| n.saturating_add(1)),
    }
}

fn kernel_symbols(root: &Path) -> KernelSymbols {
    let text = bytes(root, "proc/kallsyms", KALLSYMS_BYTES);
    let shown = |line: &[u8]| line.iter().take(16).any(|byte| matches!(byte, b'1'..=b'9' | b'a'..=b'f'));
    if text.is_empty() {
        KernelSymbols::Absent
    } else if text.split(|byte| *byte == b'\n').any(shown) {
        KernelSymbols::Shown
    } else {
        KernelSymbols::Hidden
    }
}

/// Lines of /proc/self/mounts are: source, place, type, options.
fn mount_points<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    mounts.lines().filter_map(move |line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some(kind)).then_some(place)
    })
}

fn cgroups(mounts: &str, built_in: bool) -> Cgroups {
    let v1 = mount_points(mounts, "cgroup").next().is_some();
    let v2 = mount_points(mounts, "cgroup2").next().is_some();
    match (built_in, v1, v2) {
        (false, ..) => Cgroups::NotBuiltIn,
        (true, true, true) => Cgroups::Both,
        (true, true, false) => Cgroups::V1,
        (true, false, true) => Cgroups::V2,
        (true, false, false) => Cgroups::NotMounted,
    }
}

/// gVisor shows a file of its own where it is configured to, and one and the same made-up build date everywhere.
fn gvisor(marker: bool, version: &str) -> Option<&'static str> {
    if marker {
        Some("/proc/gvisor is there")
    } else if version.contains("Sun Jan 10 15:06:54 PST 2016") || version.to_lowercase().contains("gvisor") {
        Some("/proc/version is the one that gVisor makes up")
    } else {
        None
    }
}

/// The runtime boots the guest to its own target, or with options for its agent, and shares the container's files with it
/// by a name of its own.
fn kata(command_line: &str, mounts: &str) -> Option<&'static str> {
    let mut options = command_line.split_ascii_whitespace();
    if options.any(|o| {
        o == "systemd.unit=kata-containers.target" || o.starts_with("agent.") || o.ends_with("/kata-agent")
    }) {
        Some("/proc/cmdline has options of the Kata agent")
    } else if mounts.lines().any(|line| line.starts_with("kataShared ")) {
        Some("the host's files are mounted as kataShared")
    } else {
        None
    }
}

fn memory_available(root: &Path) -> Option<u64> {
    let text = |path: &str| String::from_utf8_lossy(&bytes(root, path, FILE_BYTES)).trim().to_owned();
    let meminfo = text("proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?;
    // What the maps of BPF programs take is charged to the control group of whoever makes them. In a container, its own
    // group is at the root.
    let limits = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|path| text(path).parse::<u64>().ok()).min();
    Some((kib << 10).min(limit.unwrap_or(u64::MAX)))
}

fn nvidia_devices(dev: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dev) else { return 0 };
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(is_gpu)).count()
}

#[cfg(test)]
mod tests {
    use stallscope_ebpf::Kernel;

    use super::{Facts, KernelSymbols};

    #[test]
    fn this_kernel_looks_as_the_probes_see_it() {
        assert_eq!(Facts::read("/".as_ref()).kernel, Kernel::detect());
    }

    #[test]
    fn zeros_are_not_addresses() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc")).unwrap();
        let symbols = |text: &str| {
            std::fs::write(root.path().join("proc/kallsyms"), text).unwrap();
            Facts::read(root.path()).symbols
        };
        assert_eq!(symbols(""), KernelSymbols::Absent);
        assert_eq!(symbols("0000000000000000 A fixed\n0000000000000000 T deadbeef\n"), KernelSymbols::Hidden);
        assert_eq!(symbols("0000000000000000 A fixed\nffffffff81000000 T _text\n"), KernelSymbols::Shown);
    }
}
