//! `connect`: opens a session.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    channel_order,
    entries::Detail,
    error::Error,
    schema::{ENTITY, ONLY},
    users::user_of,
};
use fanout::{CatchUpPermit, Outbox, Position, TopicKind, fair::Party};
use protocol::{
    ChannelId, CloseCode, Cursor, Encoding, ErrorBody, ErrorCode,
    frame::encode_result,
    operation::session::{Connect, Connected, Entries, Watch},
};
use store::cost::{self, Meter};

use super::{
    session::{Life, Session, subject},
    shared::Sessions,
    subscribe::{
        RequestedChannel, SubscribeRequest, failed, gap, prepare, size_of_refusals,
        start_with_permit, unavailable, visible,
    },
};
use crate::{
    auth::{Attempt, Signed, TokenRefused},
    limit::{Full, Pass},
    session::{Active, ConnectRequest, Subscriptions},
};

/// Time after its expiry during which a token is accepted, in milliseconds.
const TOKEN_LEEWAY_MS: u64 = 30_000;

/// A refused `connect`: the error to answer, and the close code.
#[derive(Debug)]
pub struct Refused {
    /// The request's id.
    pub id: u32,
    /// The error to answer.
    pub error: ErrorBody,
    /// The close code.
    pub close: CloseCode,
    /// The reason in the close frame.
    pub reason: Cow<'static, str>,
    /// Whether it counts against the address. Failures of the node or the store do not.
    pub counts_against_address: bool,
}

impl Refused {
    fn new(id: u32, error: ErrorBody, close: CloseCode) -> Self {
        let reason = match (close, error.code) {
            (CloseCode::TooManyConnections, ErrorCode::Unavailable) => {
                "the store cannot be reached".into()
            }
            (CloseCode::TooManyConnections, ErrorCode::RateLimited) => "not admitted now".into(),
            (CloseCode::BadFrame, _) => error.message.clone().into(),
            _ => close.reason().into(),
        };
        let counts_against_address =
            !matches!(error.code, ErrorCode::Unavailable | ErrorCode::Internal);
        Self {
            id,
            error,
            close,
            reason,
            counts_against_address,
        }
    }
}

/// A `connect` with a valid token.
#[derive(Debug)]
pub struct Candidate {
    id: u32,
    params: Connect,
    signed: Signed,
}

impl Candidate {
    /// Returns the party for fair admission: the app's environment, and within it the user.
    pub fn party(&self) -> Party {
        Party {
            group: cost::hash(self.signed.scope()),
            member: cost::hash(self.signed.user()),
        }
    }
}

/// Checks the token of a `connect`. Reads the token key at most. The address is charged.
///
/// # Errors
/// Fails if the token is invalid or expired, if the address has failed too often, or if the store
/// does not answer.
pub async fn check(
    sessions: &Sessions,
    opening: ConnectRequest,
    attempt: &mut Attempt,
) -> Result<Candidate, Refused> {
    let ConnectRequest { id, params } = opening;
    let checking = sessions.authenticator.check_attempt(&params.token, attempt);
    match checking.await {
        Ok(signed) => Ok(Candidate { id, params, signed }),
        Err(refused) => Err(refuse_token(id, refused)),
    }
}

/// Opens a session. When this returns, the reply is in the outbox, and the subscriptions have
/// started after it.
///
/// The pass is released when the session has caught up.
///
/// # Errors
/// Fails if the user may not connect, if a limit is reached, or if the store or the bus does not
/// answer.
pub async fn connect(
    sessions: &Arc<Sessions>,
    candidate: Candidate,
    encoding: Encoding,
    outbox: &Arc<Outbox>,
    pass: Pass,
) -> Result<Arc<Session>, Refused> {
    let Candidate { id, params, signed } = candidate;
    let refuse = |error: Error, close| Refused::new(id, error.body, close);
    let user = signed.user().clone();
    let verified = match sessions.authenticator.admit(signed).await {
        Ok(verified) => verified,
        Err(refused) => return Err(refuse_token(id, refused)),
    };
    outbox.identify(subject(&user));
    // A token that has expired within the leeway is valid for the rest of it.
    let now = sessions.services.clock.now_ms();
    let expires_at = if verified.expires_at_ms > now {
        verified.expires_at_ms
    } else {
        verified.expires_at_ms + TOKEN_LEEWAY_MS
    };
    let session = Session::new(
        Arc::clone(outbox),
        encoding,
        Active::new(
            sessions.timing(),
            Duration::from_millis(expires_at.saturating_sub(now)),
            Subscriptions::new(params.watch == Watch::All, sessions.limits.subscriptions),
            Instant::now(),
        ),
        verified.actor,
        user,
        Life {
            began_at: now,
            expires_at,
        },
    );
    // A refusal is charged to the user and to the address, so that it cannot be repeated without a
    // limit.
    let refuse_at_limit = |limit, error| {
        sessions.metrics.limit_hit(limit);
        refuse(error, CloseCode::TooManyConnections)
    };
    if let Err(retry_after_ms) = sessions.take_for_connect(&session) {
        return Err(refuse_at_limit(
            "requests_per_second",
            Error::rate_limited("requests_per_second", retry_after_ms),
        ));
    }
    if let Err(limit) = sessions.admit(&session) {
        let most = sessions.limits.get(limit).unwrap_or_default();
        return Err(refuse_at_limit(
            limit,
            Error::limit_reached(limit, most).retry_after(5000),
        ));
    }
    let meter = Arc::new(Meter::of(session.scope(), session.user()));
    let opened = meter
        .measure(open(
            sessions,
            &session,
            id,
            params,
            CatchUpPermit::new(pass),
        ))
        .await;
    sessions.charge(&session, &meter);
    match opened {
        Ok(()) if let Some(code) = sessions.recent_ending(&session) => {
            session.opened();
            session.close(code, None);
            Ok(session)
        }
        Ok(()) => {
            session.opened();
            Ok(session)
        }
        Err(error) => {
            sessions.leave(&session);
            if let Some(cause) = &error.cause {
                tracing::warn!(session = %session.id, %cause, "cannot open a session");
            }
            let close = close_after(error.code());
            Err(refuse(error, close))
        }
    }
}

/// Returns the refusal of a `connect` that the gate did not admit.
pub fn gate_refusal(sessions: &Sessions, id: u32, full: Full) -> Refused {
    sessions.metrics.limit_hit("connects_waiting");
    let error = Error::rate_limited("connects_waiting", full.retry_after_ms);
    Refused::new(id, error.body, CloseCode::TooManyConnections)
}

fn refuse_token(id: u32, refused: TokenRefused) -> Refused {
    let close = match &refused {
        TokenRefused::Expired => CloseCode::TokenExpired,
        TokenRefused::Other(_) => CloseCode::TokenRefused,
        TokenRefused::Undecided(error) => close_after(error.code()),
    };
    Refused::new(id, Error::from(refused).body, close)
}

async fn open(
    sessions: &Sessions,
    session: &Arc<Session>,
    id: u32,
    params: Connect,
    permit: CatchUpPermit,
) -> Result<(), Error> {
    let (scope, user) = (session.scope(), session.user());
    let own = scope.user(user);
    // The user's own stream is joined first, so that later additions are delivered.
    let joining = sessions
        .hub
        .join(&own.topic(), TopicKind::Logged, &session.outbox)
        .await
        .map_err(unavailable)?;
    let snapshot = sessions
        .services
        .snapshot(own.clone(), vec![(ENTITY, ONLY.into())])
        .await?;
    let Some(document) = &snapshot.documents[0] else {
        return Err(Error::unauthenticated("the user is deleted"));
    };
    let head = snapshot.head.position();
    let (cursor, user_gap) = match params.user_position {
        Some(Cursor::After(seq, at)) => {
            let asked = Position { seq, at };
            match gap(sessions, &own, asked, head).await? {
                None => (asked, None),
                Some(gap) => (head, Some(gap)),
            }
        }
        Some(Cursor::Now) | None => (head, None),
    };
    cost::count_replay(head.seq.saturating_sub(cursor.seq));

    let named: BTreeSet<ChannelId> = params.resume.keys().cloned().collect();
    let (mut asked, mut refused) = visible(sessions, session, params.resume).await?;
    let most = sessions.limits.subscriptions;
    if most != 0 && asked.len() as u64 > most {
        refused.extend(
            asked
                .drain(most as usize..)
                .map(|a| failed(a.id, Error::limit_reached("subscriptions", most))),
        );
    }
    let mut more = false;
    if params.watch == Watch::All {
        let mut room = room(sessions, asked.len());
        for (active_at, id) in channel_order::channels_by_activity(
            &sessions.services,
            scope,
            user,
            named.len().saturating_add(room).saturating_add(1),
        )
        .await?
        {
            if named.contains(&id) {
                continue;
            }
            if room == 0 {
                more = true;
                break;
            }
            room -= 1;
            asked.push(RequestedChannel {
                id,
                cursor: Cursor::Now,
                is_named: false,
                active_at,
            });
        }
    }
    let detail = match params.entries {
        Entries::Full => Detail::Full,
        Entries::Positions => Detail::Positions,
    };
    let user = user_of(document)?;
    let reserved = size_of_refusals(&refused) + protocol::codec::longest(&user);
    let wanted = SubscribeRequest {
        asked,
        detail,
        reserved,
    };
    let (mut channels, starts, is_cut) =
        prepare(sessions, session, session.turn().await, wanted).await?;
    channels.extend(refused);
    let reply = Connected {
        session_id: session.id.clone(),
        user,
        app_id: scope.app.clone(),
        environment: scope.environment,
        features: Vec::new(),
        heartbeat_ms: sessions.heartbeat.as_millis() as u64,
        limits: sessions.limits.for_clients(),
        user_position: (head.seq, head.at),
        user_gap,
        channels,
        more: more || is_cut,
    };
    // Held until the subscriptions start, so that a client with the reply misses no passing event.
    let _hold = session.outbox.hold();
    session.reply(encode_result(session.encoding, id, &reply));
    let own = joining.start_with_permit(cursor, head, &permit);
    session.state.lock().own = Some(own);
    start_with_permit(session, starts, Some(&permit));
    Ok(())
}

/// Returns the number of channels that `connect` may add to those in `resume`.
pub(super) fn room(sessions: &Sessions, named: usize) -> usize {
    let bound = |limit: u64| {
        if limit == 0 {
            usize::MAX
        } else {
            limit as usize
        }
    };
    bound(sessions.limits.watched_channels)
        .min(bound(sessions.limits.subscriptions).saturating_sub(named))
}

/// Returns the close code of a `connect` that failed with this error.
fn close_after(code: ErrorCode) -> CloseCode {
    match code {
        ErrorCode::Unavailable | ErrorCode::RateLimited => CloseCode::TooManyConnections,
        ErrorCode::Unauthenticated => CloseCode::TokenRefused,
        ErrorCode::BadRequest => CloseCode::BadFrame,
        _ => CloseCode::Internal,
    }
}
