#![no_main]
//! Run with `fuzz/run exposition`.
#[path = "../exposition_properties.rs"]
mod exposition_properties;

libfuzzer_sys::fuzz_target!(|body: &[u8]| exposition_properties::check(body));
