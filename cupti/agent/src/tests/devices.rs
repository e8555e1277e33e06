//! Devices by UUID, asked of the driver.

use stallscope_cupti_wire::{Kind, Record, device};

use super::fake::{Fake, fake};
use super::setup::{KINDS, Setup, kernel};

const GPU: [u8; 16] = [0x11; 16];
const OTHER: [u8; 16] = [0x22; 16];
const INSTANCE: [u8; 16] = [0x33; 16];

/// What is told of the devices of such a driver: names, and the records of devices.
fn told(change: impl FnOnce(&mut Fake)) -> (Setup, Vec<String>, Vec<(Kind, Record)>) {
    let mut setup = Setup::new();
    fake(|fake| {
        fake.devices = vec![(GPU, GPU), (OTHER, INSTANCE)];
        fake.records = vec![kernel(1, 2, 5, c"gemm")];
        change(fake);
    });
    setup.collect(KINDS);
    setup.machine.step();
    setup.flush();
    setup.flush();
    let (names, records) = setup.read();
    (setup, names.into_iter().map(|(_, name)| name).collect(), records)
}

fn uuids(records: &[(Kind, Record)]) -> Vec<(u64, [u64; 2])> {
    let devices = records.iter().filter(|(kind, _)| *kind == Kind::Device);
    devices.map(|(_, r)| (r.0[device::NUMBER_MIG], [r.0[device::UUID], r.0[device::UUID + 1]])).collect()
}

fn words(uuid: [u8; 16]) -> [u64; 2] {
    [u64::from_le_bytes([uuid[0]; 8]), u64::from_le_bytes([uuid[8]; 8])]
}

#[test]
fn devices_are_told_by_the_drivers_number_and_before_the_first_operation() {
    let (_setup, names, records) = told(|_| ());
    assert_eq!(
        uuids(&records),
        [(0, words(GPU)), (1 | 1 << 32, words(INSTANCE))],
        "the second is a part of one"
    );
    assert!(
        names.contains(&"Device 100".to_owned()) && names.contains(&"Device 101".to_owned()),
        "{names:?}"
    );
    let place = |wanted: Kind| records.iter().position(|(kind, _)| *kind == wanted).expect("there is one");
    assert!(place(Kind::Device) < place(Kind::Kernel));
}

#[test]
fn an_old_driver_knows_the_whole_device_only() {
    let (_setup, _, records) = told(|fake| fake.has_uuid_v2 = false);
    assert_eq!(uuids(&records), [(0, words(GPU)), (1, words(OTHER))]);
}

#[test]
fn a_driver_that_is_not_initialised_is_asked_again_and_one_that_refuses_is_not() {
    let (mut setup, _, records) = told(|fake| fake.driver_result = 3);
    assert_eq!(uuids(&records), []);
    fake(|fake| fake.driver_result = 0);
    setup.flush();
    assert_eq!(uuids(&setup.read().1).len(), 2);
    setup.flush();
    assert_eq!(uuids(&setup.read().1), [], "once");
    drop(setup);

    let (mut setup, _, records) = told(|fake| fake.driver_result = 101);
    assert_eq!(uuids(&records), []);
    fake(|fake| fake.driver_result = 0);
    setup.flush();
    assert_eq!(uuids(&setup.read().1), []);
}
