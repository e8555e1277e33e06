//! Where functions begin, for files without symbols: the sorted index over `.eh_frame` that unwinders use
//! (`.eh_frame_hdr`), which stripping leaves in place. A function without a name then has at least one identity, instead
//! of as many as it has addresses.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::elf::Elf;

const ENTRY_BYTES: u64 = 8;

/// Encodings that GNU ld, gold, lld and mold all write: a pointer relative to itself, a count, and a table of pairs of
/// 32-bit distances from the index.
const HEADER: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// The begin of the function that holds an address of the file, both as the file counts them.
pub(crate) fn function_start(file: &File, elf: &Elf, address: u64) -> Option<u64> {
    let (offset, length, base) = elf.unwind_index?;
    let mut header = [0; 12];
    file.read_exact_at(&mut header, offset).ok()?;
    if header[..4] != HEADER {
        return None;
    }
    let count = u64::from(u32::from_le_bytes(header[8..12].try_into().ok()?));
    if count > length.checked_sub(12)? / ENTRY_BYTES {
        return None;
    }
    let start_of = |index: u64| -> Option<u64> {
        let mut entry = [0; 4];
        file.read_exact_at(&mut entry, offset.checked_add(12 + index * ENTRY_BYTES)?).ok()?;
        base.checked_add_signed(i64::from(i32::from_le_bytes(entry)))
    };
    // The first entry that begins behind the address.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if start_of(middle)? <= address {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    start_of(low.checked_sub(1)?)
}
