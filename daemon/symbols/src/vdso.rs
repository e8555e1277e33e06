//! The vdso: code that the kernel maps into every process, without a file. All 64-bit processes have the same, so ours is
//! copied once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::elf::{bounded_length, unsupported};
use crate::maps::{self, Place};

/// It has two pages today.
const LONGEST_BYTES: u64 = 1 << 20;

/// A file with the vdso in it.
pub(crate) fn copy() -> io::Result<File> {
    let maps = fs::read("/proc/self/maps")?;
    let mapping = maps::executable(&maps, usize::MAX)
        .into_iter()
        .find(|mapping| matches!(mapping.place, Place::Vdso))
        .ok_or_else(|| unsupported("this process has no vdso"))?;
    let mut bytes = vec![0; bounded_length(mapping.end - mapping.start, LONGEST_BYTES)?];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, mapping.start)?;
    let file = File::from(memfd_create("stallscope-vdso", MemfdFlags::CLOEXEC)?);
    file.write_all_at(&bytes, 0)?;
    Ok(file)
}
