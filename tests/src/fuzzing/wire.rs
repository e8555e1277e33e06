//! The records of the kernel's rings, which hold what was read from another process's memory.

use stallscope_ebpf::Event;
use stallscope_ebpf::object::describe;
use stallscope_ebpf::probes::collectives::{Decoded, Decoder};
use stallscope_schemas::wire::{MAX_FRAMES, MAX_PATH, record};

/// More bytes or ranks than any call has.
const MOST: u64 = 1 << 48;

/// Reads the input as a ring: records, each with its length (16 bits, little-endian) before it. They are decoded one
/// after the other, as in a recording: calls tell of communicators that later ones are made on.
pub(super) fn read(mut data: &[u8]) {
    let mut decoder = Decoder::default();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        match Event::parse(bytes) {
            Err(malformed) => assert_eq!(malformed.length, length),
            Ok(event) => look(&event, length, &mut decoder),
        }
    }
}

/// What holds of every record, whatever its bytes are.
fn look(event: &Event, length: usize, decoder: &mut Decoder) {
    match event {
        Event::Stack(stack) => {
            assert!(stack.native.len() <= MAX_FRAMES && stack.python.len() <= MAX_FRAMES);
            assert!((stack.native.len() + 2 * stack.python.len()) * 8 <= length, "no frame is made up");
        }
        Event::Object(object) => {
            // Every byte that is not UTF-8 becomes three; a connection has two addresses.
            let text = describe(object).text;
            assert!(text.len() <= 3 * MAX_PATH + 256, "{} bytes", text.len());
        }
        Event::Exec(end) => decoder.forget(end.head.task),
        Event::Call(call) => {
            // The recorder knows the process by the task; a few stand for all.
            let pid = call.head.task % 4;
            decoder.world(pid, call.head.task >> 8 & 7, u64::from(call.head.task >> 16));
            if let Decoded::Call(decoded) = decoder.decode(pid, call) {
                assert!(
                    decoded.bytes <= MOST && decoded.elements <= MOST && decoded.group_size <= MOST,
                    "{decoded:?}"
                );
                let size = decoded.group_size;
                assert!(size == 0 || decoded.rank.is_none_or(|rank| u64::from(rank) < size), "{decoded:?}");
                assert!(decoded.group.len() <= 64 && decoded.name.len() <= 128, "{decoded:?}");
            }
        }
        _ => {}
    }
}

/// A ring with one record of each type, its numbers zero.
pub(super) fn sample() -> Vec<u8> {
    use stallscope_schemas::wire;
    let mut ring = Vec::new();
    let mut push = |kind: u16, size: usize| {
        ring.extend_from_slice(&u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes());
        ring.extend_from_slice(&kind.to_ne_bytes());
        ring.resize(ring.len() + size - 2, 0);
    };
    push(record::TYPE_TASK, size_of::<wire::Task>());
    push(record::TYPE_TASK_END, size_of::<wire::Moment>());
    push(record::TYPE_EXEC, size_of::<wire::Moment>());
    push(record::TYPE_WAIT, size_of::<wire::WaitRecord>());
    push(record::TYPE_PREEMPT, size_of::<wire::Preempt>());
    push(record::TYPE_SAMPLE, size_of::<wire::Sample>());
    push(record::TYPE_STACK, size_of::<wire::Stack>() + MAX_FRAMES * 24);
    push(record::TYPE_OBJECT, size_of::<wire::Object>());
    push(record::TYPE_LOSS, size_of::<wire::Loss>());
    push(record::TYPE_BLOCK_IO, size_of::<wire::BlockIo>());
    push(record::TYPE_CALL, size_of::<wire::Call>());
    push(record::TYPE_FILE_IO, size_of::<wire::FileIo>());
    push(record::TYPE_CONNECTION, size_of::<wire::Connection>());
    push(record::TYPE_FAULTS, size_of::<wire::Faults>());
    ring
}

/// Calls of functions all over the table, on a few communicators, with all of their values known.
pub(super) fn calls() -> Vec<u8> {
    use std::mem::offset_of;

    use stallscope_schemas::wire::{CALL_VALUES, Call, Head};
    let mut ring = Vec::new();
    for row in (0..1400u32).step_by(17) {
        let mut call = vec![0; size_of::<Call>()];
        let mut put = |at: usize, bytes: &[u8]| call[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(Call, head) + offset_of!(Head, kind), &record::TYPE_CALL.to_ne_bytes());
        put(offset_of!(Call, head) + offset_of!(Head, flags), &0xffu16.to_ne_bytes());
        put(offset_of!(Call, function), &row.to_ne_bytes());
        for value in 0..CALL_VALUES {
            let number = (value as u64 + u64::from(row)) % 5;
            put(offset_of!(Call, values) + 8 * value, &number.to_ne_bytes());
        }
        ring.extend_from_slice(&u16::try_from(call.len()).unwrap_or(u16::MAX).to_le_bytes());
        ring.extend_from_slice(&call);
    }
    ring
}
