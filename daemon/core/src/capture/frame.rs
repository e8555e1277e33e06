//! The fixed bytes around segments: the file's head and each segment's prefix.

use super::{FORMAT_MAJOR, FORMAT_MINOR};

/// First bytes of every capture. The high bit and the line ends show a file that went through a text conversion.
const MAGIC: [u8; 8] = *b"\x89STALL\r\n";
pub(super) const FILE_HEAD_LEN: usize = 16;

/// First bytes of every segment; the reader looks for them after damage.
pub(super) const SEGMENT_MAGIC: [u8; 4] = *b"\xf5SEG";
pub(super) const PREFIX_LEN: usize = 24;

/// Most bytes of a segment header that a reader takes; a writer starts a new segment long before.
pub(super) const MAX_HEADER_LEN: u32 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileHead {
    Readable,
    Newer { major: u16 },
    NotACapture,
}

/// Writes parts one after the other.
fn fill(out: &mut [u8], parts: &[&[u8]]) {
    let bytes = parts.iter().copied().flatten();
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

pub(super) fn file_head() -> [u8; FILE_HEAD_LEN] {
    let mut head = [0u8; FILE_HEAD_LEN];
    let (content, crc) = head.split_at_mut(12);
    fill(content, &[&MAGIC, &FORMAT_MAJOR.to_le_bytes(), &FORMAT_MINOR.to_le_bytes()]);
    crc.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    head
}

pub(super) fn parse_file_head(head: &[u8; FILE_HEAD_LEN]) -> FileHead {
    let Some((magic, rest)) = head.split_first_chunk::<8>() else { return FileHead::NotACapture };
    let Some((major, _)) = rest.split_first_chunk::<2>() else { return FileHead::NotACapture };
    let major = u16::from_le_bytes(*major);
    if *magic != MAGIC {
        FileHead::NotACapture
    } else if major > FORMAT_MAJOR {
        FileHead::Newer { major }
    } else {
        FileHead::Readable
    }
}

/// What precedes a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) header_len: u32,
    pub(super) body_len: u64,
    pub(super) header_crc: u32,
}

impl Prefix {
    pub(super) fn to_bytes(self) -> [u8; PREFIX_LEN] {
        let mut out = [0u8; PREFIX_LEN];
        let (content, crc) = out.split_at_mut(20);
        fill(
            content,
            &[
                &SEGMENT_MAGIC,
                &self.header_len.to_le_bytes(),
                &self.body_len.to_le_bytes(),
                &self.header_crc.to_le_bytes(),
            ],
        );
        crc.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
        out
    }

    /// `None` where the bytes are not an intact prefix.
    pub(super) fn from_bytes(bytes: &[u8; PREFIX_LEN]) -> Option<Self> {
        let (content, crc) = bytes.split_at_checked(20)?;
        if crc32c::crc32c(content).to_le_bytes() != crc {
            return None;
        }
        let (magic, rest) = content.split_first_chunk::<4>()?;
        let (header_len, rest) = rest.split_first_chunk::<4>()?;
        let (body_len, rest) = rest.split_first_chunk::<8>()?;
        let (header_crc, _) = rest.split_first_chunk::<4>()?;
        let prefix = Self {
            header_len: u32::from_le_bytes(*header_len),
            body_len: u64::from_le_bytes(*body_len),
            header_crc: u32::from_le_bytes(*header_crc),
        };
        (*magic == SEGMENT_MAGIC && prefix.header_len <= MAX_HEADER_LEN).then_some(prefix)
    }

    /// Bytes from the first of the prefix to the last of the body.
    pub(super) fn total_len(self) -> u64 {
        (PREFIX_LEN as u64 + u64::from(self.header_len)).saturating_add(self.body_len)
    }
}
