//! Bounded reads of small files and folders: of /sys, /proc, or a tree that a test made up.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The kernel makes an attribute of sysfs in one page.
const FILE_BYTES: u64 = 4 << 10;

/// Entries of a folder that are looked at. A host has tens of ports and a port tens of counters.
const ENTRIES: usize = 256;

/// Longest name that becomes part of a counter's name.
const NAME_BYTES: usize = 64;

/// The text of a small file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    // A pipe in a made-up tree must not hold us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than a page"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not text"))
}

/// A file that holds one number in decimal digits.
pub(crate) fn number(path: &Path) -> Option<u64> {
    read(path).ok()?.trim().parse().ok()
}

/// Names in a folder, in order; those that no driver would give are left out.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    // A folder that cannot be listed to the end: what was listed is better than nothing.
    for entry in std::fs::read_dir(folder)?.take(ENTRIES).map_while(Result::ok) {
        names.extend(entry.file_name().into_string().ok().filter(|name| is_plain(name)));
    }
    names.sort_unstable();
    Ok(names)
}

fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    !name.starts_with('.') && name.len() <= NAME_BYTES && name.bytes().all(plain)
}
