//! A machine on a ring and the fake CUPTI, with the daemon's side of it; and records as CUPTI writes them.

use std::ffi::CStr;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Duration;

use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_wire::{
    Command, Header, Item, Kind, Lost, NameBuffer, Reader, Reason, Record, Ring, State, ring_bytes,
};

use super::fake::{Process, begin, fake, record_bytes};
use crate::machine::{Machine, Next};
use crate::sys;

/// Names with their numbers.
pub(super) type Names = Vec<(u32, String)>;
/// Records with their kinds.
pub(super) type Records = Vec<(Kind, Record)>;

/// A ring, a machine on it, and the daemon's side.
pub(super) struct Setup {
    pub(super) machine: Machine<'static, Process>,
    pub(super) reader: Reader<'static>,
    pub(super) header: &'static Header,
    text: NameBuffer,
    _alone: MutexGuard<'static, ()>,
}

pub(super) const SLOTS: u32 = 4096;

/// The kinds that level 3 asks for.
pub(super) const KINDS: u64 = ActivityKind::Kernel.bit()
    | ActivityKind::Copy.bit()
    | ActivityKind::Fill.bit()
    | ActivityKind::Driver.bit()
    | ActivityKind::Synchronization.bit()
    | ActivityKind::Device.bit();

impl Setup {
    pub(super) fn new() -> Self {
        let alone = begin();
        let bytes = ring_bytes(SLOTS);
        let base = sys::map(bytes).unwrap();
        // SAFETY: just mapped, never given back, reached by rings only.
        let ring = unsafe { Ring::create(base, bytes, SLOTS) }.unwrap();
        let machine = Machine::new(ring, Process);
        Self {
            machine,
            reader: Reader::new(ring),
            header: ring.header(),
            text: NameBuffer::default(),
            _alone: alone,
        }
    }

    pub(super) fn attached() -> Self {
        let mut setup = Self::new();
        setup.collect(KINDS);
        setup.machine.step();
        assert_eq!(setup.state(), (State::On, Reason::None));
        setup
    }

    pub(super) fn collect(&self, kinds: u64) {
        self.header.kinds.store(kinds, Relaxed);
        self.header.flush_interval_ns.store(5_000_000, Relaxed);
        self.command(Command::Collect);
    }

    pub(super) fn command(&self, command: Command) {
        self.header.command.store(command.id(), Relaxed);
        self.header.heartbeat.fetch_add(1, Relaxed);
        self.header.control.fetch_add(1, AcqRel);
    }

    /// Waits for the next flush, and steps.
    pub(super) fn flush(&mut self) -> Next {
        std::thread::sleep(Duration::from_millis(6));
        self.machine.step()
    }

    pub(super) fn state(&self) -> (State, Reason) {
        let state = State::from_id(self.header.state.load(Relaxed)).unwrap();
        (state, Reason::from_id(self.header.reason.load(Relaxed)).unwrap())
    }

    pub(super) fn lost(&self, what: Lost) -> u64 {
        self.header.lost[what.id() as usize].load(Relaxed)
    }

    /// Everything that is in the ring, names first.
    pub(super) fn read(&mut self) -> (Names, Records) {
        let (mut names, mut records) = (Vec::new(), Vec::new());
        while let Some(item) = self.reader.next(&mut self.text) {
            match item {
                Item::Name { number, text } => {
                    names.push((number, String::from_utf8(text.to_vec()).unwrap()))
                }
                Item::Record(kind, record) => records.push((kind, record)),
            }
        }
        self.reader.release();
        assert_eq!(self.reader.faults(), Default::default());
        (names, records)
    }

    /// The records of a kind.
    pub(super) fn read_kind(&mut self, kind: Kind) -> Vec<Record> {
        self.read().1.into_iter().filter(|(found, _)| *found == kind).map(|(_, record)| record).collect()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.command(Command::Leave);
        if !std::thread::panicking() {
            fake(|fake| fake.makes_calls = true);
            assert_eq!(self.machine.step(), Next::Leave);
        }
    }
}

/// A record of a kind with these fields, by offset.
pub(super) fn raw(kind: ActivityKind, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut record = vec![0; record_bytes(kind.id())];
    record[..4].copy_from_slice(&kind.id().to_ne_bytes());
    for (offset, bytes) in fields {
        record[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    record
}

/// A kernel.
pub(super) fn kernel(start: u64, end: u64, correlation: u32, name: &'static CStr) -> Vec<u8> {
    raw(
        ActivityKind::Kernel,
        &[
            (16, &start.to_ne_bytes()),
            (24, &end.to_ne_bytes()),
            (40, &1_u32.to_ne_bytes()),
            (44, &2_u32.to_ne_bytes()),
            (48, &3_u32.to_ne_bytes()),
            (92, &correlation.to_ne_bytes()),
            (104, &address(name).to_ne_bytes()),
        ],
    )
}

/// A call of the driver.
pub(super) fn call(callback: u32, correlation: u32) -> Vec<u8> {
    raw(
        ActivityKind::Driver,
        &[
            (4, &callback.to_ne_bytes()),
            (8, &10_u64.to_ne_bytes()),
            (16, &20_u64.to_ne_bytes()),
            (28, &4321_u32.to_ne_bytes()),
            (32, &correlation.to_ne_bytes()),
        ],
    )
}

/// The address of a text, as a record has it.
pub(super) fn address(text: &'static CStr) -> u64 {
    text.as_ptr().expose_provenance() as u64
}
