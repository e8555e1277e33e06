//! `PyUnicodeObject` as text.

use super::layout::{Layout, TEXT_LENGTH, TEXT_STATE};
use super::memory::{Memory, half_at, word_at};

/// Reads a string of at most `most` characters. `None` for what is no string of the compact kind, which all names and
/// paths of code objects are.
pub(crate) fn read(memory: &Memory, layout: &Layout, address: u64, most: usize) -> Option<String> {
    let mut head = [0; 48];
    memory.read(address, &mut head)?;
    let length = word_at(&head, TEXT_LENGTH)?;
    // From the lowest bit: interned (2 bits), kind (3), compact, ascii. The same from 3.10 to 3.14.
    let state = half_at(&head, TEXT_STATE)?;
    let (kind, compact, ascii) = (state >> 2 & 7, state >> 5 & 1 == 1, state >> 6 & 1 == 1);
    if !compact || length > u64::try_from(most).ok()? || !matches!(kind, 1 | 2 | 4) || ascii && kind != 1 {
        return None;
    }
    let data = if ascii { layout.ascii_size } else { layout.compact_size };
    let bytes = memory.bytes(address.wrapping_add(u64::from(data)), length * u64::from(kind), most * 4)?;
    Some(decode(&bytes, kind))
}

/// Characters of one, two or four bytes. What is no character (a lone surrogate) becomes U+FFFD.
fn decode(bytes: &[u8], kind: u32) -> String {
    let character = |number: u32| char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
    match kind {
        1 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        2 => bytes.as_chunks().0.iter().map(|two| character(u16::from_le_bytes(*two).into())).collect(),
        _ => bytes.as_chunks().0.iter().map(|four| character(u32::from_le_bytes(*four))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn characters_of_every_width_are_text() {
        assert_eq!(decode(b"train", 1), "train");
        assert_eq!(decode(&[0x67, 0xfc], 1), "gü");
        assert_eq!(decode(&[0x4b, 0x68, 0x00, 0xd8], 2), "桋\u{fffd}");
        assert_eq!(decode(&[0x00, 0xf6, 0x01, 0x00], 4), "😀");
    }
}
