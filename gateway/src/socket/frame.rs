//! WebSocket frames as a server writes them: unmasked, whole, two to ten bytes before the payload
//! (RFC 6455, 5.2).

use bytes::{BufMut, Bytes, BytesMut};
use protocol::{CloseCode, Encoding};

/// The first byte of a close frame.
pub const CLOSE: u8 = 0x88;

/// A message in an encoding's kind of frame: binary or text.
pub fn message(encoding: Encoding, payload: &[u8]) -> Bytes {
    let opcode = match encoding {
        Encoding::MessagePack => 0x82,
        Encoding::Json => 0x81,
    };
    frame(opcode, payload)
}

/// A ping without payload.
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// A close with a code of ours; the reason may say when to come back.
pub fn close(code: CloseCode, retry_after_ms: Option<u64>) -> Bytes {
    close_because(code, code.reason(), retry_after_ms)
}

/// The most bytes of a close frame's reason (RFC 6455, 5.5).
const MAX_REASON: usize = 123;

/// A close for which the code's own reason says too little. What is too long for a close frame is
/// cut.
pub fn close_because(code: CloseCode, reason: &str, retry_after_ms: Option<u64>) -> Bytes {
    let hint = retry_after_ms
        .map(|milliseconds| format!(" retry_after_ms={milliseconds}"))
        .unwrap_or_default();
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON - hint.len())];
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
