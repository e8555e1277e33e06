//! Thrift's compact protocol, as far as the headers of Parquet need it.
//!
//! Nothing is believed: a length is compared with the bytes that are left before anything is made of it, and what is
//! skipped may nest [`MAX_DEPTH`] deep.

use super::Damage;

/// Structures within structures that are skipped; Parquet's own headers nest five deep.
const MAX_DEPTH: u32 = 32;

/// Types of fields and elements, by their number on the wire.
mod wire_type {
    pub(super) const STOP: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const I8: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I32: u8 = 5;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
}

/// A field of a structure: its number and the type of what follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) id: i16,
    kind: u8,
}

/// Reads from a slice, front to back.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes, length: bytes.len() }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.length - self.left.len()
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        let (&first, rest) = self.left.split_first().ok_or(Damage::Cut("a header"))?;
        self.left = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damage::Nonsense("a number in a header"))
    }

    fn zigzag(&mut self) -> Result<i64, Damage> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Walks the fields of a structure. `each` reads the field and says so, or leaves it to be skipped.
    pub(super) fn structure(
        &mut self,
        mut each: impl FnMut(&mut Self, Field) -> Result<bool, Damage>,
    ) -> Result<(), Damage> {
        let mut last = 0i16;
        while let Some(field) = self.field(&mut last)? {
            if !each(self, field)? {
                self.skip(field.kind, MAX_DEPTH)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, last: &mut i16) -> Result<Option<Field>, Damage> {
        let head = self.byte()?;
        let kind = head & 0x0f;
        if kind == wire_type::STOP {
            return Ok(None);
        }
        let id = match i16::from(head >> 4) {
            0 => i16::try_from(self.zigzag()?).ok(),
            delta => last.checked_add(delta),
        };
        *last = id.ok_or(Damage::Nonsense("a field's number"))?;
        Ok(Some(Field { id: *last, kind }))
    }

    /// A whole number of any width.
    pub(super) fn integer(&mut self, field: Field) -> Result<i64, Damage> {
        match field.kind {
            wire_type::I16 | wire_type::I32 | wire_type::I64 => self.zigzag(),
            wire_type::I8 => Ok(i64::from(self.byte()?.cast_signed())),
            _ => Err(Damage::Nonsense("a field's type")),
        }
    }

    /// A whole number that counts or measures something.
    pub(super) fn size(&mut self, field: Field) -> Result<usize, Damage> {
        usize::try_from(self.integer(field)?).map_err(|_| Damage::Nonsense("a negative size"))
    }

    /// A truth value, which is in the field's type.
    pub(super) fn boolean(&self, field: Field) -> bool {
        field.kind == wire_type::TRUE
    }

    /// Text; what is no UTF-8 in it is replaced.
    pub(super) fn text(&mut self, field: Field) -> Result<String, Damage> {
        if field.kind != wire_type::BINARY {
            return Err(Damage::Nonsense("a field's type"));
        }
        Ok(String::from_utf8_lossy(self.binary()?).into_owned())
    }

    fn binary(&mut self) -> Result<&'a [u8], Damage> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.left.split_at_checked(length).ok_or(Damage::Cut("a header"))?;
        self.left = rest;
        Ok(bytes)
    }

    /// The number of elements of a list and their type. Each takes a byte at least.
    fn list(&mut self) -> Result<(usize, u8), Damage> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.varint()?).unwrap_or(usize::MAX),
            few => usize::from(few),
        };
        if count > self.left.len() {
            return Err(Damage::Cut("a list in a header"));
        }
        Ok((count, head & 0x0f))
    }

    /// A list of structures, each read by `each`.
    pub(super) fn structures<T>(
        &mut self,
        field: Field,
        mut each: impl FnMut(&mut Self) -> Result<T, Damage>,
    ) -> Result<Vec<T>, Damage> {
        if field.kind != wire_type::LIST {
            return Err(Damage::Nonsense("a field's type"));
        }
        let (count, kind) = self.list()?;
        if kind != wire_type::STRUCT && count > 0 {
            return Err(Damage::Nonsense("a list's type"));
        }
        (0..count).map(|_| each(self)).collect()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, field: Field) -> Result<Vec<String>, Damage> {
        if field.kind != wire_type::LIST {
            return Err(Damage::Nonsense("a field's type"));
        }
        let (count, kind) = self.list()?;
        if kind != wire_type::BINARY && count > 0 {
            return Err(Damage::Nonsense("a list's type"));
        }
        (0..count).map(|_| Ok(String::from_utf8_lossy(self.binary()?).into_owned())).collect()
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), Damage> {
        let deeper = depth.checked_sub(1).ok_or(Damage::Nonsense("a header nested too deep"))?;
        match kind {
            wire_type::TRUE | wire_type::FALSE => Ok(()),
            wire_type::I8 => self.byte().map(drop),
            wire_type::I16 | wire_type::I32 | wire_type::I64 => self.varint().map(drop),
            wire_type::DOUBLE => (0..8).try_for_each(|_| self.byte().map(drop)),
            wire_type::BINARY => self.binary().map(drop),
            wire_type::LIST | wire_type::SET => {
                let (count, element) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(element, deeper))
            }
            wire_type::MAP => {
                let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..count.min(self.left.len())).try_for_each(|_| {
                    self.skip_element(kinds >> 4, deeper)?;
                    self.skip_element(kinds & 0x0f, deeper)
                })
            }
            wire_type::STRUCT => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    self.skip(field.kind, deeper)?;
                }
                Ok(())
            }
            _ => Err(Damage::Nonsense("a field's type")),
        }
    }

    /// Within lists a truth value takes a byte.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Result<(), Damage> {
        match kind {
            wire_type::TRUE | wire_type::FALSE => self.byte().map(drop),
            other => self.skip(other, depth),
        }
    }
}
