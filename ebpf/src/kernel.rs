//! What this kernel offers.

use std::fs;

/// Release, BTF, lockdown: what decides about probes before they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Whether the kernel describes its types (`/sys/kernel/btf/vmlinux`).
    pub btf: bool,
    /// `none`, `integrity` or `confidentiality`; empty where it is not built in.
    pub lockdown: String,
    /// Whether this process has effective uid 0 or the capabilities to load programs.
    pub privileged: bool,
    /// Whether pids here are those that the kernel's programs see: a container without the host's pid namespace has
    /// others.
    pub host_pids: bool,
    /// CPUs that may come online.
    pub cpus: u32,
}

/// The inode of the first pid namespace, the same on every kernel (PROC_PID_INIT_INO).
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// CAP_PERFMON and CAP_BPF, which suffice, and CAP_SYS_ADMIN, which implies both.
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

impl Kernel {
    /// Looks at the running kernel.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            version: version(&release),
            release,
            btf: fs::metadata("/sys/kernel/btf/vmlinux").is_ok(),
            lockdown: chosen(&read("/sys/kernel/security/lockdown")).to_owned(),
            privileged: may_load(&read("/proc/self/status")),
            host_pids: fs::read_link("/proc/self/ns/pid").is_ok_and(|l| l.as_os_str() == HOST_PID_NAMESPACE),
            cpus: cpus(&read("/sys/devices/system/cpu/possible")),
        }
    }

    /// Whether the kernel is at least of this version.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `none [integrity] confidentiality` → `integrity`.
fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(word, _)| word)
}

fn may_load(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    bits & CAP_SYS_ADMIN != 0 || bits & (CAP_BPF | CAP_PERFMON) == CAP_BPF | CAP_PERFMON
}

/// `0-3` or `0,2-7` → one more than the greatest.
fn cpus(list: &str) -> u32 {
    let last = list.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<u32>().ok());
    last.map_or(1, |n| n.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::{chosen, cpus, may_load, version};

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(version("5.15.0-1063-azure"), (5, 15));
        assert_eq!(version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(version("garbage"), (0, 0));
    }

    #[test]
    fn cpu_lists_and_lockdown_are_understood() {
        assert_eq!((cpus("0-1\n"), cpus("0"), cpus("0,4-7"), cpus("")), (2, 1, 8, 1));
        assert_eq!(chosen("none [integrity] confidentiality\n"), "integrity");
    }

    #[test]
    fn perfmon_and_bpf_together_suffice() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\n");
        assert!(may_load(&status(1 << 21)));
        assert!(may_load(&status(3 << 38)));
        assert!(!may_load(&status(1 << 38)));
        assert!(!may_load(""));
    }
}
