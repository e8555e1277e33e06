//! Writes pickles as PyTorch does: protocol 2, with every text remembered.

use std::collections::BTreeMap;

/// A value of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A pair.
    Pair(Box<[Value; 2]>),
    /// A dict.
    Dict(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The pickle of a value.
#[must_use]
pub fn pickle(value: &Value) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    put(value, &mut out, &mut BTreeMap::new());
    out.push(b'.');
    out
}

fn put(value: &Value, out: &mut Vec<u8>, memo: &mut BTreeMap<String, u32>) {
    match value {
        Value::None => out.push(b'N'),
        Value::Bool(true) => out.push(0x88),
        Value::Bool(false) => out.push(0x89),
        Value::Int(int) => put_int(*int, out),
        Value::Text(text) => put_text(text, out, memo),
        Value::List(items) => {
            out.extend(b"](");
            items.iter().for_each(|item| put(item, out, memo));
            out.push(b'e');
        }
        Value::Pair(pair) => {
            pair.iter().for_each(|item| put(item, out, memo));
            out.push(0x86);
        }
        Value::Dict(pairs) => {
            out.extend(b"}(");
            for (key, value) in pairs {
                put_text(key, out, memo);
                put(value, out, memo);
            }
            out.push(b'u');
        }
    }
}

fn put_int(int: i64, out: &mut Vec<u8>) {
    if let Ok(small) = u8::try_from(int) {
        out.extend([b'K', small]);
    } else if let Ok(middle) = i32::try_from(int) {
        out.push(b'J');
        out.extend(middle.to_le_bytes());
    } else {
        out.extend([0x8a, 8]);
        out.extend(int.to_le_bytes());
    }
}

fn put_text(text: &str, out: &mut Vec<u8>, memo: &mut BTreeMap<String, u32>) {
    if let Some(&slot) = memo.get(text) {
        match u8::try_from(slot) {
            Ok(slot) => out.extend([b'h', slot]),
            Err(_) => {
                out.push(b'j');
                out.extend(slot.to_le_bytes());
            }
        }
        return;
    }
    let slot = u32::try_from(memo.len()).unwrap_or(u32::MAX);
    out.push(b'X');
    out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(text.as_bytes());
    match u8::try_from(slot) {
        Ok(slot) => out.extend([b'q', slot]),
        Err(_) => {
            out.push(b'r');
            out.extend(slot.to_le_bytes());
        }
    }
    memo.insert(text.to_owned(), slot);
}
