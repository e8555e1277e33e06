//! The JSON form of a dump (`_dump_nccl_trace_json`), as the same values as the pickle's.

use std::borrow::Cow;

use serde_json::Value;

use super::value::{Id, Node, Values};

/// Reads a document. The parser refuses what is nested deeper than 128 levels, so that this does not recurse further.
pub(super) fn read(bytes: &[u8]) -> Result<(Values<'static>, Id), String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut values = Values::default();
    let root = add(&mut values, document).ok_or("it holds more values than a Flight Recorder dump can")?;
    Ok((values, root))
}

fn add(values: &mut Values<'static>, value: Value) -> Option<Id> {
    let node = match value {
        Value::Null => Node::None,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(number) => number.as_i64().map_or(Node::Other, Node::Int),
        Value::String(text) => Node::Text(Cow::Owned(text)),
        Value::Array(items) => {
            let items: Option<Vec<Id>> = items.into_iter().map(|item| add(values, item)).collect();
            Node::List(items?)
        }
        Value::Object(pairs) => {
            let pairs: Option<Vec<(Id, Id)>> = pairs
                .into_iter()
                .map(|(key, value)| Some((values.push(Node::Text(Cow::Owned(key)))?, add(values, value)?)))
                .collect();
            Node::Dict(pairs?)
        }
    };
    values.push(node)
}
