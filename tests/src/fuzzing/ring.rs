//! The ring of an agent, whose memory the job can write as it likes.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use stallscope_agents::{Decoder, Event};
use stallscope_cupti_wire::{
    HEADER_BYTES, Kind, MIN_SLOTS, NameBuffer, Reader, Record, Ring, SLOT_BYTES, name, ring_bytes,
};

const SLOT_WORDS: usize = SLOT_BYTES / 8;
const HEADER_PAGES: usize = 1;
const PAGE_WORDS: usize = HEADER_BYTES / 8;
const PAGES: usize = HEADER_PAGES + MIN_SLOTS as usize * SLOT_BYTES / HEADER_BYTES;

/// What a mapping would give.
#[repr(C, align(4096))]
struct Memory([[AtomicU64; PAGE_WORDS]; PAGES]);

impl Memory {
    fn new() -> Box<Self> {
        Box::new(Self([const { [const { AtomicU64::new(0) }; PAGE_WORDS] }; PAGES]))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.0[at / PAGE_WORDS % PAGES][at % PAGE_WORDS]
    }

    fn ring(&self) -> Ring<'_> {
        let bytes = PAGES * HEADER_BYTES;
        assert!(bytes >= ring_bytes(MIN_SLOTS));
        // SAFETY: the memory is zeroed, page-aligned and so long, lives as long as the ring, and is all atomics.
        unsafe { Ring::create(NonNull::from(self).cast(), bytes, MIN_SLOTS) }.expect("a ring")
    }
}

/// Reads the input as what a job does to a ring, a byte each time: below 0xc0 it writes a slot (64 bytes follow) and
/// makes it known; below 0xe0 it writes a word anywhere (two bytes say where, eight what); else we read what there is.
pub(super) fn read(mut data: &[u8]) {
    let memory = Memory::new();
    let ring = memory.ring();
    let mut reader = Reader::from_start(ring);
    let mut decoder = Decoder::new(|name| name.into());
    let mut text = NameBuffer::default();
    let (mut items, mut events) = (0, 0);
    let mut drain = |reader: &mut Reader<'_>, decoder: &mut Decoder| {
        let mut read = 0;
        while let Some(item) = reader.next(&mut text) {
            decoder.item(item, &mut |event| {
                look(&event);
                events += 1;
            });
            read += 1;
            assert!(read <= MIN_SLOTS, "a look takes no more than a ring");
        }
        reader.release();
        items += read;
    };
    while let Some((&command, rest)) = data.split_first() {
        data = rest;
        if command < 0xc0 {
            let Some((slot, rest)) = data.split_first_chunk::<SLOT_BYTES>() else { break };
            data = rest;
            let head = ring.header().head.load(Ordering::Relaxed);
            let at = usize::try_from(head % u64::from(MIN_SLOTS)).unwrap_or(0);
            for (word, bytes) in slot.as_chunks::<8>().0.iter().enumerate() {
                let place = memory.word(PAGE_WORDS * HEADER_PAGES + at * SLOT_WORDS + word);
                place.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            }
            ring.header().head.store(head.wrapping_add(1), Ordering::Release);
        } else if command < 0xe0 {
            let Some((place, rest)) = data.split_first_chunk::<2>() else { break };
            let Some((value, rest)) = rest.split_first_chunk::<8>() else { break };
            data = rest;
            let place = usize::from(u16::from_le_bytes(*place));
            memory.word(place).store(u64::from_le_bytes(*value), Ordering::Relaxed);
        } else {
            drain(&mut reader, &mut decoder);
        }
    }
    drain(&mut reader, &mut decoder);
    decoder.finish(&mut |event| {
        look(&event);
        events += 1;
    });
    assert!(events <= items, "an item is told once at most");
}

/// What holds of every event, whatever the bytes are.
fn look(event: &Event) {
    // Bytes that are not UTF-8 become three; a range has its domain before its name.
    const LONGEST: usize = 2 * 3 * name::MAX_BYTES + 1;
    match event {
        Event::Op(op) => assert!(op.end.is_none_or(|end| end >= op.start), "{op:?}"),
        Event::Call { name, start, end, .. } | Event::Range { name, start, end, .. } => {
            assert!(end >= start && name.len() <= LONGEST);
        }
        Event::StreamWait { start, end, .. } | Event::Loss { start, end, .. } => assert!(end >= start),
        Event::Device(device) => assert!(device.uuid.len() == 40 && device.model.len() <= LONGEST),
    }
}

/// A slot of each kind, a name before them and a reading of the clock on both sides.
pub(super) fn sample() -> Vec<u8> {
    let mut input = Vec::new();
    let mut slot = |record: Record| {
        input.push(0);
        record.0.iter().for_each(|word| input.extend_from_slice(&word.to_le_bytes()));
    };
    let clock = |at: u64| {
        let mut record = Record::of(Kind::Clock, 0, 0);
        record.0[1..4].copy_from_slice(&[at, at + 1_000_050, at + 100]);
        record
    };
    slot(clock(1_000));
    let mut named = Record::of(Kind::Name, 0, 0);
    named.0[name::NUMBER_BYTES] = 6 << 32 | 1;
    slot(named);
    slot(Record([u64::from_le_bytes(*b"kernel\0\0"); SLOT_WORDS]));
    for kind in (0..=u8::MAX).filter_map(Kind::from_id).filter(|kind| *kind != Kind::Name) {
        let mut record = Record::of(kind, 0, 7);
        record.0[1..].copy_from_slice(&[1_002_000, 1_003_000, 1 << 32, 1 << 32 | 5, 3, 2, 1]);
        slot(record);
    }
    slot(clock(9_000_000));
    input.push(0xff);
    input
}
