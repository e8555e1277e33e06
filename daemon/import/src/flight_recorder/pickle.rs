//! Reads the pickles that PyTorch writes, and executes nothing.
//!
//! A pickle is a program for a small stack machine, some of whose instructions import names and call them. Dumps need none of
//! those: here they end the reading with an error, so that a file can do nothing but describe values. There is one value
//! for at least each byte that makes it, texts stay in the file's bytes, and nothing recurses.

use std::borrow::Cow;

use super::value::{Id, Node, Values};

/// Why a pickle was not read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum PickleError {
    /// An instruction that imports or calls something.
    #[error(
        "at byte {at} it asks to {what}; Flight Recorder dumps have no need of that, and nothing in a file is executed here"
    )]
    Calls { at: usize, what: &'static str },
    /// An instruction that dumps do not use.
    #[error("at byte {at} there is instruction {code:#04x}, which Flight Recorder dumps do not use")]
    Unknown { at: usize, code: u8 },
    /// The file ends before the pickle does.
    #[error("it ends after {at} bytes, within the pickle")]
    Truncated { at: usize },
    /// An instruction that does not fit what came before.
    #[error("at byte {at} it is damaged")]
    Damaged { at: usize },
    /// More values than a dump has.
    #[error("it holds more values than a Flight Recorder dump can")]
    TooLarge,
}

/// What instructions that are refused would do.
fn refused(code: u8) -> Option<&'static str> {
    Some(match code {
        b'c' | 0x93 => "import a name",
        b'R' => "call a function",
        b'i' | b'o' | 0x81 | 0x92 => "make an object",
        b'b' => "set the state of an object",
        b'P' | b'Q' => "load an object from elsewhere",
        0x82..=0x84 => "load a registered extension",
        _ => return None,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Values<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at marks.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

/// Reads a pickle: its values and the one that it is.
pub(super) fn read(bytes: &[u8]) -> Result<(Values<'_>, Id), PickleError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        values: Values::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
    };
    while reader.step()? {}
    let root = reader.pop()?;
    Ok((reader.values, root))
}

impl<'a> Reader<'a> {
    fn damaged(&self) -> PickleError {
        PickleError::Damaged { at: self.at }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at = self.at.saturating_add(length);
        Ok(taken)
    }

    /// An unsigned number of up to eight bytes, the lowest first.
    fn number(&mut self, width: usize) -> Result<u64, PickleError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    }

    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let length = self.number(width)?;
        usize::try_from(length).map_err(|_| PickleError::Truncated { at: self.bytes.len() })
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest).ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let line = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.damaged())
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), PickleError> {
        let id = self.values.push(node).ok_or(PickleError::TooLarge)?;
        self.stack.push(id);
        Ok(())
    }

    /// Takes the top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Id, PickleError> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err(self.damaged());
        }
        self.stack.pop().ok_or(self.damaged())
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or(self.damaged())
    }

    /// Takes everything above the last mark, and the mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        mark.map(|mark| self.stack.split_off(mark)).ok_or(self.damaged())
    }

    fn text(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        // Names of threads and files may be anything.
        self.push(Node::Text(String::from_utf8_lossy(bytes)))
    }

    fn signed(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { u8::MAX } else { 0 };
        let mut wide = [fill; 8];
        for (position, &byte) in bytes.iter().enumerate() {
            match wide.get_mut(position) {
                Some(slot) => *slot = byte,
                None if byte == fill => {}
                None => return self.push(Node::Other),
            }
        }
        let value = i64::from_le_bytes(wide);
        self.push(if (value < 0) == negative { Node::Int(value) } else { Node::Other })
    }

    fn tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::List(items))
    }

    fn append(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let to = self.top()?;
        match self.values.node_mut(to) {
            Some(Node::List(list)) => list.extend_from_slice(items),
            _ => return Err(self.damaged()),
        }
        Ok(())
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if rest.is_empty() { Ok(pairs.iter().map(|&[k, v]| (k, v)).collect()) } else { Err(self.damaged()) }
    }

    fn set(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let pairs = self.pairs(items)?;
        let to = self.top()?;
        match self.values.node_mut(to) {
            Some(Node::Dict(dict)) => dict.extend(pairs),
            _ => return Err(self.damaged()),
        }
        Ok(())
    }

    /// Remembers the top of the stack. Numbers are given out one by one to values: a higher one than there are is damage.
    fn remember(&mut self, slot: usize) -> Result<(), PickleError> {
        let id = self.top()?;
        if slot > self.values.count() {
            return Err(self.damaged());
        }
        if slot >= self.memo.len() {
            self.memo.resize(slot.saturating_add(1), None);
        }
        if let Some(place) = self.memo.get_mut(slot) {
            *place = Some(id);
        }
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), PickleError> {
        let id = self.memo.get(slot).copied().flatten().ok_or(self.damaged())?;
        self.stack.push(id);
        Ok(())
    }

    /// One instruction; false after the last.
    fn step(&mut self) -> Result<bool, PickleError> {
        let at = self.at;
        let code = *self.take(1)?.first().ok_or(PickleError::Truncated { at })?;
        match code {
            b'.' => return Ok(false),
            // Which protocol, and how much of it follows: the rest says so itself.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'K' => self.unsigned(1)?,
            b'M' => self.unsigned(2)?,
            b'J' => self.signed(4)?,
            0x8a => {
                let length = self.length(1)?;
                self.signed(length)?;
            }
            0x8b => {
                let length = self.length(4)?;
                self.signed(length)?;
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let node = match (code, line) {
                    (b'I', "00") => Node::Bool(false),
                    (b'I', "01") => Node::Bool(true),
                    _ => line.trim_end_matches('L').parse().map_or(Node::Other, Node::Int),
                };
                self.push(node)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Other)?;
            }
            b'F' => {
                self.line()?;
                self.push(Node::Other)?;
            }
            b'V' => {
                let line = self.line()?;
                self.push(Node::Text(Cow::Borrowed(line)))?;
            }
            b'X' => {
                let length = self.length(4)?;
                self.text(length)?;
            }
            0x8c => {
                let length = self.length(1)?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length(8)?;
                self.text(length)?;
            }
            // Texts of Python 2 and bytes.
            b'U' => {
                let length = self.length(1)?;
                self.text(length)?;
            }
            b'T' => {
                let length = self.length(4)?;
                self.text(length)?;
            }
            b'C' => self.bytes_of(1)?,
            b'B' => self.bytes_of(4)?,
            0x8e => self.bytes_of(8)?,
            b']' | b')' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'(' => self.marks.push(self.stack.len()),
            b'l' | b't' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.push(Node::Dict(pairs))?;
            }
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            b'q' => {
                let slot = self.length(1)?;
                self.remember(slot)?;
            }
            b'r' => {
                let slot = self.length(4)?;
                self.remember(slot)?;
            }
            b'p' => {
                let slot = self.line()?.parse().map_err(|_| self.damaged())?;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let slot = self.length(1)?;
                self.recall(slot)?;
            }
            b'j' => {
                let slot = self.length(4)?;
                self.recall(slot)?;
            }
            b'g' => {
                let slot = self.line()?.parse().map_err(|_| self.damaged())?;
                self.recall(slot)?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            _ => {
                return Err(match refused(code) {
                    Some(what) => PickleError::Calls { at, what },
                    None => PickleError::Unknown { at, code },
                });
            }
        }
        Ok(true)
    }

    fn unsigned(&mut self, width: usize) -> Result<(), PickleError> {
        let value = self.number(width)?;
        self.push(i64::try_from(value).map_or(Node::Other, Node::Int))
    }

    fn bytes_of(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        self.take(length)?;
        self.push(Node::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Node;
    use super::{PickleError, read};

    #[test]
    fn values_of_every_protocol_are_read() {
        // {"a": [1, -2, None, True, (3,)]} as Python 3 writes it with protocols 0, 2 and 4.
        let protocols: [&[u8]; 3] = [
            b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naNaI01\na(I3\ntp3\nas.",
            b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffN\x88K\x03\x85q\x03es.",
            b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffN\x88K\x03\x85\x94es.",
        ];
        for bytes in protocols {
            let (values, root) = read(bytes).unwrap();
            let list = values.get(root, "a").unwrap();
            let nodes: Vec<_> = values.items(list).iter().map(|&id| values.node(id).clone()).collect();
            assert_eq!(nodes[..4], [Node::Int(1), Node::Int(-2), Node::None, Node::Bool(true)]);
            assert_eq!(values.int(values.items(values.items(list)[4])[0]), Some(3));
        }
    }

    #[test]
    fn long_integers_are_read_up_to_64_bits() {
        // None where it is an integer of more bits.
        fn int(bytes: &[u8]) -> Option<i64> {
            let (values, root) = read(bytes).unwrap();
            values.int(root)
        }
        assert_eq!(int(b"\x8a\x08\xd6\xff\xff\xff\xff\xff\xff\xff."), Some(-42));
        assert_eq!(int(b"\x8a\x00."), Some(0));
        assert_eq!(int(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00."), Some(i64::MAX));
        assert_eq!(int(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00."), None);
        assert_eq!(int(b"\x8b\x02\x00\x00\x00\xff\x00."), Some(255));
    }

    #[test]
    fn whatever_would_import_or_call_is_refused() {
        // os.system("id") in the ways that protocols 0 to 4 have for it.
        let hostile: [&[u8]; 6] = [
            b"cos\nsystem\n(S'id'\ntR.",
            b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.",
            b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
            b"(X\x02\x00\x00\x00idios\nsystem\n.",
            b"}}b.",
            b")\x81.",
        ];
        for bytes in hostile {
            assert!(matches!(read(bytes), Err(PickleError::Calls { .. })), "{:?}", read(bytes));
        }
        let error = read(b"cos\nsystem\n.").unwrap_err().to_string();
        assert!(
            error.contains("import a name") && error.contains("nothing in a file is executed"),
            "{error}"
        );
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let whole =
            b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffN\x88K\x03\x85q\x03es.";
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        // Nothing to take, a mark in the way, a list that is none, odd pairs, an unknown name, a length beyond the end.
        for bytes in [
            &b"0."[..],
            b"](0.",
            b"Na.",
            b"}(K\x01u.",
            b"h\x07.",
            b"X\xff\xff\xff\xffa.",
            b"r\xff\xff\xff\xff.",
            b".",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_list_in_itself_and_deep_nesting_take_no_more_than_their_bytes() {
        let (values, root) = read(b"]q\x00h\x00a.").unwrap();
        assert_eq!(values.items(root), [root]);
        let mut deep = b"]".repeat(1 << 20);
        deep.extend(b"a".repeat((1 << 20) - 1));
        deep.push(b'.');
        let (values, root) = read(&deep).unwrap();
        assert_eq!(values.items(root).len(), 1);
        // Nine million lists in nine million bytes.
        let mut many = b"]0".repeat(9 << 20);
        many.extend(b"].");
        assert_eq!(read(&many).unwrap_err(), PickleError::TooLarge);
    }
}
