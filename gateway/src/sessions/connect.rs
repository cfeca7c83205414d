//! `connect`: from a token to a session that listens.

use std::{collections::BTreeSet, sync::Arc};

use fanout::{Errand, Kind, Outbox, Position};
use protocol::{
    ChannelId, CloseCode, Encoding, ErrorBody, ErrorCode,
    frame::{encode_error, encode_result},
    params::{Connect, Cursor, Entries, Watch},
    results::Connected,
};

use super::{
    Sessions,
    session::{Session, subject},
    subscribe::{Asked, failed, unavailable},
};
use crate::{
    auth::TokenRefused,
    error::Error,
    limit::{Full, Pass},
    service::{
        entries::Detail,
        scope::{ENTITY, ONLY},
        users::user_of,
    },
    session::Opening,
};

/// How long after its end a token is still accepted, in milliseconds.
const LEEWAY_MS: u64 = 30_000;

/// Why there is no session: the answer, and how the connection ends.
#[derive(Debug)]
pub struct Refused {
    /// The encoded reply.
    pub reply: Vec<u8>,
    /// The close code.
    pub close: CloseCode,
    /// When to come again.
    pub retry_after_ms: Option<u64>,
    /// Whether it counts against the address: a credential was wrong.
    pub is_unauthenticated: bool,
}

impl Sessions {
    /// Opens a session. Its reply is in the outbox when this returns, and its streams have begun behind it.
    ///
    /// The pass is given back when the session is up to date.
    pub async fn connect(
        self: &Arc<Self>,
        opening: Opening,
        encoding: Encoding,
        outbox: &Arc<Outbox>,
        pass: Pass,
    ) -> Result<Arc<Session>, Refused> {
        let Opening { id, params } = opening;
        let refuse = |error: ErrorBody, close, is_unauthenticated| Refused {
            reply: encode_error(encoding, id, &error),
            close,
            retry_after_ms: error.retry_after_ms,
            is_unauthenticated,
        };
        let verified = match self.authenticator.verify(&params.token).await {
            Ok(verified) => verified,
            Err(TokenRefused::Expired) => {
                return Err(refuse(
                    Error::unauthenticated("the token has expired").body,
                    CloseCode::TokenExpired,
                    true,
                ));
            }
            Err(TokenRefused::Other(sentence)) => {
                return Err(refuse(
                    Error::unauthenticated(sentence).body,
                    CloseCode::TokenRefused,
                    true,
                ));
            }
            Err(TokenRefused::Unavailable(error)) => {
                return Err(refuse(error.body, CloseCode::TooManyConnections, false));
            }
        };
        let Some(user) = verified.actor.user().cloned() else {
            return Err(refuse(
                Error::unauthenticated("this is no user token").body,
                CloseCode::TokenRefused,
                true,
            ));
        };
        outbox.identify(subject(&user));
        // Whoever came within the leeway after the end has the rest of it.
        let now = self.services.clock.now_ms();
        let expires_at = if verified.expires_at_ms > now {
            verified.expires_at_ms
        } else {
            verified.expires_at_ms + LEEWAY_MS
        };
        let session = Session::new(
            self,
            Arc::clone(outbox),
            encoding,
            params.watch,
            verified.actor,
            user,
            expires_at,
        );
        if let Err(limit) = self.admit(&session) {
            self.metrics.limit_hit(limit);
            let most = self.limits.get(limit).unwrap_or_default();
            return Err(refuse(
                Error::limit_reached(limit, most).retry_after(5000).body,
                CloseCode::TooManyConnections,
                false,
            ));
        }
        match self.open(&session, id, params, Errand::holding(pass)).await {
            Ok(()) if let Some(code) = self.has_ended(&session) => {
                session.is_ready();
                session.close(code, None);
                Ok(session)
            }
            Ok(()) => {
                session.is_ready();
                Ok(session)
            }
            Err(error) => {
                self.leave(&session);
                if let Some(cause) = &error.cause {
                    tracing::warn!(session = %session.id, %cause, "a session could not be opened");
                }
                let close = match error.code() {
                    ErrorCode::Unavailable => CloseCode::TooManyConnections,
                    ErrorCode::Unauthenticated => CloseCode::TokenRefused,
                    _ => CloseCode::Internal,
                };
                Err(refuse(error.body, close, false))
            }
        }
    }

    /// The answer to who is not let in now.
    pub fn turn_away(&self, opening: &Opening, encoding: Encoding, full: Full) -> Refused {
        self.metrics.limit_hit("connects_waiting");
        let error = Error::rate_limited("connects_waiting", full.retry_after_ms);
        Refused {
            reply: encode_error(encoding, opening.id, &error.body),
            close: CloseCode::TooManyConnections,
            retry_after_ms: Some(full.retry_after_ms),
            is_unauthenticated: false,
        }
    }

    async fn open(
        &self,
        session: &Arc<Session>,
        id: u32,
        params: Connect,
        errand: Errand,
    ) -> Result<(), Error> {
        let (scope, user) = (session.scope(), session.user());
        let own = scope.user(user);
        // The own stream first: who comes into a channel from here on is told so.
        let joining = self
            .hub
            .join(&own.topic(), Kind::Logged, &session.outbox)
            .await
            .map_err(unavailable)?;
        let snapshot = self
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
                match self.gap(&own, asked, head).await? {
                    None => (asked, None),
                    Some(gap) => (head, Some(gap)),
                }
            }
            Some(Cursor::Now) | None => (head, None),
        };

        let named: BTreeSet<ChannelId> = params.resume.keys().cloned().collect();
        let (visible, mut refused) = self.visible(session, params.resume).await?;
        let mut asked: Vec<Asked> = visible
            .into_iter()
            .map(|(id, cursor)| Asked {
                id,
                cursor,
                is_named: true,
            })
            .collect();
        let most = self.limits.subscriptions;
        if most != 0 && asked.len() as u64 > most {
            refused.extend(
                asked
                    .drain(most as usize..)
                    .map(|a| failed(a.id, Error::limit_reached("subscriptions", most))),
            );
        }
        let mut more = false;
        if params.watch == Watch::All {
            let mut room = self.room(asked.len());
            for (_, id) in self.services.by_activity(scope, user).await? {
                if named.contains(&id) {
                    continue;
                }
                if room == 0 {
                    more = true;
                    break;
                }
                room -= 1;
                asked.push(Asked {
                    id,
                    cursor: Cursor::Now,
                    is_named: false,
                });
            }
        }
        let detail = match params.entries {
            Entries::Full => Detail::Full,
            Entries::Positions => Detail::Positions,
        };
        let (mut channels, starts, is_cut) = self
            .prepare(session, session.turn().await, asked, detail)
            .await?;
        channels.extend(refused);
        let reply = Connected {
            session_id: session.id.clone(),
            user: user_of(document)?,
            app_id: scope.app.clone(),
            environment: scope.environment,
            features: Vec::new(),
            heartbeat_ms: self.heartbeat.as_millis() as u64,
            limits: self.limits.for_clients(),
            user_position: (head.seq, head.at),
            user_gap,
            channels,
            more: more || is_cut,
        };
        // Whoever has the reply hears what passes, too.
        let _hold = session.outbox.hold();
        session.reply(encode_result(session.encoding, id, &reply));
        let own = joining.start_during(cursor, head, &errand);
        session.state.lock().own = Some(own);
        session.start_during(starts, Some(&errand));
        Ok(())
    }

    /// How many channels `connect` may add to those that are named.
    fn room(&self, named: usize) -> usize {
        let bound = |limit: u64| {
            if limit == 0 {
                usize::MAX
            } else {
                limit as usize
            }
        };
        bound(self.limits.watched_channels)
            .min(bound(self.limits.subscriptions).saturating_sub(named))
    }
}
