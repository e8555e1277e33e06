//! The agent as a file that stays: what `CUDA_INJECTION64_PATH` leads to in a job that is launched.
//!
//! Children that outlive the command keep the variable, and a driver that does not find the file may refuse to start. So
//! the file is named after its content, appears whole, is used again, and is never removed.
//!
//! What always holds: nobody but root and the user of this process can write the file or replace a folder above it. A job
//! loads what is there as its own code.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, open, statvfs};
use stallscope_agents::AGENT_FILE;

/// Bits by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// In such a folder everybody may have files, and nobody may rename or remove those of others.
const STICKY: u32 = 0o1000;

/// The agent's file; where there can be none, why.
pub(crate) fn keep(image: &[u8]) -> Result<PathBuf, String> {
    let uid = own_uid().ok_or("this process cannot tell which user it belongs to")?;
    let mut refused = Vec::new();
    for folder in places(uid) {
        match keep_in(&folder, image, uid) {
            Ok(path) => return Ok(path),
            Err(why) => refused.push(format!("{}: {why}", folder.display())),
        }
    }
    Err(refused.join("; "))
}

/// Folders that stay as long as a job does, the best first. A user's runtime folder is not among them: it goes with the
/// last session, and jobs outlive that.
fn places(uid: u32) -> Vec<PathBuf> {
    if uid == 0 {
        return ["/run/stallscope", "/var/cache/stallscope", "/var/tmp/stallscope-0"]
            .map(PathBuf::from)
            .into();
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let own = cache.map(|folder| folder.join("stallscope"));
    own.into_iter().chain([PathBuf::from(format!("/var/tmp/stallscope-{uid}"))]).collect()
}

fn keep_in(folder: &Path, image: &[u8], uid: u32) -> Result<PathBuf, String> {
    let text = |error: io::Error| error.to_string();
    let made = make(folder).map_err(text)?;
    // By its descriptor: the name may lead elsewhere in the next moment, until the folders above are looked at.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(open(folder, flags, Mode::empty()).map_err(|error| text(error.into()))?);
    if !only_of(&opened.metadata().map_err(text)?, uid) {
        return Err("another user owns it or may write there".to_owned());
    }
    if made {
        // Whatever the mask of this process: the job may be another user's.
        opened.set_permissions(Permissions::from_mode(0o755)).map_err(text)?;
    }
    // What a link above it leads to is looked at, and no link is left in the path that the job gets.
    let folder = fs::canonicalize(folder).map_err(text)?;
    for above in folder.ancestors().skip(1) {
        let found = fs::symlink_metadata(above).map_err(text)?;
        let ours = found.uid() == uid || found.uid() == 0;
        if !ours || found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0 {
            return Err(format!("another user owns {} or may write there", above.display()));
        }
    }
    if statvfs(&folder).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        return Err("it is mounted noexec: no code is loaded from there".to_owned());
    }
    // The launches probe knows the agent by this beginning.
    let path = folder.join(format!("{AGENT_FILE}{:016x}.so", fnv1a(image)));
    let is_it = |found: Metadata| {
        found.is_file() && only_of(&found, uid) && fs::read(&path).is_ok_and(|bytes| bytes == image)
    };
    if !fs::symlink_metadata(&path).is_ok_and(is_it) {
        let mut file =
            tempfile::Builder::new().prefix(".stallscope-agent-").tempfile_in(&folder).map_err(text)?;
        file.write_all(image).map_err(text)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(text)?;
        file.persist(&path).map_err(|error| error.error.to_string())?;
    }
    Ok(path)
}

/// Makes a folder; whether it is new.
fn make(folder: &Path) -> io::Result<bool> {
    let make = || DirBuilder::new().mode(0o755).create(folder);
    let made = match (make(), folder.parent()) {
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(above)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    }
}

fn only_of(found: &Metadata, uid: u32) -> bool {
    found.uid() == uid && found.mode() & OTHERS_WRITE == 0
}

/// The effective user. The owner of /proc/self is root where the executable has capabilities.
fn own_uid() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Tells versions apart; whoever relies on the content compares it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::path::Path;

    use super::{keep_in, own_uid};

    const NOBODY: u32 = 65_534;

    fn kept(folder: &Path, image: &[u8]) -> Result<std::path::PathBuf, String> {
        keep_in(folder, image, own_uid().expect("this process has a user"))
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_version_has_one_file_that_others_may_read_and_not_write() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("cache/stallscope");
        let first = kept(&folder, b"one").unwrap();
        let inode = fs::metadata(&first).unwrap().ino();
        assert_eq!(kept(&folder, b"one").unwrap(), first);
        assert_eq!(fs::metadata(&first).unwrap().ino(), inode, "the same file is used again");
        let second = kept(&folder, b"two").unwrap();
        assert_eq!((fs::read(&first).unwrap(), fs::read(&second).unwrap()), (b"one".into(), b"two".into()));
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_file_with_another_content_or_that_others_may_write_is_not_loaded() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("stallscope");
        let path = kept(&folder, b"agent").unwrap();
        fs::write(&path, "not it").unwrap();
        assert_eq!(fs::read(kept(&folder, b"agent").unwrap()).unwrap(), b"agent");
        mode(&path, 0o666);
        let open = fs::metadata(&path).unwrap().ino();
        let mended = fs::metadata(kept(&folder, b"agent").unwrap()).unwrap();
        assert_ne!(mended.ino(), open, "whoever has it open for writing has another file");
        assert_eq!(mended.mode() & 0o7777, 0o644);
        fs::remove_file(&path).unwrap();
        let other = scratch.path().join("other.so");
        fs::write(&other, "agent").unwrap();
        symlink(&other, &path).unwrap();
        let kept = kept(&folder, b"agent").unwrap();
        assert!(fs::symlink_metadata(kept).unwrap().is_file(), "a link may lead elsewhere tomorrow");
    }

    #[test]
    fn a_folder_that_others_may_write_or_replace_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let above = scratch.path().join("above");
        let folder = above.join("stallscope");
        kept(&folder, b"agent").unwrap();
        mode(&folder, 0o775);
        assert!(kept(&folder, b"agent").unwrap_err().contains("another user"), "its group may write");
        mode(&folder, 0o755);
        mode(&above, 0o777);
        assert!(
            kept(&folder, b"agent").unwrap_err().contains("above"),
            "anybody may put another in its place"
        );
        mode(&above, 0o1777);
        kept(&folder, b"agent").unwrap();
        let link = scratch.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(kept(&link, b"agent").is_err(), "a link");
    }

    #[test]
    fn a_folder_or_file_of_another_user_is_refused() {
        if own_uid() != Some(0) {
            println!("skipped: not root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let above = scratch.path().join("above");
        let folder = above.join("stallscope");
        let path = kept(&folder, b"agent").unwrap();
        chown(&path, Some(NOBODY), None).unwrap();
        assert_eq!(fs::metadata(kept(&folder, b"agent").unwrap()).unwrap().uid(), 0);
        for theirs in [&folder, &above] {
            chown(theirs, Some(NOBODY), None).unwrap();
            assert!(kept(&folder, b"agent").unwrap_err().contains("another user owns"), "{theirs:?}");
            chown(theirs, Some(0), None).unwrap();
        }
        kept(&folder, b"agent").unwrap();
    }
}
