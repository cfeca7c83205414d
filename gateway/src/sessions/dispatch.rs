//! From a request to a service and back: one line for each method.

use std::{sync::Arc, time::Instant};

use protocol::{
    CloseCode, ErrorCode, Method,
    codec::DecodeError,
    frame::{Request, encode_result},
    params::{
        AddParticipant, ChannelRef, CreateChannel, EditMessage, ListMessages, ListPage, MarkRead,
        MessageRef, ParticipantRef, React, RefreshToken, Subscribe, Typing, Unsubscribe,
        UpdateChannel, UpdateParticipant, UpdateUser, UserIds,
    },
    results::{
        ChannelResult, Empty, MessageResult, ParticipantResult, Pong, Refreshed, Subscribed,
        UserResult,
    },
};
use serde::Serialize;
use tracing::Instrument;

use super::{
    Sessions,
    session::{Credential, Session, UnderWay},
    subscribe::Starts,
    watching::Asked,
};
use crate::{
    error::{Error, Result},
    log::Seldom,
};

/// The most channels of one `channel.subscribe`.
const MAX_SUBSCRIBE: usize = 200;

/// A reply, and what begins after it was sent.
struct Answer {
    payload: Vec<u8>,
    starts: Starts,
}

/// The failed requests that are logged.
static FAILURES: Seldom = Seldom::new(10);

impl Session {
    /// Takes a request. Returns at once; the reply follows through the outbox.
    ///
    /// # Errors
    /// The frame is no request: the connection closes.
    pub fn request(self: &Arc<Self>, frame: &[u8]) -> Result<(), CloseCode> {
        let request = Request::decode(self.encoding, frame).map_err(|_| CloseCode::BadFrame)?;
        let Some(sessions) = self.sessions.upgrade() else {
            return Ok(());
        };
        let id = request.id;
        sessions.metrics.requests.inc();
        if let Err(retry_after_ms) = sessions.take_for_app(self.scope()) {
            sessions.metrics.limit_hit("app_requests_per_second");
            sessions.answer_error(
                self,
                id,
                &Error::rate_limited("app_requests_per_second", retry_after_ms),
            );
            return Ok(());
        }
        let Some(method) = Method::of(request.method) else {
            let error = Error::new(ErrorCode::Unsupported, "there is no such method");
            sessions.answer_error(self, id, &error);
            return Ok(());
        };
        if method == Method::MessageSend {
            match request
                .params::<ChannelRef>()
                .and_then(|at| Ok((at, request.params()?)))
            {
                Ok((at, body)) => self.send(id, at.channel_id, body),
                Err(error) => sessions.answer_error(self, id, &error.into()),
            }
            return Ok(());
        }
        match Call::read(method, &request) {
            Ok(call) => {
                let session = Arc::clone(self);
                let under_way = UnderWay::begin(self);
                let span = tracing::debug_span!("request", session = %self.id, id, method = method.as_str());
                let served = async move {
                    let _under_way = under_way;
                    match sessions.serve(&session, id, call).await {
                        Ok(Answer { payload, starts }) => {
                            // Whoever has the reply hears what passes, too.
                            let _hold = (!starts.is_empty()).then(|| session.outbox.hold());
                            session.reply(payload);
                            session.start(starts);
                        }
                        Err(error) => sessions.answer_error(&session, id, &error),
                    }
                };
                tokio::spawn(served.instrument(span));
            }
            Err(error) => sessions.answer_error(self, id, &error.into()),
        }
        Ok(())
    }

    /// Answers a request that came too soon, if it is one.
    ///
    /// # Errors
    /// The frame is no request: the connection closes.
    pub fn refuse(self: &Arc<Self>, frame: &[u8], retry_after_ms: u64) -> Result<(), CloseCode> {
        let request = Request::decode(self.encoding, frame).map_err(|_| CloseCode::BadFrame)?;
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.metrics.limit_hit("requests_per_second");
            sessions.answer_error(
                self,
                request.id,
                &Error::rate_limited("requests_per_second", retry_after_ms),
            );
        }
        Ok(())
    }
}

/// A request with its parameters.
enum Call {
    Connect,
    TokenRefresh(RefreshToken),
    Ping,
    ChannelSubscribe(Subscribe),
    ChannelUnsubscribe(Unsubscribe),
    ChannelList(ListPage),
    ChannelCreate(Box<CreateChannel>),
    ChannelUpdate(ChannelRef, Box<UpdateChannel>),
    ChannelDelete(ChannelRef),
    ChannelJoin(ChannelRef),
    ChannelLeave(ChannelRef),
    ParticipantAdd(ChannelRef, AddParticipant),
    ParticipantUpdate(ParticipantRef, UpdateParticipant),
    ParticipantRemove(ParticipantRef),
    ParticipantList(ChannelRef, ListPage),
    MessageEdit(MessageRef, Box<EditMessage>),
    MessageDelete(MessageRef),
    MessageList(ChannelRef, ListMessages),
    ReactionAdd(MessageRef, React),
    ReactionRemove(MessageRef, React),
    ReadMark(ChannelRef, MarkRead),
    Typing(ChannelRef, Typing),
    PresenceWatch(Asked, UserIds),
    UserGet(UserIds),
    UserUpdate(Box<UpdateUser>),
}

impl Call {
    fn read(method: Method, request: &Request<'_>) -> Result<Self, DecodeError> {
        Ok(match method {
            Method::Connect => Self::Connect,
            Method::TokenRefresh => Self::TokenRefresh(request.params()?),
            Method::Ping => Self::Ping,
            Method::ChannelSubscribe => Self::ChannelSubscribe(request.params()?),
            Method::ChannelUnsubscribe => Self::ChannelUnsubscribe(request.params()?),
            Method::ChannelList => Self::ChannelList(request.params()?),
            Method::ChannelCreate => Self::ChannelCreate(request.params()?),
            Method::ChannelUpdate => Self::ChannelUpdate(request.params()?, request.params()?),
            Method::ChannelDelete => Self::ChannelDelete(request.params()?),
            Method::ChannelJoin => Self::ChannelJoin(request.params()?),
            Method::ChannelLeave => Self::ChannelLeave(request.params()?),
            Method::ParticipantAdd => Self::ParticipantAdd(request.params()?, request.params()?),
            Method::ParticipantUpdate => {
                Self::ParticipantUpdate(request.params()?, request.params()?)
            }
            Method::ParticipantRemove => Self::ParticipantRemove(request.params()?),
            Method::ParticipantList => Self::ParticipantList(request.params()?, request.params()?),
            Method::MessageSend => return Err(DecodeError("sends stand in line".into())),
            Method::MessageEdit => Self::MessageEdit(request.params()?, request.params()?),
            Method::MessageDelete => Self::MessageDelete(request.params()?),
            Method::MessageList => Self::MessageList(request.params()?, request.params()?),
            Method::ReactionAdd => Self::ReactionAdd(request.params()?, request.params()?),
            Method::ReactionRemove => Self::ReactionRemove(request.params()?, request.params()?),
            Method::ReadMark => Self::ReadMark(request.params()?, request.params()?),
            Method::Typing => Self::Typing(request.params()?, request.params()?),
            Method::PresenceWatch => Self::PresenceWatch(Asked::now(), request.params()?),
            Method::UserGet => Self::UserGet(request.params()?),
            Method::UserUpdate => Self::UserUpdate(request.params()?),
        })
    }
}

impl Sessions {
    async fn serve(&self, session: &Arc<Session>, id: u32, call: Call) -> Result<Answer> {
        let services = &self.services;
        let actor = &session.actor();
        let answer = Reply { session, id };
        match call {
            Call::Connect => Err(Error::bad_request("this connection has a session already")),
            Call::Ping => answer.with(&Pong {
                at: self.services.clock.now_ms(),
            }),
            Call::TokenRefresh(params) => answer.with(&self.refresh(session, &params.token).await?),
            Call::ChannelSubscribe(params) => {
                if params.channels.len() > MAX_SUBSCRIBE {
                    return Err(Error::bad_request(format!(
                        "at most {MAX_SUBSCRIBE} channels at once"
                    )));
                }
                let (channels, starts) = self.subscribe(session, params.channels).await?;
                Ok(Answer {
                    starts,
                    ..answer.with(&Subscribed { channels })?
                })
            }
            Call::ChannelUnsubscribe(params) => {
                session.unsubscribe(&params.channel_ids).await;
                answer.with(&Empty {})
            }
            Call::ChannelList(page) => answer.with(
                &services
                    .list_entries(actor, session.user(), page.cursor, page.limit)
                    .await?,
            ),
            Call::ChannelCreate(body) => {
                let (channel, _) = services.create_channel(actor, *body).await?;
                answer.with(&ChannelResult {
                    channel: channel.value,
                })
            }
            Call::ChannelUpdate(at, patch) => {
                let channel = services
                    .update_channel(actor, &at.channel_id, *patch, None)
                    .await?;
                answer.with(&ChannelResult {
                    channel: channel.value,
                })
            }
            Call::ChannelDelete(at) => {
                services.delete_channel(actor, &at.channel_id, None).await?;
                answer.with(&Empty {})
            }
            Call::ChannelJoin(at) => {
                let participant = services.join_channel(actor, &at.channel_id).await?;
                answer.with(&ParticipantResult { participant })
            }
            Call::ChannelLeave(at) => {
                services.leave_channel(actor, &at.channel_id).await?;
                answer.with(&Empty {})
            }
            Call::ParticipantAdd(at, body) => {
                let (participant, _) = services
                    .add_participant(actor, &at.channel_id, body)
                    .await?;
                answer.with(&ParticipantResult {
                    participant: participant.value,
                })
            }
            Call::ParticipantUpdate(at, body) => {
                let participant = services
                    .update_participant(actor, &at.channel_id, &at.user_id, body, None)
                    .await?;
                answer.with(&ParticipantResult {
                    participant: participant.value,
                })
            }
            Call::ParticipantRemove(at) => {
                services
                    .remove_participant(actor, &at.channel_id, &at.user_id, None)
                    .await?;
                answer.with(&Empty {})
            }
            Call::ParticipantList(at, page) => answer.with(
                &services
                    .list_participants(actor, &at.channel_id, page.cursor, page.limit)
                    .await?,
            ),
            Call::MessageEdit(at, patch) => {
                let message = services
                    .edit_message(actor, &at.channel_id, &at.message_id, *patch, None)
                    .await?;
                answer.with(&MessageResult { message })
            }
            Call::MessageDelete(at) => {
                services
                    .delete_message(actor, &at.channel_id, &at.message_id, None)
                    .await?;
                answer.with(&Empty {})
            }
            Call::MessageList(at, query) => {
                answer.with(&services.list_messages(actor, &at.channel_id, query).await?)
            }
            Call::ReactionAdd(at, React { emoji }) => answer.with(
                &services
                    .add_reaction(actor, &at.channel_id, &at.message_id, &emoji, None)
                    .await?,
            ),
            Call::ReactionRemove(at, React { emoji }) => answer.with(
                &services
                    .remove_reaction(actor, &at.channel_id, &at.message_id, &emoji, None)
                    .await?,
            ),
            Call::ReadMark(at, MarkRead { number }) => {
                answer.with(&services.mark_read(actor, &at.channel_id, number).await?)
            }
            Call::Typing(at, Typing { typing }) => {
                services.typing(actor, &at.channel_id, typing).await?;
                answer.with(&Empty {})
            }
            Call::PresenceWatch(asked, UserIds { user_ids }) => {
                answer.with(&self.watch_presence(session, asked, user_ids).await?)
            }
            Call::UserGet(UserIds { user_ids }) => {
                answer.with(&services.users(actor, &user_ids).await?)
            }
            Call::UserUpdate(patch) => {
                let user = services
                    .update_user(actor, session.user(), *patch, None)
                    .await?;
                answer.with(&UserResult { user: user.value })
            }
        }
    }

    async fn refresh(&self, session: &Session, token: &str) -> Result<Refreshed> {
        let verified = self
            .authenticator
            .verify(token)
            .await
            .map_err(Error::from)?;
        if verified.actor.scope != *session.scope() || verified.actor.user() != Some(session.user())
        {
            return Err(Error::forbidden("the token is of another user"));
        }
        let expires_at = verified.expires_at_ms;
        session.refresh(Credential {
            who: verified.actor.who,
            expires_at,
        });
        if let Some(code) = self.has_ended(session) {
            session.close(code, None);
        }
        Ok(Refreshed { expires_at })
    }

    /// Sends an error; its cause goes to the log, though not that of each request while the store is away.
    pub(super) fn answer_error(&self, session: &Session, id: u32, error: &Error) {
        self.metrics
            .error(crate::metrics::Transport::WebSocket, error.code());
        if let Some(cause) = &error.cause
            && let Some(held_back) = FAILURES.pass(Instant::now())
        {
            tracing::warn!(session = %session.id, code = %error.code(), %cause, held_back, "a request failed");
        }
        session.reply_error(id, &error.body);
    }
}

struct Reply<'a> {
    session: &'a Session,
    id: u32,
}

impl Reply<'_> {
    fn with<T: Serialize>(self, result: &T) -> Result<Answer> {
        Ok(Answer {
            payload: encode_result(self.session.encoding, self.id, result),
            starts: Starts::default(),
        })
    }
}
