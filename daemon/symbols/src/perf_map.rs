//! Reads perf maps: the file `/tmp/perf-PID.map` in which a JIT compiler tells what it wrote where.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::SystemTime;

use crate::open::{Found, read_capped, stamp};

/// Functions of one process, by address.
#[derive(Debug)]
pub(crate) struct PerfMap {
    entries: Vec<Entry>,
    names: String,
    stamp: Option<(u64, SystemTime)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    end: u64,
    /// Where the name lies in `names`.
    name: (u32, u32),
}

impl PerfMap {
    /// The perf map of a process, by the id that it has in its own namespace, beneath its root. As perf does, only a file
    /// of the process's own user or of root counts: /tmp belongs to everyone.
    pub(crate) fn find(root: impl AsFd, own_pid: u32, owner: u32) -> io::Result<File> {
        let found = Found::beneath(root, format!("/tmp/perf-{own_pid}.map"))?;
        if found.stat.st_uid != owner && found.stat.st_uid != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        found.open()
    }

    /// Whether the file has changed since it was read.
    pub(crate) fn is_stale(&self, file: &File) -> bool {
        stamp(file) != self.stamp
    }

    /// Reads it; what lies beyond `most` bytes, and lines of another shape, are left out.
    pub(crate) fn read(file: File, most: u64) -> io::Result<Self> {
        let stamp = stamp(&file);
        // 4 GiB of names could not be addressed below.
        let bytes = read_capped(file, most.min(u64::from(u32::MAX) / 4))?;
        let mut map = Self { entries: Vec::new(), names: String::new(), stamp };
        for line in bytes.split(|&b| b == b'\n') {
            map.add(line);
        }
        // Memory is reused: of two functions at the same place the later one is there now.
        map.entries.sort_by_key(|entry| entry.start);
        map.entries.dedup_by(|later, kept| {
            let same = later.start == kept.start;
            if same {
                *kept = *later;
            }
            same
        });
        Ok(map)
    }

    /// The function at an address.
    pub(crate) fn name(&self, address: u64) -> Option<&str> {
        let entry = self.entries[..self.entries.partition_point(|e| e.start <= address)].last()?;
        let (begin, end) = entry.name;
        (address < entry.end).then(|| self.names.get(begin as usize..end as usize)).flatten()
    }

    fn add(&mut self, line: &[u8]) -> Option<()> {
        let mut fields = line.splitn(3, |&b| b == b' ');
        let mut number = || {
            let text = std::str::from_utf8(fields.next()?).ok()?;
            u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
        };
        let (start, length) = (number()?, number()?);
        let end = start.checked_add(length)?;
        let name = String::from_utf8_lossy(fields.next()?.trim_ascii());
        let begin = u32::try_from(self.names.len()).ok()?;
        self.names.push_str(&name);
        self.entries.push(Entry { start, end, name: (begin, u32::try_from(self.names.len()).ok()?) });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::PerfMap;

    fn map(text: &[u8], most: u64) -> PerfMap {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        PerfMap::read(file, most).unwrap()
    }

    #[test]
    fn functions_are_found_by_any_of_their_addresses() {
        let map = map(b"3000 10 later\n1000 20 py::f:/a b.py\n0x2000 0x8 old\n2000 10 new\n", 1 << 20);
        assert_eq!(map.name(0x1000), Some("py::f:/a b.py"));
        assert_eq!(map.name(0x101f), Some("py::f:/a b.py"));
        assert_eq!(map.name(0x1020), None);
        assert_eq!(map.name(0xfff), None);
        assert_eq!(map.name(0x200f), Some("new"));
        assert_eq!(map.name(0x3001), Some("later"));
    }

    #[test]
    fn nonsense_is_left_out_and_length_is_bounded() {
        let text = b"\xff\xfe\n1 2\nzz 1 name\nffffffffffffffff 10 wraps\n\n1000 10 good\n2000 10 behind\n";
        assert_eq!(map(text, 1 << 20).name(0x1000), Some("good"));
        assert_eq!(map(text, 1 << 20).name(u64::MAX), None);
        assert_eq!(map(text, 55).name(0x2000), None);
        assert_eq!(map(b"", 10).name(0), None);
    }
}
