//! The image as a file in the target's file system, where it cannot be memory: for as long as it is being loaded.
//!
//! Paths are resolved as the target would, without leaving its root, and nothing that exists is opened or replaced.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use crate::process::Process;
use crate::sys;

/// Directories that most programs may execute from, the ones in memory first.
const DIRECTORIES: [&str; 6] = ["/dev/shm", "/tmp", "/run", "/var/tmp", "/var/run", "/"];

/// A file that is removed when this goes.
#[derive(Debug)]
pub(crate) struct Placed {
    directory: OwnedFd,
    name: CString,
    /// As the target sees it.
    pub(crate) path: String,
}

impl Placed {
    /// Writes the image to the first directory that takes it; the error is the last one's.
    pub(crate) fn new(process: &Process, tid: u32, image: &[u8]) -> io::Result<Self> {
        let root = File::open(process.file("root"))?;
        let name = CString::new(format!(".stallscope-agent-{tid}.so")).map_err(io::Error::other)?;
        let mut last = io::Error::other("it has no directory that is known");
        for directory in DIRECTORIES {
            match Self::place(&root, directory, &name, image) {
                Ok(placed) => return Ok(placed),
                Err(error) => last = io::Error::new(error.kind(), format!("{directory}: {error}")),
            }
        }
        Err(last)
    }

    fn place(root: &File, path: &str, name: &CString, image: &[u8]) -> io::Result<Self> {
        let c_path = CString::new(path).map_err(io::Error::other)?;
        let directory = sys::open_beneath(root, &c_path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        if sys::is_noexec(&directory)? {
            return Err(io::Error::other("nothing can be executed from there"));
        }
        // The target need not be of the same user.
        const READABLE: u32 = 0o444;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = match sys::open_beneath(&directory, name, flags, READABLE) {
            // An injector that died left it: whoever may remove it here owns it, or is the directory's owner.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sys::unlink_at(&directory, name)?;
                sys::open_beneath(&directory, name, flags, READABLE)?
            }
            other => other?,
        };
        let separator = if path.ends_with('/') { "" } else { "/" };
        let path = format!("{path}{separator}{}", name.to_string_lossy());
        let placed = Self { directory, name: name.clone(), path };
        File::from(file).write_all(image)?;
        Ok(placed)
    }

    pub(crate) fn remove(self) {
        drop(self);
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // It may be gone already: the directory is the target's.
        let _ = sys::unlink_at(&self.directory, &self.name);
    }
}
