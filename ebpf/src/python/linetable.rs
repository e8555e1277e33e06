//! From an instruction's offset to its line: the two formats of `co_linetable`.
//!
//! Pure functions of bytes that another process wrote: whatever they are, these end within the table and give a line
//! or none.

/// 3.10: pairs of bytes, how far the entry reaches and by how much the line changes before it; -128 means no line.
/// Source: CPython 3.10, `Objects/lnotab_notes.txt`.
pub(crate) fn line_3_10(table: &[u8], first_line: u32, offset: u64) -> Option<u32> {
    const NO_LINE: i8 = -128;
    let mut line = i64::from(first_line);
    let mut end = 0u64;
    for &[reach, change] in table.as_chunks::<2>().0 {
        let change = change.cast_signed();
        if change != NO_LINE {
            line += i64::from(change);
        }
        end += u64::from(reach);
        if offset < end {
            return if change == NO_LINE { None } else { u32::try_from(line).ok() };
        }
    }
    None
}

/// 3.11 and later: entries of a byte `1kkkklll`, kind and code units less one, and what the kind says.
/// Source: CPython 3.11, `Objects/locations.md`.
pub(crate) fn line_3_11(table: &[u8], first_line: u32, offset: u64) -> Option<u32> {
    const UNIT: u64 = 2;
    let mut bytes = table.iter().copied();
    let mut line = i64::from(first_line);
    let mut end = 0u64;
    while let Some(head) = bytes.next() {
        end += (u64::from(head & 7) + 1) * UNIT;
        let mut none = false;
        match head >> 3 & 15 {
            // Short forms: the same line, a byte of columns.
            0..=9 => skip(&mut bytes, 1)?,
            // One line: the change is in the kind, two bytes of columns.
            kind @ 10..=12 => {
                line += i64::from(kind) - 10;
                skip(&mut bytes, 2)?;
            }
            // No columns.
            13 => line = line.checked_add(signed(&mut bytes)?)?,
            // Long form: line, end line, columns.
            14 => {
                line = line.checked_add(signed(&mut bytes)?)?;
                for _ in 0..3 {
                    number(&mut bytes)?;
                }
            }
            _ => none = true,
        }
        if offset < end {
            return if none { None } else { u32::try_from(line).ok() };
        }
    }
    None
}

fn skip(bytes: &mut impl Iterator<Item = u8>, count: usize) -> Option<()> {
    for _ in 0..count {
        bytes.next()?;
    }
    Some(())
}

/// Six bits a byte, the least first; bit 6 says that more follow.
fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..60).step_by(6) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 63) << shift;
        if byte & 64 == 0 {
            return Some(value);
        }
    }
    None
}

/// The lowest bit is the sign.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = number(bytes)?;
    let magnitude = i64::try_from(value >> 1).ok()?;
    Some(if value & 1 == 1 { -magnitude } else { magnitude })
}
