//! Where records go: the ring, or a count of what was lost.

use core::sync::atomic::Ordering;

use stallscope_cupti_wire::{Kind, Lost, Record, Ring, Writer, loss};

/// A stretch in which records were lost.
#[derive(Clone, Copy, Debug)]
struct Gap {
    since_ns: u64,
    count: u64,
    /// Among it are records that another profiler has: what is told of such a stretch says more than that there was no room.
    is_taken: bool,
}

impl Gap {
    const fn since(since_ns: u64) -> Self {
        Self { since_ns, count: 0, is_taken: false }
    }
}

/// The ring's writing end, with the losses.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    ring: Ring<'a>,
    writer: Writer<'a>,
    /// Records that did not fit, not reported yet.
    gap: Option<Gap>,
    /// CLOCK_MONOTONIC, about; never goes back.
    now_ns: u64,
}

impl<'a> Output<'a> {
    pub(crate) fn new(ring: Ring<'a>) -> Self {
        Self { ring, writer: Writer::new(ring), gap: None, now_ns: 0 }
    }

    /// Puts a record into the ring, or counts it.
    pub(crate) fn record(&mut self, record: &Record) {
        if self.gap.is_some() {
            self.report_gap();
        }
        if !self.writer.push(record) {
            self.count(Lost::RingFull, 1);
            let since_ns = self.now_ns;
            self.gap.get_or_insert(Gap::since(since_ns)).count += 1;
        }
    }

    /// Puts a name into the ring; false, and counted, where it does not fit.
    pub(crate) fn name(&mut self, number: u32, text: &[u8]) -> bool {
        let written = self.writer.push_name(number, text);
        if !written {
            self.count(Lost::NameLost, 1);
        }
        written
    }

    /// Counts what was lost somewhere else, and says between which moments.
    pub(crate) fn lose(&mut self, what: Lost, count: u64, since_ns: u64) {
        if count > 0 {
            self.count(what, count);
            if !self.writer.push(&stretch(what, since_ns, self.now_ns, count)) {
                self.open_gap(what, since_ns);
            }
        }
    }

    /// What does not fit is told with the next one that does, as a ring without room.
    fn open_gap(&mut self, what: Lost, since_ns: u64) {
        let gap = self.gap.get_or_insert(Gap::since(since_ns));
        gap.since_ns = gap.since_ns.min(since_ns);
        gap.is_taken |= what == Lost::Taken;
    }

    /// Whether there is a stretch without records that nobody has been told of.
    pub(crate) const fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Counts what was lost, without a record.
    pub(crate) fn count(&self, what: Lost, count: u64) {
        if let Some(counter) = self.ring.header().lost.get(what.id() as usize) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Tells the output what time it is, and the daemon of everything that was written.
    pub(crate) fn publish(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if self.gap.is_some() {
            self.report_gap();
        }
        self.writer.publish();
    }

    fn report_gap(&mut self) {
        let Some(Gap { since_ns, count, is_taken }) = self.gap else { return };
        let what = if is_taken { Lost::Taken } else { Lost::RingFull };
        if self.writer.push(&stretch(what, since_ns, self.now_ns, count)) {
            self.gap = None;
        }
    }
}

fn stretch(what: Lost, since_ns: u64, until_ns: u64, count: u64) -> Record {
    let mut record = Record::of(Kind::Loss, 0, 0);
    record.0[loss::SINCE] = since_ns;
    record.0[loss::UNTIL] = until_ns;
    record.0[loss::COUNT] = count;
    record.0[loss::WHAT] = what.id().into();
    record
}
