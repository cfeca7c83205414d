//! Responses that count towards `requests_total_bytes` until their client has taken them.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::limit::Share;

/// Bytes of a response that does not count: the socket takes it at once.
const UNCOUNTED_BYTES: usize = 16 * 1024;

/// The bytes of a response, which hyper holds until they are written.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that gives its share to its only frame.
struct HeldBody {
    body: Body,
    share: Option<Share>,
}

/// Counts a response until its client has taken it. The share has the expected size of the
/// response. A response is never refused, since its request is done: bytes beyond the share are not
/// counted if there is no room for them.
pub(super) fn hold(response: Response, mut share: Share) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = http_body::Body::size_hint(&body).lower();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes <= UNCOUNTED_BYTES {
        return Response::from_parts(parts, body);
    }
    let _: Result<(), _> = share.resize(bytes);
    let share = Some(share);
    Response::from_parts(parts, Body::new(HeldBody { body, share }))
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| match self.share.take() {
                    Some(_share) => Bytes::from_owner(Held { bytes, _share }),
                    None => bytes,
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
