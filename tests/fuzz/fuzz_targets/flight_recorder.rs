#![no_main]
//! See `stallscope_tests::fuzzing::flight_recorder`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| stallscope_tests::fuzzing::flight_recorder(data));
