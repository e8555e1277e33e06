//! Pressure stall information: how long tasks waited for a resource, of the host and of cgroups.
//!
//! A file has a line for `some` (at least one task waited) and one for `full` (none could run); the averages in it are
//! left alone, because the total says the same for any stretch.

use std::path::{Component, Path, PathBuf};

use crate::files;
use crate::names;
use crate::sample::{Gather, Of};

/// The folder of the host's files, below that of procfs.
const HOST: &str = "pressure";

/// Adds the pressure on the host. Why nothing was found is the error of the first file.
pub(crate) fn host(procfs: &Path, gather: &mut Gather<'_>) -> std::io::Result<()> {
    let mut refused = None;
    let mut found = false;
    for (resource, names) in names::PRESSURE {
        match files::read(&procfs.join(HOST).join(resource)) {
            Ok(text) => found |= totals(&Of::Host, names, &text, gather),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if !found => Err(error),
        _ => Ok(()),
    }
}

/// Adds the pressure on a cgroup. One that is gone yields nothing.
pub(crate) fn cgroup(sysfs: &Path, cgroup: &Of, path: &str, gather: &mut Gather<'_>) {
    let Some(folder) = folder(sysfs, path) else { return };
    for (resource, names) in names::PRESSURE {
        if let Ok(text) = files::read(&folder.join(format!("{resource}.pressure"))) {
            totals(cgroup, names, &text, gather);
        }
    }
}

/// Where a cgroup's files are. A path from another cgroup namespace begins with `/..` and means nothing here.
fn folder(sysfs: &Path, path: &str) -> Option<PathBuf> {
    let below = Path::new(path.trim_start_matches('/'));
    if !below.components().all(|c| matches!(c, Component::Normal(_))) {
        return None;
    }
    let root = sysfs.join("fs/cgroup");
    // Where both versions are mounted, the second is beside the hierarchies of the first.
    let unified = root.join("unified");
    Some(if unified.is_dir() { unified.join(below) } else { root.join(below) })
}

fn totals(of: &Of, [some, full]: [&'static str; 2], text: &str, gather: &mut Gather<'_>) -> bool {
    let mut found = false;
    for line in text.lines() {
        let name = match line.split(' ').next() {
            Some("some") => some,
            Some("full") => full,
            _ => continue,
        };
        let total = line.split(' ').find_map(|field| field.strip_prefix("total="));
        if let Some(total_us) = total.and_then(|t| t.parse().ok()) {
            gather.growth(of, name, total_us, 1);
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_lies_below_the_folder_of_cgroups_or_nowhere() {
        let sysfs = Path::new("/nowhere");
        let at = |path| folder(sysfs, path);
        assert_eq!(at("/a/b.slice"), Some(PathBuf::from("/nowhere/fs/cgroup/a/b.slice")));
        assert_eq!(at("/"), Some(PathBuf::from("/nowhere/fs/cgroup/")));
        assert_eq!(at("//a"), Some(PathBuf::from("/nowhere/fs/cgroup/a")));
        for path in ["/../a", "/a/../../b", "a/.."] {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
