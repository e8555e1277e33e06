//! Slots of a ring to events: numbers to names, CUPTI's times to CLOCK_MONOTONIC.
//!
//! A time is converted once the clock has been read after it. So events wait here for the next reading, at most
//! [`MAX_HELD`] of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use stallscope_cupti_abi::{driver_call, runtime_call};
use stallscope_cupti_wire::{
    Item, Kind, Lost, Record, api, clock, device, halves, launch_flags, memory, op, op_flags, range, sync,
};

use crate::clock::{Clock, Reading};

/// Events that wait for a reading of the clock: one comes every 100 ms and with each buffer.
const MAX_HELD: usize = 1 << 20;
/// Names that are remembered: the agent has room for fewer.
const MAX_NAMES: usize = 1 << 17;
/// Bytes of names that are kept of a process: a large training job has a tenth of that.
const MAX_NAMES_BYTES: usize = 32 << 20;

/// A copy or fill, as CUPTI's numbers say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// `CUpti_ActivityMemcpyKind`; of a fill 0.
    pub kind: u8,
    /// `CUpti_ActivityMemoryKind` of the source.
    pub from: u8,
    /// The same of the destination, or of what was filled.
    pub to: u8,
    /// Between two devices.
    pub peer: bool,
}

/// What an operation was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A kernel.
    Kernel(Arc<str>),
    /// A copy.
    Copy(Copied),
    /// A fill.
    Fill(Copied),
    /// A whole replay of a graph, of which the nodes are not recorded.
    Graph,
}

/// An operation on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The device, as the process numbers it.
    pub device: u32,
    /// Stream.
    pub stream: u32,
    /// Ties it to the call that asked for it.
    pub correlation: u32,
    /// What it was.
    pub what: What,
    /// Start, CLOCK_MONOTONIC ns.
    pub start: u64,
    /// End; `None` where CUPTI did not know one.
    pub end: Option<u64>,
    /// Bytes copied or filled.
    pub bytes: u64,
    /// Whether it is a node of a graph.
    pub graph_node: bool,
}

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The process's number for it.
    pub number: u32,
    /// `GPU-…` or, of a part of one, `MIG-…`.
    pub uuid: String,
    /// Model.
    pub model: String,
}

/// What an agent tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device that later operations name.
    Device(DeviceInfo),
    /// An operation on a device.
    Op(Op),
    /// A call into the driver: thread as the process numbers it, name, correlation id, start, end.
    Call {
        /// Thread, in the process's own pid namespace.
        tid: u32,
        /// Name.
        name: Arc<str>,
        /// Correlation id.
        correlation: u32,
        /// Start, CLOCK_MONOTONIC ns.
        start: u64,
        /// End.
        end: u64,
    },
    /// A stream was told to wait for another.
    StreamWait {
        /// The stream that waits.
        stream: u32,
        /// Correlation id of the call.
        correlation: u32,
        /// Start of the call, CLOCK_MONOTONIC ns.
        start: u64,
        /// End.
        end: u64,
    },
    /// A range that the user marked.
    Range {
        /// Thread, in the process's own pid namespace.
        tid: u32,
        /// Its text, with the domain before it where it has one.
        name: Arc<str>,
        /// Start, CLOCK_MONOTONIC ns.
        start: u64,
        /// End.
        end: u64,
    },
    /// A stretch in which records were lost.
    Loss {
        /// From when, CLOCK_MONOTONIC ns.
        start: u64,
        /// Until when.
        end: u64,
        /// How many.
        records: u64,
        /// Why.
        why: Lost,
    },
}

/// Decodes the ring of one agent.
#[derive(Debug)]
pub struct Decoder {
    clock: Clock,
    names: HashMap<u32, Arc<str>>,
    /// Bytes of all names that were taken in.
    names_bytes: usize,
    calls: HashMap<(bool, u32), Arc<str>>,
    held: VecDeque<(Kind, Record)>,
    demangle: fn(&str) -> Arc<str>,
    malformed: u64,
}

impl Decoder {
    /// `demangle` makes a kernel's name readable.
    #[must_use]
    pub fn new(demangle: fn(&str) -> Arc<str>) -> Self {
        Self {
            clock: Clock::default(),
            names: HashMap::new(),
            names_bytes: 0,
            calls: HashMap::new(),
            held: VecDeque::new(),
            demangle,
            malformed: 0,
        }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Records that made no sense.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Takes an item in, and hands out what can be told by now.
    pub fn item(&mut self, item: Item<'_>, out: &mut impl FnMut(Event)) {
        match item {
            Item::Name { number, text } => {
                let room = self.names.len() < MAX_NAMES || self.names.contains_key(&number);
                if room && self.names_bytes + text.len() <= MAX_NAMES_BYTES {
                    self.names_bytes += text.len();
                    self.names.insert(number, (self.demangle)(&String::from_utf8_lossy(text)));
                }
            }
            Item::Record(Kind::Clock, Record(words)) => {
                let [_, before, cupti, after, ..] = words;
                debug_assert_eq!([clock::BEFORE, clock::CUPTI, clock::AFTER], [1, 2, 3]);
                self.clock.add(Reading { before, cupti, after });
                self.settle(out);
            }
            Item::Record(kind, record) => {
                if self.held.len() >= MAX_HELD {
                    self.tell_oldest(out);
                }
                self.held.push_back((kind, record));
            }
        }
    }

    /// Hands out what still waits: no reading will come any more.
    pub fn finish(&mut self, out: &mut impl FnMut(Event)) {
        while !self.held.is_empty() {
            self.tell_oldest(out);
        }
    }

    /// Hands out what lies before the last reading. Records come in the order in which they were completed, more or less:
    /// one that is later than the reading holds up those behind it, and only until the next.
    fn settle(&mut self, out: &mut impl FnMut(Event)) {
        let Some(until) = self.clock.known_until() else { return };
        while let Some((kind, record)) = self.held.front() {
            let end = record.0[op::END].max(record.0[op::START]);
            if timed(*kind) && end > until {
                return;
            }
            self.tell_oldest(out);
        }
    }

    fn tell_oldest(&mut self, out: &mut impl FnMut(Event)) {
        let Some((kind, record)) = self.held.pop_front() else { return };
        match self.event(kind, &record) {
            Some(event) => out(event),
            None if kind == Kind::Overhead || kind == Kind::Sync => {}
            // One that had not begun when it was taken: the agent counts those without an end.
            None if is_op(kind) && record.0[op::START] == 0 && record.0[op::END] == 0 => {}
            None => self.malformed += 1,
        }
    }

    fn name(&self, number: u32) -> Arc<str> {
        self.names.get(&number).cloned().unwrap_or_else(|| Arc::from("<name lost>"))
    }

    fn call_name(&mut self, runtime: bool, id: u32) -> Arc<str> {
        let make = || {
            let known = if runtime { runtime_call(id) } else { driver_call(id) };
            let layer = if runtime { "runtime" } else { "driver" };
            known.map_or_else(|| Arc::from(format!("{layer} call {id}")), |call| Arc::from(call.plain_name()))
        };
        if self.calls.len() >= 4096 {
            make()
        } else {
            self.calls.entry((runtime, id)).or_insert_with(make).clone()
        }
    }

    /// Both ends in CLOCK_MONOTONIC; `None` where they make no sense.
    fn times(&mut self, record: &Record) -> Option<(u64, u64)> {
        let (start, end) = (record.0[op::START], record.0[op::END]);
        (start != 0 && end >= start).then_some(())?;
        Some((self.clock.monotonic(start)?, self.clock.monotonic(end)?))
    }

    fn event(&mut self, kind: Kind, record: &Record) -> Option<Event> {
        let words = &record.0;
        let [_, correlation] = halves(words[0]);
        match kind {
            Kind::Kernel | Kind::Copy | Kind::Fill | Kind::Graph => self.op(kind, record, correlation),
            Kind::Api => {
                let (start, end) = self.times(record)?;
                let [tid, id] = halves(words[api::THREAD_CALLBACK]);
                let runtime = words[0] >> 8 & launch_flags::RUNTIME != 0;
                Some(Event::Call { tid, name: self.call_name(runtime, id), correlation, start, end })
            }
            Kind::Sync => {
                // 2: a stream waits for an event. The others are calls, which are recorded as such.
                if words[sync::TYPE] & 0xffff_ffff != 2 {
                    return None;
                }
                let (start, end) = self.times(record)?;
                let [_, stream] = halves(words[sync::CONTEXT_STREAM]);
                Some(Event::StreamWait { stream, correlation, start, end })
            }
            Kind::Range => {
                let (start, end) = self.times(record)?;
                let [tid, _] = halves(words[range::THREAD]);
                let [name, domain] = halves(words[range::NAME_DOMAIN]);
                let name = self.name(name);
                let name =
                    if domain == 0 { name } else { Arc::from(format!("{}:{name}", self.name(domain))) };
                Some(Event::Range { tid, name, start, end })
            }
            Kind::Device => {
                let [number, mig] = halves(words[device::NUMBER_MIG]);
                let [name, _] = halves(words[device::NAME]);
                let mut uuid = [0; 16];
                for (to, from) in
                    uuid.iter_mut().zip(words[device::UUID..].iter().flat_map(|w| w.to_le_bytes()))
                {
                    *to = from;
                }
                let model = if name == 0 { String::new() } else { self.name(name).to_string() };
                Some(Event::Device(DeviceInfo { number, uuid: uuid_text(uuid, mig != 0), model }))
            }
            Kind::Loss => {
                // These times are ours already.
                let (start, end) = (words[op::START], words[op::END]);
                let why = u32::try_from(words[4]).ok().and_then(Lost::from_id)?;
                (end >= start).then_some(Event::Loss { start, end, records: words[3], why })
            }
            Kind::Overhead | Kind::Clock | Kind::Name => None,
        }
    }

    fn op(&mut self, kind: Kind, record: &Record, correlation: u32) -> Option<Event> {
        let words = &record.0;
        let (start, end) = match (words[op::START], words[op::END]) {
            (0, _) => return None,
            (start, 0) => (self.clock.monotonic(start)?, None),
            // It ran, and for how long is not known.
            (start, end) if end < start => {
                self.malformed += 1;
                (self.clock.monotonic(start)?, None)
            }
            _ => {
                let (start, end) = self.times(record)?;
                (start, Some(end))
            }
        };
        let [device, _] = halves(words[op::DEVICE_CONTEXT]);
        let [stream, name] = halves(words[op::STREAM_NAME]);
        let copied = || {
            let byte = |shift: u32| u8::try_from(name >> shift & 0xff).unwrap_or(0);
            let peer = words[0] >> 8 & op_flags::PEER != 0;
            let (from, to) = (byte(memory::SOURCE_SHIFT), byte(memory::DESTINATION_SHIFT));
            Copied { kind: byte(0), from, to, peer }
        };
        let (what, bytes, node) = match kind {
            Kind::Kernel => (What::Kernel(self.name(name)), 0, words[op::NODE_OR_BYTES]),
            Kind::Graph => (What::Graph, 0, 0),
            _ => {
                let copied = copied();
                let node = if copied.peer { 0 } else { words[op::PEERS_OR_NODE] };
                let what = if kind == Kind::Copy { What::Copy(copied) } else { What::Fill(copied) };
                (what, words[op::NODE_OR_BYTES], node)
            }
        };
        Some(Event::Op(Op { device, stream, correlation, what, start, end, bytes, graph_node: node != 0 }))
    }
}

fn is_op(kind: Kind) -> bool {
    matches!(kind, Kind::Kernel | Kind::Copy | Kind::Fill | Kind::Graph)
}

/// Whether the record's first words are CUPTI's times.
fn timed(kind: Kind) -> bool {
    !matches!(kind, Kind::Device | Kind::Loss | Kind::Clock | Kind::Name)
}

/// As `nvidia-smi -L` writes it.
fn uuid_text(bytes: [u8; 16], mig: bool) -> String {
    let mut text = String::from(if mig { "MIG-" } else { "GPU-" });
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use stallscope_cupti_wire::{Item, Kind, Record};

    use super::{Decoder, Event, What};

    fn decoder() -> Decoder {
        Decoder::new(|name| Arc::from(name.to_uppercase()))
    }

    fn clock(cupti: u64, offset: u64) -> Item<'static> {
        Item::Record(Kind::Clock, Record([8, cupti + offset - 10, cupti, cupti + offset + 10, 0, 0, 0, 0]))
    }

    fn kernel(start: u64, end: u64) -> Item<'static> {
        let correlation = 77u64 << 32;
        Item::Record(Kind::Kernel, Record([1 | correlation, start, end, 2, 7 | 5 << 32, 0, 0, 0]))
    }

    #[test]
    fn an_operation_is_told_once_the_clock_was_read_after_it() {
        let (mut decoder, mut told) = (decoder(), Vec::new());
        decoder.item(Item::Name { number: 5, text: b"gemm" }, &mut |e| told.push(e));
        decoder.item(clock(1_000, 500), &mut |e| told.push(e));
        decoder.item(kernel(1_500, 1_700), &mut |e| told.push(e));
        assert!(told.is_empty());
        decoder.item(clock(2_000, 500), &mut |e| told.push(e));
        let [Event::Op(op)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((op.start, op.end, op.device, op.stream, op.correlation), (2_000, Some(2_200), 2, 7, 77));
        assert_eq!(op.what, What::Kernel(Arc::from("GEMM")));
        assert_eq!(decoder.clock().error_ns(), 10);
    }

    #[test]
    fn an_operation_without_an_end_is_told_without_one_and_one_that_ends_before_it_begins_is_counted() {
        let (mut decoder, mut told) = (decoder(), Vec::new());
        decoder.item(clock(1_000, 500), &mut |e| told.push(e));
        decoder.item(kernel(1_500, 0), &mut |e| told.push(e));
        decoder.item(kernel(1_500, 1_400), &mut |e| told.push(e));
        decoder.item(kernel(0, 10), &mut |e| told.push(e));
        decoder.finish(&mut |e| told.push(e));
        // One that had not begun yet when it was taken, which the agent has counted.
        decoder.item(kernel(0, 0), &mut |e| told.push(e));
        decoder.finish(&mut |e| told.push(e));
        let [Event::Op(without), Event::Op(wrong)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((without.start, without.end), (2_000, None));
        assert_eq!((wrong.start, wrong.end), (2_000, None), "it ran, and for how long is not known");
        assert_eq!(decoder.malformed(), 2);
    }

    proptest! {
        /// Whatever the job writes: no panic, and nothing without a clock.
        #[test]
        fn hostile_records_are_counted(words in prop::collection::vec((0u8..14, prop::array::uniform8(any::<u64>())), 0..200)) {
            let mut decoder = decoder();
            let mut told = 0usize;
            for (kind, words) in &words {
                let Some(kind) = Kind::from_id(*kind) else { continue };
                decoder.item(Item::Record(kind, Record(*words)), &mut |_| told += 1);
            }
            decoder.finish(&mut |_| told += 1);
            prop_assert!(told <= words.len());
        }
    }
}
