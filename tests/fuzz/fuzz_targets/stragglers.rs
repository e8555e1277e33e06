#![no_main]
//! See `stallscope_tests::fuzzing::stragglers`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| stallscope_tests::fuzzing::stragglers(data));
