//! Whatever does not arrive is counted.

use std::sync::atomic::Ordering::Relaxed;

use stallscope_cupti_abi::{ActivityKind, code};
use stallscope_cupti_wire::{
    Item, Kind, Lost, MIN_SLOTS, NameBuffer, Reader, Record, Ring, halves, loss, op, range, ring_bytes,
};

use super::fake::{deliver, fake};
use super::setup::{KINDS, SLOTS, Setup, address, call, kernel, raw};
use crate::callbacks::POOL;
use crate::output::Output;
use crate::sys;

#[test]
fn a_ring_without_room_loses_records_and_says_when_and_how_many() {
    let mut setup = Setup::attached();
    setup.read();
    let kernels = 2 * u64::from(SLOTS);
    fake(|fake| fake.records = (0..kernels).map(|index| kernel(1, 2, index as u32, c"k")).collect());
    setup.flush();
    let lost = setup.lost(Lost::RingFull);
    let found = setup.read_kind(Kind::Kernel);
    assert!(lost > 0);
    // The clock's records are lost as well.
    let others = lost + found.len() as u64 - kernels;
    assert!(others < 100, "{others}");
    for (index, record) in found.iter().enumerate() {
        assert_eq!(record.correlation(), index as u32, "what came is what was first");
    }
    setup.flush();
    let losses = setup.read_kind(Kind::Loss);
    assert_eq!(losses.len(), 1);
    assert_eq!((losses[0].0[loss::COUNT], losses[0].0[loss::WHAT]), (lost, Lost::RingFull.id().into()));
    assert!(losses[0].0[loss::SINCE] <= losses[0].0[loss::UNTIL]);
    fake(|fake| fake.records = vec![kernel(1, 2, 5, c"k")]);
    setup.flush();
    assert_eq!(setup.read_kind(Kind::Kernel).len(), 1, "and then it goes on");
}

#[test]
fn a_stretch_of_losses_does_not_end_before_it_begins() {
    let bytes = ring_bytes(MIN_SLOTS);
    let base = sys::map(bytes).unwrap();
    // SAFETY: just mapped, never given back, reached by rings only.
    let ring = unsafe { Ring::create(base, bytes, MIN_SLOTS) }.unwrap();
    let (mut output, mut reader) = (Output::new(ring), Reader::new(ring));
    let mut text = NameBuffer::default();
    output.publish(1000);
    for _ in 0..=MIN_SLOTS {
        output.record(&Record::of(Kind::Kernel, 0, 0));
    }
    // Moments are read in one place and handed on in another: they need not come in order.
    output.publish(900);
    while reader.next(&mut text).is_some() {}
    reader.release();
    output.publish(800);
    let Some(Item::Record(Kind::Loss, record)) = reader.next(&mut text) else { panic!("one was lost") };
    assert_eq!((record.0[loss::SINCE], record.0[loss::UNTIL], record.0[loss::COUNT]), (1000, 1000, 1));
}

#[test]
fn a_name_that_did_not_fit_is_sent_again_with_the_next_kernel() {
    let mut setup = Setup::attached();
    setup.read();
    fake(|fake| {
        fake.records = (0..u64::from(SLOTS)).map(|_| kernel(1, 2, 0, c"k")).collect();
        fake.records.push(kernel(1, 2, 0, c"late"));
    });
    setup.flush();
    assert_eq!(setup.lost(Lost::NameLost), 1);
    assert_eq!(setup.read().0, [(1, "k".to_owned())]);
    fake(|fake| fake.records = vec![kernel(1, 2, 0, c"late")]);
    setup.flush();
    let (names, records) = setup.read();
    assert_eq!(names, [(2, "late".to_owned())]);
    let kernel = records.iter().find(|(kind, _)| *kind == Kind::Kernel).unwrap();
    assert_eq!(halves(kernel.1.0[op::STREAM_NAME])[1], 2);
}

#[test]
fn buffers_that_run_out_are_counted_and_come_back() {
    let mut setup = Setup::attached();
    let (requested, completed) = fake(|fake| fake.callbacks).unwrap();
    let records: Vec<_> = (0..20 * 1200).map(|_| kernel(1, 2, 0, c"k")).collect();
    deliver(&records, requested, completed);
    setup.flush();
    let declined = setup.lost(Lost::NoBuffer);
    assert_eq!(declined, 1);
    let dropped = setup.lost(Lost::CuptiDropped);
    let arrived = setup.lost(Lost::RingFull) + setup.read_kind(Kind::Kernel).len() as u64;
    assert!(dropped > 0 && (arrived + dropped).abs_diff(records.len() as u64) < 100);
    assert_eq!((POOL.out_count(), POOL.free_count()), (0, 32), "and there are more of them from now on");
}

#[test]
fn operations_without_an_end_are_kept_and_those_that_end_before_they_start_are_not() {
    let mut setup = Setup::attached();
    fake(|fake| {
        fake.records = vec![kernel(100, 0, 1, c"k"), kernel(100, 99, 2, c"k"), kernel(0, 0, 3, c"k")]
    });
    setup.flush();
    let found = setup.read_kind(Kind::Kernel);
    assert_eq!(found.iter().map(|record| record.correlation()).collect::<Vec<_>>(), [1, 3]);
    assert_eq!((setup.lost(Lost::Unfinished), setup.lost(Lost::Malformed)), (2, 1));
}

#[test]
fn what_runs_at_the_end_is_taken_without_an_end() {
    let mut setup = Setup::attached();
    setup.read();
    let (requested, _) = fake(|fake| fake.callbacks).unwrap();
    let (mut buffer, mut size, mut most) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: the agent's callback: CUPTI holds a buffer with something unfinished in it.
    unsafe { requested(&raw mut buffer, &raw mut size, &raw mut most) };
    fake(|fake| fake.unfinished = vec![kernel(900, 0, 11, c"hung")]);
    setup.command(stallscope_cupti_wire::Command::Rest);
    setup.machine.step();
    let forced = fake(|fake| fake.flushes.iter().filter(|flags| **flags == 1).count());
    assert_eq!(forced, 1, "at the end only");
    let found = setup.read_kind(Kind::Kernel);
    assert_eq!((found.len(), found[0].correlation(), found[0].0[op::END]), (1, 11, 0));
}

#[test]
fn a_record_that_is_cut_short_ends_its_buffer_and_is_counted() {
    let mut setup = Setup::attached();
    setup.read();
    fake(|fake| fake.records = vec![kernel(1, 2, 1, c"k"), kernel(1, 2, 2, c"k")[..100].to_vec()]);
    setup.flush();
    assert_eq!(setup.read_kind(Kind::Kernel).len(), 1);
    assert_eq!(setup.lost(Lost::Malformed), 1);
}

#[test]
fn a_cupti_that_returns_one_record_for_ever_is_not_followed() {
    let mut setup = Setup::attached();
    setup.read();
    fake(|fake| {
        fake.repeats_records = true;
        fake.records = vec![kernel(1, 2, 1, c"k"), kernel(1, 2, 2, c"k")];
    });
    setup.flush();
    assert_eq!((setup.read_kind(Kind::Kernel).len(), setup.lost(Lost::Malformed)), (1, 1));
}

#[test]
fn a_failing_flush_ends_the_session_with_its_code() {
    let mut setup = Setup::attached();
    fake(|fake| fake.flush_result = 999);
    setup.flush();
    assert_eq!(setup.state(), (stallscope_cupti_wire::State::Refused, stallscope_cupti_wire::Reason::Cupti));
    assert_eq!(setup.header.detail.load(Relaxed), 999);
    assert!(fake(|fake| fake.enabled.is_empty()));
    fake(|fake| fake.flush_result = code::SUCCESS);
}

#[test]
fn without_a_filter_in_cupti_calls_are_filtered_here() {
    let mut setup = Setup::new();
    fake(|fake| fake.has_call_filters = false);
    setup.collect(KINDS | ActivityKind::Runtime.bit());
    setup.machine.step();
    assert!(fake(|fake| fake.enabled.contains(&4) && fake.enabled.contains(&5)));
    let of_runtime = |callback, correlation| {
        let mut record = call(callback, correlation);
        record[..4].copy_from_slice(&ActivityKind::Runtime.id().to_ne_bytes());
        record
    };
    fake(|fake| {
        fake.records = vec![call(120, 1), call(307, 2), call(125, 3), call(126, 4)];
        // cudaGetDevice and cudaLaunchKernel.
        fake.records.extend([of_runtime(17, 5), of_runtime(211, 6)]);
    });
    setup.flush();
    let found: Vec<_> = setup.read_kind(Kind::Api).iter().map(|record| record.correlation()).collect();
    assert_eq!(found, [2, 4, 6], "queries are not wanted");
}

#[test]
fn ranges_of_the_user_are_put_together_and_halves_counted() {
    let mut setup = Setup::new();
    setup.collect(KINDS | ActivityKind::Marker.bit());
    setup.machine.step();
    let mark = |flags: u32, id: u32, at: u64, name: Option<&'static std::ffi::CStr>| {
        let name = name.map_or(0, address);
        let fields: [(usize, &[u8]); 6] = [
            (4, &flags.to_ne_bytes()),
            (8, &at.to_ne_bytes()),
            (16, &id.to_ne_bytes()),
            (20, &2_u32.to_ne_bytes()),
            (28, &99_u32.to_ne_bytes()),
            (40, &name.to_ne_bytes()),
        ];
        raw(ActivityKind::Marker, &fields)
    };
    fake(|fake| {
        fake.records = vec![
            mark(2, 5, 100, Some(c"step")),
            mark(2, 6, 150, Some(c"forward")),
            mark(1, 7, 160, Some(c"here")),
            mark(4, 6, 180, None),
            mark(4, 5, 200, None),
            mark(4, 8, 300, None),
        ];
    });
    setup.flush();
    let (names, records) = setup.read();
    let name = |record: &Record| {
        let number = halves(record.0[range::NAME_DOMAIN])[0];
        names.iter().find(|(found, _)| *found == number).unwrap().1.clone()
    };
    let found: Vec<_> = records
        .iter()
        .filter(|(kind, _)| *kind == Kind::Range)
        .map(|(_, record)| {
            (name(record), record.0[range::START], record.0[range::END], record.0[range::THREAD])
        })
        .collect();
    let expected = [("here", 160, 160, 99), ("forward", 150, 180, 99), ("step", 100, 200, 99)];
    assert_eq!(found, expected.map(|(name, start, end, thread)| (name.to_owned(), start, end, thread)));
    assert_eq!(setup.lost(Lost::RangeLost), 1);
}
