//! The pages of one column of one group of rows.

use super::codec::unpack;
use super::levels::Hybrid;
use super::metadata::{ColumnMeta, PageHeader, PageKind, Physical, page_header};
use super::{Cell, Damage};

const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE_DICTIONARY: i64 = 8;

/// Values in their plain form, front to back.
#[derive(Clone, Debug)]
struct Plain<'a> {
    left: &'a [u8],
    physical: Physical,
}

impl<'a> Plain<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (bytes, rest) = self.left.split_first_chunk::<N>().ok_or(Damage::Cut("a page"))?;
        self.left = rest;
        Ok(*bytes)
    }

    fn next(&mut self) -> Result<Cell<'a>, Damage> {
        Ok(match self.physical {
            Physical::Int32 => Cell::Integer(i32::from_le_bytes(self.take()?).into()),
            Physical::Int64 => Cell::Integer(i64::from_le_bytes(self.take()?)),
            Physical::Float => Cell::Real(f32::from_le_bytes(self.take()?).into()),
            Physical::Double => Cell::Real(f64::from_le_bytes(self.take()?)),
            Physical::Text => {
                let length = u32::from_le_bytes(self.take()?) as usize;
                let (text, rest) = self.left.split_at_checked(length).ok_or(Damage::Cut("a page"))?;
                self.left = rest;
                Cell::Text(text)
            }
            Physical::Other => return Err(Damage::Nonsense("a column's type")),
        })
    }
}

/// Values that a dictionary page lists: a value takes four bytes at least, so that the list is no longer than the page.
fn dictionary<'a>(bytes: &'a [u8], header: &PageHeader, physical: Physical) -> Result<Vec<Cell<'a>>, Damage> {
    if header.values > bytes.len() {
        return Err(Damage::Cut("a dictionary"));
    }
    let mut plain = Plain { left: bytes, physical };
    (0..header.values).map(|_| plain.next()).collect()
}

/// Hands over the values of a chunk, which has `rows` of them.
pub(super) fn read_chunk(
    chunk: &[u8],
    column: &ColumnMeta,
    codec: i64,
    rows: usize,
    each: &mut dyn FnMut(usize, Cell<'_>),
) -> Result<(), Damage> {
    let mut left = chunk;
    let mut dictionary_bytes: Option<(Vec<u8>, PageHeader)> = None;
    let mut row = 0;
    // The dictionary comes first, if there is one: its bytes must outlive the values that point into them.
    if rows > 0
        && let Some((header, stored, rest)) = next_page(left)?
        && header.kind == PageKind::Dictionary
    {
        dictionary_bytes = Some((unpack(codec, stored, header.plain_len)?, header));
        left = rest;
    }
    let values = match &dictionary_bytes {
        Some((bytes, header)) if header.encoding == PLAIN || header.encoding == PLAIN_DICTIONARY => {
            dictionary(bytes, header, column.physical)?
        }
        Some(_) => return Err(Damage::Encoding(column.name.clone())),
        None => Vec::new(),
    };
    while row < rows {
        let (header, stored, rest) = next_page(left)?.ok_or(Damage::Cut("a column"))?;
        left = rest;
        if matches!(header.kind, PageKind::Data | PageKind::DataV2 { .. }) {
            if header.values > rows - row {
                return Err(Damage::Nonsense("the number of values in a page"));
            }
            data_page(&header, stored, column, codec, &values, &mut |at, cell| each(row + at, cell))?;
            row += header.values;
        }
    }
    Ok(())
}

/// A page's header, its bytes as stored, and what follows.
type Page<'a> = (PageHeader, &'a [u8], &'a [u8]);

/// The page at the front; none at the end.
fn next_page(left: &[u8]) -> Result<Option<Page<'_>>, Damage> {
    if left.is_empty() {
        return Ok(None);
    }
    let header = page_header(left)?;
    let body = left.get(header.header_len..).ok_or(Damage::Cut("a page"))?;
    let (stored, rest) = body.split_at_checked(header.stored_len).ok_or(Damage::Cut("a page"))?;
    Ok(Some((header, stored, rest)))
}

fn data_page(
    header: &PageHeader,
    stored: &[u8],
    column: &ColumnMeta,
    codec: i64,
    dictionary: &[Cell<'_>],
    each: &mut dyn FnMut(usize, Cell<'_>),
) -> Result<(), Damage> {
    const CUT: Damage = Damage::Cut("a page");
    let plain;
    let (levels, values): (&[u8], &[u8]) = if let PageKind::DataV2 { levels_len, compressed } = header.kind {
        let (levels, rest) = stored.split_at_checked(levels_len).ok_or(CUT)?;
        let plain_len = header.plain_len.checked_sub(levels_len).ok_or(CUT)?;
        plain = if compressed { unpack(codec, rest, plain_len)? } else { rest.to_vec() };
        (levels, &plain)
    } else {
        plain = unpack(codec, stored, header.plain_len)?;
        if column.optional {
            let (length, rest) = plain.split_first_chunk::<4>().ok_or(CUT)?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(CUT)?
        } else {
            (&[], &plain)
        }
    };
    let mut present = column.optional.then(|| Hybrid::new(levels, 1)).transpose()?;
    let mut is_there = || present.as_mut().map_or(Ok(true), |levels| levels.next().map(|level| level == 1));
    match header.encoding {
        PLAIN => {
            let mut plain = Plain { left: values, physical: column.physical };
            for at in 0..header.values {
                let cell = if is_there()? { plain.next()? } else { Cell::Missing };
                each(at, cell);
            }
        }
        PLAIN_DICTIONARY | RLE_DICTIONARY => {
            // Where all values are missing there may be no width.
            let (bits, packed) =
                values.split_first().map_or((0, values), |(&bits, rest)| (u32::from(bits), rest));
            let mut positions = Hybrid::new(packed, bits)?;
            for at in 0..header.values {
                let cell = if is_there()? {
                    let position = positions.next()? as usize;
                    *dictionary.get(position).ok_or(Damage::Nonsense("a position in a dictionary"))?
                } else {
                    Cell::Missing
                };
                each(at, cell);
            }
        }
        _ => return Err(Damage::Encoding(column.name.clone())),
    }
    Ok(())
}
