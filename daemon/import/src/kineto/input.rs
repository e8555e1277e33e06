//! A window onto a stream of bytes that grows while somebody needs to see a value whole.
//!
//! Invariant: the window never holds more than the limit plus one buffer, whatever the input claims; each refill at least
//! doubles what the caller sees or ends the input, so that parsing a value again after a refill stays linear in its size.

use std::io::{self, Read};

/// What a refill achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// There is more to see.
    More,
    /// The input has ended (or broke off, see [`Input::take_failure`]).
    End,
    /// The window is at its limit.
    Full,
}

/// Sizes of the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes that are read at once. 256 KiB stays in the second-level cache with the tables; measured flat from
    /// 128 KiB to 1 MiB.
    pub(super) buffer: usize,
    /// Largest value that is looked at whole. An event with the arguments of a large collective or a long Python stack
    /// has tens of kilobytes; nothing that is wanted here comes near.
    pub(super) value_limit: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { buffer: 256 << 10, value_limit: 16 << 20 }
    }
}

/// The window.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    sizes: Sizes,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the stream before the window.
    passed: u64,
    ended: bool,
    failure: Option<io::Error>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, sizes: Sizes) -> Self {
        let buffer = vec![0; sizes.buffer.max(16)];
        Self { reader, sizes, buffer, start: 0, end: 0, passed: 0, ended: false, failure: None }
    }

    /// What can be seen.
    pub(super) fn window(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves the window's beginning.
    pub(super) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.end - self.start);
        self.start += bytes;
        self.passed += bytes as u64;
    }

    /// Bytes of the stream before the window.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// The error that ended the input, if one did.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Extends the window.
    pub(super) fn fill(&mut self) -> Fill {
        if self.ended {
            return Fill::End;
        }
        let len = self.end - self.start;
        if len >= self.sizes.value_limit.max(16) {
            return Fill::Full;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, len);
        if len > self.buffer.len() / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        while let Some(room) = self.buffer.get_mut(self.end..).filter(|room| !room.is_empty()) {
            match self.reader.read(room) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.end += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.failure = Some(e);
                    self.ended = true;
                    break;
                }
            }
        }
        if self.end > len { Fill::More } else { Fill::End }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fill, Input, Sizes};

    #[test]
    fn the_window_grows_to_its_limit_and_no_further() {
        let mut input = Input::new(std::io::repeat(b'x'), Sizes { buffer: 16, value_limit: 100 });
        let mut lens = Vec::new();
        while input.fill() == Fill::More {
            lens.push(input.window().len());
        }
        assert_eq!(lens, [16, 32, 64, 128]);
        input.consume(120);
        assert_eq!((input.fill(), input.window().len(), input.passed()), (Fill::More, 128, 120));
    }

    #[test]
    fn what_was_read_before_an_error_is_seen() {
        struct Breaks(u8);
        impl std::io::Read for Breaks {
            fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                to[0] = self.0;
                Ok(1)
            }
        }
        let mut input = Input::new(Breaks(0), Sizes::default());
        assert_eq!(input.fill(), Fill::More);
        assert_eq!(input.window(), [1, 2, 3]);
        assert_eq!(input.fill(), Fill::End);
        assert!(input.take_failure().is_some());
    }
}
