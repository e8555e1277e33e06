//! The array of processes that NVML writes, whose elements differ from version to version.
//!
//! | Element | Bytes | In |
//! |---|---|---|
//! | pid, memory | 16 | drivers before 450; some later ones, whatever the function's version |
//! | … GPU instance, compute instance | 24 | most |
//! | … protected memory | 32 | early drivers of 535, under the name of a version that had 24 |
//!
//! The name of the function does not tell which, so the array does: it is filled with a mark before the call, and where
//! the mark begins again is the end of the last element.

use std::ops::Range;

/// Most lists fit into so many elements.
pub(super) const FEW: u32 = 32;

/// More processes than compute on any GPU.
pub(super) const MOST: u32 = 4096;

/// Words kept for an element: twice of what the largest layout has.
const ROOM_WORDS: usize = 8;

/// Not part of any element's last word: memory is below 2^56, and an instance is small or all ones.
const MARK: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// What stands for memory that the driver does not know.
const UNKNOWN_MEMORY: u64 = u64::MAX;

/// A process on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) memory_bytes: Option<u64>,
}

/// An array for so many elements.
pub(super) fn buffer(count: u32) -> Vec<u64> {
    vec![MARK; usize::try_from(count).unwrap_or(0) * ROOM_WORDS]
}

/// Reads `count` elements; none where they are of no known layout.
pub(super) fn decode(buffer: &[u64], count: u32) -> Option<Vec<Process>> {
    let count = usize::try_from(count).ok()?;
    if count == 0 {
        return Some(Vec::new());
    }
    let end = buffer.iter().rposition(|&word| word != MARK)? + 1;
    let words = end / count;
    if end % count != 0 || !LAYOUTS.contains(&words) {
        return None;
    }
    buffer.chunks_exact(words).take(count).map(process).collect()
}

/// Words of an element.
const LAYOUTS: Range<usize> = 2..5;

fn process(element: &[u64]) -> Option<Process> {
    let (&pid, &memory) = (element.first()?, element.get(1)?);
    let [a, b, c, d, ..] = pid.to_ne_bytes();
    let memory_bytes = Some(memory).filter(|&memory| memory != UNKNOWN_MEMORY);
    Some(Process { pid: u32::from_ne_bytes([a, b, c, d]), memory_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes as a library writes them: it leaves the hole after the pid alone.
    fn written(rest: &[u64]) -> Vec<u64> {
        let mut buffer = buffer(FEW);
        let elements = [(7u32, 1000u64), (8, u64::MAX)];
        for (at, (pid, memory)) in elements.into_iter().enumerate() {
            let at = at * (2 + rest.len());
            buffer[at] = u64::from(pid) | MARK >> 32 << 32;
            buffer[at + 1] = memory;
            buffer[at + 2..at + 2 + rest.len()].copy_from_slice(rest);
        }
        buffer
    }

    #[test]
    fn every_layout_is_told_by_what_was_written() {
        let expected = [Process { pid: 7, memory_bytes: Some(1000) }, Process { pid: 8, memory_bytes: None }];
        for rest in [&[][..], &[u64::MAX], &[3, 0]] {
            assert_eq!(decode(&written(rest), 2).as_deref(), Some(&expected[..]), "{rest:?}");
        }
    }

    #[test]
    fn what_is_of_no_layout_is_refused() {
        assert_eq!(decode(&buffer(FEW), 0), Some(Vec::new()));
        // Nothing was written, less than was said, more than any layout has.
        assert_eq!(decode(&buffer(FEW), 2), None);
        assert_eq!(decode(&written(&[u64::MAX]), 4), None);
        assert_eq!(decode(&written(&[1, 2, 3]), 2), None);
        assert_eq!(decode(&written(&[]), u32::MAX), None);
        assert_eq!(decode(&[], 1), None);
    }
}
