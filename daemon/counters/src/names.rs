//! Names of counters, in one place: docs/counters.md lists the same, and a test compares them.
//!
//! A name never changes its meaning. It ends with its unit in parentheses; a count says what it counts.

pub(crate) const GPU_UTILISATION: &str = "gpu utilisation (%)";
pub(crate) const MEMORY_UTILISATION: &str = "memory utilisation (%)";
pub(crate) const SM_CLOCK: &str = "sm clock (MHz)";
pub(crate) const MEMORY_CLOCK: &str = "memory clock (MHz)";
pub(crate) const THROTTLE_REASONS: &str = "clock throttle reasons (bits)";
pub(crate) const POWER: &str = "power (mW)";
pub(crate) const TEMPERATURE: &str = "temperature (C)";
pub(crate) const MEMORY_USED: &str = "memory used (bytes)";
pub(crate) const MEMORY_USED_AND_RESERVED: &str = "memory used and reserved (bytes)";
pub(crate) const ECC_CORRECTED: &str = "ecc corrected errors (count)";
pub(crate) const ECC_UNCORRECTED: &str = "ecc uncorrected errors (count)";
pub(crate) const PCIE_SENT: &str = "pcie sent (bytes)";
pub(crate) const PCIE_RECEIVED: &str = "pcie received (bytes)";
pub(crate) const PCIE_SENT_RATE: &str = "pcie sent (KB/s)";
pub(crate) const PCIE_RECEIVED_RATE: &str = "pcie received (KB/s)";
pub(crate) const PCIE_REPLAYS: &str = "pcie replays (count)";
pub(crate) const PCIE_GENERATION: &str = "pcie link generation (number)";
pub(crate) const PCIE_GENERATION_MAX: &str = "pcie link generation max (number)";
pub(crate) const PCIE_WIDTH: &str = "pcie link width (lanes)";
pub(crate) const PCIE_WIDTH_MAX: &str = "pcie link width max (lanes)";
pub(crate) const NVLINKS: &str = "nvlinks (count)";
pub(crate) const PROCESSES: &str = "processes (count)";
pub(crate) const XID: &str = "xid (number)";
pub(crate) const PORT_STATE: &str = "state (number)";
pub(crate) const PORT_RATE: &str = "rate (Mb/s)";

/// Waiting of tasks in the resources of PSI, each first for `some`, then for `full`.
pub(crate) const PRESSURE: [(&str, [&str; 2]); 3] = [
    ("cpu", ["cpu pressure some (us)", "cpu pressure full (us)"]),
    ("memory", ["memory pressure some (us)", "memory pressure full (us)"]),
    ("io", ["io pressure some (us)", "io pressure full (us)"]),
];

/// The name of a counter of one NVLink.
pub(crate) fn nvlink(link: u32, what: &str) -> String {
    format!("nvlink {link} {what}")
}

pub(crate) const LINK_ACTIVE: &str = "active (0 or 1)";
pub(crate) const LINK_SENT: &str = "sent (bytes)";
pub(crate) const LINK_RECEIVED: &str = "received (bytes)";
pub(crate) const LINK_REPLAYS: &str = "replays (count)";
pub(crate) const LINK_RECOVERIES: &str = "recoveries (count)";
pub(crate) const LINK_CRC_ERRORS: &str = "crc errors (count)";

/// The name of the memory that one process holds.
pub(crate) fn memory_of(pid: u32) -> String {
    format!("memory of pid {pid} (bytes)")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Every literal of this file that looks like a name, as the documentation writes it.
    fn names() -> BTreeSet<String> {
        let source = include_str!("names.rs");
        let source = source.split("#[cfg(test)]").next().unwrap();
        let mut names = BTreeSet::new();
        for line in source.lines() {
            for literal in line.split('"').skip(1).step_by(2).filter(|l| l.contains(" (") && l.ends_with(')'))
            {
                let prefix = if line.contains("const LINK_") { "nvlink N " } else { "" };
                names.insert(format!("{prefix}{}", literal.replace("{pid}", "N")));
            }
        }
        names
    }

    #[test]
    fn the_documentation_lists_every_name_and_no_other() {
        let page = include_str!("../../../docs/counters.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
        assert_eq!(documented, names());
    }
}
