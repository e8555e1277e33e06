//! Processes that were forked between the choice of the processes and the moment from which on forks are seen.

use std::collections::HashSet;
use std::path::Path;

/// Processes that descend from these and are not among them.
pub(crate) fn descendants(proc: &Path, of: &[u32]) -> Vec<u32> {
    let numbers = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut others: Vec<(u32, u32)> = pids
        .filter(|pid| !of.contains(pid))
        .filter_map(|pid| Some((pid, parent(&std::fs::read(proc.join(pid.to_string()).join("stat")).ok()?)?)))
        .collect();
    let mut family: HashSet<u32> = of.iter().copied().collect();
    let mut found = Vec::new();
    // A child's number may be below its parent's, so it is looked through until nothing is found any more.
    loop {
        let (children, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, parent)| family.contains(parent));
        if children.is_empty() {
            return found;
        }
        family.extend(children.iter().map(|(pid, _)| *pid));
        found.extend(children.into_iter().map(|(pid, _)| pid));
        others = rest;
    }
}

/// The parent of a process that has not ended, from /proc/PID/stat. A name may have anything in it.
pub(crate) fn parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_whitespace();
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::{descendants, parent};

    #[test]
    fn children_of_children_are_found_and_others_are_not() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, ppid: u32, state: char| {
            let folder = proc.path().join(pid.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("stat"), format!("{pid} (a) b) {state} {ppid} 1 1")).unwrap();
        };
        process(5, 9, 'S');
        process(9, 7, 'R');
        process(7, 1, 'S');
        process(11, 1, 'S');
        process(12, 7, 'Z');
        std::fs::create_dir(proc.path().join("sys")).unwrap();
        assert_eq!(descendants(proc.path(), &[7]), [9, 5]);
        assert_eq!(descendants(proc.path(), &[7, 9]), [5]);
        assert_eq!(descendants(proc.path(), &[11]), Vec::<u32>::new());
        assert_eq!((parent(b"1 (x) S"), parent(b"nothing")), (None, None));
    }
}
