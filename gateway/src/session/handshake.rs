//! Before `connect`: one request, in time, of a bounded size.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use domain::error::{Error, without_value};
use protocol::{
    CloseCode, Encoding, ErrorBody, ErrorCode,
    frame::Request,
    operation::{
        Operation,
        session::{Connect, SessionConnect},
    },
};

/// How long a connection may take until its `connect`.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest frame of a `connect`, in bytes.
pub const MAX_CONNECT_BYTES: usize = 32 * 1024;
/// The most channels of `resume`.
const MAX_RESUME: usize = protocol::bounds::SUBSCRIBED_CHANNELS;

/// A connection that has not said who it is.
#[derive(Debug)]
pub struct Handshake {
    encoding: Encoding,
    deadline: Instant,
}

/// A `connect` that may be tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// The request's id.
    pub id: u32,
    /// What it asks for.
    pub params: Connect,
}

/// Why the first request is none: an error to answer, if it could be understood that far, and the
/// close code.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The request's id with the error.
    pub answer: Option<(u32, ErrorBody)>,
    /// How the connection ends.
    pub close: CloseCode,
    /// The reason in the close frame.
    pub reason: Cow<'static, str>,
}

impl Handshake {
    /// A connection that was upgraded at `now`.
    pub fn new(encoding: Encoding, now: Instant) -> Self {
        Self {
            encoding,
            deadline: now + DEADLINE,
        }
    }

    /// Until when the `connect` must have come; then [`CloseCode::ConnectTimeout`].
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes the first frame, and ends by it.
    pub fn frame(self, frame: &[u8]) -> Result<Opening, Refusal> {
        if frame.len() > MAX_CONNECT_BYTES {
            let close = CloseCode::FrameTooLarge;
            return Err(Refusal {
                answer: None,
                close,
                reason: close.reason().into(),
            });
        }
        let request = Request::decode(self.encoding, frame).map_err(|error| {
            let reason = without_value(&error.to_string()).into_owned();
            Refusal {
                answer: None,
                close: CloseCode::BadFrame,
                reason: reason.into(),
            }
        })?;
        let refuse = |code, message: Cow<'static, str>| Refusal {
            answer: Some((request.id, ErrorBody::new(code, message.clone()))),
            close: CloseCode::BadFrame,
            reason: message,
        };
        if request.method != SessionConnect::NAME {
            return Err(refuse(
                ErrorCode::Unauthenticated,
                "the first request is `connect`".into(),
            ));
        }
        let bad = |message: String| refuse(ErrorCode::BadRequest, message.into());
        let params: Connect = request.params().map_err(|misfit| {
            let body = Error::from(misfit).body;
            Refusal {
                close: CloseCode::BadFrame,
                reason: body.message.clone().into(),
                answer: Some((request.id, body)),
            }
        })?;
        if params.resume.len() > MAX_RESUME {
            return Err(bad(format!(
                "`resume` has at most {MAX_RESUME} channels; subscribe to the others afterwards"
            )));
        }
        Ok(Opening {
            id: request.id,
            params,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use protocol::frame::encode_request;
    use serde_json::json;

    use super::*;

    fn first(frame: &[u8]) -> Result<Opening, Refusal> {
        Handshake::new(Encoding::MessagePack, Instant::now()).frame(frame)
    }

    #[test]
    fn a_connect_opens() {
        let opening = first(&encode_request(
            Encoding::MessagePack,
            3,
            "connect",
            &json!({ "token": "t" }),
        ))
        .unwrap();
        assert_eq!((opening.id, opening.params.token.as_str()), (3, "t"));
    }

    #[test]
    fn another_first_request_closes_with_4000() {
        let refusal = first(&encode_request(
            Encoding::MessagePack,
            3,
            "ping",
            &json!({}),
        ))
        .unwrap_err();
        assert_eq!(
            (refusal.answer.unwrap().0, refusal.close),
            (3, CloseCode::BadFrame)
        );
        let reason = "a request is a map".into();
        assert_eq!(
            first(b"\xc1").unwrap_err(),
            Refusal {
                answer: None,
                close: CloseCode::BadFrame,
                reason
            }
        );
    }

    #[test]
    fn a_connect_beyond_32_kib_closes_with_4010() {
        let frame = encode_request(
            Encoding::MessagePack,
            3,
            "connect",
            &json!({ "token": "t".repeat(MAX_CONNECT_BYTES) }),
        );
        assert_eq!(first(&frame).unwrap_err().close, CloseCode::FrameTooLarge);
    }

    #[test]
    fn a_connect_that_does_not_fit_is_answered_and_closes_with_4000() {
        let refusal = first(&encode_request(
            Encoding::MessagePack,
            3,
            "connect",
            &json!({ "token": 7 }),
        ))
        .unwrap_err();
        assert_eq!(refusal.answer.unwrap().1.code, ErrorCode::BadRequest);
        assert_eq!(refusal.close, CloseCode::BadFrame);
    }
}
