//! Encodes WebSocket frames of a server: unmasked, unfragmented, with a header of two to ten bytes
//! (RFC 6455, 5.2).

use bytes::{BufMut, Bytes, BytesMut};
use protocol::{CloseCode, Encoding};

/// The first byte of a close frame.
pub const CLOSE: u8 = 0x88;

/// Returns a message as a binary or text frame, by its encoding.
pub fn message(encoding: Encoding, payload: &[u8]) -> Bytes {
    let opcode = match encoding {
        Encoding::MessagePack => 0x82,
        Encoding::Json => 0x81,
    };
    frame(opcode, payload)
}

/// Returns a ping without payload.
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// Returns a close frame, with a retry hint in its reason if there is one.
pub fn close(code: CloseCode, retry_after_ms: Option<u64>) -> Bytes {
    close_because(code, code.reason(), retry_after_ms)
}

/// Maximum length of a close frame's reason (RFC 6455, 5.5).
const MAX_REASON_BYTES: usize = 123;

/// Returns a close frame with this reason in place of the code's own. A reason that is too long is
/// truncated.
pub fn close_because(code: CloseCode, reason: &str, retry_after_ms: Option<u64>) -> Bytes {
    let hint = retry_after_ms
        .map(|milliseconds| format!(" retry_after_ms={milliseconds}"))
        .unwrap_or_default();
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES - hint.len())];
    let mut payload = BytesMut::with_capacity(2 + reason.len() + hint.len());
    payload.put_u16(code.code());
    payload.put_slice(reason.as_bytes());
    payload.put_slice(hint.as_bytes());
    frame(CLOSE, &payload)
}

fn frame(first: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + payload.len());
    out.put_u8(first);
    match payload.len() {
        short @ 0..=125 => out.put_u8(short as u8),
        medium @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(medium as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(payload);
    out.freeze()
}
