//! JSON bytes to tokens, over a slice that may end in the middle of a value.
//!
//! Nothing is decoded here: a string is the raw text between its quotes, a number is its text, an array or object is the
//! range of its bytes. Depth is a counter, so nesting costs no stack. What JSON forbids and traces contain anyway (NaN,
//! Infinity, control characters and unknown escapes in strings) is let through; brackets are counted, not paired by kind.
//!
//! Invariant: [`Stop::More`] means that a longer slice with the same beginning may parse, [`Stop::Bad`] that none does.

use memchr::memchr2;

/// Why a value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The slice ends before the value does.
    More,
    /// The bytes at this position of the slice cannot be there.
    Bad {
        /// Position in the slice.
        at: usize,
        /// What should have been there.
        expected: &'static str,
    },
}

/// A value, undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// What stands between the quotes, escapes and all.
    String(&'a [u8]),
    /// A number, true, false, null, or whatever else stands where those may.
    Scalar(&'a [u8]),
    /// An array or an object with its brackets.
    Container(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of the value, without the quotes of a string.
    pub(super) fn text(self) -> &'a [u8] {
        match self {
            Self::String(text) | Self::Scalar(text) | Self::Container(text) => text,
        }
    }

    /// Whether this is `null`.
    pub(super) fn is_null(self) -> bool {
        self == Self::Scalar(b"null")
    }

    /// A whole number, which many writers put between quotes.
    pub(super) fn integer(self) -> Option<i64> {
        integer(self.text())
    }
}

/// Parses a whole decimal number that fits.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    // 18 digits always fit; longer ones are rare enough for the careful way.
    if digits.is_empty() || digits.len() > 18 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// What a byte means to whoever skips over a value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Other,
    Quote,
    Open,
    Close,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    classes[b'"' as usize] = Class::Quote;
    classes[b'{' as usize] = Class::Open;
    classes[b'[' as usize] = Class::Open;
    classes[b'}' as usize] = Class::Close;
    classes[b']' as usize] = Class::Close;
    classes
};

/// Bytes that end a number or word.
const ENDS_SCALAR: [bool; 256] = {
    let mut ends = [false; 256];
    let bytes = b" \t\r\n,:\"{}[]";
    let mut i = 0;
    while i < bytes.len() {
        ends[bytes[i] as usize] = true;
        i += 1;
    }
    ends
};

/// Marks the bytes of a word that equal `byte` (0x80 in their place). Borrows may mark a byte above a true hit falsely,
/// which is harmless where only the lowest mark is used.
fn marks(word: u64, byte: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let x = word ^ (LOW * u64::from(byte));
    x.wrapping_sub(LOW) & !x & (LOW << 7)
}

/// Position of the first quote or backslash.
pub(super) fn find_quote_or_escape(bytes: &[u8]) -> Option<usize> {
    // Most strings of a trace have fewer than 32 bytes, for which calling memchr costs more than it saves.
    let mut at = 0;
    while at < 32 {
        let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            let rest = bytes.get(at..)?;
            return rest.iter().position(|&b| b == b'"' || b == b'\\').map(|i| at + i);
        };
        let word = u64::from_le_bytes(*chunk);
        let hits = marks(word, b'"') | marks(word, b'\\');
        if hits != 0 {
            return Some(at + (hits.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', bytes.get(at..)?).map(|i| at + i)
}

/// Reads tokens from a slice.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Position in the slice.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn bad<T>(&self, expected: &'static str) -> Result<T, Stop> {
        Err(Stop::Bad { at: self.at, expected })
    }

    /// The next byte that is not white space; it is not consumed.
    pub(super) fn peek(&mut self) -> Result<u8, Stop> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte > b' ' {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Stop::More)
    }

    /// Consumes one byte after white space.
    pub(super) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Stop> {
        if self.peek()? != byte {
            return self.bad(expected);
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a string whose opening quote has been consumed.
    fn string_rest(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.at;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let hit = find_quote_or_escape(rest).ok_or(Stop::More)?;
            if rest.get(hit) == Some(&b'"') {
                let end = self.at + hit;
                self.at = end + 1;
                return Ok(self.bytes.get(start..end).unwrap_or_default());
            }
            self.at += hit + 2;
        }
    }

    /// Reads a string.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Stop> {
        self.expect(b'"', "a string")?;
        self.string_rest()
    }

    /// Reads an array or object whose opening bracket comes next.
    fn container(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.at;
        let mut depth = 0usize;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match CLASSES[usize::from(byte)] {
                Class::Other => {}
                Class::Quote => {
                    self.string_rest()?;
                }
                Class::Open => depth += 1,
                Class::Close => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(self.bytes.get(start..self.at).unwrap_or_default());
                    }
                }
            }
        }
        Err(Stop::More)
    }

    /// Reads any value.
    pub(super) fn value(&mut self) -> Result<Value<'a>, Stop> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                Ok(Value::String(self.string_rest()?))
            }
            b'{' | b'[' => Ok(Value::Container(self.container()?)),
            _ => {
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let len = rest.iter().position(|&b| ENDS_SCALAR[usize::from(b)]).ok_or(Stop::More)?;
                if len == 0 {
                    return self.bad("a value");
                }
                self.at += len;
                Ok(Value::Scalar(rest.get(..len).unwrap_or_default()))
            }
        }
    }

    /// Consumes the opening brace of an object; then [`Cursor::member`] yields its members.
    pub(super) fn object(&mut self) -> Result<(), Stop> {
        self.expect(b'{', "an object")
    }

    /// The next member of an object, or `None` after its closing brace. Commas before the first member and before the
    /// brace are let through.
    pub(super) fn member(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Stop> {
        let mut byte = self.peek()?;
        if byte == b',' {
            self.at += 1;
            byte = self.peek()?;
        } else if byte == b'"' && !self.after_opening() {
            return self.bad("a comma");
        }
        if byte == b'}' {
            self.at += 1;
            return Ok(None);
        }
        let key = self.string()?;
        self.expect(b':', "a colon")?;
        let value = self.value()?;
        Ok(Some((key, value)))
    }

    /// Whether the last byte before white space is the opening brace.
    fn after_opening(&self) -> bool {
        let before = self.bytes.get(..self.at).unwrap_or_default();
        before.iter().rev().find(|&&b| b > b' ').is_none_or(|&b| b == b'{')
    }

    /// The next element of an array whose opening bracket has been consumed, or `None` after its closing bracket.
    pub(super) fn element(&mut self) -> Result<Option<Value<'a>>, Stop> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(None);
        }
        self.value().map(Some)
    }
}

/// Skips one array, object or string of any length, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Skipper {
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Skipper {
    /// Takes the next piece of the value. `Some` is the number of its bytes that still belonged to the value.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = piece.get(at..).filter(|rest| !rest.is_empty()) {
            if self.escaped {
                self.escaped = false;
                at += 1;
            } else if self.in_string {
                let hit = memchr2(b'"', b'\\', rest)?;
                at += hit + 1;
                if rest.get(hit) == Some(&b'\\') {
                    self.escaped = true;
                    continue;
                }
                self.in_string = false;
                if self.depth == 0 {
                    return Some(at);
                }
            } else {
                at += 1;
                match rest.first().map_or(Class::Other, |&b| CLASSES[usize::from(b)]) {
                    Class::Other => {}
                    Class::Quote => self.in_string = true,
                    Class::Open => self.depth += 1,
                    Class::Close => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(at);
                        }
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Skipper, Stop, Value, find_quote_or_escape, integer};

    fn members(text: &str) -> Result<Vec<(String, String)>, Stop> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.object()?;
        let mut found = Vec::new();
        while let Some((key, value)) = cursor.member()? {
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((show(key), show(value.text())));
        }
        Ok(found)
    }

    #[test]
    fn members_come_out_undecoded_and_in_order() {
        let found = members(r#" { "a" : "x\"y\\" , "b":-1.5e3,"c":[1,{"d":"]"}],"e":NaN } "#);
        let expected = [("a", r#"x\"y\\"#), ("b", "-1.5e3"), ("c", r#"[1,{"d":"]"}]"#), ("e", "NaN")];
        assert_eq!(found, Ok(expected.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()));
    }

    #[test]
    fn every_prefix_asks_for_more_and_never_errs() {
        let text = r#"{"a":"x\"y\\","b":-1.5e3,"c":[1,{"d":"]"}],"e":NaN}"#;
        for end in 0..text.len() {
            assert_eq!(members(&text[..end]), Err(Stop::More), "{}", &text[..end]);
        }
    }

    #[test]
    fn broken_members_are_refused_where_they_break() {
        for (text, at) in [
            (r#"{"a":1 2}"#, 7),
            (r#"{"a":1 "b":2}"#, 7),
            (r#"{a:1}"#, 1),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":}"#, 5),
            (r#"{"a":,}"#, 5),
        ] {
            assert!(matches!(members(text), Err(Stop::Bad { at: bad, .. }) if bad == at), "{text}");
        }
    }

    #[test]
    fn quotes_and_escapes_are_found_wherever_they_lie() {
        for len in 0..80 {
            for hit in 0..len {
                for byte in [b'"', b'\\'] {
                    let mut text = vec![b'a'; len];
                    text[hit] = byte;
                    assert_eq!(find_quote_or_escape(&text), Some(hit));
                    text[len - 1] = b'"';
                    assert_eq!(find_quote_or_escape(&text), Some(hit));
                }
            }
            assert_eq!(find_quote_or_escape(&vec![b'#'; len]), None);
        }
    }

    #[test]
    fn integers_that_do_not_fit_are_none() {
        for (text, value) in [
            ("0", Some(0)),
            ("-17", Some(-17)),
            ("123456789012345678", Some(123_456_789_012_345_678)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("", None),
            ("-", None),
            ("1.0", None),
            ("stream 7", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn the_skipper_agrees_with_the_cursor_however_the_value_is_cut() {
        for text in [r#"{"a":[1,"]}\"",{"b":"\\"}],"c":{}}"#, r#""a\"b\\""#, "[]", r#"[[["{"]]]"#] {
            let tail = format!("{text},{{}}");
            let mut cursor = Cursor::new(tail.as_bytes());
            assert!(matches!(cursor.value(), Ok(Value::Container(_) | Value::String(_))));
            assert_eq!(cursor.at(), text.len());
            for piece in 1..tail.len() {
                let mut skipper = Skipper::default();
                let mut done = 0;
                for part in tail.as_bytes().chunks(piece) {
                    if let Some(used) = skipper.feed(part) {
                        done += used;
                        break;
                    }
                    done += part.len();
                }
                assert_eq!(done, text.len(), "{text} in pieces of {piece}");
            }
        }
    }
}
