//! Whether a record's times can be true.
//!
//! The kernel half computes lengths by subtraction, from clocks that it read at two moments, perhaps on two CPUs. One that
//! came out below zero is huge here, and the capture's reader would leave out the whole block of rows that it is in. So
//! such a record is malformed, and nothing after this has to ask again.

use stallscope_ebpf::Event;

/// 73 years of CLOCK_MONOTONIC: with the calendar added it is still a time that a capture can hold.
const LATEST_NS: u64 = 1 << 61;

/// Begin and length of what a record is about.
fn stretch(event: &Event) -> (u64, u64) {
    match event {
        Event::Task(r) => (r.time_ns, 0),
        Event::TaskEnd(r) | Event::Exec(r) => (r.time_ns, 0),
        Event::Wait(r) => (r.start_ns, r.duration_ns),
        Event::Preempt(r) => (r.start_ns, r.duration_ns),
        Event::Sample(r) => (r.time_ns, r.period_ns),
        Event::Loss(r) => (r.start_ns, r.duration_ns),
        Event::BlockIo(r) => (r.start_ns, r.duration_ns),
        Event::Call(r) => (r.start_ns, r.duration_ns),
        Event::FileIo(r) => (r.time_ns, 0),
        Event::Connection(r) => (r.time_ns, 0),
        Event::Faults(r) => (r.start_ns, r.duration_ns),
        Event::Launch(r) => (r.time_ns, 0),
        Event::Stack(_) | Event::Object(_) => (0, 0),
    }
}

/// Whether it begins and ends at times that there are.
pub(crate) fn believable(event: &Event) -> bool {
    let (start_ns, duration_ns) = stretch(event);
    start_ns.checked_add(duration_ns).is_some_and(|end_ns| end_ns < LATEST_NS)
}

#[cfg(test)]
mod tests {
    use stallscope_ebpf::Event;
    use stallscope_schemas::wire::{Head, Preempt, record};

    use super::believable;

    fn preempt(start_ns: u64, duration_ns: u64) -> Event {
        Event::Preempt(Preempt {
            head: Head { kind: record::TYPE_PREEMPT, flags: 0, task: 1 },
            start_ns,
            duration_ns,
            run_queue_ns: duration_ns,
            times: 1,
            preemptor: 0,
            kind: 5,
            reserved: 0,
        })
    }

    #[test]
    fn a_length_below_zero_is_not_believed() {
        let hour = 3_600_000_000_000;
        assert!(believable(&preempt(hour, 2018)));
        // Seen: a thread left its CPU just after the clock was read to tell how long it had been off it.
        assert!(!believable(&preempt(hour, 2018u64.wrapping_neg())));
        assert!(!believable(&preempt(2018u64.wrapping_neg(), 0)));
        assert!(!believable(&preempt(1 << 62, 1)));
    }
}
