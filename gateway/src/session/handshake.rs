//! State of a connection before `connect`: awaits one request of bounded size until a deadline.

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

/// Maximum time from the upgrade to the `connect`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of the frame of a `connect`, in bytes.
pub const MAX_CONNECT_BYTES: usize = 32 * 1024;
/// Maximum number of channels in `resume`.
const MAX_RESUME: usize = protocol::bounds::SUBSCRIBED_CHANNELS;

/// A connection without a `connect`.
#[derive(Debug)]
pub struct Handshake {
    encoding: Encoding,
    deadline: Instant,
}

/// A decoded `connect`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectRequest {
    /// The request's id.
    pub id: u32,
    /// The parameters.
    pub params: Connect,
}

/// The first request is not a valid `connect`. It is answered with an error, if its id could be
/// decoded, and the connection is closed.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidConnect {
    /// The request's id and the error.
    pub answer: Option<(u32, ErrorBody)>,
    /// The close code.
    pub close: CloseCode,
    /// The reason in the close frame.
    pub reason: Cow<'static, str>,
}

impl Handshake {
    /// Creates the state of a connection that was upgraded at `now`.
    pub fn new(encoding: Encoding, now: Instant) -> Self {
        Self {
            encoding,
            deadline: now + CONNECT_TIMEOUT,
        }
    }

    /// Returns the deadline of the `connect`. Afterwards, close with
    /// [`CloseCode::ConnectTimeout`].
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Decodes the first frame.
    ///
    /// # Errors
    /// Fails if the frame is too large, is not a `connect` request, or has invalid parameters.
    pub fn frame(self, frame: &[u8]) -> Result<ConnectRequest, InvalidConnect> {
        if frame.len() > MAX_CONNECT_BYTES {
            let close = CloseCode::FrameTooLarge;
            return Err(InvalidConnect {
                answer: None,
                close,
                reason: close.reason().into(),
            });
        }
        let request = Request::decode(self.encoding, frame).map_err(|error| {
            let reason = without_value(&error.to_string()).into_owned();
            InvalidConnect {
                answer: None,
                close: CloseCode::BadFrame,
                reason: reason.into(),
            }
        })?;
        let refuse = |code, message: Cow<'static, str>| InvalidConnect {
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
            InvalidConnect {
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
        Ok(ConnectRequest {
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

    fn first(frame: &[u8]) -> Result<ConnectRequest, InvalidConnect> {
        Handshake::new(Encoding::MessagePack, Instant::now()).frame(frame)
    }

    #[test]
    fn connect_is_decoded() {
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
    fn other_first_request_closes_with_4000() {
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
            InvalidConnect {
                answer: None,
                close: CloseCode::BadFrame,
                reason
            }
        );
    }

    #[test]
    fn connect_above_32_kib_closes_with_4010() {
        let frame = encode_request(
            Encoding::MessagePack,
            3,
            "connect",
            &json!({ "token": "t".repeat(MAX_CONNECT_BYTES) }),
        );
        assert_eq!(first(&frame).unwrap_err().close, CloseCode::FrameTooLarge);
    }

    #[test]
    fn connect_with_invalid_parameters_is_answered_and_closes_with_4000() {
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
