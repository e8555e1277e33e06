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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{line_3_10, line_3_11};

    /// Made by `tests/python_linetables.py` with each interpreter.
    const TABLES: &str = include_str!("../../tests/python_linetables.json");

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn every_instruction_has_the_line_that_its_interpreter_gives_it() {
        let mut versions = Vec::new();
        for text in TABLES.lines() {
            let interpreter: Value = serde_json::from_str(text).unwrap();
            let version = interpreter["version"].as_str().unwrap();
            let decode = if version.starts_with("3.10.") { line_3_10 } else { line_3_11 };
            let (mut instructions, mut without) = (0, 0);
            for code in interpreter["codes"].as_array().unwrap() {
                let table = bytes(code[0].as_str().unwrap());
                let first = u32::try_from(code[1].as_u64().unwrap()).unwrap();
                let mut end = 0;
                for range in code[2].as_array().unwrap() {
                    let numbers: Vec<u64> =
                        range.as_array().unwrap().iter().flat_map(Value::as_u64).collect();
                    // 0 stands for none; a module's first instruction has the line 0 in 3.11.
                    let line = u32::try_from(numbers[2]).unwrap();
                    for offset in (numbers[0]..numbers[1]).step_by(2) {
                        assert_eq!(
                            decode(&table, first, offset).unwrap_or(0),
                            line,
                            "{version}, line {first}, offset {offset}"
                        );
                        instructions += 1;
                        without += u32::from(line == 0);
                    }
                    end = numbers[1];
                }
                assert_eq!(decode(&table, first, end), None, "{version}: past the end");
            }
            assert!(instructions > 400 && without > 0, "{version}: {instructions}, {without} without a line");
            versions.push(version.rsplit_once('.').unwrap().0.to_owned());
        }
        assert_eq!(versions, ["3.10", "3.11", "3.12", "3.13", "3.14"]);
    }

    #[test]
    fn tables_that_are_cut_or_garbage_end() {
        // A change that goes on for ever, a long form without its numbers, lines below zero and past the greatest.
        assert_eq!(line_3_11(&[0xe8, 0xff, 0xff, 0xff], 1, 0), None);
        assert_eq!(line_3_11(&[0xf0], 1, 0), None);
        assert_eq!(line_3_11(&[0xe8, 0x07], 1, 0), None);
        let far = [0xe8, 0x7e, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x3f].repeat(100);
        assert_eq!(line_3_11(&far, u32::MAX, 1 << 40), None);
        assert_eq!((line_3_10(&[4], 1, 0), line_3_10(&[4, 0x81], 1, 0)), (None, None));
        for seed in 0..2000u32 {
            let garbage: Vec<u8> = (0..64)
                .map(|at| (seed.wrapping_mul(2_654_435_761 + at * 97) >> 11).to_le_bytes()[0])
                .collect();
            for offset in [0, 2, 40, 1000, u64::MAX] {
                line_3_10(&garbage, seed, offset);
                line_3_11(&garbage, seed, offset);
            }
        }
    }
}
