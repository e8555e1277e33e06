//! The fields of one event, undecoded.

use super::scanner::{Cursor, Stop, Value, integer};

/// A pid or a tid, which traces write as a number, as a number in quotes, or as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ident<'a> {
    /// A number.
    Number(i64),
    /// Raw text that is no number.
    Text(&'a [u8]),
}

impl<'a> Ident<'a> {
    fn of(value: Value<'a>) -> Self {
        value.integer().map_or(Self::Text(value.text()), Self::Number)
    }
}

/// An event of the trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    /// Phase; 0 where the event has none or one that is no single character.
    pub(super) phase: u8,
    /// Category, raw; empty where absent.
    pub(super) category: &'a [u8],
    /// Name, raw.
    pub(super) name: &'a [u8],
    /// Process.
    pub(super) pid: Ident<'a>,
    /// Thread.
    pub(super) tid: Ident<'a>,
    /// Start, as text in microseconds.
    pub(super) start: Option<&'a [u8]>,
    /// Duration, as text in microseconds.
    pub(super) duration: Option<&'a [u8]>,
    /// The arguments' object with its braces; empty where absent.
    pub(super) args: &'a [u8],
}

/// Keys with which an event may begin. What follows a broken event is looked for by them.
const FIRST_KEYS: [&[u8]; 8] = [b"ph", b"name", b"cat", b"pid", b"tid", b"ts", b"id", b"args"];

impl<'a> Event<'a> {
    /// Reads the event that `bytes` begins with, and how many bytes it takes.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<(Self, usize), Stop> {
        let mut event = Self {
            phase: 0,
            category: b"",
            name: b"",
            pid: Ident::Number(0),
            tid: Ident::Number(0),
            start: None,
            duration: None,
            args: b"",
        };
        let mut cursor = Cursor::new(bytes);
        cursor.object()?;
        while let Some((key, value)) = cursor.member()? {
            match key {
                b"ph" => {
                    if let Value::String(&[phase]) = value {
                        event.phase = phase;
                    }
                }
                b"cat" => event.category = value.text(),
                b"name" => event.name = value.text(),
                b"pid" => event.pid = Ident::of(value),
                b"tid" => event.tid = Ident::of(value),
                b"ts" => event.start = present(value),
                b"dur" => event.duration = present(value),
                b"args" => {
                    if let Value::Container(args) = value {
                        event.args = args;
                    }
                }
                _ => {}
            }
        }
        Ok((event, cursor.at()))
    }

    /// Whether an event may begin here.
    pub(super) fn may_begin(bytes: &[u8]) -> Result<bool, Stop> {
        let mut cursor = Cursor::new(bytes);
        match cursor.object() {
            Ok(()) => {}
            Err(Stop::More) => return Err(Stop::More),
            Err(Stop::Bad { .. }) => return Ok(false),
        }
        if cursor.peek()? != b'"' {
            return Ok(false);
        }
        // A key that long is none of ours; without the bound a lost quote would make this look at everything to come.
        let near = bytes.get(cursor.at()..).unwrap_or_default();
        let near = near.get(..16).unwrap_or(near);
        match Cursor::new(near).string() {
            Ok(key) => Ok(FIRST_KEYS.contains(&key)),
            Err(Stop::More) if near.len() < 16 => Err(Stop::More),
            Err(_) => Ok(false),
        }
    }
}

fn present(value: Value<'_>) -> Option<&[u8]> {
    (!value.is_null()).then(|| value.text())
}

/// A pid or tid that is spelled like a number in an argument or a name.
pub(super) fn trailing_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let number = integer(text.get(text.len() - digits..)?)?;
    u64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::{Event, Ident, Stop, trailing_number};

    #[test]
    fn fields_are_found_in_any_order() {
        let text = br#"{"args":{"a":{}},"tid":"stream 7","pid":0,"ts":"1.5","dur":2,"name":"k","cat":"Kernel","ph":"X"},"#;
        let (event, len) = Event::parse(text).expect("well-formed");
        assert_eq!(len, text.len() - 1);
        assert_eq!((event.phase, event.category, event.name), (b'X', &b"Kernel"[..], &b"k"[..]));
        assert_eq!((event.pid, event.tid), (Ident::Number(0), Ident::Text(b"stream 7")));
        assert_eq!((event.start, event.duration), (Some(&b"1.5"[..]), Some(&b"2"[..])));
        assert_eq!(event.args, br#"{"a":{}}"#);
    }

    #[test]
    fn numbers_in_quotes_are_numbers_and_null_is_absent() {
        let text = br#"{"ph":"X","tid":"25738","dur":null}"#;
        let (event, _) = Event::parse(text).expect("well-formed");
        assert_eq!((event.tid, event.duration), (Ident::Number(25738), None));
    }

    #[test]
    fn the_beginning_of_an_event_is_told_from_its_arguments() {
        assert_eq!(Event::may_begin(br#"{ "ph": "X"}"#), Ok(true));
        assert_eq!(Event::may_begin(br#"{"External id": 1}"#), Ok(false));
        assert_eq!(Event::may_begin(br#"{}"#), Ok(false));
        assert_eq!(Event::may_begin(br#"{"na"#), Err(Stop::More));
        assert_eq!(Event::may_begin(b""), Err(Stop::More));
        assert_eq!(Event::may_begin(br#"{"a key without an end that goes on"#), Ok(false));
    }

    #[test]
    fn numbers_at_the_end_of_names_are_found() {
        assert_eq!(trailing_number(b"stream 7"), Some(7));
        assert_eq!(trailing_number(b"stream"), None);
        assert_eq!(trailing_number(b""), None);
    }
}
