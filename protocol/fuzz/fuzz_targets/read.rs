//! Any bytes, read as whatever a server or a client could take them for.
//!
//! `cargo fuzz run -s none read` in `protocol/`, with stable Rust; the same function runs over
//! generated and damaged frames in the ordinary tests (`tests/wire/hostile.rs`).
#![no_main]

#[path = "../../tests/wire/anything.rs"]
mod anything;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anything::read(bytes));
