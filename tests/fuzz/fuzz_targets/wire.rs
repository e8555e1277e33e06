#![no_main]
//! See `stallscope_tests::fuzzing::wire`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| stallscope_tests::fuzzing::wire(data));
