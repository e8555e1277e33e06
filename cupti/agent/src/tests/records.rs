//! What each kind of record becomes.

use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_wire::{
    Kind, Record, device, halves, launch_flags, memory, op, op_flags, overhead, sync,
};

use super::fake::fake;
use super::setup::{Setup, address, call, raw};

/// The records of a kind, of what CUPTI delivers.
fn converted(kinds: u64, records: Vec<Vec<u8>>, kind: Kind) -> (Setup, Vec<Record>) {
    let mut setup = Setup::new();
    setup.collect(kinds);
    setup.machine.step();
    setup.read();
    fake(|fake| fake.records = records);
    setup.flush();
    let found = setup.read_kind(kind);
    (setup, found)
}

/// Fields that copies, fills and copies between devices have at the same places.
fn operation(kind: ActivityKind, correlation_at: usize, more: &[(usize, &[u8])]) -> Vec<u8> {
    let common: [(usize, &[u8]); 7] = [
        (8, &4096_u64.to_ne_bytes()),
        (16, &100_u64.to_ne_bytes()),
        (24, &200_u64.to_ne_bytes()),
        (32, &1_u32.to_ne_bytes()),
        (36, &2_u32.to_ne_bytes()),
        (40, &3_u32.to_ne_bytes()),
        (correlation_at, &7_u32.to_ne_bytes()),
    ];
    raw(kind, &[&common, more].concat())
}

fn check_operation(record: &Record) {
    assert_eq!((record.0[op::START], record.0[op::END], record.correlation()), (100, 200, 7));
    assert_eq!(halves(record.0[op::DEVICE_CONTEXT]), [1, 2]);
    assert_eq!(halves(record.0[op::STREAM_NAME])[0], 3);
    assert_eq!(record.0[op::NODE_OR_BYTES], 4096);
}

#[test]
fn a_copy_has_its_bytes_its_memories_and_its_graph() {
    let more: [(usize, &[u8]); 4] =
        [(4, &[1, 2, 3, 1]), (64, &50_u64.to_ne_bytes()), (72, &60_u32.to_ne_bytes()), (88, &[0xff; 8])];
    let (_setup, found) =
        converted(ActivityKind::Copy.bit(), vec![operation(ActivityKind::Copy, 44, &more)], Kind::Copy);
    check_operation(&found[0]);
    assert_eq!(found[0].flags(), op_flags::ASYNC);
    let what = halves(found[0].0[op::STREAM_NAME])[1];
    assert_eq!(what & memory::COPY_KIND_MASK, 1);
    assert_eq!((what >> memory::SOURCE_SHIFT & 0xff, what >> memory::DESTINATION_SHIFT & 0xff), (2, 3));
    assert_eq!((found[0].0[op::GRAPH], found[0].0[op::PEERS_OR_NODE]), (60, 50));
}

#[test]
fn a_copy_between_devices_has_both() {
    let more: [(usize, &[u8]); 4] = [
        (4, &[10, 3, 3, 0]),
        (44, &4_u32.to_ne_bytes()),
        (52, &5_u32.to_ne_bytes()),
        (80, &60_u32.to_ne_bytes()),
    ];
    let record = operation(ActivityKind::PeerCopy, 60, &more);
    let (_setup, found) = converted(ActivityKind::PeerCopy.bit(), vec![record], Kind::Copy);
    check_operation(&found[0]);
    assert_eq!(found[0].flags(), op_flags::PEER);
    assert_eq!(halves(found[0].0[op::PEERS_OR_NODE]), [4, 5]);
    assert_eq!(found[0].0[op::GRAPH], 60);
}

#[test]
fn a_fill_has_its_bytes_and_its_memory() {
    let more: [(usize, &[u8]); 2] = [(50, &3_u16.to_ne_bytes()), (64, &50_u64.to_ne_bytes())];
    let record = operation(ActivityKind::Fill, 44, &more);
    let (_setup, found) = converted(ActivityKind::Fill.bit(), vec![record], Kind::Fill);
    check_operation(&found[0]);
    assert_eq!(halves(found[0].0[op::STREAM_NAME])[1] >> memory::DESTINATION_SHIFT, 3);
    assert_eq!(found[0].0[op::PEERS_OR_NODE], 50);
}

#[test]
fn calls_of_the_runtime_are_told_from_those_of_the_driver() {
    let mut runtime = call(211, 7);
    runtime[..4].copy_from_slice(&ActivityKind::Runtime.id().to_ne_bytes());
    let kinds = ActivityKind::Runtime.bit() | ActivityKind::Driver.bit();
    let (_setup, found) = converted(kinds, vec![runtime, call(307, 8)], Kind::Api);
    assert_eq!(found.iter().map(Record::flags).collect::<Vec<_>>(), [launch_flags::RUNTIME, 0]);
}

#[test]
fn a_wait_and_a_graph_and_a_cost_have_their_times() {
    let wait = raw(
        ActivityKind::Synchronization,
        &[
            (4, &3_u32.to_ne_bytes()),
            (8, &100_u64.to_ne_bytes()),
            (16, &200_u64.to_ne_bytes()),
            (24, &7_u32.to_ne_bytes()),
            (28, &2_u32.to_ne_bytes()),
            (32, &u32::MAX.to_ne_bytes()),
        ],
    );
    let (setup, found) = converted(ActivityKind::Synchronization.bit(), vec![wait], Kind::Sync);
    assert_eq!((found[0].0[sync::START], found[0].0[sync::END], found[0].0[sync::TYPE]), (100, 200, 3));
    assert_eq!(halves(found[0].0[sync::CONTEXT_STREAM]), [2, u32::MAX]);
    drop(setup);

    let graph = raw(
        ActivityKind::GraphTrace,
        &[
            (4, &7_u32.to_ne_bytes()),
            (8, &100_u64.to_ne_bytes()),
            (16, &200_u64.to_ne_bytes()),
            (24, &1_u32.to_ne_bytes()),
            (28, &60_u32.to_ne_bytes()),
            (32, &2_u32.to_ne_bytes()),
            (36, &3_u32.to_ne_bytes()),
        ],
    );
    let (setup, found) = converted(ActivityKind::GraphTrace.bit(), vec![graph], Kind::Graph);
    assert_eq!((found[0].0[op::START], found[0].0[op::END], found[0].correlation()), (100, 200, 7));
    assert_eq!((halves(found[0].0[op::DEVICE_CONTEXT]), found[0].0[op::STREAM_NAME]), ([1, 2], 3));
    assert_eq!(found[0].0[op::GRAPH], 60);
    drop(setup);

    let cost = raw(
        ActivityKind::Overhead,
        &[
            (4, &(1_u32 << 16).to_ne_bytes()),
            (8, &2_u32.to_ne_bytes()),
            (16, &99_u32.to_ne_bytes()),
            (24, &100_u64.to_ne_bytes()),
            (32, &200_u64.to_ne_bytes()),
        ],
    );
    let (_setup, found) = converted(ActivityKind::Overhead.bit(), vec![cost], Kind::Overhead);
    assert_eq!((found[0].0[overhead::START], found[0].0[overhead::END]), (100, 200));
    assert_eq!((found[0].0[overhead::THREAD], found[0].0[overhead::KIND]), (99, 1 << 16));
}

#[test]
fn a_device_is_known_by_its_uuid_and_an_instance_of_one_by_its_own() {
    let uuid: [u8; 16] = std::array::from_fn(|byte| byte as u8);
    let of_device = |mig: u8| {
        raw(
            ActivityKind::Device,
            &[
                (16, &80_000_u64.to_ne_bytes()),
                (44, &132_u32.to_ne_bytes()),
                (104, &9_u32.to_ne_bytes()),
                (108, &1_u32.to_ne_bytes()),
                (112, &4_u32.to_ne_bytes()),
                (120, &uuid),
                (136, &address(c"a GPU").to_ne_bytes()),
                (145, &[mig]),
                (160, &[0xee; 16]),
            ],
        )
    };
    let (_setup, found) =
        converted(ActivityKind::Device.bit(), vec![of_device(0), of_device(1)], Kind::Device);
    assert_eq!(halves(found[0].0[device::NUMBER_MIG]), [4, 0]);
    assert_eq!([found[0].0[device::UUID], found[0].0[device::UUID + 1]].map(u64::to_le_bytes).concat(), uuid);
    assert_eq!(halves(found[0].0[device::SHAPE]), [132, 9 << 8 | 1]);
    assert_eq!((found[0].0[device::NAME], found[0].0[device::MEMORY]), (1, 80_000));
    assert_eq!(halves(found[1].0[device::NUMBER_MIG]), [4, 1]);
    assert_eq!(found[1].0[device::UUID].to_le_bytes(), [0xee; 8]);
}
