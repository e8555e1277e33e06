//! Opens files of other processes without being led astray: only regular files, never a device (opening one acts), never
//! a pipe (opening one waits), and beneath a root when a path of the target's is followed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2};

/// What a look at a file finds before anything is opened.
pub(crate) struct Found {
    /// Refers to the file without having opened it.
    handle: rustix::fd::OwnedFd,
    pub(crate) stat: Stat,
}

impl Found {
    /// Follows a path that the kernel made (`/proc/PID/map_files/…`).
    pub(crate) fn by_link(directory: impl AsFd, path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(openat(directory, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Follows a path as a process with this root sees it.
    pub(crate) fn beneath(root: impl AsFd, path: impl AsRef<Path>) -> io::Result<Self> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Self::new(openat2(root, path.as_ref(), flags, Mode::empty(), resolve)?)
    }

    fn new(handle: rustix::fd::OwnedFd) -> io::Result<Self> {
        let stat = fstat(&handle)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { handle, stat })
    }

    /// Opens it for reading.
    pub(crate) fn open(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(open(path, flags, Mode::empty())?.into())
    }
}

/// The root directory of this host.
pub(crate) fn host_root() -> io::Result<rustix::fd::OwnedFd> {
    Ok(open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether a mapping's device and inode, as `maps` prints them, are those of a file.
pub(crate) fn is_same(stat: &Stat, major: u32, minor: u32, inode: u64) -> bool {
    stat.st_ino == inode && rustix::fs::major(stat.st_dev) == major && rustix::fs::minor(stat.st_dev) == minor
}

/// Reads at most `most` bytes of a file of /proc; a longer one is cut.
pub(crate) fn read_capped(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes)?;
    Ok(bytes)
}

/// The path of a descriptor of ours, for a library that wants a path.
pub(crate) fn path_of(file: &File) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// A mark of a file's content: differs once it was written to.
pub(crate) fn stamp(file: &File) -> Option<(u64, std::time::SystemTime)> {
    let metadata: fs::Metadata = file.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{Found, host_root};

    #[test]
    fn only_regular_files_beneath_the_root_are_opened() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("root")).unwrap();
        std::fs::write(path("root/file"), "x").unwrap();
        std::fs::write(path("secret"), "x").unwrap();
        symlink(path("secret"), path("root/link")).unwrap();
        symlink("../secret", path("root/up")).unwrap();
        symlink("/file", path("root/inside")).unwrap();
        let root = std::fs::File::open(path("root")).unwrap();
        assert!(Found::beneath(&root, "/file").unwrap().open().is_ok());
        assert!(Found::beneath(&root, "/inside").is_ok());
        for outside in ["/link", "/up", "/../secret", "/missing"] {
            assert!(Found::beneath(&root, outside).is_err(), "{outside}");
        }
        for special in ["/dev/zero", "/", "/proc/self/exe"] {
            assert!(Found::beneath(host_root().unwrap(), special).is_err(), "{special}");
        }
    }
}
