//! Parquet's mixture of runs and bit-packed groups, in which levels and positions in a dictionary are stored.

use super::Damage;

/// Yields numbers of a fixed width until as many were taken as there are.
#[derive(Debug)]
pub(super) struct Hybrid<'a> {
    left: &'a [u8],
    bits: u32,
    run: Run<'a>,
}

#[derive(Debug)]
enum Run<'a> {
    Repeated { value: u32, left: usize },
    Packed { bytes: &'a [u8], at_bit: usize, left: usize },
}

impl<'a> Hybrid<'a> {
    /// Numbers of `bits` bits each, 0 to 32.
    pub(super) fn new(bytes: &'a [u8], bits: u32) -> Result<Self, Damage> {
        if bits > 32 {
            return Err(Damage::Nonsense("the width of packed numbers"));
        }
        Ok(Self { left: bytes, bits, run: Run::Repeated { value: 0, left: 0 } })
    }

    pub(super) fn next(&mut self) -> Result<u32, Damage> {
        loop {
            match &mut self.run {
                Run::Repeated { value, left } if *left > 0 => {
                    *left -= 1;
                    return Ok(*value);
                }
                Run::Packed { bytes, at_bit, left } if *left > 0 => {
                    let value = unpack(bytes, *at_bit, self.bits);
                    *at_bit += self.bits as usize;
                    *left -= 1;
                    return value;
                }
                _ => self.next_run()?,
            }
        }
    }

    fn next_run(&mut self) -> Result<(), Damage> {
        const CUT: Damage = Damage::Cut("a page");
        let mut head = 0u64;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.left.split_first().ok_or(CUT)?;
            self.left = rest;
            head |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return self.begin(usize::try_from(head).map_err(|_| CUT)?);
            }
        }
        Err(Damage::Nonsense("the length of a run"))
    }

    fn begin(&mut self, head: usize) -> Result<(), Damage> {
        const CUT: Damage = Damage::Cut("a page");
        if head == 0 {
            // A run of nothing would be looked at for ever.
            return Err(Damage::Nonsense("the length of a run"));
        }
        if head & 1 == 1 {
            let left = (head >> 1).saturating_mul(8);
            let length = (head >> 1).saturating_mul(self.bits as usize);
            // The last group may be cut to the bytes that are there.
            let (bytes, rest) = self.left.split_at(length.min(self.left.len()));
            self.left = rest;
            if left == 0 {
                return Err(Damage::Nonsense("the length of a run"));
            }
            self.run = Run::Packed { bytes, at_bit: 0, left };
        } else {
            let (bytes, rest) = self.left.split_at_checked(self.bits.div_ceil(8) as usize).ok_or(CUT)?;
            self.left = rest;
            let value = bytes.iter().rev().fold(0u32, |value, &byte| value << 8 | u32::from(byte));
            self.run = Run::Repeated { value, left: head >> 1 };
        }
        Ok(())
    }
}

fn unpack(bytes: &[u8], at_bit: usize, bits: u32) -> Result<u32, Damage> {
    if bits == 0 {
        return Ok(0);
    }
    let first = at_bit / 8;
    let last = (at_bit + bits as usize - 1) / 8;
    let slice = bytes.get(first..=last).ok_or(Damage::Cut("a page"))?;
    let wide = slice.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let value = (wide >> (at_bit % 8)) & ((1u64 << bits) - 1);
    u32::try_from(value).map_err(|_| Damage::Nonsense("a packed number"))
}

#[cfg(test)]
mod tests {
    use super::Hybrid;

    fn take(bytes: &[u8], bits: u32, count: usize) -> Option<Vec<u32>> {
        let mut numbers = Hybrid::new(bytes, bits).ok()?;
        (0..count).map(|_| numbers.next().ok()).collect()
    }

    #[test]
    fn runs_and_packed_groups_follow_one_another() {
        // Three times 5, then eight numbers of three bits.
        let bytes = [6, 5, 3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(take(&bytes, 3, 11).unwrap(), [5, 5, 5, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(take(&[20], 0, 10).unwrap(), [0; 10]);
        assert_eq!(take(&[2, 1, 2, 3, 4], 32, 1).unwrap(), [0x0403_0201]);
    }

    #[test]
    fn what_is_cut_or_endless_ends() {
        assert!(take(&[], 3, 1).is_none());
        assert!(take(&[0, 0, 0, 0], 3, 1).is_none());
        assert!(take(&[1, 1, 1], 0, 1).is_none());
        assert!(take(&[3, 0b1000_1000], 3, 8).is_none());
        assert!(take(&[0xff, 0xff, 0xff, 0xff, 0xff, 1], 3, 1).is_none());
        assert!(Hybrid::new(&[], 33).is_err());
    }
}
