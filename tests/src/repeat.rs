//! Makes a large trace out of a small real one: its events again and again, with times and ids moved on.
//!
//! The text of an event is kept as it is; only the numbers of `ts`, `id`, `correlation` and `External id` are rewritten,
//! so that the large trace has the spelling, the field order and the mix of the real one.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Which way a number moves from copy to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moves {
    /// Forward in time, µs.
    Time,
    /// To ids that no copy before has used.
    Id,
}

/// A number in the text whose whole part is rewritten.
#[derive(Clone, Debug)]
struct Number {
    at: Range<usize>,
    value: u64,
    moves: Moves,
}

/// An event of the trace: where its text is, and the numbers in it.
#[derive(Clone, Debug)]
struct Event {
    at: Range<usize>,
    numbers: Vec<Number>,
    metadata: bool,
}

/// A trace taken apart.
#[derive(Debug)]
pub struct Template {
    text: Vec<u8>,
    /// Everything up to and with the bracket that opens the events.
    head: usize,
    /// Where the bracket that closes the events is.
    tail: usize,
    events: Vec<Event>,
    period_us: u64,
    id_step: u64,
}

impl Template {
    /// Takes a trace apart.
    ///
    /// # Errors
    /// When the text holds no list of events.
    pub fn new(text: Vec<u8>) -> anyhow::Result<Self> {
        let key = b"\"traceEvents\"";
        let at = text.windows(key.len()).position(|w| w == key).context("the trace has no traceEvents")?;
        let open = text.iter().skip(at).position(|&b| b == b'[').context("traceEvents is no list")?;
        let head = at + open + 1;
        let (events, tail) = scan(&text, head)?;
        let numbers = |moves| {
            let of_events = events.iter().filter(|e| !e.metadata).flat_map(|e| &e.numbers);
            of_events.filter(move |n| n.moves == moves).map(|n| n.value)
        };
        let first = numbers(Moves::Time).min().context("the trace has no times")?;
        let last = numbers(Moves::Time).max().unwrap_or(first);
        let id_step = numbers(Moves::Id).max().unwrap_or(0) + 1;
        // A millisecond between copies, so that the last event of one ends before the next begins.
        Ok(Self { head, tail, events, period_us: last - first + 1_000, id_step, text })
    }

    /// Reads a trace, plain or gzipped, and takes it apart.
    ///
    /// # Errors
    /// When it cannot be read or holds no list of events.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut f| f.read_to_end(&mut bytes))
            .with_context(|| path.display().to_string())?;
        if bytes.starts_with(b"\x1f\x8b") {
            let mut text = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut text)?;
            bytes = text;
        }
        Self::new(bytes)
    }

    /// Writes copies until at least `target` bytes are out; the number of bytes written.
    ///
    /// # Errors
    /// Whatever the output reports.
    pub fn write(&self, target: u64, out: &mut impl Write) -> io::Result<u64> {
        let mut written = self.head as u64;
        out.write_all(&self.text[..self.head])?;
        let mut line = Vec::new();
        for copy in 0.. {
            for event in self.events.iter().filter(|e| copy == 0 || !e.metadata) {
                line.clear();
                if written > self.head as u64 {
                    line.extend_from_slice(b",\n");
                }
                self.render(event, copy, &mut line);
                out.write_all(&line)?;
                written += line.len() as u64;
            }
            if written >= target {
                break;
            }
        }
        out.write_all(&self.text[self.tail..])?;
        Ok(written + (self.text.len() - self.tail) as u64)
    }

    fn render(&self, event: &Event, copy: u64, line: &mut Vec<u8>) {
        let mut at = event.at.start;
        for number in event.numbers.iter().filter(|_| !event.metadata) {
            line.extend_from_slice(&self.text[at..number.at.start]);
            let step = match number.moves {
                Moves::Time => self.period_us,
                Moves::Id => self.id_step,
            };
            let _ = write!(line, "{}", number.value + step * copy);
            at = number.at.end;
        }
        line.extend_from_slice(&self.text[at..event.at.end]);
    }
}

/// Finds the events and their numbers from the opening bracket on, and the closing bracket.
fn scan(text: &[u8], from: usize) -> anyhow::Result<(Vec<Event>, usize)> {
    let mut events = Vec::new();
    let (mut depth, mut at) = (0_u32, from);
    let mut event = Event { at: 0..0, numbers: Vec::new(), metadata: false };
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                let end = string_end(text, at).context("a string of the trace does not end")?;
                let key = &text[at + 1..end];
                at = end + 1;
                let value =
                    text[at..].iter().position(|b| !b" :\n\t".contains(b)).map_or(at, |skip| at + skip);
                if text[at..value].contains(&b':') {
                    note(text, key, value, &mut event);
                }
                continue;
            }
            b'{' | b'[' => {
                if depth == 0 {
                    event = Event { at: at..at, numbers: Vec::new(), metadata: false };
                }
                depth += 1;
            }
            b']' if depth == 0 => return Ok((events, at)),
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    event.at.end = at + 1;
                    events.push(event.clone());
                }
            }
            _ => {}
        }
        at += 1;
    }
    anyhow::bail!("the list of events does not end")
}

/// Position of the quote that ends the string whose opening quote is at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut escaped = false;
    let rest = text.get(at + 1..)?;
    let end = rest.iter().position(|&b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    })?;
    Some(at + 1 + end)
}

/// Remembers the value of a key that is rewritten.
fn note(text: &[u8], key: &[u8], value: usize, event: &mut Event) {
    let moves = match key {
        b"ph" => {
            event.metadata |= text[value..].starts_with(b"\"M\"");
            return;
        }
        b"ts" => Moves::Time,
        b"id" | b"correlation" | b"External id" | b"external id" => Moves::Id,
        _ => return,
    };
    let len = text[value..].iter().position(|b| !b.is_ascii_digit()).unwrap_or(0);
    let number = std::str::from_utf8(&text[value..value + len]).ok().and_then(|digits| digits.parse().ok());
    if let Some(number) = number {
        event.numbers.push(Number { at: value..value + len, value: number, moves });
    }
}

/// Repeats a trace into a file; its size.
///
/// # Errors
/// When the trace cannot be read or the file not be written.
pub fn repeat_to_file(trace: &Path, target: u64, output: &Path) -> anyhow::Result<u64> {
    let template = Template::open(trace)?;
    let file = File::create(output).with_context(|| output.display().to_string())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = if output.extension().is_some_and(|e| e == "gz") {
        let mut gz = GzEncoder::new(&mut out, Compression::new(6));
        let written = template.write(target, &mut gz)?;
        gz.finish()?;
        written
    } else {
        template.write(target, &mut out)?
    };
    out.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::Template;
    use serde_json::{Value, json};

    const TRACE: &str = r#"{"a": [1], "traceEvents": [
        {"ph": "M", "name": "process_name", "ts": 0, "pid": 1, "args": {"name": "py {\"} ["}},
        {"ph": "X", "name": "k", "ts": 100.250, "dur": 5, "args": {"correlation": 7, "External id": 2}},
        {"ph": "s", "id": 7, "ts": 140}
    ], "z": "]"}"#;

    #[test]
    fn copies_move_in_time_and_use_ids_of_their_own() {
        let mut out = Vec::new();
        let template = Template::new(TRACE.into()).unwrap();
        let written = template.write(TRACE.len() as u64 + 50, &mut out).unwrap();
        assert_eq!(written, out.len() as u64);
        let trace: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(trace["z"], "]");
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 5, "metadata once, the rest twice");
        assert_eq!(events[0]["args"]["name"], "py {\"} [");
        let moved = json!({"ph": "X", "name": "k", "ts": 1140.250, "dur": 5, "args": {"correlation": 15, "External id": 10}});
        assert_eq!(events[3], moved);
        assert_eq!(events[4], json!({"ph": "s", "id": 15, "ts": 1180}));
    }

    #[test]
    fn text_without_events_is_refused() {
        for text in ["{}", r#"{"traceEvents": [{"ph": "X""#, r#"{"traceEvents": []}"#] {
            assert!(Template::new(text.into()).is_err(), "{text}");
        }
    }
}
