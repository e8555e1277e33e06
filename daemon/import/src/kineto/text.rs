//! Decodes the raw text of a JSON string.

use std::borrow::Cow;

/// The text that a raw string stands for.
///
/// Lenient where traces are sloppy: an unknown escape (a Windows path that nobody escaped) stays as it is written, a lone
/// surrogate and bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        at += 1;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let escape = raw.get(at).copied();
        at += 1;
        match escape {
            Some(c @ (b'"' | b'\\' | b'/')) => out.push(c),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'u') if unit(raw, at).is_some() => {
                let (c, used) = character(raw, at);
                at += used;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(other) => out.extend_from_slice(&[b'\\', other]),
            None => out.push(b'\\'),
        }
    }
    Cow::Owned(match String::from_utf8_lossy(&out) {
        Cow::Owned(text) => text,
        Cow::Borrowed(text) => text.to_owned(),
    })
}

/// Four hexadecimal digits.
fn unit(raw: &[u8], at: usize) -> Option<u16> {
    let digits = raw.get(at..at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The character whose first code unit stands at `at`, and how many bytes it takes.
fn character(raw: &[u8], at: usize) -> (char, usize) {
    let first = unit(raw, at).unwrap_or(0xfffd);
    let second = if raw.get(at + 4..at + 6) == Some(b"\\u") { unit(raw, at + 6) } else { None };
    if let Some(Ok(c)) = second.and_then(|second| char::decode_utf16([first, second]).next())
        && c.len_utf16() == 2
    {
        return (c, 10);
    }
    (char::decode_utf16([first]).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn escapes_are_decoded_and_sloppy_ones_kept() {
        for (raw, text) in [
            (r"plain", "plain"),
            (r#"a\"b\\c\/d\n\t"#, "a\"b\\c/d\n\t"),
            (r"\u0041\u00e9\u20ac", "Aé€"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83dA", "\u{fffd}A"),
            (r"C:\Users\x", r"C:\Users\x"),
            (r"\u12", r"\u12"),
            (r"end\", r"end\"),
        ] {
            assert_eq!(decode(raw.as_bytes()), text, "{raw}");
        }
        assert_eq!(decode(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(decode(b"\\n\xff"), "\n\u{fffd}");
    }
}
