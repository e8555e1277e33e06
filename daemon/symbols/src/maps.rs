//! Reads the text of `/proc/PID/maps`: what is executable, and where it came from.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A range of addresses that holds code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// First address.
    pub(crate) start: u64,
    /// First address behind it.
    pub(crate) end: u64,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    pub(crate) place: Place,
}

/// Where the code came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    File(MappedFile),
    Vdso,
    /// Memory without a file: written by a JIT compiler.
    Jit,
    /// Something else of the kernel's, with its name in brackets.
    Special(Arc<str>),
}

/// A file as `maps` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MappedFile {
    pub(crate) key: FileKey,
    /// As it was when it was mapped, seen from the process's root.
    pub(crate) path: PathBuf,
}

/// Identity of a mapped file on this host. The name takes part because sub-volumes of some file systems share a device
/// number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) inode: u64,
    /// The path's last component.
    pub(crate) name: Arc<str>,
}

/// The executable mappings, in the order of their addresses, at most `most`. Lines that do not look like mappings are
/// left out.
pub(crate) fn executable(text: &[u8], most: usize) -> Vec<Mapping> {
    let mut mappings: Vec<_> = text.split(|&b| b == b'\n').filter_map(line).take(most).collect();
    // The kernel sorts them already; lookups rely on it.
    mappings.sort_by_key(|mapping| mapping.start);
    mappings
}

fn line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (range, permissions, offset, device, inode) = (next()?, next()?, next()?, next()?, next()?);
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end {
        return None;
    }
    let (major, minor) = device.split_once(':')?;
    let inode = inode.parse().ok()?;
    let path = fields.next().unwrap_or(&[]).trim_ascii_start();
    let place = if inode == 0 {
        special(path)
    } else {
        let path = path_of(path);
        let name = path.file_name().map_or_else(|| "?".into(), |name| name.to_string_lossy().into());
        let (major, minor) = (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?);
        Place::File(MappedFile { key: FileKey { major, minor, inode, name }, path })
    };
    Some(Mapping { start, end, offset: hex(offset)?, place })
}

fn special(name: &[u8]) -> Place {
    match name {
        b"[vdso]" => Place::Vdso,
        b"" | b"[heap]" | b"[stack]" => Place::Jit,
        // A name that the process gave to its memory.
        _ if name.starts_with(b"[anon") || !name.starts_with(b"[") => Place::Jit,
        _ => Place::Special(String::from_utf8_lossy(name).into()),
    }
}

/// The path without what the kernel adds to it: ` (deleted)`, and newlines as `\012`.
fn path_of(text: &[u8]) -> PathBuf {
    let mut text = text.strip_suffix(b" (deleted)").unwrap_or(text);
    let mut path = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        if let Some(rest) = text.strip_prefix(b"\\012") {
            path.push(b'\n');
            text = rest;
        } else {
            path.push(first);
            text = rest;
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Place, executable};

    const TEXT: &[u8] = b"\
55d0c0a00000-55d0c0a01000 r--p 00000000 fe:00 1234                       /usr/bin/job\n\
55d0c0a01000-55d0c0a05000 r-xp 00001000 fe:00 1234                       /usr/bin/job\n\
55d0c1000000-55d0c1001000 rwxp 00000000 00:00 0                          [heap]\n\
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n\
7f0000002000-7f0000003000 r-xp 00000000 00:00 0                          [anon:jit code]\n\
7f0000004000-7f0000005000 r-xp 00002000 103:a 99                         /tmp/with space\\012x.so (deleted)\n\
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]\n\
7ffd00002000-7ffd00003000 --xp 00000000 00:00 0                          [uprobes]\n\
garbage\n\
7ffd00003000-7ffd00002000 r-xp 00000000 00:00 0\n\
zz-yy r-xp 0 0:0 0\n";

    #[test]
    fn mappings_of_code_are_told_apart_by_where_they_came_from() {
        let mappings = executable(TEXT, 100);
        let places: Vec<_> = mappings.iter().map(|m| &m.place).collect();
        assert_eq!(mappings.len(), 7);
        assert_eq!(
            (mappings[0].start, mappings[0].end, mappings[0].offset),
            (0x55d0_c0a0_1000, 0x55d0_c0a0_5000, 0x1000)
        );
        assert!(
            matches!(places[0], Place::File(file) if file.path == Path::new("/usr/bin/job") && file.key.inode == 1234)
        );
        assert!(places[1..4].iter().all(|place| matches!(place, Place::Jit)));
        let Place::File(file) = places[4] else { panic!("{:?}", places[4]) };
        assert_eq!(file.path, Path::new("/tmp/with space\nx.so"));
        assert_eq!((file.key.major, file.key.minor), (0x103, 0xa));
        assert!(matches!(places[5], Place::Vdso));
        assert!(matches!(places[6], Place::Special(name) if &**name == "[uprobes]"));
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        assert_eq!(executable(TEXT, 3).len(), 3);
        assert!(executable(b"", 3).is_empty());
    }
}
