//! Finds the separate debug file of a stripped file: by build id below `/usr/lib/debug` of the target's root and of the
//! host's, and by the name in `.gnu_debuglink`. It counts only if its build id is the same.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::elf::{DEBUG_INFO, Elf, SYMTAB};
use crate::open::{Found, host_root};

const DEBUG_ROOT: &str = "/usr/lib/debug";

/// The debug file of the file at `path` beneath the target's root, if one is there.
pub(crate) fn find(elf: &Elf, path: &Path, root: Option<BorrowedFd<'_>>) -> Option<(File, Elf)> {
    let build_id = elf.build_id.as_deref()?;
    if elf.section(DEBUG_INFO).is_some() {
        return None;
    }
    let by_id = by_build_id(build_id)?;
    let in_target = root.and_then(|root| {
        let by_name = elf.debug_link.iter().flat_map(|name| by_link(path, name));
        std::iter::once(by_id.clone()).chain(by_name).find_map(|path| candidate(root, &path, build_id))
    });
    in_target.or_else(|| candidate(host_root().ok()?.as_fd(), &by_id, build_id))
}

fn by_build_id(id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{DEBUG_ROOT}/.build-id/{first:02x}/{rest}.debug").into())
}

/// Where gdb looks for a debug file by name.
fn by_link(path: &Path, name: &str) -> Vec<PathBuf> {
    let Some(directory) = path.parent() else { return Vec::new() };
    let below = directory.strip_prefix("/").unwrap_or(directory);
    vec![
        directory.join(name),
        directory.join(".debug").join(name),
        Path::new(DEBUG_ROOT).join(below).join(name),
    ]
}

fn candidate(root: BorrowedFd<'_>, path: &Path, build_id: &[u8]) -> Option<(File, Elf)> {
    let file = Found::beneath(root, path).ok()?.open().ok()?;
    let elf = Elf::read(&file).ok()?;
    let useful = elf.section(DEBUG_INFO).is_some() || elf.section(SYMTAB).is_some();
    (useful && elf.build_id.as_deref() == Some(build_id)).then_some((file, elf))
}
