//! What code a process has mapped, and whether that has changed.
//!
//! A look at a process's maps takes its memory lock for some milliseconds. So a process is asked every time only for
//! numbers that cost nothing: when it began (a pid is used again), where its program lies (exec), and how much code it
//! has mapped (dlopen).

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

/// Lines of maps that are read: 65,530 mappings are what the kernel allows.
const MAX_LINES: usize = 1 << 17;
/// Longest line.
const MAX_LINE: u64 = 8 << 10;

/// What changes whenever a process's code does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    began: u64,
    program: u64,
    code_kib: u64,
}

impl Version {
    /// As the process is now; `None` if there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&stat, &status)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // A process may have any name, so that fields are counted from the last parenthesis: the third of them first.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse().ok());
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().split(' ').next()?.parse::<u64>().ok()
        };
        // Kernel threads and processes that are ending have none.
        let code_kib = kib("VmExe:")?.saturating_add(kib("VmLib:")?);
        Some(Self { began: field(22)?, program: field(26)?, code_kib })
    }
}

/// A file that a process has mapped to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    end: u64,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// Device and inode, as maps says them.
    pub(crate) file: (String, u64),
    /// As the process's mount namespace calls it.
    pub(crate) path: String,
}

/// The files that a process has mapped to be run, each once.
pub(crate) fn mappings(pid: u32) -> std::io::Result<Vec<Mapping>> {
    read(BufReader::new(File::open(format!("/proc/{pid}/maps"))?))
}

fn read(maps: impl BufRead) -> std::io::Result<Vec<Mapping>> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut maps = maps;
    let mut line = Vec::new();
    for _ in 0..MAX_LINES {
        line.clear();
        if std::io::Read::take(&mut maps, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some(mapping) = parse(&line) else { continue };
        if found.iter().all(|known| known.file != mapping.file) {
            found.push(mapping);
        }
    }
    Ok(found)
}

/// `start-end perms offset dev inode   path`; `None` for what is not code of a file.
fn parse(line: &[u8]) -> Option<Mapping> {
    // Most lines: data, which costs no more than this.
    if !line.get(..64.min(line.len()))?.windows(2).any(|w| w == b"xp" || w == b"xs") {
        return None;
    }
    let line = String::from_utf8_lossy(line);
    let mut rest = line.trim_end_matches('\n');
    let mut word = || {
        let (word, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(word)
    };
    let (start, end) = word()?.split_once('-')?;
    let permissions = word()?;
    let offset = word()?;
    let device = word()?;
    let inode = word()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let mapping = Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        file: (device.to_owned(), inode.parse().ok()?),
        path: rest.to_owned(),
    };
    let code = permissions.as_bytes().get(2) == Some(&b'x') && mapping.file.1 != 0;
    (code && mapping.path.starts_with('/')).then_some(mapping)
}

impl Mapping {
    /// Opens the very file that is mapped, also when its name has gone or means another file by now.
    pub(crate) fn open(&self, pid: u32) -> std::io::Result<File> {
        let mapped = format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end);
        open_regular(&mapped, None).or_else(|_| {
            // Without the right to follow those links: by its name, if that is still the same file.
            open_regular(&format!("/proc/{pid}/root{}", self.path), Some(self.file.1))
        })
    }
}

/// A device or a pipe is not opened: that alone can do something.
fn open_regular(path: &str, inode: Option<u64>) -> std::io::Result<File> {
    let is_right = |data: &fs::Metadata| data.is_file() && inode.is_none_or(|inode| data.ino() == inode);
    let refuse = || std::io::Error::other("the mapped file is not to be found");
    if !is_right(&fs::metadata(path)?) {
        return Err(refuse());
    }
    let file = File::open(path)?;
    if is_right(&file.metadata()?) { Ok(file) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::{Version, read};

    #[test]
    fn only_code_of_files_counts_and_each_file_once() {
        let maps = "\
55d0-55d1 r--p 00000000 fe:01 10                         /bin/a\n\
55d1-55d9 r-xp 00001000 fe:01 10                         /bin/a b (deleted)\n\
55e1-55e9 r-xp 00003000 fe:01 10                         /bin/a b (deleted)\n\
7f00-7f10 rwxp 00000000 00:00 0 \n\
7f10-7f20 r-xp 00000000 00:01 5                          anon_inode:x\n\
7f20-7f30 rw-p 00000000 fe:01 11                         /x/xp\n\
7f30-7f40 r-xs 00002000 fe:02 11                         /dev/shm/code\n\
7ffe-7fff r-xp 00000000 00:00 0                          [vdso]\n\
garbage xp";
        let found = read(maps.as_bytes()).expect("readable");
        let found: Vec<_> = found.iter().map(|m| (m.start, m.offset, m.path.as_str())).collect();
        assert_eq!(found, [(0x55d1, 0x1000, "/bin/a b (deleted)"), (0x7f30, 0x2000, "/dev/shm/code")]);
        let hostile = [b'x'; 1 << 20];
        assert!(read(&hostile[..]).expect("readable").is_empty());
    }

    #[test]
    fn a_version_changes_with_the_process_its_program_and_its_code() {
        let stat =
            |began: u64, program: u64| format!("7 (a) b) S 1{} {began} 1 1 1 {program} 0", " 0".repeat(17));
        let status = |lib: u64| format!("Name:\tx\nVmExe:\t     100 kB\nVmLib:\t   {lib} kB\n");
        let one = Version::parse(&stat(5, 6), &status(7));
        assert!(one.is_some());
        assert_eq!(one, Version::parse(&stat(5, 6), &status(7)));
        for other in [(1, 6, 7), (5, 1, 7), (5, 6, 1)] {
            assert_ne!(one, Version::parse(&stat(other.0, other.1), &status(other.2)));
        }
        assert_eq!(Version::parse(&stat(5, 6), "Name:\tkthread\n"), None);
        assert!(Version::of(std::process::id()).is_some());
    }
}
