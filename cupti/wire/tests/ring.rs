//! What goes in comes out, in order and whole; what does not fit is refused; what is nonsense is counted.

#![expect(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod common;

use std::sync::atomic::Ordering;

use common::Memory;
use proptest::collection::vec;
use proptest::prelude::*;
use stallscope_cupti_wire::{
    CUPTI_PATH_BYTES, Item, Kind, NameBuffer, Reader, Record, Ring, RingError, Writer, name, ring_bytes,
};

const SLOTS: u32 = 256;

fn record(value: u64) -> Record {
    Record([Kind::Kernel as u64, value, value ^ 1, value ^ 2, value ^ 3, value ^ 4, value ^ 5, value ^ 6])
}

#[test]
fn records_come_out_in_order_and_the_writer_is_refused_when_the_ring_is_full() {
    let memory = Memory::new(SLOTS);
    let mut reader = Reader::new(memory.ring());
    let mut writer = Writer::new(memory.ring());
    let mut text = NameBuffer::default();
    for round in 0..5 {
        for index in 0..u64::from(SLOTS) {
            assert!(writer.push(&record(round << 32 | index)));
        }
        assert!(!writer.push(&record(0)), "there is no room beyond the slots");
        writer.publish();
        for index in 0..u64::from(SLOTS) {
            assert_eq!(reader.next(&mut text), Some(Item::Record(Kind::Kernel, record(round << 32 | index))));
        }
        assert_eq!(reader.next(&mut text), None);
        assert!(!writer.push(&record(0)), "room comes back with release, not with reading");
        reader.release();
    }
    assert_eq!(reader.faults(), Default::default());
}

#[test]
fn a_name_comes_out_whole_or_does_not_go_in() {
    let memory = Memory::new(SLOTS);
    let mut reader = Reader::new(memory.ring());
    let mut writer = Writer::new(memory.ring());
    let mut text = NameBuffer::default();
    for length in [0, 1, 7, 8, 9, 63, 64, 65, 1000, name::MAX_BYTES] {
        let bytes: Vec<u8> = (0..length).map(|i| b'a' + (i % 26) as u8).collect();
        assert!(writer.push_name(length as u32, &bytes));
        assert_eq!(reader.next(&mut text), Some(Item::Name { number: length as u32, text: &bytes }));
        reader.release();
    }
    let long = vec![b'x'; name::MAX_BYTES + 1];
    assert!(writer.push_name(1, &long), "cut, not refused");
    assert_eq!(reader.next(&mut text), Some(Item::Name { number: 1, text: &long[..name::MAX_BYTES] }));
    reader.release();
    while writer.push(&record(0)) {}
    writer.publish();
    for _ in 0..30 {
        reader.next(&mut text).expect("the ring is full");
    }
    reader.release();
    let before = writer.unread();
    assert!(!writer.push_name(2, &long), "65 slots do not fit into those that are free");
    assert_eq!(writer.unread(), before, "and nothing of it went in");
}

#[test]
fn memory_that_is_no_ring_is_refused_with_its_reason() {
    let memory = Memory::new(SLOTS);
    let header = memory.ring().header();
    let base = std::ptr::NonNull::from(header).cast::<u8>();
    // SAFETY: the memory of `memory`, which is as long as said at least.
    let open = |bytes| unsafe { Ring::from_raw(base, bytes) }.err();
    assert_eq!(open(ring_bytes(SLOTS)), None);
    assert_eq!(open(ring_bytes(SLOTS) - 1), Some(RingError::Size));
    assert_eq!(open(100), Some(RingError::Size));
    for slots in [0, 1, 255, 257, 1 << 25, u32::MAX] {
        header.slots.store(slots, Ordering::Relaxed);
        assert_eq!(open(ring_bytes(SLOTS)), Some(RingError::Slots(slots)));
    }
    header.version.store(9, Ordering::Relaxed);
    assert_eq!(open(ring_bytes(SLOTS)), Some(RingError::Version(9)));
    header.magic.store(1, Ordering::Relaxed);
    assert_eq!(open(ring_bytes(SLOTS)), Some(RingError::Magic));
}

#[test]
fn a_head_that_jumps_costs_what_was_unread_and_is_counted() {
    let memory = Memory::new(SLOTS);
    let mut reader = Reader::new(memory.ring());
    let mut text = NameBuffer::default();
    let head = &memory.ring().header().head;
    for (value, jumps) in [(u64::from(SLOTS) + 1, 1), (3, 2), (u64::MAX, 3), (0, 3)] {
        head.store(value, Ordering::Release);
        while reader.next(&mut text).is_some() {}
        assert_eq!(reader.faults().jumps, jumps, "after a head of {value}");
    }
    let mut writer = Writer::new(memory.ring());
    assert!(writer.push(&record(7)));
    writer.publish();
    assert_eq!(
        reader.next(&mut text),
        Some(Item::Record(Kind::Kernel, record(7))),
        "and it goes on from there"
    );
}

#[test]
fn a_name_that_says_more_than_there_is_or_can_be_is_counted_and_passed_over() {
    let longest = name::MAX_BYTES as u64;
    for (bytes, slots_behind) in
        [(longest + 1, 100), (u64::from(u32::MAX), 100), (65, 1), (longest, 63), (1, 0)]
    {
        let memory = Memory::new(SLOTS);
        let mut reader = Reader::new(memory.ring());
        let mut writer = Writer::new(memory.ring());
        let mut text = NameBuffer::default();
        let mut lie = Record::of(Kind::Name, 0, 0);
        lie.0[name::NUMBER_BYTES] = 7 | (bytes << 32);
        assert!(writer.push(&lie));
        for value in 0..slots_behind {
            assert!(writer.push(&record(value)));
        }
        writer.publish();
        for value in 0..slots_behind {
            let next = reader.next(&mut text);
            assert_eq!(next, Some(Item::Record(Kind::Kernel, record(value))), "{bytes} bytes");
        }
        assert_eq!(reader.next(&mut text), None);
        assert_eq!(reader.faults().names, 1);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Name(u32, Vec<u8>),
    Publish,
    Read(u8),
    Scribble(usize, u64),
    Head(u64),
}

fn steps(hostile: bool) -> impl Strategy<Value = Vec<Step>> {
    let weight = u32::from(hostile);
    let words = ring_bytes(SLOTS) / 8;
    // Small values are the likely kinds and lengths; near misses find more than noise does.
    let value = prop_oneof![any::<u64>(), 0..16_u64, (0..5_u64, 0..5000_u64).prop_map(|(a, b)| a | b << 32)];
    vec(
        prop_oneof![
            8 => any::<u64>().prop_map(Step::Push),
            2 => (any::<u32>(), vec(any::<u8>(), 0..300)).prop_map(|(number, text)| Step::Name(number, text)),
            2 => Just(Step::Publish),
            6 => any::<u8>().prop_map(Step::Read),
            weight * 6 => (0..words, value).prop_map(|(word, value)| Step::Scribble(word, value)),
            weight => prop_oneof![any::<u64>(), 0..1000_u64].prop_map(Step::Head),
        ],
        0..200,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..Default::default() })]

    /// Against a queue: what was taken comes out, once, in order.
    #[test]
    fn nothing_is_lost_that_was_taken(steps in steps(false)) {
        let memory = Memory::new(SLOTS);
        let mut reader = Reader::new(memory.ring());
        let mut writer = Writer::new(memory.ring());
        let mut text = NameBuffer::default();
        let mut model = std::collections::VecDeque::new();
        let mut check = |reader: &mut Reader<'_>, model: &mut std::collections::VecDeque<(u64, Vec<u8>)>| {
            let Some(item) = reader.next(&mut text) else { return false };
            let (value, bytes) = model.pop_front().expect("nothing comes out that did not go in");
            match item {
                Item::Record(kind, found) => assert_eq!((kind, found), (Kind::Kernel, record(value))),
                Item::Name { number, text } => assert_eq!((u64::from(number), text), (value, bytes.as_slice())),
            }
            true
        };
        for step in steps {
            match step {
                Step::Push(value) => if writer.push(&record(value)) { model.push_back((value, Vec::new())) },
                Step::Name(number, text) => if writer.push_name(number, &text) { model.push_back((number.into(), text)) },
                Step::Publish => writer.publish(),
                Step::Read(count) => {
                    for _ in 0..count { if !check(&mut reader, &mut model) { break } }
                    reader.release();
                }
                Step::Scribble(..) | Step::Head(_) => unreachable!(),
            }
        }
        writer.publish();
        while check(&mut reader, &mut model) {}
        prop_assert!(model.is_empty());
        prop_assert_eq!(reader.faults(), Default::default());
    }

    /// A job that writes anything anywhere gets nonsense to the reader, no more.
    #[test]
    fn a_hostile_job_cannot_make_the_reader_panic_or_run_on(steps in steps(true)) {
        let memory = Memory::new(SLOTS);
        let (mut reader, mut writer) = (Reader::new(memory.ring()), Writer::new(memory.ring()));
        let mut text = NameBuffer::default();
        for step in steps {
            match step {
                Step::Push(value) => { writer.push(&record(value)); }
                Step::Name(number, text) => { writer.push_name(number, &text); }
                Step::Publish => writer.publish(),
                Step::Read(_) => {
                    // A head that stands still bounds what can be read.
                    let mut items = 0;
                    while reader.next(&mut text).is_some() { items += 1; }
                    prop_assert!(items <= SLOTS);
                    reader.release();
                }
                Step::Scribble(word, value) => memory.scribble(word, value),
                Step::Head(value) => memory.ring_header_head(value),
            }
        }
    }
}

impl Memory {
    fn ring_header_head(&self, value: u64) {
        // Not by `ring()`: the magic may be scribbled over by now.
        self.scribble(std::mem::offset_of!(stallscope_cupti_wire::Header, head) / 8, value);
    }
}

#[test]
fn a_job_that_scribbles_while_the_reader_reads_cannot_stop_it() {
    const ROUNDS: u64 = if cfg!(miri) { 2_000 } else { 1_000_000 };
    let memory = Memory::new(SLOTS);
    let mut reader = Reader::new(memory.ring());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 1_u64;
            for round in 0..ROUNDS {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let word = (state >> 33) as usize;
                memory
                    .scribble(word, if state.is_multiple_of(3) { state } else { (state % 16) | (200 << 32) });
                memory.ring_header_head(round * 3);
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut text = NameBuffer::default();
        let mut items = 0;
        while !done.load(Ordering::Relaxed) {
            items += u64::from(reader.next(&mut text).is_some());
            reader.release();
        }
        assert!(items <= 3 * ROUNDS, "{items} items of {} slots", 3 * ROUNDS);
    });
}

#[test]
fn two_threads_pass_every_record_once() {
    const RECORDS: u64 = if cfg!(miri) { 2_000 } else { 2_000_000 };
    let memory = Memory::new(SLOTS);
    let mut reader = Reader::new(memory.ring());
    let mut writer = Writer::new(memory.ring());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut value = 0;
            while value < RECORDS {
                let taken = match value % 1000 {
                    999 => writer.push_name(value as u32, &[b'n'; 100]),
                    _ => writer.push(&record(value)),
                };
                match taken {
                    true => value += 1,
                    false => {
                        writer.publish();
                        std::thread::yield_now();
                    }
                }
            }
            writer.publish();
        });
        let mut text = NameBuffer::default();
        let mut value = 0;
        while value < RECORDS {
            match reader.next(&mut text) {
                Some(Item::Record(_, found)) => assert_eq!(found, record(value)),
                Some(Item::Name { number, text }) => {
                    assert_eq!((number, text), (value as u32, [b'n'; 100].as_slice()));
                }
                None => {
                    std::thread::yield_now();
                    continue;
                }
            }
            value += 1;
            if value.is_multiple_of(64) {
                reader.release();
            }
        }
    });
    assert_eq!(reader.faults(), Default::default());
}

#[test]
fn the_path_of_a_cupti_is_offered_whole_or_not_at_all() {
    let memory = Memory::new(SLOTS);
    let header = memory.ring().header();
    assert!(header.offered_cupti().iter().all(|&byte| byte == 0));
    header.offer_cupti(b"/a/path/that/is/no/multiple/of/eight/libcupti.so");
    let offered = header.offered_cupti();
    assert!(offered.starts_with(b"/a/path/that/is/no/multiple/of/eight/libcupti.so\0"));
    header.offer_cupti(&[b'x'; CUPTI_PATH_BYTES]);
    assert_eq!(header.offered_cupti(), offered, "it has no room");
    header.offer_cupti(b"/b");
    assert!(header.offered_cupti()[2..].iter().all(|&byte| byte == 0), "nothing of the first is left");
}
