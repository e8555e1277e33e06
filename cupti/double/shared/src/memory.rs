//! Memory that several processes of one machine share, and threads of theirs that wait for each other in it.
//!
//! It is a file without a name in any folder: it goes with the last process that has it, however that one ends. Who is
//! told its [`Place`] finds it through the process that made it, or finds that it cannot be reached from where it is.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;
use serde::{Deserialize, Serialize};

use crate::sys;

/// Where others find the memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The maker's descriptor of it, in /proc as the maker has it.
    pub path: String,
    /// Its name, which no other has: in another PID namespace `path` may be of something else.
    pub name: String,
}

/// Memory to be shared, full of zeros; it is there at least as long as this.
#[derive(Debug)]
pub struct Source {
    file: File,
    name: String,
}

impl Source {
    /// Memory with so many words.
    ///
    /// # Errors
    /// The system's.
    pub fn new(purpose: &str, words: usize) -> io::Result<Self> {
        let number = RandomState::new().build_hasher().finish();
        let name = format!("{purpose}-{number:016x}");
        let file = File::from(memfd_create(&name, MemfdFlags::CLOEXEC)?);
        file.set_len(bytes(words)? as u64)?;
        Ok(Self { file, name })
    }

    /// What to tell others.
    #[must_use]
    pub fn place(&self) -> Place {
        let path = format!("/proc/{}/fd/{}", sys::process_id(), self.file.as_raw_fd());
        Place { path, name: self.name.clone() }
    }
}

/// The turn has a line of the cache of its own, ahead of the words.
const BEFORE_WORDS: usize = 64;

fn bytes(words: usize) -> io::Result<usize> {
    let bytes = words.checked_mul(8).and_then(|bytes| bytes.checked_add(BEFORE_WORDS));
    bytes.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// The memory, in this process.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    words: usize,
}

// SAFETY: the mapping belongs to the process and not to a thread; it is reached through atomics alone.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// The memory at this place, of which so many words are wanted.
    ///
    /// # Errors
    /// It is not there for us, or too small.
    pub fn open(place: &Place, words: usize) -> io::Result<Self> {
        let target = std::fs::read_link(&place.path)?;
        if target.as_os_str() != format!("/memfd:{} (deleted)", place.name).as_str() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = OpenOptions::new().read(true).write(true).open(&place.path)?;
        let bytes = bytes(words)?;
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let base =
            unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file.as_fd(), 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, words })
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many bytes more than its words.
        let first = unsafe { self.base.add(BEFORE_WORDS) }.cast::<AtomicU64>();
        // SAFETY: mapped, aligned (a page plus a line), zeroed at first and as long as `self` lives, which the slice
        // borrows; the file has the length since before anybody knew of it, and nobody shortens it.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.words) }
    }

    fn turns(&self) -> &AtomicU32 {
        // SAFETY: mapped, aligned to a page, and as long as `self` lives; no word is in its place.
        unsafe { self.base.cast::<AtomicU32>().as_ref() }
    }

    /// A number that changes before anybody is woken: to be read before looking at the words.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.turns().load(Ordering::SeqCst)
    }

    /// Sleep until someone wakes one of these bits; not at all if the turn is another already.
    pub fn wait(&self, turn: u32, bits: NonZeroU32) {
        // Woken for nothing, callers look and come back.
        let _ = futex::wait_bitset(self.turns(), futex::Flags::empty(), turn, None, bits);
    }

    /// Wake all that sleep for one of these bits, in all processes.
    pub fn wake(&self, bits: NonZeroU32) {
        self.turns().fetch_add(1, Ordering::SeqCst);
        // There is nothing to be done where it fails, and nothing for which it does.
        let _ = futex::wake_bitset(self.turns(), futex::Flags::empty(), i32::MAX.unsigned_abs(), bits);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bytes = BEFORE_WORDS + 8 * self.words;
        // SAFETY: the mapping is ours, of this length, and every reference into it borrowed `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[test]
    fn what_one_writes_the_other_reads_and_wakes_up() {
        let source = Source::new("double-test", 100).unwrap();
        let (mine, other) = (source.place(), source.place());
        let (mine, other) = (Memory::open(&mine, 100).unwrap(), Memory::open(&other, 100).unwrap());
        drop(source);
        assert_ne!(mine.base, other.base);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while other.words()[99].load(Ordering::SeqCst) == 0 {
                    let turn = other.turn();
                    if other.words()[99].load(Ordering::SeqCst) == 0 {
                        other.wait(turn, ONE);
                    }
                }
                other.words()[0].store(6, Ordering::SeqCst);
            });
            mine.words()[99].store(5, Ordering::SeqCst);
            mine.wake(ONE);
        });
        assert_eq!(mine.words()[0].load(Ordering::SeqCst), 6);
    }

    #[test]
    fn another_file_in_its_place_is_not_it() {
        let source = Source::new("double-test", 8).unwrap();
        let place = source.place();
        assert!(Memory::open(&place, 9).is_err(), "it is smaller than that");
        assert!(Memory::open(&place, 8).is_ok());
        let other = Source::new("double-test", 8).unwrap();
        assert_ne!(other.place().name, place.name);
        assert!(Memory::open(&Place { path: other.place().path, ..place.clone() }, 8).is_err());
        drop(source);
        assert!(Memory::open(&place, 8).is_err());
    }
}
