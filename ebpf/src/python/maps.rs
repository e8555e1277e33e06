//! Which files of a process may hold an interpreter, and how to open them: as mapped, even where they have been deleted,
//! replaced, or lie in another mount namespace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::NotPython;
use super::layout::Version;

/// A file that is mapped, by its first mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) start: u64,
    end: u64,
    pub(crate) offset: u64,
    inode: u64,
    /// Whether its name promises an interpreter.
    pub(crate) named_python: bool,
}

/// The mapped files of a process.
#[derive(Debug)]
pub(crate) struct Maps {
    pid: u32,
    files: Vec<Candidate>,
    /// Device and inode of the executable are not asked for: its name in the maps is.
    executable: String,
}

impl Maps {
    pub(crate) fn read(pid: u32) -> Result<Self, NotPython> {
        let what = format!("/proc/{pid}/maps");
        let unreadable = |error: io::Error| match error.kind() {
            // It has ended meanwhile: nobody misses its frames.
            io::ErrorKind::NotFound => NotPython::NoInterpreter,
            _ => NotPython::Unreadable { what: what.clone(), reason: error.to_string() },
        };
        // A few megabytes at most: the kernel allows 65530 mappings.
        let text = String::from_utf8_lossy(&fs::read(&what).map_err(unreadable)?).into_owned();
        let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        Ok(Self { pid, files: parse(&text), executable: executable.to_string_lossy().into_owned() })
    }

    /// Libraries called libpython, then executables called python, then the executable, whatever it is called.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let library = |file: &&Candidate| file.named_python && name(&file.path).starts_with("lib");
        let program = |file: &&Candidate| file.named_python && !name(&file.path).starts_with("lib");
        let executable = |file: &&Candidate| !file.named_python && file.path == self.executable;
        let mut found: Vec<Candidate> = self.files.iter().filter(library).cloned().collect();
        found.extend(self.files.iter().filter(program).cloned());
        found.extend(self.files.iter().filter(executable).cloned());
        found
    }

    /// An implementation of the language that is not CPython.
    pub(crate) fn other_implementation(&self) -> Option<String> {
        let known =
            [("libpypy", "PyPy"), ("pypy", "PyPy"), ("libpythonvm", "GraalPy"), ("graalpy", "GraalPy")];
        self.files.iter().find_map(|file| {
            let name = name(&file.path);
            known.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, name)| (*name).to_owned())
        })
    }

    /// The version by names: of the file, else of the extension modules that the process has mapped.
    pub(crate) fn named_version(&self, candidate: &Candidate) -> Option<Version> {
        let digits =
            |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
        let own = name(&candidate.path).split_once("python3.").and_then(|(_, rest)| digits(rest));
        let by_module = || {
            let mut names = self.files.iter().map(|file| name(&file.path));
            names.find_map(|name| digits(name.split_once(".cpython-3")?.1))
        };
        own.or_else(by_module).map(Version::from_name)
    }

    /// Opens the file that is mapped, and no other that has its name now.
    pub(crate) fn open(&self, file: &Candidate) -> io::Result<File> {
        let Candidate { start, end, .. } = file;
        let mapped = File::open(format!("/proc/{}/map_files/{start:x}-{end:x}", self.pid));
        // Needs CAP_CHECKPOINT_RESTORE; without it the path has to do, beneath the process's root.
        mapped.or_else(|_| self.open_path(file))
    }

    fn open_path(&self, file: &Candidate) -> io::Result<File> {
        let root = rustix::fs::open(
            format!("/proc/{}/root", self.pid),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let path: &OsStr = file.path.as_ref();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        let opened = File::from(opened);
        if opened.metadata()?.ino() != file.inode {
            return Err(io::Error::other("the file was replaced since it was mapped"));
        }
        Ok(opened)
    }
}

/// The last part of a path, without what the kernel appends where the file has been deleted.
fn name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// `7f…-7f… r--p 00000000 fe:00 1234 /usr/lib/libpython3.11.so.1.0`
fn parse(text: &str) -> Vec<Candidate> {
    let mut files: Vec<Candidate> = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(6, ' ');
        let Some(file) = (|| {
            let (start, end) = fields.next()?.split_once('-')?;
            let offset = fields.nth(1)?;
            let inode = fields.nth(1)?;
            let path = fields.next()?.trim_start();
            let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
            let named = name(path);
            Some(Candidate {
                start: hex(start)?,
                end: hex(end)?,
                offset: hex(offset)?,
                inode: inode.parse().ok()?,
                named_python: named.starts_with("libpython") || named.starts_with("python"),
                path: path.to_owned(),
            })
        })() else {
            continue;
        };
        let seen = || files.iter().any(|other| other.inode == file.inode && other.path == file.path);
        if file.path.starts_with('/') && !seen() {
            files.push(file);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::{Maps, parse};
    use crate::python::layout::Version;

    const TEXT: &str = "\
55d0c0a00000-55d0c0a01000 r--p 00000000 fe:00 77                         /opt/app/server
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
7f1000000000-7f1000001000 r--p 00000000 fe:00 12                         /usr/lib/_json.cpython-310-x86_64-linux-gnu.so
7f2000000000-7f2000100000 r--p 00000000 fe:00 99                         /usr/lib/my libs/libpython3.10.so.1.0 (deleted)
7f2000100000-7f2000200000 r-xp 00100000 fe:00 99                         /usr/lib/my libs/libpython3.10.so.1.0 (deleted)
7f3000000000-7f3000001000 r-xp 00000000 00:00 0                          [vdso]
garbage
";

    #[test]
    fn libraries_go_before_the_executable_and_versions_come_from_names() {
        let maps = Maps { pid: 1, files: parse(TEXT), executable: "/opt/app/server".to_owned() };
        let found = maps.candidates();
        let names: Vec<_> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["/usr/lib/my libs/libpython3.10.so.1.0 (deleted)", "/opt/app/server"]);
        assert_eq!((found[0].start, found[0].offset, found[0].inode), (0x7f20_0000_0000, 0, 99));
        assert_eq!(maps.named_version(&found[0]), Some(Version::from_name(10)));
        assert_eq!(maps.named_version(&found[1]), Some(Version::from_name(10)), "by its extension module");
    }

    #[test]
    fn other_implementations_are_named() {
        let text = "1000-2000 r-xp 00000000 fe:00 5 /opt/pypy/bin/libpypy3.10-c.so\n";
        let maps = Maps { pid: 1, files: parse(text), executable: String::new() };
        assert_eq!(maps.other_implementation().as_deref(), Some("PyPy"));
        assert!(maps.candidates().is_empty());
    }
}
