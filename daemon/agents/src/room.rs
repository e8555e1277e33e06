//! Whether a process's control groups leave room for the agent's memory: where they do not, the kernel would end the job.

use std::fs;
use std::path::{Path, PathBuf};

/// What the agent takes at most: the ring (4 MiB), buffers (at most 16 MiB), tables (2 MiB), and what lies between.
pub(crate) const NEEDED_BYTES: u64 = 24 << 20;

/// Groups within groups that are looked at.
const MAX_DEPTH: usize = 64;

/// Bytes that a process may still get, by the tightest limit of its groups and of those around them; none where there is
/// no limit, or none that can be read. What the kernel can take back from files counts as room.
pub(crate) fn room(proc: &Path, groups: &Path, pid: u32) -> Option<u64> {
    let named = fs::read_to_string(proc.join(format!("{pid}/cgroup"))).ok()?;
    let (folder, path, files) = named.lines().find_map(|line| {
        // number:controllers:path; the one hierarchy of version 2 has no controllers.
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        if controllers.split(',').any(|name| name == "memory") {
            Some((groups.join("memory"), path, &V1))
        } else if controllers.is_empty() && !groups.join("memory").is_dir() {
            Some((groups.to_owned(), path, &V2))
        } else {
            None
        }
    })?;
    let path = Path::new(path.trim_start_matches('/'));
    // A path that leads out of our own namespace of groups is not one that can be looked at.
    if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return None;
    }
    path.ancestors().take(MAX_DEPTH).filter_map(|group| files.room(&folder.join(group))).min()
}

/// What the files of a group are called.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// Names in `memory.stat`: file pages that were used lately and that were not, and those that are mapped.
    pages: [&'static str; 2],
    mapped: &'static str,
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    pages: ["total_active_file", "total_inactive_file"],
    mapped: "total_mapped_file",
};

const V2: Files = Files {
    limit: "memory.max",
    used: "memory.current",
    pages: ["active_file", "inactive_file"],
    mapped: "file_mapped",
};

impl Files {
    fn room(&self, group: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        // "max" is no number.
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let (limit, used) = (number(self.limit)?, number(self.used)?);
        let statistics = read("memory.stat").unwrap_or_default();
        let value = |name: &str| {
            let line = statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let pages = self.pages.iter().fold(0_u64, |sum, name| sum.saturating_add(value(name)));
        let reclaimable = pages.saturating_sub(value(self.mapped));
        Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
    }
}

/// Where this host's control groups are.
pub(crate) fn groups() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::room;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_tightest_of_the_groups_around_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "proc/7/cgroup", "0::/jobs/one\n");
        let of_7 = || room(&root.join("proc"), &root.join("groups"), 7);
        assert_eq!(of_7(), None, "nothing can be read");
        write(root, "groups/jobs/one/memory.max", "max\n");
        write(root, "groups/jobs/one/memory.current", "5000\n");
        assert_eq!(of_7(), None, "there is no limit");
        write(root, "groups/jobs/memory.max", "10000\n");
        write(root, "groups/jobs/memory.current", "9000\n");
        assert_eq!(of_7(), Some(1000));
        write(
            root,
            "groups/jobs/memory.stat",
            "anon 1\nactive_file 1500\ninactive_file 800\nfile_mapped 300\n",
        );
        assert_eq!(of_7(), Some(3000), "files give way");
        write(root, "groups/jobs/one/memory.max", "4000\n");
        assert_eq!(of_7(), Some(0), "more is used than allowed");
        write(root, "proc/7/cgroup", "0::/../elsewhere\n");
        assert_eq!(of_7(), None);
    }

    #[test]
    fn groups_of_version_1_are_known_beside_a_hierarchy_of_version_2_that_does_not_control_memory() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "proc/7/cgroup", "8:pids:/\n4:cpu,memory:/a\n0::/\n");
        write(root, "groups/memory/memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "groups/memory/memory.usage_in_bytes", "77\n");
        write(root, "groups/memory/a/memory.limit_in_bytes", "8000\n");
        write(root, "groups/memory/a/memory.usage_in_bytes", "7000\n");
        write(root, "groups/memory/a/memory.stat", "active_file 9\ntotal_active_file 500\n");
        assert_eq!(room(&root.join("proc"), &root.join("groups"), 7), Some(1500));
    }
}
