//! Hostile frames yield an error, never a panic, and cost no memory beyond the frame.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use proptest::{collection::vec, prelude::*};
use protocol::{
    Encoding, Limits,
    frame::{Request, encode_request},
    operation::message::SendMessage,
};
use serde_json::json;

use crate::{
    anything,
    strategies::{patch_bytes, request},
};

/// Counts the bytes that the current thread has allocated.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

#[expect(
    unsafe_code,
    reason = "an allocator can only be observed from within one; it hands everything on to the system's"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the peak of bytes allocated during the work.
fn peak_of<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    drop(work());
    usize::try_from(PEAK.get() - before).unwrap()
}

/// Bytes for the message of an error.
const ERROR_MESSAGE_BYTES: usize = 1024;

fn assert_decoding_allocates_no_more_than_the_frame(frame: &[u8]) {
    assert!(
        peak_of(|| Request::decode(Encoding::MessagePack, frame).map(drop)) <= ERROR_MESSAGE_BYTES
    );
    assert!(
        peak_of(|| Request::decode(Encoding::Json, frame).map(drop))
            <= frame.len() + ERROR_MESSAGE_BYTES
    );
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..256)) {
        assert_decoding_allocates_no_more_than_the_frame(&bytes);
        anything::read(&bytes);
    }

    #[test]
    fn tampered_frames_are_decoded_or_refused(
        (method, params) in request(),
        position in any::<prop::sample::Index>(),
        patch in patch_bytes(),
        length in 0..=16usize,
        cut in any::<prop::sample::Index>(),
        remove in 0..=4usize,
    ) {
        for encoding in Encoding::ALL {
            let mut frame = encode_request(encoding, 7, method, &params);
            let start = position.index(frame.len());
            let end = (start + remove).min(frame.len());
            frame.splice(start..end, patch[..length].iter().copied());
            assert_decoding_allocates_no_more_than_the_frame(&frame);
            anything::read(&frame);
            frame.truncate(cut.index(frame.len().max(1)));
            assert_decoding_allocates_no_more_than_the_frame(&frame);
            anything::read(&frame);
        }
    }
}

/// `{id: 1, method: "message.send", params: …}` with these bytes as the parameters.
fn msgpack_with(params: &[u8]) -> Vec<u8> {
    [
        b"\x83\xa2id\x01\xa6method\xacmessage.send\xa6params",
        params,
    ]
    .concat()
}

fn json_with(params: &str) -> Vec<u8> {
    format!(r#"{{"id":1,"method":"message.send","params":{params}}}"#).into_bytes()
}

#[test]
fn the_corpus_of_garbage_is_refused() {
    let good = encode_request(Encoding::MessagePack, 1, "ping", &json!({}));
    let deep_arrays = [&b"\x81\xa1a"[..], &[0x91; 10_000], b"\xc0"].concat();
    let deep_maps = [b"\x81\xa1a".repeat(10_000), vec![0xc0]].concat();
    let many = [
        vec![],
        vec![0xc1],
        vec![0xc0],
        vec![0x80],
        vec![0x90],
        good[..good.len() - 1].to_vec(),
        [&good[..], b"\x00"].concat(),
        msgpack_with(&deep_arrays),
        msgpack_with(&deep_maps),
        msgpack_with(b"\xdf\xff\xff\xff\xff"),
        msgpack_with(b"\x81\xa1a\xdd\xff\xff\xff\xff"),
        msgpack_with(b"\x81\xa1a\xdb\xff\xff\xff\xff"),
        msgpack_with(b"\x81\xa1a\xc6\xff\xff\xff\xff"),
        msgpack_with(b"\x81\xa1a\xc7\x01\x00\x00"),
        msgpack_with(b"\x93\x01\x02\x03"),
        msgpack_with(b"\xa3abc"),
        b"\x82\xa2id\xc3\xa6method\xa4ping".to_vec(),
        b"\x82\xa2id\xff\xa6method\xa4ping".to_vec(),
        b"\x82\xa2id\x00\xa6method\xa4ping".to_vec(),
        b"\x82\xa2id\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa6method\xa4ping".to_vec(),
        b"\x82\xa2id\x01\xa6method\xc4\x04ping".to_vec(),
        b"\x82\xa2id\x01\xa6method\xa4pi\xff\xfe".to_vec(),
        b"\x82\x01\x01\xa6method\xa4ping".to_vec(),
        b"\x81\xa2id\x01".to_vec(),
        b"\x81\xa6method\xa4ping".to_vec(),
        br#"{"id":1,"method":"ping"}"#.to_vec(),
    ];
    for frame in &many {
        assert_decoding_allocates_no_more_than_the_frame(frame);
        assert!(
            Request::decode(Encoding::MessagePack, frame).is_err(),
            "{frame:02x?}"
        );
    }
    let nested = |open: &str, close: &str| {
        json_with(&format!(
            r#"{{"a":{}0{}}}"#,
            open.repeat(10_000),
            close.repeat(10_000)
        ))
    };
    let many = [
        vec![],
        b"null".to_vec(),
        b"{".to_vec(),
        br#"{"id":1,"method":"ping"}x"#.to_vec(),
        br#"{"id":1.5,"method":"ping"}"#.to_vec(),
        br#"{"id":"1","method":"ping"}"#.to_vec(),
        br#"{"id":-1,"method":"ping"}"#.to_vec(),
        br#"{"id":1,"id":2,"method":"ping"}"#.to_vec(),
        br#"{"id":1,"method":7}"#.to_vec(),
        b"{\"id\":1,\"method\":\"pi\xff\xfe\"}".to_vec(),
        json_with("[]"),
        json_with("\"\""),
        nested("[", "]"),
        nested(r#"{"a":"#, "}"),
        good.clone(),
    ];
    for frame in &many {
        assert_decoding_allocates_no_more_than_the_frame(frame);
        assert!(
            Request::decode(Encoding::Json, frame).is_err(),
            "{}",
            String::from_utf8_lossy(frame)
        );
    }
}

/// Decoded parameters are larger than the frame: bounds the ratio for the densest frames.
#[test]
fn parameters_cost_a_bounded_multiple_of_the_frame() {
    let bytes = Limits::default().frame_bytes as usize;
    let items = u16::try_from(bytes - 200).unwrap().to_be_bytes();
    for (field, item, key) in [
        ("metadata", 0xc0, true),
        ("mention_ids", 0xa0, false),
        ("attachments", 0x80, false),
    ] {
        let mut params = vec![0x81, 0xa0 | field.len() as u8];
        params.extend_from_slice(field.as_bytes());
        if key {
            params.extend_from_slice(b"\x81\xa1a");
        }
        params.push(0xdc);
        params.extend_from_slice(&items);
        params.extend(std::iter::repeat_n(item, bytes - 200));
        let frame = msgpack_with(&params);
        let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
        let peak = peak_of(|| request.params::<SendMessage>());
        assert!(peak < 64 * bytes, "{field}: {peak}");
    }
}
