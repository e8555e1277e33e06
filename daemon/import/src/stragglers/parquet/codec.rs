//! How pages are compressed: not at all, with Snappy, or with gzip.

use std::io::Read;

use super::Damage;

const UNCOMPRESSED: i64 = 0;
const SNAPPY: i64 = 1;
const GZIP: i64 = 2;

/// The most that a page may hold unpacked. Writers aim at one megabyte.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// Unpacks a page that is said to have `plain_len` bytes. Memory grows with what is really unpacked.
pub(super) fn unpack(codec: i64, stored: &[u8], plain_len: usize) -> Result<Vec<u8>, Damage> {
    if plain_len > MAX_PAGE_BYTES {
        return Err(Damage::Nonsense("the size of a page"));
    }
    let plain = match codec {
        UNCOMPRESSED => stored.to_vec(),
        SNAPPY => snappy(stored, plain_len)?,
        GZIP => {
            let mut plain = Vec::new();
            let limit = plain_len as u64 + 1;
            flate2::read::MultiGzDecoder::new(stored)
                .take(limit)
                .read_to_end(&mut plain)
                .map_err(|_| Damage::Nonsense("a page compressed with gzip"))?;
            plain
        }
        other => return Err(Damage::Codec(codec_name(other))),
    };
    if plain.len() == plain_len { Ok(plain) } else { Err(Damage::Nonsense("the length of a page")) }
}

fn codec_name(codec: i64) -> &'static str {
    match codec {
        3 => "LZO",
        4 => "Brotli",
        5 | 7 => "LZ4",
        6 => "Zstandard",
        _ => "a method that is not known here",
    }
}

/// Snappy's raw format: a length, then stretches of bytes as they are and copies of what was unpacked before.
fn snappy(stored: &[u8], plain_len: usize) -> Result<Vec<u8>, Damage> {
    const BAD: Damage = Damage::Nonsense("a page compressed with Snappy");
    let (claimed, mut at) = length(stored).ok_or(BAD)?;
    if claimed != plain_len {
        return Err(BAD);
    }
    // One byte of input makes 32 at most.
    let mut plain = Vec::with_capacity(plain_len.min(stored.len().saturating_mul(32)));
    let little = |at: usize, bytes: usize| -> Option<usize> {
        let slice = stored.get(at..at.checked_add(bytes)?)?;
        Some(slice.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
    };
    while let Some(&tag) = stored.get(at) {
        at += 1;
        let high = usize::from(tag >> 2);
        if tag & 3 == 0 {
            let extra = high.saturating_sub(59);
            let count = if extra == 0 { high } else { little(at, extra).ok_or(BAD)? } + 1;
            at += extra;
            plain.extend_from_slice(stored.get(at..at.saturating_add(count)).ok_or(BAD)?);
            at += count;
        } else {
            let (count, offset, extra) = match tag & 3 {
                1 => ((high & 7) + 4, (high >> 3) << 8 | little(at, 1).ok_or(BAD)?, 1),
                2 => (high + 1, little(at, 2).ok_or(BAD)?, 2),
                _ => (high + 1, little(at, 4).ok_or(BAD)?, 4),
            };
            at += extra;
            let from = plain.len().checked_sub(offset).filter(|_| offset > 0).ok_or(BAD)?;
            // A copy may reach into what it has just written.
            for i in from..from + count {
                let byte = *plain.get(i).ok_or(BAD)?;
                plain.push(byte);
            }
        }
        if plain.len() > plain_len {
            return Err(BAD);
        }
    }
    Ok(plain)
}

/// The varint at the front, and where it ends.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Damage, GZIP, SNAPPY, snappy, unpack};

    #[test]
    fn snappy_unpacks_literals_and_copies_that_overlap_themselves() {
        // 10 bytes: "ab" as it is, then 8 bytes from 2 back.
        let stored = [10, 1 << 2, b'a', b'b', (4 << 2) | 1, 2];
        assert_eq!(snappy(&stored, 10).unwrap(), b"ababababab");
        // A literal with its length in a byte of its own.
        let mut long = vec![70, 60 << 2, 69];
        long.extend([7u8; 70]);
        assert_eq!(snappy(&long, 70).unwrap(), [7; 70]);
        // A copy with a wide offset.
        assert_eq!(snappy(&[4, 0, b'x', (2 << 2) | 2, 1, 0], 4).unwrap(), b"xxxx");
    }

    #[test]
    fn what_is_compressed_badly_is_refused() {
        for bad in
            [&[][..], &[0xff; 8], &[4, 0, b'x', (2 << 2) | 2, 9, 0], &[4, (8 << 2), 1], &[2, 4 << 2, 1, 1, 1]]
        {
            assert!(snappy(bad, 4).is_err(), "{bad:?}");
        }
        assert!(unpack(SNAPPY, &[0], 1 << 40).is_err());
        assert!(unpack(GZIP, &[1, 2, 3], 10).is_err());
        assert!(matches!(unpack(6, &[], 0), Err(Damage::Codec("Zstandard"))));
    }
}
