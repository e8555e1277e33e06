//! Microseconds as decimal text to whole nanoseconds, exactly.
//!
//! Traces write times of 16 and more significant digits ("1414456661601.577"), which a double cannot hold to the
//! nanosecond once the trace counts from 1970. So no float ever sees them: the decimal point is moved in the text.
//! What is finer than a nanosecond is rounded, halves away from zero.

/// Nanoseconds of a number of microseconds. `None` for what is no number or does not fit.
pub(super) fn ns_from_us(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let magnitude = plain(digits).or_else(|| scientific(digits))?;
    Some(if negative { -magnitude } else { magnitude })
}

/// A number without exponent.
fn plain(text: &[u8]) -> Option<i64> {
    let mut ns = 0i64;
    let mut at = 0;
    while let Some(digit) = text.get(at).and_then(digit) {
        ns = ns.checked_mul(10)?.checked_add(digit)?;
        at += 1;
    }
    let whole_digits = at;
    let fraction = match text.get(at) {
        None => &[][..],
        Some(b'.') => text.get(at + 1..)?,
        Some(_) => return None,
    };
    if whole_digits == 0 && fraction.is_empty() {
        return None;
    }
    for place in 0..3 {
        let digit = fraction.get(place).map_or(Some(0), digit)?;
        ns = ns.checked_mul(10)?.checked_add(digit)?;
    }
    let finer = fraction.get(3..).unwrap_or_default();
    if !finer.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The first digit that is dropped decides: halves go up in magnitude.
    ns.checked_add(i64::from(finer.first().is_some_and(|&d| d >= b'5')))
}

/// A number with an exponent: rare, so clarity before speed.
fn scientific(text: &[u8]) -> Option<i64> {
    let e = text.iter().position(|b| b.eq_ignore_ascii_case(&b'e'))?;
    let (number, exponent) = (text.get(..e)?, text.get(e + 1..)?);
    let exponent: i64 = std::str::from_utf8(exponent).ok()?.parse().ok()?;
    let point = number.iter().position(|&b| b == b'.').unwrap_or(number.len());
    let whole = number.get(..point)?;
    let fraction = number.get(point + 1..).unwrap_or_default();
    let digits = || whole.iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return None;
    }
    // Digits that lie before the point once it has moved by the exponent and from microseconds to nanoseconds.
    let before_point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(3)?;
    let mut ns = 0i64;
    let mut place = 0i64;
    for digit in digits().filter_map(digit) {
        if place >= before_point {
            let up = place == before_point && digit >= 5;
            return ns.checked_add(i64::from(up));
        }
        ns = ns.checked_mul(10)?.checked_add(digit)?;
        place += 1;
    }
    while place < before_point && ns != 0 {
        ns = ns.checked_mul(10)?;
        place += 1;
    }
    Some(ns)
}

fn digit(byte: &u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::ns_from_us;

    #[test]
    fn microseconds_become_exact_nanoseconds() {
        for (text, ns) in [
            ("0", 0),
            ("1623142623460111", 1_623_142_623_460_111_000),
            ("1414456661601.577", 1_414_456_661_601_577),
            ("1752825292909663.123", 1_752_825_292_909_663_123),
            ("7894.065", 7_894_065),
            ("2.272", 2_272),
            ("10.4", 10_400),
            ("10.", 10_000),
            (".5", 500),
            ("-1.001", -1_001),
            ("1.4144566616015771e12", 1_414_456_661_601_577),
            ("1.5E3", 1_500_000),
            ("15e-1", 1_500),
            ("1e+2", 100_000),
            ("0e99999", 0),
            ("9223372036854775.807", i64::MAX),
        ] {
            assert_eq!(ns_from_us(text.as_bytes()), Some(ns), "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_a_nanosecond_is_rounded_half_away_from_zero() {
        for (text, ns) in [
            ("0.0004", 0),
            ("0.0005", 1),
            ("-0.0005", -1),
            ("0.00049999999999999999999999", 0),
            ("1.9995", 2_000),
            ("5e-4", 1),
            ("49999e-8", 0),
            ("1e-9", 0),
        ] {
            assert_eq!(ns_from_us(text.as_bytes()), Some(ns), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_does_not_fit_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "-.",
            "NaN",
            "Infinity",
            "-Infinity",
            "null",
            "1.2.3",
            "1 2",
            "0x10",
            "1e",
            "e5",
            "1e5.5",
            "--1",
            "9223372036854775.808",
            "99999999999999999999",
            "1e300",
            "1e99999999999999999999",
            "1.2345x",
        ] {
            assert_eq!(ns_from_us(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_nanosecond_survives_being_written_in_microseconds(ns in -(1i64 << 61)..(1i64 << 61)) {
            let magnitude = ns.unsigned_abs();
            let sign = if ns < 0 { "-" } else { "" };
            let text = format!("{sign}{}.{:03}", magnitude / 1000, magnitude % 1000);
            prop_assert_eq!(ns_from_us(text.as_bytes()), Some(ns));
            let scientific = format!("{sign}{magnitude}e-3");
            prop_assert_eq!(ns_from_us(scientific.as_bytes()), Some(ns));
        }

        #[test]
        fn any_bytes_are_taken_without_panic(text in proptest::collection::vec(any::<u8>().prop_map(|b| b % 64), 0..40)) {
            let _ = ns_from_us(&text);
        }
    }
}
