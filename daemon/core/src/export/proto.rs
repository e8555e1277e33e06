//! Streams one large protobuf message field by field: a message is its fields in any order, so that a file of millions
//! of records never exists as a value.

use std::io::{self, Write};

use prost::Message;
use prost::encoding::{WireType, encode_key};

/// Writes submessages of one message.
#[derive(Debug)]
pub(super) struct FieldWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

/// Bytes that gather before they are written.
const FLUSH_BYTES: usize = 256 << 10;

impl<W: Write> FieldWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, buffer: Vec::with_capacity(FLUSH_BYTES) }
    }

    /// Writes one submessage under a field number.
    pub(super) fn message(&mut self, field: u32, message: &impl Message) -> io::Result<()> {
        encode_key(field, WireType::LengthDelimited, &mut self.buffer);
        // A vector grows, so there is always room.
        message.encode_length_delimited(&mut self.buffer).map_err(io::Error::other)?;
        self.drain(FLUSH_BYTES)
    }

    /// Writes one string under a field number.
    pub(super) fn string(&mut self, field: u32, text: &str) -> io::Result<()> {
        encode_key(field, WireType::LengthDelimited, &mut self.buffer);
        prost::encoding::encode_varint(text.len() as u64, &mut self.buffer);
        self.buffer.extend_from_slice(text.as_bytes());
        self.drain(FLUSH_BYTES)
    }

    /// Writes one integer under a field number.
    pub(super) fn integer(&mut self, field: u32, value: i64) -> io::Result<()> {
        encode_key(field, WireType::Varint, &mut self.buffer);
        prost::encoding::encode_varint(value.cast_unsigned(), &mut self.buffer);
        self.drain(FLUSH_BYTES)
    }

    /// Writes out what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.drain(0)?;
        self.out.flush()
    }

    fn drain(&mut self, at_least: usize) -> io::Result<()> {
        if self.buffer.len() >= at_least {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}
