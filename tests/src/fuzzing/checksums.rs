//! Makes the checksums of a damaged capture right, so that the damage is read.

use planus::{Builder, ReadAsRoot};
use stallscope_schemas::capture::{SegmentHeader, SegmentHeaderRef};

/// Bytes of the file's head, and of what precedes each segment's header (docs/capture-format.md).
const FILE_HEAD: usize = 16;
const PREFIX: usize = 24;

/// Where the parts of a segment lie, as far as the file reaches.
struct Segment {
    prefix: usize,
    header: std::ops::Range<usize>,
    body: std::ops::Range<usize>,
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).to_le_bytes()
}

/// The segment at a position; lengths are taken at their word up to the end of the file.
fn segment(bytes: &[u8], at: usize) -> Option<Segment> {
    let prefix = bytes.get(at..at + PREFIX)?;
    let header_len = u32::from_le_bytes(prefix[4..8].try_into().ok()?) as usize;
    let body_len = usize::try_from(u64::from_le_bytes(prefix[8..16].try_into().ok()?)).ok()?;
    let header = at + PREFIX..(at + PREFIX).checked_add(header_len)?;
    let body = header.end..header.end.checked_add(body_len)?;
    (body.end <= bytes.len()).then_some(Segment { prefix: at, header, body })
}

/// Mends the checksums of the head, of every prefix and of every header.
pub(super) fn mend_headers(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < FILE_HEAD {
        return bytes;
    }
    bytes[..12].copy_from_slice(b"\x89STALL\r\n\x01\0\0\0");
    let head = crc(&bytes[..12]);
    bytes[12..FILE_HEAD].copy_from_slice(&head);
    let mut at = FILE_HEAD;
    while bytes.len() >= at + PREFIX {
        bytes[at..at + 4].copy_from_slice(b"\xf5SEG");
        let Some(segment) = segment(&bytes, at) else { break };
        let header = crc(&bytes[segment.header.clone()]);
        bytes[at + 16..at + 20].copy_from_slice(&header);
        let prefix = crc(&bytes[at..at + 20]);
        bytes[at + 20..at + 24].copy_from_slice(&prefix);
        at = segment.body.end;
    }
    bytes
}

/// Mends the checksum of every batch, which stands in its segment's header: headers are written anew.
pub(super) fn mend_batches(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.get(..FILE_HEAD)?.to_vec();
    let mut at = FILE_HEAD;
    while let Some(segment) = segment(bytes, at) {
        let header = SegmentHeaderRef::read_as_root(&bytes[segment.header.clone()]).ok()?;
        let mut header = SegmentHeader::try_from(header).ok()?;
        let body = &bytes[segment.body.clone()];
        for batch in header.batches.iter_mut().flatten() {
            let from = usize::try_from(batch.offset).ok();
            let range = from.and_then(|from| Some(from..from.checked_add(batch.stored_len as usize)?));
            if let Some(stored) = range.and_then(|range| body.get(range)) {
                batch.crc32c = crc32c::crc32c(stored);
            }
        }
        let mut builder = Builder::new();
        let written = builder.finish(&header, None);
        let prefix = out.len();
        out.extend_from_slice(&bytes[segment.prefix..segment.prefix + PREFIX]);
        out[prefix + 4..prefix + 8].copy_from_slice(&u32::try_from(written.len()).ok()?.to_le_bytes());
        out.extend_from_slice(written);
        out.extend_from_slice(body);
        at = segment.body.end;
    }
    Some(mend_headers(out))
}
