//! Walks one trace document: finds the events and the few other members that matter, whatever surrounds them.
//!
//! Invariants: a value is looked at whole only up to the window's limit, larger ones are skipped piece by piece; a broken
//! event costs itself and what separates it from the next one, not the file; the position of the first problem is kept.

use std::io::Read;

use memchr::memchr;
use stallscope_core::capture::WriteError;
use stallscope_schemas::loss::LossCounter;

use super::event::Event;
use super::input::{Fill, Input};
use super::scanner::{Cursor, Skipper, Stop, Value};

/// What takes the content of a document.
pub(super) trait Sink {
    /// Takes an event.
    fn event(&mut self, event: &Event<'_>) -> Result<(), WriteError>;
    /// Takes a member of the top-level object that [`WANTED`] names.
    fn member(&mut self, key: &[u8], value: Value<'_>);
    /// Counts something that was left out.
    fn lost(&mut self, counter: LossCounter);
}

/// Members of the top-level object that are kept.
pub(super) const WANTED: [&[u8]; 6] =
    [b"baseTimeNanoseconds", b"deviceProperties", b"distributedInfo", b"hostname", b"host_name", b"hostName"];

/// How a document was found to be.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Events that could be parsed, of whatever kind.
    pub(super) events: u64,
    /// Whether the document ended where it should.
    pub(super) complete: bool,
    /// Byte of the (uncompressed) text, and what should have been there.
    pub(super) problem: Option<(u64, &'static str)>,
    /// Whether there was an array of events at all.
    pub(super) has_events: bool,
    /// First keys of the top-level object, for an error message.
    pub(super) keys: Vec<String>,
}

/// Keys that are kept for an error message.
const KEPT_KEYS: usize = 6;

/// How far past a problem the end of the broken event is looked for by counting brackets.
const BRACKETS_REACH: usize = 64 << 10;

/// How often that is tried in one file: it costs a second look at the bytes, which a hostile file would have us take
/// at every byte.
const BRACKETS_TRIES: u32 = 1024;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    /// The input ended, or what comes next cannot be understood.
    Stop,
}

/// Reads a document to its end.
pub(super) fn read<R: Read, S: Sink>(input: &mut Input<R>, sink: &mut S) -> Result<Outcome, WriteError> {
    let mut reader = Reader { input, sink, outcome: Outcome::default(), bracket_tries: BRACKETS_TRIES };
    reader.document()?;
    Ok(reader.outcome)
}

struct Reader<'r, R, S> {
    input: &'r mut Input<R>,
    sink: &'r mut S,
    outcome: Outcome,
    bracket_tries: u32,
}

impl<R: Read, S: Sink> Reader<'_, R, S> {
    fn document(&mut self) -> Result<(), WriteError> {
        while self.input.window().len() < 3 && self.input.fill() == Fill::More {}
        if self.input.window().starts_with(b"\xef\xbb\xbf") {
            self.input.consume(3);
        }
        match self.next_byte() {
            Some(b'{') => {
                self.input.consume(1);
                self.object()
            }
            Some(b'[') => {
                self.input.consume(1);
                // The array form may lack its closing bracket by design: a program that dies has then still written a
                // whole trace. Only an event that is cut says otherwise.
                if self.events()? == Flow::On || self.outcome.problem.is_none() {
                    self.outcome.complete = true;
                }
                Ok(())
            }
            _ => {
                self.problem(0, "an object or an array");
                Ok(())
            }
        }
    }

    fn problem(&mut self, at: usize, expected: &'static str) {
        self.outcome.problem.get_or_insert((self.input.passed() + at as u64, expected));
    }

    /// Says that the input ended within something.
    fn cut(&mut self) -> Flow {
        let len = self.input.window().len();
        self.problem(len, "more text (it ends in the middle)");
        self.input.consume(len);
        Flow::Stop
    }

    /// The next byte that is not white space; everything before it is consumed.
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            let window = self.input.window();
            match window.iter().position(|&b| b > b' ') {
                Some(at) => {
                    let byte = window.get(at).copied();
                    self.input.consume(at);
                    return byte;
                }
                None => {
                    self.input.consume(window.len());
                    if self.input.fill() != Fill::More {
                        return None;
                    }
                }
            }
        }
    }

    /// Members of the top-level object.
    fn object(&mut self) -> Result<(), WriteError> {
        loop {
            match self.next_byte() {
                Some(b'}') => {
                    self.input.consume(1);
                    self.outcome.complete = true;
                    return Ok(());
                }
                Some(b',') => self.input.consume(1),
                Some(b'"') => {
                    if self.top_member()? == Flow::Stop {
                        return Ok(());
                    }
                }
                Some(_) => {
                    self.problem(0, "a comma or the end of the object");
                    return Ok(());
                }
                None => {
                    self.cut();
                    return Ok(());
                }
            }
        }
    }

    fn top_member(&mut self) -> Result<Flow, WriteError> {
        let Some(key) = self.key() else { return Ok(Flow::Stop) };
        if self.next_byte() != Some(b':') {
            self.problem(0, "a colon");
            return Ok(Flow::Stop);
        }
        self.input.consume(1);
        let next = self.next_byte();
        if key == b"traceEvents" && next == Some(b'[') {
            self.input.consume(1);
            return self.events();
        }
        if self.outcome.keys.len() < KEPT_KEYS {
            self.outcome.keys.push(String::from_utf8_lossy(key.get(..64).unwrap_or(&key)).into_owned());
        }
        if WANTED.contains(&key.as_slice()) {
            return Ok(self.wanted(&key));
        }
        Ok(self.skip_value())
    }

    fn key(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut cursor = Cursor::new(self.input.window());
            match cursor.string() {
                Ok(key) => {
                    let (key, len) = (key.to_vec(), cursor.at());
                    self.input.consume(len);
                    return Some(key);
                }
                Err(Stop::Bad { at, expected }) => {
                    self.problem(at, expected);
                    return None;
                }
                Err(Stop::More) => match self.input.fill() {
                    Fill::More => {}
                    Fill::End => {
                        self.cut();
                        return None;
                    }
                    Fill::Full => {
                        self.problem(0, "a shorter key");
                        return None;
                    }
                },
            }
        }
    }

    /// Hands a member to the sink; one beyond the limit is skipped.
    fn wanted(&mut self, key: &[u8]) -> Flow {
        loop {
            let mut cursor = Cursor::new(self.input.window());
            match cursor.value() {
                Ok(value) => {
                    self.sink.member(key, value);
                    let len = cursor.at();
                    self.input.consume(len);
                    return Flow::On;
                }
                Err(Stop::Bad { at, expected }) => {
                    self.problem(at, expected);
                    return Flow::Stop;
                }
                Err(Stop::More) => match self.input.fill() {
                    Fill::More => {}
                    Fill::End => return self.cut(),
                    Fill::Full => return self.skip_value(),
                },
            }
        }
    }

    /// Skips a value of any size.
    fn skip_value(&mut self) -> Flow {
        match self.next_byte() {
            Some(b'"' | b'{' | b'[') => {
                let mut skipper = Skipper::default();
                loop {
                    let window = self.input.window();
                    if let Some(used) = skipper.feed(window) {
                        self.input.consume(used);
                        return Flow::On;
                    }
                    self.input.consume(window.len());
                    if self.input.fill() != Fill::More {
                        return self.cut();
                    }
                }
            }
            Some(b',' | b'}' | b']' | b':') | None => {
                self.problem(0, "a value");
                Flow::Stop
            }
            Some(_) => loop {
                let window = self.input.window();
                if let Some(end) = window.iter().position(|b| b" \t\r\n,]}{[\":".contains(b)) {
                    self.input.consume(end);
                    return Flow::On;
                }
                self.input.consume(window.len());
                if self.input.fill() != Fill::More {
                    return self.cut();
                }
            },
        }
    }

    /// Elements of the array of events, whose bracket has been consumed.
    fn events(&mut self) -> Result<Flow, WriteError> {
        self.outcome.has_events = true;
        loop {
            let flow = match self.next_byte() {
                Some(b',') => {
                    self.input.consume(1);
                    continue;
                }
                Some(b']') => {
                    self.input.consume(1);
                    return Ok(Flow::On);
                }
                Some(b'{') => self.event()?,
                Some(b'}' | b':') => {
                    // What a broken event left behind.
                    self.problem(0, "an event");
                    self.input.consume(1);
                    Flow::On
                }
                Some(b'[') => {
                    self.problem(0, "an event");
                    self.sink.lost(LossCounter::EventMalformed);
                    self.skip_value()
                }
                Some(_) => {
                    self.problem(0, "an event");
                    self.sink.lost(LossCounter::EventMalformed);
                    self.find_next_event(0)
                }
                // Whether more had to come depends on the form of the document.
                None => Flow::Stop,
            };
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
    }

    fn event(&mut self) -> Result<Flow, WriteError> {
        loop {
            match Event::parse(self.input.window()) {
                Ok((event, len)) => {
                    self.outcome.events += 1;
                    self.sink.event(&event)?;
                    self.input.consume(len);
                    return Ok(Flow::On);
                }
                Err(Stop::Bad { at, expected }) => {
                    self.problem(at, expected);
                    self.sink.lost(LossCounter::EventMalformed);
                    return Ok(self.find_next_event(at));
                }
                Err(Stop::More) => match self.input.fill() {
                    Fill::More => {}
                    Fill::End => return Ok(self.cut()),
                    Fill::Full => {
                        self.sink.lost(LossCounter::EventTooLarge);
                        return Ok(self.skip_value());
                    }
                },
            }
        }
    }

    /// After a problem at `bad` of the event at the window's beginning: goes to where the next one may begin.
    ///
    /// Counting brackets finds the exact end where only a token is wrong. Where a bracket or a quote is missing it would
    /// swallow the rest of the file, so its answer counts only if it lies near and is followed by what follows an event;
    /// else the text is searched for something that begins like an event.
    fn find_next_event(&mut self, bad: usize) -> Flow {
        if let Some(end) = self.end_by_brackets(bad) {
            self.input.consume(end);
            return Flow::On;
        }
        self.input.consume(bad.max(1));
        loop {
            let window = self.input.window();
            let at = memchr(b'{', window).unwrap_or(window.len());
            self.input.consume(at);
            match Event::may_begin(self.input.window()) {
                Ok(true) => return Flow::On,
                Ok(false) => self.input.consume(1),
                Err(_) => match self.input.fill() {
                    Fill::More => {}
                    Fill::End => return self.cut(),
                    Fill::Full => self.input.consume(1),
                },
            }
        }
    }

    fn end_by_brackets(&mut self, bad: usize) -> Option<usize> {
        self.bracket_tries = self.bracket_tries.checked_sub(1)?;
        let reach = bad.saturating_add(BRACKETS_REACH);
        loop {
            let window = self.input.window();
            let near = window.get(..reach).unwrap_or(window);
            let mut cursor = Cursor::new(near);
            let end =
                cursor.value().map(|_| cursor.at()).and_then(|end| cursor.peek().map(|next| (end, next)));
            match end {
                // Brackets are counted without regard to their kind: one that is missing shows in the last one.
                Ok((end, b',' | b']')) if near.get(end - 1) != Some(&b']') => return Some(end),
                Err(Stop::More) if window.len() < reach && self.input.fill() == Fill::More => {}
                _ => return None,
            }
        }
    }
}
