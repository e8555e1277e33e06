//! How a column of unsigned 64-bit values is made small.
//!
//! Two steps. A *transform* turns values into small numbers: the difference from the value before, or, for starts, from
//! the end of the record before, which on a busy stream is under a microsecond. An *encoding* writes small numbers in
//! few bits: blocks of 128 packed at a width that leaves rare large values as exceptions (patched frame of reference,
//! Zukowski et al. 2006), or variable-length bytes under LZ4, which folds the same loop body repeated into nothing.
//! The writer tries what can win for the column's [`Shape`] and keeps the smallest.

use stallscope_schemas::record::RecordKind;

/// Most rows that a batch may have; bounds the memory that a hostile header can ask for.
pub const MAX_BATCH_ROWS: usize = 1 << 17;

/// Values per packed block: long enough that two header bytes vanish, short enough that one outlier costs little.
const BLOCK: usize = 128;

/// What is known of a column's values before looking at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Starts of records; `duration` is the column that makes them ends.
    Start {
        /// Number of the column with the durations.
        duration: u16,
    },
    /// Measured lengths: random in their low bits.
    Measure,
    /// Few distinct values, in patterns that repeat with the program's loop.
    Repeating,
    /// Counts up, with jumps that repeat.
    Counter,
}

/// A column of a record kind.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSpec {
    /// Its number in the file.
    pub id: u16,
    /// What its values look like.
    pub shape: Shape,
}

/// A column failed to decode: the bytes do not describe the promised number of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of a {kind:?} batch is malformed")]
pub struct ColumnError {
    /// Record kind of the batch.
    pub kind: RecordKind,
    /// Number of the column.
    pub column: u16,
}

/// First step: values to small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Transform {
    Plain = 0,
    /// Zigzag of the difference from the value before (the first: from 0).
    Delta = 1,
    /// Zigzag of the difference from the end of the record before.
    SinceEnd = 2,
}

impl Transform {
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Plain),
            1 => Some(Self::Delta),
            2 => Some(Self::SinceEnd),
            _ => None,
        }
    }
}

/// Second step: small numbers to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Encoding {
    /// One varint for all rows.
    Constant = 0,
    /// Blocks at a width of their own, with exceptions.
    Packed = 1,
    /// Varints under LZ4; a varint of the uncompressed length comes first.
    VarintLz4 = 2,
}

impl Encoding {
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Constant),
            1 => Some(Self::Packed),
            2 => Some(Self::VarintLz4),
            _ => None,
        }
    }
}

/// A column ready to be written.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) transform: Transform,
    pub(crate) encoding: Encoding,
    pub(crate) bytes: Vec<u8>,
}

fn zigzag(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn delta(values: &[u64], out: &mut Vec<u64>) {
    out.clear();
    let mut before = 0u64;
    out.extend(values.iter().map(|&v| {
        let d = zigzag(v.wrapping_sub(before));
        before = v;
        d
    }));
}

fn since_end(starts: &[u64], durations: &[u64], out: &mut Vec<u64>) {
    out.clear();
    let mut end = 0u64;
    out.extend(starts.iter().zip(durations).map(|(&start, &duration)| {
        let d = zigzag(start.wrapping_sub(end));
        end = start.wrapping_add(duration);
        d
    }));
}

/// Encodes one column. `durations` is the column that a [`Shape::Start`] names.
pub(crate) fn encode(shape: Shape, values: &[u64], durations: &[u64], scratch: &mut Vec<u64>) -> Encoded {
    if let Some(&first) = values.first()
        && values.iter().all(|&v| v == first)
    {
        let mut bytes = Vec::with_capacity(10);
        put_varint(&mut bytes, first);
        return Encoded { transform: Transform::Plain, encoding: Encoding::Constant, bytes };
    }
    match shape {
        Shape::Start { .. } => {
            delta(values, scratch);
            let by_delta = pack(scratch);
            since_end(values, durations, scratch);
            let by_end = pack(scratch);
            let (transform, bytes) = if by_end.len() < by_delta.len() {
                (Transform::SinceEnd, by_end)
            } else {
                (Transform::Delta, by_delta)
            };
            Encoded { transform, encoding: Encoding::Packed, bytes }
        }
        Shape::Measure => {
            Encoded { transform: Transform::Plain, encoding: Encoding::Packed, bytes: pack(values) }
        }
        Shape::Repeating => smaller(Transform::Plain, values),
        Shape::Counter => {
            delta(values, scratch);
            smaller(Transform::Delta, scratch)
        }
    }
}

/// The smaller of packing and varints under LZ4.
fn smaller(transform: Transform, values: &[u64]) -> Encoded {
    let packed = pack(values);
    let mut plain = Vec::with_capacity(values.len() * 2);
    for &v in values {
        put_varint(&mut plain, v);
    }
    let mut bytes = Vec::with_capacity(plain.len() / 4);
    put_varint(&mut bytes, plain.len() as u64);
    bytes.extend_from_slice(&lz4_flex::block::compress(&plain));
    if bytes.len() < packed.len() {
        Encoded { transform, encoding: Encoding::VarintLz4, bytes }
    } else {
        Encoded { transform, encoding: Encoding::Packed, bytes: packed }
    }
}

/// Decodes `rows` values into `out`. `durations` must hold the decoded durations where the transform is `SinceEnd`.
///
/// Returns `None` for anything malformed; `out` then holds nothing of use.
pub(crate) fn decode(
    transform: Transform,
    encoding: Encoding,
    bytes: &[u8],
    rows: usize,
    durations: &[u64],
    out: &mut Vec<u64>,
    scratch: &mut Vec<u8>,
) -> Option<()> {
    if rows > MAX_BATCH_ROWS {
        return None;
    }
    match encoding {
        Encoding::Constant => {
            let value = take_varint(&mut &*bytes)?;
            out.clear();
            out.resize(rows, value);
        }
        Encoding::Packed => unpack(bytes, rows, out)?,
        Encoding::VarintLz4 => {
            let mut rest = bytes;
            let plain_len = usize::try_from(take_varint(&mut rest)?).ok()?;
            // A varint has at most ten bytes, so a longer promise is a lie.
            if plain_len > rows.checked_mul(10)? {
                return None;
            }
            // What is left in there is overwritten whole, or the length below is wrong.
            scratch.resize(plain_len, 0);
            if lz4_flex::block::decompress_into(rest, scratch).ok()? != plain_len {
                return None;
            }
            let mut plain = scratch.as_slice();
            out.clear();
            out.reserve(rows);
            for _ in 0..rows {
                out.push(take_varint(&mut plain)?);
            }
        }
    }
    match transform {
        Transform::Plain => {}
        Transform::Delta => {
            let mut value = 0u64;
            for slot in out.iter_mut() {
                value = value.wrapping_add(unzigzag(*slot));
                *slot = value;
            }
        }
        Transform::SinceEnd => {
            if durations.len() != rows {
                return None;
            }
            let mut end = 0u64;
            for (slot, &duration) in out.iter_mut().zip(durations) {
                let start = end.wrapping_add(unzigzag(*slot));
                *slot = start;
                end = start.wrapping_add(duration);
            }
        }
    }
    Some(())
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn bit_length(value: u64) -> usize {
    64 - value.leading_zeros() as usize
}

/// The width that makes a block smallest, given how many of its values have each bit length: `count` values at `width`
/// bits, and for each longer one about a byte of position and the high bits as a varint.
fn best_width(lengths: &[u32; 65], count: usize) -> usize {
    let mut best = (usize::MAX, 64);
    let mut exception_bytes = 0usize;
    let mut exceptions = 0usize;
    for width in (0..=64usize).rev() {
        let bytes = (count * width).div_ceil(8) + exception_bytes + exceptions * 2;
        if bytes < best.0 && exceptions < 256 {
            best = (bytes, width);
        }
        let here = lengths.get(width).copied().unwrap_or(0) as usize;
        exceptions += here;
        // Values of this length become exceptions at smaller widths; their high part is a varint of a few bits.
        exception_bytes += exceptions.div_ceil(7);
    }
    best.1
}

/// Packs values in blocks: width, number of exceptions, least value as a varint, packed low bits, exceptions.
fn pack(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 2 + 16);
    for block in values.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        let mut lengths = [0u32; 65];
        for &v in block {
            if let Some(n) = lengths.get_mut(bit_length(v - least)) {
                *n += 1;
            }
        }
        let width = best_width(&lengths, block.len());
        let mask = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
        let exceptions = block.iter().filter(|&&v| v - least > mask).count();
        // Both fit: a width is at most 64, and a block has 128 values.
        out.push(low_byte(width));
        out.push(low_byte(exceptions));
        put_varint(&mut out, least);
        let mut pending = 0u128;
        let mut pending_bits = 0usize;
        for &v in block {
            pending |= u128::from((v - least) & mask) << pending_bits;
            pending_bits += width;
            while pending_bits >= 8 {
                out.push((pending & 0xff) as u8);
                pending >>= 8;
                pending_bits -= 8;
            }
        }
        if pending_bits > 0 {
            out.push((pending & 0xff) as u8);
        }
        for (at, &v) in block.iter().enumerate() {
            if v - least > mask {
                out.push(low_byte(at));
                put_varint(&mut out, (v - least) >> width);
            }
        }
    }
    out
}

fn low_byte(value: usize) -> u8 {
    value.to_le_bytes().first().copied().unwrap_or(0)
}

fn low_word(value: u128) -> u64 {
    value.to_le_bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
}

fn unpack(mut bytes: &[u8], rows: usize, out: &mut Vec<u64>) -> Option<()> {
    // Every value is overwritten below: clearing what is there would cost as much as unpacking it.
    out.resize(rows, 0);
    for block in out.chunks_mut(BLOCK) {
        let (&[width, exceptions], rest) = bytes.split_first_chunk::<2>()?;
        bytes = rest;
        let width = usize::from(width);
        if width > 64 {
            return None;
        }
        let least = take_varint(&mut bytes)?;
        let (packed, rest) = bytes.split_at_checked((block.len() * width).div_ceil(8))?;
        if width == 0 {
            block.fill(least);
        } else if width <= 57 {
            unpack_narrow(bytes, packed.len(), width, least, block);
        } else {
            unpack_wide(packed, width, least, block);
        }
        bytes = rest;
        for _ in 0..exceptions {
            let (&at, rest) = bytes.split_first()?;
            bytes = rest;
            let high = take_varint(&mut bytes)?;
            let slot = block.get_mut(usize::from(at))?;
            let shifted = if width == 64 { 0 } else { high << width };
            *slot = slot.wrapping_add(shifted);
        }
    }
    Some(())
}

/// Widths up to 57: every value lies within the eight bytes that start at its first byte. `bytes` begins with the packed
/// block; what follows it may be read (and is masked away), and where fewer than eight bytes follow a padded copy serves.
fn unpack_narrow(bytes: &[u8], packed_len: usize, width: usize, least: u64, block: &mut [u64]) {
    let mut padded = [0u8; BLOCK * 57 / 8 + 8];
    let window = if bytes.len() >= packed_len + 8 {
        bytes
    } else {
        for (to, &from) in padded.iter_mut().zip(bytes) {
            *to = from;
        }
        &padded
    };
    let mask = (1u64 << width) - 1;
    let mut bit = 0usize;
    for slot in block {
        let word =
            window.get(bit >> 3..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b));
        *slot = least.wrapping_add((word >> (bit & 7)) & mask);
        bit += width;
    }
}

fn unpack_wide(packed: &[u8], width: usize, least: u64, block: &mut [u64]) {
    let mask = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
    let mut bytes = packed.iter();
    let mut pending = 0u128;
    let mut pending_bits = 0usize;
    for slot in block {
        while pending_bits < width {
            pending |= u128::from(bytes.next().copied().unwrap_or(0)) << pending_bits;
            pending_bits += 8;
        }
        *slot = least.wrapping_add(low_word(pending) & mask);
        pending >>= width;
        pending_bits -= width;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_oneof, proptest};

    use super::{Encoding, Shape, decode, encode, put_varint, take_varint, unzigzag, zigzag};

    fn round_trip(shape: Shape, values: &[u64], durations: &[u64]) -> usize {
        let encoded = encode(shape, values, durations, &mut Vec::new());
        let mut out = Vec::new();
        decode(
            encoded.transform,
            encoded.encoding,
            &encoded.bytes,
            values.len(),
            durations,
            &mut out,
            &mut Vec::new(),
        )
        .expect("what was encoded decodes");
        assert_eq!(out, values);
        encoded.bytes.len()
    }

    #[test]
    fn a_constant_column_costs_one_value() {
        assert_eq!(round_trip(Shape::Repeating, &[7; 10_000], &[]), 1);
    }

    #[test]
    fn one_outlier_does_not_widen_its_block() {
        let mut values = vec![5u64; 128];
        for (i, v) in values.iter_mut().enumerate() {
            *v = i as u64 % 16;
        }
        let narrow = round_trip(Shape::Measure, &values, &[]);
        values[17] = u64::MAX;
        let with_outlier = round_trip(Shape::Measure, &values, &[]);
        assert!(with_outlier <= narrow + 12, "{narrow} became {with_outlier}");
    }

    #[test]
    fn a_repeated_loop_body_folds() {
        let body: Vec<u64> = (0..500u64).map(|i| i * 7919 % 1000).collect();
        let values: Vec<u64> = body.iter().cycle().take(50_000).copied().collect();
        let size = round_trip(Shape::Repeating, &values, &[]);
        assert!(size < 5_000, "{size} bytes for 100 repetitions of 500 values");
    }

    #[test]
    fn truncated_bytes_are_refused_not_invented() {
        let values: Vec<u64> = (0..1000u64).map(|i| i * i).collect();
        let encoded = encode(Shape::Measure, &values, &[], &mut Vec::new());
        for cut in 0..encoded.bytes.len() {
            let mut out = Vec::new();
            let got = decode(
                encoded.transform,
                Encoding::Packed,
                &encoded.bytes[..cut],
                values.len(),
                &[],
                &mut out,
                &mut Vec::new(),
            );
            assert!(got.is_none(), "decoded from {cut} of {} bytes", encoded.bytes.len());
        }
    }

    proptest! {
        #[test]
        fn every_shape_round_trips(
            values in prop::collection::vec(
                prop_oneof![any::<u64>(), 0..100u64, 1_000_000..1_000_100u64], 1..600),
            seed in any::<u64>(),
        ) {
            let durations: Vec<u64> = values.iter().map(|v| v.rotate_left(7) ^ seed).collect();
            for shape in [Shape::Start { duration: 1 }, Shape::Measure, Shape::Repeating, Shape::Counter] {
                round_trip(shape, &values, &durations);
            }
        }

        #[test]
        fn varint_and_zigzag_round_trip(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(take_varint(&mut bytes.as_slice()), Some(value));
            assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), rows in 0..5000usize) {
            for encoding in [Encoding::Constant, Encoding::Packed, Encoding::VarintLz4] {
                let _ = decode(super::Transform::Delta, encoding, &bytes, rows, &[], &mut Vec::new(), &mut Vec::new());
            }
        }
    }
}
