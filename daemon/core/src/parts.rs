//! Dividing a time without rounding loss.

/// Splits a time in proportion to weights, so that the parts sum to it: each part ends where the weights so far would have it
/// end. Without any weight nothing is given away.
#[must_use]
pub(crate) fn in_proportion(ns: u64, weights: &[u64]) -> Vec<u64> {
    let whole: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    // Weights of a damaged capture may add up to more than 64 bits hold: then their last bits do not count.
    let shift = (u128::BITS - whole.leading_zeros()).saturating_sub(u64::BITS);
    let (mut before, mut given) = (0u128, 0u64);
    let part = |weight: &u64| {
        before += u128::from(*weight);
        // At most `ns`: the weights so far are at most the whole.
        let until = u128::from(ns) * (before >> shift) / (whole >> shift).max(1);
        let until = u64::try_from(until).unwrap_or(ns);
        let part = until - given;
        given = until;
        part
    };
    weights.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::in_proportion;

    #[test]
    fn parts_sum_to_the_whole() {
        assert_eq!(in_proportion(10, &[1, 1, 1]), [3, 3, 4]);
        assert_eq!(in_proportion(7, &[0, 5, 5]), [0, 3, 4]);
        assert_eq!(in_proportion(7, &[0, 0]), [0, 0]);
        assert_eq!(in_proportion(9, &[u64::MAX; 3]), [2, 3, 4], "their last bits do not count");
        let most = in_proportion(u64::MAX, &[1 << 62, 0, 1 << 62]);
        assert_eq!(most.iter().map(|part| u128::from(*part)).sum::<u128>(), u64::MAX.into());
    }
}
