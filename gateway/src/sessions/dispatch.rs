//! Dispatches a session's requests to their operations, and sends the replies.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, LazyLock},
};

use domain::{
    credential::{Principal, Who},
    error::{Error, Result},
    perform::{Call, Perform},
    random,
};
use protocol::{
    ErrorCode,
    codec::DecodeError,
    frame::Request,
    operation::{
        Handler, Operation,
        channel::{ChannelSubscribe, ChannelUnsubscribe, Subscribe, Unsubscribe},
        empty::Empty,
        encode_output,
        message::MessageSend,
        path::ChannelPath,
        presence::PresenceWatch,
        session::{Ping, Pong, RefreshToken, Refreshed, SessionConnect, TokenRefresh},
        user::UserIds,
    },
};
use store::cost::Meter;
use tracing::Instrument;

use super::{
    sends::send,
    session::{RequestInFlight, Session, SessionCredential},
    shared::Sessions,
    subscribe,
    watching::watch_presence,
};
use crate::{limit::request_bytes, session::RequestOrder};

/// Maximum number of channels in one `channel.subscribe`.
const MAX_SUBSCRIBE: usize = protocol::bounds::SUBSCRIBED_CHANNELS;

/// The outcome of a request.
enum ServedRequest {
    Reply(Vec<u8>),
    /// The reply was sent.
    Replied,
}

/// Decodes a request and starts a task that serves it.
type PendingStart = fn(&Arc<Session>, &Arc<Sessions>, &Request<'_>, usize) -> Result<()>;

/// The domain's operations that sessions may call, by method name.
static DOMAIN_OPERATIONS: LazyLock<HashMap<&'static str, PendingStart>> = LazyLock::new(|| {
    let mut operations = HashMap::new();
    macro_rules! add_all {
        (session: [$($session:tt)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            $(add::<protocol::operation::$resource::$operation>(&mut operations);)*
        };
    }
    protocol::operations!(add_all);
    operations
});

fn add<O: Perform>(operations: &mut HashMap<&'static str, PendingStart>) {
    if O::WEBSOCKET.is_some_and(|websocket| websocket.handler == Handler::Domain) {
        operations.insert(O::NAME, begin::<O>);
    }
}

fn begin<O: Perform>(
    session: &Arc<Session>,
    sessions: &Arc<Sessions>,
    request: &Request<'_>,
    frame_bytes: usize,
) -> Result<()> {
    let path = match O::own_path(session.user()) {
        Some(path) => path,
        None => request.params()?,
    };
    let input = request.params()?;
    let caller = Principal::Actor(session.actor());
    let (id, encoding, node) = (request.id, session.encoding, Arc::clone(sessions));
    let in_flight = sessions.begin_request(session, frame_bytes, request_bytes::of_reply::<O>())?;
    spawn(session, sessions, id, O::NAME, in_flight, async move {
        let done = O::perform(
            &node.services,
            Call {
                caller,
                path,
                input,
                if_match: None,
                seed: random::bits(),
            },
        )
        .await?;
        Ok(ServedRequest::Reply(encode_output::<O>(
            encoding,
            id,
            &done.value,
        )))
    });
    Ok(())
}

/// Starts to serve a request. Returns at once; the reply is pushed into the outbox.
///
/// # Errors
/// Fails if the frame is not a request. The caller must close the connection.
pub fn request(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    frame: &[u8],
) -> Result<(), DecodeError> {
    let request = Request::decode(session.encoding, frame)?;
    sessions.metrics.requests.inc();
    if let Err(retry_after_ms) = sessions.take_for_app(session.scope()) {
        sessions.metrics.limit_hit("app_requests_per_second");
        sessions.answer_error(
            session,
            request.id,
            &Error::rate_limited("app_requests_per_second", retry_after_ms),
        );
        return Ok(());
    }
    if let Err(retry_after_ms) = sessions.check_debt(session) {
        sessions.metrics.limit_hit("requests_per_second");
        sessions.answer_error(
            session,
            request.id,
            &Error::rate_limited("requests_per_second", retry_after_ms),
        );
        return Ok(());
    }
    let bytes = frame.len();
    let started = match DOMAIN_OPERATIONS.get(request.method) {
        Some(begin) => begin(session, sessions, &request, bytes),
        None if request.method == MessageSend::NAME => {
            start_send(session, sessions, &request, bytes)
        }
        None => start_own(session, sessions, &request, bytes),
    };
    if let Err(error) = started {
        sessions.answer_error(session, request.id, &error);
    }
    Ok(())
}

/// Answers a request with `rate_limited`.
///
/// # Errors
/// Fails if the frame is not a request. The caller must close the connection.
pub fn refuse(
    sessions: &Sessions,
    session: &Session,
    frame: &[u8],
    retry_after_ms: u64,
) -> Result<(), DecodeError> {
    let request = Request::decode(session.encoding, frame)?;
    sessions.metrics.limit_hit("requests_per_second");
    sessions.answer_error(
        session,
        request.id,
        &Error::rate_limited("requests_per_second", retry_after_ms),
    );
    Ok(())
}

fn start_send(
    session: &Arc<Session>,
    sessions: &Arc<Sessions>,
    request: &Request<'_>,
    frame_bytes: usize,
) -> Result<()> {
    let ChannelPath { channel_id } = request.params()?;
    let (id, body) = (request.id, request.params()?);
    send(sessions, session, id, channel_id, body, frame_bytes)
}

fn start_own(
    session: &Arc<Session>,
    sessions: &Arc<Sessions>,
    request: &Request<'_>,
    frame_bytes: usize,
) -> Result<()> {
    let own = OwnRequest::decode(request)?;
    let (id, method) = (request.id, own.method());
    let in_flight = sessions.begin_request(session, frame_bytes, own.reply_bytes())?;
    spawn(session, sessions, id, method, in_flight, {
        let (session, sessions) = (Arc::clone(session), Arc::clone(sessions));
        async move { serve_own(&sessions, &session, id, own).await }
    });
    Ok(())
}

/// Serves a request in a task of its own, and sends the reply.
fn spawn(
    session: &Arc<Session>,
    sessions: &Arc<Sessions>,
    id: u32,
    method: &'static str,
    in_flight: RequestInFlight,
    work: impl Future<Output = Result<ServedRequest>> + Send + 'static,
) {
    let (session, sessions) = (Arc::clone(session), Arc::clone(sessions));
    let span = tracing::debug_span!("request", session = %session.id, id, method);
    let served = async move {
        let _in_flight = in_flight;
        let meter = Arc::new(Meter::of(session.scope(), session.user()));
        let done = meter.measure(work).await;
        sessions.charge(&session, &meter);
        match done {
            Ok(ServedRequest::Reply(payload)) => session.reply(payload),
            Ok(ServedRequest::Replied) => {}
            Err(error) => sessions.answer_error(&session, id, &error),
        }
    };
    tokio::spawn(served.instrument(span));
}

/// A request that reads or changes the session itself.
enum OwnRequest {
    Connect,
    TokenRefresh(RefreshToken),
    Ping,
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PresenceWatch(RequestOrder, UserIds),
}

impl OwnRequest {
    fn decode(request: &Request<'_>) -> Result<Self> {
        Ok(match request.method {
            SessionConnect::NAME => Self::Connect,
            TokenRefresh::NAME => Self::TokenRefresh(request.params()?),
            Ping::NAME => Self::Ping,
            ChannelSubscribe::NAME => Self::Subscribe(request.params()?),
            ChannelUnsubscribe::NAME => Self::Unsubscribe(request.params()?),
            PresenceWatch::NAME => Self::PresenceWatch(RequestOrder::now(), request.params()?),
            _ => {
                return Err(Error::new(
                    ErrorCode::Unsupported,
                    "there is no such method",
                ));
            }
        })
    }

    fn reply_bytes(&self) -> usize {
        match self {
            Self::Subscribe(_) => request_bytes::of_reply::<ChannelSubscribe>(),
            _ => 0,
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Connect => SessionConnect::NAME,
            Self::TokenRefresh(_) => TokenRefresh::NAME,
            Self::Ping => Ping::NAME,
            Self::Subscribe(_) => ChannelSubscribe::NAME,
            Self::Unsubscribe(_) => ChannelUnsubscribe::NAME,
            Self::PresenceWatch(..) => PresenceWatch::NAME,
        }
    }
}

async fn serve_own(
    sessions: &Sessions,
    session: &Arc<Session>,
    id: u32,
    request: OwnRequest,
) -> Result<ServedRequest> {
    let encoding = session.encoding;
    let payload = match request {
        OwnRequest::Connect => {
            return Err(Error::bad_request("this connection has a session already"));
        }
        OwnRequest::Ping => encode_output::<Ping>(
            encoding,
            id,
            &Pong {
                at: sessions.services.clock.now_ms(),
            },
        ),
        OwnRequest::TokenRefresh(params) => encode_output::<TokenRefresh>(
            encoding,
            id,
            &refresh(sessions, session, &params.token).await?,
        ),
        OwnRequest::Subscribe(params) => {
            if params.channels.len() > MAX_SUBSCRIBE {
                return Err(Error::bad_request(format!(
                    "at most {MAX_SUBSCRIBE} channels at once"
                )));
            }
            subscribe::subscribe(sessions, session, id, params.channels).await?;
            return Ok(ServedRequest::Replied);
        }
        OwnRequest::Unsubscribe(params) => {
            subscribe::unsubscribe(session, &params.channel_ids).await;
            encode_output::<ChannelUnsubscribe>(encoding, id, &Empty {})
        }
        OwnRequest::PresenceWatch(asked, UserIds { user_ids }) => encode_output::<PresenceWatch>(
            encoding,
            id,
            &watch_presence(sessions, session, asked, user_ids).await?,
        ),
    };
    Ok(ServedRequest::Reply(payload))
}

async fn refresh(sessions: &Sessions, session: &Arc<Session>, token: &str) -> Result<Refreshed> {
    let verified = sessions
        .authenticator
        .verify(token)
        .await
        .map_err(Error::from)?;
    if verified.actor.scope != *session.scope() || verified.actor.user() != Some(session.user()) {
        return Err(Error::forbidden("the token is of another user"));
    }
    let expires_at = verified.expires_at_ms;
    let expires_in = sessions.time_until(expires_at);
    let Who::User { token_key, .. } = verified.actor.who.clone() else {
        return Err(Error::forbidden("the token is not a user's"));
    };
    sessions.registry.rekey(session, &token_key, || {
        let who = verified.actor.who;
        session.refresh(SessionCredential { who, expires_at }, expires_in)
    });
    if let Some(code) = sessions.recent_ending(session) {
        session.close(code, None);
    }
    Ok(Refreshed { expires_at })
}
