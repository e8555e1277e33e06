//! A folder with one file whose reads take as long as one likes: a file system in user space.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};

const FILE: INodeNo = INodeNo(2);
/// How long the kernel may believe what it was told of the file.
const TTL: Duration = Duration::from_secs(60);

struct SlowFolder {
    name: String,
    size: u64,
    latency: Duration,
}

impl SlowFolder {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let folder = inode != FILE;
        FileAttr {
            ino: inode,
            size: if folder { 0 } else { self.size },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if folder { FileType::Directory } else { FileType::RegularFile },
            perm: if folder { 0o755 } else { 0o444 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for SlowFolder {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name.to_str() == Some(&self.name) {
            reply.entry(&TTL, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    /// Past the page cache: every read asks here, and is slow.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        std::thread::sleep(self.latency);
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let zeros = vec![0; left.min(size as usize)];
        reply.data(&zeros);
    }
}

/// A mounted folder with one slow file; dropping it unmounts.
#[derive(Debug)]
pub struct SlowFile {
    path: PathBuf,
    session: Option<BackgroundSession>,
}

impl SlowFile {
    /// Mounts a folder in which reading `name` takes `latency` a call. Needs root and /dev/fuse.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount(folder: &Path, name: &str, size: u64, latency: Duration) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("slow".to_owned())];
        config.acl = fuser::SessionACL::All;
        let file_system = SlowFolder { name: name.to_owned(), size, latency };
        let session = fuser::spawn_mount(file_system, folder, &config)?;
        Ok(Self { path: folder.join(name), session: Some(session) })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // A file system that is still in use stays until its users have gone: nothing to be done about it here.
            let _ = session.umount_and_join();
        }
    }
}
