#![no_main]
//! See `stallscope_tests::fuzzing::kineto`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| stallscope_tests::fuzzing::kineto(data));
